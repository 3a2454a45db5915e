"""Student's t: location η, scale σ = exp ψ₀, degrees of freedom ν = exp ψ₁ (or given).

With r = y − η and ``Q = ν σ² + r²``: ``∂l = (ν + 1) r/Q``, ``∂²l = (ν + 1)(r² − νσ²)/Q²``, positive far from η: l is
not concave, and an outlier has less pull the further out it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled
from hierlmm.families.family import Family
from hierlmm.families.special import digamma


@compiled(error_model="numpy")
def student(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Student's t, in its location."""
    s, nu = math.exp(2.0 * psi[0]), math.exp(psi[1])
    r = y - eta
    w = nu * s
    Q = w + r * r
    m = nu + 1.0
    tail = math.log1p(r * r / w)
    ends = math.lgamma(0.5 * m) - math.lgamma(0.5 * nu) if nu < 1e6 else 0.5 * math.log(0.5 * nu) - 0.25 / nu
    d[0] = ends - 0.5 * math.log(nu * math.pi) - psi[0] - 0.5 * m * tail
    d[1] = m * r / Q
    d[2] = m * (r * r - w) / (Q * Q)
    d[3] = 2.0 * m * r * (r * r - 3.0 * w) / (Q * Q * Q)
    if order != 2:
        d[4] = m * r * r / Q - 1.0
        d[5] = -2.0 * m * r * w / (Q * Q)
        d[6] = -2.0 * m * w * (3.0 * r * r - w) / (Q * Q * Q)
        slope = 0.5 * (digamma(0.5 * m) - digamma(0.5 * nu)) - 0.5 / nu if nu < 1e6 else 0.25 / (nu * nu)
        d[7] = nu * (slope - 0.5 * tail + 0.5 * m * r * r / (nu * Q))
        d[8] = nu * (r / Q - m * r * s / (Q * Q))
        d[9] = nu * ((r * r - w) / (Q * Q) - m * s / (Q * Q) - 2.0 * m * (r * r - w) * s / (Q * Q * Q))


@dataclass(frozen=True)
class StudentT(Family):
    """Measurements with outliers: Student's t around the linear predictor.

    ``sigma`` is its scale; the standard deviation is ``sigma √(nu / (nu − 2))``.
    """

    name: ClassVar[str] = "student_t"
    title: ClassVar[str] = "Student's t"
    dispersion: ClassVar[tuple[str, ...]] = ("sigma", "nu")
    log_concave: ClassVar[bool] = False
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({"pymc": "StudentT", "bambi": "t"})

    @classmethod
    def direct(cls, link: str) -> Any:
        return student

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        nu = np.exp(psi[1])
        factor = nu / (nu - 2.0) if nu > 2.0 else np.inf
        return np.full(np.shape(mu), np.exp(2.0 * psi[0]) * factor)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu + np.exp(psi[..., 0]) * rng.standard_t(np.exp(psi[..., 1]), np.shape(mu))

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return np.log([0.7 * np.std(y) or 1.0, 5.0])
