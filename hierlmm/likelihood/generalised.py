"""Maximum likelihood of a generalised two-level model, what it knows of its parameters, and where the search begins.

The search and the checks of the optimum are those of every other likelihood fit (`maximise`): the criterion is a
function of (λ, β̃, ψ), a variance of zero is a point like any other in λ, and a boundary optimum is looked at from
B = ΛΛ'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.design.design import Design
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.descent import GRADIENT_TOLERANCE, Counter, central_differences, descend
from hierlmm.likelihood.generalised_accuracy import Departure, better, departure, thinned
from hierlmm.likelihood.generalised_criterion import (
    GeneralisedCriterion,
    GeneralisedRows,
    GeneralisedSolution,
    generalised_criterion,
)
from hierlmm.likelihood.generalised_factors import factor_laplace
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE, Optimum, maximise
from hierlmm.notice import notice_if_slow

FEW_SUBJECTS = 400
STARTS = (0.3, 1.0, 0.05)
"""Standard deviations of the random effects, in working units, from which the search sets out."""
SHRINKS = 6
APART = 1e-4
FAR = 2.0
"""Standard errors between the optimum by Laplace's method and that by quadrature, beyond which others are sought."""
IN_A_SEARCH = 1e6
"""Densities of rows that a step of that search may cost."""
MAX_STEPS = 50
FLAT = 1e-6
"""Curvature of the log-likelihood in a direction of β̃ and ψ below which nothing is known of it."""
NOISE = 1e-8
"""Relative rise of the criterion that may be rounding."""
AT_THE_OPTIMUM = 1e-6
"""Distance from the optimum, in standard errors, that is none."""


