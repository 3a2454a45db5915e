"""Whitening of rows by the residual structure, and the way back of a gradient: compiled.

A subject's rows M_i = [Z̃_i, X̃_i, ỹ_i] become ``M*_i = L_i⁻¹ G_i⁻¹ M_i`` with ``Σ_i = σ² G_i L_i L_i' G_i``, after which
the residuals are independent and the sums of `kernel` apply. Serial structures, ``R[s, t] = u Π d`` off the diagonal,
are semiseparable, u being one number for each subject (given by row): with S_1 = 0,

    S_t = d_t² (S_{t-1} + D_{t-1} w_{t-1}²),  D_t = 1 - u² S_t,  w_t = (1 - u S_t) / D_t,  log|R_i| = Σ log D_t
    f_t = d_t (f_{t-1} + w_{t-1} z_{t-1}),    z_t = m_t - u f_t,  m*_t = z_t / √D_t

(Foreman-Mackey, Agol, Ambikasaran & Angus 2017, Astron. J. 154, 220, with one term). `serial_pull_back` is the reverse
of these lines: from the derivative with respect to m* to those with respect to m, u and d, also in O(n_i).

With a Cholesky factor L of R and W = L⁻¹, the derivative with respect to R is ``W'(J I - ½ Σ_i M̄*_i M*_i') W`` over
the J subjects with this R, since a criterion that does not change when the rows of M*_i are rotated has a symmetric
product M̄*_i M*_i' (M̄ stands for the derivative with respect to M).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.kernel import FAST
from hierlmm.likelihood.triangles import cholesky

IntArray = NDArray[np.int64]
SMALLEST_PIVOT = 1e-13
"""Smallest residual variance given the rows before, relative to σ², that is not rounding error."""


@compiled(error_model="numpy", fastmath=FAST)
def serial_whiten(M: FloatArray, start: IntArray, u: FloatArray, d: FloatArray, tape: FloatArray) -> float:
    """Whiten the rows of M (c, N) in place; ``tape`` (3 + c, N) keeps S, D, w and f for the way back.

    Returns
    -------
    float
        Σ log|R_i|, or NaN if some R_i is not positive definite, or nearly so.
    """
    S, D, w, root, log_det = tape[0], tape[1], tape[2], np.empty(M.shape[1]), 0.0
    for j in range(len(start) - 1):
        lo, hi = start[j], start[j + 1]
        for t in range(lo, hi):
            S[t] = 0.0 if t == lo else d[t] * d[t] * (S[t - 1] + D[t - 1] * w[t - 1] * w[t - 1])
            D[t] = 1.0 - u[t] * u[t] * S[t]
            if not D[t] > SMALLEST_PIVOT:
                return np.nan
            w[t] = (1.0 - u[t] * S[t]) / D[t]
            root[t] = 1.0 / np.sqrt(D[t])
            if t > lo:
                log_det += np.log(D[t])
    for a in range(M.shape[0]):
        m, own = M[a], tape[3 + a]
        for j in range(len(start) - 1):
            lo, hi = start[j], start[j + 1]
            f, z = 0.0, m[lo]
            own[lo] = 0.0
            for t in range(lo + 1, hi):
                f = d[t] * (f + w[t - 1] * z)
                z = m[t] - u[t] * f
                own[t] = f
                m[t] = z * root[t]
    return log_det


@compiled(error_model="numpy", fastmath=FAST)
def serial_pull_back(
    adjoint: FloatArray, M: FloatArray, start: IntArray, u: FloatArray, d: FloatArray, tape: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Turn the derivative with respect to whitened rows (c, N) into that with respect to the rows, in place.

    M holds the whitened rows; the derivative of Σ log|R_i| is included in those by u and by d, (N,) each, which are
    returned.
    """
    S, D, w, (c, N) = tape[0], tape[1], tape[2], M.shape
    root, D_adjoint, w_adjoint = np.sqrt(D), np.zeros(N), np.zeros(N)
    u_adjoint, d_adjoint = np.zeros(N), np.zeros(N)
    for a in range(c):
        m, own_f, bar = M[a], tape[3 + a], adjoint[a]
        for t in range(N):
            D_adjoint[t] += bar[t] * m[t]
        for j in range(len(start) - 1):
            lo, hi = start[j], start[j + 1]
            ahead = 0.0  # d_{t+1} times the derivative by f_{t+1}
            for t in range(hi - 1, lo - 1, -1):
                own = bar[t] / root[t] + w[t] * ahead
                w_adjoint[t] += ahead * m[t] * root[t]
                u_adjoint[t] -= own * own_f[t]
                by_f = ahead - u[t] * own
                if t > lo:
                    d_adjoint[t] += by_f * (own_f[t - 1] + w[t - 1] * m[t - 1] * root[t - 1])
                ahead = d[t] * by_f
                bar[t] = own
    for j in range(len(start) - 1):
        lo, hi = start[j], start[j + 1]
        by_S_next = 0.0
        for t in range(hi - 1, lo - 1, -1):
            by_S, by_D, by_w = 0.0, (1.0 - 0.5 * D_adjoint[t]) / D[t], w_adjoint[t]
            if t < hi - 1:
                d_adjoint[t + 1] += 2.0 * d[t + 1] * by_S_next * (S[t] + D[t] * w[t] * w[t])
                by_S = d[t + 1] * d[t + 1] * by_S_next
                by_D += by_S * w[t] * w[t]
                by_w += 2.0 * by_S * D[t] * w[t]
            u_adjoint[t] -= by_w * S[t] / D[t]
            by_S -= by_w * u[t] / D[t]
            by_D -= by_w * w[t] / D[t]
            u_adjoint[t] -= 2.0 * u[t] * S[t] * by_D
            by_S_next = by_S - u[t] * u[t] * by_D
    return u_adjoint, d_adjoint


