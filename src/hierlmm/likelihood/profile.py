"""Profile-likelihood intervals of any smooth function g of the covariance parameters.

The interval is the range of g over the likelihood region ``{x : c(x) ≤ c(x̂) + χ²}``, x = (λ, η, log σ̃): its ends are
where g, minimised or maximised, meets the edge of the region (Venzon & Moolgavkar 1988, Appl. Statist. 37, 87-94). That
is the usual profile interval, the values of g whose best criterion stays within χ² of the optimum, without a second
optimisation at every step. The search runs in coordinates in which the criterion is close to a sum of squares.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.maximise import hessian
from hierlmm.likelihood.residual_criterion import ResidualCriterion

__all__ = ["EDGE", "profile_interval"]

FloatArray = NDArray[np.float64]

EDGE = 18.0
"""Largest size of an unconstrained residual parameter: beyond it a parameter is at the end of its range."""
TOO_LARGE = 1e8


def profile_interval(
    criterion: Criterion | ResidualCriterion, centre: FloatArray, scalar: Callable[[FloatArray], float], drop: float
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

    Returns
    -------
    lower, upper : float
        ``-inf`` or ``inf`` where the region has no end in a residual parameter.
    """
    root = _root(hessian(criterion.joint, centre))
    best, _ = criterion.joint(centre)
    m = len(centre)
    first = criterion.structure.n_parameters
    residual = np.arange(first, m - 1)
    limit = np.maximum(EDGE, np.abs(centre[residual]) + 1.0)

    def region(z: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = criterion.joint(centre + root @ z)
        if not np.isfinite(value):
            return -TOO_LARGE, np.zeros(m)
        return drop - (value - best), -(root.T @ gradient)

    at_centre = _gradient(scalar, centre, root)
    size = float(np.linalg.norm(at_centre))
    ends = []
    for sign in (1.0, -1.0):
        if size == 0.0 or not np.isfinite(size):
            ends.append(np.nan)
            continue
        start = -sign * 0.9 * np.sqrt(drop) * at_centre / size
        if region(start)[0] < -drop:
            start = start * 0.3
        constraints = [{"type": "ineq", "fun": lambda z: region(z)[0] / drop, "jac": lambda z: region(z)[1] / drop}]
        if len(residual):
            within = root[residual]
            constraints += [
                {"type": "ineq", "fun": lambda z: limit - centre[residual] - within @ z, "jac": lambda z: -within},
                {"type": "ineq", "fun": lambda z: limit + centre[residual] + within @ z, "jac": lambda z: within},
            ]
        found = minimize(
            lambda z, s=sign: s * scalar(centre + root @ z) / size,
            start,
            jac=lambda z, s=sign: s * _gradient(scalar, centre + root @ z, root) / size,
            method="SLSQP",
            constraints=constraints,
            options={"maxiter": 200, "ftol": 1e-10},
        )
        x = centre + root @ found.x
        outside = region(found.x)[0] < -1e-3 * drop
        if outside:
            ends.append(np.nan)
        elif len(residual) and np.any(np.abs(x[residual]) > limit - 1e-3):
            ends.append(-sign * np.inf)
        else:
            ends.append(scalar(x))
    return ends[0], ends[1]


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
