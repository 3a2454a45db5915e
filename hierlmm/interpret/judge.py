"""Linear functions of β with their uncertainty, in one form for every estimator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as t_distribution

from hierlmm.effects.judge import PosteriorDraws, judge_of
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit

__all__ = ["Estimates", "check_probability", "is_posterior", "judged", "need_effects", "zero_terms"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'In words'"


@dataclass(frozen=True)
class Estimates:
    """Estimates with intervals, each (k,); ``positive`` is the posterior probability of a positive sign, or None."""

    estimate: FloatArray
    se: FloatArray
    lower: FloatArray
    upper: FloatArray
    positive: FloatArray | None = None


def is_posterior(fit: Fit) -> bool:
    """Whether the fit holds posterior draws."""
    return getattr(fit, "datatree", None) is not None


def check_probability(name: str, value: float) -> float:
    """Return the value if it lies between 0 and 1.

    Raises
    ------
    SpecificationError
    """
    if not isinstance(value, (int, float, np.floating)) or not 0.0 < value < 1.0:
        raise SpecificationError(f"{name}={value!r}", "it is a probability between 0 and 1", f"use {name}=0.95", SEE)
    return float(value)


def judged(fit: Fit, L: FloatArray, ci: float, df: str | None = None) -> Estimates:
    """Estimate, standard error and interval of every row of ``L β``."""
    judge = judge_of(fit, df)
    if isinstance(judge, PosteriorDraws):
        draws = judge.of(L)
        lower, upper = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
        return Estimates(draws.mean(axis=0), draws.std(axis=0, ddof=1), lower, upper, (draws > 0.0).mean(axis=0))
    estimate, se, df_values = judge.rows(L)
    finite = np.isfinite(df_values)
    quantile = np.full(len(L), norm.ppf(0.5 + ci / 2.0))
    quantile[finite] = t_distribution.ppf(0.5 + ci / 2.0, df_values[finite])
    return Estimates(estimate, se, estimate - quantile * se, estimate + quantile * se)


def zero_terms(fit: Fit) -> tuple[str, ...]:
    """Random effects whose variance a likelihood fit puts at zero, but for rounding."""
    if is_posterior(fit) or not fit.has_random_effects:
        return ()
    size = np.sqrt(np.mean(fit.design.Z**2, axis=0))
    sd = fit.sd_b.to_numpy() * size
    return tuple(t for t, s in zip(fit.design.term, sd, strict=True) if s <= 1e-6 * fit.sigma)


def need_effects(fit: Fit, what: str) -> None:
    """Refuse a question about subjects where the fit has none of their own.

    Raises
    ------
    NotAvailableError
    """
    if fit.has_random_effects:
        return
    kind = "a marginal model" if not fit.design.term else f"a fit by {fit.estimator}"
    raise NotAvailableError(
        f"{what} of {kind}",
        "it describes the mean over subjects; it has no coefficients of a subject's own, hence no distribution of them",
        "fit a hierarchy: hl.TwoLevelModel(...).fit_reml() or .fit(); for group means use fit.marginal_means(...)",
        SEE,
    )
