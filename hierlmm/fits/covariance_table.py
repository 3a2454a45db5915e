"""Covariance parameters of a likelihood fit with intervals on the natural scale, by Wald or by profile likelihood.

Each parameter has a range: (0, ∞) for standard deviations, σ, ratios and distances, (-1, 1) or less for correlations.
A Wald interval is symmetric on the logarithm, or on ``artanh`` of the range mapped to (-1, 1), so that it never leaves
the range. A profile interval holds the values of the parameter for which the criterion, minimised over everything else,
rises by no more than the χ²₁ quantile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.covariance.composed import group_of
from hierlmm.covariance.parameters import Decay
from hierlmm.covariance.random import lowest_corr
from hierlmm.design.design import Design
from hierlmm.fits.components import (
    component_frame,
    component_labels,
    component_values,
    corr_label,
    correlated_pairs,
    group_sigmas,
    sd_label,
)
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE
from hierlmm.likelihood.profile import profile_interval, region_points
from hierlmm.likelihood.solution import Solution
from hierlmm.options import check_ci


@dataclass(frozen=True, eq=False)
class CovarianceParameters:
    """Labels, ranges and the function that gives the parameters from (λ, η, log σ̃)."""

    labels: list[str]
    lower: FloatArray
    upper: FloatArray
    values: Callable[[FloatArray], FloatArray]

    def to_unbounded(self, values: FloatArray) -> FloatArray:
        """Each parameter on the line: identity, logarithm, or artanh of its range."""
        return np.array([_forward(v, lo, hi) for v, lo, hi in zip(values, self.lower, self.upper, strict=True)])

    def to_natural(self, values: FloatArray) -> FloatArray:
        """Back from the line."""
        return _natural(values, self.lower, self.upper)


def _natural(values: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Back from the line."""
    return np.array([_backward(v, lo, hi) for v, lo, hi in zip(values, lower, upper, strict=True)])


