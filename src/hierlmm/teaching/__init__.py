"""Demonstrations on fitted models: the two-step iteration, what a marginal model says about a hierarchy, and what not."""
