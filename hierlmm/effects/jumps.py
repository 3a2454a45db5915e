"""Where the mean jumps along a covariate: a basis such as ``I(years > 3)`` has two values there, which no line joins.

Halving finds the place: the change of a continuous function across an interval goes to zero with its width, that of a
jump does not.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of

__all__ = ["jumps_along"]

FloatArray = NDArray[np.float64]
STEP = re.compile(r"[<>%]|[!=]=|//|\bnp\.|\bint\(")
"""What an expression needs to jump; the rest of the formula language is continuous."""
HALVINGS = 45


def jumps_along(design: Design, variable: str, grid: FloatArray) -> FloatArray:
    """Last point before and first point after each jump between points of a grid: (2, jumps).

    Of several jumps between two neighbouring points of the grid one is found.
    """
    known = list(design.frame.columns)
    factors = {f for column in design.fixed_columns for f in column.term} | {
        f for term in design.hierarchy.level1_terms for f in term
    }
    if not any(STEP.search(f) and f not in known and variable in variables_of(f, known) for f in factors):
        return np.empty((2, 0))

    def columns(x: FloatArray) -> FloatArray:
        frame = design.frame.iloc[np.zeros(len(x), dtype=int)].reset_index(drop=True).assign(**{variable: x})
        new = design.new(frame, need_subject=False)
        return np.hstack([new.X1, new.X])

    grid = np.unique(grid)
    left, right = grid[:-1], grid[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = columns(grid)
        spread = np.maximum(np.ptp(values, axis=0), 1e-300)
        low, high = values[:-1] / spread, values[1:] / spread
        for _ in range(HALVINGS):
            middle = 0.5 * (left + right)
            at = columns(middle) / spread
            later = np.abs(high - at).max(axis=1) > np.abs(at - low).max(axis=1)
            left, low = np.where(later, middle, left), np.where(later[:, None], at, low)
            right, high = np.where(later, right, middle), np.where(later[:, None], high, at)
    found = np.abs(high - low).max(axis=1) > 1e-3
    return np.vstack([left[found], right[found]])
