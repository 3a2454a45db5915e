"""The optimum of the criterion: quasi-Newton, then Newton steps, then a check that the boundary is a true one.

In λ a variance of zero is a stationary point whether or not it is an optimum (the criterion is even in Λ), so after
convergence the gradient with respect to B = ΛΛ' is looked at in the directions where B is singular: at a minimum it is
positive semi-definite there (the Karush-Kuhn-Tucker conditions of D ⪰ 0). If it is not, the search leaves the boundary
in the offending direction and goes on.

With a residual structure the parameters are ψ = (λ, η), η the unconstrained residual parameters; what follows calls ψ
"lam" as well, and looks at the boundary in its first part only. Random effects and residual correlation can compete, so
that the criterion has more than one minimum: the search then starts from several η and keeps the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.covariance.random import RandomCovariance
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.residual_criterion import ResidualCriterion

__all__ = ["GRADIENT_TOLERANCE", "SINGULAR_TOLERANCE", "Optimum", "hessian", "maximise"]

FloatArray = NDArray[np.float64]
AnyCriterion = Criterion | ResidualCriterion

GRADIENT_TOLERANCE = 1e-6
SINGULAR_TOLERANCE = 1e-4
START_SCALES = 10.0 ** np.array([-1.0, -0.4, 0.2, 0.8, 1.4, 2.0])
MAX_DESCENT = 300
MAX_HALVINGS = 25
MAX_NEWTON = 100
MAX_RESTARTS = 5


@dataclass(frozen=True)
class Optimum:
    """Where the criterion is smallest.

    Attributes
    ----------
    lam : (m,)
        Relative covariance parameters, in working columns; followed by the residual parameters η, if there are any.
    value : float
        The criterion, −2 log-likelihood.
    gradient_norm : float
        Largest absolute derivative of the criterion with respect to λ, whose columns are scaled to unit mean square.
    boundary_slope : float
        Smallest eigenvalue of the derivative with respect to D in the directions where D is singular (0 if none);
        a negative value would mean that the boundary is no optimum.
    n_evaluations : int
    n_boundary : int
        Rank that D lacks.
    """

    lam: FloatArray
    value: float
    gradient_norm: float
    boundary_slope: float
    n_evaluations: int
    n_boundary: int

    @property
    def converged(self) -> bool:
        """Stationary, and no descent off the boundary."""
        return self.gradient_norm < GRADIENT_TOLERANCE and self.boundary_slope > -GRADIENT_TOLERANCE


class _Counter:
    """The criterion with its number of evaluations."""

    def __init__(self, criterion: AnyCriterion) -> None:
        self.criterion, self.calls = criterion, 0

    def value(self, lam: FloatArray) -> float:
        self.calls += 1
        return self.criterion(lam)

    def both(self, lam: FloatArray) -> tuple[float, FloatArray]:
        self.calls += 1
        evaluation = self.criterion.evaluate(lam)
        return evaluation.value, evaluation.gradient


def maximise(criterion: AnyCriterion, start: FloatArray | None = None) -> Optimum:
    """Minimise the criterion (maximise the likelihood) over λ.

    Parameters
    ----------
    criterion : Criterion
    start : (m,), optional
        Starting value; by default the best multiple of the identity.
    """
    counter = _Counter(criterion)
    starts = _starts(counter) if start is None else [np.asarray(start, dtype=np.float64)]
    descents = [_descend(counter, lam) for lam in starts]
    lam = descents[0] if len(descents) == 1 else min(descents, key=counter.value)
    for _ in range(MAX_RESTARTS):
        lam = _newton(counter, _snap(counter, lam))
        slope, direction = _boundary_slope(criterion, lam)
        if slope > -GRADIENT_TOLERANCE:
            break
        lam = _descend(counter, _leave_boundary(counter, lam, direction))
    lam = _join(criterion.structure.normalise_signs(_own(criterion.structure, lam)), lam)
    evaluation = criterion.evaluate(lam)
    slope, _ = _boundary_slope(criterion, lam)
    return Optimum(
        lam,
        evaluation.value,
        float(np.max(np.abs(evaluation.gradient), initial=0.0)),
        slope,
        counter.calls,
        len(_singular_directions(criterion, lam)[0]),
    )


def hessian(function: object, point: FloatArray) -> FloatArray:
    """Hessian by central differences of an exact gradient (error of order 1e-9 relative): (m,) -> (m, m)."""
    m = len(point)
    H = np.empty((m, m))
    for j in range(m):
        step = 1e-5 * max(1.0, abs(point[j]))
        unit = np.zeros(m)
        unit[j] = step
        _, above = function(point + unit)  # type: ignore[operator]
        _, below = function(point - unit)  # type: ignore[operator]
        H[j] = (above - below) / (2.0 * step)
    return 0.5 * (H + H.T)


def _own(structure: RandomCovariance, lam: FloatArray) -> FloatArray:
    """The part of ψ that belongs to D."""
    return lam[: structure.n_parameters]


def _join(own: FloatArray, lam: FloatArray) -> FloatArray:
    """ψ with another part for D."""
    return np.concatenate([own, lam[len(own) :]])


def _starts(counter: _Counter) -> list[FloatArray]:
    """For each η to begin at, the best multiple of the identity for D; only the best unless many maxima are likely."""
    structure = counter.criterion.structure
    unit = structure.parameters(np.eye(structure.q))
    scales = START_SCALES if len(unit) else START_SCALES[:1]
    found = []
    for eta in counter.criterion.starts:
        trials = [np.concatenate([scale * unit, eta]) for scale in scales]
        found.append(min(trials, key=counter.value) if len(trials) > 1 else trials[0])
    if isinstance(counter.criterion, ResidualCriterion) and not counter.criterion.many_maxima:
        return [min(found, key=counter.value)]
    return found


def _descend(counter: _Counter, lam: FloatArray) -> FloatArray:
    """BFGS from a differenced Hessian, with halving of steps (Nocedal & Wright 2006, chapter 6).

    A general-purpose optimiser spends ten times as long on its own bookkeeping as on this criterion.
    """
    if len(lam) == 0:
        return lam
    value, gradient = counter.both(lam)
    inverse = _positive_inverse(_forward_hessian(counter, lam, gradient))
    for _ in range(MAX_DESCENT):
        if np.abs(gradient).max() < 1e-3 * max(1.0, 1e-4 * abs(value)):
            break
        step = -inverse @ gradient
        step *= min(1.0, 3.0 * (1.0 + np.abs(lam).max()) / max(np.abs(step).max(), 1e-300))
        slope = float(gradient @ step)
        for _ in range(MAX_HALVINGS):
            trial, trial_gradient = counter.both(lam + step)
            if trial <= value + 1e-4 * slope and trial < value:
                break
            step, slope = 0.5 * step, 0.5 * slope
        else:
            break
        change = trial_gradient - gradient
        curvature = float(step @ change)
        if curvature > 1e-10 * float(np.sqrt((step @ step) * (change @ change))):
            left = np.eye(len(lam)) - np.outer(step, change) / curvature
            inverse = left @ inverse @ left.T + np.outer(step, step) / curvature
        lam, value, gradient = lam + step, trial, trial_gradient
    return lam


def _forward_hessian(counter: _Counter, lam: FloatArray, gradient: FloatArray) -> FloatArray:
    H = np.empty((len(lam), len(lam)))
    for j in range(len(lam)):
        moved = lam.copy()
        moved[j] += 1e-6 * max(1.0, abs(lam[j]))
        H[j] = (counter.both(moved)[1] - gradient) / (moved[j] - lam[j])
    return 0.5 * (H + H.T)


def _positive_inverse(H: FloatArray) -> FloatArray:
    """Inverse of a symmetric matrix with its eigenvalues made positive."""
    values, vectors = np.linalg.eigh(H)
    floor = 1e-8 * max(1.0, float(np.abs(values).max()))
    return (vectors / np.maximum(np.abs(values), floor)) @ vectors.T


def _newton(counter: _Counter, lam: FloatArray) -> FloatArray:
    """Newton steps with curvature made positive, and halving until the criterion does not rise."""
    if len(lam) == 0:
        return lam
    value, gradient = counter.both(lam)
    for _ in range(MAX_NEWTON):
        if np.max(np.abs(gradient)) < 1e-2 * GRADIENT_TOLERANCE:
            break
        step = -_positive_inverse(_forward_hessian(counter, lam, gradient)) @ gradient
        improved = False
        for _ in range(MAX_HALVINGS):
            trial, trial_gradient = counter.both(lam + step)
            # Near the optimum the criterion is flat to rounding; there a smaller gradient decides.
            noise = 1e-13 * max(1.0, abs(value))
            smaller = np.max(np.abs(trial_gradient)) < np.max(np.abs(gradient))
            if trial < value - noise or (trial <= value + noise and smaller):
                improved = True
                break
            step = 0.5 * step
        if not improved:
            break
        lam, value, gradient = lam + step, trial, trial_gradient
    return lam


def _singular_directions(criterion: AnyCriterion, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Null directions of Λ that its structure can fill, (r, q), and the smallest singular value of the rest."""
    structure = criterion.structure
    Lambda = structure.factor(_own(structure, lam))
    directions: list[FloatArray] = []
    rest = [np.inf]
    groups = (tuple(range(structure.q)),) if structure.structure == "identity" else structure.blocks
    for block in groups:
        vectors, values, _ = np.linalg.svd(Lambda[np.ix_(block, block)])
        for vector, value in zip(vectors.T, values, strict=True):
            if value < SINGULAR_TOLERANCE:
                full = np.zeros(structure.q)
                full[list(block)] = vector
                directions.append(full)
            else:
                rest.append(float(value))
    return np.array(directions).reshape(len(directions), structure.q), np.array(min(rest))


