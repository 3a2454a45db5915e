"""REML and ML from a design to the optimum, with what must be said about it.

    design  ->  cross-products, or rows to whiten  ->  criterion(λ, η)  ->  minimum  ->  `Solution` at it

One function for every model; where the residual variance depends on the fitted value, fitted values μ̂ and the fit at
variances g(μ̂) are renewed in turn until they agree (Pinheiro & Bates 2000, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from hierlmm.design.design import Design
from hierlmm.design.questions import row_order_messages
from hierlmm.errors import DataError
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.maximise import Optimum, maximise
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.residual_messages import (
    refuse_divergence,
    refuse_extreme_sigma,
    residual_messages,
    unbounded_note,
)
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.likelihood.several_factors import FactorCriterion, factor_criterion
from hierlmm.likelihood.solution import AnyCriterion, Solution
from hierlmm.likelihood.told_apart import not_told_apart
from hierlmm.notice import notice_if_slow

MAX_ALTERNATIONS = 100


@dataclass(frozen=True, eq=False)
class LikelihoodEstimate:
    """What an estimator by REML or ML returns.

    Attributes
    ----------
    design : Design
        The design itself; where the residual variance depends on the fitted value, with the fitted values in it.
    criterion : Criterion or ResidualCriterion
    optimum : Optimum
    """

    design: Design
    criterion: AnyCriterion
    optimum: Optimum

    @cached_property
    def solution(self) -> Solution:
        """β, D, σ and what else follows from the optimum."""
        return self.criterion.solution(self.optimum.lam)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before the estimates are used, in plain words; may take further fits."""
        return describe_optimum(self.design, self.criterion, self.optimum)


def make_criterion(design: Design, *, reml: bool) -> Criterion | ResidualCriterion:
    """The criterion of a design: on its cross-products, or on its rows where the residuals have a structure."""
    if len(design.random) > 1:
        return factor_criterion(design, reml=reml)
    structure = design.random_structure
    if design.whole is not None:
        return Criterion(cross_products(design), structure, reml)
    if design.has_residual_structure or not design.blocks:
        return ResidualCriterion(residual_rows(design), structure, reml)
    return Criterion(cross_products(design), structure, reml)


def maximise_design(design: Design, *, reml: bool) -> LikelihoodEstimate:
    """Maximise the (restricted) likelihood of a design.

    Raises
    ------
    DataError
        If the likelihood grows without end.
    """
    with notice_if_slow():
        if design.residual_variance is not None and design.residual_variance.variable is None:
            return _alternate(design, reml=reml)
        criterion = make_criterion(design, reml=reml)
        optimum = maximise(criterion)
        found = LikelihoodEstimate(design, criterion, optimum)
        refuse_divergence(design, criterion, optimum.lam)
        refuse_extreme_sigma(design, found.solution.shift)
        return found


def _alternate(design: Design, *, reml: bool) -> LikelihoodEstimate:
    """Renew fitted values and variances in turn until they agree (Pinheiro & Bates 2000, section 5.2)."""
    start, previous = None, None
    for _ in range(MAX_ALTERNATIONS):
        criterion = make_criterion(design, reml=reml)
        optimum = maximise(criterion, start)
        found = criterion.solution(optimum.lam)
        fitted = design.offset + design.X @ found.beta + np.einsum("ij,ij->i", design.Z, found.b[design.subject_index])
        if previous is not None and np.max(np.abs(fitted - previous)) <= 1e-9 * np.ptp(design.y):
            return LikelihoodEstimate(design, criterion, optimum)
        design, previous, start = replace(design, variance_fitted=fitted), fitted, optimum.lam
    received = f"a residual variance {design.residual_variance} that depends on the fitted value"
    reason = f"fitted values and variances have not settled after {MAX_ALTERNATIONS} rounds"
    remedy = "let the variance depend on a column of the data instead, for example VarPower('time')"
    raise DataError(received, reason, remedy, "docs, page 'Residual structures'")


