"""Estimates of a fit with several factors without each group of one of them: fitted again, from the fit's own θ̂."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.factors import design_from_factors, unknown_factor
from hierlmm.design.formula import MULTILEVEL, parse_formula
from hierlmm.diagnostics.factor_design import lam_at
from hierlmm.diagnostics.replicate import EXPECTED
from hierlmm.errors import NotAvailableError
from hierlmm.fits.components import component_labels, component_values
from hierlmm.fits.multilevel import MultilevelNumbers
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise_again

MOST_GROUPS = 200
"""Groups of a factor, each of which is one more fit."""


class WithoutGroups(NamedTuple):
    """β (J, p), Cov(β) (J, p, p), components by name and the move of θ (J,); NaN where the others cannot be fitted."""

    beta: FloatArray
    beta_cov: FloatArray
    components: list[dict[str, float]]
    moved: FloatArray


def without_groups(fit: MultilevelNumbers, factor: str) -> WithoutGroups:
    """Fit the rows outside each group of a factor.

    Raises
    ------
    DataError
        If there is no such factor.
    NotAvailableError
        If it has more than 200 groups.
    """
    design = fit.design
    terms = {term.columns.group: term for term in design.random}
    if factor not in terms:
        raise unknown_factor(factor, list(terms))
    group = terms[factor].group
    J, p = len(group.labels), len(design.coef)
    if J > MOST_GROUPS:
        received, reason = f"influence({factor!r}) with {J:,} groups", "the model is fitted again without each of them"
        remedy = f"choose a factor with up to {MOST_GROUPS} groups"
        raise NotAvailableError(received, reason, remedy, MULTILEVEL)
    parsed = parse_formula(design.hierarchy.formula, several=True)
    found = WithoutGroups(np.full((J, p), np.nan), np.full((J, p, p), np.nan), [], np.full(J, np.nan))
    centre, spread = fit.optimum.lam, np.linalg.pinv(fit.large_sample.covariance[:-1, :-1], hermitian=True)
    for j in range(J):
        try:
            own = design_from_factors(parsed, design.frame[group.index != j])
            check_design(own)
            if own.coef != design.coef or own.term != design.term:
                raise ArithmeticError
            criterion = make_criterion(own, reml=fit.reml)
            optimum = maximise_again(criterion, lam_at(criterion, fit.solution.D, fit.sigma))
        except EXPECTED:
            found.components.append({})
            continue
        at = criterion.solution(optimum.lam)
        found.beta[j], found.beta_cov[j] = at.beta, at.beta_cov
        found.components.append(
            dict(zip(component_labels(design), component_values(design, at.D, at.sigma), strict=True))
        )
        step = lam_at(fit.criterion_function, at.D, at.sigma) - centre
        found.moved[j] = np.sqrt(max(float(step @ spread @ step), 0.0))
    return found
