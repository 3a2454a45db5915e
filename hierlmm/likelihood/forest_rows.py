"""One pass over the rows of a model with several grouping factors: their products, and what is left; compiled."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.forest_kernel import FAST, Plan


# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def products_of_rows(
    z: FloatArray, number: IntArray, place: IntArray, weight: FloatArray, n_rest: int, plan: Plan
) -> tuple[FloatArray, FloatArray]:
    """Z'WZ in the layout of the elimination, W = diag(weight).

    Parameters
    ----------
    z, number : (N, n)
        See `forest_layout.GroupedRows`.
    place : (N, w)
        See `Forest`.
    weight : (N,)
    n_rest : int
    plan : Plan

    Returns
    -------
    E : (base[-1],)
        Of every group of the chain, one after the other, the products of its columns with themselves and with those
        that it is coupled to, ``reach``: (q, q + n) each.
    rest : (r, r)
        Products of the rest.
    """
    q, _, first, width, line, base, begin, _ = plan
    m, Q, (N, n) = len(q), width[0], z.shape
    E, rest = np.zeros(base[-1]), np.zeros((n_rest, n_rest))
    for i in range(N):
        at = 0
        for k in range(m):
            group = line[k] + (number[i, at] - first[k]) // q[k]
            w = q[k] + begin[group + 1] - begin[group]
            for a in range(q[k]):
                zw, row = weight[i] * z[i, at + a], base[group] + a * w
                for b in range(at, Q):
                    E[row + b - at] += zw * z[i, b]
                for t in range(Q, n):
                    to = place[i, t - Q] if k == 0 else number[i, t] - first[m]
                    E[row + width[k] + to] += zw * z[i, t]
            at += q[k]
        for s in range(Q, n):
            zw, row = weight[i] * z[i, s], number[i, s] - first[m]
            for t in range(Q, n):
                rest[row, number[i, t] - first[m]] += zw * z[i, t]
    return E, rest


@compiled(fastmath=FAST, error_model="numpy")
def squares_of_rest(z: FloatArray, number: IntArray, XY: FloatArray, mean: FloatArray) -> FloatArray:
    """E'E for what is left of [X, y] when the conditional means of the random effects are taken off: (P, P)."""
    P, N = XY.shape
    total, e = np.zeros((P, P)), np.empty(P)
    for i in range(N):
        for s in range(P):
            e[s] = XY[s, i]
        for t in range(z.shape[1]):
            for s in range(P):
                e[s] -= z[i, t] * mean[number[i, t], s]
        for s in range(P):
            for t in range(s + 1):
                total[s, t] += e[s] * e[t]
    for s in range(P):
        for t in range(s):
            total[t, s] = total[s, t]
    return total


# Branches: loops over levels and columns.
@compiled(error_model="numpy")
def variances_of_rows(
    z: FloatArray, number: IntArray, place: IntArray, within: FloatArray, Pi: FloatArray, plan: Plan
) -> FloatArray:
    """z'Πz of every row, (N,).

    Parameters
    ----------
    z, number, place, plan
        See `products_of_rows`.
    within
        Conditional covariances as `forest_kernel.come_back` returns them.
    Pi : (r, r)
        Of the rest.
    """
    q, _, first, width, line, base, begin, _ = plan
    m, Q, (N, n) = len(q), width[0], z.shape
    found = np.zeros(N)
    for i in range(N):
        at, total = 0, 0.0
        for k in range(m):
            group = line[k] + (number[i, at] - first[k]) // q[k]
            w = q[k] + begin[group + 1] - begin[group]
            for a in range(q[k]):
                row, value = base[group] + a * w, 0.0
                for b in range(at, Q):
                    value += (1.0 if b < at + q[k] else 2.0) * within[row + b - at] * z[i, b]
                for t in range(Q, n):
                    to = place[i, t - Q] if k == 0 else number[i, t] - first[m]
                    value += 2.0 * within[row + width[k] + to] * z[i, t]
                total += z[i, at + a] * value
            at += q[k]
        for s in range(Q, n):
            for t in range(Q, n):
                total += z[i, s] * Pi[number[i, s] - first[m], number[i, t] - first[m]] * z[i, t]
        found[i] = total
    return found
