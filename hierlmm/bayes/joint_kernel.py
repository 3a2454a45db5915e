"""The posterior of a generalised two-level model, compiled: parameters and random effects together, with gradient.

    log p(y, b, φ) = Σ_r l_r(η_r) − ½ Σ u_i'u_i + log p(φ),     η = o + X β + Z b,   b_i = Λ u_i

in working columns; φ = (θ, ψ, β), Λ from θ as in `collapsed_kernel` and l from `Family.derivatives`. What is moved is
not u_i and β but v_i and w, nearly standard normal a posteriori at every Λ. With weights ``ω = max(−l'', 0)`` and
working responses at a Laplace fit, fixed before sampling,

    A_i = Σ ω z z',   C_i = Σ ω z x',   c_i = Σ z ỹ,   P₀ = Σ ω x x' + prior,   h₀ = Σ x ỹ + prior,   ỹ = ω(η̂ − o) + l'
    H_i = I + Λ'A_iΛ = L_iL_i',     P = P₀ − Σ C_i'ΛH_i⁻¹Λ'C_i = RR',     h = h₀ − Σ C_i'ΛH_i⁻¹Λ'c_i
    β = R⁻ᵀ (R⁻¹h + w),   u_i = L_i⁻ᵀ (L_i⁻¹ Λ'(c_i − C_iβ) + v_i),   log density gains −log|R| − Σ log|L_i|

Where a subject's rows say much, u_i is centred at what they say, where they say little it is v_i: between centred and
non-centred, as each subject needs it; and β is spread as wide as it is at this Λ. There is no funnel. The map is exact,
however good the fit was.

**Gradient.** With ``s = c − Cβ``, ``κ = Λ's``, U = L⁻¹, ``t = U κ + v``, ``u = U't``: ``ū = Λ'Σ l'z − u``,
``v̄ = t̄ = U ū``, ``ρ = U't̄``. H has the adjoint ``B = −U'(½ I + sym Φ(t t̄' + t̄ (t − v)'))U``, of log|L| and of u, with Φ
the lower triangle with its diagonal halved: the rule for a Cholesky factor (Murray 2016, arXiv:1602.07527), of which
nothing is left but outer products. Then ``Λ̄ = (Σ l'z) u' + s ρ' + 2 A Λ B`` and ``β̄ = Σ l'x − C'Λρ``. β̄ goes the same
way through R to w, h and P; with ``Q = H⁻¹Λ'C``, ``μ = H⁻¹Λ'c`` these give ``Λ̄ −= 2 C P̄ Q' + C h̄ μ' + c (Q h̄)'`` and
``B += Q P̄ Q' + sym(Q h̄ μ')``.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import (
    N_PRIOR,
    SIGNATURE,
    cut,
    factor_of_theta,
    from_whitened,
    positive_prior,
    pull_back_factor,
    to_whitened,
)
from hierlmm.bayes.whitened import back, centred, eliminated, factorise, subject_kappa, through_eliminated
from hierlmm.compiled import compiled, compiled_callback, with_names
from hierlmm.families.family import function_of_row

HEADER = 13
"""Numbers before the arrays: total length, N, J, size of Λ, p, m, size of θ, number of SDs, form of θ, a constant, the
address of the family's function, q, and how many random effects other factors have."""
N_BETA = 4
"""Numbers of a coefficient's prior: mean, precision, ν + 1, t, as in ``−½ k d² − ½ (ν+1) log(1 + t d²)``."""


class Joint(NamedTuple):
    """A generalised model as the kernel reads it; see the opening, and `collapsed_kernel` for θ.

    Rows stand together by subject, or by the groups of the factor that is eliminated; ``weight`` is ω, ``response``
    ỹ + ω o, and ``others`` what `joint_factors` reads of the other factors.
    """

    centre: FloatArray
    root: FloatArray
    sd_index: FloatArray
    cpc_index: FloatArray
    alpha: FloatArray
    sd_prior: FloatArray
    Bz: FloatArray
    K: FloatArray
    beta_prior: FloatArray
    psi_prior: FloatArray
    start: FloatArray
    y: FloatArray
    n: FloatArray
    offset: FloatArray
    X: FloatArray
    Z: FloatArray
    A: FloatArray
    C: FloatArray
    c: FloatArray
    P: FloatArray
    h: FloatArray
    weight: FloatArray
    response: FloatArray
    others: FloatArray


