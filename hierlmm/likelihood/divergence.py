"""Likelihoods without a bound: a residual parameter on whose way to the end of its range they grow for ever.

Where the residual covariance becomes singular at the end of a range, log|Σ| falls to -∞; the likelihood stays bounded
only as long as some residual lies in the direction that has lost its variance. If the coefficients can reproduce those
directions exactly (one subject with more rows than all others under compound symmetry, a group of two rows with a
variance and a coefficient of its own), nothing holds it: in the unconstrained parameter η, in which the vanishing
variance is ``exp(-|η|)`` or ``exp(-2|η|)``, the criterion falls by a constant whole number per unit of η, the number of
directions without variance (less those that REML leaves out). A criterion with a limit flattens like exp(-|η|) instead,
so two rates four units apart are told from each other without a threshold that depends on the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.errors import DataError
from hierlmm.frames import shorten
from hierlmm.likelihood.residual_rows import whiten_columns
from hierlmm.likelihood.solution import AnyCriterion

__all__ = ["UNBOUNDED", "Ray", "refuse_divergence", "refuse_extreme_sigma", "unbounded_note", "unbounded_rays"]

FloatArray = NDArray[np.float64]

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
            repr(spec),
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
    structures = " and ".join(repr(s) for s in (design.residual, design.residual_variance) if s is not None)
    (near, n), (far, _) = (_determinants(criterion, lam, ray, size) for size in (NEAR, FAR))
    # Ratios that go to infinity together are a reference that loses its variance: what counts is relative.
    members = np.flatnonzero(far - near < n * np.max((far - near) / n) - 0.5 * LEAST_RATE * (FAR - NEAR))
    names = shorten(design.subjects[members])
    value = f"{end:.4g}" if np.isfinite(end) else "infinity" if end > 0.0 else "-infinity"
    goes = f"{parameter.name} goes to {value}"
    if variance is not None and variance.groups and end == np.inf:
        goes = f"sigma, the residual SD of {variance.spec.variable}={variance.groups[0]}, goes to 0"
    return structures, goes, f"rows of {design.hierarchy.subject} {names}"


def _determinants(criterion: AnyCriterion, lam: FloatArray, ray: Ray, size: float) -> tuple[FloatArray, FloatArray]:
    """log|Σ_i/σ²| by subject at a point of the ray, and the numbers of rows: (J,), (J,)."""
    estimate = criterion.rows.at(ray.at(criterion.split(lam)[1], size))
    assert estimate is not None  # it has the parameters of the ray
    return whiten_columns(estimate, np.zeros((criterion.n_obs, 1)))[1], np.diff(estimate.rows.start)


def _remedy(criterion: AnyCriterion) -> str:
    reml = "" if criterion.reml else "fit by REML, which leaves out what coefficients reproduce; "
    return f"{reml}use fewer residual parameters or coefficients, or fit by NUTS, whose prior keeps them inside"
