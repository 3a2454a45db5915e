"""Profile-likelihood intervals of any smooth function g of the covariance parameters.

The interval is the range of g over the likelihood region ``{x : c(x) ≤ c(x̂) + χ²}``, x = (λ, η, log σ̃): its ends are
where g, minimised or maximised, meets the edge of the region (Venzon & Moolgavkar 1988, Appl. Statist. 37, 87-94). That
is the usual profile interval, the values of g whose best criterion stays within χ² of the optimum, without a second
optimisation at every step. The search runs in coordinates in which the criterion is close to a sum of squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.descent import hessian
from hierlmm.likelihood.residual_criterion import EDGE
from hierlmm.likelihood.solution import AnyCriterion

TOO_LARGE = 1e8
MOST_POINTS = 6
NEAR_ZERO = 0.05
SLSQP: Any = {"maxiter": 200, "ftol": 1e-10}


def profile_interval(
    criterion: AnyCriterion,
    centre: FloatArray,
    scalar: Callable[[FloatArray], float],
    drop: float,
    elsewhere: Sequence[FloatArray] = (),
) -> tuple[float, float]:
    """Smallest and largest value of a function over the likelihood region.

    Parameters
    ----------
    criterion : Criterion or ResidualCriterion
    centre : (m,)
        The optimum (λ, η, log σ̃).
    scalar : callable
        The function, (m,) -> float.
    drop : float
        By how much −2 log-likelihood may rise: a χ²₁ quantile.
    elsewhere : sequence of (m,)
        Points of the region far from its centre (`region_points`), from which the ends are sought as well.

    Returns
    -------
    lower, upper : float
        ``-inf`` or ``inf`` where the region has no end in a residual parameter.
    """
    region = _Region(criterion, centre, scalar, drop)
    directions, size = _directions(scalar, centre, region.root)
    if not np.isfinite(size):
        return np.nan, np.nan
    lower, upper = (
        region.end(sign, direction, size, elsewhere) for sign, direction in zip((1.0, -1.0), directions, strict=True)
    )
    return lower, upper


class _Region:
    """The likelihood region in coordinates z, x = x̂ + S z, in which it is close to a ball of radius √drop."""

    def __init__(
        self, criterion: AnyCriterion, centre: FloatArray, scalar: Callable[[FloatArray], float], drop: float
    ) -> None:
        root = _root(hessian(criterion.joint, centre))
        best, _ = criterion.joint(centre)
        first = criterion.structure.n_parameters
        bounded = root[first:]
        limit = np.maximum(EDGE, np.abs(centre[first:]) + 1.0)
        limit[-1] += EDGE  # log σ̃ has no end; this keeps the search where numbers are finite

        @_remember_last
        def left(z: FloatArray) -> tuple[float, FloatArray]:
            x = centre + root @ z
            if not abs(x[-1]) <= limit[-1] + 1.0:  # a step of the search may go where σ is no number
                return -TOO_LARGE, np.zeros(len(centre))
            value, gradient = criterion.joint(x)
            if not np.isfinite(value):
                return -TOO_LARGE, np.zeros(len(centre))
            return drop - (value - best), -(root.T @ gradient)

        self.centre, self.root, self.drop, self.first, self.limit = centre, root, drop, first, limit
        self.scalar, self.left = scalar, left
        self.constraints: Any = [
            {"type": "ineq", "fun": lambda z: left(z)[0] / drop, "jac": lambda z: left(z)[1] / drop},
            {"type": "ineq", "fun": lambda z: limit - centre[first:] - bounded @ z, "jac": lambda z: -bounded},
            {"type": "ineq", "fun": lambda z: limit + centre[first:] + bounded @ z, "jac": lambda z: bounded},
        ]

    def end(self, sign: float, direction: FloatArray, size: float, elsewhere: Sequence[FloatArray]) -> float:
        """Where the function times ``sign`` is smallest; NaN if no search ends inside the region."""
        if not direction.any():  # the optimum is the end of the parameter's range
            return self.scalar(self.centre)
        starts = [np.linalg.solve(self.root, point - self.centre) for point in elsewhere]
        found = [z for start in starts if (z := self._search(sign, size, start)) is not None]
        values = [self._from_centre(sign, direction, size), *(self._value(sign, z) for z in found)]
        return sign * min((sign * v for v in values if not np.isnan(v)), default=np.nan)

    def _search(self, sign: float, size: float, start: FloatArray, reach: float | None = None) -> FloatArray | None:
        """Where a search ends; None if that is outside the region."""
        scalar, centre, root = self.scalar, self.centre, self.root

        def value(z: FloatArray) -> float:
            return sign * scalar(centre + root @ z) / size

        def slope(z: FloatArray) -> FloatArray:
            return sign * _gradient(scalar, centre + root @ z, root) / size

        box: Any = None if reach is None else [(-reach, reach)] * len(centre)
        with np.errstate(all="ignore"):  # a step of the search may go far outside
            z = minimize(
                value, start, jac=slope, method="SLSQP", bounds=box, constraints=self.constraints, options=SLSQP
            ).x
        return z if np.all(np.isfinite(z)) and self.left(z)[0] >= -1e-3 * self.drop else None

    def _value(self, sign: float, z: FloatArray) -> float:
        """The function, infinite at the end of the range of a residual parameter."""
        x = self.centre + self.root @ z
        at_end = np.any(np.abs(x[self.first : -1]) > self.limit[:-1] - 1e-3)
        return -sign * np.inf if at_end else self.scalar(x)

    def _at_edge(self, z: FloatArray) -> bool:
        return bool(abs(self.left(z)[0]) < 1e-3 * self.drop)

    def _step_by_step(self, sign: float, size: float) -> float:
        """The end, sought in growing boxes: where the criterion levels off beyond the edge, a search overshoots."""
        z = np.zeros(len(self.centre))
        for reach in np.sqrt(self.drop) * 0.25 * 1.4 ** np.arange(20):
            found = self._search(sign, size, z, reach)
            if found is None:
                return np.nan
            z = found
            if np.abs(z).max() < (1.0 - 1e-6) * reach and self._at_edge(z):
                return self.scalar(self.centre + self.root @ z)
        return np.nan

    def _from_centre(self, sign: float, direction: FloatArray, size: float) -> float:
        found = np.nan
        for length in (0.9, 0.3, 0.05):
            z = self._search(sign, size, length * np.sqrt(self.drop) * direction)
            if z is None:
                continue
            value = self._value(sign, z)
            if np.isinf(value) or self._at_edge(z):
                return value
            # Inside the region: the end of the parameter's own range, or a search that gave up.
            found = value if np.isnan(found) else sign * min(sign * value, sign * found)
        return self._step_by_step(sign, size) if np.isnan(found) else found


def region_points(criterion: AnyCriterion, centre: FloatArray, drop: float) -> list[FloatArray]:
    """Points of the likelihood region in its several arms, where random effects and residuals compete.

    One parameter at a time is moved away from the optimum and held there while the others adapt.
    """
    first, structured = criterion.structure.n_parameters, bool(criterion.rows.parameters)
    at_zero = np.abs(centre[:first]) <= NEAR_ZERO
    if (not structured and not at_zero.any()) or (first == 0 and len(centre) < 4):
        return []
    best, _ = criterion.joint(centre)
    inverse = np.linalg.inv(_root(hessian(criterion.joint, centre)))
    found: list[FloatArray] = []
    for k in range(len(centre) - 1):
        if not structured and not at_zero[k]:
            continue
        if k >= first:
            values = centre[k] + np.array([-3.0, -1.5, 1.5, 3.0])
        else:  # at zero the criterion is stationary in λ: no search leaves it
            values = np.array([0.1, 0.2, 0.5] if at_zero[k] else [0.0, 2.0 * centre[k]])
        for value in values:
            point = _adapt(criterion, centre, k, value)
            beside = found if k < first and at_zero[k] else [centre, *found]
            near = [np.linalg.norm(inverse @ (point - p)) < 0.5 for p in beside]
            if criterion.joint(point)[0] - best < drop and not any(near):
                found.append(point)
    return found[:MOST_POINTS]


def _adapt(criterion: AnyCriterion, centre: FloatArray, held: int, value: float) -> FloatArray:
    """The point at which the criterion is (nearly) smallest with one parameter held at a value."""
    free = np.arange(len(centre)) != held
    point = centre.copy()
    point[held] = value

    def rest(x: FloatArray) -> tuple[float, FloatArray]:
        at = point.copy()
        at[free] = x
        found, gradient = criterion.joint(at)
        return (found, gradient[free]) if np.isfinite(found) else (TOO_LARGE, np.zeros(len(x)))

    bounds = [(None, None)] * (len(centre) - 1) + [(centre[-1] - EDGE, centre[-1] + EDGE)]
    start = point[free]
    start[np.abs(start) < 1e-3] = 1e-3
    own = [b for b, f in zip(bounds, free, strict=True) if f]
    with np.errstate(all="ignore"):
        point[free] = minimize(rest, start, jac=True, method="L-BFGS-B", bounds=own, options={"maxiter": 60}).x
    return point


def _remember_last(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
) -> Callable[[FloatArray], tuple[float, FloatArray]]:
    """The function with its last result kept: the optimiser asks for value and gradient at one point in turn."""
    last: list[tuple[bytes, tuple[float, FloatArray]]] = []

    def remembered(z: FloatArray) -> tuple[float, FloatArray]:
        key = z.tobytes()
        if not last or last[0][0] != key:
            last[:] = [(key, function(z))]
        return last[0][1]

    return remembered


def _directions(
    scalar: Callable[[FloatArray], float], centre: FloatArray, root: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], float]:
    """Unit directions in which the function falls and rises fastest, and its rate (NaN if it has none).

    A variance of zero is the square of a parameter at zero: its gradient vanishes, it falls in no direction (a zero
    vector), and its curvature says where it rises. A correlation of ±1 is its mirror image.
    """
    at_centre = _gradient(scalar, centre, root)
    size = float(np.linalg.norm(at_centre))
    if not np.isfinite(size):
        return (at_centre, at_centre), np.nan
    here = scalar(centre)
    reach = [abs(scalar(centre + step) - here) for step in root.T]  # an optimum at zero is found as 1e-13 or so
    if size > 1e-8 * max(abs(here), *(r for r in reach if np.isfinite(r))):
        return (-at_centre / size, at_centre / size), size
    m = len(centre)
    curvature = np.empty((m, m))
    for j in range(m):
        above, below = (_gradient(scalar, centre + s * 1e-3 * np.eye(m)[j], root) for s in (1.0, -1.0))
        curvature[:, j] = (above - below) / 2e-3
    half = curvature @ root
    values, vectors = np.linalg.eigh(0.5 * (half + half.T))
    size = float(np.abs(values).max())
    falls, rises = (vectors[:, k] * (s * values[k] > 1e-6 * size) for k, s in ((0, -1.0), (-1, 1.0)))
    return (falls, rises), size if size > 0.0 else np.nan


def _root(H: FloatArray) -> FloatArray:
    """S with S'(H/2)S close to I; flat directions keep a moderate length."""
    values, vectors = np.linalg.eigh(0.5 * H)
    floor = max(1e-6 * float(np.abs(values).max()), 1e-3)
    return vectors / np.sqrt(np.maximum(np.abs(values), floor))


def _gradient(scalar: Callable[[FloatArray], float], x: FloatArray, root: FloatArray) -> FloatArray:
    """Gradient in the coordinates of ``root``, by central differences (the function is closed-form arithmetic)."""
    gradient = np.empty(len(x))
    for j in range(len(x)):
        step = 1e-6 * max(1.0, abs(x[j]))
        moved = x.copy()
        moved[j] += step
        above = scalar(moved)
        moved[j] -= 2.0 * step
        gradient[j] = (above - scalar(moved)) / (2.0 * step)
    return root.T @ gradient
