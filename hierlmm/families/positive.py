"""Positive responses: gamma, ``l = α log α − log Γ(α) + (α − 1) log y − α log μ − α y/μ``, α = exp ψ the shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled
from hierlmm.families.family import Family, refuse_rows
from hierlmm.families.special import digamma


@compiled(error_model="numpy")
def gamma_log(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Gamma, in η = log μ."""
    shape = math.exp(psi[0])
    x = math.log(y) - eta
    ratio = math.exp(x)
    d[0] = shape * (psi[0] + x - ratio) - math.lgamma(shape) - math.log(y)
    d[1] = shape * (ratio - 1.0)
    d[2] = -shape * ratio
    d[3] = shape * ratio
    if order != 2:
        d[4] = shape * (psi[0] + 1.0 - digamma(shape) + x - ratio)
        d[5] = d[1]
        d[6] = d[2]


@compiled(error_model="numpy")
def gamma(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Gamma, in μ."""
    if not mu > 0.0:
        d[0] = -math.inf
        d[1], d[2], d[3], d[4], d[5], d[6] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        return
    shape = math.exp(psi[0])
    ratio = y / mu
    d[0] = shape * (psi[0] + math.log(ratio) - ratio) - math.lgamma(shape) - math.log(y)
    d[1] = shape * (ratio - 1.0) / mu
    d[2] = shape * (1.0 - 2.0 * ratio) / (mu * mu)
    d[3] = shape * (6.0 * ratio - 2.0) / (mu * mu * mu)
    if order != 2:
        d[4] = shape * (psi[0] + 1.0 - digamma(shape) + math.log(ratio) - ratio)
        d[5] = d[1]
        d[6] = d[2]


@dataclass(frozen=True)
class Gamma(Family):
    """Positive responses with a constant coefficient of variation, ``1 / √shape``."""

    name: ClassVar[str] = "gamma"
    title: ClassVar[str] = "gamma"
    links: ClassVar[tuple[str, ...]] = ("log", "inverse", "identity")
    concave: ClassVar[tuple[str, ...]] = ("log", "inverse")
    dispersion: ClassVar[tuple[str, ...]] = ("shape",)
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Gamma", "bambi": "gamma", "statsmodels": "Gamma"}
    )
    density = staticmethod(gamma)

    def direct(self) -> Any:
        return gamma_log if self.link == "log" else None

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        remedy = "check these rows; where zeros are real, model whether there is anything apart from how much"
        refuse_rows(~(y > 0), y, name, "values that are not positive", "a gamma response is positive", remedy)

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return mu**2 * np.exp(-psi[0])

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return 2.0 * np.exp(psi[0]) * (y / mu - 1.0 - np.log(y / mu))

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        shape = np.exp(psi[..., 0])
        return rng.gamma(shape, mu / shape)

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return np.log([np.mean(y) ** 2 / max(float(np.var(y)), 1e-300)])
