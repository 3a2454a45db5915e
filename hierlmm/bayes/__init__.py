"""Priors, the explicit hierarchy in PyMC, and its sampling."""
