"""From a table to a design: rows are read, terms are learnt from them, and the levels of the covariates are found.

A factor that varies within at least one subject belongs to level 1, all others to level 2, so that every column of X is
a level-1 column times a level-2 value of the subject. A hierarchy that was stated must agree with the columns of its
terms: levels, codings, names, blocks of D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.columns import NO_STATES, Column, FactorColumns, evaluate_factors
from hierlmm.design.design import Design
from hierlmm.design.formula import SEE, ParsedFormula, Term, refuse_response_as_subject, term_name, unquoted
from hierlmm.design.groups import levels_of_group
from hierlmm.design.hierarchy import Hierarchy, RandomBlock, hierarchy_from_terms, marginal_hierarchy, random_blocks
from hierlmm.design.levels import Levels
from hierlmm.design.outcome import GAUSSIAN, Outcome, with_trials
from hierlmm.design.residual import INDEPENDENT, Residual
from hierlmm.design.rows import Grouping, Prepared, RandomTerm, Rows, Said, prepare
from hierlmm.design.terms import Parts, RandomColumns, Terms, check_finite, parts_name, product, stack
from hierlmm.design.unread import Unread, Whole
from hierlmm.errors import DataError, FormulaError, SpecificationError
from hierlmm.frames import quote, shorten
from hierlmm.groups import first_rows

specification_error = partial(SpecificationError, see=SEE)


def design_from_formula(
    parsed: ParsedFormula,
    data: Any,
    *,
    covariance: str | None = None,
    group: str | None = None,
    residual: Residual = INDEPENDENT,
    outcome: Outcome = GAUSSIAN,
    missing: str = "raise",
) -> Design:
    """Read the levels of the covariates off the data and build the design of a combined formula."""
    if not parsed.random:
        reason = "the formula has no random effects, so nothing varies between subjects"
        remedy = "add them, for example '+ (1 | subject)'; for a model without random effects use hl.MarginalModel"
        raise FormulaError(f"'{parsed.response} ~ {' + '.join(map(term_name, parsed.fixed))}'", reason, remedy, SEE)
    response, outcome = with_trials(parsed.response, outcome)
    parsed = replace(parsed, response=response, offsets=(*parsed.offsets, *outcome.offsets))
    if parsed.group is not None and group not in (None, parsed.group):
        reason = "they say two things about the factor by which D differs"
        raise FormulaError(f"gr(..., by = {parsed.group}) and group={group!r}", reason, "write one of them", SEE)
    group = parsed.group if group is None else group
    blocks = random_blocks(parsed, covariance)
    said = Said(response, parsed.random[0].subject, parsed.fixed, blocks, parsed.offsets, (), outcome, group)
    learnt = _learn(data, said, residual, missing)
    hierarchy = replace(hierarchy_from_terms(parsed, learnt.varying, covariance=covariance), group=group)
    return _assemble(hierarchy, learnt, residual, outcome)


def design_from_fixed(
    parsed: ParsedFormula,
    subject: str,
    data: Any,
    *,
    residual: Residual = INDEPENDENT,
    outcome: Outcome = GAUSSIAN,
    missing: str = "raise",
) -> Design:
    """Build the design of a marginal model: fixed effects, and rows that belong to subjects, without random effects."""
    if parsed.random:
        received = f"{term_name(parsed.random[0].terms[0])!r} in a bar of the formula of a marginal model"
        reason = "a marginal model has no random effects: what rows of a subject share is said by its correlation"
        remedy = "leave the parenthesis out and choose correlation=..., or use hl.TwoLevelModel.from_formula"
        raise FormulaError(received, reason, remedy, SEE)
    response, outcome = with_trials(parsed.response, outcome)
    parsed = replace(parsed, response=response, offsets=(*parsed.offsets, *outcome.offsets))
    refuse_response_as_subject(response, subject)
    said = Said(response, subject, parsed.fixed, (), parsed.offsets, outcome=outcome)
    learnt = _learn(data, said, residual, missing)
    return _assemble(marginal_hierarchy(parsed, subject, learnt.varying), learnt, residual, outcome)


def design_from_hierarchy(
    hierarchy: Hierarchy,
    data: Any,
    *,
    residual: Residual = INDEPENDENT,
    outcome: Outcome = GAUSSIAN,
    missing: str = "raise",
) -> Design:
    """Build the design of a stated hierarchy, after checking that every covariate lives on the level it was put on.

    Raises
    ------
    SpecificationError
        If a level-2 covariate varies within a subject (it is named), or a level-1 covariate varies within none.
    """
    response, outcome = with_trials(hierarchy.response, outcome)
    h = hierarchy = replace(hierarchy, response=response, offsets=(*hierarchy.offsets, *outcome.offsets))
    said = Said(h.response, h.subject, h.fixed_terms, h.blocks, h.offsets, h.level1_terms, outcome, h.group)
    learnt = _learn(data, said, residual, missing)
    check_levels(hierarchy, learnt.rows, learnt.changes)
    check_margins(hierarchy, learnt.columns[0], learnt.varying)
    return _assemble(hierarchy, learnt, residual, outcome)


def design_again(
    hierarchy: Hierarchy, data: Any, *, residual: Residual = INDEPENDENT, outcome: Outcome = GAUSSIAN
) -> Design:
    """Build the design of a hierarchy that a design has, which was checked when it was stated, from the same rows."""
    h = hierarchy
    said = Said(h.response, h.subject, h.fixed_terms, h.blocks, h.offsets, h.level1_terms, outcome, h.group)
    return _assemble(hierarchy, _learn(data, said, residual, "raise"), residual, outcome)


@dataclass(frozen=True)
class Learnt:
    """Rows, and the columns of all factors learnt from them."""

    rows: Prepared
    columns: list[list[Column]]
    factors: FactorColumns
    values: dict[tuple[str, str], FloatArray]
    whole: Whole | None = None

    @cached_property
    def first(self) -> IntArray:
        """First row of every subject."""
        return first_rows(self.rows.subject.index, len(self.rows.subject.labels))

    @cached_property
    def changes(self) -> dict[str, BoolArray]:
        """Factor -> the rows in which it is not what it was in the subject's first, (N,)."""
        return changes_within(self.values, self.rows.subject)

    @cached_property
    def varying(self) -> frozenset[str]:
        """Factors whose value changes within at least one subject."""
        return frozenset(factor for factor, changed in self.changes.items() if np.any(changed))


