"""Tests of all terms of the fixed effects, of types I, II and III, as SAS and R's lmerTest define them.

*Types I and II.* With the columns of X in the order of the formula, and ``X = Q R`` (R upper triangular), the rows of R
that belong to a term are what it adds to the terms before it: its hypotheses of type I. For those of type II the terms
that do not contain it come first, then the term, then those that contain it. One term contains another if it has all
its variables and others, the others being factors (a numeric covariate makes another kind of term). Neither depends on
how factors are coded; both depend on how many rows the cells have, which R weighs them by, and not on V.

*Type III*: each term given all others, at equal weights of the cells. A coefficient of a main effect in treatment
coding is its effect at the reference level of the factors that it interacts with. The hypothesis of a type III test is
about the average over their levels instead. Columns coded against a reference are therefore recoded to have mean zero
over the levels (each with equal weight): with ``d = s + d̄`` for every such factor column, a product of columns is the
sum of the products of s and d̄ over all subsets, so that the coefficients of the recoded columns are linear in β, and
the F test of a term is that of its recoded coefficients. Numeric covariates are not centred: main effects of factors
are tested where they are zero (as in lmerTest).
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.columns import Column
from hierlmm.design.design import Design
from hierlmm.design.formula import Term, categorical_arguments, term_name, variables_of
from hierlmm.effects.judge import PosteriorDraws, judge_of
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import BY_DEFAULT, Asked
from hierlmm.options import choose
from hierlmm.results import NotedTable

type Part = tuple[str, str]
TYPES = {"I": "I", "II": "II", "III": "III", "1": "I", "2": "II", "3": "III"}
"""What a type may be called (numbers too): what it is."""
SEE = "docs, page 'Contrasts', section 'Tests of terms'"


def anova(fit: Fit, how: Asked = BY_DEFAULT, type: str | int = "III") -> pd.DataFrame:
    """F tests of the terms; see `hierlmm.fits.base.Fit.anova`."""
    choose("type", str(type), tuple(TYPES), SEE)
    kind = TYPES[str(type)]
    if fit.has_draws:
        remedy = "use fit.hypothesis(['a = 0', 'b = 0']) or fit.contrasts(...)"
        raise NotAvailableError("anova of a posterior", "a posterior has no F test", remedy, SEE)
    judge = judge_of(fit, how)
    assert not isinstance(judge, PosteriorDraws)  # refused above
    rows = term_rows(fit.design) if kind == "III" else triangular_rows(fit.design, sequential=kind == "I")
    tests = {term: judge.joint(L) for term, L in rows.items()}
    table = pd.DataFrame.from_dict(tests, orient="index", columns=["F", "df1", "df2", "p"])
    if not fit.design.is_gaussian:  # no degrees of freedom: Wald's test
        table = pd.DataFrame({"chi2": table["F"] * table["df1"], "df": table["df1"], "p": table["p"]})
    table = NotedTable(table)
    table.index.name = "term"
    about = {"df": judge.method, "se": judge.se, "description": judge.description}
    table.attrs = about | {"notes": list(judge.notes), "type": kind}
    return table


def triangular_rows(design: Design, *, sequential: bool) -> dict[str, FloatArray]:
    """The hypotheses of types I (sequential) and II of every term but the intercept: term -> L (r, p).

    Satterthwaite's method for several rows depends on their basis: it is lmerTest's.
    """
    term, found = [c.term for c in design.fixed_columns], {}
    order = np.arange(len(term))
    for own in dict.fromkeys(t for t in term if t):
        place = [2 * _contains(design, t, own) + (t == own) for t in term]
        if not sequential and max(place) == 1:
            found[term_name(own)] = np.eye(len(term))[[i for i, t in enumerate(term) if t == own]]
            continue
        if not sequential:
            order = np.argsort(place, kind="stable")
        R = np.linalg.qr(design.X[:, order], mode="r")
        L = np.zeros_like(R)
        L[:, order] = R / np.diag(R)[:, None]
        found[term_name(own)] = L[[i for i, k in enumerate(order) if term[k] == own]]
    return found


def _contains(design: Design, term: Term, other: Term) -> bool:
    """Whether a term has all variables of another and more of them, all of these factors."""
    more = set(term) - set(other)
    return bool(more) and set(other) <= set(term) and all(_is_label(design, factor) for factor in more)


def _is_label(design: Design, factor: str) -> bool:
    """Whether a factor of a term stands for the levels of one column."""
    variables = variables_of(factor, list(design.frame.columns))
    return len(variables) == 1 and variables[0] in {*design.levels.categories, *categorical_arguments(factor)}


def term_rows(design: Design) -> dict[str, FloatArray]:
    """The hypotheses of every term but the intercept: term -> L (r, p).

    Raises
    ------
    SpecificationError
        If a term is in the model without one that it contains, so that its recoded columns are no combinations of X.
    """
    columns = design.fixed_columns
    position = {frozenset(c.parts): i for i, c in enumerate(columns)}
    means, full = _level_means(design, columns)
    K = np.zeros((len(columns), len(columns)))  # β of the recoded columns = K β
    for i, column in enumerate(columns):
        reducible = [part for part in column.parts if part in means]
        for size in range(len(reducible) + 1):
            for dropped in itertools.combinations(reducible, size):
                weight = float(np.prod([means[part] for part in dropped]))
                if abs(weight) < 1e-12:
                    continue
                rest = frozenset(p for p in column.parts if p not in dropped)
                for row in _columns_of(rest, position, full, column):
                    K[row, i] += weight
    terms = dict.fromkeys(c.term for c in columns if c.term)
    return {term_name(t): K[[i for i, c in enumerate(columns) if c.term == t]] for t in terms}


def _columns_of(
    parts: frozenset[Part], position: dict[frozenset[Part], int], full: list[list[Part]], column: Column
) -> list[int]:
    """The column that is this product, or the columns of all levels of a factor that add up to it."""
    if parts in position:
        return [position[parts]]
    for levels in full:
        split = [parts | {level} for level in levels]
        if all(own in position for own in split):
            return [position[own] for own in split]
    missing = repr(":".join(name for factor, name in column.parts if (factor, name) in parts)) if parts else "intercept"
    reason = f"the model has it without {missing}, which it contains, so a test of it depends on the coding"
    remedy = "add the lower terms ('a * b'), or say what is tested: fit.hypothesis(...), fit.contrasts(...)"
    raise SpecificationError(f"a test of {term_name(column.term)!r}", reason, remedy, SEE)


def _level_means(design: Design, columns: tuple[Column, ...]) -> tuple[dict[Part, float], list[list[Part]]]:
    """Mean over levels, with equal weight, of each column of a factor that is coded against a reference.

    Where a term codes a factor by all its levels, its columns add up to one; they stay as they are, and are returned
    apart.
    """
    frame = design.frame
    values = design.factors.values(frame)
    groups: dict[tuple[Term, str], list[Part]] = {}
    for column in columns:
        for part in column.parts:
            own = groups.setdefault((column.term, part[0]), [])
            if part not in own:
                own.append(part)
    found: dict[Part, float] = {}
    full: list[list[Part]] = []
    for (_, factor), parts in groups.items():
        if not _is_label(design, factor):
            continue
        first = ~frame[variables_of(factor, list(frame.columns))[0]].duplicated().to_numpy()
        cells = np.column_stack([values[part][first] for part in parts])
        if np.linalg.matrix_rank(np.column_stack([np.ones(len(cells)), cells])) == len(parts) + 1:
            found |= {part: float(column.mean()) for part, column in zip(parts, cells.T, strict=True)}
        elif np.allclose(cells.sum(axis=1), 1.0):
            full.append(parts)
    return found, full
