"""Level-1 coefficients as linear functions of the fixed effects.

Level 2 gives subject i the coefficient

    β_ki = l_k(w_i)'β + b_ki,      l_k(w)_c = w_c  if coefficient c explains level-1 column k, else 0,

so that the mean of a coefficient over the subjects with level-2 covariates w is ``l_k(w)'β``, whatever the coding of
the factors is. ``kind`` says whether a column can be read by itself: columns that share a variable (polynomials,
splines, products) cannot.

What sentences and tables about subjects ask of a fit stands here too: how it judges, which effects it has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT, categorical_arguments, unquoted, variables_of
from hierlmm.design.questions import first_row_of_subjects, is_label, levels_of
from hierlmm.design.telling import link_name
from hierlmm.design.terms import level_positions
from hierlmm.effects.grid import check_values
from hierlmm.effects.judge import Estimates, estimates, judge_of
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.groups import first_rows, groups_above
from hierlmm.interpret.grammar import render
from hierlmm.likelihood.wald import BY_DEFAULT, Asked
from hierlmm.text import listed

Kind = Literal["intercept", "slope", "difference", "cell", "part"]
SEE = "docs, page 'In words'"
MAX_GROUPS = 10_000


@dataclass(frozen=True)
class Coefficient:
    """One level-1 coefficient.

    Attributes
    ----------
    name : str
    position : int
        Column of ``X1``.
    kind : {"intercept", "slope", "difference", "cell", "part"}
        The constant; change per unit of a number; level of a factor against its reference level, or by itself; or a
        part of a curve or product, which cannot be read by itself.
    variables : tuple of str
        Columns of the data behind it.
    factor, label, reference
        Of a factor: its name, the level that the coefficient belongs to, the reference level.
    """

    name: str
    position: int
    kind: Kind
    variables: tuple[str, ...] = ()
    factor: str = ""
    label: Any = None
    reference: Any = None


def coefficients(design: Design) -> list[Coefficient]:
    """Every level-1 coefficient, and whether it can be read by itself."""
    columns = list(design.frame.columns)
    used = [
        tuple(dict.fromkeys(v for f, _ in parts for v in variables_of(f, columns))) for parts in design.level1_columns
    ]
    terms = [tuple(f for f, _ in parts) for parts in design.level1_columns]
    found = []
    for k, (name, parts) in enumerate(zip(design.level1, design.level1_columns, strict=True)):
        if not parts:
            found.append(Coefficient(INTERCEPT, k, "intercept"))
            continue
        shared = any(set(used[k]) & set(used[m]) for m in range(len(terms)) if terms[m] != terms[k])
        siblings = [m for m in range(len(terms)) if terms[m] == terms[k]]
        if shared or len(parts) > 1:
            found.append(Coefficient(name, k, "part", used[k]))
        elif is_factor(design, parts[0][0]):
            found.append(_factor_coefficient(design, k, siblings, used[k]))
        else:
            found.append(Coefficient(name, k, "slope" if len(siblings) == 1 else "part", used[k]))
    return found


def is_factor(design: Design, expression: str) -> bool:
    """Whether a factor expression is one of labels: a categorical column, or ``C(...)``."""
    if categorical_arguments(expression):
        return True
    plain = unquoted(expression)
    return plain in design.frame.columns and is_label(design, plain)


def _factor_coefficient(design: Design, k: int, siblings: list[int], variables: tuple[str, ...]) -> Coefficient:
    """A coefficient of a within-subject factor: readable under treatment coding, or with a column for each level."""
    expression, name = design.level1_columns[k][0]
    prefix = f"{unquoted(expression)}["
    known = levels_of(design, variables[0]) if len(variables) == 1 else []
    names = [design.level1_columns[m][0][1] for m in siblings]
    for kind, pattern in (("difference", f"{prefix}T.{{}}]"), ("cell", f"{prefix}{{}}]")):
        labels = {pattern.format(level): level for level in known}
        if not all(n in labels for n in names):
            continue
        rest = [level for level in known if pattern.format(level) not in names]
        if kind == "difference" and len(rest) == 1:
            return Coefficient(name, k, "difference", variables, variables[0], labels[name], rest[0])
        if kind == "cell" and not rest:
            return Coefficient(name, k, "cell", variables, variables[0], labels[name])
    return Coefficient(name, k, "part", variables)


def position_of(design: Design, term: str | None, *, what: str) -> int:
    """Level-1 column that a name stands for; without a name, the only random coefficient beside the intercept.

    Raises
    ------
    SpecificationError
        If there is no such coefficient, or several could be meant.
    """
    if term is None:
        random = [t for t in design.own_term if t != INTERCEPT] or list(design.own_term)
        if len(random) != 1:
            reason = f"several coefficients vary between subjects: {shorten(map(repr, random))}"
            raise SpecificationError(f"{what} without a term", reason, "say which: term=...", SEE)
        term = random[0]
    if term not in design.level1 and isinstance(term, str):
        term = unticked(term)  # a name in backticks, as the formula has it
    if term not in design.level1:
        reason = f"level 1 has no coefficient of this name.{closest(str(term), design.level1)}"
        raise SpecificationError(f"term={term!r}", reason, f"use one of {shorten(map(repr, design.level1))}", SEE)
    return design.level1.index(term)


def unticked(name: str) -> str:
    """A name without the backticks that a formula needs around it."""
    return name.replace("`", "")


def coefficient_notes(design: Design, k: int) -> list[str]:
    """On which scale a coefficient is, and whether the model has no mean of it, so that subjects' are deviations."""
    link = [] if design.is_gaussian else [link_note(design)]
    if np.any(design.coef_level1 == k):
        return link
    return [*link, render("subjects.deviations", term=design.level1[k])]