def _snap(counter: _Counter, lam: FloatArray) -> FloatArray:
    """Set nearly vanishing directions of Λ to exactly zero where the criterion does not rise."""
    structure = counter.criterion.structure
    if structure.projections is not None:
        own = np.abs(_own(structure, lam))
        for m in np.flatnonzero(own < 1e-2 * max(1.0, float(own.max()))):
            trial = np.where(np.arange(len(lam)) == m, 0.0, lam)
            if counter.value(trial) <= counter.value(lam):
                lam = trial
        return lam
    for block in structure.blocks:
        Lambda = structure.factor(_own(structure, lam))
        part = np.ix_(block, block)
        vectors, values, _ = np.linalg.svd(Lambda[part])
        for rank in range(len(values)):
            if values[rank] > 1e-2 * max(1.0, values[0]):
                continue
            truncated = np.where(np.arange(len(values)) < rank, values, 0.0)
            # Lower triangular factor of the truncated B through a QR decomposition of its square root.
            triangle = np.linalg.qr((vectors * truncated).T, mode="r").T
            candidate = Lambda.copy()
            candidate[part] = np.tril(triangle)
            trial = lam.copy()
            trial[structure.index] = candidate[structure.row, structure.col]
            if counter.value(trial) <= counter.value(lam):
                lam = trial
                break
    return lam


