"""Several grouping factors: elimination of their groups, finest first, and the way back; compiled.

With ``V = I + Σ_k Z_k (I ⊗ B_k) Z_k'``, B_k = Λ_kΛ_k', random effects are integrated out one group after the other.
When a group g comes, C_gg (q × q) and C_gN (q × n) are what is left, after all earlier ones, of Z_g'Z_g and of its
products with the later groups N that it is coupled to. With ``I + Λ'C_ggΛ = LL'`` and ``K = ΛL⁻ᵀ``:

    log|V| += 2 log|L|,      C_NN −= C_Ng KK' C_gN.

On the way back, with ``H = (I + C_gg B)⁻¹``, which is kept of every group, ``d = H C_gN``, and Π = Cov(b | y) of the
groups N known (σ = 1),

    Z_g'V⁻¹Z_g = H C_gg − d Π_NN d',      Π_gN = −B d Π_NN,      Π_gg = B H + B d Π_NN d'B.

Nothing is divided by Λ, which may be singular. What a right side adds is in `forest_solve`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled

FAST = {"contract", "reassoc", "nsz", "arcp"}


class Plan(NamedTuple):
    """The order of elimination as compiled code reads it.

    Attributes
    ----------
    q, J : (m,)
        Random effects a group, and groups, of the factors of the chain.
    first : (m + 1,)
        Number of the first random effect of each, and of the rest.
    width : (m,)
        Random effects of a group and of all that it lies in.
    line : (m + 1,)
        Number of the first group of each factor of the chain, and of all groups, G.
    base, begin : (G + 1,)
        Where every group of the chain begins in ``E`` of `products_of_rows`, and in ``reach``.
    reach : (n,)
        Random effects that every group is coupled to: of the groups it lies in, then columns of the rest, of the finest
        groups those that their rows touch and of the others all.
    """

    q: IntArray
    J: IntArray
    first: IntArray
    width: IntArray
    line: IntArray
    base: IntArray
    begin: IntArray
    reach: IntArray


@compiled(inline="always", error_model="numpy")
def mirror(A: FloatArray) -> None:
    """Fill the lower triangle of A (r, r) from the upper one, in place, tile by tile."""
    r, tile = len(A), 32
    for i in range(0, r, tile):
        for j in range(0, i + tile, tile):
            for a in range(i, min(i + tile, r)):
                for b in range(j, min(j + tile, a)):
                    A[a, b] = A[b, a]


# Branches: loops over the rows and columns of small matrices.
@compiled(error_model="numpy")
def root_of_group(E: FloatArray, row: int, q: int, w: int, Lambda: FloatArray, T: FloatArray) -> float:
    """L of a group, ``I + Λ'CΛ = LL'``, in place; returns its log-determinant."""
    for i in range(q):
        for j in range(i + 1):
            total = 1.0 if i == j else 0.0
            for a in range(q):
                inner = 0.0
                for b in range(q):
                    inner += E[row + a * w + b] * Lambda[b, j]
                total += Lambda[a, i] * inner
            T[i, j] = total
    log_det = 0.0
    for i in range(q):
        for j in range(i + 1):
            total = T[i, j]
            for k in range(j):
                total -= T[i, k] * T[j, k]
            if i == j:
                T[i, i] = np.sqrt(total)
                log_det += 2.0 * np.log(T[i, i])
            else:
                T[i, j] = total / T[j, j]
    return log_det


@compiled(error_model="numpy")
def gain_of_group(q: int, Lambda: FloatArray, T: FloatArray, K: FloatArray) -> None:
    """K = ΛL⁻ᵀ of a group, in place."""
    for a in range(q):  # K L' = Λ
        for i in range(q):
            total = Lambda[a, i]
            for k in range(i):
                total -= K[a, k] * T[i, k]
            K[a, i] = total / T[i, i]


# Branches: loops over the rows and columns of small matrices.
@compiled(error_model="numpy")
def invert(A: FloatArray, out: FloatArray, at: int) -> float:
    """Write A⁻¹ from a row on, A is lost; a bound from below of its smallest singular value squared, or 0."""
    q = len(A)
    for i in range(q):
        for j in range(q):
            out[at + i, j] = 1.0 if i == j else 0.0
    for k in range(q):
        top = k
        for i in range(k + 1, q):
            if abs(A[i, k]) > abs(A[top, k]):
                top = i
        if not abs(A[top, k]) > 0.0:
            return 0.0
        for j in range(q):
            A[k, j], A[top, j] = A[top, j], A[k, j]
            out[at + k, j], out[at + top, j] = out[at + top, j], out[at + k, j]
        for i in range(q):
            if i != k:
                f = A[i, k] / A[k, k]
                for j in range(q):
                    A[i, j] -= f * A[k, j]
                    out[at + i, j] -= f * out[at + k, j]
    total = 0.0
    for i in range(q):
        for j in range(q):
            out[at + i, j] /= A[i, i]
            total += out[at + i, j] * out[at + i, j]
    return 1.0 / total


@compiled(error_model="numpy")
def shrinkage_of_group(E: FloatArray, row: int, w: int, B: FloatArray, T: FloatArray, H: FloatArray, at: int) -> None:
    """H = (I + C_gg B)⁻¹ of a group, in place from a row on; T is work space."""
    q = len(B)
    for i in range(q):
        for j in range(q):
            T[i, j] = 1.0 if i == j else 0.0
            for k in range(q):
                T[i, j] += E[row + i * w + k] * B[k, j]
    invert(T, H, at)


@compiled(inline="always", error_model="numpy")
def covariance_of(Lambda: FloatArray, at: int, q: int) -> FloatArray:
    """B = ΛΛ' of the factor that begins at this place."""
    B = np.zeros((q, q))
    for i in range(q):
        for j in range(q):
            for k in range(q):
                B[i, j] += Lambda[at + i, at + k] * Lambda[at + j, at + k]
    return B


