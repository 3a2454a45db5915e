"""What `joint_kernel` does with one subject, and with the coefficients once the subjects are eliminated.

Symbols, the map from v and w to random effects and coefficients, and its adjoint are in the opening of `joint_kernel`.
``like`` has the length of the loops: an array, or a tuple, whose length is part of its type, so that the compiler can
write the loops out (a third of the time at two random effects).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.triangles import cholesky, invert_triangle


@compiled(error_model="numpy")
def triangles(like: Any, A: FloatArray, Lambda: FloatArray, AL: FloatArray, L: FloatArray, U: FloatArray) -> float:
    """Write AΛ, L and U = L⁻¹ of a subject; return log|L|, NaN where H is not definite."""
    q = len(like)
    for k in range(q):
        for i in range(q):
            AL[k, i] = 0.0
            for a in range(q):
                AL[k, i] += A[k, a] * Lambda[a, i]
    for k in range(q):
        for i in range(q):
            L[k, i] = 1.0 if i == k else 0.0
            for a in range(q):
                L[k, i] += Lambda[a, k] * AL[a, i]
    return factorise(like, L, U)


@compiled(error_model="numpy")
def factorise(like: Any, L: FloatArray, U: FloatArray) -> float:
    """Replace a matrix by its Cholesky factor and write the inverse of that; return its log determinant, or NaN."""
    if not cholesky(L):
        return math.nan
    log_det = 0.0
    for k in range(len(like)):
        log_det += math.log(L[k, k])
        for i in range(len(like)):
            U[k, i] = L[k, i] if i <= k else 0.0
    invert_triangle(U)
    return log_det


@compiled(error_model="numpy")
def centred(like: Any, U: FloatArray, kappa: FloatArray, v: FloatArray, t: FloatArray, u: FloatArray) -> None:
    """Write ``t = U κ + v`` and ``u = U't``."""
    q = len(like)
    for k in range(q):
        t[k] = v[k]
        for i in range(k + 1):
            t[k] += U[k, i] * kappa[i]
    for k in range(q):
        u[k] = 0.0
        for i in range(k, q):
            u[k] += U[i, k] * t[i]


@compiled(error_model="numpy")
def back(
    like: Any,
    U: FloatArray,
    v: FloatArray,
    t: FloatArray,
    ub: FloatArray,
    tb: FloatArray,
    rho: FloatArray,
    N: FloatArray,
    B: FloatArray,
) -> None:
    """From ū write t̄, ρ (that of κ) and B, the adjoint of the matrix whose factor is L, of `centred` and −log|L|."""
    q = len(like)
    for k in range(q):
        tb[k] = 0.0
        for i in range(k + 1):
            tb[k] += U[k, i] * ub[i]
    for k in range(q):
        rho[k] = 0.0
        for i in range(k, q):
            rho[k] += U[i, k] * tb[i]
        for i in range(k):
            N[k, i] = 0.5 * (t[k] * tb[i] + tb[k] * (t[i] - v[i]))
            N[i, k] = N[k, i]
        N[k, k] = 0.5 * (1.0 + t[k] * tb[k] + tb[k] * (t[k] - v[k]))
    for k in range(q):
        for i in range(k + 1):
            total = 0.0
            for a in range(k, q):
                for b in range(i, q):
                    total -= U[a, k] * N[a, b] * U[b, i]
            B[k, i] = total
            B[i, k] = total


@compiled(error_model="numpy")
def subject_kappa(
    like: Any, C: FloatArray, c: FloatArray, beta: FloatArray, Lambda: FloatArray, s: FloatArray, kappa: FloatArray
) -> None:
    """Write ``s = c − Cβ`` and ``κ = Λ's``."""
    q = len(like)
    for k in range(q):
        s[k] = c[k]
        for i in range(len(beta)):
            s[k] -= C[k, i] * beta[i]
    for k in range(q):
        kappa[k] = 0.0
        for a in range(q):
            kappa[k] += Lambda[a, k] * s[a]


