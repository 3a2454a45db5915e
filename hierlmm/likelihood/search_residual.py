"""The global search with a residual structure: over η, with the minima over λ found anew at every η.

At given η the rows are whitened once; of the plain criterion that is left a compiled search finds the minima in a
fraction of a millisecond. So only η, one to a few numbers, has to be covered by a design; from its points without
a better neighbour (multi-level single linkage, see `search`) and from the structure's own starting values, descents go
on in (λ, η) together. How many points there are follows the number of rows, which is what an evaluation costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.covariance.random import RandomCovariance
from hierlmm.likelihood.descent import Counter, descend
from hierlmm.likelihood.search import WITHIN, Search, alone, distinct, search_plain, spread
from hierlmm.likelihood.solution import AnyCriterion

__all__ = ["search_residual"]

FloatArray = NDArray[np.float64]

REACH, CORE = 8.0, 0.4
"""Half-width of the design in an unconstrained parameter (correlations to 0.999, ratios to a factor of 3,000), and the
density of its points in the middle: η = REACH (CORE u + (1 - CORE) u³), u from -1 to 1."""
FEW_ROWS = 1_500
MOST_DESCENTS = 24
LINKS = 1.0
SHEETS = 3
SHEET = 0.5
"""Relative difference of B from which two points belong to different sheets."""


def search_residual(criterion: AnyCriterion) -> Search:
    """Minima of a criterion with a residual structure (rough, to be polished), best first."""
    counter = Counter(criterion)
    k, m = len(criterion.rows.parameters), criterion.structure.n_parameters
    n = _size(criterion)
    first = criterion.starts[0]
    cube = spread(n, k) if k else np.empty((0, 0))
    starts = criterion.starts if criterion.many_maxima or n > 4 else criterion.starts[:1]
    own = np.array(starts).reshape(len(starts), k)
    two_ends = [np.isfinite(p.lower) and np.isfinite(p.upper) for p in criterion.rows.parameters]
    centre = np.where(two_ends, 0.0, first)
    u = 2.0 * cube - 1.0
    etas = np.concatenate([own, centre + REACH * (CORE * u + (1.0 - CORE) * u**3)]) if k else own
    grid = np.linspace(-1.0, 1.0, 201)
    places = np.interp((own - centre) / REACH, CORE * grid + (1.0 - CORE) * grid**3, 0.5 + 0.5 * grid)
    places = np.concatenate([places, cube])
    at = [(place, psi) for place, eta in zip(places, etas, strict=True) for psi in _minima_given(counter, eta)]
    points = np.array([psi for _, psi in at]).reshape(len(at), m + k)
    f = np.array([counter.value(psi) for psi in points])
    # Minima over λ that are alike form a sheet over η; each sheet has minima of its own.
    chosen = alone(np.array([place for place, _ in at]), f, LINKS, _alike(criterion.structure, points)) if k else [0]
    chosen = [s for s in chosen if f[s] < f[chosen[0]] + WITHIN][: MOST_DESCENTS if criterion.many_maxima else 2]
    found = np.array([descend(counter, points[s]) for s in chosen]).reshape(len(chosen), m + k)
    order = distinct(criterion.structure, found, np.array([counter.value(psi) for psi in found]))
    W, N = len(order), len(etas)
    unseen = W * (W + 1) / (N * (N - 1.0)) if N > 1 else 0.0
    return Search(found[order], N, len(chosen), counter.calls, False, min(unseen, 1.0))


def _alike(structure: RandomCovariance, points: FloatArray) -> NDArray[np.bool_]:
    """Which points have a similar B = ΛΛ', and so may lie on one sheet of minima over η: (s, s)."""
    if structure.n_parameters == 0:
        return np.ones((len(points),) * 2, dtype=bool)
    factors = structure.factor(points)
    B = factors @ np.swapaxes(factors, -1, -2)
    size = 0.02 + np.sqrt(np.einsum("wii->wi", B))
    difference = np.abs(B[:, None] - B) / (size[:, :, None] * size[:, None, :])[:, None]
    difference = np.minimum(difference, np.swapaxes(difference, 0, 1))
    return difference.max(axis=(2, 3)) < SHEET


def _minima_given(counter: Counter, eta: FloatArray) -> list[FloatArray]:
    """The best minima over λ at η, as (λ, η); none where the rows cannot be whitened."""
    plain = counter.criterion.plain_at(eta)
    if plain is None:
        return []
    inner = search_plain(plain, thorough=False)
    counter.calls += inner.n_evaluations
    return [np.concatenate([lam, eta]) for lam in inner.points[:SHEETS]]


def _size(criterion: AnyCriterion) -> int:
    """Number of points of the design."""
    k = len(criterion.rows.parameters)
    full = min(32 * k, 128)
    return int(max(4, full * min(1.0, FEW_ROWS / criterion.n_obs)))
