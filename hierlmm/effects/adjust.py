"""Corrections for looking at several contrasts at once.

- ``bonferroni``: m p; ``sidak``: 1 - (1 - p)^m; ``holm``: step-down Bonferroni (Holm 1979); ``fdr``: the false
  discovery rate (Benjamini & Hochberg 1995). For any family of m.
- ``tukey``: the studentised range of k means, for all their pairwise differences (exact for means of equal variance
  and covariance; an approximation, mostly conservative, otherwise).
- ``mvt``: the distribution of the largest ``|T_i|`` of the family itself, multivariate t with the correlations of the
  contrasts. Exact for any family; Dunnett's test for comparisons with a control.

With ``T = A z / s``, z standard normal in r dimensions and ``s² ~ χ²_d / d``, write ``z = ρ u``, u uniform on the
sphere and ``ρ²/r / s² ~ F(r, d)`` independent of it. Then

    P(max |T_i| > t) = E_u F̄_{r,d}( (t / max|A u|)² / r ),

one smooth average over directions, with relative accuracy in the tails and no need for a correlation matrix of full
rank: over a circle for r = 2, over quasi-random directions for r > 2.

References
----------
Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate. J. R. Stat. Soc. B 57, 289-300.

Genz, A. and Bretz, F. (2009). Computation of Multivariate Normal and t Probabilities. Springer.

Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. J. Stat. 6, 65-70.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from hierlmm.errors import SpecificationError
from hierlmm.likelihood.wald import two_sided

__all__ = ["ADJUSTMENTS", "adjusted_p", "adjusted_quantiles", "check_adjustment", "largest_t_quantile", "largest_t_sf"]

FloatArray = NDArray[np.float64]
ADJUSTMENTS = ("none", "tukey", "holm", "bonferroni", "sidak", "mvt", "fdr")
SEE = "docs, page 'Contrasts'"
ON_CIRCLE = 4096
SOBOL = 17
"""Logarithm of the number of quasi-random directions: p-values to about 1e-4 of their size."""


def check_adjustment(adjust: str, *, pairwise: bool) -> str:
    """The correction that was asked for.

    Raises
    ------
    SpecificationError
        If there is none of this name, or it is Tukey's and the family is not all pairs.
    """
    name = str(adjust).lower()
    if name not in ADJUSTMENTS:
        raise SpecificationError(
            f"adjust={adjust!r}",
            "this is not one of the choices",
            f"use one of {', '.join(map(repr, ADJUSTMENTS))}",
            SEE,
        )
    if name == "tukey" and not pairwise:
        raise SpecificationError(
            "adjust='tukey'",
            "Tukey's correction is for all pairwise differences of a set of means, and this is another family",
            "use adjust='mvt', which is exact for any family",
            SEE,
        )
    return name


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
    m = len(t)
    if adjust == "none" or m == 1:
        return raw
    if adjust == "bonferroni":
        return np.minimum(1.0, m * raw)
    if adjust == "sidak":
        return np.asarray(-np.expm1(m * np.log1p(-np.minimum(raw, 1.0 - 1e-16))))
    if adjust == "holm":
        order = np.argsort(raw, kind="stable")
        stepped = np.maximum.accumulate((m - np.arange(m)) * raw[order])
        return _unsort(np.minimum(1.0, stepped), order)
    if adjust == "fdr":
        order = np.argsort(raw, kind="stable")[::-1]
        stepped = np.minimum.accumulate(raw[order] * m / (m - np.arange(m)))
        return _unsort(np.minimum(1.0, stepped), order)
    if adjust == "tukey":
        return np.maximum(raw, stats.studentized_range.sf(np.sqrt(2.0) * np.abs(t), n_means, df))
    reach, r = _reach(corr)
    return np.maximum(raw, [_tail(abs(v), d, reach, r) for v, d in zip(t.tolist(), df.tolist(), strict=True)])


def _unsort(values: FloatArray, order: NDArray[np.intp]) -> FloatArray:
    result = np.empty_like(values)
    result[order] = values
    return result


def adjusted_quantiles(df: FloatArray, ci: float, adjust: str, n_means: int, corr: FloatArray) -> FloatArray:
    """Half-widths of simultaneous intervals in standard errors: (m,). Holm and fdr have none: Bonferroni's."""
    m = len(df)
    if adjust == "none" or m == 1:
        return np.asarray(stats.t.ppf(0.5 + ci / 2.0, df))
    if adjust in ("bonferroni", "holm", "fdr"):
        return np.asarray(stats.t.isf((1.0 - ci) / (2.0 * m), df))
    if adjust == "sidak":
        return np.asarray(stats.t.ppf(0.5 + ci ** (1.0 / m) / 2.0, df))
    # These quantiles are slow: degrees of freedom that agree to rounding share one.
    distinct, which = np.unique(np.round(df, 8), return_inverse=True)
    if adjust == "tukey":
        found = [float(stats.studentized_range.ppf(ci, n_means, d)) / np.sqrt(2.0) for d in distinct]
    else:
        found = [largest_t_quantile(ci, float(d), corr) for d in distinct]
    return np.array(found)[which]


def largest_t_sf(t: float, df: float, corr: FloatArray) -> float:
    """P(max |T_i| > t) for T multivariate t with these correlations (they may be singular); df may be infinite."""
    reach, r = _reach(corr)
    return _tail(t, df, reach, r)


def largest_t_quantile(probability: float, df: float, corr: FloatArray) -> float:
    """The t with P(max |T_i| <= t) = probability."""
    reach, r = _reach(corr)
    single = float(stats.t.ppf(0.5 + probability / 2.0, df))
    bound = float(stats.t.isf((1.0 - probability) / (2.0 * len(corr)), df))
    if r == 1 or bound <= single:
        return single
    return float(
        brentq(lambda t: _tail(t, df, reach, r) - (1.0 - probability), 0.99 * single, 1.01 * bound, xtol=1e-10)
    )


def _tail(t: float, df: float, reach: FloatArray, r: int) -> float:
    if t <= 0.0:
        return 1.0
    squared = (t / reach) ** 2
    tails = stats.chi2.sf(squared, r) if np.isinf(df) else stats.f.sf(squared / r, r, df)
    return float(np.mean(tails))


def _reach(corr: FloatArray) -> tuple[FloatArray, int]:
    """Largest ``|A u|`` of each direction u, with corr = A A', and the rank of A."""
    values, vectors = np.linalg.eigh(corr)
    kept = values > 1e-10 * values[-1]
    A = vectors[:, kept] * np.sqrt(values[kept])
    r = int(kept.sum())
    if r == 1:
        return np.ones(1), 1
    return np.abs(A @ _directions(r)).max(axis=0), r


@lru_cache(maxsize=4)
def _directions(r: int) -> FloatArray:
    """Unit vectors in r dimensions, (r, n): half a circle, or quasi-random and always the same."""
    if r == 2:
        angle = (np.arange(ON_CIRCLE) + 0.5) * np.pi / ON_CIRCLE
        return np.stack([np.cos(angle), np.sin(angle)])
    points = stats.qmc.Sobol(r, scramble=True, rng=20240229).random_base2(SOBOL)
    u = stats.norm.ppf(np.clip(points, 1e-16, 1.0 - 1e-16)).T
    return np.asarray(u / np.sqrt(np.sum(u**2, axis=0)))