def changes_within(values: Mapping[tuple[str, str], FloatArray], group: Grouping) -> dict[str, BoolArray]:
    """Factor -> the rows in which it is not what it was in the first row of the group, (N,)."""
    first = first_rows(group.index, len(group.labels))[group.index]
    found: dict[str, BoolArray] = {}
    for (factor, _), column in values.items():
        changed = column != column[first]
        found[factor] = found[factor] | changed if factor in found else changed
    return found


def _learn(data: Any, said: Said, residual: Residual, missing: str) -> Learnt:
    if isinstance(data, Unread):
        sample = data.sample(said, residual, missing)
        rows = prepare(sample.frame, said, residual, "raise")
        states = data.states(learn_columns(rows, said).factors)
        return replace(learn_columns(rows, said, states), whole=sample.whole)
    return learn_columns(prepare(data, said, residual, missing), said)


def learn_columns(rows: Prepared, said: Said, states: Mapping[str, Any] = NO_STATES) -> Learnt:
    """Learn the columns of all factors from rows; what functions of the formula learnt of others is in ``states``."""
    columns, factors, values = evaluate_factors([said.fixed, *(b.terms for b in said.blocks)], rows.frame, states)
    for (factor, name), column in values.items():
        check_finite(column, name, factor, rows.frame)
    return Learnt(rows, columns, factors, values)


def _assemble(hierarchy: Hierarchy, learnt: Learnt, residual: Residual, outcome: Outcome = GAUSSIAN) -> Design:
    split = [split_parts(c.parts, learnt.varying) for c in learnt.columns[0]]
    terms = _terms(hierarchy, learnt, [level1 for level1, _ in split])
    rows = arrays_of(terms, learnt, [level2 for _, level2 in split], outcome)
    level = rows.subject.index  # not read without a group
    if hierarchy.group:
        level = terms.by_subject.who[level]
    random = [RandomTerm(own, rows.subject, own.values(rows.X1, level)) for own in terms.random]
    structure = residual.correlation, residual.variance
    return Design(terms, rows, tuple(random), *structure, outcome=outcome, whole=learnt.whole)


