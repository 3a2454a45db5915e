"""What must be said about the residual structure at an optimum: ends of ranges, what is not identified, competition.

All of it comes from the criterion itself (its value elsewhere, and its curvature), not from a Hessian that failed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hierlmm.covariance.parameters import Parameter
from hierlmm.design.design import Design
from hierlmm.likelihood.descent import hessian
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE, Optimum
from hierlmm.likelihood.residual_criterion import EDGE
from hierlmm.likelihood.solution import AnyCriterion

__all__ = ["residual_messages"]

FloatArray = NDArray[np.float64]

CHI2_95 = 3.841458820694124
HALF_CHI2_95 = 2.705543454095404
"""The same for one variance that may be zero: an even mixture of 0 and χ²₁."""
SAME = 1e-5
FLAT = 1e-9


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
    notes = [] if correlation is None else correlation.spec.notes(correlation.gaps)
    ends = [_end_message(p, value) for p, value in _ends(criterion, optimum)] + _vanishing_reference(criterion, optimum)
    if ends:
        return notes + ends
    found = _not_identified(design, criterion, optimum)
    if found or without is None:
        return notes + found
    found = _competition(design, criterion, optimum, without)
    if found or optimum.n_boundary:  # a singular D has its own message
        return notes + found
    return notes + _redundant_effects(design, optimum, without_effects())


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


def _competition(design: Design, criterion: AnyCriterion, optimum: Optimum, without: float) -> list[str]:
    drop = without - optimum.value
    k = criterion.rows.n_correlation
    if drop >= CHI2_95:
        return []
    return [
        f"Random effects and {type(design.residual).__name__} compete for the same correlation: without the residual "
        f"correlation ({k} parameter{'s' if k > 1 else ''} less) the log-likelihood falls by {max(drop, 0.0) / 2:.4f} "
        "only (1.92 would count at 5 % on one degree of freedom). Its profile is flat: read variance_components("
        "method='profile') before giving its estimate or a Wald interval any weight. To go on: drop one of the two, or "
        "look at hl.semivariogram(fit) for what the data show."
    ]


def _redundant_effects(design: Design, optimum: Optimum, without: float) -> list[str]:
    drop = without - optimum.value
    k = design.n_random_parameters
    limit = HALF_CHI2_95 if k == 1 else CHI2_95
    if drop >= limit:
        return []
    count = "one variance" if k == 1 else "one degree of freedom"
    return [
        f"Random effects and {type(design.residual).__name__} compete for the same correlation: without the random "
        f"effects ({k} parameter{'s' if k > 1 else ''} less) the log-likelihood falls by {max(drop, 0.0) / 2:.4f} only "
        f"({limit / 2:.2f} would count at 5 % on {count}). Their profile is flat: read variance_components("
        "method='profile') before giving their SDs or a Wald interval any weight. To go on: drop one of the two "
        "(hl.MarginalModel has the residual correlation alone), or look at hl.semivariogram(fit)."
    ]
