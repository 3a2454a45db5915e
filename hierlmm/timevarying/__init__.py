"""Covariates that change over time: built from their own measurement history, split into levels, and checked.

``time_varying`` gives each row of the outcome the value that a rule takes from the history of a covariate up to that
row's time; ``within_between`` splits a covariate into the subject's mean and the deviation from it,
``test_within_between`` asks whether the two have the same slope, and ``check_exogeneity`` whether past outcomes predict
the covariate.
"""

from __future__ import annotations

from hierlmm.timevarying.build import TimeVarying, time_varying
from hierlmm.timevarying.exogeneity import ExogeneityCheck, check_exogeneity
from hierlmm.timevarying.levels import WithinBetweenTest, test_within_between, within_between
from hierlmm.timevarying.rules import Cumulative, CurrentValue, Interpolate, Lag, LastValue, TimeSince

__all__ = [
    "Cumulative",
    "CurrentValue",
    "ExogeneityCheck",
    "Interpolate",
    "Lag",
    "LastValue",
    "TimeSince",
    "TimeVarying",
    "WithinBetweenTest",
    "check_exogeneity",
    "test_within_between",
    "time_varying",
    "within_between",
]
