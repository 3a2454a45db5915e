"""Systems of equations with what `forest_kernel.eliminate` left: ``(I + Λ'CΛ) u = Λ'c``; compiled.

In the notation of `forest_kernel`: forward, ``c_N −= C_Ng KK' c_g``; backward, with m_N = (Λu)_N of the groups N known,

    u_g = L⁻ᵀ K' (c_g − C_gN m_N),      m_g = Λ u_g.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.forest_kernel import gain_of_group, root_of_group


# Branches: loops over levels, groups and columns, written out for numba.
@compiled(error_model="numpy")
def forward(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
) -> None:
    """Bring a new right side c (T,) to what `eliminate` would have left of it, in place.

    Parameters
    ----------
    E, leaf, upper
        As `eliminate` left them.
    c : (T,)
        Changed in place.
    Lambda : (Q, Q)
    q, J, first, width, above, start, column
        See `Forest`.
    """
    m, r = len(q), upper.shape[1]
    base, line, at = 0, 0, 0
    for k in range(m):
        qk, w = q[k], width[k]
        own = Lambda[at : at + qk, at : at + qk]
        K, L, v, g = np.empty((qk, qk)), np.empty((qk, qk)), np.empty(qk), np.empty(qk)
        for j in range(J[k]):
            row, number = base + j * qk * w, first[k] + j * qk
            root_of_group(E, row, qk, w, own, L)
            gain_of_group(qk, own, L, K)
            for a in range(qk):
                v[a] = 0.0
                for b in range(qk):
                    v[a] += K[b, a] * c[number + b]
            for a in range(qk):
                g[a] = 0.0
                for b in range(qk):
                    g[a] += K[a, b] * v[b]
            offset = 0
            for higher in range(k + 1, m):
                qh, jh = q[higher], above[line + j, higher]
                for b in range(qh):
                    for a in range(qk):
                        c[first[higher] + jh * qh + b] -= E[row + a * w + qk + offset + b] * g[a]
                offset += qh
            lo, hi = (start[j], start[j + 1]) if k == 0 else (0, r)
            for t in range(hi - lo):
                total = 0.0
                for a in range(qk):
                    total += (leaf[lo + t, a] if k == 0 else upper[number - first[1] + a, t]) * g[a]
                c[first[m] + (column[lo + t] if k == 0 else t)] -= total
        base += J[k] * qk * w
        line += J[k]
        at += qk


# Branches: as `forward`.
@compiled(error_model="numpy")
def backward(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    u: FloatArray,
    mean: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
) -> None:
    """Solve for the groups of the chain, coarsest first, from the solution for the rest.

    Parameters
    ----------
    E, leaf, upper, c
        As `eliminate` left them: c (T,).
    Lambda : (Q, Q)
    u, mean : (T,)
        u and Λu; those of the rest are given, the others are filled in.
    q, J, first, width, above, start, column
        See `Forest`.
    """
    m, r = len(q), upper.shape[1]
    base, line, at = len(E), len(above), width[0]
    for k in range(m - 1, -1, -1):
        qk, w = q[k], width[k]
        base -= J[k] * qk * w
        line -= J[k]
        at -= qk
        own = Lambda[at : at + qk, at : at + qk]
        K, L, v = np.empty((qk, qk)), np.empty((qk, qk)), np.empty(qk)
        for j in range(J[k]):
            row, number = base + j * qk * w, first[k] + j * qk
            root_of_group(E, row, qk, w, own, L)
            gain_of_group(qk, own, L, K)
            for a in range(qk):
                total, offset = c[number + a], 0
                for higher in range(k + 1, m):
                    qh, jh = q[higher], above[line + j, higher]
                    for b in range(qh):
                        total -= E[row + a * w + qk + offset + b] * mean[first[higher] + jh * qh + b]
                    offset += qh
                lo, hi = (start[j], start[j + 1]) if k == 0 else (0, r)
                for t in range(hi - lo):
                    value = leaf[lo + t, a] if k == 0 else upper[number - first[1] + a, t]
                    total -= value * mean[first[m] + (column[lo + t] if k == 0 else t)]
                v[a] = total
            for a in range(qk - 1, -1, -1):  # L'u = K'v
                total = 0.0
                for b in range(qk):
                    total += K[b, a] * v[b]
                for b in range(a + 1, qk):
                    total -= L[b, a] * u[number + b]
                u[number + a] = total / L[a, a]
            for a in range(qk):
                mean[number + a] = 0.0
                for b in range(qk):
                    mean[number + a] += own[a, b] * u[number + b]
