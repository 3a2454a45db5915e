"""What must be said about the residual structure at an optimum: ends of ranges, what is not identified, competition.

All of it comes from the criterion itself (its value elsewhere, and its curvature), not from a Hessian that failed.

*Likelihoods without a bound*, because they grow for ever on a residual parameter's way to the end of its range. Where
the residual covariance becomes singular at the end of a range, log|Σ| falls to -∞; the likelihood stays bounded only
as long as some residual lies in the direction that has lost its variance. If the coefficients can reproduce those
directions exactly (one subject with more rows than all others under compound symmetry, a group of two rows with a
variance and a coefficient of its own), nothing holds it: in the unconstrained parameter η, in which the vanishing
variance is ``exp(-|η|)`` or ``exp(-2|η|)``, the criterion falls by a constant whole number per unit of η, the number
of directions without variance (less those that REML leaves out). A criterion with a limit flattens like exp(-|η|)
instead, so two rates four units apart are told from each other without a threshold that depends on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundCorrelation, seen_together
from hierlmm.covariance.parameters import Parameter
from hierlmm.design.design import Design
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError
from hierlmm.frames import shorten
from hierlmm.likelihood.descent import hessian
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE, Optimum
from hierlmm.likelihood.residual_criterion import EDGE
from hierlmm.likelihood.residual_rows import whiten_columns
from hierlmm.likelihood.solution import AnyCriterion

CHI2_95 = 3.841458820694124
HALF_CHI2_95 = 2.705543454095404
"""The same for one variance that may be zero: an even mixture of 0 and χ²₁."""
SAME = 1e-5
FLAT = 1e-9
RARELY = 3


def residual_messages(
    design: Design,
    criterion: AnyCriterion,
    optimum: Optimum,
    without: float | None,
    without_effects: Callable[[], float],
) -> list[str]:
    """Say what a user must know about the residual parameters.

    Parameters
    ----------
    design : Design
    criterion : ResidualCriterion
    optimum : Optimum
    without : float, optional
        The criterion at its optimum without residual correlation, where there are random effects.
    without_effects : callable
        Find the same without the random effects; called only where it is needed.
    """
    if not criterion.rows.parameters:
        return []
    correlation = criterion.rows.correlation
    notes = [] if correlation is None else correlation.spec.notes(correlation.gaps) + _rarely_together(correlation)
    ends = [_end_message(p, value) for p, value in _ends(criterion, optimum)] + _vanishing_reference(criterion, optimum)
    if ends:
        return notes + ends
    found = _not_identified(design, criterion, optimum)
    if found or without is None:
        return notes + found
    k, one = criterion.rows.n_correlation, "one degree of freedom"
    ways = ", or look at hl.semivariogram(fit) for what the data show"
    drop = without - optimum.value
    found = _competition(design, k, drop, CHI2_95, "residual correlation", one, "its estimate", ways)
    if found or optimum.n_boundary:  # a singular D has its own message
        return notes + found
    k, drop = design.n_random_parameters, without_effects() - optimum.value
    limit, count = (HALF_CHI2_95, "one variance") if k == 1 else (CHI2_95, one)
    ways = " (hl.MarginalModel has the residual correlation alone), or look at hl.semivariogram(fit)"
    return notes + _competition(design, k, drop, limit, "random effects", count, "their SDs", ways)


def _rarely_together(correlation: BoundCorrelation) -> list[str]:
    """Pairs of occasions whose correlation rests on one or two subjects."""
    spec, labels = correlation.spec, correlation.rows.labels
    pairs = list(zip(*spec._own_pairs(len(labels)), strict=True)) if spec.by_occasion else []
    named = []
    for level in correlation.levels if pairs else ():
        together = seen_together(correlation.rows, level.rows)
        few = [level.name(f"{labels[min(p)]} and {labels[max(p)]}") for p in pairs if together[p] < RARELY]
        named += few
    if not named:
        return []
    return [
        f"Occasions of {spec.time} that fewer than {RARELY} subjects have both of: {shorten(named)}. Their "
        "correlations rest on these subjects and on what all others allow. To go on: read their intervals, line the "
        "occasions up, or use a structure with fewer parameters."
    ]


def _vanishing_reference(criterion: AnyCriterion, optimum: Optimum) -> list[str]:
    """A reference group without residual variance, which the random effects reproduce row by row."""
    variance, m = criterion.rows.variance, criterion.structure.n_parameters
    if variance is None or not variance.groups or not m:
        return []
    further = optimum.lam.copy()
    further[:m] *= np.exp(4.0)
    further[m + criterion.rows.n_correlation :] += 4.0
    if criterion(further) - optimum.value >= SAME:
        return []
    group = f"{variance.spec.variable}={variance.groups[0]}"
    return [
        f"sigma, the residual SD of {group}, is at the end of its range, 0: the random effects reproduce these rows "
        "exactly, and the SD ratios to this group are at infinity. This is an estimate on the boundary, not an error. "
        "To go on: leave the variance function out, or let fewer coefficients vary."
    ]


def _ends(criterion: AnyCriterion, optimum: Optimum) -> list[tuple[Parameter, float]]:
    """Parameters that may go to the end of their range without a rise of the criterion, with that end."""
    m, found = criterion.structure.n_parameters, []
    for k, parameter in enumerate(criterion.rows.parameters):
        eta = optimum.lam[m + k]
        if np.isinf(parameter.lower) or abs(eta) < 3.0:
            continue
        moved = optimum.lam.copy()
        moved[m + k] = np.sign(eta) * max(EDGE, abs(eta))
        if criterion(moved) - optimum.value < SAME:
            found.append((parameter, parameter.upper if eta > 0 else parameter.lower))
    return found


def _end_message(parameter: Parameter, end: float) -> str:
    value = "infinity" if np.isinf(end) else f"{end:.4g}"
    return (
        f"{parameter.name} is at the end of its range, {value}: the likelihood does not fall on the way there, so the "
        "data hold no sign of anything else, and its interval is open on that side. This is an estimate at the "
        "boundary, not an error. To go on: leave this parameter out of the model, or fit by NUTS, whose posterior "
        "shows which values are still plausible."
    )


def _not_identified(design: Design, criterion: AnyCriterion, optimum: Optimum) -> list[str]:
    H = hessian(criterion.joint, np.append(optimum.lam, np.log(criterion.solution(optimum.lam).working_sd)))
    m = criterion.structure.n_parameters
    known = np.append(criterion.structure.filled(optimum.lam, SINGULAR_TOLERANCE), True)
    scale = np.where(known, 1.0 / np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300)), 0.0)
    values, vectors = np.linalg.eigh(H * scale[:, None] * scale + np.diag(np.where(known, 0.0, 1.0)))
    names = [p.name for p in criterion.rows.parameters]
    for value, vector in zip(values, vectors.T, strict=True):
        share = np.abs(vector[m:-1])
        if value > FLAT * np.abs(values).max() or share.max(initial=0.0) < 1e-3:
            continue
        involved = [n for n, s in zip(names, share, strict=True) if s > 0.1 * share.max()]
        more = f" (and {len(involved) - 4} more)" if len(involved) > 4 else ""
        if np.abs(vector[:m]).max(initial=0.0) > 1e-3:
            partner = " and the variances of the random effects"
            what = f"{design.residual or design.residual_variance} beside the random effects"
        else:
            partner = " and σ" if len(involved) == 1 else ""
            what = f"{design.residual or design.residual_variance} at the distances of these data"
        return [
            f"{', '.join(involved[:4])}{more}{partner} are not identified together: the likelihood is the same along a "
            "whole curve of their values, and the fit shows one point of it. Two parts of the model describe one and "
            f"the same covariance (here {what}). β and its standard errors are not touched. To go on: drop one of the "
            "two."
        ]
    return []


def _competition(
    design: Design, k: int, drop: float, limit: float, without: str, count: str, profile: str, ways: str
) -> list[str]:
    """What to say where the criterion rises by less than ``limit`` without one of two parts of k parameters."""
    if drop >= limit:
        return []
    return [
        f"Random effects and {type(design.residual).__name__} compete for the same correlation: without the {without} "
        f"({k} parameter{'s' if k > 1 else ''} less) the log-likelihood falls by {max(drop, 0.0) / 2:.4f} only "
        f"({limit / 2:.2f} would count at 5 % on {count}). {profile.split()[0].capitalize()} profile is flat: read "
        f"variance_components(method='profile') before giving {profile} or a Wald interval any weight. To go on: drop "
        f"one of the two{ways}."
    ]


NEAR, FAR = 10.0, 14.0
"""Where the rate is looked at: beyond, rounding sets in; a limit has flattened by exp(-4) between them."""
LEAST_RATE = 0.5
STEADY = 0.1
ON_THE_WAY = 6.0
"""An unconstrained parameter of this size is on its way to the end, if that end has no bottom."""
LARGEST_SHIFT = 340.0
"""Beyond, the square of σ is none of the numbers that a computer has."""
UNBOUNDED = "The likelihood has no highest value"
SEE = "docs, page 'Residual structures'"


@dataclass(frozen=True)
class Ray:
    """Residual parameters and the ends of their ranges towards which the criterion falls for ever.

    Attributes
    ----------
    direction : (k,)
        -1, 0 or 1 for each residual parameter η: one of them, or all ratios to a group that loses its variance. Of the
        power or rate of a variance function the size is such that the SDs of the rows move apart by a factor of e.
    rate : float
        By how much the criterion falls per unit of the direction.
    """

    direction: FloatArray
    rate: float

    def at(self, eta: FloatArray, size: float) -> FloatArray:
        """η with the parameters of the ray at ±``size``."""
        return np.where(self.direction != 0.0, size * self.direction, eta)


def unbounded_rays(criterion: AnyCriterion, lam: FloatArray, *, arrived: bool = False) -> list[Ray]:
    """Rays from ψ along which the criterion falls for ever, the other parameters held (β and σ at their best).

    A ray that falls is proof; that none does is none, since the other parameters might have to move along.

    Parameters
    ----------
    criterion : ResidualCriterion
    lam : (m,)
    arrived : bool
        Only the rays that ψ is far out on already.
    """
    if not criterion.rows.parameters:
        return []
    found, eta = [], lam[criterion.structure.n_parameters :]
    for direction in _directions(criterion, lam):
        along = direction != 0.0
        if arrived and not np.all(eta[along] / direction[along] > ON_THE_WAY):
            continue
        near, middle, far = (_fall(criterion, lam, direction, size) for size in (NEAR, 0.5 * (NEAR + FAR), FAR))
        if far > LEAST_RATE and max(abs(near - far), abs(middle - far)) < STEADY * far:
            found.append(Ray(direction, far))
    return found


def _directions(criterion: AnyCriterion, lam: FloatArray) -> list[FloatArray]:
    """Each residual parameter alone, both ways; all variance ratios upwards, which takes σ to zero."""
    parameters, k = criterion.rows.parameters, criterion.rows.n_correlation
    bounded = np.array([np.isfinite(p.lower) for p in parameters], dtype=bool)
    eta, found = lam[criterion.structure.n_parameters :], []
    for place in np.flatnonzero(bounded):
        others = eta[k:][np.arange(k, len(parameters)) != place] if place >= k else np.empty(0)
        for sign in (-1.0, 1.0):
            # Where other ratios are far away already, one alone only catches up with them.
            if not np.any(sign * others > ON_THE_WAY):
                found.append(sign * np.eye(len(parameters))[place])
    if criterion.rows.variance is not None:
        for place in np.flatnonzero(~bounded[k:]):
            unit = np.eye(len(parameters) - k)[place]
            log_ratio = criterion.rows.variance.centred_log_ratio
            spread = float(np.ptp(log_ratio(eta[k:] + unit) - log_ratio(eta[k:])))
            if spread > 0.0:
                found += [np.append(np.zeros(k), sign * unit / spread) for sign in (-1.0, 1.0)]
    if len(parameters) > k + 1 and np.all(bounded[k:]):
        found.append((np.arange(len(parameters)) >= k).astype(np.float64))
    return found


def _fall(criterion: AnyCriterion, lam: FloatArray, direction: FloatArray, size: float) -> float:
    """By how much the criterion falls per unit of η along a direction; 0 where it cannot be evaluated."""
    m, k, variance = criterion.structure.n_parameters, criterion.rows.n_correlation, criterion.rows.variance
    values = []
    for end in (size - 0.5, size + 0.5):
        eta, scale = Ray(direction, 0.0).at(lam[m:], end), 1.0
        if variance is not None:  # D/σ² is relative to an average row: most rows keep theirs
            moved = variance.centred_log_ratio(eta[k:]) - variance.centred_log_ratio(lam[m + k :])
            scale = float(np.exp(np.median(moved)))
        values.append(criterion(np.append(scale * lam[:m], eta)))
    return values[0] - values[1] if np.all(np.isfinite(values)) else 0.0


def refuse_divergence(design: Design, criterion: AnyCriterion, lam: FloatArray) -> None:
    """Refuse an optimum that is only where a search for a maximum that does not exist was stopped.

    Raises
    ------
    DataError
    """
    for ray in unbounded_rays(criterion, lam, arrived=True):
        what, end, who = _words(design, criterion, lam, ray)
        raise DataError(
            f"{what}, by {'REML' if criterion.reml else 'maximum likelihood'}",
            f"the likelihood has no maximum: it grows without end as {end}, because the coefficients reproduce "
            f"exactly what then has no variance ({who}; the log-likelihood rises by "
            f"{0.5 * ray.rate * np.log(10.0):z.2f} for every factor of ten)",
            _remedy(criterion),
            SEE,
        )


def refuse_extreme_sigma(design: Design, shift: float, largest: float = LARGEST_SHIFT) -> None:
    """Refuse a variance function whose σ, the SD where its variable is zero or one, no floating-point number holds.

    Parameters
    ----------
    design : Design
    shift : float
        Log of the average row's SD over σ.
    largest : float
        What is too far from zero for it.

    Raises
    ------
    DataError
    """
    if abs(shift) > largest:
        spec = design.residual_variance
        assert spec is not None
        raise DataError(
            spec_text(spec),
            f"sigma, the residual SD where {spec.variable or 'the fitted value'} is one or zero, would be "
            f"exp({-shift:.0f}) times that of the rows: the data are too far from there",
            "count the variable from a point near the data, in a column of its own (year - 1989)",
            SEE,
        )


def unbounded_note(design: Design, criterion: AnyCriterion, lam: FloatArray) -> list[str]:
    """Say that the estimate is a maximum inside, where the likelihood has none at all."""
    without_effects = np.where(np.arange(len(lam)) < criterion.structure.n_parameters, 0.0, lam)
    rays = unbounded_rays(criterion, lam) or unbounded_rays(criterion, without_effects)
    if not rays:
        return []
    _, end, who = _words(design, criterion, lam, rays[0])
    return [
        f"{UNBOUNDED}: it grows without end as {end}, where the coefficients reproduce {who} exactly. The fit is its "
        "maximum inside the range, which is what is wanted; it is no global one, and profile intervals are those "
        f"around it. To go on: keep it, or {_remedy(criterion)}."
    ]


def _words(design: Design, criterion: AnyCriterion, lam: FloatArray, ray: Ray) -> tuple[str, str, str]:
    """The structures, the end of the range, and the subjects whose determinants fall."""
    moving = np.flatnonzero(ray.direction)
    parameter, variance = criterion.rows.parameters[moving[0]], criterion.rows.variance
    end = parameter.upper if ray.direction[moving[0]] > 0 else parameter.lower
    structures = " and ".join(spec_text(s) for s in (design.residual, design.residual_variance) if s is not None)
    (near, n), (far, _) = (_determinants(criterion, lam, ray, size) for size in (NEAR, FAR))
    # Ratios that go to infinity together are a reference that loses its variance: what counts is relative.
    members = np.flatnonzero(far - near < n * np.max((far - near) / n) - 0.5 * LEAST_RATE * (FAR - NEAR))
    subject = design.hierarchy.subject
    who = f"{subject} {shorten(design.subjects[members])}" if members.size else f"every {subject}"
    value = f"{end:.4g}" if np.isfinite(end) else "infinity" if end > 0.0 else "-infinity"
    goes = f"{parameter.name} goes to {value}"
    if variance is not None and variance.groups and end == np.inf:
        goes = f"sigma, the residual SD of {variance.spec.variable}={variance.groups[0]}, goes to 0"
    return structures, goes, f"rows of {who}"


def _determinants(criterion: AnyCriterion, lam: FloatArray, ray: Ray, size: float) -> tuple[FloatArray, FloatArray]:
    """log|Σ_i/σ²| by subject at a point of the ray, and the numbers of rows: (J,), (J,)."""
    estimate = criterion.rows.at(ray.at(criterion.split(lam)[1], size))
    assert estimate is not None  # it has the parameters of the ray
    return whiten_columns(estimate, np.zeros((criterion.n_obs, 1)))[1], np.diff(estimate.rows.start)


def _remedy(criterion: AnyCriterion) -> str:
    reml = "" if criterion.reml else "fit by REML, which leaves out what coefficients reproduce; "
    return f"{reml}use fewer residual parameters or coefficients, or fit by NUTS, whose prior keeps them inside"
