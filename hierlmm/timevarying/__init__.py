"""Covariates that change over time: built from their own measurement history, split into levels, and checked.

``time_varying`` gives each row of the outcome the value that a rule takes from the history of a covariate up to that
row's time; ``within_between`` splits a covariate into the subject's mean and the deviation from it,
``test_within_between`` asks whether the two have the same slope, and ``check_exogeneity`` whether past outcomes predict
the covariate.
"""
