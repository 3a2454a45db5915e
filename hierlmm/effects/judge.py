"""What linear functions ``L β`` are judged by: an estimate with its covariance (`Wald`), or posterior draws.

Everything that depends on the kind of fit is asked here, once: who judges, with which degrees of freedom, whether a
correction or a region of practical equivalence makes sense, and what an interval is.

Corrections for looking at several contrasts at once:

- ``bonferroni``: m p; ``sidak``: 1 - (1 - p)^m; ``holm``: step-down Bonferroni (Holm 1979); ``fdr``: the false
  discovery rate (Benjamini & Hochberg 1995). For any family of m, by statsmodels.
- ``tukey``: the studentised range of k means, for all their pairwise differences (exact for means of equal variance
  and covariance; an approximation, mostly conservative, otherwise).
- ``mvt``: the distribution of the largest ``|T_i|`` of the family itself, multivariate t with the correlations of the
  contrasts (`hierlmm.likelihood.quantiles`). Exact for any family; Dunnett's test for comparisons with a control.

Bands around curves are pointwise, or simultaneous over all rows of a piece: ``f̂ ± c se``, c the quantile of the largest
``|t|`` of the piece's rows (`hierlmm.likelihood.quantiles.band_quantile`; Liu 2010). For a posterior c is the quantile
over draws of ``max_i |f_i - mean_i| / sd_i`` (sup-t band; Montiel Olea and Plagborg-Møller 2019).

References
----------
Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate. J. R. Stat. Soc. B 57, 289-300.

Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. J. Stat. 6, 65-70.

Montiel Olea, J. L. and Plagborg-Møller, M. (2019). Simultaneous confidence bands: theory, implementation, and an
application to SVARs. J. Appl. Econom. 34, 1-17.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.quantiles import band_quantile, largest_t_quantile, largest_t_sf, t_quantile
from hierlmm.likelihood.studentized import range_quantile, range_sf
from hierlmm.likelihood.wald import BY_DEFAULT, Asked, Wald, two_sided
from hierlmm.options import choose
from hierlmm.text import sayer

SAY = sayer(__file__)
SEE = "docs, page 'Contrasts'"
VALUES = 2_000_000
"""Numbers in one working array."""
STATSMODELS = {"holm": "holm", "bonferroni": "bonferroni", "sidak": "sidak", "fdr": "fdr_bh"}
ADJUSTMENTS = ("none", "tukey", "holm", "bonferroni", "sidak", "mvt", "fdr")


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of β, (draws, p), all chains one after the other."""

    beta: FloatArray

    def of(self, L: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Draws of ``L β + offset``: (draws, k)."""
        return self.beta @ L.T + offset


class RowDraws(PosteriorDraws):
    """Draws of rows that are no linear functions of β: they stand in the rows, (k, draws), in the place of L."""

    def of(self, L: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """The draws of the rows: (draws, k)."""
        return L.T + offset


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
    told: FloatArray | None = None
    """The estimate on another scale, of draws that were carried there one by one."""

    @property
    def columns(self) -> dict[str, FloatArray]:
        """Columns of a table; degrees of freedom where there are any."""
        df = {} if self.df is None else {"df": self.df}
        return {"estimate": self.estimate, "se": self.se, **df, "lower": self.lower, "upper": self.upper}


def covariance_of(fit: Fit) -> str | None:
    """Which covariance of β the fit's standard errors come from, in words; None where there is but one."""
    kind = getattr(fit, "se", None)
    return kind.replace("_", "-") if isinstance(kind, str) else None


def judge_of(fit: Fit, how: Asked = BY_DEFAULT) -> Judge:
    """Draws where the fit is a posterior, else estimate and covariance with what was asked.

    Raises
    ------
    NotAvailableError
        If degrees of freedom or standard errors are asked of a posterior, or of an estimator that has none.
    """
    if not fit.has_draws:
        return fit._wald(*how)
    if how.df is not None:
        reason = "its intervals are quantiles of draws, and there is no t distribution that needs degrees of freedom"
        raise NotAvailableError(f"df={how.df!r} for a posterior", reason, "leave df out", SEE)
    if how.se is not None:
        reason = "its intervals are quantiles of draws, and its standard errors are their standard deviations"
        raise NotAvailableError(f"se={how.se!r} for a posterior", reason, "leave se out, or use fit_reml()", SEE)
    draws: Any = fit.draws("beta")
    return PosteriorDraws(draws.reshape(-1, draws.shape[-1]))


def estimates(
    judge: Judge,
    L: FloatArray,
    offset: FloatArray,
    ci: float,
    back: Callable[[FloatArray], FloatArray] | None = None,
    *,
    middle: Callable[..., Any] = np.mean,
) -> Estimates:
    """Judge every row by itself: ``estimate ± t se``, or mean, SD and equal-tailed quantiles of the draws.

    ``back`` is what draws are carried to before anything is said of them, ``middle`` what their estimate is.
    """
    if isinstance(judge, Wald):
        estimate, se, df = judge.rows(L)
        estimate, half = estimate + offset, t_quantile(ci, df) * se
        return Estimates(estimate, se, estimate - half, estimate + half, df)
    estimate, se, lower, upper, positive = np.empty((5, len(L)))
    for part in _parts(judge, len(L)):
        draws = judge.of(L[part], offset[part])
        positive[part] = (draws > 0.0).mean(axis=0)
        draws = draws if back is None else back(draws)
        estimate[part], se[part] = middle(draws, axis=0), draws.std(axis=0, ddof=1)
        lower[part], upper[part] = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
    return Estimates(estimate, se, lower, upper, positive=positive)


def sup_t(
    judge: PosteriorDraws, L: FloatArray, offset: FloatArray, found: Estimates, rows: IntArray, ci: float
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


def check_rope(
    rope: float | tuple[float, float] | None, judge: Judge, *, ratio: bool = False
) -> tuple[float, float] | None:
    """A region of practical equivalence: (low, high), or a number r for (-r, r), of ratios (1/r, r); for posteriors."""
    if rope is None:
        return None
    if isinstance(judge, Wald):
        reason = "the probability that an effect is practically zero needs a posterior"
        remedy = "use model.fit(), or look whether the interval lies inside the region"
        raise NotAvailableError(f"rope={rope!r} for a fit that is no posterior", reason, remedy, SEE)
    limits = tuple(rope) if not isinstance(rope, (int, float)) else (1.0 / rope if ratio and rope else -rope, rope)
    low, high = limits if len(limits) == 2 else (0.0, 0.0)
    if not low < high:
        why = "the region is empty" if len(limits) == 2 else "a region has two limits"
        one = "one number above 1, 1.1 for ratios from 1/1.1 to 1.1" if ratio else "one positive number"
        raise SpecificationError(f"rope={rope!r}", why, f"use (low, high), or {one}", SEE)
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
    asked = "none" if adjust is None else adjust
    name = str(asked).lower()
    if name not in ADJUSTMENTS:
        choose("adjust", asked, (*ADJUSTMENTS, "dunnett"), SEE)
    if name == "tukey" and not pairwise:
        reason = "Tukey's correction is for all pairwise differences of a set of means, and this is another family"
        raise SpecificationError("adjust='tukey'", reason, "use adjust='mvt', which is exact for any family", SEE)
    return name


def level_text(fit: Fit) -> str:
    """Which mean the numbers are about, in words."""
    return SAY("level.random" if fit.has_random_effects else "level.fixed")


def adjusted_p(t: FloatArray, df: FloatArray, adjust: str, n_means: int, corr: FloatArray) -> FloatArray:
    """Two-sided p-values of one family.

    Parameters
    ----------
    t, df : (m,)
    adjust : str
    n_means : int
        Number of means that a pairwise family compares.
    corr : (m, m)
        Correlations of the estimates.
    """
    raw = two_sided(t, df)
    if adjust == "none" or len(t) == 1:
        return raw
    if adjust in STATSMODELS:
        from statsmodels.stats.multitest import multipletests

        with np.errstate(divide="ignore"):  # log(1 - p) of p = 1
            return np.asarray(multipletests(raw, method=STATSMODELS[adjust])[1])
    if adjust == "tukey":
        return np.maximum(raw, range_sf(np.sqrt(2.0) * np.abs(t), n_means, df))
    return np.maximum(raw, largest_t_sf(np.abs(t), df, corr))


def adjusted_quantiles(df: FloatArray, ci: float, adjust: str, n_means: int, corr: FloatArray) -> FloatArray:
    """Half-widths of simultaneous intervals in standard errors: (m,). Holm and fdr have none: Bonferroni's."""
    m = len(df)
    if adjust == "none" or m == 1:
        return np.asarray(stats.t.ppf(0.5 + ci / 2.0, df))
    if adjust in ("bonferroni", "holm", "fdr"):
        return np.asarray(stats.t.isf((1.0 - ci) / (2.0 * m), df))
    if adjust == "sidak":
        return np.asarray(stats.t.ppf(0.5 + ci ** (1.0 / m) / 2.0, df))
    # Degrees of freedom that agree to rounding share a quantile.
    distinct, which = np.unique(np.round(df, 8), return_inverse=True)
    if adjust == "tukey":
        found = np.array([range_quantile(ci, n_means, float(d)) for d in distinct]) / np.sqrt(2.0)
    else:
        found = largest_t_quantile(ci, distinct, corr)
    return np.asarray(found[which])


def bands(
    judge: Judge, L: FloatArray, offset: FloatArray, ci: float, pieces: list[IntArray], seed: int
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Columns of the table, and the half-width of the simultaneous band of each piece in standard errors."""
    found = estimates(judge, L, offset, ci)
    half, widest = np.zeros(len(L)), []
    for rows in pieces:
        if isinstance(judge, PosteriorDraws):
            c = np.array([sup_t(judge, L, offset, found, rows, ci)])
        else:
            assert found.df is not None
            c = band_quantile(L[rows], judge.cov, found.df[rows], ci, seed)
        half[rows] = c * found.se[rows]
        widest.append(float(c.max()))
    columns = found._replace(df=None).columns
    if pieces:
        columns |= {"lower_simultaneous": found.estimate - half, "upper_simultaneous": found.estimate + half}
    return columns, np.array(widest)
