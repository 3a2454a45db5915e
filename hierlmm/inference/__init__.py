"""What data say beyond an estimate: bootstrap, profiles, tests, evidence, shares of variance; fits are made again."""