def unpack(buffer: FloatArray) -> Joint:
    """Find the arrays in the packed vector."""
    N, J, width, p = int(buffer[1]), int(buffer[2]), int(buffer[3]), int(buffer[4])
    m, size, n_sd, q = int(buffer[5]), int(buffer[6]), int(buffer[7]), int(buffer[11])
    k = size + p + m
    centre, rest = cut(buffer[HEADER:], 1, k)
    root, rest = cut(rest, k, k)
    sd_index, rest = cut(rest, 1, width)
    cpc_index, rest = cut(rest, width, width)
    alpha, rest = cut(rest, width, width)
    sd_prior, rest = cut(rest, n_sd, N_PRIOR)
    Bz, rest = cut(rest, width, width)
    K, rest = cut(rest, p, p)
    beta_prior, rest = cut(rest, p, N_BETA)
    psi_prior, rest = cut(rest, m, N_PRIOR)
    start, rest = cut(rest, 1, J + 1)
    y, rest = cut(rest, 1, N)
    n, rest = cut(rest, 1, N)
    offset, rest = cut(rest, 1, N)
    X, rest = cut(rest, N, p)
    Z, rest = cut(rest, N, q)
    A, rest = cut(rest, J * q, q)
    C, rest = cut(rest, J * q, p)
    c, rest = cut(rest, J, q)
    P, rest = cut(rest, p, p)
    h, rest = cut(rest, 1, p)
    weight, rest = cut(rest, 1, N)
    response, others = cut(rest, 1, N)
    ahead = (centre[0], root, sd_index[0], cpc_index, alpha, sd_prior, Bz, K, beta_prior, psi_prior)
    rows = (start[0], y[0], n[0], offset[0], X, Z)
    whitening = (A.reshape((J, q, q)), C.reshape((J, q, p)), c, P, h[0], weight[0], response[0])
    return Joint(*ahead, *rows, *whitening, others)


register_jitable(unpack)


@compiled(error_model="numpy")
def log_prior(
    phi: FloatArray,
    size: int,
    beta_prior: FloatArray,
    K: FloatArray,
    sd_prior: FloatArray,
    psi_prior: FloatArray,
    gradient: FloatArray,
) -> float:
    """Log prior density of φ but for correlations and constants; its derivative is added to ``gradient``."""
    p, m, total = len(K), len(psi_prior), 0.0
    for k in range(len(sd_prior)):
        value, slope = positive_prior(phi[k], sd_prior[k])
        total += value
        gradient[k] += slope
    for i in range(p):
        d = -beta_prior[i, 0]
        for k in range(p):
            d += K[i, k] * phi[size + m + k]
        tail = beta_prior[i, 3] * d * d
        total -= 0.5 * (beta_prior[i, 1] * d * d + beta_prior[i, 2] * math.log1p(tail))
        slope = -beta_prior[i, 1] * d - beta_prior[i, 2] * beta_prior[i, 3] * d / (1.0 + tail)
        for k in range(p):
            gradient[size + m + k] += K[i, k] * slope
    for i in range(m):
        value, slope = positive_prior(phi[size + i], psi_prior[i])
        total += value
        gradient[size + i] += slope
    return total


@compiled(error_model="numpy")
def factor_of(
    theta: FloatArray, form: float, data: Any, sd: FloatArray, LR: FloatArray, LD: FloatArray, Lambda: FloatArray
) -> None:
    """Write Λ and what it is made of."""
    factor_of_theta(theta, form, data.sd_index, data.cpc_index, data.sd_prior[:, 5], sd, LR, LD)
    q = len(Lambda)
    for i in range(q):
        for k in range(q):
            total = 0.0
            for a in range(q):
                total += data.Bz[i, a] * LD[a, k]
            Lambda[i, k] = total


@compiled(inline="always", error_model="numpy")
def rows_kappa(
    like: Any, lo: int, hi: int, data: Any, given: FloatArray, Lambda: FloatArray, s: FloatArray, kappa: FloatArray
) -> None:
    """`subject_kappa` from the rows of a group, whose lines without it are given: ``s = Σ z (ỹ − ω (η − o))``."""
    q = len(like)
    for k in range(q):
        s[k] = 0.0
    for r in range(lo, hi):
        left = data.response[r] - data.weight[r] * given[r]
        for k in range(q):
            s[k] += data.Z[r, k] * left
    for k in range(q):
        kappa[k] = 0.0
        for a in range(q):
            kappa[k] += Lambda[a, k] * s[a]


@compiled(inline="always", error_model="numpy")
def into_factor(
    like: Any,
    zg: FloatArray,
    u: FloatArray,
    s: FloatArray,
    rho: FloatArray,
    A: FloatArray,
    Lambda: FloatArray,
    B: FloatArray,
    in_Lambda: FloatArray,
) -> None:
    """Add what a group gives Λ̄: ``(Σ l'z) u' + s ρ' + 2 A Λ B``."""
    q = len(like)
    for k in range(q):
        for i in range(q):
            along = zg[k] * u[i] + s[k] * rho[i]
            for a in range(q):
                AL = 0.0
                for b in range(q):
                    AL += A[k, b] * Lambda[b, a]
                along += 2.0 * AL * B[a, i]
            in_Lambda[k, i] += along


