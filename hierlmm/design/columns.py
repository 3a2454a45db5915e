"""Columns of the model matrices through formulaic, each kept as a product of level-1 and level-2 factor columns.

formulaic decides the coding (which dummies a factor gets depends on what else is in the formula); this module keeps,
for every column, the factor columns it is a product of, so that ``x_ij,c = x1_ij,k(c) * w_i,m(c)`` is known exactly,
and keeps formulaic's state (categories, spline knots, centring) so that new data get the same columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import (
    INTERCEPT,
    Term,
    categorical_arguments,
    factor_name,
    join_terms,
    term_factors,
    term_name,
    unquoted,
)
from hierlmm.design.formula_limits import check_columns
from hierlmm.design.levels import is_factor
from hierlmm.design.recipes import as_floats, fit_recipe, materialise, warn_beyond
from hierlmm.errors import DataError, FormulaError

SEE = "docs, page 'Formulas and levels'"
NO_STATES: Mapping[str, Any] = MappingProxyType({})


class Column(NamedTuple):
    """One column of a model matrix: its name, its term, and the ``(factor, column name)`` pairs it multiplies."""

    name: str
    term: Term
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactorColumns:
    """Recipes for factor columns (formulaic's fitted model specs), and which column each recipe yields."""

    recipes: tuple[Any, ...]
    wanted: frozenset[tuple[str, str]]
    numbers: frozenset[str]

    def values(self, frame: pd.DataFrame) -> dict[tuple[str, str], FloatArray]:
        """Evaluate every factor column on a table (fitting data or new data)."""
        found: dict[tuple[str, str], FloatArray] = {}
        extrapolated: dict[str, str] = {}
        frame = as_floats(frame, {factor for factor, _ in self.wanted})
        _check_numbers(frame, self.numbers)
        for recipe in self.recipes:
            columns = [column for column in _columns(recipe) if self.wanted.issuperset(column.parts)]
            _collect(columns, materialise(recipe, frame, extrapolated), found)
        warn_beyond(extrapolated)
        return found


def evaluate_factors(
    term_lists: Sequence[Sequence[Term]], frame: pd.DataFrame, states: Mapping[str, Any] = NO_STATES
) -> tuple[list[list[Column]], FactorColumns, dict[tuple[str, str], FloatArray]]:
    """Code every list of terms as a formula of its own and return their columns and the factor columns they need.

    Parameters
    ----------
    term_lists : sequence of sequences of Term
        For example the fixed terms, and each block of random terms.
    frame : pandas.DataFrame
        Complete rows.
    states : mapping
        What functions of the formula learnt of other rows, by their calls; those not named learn from these.

    Returns
    -------
    columns : list of list of Column
        Per list of terms, in formulaic's order.
    factors : FactorColumns
        How to evaluate the factor columns again.
    values : dict
        ``(factor, column name) -> (N,)``.
    """
    frame = as_floats(frame, {factor for terms in term_lists for term in terms for factor in term})
    numbers = frozenset(c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c].dtype))
    recipes: list[Any] = []
    columns: list[list[Column]] = []
    extrapolated: dict[str, str] = {}
    values: dict[tuple[str, str], FloatArray] = {}
    for terms in term_lists:
        if not terms:
            columns.append([])
            continue
        check_columns({term_name(term): _least_columns(term, frame) for term in terms}, len(frame))
        recipe, matrix = fit_recipe(join_terms(tuple(terms)), frame, extrapolated, states)
        found = _columns(recipe)
        _check_every_term(found, terms)
        columns.append(_in_order(found, terms))
        if _collect(found, matrix, values):
            recipes.append(recipe)
    wanted = {part for cols in columns for column in cols for part in column.parts}
    for factor in dict.fromkeys(factor for factor, _ in wanted):
        for rhs in (f"1 + {factor}", f"0 + {factor}"):
            if all(part in values for part in wanted if part[0] == factor):
                break
            recipe, matrix = fit_recipe(rhs, frame, extrapolated, states)
            if _collect(_columns(recipe), matrix, values):
                recipes.append(recipe)
    missing = [part for part in wanted if part not in values]
    if missing:
        reason = f"its column {missing[0][1]!r} could not be evaluated apart from the other terms"
        remedy = "make the column beforehand (data['z'] = ...) and use its name in the formula"
        raise FormulaError(f"the term {missing[0][0]!r}", reason, remedy, SEE)
    warn_beyond(extrapolated)
    kept = {part: column for part, column in values.items() if part in wanted}
    return columns, FactorColumns(tuple(recipes), frozenset(wanted), numbers), kept


