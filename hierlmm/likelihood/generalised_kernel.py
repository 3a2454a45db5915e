"""The kernel under generalised models: a subject's likelihood with its random effects integrated out, and its gradient.

With ``b_i = Λ u_i``, ``u_i ~ N(0, I)``, rows ``a_r = Λ'z_r``, ``η_r = x_r'β + o_r + a_r'u`` and l_r the log density of
row r, the mode û of

    h(u) = Σ l_r(η_r) − ½ u'u,     ∇h = Σ l'_r a_r − u,     H = −∇²h = I + Σ w_r a_r a_r',     w_r = −l''_r,

is found by Newton's method, and ``H = LL'``. Adaptive Gauss-Hermite quadrature (Pinheiro & Bates 1995, J. Comput.
Graph. Stat. 4, 12-35) has nodes ``u_k = û + √2 L⁻ᵀ z_k``, and weights ω divided by π^{q/2}; one node is Laplace's:

    log p(y_i) = −½ log|H| + log Σ_k ω_k exp(h(u_k) + z_k'z_k)

**Gradient.** π_k are the weights of the nodes. What h depends on directly gives ``Σ π_k ∂h(u_k)``. The nodes move with
û and L: û with adjoint ``v₀ = Σ π_k ∇h(u_k)``, L⁻ᵀ with ``M = √2 Σ π_k ∇h(u_k) z_k'``. Through the Cholesky
factorisation (Murray 2016, arXiv:1602.07527) M and the determinant make ``B``, the adjoint of H: −½ H⁻¹ for Laplace. As
``dH = Σ −(l'''_r dη_r + ∂_ψ l''_r dψ) a_r a_r' + w_r d(a_r a_r')``, with ``s_r = a_r'B a_r``, ``t_r = −l'''_r s_r``,
and ``û = argmax h``, ``dû = H⁻¹ d∇h``, ``ρ = H⁻¹(v₀ + Σ t_r a_r)``:

    β:  Σ x_r e_r,   e_r = Σ_k π_k l'_rk + t_r − w_r a_r'ρ
    Λ:  Σ_k π_k (Σ_r l'_rk z_r) u_k' + Σ_r z_r [(t_r − w_r a_r'ρ) û + l'_r ρ + 2 w_r B a_r]'
    ψ:  Σ_r Σ_k π_k ∂_ψ l_rk − ∂_ψ l''_r s_r + ∂_ψ l'_r a_r'ρ

It is exact, third derivatives and all: no part of the mode's own dependence is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.triangles import cholesky, invert_triangle

MAX_NEWTON = 100
MAX_HALVINGS = 30
MAX_RETURNS = 8
SMALL_STEP = 1e-14
"""Squared length of a Newton step, in the metric of H, after which the mode is exact to rounding."""
NEGLIGIBLE = 1e-30
ROOT2 = math.sqrt(2.0)


# Long: one subject's mode, nodes and adjoints share their work arrays.
# Branches: loops over rows and columns, written out for numba.
@compiled(error_model="numpy")
def marginal_sums(
    derivatives: Any,
    first: int,
    last: int,
    start: NDArray[np.int64],
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    Z: FloatArray,
    Lambda: FloatArray,
    psi: FloatArray,
    nodes: FloatArray,
    log_weights: FloatArray,
    modes: FloatArray,
    value: FloatArray,
    e: FloatArray,
    covariance: FloatArray,
) -> tuple[FloatArray, FloatArray, bool]:
    """Marginal log-likelihoods of the subjects ``first:last``, and what their gradient is made of.

    Parameters
    ----------
    derivatives : callable
        ``Family.derivatives``: its address is an argument, so that one machine code serves every family.
    first, last : int
    start : (J + 1,)
        Rows of subject j are ``start[j]:start[j + 1]``.
    y, n : (N,)
        Responses and trials.
    given : (N,)
        ``Xβ`` and the offset.
    Z : (N, q)
    Lambda : (q, q)
    psi : (m,)
    nodes : (K, q), log_weights : (K,)
        Of Gauss-Hermite quadrature for exp(−z'z), log weights less ``½ q log π``.
    modes : (J, q)
        On entry where Newton's method starts; on return û.
    value : (J,), e : (N,), covariance : (J, q, q)
        On return the log-likelihoods, e of the opening, and H⁻¹.

    Returns
    -------
    in_Lambda : (q, q), in_psi : (m,)
        Gradients of the sum of the values.
    found : bool
        Whether every mode was found.
    """
    q, m, K = Z.shape[1], len(psi), len(nodes)
    most = 0
    for j in range(first, last):
        most = max(most, start[j + 1] - start[j])
    rows = np.zeros((most, 4 + 3 * m))
    a = np.empty((most, q))
    d = np.zeros(4 + 3 * m)
    u, best, g, step, rho = np.zeros(q), np.zeros(q), np.zeros(q), np.zeros(q), np.zeros(q)
    zsum, gk, Ba = np.zeros(q), np.zeros(q), np.zeros(q)
    H, L, B, M, T, U = (
        np.zeros((q, q)),
        np.zeros((q, q)),
        np.zeros((q, q)),
        np.zeros((q, q)),
        np.zeros((q, q)),
        np.zeros((q, q)),
    )
    hk = np.zeros(K)
    in_Lambda, in_psi = np.zeros((q, q)), np.zeros(m)
    found = True
    for j in range(first, last):
        lo, size = start[j], start[j + 1] - start[j]
        for r in range(size):
            for k in range(q):
                total = 0.0
                for i in range(q):
                    total += Z[lo + r, i] * Lambda[i, k]
                a[r, k] = total
        for k in range(q):
            u[k] = modes[j, k]
        # The mode. A step that lowers h is halved; where H is not positive definite (l not concave) its part without
        # the rows of negative w is.
        previous = -math.inf
        halvings = 0
        settled = False
        for _ in range(MAX_NEWTON):
            h = 0.0
            for k in range(q):
                h -= 0.5 * u[k] * u[k]
                g[k] = -u[k]
                for i in range(q):
                    H[k, i] = 0.0
                    T[k, i] = 0.0
                H[k, k] = 1.0
                T[k, k] = 1.0
            for r in range(size):
                eta = given[lo + r]
                for k in range(q):
                    eta += a[r, k] * u[k]
                derivatives(y[lo + r], n[lo + r], eta, psi, 2, d)
                h += d[0]
                for k in range(q):
                    g[k] += d[1] * a[r, k]
                    for i in range(k + 1):
                        product = d[2] * a[r, k] * a[r, i]
                        H[k, i] -= product
                        if d[2] < 0.0:
                            T[k, i] -= product
            if not (h > -math.inf and h >= previous - 1e-12 * (1.0 + abs(previous))):
                halvings += 1
                if halvings > (MAX_HALVINGS if previous > -math.inf else MAX_RETURNS):
                    break
                for k in range(q):
                    if previous > -math.inf:
                        step[k] *= 0.5
                        u[k] = best[k] + step[k]
                    else:  # a mode of other parameters may have no density at these: back towards zero
                        u[k] = 0.5 * u[k] if halvings < MAX_RETURNS else 0.0
                continue
            previous, halvings = h, 0
            if not cholesky(H):
                for k in range(q):
                    for i in range(k + 1):
                        H[k, i] = T[k, i]
                if not cholesky(H):
                    break
            length = 0.0
            for k in range(q):
                total = g[k]
                for i in range(k):
                    total -= H[k, i] * step[i]
                step[k] = total / H[k, k]
                length += step[k] * step[k]
            for k in range(q - 1, -1, -1):
                total = step[k]
                for i in range(k + 1, q):
                    total -= H[i, k] * step[i]
                step[k] = total / H[k, k]
            for k in range(q):
                best[k] = u[k]
                u[k] += step[k]
            if length < SMALL_STEP:
                settled = True
                break
        # Everything at the mode.
        h = 0.0
        for k in range(q):
            h -= 0.5 * u[k] * u[k]
            modes[j, k] = u[k]
            for i in range(q):
                H[k, i] = 0.0
            H[k, k] = 1.0
        for r in range(size):
            eta = given[lo + r]
            for k in range(q):
                eta += a[r, k] * u[k]
            own = rows[r]
            derivatives(y[lo + r], n[lo + r], eta, psi, 3, own)
            h += own[0]
            for k in range(q):
                for i in range(k + 1):
                    H[k, i] -= own[2] * a[r, k] * a[r, i]
        for k in range(q):
            for i in range(k + 1):
                L[k, i] = H[k, i]
        if not (settled and cholesky(L)):
            value[j] = -math.inf
            found = False
            continue
        log_det = 0.0
        for k in range(q):
            log_det += math.log(L[k, k])
            for i in range(q):
                U[k, i] = L[k, i] if i <= k else 0.0
        invert_triangle(U)  # U = L⁻¹
        for k in range(q):
            for i in range(k + 1):
                total = 0.0
                for c in range(k, q):
                    total += U[c, k] * U[c, i]
                H[k, i] = total  # H⁻¹ from here on
                H[i, k] = total
        for k in range(q):
            for i in range(q):
                covariance[j, k, i] = H[k, i]
                B[k, i] = -0.5 * H[k, i]
            rho[k] = 0.0
        if K == 1:
            value[j] = h - log_det
            for k in range(q):
                zsum[k] = 0.0
            for r in range(size):
                own = rows[r]
                e[lo + r] = own[1]
                for k in range(q):
                    zsum[k] += own[1] * Z[lo + r, k]
                for i in range(m):
                    in_psi[i] += own[4 + 3 * i]
            for k in range(q):
                for i in range(q):
                    in_Lambda[k, i] += zsum[k] * u[i]
        else:
            highest = -math.inf
            for c in range(K):
                total = log_weights[c]
                for k in range(q):
                    best[k] = u[k]
                    for i in range(k, q):
                        best[k] += ROOT2 * U[i, k] * nodes[c, i]
                    total += nodes[c, k] * nodes[c, k] - 0.5 * best[k] * best[k]
                for r in range(size):
                    eta = given[lo + r]
                    for k in range(q):
                        eta += a[r, k] * best[k]
                    derivatives(y[lo + r], n[lo + r], eta, psi, 2, d)
                    total += d[0]
                hk[c] = total if total == total else -math.inf
                highest = max(highest, hk[c])
            weight = 0.0
            for c in range(K):
                hk[c] = math.exp(hk[c] - highest)
                weight += hk[c]
            value[j] = highest + math.log(weight) - log_det
            for r in range(size):
                e[lo + r] = 0.0
            for k in range(q):
                for i in range(q):
                    M[k, i] = 0.0
            for c in range(K):
                share = hk[c] / weight
                if share < NEGLIGIBLE:
                    continue
                for k in range(q):
                    best[k] = u[k]
                    for i in range(k, q):
                        best[k] += ROOT2 * U[i, k] * nodes[c, i]
                    gk[k] = -best[k]
                    zsum[k] = 0.0
                for r in range(size):
                    eta = given[lo + r]
                    for k in range(q):
                        eta += a[r, k] * best[k]
                    derivatives(y[lo + r], n[lo + r], eta, psi, 1, d)
                    e[lo + r] += share * d[1]
                    for k in range(q):
                        gk[k] += d[1] * a[r, k]
                        zsum[k] += d[1] * Z[lo + r, k]
                    for i in range(m):
                        in_psi[i] += share * d[4 + 3 * i]
                for k in range(q):
                    rho[k] += share * gk[k]
                    for i in range(q):
                        in_Lambda[k, i] += share * zsum[k] * best[i]
                        M[k, i] += ROOT2 * share * gk[k] * nodes[c, i]
            _through_cholesky(U, L, M, T, B)
        # v = v₀ + Σ t a, ρ = H⁻¹ v.
        for r in range(size):
            own = rows[r]
            s = 0.0
            for k in range(q):
                total = 0.0
                for i in range(q):
                    total += B[k, i] * a[r, i]
                s += a[r, k] * total
            own[0] = s
            for k in range(q):
                rho[k] -= own[3] * s * a[r, k]
        for k in range(q):
            total = 0.0
            for i in range(q):
                total += H[k, i] * rho[i]
            step[k] = total
        for r in range(size):
            own = rows[r]
            along = 0.0
            for k in range(q):
                along += a[r, k] * step[k]
            moved = own[2] * along - own[3] * own[0]  # t − w a'ρ
            e[lo + r] += moved
            for k in range(q):
                total = 0.0
                for i in range(q):
                    total += B[k, i] * a[r, i]
                Ba[k] = moved * u[k] + own[1] * step[k] - 2.0 * own[2] * total
            for k in range(q):
                for i in range(q):
                    in_Lambda[k, i] += Z[lo + r, k] * Ba[i]
            for i in range(m):
                in_psi[i] += own[5 + 3 * i] * along - own[6 + 3 * i] * own[0]
    return in_Lambda, in_psi, found


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy")
def _through_cholesky(U: FloatArray, L: FloatArray, M: FloatArray, T: FloatArray, B: FloatArray) -> None:
    """Add to B the adjoint of H, from M, that of ``L⁻ᵀ``; U is L⁻¹, T work space.

    That of L is ``−tril(L⁻ᵀM'L⁻ᵀ)``; with Φ the lower triangle with its diagonal halved, that of H is the symmetric
    part of ``L⁻ᵀ Φ(L' L̄) L⁻¹``.
    """
    q = len(U)
    W = np.zeros((q, q))
    for k in range(q):  # T = L⁻ᵀ M'
        for i in range(q):
            total = 0.0
            for c in range(k, q):
                total += U[c, k] * M[i, c]
            T[k, i] = total
    for k in range(q):  # W = −tril(T L⁻ᵀ), L⁻ᵀ[c, i] = U[i, c]
        for i in range(k + 1):
            total = 0.0
            for c in range(q):
                total -= T[k, c] * U[i, c]
            W[k, i] = total
    for k in range(q):  # T = Φ(L'W)
        for i in range(q):
            total = 0.0
            if i <= k:
                for c in range(k, q):
                    total += L[c, k] * W[c, i]
                if i == k:
                    total *= 0.5
            T[k, i] = total
    for k in range(q):  # W = T L⁻¹
        for i in range(q):
            total = 0.0
            for c in range(q):
                total += T[k, c] * (U[c, i] if i <= c else 0.0)
            W[k, i] = total
    for k in range(q):  # B += sym(L⁻ᵀ W)
        for i in range(q):
            total = 0.0
            for c in range(k, q):
                total += U[c, k] * W[c, i]
            B[k, i] += 0.5 * total
            B[i, k] += 0.5 * total
