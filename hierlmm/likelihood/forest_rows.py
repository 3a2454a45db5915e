"""One pass over the rows of a model with several grouping factors: their products, and what is left; compiled."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled

FAST = {"contract", "reassoc", "nsz", "arcp"}


# Long: one pass over the rows that fills five arrays.
# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def products_of_rows(
    Z: FloatArray,
    XY: FloatArray,
    weight: FloatArray,
    group: IntArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    zr: FloatArray,
    rest_column: IntArray,
    place: IntArray,
    n_places: int,
    n_rest: int,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Z'WZ and Z'[X, y] in the layout of the elimination, W = diag(weight).

    Parameters
    ----------
    Z : (Q, N)
        Random-effects columns of the chain, one factor after the other.
    XY : (P, N)
        Not weighted.
    weight : (N,)
        Of the rows.
    group : (m, N)
        Group of every row in each factor of the chain.
    q, J, first, width
        See `Forest`.
    zr : (N, w)
        Values of the random effects of the rest.
    rest_column, place : (N, w)
        See `Forest`.
    n_places, n_rest : int
        Lengths of ``Forest.column`` and of the rest.

    Returns
    -------
    E : (Σ J q width,)
        Products of every group's columns with its own and those of the groups it lies in, group after group.
    leaf : (n_places, q_0)
        Products of the finest groups with the rest.
    upper : (Σ_{l>0} J q, r)
        Products of the other groups of the chain with the rest.
    rest : (r, r)
    c : (T, P)
        Products of all columns with [X, y].
    """
    m, N, P, w = len(q), XY.shape[1], XY.shape[0], rest_column.shape[1]
    base = np.zeros(m, dtype=np.int64)
    for k in range(1, m):
        base[k] = base[k - 1] + J[k - 1] * q[k - 1] * width[k - 1]
    E = np.zeros(base[m - 1] + J[m - 1] * q[m - 1] * width[m - 1])
    leaf = np.zeros((n_places, q[0]))
    upper = np.zeros((first[m] - first[1], n_rest))
    rest = np.zeros((n_rest, n_rest))
    c = np.zeros((first[m] + n_rest, P))
    Q = width[0]
    for i in range(N):
        at = 0
        for k in range(m):
            j, qk, wk = group[k, i], q[k], width[k]
            for a in range(qk):
                z, zw = Z[at + a, i], weight[i] * Z[at + a, i]
                row = base[k] + (j * qk + a) * wk
                for b in range(Q - at):
                    E[row + b] += zw * Z[at + b, i]
                column = first[k] + j * qk + a
                for s in range(P):
                    c[column, s] += z * XY[s, i]
                if k == 0:
                    for t in range(w):
                        leaf[place[i, t], a] += zw * zr[i, t]
                else:
                    for t in range(w):
                        upper[column - first[1], rest_column[i, t]] += zw * zr[i, t]
            at += qk
        for t in range(w):
            z, zw, column = zr[i, t], weight[i] * zr[i, t], rest_column[i, t]
            for s in range(w):
                rest[column, rest_column[i, s]] += zw * zr[i, s]
            for s in range(P):
                c[first[m] + column, s] += z * XY[s, i]
    return E, leaf, upper, rest, c


# Branches: loops over levels and columns.
@compiled(fastmath=FAST, error_model="numpy")
def squares_of_rest(
    Z: FloatArray,
    XY: FloatArray,
    group: IntArray,
    q: IntArray,
    first: IntArray,
    zr: FloatArray,
    rest_column: IntArray,
    mean: FloatArray,
) -> FloatArray:
    """E'E for what is left of [X, y] when the conditional means of the random effects are taken off: (P, P)."""
    m, (P, N), w = len(q), XY.shape, rest_column.shape[1]
    total, e = np.zeros((P, P)), np.empty(P)
    for i in range(N):
        for s in range(P):
            e[s] = XY[s, i]
        at = 0
        for k in range(m):
            for a in range(q[k]):
                z, number = Z[at, i], first[k] + group[k, i] * q[k] + a
                for s in range(P):
                    e[s] -= z * mean[number, s]
                at += 1
        for t in range(w):
            z, number = zr[i, t], first[m] + rest_column[i, t]
            for s in range(P):
                e[s] -= z * mean[number, s]
        for s in range(P):
            for t in range(s + 1):
                total[s, t] += e[s] * e[t]
    for s in range(P):
        for t in range(s):
            total[t, s] = total[s, t]
    return total


# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def sums_of_rows(
    Z: FloatArray,
    group: IntArray,
    q: IntArray,
    first: IntArray,
    zr: FloatArray,
    rest_column: IntArray,
    v: FloatArray,
    n_rest: int,
) -> FloatArray:
    """Z'v of all groups in the order of elimination: (T, P), of v (P, N)."""
    m, (P, N), w = len(q), v.shape, rest_column.shape[1]
    found = np.zeros((first[m] + n_rest, P))
    for i in range(N):
        at = 0
        for k in range(m):
            for a in range(q[k]):
                z, number = Z[at, i], first[k] + group[k, i] * q[k] + a
                for s in range(P):
                    found[number, s] += z * v[s, i]
                at += 1
        for t in range(w):
            for s in range(P):
                found[first[m] + rest_column[i, t], s] += zr[i, t] * v[s, i]
    return found


# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def lines_of_rows(
    Z: FloatArray,
    group: IntArray,
    q: IntArray,
    first: IntArray,
    zr: FloatArray,
    rest_column: IntArray,
    b: FloatArray,
) -> FloatArray:
    """Zb of every row, (N,), of b (T,) in the order of elimination."""
    m, N, w = len(q), Z.shape[1], rest_column.shape[1]
    found = np.zeros(N)
    for i in range(N):
        at, total = 0, 0.0
        for k in range(m):
            for a in range(q[k]):
                total += Z[at, i] * b[first[k] + group[k, i] * q[k] + a]
                at += 1
        for t in range(w):
            total += zr[i, t] * b[first[m] + rest_column[i, t]]
        found[i] = total
    return found


# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def variances_of_rows(
    Z: FloatArray,
    group: IntArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    zr: FloatArray,
    rest_column: IntArray,
    place: IntArray,
    within: FloatArray,
    across_leaf: FloatArray,
    across: FloatArray,
    Pi: FloatArray,
) -> FloatArray:
    """z'Πz of every row, (N,).

    Parameters
    ----------
    Z, group, q, J, first, width, zr, rest_column, place
        See `products_of_rows`.
    within, across_leaf, across
        Conditional covariances as `forest_kernel.come_back` returns them.
    Pi : (r, r)
        Of the rest.
    """
    m, N, w, Q = len(q), Z.shape[1], rest_column.shape[1], width[0]
    found = np.zeros(N)
    for i in range(N):
        at, base, total = 0, 0, 0.0
        for k in range(m):
            qk, wk = q[k], width[k]
            number = first[k] + group[k, i] * qk
            for a in range(qk):
                row, value = base + (group[k, i] * qk + a) * wk, 0.0
                for b in range(qk):
                    value += within[row + b] * Z[at + b, i]
                for b in range(qk, Q - at):
                    value += 2.0 * within[row + b] * Z[at + b, i]
                for t in range(w):
                    if k == 0:
                        value += 2.0 * across_leaf[place[i, t], a] * zr[i, t]
                    else:
                        value += 2.0 * across[number + a - first[1], rest_column[i, t]] * zr[i, t]
                total += Z[at + a, i] * value
            at += qk
            base += J[k] * qk * wk
        for t in range(w):
            value = 0.0
            for s in range(w):
                value += Pi[rest_column[i, t], rest_column[i, s]] * zr[i, s]
            total += zr[i, t] * value
        found[i] = total
    return found
