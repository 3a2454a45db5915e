"""From a table to a design: rows are read, terms are learnt from them, and the levels of the covariates are found.

A factor that varies within at least one subject belongs to level 1, all others to level 2, so that every column of X is
a level-1 column times a level-2 value of the subject.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.agree import (
    canonical_blocks,
    check_coding,
    check_levels,
    check_margins,
    check_unique,
    covariance_blocks,
    split_parts,
)
from hierlmm.design.columns import Column, FactorColumns, evaluate_factors
from hierlmm.design.design import Design
from hierlmm.design.formula import ParsedFormula, refuse_response_as_subject, term_name
from hierlmm.design.hierarchy import Hierarchy, hierarchy_from_terms, marginal_hierarchy, random_blocks
from hierlmm.design.recipes import evaluate_vector
from hierlmm.design.residual import INDEPENDENT, Residual
from hierlmm.design.rows import Prepared, RandomTerm, Rows, Said, prepare
from hierlmm.design.terms import Parts, RandomColumns, Terms, check_finite, parts_name, product, stack
from hierlmm.errors import FormulaError
from hierlmm.groups import first_rows

__all__ = ["design_from_fixed", "design_from_formula", "design_from_hierarchy"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Formulas and levels'"


def design_from_formula(
    parsed: ParsedFormula,
    data: Any,
    *,
    covariance: str | None = None,
    residual: Residual = INDEPENDENT,
    missing: str = "raise",
) -> Design:
    """Read the levels of the covariates off the data and build the design of a combined formula."""
    if not parsed.random:
        reason = "the formula has no random effects, so nothing varies between subjects"
        remedy = "add them, for example '+ (1 | subject)'; for a model without random effects use hl.MarginalModel"
        raise FormulaError(f"'{parsed.response} ~ {' + '.join(map(term_name, parsed.fixed))}'", reason, remedy, SEE)
    blocks = random_blocks(parsed, covariance)
    said = Said(parsed.response, parsed.random[0].subject, parsed.fixed, blocks, parsed.offsets)
    learnt = _learn(data, said, residual, missing)
    return _assemble(hierarchy_from_terms(parsed, learnt.varying, covariance=covariance), learnt, residual)


def design_from_fixed(
    parsed: ParsedFormula, subject: str, data: Any, *, residual: Residual = INDEPENDENT, missing: str = "raise"
) -> Design:
    """Build the design of a marginal model: fixed effects, and rows that belong to subjects, without random effects."""
    if parsed.random:
        received = f"{term_name(parsed.random[0].terms[0])!r} in a bar of the formula of a marginal model"
        reason = "a marginal model has no random effects: what rows of a subject share is said by its correlation"
        remedy = "leave the parenthesis out and choose correlation=..., or use hl.TwoLevelModel.from_formula"
        raise FormulaError(received, reason, remedy, SEE)
    refuse_response_as_subject(parsed.response, subject)
    learnt = _learn(data, Said(parsed.response, subject, parsed.fixed, (), parsed.offsets), residual, missing)
    return _assemble(marginal_hierarchy(parsed, subject, learnt.varying), learnt, residual)


def design_from_hierarchy(
    hierarchy: Hierarchy, data: Any, *, residual: Residual = INDEPENDENT, missing: str = "raise"
) -> Design:
    """Build the design of a stated hierarchy, after checking that every covariate lives on the level it was put on.

    Raises
    ------
    SpecificationError
        If a level-2 covariate varies within a subject (it is named), or a level-1 covariate varies within none.
    """
    h = hierarchy
    said = Said(h.response, h.subject, h.fixed_terms, h.blocks, h.offsets, h.level1_terms)
    learnt = _learn(data, said, residual, missing)
    check_levels(hierarchy, learnt.rows, learnt.changes)
    check_margins(hierarchy, learnt.columns[0], learnt.varying)
    return _assemble(hierarchy, learnt, residual)


@dataclass(frozen=True)
class _Learnt:
    """Rows, and the columns of all factors learnt from them."""

    rows: Prepared
    columns: list[list[Column]]
    factors: FactorColumns
    values: dict[tuple[str, str], FloatArray]

    @cached_property
    def first(self) -> NDArray[np.intp]:
        """First row of every subject."""
        return first_rows(self.rows.subject.index, len(self.rows.subject.labels))

    @cached_property
    def changes(self) -> dict[str, NDArray[np.bool_]]:
        """Factor -> the rows in which it is not what it was in the subject's first, (N,)."""
        first = self.first[self.rows.subject.index]
        found: dict[str, NDArray[np.bool_]] = {}
        for (factor, _), column in self.values.items():
            changed = column != column[first]
            found[factor] = found[factor] | changed if factor in found else changed
        return found

    @cached_property
    def varying(self) -> frozenset[str]:
        """Factors whose value changes within at least one subject."""
        return frozenset(factor for factor, changed in self.changes.items() if np.any(changed))