def link_note(design: Design) -> str:
    """That coefficients are on the scale of a link."""
    return render("heterogeneity.link", line=link_name(design), link=design.family.link)


def subject_rows(design: Design, k: int) -> FloatArray:
    """``l_k(w_i)`` of every subject: (J, p)."""
    return np.where(design.coef_level1 == k, design.W, 0.0)


def level2_parts(design: Design, k: int) -> dict[int, tuple[tuple[str, str], ...]]:
    """Level-2 factor columns that each fixed coefficient of level-1 column k multiplies."""
    own = design.level1_columns[k]
    return {
        int(c): tuple(p for p in design.fixed_columns[c].parts if p not in own)
        for c in np.flatnonzero(design.coef_level1 == k)
    }


def level2_variables(design: Design, k: int) -> list[str]:
    """Columns of the data that explain level-1 coefficient k."""
    columns = list(design.frame.columns)
    factors = [f for parts in level2_parts(design, k).values() for f, _ in parts]
    return list(dict.fromkeys(v for f in factors for v in variables_of(f, columns)))


def level2_rows(design: Design, k: int, table: pd.DataFrame) -> FloatArray:
    """``l_k(w)`` at the level-2 values of a table's rows, (g, p); other columns do not matter."""
    n = len(table)
    frame = design.frame.iloc[np.zeros(n, dtype=np.intp)].reset_index(drop=True)
    frame = frame.assign(**{v: table[v].to_numpy() for v in table.columns})
    values = design.factors.values(design.levels.apply(frame))
    L = np.zeros((n, len(design.coef)))
    for c, parts in level2_parts(design, k).items():
        L[:, c] = math.prod((values[part] for part in parts), start=np.ones(n))
    return L


def by_subject(design: Design) -> pd.DataFrame:
    """First row of every subject: its level-2 covariates."""
    return design.frame.iloc[first_row_of_subjects(design)]


def group_rows(
    design: Design, k: int, at: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, FloatArray, dict[str, bool]]:
    """Rows ``l_k(w)`` for the groups of subjects that level 2 tells apart.

    Factors stand at the levels that occur, numbers with two values at both, other numbers at their mean over subjects
    (of several factors: over the groups they belong to), unless ``at`` says otherwise.

    Returns
    -------
    keys : DataFrame
        Level-2 values of each group.
    L : (g, p)
    mean : dict
        Variable -> whether it stands at its mean.

    Raises
    ------
    SpecificationError
        If a level of ``at`` does not exist, or there are more than 10,000 groups.
    """
    subjects, wanted = by_subject(design), dict(at or {})
    variables = level2_variables(design, k)
    found = {v: _values(design, subjects, k, v, wanted.get(v), v in wanted) for v in variables}
    values, mean = {v: own for v, (own, _) in found.items()}, {v: at_mean for v, (_, at_mean) in found.items()}
    if math.prod(map(len, values.values())) > MAX_GROUPS:
        received, remedy = f"{math.prod(map(len, values.values()))} groups of subjects", "say which: at={...}"
        raise SpecificationError(received, "level 2 tells too many of them apart for a table", remedy, SEE)
    combinations = list(itertools.product(*values.values()))
    observed = [v for v in variables if not mean[v] and v not in wanted]
    if len(observed) > 1 and len(variables) == len(observed) + sum(mean.values()):
        present = set(subjects[observed].itertuples(index=False, name=None))
        places = [variables.index(v) for v in observed]
        combinations = [c for c in combinations if tuple(c[i] for i in places) in present]
    keys = pd.DataFrame({v: [c[i] for c in combinations] for i, v in enumerate(variables)})
    keys.index = pd.RangeIndex(len(combinations))
    return keys, level2_rows(design, k, keys), mean