def _terms(hierarchy: Hierarchy, learnt: Learnt, in_fixed: list[Parts]) -> Terms:
    """The columns of level 1 (in the order of its terms) and those of X and Z among them."""
    fixed, random = learnt.columns[0], learnt.columns[1:]
    in_random = [c.parts for block in random for c in block]
    level1 = level1_columns(hierarchy, fixed, in_fixed, in_random)
    check_coding(hierarchy, level1, in_fixed, in_random)
    names = tuple(parts_name(parts) for parts in in_random)
    check_unique(names)
    blocks, covariance = covariance_blocks(hierarchy, random)
    said = canonical_blocks(hierarchy, covariance, learnt.rows.levels)
    at = {parts: k for k, parts in enumerate(level1)}
    places = np.array([at[parts] for parts in in_random], dtype=np.intp)
    by_subject = RandomColumns(hierarchy.subject, places, names, blocks, covariance)
    if hierarchy.group:
        by_subject = by_subject.for_levels(hierarchy.group, *levels_of_group(hierarchy.group, learnt.rows))
    return Terms(
        hierarchy=replace(hierarchy, covariance=covariance, blocks=said),
        levels=learnt.rows.levels,
        factors=learnt.factors,
        fixed=tuple(fixed),
        level1_columns=tuple(level1),
        coef_level1=np.array([at[parts] for parts in in_fixed], dtype=np.intp),
        random=(by_subject,) if names else (),
        dtypes=dict(learnt.rows.frame.dtypes),
    )


def level1_columns(
    hierarchy: Hierarchy, fixed: list[Column], in_fixed: list[Parts], in_random: list[Parts]
) -> list[Parts]:
    """Columns of level 1 in the order of its terms; refuses coefficients of one name."""
    order = {t: i for i, t in enumerate(hierarchy.level1_terms)}
    level1 = list(dict.fromkeys(in_fixed + in_random))
    level1.sort(key=lambda parts: order.get(tuple(f for f, _ in parts), len(order)))
    for columns in ([c.name for c in fixed], [parts_name(parts) for parts in level1]):
        check_unique(columns)
    return level1


def arrays_of(terms: Terms, learnt: Learnt, in_level2: list[Parts], outcome: Outcome) -> Rows:
    """The rows as arrays, from what their columns are at level 2."""
    frame, subject, first = learnt.rows.frame, learnt.rows.subject, learnt.first
    X1 = stack([product(learnt.values, parts, len(frame)) for parts in terms.level1_columns], len(frame))
    of_subjects = {key: column[first] for key, column in learnt.values.items()}
    W = stack([product(of_subjects, parts, len(first)) for parts in in_level2], len(first))
    response = terms.hierarchy.response
    y, trials, note = outcome.values(response, frame)
    check_finite(y, response, response, frame)
    offset = terms.offset(frame)
    check_finite(offset, "offset", " + ".join(terms.hierarchy.offsets), frame)
    X = X1[:, terms.coef_level1] * W[subject.index]
    categories = outcome.categories(response, frame)
    rest = learnt.rows.n_dropped, trials, note, categories, learnt.rows.kept
    return Rows(frame, subject, y, offset, X, X1, W, *rest)


def split_parts(parts: Parts, varying: Iterable[str]) -> tuple[Parts, Parts]:
    """Factor columns of level 1, and those of level 2."""
    return tuple(p for p in parts if p[0] in varying), tuple(p for p in parts if p[0] not in varying)


def check_levels(hierarchy: Hierarchy, rows: Prepared, changes: Mapping[str, BoolArray]) -> None:
    """Refuse level-2 factors that vary within a subject, and level-1 factors that vary within none.

    Parameters
    ----------
    hierarchy : Hierarchy
    rows : Prepared
    changes : mapping
        Factor -> the rows in which it is not what it was in the subject's first.
    """
    subject = hierarchy.subject
    for key, terms in zip(hierarchy.level1_terms, hierarchy.level2_terms, strict=True):
        for factor in [f for term in terms for f in term if f in changes and np.any(changes[f])]:
            culprit = rows.subject.index[np.flatnonzero(changes[factor])[0]]
            own = rows.frame.index[rows.subject.index == culprit]
            where = f"it varies within {subject} {quote(rows.subject.labels[culprit])} (rows {shorten(own)})"
            reason = f"{where}, and level 2 holds only what is constant within every subject"
            mean = f"its mean by {subject} at level 2 (data.groupby({subject!r})[...].transform('mean'))"
            remedy = f"put {factor!r} into the level-1 formula, or use {mean}"
            raise specification_error(f"{factor!r} at level 2 (to explain {term_name(key)!r})", reason, remedy)
    for term in hierarchy.level1_terms:
        constant = [f for f in term if f in changes and not np.any(changes[f])]
        if constant:
            reason = f"it is constant within every {subject}, so no {subject} has a regression on it"
            remedy = f"move it to level 2, for example level2={{'Intercept': {constant[0]!r}}}"
            raise specification_error(f"{constant[0]!r} at level 1", reason, remedy)