@compiled(error_model="numpy")
def serial_colour(M: FloatArray, start: IntArray, u: FloatArray, d: FloatArray) -> None:
    """The inverse of `serial_whiten`: independent rows of M (c, N) get the correlation, in place."""
    for j in range(len(start) - 1):
        lo, hi = start[j], start[j + 1]
        for a in range(M.shape[0]):
            S, D, w, f, z = 0.0, 1.0, 1.0, 0.0, 0.0
            for t in range(lo, hi):
                if t > lo:
                    S = d[t] * d[t] * (S + D * w * w)
                    f = d[t] * (f + w * z)
                D = 1.0 - u[t] * u[t] * S
                w = (1.0 - u[t] * S) / D
                z = M[a, t] * np.sqrt(D)
                M[a, t] = z + u[t] * f


@compiled(error_model="numpy")
def dense_whiten(M: FloatArray, start: IntArray, offset: IntArray, W: FloatArray) -> None:
    """Multiply every subject's rows of M (c, N) by its lower triangular ``W[offset:offset + n²]``, in place."""
    for j in range(len(start) - 1):
        lo, n = start[j], start[j + 1] - start[j]
        own = W[offset[j] : offset[j] + n * n]
        for a in range(M.shape[0]):
            for s in range(n - 1, -1, -1):
                total = 0.0
                for t in range(s + 1):
                    total += own[s * n + t] * M[a, lo + t]
                M[a, lo + s] = total


@compiled(error_model="numpy")
def dense_pull_back(
    adjoint: FloatArray, M: FloatArray, start: IntArray, offset: IntArray, W: FloatArray, products: FloatArray
) -> None:
    """As `serial_pull_back` for dense factors; adds Σ M̄* M*' of each pattern to ``products`` (packed like W)."""
    for j in range(len(start) - 1):
        lo, n = start[j], start[j + 1] - start[j]
        own = W[offset[j] : offset[j] + n * n]
        sums = products[offset[j] : offset[j] + n * n]
        for a in range(M.shape[0]):
            for s in range(n):
                for t in range(n):
                    sums[s * n + t] += adjoint[a, lo + s] * M[a, lo + t]
            for t in range(n):
                total = 0.0
                for s in range(t, n):
                    total += own[s * n + t] * adjoint[a, lo + s]
                adjoint[a, lo + t] = total


