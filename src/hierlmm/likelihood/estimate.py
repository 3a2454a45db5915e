"""REML and ML from a design to the optimum, with what must be said about it."""

from __future__ import annotations

import numpy as np

from hierlmm.covariance.random import random_covariance
from hierlmm.design import Design
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.maximise import Optimum, maximise
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.notice import notice_if_slow

__all__ = ["describe_optimum", "make_criterion", "maximise_design"]


def make_criterion(design: Design, *, reml: bool) -> Criterion | ResidualCriterion:
    """The criterion of a design: on its cross-products, or on its rows where the residuals have a structure."""
    structure = random_covariance(design.covariance, design.blocks)
    if design.has_residual_structure or not design.blocks:
        return ResidualCriterion(residual_rows(design), structure, reml)
    return Criterion(cross_products(design), structure, reml)


def maximise_design(design: Design, *, reml: bool) -> tuple[Criterion | ResidualCriterion, Optimum]:
    """Maximise the (restricted) likelihood of a design."""
    with notice_if_slow():
        criterion = make_criterion(design, reml=reml)
        return criterion, maximise(criterion)


def describe_optimum(design: Design, criterion: Criterion, optimum: Optimum) -> tuple[str, ...]:
    """Plain words for a boundary optimum or an optimiser that stopped early."""
    messages: list[str] = []
    if not optimum.converged:
        messages.append(
            f"The optimiser stopped at a gradient norm of {optimum.gradient_norm:.1e} (below 1e-6 is converged). "
            "The estimates may be off in their last digits or more. This happens when parameters are barely "
            "determined: simplify the random effects, rescale covariates, or look at fit.criterion_function."
        )
    if optimum.n_boundary:
        messages.append(_singular_message(design, criterion, optimum))
    return tuple(messages)


def _singular_message(design: Design, criterion: Criterion, optimum: Optimum) -> str:
    half = criterion.products.scaling.factor(criterion.structure.factor(optimum.lam))
    D = half @ half.T
    # In units of what each effect contributes to y, relative to the residual SD.
    sd = np.sqrt(np.diag(D) * np.mean(design.Z**2, axis=0))
    zero = [design.term[k] for k in range(len(sd)) if sd[k] < 1e-4]
    if zero:
        names = " and ".join(zero)
        return (
            f"The data support no variation in {names} between subjects: the likelihood is highest at a variance of "
            "zero. This is an estimate on the boundary of the parameter space, not an error; other estimates hold "
            f"given that. To go on: keep it, drop {names} from the random effects, or fit by NUTS, whose posterior "
            "shows which positive variances are still plausible."
        )
    block = [b for b in design.blocks if len(b) > 1 and np.linalg.matrix_rank(half[np.ix_(b, b)], tol=1e-6) < len(b)]
    names = ", ".join(design.term[k] for k in (block[0] if block else range(len(sd))))
    return (
        f"The data support fewer independent ways to differ between subjects than the model has: the random effects of "
        f"{names} are perfectly dependent at the optimum (a correlation of ±1, or a combination without variance). "
        "This is an estimate on the boundary, not an error. To go on: keep it, use covariance='diagonal', let fewer "
        "coefficients vary, or fit by NUTS, whose prior keeps D off the boundary."
    )
