"""A design with other random effects, or other residual structures, for the same rows and fixed effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hierlmm.covariance.composed import composed, group_of, stated
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.build import design_again
from hierlmm.design.design import Design
from hierlmm.design.formula import Term, term_name
from hierlmm.design.hierarchy import Hierarchy, RandomBlock
from hierlmm.design.residual import Residual
from hierlmm.inference.maximum import Maximum
from hierlmm.likelihood.descent import GRADIENT_TOLERANCE


def with_blocks(design: Design, blocks: Sequence[RandomBlock], covariance: str) -> Design:
    """The design with other random effects; none at all is a marginal model."""
    h = design.hierarchy
    terms = {t for block in blocks for t in block.terms}
    kept = [k for k, t in enumerate(h.level1_terms) if h.level2_terms[k] or t in terms]
    own: Hierarchy = replace(
        h,
        level1_terms=tuple(h.level1_terms[k] for k in kept) + tuple(t for t in terms if t not in h.level1_terms),
        level2_terms=tuple(h.level2_terms[k] for k in kept) + tuple(() for t in terms if t not in h.level1_terms),
        blocks=tuple(blocks),
        covariance=covariance if blocks else "none",
        group=h.group if blocks else None,
    )
    residual = Residual(design.residual, design.residual_variance)
    made = design_again(own, design.frame, residual=residual, outcome=design.outcome)
    return replace(made, rows=replace(made.rows, n_dropped=design.n_dropped, kept=design.rows.kept))


def without_term(design: Design, term: Term) -> Design:
    """The design without the random effects of one term."""
    h = design.hierarchy
    left = [RandomBlock(tuple(t for t in b.terms if t != term), b.correlated) for b in h.blocks]
    blocks = [b for b in left if b.terms]
    structure = h.covariance
    if structure == "blocks" and len(blocks) < 2:
        structure = "unstructured"
    return with_blocks(design, blocks, structure)


def droppable(design: Design) -> list[Term]:
    """Terms of the random effects that may be dropped one at a time: those that no other random term contains.

    The intercept may be dropped only where nothing else varies. Where all random effects share one variance they go
    together, and the list is empty.
    """
    terms = [t for b in design.hierarchy.blocks for t in b.terms]
    if design.covariance in SPECTRAL and len(design.term) > 1:
        return []
    return [t for t in terms if not any(set(t) < set(other) for other in terms)]


def name_of(term: Term) -> str:
    """A term as its coefficient is named."""
    return term_name(term)


def with_correlations(design: Design, correlated: bool) -> Design:
    """The design with all random effects in one block, or all uncorrelated."""
    terms = tuple(t for b in design.hierarchy.blocks for t in b.terms)
    structure = "unstructured" if correlated else "diagonal"
    return with_blocks(design, [RandomBlock(terms, correlated)], structure)


def with_group(design: Design, group: str | None) -> Design:
    """The design with a D for every level of a factor, or with one for all."""
    h = design.hierarchy
    return with_blocks(
        replace(design, terms=replace(design.terms, hierarchy=replace(h, group=group))), h.blocks, h.covariance
    )


def with_residual_group(design: Design, group: str | None) -> Design:
    """The design with residual parameters for every level of a factor, or with the same for all."""
    whole = composed(stated(design.residual_variance), group, design.weights)
    return replace(design, residual_variance=whole, variance_fitted=None)


def with_residual(design: Design, correlation: Any, variance: Any) -> Design:
    """The design with other residual structures, in columns that the data have; weights and groups stay."""
    whole = composed(variance, group_of(design.residual_variance), design.weights)
    return replace(design, residual=correlation, residual_variance=whole, variance_fitted=None)


def without_effects(large: Maximum) -> Maximum:
    """A model of another family at its maximum without random effects: the criterion where D is zero, in β̃ and ψ."""
    from scipy.optimize import minimize

    criterion, m = large.criterion, large.criterion.structure.n_parameters
    zero = np.zeros(m)

    def both(rest: Any) -> tuple[float, Any]:
        value, gradient = criterion.both(np.concatenate([zero, rest]))
        return value, gradient[m:]

    found = minimize(both, large.optimum.lam[m:], jac=True, method="BFGS", options={"gtol": GRADIENT_TOLERANCE})
    optimum = replace(large.optimum, lam=found.x, value=float(found.fun), n_boundary=0, others=(), search=None)
    return Maximum(with_blocks(large.design, [], "none"), criterion, optimum)
