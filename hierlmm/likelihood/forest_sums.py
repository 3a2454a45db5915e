"""What the data say at one Λ where the rest is small: elimination, dense block and the way back as one function.

The algebra is that of `several_factors` and `forest_kernel`, compiled as a whole, so that a sampler calls it without
Python. The dense block M = I + Λ'CΛ of the rest is factorised and inverted by plain loops, faster than a library for a
few dozen columns.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled, cut, whole
from hierlmm.likelihood.forest_kernel import FAST, Plan, come_back, eliminate, invert
from hierlmm.likelihood.forest_rows import squares_of_rest
from hierlmm.likelihood.forest_solve import backward, forward
from hierlmm.likelihood.kernel import PatternSums

SIZES = 7
"""Numbers ahead of what is packed: rows, random effects that a row touches, levels of the chain and their groups, those
that they reach, numbers of E, random effects of the rest."""
DIVISIBLE = 1e-3
"""Λ² z'z from which on sums of the rest may be divided by Λ²."""


# Branches: loops over the rows and columns of matrices.
@compiled(inline="always", fastmath=FAST, error_model="numpy")
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
@compiled(inline="always", fastmath=FAST, error_model="numpy")
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
@compiled(inline="always", fastmath=FAST, error_model="numpy")
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
    r, q, home, start, own = len(A), 0, dense[0], dense[1], dense[2]
    for s in range(r):
        q = max(q, own[s])
    factor, found = np.zeros((r, q)), np.zeros((r, r))  # row s of (I ⊗ Λ)', or of I ⊗ Λ
    for s in range(r):
        a, at = s - home[s], start[s]
        for b in range(own[s]):
            factor[s, b] = Lambda[at + b, at + a] if transposed else Lambda[at + a, at + b]
    if q == 1:  # in one pass over memory
        for s in range(r):
            for t in range(r):
                found[s, t] = A[s, t] * (factor[s, 0] * factor[t, 0])
        return found
    half = np.empty(r)
    for s in range(r):
        half[:] = 0.0
        for b in range(own[s]):
            for t in range(r):
                half[t] += factor[s, b] * A[home[s] + b, t]
        for t in range(r):
            for b in range(own[t]):
                found[s, t] += half[home[t] + b] * factor[t, b]
    return found


# Long: the algebra of `forest_rest.Rest`, whose steps share arrays.
# Branches: loops over the rows and columns of matrices.
@compiled(fastmath=FAST, error_model="numpy")
def of_rest(
    C: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    dense: IntArray,
    mean: FloatArray,
    u: FloatArray,
    EE: FloatArray,
) -> tuple[float, FloatArray]:
    """The dense block: log|M| and Π; means m, u = Z'V⁻¹[X, y] and, added up, Σ Z_g'V⁻¹Z_g in place.

    Parameters
    ----------
    C : (r, r), c : (r, P)
        What is left of Z'Z and Z'[X, y] of the rest after elimination.
    Lambda : (Q, Q)
    dense : (3, r)
        See `between`.
    mean, u : (r, P), EE : (Q, Q)
        Changed in place; zero as yet.
    """
    r, P = c.shape
    M = between(C, Lambda, dense, True)
    for s in range(r):
        M[s, s] += 1.0
    log_det = factorise(M)
    inverse = inverse_of(M)
    Pi = between(inverse, Lambda, dense, False)
    for s in range(r):
        for t in range(r):
            for a in range(P):
                mean[s, a] += Pi[s, t] * c[t, a]
    spread, back, weakest, smallest = np.empty(r), np.zeros(Lambda.shape), np.zeros(len(Lambda)), 0.0
    for s in range(r):
        at, own = dense[1, s], dense[2, s]
        if s == 0 or dense[1, s - 1] != at:
            smallest = invert(Lambda[at : at + own, at : at + own].copy(), back, at)
            weakest[at] = smallest * C[s, s]
        weakest[at] = min(weakest[at], smallest * C[s, s])
    for s in range(r):
        home, at, own = dense[0, s], dense[1, s], dense[2, s]
        a = s - home
        if weakest[at] > DIVISIBLE:
            for i in range(own):
                for j in range(own):
                    gain = back[at + i, a] * back[at + i, j]
                    for t in range(P):
                        u[s, t] += gain * mean[home + j, t]
                    for b in range(own):
                        inner = (1.0 if i == j else 0.0) - inverse[home + i, home + j]
                        EE[at + a, at + b] += back[at + i, a] * inner * back[at + j, b]
            continue
        for t in range(r):
            total = 0.0
            for k in range(r):
                total += C[s, k] * Pi[k, t]
            spread[t] = total
        for k in range(P):
            u[s, k] = c[s, k]
            for t in range(r):
                u[s, k] -= C[s, t] * mean[t, k]
        for b in range(own):
            total = C[s, home + b]
            for t in range(r):
                total -= spread[t] * C[t, home + b]
            EE[at + a, at + b] += total
    return log_det, Pi


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
    N, n, m, groups, reached, numbers, r = sizes
    q, left = whole(left, m)
    J, left = whole(left, m)
    first, left = whole(left, m + 1)
    width, left = whole(left, m)
    line, left = whole(left, m + 1)
    base, left = whole(left, groups + 1)
    begin, left = whole(left, groups + 1)
    reach, left = whole(left, reached)
    of_rows, left = whole(left, N * n)
    chain = width[0]
    order, left = whole(left, chain)
    of_rest_, left = whole(left, 3 * r)
    z, left = cut(left, N, n)
    XY, left = cut(left, P, N)
    products, left = cut(left, 1, numbers)
    of_dense, left = cut(left, r, r)
    E, rest, c = products[0].copy(), of_dense.copy(), cut(left, first[m] + r, P)[0].copy()
    plan = Plan(q, J, first, width, line, base, begin, reach)
    number, dense = of_rows.reshape((N, n)), of_rest_.reshape((3, r))
    size = len(Lambda)
    of_chain = np.empty((chain, chain))
    for i in range(chain):
        for j in range(chain):
            of_chain[i, j] = Lambda[order[i], order[j]]
    log_det, H = eliminate(E, rest, of_chain, plan)
    forward(E, H, c, of_chain, plan)
    EE, U = np.zeros((size, size)), np.zeros((size, size, P, P))
    mean, u, end = np.zeros((len(c), P)), np.zeros((len(c), P)), first[-1]
    of_block, Pi = of_rest(rest, c[end:], Lambda, dense, mean[end:], u[end:], EE)
    backward(E, H, c, of_chain, mean, u, np.empty((0, P)), plan)
    sums, own = come_back(E, H, of_chain, Pi, plan)[:2]
    for i in range(chain):
        for j in range(chain):
            EE[order[i], order[j]] += sums[i, j]
    G = squares_of_rest(z, number, XY, mean)
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
    return PatternSums(G, log_det + of_block, EE, U), mean, own, Pi


@compiled(error_model="numpy")
def squares_of_draws(packed: FloatArray, Lambda: FloatArray, found: FloatArray) -> None:
    """[X, y]'V⁻¹[X, y] without its part ``S_w`` at many Λ, (S, Q, Q) -> (S, P, P), in place."""
    for s in range(len(Lambda)):
        found[s] = factor_sums(packed, found.shape[1], Lambda[s])[0].G


@compiled(inline="always", error_model="numpy")
def _add_products(out: FloatArray, left: FloatArray, right: FloatArray) -> None:
    for a in range(len(left)):
        for b in range(len(right)):
            out[a, b] += left[a] * right[b]