@dataclass(frozen=True, eq=False)
class GeneralisedEstimate:
    """What maximum likelihood of a generalised model returns: see `LikelihoodEstimate`."""

    design: Design
    criterion: GeneralisedCriterion
    optimum: Optimum

    @property
    def converged(self) -> bool:
        """A stationary point with positive curvature, and every mode found.

        The gradient is zero to 1e-6; or, where sums of large numbers have no such digits, so small that the optimum is
        within a millionth of a standard error.
        """
        return np.isfinite(self.optimum.value) and (self.optimum.converged or self.distance < AT_THE_OPTIMUM)

    @cached_property
    def distance(self) -> float:
        """How far the optimum still is, in standard errors, by Newton's step; infinite where there is none near."""
        optimum, (covariance, flat) = self.optimum, self.information
        if not (optimum.curvature > 0.0 and optimum.boundary_slope > -GRADIENT_TOLERANCE):
            return np.inf
        gradient = 0.5 * self.criterion.both(optimum.lam)[1]
        if np.any(np.abs(gradient @ flat) > GRADIENT_TOLERANCE):
            return np.inf
        return float(np.sqrt(gradient @ covariance @ gradient))

    @cached_property
    def solution(self) -> GeneralisedSolution:
        """β, ψ, D and what else follows from the optimum."""
        return self.criterion.solution(self.optimum.lam)

    @cached_property
    def information(self) -> tuple[FloatArray, FloatArray]:
        """See `inverse_information`, at the optimum."""
        return inverse_information(self.criterion, self.optimum.lam)

    @property
    def covariance(self) -> FloatArray:
        """Inverse observed information of (λ, β̃, ψ), (k, k); zero where the boundary holds a λ, and along `flat`."""
        return self.information[0]

    @property
    def flat(self) -> FloatArray:
        """Directions in (λ, β̃, ψ) in which the likelihood is flat, as columns (k, r): nothing is known along them."""
        return self.information[1]

    def at(self, parameters: FloatArray) -> GeneralisedSolution:
        """What follows from other (λ, β̃, ψ)."""
        return self.criterion.solution(parameters)

    def delta(self, function: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Delta method for a vector function of (λ, β̃, ψ): its value (n,) and covariance (n, n).

        NaN where the function moves along a direction in which the likelihood is flat.
        """
        centre = self.optimum.lam
        return function(centre), self.transformed(central_differences(function, centre).T)

    def variances(self, function: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """The same without the covariances: value and variances, (n,) each, for functions of many rows."""
        centre = self.optimum.lam
        J = central_differences(function, centre).T
        variance = np.einsum("ik,kl,il->i", J, self.covariance, J)
        return function(centre), np.where(self._lost(J), np.nan, variance)

    def transformed(self, J: FloatArray) -> FloatArray:
        """Covariance of ``J (λ, β̃, ψ)``: (n, k) -> (n, n)."""
        covariance, lost = J @ self.covariance @ J.T, self._lost(J)
        covariance[lost] = np.nan
        covariance[:, lost] = np.nan
        return covariance

    def _lost(self, J: FloatArray) -> BoolArray:
        """Functions that move along a flat direction."""
        size = np.maximum(np.abs(J).max(axis=1, initial=0.0), 1e-300)
        return np.any(np.abs(J @ self.flat) > 1e-6 * size[:, None], axis=1)

    @cached_property
    def departure(self) -> Departure | None:
        """How far away the optimum of a better approximation is."""
        return departure(self)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before the estimates are used, in plain words."""
        from hierlmm.likelihood.generalised_checks import describe_generalised

        return describe_generalised(self)


def inverse_information(criterion: GeneralisedCriterion, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverse of the Hessian of minus the log-likelihood, by differences of the exact gradient, and what it has not.

    Returns
    -------
    covariance : (k, k)
        Zero where a boundary holds a λ, and along flat directions.
    flat : (k, r)
        Directions of β̃ and ψ without curvature: separated columns, a dispersion at the end of its range.
    """
    k, m = len(parameters), criterion.structure.n_parameters
    H = central_differences(lambda at: criterion.both(at)[1], parameters).reshape(k, k)
    H = 0.25 * (H + H.T)  # the criterion is twice minus the log-likelihood
    values, vectors = np.linalg.eigh(H[m:, m:])
    own = np.zeros((k, k - m))
    own[m:] = vectors
    held = np.eye(k)[:, :m][:, criterion.structure.filled(parameters, SINGULAR_TOLERANCE)[:m]]
    basis = np.concatenate([held, own[:, values >= FLAT]], axis=1)
    H = basis.T @ H @ basis
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    curvature, vectors = np.linalg.eigh(H * scale[:, None] * scale)
    with np.errstate(divide="ignore"):
        inverse = np.where(curvature > 1e-9 * np.max(curvature, initial=0.0), 1.0 / curvature, np.nan)
    covariance = ((vectors * inverse) @ vectors.T) * scale[:, None] * scale
    return basis @ covariance @ basis.T, own[:, values < FLAT]


def maximise_generalised(design: Design, points: int = 1) -> GeneralisedEstimate:
    """Maximise the likelihood of a design with a family.

    Parameters
    ----------
    design : Design
    points : int
        Points of adaptive Gauss-Hermite quadrature in each dimension; 1 is Laplace's method.
    """
    with notice_if_slow():
        if design.has_several_factors:
            laplace = factor_laplace(design)
            return _estimate(design, laplace, _optima(laplace, laplace))
        criterion = generalised_criterion(design, points)
        J = len(criterion.rows.start) - 1
        part = criterion
        if J > FEW_SUBJECTS or points > 1:  # search by Laplace's method, among a part of the subjects
            some = np.unique(np.linspace(0, J - 1, min(J, FEW_SUBJECTS)).astype(int))
            part = GeneralisedCriterion(criterion.rows.part(some), criterion.structure, 1, criterion.n_psi)
        found = _estimate(design, criterion, _optima(criterion, part))
        fine = better(criterion) if points == 1 and found.departure and found.departure.far(FAR) else None
        if fine is None:
            return found
        # Laplace's method is far off here, and may have a false optimum: which of its optima is the likelihood's own?
        judge = thinned(fine)[0]
        optima = [found.optimum, *found.optimum.others, *_optima(criterion, thinned(fine, IN_A_SEARCH)[0])]
        return _estimate(design, criterion, sorted(optima, key=lambda o: (not _has_end(o), judge.both(o.lam)[0])))


def _optima(criterion: GeneralisedCriterion, part: GeneralisedCriterion) -> list[Optimum]:
    """Optima of the criterion next to where the searches of a part of it end, lowest first.

    Those without a minimum, at the edge of the domain or in a spike of the approximation, come last.
    """
    ends = _search(part)
    if criterion.points > 1:  # from Laplace's optima, where it has any: quadrature costs a hundred times as much
        polished = [maximise(part, end) for end in ends]  # type: ignore[arg-type]
        ends = [optimum.lam for optimum in polished if optimum.converged] or ends
    found = [by_gradient(criterion, maximise(criterion, end)) for end in ends]  # type: ignore[arg-type]
    return sorted(found, key=lambda o: (not _has_end(o), o.value))


def _has_end(optimum: Optimum) -> bool:
    return optimum.converged or optimum.curvature > 0.0


def _estimate(design: Design, criterion: GeneralisedCriterion, optima: list[Optimum]) -> GeneralisedEstimate:
    """The estimate at the first of the optima; its others differ from it in value, and are optima or lower."""
    best, *rest = optima
    others = list[Optimum]()
    for other in rest:
        apart = all(abs(other.value - o.value) > APART for o in (best, *others))
        if apart and (other.converged or other.value < best.value):
            others.append(other)
    return GeneralisedEstimate(design, criterion.settled(best.lam), replace(best, others=tuple(others)))


def by_gradient(criterion: GeneralisedCriterion, optimum: Optimum) -> Optimum:
    """Newton steps judged by the gradient, where sums of large numbers leave values no digits to go by."""
    if optimum.converged or not optimum.curvature > 0.0:
        return optimum
    at, (covariance, _) = optimum.lam, inverse_information(criterion, optimum.lam)
    value, gradient = criterion.both(at)
    for _ in range(5):
        there = at - 0.5 * covariance @ gradient  # the criterion is twice minus the log-likelihood
        trial, slope = criterion.both(there)
        if not (np.max(np.abs(slope)) < np.max(np.abs(gradient)) and trial < value + NOISE * (1.0 + abs(value))):
            break
        at, value, gradient = there, trial, slope
    norm = float(np.max(np.abs(gradient)))
    return replace(optimum, lam=at, value=value, gradient_norm=norm) if norm < optimum.gradient_norm else optimum


def _search(criterion: GeneralisedCriterion) -> list[FloatArray]:
    """Where descents from several sizes of the random effects end, distinct in value, best first."""
    beta, psi = fixed_start(criterion.rows)
    structure = criterion.structure
    counter = Counter(criterion)  # type: ignore[arg-type]
    ends: list[tuple[float, FloatArray]] = []
    for size in STARTS if criterion.is_small else STARTS[:1]:
        start = np.concatenate([structure.parameters(size**2 * np.eye(structure.q)), beta, psi])
        for _ in range(SHRINKS):  # where the link does not keep the range, the smaller are inside it
            if np.isfinite(counter.value(start)):
                break
            start[: structure.n_parameters] *= 0.3
        end = descend(counter, start)
        value = counter.value(end)
        if np.isfinite(value) and all(abs(value - other) > 1e-2 for other, _ in ends):
            ends.append((value, end))
    ends.sort(key=lambda pair: pair[0])
    return [end for _, end in ends] or [np.concatenate([np.zeros(structure.n_parameters), beta, psi])]


def fixed_start(rows: GeneralisedRows) -> tuple[FloatArray, FloatArray]:
    """β̃ and ψ without random effects, by Newton's method with halving: (p,), (m,)."""
    family, p = rows.family, rows.X.shape[1]
    psi = family.first_psi(rows.y, rows.n)
    with np.errstate(all="ignore"):
        eta = family.function.link(family.first_mean(rows.y, rows.n))
    beta = np.linalg.lstsq(rows.X, np.nan_to_num(eta - rows.offset), rcond=None)[0]
    beta = _feasible(rows, beta, psi)

    def value(at: FloatArray) -> tuple[float, FloatArray]:
        d = rowwise(family.derivatives, rows.y, rows.n, rows.offset + rows.X @ at, psi, 2)
        total = float(np.sum(d[:, 0]))
        return (total if np.isfinite(total) else -np.inf), d

    current, d = value(beta)
    for _ in range(MAX_STEPS if p else 0):
        weight = np.maximum(-d[:, 2], 1e-3 * np.abs(d[:, 2]) + 1e-10)
        H = (rows.X * weight[:, None]).T @ rows.X
        step = np.linalg.lstsq(H, rows.X.T @ d[:, 1], rcond=None)[0]
        for _ in range(30):
            trial, moved = value(beta + step)
            if trial >= current:
                break
            step = 0.5 * step
        else:
            break
        gain, current, d, beta = trial - current, trial, moved, beta + step
        if gain < 1e-6 * (1.0 + abs(current)):
            break
    return beta, psi


def _feasible(rows: GeneralisedRows, beta: FloatArray, psi: FloatArray) -> FloatArray:
    """β̃ drawn towards a constant mean until every row has a density (identity, inverse and square-root links)."""
    family = rows.family
    overall = float(np.sum(rows.y) / np.sum(rows.n)) if family.has_trials else float(np.mean(rows.y))
    with np.errstate(all="ignore"):
        eta = float(np.nan_to_num(family.function.link(np.array(overall))))
    flat = np.linalg.lstsq(rows.X, np.full(len(rows.y), eta), rcond=None)[0]
    for share in (1.0, 0.8, 0.5, 0.2, 0.0):
        trial = share * beta + (1.0 - share) * flat
        d = rowwise(family.derivatives, rows.y, rows.n, rows.offset + rows.X @ trial, psi, 1)
        if np.all(np.isfinite(d[:, 0])):
            return trial
    return flat
