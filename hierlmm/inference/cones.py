"""The statistic of a cone by simulation: new covariance matrices of any size, which are positive semi-definite.

    T = max over c in C of (z'Ic)²₊ / c'Ic = ‖Π z‖²,    z ~ N(0, I⁻¹),  C = S₊^{k_1} × S₊^{k_2} × ...

with Π the projection onto C in the metric I, the information on the entries of the matrices. For matrices of three
rows and more, and several matrices, no closed form is known, and the projection is found for each z by accelerated
gradient steps (Beck & Teboulle 2009), whose cone is projected onto by eigenvalues. Every iterate p bounds T from below,
and so does its residual from above, by a point of the polar cone: the steps end where the two have met.

A congruence M -> L'ML maps S₊ onto itself, so that each matrix is first brought to where I is nearly that of
independent entries.

References
----------
Beck, A., Teboulle, M. (2009). A fast iterative shrinkage-thresholding algorithm for linear inverse problems. SIAM
Journal on Imaging Sciences 2, 183-202.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from hierlmm.arrays import FloatArray

CONE_DRAWS = 20_000
CLOSE = 1e-3
"""Gap between the bounds of T, as a share of it (of 1 where T is smaller)."""
LOOKS, STEPS = 60, 25


def entries(k: int) -> list[tuple[int, int]]:
    """Entries of a symmetric matrix of k rows: the diagonal, then what lies below it."""
    return [(i, i) for i in range(k)] + [(i, j) for i in range(k) for j in range(i)]


def cone_draws(information: FloatArray, sizes: Sequence[int], seed: int = 0, draws: int = CONE_DRAWS) -> FloatArray:
    """Draws of T.

    Parameters
    ----------
    information : (n, n)
        On the entries of the matrices, one matrix after another, each in the order of `entries`.
    sizes : sequence of int
        Rows of each matrix.
    seed : int
        Of the simulation.
    draws : int
        Their number.

    Returns
    -------
    (draws,)
    """
    starts = np.cumsum([0, *(k * (k + 1) // 2 for k in sizes)])
    parts = [(k, slice(a, b)) for k, (a, b) in zip(sizes, itertools.pairwise(starts), strict=True)]
    change = np.zeros_like(information)
    for k, own in parts:
        change[own, own] = _congruence(information[own, own], k)
    J = change.T @ information @ change
    J /= np.linalg.eigvalsh(J)[-1]
    inverse = np.linalg.inv(J)
    z = np.random.default_rng(seed).normal(size=(draws, len(J))) @ np.linalg.cholesky(inverse).T
    found = np.zeros(draws)
    p, left = _into(z, parts), np.arange(draws)
    ahead, t = p.copy(), 1.0
    target = z
    for _ in range(LOOKS):
        for _ in range(STEPS):
            new = _into(ahead - (ahead - target) @ J, parts)
            faster = 0.5 + np.sqrt(0.25 + t * t)
            ahead, p, t = new + (t - 1.0) / faster * (new - p), new, faster
        forms = np.einsum("ij,ij->i", p @ J, p)
        low = np.maximum(np.einsum("ij,ij->i", target @ J, p), 0.0) ** 2 / np.maximum(forms, 1e-300)
        polar = target + _into((p - target) @ J, parts) @ inverse
        high = np.einsum("ij,ij->i", polar @ J, polar)
        found[left] = 0.5 * (low + high)
        open_ = high - low > CLOSE * np.maximum(low, 1.0)
        if not open_.any():
            break
        left, target, p, t = left[open_], target[open_], p[open_], 1.0  # from here anew, without momentum
        ahead = p.copy()
    return found


def _into(x: FloatArray, parts: Sequence[tuple[int, slice]]) -> FloatArray:
    """Symmetric matrices in orthonormal coordinates (off the diagonal times √2), projected onto the cone: (n, ...)."""
    found = np.empty_like(x)
    for k, own in parts:
        if k == 1:
            found[:, own] = np.maximum(x[:, own], 0.0)
            continue
        i, j = np.array(entries(k)).T
        scale = np.where(i == j, 1.0, np.sqrt(0.5))
        M = np.zeros((len(x), k, k))
        M[:, i, j] = M[:, j, i] = x[:, own] * scale
        values, vectors = np.linalg.eigh(M)
        M = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
        found[:, own] = M[:, i, j] / scale
    return found


def _congruence(information: FloatArray, k: int) -> FloatArray:
    """The matrix from orthonormal coordinates of M to entries of L M L', after which information is nearly even."""
    i, j = np.array(entries(k)).T
    # The form as a (k², k²) matrix, and of it the partial trace: G for ½ G ⊗ G, but for a factor.
    spread = np.zeros((len(i), k, k))
    spread[np.arange(len(i)), i, j] = 1.0
    spread = 0.5 * (spread + spread.transpose(0, 2, 1))
    G = np.einsum("ab,aim,bjm->ij", information, spread, spread)
    L = np.linalg.inv(np.linalg.cholesky(G)).T
    units = spread * np.where(i == j, 1.0, np.sqrt(2.0))[:, None, None]
    return (L @ units @ L.T)[:, i, j].T
