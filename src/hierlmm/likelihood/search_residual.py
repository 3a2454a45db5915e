"""The global search with a residual structure: over η, with the minima over λ found anew at every η.

At given η the rows are whitened once; of the plain criterion that is left a compiled search finds the minima in a
fraction of a millisecond. So only η, one to a few numbers, has to be covered by a design; from its points without
a better neighbour (multi-level single linkage, see `search`) and from the structure's own starting values, descents go
on in (λ, η) together. How many points there are follows the number of rows, which is what an evaluation costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.descent import Counter, descend
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.search import Search, alone, distinct, search_plain, spread

__all__ = ["search_residual"]

FloatArray = NDArray[np.float64]

REACH = 5.0
"""Half-width of the design in an unconstrained parameter: correlations to 0.99, ratios to a factor of 150."""
FEW_ROWS = 1_500
MOST_DESCENTS = 10


def search_residual(criterion: ResidualCriterion) -> Search:
    """Minima of a criterion with a residual structure (rough, to be polished), best first."""
    counter = Counter(criterion)
    k, m = len(criterion.rows.parameters), criterion.structure.n_parameters
    n = _size(criterion)
    first = criterion.starts[0]
    cube = spread(n, k) if k else np.empty((0, 0))
    starts = criterion.starts if criterion.many_maxima or n > 4 else criterion.starts[:1]
    own = np.array(starts).reshape(len(starts), k)
    centre = np.where([np.isfinite(p.lower) and np.isfinite(p.upper) for p in criterion.rows.parameters], 0.0, first)
    etas = np.concatenate([own, centre + REACH * (2.0 * cube - 1.0)]) if k else own
    best, second = np.full((2, len(etas)), np.inf)
    at: list[list[FloatArray]] = []
    for s, eta in enumerate(etas):
        at.append(_minima_given(counter, eta))
        f = [counter.value(psi) for psi in at[-1]]
        best[s], second[s] = [*f, np.inf, np.inf][:2]
    cube = np.concatenate([np.clip((own - centre) / (2.0 * REACH) + 0.5, 0.0, 1.0), cube]) if k else np.empty((1, 0))
    chosen = [(best[0], at[0][0])]
    if k:
        chosen = [(f[s], at[s][i]) for i, f in enumerate((best, second)) for s in alone(cube, f)]
    chosen = sorted(chosen, key=lambda pair: pair[0])[: MOST_DESCENTS if criterion.many_maxima else 2]
    found = np.array([descend(counter, psi) for _, psi in chosen]).reshape(len(chosen), m + k)
    order = distinct(criterion.structure, found, np.array([counter.value(psi) for psi in found]))
    W, N = len(order), len(etas)
    unseen = W * (W + 1) / (N * (N - 1.0)) if N > 1 else 0.0
    return Search(found[order], N, len(chosen), counter.calls, False, min(unseen, 1.0))


def _minima_given(counter: Counter, eta: FloatArray) -> list[FloatArray]:
    """The two best minima over λ at η, as (λ, η); none where the rows cannot be whitened."""
    criterion = counter.criterion
    assert isinstance(criterion, ResidualCriterion)
    plain = criterion.plain_at(eta)
    if plain is None:
        return []
    inner = search_plain(plain, thorough=False)
    counter.calls += inner.n_evaluations
    return [np.concatenate([lam, eta]) for lam in inner.points[:2]]


def _size(criterion: ResidualCriterion) -> int:
    """Number of points of the design."""
    k = len(criterion.rows.parameters)
    full = min(16 * k + 8, 72) if criterion.structure.q else min(24 * k, 96)
    return int(max(4, full * min(1.0, FEW_ROWS / criterion.rows.n_obs)))
