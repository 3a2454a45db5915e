"""Right sides c = Z'v of an elimination: forward, and from the solution for the rest the way back; compiled.

In the notation of `forest_kernel`, c_g is what is left of a right side (T, P) when group g comes, and m_N is known of
the groups N when the way back comes to it:

    c_N −= C_Ng KK' c_g,  KK' = B H;      u_g = Z_g'V⁻¹v = H (c_g − C_gN m_N),      m_g = B u_g.

m is E(b | v) for every column of v, and ``Λ'u`` solves ``(I + Λ'CΛ) x = Λ'c``. With normal deviates z of variance σ²,
``m_g = B u_g + K z_g`` is a draw of all random effects together.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.forest_kernel import FAST, Plan, covariance_of, gain_of_group, root_of_group


# Branches: loops over levels, groups and columns, written out for numba.
@compiled(fastmath=FAST, error_model="numpy")
def forward(E: FloatArray, H: FloatArray, c: FloatArray, Lambda: FloatArray, plan: Plan) -> None:
    """Bring right sides to what is left of them at each group's turn, in place.

    Parameters
    ----------
    E, H
        As `eliminate` left them.
    c : (T, P)
        Changed in place.
    Lambda : (Q, Q)
    plan : Plan
    """
    q, J, first, width, line, base, begin, reach = plan
    P = c.shape[1]
    for k in range(len(q)):
        qk, B, g = q[k], covariance_of(Lambda, width[0] - width[k], q[k]), np.empty((q[k], P))
        for j in range(J[k]):
            row, s, n = base[line[k] + j], begin[line[k] + j], begin[line[k] + j + 1] - begin[line[k] + j]
            number = first[k] + j * qk
            for a in range(qk):
                for p in range(P):
                    g[a, p] = 0.0
                for b in range(qk):
                    gain = 0.0
                    for i in range(qk):
                        gain += B[a, i] * H[number + i, b]
                    for p in range(P):
                        g[a, p] += gain * c[number + b, p]
            for a in range(qk):
                for t in range(n):
                    value = E[row + a * (qk + n) + qk + t]
                    for p in range(P):
                        c[reach[s + t], p] -= value * g[a, p]


# Branches: as `forward`.
@compiled(fastmath=FAST, error_model="numpy")
def backward(
    E: FloatArray,
    H: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    mean: FloatArray,
    u: FloatArray,
    z: FloatArray,
    plan: Plan,
) -> None:
    """Solve for the groups of the chain, coarsest first, from the solution for the rest; or draw their effects.

    Parameters
    ----------
    E, H
        As `eliminate` left them.
    c : (T, P)
        As `forward` left it.
    Lambda : (Q, Q)
    mean, u : (T, P)
        m, given of the rest and filled in for the others, as u is.
    z : (first[m], P), or (0, P)
        Deviates of a draw; none for the mean.
    plan : Plan
    """
    q, J, first, width, line, base, begin, reach = plan
    P, draws = c.shape[1], len(z) > 0
    for k in range(len(q) - 1, -1, -1):
        qk, at = q[k], width[0] - width[k]
        own, B = Lambda[at : at + qk, at : at + qk].copy(), covariance_of(Lambda, at, qk)
        K, L, left = np.zeros((qk, qk)), np.empty((qk, qk)), np.empty((qk, P))
        for j in range(J[k]):
            row, s, n = base[line[k] + j], begin[line[k] + j], begin[line[k] + j + 1] - begin[line[k] + j]
            number, w = first[k] + j * qk, qk + n
            if draws:
                root_of_group(E, row, qk, w, own, L)
                gain_of_group(qk, own, L, K)
            for a in range(qk):
                for p in range(P):
                    left[a, p] = c[number + a, p]
                for t in range(n):
                    value = E[row + a * w + qk + t]
                    for p in range(P):
                        left[a, p] -= value * mean[reach[s + t], p]
            for p in range(P):
                for a in range(qk):
                    total = 0.0
                    for b in range(qk):
                        total += H[number + a, b] * left[b, p]
                    u[number + a, p] = total
                for a in range(qk):
                    total = 0.0
                    for b in range(qk):
                        total += B[a, b] * u[number + b, p]
                        if draws:
                            total += K[a, b] * z[number + b, p]
                    mean[number + a, p] = total
