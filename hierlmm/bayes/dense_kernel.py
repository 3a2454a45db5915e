"""Compiled Cholesky factors of the dense residual structures, and the way back to their parameters.

Gaussian decay, Toeplitz, unstructured and ante-dependent correlations: R at the positions of each pattern, its factor
L, W = L⁻¹; and from the derivative with respect to R of every pattern that with respect to the natural parameters. All
but the first are submatrices of one table (one for each group with parameters of its own), so their derivative is
collected there first. The table's own is that of ``R = L L'`` with ``L[i, j] = c_ij Π_{k<j} √(1 - c_ik²)``, that of the
Durbin-Levinson recursion, or that of products, ``∂R[i, j]/∂ρ_k = R[i, k] R[k + 1, j]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.covariance.partial import autocorrelations, factor_row
from hierlmm.likelihood.rows import SMALLEST_PIVOT
from hierlmm.likelihood.triangles import cholesky, invert_triangle

IntArray = NDArray[np.int64]
GAUSSIAN, TOEPLITZ, UNSTRUCTURED, ANTE = 4.0, 5.0, 6.0, 7.0
TABLES = (TOEPLITZ, UNSTRUCTURED, ANTE)
DENSE = GAUSSIAN
"""Kinds from here on are whitened by Cholesky factors."""


# Branches: three kinds of tables.
@compiled()
def _table(kind: float, natural: FloatArray, table: FloatArray, factor: FloatArray) -> None:
    """Write all correlations (m, m); and the factor (m, m) of an unstructured table, the slopes of a Toeplitz one."""
    size = len(table)
    if kind == 5.0:
        rho, slopes = autocorrelations(natural)
        factor[: len(slopes), : len(rho)] = slopes
        for i in range(size):
            for j in range(size):
                if abs(i - j) < len(rho):  # a group may be followed for a shorter time
                    table[i, j] = rho[abs(i - j)]
        return
    if kind == 7.0:
        for i in range(size):
            table[i, i] = 1.0
            for j in range(i + 1, size):
                table[i, j] = table[i, j - 1] * natural[j - 1]
                table[j, i] = table[i, j]
        return
    at = 0
    for i in range(size):
        c = natural[at : at + i]
        factor_row(c, np.sqrt(1.0 - c * c), factor[i])
        at += i
        for j in range(i + 1):
            for m in range(j + 1):
                table[i, j] += factor[i, m] * factor[j, m]
            table[j, i] = table[i, j]


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def dense_factors(
    kind: float,
    natural: FloatArray,
    first: IntArray,
    patterns: FloatArray,
    positions: FloatArray,
    W: FloatArray,
    size: int,
) -> tuple[float, FloatArray]:
    """Write W of every pattern, packed; Σ log|R_i| over the subjects, NaN where R is (nearly) singular.

    Parameters
    ----------
    natural : (k,)
    first : (L + 1,)
        Where the parameters of each of L groups begin, and their end.
    patterns : (K, 3)
        Rows, subjects and group of each pattern; ``positions`` holds their positions one after the other.
    size : int
        Positions of the table, 0 for a decay.

    Returns
    -------
    float
    (L, m, m)
        What `dense_gradient` needs of the tables: see `_table`.
    """
    L = len(first) - 1
    tables, way_back = np.zeros((L, size, size)), np.zeros((L, size, size))
    if size:
        for g in range(L):
            _table(kind, natural[first[g] : first[g + 1]], tables[g], way_back[g])
        if kind == 7.0:
            way_back = tables
    log_det, at, place = 0.0, 0, 0
    for p in range(len(patterns)):
        n, g = int(patterns[p, 0]), int(patterns[p, 2])
        table, reach = tables[g], natural[first[g]]
        share = 1.0 - natural[first[g] + 1] if first[g + 1] - first[g] > 1 else 1.0
        own = W[at : at + n * n].reshape((n, n))
        for s in range(n):
            for t in range(s + 1):
                if kind == 4.0:
                    lag = (positions[place + s] - positions[place + t]) / reach
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
    first: IntArray,
    patterns: FloatArray,
    positions: FloatArray,
    W: FloatArray,
    products: FloatArray,
    way_back: FloatArray,
) -> FloatArray:
    """Derivative by the natural parameters (k,), from Σ M̄* M*' of every pattern (packed like W)."""
    size, gradient = way_back.shape[1], np.zeros(len(natural))
    by_tables = np.zeros((len(first) - 1, size, size))
    at, place, longest = 0, 0, 0
    for p in range(len(patterns)):
        longest = max(longest, int(patterns[p, 0]))
    inner, half = np.empty((longest, longest)), np.empty((longest, longest))
    for p in range(len(patterns)):
        n, g = int(patterns[p, 0]), int(patterns[p, 2])
        by_table, reach, nugget = by_tables[g], natural[first[g]], first[g + 1] - first[g] > 1
        share = 1.0 - natural[first[g] + 1] if nugget else 1.0
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
                        lag = (positions[place + s] - positions[place + t]) / reach
                        value = np.exp(-lag * lag)
                        gradient[first[g]] += by_R * share * value * 2.0 * lag * lag / reach
                        if nugget:
                            gradient[first[g] + 1] -= by_R * value
                else:
                    by_table[int(positions[place + s]), int(positions[place + t])] += by_R
        at += n * n
        place += n
    if size:
        for g in range(len(first) - 1):
            lo, hi = first[g], first[g + 1]
            _through_table(kind, natural[lo:hi], by_tables[g], way_back[g], gradient[lo:hi])
    return gradient


# Branches: three kinds of tables.
@compiled()
def _through_table(
    kind: float, natural: FloatArray, by_table: FloatArray, way_back: FloatArray, gradient: FloatArray
) -> None:
    """Add the derivative by the natural parameters of a table (k,), from that by its entries (m, m)."""
    size = len(by_table)
    if kind == 5.0:
        for s in range(size):
            for t in range(size):
                lag = abs(s - t)
                if 0 < lag <= len(natural):
                    for a in range(len(natural)):
                        gradient[a] += by_table[s, t] * way_back[a, lag]
        return
    if kind == 7.0:
        for k in range(size - 1):
            for i in range(k + 1):
                for j in range(k + 1, size):
                    gradient[k] += (by_table[i, j] + by_table[j, i]) * way_back[i, k] * way_back[k + 1, j]
        return
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
