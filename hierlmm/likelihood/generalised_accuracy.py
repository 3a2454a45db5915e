"""How far the optimum of an approximate likelihood is from that of a better one.

Laplace's method can be far off where a subject has few rows and they are counts or yes-or-no: with rare events its
likelihood may even rise to a second, false maximum at large variances. The gradient of the likelihood by quadrature (or
by more points of it) at the optimum says how far away the better optimum is, by one step of Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.generalised_criterion import GeneralisedCriterion

POINTS = {1: 25, 2: 9, 3: 7}
"""Quadrature points in each dimension that Laplace's method is judged by, for so many random effects."""
MORE = 10
DENSITIES = 2e7
"""Densities of rows that the comparison may cost; beyond, some of the subjects stand for all."""
FEWEST = 50
MUCH = 0.03
"""Log-likelihood of a subject that is much to be wrong by."""


@dataclass(frozen=True)
class Departure:
    """What a better approximation says at an optimum.

    Attributes
    ----------
    points : int
        Its quadrature points in each dimension.
    shift : (k,)
        How far its optimum lies away by Newton's step, in standard errors of (λ, β̃, ψ); NaN where there are none.
    loglik : float
        Its log-likelihood less the one reported.
    subjects : int
    """

    points: int
    shift: FloatArray
    loglik: float
    subjects: int

    @property
    def largest(self) -> float:
        """Largest shift, in standard errors; infinite where the better approximation has no value."""
        found = np.abs(self.shift[~np.isnan(self.shift)])
        return float(np.max(found, initial=0.0)) if np.isfinite(self.loglik) else np.inf

    def far(self, limit: float) -> bool:
        """Whether the optimum lies farther away, for what is wrong with each subject and not for their number alone."""
        return self.largest > limit and not abs(self.loglik) < MUCH * self.subjects


def better(criterion: GeneralisedCriterion) -> GeneralisedCriterion | None:
    """The criterion by quadrature, or by more points; None where random effects are too many, or of several factors."""
    q = criterion.structure.q
    if q not in POINTS or not criterion.has_quadrature:
        return None
    return replace(criterion, points=POINTS[q] if criterion.points == 1 else criterion.points + MORE)


def thinned(criterion: GeneralisedCriterion, densities: float = DENSITIES) -> tuple[GeneralisedCriterion, float]:
    """The criterion of so many subjects as so many densities of rows allow, and how many each of them stands for."""
    rows = criterion.rows
    J, cost = len(rows.start) - 1, len(rows.y) * criterion.points**criterion.structure.q
    some = min(J, max(FEWEST, int(J * densities / max(cost, 1))))
    if some == J:
        return criterion, 1.0
    subjects = np.unique(np.linspace(0, J - 1, some).astype(int))
    first = None if criterion.first is None else criterion.first[subjects]
    return replace(criterion, rows=rows.part(subjects), first=first), J / len(subjects)


def departure(estimate: Any) -> Departure | None:
    """Judge the optimum of a `GeneralisedEstimate`; None where there is nothing to judge it by."""
    fine = better(estimate.criterion)
    if fine is None or not np.isfinite(estimate.optimum.value):
        return None
    fine, share = thinned(fine)
    own = replace(fine, points=estimate.criterion.points)
    lam, covariance = estimate.optimum.lam, estimate.covariance
    (value, gradient), (reported, _) = fine.both(lam), own.both(lam)
    with np.errstate(all="ignore"):
        shift = covariance @ (0.5 * share * gradient) / np.sqrt(np.diag(covariance))
    subjects = len(estimate.criterion.rows.start) - 1
    return Departure(fine.points, -shift, -0.5 * share * (value - reported), subjects)
