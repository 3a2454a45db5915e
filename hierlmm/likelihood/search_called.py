"""Where a criterion without a compiled form has its minima: as `search` does it, by calling the criterion."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.descent import Counter, descend
from hierlmm.likelihood.search import Search, best_scale, distinct, linkage
from hierlmm.likelihood.solution import AnyCriterion


class _Called:
    """A criterion that is called, as `linkage` takes it."""

    def __init__(self, criterion: AnyCriterion) -> None:
        self.counter = Counter(criterion)

    @property
    def calls(self) -> int:
        """Evaluations."""
        return self.counter.calls

    def values(self, points: FloatArray) -> FloatArray:
        """The criterion at λ: (M, m) -> (M,)."""
        return np.array([self.counter.value(point) for point in points])

    def descend(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Ends of descents, and the criterion there: (M, m) -> (M, m), (M,)."""
        found = np.array([descend(self.counter, point) for point in points])
        return found, self.values(found)


def search_called(criterion: AnyCriterion, start: FloatArray, hessian: FloatArray | None) -> Search:
    """Minima of a criterion in λ that has no compiled form.

    Parameters
    ----------
    criterion : AnyCriterion
        Without residual parameters.
    start : (m,)
        A point to descend from.
    hessian : (m, m), optional
        About that of the criterion at the start, from where there is one descent then; without it an evaluation is
        cheap enough for a design of points.
    """
    structure, called = criterion.structure, _Called(criterion)
    if hessian is None:
        centre = best_scale(called, structure)
        found, values, n_points, n_descents, unseen = linkage(called, structure, centre, True, start)
    else:
        found = descend(called.counter, start, hessian)[None]
        values = called.values(found)
        n_points, n_descents, unseen = 1, 1, 1.0
    order = distinct(structure, found, values)
    return Search(found[order], n_points, n_descents, called.calls, False, unseen)