# Branches: loops over levels, groups and columns, written out for numba.
@compiled(fastmath=FAST, error_model="numpy")
def eliminate(E: FloatArray, rest: FloatArray, Lambda: FloatArray, plan: Plan) -> tuple[float, FloatArray]:
    """Integrate out the chain; E and the rest, as `products_of_rows` made them, hold C at each group's turn afterwards.

    Parameters
    ----------
    E, rest
        Changed in place.
    Lambda : (Q, Q)
        Relative factors of the chain on the diagonal.
    plan : Plan

    Returns
    -------
    log_det : float
        log|V| of the chain.
    H : (first[m], Q)
        Of the groups, one after the other.
    """
    q, J, first, width, line, base, begin, reach = plan
    m, r, log_det = len(q), len(rest), 0.0
    H = np.empty((first[m], width[0]))
    for k in range(m):
        qk, at, n_above = q[k], width[0] - width[k], width[k] - q[k]
        own, B = Lambda[at : at + qk, at : at + qk].copy(), covariance_of(Lambda, at, qk)
        K, L, T, V = np.empty((qk, qk)), np.empty((qk, qk)), np.empty((qk, qk)), np.empty((qk, n_above + r))
        kept = np.empty((J[k] * qk if k > 0 else 0, r))
        for j in range(J[k]):
            row, s, n = base[line[k] + j], begin[line[k] + j], begin[line[k] + j + 1] - begin[line[k] + j]
            w = qk + n
            log_det += root_of_group(E, row, qk, w, own, L)
            gain_of_group(qk, own, L, K)
            shrinkage_of_group(E, row, w, B, T, H, first[k] + j * qk)
            for a in range(qk):
                for t in range(n):
                    V[a, t] = 0.0
                    for b in range(qk):
                        V[a, t] += K[b, a] * E[row + b * w + qk + t]
                offset = 0
                for higher in range(k + 1, m):
                    group = line[higher] + (reach[s + offset] - first[higher]) // q[higher]
                    for b in range(q[higher]):
                        v, to = V[a, offset + b], base[group] + b * (width[higher] + r)
                        for t in range(offset, n_above):
                            E[to + t - offset] -= v * V[a, t]
                        to += width[higher] - first[m]
                        for t in range(n_above, n):
                            E[to + reach[s + t]] -= v * V[a, t]
                    offset += q[higher]
                for t in range(n_above, n):
                    if k > 0:
                        kept[j * qk + a, t - n_above] = V[a, t]
                        continue
                    to = reach[s + t] - first[m]
                    for b in range(t, n):  # columns ascend: the upper triangle, mirrored at the end
                        rest[to, reach[s + b] - first[m]] -= V[a, t] * V[a, b]
        if k == 0:
            mirror(rest)
        elif r > 0:
            taken = np.dot(kept.T, kept)
            for s in range(r):
                for t in range(r):
                    rest[s, t] -= taken[s, t]
    return log_det, H