def _boundary_slope(criterion: AnyCriterion, lam: FloatArray) -> tuple[float, FloatArray]:
    """Smallest eigenvalue of d criterion / dB in the null directions of Λ, and its direction.

    In a spectral structure an eigenvalue rises for a whole projection: its derivative is the trace over it, and the
    direction is that of its λ.
    """
    directions, _ = _singular_directions(criterion, lam)
    q = criterion.structure.q
    if not len(directions):
        return 0.0, np.zeros(q)
    gradient_B = criterion.evaluate(lam).gradient_B
    if criterion.structure.projections is not None:
        slopes = np.einsum("mij,ij->m", criterion.structure.projections, gradient_B)
        slopes[np.abs(_own(criterion.structure, lam)) >= SINGULAR_TOLERANCE] = np.inf
        lowest = int(np.argmin(slopes))
        return float(slopes[lowest]), np.eye(len(lam))[lowest]
    worst, direction = np.inf, np.zeros(q)
    for block in criterion.structure.blocks:
        outside = [m for m in range(q) if m not in block]
        own = directions[np.all(directions[:, outside] == 0.0, axis=1) & np.any(directions != 0.0, axis=1)]
        if len(own):
            values, vectors = np.linalg.eigh(own @ gradient_B @ own.T)
            if values[0] < worst:
                worst, direction = float(values[0]), vectors[:, 0] @ own
    return worst, direction


def _leave_boundary(counter: _Counter, lam: FloatArray, direction: FloatArray) -> FloatArray:
    """Add variance along a direction of descent, as much as lowers the criterion most on a coarse grid."""
    structure = counter.criterion.structure
    steps = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    if structure.projections is not None:
        return min((lam + np.sqrt(s) * direction for s in steps), key=counter.value)
    Lambda = structure.factor(_own(structure, lam))
    B = Lambda @ Lambda.T
    ridge = 1e-10 * np.eye(structure.q)
    trials = [_join(structure.parameters(B + ridge + s * np.outer(direction, direction)), lam) for s in steps]
    return min(trials, key=counter.value)