def describe_optimum(design: Design, criterion: AnyCriterion, optimum: Optimum) -> tuple[str, ...]:
    """Plain words for a boundary optimum or an optimiser that stopped early."""
    messages: list[str] = []
    if not optimum.converged:
        messages.append(
            f"The optimiser stopped at a gradient norm of {optimum.gradient_norm:.1e} "
            f"(below {optimum.tolerance:.0e} is converged). "
            "The estimates may be off in their last digits or more. This happens when parameters are barely "
            "determined: simplify the random effects, rescale covariates, or look at fit.criterion_function."
        )
    if optimum.n_boundary:
        everywhere = optimum.search is None or optimum.search.n_points > 1
        messages.append(singular_message(design, criterion, optimum, *([] if everywhere else [""])))
    if isinstance(criterion, FactorCriterion):
        messages += not_told_apart(design, criterion, optimum.lam, optimum.value)
    messages += unbounded_note(design, criterion, optimum.lam)
    messages += row_order_messages(design)
    plain = _without_correlation(design, criterion)
    effects = partial(_without_effects, design, criterion, optimum)
    messages += residual_messages(design, criterion, optimum, plain, effects)
    return tuple(messages)


def _without_correlation(design: Design, criterion: AnyCriterion) -> float | None:
    """The criterion at its optimum without the residual correlation; None where there are no random effects."""
    if design.residual is None or not design.blocks:
        return None
    plain = make_criterion(replace(design, residual=None), reml=criterion.reml)
    return maximise(plain).value


def _without_effects(design: Design, criterion: AnyCriterion, optimum: Optimum) -> float:
    """The criterion at its optimum without random effects, from the residual parameters of the optimum with them."""
    plain = make_criterion(design.without_random(), reml=criterion.reml)
    return maximise(plain, optimum.lam[criterion.structure.n_parameters :]).value


def singular_message(design: Design, criterion: Any, optimum: Optimum, how: str = ", searched globally,") -> str:
    """Plain words for a D without full rank; of any criterion with a structure and a scaling."""
    half = criterion.scaling.factor(criterion.structure.factor(optimum.lam))
    D = half @ half.T
    # In units of what each effect contributes to y, relative to the residual SD.
    sd = np.sqrt(np.diag(D) * np.mean(design.Z**2, axis=0))
    zero = [design.term[k] for k in range(len(sd)) if sd[k] < 1e-4 or len(sd) == 1]
    several = design.has_several_factors
    between = "their groups" if several else "subjects"
    found = []
    if zero:
        names = " and ".join(zero)
        nuts = "or fit by NUTS, whose posterior shows which positive variances are still plausible."
        drop = f"drop {names} from the random effects"
        found.append(
            f"The data support no variation in {names} between {between}: the likelihood{how} is highest "
            "at a variance of zero. This is an estimate on the boundary of the parameter space, not an error; other "
            f"estimates hold given that. To go on: keep it, {drop}, {nuts}"
        )
    block = [b for b in design.blocks if len(b) > 1 and np.linalg.matrix_rank(half[np.ix_(b, b)], tol=1e-6) < len(b)]
    if zero:  # beside it, blocks that lack rank although none of their variances is zero
        block = [b for b in block if not any(design.term[k] in zero for k in b)]
    if zero and not block:
        return found[0]
    names = "; of ".join(", ".join(design.term[k] for k in b) for b in block or [tuple(range(len(sd)))])
    apart = "write || where they stand in the formula" if several else "use covariance='diagonal'"
    found.append(
        f"The data support fewer independent ways to differ between {between} than the model has: the random effects "
        f"of {names} are perfectly dependent at the optimum (a correlation of ±1, or a combination without variance). "
        f"This is an estimate on the boundary, not an error. To go on: keep it, {apart}, let fewer coefficients vary, "
        "or fit by NUTS, whose prior keeps D off the boundary."
    )
    return " ".join(found)