def _least_columns(term: Term, frame: pd.DataFrame) -> int:
    """Columns that a term has at least: labels count one less than there are of them."""
    total = 1
    for factor in term:
        plain = unquoted(factor)
        for name in (plain,) if plain in frame.columns else categorical_arguments(factor):
            if name in frame.columns and (name != plain or is_factor(frame[name])):
                total *= max(1, frame[name].nunique() - 1)
    return total


def _check_numbers(frame: pd.DataFrame, numbers: frozenset[str]) -> None:
    """Refuse labels in new data where the model was fitted to numbers."""
    for name in numbers & set(frame.columns):
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            received, remedy = f"{name!r} with {frame[name].dtype} values", f"convert it: pd.to_numeric(data[{name!r}])"
            raise DataError(received, "the model was fitted to numbers in this column", remedy, SEE)


def _check_every_term(columns: list[Column], terms: Sequence[Term]) -> None:
    """Refuse a term that got no column: a factor with one level."""
    present = {column.term for column in columns}
    for term in terms:
        if term not in present:
            reason = "it has no column of its own: a factor with one level has nothing to compare"
            remedy = "take it out of the formula, or check whether a filter left one level only"
            raise DataError(f"the term {term_name(term)!r}", reason, remedy, SEE)


def _columns(recipe: Any) -> list[Column]:
    """Read formulaic's structure: every column as a product of ``(factor, factor column)`` pairs."""
    single = _factor_column_names(recipe)
    columns: list[Column] = []
    for row in recipe.structure:
        term = term_factors(row.term)
        if not term:
            columns.append(Column(INTERCEPT, (), ()))
            continue
        products: dict[str, tuple[tuple[str, str], ...]] = {}
        for scoped in row.scoped_terms:
            factors = [(factor_name(f.factor), bool(f.reduced)) for f in scoped.factors if factor_name(f.factor) != "1"]
            for names in itertools.product(*(single[key] for key in factors)):
                products[":".join(names)] = tuple(zip([name for name, _ in factors], names, strict=True))
        columns.extend(Column(str(name), term, products[str(name)]) for name in row.columns)
    return columns


def _factor_column_names(recipe: Any) -> dict[tuple[str, bool], list[str]]:
    """Column names that each factor can have, with reduced and with full coding."""
    names: dict[tuple[str, bool], list[str]] = {}
    for row in recipe.structure:
        for scoped in row.scoped_terms:
            for scoped_factor in scoped.factors:
                expr = factor_name(scoped_factor.factor)
                key = (expr, bool(scoped_factor.reduced))
                if expr != "1" and key not in names:
                    names[key] = _encoded_names(recipe, expr, reduced=key[1])
    return names


def _encoded_names(recipe: Any, expr: str, *, reduced: bool) -> list[str]:
    """Names that formulaic gives to the encoded columns of one factor."""
    contrasts = {factor_name(factor): state for factor, state in recipe.factor_contrasts.items()}
    plain = unquoted(expr)
    if expr in contrasts:
        coding = contrasts[expr].contrasts
        levels = list(contrasts[expr].levels)
        names = [str(n) for n in coding.get_coding_column_names(levels, reduced_rank=reduced)]
        pattern = coding.get_factor_format(levels, reduced_rank=reduced)
        return [pattern.format(name=plain, field=name) for name in names]
    if expr.startswith("`") or expr.isidentifier():
        return [plain]  # a numeric column; its name may hold brackets and colons
    for row in recipe.structure:
        if term_factors(row.term) == (expr,):
            return [str(c) for c in row.columns]
    for row in recipe.structure:
        # A numeric factor that occurs only inside products: read its columns off a product's names.
        exprs = term_factors(row.term)
        if expr in exprs:
            return list(dict.fromkeys([_split_name(str(c), len(exprs))[exprs.index(expr)] for c in row.columns]))
    return [plain]


def _split_name(name: str, n_parts: int) -> list[str]:
    """Split ``a[x]:b`` at the colons outside brackets and parentheses."""
    parts, depth = [""], 0
    for char in name:
        depth += (char in "([{") - (char in ")]}")
        if char == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts if len(parts) == n_parts else [name] * n_parts


def _collect(columns: Iterable[Column], matrix: pd.DataFrame, values: dict[tuple[str, str], FloatArray]) -> bool:
    """Add the columns that are a factor's own to the values, and say whether there are new ones among them."""
    before = len(values)
    for column in columns:
        if len(column.parts) == 1 and column.parts[0] not in values:
            values[column.parts[0]] = matrix[column.name].to_numpy(dtype=np.float64)
    return len(values) > before


def _in_order(columns: list[Column], terms: Sequence[Term]) -> list[Column]:
    rank = {term: position for position, term in enumerate(terms)}
    return sorted(columns, key=lambda column: rank.get(column.term, len(rank)))