# Branches: loops over rows and columns of small matrices, written out for numba.
@compiled(error_model="numpy")
def eliminated(
    like: Any,
    data: Any,
    Lambda: FloatArray,
    AL: FloatArray,
    Ls: FloatArray,
    Us: FloatArray,
    P: FloatArray,
    h: FloatArray,
) -> float:
    """Write the triangles of every subject (J, q, q), P and h; return Σ log|L_i|."""
    q, p, total = len(like), len(h), 0.0
    P[:] = data.P
    h[:] = data.h
    G, g = np.empty((q, p)), np.empty(q)
    for j in range(len(data.c)):
        total += triangles(like, data.A[j], Lambda, AL, Ls[j], Us[j])
        if not p:
            continue
        for k in range(q):  # U Λ'C and U Λ'c
            g[k] = 0.0
            for i in range(p):
                G[k, i] = 0.0
            for a in range(q):
                along = 0.0
                for b in range(k + 1):
                    along += Us[j, k, b] * Lambda[a, b]
                g[k] += along * data.c[j, a]
                for i in range(p):
                    G[k, i] += along * data.C[j, a, i]
        for i in range(p):
            for k in range(q):
                h[i] -= G[k, i] * g[k]
                for a in range(i + 1):
                    P[i, a] -= G[k, i] * G[k, a]
    for i in range(p):
        for a in range(i):
            P[a, i] = P[i, a]
    return total


# Long: the steps share Q and H⁻¹Λ' of a subject.
# Branches: loops over rows and columns of small matrices, written out for numba.
@compiled(error_model="numpy")
def through_eliminated(
    like: Any, data: Any, Lambda: FloatArray, Us: FloatArray, Pb: FloatArray, hb: FloatArray, in_Lambda: FloatArray
) -> None:
    """Add to Λ̄ what comes by way of P and h."""
    q, p = len(like), len(hb)
    Q, mu, Qh, Hi, HL = np.empty((q, p)), np.empty(q), np.empty(q), np.empty((q, q)), np.empty((q, q))
    PQ, B = np.empty((p, q)), np.empty((q, q))
    for j in range(len(data.c)):
        for k in range(q):
            for i in range(q):
                Hi[k, i] = 0.0
                for a in range(max(k, i), q):
                    Hi[k, i] += Us[j, a, k] * Us[j, a, i]
        for k in range(q):
            mu[k], Qh[k] = 0.0, 0.0
            for i in range(p):
                Q[k, i] = 0.0
            for a in range(q):
                along = 0.0
                for b in range(q):
                    along += Hi[k, b] * Lambda[a, b]
                HL[k, a] = along
                mu[k] += along * data.c[j, a]
                for i in range(p):
                    Q[k, i] += along * data.C[j, a, i]
            for i in range(p):
                Qh[k] += Q[k, i] * hb[i]
        for i in range(p):
            for k in range(q):
                PQ[i, k] = 0.0
                for a in range(p):
                    PQ[i, k] += Pb[i, a] * Q[k, a]
        for k in range(q):
            for i in range(q):
                B[k, i] = 0.5 * (Qh[k] * mu[i] + mu[k] * Qh[i])
                for a in range(p):
                    B[k, i] += Q[k, a] * PQ[a, i]
        for k in range(q):
            Ch = 0.0
            for a in range(p):
                Ch += data.C[j, k, a] * hb[a]
            for i in range(q):
                total = -Ch * mu[i] - data.c[j, k] * Qh[i]
                for a in range(p):
                    total -= 2.0 * data.C[j, k, a] * PQ[a, i]
                for a in range(q):
                    along = 0.0
                    for b in range(q):
                        along += data.A[j, k, b] * Lambda[b, a]
                    total += 2.0 * along * B[a, i]
                in_Lambda[k, i] += total
