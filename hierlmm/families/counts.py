"""Counts: Poisson, and the negative binomial, whose variance grows with the square of the mean as well.

Poisson: ``l = y log μ − μ``. Negative binomial (NB2) with shape φ = exp ψ, variance ``μ + μ²/φ``:
``l = log Γ(y + φ) − log Γ(φ) + φ log φ + y log μ − (y + φ) log(μ + φ)``; Poisson is its limit φ → ∞.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from scipy.special import gammaln, xlogy

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled
from hierlmm.errors import DataError
from hierlmm.families.family import SEE, Family, refuse_rows
from hierlmm.families.special import digamma


@compiled(error_model="numpy")
def poisson_log(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Poisson, in η = log μ."""
    mu = math.exp(eta)
    d[0] = y * eta - mu
    d[1] = y - mu
    d[2] = -mu
    d[3] = -mu


@compiled(error_model="numpy")
def poisson(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Poisson, in μ."""
    if not mu > 0.0:
        d[0] = 0.0 if mu == 0.0 and y == 0.0 else -math.inf
        d[1], d[2], d[3] = -1.0, 0.0, 0.0
        return
    ratio = y / mu
    d[0] = y * math.log(mu) - mu
    d[1] = ratio - 1.0
    d[2] = -ratio / mu
    d[3] = 2.0 * ratio / (mu * mu)


@compiled(error_model="numpy")
def negative_binomial_log(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Negative binomial, in η = log μ; with ``p = μ / (μ + φ)``."""
    phi = math.exp(psi[0])
    x = eta - psi[0]  # log(μ / φ)
    tail = math.exp(-abs(x))
    p = 1.0 / (1.0 + tail) if x >= 0.0 else tail / (1.0 + tail)
    log_q = -max(x, 0.0) - math.log1p(tail)  # log(φ / (μ + φ))
    v = tail / ((1.0 + tail) * (1.0 + tail))
    rise = math.lgamma(y + phi) - math.lgamma(phi) if phi < 1e5 else _rising(y, phi)
    d[0] = rise + (y + phi) * log_q + y * x
    d[1] = y - (y + phi) * p
    d[2] = -(y + phi) * v
    d[3] = d[2] * (1.0 - 2.0 * p)
    if order != 2:
        more = digamma(y + phi) - digamma(phi) if phi < 1e5 else _rising_slope(y, phi)
        d[4] = phi * (more + log_q + p) - y * (1.0 - p)
        d[5] = (y + phi) * v - phi * p
        d[6] = (y + phi) * v * (1.0 - 2.0 * p) - phi * v


@compiled(error_model="numpy")
def _rising(y: float, phi: float) -> float:
    """Log Γ(y + φ) − log Γ(φ) at a large φ, by Stirling's series: differences of large logarithms lose digits."""
    z = y + phi
    return y * math.log(phi) + (z - 0.5) * math.log1p(y / phi) - y - y / (12.0 * phi * z)


@compiled(error_model="numpy")
def _rising_slope(y: float, phi: float) -> float:
    """Its derivative in φ."""
    z = y + phi
    return math.log1p(y / phi) + 0.5 * y / (phi * z) + (1.0 / (phi * phi) - 1.0 / (z * z)) / 12.0


@compiled(error_model="numpy")
def negative_binomial(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Negative binomial, in μ."""
    if not mu > 0.0:
        d[0] = -math.inf
        d[1], d[2], d[3], d[4], d[5], d[6] = -1.0, 0.0, 0.0, 0.0, 0.0, 0.0
        return
    negative_binomial_log(y, n, math.log(mu), psi, order, d)
    l1, l2, l3 = d[1], d[2], d[3]  # in log μ
    d[1] = l1 / mu
    d[2] = (l2 - l1) / (mu * mu)
    d[3] = (l3 - 3.0 * l2 + 2.0 * l1) / (mu * mu * mu)
    if order == 3:
        l1, l2 = d[5], d[6]
        d[5] = l1 / mu
        d[6] = (l2 - l1) / (mu * mu)


@dataclass(frozen=True)
class _Counts(Family):
    """What counts share."""

    links: ClassVar[tuple[str, ...]] = ("log", "identity", "sqrt")
    discrete: ClassVar[bool] = True

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        remedy = "check the column; for a positive response that is no count use family='gamma'"
        refuse_rows(y < 0, y, name, "negative values", "counts are 0, 1, 2, ...", remedy)
        refuse_rows(
            y != np.round(y),
            y,
            name,
            "fractions",
            "counts are whole numbers",
            f"{remedy}; for rates give the counts and exposure=",
        )
        if not np.any(y > 0):
            reason = "with no event at all, the likelihood rises without end as the rate goes to zero"
            raise DataError(f"{name!r} with only zeros", reason, "check the column and the filters", SEE)

    def constant(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return -gammaln(y + 1.0)

    def first_mean(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return 0.5 * (y + np.mean(y)) + 0.05 * np.mean(y)


@dataclass(frozen=True)
class Poisson(_Counts):
    """Counts whose variance is their mean."""

    name: ClassVar[str] = "poisson"
    title: ClassVar[str] = "Poisson"
    concave: ClassVar[tuple[str, ...]] = ("log", "identity")
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Poisson", "bambi": "poisson", "statsmodels": "Poisson"}
    )
    density = staticmethod(poisson)

    def direct(self) -> Any:
        return poisson_log if self.link == "log" else None

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return 2.0 * (xlogy(y, y / mu) - y + mu)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return rng.poisson(mu).astype(np.float64)


@dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Counts with variance ``μ + μ²/shape`` (NB2; glmmTMB's ``nbinom2``)."""

    name: ClassVar[str] = "negative_binomial"
    title: ClassVar[str] = "negative binomial"
    concave: ClassVar[tuple[str, ...]] = ("log",)
    dispersion: ClassVar[tuple[str, ...]] = ("shape",)
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "NegativeBinomial", "bambi": "negativebinomial", "statsmodels": "NegativeBinomial"}
    )
    density = staticmethod(negative_binomial)

    def direct(self) -> Any:
        return negative_binomial_log if self.link == "log" else None

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu + mu**2 * np.exp(-psi[0])

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        phi = np.exp(psi[0])
        return 2.0 * (xlogy(y, y / mu) - (y + phi) * np.log((y + phi) / (mu + phi)))

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        phi = np.exp(psi[..., 0])
        return rng.poisson(mu * rng.gamma(phi, 1.0 / phi, np.shape(mu))).astype(np.float64)

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        mean = float(np.mean(y))
        return np.log([mean**2 / max(float(np.var(y)) - mean, 0.1 * mean)])