# Branches: loops over rows and columns, written out for numba.
@compiled(error_model="numpy")
def around_lines(
    like: Any,
    derivatives: Any,
    psi: FloatArray,
    given: FloatArray,
    v: FloatArray,
    data: Any,
    Lambda: FloatArray,
    Us: FloatArray,
    in_v: FloatArray,
    in_given: FloatArray,
    in_Lambda: FloatArray,
    in_psi: FloatArray,
) -> float:
    """Log density of the rows and of the random effects of groups whose rows stand together, lines without them given.

    Derivatives by v (J q,) and by the lines (N,) are written, those by Λ and ψ added.
    """
    J, q, m, value = len(data.c), len(like), len(psi), 0.0
    s, kappa, t, u, b = np.empty(q), np.empty(q), np.empty(q), np.empty(q), np.empty(q)
    zg, ub, tb, rho = np.empty(q), np.empty(q), np.empty(q), np.empty(q)
    N, B, d = np.empty((q, q)), np.empty((q, q)), np.zeros(4 + 3 * m)
    for j in range(J):
        lo, hi = int(data.start[j]), int(data.start[j + 1])
        rows_kappa(like, lo, hi, data, given, Lambda, s, kappa)
        centred(like, Us[j], kappa, v[j], t, u)
        for k in range(q):
            value -= 0.5 * u[k] * u[k]
            zg[k] = 0.0
            b[k] = 0.0
            for i in range(q):
                b[k] += Lambda[k, i] * u[i]
        for r in range(lo, hi):
            eta = given[r]
            for k in range(q):
                eta += data.Z[r, k] * b[k]
            derivatives(data.y[r], data.n[r], eta, psi, 1, d)
            value += d[0]
            in_given[r] = d[1]
            for k in range(q):
                zg[k] += d[1] * data.Z[r, k]
            for i in range(m):
                in_psi[i] += d[4 + 3 * i]
        for k in range(q):
            ub[k] = -u[k]
            for i in range(q):
                ub[k] += Lambda[i, k] * zg[i]
        back(like, Us[j], v[j], t, ub, tb, rho, N, B)
        into_factor(like, zg, u, s, rho, data.A[j], Lambda, B, in_Lambda)
        for k in range(q):
            in_v[j * q + k] = tb[k]
            b[k] = 0.0
            for i in range(q):
                b[k] += Lambda[k, i] * rho[i]
        for r in range(lo, hi):
            for k in range(q):
                in_given[r] -= data.weight[r] * data.Z[r, k] * b[k]
    return value


@compiled(error_model="numpy")
def joint_density(
    like: Any,
    derivatives: Any,
    free: FloatArray,
    w: FloatArray,
    v: FloatArray,
    data: Any,
    form: float,
    gradient: FloatArray,
) -> float:
    """Log density of (θ, ψ), w (p,) and v (J, q) but for constants; its gradient (k + J q,) is written.

    ``like`` is of length q; see `whitened`.
    """
    J, q, p, m = len(data.c), len(like), len(data.K), len(data.psi_prior)
    size = len(free) - m
    k_phi = size + m + p
    sd, LR, LD, Lambda = np.empty(q), np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    factor_of(free[:size], form, data, sd, LR, LD, Lambda)
    Ls, Us = np.empty((J, q, q)), np.empty((J, q, q))
    R, V, h, tw = np.empty((p, p)), np.empty((p, p)), np.empty(p), np.empty(p)
    value = -eliminated(like, data, Lambda, np.empty((q, q)), Ls, Us, R, h)
    value -= factorise(data.K, R, V)
    phi = np.empty(k_phi)
    phi[: size + m], beta = free, phi[size + m :]
    centred(data.K, V, h, w, tw, beta)
    gradient[:k_phi] = 0.0
    value += log_prior(phi, size, data.beta_prior, data.K, data.sd_prior, data.psi_prior, gradient)
    in_Lambda, given = np.zeros((q, q)), lines(data, beta)
    in_given, in_psi, psi = np.empty(len(given)), gradient[size : size + m], free[size:].copy()
    value += around_lines(
        like, derivatives, psi, given, v, data, Lambda, Us, gradient[k_phi:], in_given, in_Lambda, in_psi
    )
    if p:
        in_beta = gradient[size + m : k_phi].copy()
        through_lines(data, in_given, in_beta)
        wb, hb, Pb = np.empty(p), np.empty(p), np.empty((p, p))
        back(data.K, V, w, tw, in_beta, wb, hb, np.empty((p, p)), Pb)
        through_eliminated(like, data, Lambda, Us, Pb, hb, in_Lambda)
        gradient[size + m : k_phi] = wb
    return value + pull_back(free[:size], form, data, sd, LR, LD, in_Lambda, gradient)


