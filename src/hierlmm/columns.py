"""Columns of the model matrices through formulaic, each kept as a product of level-1 and level-2 factor columns.

formulaic decides the coding (which dummies a factor gets depends on what else is in the formula); this module keeps,
for every column, the factor columns it is a product of, so that ``x_ij,c = x1_ij,k(c) * w_i,m(c)`` is known exactly,
and keeps formulaic's state (categories, spline knots, centring) so that new data get the same columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DataError, FormulaError
from hierlmm.formula import INTERCEPT, Term, factor_name, join_terms, term_factors, variables_of
from hierlmm.frames import quote, shorten

__all__ = ["Column", "FactorColumns", "Levels", "evaluate_factors", "evaluate_vector", "learn_levels"]

SEE = "docs, page 'Formulas and levels'"


class Column(NamedTuple):
    """One column of a model matrix: its name, its term, and the ``(factor, column name)`` pairs it multiplies."""

    name: str
    term: Term
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Levels:
    """Categories of every categorical variable at fitting time; others are an error in new data."""

    categories: dict[str, tuple[Any, ...]]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with these categories.

        Raises
        ------
        DataError
            If a value occurs that was not there at fitting time.
        """
        for name, known in self.categories.items():
            if name not in frame.columns:
                continue
            values = frame[name]
            unseen = [v for v in pd.unique(values.dropna()) if v not in known]
            if unseen:
                raise DataError(
                    f"{name} = {quote(unseen[0])}",
                    f"this level of {name!r} was not in the data that the model was fitted to, "
                    "so no coefficient belongs to it",
                    f"use one of the levels {shorten(map(quote, known))}, or refit with data that contain it",
                    SEE,
                )
            frame = frame.assign(**{name: pd.Categorical(values, categories=list(known))})
        return frame


def learn_levels(frame: pd.DataFrame, variables: Iterable[str]) -> Levels:
    """Read the categories in use; unused categories get no column (they would make X rank deficient)."""
    categories: dict[str, tuple[Any, ...]] = {}
    for name in variables:
        values = frame[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            used = set(values.dropna().unique())
            categories[name] = tuple(c for c in values.cat.categories if c in used)
        elif not pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_datetime64_any_dtype(values.dtype):
            categories[name] = tuple(sorted(pd.unique(values.dropna()), key=str))
        elif pd.api.types.is_bool_dtype(values.dtype):
            categories[name] = (False, True)
    return Levels(categories)


@dataclass(frozen=True)
class FactorColumns:
    """Recipes for factor columns (formulaic's fitted model specs), and which column each recipe yields."""

    recipes: tuple[Any, ...]
    wanted: frozenset[tuple[str, str]]

    def values(self, frame: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.float64]]:
        """Evaluate every factor column on a table (fitting data or new data)."""
        found: dict[tuple[str, str], NDArray[np.float64]] = {}
        for recipe in self.recipes:
            matrix = _materialise(recipe, frame)
            for column in _columns(recipe):
                if len(column.parts) == 1 and column.parts[0] not in found and column.parts[0] in self.wanted:
                    found[column.parts[0]] = matrix[column.name].to_numpy(dtype=np.float64)
        return found


def evaluate_factors(
    term_lists: Sequence[Sequence[Term]], frame: pd.DataFrame
) -> tuple[list[list[Column]], FactorColumns, dict[tuple[str, str], NDArray[np.float64]]]:
    """Code every list of terms as a formula of its own and return their columns and the factor columns they need.

    Parameters
    ----------
    term_lists : sequence of sequences of Term
        For example the fixed terms, and each block of random terms.
    frame : pandas.DataFrame
        Complete rows.

    Returns
    -------
    columns : list of list of Column
        Per list of terms, in formulaic's order.
    factors : FactorColumns
        How to evaluate the factor columns again.
    values : dict
        ``(factor, column name) -> (N,)``.
    """
    recipes: list[Any] = []
    columns: list[list[Column]] = []
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for terms in term_lists:
        if not terms:
            columns.append([])
            continue
        recipe, matrix = _fit_recipe(join_terms(tuple(terms)), frame)
        found = _columns(recipe)
        columns.append(_in_order(found, terms))
        if _collect(found, matrix, values):
            recipes.append(recipe)
    wanted = {part for cols in columns for column in cols for part in column.parts}
    for factor in dict.fromkeys(factor for factor, _ in wanted):
        for rhs in (f"1 + {factor}", f"0 + {factor}"):
            if all(part in values for part in wanted if part[0] == factor):
                break
            recipe, matrix = _fit_recipe(rhs, frame)
            if _collect(_columns(recipe), matrix, values):
                recipes.append(recipe)
    missing = [part for part in wanted if part not in values]
    if missing:
        raise FormulaError(
            f"the term {missing[0][0]!r}",
            f"its column {missing[0][1]!r} could not be evaluated apart from the other terms",
            "make the column beforehand (data['z'] = ...) and use its name in the formula",
            SEE,
        )
    kept = {part: column for part, column in values.items() if part in wanted}
    return columns, FactorColumns(tuple(recipes), frozenset(wanted)), kept