def rows_by_group(
    design: Design, k: int, at: Mapping[str, Any], groups: Any = None
) -> tuple[pd.DataFrame, FloatArray, dict[str, bool], IntArray]:
    """`group_rows`, and for each row the position of the level whose D holds there (0 where there is one D).

    Where D differs by a factor that level 2 of this coefficient does not have, the rows stand once for each level.

    Parameters
    ----------
    design : Design
    k : int
        Level-1 column.
    at : mapping
        As in `group_rows`.
    groups : optional
        Which levels of that factor, if not all.
    """
    group, levels = design.group, list(design.group_levels)
    if not group:
        keys, L, mean = group_rows(design, k, at)
        return keys, L, mean, np.zeros(len(keys), dtype=np.intp)
    if groups is not None:
        levels = check_values(group, groups, levels, SEE)
    explains = group in level2_variables(design, k)
    if explains and (groups is not None or not is_label(design, group)):
        at = {**at, group: levels}
    keys, L, mean = group_rows(design, k, at)
    if not explains:
        repeated = pd.concat([keys.assign(**{group: level}) for level in levels], ignore_index=True)
        keys, L = repeated[[group, *keys.columns]], np.tile(L, (len(levels), 1))
    return keys, L, mean, level_positions(keys[group], design.group_levels)


def check_at(design: Design, positions: Iterable[int], at: Mapping[str, Any] | None) -> None:
    """Refuse names in ``at`` that explain none of these coefficients.

    Raises
    ------
    SpecificationError
    """
    known = list(dict.fromkeys(v for k in positions for v in level2_variables(design, k)))
    for name in at or {}:
        if name not in known:
            reason = f"no level-2 covariate of this name explains these coefficients.{closest(str(name), known)}"
            remedy = f"use {shorten(map(repr, known))}" if known else "leave it out: level 2 has no covariates there"
            raise SpecificationError(f"at={{{name!r}: ...}}", reason, remedy, SEE)


def _values(
    design: Design, subjects: pd.DataFrame, k: int, variable: str, asked: Any, given: bool
) -> tuple[list[Any], bool]:
    factors = {f for parts in level2_parts(design, k).values() for f, _ in parts}
    labels = is_label(design, variable) or any(variable in categorical_arguments(f) for f in factors)
    known = levels_of(design, variable) if labels else []
    if not given:
        if labels:
            return known, False
        distinct = np.unique(subjects[variable].to_numpy(dtype=np.float64))
        return (distinct.tolist(), False) if len(distinct) == 2 else ([_mean_over_groups(design, variable)], True)
    return check_values(variable, asked, known if labels else None, SEE), False


def _mean_over_groups(design: Design, variable: str) -> float:
    """Mean over subjects; with several grouping factors over the groups of the coarsest within which it is constant."""
    column = design.frame[variable]
    codes = pd.factorize(column)[0]
    groups = sorted((own.group for own in design.random), key=lambda group: len(group.labels))
    constant = [g for g in groups if groups_above(g.index, codes, len(g.labels)) is not None]
    group = constant[0] if constant else design.rows.subject
    return float(column.iloc[first_rows(group.index, len(group.labels))].mean())


def group_text(keys: Mapping[Any, Any], mean: Mapping[str, bool]) -> str:
    """A group in words: ``sex = Male and age = 57.3 (the mean)``; empty if all subjects are one group."""
    parts = []
    for name, value in keys.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{name} = {text}" + (" (the mean)" if mean.get(str(name)) else ""))
    return listed(parts)


def judged(fit: Fit, L: FloatArray, ci: float, how: Asked = BY_DEFAULT) -> Estimates:
    """Estimate, standard error and interval of every row of ``L β``."""
    return estimates(judge_of(fit, how), L, np.zeros(len(L)), ci)


def tails(ci: float) -> tuple[float, float]:
    """Probabilities below the ends of an equal-tailed interval."""
    return 0.5 - ci / 2.0, 0.5 + ci / 2.0


def random_effect(design: Any, k: int) -> int | None:
    """Position among the random effects of that of level-1 column k; None if it has none."""
    found = np.flatnonzero(design.own_level1 == k)
    return int(found[0]) if found.size else None


def need_effects(fit: Fit, what: str) -> None:
    """Refuse a question about subjects where the fit has none of their own.

    Raises
    ------
    NotAvailableError
    """
    if fit.has_random_effects:
        return
    kind = "a marginal model" if not fit.design.term else f"a fit by {fit.estimator}"
    why = "it has no coefficients of a subject's own, hence no distribution of them"
    remedy = "fit a hierarchy: hl.TwoLevelModel(...).fit_reml() or .fit(); for group means use fit.marginal_means(...)"
    raise NotAvailableError(f"{what} of {kind}", f"it describes the mean over subjects; {why}", remedy, SEE)
