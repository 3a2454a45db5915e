"""Corrections for looking at several contrasts at once.

- ``bonferroni``: m p; ``sidak``: 1 - (1 - p)^m; ``holm``: step-down Bonferroni (Holm 1979); ``fdr``: the false
  discovery rate (Benjamini & Hochberg 1995). For any family of m, by statsmodels.
- ``tukey``: the studentised range of k means, for all their pairwise differences (exact for means of equal variance
  and covariance; an approximation, mostly conservative, otherwise).
- ``mvt``: the distribution of the largest ``|T_i|`` of the family itself, multivariate t with the correlations of the
  contrasts (`hierlmm.likelihood.quantiles`). Exact for any family; Dunnett's test for comparisons with a control.

References
----------
Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate. J. R. Stat. Soc. B 57, 289-300.

Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. J. Stat. 6, 65-70.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hierlmm.errors import SpecificationError
from hierlmm.likelihood.quantiles import largest_t_quantile, largest_t_sf
from hierlmm.likelihood.wald import two_sided
from hierlmm.options import choose

__all__ = ["ADJUSTMENTS", "adjusted_p", "adjusted_quantiles", "check_adjustment"]

FloatArray = NDArray[np.float64]
STATSMODELS = {"holm": "holm", "bonferroni": "bonferroni", "sidak": "sidak", "fdr": "fdr_bh"}
ADJUSTMENTS = ("none", "tukey", "holm", "bonferroni", "sidak", "mvt", "fdr")
SEE = "docs, page 'Contrasts'"


def check_adjustment(adjust: str, *, pairwise: bool) -> str:
    """The correction that was asked for.

    Raises
    ------
    SpecificationError
        If there is none of this name, or it is Tukey's and the family is not all pairs.
    """
    name = str(adjust).lower()
    if name not in ADJUSTMENTS:
        choose("adjust", adjust, ADJUSTMENTS, SEE)
    if name == "tukey" and not pairwise:
        reason = "Tukey's correction is for all pairwise differences of a set of means, and this is another family"
        raise SpecificationError("adjust='tukey'", reason, "use adjust='mvt', which is exact for any family", SEE)
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
    if adjust == "none" or len(t) == 1:
        return raw
    if adjust in STATSMODELS:
        from statsmodels.stats.multitest import multipletests

        with np.errstate(divide="ignore"):  # log(1 - p) of p = 1
            return np.asarray(multipletests(raw, method=STATSMODELS[adjust])[1])
    if adjust == "tukey":
        return np.maximum(raw, stats.studentized_range.sf(np.sqrt(2.0) * np.abs(t), n_means, df))
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
    # These quantiles are slow: degrees of freedom that agree to rounding share one.
    distinct, which = np.unique(np.round(df, 8), return_inverse=True)
    if adjust == "tukey":
        found = [float(stats.studentized_range.ppf(ci, n_means, d)) / np.sqrt(2.0) for d in distinct]
    else:
        found = [largest_t_quantile(ci, float(d), corr) for d in distinct]
    return np.array(found)[which]
