"""Yes or no, and numbers of successes among trials: ``l = y log F(η) + (n − y) log(1 − F(η))``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.special import gammaln, xlogy

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled, with_names
from hierlmm.errors import DataError
from hierlmm.families.family import SEE, Family, refuse_rows
from hierlmm.frames import levels_in_use, quote

# What the name stands for is filled in by `Bernoulli.direct`.
log_tails: Any = None


def by_tails(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Binomial, in η, from the logarithms of F and 1 − F."""
    lower, upper = log_tails(eta)
    for k in range(4):
        d[k] = (y * lower[k] if y > 0.0 else 0.0) + ((n - y) * upper[k] if n > y else 0.0)


@compiled(error_model="numpy")
def binomial_logit(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Binomial, in η = logit μ: one exponential and one logarithm."""
    tail = math.exp(-abs(eta))
    upper = 1.0 / (1.0 + tail)
    p = upper if eta >= 0.0 else tail * upper
    d[0] = y * eta - n * (max(eta, 0.0) + (math.log(1.0 + tail) if tail > 0.01 else math.log1p(tail)))
    d[1] = y - n * p
    if order > 1:
        d[2] = -n * tail * upper * upper
        d[3] = d[2] * (1.0 - 2.0 * p)


@compiled(error_model="numpy")
def binomial(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Binomial, in μ (identity and log links)."""
    if not 0.0 < mu < 1.0:
        d[0] = -math.inf
        d[1], d[2], d[3] = 0.0, 0.0, 0.0
        return
    a, b = y / mu, (n - y) / (1.0 - mu)
    d[0] = y * math.log(mu) + (n - y) * math.log1p(-mu)
    d[1] = a - b
    d[2] = -a / mu - b / (1.0 - mu)
    d[3] = 2.0 * a / (mu * mu) - 2.0 * b / ((1.0 - mu) * (1.0 - mu))


@dataclass(frozen=True)
class Binomial(Family):
    """Numbers of successes among ``trials``."""

    name: ClassVar[str] = "binomial"
    title: ClassVar[str] = "binomial"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog", "log", "identity")
    concave: ClassVar[tuple[str, ...]] = links
    has_trials: ClassVar[bool] = True
    discrete: ClassVar[bool] = True
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Binomial", "bambi": "binomial", "statsmodels": "Binomial"}
    )
    density = staticmethod(binomial)

    def direct(self) -> Any:
        if self.link == "logit":
            return binomial_logit
        tails = self.function.log_tails
        return with_names(by_tails, self.link, log_tails=tails) if tails is not None else None

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        fraction = (y != np.round(y)) | (n != np.round(n))
        remedy = "give successes and trials as whole numbers: family='binomial' with trials='n', or p(successes, n) ~"
        whole = "a number of trials is a whole number"
        refuse_rows(~np.isfinite(n), n, "trials", "infinite values", whole, "correct or drop these rows")
        refuse_rows(fraction, y, name, "fractions", "numbers of successes and of trials are whole numbers", remedy)
        refuse_rows(n < 1, n, "trials", "no trial", "a row without a trial says nothing", "drop these rows")
        refuse_rows(y < 0, y, name, "negative values", "numbers of successes are 0, 1, 2, ...", "correct these rows")
        refuse_rows(y > n, y, name, "more successes than trials", "successes are some of the trials", "correct them")
        if np.all(y == 0) or np.all(y == n):
            reason = "the likelihood rises without end as the probability goes to 0 or 1"
            what = "only failures" if np.all(y == 0) else "only successes"
            raise DataError(f"{name!r} with {what}", reason, "check the column and the filters", SEE)

    def constant(self, y: FloatArray, n: FloatArray) -> FloatArray:
        return gammaln(n + 1.0) - gammaln(y + 1.0) - gammaln(n - y + 1.0)

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return np.asarray(n * mu * (1.0 - mu), dtype=np.float64)

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return np.asarray(2.0 * (xlogy(y, y / (n * mu)) + xlogy(n - y, (n - y) / (n * (1.0 - mu)))), dtype=np.float64)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        return rng.binomial(np.asarray(n, dtype=np.int64), mu).astype(np.float64)

    def first_mean(self, y: FloatArray, n: FloatArray) -> FloatArray:
        overall = np.sum(y) / np.sum(n)
        return (y + overall) / (n + 1.0) if self.link != "identity" else np.full(len(y), overall)


@dataclass(frozen=True)
class Bernoulli(Binomial):
    """Yes or no: 0 and 1, truth values, or a factor with two levels, the second of which is a success."""

    name: ClassVar[str] = "bernoulli"
    title: ClassVar[str] = "Bernoulli"
    has_trials: ClassVar[bool] = False
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"pymc": "Bernoulli", "bambi": "bernoulli", "statsmodels": "Binomial"}
    )

    def response(self, values: pd.Series, name: str) -> tuple[FloatArray, str]:
        if pd.api.types.is_bool_dtype(values):
            return values.to_numpy(dtype=np.float64), ""
        if pd.api.types.is_numeric_dtype(values):
            return values.to_numpy(dtype=np.float64), ""
        levels = list(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else sorted(set(values))
        if len(levels) > 2:
            levels = levels_in_use(values)
        if len(levels) != 2:
            received = f"{name!r} with {len(levels)} levels"
            remedy = "code it as 0 and 1; for more than two ordered levels use family='ordinal'"
            raise DataError(received, "a yes-or-no response has two", remedy, SEE)
        return (values == levels[1]).to_numpy(dtype=np.float64), f"success: {name} = {quote(levels[1])}"

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        remedy = "code it as 0 and 1; for numbers of successes use family='binomial' with trials="
        refuse_rows((y != 0) & (y != 1), y, name, "values other than 0 and 1", "a row is a success or not", remedy)
        super().check(y, n, name)
