"""The kernel under every Gaussian fit: sums over design patterns, and their gradient. Compiled once, cached on disk.

With ``Z_i = U_i R_i`` (thin QR), ``C_i = U_i'[X_i, y_i]`` and ``D = σ² Λ Λ'``,

    T_i = I + R_i Λ Λ' R_i',    σ² [X, y]' V⁻¹ [X, y] = S_w + Σ_i C_i' T_i⁻¹ C_i,    log|V| = N log σ² + Σ_i log|T_i|

where ``S_w = Σ_i [X_i, y_i]'(I - U_i U_i')[X_i, y_i]`` is what the random effects cannot reach. Every term is positive
semi-definite and T_i has no eigenvalue below 1, so nothing cancels however large D is against σ². Subjects with equal
R_i share T_i: one factorisation per pattern.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["backward", "forward", "within_subject_qr"]

FloatArray = NDArray[np.float64]


@numba.njit(cache=True, nogil=True)
def _inverse_spd(T: FloatArray, out: FloatArray, work: FloatArray) -> float:
    """Write T⁻¹ to ``out`` and return log|T|; T (q, q) is symmetric positive definite and small."""
    q = T.shape[0]
    logdet = 0.0
    for i in range(q):  # work = lower Cholesky factor
        for j in range(i + 1):
            s = T[i, j]
            for k in range(j):
                s -= work[i, k] * work[j, k]
            if i == j:
                work[i, i] = np.sqrt(s)
                logdet += 2.0 * np.log(work[i, i])
            else:
                work[i, j] = s / work[j, j]
    for i in range(q):  # work = inverse of the factor, in place, lower part
        work[i, i] = 1.0 / work[i, i]
        for j in range(i):
            s = 0.0
            for k in range(j, i):
                s -= work[i, k] * work[k, j]
            work[i, j] = s * work[i, i]
    for i in range(q):
        for j in range(i + 1):
            s = 0.0
            for k in range(i, q):
                s += work[k, i] * work[k, j]
            out[i, j] = s
            out[j, i] = s
    return logdet


@numba.njit(cache=True, nogil=True)
def forward(
    R: FloatArray, count: FloatArray, start: NDArray[np.int64], C: FloatArray, Lambda: FloatArray, Tinv: FloatArray
) -> tuple[FloatArray, float]:
    """Σ_i C_i' T_i⁻¹ C_i and Σ_i log|T_i|; leaves T⁻¹ of every pattern in ``Tinv``.

    Parameters
    ----------
    R : (K, q, q)
        Triangular factor of each pattern.
    count : (K,)
        Subjects of each pattern.
    start : (K + 1,)
        Rows of ``C`` that belong to pattern k are ``start[k]:start[k+1]``.
    C : (rows, q, P)
    Lambda : (q, q)
    Tinv : (K, q, q)
        Work space, overwritten.

    Returns
    -------
    (P, P) array, float
    """
    K, q = R.shape[0], R.shape[1]
    P = C.shape[2]
    G = np.zeros((P, P))
    F = np.empty((q, q))
    T = np.empty((q, q))
    work = np.empty((q, q))
    TC = np.empty((q, P))
    logdet = 0.0
    for k in range(K):
        for i in range(q):
            for j in range(q):
                s = 0.0
                for m in range(i, q):
                    s += R[k, i, m] * Lambda[m, j]
                F[i, j] = s
        for i in range(q):
            for j in range(i + 1):
                s = 1.0 if i == j else 0.0
                for m in range(q):
                    s += F[i, m] * F[j, m]
                T[i, j] = s
        logdet += count[k] * _inverse_spd(T, Tinv[k], work)
        for r in range(start[k], start[k + 1]):
            for i in range(q):
                for a in range(P):
                    s = 0.0
                    for j in range(q):
                        s += Tinv[k, i, j] * C[r, j, a]
                    TC[i, a] = s
            for i in range(q):
                for a in range(P):
                    c = C[r, i, a]
                    for d in range(a + 1):
                        G[a, d] += c * TC[i, d]
    for a in range(P):
        for d in range(a):
            G[d, a] = G[a, d]
    return G, logdet


@numba.njit(cache=True, nogil=True)
def backward(
    R: FloatArray,
    count: FloatArray,
    start: NDArray[np.int64],
    C: FloatArray,
    Tinv: FloatArray,
    Gamma: FloatArray,
    weight: float,
) -> FloatArray:
    """Gradient of ``⟨Γ, Σ C'T⁻¹C⟩ + weight · Σ log|T|`` with respect to ``B = Λ Λ'`` (symmetric, (q, q)).

    The gradient with respect to Λ is ``2 · backward(...) @ Λ``. With T = I + R B R', it is
    ``Σ_k R_k' (weight·J_k T⁻¹ − T⁻¹ [Σ C Γ C'] T⁻¹) R_k``. ``Tinv`` comes from `forward`; Γ (P, P) is symmetric.
    """
    K, q = R.shape[0], R.shape[1]
    P = C.shape[2]
    gradient = np.zeros((q, q))
    H = np.empty((q, q))
    A = np.empty((q, q))
    B = np.empty((q, q))
    CG = np.empty(P)
    for k in range(K):
        H[:] = 0.0
        for r in range(start[k], start[k + 1]):
            for i in range(q):
                for a in range(P):
                    s = 0.0
                    for d in range(P):
                        s += C[r, i, d] * Gamma[d, a]
                    CG[a] = s
                for j in range(i + 1):
                    s = 0.0
                    for a in range(P):
                        s += CG[a] * C[r, j, a]
                    H[i, j] += s
        for i in range(q):
            for j in range(i):
                H[j, i] = H[i, j]
        for i in range(q):  # A = T⁻¹ H
            for j in range(q):
                s = 0.0
                for m in range(q):
                    s += Tinv[k, i, m] * H[m, j]
                A[i, j] = s
        for i in range(q):  # B = weight J T⁻¹ - T⁻¹ H T⁻¹
            for j in range(q):
                s = weight * count[k] * Tinv[k, i, j]
                for m in range(q):
                    s -= A[i, m] * Tinv[k, m, j]
                B[i, j] = s
        for i in range(q):  # A = B R
            for j in range(q):
                s = 0.0
                for m in range(j + 1):
                    s += B[i, m] * R[k, m, j]
                A[i, j] = s
        for i in range(q):
            for j in range(q):
                s = 0.0
                for m in range(i + 1):
                    s += R[k, m, i] * A[m, j]
                gradient[i, j] += s
    return gradient


@numba.njit(cache=True, nogil=True)
def within_subject_qr(
    Z: FloatArray, XY: FloatArray, start: NDArray[np.int64], tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Thin QR of every subject's Z by modified Gram-Schmidt, applied twice for orthogonality to rounding.

    Parameters
    ----------
    Z : (N, q), XY : (N, P)
        Rows sorted by subject. Both are used as work space and overwritten.
    start : (J + 1,)
        Rows of subject j are ``start[j]:start[j+1]``.
    tolerance : float
        A column whose norm falls below this share of its own is dependent: its row of R is zero.

    Returns
    -------
    R : (J, q, q), C : (J, q, P), S_w : (P, P)
        Triangular factors, ``U'[X, y]``, and the cross-products of what is left of ``[X, y]``.
    """
    J, q, P = len(start) - 1, Z.shape[1], XY.shape[1]
    R = np.zeros((J, q, q))
    C = np.zeros((J, q, P))
    S = np.zeros((P, P))
    for j in range(J):
        lo, hi = start[j], start[j + 1]
        for k in range(q):
            norm0 = 0.0
            for r in range(lo, hi):
                norm0 += Z[r, k] ** 2
            for sweep in range(2):
                for m in range(k):
                    s = 0.0
                    for r in range(lo, hi):
                        s += Z[r, m] * Z[r, k]
                    R[j, m, k] += s
                    for r in range(lo, hi):
                        Z[r, k] -= s * Z[r, m]
            norm = 0.0
            for r in range(lo, hi):
                norm += Z[r, k] ** 2
            if norm <= tolerance * tolerance * norm0 or norm == 0.0:
                for r in range(lo, hi):
                    Z[r, k] = 0.0
                continue
            norm = np.sqrt(norm)
            R[j, k, k] = norm
            for r in range(lo, hi):
                Z[r, k] /= norm
            for sweep in range(2):
                for a in range(P):
                    s = 0.0
                    for r in range(lo, hi):
                        s += Z[r, k] * XY[r, a]
                    C[j, k, a] += s
                    for r in range(lo, hi):
                        XY[r, a] -= s * Z[r, k]
        for r in range(lo, hi):
            for a in range(P):
                for d in range(a + 1):
                    S[a, d] += XY[r, a] * XY[r, d]
    for a in range(P):
        for d in range(a):
            S[d, a] = S[a, d]
    return R, C, S
