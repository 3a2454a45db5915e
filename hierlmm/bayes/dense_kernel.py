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

GAUSSIAN, TOEPLITZ, UNSTRUCTURED = 4.0, 5.0, 6.0
DENSE = GAUSSIAN
"""Kinds from here on are whitened by Cholesky factors."""


@compiled()
def _table(
    kind: float, natural: FloatArray, size: int, table: FloatArray, factor: FloatArray, slopes: FloatArray
) -> None:
    """All correlations (m, m); the factor of an unstructured table, the slopes (k, m) of a Toeplitz one."""
    if kind == 6.0:
        at = 0
        for i in range(size):
            c = natural[at : at + i]
            factor_row(c, np.sqrt(1.0 - c * c), factor[i])
            at += i
        for i in range(size):
            for j in range(i + 1):
                total = 0.0
                for m in range(j + 1):
                    total += factor[i, m] * factor[j, m]
                table[i, j] = total
                table[j, i] = total
    elif kind == 5.0:
        rho, slopes[:] = autocorrelations(natural)
        for i in range(size):
            for j in range(size):
                table[i, j] = rho[abs(i - j)]


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def dense_factors(
    kind: float,
    natural: FloatArray,
    nugget: bool,
    patterns: FloatArray,
    positions: FloatArray,
    smallest: float,
    W: FloatArray,
    table: FloatArray,
    factor: FloatArray,
    slopes: FloatArray,
) -> float:
    """Write W of every pattern, packed, and return Σ log|R_i| over the subjects; NaN where R is (nearly) singular.

    Parameters
    ----------
    natural : (k,)
    patterns : (K, 2)
        Rows and subjects of each pattern; ``positions`` holds their positions one after the other.
    table, factor : (m, m), slopes : (k, m)
        Work space that `dense_gradient` reads.
    """
    _table(kind, natural, table.shape[0], table, factor, slopes)
    share = 1.0 - natural[1] if nugget else 1.0
    log_det, at, place = 0.0, 0, 0
    for p in range(len(patterns)):
        n = int(patterns[p, 0])
        own = W[at : at + n * n].reshape((n, n))
        for s in range(n):
            for t in range(s + 1):
                if kind == 4.0:
                    lag = (positions[place + s] - positions[place + t]) / natural[0]
                    value = 1.0 if s == t else share * np.exp(-lag * lag)
                else:
                    value = table[int(positions[place + s]), int(positions[place + t])]
                for m in range(t):
                    value -= own[s, m] * own[t, m]
                if s == t:
                    if not value > smallest:
                        return np.nan
                    log_det += patterns[p, 1] * np.log(value)
                    own[s, s] = np.sqrt(value)
                else:
                    own[s, t] = value / own[t, t]
        for s in range(n):  # the inverse of the factor, in its place
            own[s, s] = 1.0 / own[s, s]
            for t in range(s):
                total = 0.0
                for m in range(t, s):
                    total -= own[s, m] * own[m, t]
                own[s, t] = total * own[s, s]
            for t in range(s + 1, n):
                own[s, t] = 0.0
        at += n * n
        place += n
    return log_det


# Long: the reverse of a Cholesky factor, step by step on shared arrays, as the opening writes it.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def dense_gradient(
    kind: float,
    natural: FloatArray,
    nugget: bool,
    patterns: FloatArray,
    positions: FloatArray,
    W: FloatArray,
    products: FloatArray,
    factor: FloatArray,
    slopes: FloatArray,
    gradient: FloatArray,
) -> None:
    """Add the derivative by the natural parameters (k,), from Σ M̄* M*' of every pattern (packed like W)."""
    size = factor.shape[0]
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
                        gradient[a] += by_table[s, t] * slopes[a, lag]
    elif kind == 6.0:
        at = 0
        for i in range(size):
            for j in range(i):
                c = natural[at]
                total = 0.0
                for m in range(j, i + 1):
                    by_L = 0.0
                    for s in range(m, size):
                        by_L += (by_table[i, s] + by_table[s, i]) * factor[s, m]
                    if m == j:
                        rest = 1.0
                        for b in range(j):
                            rest *= np.sqrt(1.0 - natural[at - j + b] * natural[at - j + b])
                        total += by_L * rest
                    else:
                        total -= by_L * factor[i, m] * c / (1.0 - c * c)
                gradient[at] += total
                at += 1
