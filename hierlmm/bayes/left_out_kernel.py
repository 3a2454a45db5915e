"""Linear predictors of rows given the subject's other rows, drawn from their distribution, in compiled code.

With ``b_i = Λ u_i``, ``u_i ~ N(0, I)`` and ``a_r = Λ'z_r``, what the other rows say of u_i when row r is left out is

    h_r(u) = Σ_{s ≠ r} l_s(η_s) − ½ u'u,     η_s = x_s'β + o_s + a_s'u

Its mode and curvature place a pool of points from Student's t distribution with four degrees of freedom, and one of
them is drawn with the weights exp(h_r) over the density of t (sampling importance resampling, Rubin 1988). The pool is
drawn anew for every row; where the row was the only one of its subject, h_r is the prior.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.families.family import function_of_row
from hierlmm.likelihood.triangles import cholesky

NU = 4.0
MOST = 25
"""Newton steps; what places the pool need not be exact."""
SMALL = 1e-6
"""Squared length of a step, in the metric of the curvature, after which there are no more."""


@compiled(error_model="numpy")
def _value(
    address: int,
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    a: FloatArray,
    psi: FloatArray,
    skip: int,
    u: FloatArray,
    d: FloatArray,
) -> float:
    """Value of h at u without row ``skip``: `_log_density` without its derivatives, once for every point of a pool."""
    derivatives: Any = function_of_row(address)  # type: ignore[call-arg]  # numba gives the context
    h = 0.0
    for k in range(len(u)):
        h -= 0.5 * u[k] * u[k]
    for r in range(len(y)):
        if r != skip:
            eta = given[r]
            for k in range(len(u)):
                eta += a[r, k] * u[k]
            derivatives(y[r], n[r], eta, psi, 1, d)
            h += d[0]
    return h if h == h else -math.inf


@compiled(error_model="numpy")
def _log_density(
    address: int,
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    a: FloatArray,
    psi: FloatArray,
    skip: int,
    u: FloatArray,
    g: FloatArray,
    H: FloatArray,
    d: FloatArray,
) -> float:
    """Value of h at u without row ``skip``; its gradient, and ``I + Σ max(w, 0) a a'``, go into g and H."""
    derivatives: Any = function_of_row(address)  # type: ignore[call-arg]  # numba gives the context
    h = 0.0
    for k in range(len(u)):
        h -= 0.5 * u[k] * u[k]
        g[k] = -u[k]
        for i in range(k + 1):
            H[k, i] = 1.0 if i == k else 0.0
    for r in range(len(y)):
        if r == skip:
            continue
        eta = given[r]
        for k in range(len(u)):
            eta += a[r, k] * u[k]
        derivatives(y[r], n[r], eta, psi, 2, d)
        h += d[0]
        w = max(-d[2], 0.0)
        for k in range(len(u)):
            g[k] += d[1] * a[r, k]
            for i in range(k + 1):
                H[k, i] += w * a[r, k] * a[r, i]
    return h if h == h else -math.inf


@compiled(error_model="numpy")
def _backward(L: FloatArray, x: FloatArray) -> None:
    """Replace x by L⁻ᵀx."""
    for k in range(len(x) - 1, -1, -1):
        for i in range(k + 1, len(x)):
            x[k] -= L[i, k] * x[i]
        x[k] /= L[k, k]


@compiled(error_model="numpy")
def _climb(
    address: int,
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    a: FloatArray,
    psi: FloatArray,
    skip: int,
    u: FloatArray,
    g: FloatArray,
    H: FloatArray,
    d: FloatArray,
    step: FloatArray,
    best: FloatArray,
) -> None:
    """Move u to the mode, and leave the Cholesky factor of the curvature there in H; step and best are work space."""
    q = len(u)
    best[:] = u
    highest = -math.inf
    for _ in range(MOST):
        h = _log_density(address, y, n, given, a, psi, skip, u, g, H, d)
        if not h > highest - 1e-9 * abs(highest):  # half the step
            for k in range(q):
                step[k] *= 0.5
                u[k] = best[k] + step[k]
            continue
        highest = h
        cholesky(H)
        length = 0.0
        for k in range(q):
            step[k] = g[k]
            for i in range(k):
                step[k] -= H[k, i] * step[i]
            step[k] /= H[k, k]
            length += step[k] * step[k]
        _backward(H, step)
        for k in range(q):
            best[k] = u[k]
            u[k] += step[k]
        if length < SMALL:
            break
    u[:] = best
    _log_density(address, y, n, given, a, psi, skip, u, g, H, d)
    cholesky(H)


@compiled(error_model="numpy")
def left_out_lines(
    address: int,
    start: NDArray[np.int64],
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    a: FloatArray,
    psi: FloatArray,
    pool: int,
    places: FloatArray,
    seed: int,
) -> FloatArray:
    """Linear predictors of every row given its subject's others, (times, N).

    Parameters
    ----------
    address : int
        Of ``Family.derivatives``.
    start : (J + 1,)
        Rows of subject j are ``start[j]:start[j + 1]``.
    y, n, given : (N,)
        Responses, trials, and ``Xβ`` with the offset.
    a : (N, q)
        ``Z Λ``.
    psi : (m,)
    pool : int
        Points among which one is drawn.
    places : (times, N)
        Uniform numbers, by which it is drawn.
    seed : int
        Of the points.
    """
    q, d = a.shape[1], np.zeros(4 + 3 * len(psi))
    u, v, g, t, H = np.zeros(q), np.zeros(q), np.zeros(q), np.zeros(q), np.zeros((q, q))
    step, best = np.zeros(q), np.zeros(q)
    lines, weight = np.zeros(pool), np.zeros(pool)
    found = np.empty(places.shape)
    np.random.seed(seed)  # noqa: NPY002  # compiled code has this generator
    for j in range(len(start) - 1):
        rows = slice(start[j], start[j + 1])
        own = y[rows], n[rows], given[rows], a[rows]
        u[:] = 0.0
        _climb(address, *own, psi, -1, u, g, H, d, step, best)
        for r in range(start[j + 1] - start[j]):
            v[:] = u
            _climb(address, *own, psi, r, v, g, H, d, step, best)
            highest, at = -math.inf, start[j] + r
            for c in range(pool):
                scale = math.sqrt(np.random.chisquare(NU) / NU)  # noqa: NPY002
                square = 0.0
                for k in range(q):
                    t[k] = np.random.standard_normal() / scale  # noqa: NPY002
                    square += t[k] * t[k]
                _backward(H, t)
                lines[c] = given[at]
                for k in range(q):
                    t[k] += v[k]
                    lines[c] += a[at, k] * t[k]
                h = _value(address, *own, psi, r, t, d)
                weight[c] = h + 0.5 * (NU + q) * math.log1p(square / NU)
                highest = max(highest, weight[c])
            total = 0.0
            for c in range(pool):
                total += math.exp(weight[c] - highest) if highest > -math.inf else 1.0
                weight[c] = total
            for i in range(len(places)):
                found[i, at] = lines[min(np.searchsorted(weight, places[i, at] * total), pool - 1)]
    return found
