"""Covariance families: of the random effects (D), and later of the residuals."""