def evaluate_vector(expression: str, frame: pd.DataFrame, role: str) -> NDArray[np.float64]:
    """Evaluate a response or offset to one numeric vector.

    Raises
    ------
    DataError
        If it is categorical or has several columns.
    """
    variables = variables_of(expression, list(frame.columns))
    for name in variables:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise DataError(
                f"{role} {expression!r}",
                f"the column {name!r} holds {frame[name].dtype} values, not numbers",
                "convert it to numbers (pd.to_numeric shows which values cannot be read); a binary or count response "
                "needs a generalised model, for example Bambi's families",
                "docs, page 'Limitations'",
            )
    if variables == (expression,):
        return frame[expression].to_numpy(dtype=np.float64)
    _, matrix = _fit_recipe(f"0 + {expression}", frame)
    if matrix.shape[1] != 1:
        raise DataError(
            f"{role} {expression!r}",
            f"it evaluates to {matrix.shape[1]} columns",
            f"use an expression that yields one number per row; for a sum write 'I({expression})'",
            SEE,
        )
    return matrix.iloc[:, 0].to_numpy(dtype=np.float64)


def _fit_recipe(rhs: str, frame: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            matrix = Formula(rhs).get_model_matrix(frame, na_action="ignore", context={})
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        raise FormulaError(
            repr(rhs),
            f"the terms cannot be evaluated on these data: {str(error).splitlines()[0]}",
            "check the arguments of the functions in the formula and the types of the columns",
            SEE,
        ) from error
    return matrix.model_spec, pd.DataFrame(matrix)


def _materialise(recipe: Any, frame: pd.DataFrame) -> pd.DataFrame:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return pd.DataFrame(recipe.get_model_matrix(frame, context={}))


def _columns(recipe: Any) -> list[Column]:
    """Read formulaic's structure: every column as a product of ``(factor, factor column)`` pairs."""
    single = _factor_column_names(recipe)
    columns: list[Column] = []
    for row in recipe.structure:
        term = term_factors(row.term)
        if not term:
            columns.append(Column(INTERCEPT, (), ()))
            continue
        products = {
            ":".join(names): tuple(zip(exprs, names, strict=True))
            for scoped in row.scoped_terms
            for exprs, choices in [_scoped_choices(scoped, single)]
            for names in itertools.product(*choices)
        }
        columns.extend(Column(str(name), term, products[str(name)]) for name in row.columns)
    return columns


def _scoped_choices(scoped: Any, single: dict[tuple[str, bool], list[str]]) -> tuple[list[str], list[list[str]]]:
    factors = [(factor_name(f.factor), bool(f.reduced)) for f in scoped.factors if factor_name(f.factor) != "1"]
    return [name for name, _ in factors], [single[key] for key in factors]


def _factor_column_names(recipe: Any) -> dict[tuple[str, bool], list[str]]:
    """Column names that each factor can have, with reduced and with full coding."""
    names: dict[tuple[str, bool], list[str]] = {}
    for row in recipe.structure:
        for scoped in row.scoped_terms:
            for scoped_factor in scoped.factors:
                expr = factor_name(scoped_factor.factor)
                key = (expr, bool(scoped_factor.reduced))
                if key in names or expr == "1":
                    continue
                names[key] = _encoded_names(recipe, expr, reduced=key[1])
    return names


def _encoded_names(recipe: Any, expr: str, *, reduced: bool) -> list[str]:
    """Names that formulaic gives to the encoded columns of one factor."""
    contrasts = {factor_name(factor): state for factor, state in recipe.factor_contrasts.items()}
    if expr in contrasts:
        coding = contrasts[expr].contrasts
        levels = list(contrasts[expr].levels)
        names = [str(n) for n in coding.get_coding_column_names(levels, reduced_rank=reduced)]
        pattern = coding.get_factor_format(levels, reduced_rank=reduced)
        return [pattern.format(name=expr, field=name) for name in names]
    for row in recipe.structure:
        if term_factors(row.term) == (expr,):
            return [str(c) for c in row.columns]
    for row in recipe.structure:
        # A numeric factor that occurs only inside products: read its columns off a product's names.
        exprs = term_factors(row.term)
        if expr in exprs:
            pieces = [_split_name(str(c), len(exprs))[exprs.index(expr)] for c in row.columns]
            return list(dict.fromkeys(pieces))
    return [expr]


def _split_name(name: str, n_parts: int) -> list[str]:
    """Split ``a[x]:b`` at the colons outside brackets and parentheses."""
    parts, depth, current = [], 0, ""
    for char in name:
        depth += (char in "([{") - (char in ")]}")
        if char == ":" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    parts.append(current)
    return parts if len(parts) == n_parts else [name] * n_parts


def _collect(
    columns: Iterable[Column], matrix: pd.DataFrame, values: dict[tuple[str, str], NDArray[np.float64]]
) -> bool:
    new = False
    for column in columns:
        if len(column.parts) == 1 and column.parts[0] not in values:
            values[column.parts[0]] = matrix[column.name].to_numpy(dtype=np.float64)
            new = True
    return new


def _in_order(columns: list[Column], terms: Sequence[Term]) -> list[Column]:
    rank = {term: position for position, term in enumerate(terms)}
    return sorted(columns, key=lambda column: rank.get(column.term, len(rank)))
