"""The marginal log-likelihood of every subject at given parameters, random effects integrated out.

With ``[Z_i, X_i, r_i] = O_i [[R_i, C_i], [0, W_i]]`` (QR by subject, r = y - offset - X β₀ at an origin β₀), D = H H',
F_i = R_i H/σ and γ = (β₀ - β, 1)

    T_i = I + F_i F_i',    log p(y_i | β, D, σ) = -½ [ n_i log 2πσ² + log|T_i| + (|W_i γ|² + γ'C_i'T_i⁻¹C_i γ)/σ² ]

Nothing is subtracted, so nothing cancels however small σ is against D: both quadratic forms are sums of squares, and
the Cholesky factor of T_i is the identity turned by rotations to take up the columns of F_i, one after the other. Hence
D enters by a root H: its own entries do not tell a variance from zero that is small against the others.

Rows with a residual structure are whitened first. Without one the decomposition serves all draws of the parameters, and
a draw costs the same whatever the number of rows of the subject.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design
from hierlmm.likelihood.crossproducts import subject_rows
from hierlmm.likelihood.residual_rows import whiten_columns
from hierlmm.threads import in_threads

WORTH_A_THREAD = 20_000
"""Subjects times draws below which starting threads costs more than it saves."""


def subject_loglik(
    design: Design,
    beta: FloatArray,
    root: FloatArray,
    sigma: FloatArray,
    residuals: Sequence[ResidualEstimate] | None = None,
    subjects: slice | None = None,
) -> FloatArray:
    """Marginal log-likelihood log p(y_i | β, θ) of every subject at every draw of the parameters.

    Parameters
    ----------
    design : Design
    beta : (S, p)
    root : (S, q, q)
        H with D = H H'; see `covariance_root` where only D is known.
    sigma : (S,)
        Positive.
    residuals : sequence of ResidualEstimate, optional
        The residual structure at each draw.
    subjects : slice, optional
        Positions of the subjects; all by default.

    Returns
    -------
    (S, J)

    Notes
    -----
    Costs about S J (P²/2 + 3 q³) multiplications, P = p + 1, after one QR decomposition of each subject's rows; with a
    residual structure, one for every draw.
    """
    order, start = subject_rows(design)
    first, last, _ = (subjects or slice(None)).indices(design.n_subjects)
    rows, start = order[start[first] : start[last]], start[first : last + 1] - start[first]
    shifted = design.y - design.offset
    if residuals is None:
        return rows_loglik(design.Z[rows], design.X[rows], shifted[rows], start, beta, root, sigma)
    out = np.empty((len(sigma), last - first))
    for s, residual in enumerate(residuals):
        error = shifted - design.X @ beta[s]
        white, log_det = whiten_columns(residual, np.column_stack([design.Z, error]))
        Z, z, one = white[rows, :-1], white[rows, -1], slice(s, s + 1)
        out[s] = rows_loglik(Z, Z[:, :0], z, start, beta[one, :0], root[one], sigma[one])[0]
        out[s] -= 0.5 * log_det[first:last]
    return out


def rows_loglik(
    Z: FloatArray, X: FloatArray, y: FloatArray, start: IntArray, beta: FloatArray, root: FloatArray, sigma: FloatArray
) -> FloatArray:
    """The same for rows (N, q), (N, p), (N,) with independent residuals, subject j's at ``start[j]:start[j+1]``."""
    origin = beta.mean(axis=0)
    factor = _factors(np.column_stack([Z, X, y - X @ origin]), start)
    out = np.empty((len(sigma), len(start) - 1))
    gamma = np.column_stack([origin - beta, np.ones(len(sigma))])
    S, q = len(sigma), Z.shape[1]
    root = np.ascontiguousarray(root, dtype=np.float64).reshape(S, q, q)
    data = (factor, np.ascontiguousarray(gamma), root, np.ascontiguousarray(sigma, dtype=np.float64), out)
    if out.size < WORTH_A_THREAD:
        _loglik(*data, 0, S)
    else:
        in_threads(S, lambda lo, hi: _loglik(*data, lo, hi))
    return out - 0.5 * np.outer(np.log(2.0 * np.pi) + 2.0 * np.log(sigma), np.diff(start))


def covariance_root(D: FloatArray) -> FloatArray:
    """H with D = H H', of positive semi-definite matrices (..., q, q); small variances keep their digits."""
    sd = np.sqrt(np.diagonal(D, axis1=-2, axis2=-1))
    unit = np.where(sd > 0.0, sd, 1.0)
    values, vectors = np.linalg.eigh(D / (unit[..., :, None] * unit[..., None, :]))
    return sd[..., :, None] * vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]


def _factors(columns: FloatArray, start: IntArray) -> FloatArray:
    """Triangular factors of each subject's rows, padded with zero rows: (N, c) -> (J, c, c)."""
    counts = np.diff(start)
    out = np.zeros((len(counts), columns.shape[1], columns.shape[1]))
    for count in np.unique(counts):
        members = np.flatnonzero(counts == count)
        found = np.linalg.qr(columns[start[members][:, None] + np.arange(count)], mode="r")
        out[members, : found.shape[1]] = found
    return out


# The branches are loops over draws, subjects and the q × q algebra, written out.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy")
def _loglik(
    factor: FloatArray, gamma: FloatArray, root: FloatArray, sigma: FloatArray, out: FloatArray, lo: int, hi: int
) -> None:
    """Fill draws lo:hi of ``out`` (S, J) with the log-likelihood less its constant, ``-½ n_i log 2πσ²``."""
    J, width, q = factor.shape[0], factor.shape[1], root.shape[1]
    P = width - q
    u, x, L = np.empty(q), np.empty(q), np.empty((q, q))
    for s in range(lo, hi):
        scale = 1.0 / sigma[s]  # before squaring: σ may be far from the size of the data
        for j in range(J):
            total = 0.0
            for r in range(q, width):  # |W γ|², W upper triangular
                w = 0.0
                for a in range(r - q, P):
                    w += factor[j, r, q + a] * gamma[s, a]
                w *= scale
                total += w * w
            for i in range(q):  # C γ
                w = 0.0
                for a in range(P):
                    w += factor[j, i, q + a] * gamma[s, a]
                u[i] = w * scale
                for k in range(i):
                    L[i, k] = 0.0
                L[i, i] = 1.0
            for c in range(q):  # L L' + x x' for every column x of F, by rotations
                for i in range(q):
                    w = 0.0
                    for m in range(i, q):
                        w += factor[j, i, m] * root[s, m, c]
                    x[i] = w * scale
                for k in range(q):
                    pivot = np.hypot(L[k, k], x[k])
                    cosine, sine = L[k, k] / pivot, x[k] / pivot
                    L[k, k] = pivot
                    for i in range(k + 1, q):
                        old = L[i, k]
                        L[i, k] = cosine * old + sine * x[i]
                        x[i] = cosine * x[i] - sine * old
            determinant, log_det = 1.0, 0.0
            for i in range(q):
                determinant *= L[i, i]
                if determinant > 1e100:
                    log_det += np.log(determinant)
                    determinant = 1.0
                w = u[i]
                for k in range(i):
                    w -= L[i, k] * u[k]
                u[i] = w / L[i, i]
                total += u[i] * u[i]
            log_det += np.log(determinant)
            out[s, j] = -log_det - 0.5 * total
