"""Ordered categories: cumulative probabilities ``P(y ≤ k) = F(τ_k − η)`` (McCullagh 1980, J. R. Stat. Soc. B 42).

The first threshold is zero, since η has an intercept; the others are ``τ_k = Σ_{j<k} exp ψ_j``. With ``a`` and ``b``
the thresholds of a category less η and ``P = F(b) − F(a)``, derivatives are ratios of densities to P.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import with_names
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.families.family import SEE, Family, positive, refuse_rows

# What the names stand for is filled in by `Ordinal.direct`.
log_tails: Any = None
inverse: Any = None


MOST = 50
"""Categories, beyond which a response is none that has categories."""


def cumulative(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """One of ``len(psi) + 2`` categories 0, 1, ..., in η."""
    k, last = int(y), len(psi) + 1
    below = 0.0
    for j in range(k - 1):
        below += math.exp(psi[j])
    above = below + math.exp(psi[k - 1]) if 0 < k < last else 0.0
    if k == 0 or k == last:  # one tail, with its own derivatives
        lower, upper = log_tails(below - eta if k else -eta)
        tail = upper if k else lower
        d[0], d[1], d[2], d[3] = tail[0], -tail[1], tail[2], -tail[3]
        for j in range(len(psi)):
            unit = math.exp(psi[j]) if k else 0.0
            d[4 + 3 * j], d[5 + 3 * j], d[6 + 3 * j] = unit * tail[1], -unit * tail[2], unit * tail[3]
        return
    low_a, high_a = log_tails(below - eta)
    low_b, high_b = log_tails(above - eta)
    if below > eta:  # differences of the smaller tails
        log_p = high_a[0] + math.log(-math.expm1(high_b[0] - high_a[0]))
    else:
        log_p = low_b[0] + math.log(-math.expm1(low_a[0] - low_b[0]))
    p = math.exp(log_p)
    _, f, f1, f2 = inverse(below - eta)
    a0, a1, a2 = f / p, f1 / p, f2 / p
    _, f, f1, f2 = inverse(above - eta)
    b0, b1, b2 = f / p, f1 / p, f2 / p
    g, g1, g2 = b0 - a0, b1 - a1, b2 - a2
    d[0] = log_p
    d[1] = -g
    d[2] = g1 - g * g
    d[3] = -(g2 - 3.0 * g * g1 + 2.0 * g * g * g)
    if order == 2:
        return
    # Derivatives in the two thresholds, and from them in ψ.
    A1, A2 = a1 - g * a0, a2 - g1 * a0 - 2.0 * g * (a1 - g * a0)
    B1, B2 = b1 - g * b0, b2 - g1 * b0 - 2.0 * g * (b1 - g * b0)
    for j in range(len(psi)):
        unit = math.exp(psi[j])
        in_a = unit if k > j + 1 else 0.0
        in_b = unit if k > j else 0.0
        d[4 + 3 * j] = b0 * in_b - a0 * in_a
        d[5 + 3 * j] = -B1 * in_b + A1 * in_a
        d[6 + 3 * j] = B2 * in_b - A2 * in_a


@dataclass(frozen=True)
class Ordinal(Family):
    """Ordered categories, by cumulative probabilities (proportional odds with the logit link).

    A positive coefficient moves responses towards higher categories.
    """

    name: ClassVar[str] = "ordinal"
    title: ClassVar[str] = "ordinal"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog")
    concave: ClassVar[tuple[str, ...]] = links
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({"pymc": "Categorical", "bambi": "cumulative"})

    def direct(self) -> Any:
        return with_names(cumulative, self.link, log_tails=self.function.log_tails, inverse=self.function.compiled)

    def categories(self, values: pd.Series, name: str) -> list[Any]:
        if isinstance(values.dtype, pd.CategoricalDtype):
            return [level for level in values.cat.categories if (values == level).any()]
        if pd.api.types.is_numeric_dtype(values):
            return sorted(set(values.tolist()))
        received = f"{name!r} with labels that have no order"
        remedy = f"give it one: pd.Categorical(data[{name!r}], categories=[...], ordered=True), lowest first"
        raise DataError(received, "an ordinal response is a factor with ordered levels, or numbers", remedy, SEE)

    def response(self, values: pd.Series, name: str) -> tuple[FloatArray, str]:
        levels = self.categories(values, name)
        if len(levels) < 3:
            reason, remedy = "ordered categories are three or more", "for two use family='bernoulli'"
            raise DataError(f"{name!r} with {len(levels)} categories", reason, remedy, SEE)
        if len(levels) > MOST:
            reason = "each category has a threshold of its own, and this looks like a measurement"
            remedy = "use family='gaussian' or 'student_t', or make categories of it (pd.cut)"
            raise DataError(f"{name!r} with {len(levels)} categories", reason, remedy, SEE)
        codes = pd.Categorical(values, categories=levels).codes
        return codes.astype(np.float64), "categories: " + " < ".join(map(str, levels))

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        refuse_rows(y != np.round(y), y, name, "fractions", "categories are numbered 0, 1, ...", "use whole numbers")

    def first_mean(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return np.full(len(y), np.mean(y > 0))

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        cumulated = np.cumsum(np.bincount(y.astype(int)))[:-1] / len(y)
        return np.log(np.maximum(np.diff(self.function.link(cumulated)), 1e-3))

    def mean(self, eta: FloatArray) -> FloatArray:
        received, reason = "means of an ordinal response", "categories have an order and no distances, so no mean"
        remedy = "use fit.probabilities() for those of the categories, or scale='link' for linear predictors"
        raise NotAvailableError(received, reason, remedy, SEE)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        """Draw categories at linear predictors (in the place of means)."""
        cumulated = np.cumsum(self.probabilities(mu, psi), axis=-1)
        return np.sum(rng.random(np.shape(mu))[..., None] > cumulated[..., :-1], axis=-1).astype(np.float64)

    def natural(self, psi: FloatArray) -> dict[str, float]:
        return {f"threshold {k + 2}": float(t) for k, t in enumerate(np.cumsum(np.exp(psi)))}

    def psi(self, natural: Mapping[str, float]) -> FloatArray:
        remedy = "give those above the first, which is 0, in ascending order: dispersion={'threshold 2': 1.5, ...}"
        received = f"dispersion={dict(natural)!r} of an ordinal response"
        if not natural or list(natural) != [f"threshold {k + 2}" for k in range(len(natural))]:
            raise SpecificationError(received, "its dispersion parameters are thresholds", remedy, SEE)
        ends = [0.0, *natural.values()]
        return np.log([positive(b - a, received, remedy) for a, b in pairwise(ends)])

    def thresholds(self, psi: FloatArray) -> FloatArray:
        """Thresholds between neighbouring categories, the first of which is zero: (..., K - 2) -> (..., K - 1)."""
        return np.concatenate([np.zeros((*np.shape(psi)[:-1], 1)), np.cumsum(np.exp(psi), axis=-1)], axis=-1)

    def probabilities(self, eta: FloatArray, psi: FloatArray) -> FloatArray:
        """Probability of each category: (...) and (..., K - 2), or one ψ for all, -> (..., K)."""
        return self.between(self.function.inverse(self.thresholds(psi) - np.asarray(eta)[..., None]))

    @staticmethod
    def between(below: FloatArray) -> FloatArray:
        """Probability of each category from those of this category or a lower one: (..., K - 1) -> (..., K)."""
        ends = np.zeros((*below.shape[:-1], 1))
        return np.diff(np.concatenate([ends, below, ends + 1.0], axis=-1), axis=-1)
