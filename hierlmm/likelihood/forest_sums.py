"""What the data say at one Λ where the rest is small: elimination, dense block and the way back as one function.

The algebra is that of `several_factors` and `forest_kernel`, compiled as a whole, so that a sampler calls it without
Python. The dense block M = I + Λ'CΛ of the rest is factorised and inverted by plain loops, faster than a library for a
few dozen columns.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled, cut, whole
from hierlmm.likelihood.forest_kernel import FAST, come_back, eliminate
from hierlmm.likelihood.forest_rows import squares_of_rest
from hierlmm.likelihood.kernel import PatternSums

SIZES = 9
"""Numbers ahead of what is packed: rows, levels of the chain, its random effects, lines of ``above``, places of
``column``, numbers of E, random effects of the rest, columns of the rest that a row touches, groups of the finest
factor."""
DIVISIBLE = 1e-3
"""Λ² z'z from which on sums of the rest may be divided by Λ²."""


# Branches: loops over the rows and columns of matrices.
@compiled(fastmath=FAST, error_model="numpy")
def factorise(M: FloatArray) -> float:
    """Replace the lower triangle of M by its Cholesky factor; log|M|, NaN where it is not positive definite."""
    log_det = 0.0
    for i in range(len(M)):
        for j in range(i + 1):
            total = M[i, j]
            for k in range(j):
                total -= M[i, k] * M[j, k]
            if i > j:
                M[i, j] = total / M[j, j]
            elif total > 0.0:
                M[i, i] = np.sqrt(total)
                log_det += np.log(total)
            else:
                return np.nan
    return log_det


# Branches: loops over the rows and columns of matrices.
@compiled(fastmath=FAST, error_model="numpy")
def inverse_of(L: FloatArray) -> FloatArray:
    """(LL')⁻¹ from the lower triangle of L."""
    r = len(L)
    U = np.zeros((r, r))  # L⁻ᵀ: rows, so that all sums run along memory
    for i in range(r):
        U[i, i] = 1.0 / L[i, i]
        for j in range(i):
            total = 0.0
            for k in range(j, i):
                total += L[i, k] * U[j, k]
            U[j, i] = -total / L[i, i]
    found = np.empty((r, r))
    for i in range(r):
        for j in range(i, r):
            total = 0.0
            for k in range(j, r):
                total += U[i, k] * U[j, k]
            found[i, j] = total
            found[j, i] = total
    return found


# Branches: loops over the rows and columns of matrices.
@compiled(fastmath=FAST, error_model="numpy")
def between(A: FloatArray, Lambda: FloatArray, dense: IntArray, transposed: bool) -> FloatArray:
    """(I ⊗ Λ)' A (I ⊗ Λ) of the rest where ``transposed``, or (I ⊗ Λ) A (I ⊗ Λ)'; A is symmetric.

    Parameters
    ----------
    A : (r, r)
    Lambda : (Q, Q)
    dense : (3, r)
        Of every random effect of the rest the first one of its group, where its factor begins in Λ, and its q.
    transposed : bool
    """
    r, q = len(A), int(dense[2].max())
    half, found = np.zeros((r, r)), np.zeros((r, r))
    factor = np.zeros((r, q))  # row s of (I ⊗ Λ)', or of I ⊗ Λ
    for s in range(r):
        home, at, own = dense[0, s], dense[1, s], dense[2, s]
        for b in range(own):
            factor[s, b] = Lambda[at + b, at + s - home] if transposed else Lambda[at + s - home, at + b]
            for t in range(r):
                half[s, t] += factor[s, b] * A[home + b, t]
    for s in range(r):
        for t in range(r):
            total = 0.0
            for b in range(dense[2, t]):
                total += half[s, dense[0, t] + b] * factor[t, b]
            found[s, t] = total
    return found


# Branches: loops over the rows and columns of small matrices.
@compiled(error_model="numpy")
def _invert(A: FloatArray, out: FloatArray) -> float:
    """Write A⁻¹; returns a bound from below of the smallest squared singular value, 0 where A is singular."""
    q = len(A)
    left = A.copy()
    for i in range(q):
        for j in range(q):
            out[i, j] = 1.0 if i == j else 0.0
    for k in range(q):
        top = k
        for i in range(k + 1, q):
            if abs(left[i, k]) > abs(left[top, k]):
                top = i
        if not abs(left[top, k]) > 0.0:
            return 0.0
        for j in range(q):
            left[k, j], left[top, j] = left[top, j], left[k, j]
            out[k, j], out[top, j] = out[top, j], out[k, j]
        for i in range(q):
            if i != k:
                f = left[i, k] / left[k, k]
                for j in range(q):
                    left[i, j] -= f * left[k, j]
                    out[i, j] -= f * out[k, j]
    total = 0.0
    for i in range(q):
        for j in range(q):
            out[i, j] /= left[i, i]
            total += out[i, j] * out[i, j]
    return 1.0 / total


