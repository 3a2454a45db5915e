"""The constant in the span of a design without an intercept column, and columns centred by it.

A response far from zero (kelvin, calendar years, pascals) loses its digits once it is squared, unless it is centred
first; centring changes nothing but coefficients where the constant is a combination of the columns, ``X e = 1``: that
is so with an intercept (e a unit vector), but also for all levels of a factor, or a spline basis that sums to one.

With k the largest part of the combination and c the means of the other columns,

    X = [.., 1 at k, ..] A,       A = I but for its column k:  -e_j / e_k,  1 / e_k at k
    X = X_c (I + e_k c') A = X_c B,   log|det B| = -log|e_k|

where X_c has the constant at k and centred columns elsewhere.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray

ROUNDING = 1e-13
"""Distance from the constant, relative to the terms of the sum, that is rounding."""
NO_PART = 1e-9
"""A column whose share of the combination is smaller than this, relative to the largest, has no part in it."""


def constant_combination(X: FloatArray) -> FloatArray | None:
    """Find e (p,) with ``X e = 1``, or None if the columns of X (N, p) do not span the constant.

    After centring, a column of the combination depends on the columns before it: each column that does is tried.
    """
    p = X.shape[1]
    means, raw = X.mean(axis=0), np.sqrt(np.einsum("ij,ij->j", X, X))
    basis, factor = np.empty((p, len(X))), np.zeros((p, p))
    for k in range(p):
        left = X[:, k] - means[k]
        for _ in range(2):
            share = basis[:k] @ left
            factor[:k, k] += share
            left = left - share @ basis[:k]
        norm = float(np.sqrt(left @ left))
        if norm <= NO_PART * raw[k]:
            found = _combination(X, k, means, factor)
            if found is not None:
                return found
        basis[k], factor[k, k] = left / (norm or 1.0), norm or 1.0
    return None


def _combination(X: FloatArray, k: int, means: FloatArray, factor: FloatArray) -> FloatArray | None:
    """E if centred column k minus its projection on the columns before is zero, so that X e is constant."""
    weights = np.zeros(X.shape[1])
    weights[k] = 1.0
    weights[:k] = -np.linalg.solve(factor[:k, :k], factor[:k, k])
    size = np.abs(weights) * np.sqrt(np.mean((X - means) ** 2, axis=0))
    part = np.flatnonzero(size > NO_PART * size.max()) if size.max() > 0 else np.array([k])
    scale = np.abs(X[:, part]).max(axis=0)
    if not np.all(scale > 0):
        return None
    e = np.zeros(X.shape[1])
    e[part] = np.linalg.lstsq(X[:, part] / scale, np.ones(len(X)), rcond=None)[0] / scale
    terms = np.abs(X[:, part]) @ np.abs(e[part])
    return e if np.all(np.abs(X[:, part] @ e[part] - 1.0) <= ROUNDING * np.maximum(terms, 1.0)) else None


def centre_columns(rows: FloatArray, e: FloatArray) -> tuple[FloatArray, float]:
    """Centre the columns of X, held as rows (p, N), in place; the one with the largest part of ``X e`` becomes 1.

    Returns
    -------
    B : (p, p)
        ``X = X_c B``.
    log_det : float
        log|det B|.
    """
    k = int(np.argmax(np.abs(e) * np.sqrt(np.einsum("ij,ij->i", rows, rows))))
    rows[k] = 1.0
    centres = rows.mean(axis=1)
    centres[k] = 0.0
    rows -= centres[:, None]
    A = np.eye(len(e))
    A[:, k] = -e / e[k]
    A[k, k] = 1.0 / e[k]
    shear = np.eye(len(e))
    shear[k] += centres
    return shear @ A, -float(np.log(np.abs(e[k])))
