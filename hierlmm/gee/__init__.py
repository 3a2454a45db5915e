"""Estimating equations: what goes in, moments of the working correlation, statsmodels' solver."""
