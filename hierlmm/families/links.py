"""Links: what turns the linear predictor η into a mean μ, with three derivatives for the kernels.

Each is a small frozen object with the function and its inverse in numpy, and ``compiled``, a compiled function from a
number η to ``(μ, dμ/dη, d²μ/dη², d³μ/dη³)``. A distribution function F (logit, probit, cloglog) has besides
``log_tails``: log F and log(1 − F), each with three derivatives, which do not lose digits where F is close to 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.families.special import HALF_LOG_2PI, log_normal_cdf

type Derivatives = tuple[float, float, float, float]


@compiled(error_model="numpy")
def identity(eta: float) -> Derivatives:
    """Return η."""
    return eta, 1.0, 0.0, 0.0


@compiled(error_model="numpy")
def exponential(eta: float) -> Derivatives:
    """Inverse of the logarithm."""
    mu = math.exp(eta)
    return mu, mu, mu, mu


@compiled(error_model="numpy")
def reciprocal(eta: float) -> Derivatives:
    """Inverse of 1/μ."""
    mu = 1.0 / eta
    return mu, -mu * mu, 2.0 * mu * mu * mu, -6.0 * mu * mu * mu * mu


@compiled(error_model="numpy")
def square(eta: float) -> Derivatives:
    """Inverse of √μ; below zero as above, so that a distribution of η has a likelihood."""
    return eta * eta, 2.0 * eta, 2.0, 0.0


@compiled(error_model="numpy")
def expit(eta: float) -> Derivatives:
    """Inverse of the logit."""
    tail = math.exp(-abs(eta))
    mu = 1.0 / (1.0 + tail) if eta >= 0.0 else tail / (1.0 + tail)
    v = tail / ((1.0 + tail) * (1.0 + tail))
    return mu, v, v * (1.0 - 2.0 * mu), v * (1.0 - 6.0 * v)


@compiled(error_model="numpy")
def normal_cdf(eta: float) -> Derivatives:
    """Inverse of the probit."""
    density = math.exp(-0.5 * eta * eta - HALF_LOG_2PI)
    return 0.5 * math.erfc(-eta / math.sqrt(2.0)), density, -eta * density, (eta * eta - 1.0) * density


@compiled(error_model="numpy")
def gompertz(eta: float) -> Derivatives:
    """Inverse of the complementary log-log, 1 − exp(−exp η)."""
    t = math.exp(min(eta, 350.0))  # beyond, exp(−t) is zero and t² infinite
    d = t * math.exp(-t)
    return -math.expm1(-t), d, d * (1.0 - t), d * (1.0 - 3.0 * t + t * t)


@compiled(error_model="numpy")
def log_expit(eta: float) -> tuple[Derivatives, Derivatives]:
    """Log F and log(1 − F) of the logistic distribution, with derivatives."""
    mu, v, v1, _ = expit(eta)
    rest = math.exp(-abs(eta)) / (1.0 + math.exp(-abs(eta))) if eta >= 0.0 else 1.0 - mu
    soft = math.log1p(math.exp(-abs(eta)))
    return (min(eta, 0.0) - soft, rest, -v, -v1), (-max(eta, 0.0) - soft, -mu, -v, -v1)


@compiled(error_model="numpy")
def log_normal(eta: float) -> tuple[Derivatives, Derivatives]:
    """Log Φ and log(1 − Φ), with derivatives."""
    value, first, second, third = log_normal_cdf(-eta)
    return log_normal_cdf(eta), (value, -first, second, -third)


@compiled(error_model="numpy")
def log_gompertz(eta: float) -> tuple[Derivatives, Derivatives]:
    """Log F and log(1 − F) of ``F = 1 − exp(−t)``, t = exp η, with derivatives.

    The first derivative of log F is ``g = t / (exp t − 1)``, and ``g' = g (1 − g − t)``.
    """
    t = math.exp(eta)
    if t > 700.0:
        return (-math.exp(-t), 0.0, 0.0, 0.0), (-t, -t, -t, -t)
    value = math.log(-math.expm1(-t)) if t > 1e-8 else eta - 0.5 * t
    g = t / math.expm1(t) if t > 0.0 else 1.0
    s = 1.0 - g - t if t > 1e-5 else -0.5 * t - t * t / 12.0
    g1 = g * s
    return (value, g, g1, g1 * s - g * (g1 + t)), (-t, -t, -t, -t)


@dataclass(frozen=True)
class Link:
    """A link function.

    Attributes
    ----------
    name : str
    link, inverse : callable
        From means to η and back, on arrays.
    compiled : callable
        From a number η to μ and its first three derivatives.
    log_tails : callable, optional
        Of a distribution function: log F and log(1 − F), each with its first three derivatives.
    words : str
        What one unit of η means: ``exp`` of a coefficient is this; empty where it is none.
    """

    name: str
    link: Callable[[FloatArray], FloatArray]
    inverse: Callable[[FloatArray], FloatArray]
    compiled: Any
    log_tails: Any = None
    words: str = ""

    def slope(self, eta: FloatArray) -> FloatArray:
        """Derivative of the inverse, on arrays.

        Parameters
        ----------
        eta : (...)
            Linear predictors.
        """
        return SLOPES[self.name](eta)


def carried(back: Callable[[FloatArray], FloatArray], lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Ends of an interval of linear predictors as means, (2, ...).

    The square root folds at zero, which is then the lower end; a reciprocal has no interval across zero: NaN.
    """
    with np.errstate(divide="ignore"):
        found = back(np.stack([lower, np.clip(0.0, lower, upper), upper]))
    ends = np.stack([found.min(axis=0), found.max(axis=0)])
    return np.where(np.isinf(found[1]) & np.isfinite(lower), np.nan, ends)


def _cloglog_inverse(eta: FloatArray) -> FloatArray:
    return -np.expm1(-np.exp(eta))


LINKS = {
    link.name: link
    for link in (
        Link("identity", np.asarray, np.asarray, identity),
        Link("log", np.log, np.exp, exponential, words="ratio"),
        Link("logit", special.logit, special.expit, expit, log_expit, words="odds ratio"),
        Link("probit", special.ndtri, special.ndtr, normal_cdf, log_normal),
        Link("cloglog", lambda mu: np.log(-np.log1p(-mu)), _cloglog_inverse, gompertz, log_gompertz, "hazard ratio"),
        Link("inverse", np.reciprocal, np.reciprocal, reciprocal),
        Link("sqrt", np.sqrt, np.square, square),
    )
}
"""Link -> its functions."""

SLOPES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "identity": np.ones_like,
    "log": np.exp,
    "logit": lambda eta: special.expit(eta) * special.expit(-eta),
    "probit": lambda eta: np.exp(-0.5 * eta**2 - HALF_LOG_2PI),
    "cloglog": lambda eta: np.exp(eta - np.exp(eta)),
    "inverse": lambda eta: -1.0 / eta**2,
    "sqrt": lambda eta: 2.0 * eta,
}
"""Link -> derivative of its inverse."""
