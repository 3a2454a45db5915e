"""What data say beyond an estimate: bootstrap, profiles, tests, evidence, shares of variance; from fits it makes again."""
