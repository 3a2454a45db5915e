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
from numpy.typing import NDArray

from hierlmm.likelihood.solution import Solution
from hierlmm.predict.lines import grouped_forms, interval_table, quadratic_forms
from hierlmm.predict.residual import correlated, residual_variance
from hierlmm.predict.rows import Rows, check_request, describe, rows_of

if TYPE_CHECKING:
    from hierlmm.fits.likelihood import LikelihoodFit

__all__ = ["neighbours", "predict_rows", "satterthwaite", "with_theta"]

FloatArray = NDArray[np.float64]
STEP = 1e-4
CONTAINS = {
    "subject": "the joint uncertainty of β and of the subject's b, and how b moves with θ̂",
    "population": "the uncertainty of β given θ",
    "new_subject": "the uncertainty of β given θ and the spread D of subjects",
    "marginal": "the uncertainty of β given θ",
}


def neighbours(fit: LikelihoodFit) -> tuple[list[Solution], FloatArray]:
    """States at the optimum and a step to both sides along each principal direction of Cov(θ̂), and the steps.

    Along direction t the parameters move by ``step · √λ_t v_t``, so that ``Cov(θ̂) = Σ_t (√λ_t v_t)(√λ_t v_t)'`` and a
    delta-method variance is the sum of squared derivatives.

    Returns
    -------
    states : list of Solution
        The optimum, then pairs (above, below).
    steps : (r,)
        Distance between the members of each pair, in units of one standard deviation along the direction.
    """
    large = fit.large_sample
    values, vectors = np.linalg.eigh(large.covariance)
    free = values > 0.0
    directions = (vectors[:, free] * np.sqrt(values[free])).T
    # A poorly determined direction has a long standard deviation; the step stays small in θ itself.
    steps = STEP / np.maximum(1.0, np.abs(directions).max(axis=1, initial=0.0)) if len(directions) else np.empty(0)
    states = [large.solution(large.centre)]
    for step, direction in zip(steps, directions, strict=True):
        states += [large.solution(large.centre + sign * step * direction) for sign in (1.0, -1.0)]
    return states, 2.0 * steps


def satterthwaite(variance: FloatArray, derivatives: FloatArray) -> FloatArray:
    """Degrees of freedom of estimated variances, from derivatives along uncorrelated unit directions of θ.

    Parameters
    ----------
    variance : (n,)
    derivatives : (n, r)

    Returns
    -------
    (n,), infinite where the variance does not depend on θ.
    """
    spread = np.einsum("ij,ij->i", derivatives, derivatives)
    known = spread <= 1e-20 * variance**2
    return np.where(known, np.inf, 2.0 * variance**2 / np.where(known, 1.0, spread))


def differences(stack: FloatArray, steps: FloatArray) -> FloatArray:
    """First entry, then derivatives: (1 + 2r, ...) at the states of `neighbours` -> (1 + r, ...)."""
    slopes = (stack[1::2] - stack[2::2]) / steps.reshape(-1, *[1] * (stack.ndim - 1))
    return np.concatenate([stack[:1], slopes])


def predict_rows(
    fit: LikelihoodFit, newdata: Any = None, level: str = "subject", interval: str | None = None, ci: float = 0.95
) -> pd.DataFrame:
    """See `LikelihoodFit.predict`. Costs O(n (p + q)²) for n rows, and one pass over the subjects for each θ."""
    check_request(level, interval, ci)
    rows = rows_of(fit.design, newdata, level)
    effects = bool(fit.design.term)
    words = level if effects else "marginal"  # without random effects all levels are the mean over subjects
    estimate = rows.line(fit.beta.to_numpy())
    if level == "subject":
        estimate = estimate + np.einsum("ij,ij->i", rows.Z, fit.b.to_numpy()[rows.subject])
    if interval is None:
        table = pd.DataFrame({"estimate": estimate}, index=rows.index)
        table.attrs.update(describe(words, None, ci, "", "") | {"level": level})
        return table
    if level == "subject" and interval == "prediction" and correlated(fit):
        from hierlmm.predict.dynamic import further_measurements

        estimate, variances, shifts = further_measurements(fit, rows, newdata is None)
    else:
        variances, shifts = _variances(fit, rows, level, interval, estimate)
    variance, df = with_theta(variances, shifts)
    table = interval_table(estimate, variance, ci, df, rows.index)
    notes = describe(words, interval, ci, contents(words, interval, effects=effects), quantile_note(df))
    table.attrs.update(notes | {"level": level})
    return table


def contents(level: str, interval: str, *, effects: bool) -> str:
    """What the variance of a row is made of, in words; ``effects``: whether the model has random effects."""
    if interval != "prediction":
        return CONTAINS[level]
    source = CONTAINS["new_subject"] if level == "marginal" and effects else CONTAINS[level]
    return f"{source}, and the residual variance"


def quantile_note(df: FloatArray) -> str:
    """Say which quantile was used, and with how many degrees of freedom."""
    if not len(df) or np.all(np.isinf(df)):
        return "normal"
    low, high = float(df.min()), float(df.max())
    found = f"{low:z.1f}" if high - low < 0.05 else f"{low:z.1f} to {high:z.1f}"
    return f"Student's t with {found} degrees of freedom (Satterthwaite: the uncertainty of θ)"


def with_theta(variances: FloatArray, shifts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variance including the sensitivity of the estimate to θ, and its degrees of freedom.

    Parameters
    ----------
    variances : (n, 1 + r)
        Variance given θ, and its derivatives along unit directions of θ̂.
    shifts : (n, r)
        Derivatives of the estimate along the same directions; (n, 0) where they do not count.
    """
    given = variances[:, 0]
    return given + np.einsum("ij,ij->i", shifts, shifts), satterthwaite(given, variances[:, 1:])


def _variances(
    fit: LikelihoodFit, rows: Rows, level: str, interval: str, fitted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Variances and their derivatives (n, 1 + r), and derivatives of BLUPs (n, r); (n, 0) without them."""
    states, steps = neighbours(fit)
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
