"""Σ_i of subjects as dense matrices, with derivatives, at any residual parameters; and the parameters that SAS names.

    Σ_i = σ̃² G_i R_i G_i,      ∂Σ/∂η_c = σ̃² G (∂R/∂η_c) G,
    ∂Σ/∂η_v = (∂log G/∂η_v) Σ + Σ (∂log G/∂η_v),      ∂Σ/∂log σ̃ = 2 Σ

at (η, log σ̃), η of the correlation, then of the variance function. All structures are the same here: what is asked of
them is the matrix, the logarithm of the SD ratio, and their derivatives.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.covariance.bind import BoundCorrelation
from hierlmm.covariance.residual.base import ResidualCorrelation
from hierlmm.likelihood.residual_rows import ResidualRows


def residual_covariance(rows: ResidualRows, at: FloatArray, places: IntArray) -> FloatArray:
    """Σ_i in working units of subjects with rows at ``places`` (J, n), at (η, log σ̃): (J, n, n)."""
    g = np.exp(_log_ratio(rows, at)[places] + at[-1])
    scale: FloatArray = g[:, :, None] * g[:, None, :]
    if rows.correlation is None:
        return scale * np.eye(places.shape[1])
    t, values = rows.correlation.rows.t[places], rows.correlation.values(at[: rows.n_correlation])
    R = np.empty((*places.shape, places.shape[1]))
    for spec, own, members in _levels(rows.correlation, places):
        R[members] = spec.matrix(t[members], values[own])
    return scale * R


def residual_derivatives(rows: ResidualRows, at: FloatArray, places: IntArray, Sigma: FloatArray) -> FloatArray:
    """Derivatives of Σ_i by (η, log σ̃): (k + 1, J, n, n)."""
    k = rows.n_correlation
    found = np.empty((len(at), *Sigma.shape))
    found[-1] = 2.0 * Sigma
    if rows.correlation is not None:
        g = np.exp(_log_ratio(rows, at)[places] + at[-1])
        slopes = rows.correlation.slopes(at[:k])[:, None, None, None] * (g[:, :, None] * g[:, None, :])
        t, values = rows.correlation.rows.t[places], rows.correlation.values(at[:k])
        found[:k] = 0.0
        for spec, own, members in _levels(rows.correlation, places):
            found[:k][own, members] = spec.derivatives(t[members], values[own])
        found[:k] *= slopes
    if rows.variance is not None:
        d = rows.variance.centred_derivatives(at[k:-1])[:, places]
        found[k:-1] = Sigma * (d[..., :, None] + d[..., None, :])
    return found


def _levels(correlation: BoundCorrelation, places: IntArray) -> list[tuple[ResidualCorrelation, slice, BoolArray]]:
    """Structure, its parameters and which of the subjects are its own, for every group with parameters of its own."""
    first = places[:, 0]
    levels = [(level.spec, level.own, level.rows[first]) for level in correlation.levels]
    everyone = (correlation.spec, slice(None), np.ones(len(first), dtype=bool))
    return [level for level in levels if level[2].any()] or [everyone]


def _log_ratio(rows: ResidualRows, at: FloatArray) -> FloatArray:
    """log(SD / σ̃) of every row: (N,)."""
    if rows.variance is None:
        return np.zeros(rows.n_obs)
    return rows.variance.centred_log_ratio(at[rows.n_correlation : -1])


def cells_of(rows: ResidualRows, at: FloatArray) -> IntArray | None:
    """A row of every group with a variance of its own, where these variances are the parameters of the variances."""
    if rows.variance is None:
        return None
    if not rows.variance.parameters:  # known weights: one variance, of which any row has a known multiple
        return np.zeros(1, dtype=np.intp)
    d = rows.variance.derivatives(at[rows.n_correlation : -1])
    distinct, first = np.unique(d, axis=1, return_index=True)
    if len(first) != len(d) + 1:
        return None
    return first if np.linalg.matrix_rank(np.vstack([np.ones(len(first)), distinct])) == len(first) else None


def told_parameters(rows: ResidualRows, at: FloatArray, cells: IntArray | None) -> FloatArray:
    """The residual parameters that SAS names, from (η, log σ̃): as many.

    Of a function of a number σ̃² is the variance of the average row: that at zero may lie far outside the data, where V
    bends so much that its second derivatives say nothing.

    Parameters
    ----------
    rows : ResidualRows
    at : (k + 1,)
    cells : IntArray, optional
        What `cells_of` gives.
    """
    k, variance, correlations = rows.n_correlation, float(np.exp(2.0 * at[-1])), _correlations(rows.correlation, at)
    if cells is not None:
        return np.concatenate([correlations, variance * np.exp(2.0 * _log_ratio(rows, at)[cells])])
    if rows.variance is not None:
        return np.concatenate([correlations, rows.variance.values(at[k:-1]), [variance]])
    if rows.correlation is not None and rows.correlation.spec.has_nugget and len(correlations) == 2:
        share = correlations[-1]
        return np.concatenate([correlations[:-1], [variance * share, variance * (1.0 - share)]])
    return np.append(correlations, variance)


def _correlations(correlation: BoundCorrelation | None, at: FloatArray) -> FloatArray:
    """What tables show of the correlation, where these are as many numbers as it has parameters."""
    if correlation is None:
        return np.zeros(0)
    eta = at[: len(correlation.parameters)]
    told = np.array(list(correlation.report(eta).values()))
    return told if len(told) == len(eta) else correlation.values(eta)
