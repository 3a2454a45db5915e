"""Draws of the random effects of all factors given θ and β, from the last group eliminated to the first; compiled.

After elimination (`forest_kernel`) the conditional distribution of every group given the later ones is at hand,

    b_g | b_N, y ~ N(K K'(c_g − C_gN b_N), σ² K K'),      K = ΛL⁻ᵀ,  LL' = I + Λ'C_gg Λ,

with c = Z'(y − Xβ), and that of the rest, which comes first, ``Λ M⁻ᵀ(M⁻¹Λ'c + σz)``, MM' = I + Λ'CΛ. One normal deviate
an effect makes one joint draw, in working columns.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.forest_kernel import FAST, eliminate, gain_of_group, root_of_group
from hierlmm.likelihood.forest_rest import Rest, blas
from hierlmm.likelihood.forest_sums import between, factorise
from hierlmm.likelihood.several_factors import FactorProducts


# Long: the formula of the opening over levels, groups and columns.
# Branches: loops that numba turns into plain code; a leaf stores less than the groups above it.
@compiled(fastmath=FAST, error_model="numpy")
def draw_chain(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    c: FloatArray,
    Lambda: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
    sigma: float,
    b: FloatArray,
) -> None:
    """Draw the effects of the chain's groups given those of the rest.

    Parameters
    ----------
    E, leaf, upper, c
        As `eliminate` left them, c (T, 1).
    Lambda, q, J, first, width, above, start, column
        As for `eliminate`.
    sigma : float
    b : (T,)
        Normal deviates, which the draws replace; those of the rest are draws already.
    """
    m, line, base = len(q), len(above), len(E)
    at = width[0]
    for k in range(m - 1, -1, -1):
        qk, w = q[k], width[k]
        at -= qk
        line -= J[k]
        base -= J[k] * qk * w
        K, L, x = np.empty((qk, qk)), np.empty((qk, qk)), np.empty(qk)
        own = Lambda[at : at + qk, at : at + qk]
        for j in range(J[k]):
            row, number = base + j * qk * w, first[k] + j * qk
            root_of_group(E, row, qk, w, own, L)
            gain_of_group(qk, own, L, K)
            lo, hi = (start[j], start[j + 1]) if k == 0 else (0, upper.shape[1])
            for a in range(qk):
                x[a] = sigma * b[number + a]
            for a in range(qk):
                left, t = c[number + a, 0], qk
                for higher in range(k + 1, m):
                    top = first[higher] + above[line + j, higher] * q[higher]
                    for s in range(q[higher]):
                        left -= E[row + a * w + t] * b[top + s]
                        t += 1
                for s in range(lo, hi):
                    value = leaf[s, a] if k == 0 else upper[number - first[1] + a, s]
                    left -= value * b[first[m] + (column[s] if k == 0 else s)]
                for i in range(qk):
                    x[i] += K[a, i] * left
            for a in range(qk):
                total = 0.0
                for i in range(qk):
                    total += K[a, i] * x[i]
                b[number + a] = total


# Branches: loops over the entries of a triangle.
@compiled(fastmath=FAST, error_model="numpy")
def draw_rest(C: FloatArray, c: FloatArray, Lambda: FloatArray, dense: IntArray, sigma: float, b: FloatArray) -> None:
    """Draw the effects of the rest: b (r,) holds normal deviates, which the draws replace."""
    r = len(C)
    M, x = between(C, Lambda, dense, True), np.zeros(r)
    for s in range(r):
        M[s, s] += 1.0
        home, at = dense[0, s], dense[1, s]
        for k in range(dense[2, s]):
            x[s] += Lambda[at + k, at + s - home] * c[home + k, 0]
    factorise(M)
    for s in range(r):
        for t in range(s):
            x[s] -= M[s, t] * x[t]
        x[s] /= M[s, s]
    for s in range(r):
        x[s] += sigma * b[s]
    for s in range(r - 1, -1, -1):
        x[s] /= M[s, s]
        for t in range(s):
            x[t] -= M[s, t] * x[s]
    for s in range(r):
        home, at = dense[0, s], dense[1, s]
        b[s] = 0.0
        for k in range(dense[2, s]):
            b[s] += Lambda[at + s - home, at + k] * x[home + k]


@compiled()
def draw_effects(
    E: FloatArray,
    leaf: FloatArray,
    upper: FloatArray,
    rest: FloatArray,
    c: FloatArray,
    q: IntArray,
    J: IntArray,
    first: IntArray,
    width: IntArray,
    above: IntArray,
    start: IntArray,
    column: IntArray,
    order: IntArray,
    dense: IntArray,
    Lambda: FloatArray,
    gamma: FloatArray,
    sigma: FloatArray,
    b: FloatArray,
) -> None:
    """Draw the random effects of all factors for every draw of the others.

    Parameters
    ----------
    E, leaf, upper, rest, c
        See `FactorProducts`; nothing is changed.
    q, J, first, width, above, start, column, order, dense
        See `forest_sums.factor_sums`.
    Lambda : (S, Q, Q)
    gamma : (S, P)
        (−β, 1) in working columns.
    sigma : (S,)
    b : (S, T)
        Normal deviates, which the draws replace.
    """
    end = first[-1]
    for s in range(len(sigma)):
        E_, leaf_, upper_, rest_ = E.copy(), leaf.copy(), upper.copy(), rest.copy()
        own = np.zeros((len(c), 1))
        for i in range(len(c)):
            for a in range(c.shape[1]):
                own[i, 0] += c[i, a] * gamma[s, a]
        of_chain = np.empty((len(order), len(order)))
        for i in range(len(order)):
            for k in range(len(order)):
                of_chain[i, k] = Lambda[s, order[i], order[k]]
        eliminate(E_, leaf_, upper_, rest_, own, of_chain, q, J, first, width, above, start, column)
        if len(rest):
            draw_rest(rest_, own[end:], Lambda[s], dense, sigma[s], b[s, end:])
        draw_chain(
            E_, leaf_, upper_, own, of_chain, q, J, first, width, above, start, column, sigma[s], b[s]
        )  # fmt: skip


def one_thread() -> AbstractContextManager[Any]:
    """Matrices by one thread each: several chains work at the same time."""
    return blas().limit(limits=1, user_api="blas")


def drawn_effects(
    data: FactorProducts, Lambda: FloatArray, gamma: FloatArray, sigma: FloatArray, rng: np.random.Generator
) -> list[FloatArray]:
    """Random effects of every factor at every draw of the others, as for `draw_effects`: (S, J, q), in user's units."""
    b = rng.standard_normal((len(sigma), len(data.c)))
    if data.rest_is_small:
        products = data.E, data.leaf, data.upper, data.rest, data.c
        draw_effects(*products, *data.plan, np.array(data.order), data.dense, Lambda, gamma, sigma, b)
    else:
        with one_thread():
            for own in zip(Lambda, gamma, sigma, b, strict=True):
                _draw_large(data, *own)
    found: list[FloatArray] = [np.empty(0)] * len(data.sizes)
    for k, part in data.parts(b.T):
        back = np.linalg.inv(data.block(data.scaling.Bz, k)) * data.scaling.y_scale
        found[k] = np.ascontiguousarray(np.einsum("ab,jbs->sja", back, part))
    return found


def _draw_large(data: FactorProducts, Lambda: FloatArray, gamma: FloatArray, sigma: float, b: FloatArray) -> None:
    """`draw_effects` of one draw where the rest is large: b (T,) holds normal deviates, which the draws replace."""
    E, leaf, upper, C = (a.copy() for a in (data.E, data.leaf, data.upper, data.rest))
    c, end, of_chain = (data.c @ gamma)[:, None].copy(), data.forest.first[-1], data.of_chain(Lambda)
    eliminate(E, leaf, upper, C, c, of_chain, *data.plan)
    rest, z = Rest(data, Lambda, C), b[end:]
    right = solve_triangular(rest.L, rest.times(c[end:], transposed=True), lower=True)[:, 0]
    z[:] = solve_triangular(rest.L, right + sigma * z, lower=True, trans="T")
    z[:] = rest.times(z[:, None], transposed=False)[:, 0]
    draw_chain(E, leaf, upper, c, of_chain, *data.plan, sigma, b)
