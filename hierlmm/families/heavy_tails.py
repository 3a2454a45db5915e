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
from hierlmm.compiled import compiled, with_names
from hierlmm.errors import SpecificationError
from hierlmm.families.family import SEE, Family
from hierlmm.families.special import digamma

LARGEST_NU = 1e6


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


# What the name stands for is filled in by `StudentT.direct`.
given_nu: Any = None


def student_given(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Student's t with given degrees of freedom, in its location."""
    s = math.exp(2.0 * psi[0])
    r = y - eta
    w = given_nu * s
    Q = w + r * r
    m = given_nu + 1.0
    ends = math.lgamma(0.5 * m) - math.lgamma(0.5 * given_nu)
    d[0] = ends - 0.5 * math.log(given_nu * math.pi) - psi[0] - 0.5 * m * math.log1p(r * r / w)
    d[1] = m * r / Q
    d[2] = m * (r * r - w) / (Q * Q)
    d[3] = 2.0 * m * r * (r * r - 3.0 * w) / (Q * Q * Q)
    if order != 2:
        d[4] = m * r * r / Q - 1.0
        d[5] = -2.0 * m * r * w / (Q * Q)
        d[6] = -2.0 * m * w * (3.0 * r * r - w) / (Q * Q * Q)


@dataclass(frozen=True)
class StudentT(Family):
    """Measurements with outliers: Student's t around the linear predictor.

    ``sigma`` is its scale; the standard deviation is ``sigma √(nu / (nu − 2))``.

    Parameters
    ----------
    nu : float, optional
        Degrees of freedom; estimated unless given.
    """

    nu: float | None = None
    name: ClassVar[str] = "student_t"
    title: ClassVar[str] = "Student's t"
    location: ClassVar[bool] = True
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({"pymc": "StudentT", "bambi": "t"})

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.nu is not None
        number = isinstance(self.nu, (int, float, np.number)) and not isinstance(self.nu, bool)
        if given and not (number and 0.0 < self.nu <= LARGEST_NU):  # type: ignore[operator]
            received, reason = f"StudentT(nu={self.nu!r})", f"degrees of freedom lie between 0 and {LARGEST_NU:g}"
            raise SpecificationError(received, reason, "give such a number, or leave nu out to estimate it", SEE)

    @property
    def dispersion(self) -> tuple[str, ...]:  # type: ignore[override]  # what is estimated
        return ("sigma", "nu") if self.nu is None else ("sigma",)

    def direct(self) -> Any:
        return student if self.nu is None else with_names(student_given, f"nu_{self.nu!r}", given_nu=float(self.nu))

    def _nu(self, psi: FloatArray) -> FloatArray:
        return np.exp(psi[..., 1]) if self.nu is None else np.asarray(self.nu)

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        nu = float(self._nu(psi))
        factor = nu / (nu - 2.0) if nu > 2.0 else np.inf
        return np.full(np.shape(mu), np.exp(2.0 * psi[0]) * factor)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu + np.exp(psi[..., 0]) * rng.standard_t(self._nu(psi), np.shape(mu))

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return np.log([0.7 * np.std(y) or 1.0, 5.0][: len(self.dispersion)])
