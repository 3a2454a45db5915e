"""Two-level and marginal models of the dental data with every residual structure, also a user's own."""

from __future__ import annotations

import dataclasses

import numpy as np

import hierlmm as hl
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction


@dataclasses.dataclass(frozen=True)
class Tent(ResidualCorrelation):
    """A user's structure: ``max(0, 1 - lag / reach)``."""

    time: str = "time"

    def parameters(self, observed):
        return (Parameter("reach", 12.0, 6.5),)

    def matrix(self, t, values):
        return np.maximum(0.0, 1.0 - np.abs(t[..., :, None] - t[..., None, :]) / values[0])


@dataclasses.dataclass(frozen=True)
class NamedTent(Tent):
    def formula(self):
        return "max(0, 1 - |lag| / reach) & <more>"


@dataclasses.dataclass(frozen=True)
class Squared(hl.AR1):
    """Inherits a formula that is not its own."""

    def matrix(self, t, values):
        return super().matrix(t, values) ** 2

    def markov(self, gaps, values):
        return None


@dataclasses.dataclass(frozen=True)
class Steps(VarianceFunction):
    variable: str = "time"

    def prepare(self, column):
        return column.to_numpy(dtype=float), None

    def parameters(self, v, state):
        return (Parameter("jump", 1.2, 0.0),)

    def log_ratio(self, v, values):
        return np.log(values[0]) * (v > 2)


def two_level(data, **structure):
    return hl.TwoLevelModel(
        "distance ~ time",
        {"Intercept": "sex", "time": "sex"},
        subject="subject",
        data=data,
        random=["Intercept"],
        **structure,
    )


def marginal(data, correlation=None, variance=None):
    return hl.MarginalModel(
        "distance ~ sex * time", correlation=correlation, variance=variance, subject="subject", data=data
    )


CORRELATIONS = [
    hl.AR1(),
    hl.AR1("visit", nugget=True),
    hl.CAR1("time"),
    hl.Exponential("time", nugget=True),
    hl.Gaussian("time"),
    hl.CompoundSymmetry(),
    hl.Toeplitz("visit"),
    hl.Unstructured("age"),
    Tent(),
    NamedTent(),
    Squared(),
]
VARIANCES = [None, hl.VarIdent("sex"), hl.VarIdent("age"), hl.VarPower("age"), hl.VarExp("time"), Steps()]
