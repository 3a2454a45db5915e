"""Several grouping factors: elimination of their groups, finest first, and the way back; compiled.

With ``V = I + Σ_k Z_k (I ⊗ B_k) Z_k'``, B_k = Λ_kΛ_k', random effects are integrated out one group after the other.
When a group g comes, C_gg (q × q), C_gN (q × n) and c_g (q × P) are what is left, after all earlier ones, of Z_g'Z_g,
of its products with the later groups N that it is coupled to, and of Z_g'[X, y]. With ``I + Λ'C_ggΛ = LL'`` and
``K = ΛL⁻ᵀ``:

    log|V| += 2 log|L|,      C_NN −= C_Ng KK' C_gN,      c_N −= C_Ng KK' c_g.

On the way back, with ``H = (I + C_gg B)⁻¹``, ``d = H C_gN``, and Π = Cov(b | y) and m = E(b | y) of the groups N known
(σ = 1; m for every column of [X, y] as if it were y),

    Z_g'V⁻¹Z_g = H C_gg − d Π_NN d',          u_g = Z_g'V⁻¹[X, y] = H c_g − d m_N,
    Π_gN = −B d Π_NN,    Π_gg = B H + B d Π_NN d'B,    m_g = B u_g.

Nothing is divided by Λ, which may be singular. ``Σ_g Z_g'V⁻¹Z_g`` and the products of the entries of u_g are what the
gradient needs (as in `kernel`).
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled

FAST = {"contract", "reassoc", "nsz", "arcp"}


@compiled(error_model="numpy")
def scaled(A: FloatArray, scale: FloatArray) -> FloatArray:
    """A (r, r) with rows and columns multiplied by a scale (r,), in one pass."""
    out = np.empty_like(A)
    for i in range(len(A)):
        for j in range(len(A)):
            out[i, j] = A[i, j] * (scale[i] * scale[j])
    return out


@compiled(error_model="numpy")
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


# Long: the algebra of the opening over levels, groups and columns.
# Branches: loops that numba turns into plain code; a leaf stores less than the groups above it.
@compiled(fastmath=FAST, error_model="numpy")
def eliminate(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    rest: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
) -> float:
    """Integrate out the chain; the arrays of `products_of_rows` hold C and c at each group's turn afterwards.

    Parameters
    ----------
    E, leaf, upper, rest, c
        Changed in place.
    Lambda : (Q, Q)
        Relative factors of the chain on the diagonal.
    q, J, first, width, above, start, column
        See `Forest`.

    Returns
    -------
    float
        log|V| of the chain.
    """
    m, P, r = len(q), c.shape[1], len(rest)
    most = 0
    for j in range(J[0]):
        most = max(most, start[j + 1] - start[j])
    log_det, base, line, at = 0.0, 0, 0, 0
    bases = np.zeros(m, dtype=np.int64)
    for k in range(1, m):
        bases[k] = bases[k - 1] + J[k - 1] * q[k - 1] * width[k - 1]
    for k in range(m):
        qk, w = q[k], width[k]
        own = Lambda[at : at + qk, at : at + qk]
        K, L = np.empty((qk, qk)), np.empty((qk, qk))
        n_above = w - qk
        V = np.empty((qk, n_above + P))
        Vr = np.empty((qk, most if k == 0 else r))
        kept = np.empty((J[k] * qk if k > 0 else 0, r))
        base = bases[k]
        for j in range(J[k]):
            row = base + j * qk * w
            log_det += root_of_group(E, row, qk, w, own, L)
            gain_of_group(qk, own, L, K)
            number = first[k] + j * qk
            for a in range(qk):
                for b in range(n_above + P):
                    V[a, b] = 0.0
                for b in range(qk):
                    g = K[b, a]
                    for t in range(n_above):
                        V[a, t] += g * E[row + b * w + qk + t]
                    for s in range(P):
                        V[a, n_above + s] += g * c[number + b, s]
            lo, hi = (start[j], start[j + 1]) if k == 0 else (0, r)
            for a in range(qk):
                for t in range(hi - lo):
                    total = 0.0
                    for b in range(qk):
                        total += K[b, a] * (leaf[lo + t, b] if k == 0 else upper[number - first[1] + b, t])
                    Vr[a, t] = total
            offset = 0
            for higher in range(k + 1, m):
                qh, wh, jh = q[higher], width[higher], above[line + j, higher]
                for b in range(qh):
                    target = bases[higher] + (jh * qh + b) * wh
                    number_h = first[higher] + jh * qh + b
                    for a in range(qk):
                        v = V[a, offset + b]
                        for t in range(wh):
                            E[target + t] -= v * V[a, offset + t]
                        for s in range(P):
                            c[number_h, s] -= v * V[a, n_above + s]
                        if k == 0:
                            for t in range(hi - lo):
                                upper[number_h - first[1], column[lo + t]] -= v * Vr[a, t]
                        else:
                            for t in range(r):
                                upper[number_h - first[1], t] -= v * Vr[a, t]
                offset += qh
            for a in range(qk):
                for t in range(hi - lo):
                    v = Vr[a, t]
                    number_r = first[m] + (column[lo + t] if k == 0 else t)
                    for s in range(P):
                        c[number_r, s] -= v * V[a, n_above + s]
                    if k == 0:
                        target = column[lo + t]  # columns ascend: the upper triangle, mirrored at the end
                        for s in range(t, hi - lo):
                            rest[target, column[lo + s]] -= v * Vr[a, s]
                    else:
                        kept[j * qk + a, t] = v
        if k == 0:
            mirror(rest)
        elif r > 0:
            rest -= np.dot(kept.T, kept)
        line += J[k]
        at += qk
    return log_det


# Long: as `eliminate`, the other way round.
# Branches: as there.
@compiled(fastmath=FAST, error_model="numpy")
def come_back(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    Pi: FloatArray,
    mean: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """From the rest to the finest groups: conditional means, covariances, and what the gradient needs.

    Parameters
    ----------
    E, leaf, upper, c
        As `eliminate` left them.
    Lambda : (Q, Q)
    Pi : (r, r)
        Conditional covariance of the rest.
    mean : (T, P)
        Conditional means; those of the rest are given, the others are filled in.
    q, J, first, width, above, start, column
        See `Forest`.

    Returns
    -------
    EE : (Q, Q)
        Σ_g Z_g'V⁻¹Z_g of every factor of the chain, on the diagonal.
    u : (first[m], P)
        Z_g'V⁻¹[X, y] of every group of the chain.
    own : (first[m], max q)
        Conditional covariance matrices of the groups, one after the other.
    within, across_leaf, across : as E, leaf, upper
        Conditional covariances of the groups with those that they lie in, and with the rest.
    """
    m, P, r = len(q), c.shape[1], len(Pi)
    Q = width[0]
    most = r
    for j in range(J[0]):
        most = max(most, start[j + 1] - start[j])
    bases, lines = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    for k in range(1, m):
        bases[k] = bases[k - 1] + J[k - 1] * q[k - 1] * width[k - 1]
        lines[k] = lines[k - 1] + J[k - 1]
    EE, u = np.zeros((Q, Q)), np.zeros((first[m], P))
    own = np.zeros((first[m], q.max()))
    PE, PL, PU = np.zeros(len(E)), np.zeros(leaf.shape), np.zeros(upper.shape)
    Pn = np.empty((Q, Q))
    at = Q
    for k in range(m - 1, -1, -1):
        qk, w = q[k], width[k]
        at -= qk
        own_factor = np.ascontiguousarray(Lambda[at : at + qk, at : at + qk])
        B = own_factor @ own_factor.T
        n_above = w - qk
        D = np.empty((qk, n_above + most))
        X = np.empty((qk, n_above + most))
        Y = np.empty((qk, qk))
        C, BH = np.empty((qk, qk)), np.empty((qk, qk))
        H = np.empty((qk, qk))
        spread = np.empty((0, 0))
        if k > 0 and r > 0:
            flat = np.empty((J[k] * qk, r))
            for j in range(J[k]):
                row = bases[k] + j * qk * w
                for a in range(qk):
                    for b in range(qk):
                        C[a, b] = E[row + a * w + b]
                H = np.linalg.inv(np.eye(qk) + C @ B)
                number = first[k] - first[1] + j * qk
                flat[j * qk : (j + 1) * qk] = H @ upper[number : number + qk]
            spread = flat @ Pi
        for j in range(J[k]):
            row, number = bases[k] + j * qk * w, first[k] + j * qk
            for a in range(qk):
                for b in range(qk):
                    C[a, b] = E[row + a * w + b]
            if qk == 1:
                H[0, 0] = 1.0 / (1.0 + C[0, 0] * B[0, 0])
            else:
                H = np.linalg.inv(np.eye(qk) + C @ B)
            lo, hi = (start[j], start[j + 1]) if k == 0 else (0, r)
            n_rest = hi - lo
            # d = H C_gN
            for a in range(qk):
                for t in range(n_above):
                    total = 0.0
                    for b in range(qk):
                        total += H[a, b] * E[row + b * w + qk + t]
                    D[a, t] = total
                for t in range(n_rest):
                    total = 0.0
                    for b in range(qk):
                        total += H[a, b] * (leaf[lo + t, b] if k == 0 else upper[number - first[1] + b, t])
                    D[a, n_above + t] = total
            # covariance of the groups above with each other
            offset = 0
            for higher in range(k + 1, m):
                qh, wh, jh = q[higher], width[higher], above[lines[k] + j, higher]
                for a in range(qh):
                    source = bases[higher] + (jh * qh + a) * wh
                    for t in range(wh):
                        Pn[offset + a, offset + t] = PE[source + t]
                        Pn[offset + t, offset + a] = PE[source + t]
                offset += qh
            # X = d Π_NN
            for a in range(qk):
                for t in range(n_above):
                    total = 0.0
                    for b in range(n_above):
                        total += D[a, b] * Pn[b, t]
                    X[a, t] = total
                for t in range(n_rest):
                    X[a, n_above + t] = 0.0 if k == 0 else spread[j * qk + a, t]
            if k == 0:  # Π is symmetric, and reading it is what costs
                for a in range(qk):
                    for t in range(n_rest):
                        line, d, total = Pi[column[lo + t]], D[a, n_above + t], 0.0
                        for b in range(t):
                            value = line[column[lo + b]]
                            total += D[a, n_above + b] * value
                            X[a, n_above + b] += d * value
                        X[a, n_above + t] += total + d * line[column[lo + t]]
            for a in range(qk):
                offset = 0
                for higher in range(k + 1, m):
                    qh, jh = q[higher], above[lines[k] + j, higher]
                    for b in range(qh):
                        across = PU[first[higher] - first[1] + jh * qh + b] if r > 0 else PU[0:0, 0]
                        total = 0.0
                        for t in range(n_rest):
                            value = across[column[lo + t] if k == 0 else t]
                            total += D[a, n_above + t] * value
                            X[a, n_above + t] += D[a, offset + b] * value
                        X[a, offset + b] += total
                    offset += qh
            for a in range(qk):
                for b in range(qk):
                    total = 0.0
                    for t in range(n_above + n_rest):
                        total += X[a, t] * D[b, t]
                    Y[a, b] = total
            for a in range(qk):
                for b in range(qk):
                    total, bh = -0.5 * (Y[a, b] + Y[b, a]), 0.0
                    for s in range(qk):
                        total += H[a, s] * C[s, b]
                        bh += B[a, s] * H[s, b]
                    EE[at + a, at + b] += total
                    BH[a, b] = bh
            for a in range(qk):
                for b in range(qk):
                    total = BH[a, b]
                    for s in range(qk):
                        for t in range(qk):
                            total += B[a, s] * Y[s, t] * B[t, b]
                    PE[row + a * w + b] = total
                    own[number + a, b] = total
                for t in range(n_above):
                    total = 0.0
                    for s in range(qk):
                        total -= B[a, s] * X[s, t]
                    PE[row + a * w + qk + t] = total
                for t in range(n_rest):
                    total = 0.0
                    for s in range(qk):
                        total -= B[a, s] * X[s, n_above + t]
                    if k > 0:
                        PU[number - first[1] + a, t] = total
                    else:
                        PL[lo + t, a] = total
            for s in range(P):
                for a in range(qk):
                    total = 0.0
                    for b in range(qk):
                        total += H[a, b] * c[number + b, s]
                    offset = 0
                    for higher in range(k + 1, m):
                        qh, jh = q[higher], above[lines[k] + j, higher]
                        for b in range(qh):
                            total -= D[a, offset + b] * mean[first[higher] + jh * qh + b, s]
                        offset += qh
                    for t in range(n_rest):
                        total -= D[a, n_above + t] * mean[first[m] + (column[lo + t] if k == 0 else t), s]
                    u[number + a, s] = total
                for a in range(qk):
                    total = 0.0
                    for b in range(qk):
                        total += B[a, b] * u[number + b, s]
                    mean[number + a, s] = total
    return EE, u, own, PE, PL, PU
