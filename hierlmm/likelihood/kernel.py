"""The kernel under every Gaussian fit: sums over design patterns that give value and gradient in one pass.

With ``Z_i = U_i R_i`` (thin QR), ``C_i = U_i'[X_i, y_i]`` and ``D = σ² Λ Λ'``,

    T_i = I + R_i Λ Λ' R_i',    σ² [X, y]' V⁻¹ [X, y] = S_w + Σ_i C_i' T_i⁻¹ C_i,    log|V| = N log σ² + Σ_i log|T_i|

where ``S_w = Σ_i [X_i, y_i]'(I - U_i U_i')[X_i, y_i]`` is what the random effects cannot reach. Every term is positive
semi-definite and T_i has no eigenvalue below 1, so nothing cancels however large D is against σ².

With ``T_i = L_i L_i'``, ``E_i = L_i⁻¹ R_i``, ``w_i = L_i⁻¹ C_i`` and ``u_i = E_i' w_i`` (q, P), the derivative of
``Σ_i log|T_i| + ⟨Γ, Σ_i C_i'T_i⁻¹C_i⟩`` with respect to ``B = Λ Λ'`` is ``Σ_i E_i'E_i − u_i Γ u_i'``: it needs the
data only through ``Σ_i E_i'E_i`` and the products of the entries of u_i, so that no second pass over the subjects
follows once Γ is known.

Subjects are the last, contiguous dimension and go through in tiles: every scalar operation of the q × q algebra is a
loop over a tile that the compiler vectorises. Compiled once, cached on disk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled

TILE = 64
RANK_TOLERANCE = 1e-9
"""Share of its own norm below which a column depends on those before it."""
# Sums may be reordered; infinities and NaN keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}


class PatternSums(NamedTuple):
    """What the likelihood and its gradient need of the subjects at one Λ.

    ``G`` (P, P) is Σ C'T⁻¹C, ``log_det_T`` is Σ log|T|, ``EE`` (q, q) is Σ E'E, and ``U`` (q, q, P, P) holds
    Σ u[i, a] u[j, b] at ``[i, j, a, b]``.
    """

    G: FloatArray
    log_det_T: float
    EE: FloatArray
    U: FloatArray


# Long: the algebra of the opening, step by step on one tile whose work arrays the steps share.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(fastmath=FAST, error_model="numpy")
def pattern_sums(R: FloatArray, C: FloatArray, weight: FloatArray, Lambda: FloatArray) -> PatternSums:
    """Sum over rows of patterns.

    Parameters
    ----------
    R : (q, q, K)
        Upper triangular factor of each row's pattern.
    C : (q, P, K)
    weight : (K,)
        Subjects that the row stands for in log|T| and E'E: 1, or for a compressed pattern its number of subjects on
        its first row and 0 on the others.
    Lambda : (q, q)

    Returns
    -------
    PatternSums

    Notes
    -----
    Costs about K (q³ + q²P²/2) multiplications; 20 ns a row for q = 2, P = 3.
    """
    q, K, P = R.shape[0], R.shape[2], C.shape[1]
    G = np.zeros((P, P))
    EE = np.zeros((q, q))
    U = np.zeros((q * P, q * P))
    log_det = 0.0
    F = np.empty((q, q, TILE))
    T = np.empty((q, q, TILE))
    inverse = np.empty((q, TILE))
    Ew = np.empty((q, q + P, TILE))
    u = np.empty((q * P, TILE))
    for k in range(0, K, TILE):
        n = min(TILE, K - k)
        part = weight[k : k + n]
        for i in range(q):  # F = R Λ
            for j in range(q):
                f, r, value = F[i, j], R[i, i], Lambda[i, j]
                for s in range(n):
                    f[s] = r[k + s] * value
                for m in range(i + 1, q):
                    r, value = R[i, m], Lambda[m, j]
                    for s in range(n):
                        f[s] += r[k + s] * value
        for i in range(q):  # T = I + F F', lower triangle
            for j in range(i + 1):
                t, a, b = T[i, j], F[i, 0], F[j, 0]
                unit = 1.0 if i == j else 0.0
                for s in range(n):
                    t[s] = unit + a[s] * b[s]
                for m in range(1, q):
                    a, b = F[i, m], F[j, m]
                    for s in range(n):
                        t[s] += a[s] * b[s]
        for i in range(q):  # Cholesky factor of T below its diagonal; squared pivots on it; inverse pivots apart
            for j in range(i + 1):
                t = T[i, j]
                for m in range(j):
                    a, b = T[i, m], T[j, m]
                    for s in range(n):
                        t[s] -= a[s] * b[s]
                v = inverse[j]
                if i == j:
                    for s in range(n):
                        v[s] = 1.0 / np.sqrt(t[s])
                else:
                    for s in range(n):
                        t[s] *= v[s]
        for i in range(q):  # log|T|: one logarithm for many pivots where all weigh the same
            t = T[i, i]
            product = 1.0
            for s in range(n):
                if part[s] == 1.0:
                    product *= t[s]
                    if product > 1e250:
                        log_det += np.log(product)
                        product = 1.0
                elif part[s] > 0.0:
                    log_det += part[s] * np.log(t[s])
            log_det += np.log(product)
        for i in range(q):  # [E, w] = L⁻¹ [R, C] by forward substitution
            v = inverse[i]
            for a_ in range(q + P):
                x, c = Ew[i, a_], R[i, a_] if a_ < q else C[i, a_ - q]
                for s in range(n):
                    x[s] = c[k + s]
                for m in range(i):
                    t, o = T[i, m], Ew[m, a_]
                    for s in range(n):
                        x[s] -= t[s] * o[s]
                for s in range(n):
                    x[s] *= v[s]
        for i in range(q):  # E'E, u = E'w
            for j in range(i + 1):
                total = 0.0
                for m in range(q):
                    a, b = Ew[m, i], Ew[m, j]
                    for s in range(n):
                        total += part[s] * a[s] * b[s]
                EE[i, j] += total
            for a_ in range(P):
                x, e, y = u[i * P + a_], Ew[0, i], Ew[0, q + a_]
                for s in range(n):
                    x[s] = e[s] * y[s]
                for m in range(1, q):
                    e, y = Ew[m, i], Ew[m, q + a_]
                    for s in range(n):
                        x[s] += e[s] * y[s]
        for a_ in range(P):  # w'w
            for b_ in range(a_ + 1):
                total = 0.0
                for m in range(q):
                    x, y = Ew[m, q + a_], Ew[m, q + b_]
                    for s in range(n):
                        total += x[s] * y[s]
                G[a_, b_] += total
        for a_ in range(q * P):
            x = u[a_]
            for b_ in range(a_ + 1):
                y = u[b_]
                total = 0.0
                for s in range(n):
                    total += x[s] * y[s]
                U[a_, b_] += total
    for a_ in range(P):
        for b_ in range(a_):
            G[b_, a_] = G[a_, b_]
    products = np.empty((q, q, P, P))
    for i in range(q):
        for j in range(q):
            EE[min(i, j), max(i, j)] = EE[max(i, j), min(i, j)]
            for a_ in range(P):
                for b_ in range(P):
                    row, column = i * P + a_, j * P + b_
                    products[i, j, a_, b_] = U[max(row, column), min(row, column)]
    return PatternSums(G, log_det, EE, products)


# Long: the first steps of `pattern_sums`, on one tile whose work arrays they share.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(fastmath=FAST, error_model="numpy")
def pattern_squares(R: FloatArray, C: FloatArray, Lambdas: FloatArray, lo: int, hi: int, G: FloatArray) -> None:
    """Write G of `PatternSums` at each of many Λ, of which lo:hi are wanted: (S, q, q), (S, P, P)."""
    q, K, P = R.shape[0], R.shape[2], C.shape[1]
    F, T, inverse, w = np.empty((q, q, TILE)), np.empty((q, q, TILE)), np.empty((q, TILE)), np.empty((P, q, TILE))
    for at in range(lo, hi):
        Lambda = Lambdas[at]
        G[at] = 0.0
        for k in range(0, K, TILE):
            n = min(TILE, K - k)
            for i in range(q):
                for j in range(q):
                    for s in range(n):
                        F[i, j, s] = R[i, i, k + s] * Lambda[i, j]
                    for m in range(i + 1, q):
                        for s in range(n):
                            F[i, j, s] += R[i, m, k + s] * Lambda[m, j]
            for i in range(q):
                for j in range(i + 1):
                    for s in range(n):
                        T[i, j, s] = F[i, 0, s] * F[j, 0, s]
                    for m in range(1, q):
                        for s in range(n):
                            T[i, j, s] += F[i, m, s] * F[j, m, s]
                    for m in range(j):
                        for s in range(n):
                            T[i, j, s] -= T[i, m, s] * T[j, m, s]
                    if i == j:
                        for s in range(n):
                            inverse[i, s] = 1.0 / np.sqrt(1.0 + T[i, i, s])
                    else:
                        for s in range(n):
                            T[i, j, s] *= inverse[j, s]
            for a in range(P):
                for i in range(q):
                    for s in range(n):
                        w[a, i, s] = C[i, a, k + s]
                    for m in range(i):
                        for s in range(n):
                            w[a, i, s] -= T[i, m, s] * w[a, m, s]
                    for s in range(n):
                        w[a, i, s] *= inverse[i, s]
                for b in range(a + 1):
                    total = 0.0
                    for i in range(q):
                        for s in range(n):
                            total += w[a, i, s] * w[b, i, s]
                    G[at, a, b] += total
        for a in range(P):
            for b in range(a):
                G[at, b, a] = G[at, a, b]


# The branches are loops over subjects, columns and rows; the one case is a dependent column.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(fastmath=FAST, error_model="numpy")
def within_subject_qr(
    Z: FloatArray, XY: FloatArray, start: NDArray[np.int64], tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Thin QR of every subject's Z by modified Gram-Schmidt, applied twice for orthogonality to rounding.

    Parameters
    ----------
    Z : (q, N), XY : (P, N)
        Columns of the designs as rows, sorted by subject. Both are used as work space and overwritten.
    start : (J + 1,)
        Positions of subject j are ``start[j]:start[j+1]``.
    tolerance : float
        A column whose norm falls below this share of its own is dependent: its row of R is zero.

    Returns
    -------
    R : (J, q, q), C : (J, q, P), S_w : (P, P)
        Triangular factors, ``U'[X, y]``, and the cross-products of what is left of ``[X, y]``.
    """
    J, q, P = len(start) - 1, Z.shape[0], XY.shape[0]
    R = np.zeros((J, q, q))
    C = np.zeros((J, q, P))
    S = np.zeros((P, P))
    for j in range(J):
        lo, hi = start[j], start[j + 1]
        for k in range(q):
            own = Z[k]
            norm0 = 0.0
            for r in range(lo, hi):
                norm0 += own[r] * own[r]
            for _ in range(2):
                for m in range(k):
                    other = Z[m]
                    share = 0.0
                    for r in range(lo, hi):
                        share += other[r] * own[r]
                    R[j, m, k] += share
                    for r in range(lo, hi):
                        own[r] -= share * other[r]
            norm = 0.0
            for r in range(lo, hi):
                norm += own[r] * own[r]
            if norm <= tolerance * tolerance * norm0 or norm == 0.0:
                for r in range(lo, hi):
                    own[r] = 0.0
                continue
            norm = np.sqrt(norm)
            R[j, k, k] = norm
            for r in range(lo, hi):
                own[r] /= norm
            for _ in range(2):
                for a in range(P):
                    column = XY[a]
                    share = 0.0
                    for r in range(lo, hi):
                        share += own[r] * column[r]
                    C[j, k, a] += share
                    for r in range(lo, hi):
                        column[r] -= share * own[r]
    for a in range(P):
        for b in range(a + 1):
            x, y = XY[a], XY[b]
            total = 0.0
            for r in range(len(x)):
                total += x[r] * y[r]
            S[a, b] = total
            S[b, a] = total
    return R, C, S
