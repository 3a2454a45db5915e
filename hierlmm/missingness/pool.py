"""Rubin's rules: one estimate, one standard error and one number of degrees of freedom from completed data sets.

With estimates Q_d and squared standard errors U_d of D completed data sets, Q̄ and Ū their means and B the variance of
the Q_d,

    T = Ū + (1 + 1/D) B,   λ = (1 + 1/D) B / T,   1/ν = 1/ν_m + 1/ν_obs,
    ν_m = (D - 1)/λ²,      ν_obs = (ν_c + 1)/(ν_c + 3) ν_c (1 - λ)

ν_c being the degrees of freedom of complete data (Barnard & Rubin 1999, Biometrika 86, 948-955).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from hierlmm.arrays import FloatArray

ROUNDING = 1e-16
"""Variance between data sets, over that within, that rounding leaves where nothing was filled in."""


class Pooled(NamedTuple):
    """Estimate, standard error, degrees of freedom, Monte-Carlo error of the estimate: (k,) each."""

    estimate: FloatArray
    se: FloatArray
    df: FloatArray
    mcse: FloatArray

    def interval(self, ci: float) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends."""
        half = stats.t.ppf(0.5 + 0.5 * ci, self.df) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def p(self) -> FloatArray:
        """Of the test that it is zero, two-sided."""
        return np.asarray(2.0 * stats.t.sf(np.abs(self.estimate) / self.se, self.df))


def rubin(estimates: FloatArray, variances: FloatArray, df_complete: float | FloatArray) -> Pooled:
    """Pool D estimates and their squared standard errors, (D, k) each.

    Parameters
    ----------
    estimates, variances : (D, k)
    df_complete : float or (k,)
        Degrees of freedom of the analysis of complete data.
    """
    D = len(estimates)
    within, between = variances.mean(axis=0), estimates.var(axis=0, ddof=1)
    between = np.where(between > ROUNDING * within, between, 0.0)
    total = within + (1.0 + 1.0 / D) * between
    share = (1.0 + 1.0 / D) * between / total
    with np.errstate(divide="ignore"):
        of_draws = (D - 1.0) / share**2
    observed = (df_complete + 1.0) / (df_complete + 3.0) * df_complete * (1.0 - share)
    df = 1.0 / (1.0 / of_draws + 1.0 / observed)
    return Pooled(estimates.mean(axis=0), np.sqrt(total), df, np.sqrt(between / D))
