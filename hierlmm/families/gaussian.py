"""The normal distribution: ``y ~ N(μ, σ²)``. Two-level models with it are fitted exactly, elsewhere in the house."""

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
from hierlmm.families.special import HALF_LOG_2PI


@compiled(error_model="numpy")
def normal(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Derivatives in μ; ψ = log σ."""
    precision = math.exp(-2.0 * psi[0])
    r = y - mu
    d[0] = -psi[0] - HALF_LOG_2PI - 0.5 * precision * r * r
    d[1] = precision * r
    d[2] = -precision
    d[3] = 0.0
    d[4] = precision * r * r - 1.0
    d[5] = -2.0 * d[1]
    d[6] = 2.0 * precision


@dataclass(frozen=True)
class Gaussian(Family):
    """Normal responses with standard deviation ``sigma``."""

    name: ClassVar[str] = "gaussian"
    title: ClassVar[str] = "Gaussian"
    links: ClassVar[tuple[str, ...]] = ("identity", "log", "inverse")
    concave: ClassVar[tuple[str, ...]] = ("identity",)
    dispersion: ClassVar[tuple[str, ...]] = ("sigma",)
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Normal", "bambi": "gaussian", "statsmodels": "Gaussian"}
    )
    density = staticmethod(normal)

    def direct(self) -> Any:
        return normal if self.link == "identity" else None

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return np.full(np.shape(mu), np.exp(2.0 * psi[0]))

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return (y - mu) ** 2 * np.exp(-2.0 * psi[0])

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return rng.normal(mu, np.exp(psi[..., 0]))

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return np.array([np.log(np.std(y) or 1.0)])

    def first_mean(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return y if self.link == "identity" else np.maximum(y, 0.1 * np.mean(np.abs(y)))
