"""Default priors of a model: ours, and Bambi's (those of generalised models: `hierlmm.bayes.family_priors`).

Defaults, with standard deviations computed with divisor N as in Bambi (y less its offset):

    alpha      ~ Normal(mean(y), 2.5 sd(y))
    beta_k     ~ Normal(0, 2.5 sd(y) / sd(x_k)),    sd(x_k) with the level-1 covariates centred
    sd(b_k)    ~ HalfNormal(2.5 sd(y) / sd(z_k)),   sd(z) taken as 1 for the intercept
    corr(b)    ~ LKJ(2);   where all correlations are equal, Uniform(-1/(q - 1), 1)
    sigma      ~ HalfStudentT(4, sd(y))

Beside correlated slopes the random intercept, too, is that of centred columns: the priors are those of
``D* = A D A'``, ``A = [[1, mean(z)'], [0, I]]``, in which the intercept is the subject's line at average covariates, so
that the zero of a covariate (a calendar year) says nothing. A prior that the user gives sd(b_0) is of b_0 as written.

Without a fixed intercept coefficients are deviations from zero, not from the mean, so sd(y) and sd(x_k) become
root mean squares for beta (and for sd(b), sigma where the columns of X do not add up to a constant either).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distributions import LKJ, HalfNormal, HalfStudentT, Normal
from hierlmm.bayes.family_priors import bambi_of_probabilities, bambi_scale, dispersion_priors, scale_of_predictor
from hierlmm.bayes.residual_priors import residual_prior
from hierlmm.bayes.resolved import ResolvedPriors, is_intercept
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import SpecificationError
from hierlmm.likelihood.residual_rows import residual_rows

SEE = "docs, page 'Priors'"
MULTIPLIER = 2.5


def default_priors(design: Design) -> ResolvedPriors:
    """Defaults of this package."""
    design = design.like_all()
    mean, spread, origin = _scale_of(design) if design.is_gaussian else scale_of_predictor(design)
    has_intercept = design.intercept is not None
    level = spread if design.constant is not None else origin
    shift = _shift_to_averages(design)
    at_average = design.X - design.X @ shift
    sd = np.empty(len(design.coef))
    for k in range(len(design.coef)):
        if k == design.intercept:
            sd[k] = MULTIPLIER * spread
        elif has_intercept:
            sd[k] = MULTIPLIER * spread / _scale(at_average[:, k])
        else:
            sd[k] = MULTIPLIER * origin / float(np.sqrt(np.mean(at_average[:, k] ** 2)))
    beta = [Normal(mean if k == design.intercept else 0.0, float(sd[k])) for k in range(len(sd))]
    scales = [1.0 if is_intercept(t) else _scale(design.own_Z[:, k]) for k, t in enumerate(design.own_term)]
    sd_b = [MULTIPLIER * level / s for s in scales]
    return _assemble(design, beta, sd_b, level, "default", shift, _random_center(design))


def _scale_of(design: Design) -> tuple[float, float, float]:
    """Mean, standard deviation and root mean square of a Gaussian response less its offset."""
    y = design.y - design.offset
    _check_varies(y, design)
    return float(np.mean(y)), float(np.std(y)), float(np.sqrt(np.mean(y**2)))


def centre_of(design: Design, shift: FloatArray) -> FloatArray:
    """Means of the columns of X at average level-1 covariates, for the intercept of the centred design: (p,)."""
    design = design.like_all()
    if design.intercept is None:
        return np.zeros(len(design.coef))
    center = (design.X - design.X @ shift).mean(axis=0)
    center[design.intercept] = 0.0
    return center


def _shift_to_averages(design: Design) -> FloatArray:
    """How coefficients change if the level-1 covariates are centred: ``beta* = (I + shift) beta``, (p, p).

    The mean of a level-1 column times its coefficient goes into the level-2 equation of the intercept, where that holds
    the same level-2 covariate (``sex`` beside ``sex:time``); elsewhere nothing is moved.
    """
    shift = np.zeros((len(design.coef),) * 2)
    if INTERCEPT not in design.level1:
        return shift
    zero = design.level1.index(INTERCEPT)
    own, others = np.flatnonzero(design.coef_level1 == zero), np.flatnonzero(design.coef_level1 != zero)
    if len(own) and len(others):
        a = np.linalg.lstsq(design.W[:, own], design.W[:, others])[0]
        found = np.abs(design.W[:, own] @ a - design.W[:, others]).max(axis=0)
        held = found < 1e-9 * np.abs(design.W[:, others]).max(axis=0)
        moved = design.X1.mean(axis=0)[design.coef_level1[others]] * np.where(np.abs(a) < 1e-9, 0.0, a)
        shift[np.ix_(own, others[held])] = moved[:, held]
    if design.intercept is not None:
        shift[design.intercept] = 0.0  # the centred design's intercept is at the averages anyway
    return shift


def _random_center(design: Design) -> FloatArray:
    """Means of the columns of Z that correlate with a random intercept: (q,)."""
    center, q = np.zeros(len(design.term)), design.n_own
    if design.covariance in SPECTRAL:
        return center
    for block in design.blocks:  # of the first level; the others have the same blocks and the same averages
        if max(block) < q and any(is_intercept(design.own_term[k]) for k in block):
            others = [k for k in block if not is_intercept(design.own_term[k])]
            center[others] = design.own_Z[:, others].mean(axis=0)
    return np.tile(center[:q], max(1, len(design.group_levels)))


def bambi_priors(design: Design) -> ResolvedPriors:
    """Defaults of Bambi 0.21 (``bambi/priors/scaler.py``): the intercept's scale grows with the slopes' scales."""
    design = design.like_all()
    if design.is_gaussian:
        spread, mean = float(np.std(design.y)), float(np.mean(design.y))
        _check_varies(design.y, design)
    else:
        mean, spread = bambi_scale(design)
    slopes = {k: MULTIPLIER * spread / _scale(design.X[:, k]) for k in range(len(design.coef)) if k != design.intercept}
    special = {} if design.is_gaussian else bambi_of_probabilities(design)
    slopes |= {k: sd for k, sd in special.items() if k != design.intercept}
    wide = math.sqrt((MULTIPLIER * spread) ** 2 + sum((s * design.X[:, k].mean()) ** 2 for k, s in slopes.items()))
    at = [special.get(k, wide) if k == design.intercept else slopes[k] for k in range(len(design.coef))]
    beta = [Normal(mean if k == design.intercept else 0.0, sd) for k, sd in enumerate(at)]
    slope = [MULTIPLIER * spread / _scale(design.own_Z[:, k]) for k in range(design.n_own)]
    sd_b = [wide if is_intercept(t) else slope[k] for k, t in enumerate(design.own_term)]
    nowhere = np.zeros((len(beta),) * 2), np.zeros(len(design.term))
    return _assemble(design, beta, sd_b, spread, "bambi", *nowhere)


def _assemble(
    design: Design, beta: Any, sd_b: list[float], level: float, source: str, shift: FloatArray, center: FloatArray
) -> ResolvedPriors:
    common = design.covariance in SPECTRAL
    groups = max(1, len(design.group_levels))
    if common:  # wide enough for every random effect
        sd_b = [max(sd_b)] * len(sd_b)
    correlated = any(len(b) > 1 for b in design.blocks)
    parameters = residual_rows(design).parameters if design.has_residual_structure else ()
    dispersion = {} if design.is_gaussian else dispersion_priors(design, source)
    return ResolvedPriors(
        coef=design.coef,
        term=design.term,
        beta=tuple(beta),
        sd_b=tuple(HalfNormal(s) for s in sd_b) * groups,
        corr_b=LKJ(1.0 if common else 2.0) if correlated else None,
        sigma=HalfStudentT(4.0, level) if design.is_gaussian else None,
        center=centre_of(design, shift),
        intercept=design.intercept,
        shift=shift,
        random_center=center,
        common_sd=common,
        n_groups=groups,
        sizes=tuple(len(own.names) for own in design.terms.random) if design.has_several_factors else (),
        source=source,
        residual_names=tuple(p.name for p in parameters),
        residual=tuple(residual_prior(p) for p in parameters),
        average_row=design.residual_variance is not None and design.residual_variance.centred,
        dispersion_names=tuple(dispersion),
        dispersion=tuple(dispersion.values()),
    )


def _varies(column: FloatArray) -> bool:
    """Whether a column's standard deviation is more than rounding: that of a constant is seldom exactly zero."""
    return float(np.std(column)) > 1e-12 * float(np.abs(column).max(initial=0.0))


def _scale(column: FloatArray) -> float:
    return float(np.std(column)) if _varies(column) else float(np.sqrt(np.mean(column**2)))


def _check_varies(y: FloatArray, design: Design) -> None:
    if not _varies(y):
        received = f"the response {design.hierarchy.response!r}, which is constant"
        reason = "the default priors take their scale from its standard deviation, which is zero"
        raise SpecificationError(received, reason, "check the response; a constant needs no model", SEE)