@compiled(error_model="numpy")
def lines(data: Any, beta: FloatArray) -> FloatArray:
    """Lines without random effects, o + Xβ."""
    found = np.empty(len(data.y))
    for r in range(len(found)):
        found[r] = data.offset[r]
        for i in range(len(beta)):
            found[r] += data.X[r, i] * beta[i]
    return found


@compiled(error_model="numpy")
def through_lines(data: Any, in_given: FloatArray, in_beta: FloatArray) -> None:
    """Add to β̄ what comes by way of `lines`."""
    for r in range(len(in_given)):
        for i in range(len(in_beta)):
            in_beta[i] += data.X[r, i] * in_given[r]


@compiled(error_model="numpy")
def pull_back(
    theta: FloatArray,
    form: float,
    data: Any,
    sd: FloatArray,
    LR: FloatArray,
    LD: FloatArray,
    in_Lambda: FloatArray,
    gradient: FloatArray,
) -> float:
    """Add the derivative by θ from that by Λ, and that of the correlations' log prior, which is returned."""
    q = len(in_Lambda)
    dL = np.zeros((q, q))
    for i in range(q):
        for k in range(q):
            for a in range(q):
                dL[i, k] += data.Bz[a, i] * in_Lambda[a, k]
    scale = data.sd_prior[:, 5]
    return pull_back_factor(
        theta, form, data.sd_index, data.cpc_index, data.alpha, scale, sd, LR, LD, dL, gradient[: len(theta)]
    )


@compiled(error_model="numpy")
def settled(
    free: FloatArray, w: FloatArray, v: FloatArray, data: Any, form: float, beta: FloatArray, b: FloatArray
) -> None:
    """Write β (S, p) and the random effects in working columns (S, J, q) of draws of (θ, ψ), w and v.

    Without any v, (S, 0, q), β alone is written.
    """
    like = data.sd_index
    q, p, J = len(like), len(data.K), len(data.c)
    sd, LR, LD, Lambda = np.empty(q), np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    s, kappa, t, u, AL = np.empty(q), np.empty(q), np.empty(q), np.empty(q), np.empty((q, q))
    Ls, Us = np.empty((J, q, q)), np.empty((J, q, q))
    R, V, h, tw = np.empty((p, p)), np.empty((p, p)), np.empty(p), np.empty(p)
    size = free.shape[1] - len(data.psi_prior)
    for draw in range(len(free)):
        factor_of(free[draw, :size], form, data, sd, LR, LD, Lambda)
        eliminated(like, data, Lambda, AL, Ls, Us, R, h)
        factorise(data.K, R, V)
        centred(data.K, V, h, w[draw], tw, beta[draw])
        for j in range(v.shape[1]):
            subject_kappa(like, data.C[j], data.c[j], beta[draw], Lambda, s, kappa)
            centred(like, Us[j], kappa, v[draw, j], t, u)
            for k in range(q):
                b[draw, j, k] = 0.0
                for i in range(q):
                    b[draw, j, k] += Lambda[k, i] * u[i]


# What the name stands for is filled in by `compiled_joint`.
like: Any = None


def _callback(dim, x_, gradient_, value_, data_):  # type: ignore[no-untyped-def]
    """Log density and gradient; (θ, ψ) are ``centre + root z``, w and v follow z."""
    header = numba.carray(data_, (1,), np.float64)
    buffer = numba.carray(data_, (int(header[0]),), np.float64)
    data, q, m, n = unpack(buffer), len(like), int(buffer[5]), int(dim)
    k, ahead = int(buffer[6]) + m, int(buffer[4]) + int(buffer[12])
    z, gradient, value = numba.carray(x_, (n,)), numba.carray(gradient_, (n,)), numba.carray(value_, (1,))
    derivatives = function_of_row(np.int64(buffer[10]))  # type: ignore[call-arg, var-annotated]  # an intrinsic
    root = np.ascontiguousarray(data.root[:k, :k])
    free = from_whitened(z[:k], data.centre[:k], root)
    w, v = z[k : k + ahead], z[k + ahead :].reshape((len(data.c), q))
    value[0] = buffer[9] + joint_density(like, derivatives, free, w, v, data, buffer[8], gradient)
    if not np.all(np.isfinite(gradient[k:])):
        return 3
    d_free = gradient[:k].copy()
    return to_whitened(value[0], d_free, root, gradient[:k])


@cache
def compiled_joint(q: int) -> Any:
    """Compile the density for q random effects to a C function (kept on disk) that needs no Python lock."""
    return compiled_callback(SIGNATURE, with_names(_callback, f"{q}", like=(0.0,) * q))