def check_margins(hierarchy: Hierarchy, columns: list[Column], varying: frozenset[str]) -> None:
    """Refuse level-2 formulas that the coding of a level-1 factor would carry over to another coefficient.

    ``{"Intercept": "1", "cond": "sex"}`` multiplies out to ``1 + cond + sex:cond``, which has an effect of sex at every
    level of cond, so that the intercept (the level that cond is coded against) would depend on sex as well.
    """
    codings: dict[Term, dict[Parts, set[Parts]]] = {}
    for column in columns:
        own = tuple(f for f in column.term if f in varying)
        level1, level2 = split_parts(column.parts, varying)
        coding = codings.setdefault(own, {})
        coding.setdefault(level2, set()).add(level1 if tuple(f for f, _ in level1) == own else ())
    for own, coding in codings.items():
        if any(parts != next(iter(coding.values())) for parts in coding.values()):
            others = dict.fromkeys(f for level2 in coding for f, _ in level2)
            name = term_name(own)
            coded = f"{name!r} is a factor, coded against a level that the intercept stands for"
            depends = f"the intercept would depend on {shorten(map(repr, others))} too"
            reason = f"{coded}; multiplied out, {depends}, and its level-2 formula does not say so"
            columns_of = "numeric columns for the levels of the factor, such as I(cond == 'b')"
            remedy = f"explain the intercept by the same terms, start level 1 with '0 +', or use {columns_of}"
            raise specification_error(f"level2[{name!r}] = {hierarchy.level2[name]!r}", reason, remedy)


def check_coding(hierarchy: Hierarchy, level1: list[Parts], fixed: list[Parts], random: list[Parts]) -> None:
    """A factor must be coded alike in the fixed and the random part, or there is no common level-1 regression."""
    by_term: dict[Term, list[Parts]] = {}
    for parts in level1:
        by_term.setdefault(tuple(f for f, _ in parts), []).append(parts)
    for term, group in by_term.items():
        in_fixed = [p for p in group if p in fixed]
        in_random = [p for p in group if p in random]
        if in_fixed and in_random and set(in_fixed) != set(in_random):
            name, (fixed_as, random_as) = term_name(term), (shorten(map(parts_name, p)) for p in (in_fixed, in_random))
            received = f"{name!r} coded as {fixed_as} in the fixed part and as {random_as} in the random part"
            alike = ", or ".join(f"'{k} + {name}' with '({k} + {name} | {hierarchy.subject})'" for k in (1, 0))
            remedy = f"code both alike: {alike}; and write interactions with their main effects"
            reason = "the hierarchy needs one set of level-1 coefficients"
            raise specification_error(received, reason, f"{remedy} ('a * b', not 'a:b')")


def check_unique(names: Sequence[str]) -> None:
    """Refuse two coefficients of one name."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        reason = "a column of the data has the name that a term of the formula gets"
        raise DataError(f"two coefficients named {twice[0]!r}", reason, f"rename the column {twice[0]!r}", SEE)


def covariance_blocks(hierarchy: Hierarchy, random: list[list[Column]]) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Positions of the correlated blocks, and the simplest name of the structure."""
    positions: list[tuple[int, ...]] = []
    start = 0
    for block, columns in zip(hierarchy.blocks, random, strict=True):
        members = tuple(range(start, start + len(columns)))
        start += len(columns)
        positions += [members] if block.correlated else [(m,) for m in members]
    if hierarchy.covariance in ("identity", "compound_symmetry") and start > 1:
        return tuple(positions), hierarchy.covariance
    if len(positions) < 2:
        return tuple(positions), "unstructured" if positions else "none"
    return tuple(positions), "diagonal" if all(len(p) == 1 for p in positions) else "blocks"


def canonical_blocks(hierarchy: Hierarchy, covariance: str, levels: Levels) -> tuple[RandomBlock, ...]:
    """Write equal structures alike: ``(1 | g) + (0 + x | g)`` is ``(1 + x || g)``.

    Not where that would be another model: a factor is coded in full in ``(1 | g) + (0 + cond || g)``.
    """
    if covariance == "none":
        return ()
    if covariance in ("unstructured", "compound_symmetry"):
        return (RandomBlock(hierarchy.blocks[0].terms, correlated=True),)
    merged = tuple(t for b in hierarchy.blocks for t in b.terms)
    factors = any(unquoted(f) in levels.categories or f.startswith("C(") for term in merged for f in term)
    alike = len(hierarchy.blocks) == 1 or (not factors and merged == tuple(sorted(merged, key=len)))
    if covariance in ("diagonal", "identity") and alike:
        return (RandomBlock(merged, correlated=False),)
    return hierarchy.blocks
