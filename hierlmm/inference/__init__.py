"""What data say beyond an estimate: bootstrap, profiles, tests, shares of variance; from fits, which it makes again."""