# Long: the algebra of `several_factors._Rest`, whose steps share arrays.
# Branches: loops over the rows and columns of matrices.
@compiled(fastmath=FAST, error_model="numpy")
def of_rest(
    C: FloatArray, c: FloatArray, Lambda: FloatArray, dense: IntArray, EE: FloatArray
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """The dense block: log|M|, Π, means m and u = Z'V⁻¹[X, y]; Σ Z_g'V⁻¹Z_g is added to EE (Q, Q).

    Parameters
    ----------
    C : (r, r), c : (r, P)
        What is left of Z'Z and Z'[X, y] of the rest after elimination.
    Lambda : (Q, Q)
    dense : (3, r)
        See `between`.
    EE : (Q, Q)
        Changed in place.
    """
    r, P = c.shape
    M = between(C, Lambda, dense, True)
    for s in range(r):
        M[s, s] += 1.0
    log_det = factorise(M)
    inverse = inverse_of(M)
    Pi = between(inverse, Lambda, dense, False)
    mean, u = np.zeros((r, P)), c.copy()
    for s in range(r):
        for t in range(r):
            for a in range(P):
                mean[s, a] += Pi[s, t] * c[t, a]
    spread, back, weakest, smallest = np.empty(r), np.zeros(Lambda.shape), np.zeros(len(Lambda)), 0.0
    for s in range(r):
        at, own = dense[1, s], dense[2, s]
        if s == 0 or dense[1, s - 1] != at:
            smallest = _invert(Lambda[at : at + own, at : at + own], back[at : at + own, at : at + own])
            weakest[at] = smallest * C[s, s]
        weakest[at] = min(weakest[at], smallest * C[s, s])
    for s in range(r):
        home, at, own = dense[0, s], dense[1, s], dense[2, s]
        a = s - home
        if weakest[at] > DIVISIBLE:
            for t in range(P):
                u[s, t] = 0.0
            for i in range(own):
                for j in range(own):
                    gain = back[at + i, at + a] * back[at + i, at + j]
                    for t in range(P):
                        u[s, t] += gain * mean[home + j, t]
                    for b in range(own):
                        inner = (1.0 if i == j else 0.0) - inverse[home + i, home + j]
                        EE[at + a, at + b] += back[at + i, at + a] * inner * back[at + j, at + b]
            continue
        for t in range(r):
            total = 0.0
            for k in range(r):
                total += C[s, k] * Pi[k, t]
            spread[t] = total
        for t in range(r):
            for k in range(P):
                u[s, k] -= C[s, t] * mean[t, k]
        for b in range(own):
            total = C[s, home + b]
            for t in range(r):
                total -= spread[t] * C[t, home + b]
            EE[at + a, at + b] += total
    return log_det, Pi, mean, u


# Long: from rows and products to sums in one pass, as `several_factors` does; one line for each array that it reads.
# Branches: loops over factors and the entries of small matrices.
@compiled(error_model="numpy")
def factor_sums(
    packed: FloatArray, P: int, Lambda: FloatArray
) -> tuple[PatternSums, FloatArray, FloatArray, FloatArray]:
    """Sums that the likelihood needs, conditional means (T, P), and covariances: of the chain's groups, Π of the rest.

    Parameters
    ----------
    packed : (n,)
        Rows, products and the order of elimination: `several_factors.FactorProducts.packed`.
    P : int
    Lambda : (Q, Q)
    """
    sizes, left = whole(packed, SIZES)
    N, m, chain, lines, places, n_E, r, w, leaves = sizes
    q, left = whole(left, m)
    J, left = whole(left, m)
    first, left = whole(left, m + 1)
    width, left = whole(left, m)
    of_lines, left = whole(left, lines * m)
    start, left = whole(left, leaves + 1)
    column, left = whole(left, places)
    of_rows, left = whole(left, N * w)
    order, left = whole(left, chain)
    of_rest_, left = whole(left, 3 * r)
    Z, left = cut(left, chain, N)
    XY, left = cut(left, P, N)
    of_groups, left = whole(left, m * N)
    zr, left = cut(left, N, w)
    E_, left = cut(left, 1, n_E)
    leaf_, left = cut(left, places, q[0])
    upper_, left = cut(left, first[m] - first[1], r)
    rest_, left = cut(left, r, r)
    c = cut(left, first[m] + r, P)[0].copy()
    above, rest_column = of_lines.reshape((lines, m)), of_rows.reshape((N, w))
    group, dense = of_groups.reshape((m, N)), of_rest_.reshape((3, r))
    E, leaf, upper, rest = E_[0].copy(), leaf_.copy(), upper_.copy(), rest_.copy()
    size = len(Lambda)
    of_chain = np.empty((chain, chain))
    for i in range(chain):
        for j in range(chain):
            of_chain[i, j] = Lambda[order[i], order[j]]
    log_det = eliminate(E, leaf, upper, rest, c, of_chain, q, J, first, width, above, start, column)
    EE, U = np.zeros((size, size)), np.zeros((size, size, P, P))
    mean, u, end = np.zeros((len(c), P)), np.zeros((len(c), P)), first[-1]
    Pi = np.zeros((0, 0))
    if r > 0:
        of_dense, Pi, mean[end:], u[end:] = of_rest(rest, c[end:], Lambda, dense, EE)
        log_det += of_dense
    back = come_back(E, leaf, upper, c, of_chain, Pi, mean, q, J, first, width, above, start, column)
    sums, own, u[:end] = back[0], back[2], back[1]
    for i in range(chain):
        for j in range(chain):
            EE[order[i], order[j]] += sums[i, j]
    G = squares_of_rest(Z, XY, group, q, first, zr, rest_column, mean)
    begin = 0
    for k in range(m):
        for number in range(first[k], first[k + 1], q[k]):
            for a in range(q[k]):
                for b in range(q[k]):
                    _add_products(U[order[begin + a], order[begin + b]], u[number + a], u[number + b])
        begin += q[k]
    for s in range(r):
        home, at = dense[0, s], dense[1, s]
        for b in range(dense[2, s]):
            _add_products(U[at + s - home, at + b], u[end + s], u[end + home + b])
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(size):
                total += Lambda[i, k] * Lambda[j, k]
            for a in range(P):
                for b in range(P):
                    G[a, b] += total * U[i, j, a, b]
    return PatternSums(G, log_det, EE, U), mean, own, Pi


@compiled(error_model="numpy")
def _add_products(out: FloatArray, left: FloatArray, right: FloatArray) -> None:
    for a in range(len(left)):
        for b in range(len(right)):
            out[a, b] += left[a] * right[b]
