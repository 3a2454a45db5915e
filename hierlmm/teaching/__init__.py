"""Demonstrations on fitted models: the two-step iteration, hierarchies and the marginal models they imply."""
