"""Local steps towards a minimum of the criterion: quasi-Newton from afar, Newton at the end.

A general-purpose optimiser spends ten times as long on its own bookkeeping as on this criterion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.solution import AnyCriterion

GRADIENT_TOLERANCE = 1e-6
MAX_DESCENT = 300
MAX_HALVINGS = 25
MAX_NEWTON = 100
NEXT_TO = 1e-5
"""Distance of points that have the same Hessian but for a share of that order."""
AT_AN_EDGE = 8
"""Steps in a row that end where the criterion is infinite, after which the search lies at the edge of its domain."""


class Counter:
    """The criterion with its number of evaluations, and its last differenced Hessian with its point."""

    def __init__(self, criterion: AnyCriterion) -> None:
        self.criterion, self.calls = criterion, 0
        self.hessian_at: tuple[FloatArray, FloatArray] | None = None

    def value(self, lam: FloatArray) -> float:
        """The criterion."""
        self.calls += 1
        return self.criterion(lam)

    def both(self, lam: FloatArray) -> tuple[float, FloatArray]:
        """The criterion and its gradient."""
        self.calls += 1
        evaluation = self.criterion.evaluate(lam)
        return evaluation.value, evaluation.gradient

    def size(self, lam: FloatArray, gradient: FloatArray) -> float:
        """Largest derivative; those by λ times the largest |λ| above 1: relative, however small σ is against D."""
        m = self.criterion.structure.n_parameters
        by_D, by_eta = (np.max(np.abs(part), initial=0.0) for part in (gradient[:m], gradient[m:]))
        return float(max(by_D * np.max(np.abs(lam[:m]), initial=1.0), by_eta))


def central_differences(function: Callable[[FloatArray], FloatArray], point: FloatArray) -> FloatArray:
    """Derivatives of a vector function, by parameter: (m,) -> (m, k)."""
    steps = 1e-5 * np.maximum(1.0, np.abs(point))
    return np.array([(function(point + e) - function(point - e)) / (2.0 * e.sum()) for e in np.diag(steps)])


def hessian(function: Callable[[FloatArray], tuple[float, FloatArray]], point: FloatArray) -> FloatArray:
    """Hessian by central differences of an exact gradient (error of order 1e-9 relative): (m,) -> (m, m)."""
    H = central_differences(lambda at: function(at)[1], point).reshape(len(point), len(point))
    return 0.5 * (H + H.T)


def descend(counter: Counter, lam: FloatArray, H: FloatArray | None = None) -> FloatArray:
    """BFGS with halving of steps (Nocedal & Wright 2006, chapter 6), from H or else a differenced Hessian."""
    if len(lam) == 0:
        return lam
    value, gradient = counter.both(lam)
    inverse = _positive_inverse(forward_hessian(counter, lam, gradient) if H is None else H)
    outside = 0
    for _ in range(MAX_DESCENT):
        if counter.size(lam, gradient) < 1e-3 * max(1.0, 1e-4 * abs(value)) or outside > AT_AN_EDGE:
            break
        step = -inverse @ gradient
        step *= min(1.0, 3.0 * (1.0 + np.abs(lam).max()) / max(np.abs(step).max(), 1e-300))
        slope = float(gradient @ step)
        for halvings in range(MAX_HALVINGS):
            trial, trial_gradient = counter.both(lam + step)
            if halvings == 0:
                outside = outside + 1 if trial == np.inf else 0
            if trial <= value + 1e-4 * slope and trial < value and np.all(np.isfinite(trial_gradient)):
                break
            step, slope = 0.5 * step, 0.5 * slope
        else:
            break
        inverse = bfgs(inverse, step, trial_gradient - gradient)
        lam, value, gradient = lam + step, trial, trial_gradient
    return lam


def bfgs(inverse: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """The inverse Hessian after a step along which the gradient changed so; as it was without positive curvature."""
    curvature = float(step @ change)
    if not curvature > 1e-10 * float(np.sqrt((step @ step) * (change @ change))):
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / curvature
    return np.asarray(left @ inverse @ left.T + np.outer(step, step) / curvature)


def forward_hessian(counter: Counter, lam: FloatArray, gradient: FloatArray) -> FloatArray:
    """Hessian by forward differences of the gradient: (m, m)."""
    H = np.empty((len(lam), len(lam)))
    for j in range(len(lam)):
        moved = lam.copy()
        moved[j] += 1e-6 * max(1.0, abs(lam[j]))
        H[j] = (counter.both(moved)[1] - gradient) / (moved[j] - lam[j])
    H = 0.5 * (H + H.T)
    counter.hessian_at = (lam, H)
    return H


def recent_hessian(counter: Counter, lam: FloatArray) -> FloatArray:
    """Hessian by forward differences at λ, or that of a point next to it where evaluations are costly."""
    if counter.hessian_at is not None and not counter.criterion.is_small:
        point, H = counter.hessian_at
        if np.all(np.abs(lam - point) < NEXT_TO * np.maximum(1.0, np.abs(lam))):
            return H
    return forward_hessian(counter, lam, counter.both(lam)[1])


def _positive_inverse(H: FloatArray) -> FloatArray:
    """Inverse of a symmetric matrix with its eigenvalues made positive."""
    if not np.all(np.isfinite(H)):
        return np.zeros_like(H)
    values, vectors = np.linalg.eigh(H)
    floor = 1e-8 * max(1.0, float(np.abs(values).max()))
    return (vectors / np.maximum(np.abs(values), floor)) @ vectors.T


def newton(counter: Counter, lam: FloatArray) -> FloatArray:
    """Newton steps with curvature made positive, and halving until the criterion does not rise."""
    if len(lam) == 0:
        return lam
    value, gradient = counter.both(lam)
    outside, inverse, enough = 0, None, 1e-2 * GRADIENT_TOLERANCE
    for _ in range(MAX_NEWTON):
        if counter.size(lam, gradient) < enough or outside > AT_AN_EDGE:
            break
        fresh = inverse is None
        if inverse is None:
            inverse = _positive_inverse(forward_hessian(counter, lam, gradient))
        step, improved = -inverse @ gradient, False
        for halvings in range(MAX_HALVINGS):
            trial, trial_gradient = counter.both(lam + step)
            if halvings == 0:
                outside = outside + 1 if trial == np.inf else 0
            # Near the optimum the criterion is flat to rounding; there a smaller gradient decides.
            noise = 1e-13 * max(1.0, abs(value))
            smaller = np.max(np.abs(trial_gradient)) < np.max(np.abs(gradient))
            if trial < value - noise or (trial <= value + noise and smaller):
                improved = True
                break
            step = 0.5 * step
        if not improved and fresh:
            break
        if not improved or counter.criterion.is_small or np.abs(trial_gradient).max() > 1e-2 * np.abs(gradient).max():
            inverse = None  # where evaluations are costly, one Hessian serves as long as its steps do well
        if improved:
            stalled = fresh and GRADIENT_TOLERANCE > np.abs(trial_gradient).max() > 0.5 * np.abs(gradient).max()
            enough = max(enough, stalled * GRADIENT_TOLERANCE)  # what is left is rounding
            lam, value, gradient = lam + step, trial, trial_gradient
    return lam
