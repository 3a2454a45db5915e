"""Compiled Cholesky factors of the dense residual structures, and the way back to their parameters.

Gaussian decay, Toeplitz and unstructured correlations: R at the positions of each pattern, its factor L, W = L⁻¹; and
from the derivative with respect to R of every pattern that with respect to the natural parameters. Toeplitz and
unstructured matrices are submatrices of one table, so their derivative is collected there first. The table's own is
that of ``R = L L'`` with ``L[i, j] = c_ij Π_{k<j} √(1 - c_ik²)``, or that of the Durbin-Levinson recursion.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.covariance.partial import autocorrelations, factor_row
from hierlmm.likelihood.rows import SMALLEST_PIVOT
from hierlmm.likelihood.triangles import cholesky, invert_triangle

GAUSSIAN, TOEPLITZ, UNSTRUCTURED = 4.0, 5.0, 6.0
DENSE = GAUSSIAN
"""Kinds from here on are whitened by Cholesky factors."""


@compiled()
def _table(kind: float, natural: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """All correlations (m, m); and the factor (m, m) of an unstructured table, the slopes (k, m) of a Toeplitz one."""
    table, factor = np.zeros((size, size)), np.zeros((size, size))
    if kind == 5.0:
        rho, slopes = autocorrelations(natural)
        for i in range(size):
            for j in range(size):
                table[i, j] = rho[abs(i - j)]
        return table, slopes
    at = 0
    for i in range(size):
        c = natural[at : at + i]
        factor_row(c, np.sqrt(1.0 - c * c), factor[i])
        at += i
        for j in range(i + 1):
            for m in range(j + 1):
                table[i, j] += factor[i, m] * factor[j, m]
            table[j, i] = table[i, j]
    return table, factor


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def dense_factors(
    kind: float, natural: FloatArray, patterns: FloatArray, positions: FloatArray, W: FloatArray, size: int
) -> tuple[float, FloatArray]:
    """Write W of every pattern, packed; Σ log|R_i| over the subjects, NaN where R is (nearly) singular.

    Parameters
    ----------
    natural : (k,)
    patterns : (K, 2)
        Rows and subjects of each pattern; ``positions`` holds their positions one after the other.
    size : int
        Positions of the table, 0 for a decay.

    Returns
    -------
    float
    (m, m) or (k, m)
        What `dense_gradient` needs of the table: see `_table`.
    """
    table, way_back = _table(kind, natural, size)
    share = 1.0 - natural[1] if len(natural) > 1 else 1.0
    log_det, at, place = 0.0, 0, 0
    for p in range(len(patterns)):
        n = int(patterns[p, 0])
        own = W[at : at + n * n].reshape((n, n))
        for s in range(n):
            for t in range(s + 1):
                if kind == 4.0:
                    lag = (positions[place + s] - positions[place + t]) / natural[0]
                    own[s, t] = 1.0 if s == t else share * np.exp(-lag * lag)
                else:
                    own[s, t] = table[int(positions[place + s]), int(positions[place + t])]
        if not cholesky(own, SMALLEST_PIVOT):
            return np.nan, way_back
        for s in range(n):
            log_det += 2.0 * patterns[p, 1] * np.log(own[s, s])
        invert_triangle(own)
        at += n * n
        place += n
    return log_det, way_back


# Long: the reverse of a Cholesky factor, step by step on shared arrays, as the opening writes it.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def dense_gradient(
    kind: float,
    natural: FloatArray,
    patterns: FloatArray,
    positions: FloatArray,
    W: FloatArray,
    products: FloatArray,
    way_back: FloatArray,
) -> FloatArray:
    """Derivative by the natural parameters (k,), from Σ M̄* M*' of every pattern (packed like W)."""
    size, nugget, gradient = way_back.shape[1], len(natural) > 1, np.zeros(len(natural))
    by_table = np.zeros((size, size))
    at, place, longest = 0, 0, 0
    for p in range(len(patterns)):
        longest = max(longest, int(patterns[p, 0]))
    inner, half = np.empty((longest, longest)), np.empty((longest, longest))
    for p in range(len(patterns)):
        n = int(patterns[p, 0])
        own = W[at : at + n * n].reshape((n, n))
        G = products[at : at + n * n].reshape((n, n))
        for s in range(n):
            for t in range(n):
                inner[s, t] = -0.25 * (G[s, t] + G[t, s]) + (patterns[p, 1] if s == t else 0.0)
        for s in range(n):  # inner W
            for t in range(n):
                total = 0.0
                for m in range(t, n):
                    total += inner[s, m] * own[m, t]
                half[s, t] = total
        for s in range(n):
            for t in range(n):
                by_R = 0.0
                for m in range(s, n):
                    by_R += own[m, s] * half[m, t]
                if kind == 4.0:
                    if s != t:
                        lag = (positions[place + s] - positions[place + t]) / natural[0]
                        value = np.exp(-lag * lag)
                        share = 1.0 - natural[1] if nugget else 1.0
                        gradient[0] += by_R * share * value * 2.0 * lag * lag / natural[0]
                        if nugget:
                            gradient[1] -= by_R * value
                else:
                    by_table[int(positions[place + s]), int(positions[place + t])] += by_R
        at += n * n
        place += n
    if kind == 5.0:
        for s in range(size):
            for t in range(size):
                lag = abs(s - t)
                if lag > 0:
                    for a in range(size - 1):
                        gradient[a] += by_table[s, t] * way_back[a, lag]
    elif kind == 6.0:
        at = 0
        for i in range(size):
            for j in range(i):
                c = natural[at]
                total = 0.0
                for m in range(j, i + 1):
                    by_L = 0.0
                    for s in range(m, size):
                        by_L += (by_table[i, s] + by_table[s, i]) * way_back[s, m]
                    if m == j:
                        rest = 1.0
                        for b in range(j):
                            rest *= np.sqrt(1.0 - natural[at - j + b] * natural[at - j + b])
                        total += by_L * rest
                    else:
                        total -= by_L * way_back[i, m] * c / (1.0 - c * c)
                gradient[at] += total
                at += 1
    return gradient