# Long: as `eliminate`, the other way round.
# Branches: as there.
@compiled(fastmath=FAST, error_model="numpy")
def come_back(
    E: FloatArray, H: FloatArray, Lambda: FloatArray, Pi: FloatArray, plan: Plan
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """From the rest to the finest groups: conditional covariances, and what the gradient needs.

    Parameters
    ----------
    E, H
        As `eliminate` left them.
    Lambda : (Q, Q)
    Pi : (r, r)
        Conditional covariance of the rest.
    plan : Plan

    Returns
    -------
    EE : (Q, Q)
        Σ_g Z_g'V⁻¹Z_g of every factor of the chain, on the diagonal.
    own : (first[m], Q)
        Conditional covariance matrices of the groups, one after the other.
    within : as E
        Conditional covariances of the groups with what they are coupled to.
    """
    q, J, first, width, line, base, begin, reach = plan
    m, r, Q = len(q), len(Pi), width[0]
    EE, own, within, Pn = np.zeros((Q, Q)), np.zeros(H.shape), np.empty(len(E)), np.empty((Q, Q))
    for k in range(m - 1, -1, -1):
        qk, at, n_above = q[k], Q - width[k], width[k] - q[k]
        B, BH, Y = covariance_of(Lambda, at, qk), np.empty((qk, qk)), np.empty((qk, qk))
        D, X = np.empty((qk, Q + r)), np.empty((qk, Q + r))
        spread = np.empty((0, 0))
        if k > 0 and r > 0:
            flat = np.zeros((J[k] * qk, r))
            for i in range(len(flat)):
                row = base[line[k] + i // qk] + width[k]
                for b in range(qk):
                    for t in range(r):
                        flat[i, t] += H[first[k] + i, b] * E[row + b * (width[k] + r) + t]
            spread = flat @ Pi
        for j in range(J[k]):
            row, s, n = base[line[k] + j], begin[line[k] + j], begin[line[k] + j + 1] - begin[line[k] + j]
            number, w = first[k] + j * qk, qk + n
            for a in range(qk):  # d = H C_gN
                for t in range(n):
                    D[a, t], X[a, t] = 0.0, 0.0
                    for b in range(qk):
                        D[a, t] += H[number + a, b] * E[row + b * w + qk + t]
                for t in range(n_above, n):
                    if k > 0:
                        X[a, t] = spread[j * qk + a, t - n_above]
            offset = 0
            for higher in range(k + 1, m):  # X = d Π_NN: of the groups above with each other, and with the rest
                group = line[higher] + (reach[s + offset] - first[higher]) // q[higher]
                for b in range(offset, offset + q[higher]):
                    to = base[group] + (b - offset) * (width[higher] + r)
                    for t in range(offset, n_above):
                        Pn[b, t] = within[to + t - offset]
                        Pn[t, b] = Pn[b, t]
                    to += width[higher] - first[m]
                    for a in range(qk):
                        total = 0.0
                        for t in range(n_above, n):
                            total += D[a, t] * within[to + reach[s + t]]
                            X[a, t] += D[a, b] * within[to + reach[s + t]]
                        X[a, b] += total
                offset += q[higher]
            for a in range(qk):
                for b in range(n_above):
                    for t in range(n_above):
                        X[a, t] += D[a, b] * Pn[b, t]
                if k == 0:  # Π is symmetric, and reading it is what costs
                    for t in range(n_above, n):
                        to, d, total = reach[s + t] - first[m], D[a, t], 0.0
                        for b in range(n_above, t):
                            value = Pi[to, reach[s + b] - first[m]]
                            total += D[a, b] * value
                            X[a, b] += d * value
                        X[a, t] += total + d * Pi[to, to]
            for a in range(qk):
                for b in range(qk):
                    Y[a, b], BH[a, b] = 0.0, 0.0
                    for t in range(n):
                        Y[a, b] += X[a, t] * D[b, t]
                    for i in range(qk):
                        BH[a, b] += B[a, i] * H[number + i, b]
                        EE[at + a, at + b] += H[number + a, i] * E[row + i * w + b]
            for a in range(qk):
                for b in range(qk):
                    EE[at + a, at + b] -= 0.5 * (Y[a, b] + Y[b, a])
                    total = BH[a, b]
                    for i in range(qk):
                        for t in range(qk):
                            total += B[a, i] * Y[i, t] * B[t, b]
                    own[number + a, b], within[row + a * w + b] = total, total
                for t in range(n):
                    total = 0.0
                    for i in range(qk):
                        total -= B[a, i] * X[i, t]
                    within[row + a * w + qk + t] = total
    return EE, own, within
