"""Ordered categories: cumulative probabilities ``P(y ≤ k) = F(τ_k − η)`` (McCullagh 1980, J. R. Stat. Soc. B 42).

The first threshold is zero, since η has an intercept; the others are ``τ_k = Σ_{j<k} exp ψ_j``. With ``a < b`` the
thresholds of a category less η, ``log P = u + h(v − u)`` and ``h(x) = log(1 − exp x)``: u and v are log(1 − F) at a and
b where a > 0, else log F at b and a. Nothing is lost where P underflows; derivatives are those of u and v, ``h' = −w``,
``h'' = −w (1 + w)`` and the third ``−w (1 + w)(1 + 2w)`` with ``w = 1 / (exp(−x) − 1)``.
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
from hierlmm.frames import levels_in_use, quote

# What the names stand for is filled in by `Ordinal.direct`.
log_tails: Any = None


TIGHT = 1e-7
"""Width of a category, on the scale of η, below which its probability is a density times the width."""
NEAR = 1e-5
MOST = 50
"""Categories, beyond which a response is none that has categories."""


def cumulative(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """One of ``len(psi) + 2`` categories 0, 1, ..., in η."""
    k, last = int(y), len(psi) + 1
    below = 0.0
    for j in range(k - 1):
        below += math.exp(psi[j])
    if k == 0 or k == last:  # one tail, with its own derivatives
        lower, upper = log_tails(below - eta if k else -eta)
        tail = upper if k else lower
        d[0], d[1], d[2], d[3] = tail[0], -tail[1], tail[2], -tail[3]
        for j in range(len(psi)):
            unit = math.exp(psi[j]) if k else 0.0
            d[4 + 3 * j], d[5 + 3 * j], d[6 + 3 * j] = unit * tail[1], -unit * tail[2], unit * tail[3]
        return
    width = math.exp(psi[k - 1])
    lower_a, upper_a = log_tails(below - eta)
    lower_b, upper_b = log_tails(below + width - eta)
    over = below > eta
    u, v = (upper_a, upper_b) if over else (lower_b, lower_a)  # log of the larger tail and of the smaller
    if u[0] == -math.inf:
        d[:] = 0.0
        d[0] = -math.inf
        return
    x0, x1, x2, x3 = v[0] - u[0], v[1] - u[1], v[2] - u[2], v[3] - u[3]
    if width < TIGHT:  # by Taylor's series, where the difference has no digits
        step = width if over else -width
        x0, x1 = step * (u[1] + 0.5 * step * u[2]), step * (u[2] + 0.5 * step * u[3])
        before, after = log_tails(below - eta - NEAR), log_tails(below - eta + NEAR)
        side = 1 if over else 0
        x2, x3 = step * u[3], step * (after[side][3] - before[side][3]) / (2.0 * NEAR)
    w = 1.0 / math.expm1(-x0)  # −h'
    w1 = w * (1.0 + w) * x1
    w2 = w * (1.0 + w) * ((1.0 + 2.0 * w) * x1 * x1 + x2)
    first, second = u[1] - w * x1, u[2] - w1 * x1 - w * x2
    d[0] = u[0] + math.log(-math.expm1(x0))
    d[1] = -first
    d[2] = second
    d[3] = -(u[3] - w2 * x1 - 2.0 * w1 * x2 - w * x3)
    if order == 2:
        return
    third = -d[3]
    # Of the upper threshold alone, which moves with the last ψ that counts.
    if over:
        b0, b1, b2 = -w * v[1], -w1 * v[1] - w * v[2], -w2 * v[1] - 2.0 * w1 * v[2] - w * v[3]
    else:
        b0 = (1.0 + w) * u[1]
        b1, b2 = w1 * u[1] + (1.0 + w) * u[2], w2 * u[1] + 2.0 * w1 * u[2] + (1.0 + w) * u[3]
    for j in range(len(psi)):
        unit = math.exp(psi[j]) if j < k else 0.0
        of_both = j < k - 1
        d[4 + 3 * j] = unit * (first if of_both else b0)
        d[5 + 3 * j] = -unit * (second if of_both else b1)
        d[6 + 3 * j] = unit * (third if of_both else b2)


@dataclass(frozen=True)
class Ordinal(Family):
    """Ordered categories, by cumulative probabilities (proportional odds with the logit link).

    A positive coefficient moves responses towards higher categories.
    """

    name: ClassVar[str] = "ordinal"
    title: ClassVar[str] = "ordinal"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog")
    concave: ClassVar[tuple[str, ...]] = links
    discrete: ClassVar[bool] = True
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({"pymc": "Categorical", "bambi": "cumulative"})

    def direct(self) -> Any:
        return with_names(cumulative, self.link, log_tails=self.function.log_tails)

    def categories(self, values: pd.Series, name: str) -> list[Any]:
        labels = isinstance(values.dtype, pd.CategoricalDtype)
        if labels and values.cat.ordered:
            return levels_in_use(values)
        numbers = values.cat.categories if labels else values
        if pd.api.types.is_numeric_dtype(numbers):
            return sorted(set(values.tolist()))
        received = f"{name!r} with labels that have no order"
        if labels:
            received = f"{name!r}, a factor without an order (levels {', '.join(map(quote, levels_in_use(values)))})"
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
        codes = pd.Index(levels).get_indexer(values.astype(object))
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
        names = [str(name).replace("_", " ") for name in natural]  # as a tree has them
        if not natural or names != [f"threshold {k + 2}" for k in range(len(natural))]:
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
