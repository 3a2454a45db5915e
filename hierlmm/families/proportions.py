"""Proportions strictly between 0 and 1: beta with mean μ and precision φ = exp ψ, y ~ Beta(μφ, (1 − μ)φ)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled, with_names
from hierlmm.families.family import Family, chained, refuse_rows
from hierlmm.families.special import digamma, tetragamma, trigamma


@compiled(error_model="numpy")
def without_ends(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Beta less log μ + log(1 − μ), in μ: as ``log Γ(a) = log Γ(1 + a) − log a``, it has no pole at 0 or 1."""
    phi = math.exp(psi[0])
    a, b = mu * phi, (1.0 - mu) * phi
    log_y, log_rest = math.log(y), math.log1p(-y)
    d[0] = math.lgamma(phi) - math.lgamma(1.0 + a) - math.lgamma(1.0 + b) + 2.0 * psi[0]
    d[0] += (a - 1.0) * log_y + (b - 1.0) * log_rest
    first_a, first_b = digamma(1.0 + a), digamma(1.0 + b)
    slope = log_y - log_rest - first_a + first_b
    second_a, second_b = trigamma(1.0 + a), trigamma(1.0 + b)
    third_a, third_b = tetragamma(1.0 + a), tetragamma(1.0 + b)
    d[1] = phi * slope
    d[2] = -phi * phi * (second_a + second_b)
    d[3] = -phi * phi * phi * (third_a - third_b)
    d[4] = 2.0 + phi * (digamma(phi) - mu * first_a - (1.0 - mu) * first_b + mu * log_y + (1.0 - mu) * log_rest)
    d[5] = phi * (slope - a * second_a + b * second_b)
    d[6] = phi * phi * (-2.0 * (second_a + second_b) - a * third_a - b * third_b)


# What the names stand for is filled in by `Beta.direct`.
log_tails: Any = None
rest: Any = None


def beta(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Beta, in η."""
    rest(y, n, eta, psi, order, d)
    lower, upper = log_tails(eta)
    for k in range(4):
        d[k] += lower[k] + upper[k]


@dataclass(frozen=True)
class Beta(Family):
    """Proportions with variance ``μ(1 − μ) / (1 + precision)``."""

    name: ClassVar[str] = "beta"
    title: ClassVar[str] = "beta"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog")
    dispersion: ClassVar[tuple[str, ...]] = ("precision",)
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Beta", "bambi": "beta", "statsmodels": "Binomial"}  # its variance but for a factor, which is GEE's φ
    )

    def direct(self) -> Any:
        inverse, tails = self.function.compiled, self.function.log_tails
        chain = with_names(chained, f"beta_{self.link}", inverse=inverse, density=without_ends)
        return with_names(beta, self.link, log_tails=tails, rest=compiled(error_model="numpy")(chain))

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        reason = "a beta response lies strictly between 0 and 1"
        remedy = "for counts among trials use family='binomial' with trials=; percentages are divided by 100"
        refuse_rows(~((y > 0) & (y < 1)), y, name, "values outside (0, 1)", reason, remedy)

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu * (1.0 - mu) / (1.0 + np.exp(psi[0]))

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        phi = np.exp(psi[..., 0])
        return rng.beta(mu * phi, (1.0 - mu) * phi)

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        mean = float(np.mean(y))
        return np.log([max(mean * (1.0 - mean) / max(float(np.var(y)), 1e-12) - 1.0, 0.5)])
