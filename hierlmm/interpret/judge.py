"""What the sentences and tables about subjects ask of a fit, once: how it judges, what it has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.effects.judge import Estimates, estimates, is_posterior, judge_of
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit

__all__ = [
    "check_probability",
    "has_working_correlation",
    "is_posterior",
    "judged",
    "need_effects",
    "random_effect",
    "tails",
    "zero_terms",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'In words'"


def check_probability(name: str, value: float) -> float:
    """Return the value if it lies between 0 and 1.

    Raises
    ------
    SpecificationError
    """
    if not 0.0 < value < 1.0:
        raise SpecificationError(f"{name}={value!r}", "it is a probability between 0 and 1", f"use {name}=0.95", SEE)
    return float(value)


def has_working_correlation(fit: Fit) -> bool:
    """Whether rows of one subject have a working correlation in place of a model."""
    return fit.estimator == "GEE"


def judged(fit: Fit, L: FloatArray, ci: float, df: str | None = None) -> Estimates:
    """Estimate, standard error and interval of every row of ``L β``."""
    return estimates(judge_of(fit, df), L, np.zeros(len(L)), ci)


def tails(ci: float) -> tuple[float, float]:
    """Probabilities below the ends of an equal-tailed interval."""
    return 0.5 - ci / 2.0, 0.5 + ci / 2.0


def random_effect(design: Any, k: int) -> int | None:
    """Position among the random effects of that of level-1 column k; None if it has none."""
    found = np.flatnonzero(design.term_level1 == k)
    return int(found[0]) if found.size else None


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
