"""The optimum of the criterion: every minimum that a global search finds, polished and checked; the best one reported.

In λ a variance of zero is a stationary point whether or not it is an optimum (the criterion is even in Λ), so after
convergence the gradient with respect to B = ΛΛ' is looked at in the directions where B is singular: at a minimum it is
positive semi-definite there (the Karush-Kuhn-Tucker conditions of D ⪰ 0). If it is not, the search leaves the boundary
in the offending direction and goes on. So it does from a saddle point, along the direction of negative curvature.

With a residual structure the parameters are ψ = (λ, η), η the unconstrained residual parameters; what follows calls ψ
"lam" as well, and looks at the boundary in its first part only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.likelihood.descent import GRADIENT_TOLERANCE, Counter, descend, hessian, newton, recent_hessian
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.search import Search, search_plain, search_residual
from hierlmm.likelihood.search_called import search_called
from hierlmm.likelihood.several_factors import FactorCriterion
from hierlmm.likelihood.solution import AnyCriterion

SINGULAR_TOLERANCE = 1e-4
NOTHING = 1e-9
"""Size below which a λ is what rounding left of zero: the criterion is the same to its last digit."""
FLAT, APART = 1e-4, 1e-3
"""Slope in log λ of a further minimum at the most, and how far its value is from others: else, one flat valley."""
MAX_RESTARTS = 5
ROUNDING = 1e-13
"""Share of the criterion that is rounding in its gradient."""
NEGATIVE_CURVATURE = -1e-5
"""Smallest eigenvalue of the Hessian at unit diagonal that is not taken for a saddle point (differences are noisy)."""
FAR = 10.0
"""Size of an unconstrained residual parameter that is as good as at the end of its range."""
SAME_VALUE = 1e-7
"""Two optima closer in value than this are one, or points of one flat valley."""


@dataclass(frozen=True)
class Optimum:
    """A minimum of the criterion; from a global search the lowest one, with the others.

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
    curvature : float
        Smallest eigenvalue of the Hessian in the parameters that the boundary does not hold, at unit diagonal: 1 at
        best, 0 where the criterion is flat in some direction, negative at a saddle point.
    n_evaluations : int
        Of the criterion, in the search and after it.
    n_boundary : int
        Rank that D lacks.
    search : Search, optional
        What the global search looked at; None if the optimum is that next to a given start.
    others : tuple of Optimum
        Further minima, by value.
    """

    lam: FloatArray
    value: float
    gradient_norm: float
    boundary_slope: float
    curvature: float
    n_evaluations: int
    n_boundary: int
    search: Search | None = None
    others: tuple[Optimum, ...] = ()

    @property
    def tolerance(self) -> float:
        """Gradient norm below which an optimum is one: 1e-6, or what rounding leaves of the sum over many millions."""
        return max(GRADIENT_TOLERANCE, ROUNDING * abs(self.value))

    @property
    def converged(self) -> bool:
        """Stationary, no descent off the boundary, and no negative curvature."""
        return (
            self.gradient_norm < self.tolerance
            and self.boundary_slope > -self.tolerance
            and self.curvature > NEGATIVE_CURVATURE
        )


def maximise(criterion: AnyCriterion, start: FloatArray | None = None) -> Optimum:
    """Minimise the criterion (maximise the likelihood) over λ.

    Parameters
    ----------
    criterion : Criterion or ResidualCriterion
    start : (m,), optional
        Where to begin, for the nearest minimum; by default all are sought, and the lowest is returned.
    """
    counter = Counter(criterion)
    if start is not None:
        return _polish(counter, descend(counter, np.asarray(start, dtype=np.float64)))
    if isinstance(criterion, ResidualCriterion):
        search = search_residual(criterion)
    elif isinstance(criterion, FactorCriterion):
        start = criterion.structure.parameters(criterion.products.start**2)
        search = search_called(criterion, start, None if criterion.is_small else criterion.expected_hessian(start))
    else:
        search = search_plain(criterion.given(np.empty(0)))
    optima = _different(criterion, [_polish(counter, lam) for lam in search.points])
    best = optima[0]
    others: list[Optimum] = []
    for optimum in optima[1:]:
        if _is_minimum(counter, optimum) and all(abs(optimum.value - o.value) > APART for o in (best, *others)):
            others.append(optimum)
    return replace(best, search=search, others=tuple(others), n_evaluations=counter.calls + search.n_evaluations)


def maximise_again(criterion: AnyCriterion, start: FloatArray) -> Optimum:
    """The optimum for data like those of an earlier optimum: the lowest of few descents, one of them from there.

    All minima are sought, as in `maximise`, where what was found is not a proper minimum, or higher than the start.

    Parameters
    ----------
    criterion : Criterion or ResidualCriterion
    start : (m,)
        The earlier optimum.
    """
    counter = Counter(criterion)
    if isinstance(criterion, ResidualCriterion):
        search = search_residual(criterion, thorough=False)
        points = [descend(counter, start), *search.points]
    elif isinstance(criterion, FactorCriterion):
        search, points = None, [descend(counter, start)]
        if len(_singular_directions(criterion, start)):  # from where there may be no way to a minimum inside
            moments = criterion.structure.parameters(criterion.products.start**2)
            points.append(descend(counter, moments))
    else:
        search = search_plain(criterion.given(start), thorough=False, start=start)
        points = list(search.points)
    optimum = _polish(counter, min(points, key=counter.value))
    if not optimum.converged or optimum.value > counter.value(start) + SAME_VALUE:
        return maximise(criterion)
    return replace(optimum, search=search, n_evaluations=counter.calls + (search.n_evaluations if search else 0))


def _is_minimum(counter: Counter, optimum: Optimum) -> bool:
    """Whether a further optimum is one: stationary in log λ as well, so no point of a valley that goes on for ever."""
    gradient = counter.both(optimum.lam)[1]
    return optimum.converged and counter.size(optimum.lam, gradient) < FLAT


def _polish(counter: Counter, lam: FloatArray) -> Optimum:
    """Go on to the minimum next to λ, and look at it from all sides."""
    criterion, calls = counter.criterion, counter.calls
    structure = criterion.structure
    for _ in range(MAX_RESTARTS):
        lam = newton(counter, _snap(counter, lam))
        if len(_singular_directions(criterion, lam)):  # nearly on the boundary is on it
            lam = newton(counter, _snap(counter, lam))
        slope, direction = _boundary_slope(criterion, lam)
        if slope <= -GRADIENT_TOLERANCE:
            lam = descend(counter, _leave_boundary(counter, lam, direction))
            continue
        curvature, direction = _lowest_curvature(counter, lam)
        if curvature > NEGATIVE_CURVATURE or not np.isfinite(curvature):
            break
        down = min((lam + s * direction for s in (1e-2, -1e-2, 0.1, -0.1)), key=counter.value)
        if counter.value(down) == np.inf:  # no saddle: the edge of where the criterion is finite
            break
        lam = descend(counter, down)
    else:
        slope, curvature = _boundary_slope(criterion, lam)[0], _lowest_curvature(counter, lam)[0]
    own = structure.normalise_signs(lam[: structure.n_parameters])
    lam = _join(np.where(np.abs(own) < NOTHING, 0.0, own), lam) + 0.0  # and no -0.0
    evaluation = criterion.evaluate(lam)
    return Optimum(
        lam,
        evaluation.value,
        float(np.max(np.abs(evaluation.gradient), initial=0.0)),
        slope,
        curvature,
        counter.calls - calls,
        len(_singular_directions(criterion, lam)),
    )


def _different(criterion: AnyCriterion, optima: list[Optimum]) -> list[Optimum]:
    """One of each kind, lowest first; along a valley of equal values a point well inside before one on the boundary."""
    structure = criterion.structure
    m, kept = structure.n_parameters, list[Optimum]()
    scales = structure.index[structure.row == structure.col] if structure.projections is None else slice(m)

    def extreme(optimum: Optimum) -> tuple[float, int, float]:
        eta = np.abs(optimum.lam[m:])
        ends = optimum.n_boundary + int(np.sum(eta > FAR))
        middle = float(eta.sum() + np.abs(np.log(np.abs(optimum.lam[:m][scales]) + NOTHING)).sum())
        return round(optimum.value, 5), ends, middle if len(eta) else 0.0

    for optimum in sorted(optima, key=extreme):
        size = SAME_VALUE * max(1.0, 1e-3 * abs(optimum.value))
        if not any(abs(optimum.value - other.value) < size for other in kept):
            kept.append(optimum)
    return kept


def _lowest_curvature(counter: Counter, lam: FloatArray) -> tuple[float, FloatArray]:
    """Smallest eigenvalue of the Hessian at unit diagonal, over parameters not held by a boundary; its direction."""
    criterion = counter.criterion
    free = criterion.structure.filled(lam, SINGULAR_TOLERANCE)
    if not free.any():
        return 1.0, np.zeros(len(lam))
    lowest, direction = _lowest_eigenvalue(recent_hessian(counter, lam), free)
    if lowest > NEGATIVE_CURVATURE:
        return lowest, direction
    return _lowest_eigenvalue(hessian(counter.both, lam), free)  # forward differences are noisy at a large λ


def _lowest_eigenvalue(H: FloatArray, free: BoolArray) -> tuple[float, FloatArray]:
    """Smallest eigenvalue at unit diagonal of the part of H in free parameters, and its direction."""
    H = H[np.ix_(free, free)]
    if not np.all(np.isfinite(H)):  # λ so large that nothing is left of σ: no optimum to speak of
        return -np.inf, np.zeros(len(free))
    # A direction without curvature (an unidentified parameter) is flat, not a saddle: rounding has no sign there.
    diagonal = np.abs(np.diag(H))
    scale = 1.0 / np.sqrt(np.maximum(diagonal, max(1e-6, 1e-9 * diagonal.max())))
    values, vectors = np.linalg.eigh(H * scale[:, None] * scale)
    direction = np.zeros(len(free))
    direction[free] = vectors[:, 0] * scale
    return float(values[0]), direction / max(float(np.abs(direction).max()), 1e-300)


def _join(own: FloatArray, lam: FloatArray) -> FloatArray:
    """ψ with another part for D."""
    return np.concatenate([own, lam[len(own) :]])


def _singular_directions(criterion: AnyCriterion, lam: FloatArray) -> FloatArray:
    """Null directions of Λ that its structure can fill, (r, q)."""
    structure = criterion.structure
    Lambda = structure.factor(lam[: structure.n_parameters])
    directions: list[FloatArray] = []
    groups = structure.parts if structure.structure == "identity" else structure.blocks
    for block in groups:
        vectors, values, _ = np.linalg.svd(Lambda[np.ix_(block, block)])
        for vector in vectors.T[values < SINGULAR_TOLERANCE]:
            full = np.zeros(structure.q)
            full[list(block)] = vector
            directions.append(full)
    return np.array(directions).reshape(len(directions), structure.q)


def _snap(counter: Counter, lam: FloatArray) -> FloatArray:
    """Set nearly vanishing directions of Λ to exactly zero where the criterion does not rise."""
    structure = counter.criterion.structure
    if structure.projections is not None:
        own = np.abs(lam[: structure.n_parameters])
        for m in np.flatnonzero(own < 1e-2 * max(1.0, float(own.max()))):
            trial = np.where(np.arange(len(lam)) == m, 0.0, lam)
            if counter.value(trial) <= counter.value(lam):
                lam = trial
        return lam
    for block in structure.blocks:
        Lambda = structure.factor(lam[: structure.n_parameters])
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
            value = counter.value(lam)
            noise = 1e-11 * max(1.0, abs(value)) if values[rank] < 1e-2 * SINGULAR_TOLERANCE else 0.0
            if counter.value(trial) <= value + noise:
                lam = trial
                break
    return lam


def _boundary_slope(criterion: AnyCriterion, lam: FloatArray) -> tuple[float, FloatArray]:
    """Smallest eigenvalue of d criterion / dB in the null directions of Λ, and its direction.

    In a spectral structure an eigenvalue rises for a whole projection: its derivative is the trace over it, and the
    direction is that of its λ.
    """
    directions = _singular_directions(criterion, lam)
    q = criterion.structure.q
    if not len(directions):
        return 0.0, np.zeros(q)
    gradient_B = criterion.evaluate(lam).gradient_B
    if criterion.structure.projections is not None:
        slopes = np.einsum("mij,ij->m", criterion.structure.projections, gradient_B)
        slopes[np.abs(lam[: criterion.structure.n_parameters]) >= SINGULAR_TOLERANCE] = np.inf
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


def _leave_boundary(counter: Counter, lam: FloatArray, direction: FloatArray) -> FloatArray:
    """Add variance along a direction of descent, as much as lowers the criterion most on a coarse grid."""
    structure = counter.criterion.structure
    steps = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    if structure.projections is not None:
        return min((lam + np.sqrt(s) * direction for s in steps), key=counter.value)
    Lambda = structure.factor(lam[: structure.n_parameters])
    B = Lambda @ Lambda.T
    ridge = 1e-10 * np.eye(structure.q)
    trials = [_join(structure.parameters(B + ridge + s * np.outer(direction, direction)), lam) for s in steps]
    return min(trials, key=counter.value)