# Long: first the q × q algebra of every subject, then passes over rows with shared work arrays.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy", fastmath=FAST)
def row_adjoints(
    work: FloatArray, start: IntArray, R: FloatArray, C: FloatArray, Lambda: FloatArray, Gamma: FloatArray
) -> FloatArray:
    """Derivative of ``Σ log|T_i| + ⟨Γ, [X, y]'V⁻¹[X, y]⟩`` with respect to the whitened rows of Z, X and y.

    Parameters
    ----------
    work : (q + P, N), R : (J, q, q), C : (J, q, P)
        What `within_subject_qr` leaves of the whitened rows: U, then the rest.
    Lambda : (q, q), Gamma : (P, P)
        Γ symmetric, in units of the whitened rows.

    Returns
    -------
    (q + P, N)
        ``2 [U T⁻¹ R B - E Γ (C'T⁻¹ R B)]`` for Z and ``2 E Γ`` for [X, y], ``E = rest + U T⁻¹ C``.
    """
    q, P = C.shape[1], C.shape[2]
    U, rest, adjoint = work[:q], work[q:], np.empty_like(work)
    F, T, X = np.empty((q, q)), np.empty((q, q)), np.empty((q, q + P))
    N = U.shape[1]
    E = np.empty((P, N))
    CTRBs, TRBs = np.empty((len(start) - 1, P, q)), np.empty((len(start) - 1, q, q))
    for j in range(len(start) - 1):
        lo, hi = start[j], start[j + 1]
        for i in range(q):
            for k in range(q):
                F[i, k] = 0.0
                for m in range(i, q):
                    F[i, k] += R[j, i, m] * Lambda[m, k]
            for k in range(q):  # R B = F Λ'
                X[i, k] = 0.0
                for m in range(q):
                    X[i, k] += F[i, m] * Lambda[k, m]
            for a in range(P):
                X[i, q + a] = C[j, i, a]
        for i in range(q):  # Cholesky factor of T = I + F F'
            for k in range(i + 1):
                T[i, k] = 1.0 if i == k else 0.0
                for m in range(q):
                    T[i, k] += F[i, m] * F[k, m]
        cholesky(T)
        for a in range(q + P):  # columns of T⁻¹ [R B, C]
            for i in range(q):
                for m in range(i):
                    X[i, a] -= T[i, m] * X[m, a]
                X[i, a] /= T[i, i]
            for i in range(q - 1, -1, -1):
                for m in range(i + 1, q):
                    X[i, a] -= T[m, i] * X[m, a]
                X[i, a] /= T[i, i]
        for k in range(q):
            for m in range(q):
                TRBs[j, m, k] = X[m, k]
            for a in range(P):
                total = 0.0
                for m in range(q):
                    total += C[j, m, a] * X[m, k]
                CTRBs[j, a, k] = total
        for a in range(P):
            for t in range(lo, hi):
                E[a, t] = rest[a, t]
            for m in range(q):
                value = X[m, q + a]
                for t in range(lo, hi):
                    E[a, t] += U[m, t] * value
    for a in range(P):  # 2 E Γ, with the rows as the long dimension
        out = adjoint[q + a]
        for t in range(N):
            out[t] = 0.0
        for b in range(P):
            value, e = 2.0 * Gamma[a, b], E[b]
            for t in range(N):
                out[t] += value * e[t]
    for k in range(q):
        out = adjoint[k]
        for t in range(N):
            out[t] = 0.0
        for j in range(len(start) - 1):
            lo, hi = start[j], start[j + 1]
            for m in range(q):
                value = 2.0 * TRBs[j, m, k]
                for t in range(lo, hi):
                    out[t] += U[m, t] * value
            for a in range(P):
                value = CTRBs[j, a, k]
                for t in range(lo, hi):
                    out[t] -= adjoint[q + a, t] * value
    return adjoint
