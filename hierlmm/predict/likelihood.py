r"""Predictions of a likelihood fit, with the joint uncertainty of β and b, and that of θ through the quantile.

Given θ, the error of (β̂, b̂_i) has the covariance (Henderson 1975)

    C_i = [[ V_β,        -V_β K_i'          ],
           [ -K_i V_β,   M_i + K_i V_β K_i' ]],      V_β = (X'V⁻¹X)⁻¹,  b̂_i = b̂_i(0) - K_i β̂

at level "subject"; diag(V_β, 0) at "population" and for the marginal mean; diag(V_β, D) for a new subject. A prediction
interval adds the residual variance. θ is estimated, which enters twice. The BLUP moves with θ̂: at level "subject" the
variance gains Σ_t (∂ estimate / ∂θ_t)² along uncorrelated unit directions of θ̂ (Kackar & Harville 1984). And the
variance v itself is estimated: as Satterthwaite (1946) does for a sum of mean squares, v̂ is taken for a multiple of χ²
with the same first two moments,

    df = 2 v² / (g' Cov(θ̂) g),    g = dv/dθ,

and the interval is estimate ± t_df · se. Cov(θ̂) is the large-sample one, derivatives are central differences.

References
----------
Henderson, C. R. (1975). Best linear unbiased estimation and prediction under a selection model. Biometrics 31, 423-447.

Kackar, R. N. and Harville, D. A. (1984). Approximations for standard errors of estimators of fixed and random effects
in mixed linear models. J. Amer. Statist. Assoc. 79, 853-862.

Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics Bulletin 2,
110-114.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.large_sample import differences
from hierlmm.likelihood.solution import Solution
from hierlmm.predict.dynamic import further_measurements
from hierlmm.predict.lines import grouped_forms, interval_table, quadratic_forms, quantile_note, with_theta
from hierlmm.predict.residual import correlated, residual_variance
from hierlmm.predict.rows import Rows, asked_rows, check_request, described

if TYPE_CHECKING:
    from hierlmm.fits.likelihood_tables import LikelihoodNumbers


CONTAINS = {
    "subject": "the joint uncertainty of β and of the subject's b, and how b moves with θ̂",
    "population": "the uncertainty of β given θ",
    "new_subject": "the uncertainty of β given θ and the spread D of subjects",
    "marginal": "the uncertainty of β given θ",
}


def predict_rows(
    fit: LikelihoodNumbers, newdata: Any = None, level: str = "subject", interval: str | None = None, ci: float = 0.95
) -> pd.DataFrame:
    """See `LikelihoodFit.predict`. Costs O(n (p + q)²) for n rows, and one pass over the subjects for each θ."""
    check_request(fit.design, level, interval, ci)
    rows, estimate = asked_rows(fit, newdata, level)
    effects = bool(fit.design.term)
    if interval is None:
        table = pd.DataFrame({"estimate": estimate}, index=rows.index)
        return described(table, level, None, ci, "", "", effects)
    if level == "subject" and interval == "prediction" and correlated(fit):
        estimate, variances, shifts = further_measurements(fit, rows, newdata is None)
    else:
        variances, shifts = _variances(fit, rows, level, interval, estimate)
    variance, df = with_theta(variances, shifts)
    table = interval_table(estimate, variance, ci, df, rows.index)
    contains = contents(level if effects else "marginal", interval, effects=effects)
    return described(table, level, interval, ci, contains, quantile_note(df), effects)


def contents(level: str, interval: str, *, effects: bool) -> str:
    """What the variance of a row is made of, in words; ``effects``: whether the model has random effects."""
    if interval != "prediction":
        return CONTAINS[level]
    source = CONTAINS["new_subject"] if level == "marginal" and effects else CONTAINS[level]
    return f"{source}, and the residual variance"


def _variances(
    fit: LikelihoodNumbers, rows: Rows, level: str, interval: str, fitted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Variances and their derivatives (n, 1 + r), and derivatives of BLUPs (n, r); (n, 0) without them."""
    states, steps = fit.large_sample.neighbours()
    W = np.column_stack([rows.X, rows.Z])
    spread = level if interval == "prediction" or level != "marginal" else "population"
    shifts = np.empty((len(W), len(steps) if spread == "subject" else 0))
    if spread == "subject":
        joint = [_subject_joint(s) for s in states]
        C = differences(np.stack([c for _, c in joint]), steps)
        found = grouped_forms(W, np.ascontiguousarray(np.swapaxes(C, 0, 1)), rows.subject)
        slopes = differences(np.stack([e for e, _ in joint]), steps)[1:]
        for t, slope in enumerate(slopes):
            shifts[:, t] = np.einsum("ik,ik->i", W, slope[rows.subject])
    else:
        C = differences(np.stack([_block_covariance(s, with_D=spread != "population") for s in states]), steps)
        found = quadratic_forms(W, C)
    if interval == "prediction":
        # Without a structure all rows have one variance, and one row says it.
        some = slice(None) if states[0].residual is not None else slice(0, 1)
        frame, at = rows.frame.iloc[some], fitted[some]
        own = [residual_variance(fit, frame, sigma=s.sigma, structure=s.residual, fitted=at) for s in states]
        found += differences(np.stack(own), steps).T
    return found, shifts


def _block_covariance(state: Solution, *, with_D: bool) -> FloatArray:
    p, q = len(state.beta), len(state.D)
    C = np.zeros((p + q, p + q))
    C[:p, :p] = state.beta_cov
    if with_D:
        C[p:, p:] = state.D
    return C


def _subject_joint(state: Solution) -> tuple[FloatArray, FloatArray]:
    """Estimates (β̂, b̂_i) of every subject (J, p + q), and the joint covariance of their errors (J, p + q, p + q)."""
    effects = state.effects
    p, (J, q) = len(state.beta), effects.origin.shape
    C = np.empty((J, p + q, p + q))
    cross = effects.slope @ state.beta_cov
    C[:, :p, :p] = state.beta_cov
    C[:, p:, :p] = -cross
    C[:, :p, p:] = -np.swapaxes(cross, 1, 2)
    C[:, p:, p:] = effects.covariance + cross @ np.swapaxes(effects.slope, 1, 2)
    return np.column_stack([np.broadcast_to(state.beta, (J, p)), state.b]), C
