"""Draws of the random effects of all factors given θ and β, from the last group eliminated to the first; compiled.

After elimination the conditional distribution of every group given the later ones is at hand (`forest_solve`), with
c = Z'(y − Xβ), and that of the rest, which comes first, ``Λ M⁻ᵀ(M⁻¹Λ'c + σz)``, MM' = I + Λ'CΛ. One normal deviate an
effect makes one joint draw, in working columns.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.forest_kernel import FAST, Plan, eliminate
from hierlmm.likelihood.forest_rest import Rest, one_thread
from hierlmm.likelihood.forest_solve import backward, forward
from hierlmm.likelihood.forest_sums import between, factorise
from hierlmm.likelihood.several_factors import FactorProducts


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
    rest: FloatArray,
    c: FloatArray,
    plan: Plan,
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
    E, rest, c
        See `FactorProducts`; nothing is changed.
    plan, order, dense
        See `forest_sums.factor_sums`.
    Lambda : (S, Q, Q)
    gamma : (S, P)
        (−β, 1) in working columns.
    sigma : (S,)
    b : (S, T)
        Normal deviates, which the draws replace.
    """
    end = plan.first[-1]
    for s in range(len(sigma)):
        E_, rest_ = E.copy(), rest.copy()
        own = np.zeros((len(c), 1))
        for i in range(len(c)):
            for a in range(c.shape[1]):
                own[i, 0] += c[i, a] * gamma[s, a]
        of_chain = np.empty((len(order), len(order)))
        for i in range(len(order)):
            for k in range(len(order)):
                of_chain[i, k] = Lambda[s, order[i], order[k]]
        H = eliminate(E_, rest_, of_chain, plan)[1]
        forward(E_, H, own, of_chain, plan)
        z = (sigma[s] * b[s, :end]).reshape((end, 1))
        if len(rest):
            draw_rest(rest_, own[end:], Lambda[s], dense, sigma[s], b[s, end:])
        drawn = b[s].reshape((len(c), 1))
        backward(E_, H, own, of_chain, drawn, np.empty_like(own), z, plan)


def drawn_effects(
    data: FactorProducts, Lambda: FloatArray, gamma: FloatArray, sigma: FloatArray, rng: np.random.Generator
) -> list[FloatArray]:
    """Random effects of every factor at every draw of the others, as for `draw_effects`: (S, J, q), in user's units."""
    b = rng.standard_normal((len(sigma), len(data.c)))
    if data.rest_is_small:
        products = data.E, data.rest, data.c
        draw_effects(*products, data.forest.plan, np.array(data.order), data.dense, Lambda, gamma, sigma, b)
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
    E, C = data.E.copy(), data.rest.copy()
    c, end, of_chain = (data.c @ gamma)[:, None].copy(), data.forest.end, data.of_chain(Lambda)
    H = eliminate(E, C, of_chain, data.forest.plan)[1]
    forward(E, H, c, of_chain, data.forest.plan)
    rest, z, deviates = Rest(data, Lambda, C), b[end:], sigma * b[:end, None]
    right = solve_triangular(rest.L, rest.times(c[end:], transposed=True), lower=True)[:, 0]
    z[:] = solve_triangular(rest.L, right + sigma * z, lower=True, trans="T")
    z[:] = rest.times(z[:, None], transposed=False)[:, 0]
    backward(E, H, c, of_chain, b[:, None], np.empty_like(c), deviates, data.forest.plan)
