"""Checks of a fit and of a model: leave-one-out, calibration by simulation."""
