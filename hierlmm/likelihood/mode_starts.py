"""Where Newton's method begins in subjects whose random effects can have several conditional modes.

A log density that is not concave in η (Student's t, the square-root link) gives a subject as many modes as its rows
disagree. The one that counts is the highest, and it must not depend on where the search happens to come from: of zero
and of points that fit one of the subject's rows exactly, Newton's method begins at the best.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled

MOST = 40
"""Points of a subject that are tried; of more, some are taken at equal steps."""


# Branches: loops over rows and columns, written out for numba.
@compiled(error_model="numpy")
def mode_starts(
    derivatives: Any,
    first: int,
    last: int,
    start: NDArray[np.int64],
    y: FloatArray,
    n: FloatArray,
    given: FloatArray,
    Z: FloatArray,
    Lambda: FloatArray,
    psi: FloatArray,
    targets: FloatArray,
    modes: FloatArray,
) -> None:
    """Write the start of every subject ``first:last`` to ``modes`` (J, q).

    Parameters
    ----------
    derivatives, first, last, start, y, n, given, Z, Lambda, psi
        As `marginal_sums` has them.
    targets : (N, T)
        Linear predictors that fit a row exactly; those that are not finite are left out.
    modes : (J, q)
        On return the starts.
    """
    q = Z.shape[1]
    u, a, d = np.empty(q), np.empty(q), np.empty(4 + 3 * len(psi))
    for j in range(first, last):
        size = start[j + 1] - start[j]
        tries = size * targets.shape[1]
        every = max(1, tries // MOST)
        best = -math.inf
        modes[j] = 0.0
        for t in range(-1, tries, every):
            u[:] = 0.0
            if t >= 0:
                r = start[j] + t // targets.shape[1]
                length = 0.0
                for k in range(q):
                    a[k] = 0.0
                    for i in range(q):
                        a[k] += Z[r, i] * Lambda[i, k]
                    length += a[k] * a[k]
                along = (targets[r, t % targets.shape[1]] - given[r]) / length
                if not math.isfinite(along):
                    continue
                for k in range(q):
                    u[k] = a[k] * along
            h = 0.0
            for k in range(q):
                h -= 0.5 * u[k] * u[k]
                a[k] = 0.0
                for i in range(q):
                    a[k] += Lambda[k, i] * u[i]
            for r in range(start[j], start[j + 1]):
                eta = given[r]
                for k in range(q):
                    eta += Z[r, k] * a[k]
                derivatives(y[r], n[r], eta, psi, 1, d)
                h += d[0]
            if h > best:
                best = h
                modes[j] = u