def _learn(data: Any, said: Said, residual: Residual, missing: str) -> _Learnt:
    rows = prepare(data, said, residual, missing)
    columns, factors, values = evaluate_factors([said.fixed, *(b.terms for b in said.blocks)], rows.frame)
    for (factor, name), column in values.items():
        check_finite(column, name, factor, rows.frame)
    return _Learnt(rows, columns, factors, values)


def _assemble(hierarchy: Hierarchy, learnt: _Learnt, residual: Residual) -> Design:
    split = [split_parts(c.parts, learnt.varying) for c in learnt.columns[0]]
    terms = _terms(hierarchy, learnt, [level1 for level1, _ in split])
    rows = _rows(terms, learnt, [level2 for _, level2 in split])
    random = [RandomTerm(own, rows.subject, np.ascontiguousarray(rows.X1[:, own.columns])) for own in terms.random]
    return Design(terms, rows, tuple(random), residual.correlation, residual.variance)


def _terms(hierarchy: Hierarchy, learnt: _Learnt, in_fixed: list[Parts]) -> Terms:
    """The columns of level 1 (in the order of its terms) and those of X and Z among them."""
    fixed, random = learnt.columns[0], learnt.columns[1:]
    in_random = [c.parts for block in random for c in block]
    order = {t: i for i, t in enumerate(hierarchy.level1_terms)}
    level1 = list(dict.fromkeys(in_fixed + in_random))
    level1.sort(key=lambda parts: order.get(tuple(f for f, _ in parts), len(order)))
    check_coding(hierarchy, level1, in_fixed, in_random)
    names = tuple(parts_name(parts) for parts in in_random)
    for columns in ([c.name for c in fixed], list(names), [parts_name(parts) for parts in level1]):
        check_unique(columns)
    blocks, covariance = covariance_blocks(hierarchy, random)
    said = canonical_blocks(hierarchy, covariance, learnt.rows.levels)
    at = {parts: k for k, parts in enumerate(level1)}
    places = np.array([at[parts] for parts in in_random], dtype=np.intp)
    return Terms(
        hierarchy=replace(hierarchy, covariance=covariance, blocks=said),
        levels=learnt.rows.levels,
        factors=learnt.factors,
        fixed=tuple(fixed),
        level1_columns=tuple(level1),
        coef_level1=np.array([at[parts] for parts in in_fixed], dtype=np.intp),
        random=(RandomColumns(hierarchy.subject, places, names, blocks, covariance),) if names else (),
        dtypes=dict(learnt.rows.frame.dtypes),
    )


def _rows(terms: Terms, learnt: _Learnt, in_level2: list[Parts]) -> Rows:
    frame, subject, first = learnt.rows.frame, learnt.rows.subject, learnt.first
    X1 = stack([product(learnt.values, parts, len(frame)) for parts in terms.level1_columns], len(frame))
    of_subjects = {key: column[first] for key, column in learnt.values.items()}
    W = stack([product(of_subjects, parts, len(first)) for parts in in_level2], len(first))
    response = terms.hierarchy.response
    y = np.array(evaluate_vector(response, frame, "response"))  # not the frame's own memory
    check_finite(y, response, response, frame)
    offset = terms.offset(frame)
    check_finite(offset, "offset", " + ".join(terms.hierarchy.offsets), frame)
    X = X1[:, terms.coef_level1] * W[subject.index]
    return Rows(frame, subject, y, offset, X, X1, W, learnt.rows.n_dropped)