def _forward(value: float, lower: float, upper: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        if np.isinf(lower):
            return value
        if np.isinf(upper):
            return float(np.log(value - lower))
        return float(np.arctanh(2.0 * (value - lower) / (upper - lower) - 1.0))


def _backward(value: float, lower: float, upper: float) -> float:
    with np.errstate(over="ignore"):
        if np.isinf(lower):
            return value
        if np.isinf(upper):
            return float(lower + np.exp(value))
        return float(lower + (upper - lower) * 0.5 * (np.tanh(value) + 1.0))


def covariance_parameters(fit: LikelihoodEstimates) -> CovarianceParameters:
    """List the covariance parameters of a fit: of D, of the residual structure, and σ."""
    design, large = fit.design, fit.large_sample
    labels = component_labels(design)[:-1]
    floor = lowest_corr(design.n_own) if design.covariance == "compound_symmetry" else -1.0
    lower = [floor if label.startswith("corr") else 0.0 for label in labels]
    upper = [1.0 if label.startswith("corr") else np.inf for label in labels]
    residual = fit.residual_estimate
    if residual is not None:
        if residual.correlation is not None:
            bound, names = residual.correlation, list(residual.correlation_parameters)
            free = bound.spec.correlations
            labels += names
            lower += [-1.0] * len(names) if free else [p.lower for p in bound.parameters]
            upper += [1.0] * len(names) if free else [p.upper for p in bound.parameters]
        if residual.variance is not None:
            labels += [p.name for p in residual.variance.parameters]
            lower += [p.lower for p in residual.variance.parameters]
            upper += [p.upper for p in residual.variance.parameters]
    own = _group_sigmas(fit.solution)
    labels += own
    lower, upper = [*lower, *[0.0] * len(own)], [*upper, *[np.inf] * len(own)]

    def values(parameters: FloatArray) -> FloatArray:
        return component_vector(design, large.solution(parameters))

    return CovarianceParameters([*labels, "sigma"], np.array([*lower, 0.0]), np.array([*upper, np.inf]), values)


def component_vector(design: Design, at: Solution) -> FloatArray:
    """The covariance parameters that follow from a θ, in the order of `covariance_parameters`."""
    found = component_values(design, at.D, at.sigma)
    own = list(_group_sigmas(at).values())
    return np.concatenate([found[:-1], list(at.residual_parameters.values()), own, found[-1:]])


def _group_sigmas(at: Solution) -> dict[str, float]:
    """σ of every group with residual parameters of its own, by label; empty without groups."""
    variance = None if at.residual is None else at.residual.variance
    if at.residual is None or variance is None or group_of(variance.spec) is None:
        return {}
    return group_sigmas(variance.state.levels, list(at.residual.variance_parameters.values()), at.sigma)


def quantile(ci: float) -> float:
    """Standard normal quantile of a two-sided interval.

    Raises
    ------
    SpecificationError
        If ``ci`` is no probability.
    """
    return float(norm.ppf(0.5 + check_ci(ci) / 2.0))


class WaldComponents(NamedTuple):
    """The covariance parameters of a fit: ranges, centre and spread on the line, estimate and se; NaN where unknown."""

    labels: list[str]
    lower: FloatArray
    upper: FloatArray
    centre: FloatArray
    spread: FloatArray
    estimate: FloatArray
    se: FloatArray

    def table(self, ci: float) -> pd.DataFrame:
        """Estimate, se, lower, upper of every covariance parameter."""
        z, ends = quantile(ci), []
        for sign in (-1.0, 1.0):
            with np.errstate(divide="ignore", invalid="ignore"):
                values = self.centre + sign * z * self.spread
            ends.append(_natural(values, self.lower, self.upper))
        return component_frame(self.labels, self.estimate.copy(), self.se.copy(), *ends)


def wald_components(fit: LikelihoodEstimates) -> WaldComponents:
    """What Wald intervals are made of; unknown on the boundary and where the data say nothing."""
    found, large = covariance_parameters(fit), fit.large_sample
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, spread = large.standard_errors_of(lambda p: found.to_unbounded(found.values(p)))
        estimate, se = large.standard_errors_of(found.values)
    # A spread of zero is a residual parameter held at the end of its range.
    undefined = ~np.isfinite(spread) | (spread == 0.0) | on_boundary(fit, found.labels)
    spread, se = (np.where(undefined, np.nan, values) for values in (spread, se))
    return WaldComponents(found.labels, found.lower, found.upper, centre, spread, estimate, se)


def profile_components(fit: LikelihoodEstimates, ci: float) -> pd.DataFrame:
    """Estimate, lower and upper by profile likelihood; a limit at the end of a range is that end."""
    quantile(ci)
    profiles = CovarianceProfiles(fit)
    limits = np.array([profiles.ends(k, float(chi2.ppf(ci, 1))) for k in range(len(profiles.found.labels))])
    estimate = profiles.estimate
    return component_frame(profiles.found.labels, estimate, estimate, limits[:, 0], limits[:, 1]).drop(columns="se")


class CovarianceProfiles:
    """Profile likelihoods of the covariance parameters of a fit, by the fit's own criterion."""

    def __init__(self, fit: LikelihoodEstimates) -> None:
        self.fit, self.found = fit, covariance_parameters(fit)
        self.estimate = self.found.values(fit.large_sample.centre)
        self._elsewhere: dict[float, list[FloatArray]] = {}
        self._known: dict[tuple[int, float], tuple[float, float]] = {}

    def ends(self, k: int, drop: float) -> tuple[float, float]:
        """Smallest and largest value of a parameter at which −2 log-likelihood rises by no more than ``drop``.

        Where the region reaches a standard deviation of zero, it reaches every correlation of that random effect on the
        way.
        """
        if (k, drop) not in self._known:
            free = self.found.labels[k].startswith("corr(") and any(
                self.ends(j, drop)[0] == 0.0 for j in self._deviations(k)
            )
            self._known[k, drop] = (self.found.lower[k], self.found.upper[k]) if free else self._sought(k, drop)
        return self._known[k, drop]

    def _deviations(self, k: int) -> list[int]:
        """Standard deviations of the random effects that a correlation is of."""
        pairs, design = correlated_pairs(self.fit.design), self.fit.design
        labels = [corr_label(design, *pair) for pair in pairs]
        return list(pairs[labels.index(self.found.labels[k])]) if self.found.labels[k] in labels else []

    def _sought(self, k: int, drop: float) -> tuple[float, float]:
        fit, found = self.fit, self.found
        criterion, centre, label = fit.criterion_function, fit.large_sample.centre, found.labels[k]
        if drop not in self._elsewhere:
            self._elsewhere[drop] = region_points(criterion, centre, drop) + other_optima(fit, drop)
        scale, at = _scale(fit, label, found.lower[k], found.upper[k]), _decay(fit, label)

        def scalar(parameters: FloatArray) -> float:
            return scale.forward(float(found.values(parameters)[k] if at is None else parameters[at]))

        with np.errstate(over="ignore", invalid="ignore"):  # a search may look far out, where nothing is accepted
            ends = profile_interval(criterion, centre, scalar, drop, self._elsewhere[drop])
        lower, upper = (scale.backward(end) for end in ends)
        if label.startswith("sd(") and lower < max(1e-3 * self.estimate[k], 1e-6 * upper):
            lower = 0.0
        return lower, upper


def other_optima(fit: LikelihoodEstimates, drop: float) -> list[FloatArray]:
    """Further optima (λ, η, log σ̃) within ``drop`` of the best: the likelihood region has a part around each."""
    found = []
    for optimum in fit.optimum.others:
        if optimum.value < fit.criterion + drop:
            found.append(np.append(optimum.lam, np.log(fit.criterion_function.solution(optimum.lam).working_sd)))
    return found


@dataclass(frozen=True)
class _Scale:
    """Scale on which the ends of a profile interval are sought, and the way back."""

    forward: Callable[[float], float]
    backward: Callable[[float], float]


def _scale(fit: LikelihoodEstimates, label: str, lower: float, upper: float) -> _Scale:
    """Variances for SDs of random effects (smooth at zero), correlations as they are, the line for all others."""
    if label.startswith("sd("):
        return _Scale(lambda v: v * v, lambda v: float(np.sqrt(max(v, 0.0))))
    function = fit.criterion_function
    correlation = function.rows.correlation
    at = _decay(fit, label)
    if at is not None:
        return _Scale(float, function.rows.parameters[at - function.structure.n_parameters].natural)
    moved = correlation is not None and correlation.spec.correlations and label.startswith("rho(")
    if label.startswith("corr(") or moved:
        return _Scale(float, float)
    return _Scale(lambda v: _forward(v, lower, upper), lambda v: _backward(v, lower, upper))


def _decay(fit: LikelihoodEstimates, label: str) -> int | None:
    """Position in (λ, η, log σ̃) of a correlation one unit of time apart, which underflows to 0 long before η ends."""
    function = fit.criterion_function
    for j, parameter in enumerate(function.rows.parameters):
        if isinstance(parameter, Decay) and parameter.name == label:
            return function.structure.n_parameters + j
    return None


def on_boundary(fit: Any, labels: list[str]) -> BoolArray:
    """Components of blocks in which D has no full rank: they have no large-sample interval."""
    design, half = fit.design, fit.criterion_function.structure.factor(fit.optimum.lam)
    groups = design.terms.by_subject.parts if design.covariance == "identity" else design.blocks
    singular = [b for b in groups if np.linalg.svd(half[np.ix_(b, b)])[1].min() < SINGULAR_TOLERANCE]
    terms = [k for block in singular for k in block]
    involved = {sd_label(design, k) for k in terms} | {corr_label(design, j, k) for j in terms for k in terms}
    return np.array([label in involved for label in labels])
