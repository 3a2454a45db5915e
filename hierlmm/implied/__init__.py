"""The marginal model that a fit implies: ``V = Z D Z' + Σ`` of one subject at chosen times, with bands."""
