"""The posterior of a generalised model with several grouping factors, compiled: `joint_kernel` with other lines.

The factor with the most random effects is treated as the subjects of `joint_kernel` are, given all else: rows stand
together by its groups, and v of each group is centred and scaled by what its rows say beside the line of the others,

    η = (o + Xβ + Σ_k Z_k b_k) + Z b.

Random effects of the other factors k have a triangle each, as wide as they are at every Λ_k,

    u_kj = L⁻ᵀ (L⁻¹ Λ_k'c_kj + v_kj),      LL' = I + Λ_k'A_kj Λ_k,      b_kj = Λ_k u_kj,

with A_kj, what the rows say of b_kj when the first factor is integrated out, and c_kj from a Laplace fit, fixed before
sampling: one rule from centred to non-centred for every factor and group. That β and these effects are correlated is
taken out by one matrix, ``(β − β̂, v) = R w``, from the curvature at the same fit. The map is exact whatever these are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes import joint_kernel
from hierlmm.bayes.collapsed_kernel import SIGNATURE
from hierlmm.bayes.joint_kernel import (
    around_lines,
    factor_of,
    into_factor,
    lines,
    log_prior,
    pull_back,
    rows_kappa,
    through_lines,
)
from hierlmm.bayes.whitened import back, centred, triangles
from hierlmm.compiled import compiled, compiled_callback, cut, whole, with_names
from hierlmm.likelihood.forest_kernel import FAST

PLAN = 6
"""Numbers of another factor: q, J, where it begins in Λ, in the columns of Z, among the effects, and in A."""


class Others(NamedTuple):
    """The other factors, as the end of the packed vector has them."""

    plan: IntArray
    group: IntArray
    Z: FloatArray
    A: FloatArray
    c: FloatArray
    beta: FloatArray
    R: FloatArray
    home: int


def packed_others(found: Others) -> FloatArray:
    """One vector of what `unpack_others` reads."""
    sizes = np.array([found.home, len(found.plan), found.Z.shape[1], len(found.A), len(found.R)], dtype=np.int64)
    integers = (own.ravel().astype(np.int64).view(np.float64) for own in (sizes, found.plan, found.group))
    numbers = (np.ravel(own) for own in (found.Z, found.A, found.c, found.beta, found.R))
    return np.concatenate([*integers, *numbers])


def unpack_others(packed: FloatArray, N: int, p: int, effects: int) -> Others:
    """Find the arrays at the end of the packed vector of a model with N rows, p coefficients and so many effects."""
    sizes, rest = whole(packed, 5)
    m, width, n_A, n_R = sizes[1], sizes[2], sizes[3], sizes[4]
    plan, rest = whole(rest, m * PLAN)
    group, rest = whole(rest, m * N)
    Z, rest = cut(rest, N, width)
    A, rest = rest[:n_A], rest[n_A:]
    c, rest = rest[:effects], rest[effects:]
    beta, rest = rest[:p], rest[p:]
    R = rest[: n_R * n_R].reshape((n_R, n_R))
    return Others(plan.reshape((m, PLAN)), group.reshape((m, N)), Z, A, c, beta, R, sizes[0])


register_jitable(unpack_others)


@compiled(inline="always")
def plan_of(others: Others, k: int) -> tuple[int, int, int, int, int, int]:
    """See `PLAN`."""
    own = others.plan[k]
    return own[0], own[1], own[2], own[3], own[4], own[5]


@compiled(error_model="numpy")
def of_factor(Lambda: FloatArray, at: int, q: int) -> FloatArray:
    """Λ of one factor."""
    return np.ascontiguousarray(Lambda[at : at + q, at : at + q])


# Branches: loops over groups and columns, written out for numba.
@compiled(error_model="numpy")
def place_others(
    others: Others,
    Lambda: FloatArray,
    x: FloatArray,
    p: int,
    given: FloatArray,
    Us: FloatArray,
    t: FloatArray,
    u: FloatArray,
    b: FloatArray,
) -> float:
    """Add the other factors to the lines; write U (like A), t, u and b of all groups; return their log density.

    ``x`` is (β, v).
    """
    value = 0.0
    for k in range(len(others.plan)):
        q, J, at, column, first, begin = plan_of(others, k)
        own, kappa = of_factor(Lambda, at, q), np.empty(q)
        AL, L = np.empty((q, q)), np.empty((q, q))
        for j in range(J):
            lo, hi = first + j * q, first + (j + 1) * q
            A = others.A[begin + j * q * q : begin + (j + 1) * q * q].reshape((q, q))
            U = Us[begin + j * q * q : begin + (j + 1) * q * q].reshape((q, q))
            value -= triangles(kappa, A, own, AL, L, U)
            for i in range(q):
                kappa[i] = 0.0
                for a in range(q):
                    kappa[i] += own[a, i] * others.c[lo + a]
            centred(kappa, U, kappa, x[p + lo : p + hi], t[lo:hi], u[lo:hi])
            for i in range(q):
                value -= 0.5 * u[lo + i] * u[lo + i]
                b[lo + i] = 0.0
                for a in range(q):
                    b[lo + i] += own[i, a] * u[lo + a]
        for r in range(len(given)):
            home = first + others.group[k, r] * q
            for i in range(q):
                given[r] += others.Z[r, column + i] * b[home + i]
    return value


# Branches: loops over groups and columns, written out for numba.
@compiled(error_model="numpy")
def through_others(
    others: Others,
    Lambda: FloatArray,
    x: FloatArray,
    p: int,
    Us: FloatArray,
    t: FloatArray,
    u: FloatArray,
    in_given: FloatArray,
    in_x: FloatArray,
    in_Lambda: FloatArray,
) -> None:
    """From the derivative by the lines that by v, written, and by Λ, added."""
    zg = np.zeros(len(u))
    for k in range(len(others.plan)):
        q, J, at, column, first, begin = plan_of(others, k)
        own, found = of_factor(Lambda, at, q), np.zeros((q, q))
        ub, rho, N, B = np.empty(q), np.empty(q), np.empty((q, q)), np.empty((q, q))
        for r in range(len(in_given)):
            home = first + others.group[k, r] * q
            for i in range(q):
                zg[home + i] += others.Z[r, column + i] * in_given[r]
        for j in range(J):
            lo, hi = first + j * q, first + (j + 1) * q
            A = others.A[begin + j * q * q : begin + (j + 1) * q * q].reshape((q, q))
            U = Us[begin + j * q * q : begin + (j + 1) * q * q].reshape((q, q))
            for i in range(q):
                ub[i] = -u[lo + i]
                for a in range(q):
                    ub[i] += own[a, i] * zg[lo + a]
            back(ub, U, x[p + lo : p + hi], t[lo:hi], ub, in_x[p + lo : p + hi], rho, N, B)
            into_factor(ub, zg[lo:hi], u[lo:hi], others.c[lo:hi], rho, A, own, B, found)
        in_Lambda[at : at + q, at : at + q] += found


@compiled(fastmath=FAST, error_model="numpy")
def coordinates(others: Others, w: FloatArray, p: int) -> FloatArray:
    """(β, v) from w; R is an upper triangle."""
    x = np.zeros(len(w))
    x[:p] = others.beta
    for i in range(len(w)):
        for j in range(i, len(w)):
            x[i] += others.R[i, j] * w[j]
    return x


@compiled(fastmath=FAST, error_model="numpy")
def through_coordinates(others: Others, in_x: FloatArray, in_w: FloatArray) -> None:
    """Write the derivative by w."""
    in_w[:] = 0.0
    for i in range(len(in_x)):
        for j in range(i, len(in_x)):
            in_w[j] += others.R[i, j] * in_x[i]


@compiled(error_model="numpy")
def triangles_of_rows(like: Any, data: Any, Lambda: FloatArray, Us: FloatArray) -> float:
    """Write U of the groups whose rows stand together; return the sum of log|L|."""
    q, total = len(like), 0.0
    AL, L = np.empty((q, q)), np.empty((q, q))
    for j in range(len(Us)):
        total += triangles(like, data.A[j], Lambda, AL, L, Us[j])
    return total


@compiled(error_model="numpy")
def factors_density(
    like: Any,
    derivatives: Any,
    free: FloatArray,
    w: FloatArray,
    v: FloatArray,
    data: Any,
    form: float,
    gradient: FloatArray,
) -> float:
    """`joint_kernel.joint_density` of several factors: w stands for β and the effects of all factors but one."""
    J, q, p, m, width = len(data.c), len(like), len(data.K), len(data.psi_prior), len(data.sd_index)
    size = len(free) - m
    k_phi, k_v = size + m + p, size + m + len(w)
    others = unpack_others(data.others, len(data.y), p, len(w) - p)
    sd, LR, LD, Lambda = np.empty(width), np.empty((width, width)), np.empty((width, width)), np.empty((width, width))
    factor_of(free[:size], form, data, sd, LR, LD, Lambda)
    x, effects = coordinates(others, w, p), len(w) - p
    given, phi = lines(data, x[:p]), np.concatenate((free, x[:p]))
    t, u, b, Us = np.empty(effects), np.empty(effects), np.empty(effects), np.empty(len(others.A))
    value = place_others(others, Lambda, x, p, given, Us, t, u, b)
    in_phi, in_x, in_Lambda = np.zeros(k_phi), np.zeros(len(w)), np.zeros((width, width))
    value += log_prior(phi, size, data.beta_prior, data.K, data.sd_prior, data.psi_prior, in_phi)
    own, in_own, own_Us = of_factor(Lambda, others.home, q), np.zeros((q, q)), np.empty((J, q, q))
    value -= triangles_of_rows(like, data, own, own_Us)
    in_given, in_psi, psi = np.empty(len(given)), in_phi[size : size + m], free[size:].copy()
    value += around_lines(like, derivatives, psi, given, v, data, own, own_Us, gradient[k_v:], in_given, in_own, in_psi)
    in_Lambda[others.home : others.home + q, others.home : others.home + q] = in_own
    through_others(others, Lambda, x, p, Us, t, u, in_given, in_x, in_Lambda)
    in_x[:p] = in_phi[size + m :]
    through_lines(data, in_given, in_x[:p])
    through_coordinates(others, in_x, gradient[size + m : k_v])
    gradient[: size + m] = in_phi[: size + m]
    return value + pull_back(free[:size], form, data, sd, LR, LD, in_Lambda, gradient)


@compiled(error_model="numpy")
def settled_factors(
    free: FloatArray, w: FloatArray, v: FloatArray, data: Any, form: float, beta: FloatArray, b: FloatArray
) -> None:
    """`joint_kernel.settled` of several factors: b (S, T) holds the others, then those of the first (none if T is 0).

    Parameters
    ----------
    free, w, v : (S, k), (S, p + r), (S, J q)
    data, form
        See `joint_kernel`.
    beta, b : (S, p), (S, r + J q)
        Written.
    """
    p, J, q, width = len(data.K), len(data.c), data.c.shape[1], len(data.sd_index)
    size, effects = free.shape[1] - len(data.psi_prior), w.shape[1] - p
    others = unpack_others(data.others, len(data.y), p, effects)
    sd, LR, LD, Lambda = np.empty(width), np.empty((width, width)), np.empty((width, width)), np.empty((width, width))
    t, u, Us, own_Us = np.empty(effects), np.empty(effects), np.empty(len(others.A)), np.empty((J, q, q))
    s, kappa, own_t, own_u = np.empty(q), np.empty(q), np.empty(q), np.empty(q)
    for draw in range(len(free)):
        x = coordinates(others, w[draw], p)
        beta[draw] = x[:p]
        if not b.shape[1]:
            continue
        factor_of(free[draw, :size], form, data, sd, LR, LD, Lambda)
        given = lines(data, x[:p])
        place_others(others, Lambda, x, p, given, Us, t, u, b[draw, :effects])
        own = of_factor(Lambda, others.home, q)
        triangles_of_rows(s, data, own, own_Us)
        for j in range(J):
            rows_kappa(s, int(data.start[j]), int(data.start[j + 1]), data, given, own, s, kappa)
            centred(s, own_Us[j], kappa, v[draw, j * q : (j + 1) * q], own_t, own_u)
            b[draw, effects + j * q : effects + (j + 1) * q] = own @ own_u


@cache
def compiled_factors_joint(q: int) -> Any:
    """Compile the density, q random effects of the first factor, to a C function that needs no Python lock."""
    own = with_names(joint_kernel._callback, f"factors_{q}", like=(0.0,) * q, joint_density=factors_density)
    return compiled_callback(SIGNATURE, own)
