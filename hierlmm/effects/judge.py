"""What linear functions ``L β`` are judged by: an estimate with its covariance (`Wald`), or posterior draws.

Everything that depends on the kind of fit is asked here, once: who judges, with which degrees of freedom, whether a
correction or a region of practical equivalence makes sense, and what an interval is.

References
----------
Montiel Olea, J. L. and Plagborg-Møller, M. (2019). Simultaneous confidence bands: theory, implementation, and an
application to SVARs. J. Appl. Econom. 34, 1-17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.effects.adjust import check_adjustment
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.quantiles import t_quantile
from hierlmm.likelihood.wald import Wald

__all__ = [
    "Estimates",
    "Judge",
    "PosteriorDraws",
    "check_multiplicity",
    "check_rope",
    "covariance_of",
    "estimates",
    "is_posterior",
    "judge_of",
    "level_text",
    "notes_of",
    "share_inside",
    "sup_t",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Contrasts'"
VALUES = 2_000_000
"""Numbers in one working array."""


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of β, (draws, p), all chains one after the other."""

    beta: FloatArray

    def of(self, L: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Draws of ``L β + offset``: (draws, k)."""
        return self.beta @ L.T + offset


type Judge = Wald | PosteriorDraws


class Estimates(NamedTuple):
    """Rows of ``L β + offset``: estimate, standard error (SD of a posterior) and pointwise interval, each (k,)."""

    estimate: FloatArray
    se: FloatArray
    lower: FloatArray
    upper: FloatArray
    df: FloatArray | None = None
    """Degrees of freedom; None for draws."""
    positive: FloatArray | None = None
    """Share of the draws above zero; None without draws."""

    @property
    def columns(self) -> dict[str, FloatArray]:
        """Columns of a table; degrees of freedom where there are any."""
        df = {} if self.df is None else {"df": self.df}
        return {"estimate": self.estimate, "se": self.se, **df, "lower": self.lower, "upper": self.upper}


def is_posterior(fit: Fit) -> bool:
    """Whether the fit holds posterior draws."""
    return getattr(fit, "datatree", None) is not None


def covariance_of(fit: Fit) -> str | None:
    """Which covariance of β the fit's standard errors come from, in words; None where there is but one."""
    kind = getattr(fit, "se", None)
    return kind.replace("_", "-") if isinstance(kind, str) else None


def judge_of(fit: Fit, df: str | None) -> Judge:
    """Draws where the fit is a posterior, else estimate and covariance with degrees of freedom by ``df``.

    Raises
    ------
    NotAvailableError
        If degrees of freedom are asked of a posterior, or of an estimator that has none.
    """
    if not is_posterior(fit):
        return fit._wald(df)
    if df is not None:
        reason = "its intervals are quantiles of draws, and there is no t distribution that needs degrees of freedom"
        raise NotAvailableError(f"df={df!r} for a posterior", reason, "leave df out", SEE)
    draws: Any = fit.draws("beta")
    return PosteriorDraws(draws.reshape(-1, draws.shape[-1]))


def estimates(judge: Judge, L: FloatArray, offset: FloatArray, ci: float) -> Estimates:
    """Judge every row by itself: ``estimate ± t se``, or mean, SD and equal-tailed quantiles of the draws."""
    if isinstance(judge, Wald):
        estimate, se, df = judge.rows(L)
        estimate, half = estimate + offset, t_quantile(ci, df) * se
        return Estimates(estimate, se, estimate - half, estimate + half, df)
    estimate, se, lower, upper, positive = np.empty((5, len(L)))
    for part in _parts(judge, len(L)):
        draws = judge.of(L[part], offset[part])
        estimate[part], se[part] = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        lower[part], upper[part] = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
        positive[part] = (draws > 0.0).mean(axis=0)
    return Estimates(estimate, se, lower, upper, positive=positive)


def sup_t(
    judge: PosteriorDraws, L: FloatArray, offset: FloatArray, found: Estimates, rows: NDArray[np.intp], ci: float
) -> float:
    """The c for which ``mean ± c sd`` holds for all rows together: a quantile of the largest standardised distance."""
    rows = rows[found.se[rows] > 0.0]
    largest = np.zeros(len(judge.beta))
    for part in _parts(judge, len(rows)):
        own = rows[part]
        distance = np.abs(judge.of(L[own], offset[own]) - found.estimate[own]) / found.se[own]
        largest = np.maximum(largest, distance.max(axis=1, initial=0.0))
    return float(np.quantile(largest, ci))


def _parts(judge: PosteriorDraws, k: int) -> list[slice]:
    step = max(1, VALUES // len(judge.beta))
    return [slice(start, start + step) for start in range(0, k, step)]


def share_inside(draws: FloatArray, rope: tuple[float, float]) -> FloatArray:
    """Share of the draws of each column inside a region."""
    return np.asarray(np.mean((draws > rope[0]) & (draws < rope[1]), axis=0))


def notes_of(notes: tuple[str, ...], judge: Judge) -> list[str]:
    """What must be known, of the numbers and of who judged them, one statement a line."""
    return [f"Note: {note}." for note in (*notes, *(judge.notes if isinstance(judge, Wald) else ()))]


def check_rope(rope: float | tuple[float, float] | None, judge: Judge) -> tuple[float, float] | None:
    """A region of practical equivalence: (low, high), or a number r for (-r, r); for posteriors only."""
    if rope is None:
        return None
    if isinstance(judge, Wald):
        reason = "the probability that an effect is practically zero needs a posterior"
        remedy = "use model.fit(), or look whether the interval lies inside the region"
        raise NotAvailableError(f"rope={rope!r} for a fit that is no posterior", reason, remedy, SEE)
    limits = (-rope, rope) if isinstance(rope, (int, float)) else tuple(rope)
    low, high = limits if len(limits) == 2 else (0.0, 0.0)
    if not low < high:
        why = "the region is empty" if len(limits) == 2 else "a region has two limits"
        raise SpecificationError(f"rope={rope!r}", why, "use (low, high), or one positive number", SEE)
    return float(low), float(high)


def check_multiplicity(judge: Judge, adjust: str | None, simultaneous: bool, *, pairwise: bool) -> str:
    """The correction, after checking that it and ``simultaneous`` suit the kind of fit."""
    if isinstance(judge, PosteriorDraws):
        if adjust not in (None, "none"):
            reason = "posterior probabilities are no p-values, and no correction is defined for them"
            remedy = "leave adjust out; simultaneous=True gives intervals that hold together"
            raise NotAvailableError(f"adjust={adjust!r} for a posterior", reason, remedy, SEE)
        return "none"
    if simultaneous:
        received = "simultaneous=True for a fit that is no posterior"
        remedy = "use adjust='mvt', which gives simultaneous intervals and p-values"
        raise NotAvailableError(received, "it asks for intervals from draws", remedy, SEE)
    return check_adjustment("none" if adjust is None else adjust, pairwise=pairwise)


def level_text(fit: Fit) -> str:
    """Which mean the numbers are about, in words."""
    if not fit.has_random_effects:
        return "scale of the response; marginal mean (no random effects)"
    return "scale of the response; population line (b = 0), which is the marginal mean as well (identity link)"
