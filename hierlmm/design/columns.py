"""Columns of the model matrices through formulaic, each kept as a product of level-1 and level-2 factor columns.

formulaic decides the coding (which dummies a factor gets depends on what else is in the formula); this module keeps,
for every column, the factor columns it is a product of, so that ``x_ij,c = x1_ij,k(c) * w_i,m(c)`` is known exactly,
and keeps formulaic's state (categories, spline knots, centring) so that new data get the same columns.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.formula import (
    INTERCEPT,
    Term,
    categorical_arguments,
    factor_name,
    is_truth_value,
    join_terms,
    term_factors,
    term_name,
    unquoted,
    variables_of,
)
from hierlmm.design.formula_limits import check_columns
from hierlmm.design.splines import formula_functions
from hierlmm.errors import DataError, FormulaError, HierlmmError, warn
from hierlmm.frames import quote, shorten

__all__ = [
    "Column",
    "FactorColumns",
    "Levels",
    "as_fitted_truth_values",
    "check_labels",
    "evaluate_factors",
    "evaluate_vector",
    "learn_levels",
]

SEE = "docs, page 'Formulas and levels'"
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


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
            codes, present = pd.factorize(frame[name])
            # By equality, so that 1 is true and 1.0 is 1; what pandas makes of other types is its own business.
            position = {value: k for k, value in enumerate(known)}
            unseen = [v for v in present if v not in position]
            if unseen:
                raise DataError(
                    f"{name} = {quote(unseen[0])}",
                    f"this level of {name!r} was not in the data that the model was fitted to, "
                    "so no coefficient belongs to it",
                    f"use one of the levels {shorten(map(quote, known))}, or refit with data that contain it",
                    SEE,
                )
            at = np.array([*(position[v] for v in present), -1], dtype=np.intp)[codes]
            coded = pd.Categorical.from_codes(at, categories=pd.Index(known))
            frame = frame.assign(**{name: coded})
        return frame


def _is_factor(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)


def as_fitted_truth_values(frame: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """Make ones and zeros of new data true and false where the fitted column held these (``C(g)`` compares types)."""
    found = {}
    for name in frame.columns:
        if name not in fitted.columns or not pd.api.types.is_bool_dtype(fitted[name].dtype):
            continue
        values = frame[name].astype(frame[name].cat.categories.dtype) if _is_factor(frame[name]) else frame[name]
        if not pd.api.types.is_bool_dtype(values.dtype) and values.isin([0, 1]).all():
            found[name] = values.astype(bool)
    return frame.assign(**found)


def learn_levels(frame: pd.DataFrame, variables: Iterable[str], terms: Iterable[str]) -> Levels:
    """Read the categories in use; unused categories get no column (they would make X rank deficient).

    Parameters
    ----------
    frame : pandas.DataFrame
    variables : iterable of str
        The covariates.
    terms : iterable of str
        Factor expressions of the model; a truth value that stands only inside expressions stays one.

    Raises
    ------
    DataError
        If a covariate holds dates, durations or anything else that is neither a number nor a label, or a factor has
        one level only.
    """
    categories: dict[str, tuple[Any, ...]] = {}
    terms = list(terms)
    plain = {unquoted(t) for t in terms}
    labels = {name for term in terms for name in categorical_arguments(term)}
    for name in variables:
        values = frame[name]
        if _holds_huge_integers(values) and name not in labels:
            continue
        if _is_factor(values):
            categories[name] = tuple(values.cat.remove_unused_categories().cat.categories)
        elif pd.api.types.is_bool_dtype(values.dtype):
            if name in plain:
                categories[name] = (False, True)
        elif not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_complex_dtype(values.dtype):
            check_labels(values, f"covariate {name!r}")
            if name not in labels:
                _refuse_text_dates(values)
            categories[name] = tuple(sorted(pd.unique(values.dropna()), key=str))
        if len(categories.get(name, (0, 1))) < 2:
            raise DataError(
                f"a factor {name!r} that is {quote(categories[name][0])} in every row",
                "with one level there is nothing to compare",
                "take it out of the formula, or check whether a filter (or missing='drop') left one level only",
                SEE,
            )
    return Levels(categories)


def _refuse_text_dates(values: pd.Series) -> None:
    """Refuse text that holds dates only (a CSV file gives them so): each of them would get a coefficient."""
    texts = pd.unique(values.dropna())
    if not all(isinstance(text, str) and ISO_DATE.fullmatch(text.strip()) for text in texts):
        return
    if (
        pd.to_datetime(pd.Series(texts, dtype=str).str.strip(), errors="coerce", format="ISO8601", utc=True)
        .isna()
        .any()
    ):
        return
    name = values.name
    raise DataError(
        f"covariate {name!r} that holds dates as text (the first: {quote(texts[0])})",
        "a coefficient needs a number, with a unit and a zero; as text every date would be a category",
        f"make it one: days = pd.to_datetime(data[{name!r}]), data[{name!r}] = (days - days.min()) / "
        f"pd.Timedelta(days=1) gives days; for one coefficient per date use data[{name!r}].astype('category') "
        f"(command line: --categorical {name})",
        SEE,
    )


def _holds_huge_integers(values: pd.Series) -> bool:
    """Whether the column holds Python integers, which no integer type of numpy can hold."""
    return pd.api.types.is_object_dtype(values.dtype) and pd.api.types.infer_dtype(values) == "integer"


def check_labels(values: pd.Series, role: str) -> None:
    """Refuse a column that holds neither numbers nor labels of one type.

    Raises
    ------
    DataError
        For dates and durations, mixed types, complex numbers, lists.
    """
    kind = pd.api.types.infer_dtype(values, skipna=True)
    name = values.name
    if kind in ("string", "boolean", "interval", "integer", "floating"):
        return
    if kind.startswith(("datetime", "date", "timedelta", "time", "period")):
        convert = f"data[{name!r}] = (data[{name!r}] - data[{name!r}].min()) / pd.Timedelta(days=1)"
        if kind.startswith("timedelta"):
            convert = f"data[{name!r}] = data[{name!r}] / pd.Timedelta(days=1)"
        raise DataError(
            f"{role} that holds {kind} values",
            "a coefficient needs a number, with a unit and a zero",
            f"make it one: {convert} gives days (first pd.to_datetime for dates that are objects); "
            "for one coefficient per date use labels: .astype(str).astype('category')",
            SEE,
        )
    types = sorted({type(v).__name__ for v in values.dropna()})
    raise DataError(
        f"{role} that holds values of type {', '.join(types)}",
        "they are neither numbers nor labels of one type, so 1 and '1' could be the same or not",
        f"convert it: data[{name!r}].astype(str) for labels, pd.to_numeric(data[{name!r}]) for numbers",
        SEE,
    )


@dataclass(frozen=True)
class FactorColumns:
    """Recipes for factor columns (formulaic's fitted model specs), and which column each recipe yields."""

    recipes: tuple[Any, ...]
    wanted: frozenset[tuple[str, str]]
    numbers: frozenset[str]

    def values(self, frame: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.float64]]:
        """Evaluate every factor column on a table (fitting data or new data)."""
        found: dict[tuple[str, str], NDArray[np.float64]] = {}
        extrapolated: dict[str, str] = {}
        frame = _as_floats(frame, {factor for factor, _ in self.wanted})
        _check_numbers(frame, self.numbers)
        for recipe in self.recipes:
            matrix = _materialise(recipe, frame, extrapolated)
            for column in _columns(recipe):
                if len(column.parts) == 1 and column.parts[0] not in found and column.parts[0] in self.wanted:
                    found[column.parts[0]] = matrix[column.name].to_numpy(dtype=np.float64)
        _warn(extrapolated)
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
    used = {factor for terms in term_lists for term in terms for factor in term}
    frame = _as_floats(frame, used)
    numbers = frozenset(c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c].dtype))
    recipes: list[Any] = []
    columns: list[list[Column]] = []
    extrapolated: dict[str, str] = {}
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for terms in term_lists:
        if not terms:
            columns.append([])
            continue
        check_columns({term_name(term): _least_columns(term, frame) for term in terms}, len(frame))
        recipe, matrix = _fit_recipe(join_terms(tuple(terms)), frame, extrapolated)
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
            recipe, matrix = _fit_recipe(rhs, frame, extrapolated)
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
    _warn(extrapolated)
    kept = {part: column for part, column in values.items() if part in wanted}
    return columns, FactorColumns(tuple(recipes), frozenset(wanted), numbers), kept


def _least_columns(term: Term, frame: pd.DataFrame) -> int:
    """Columns that a term has at least: labels count one less than there are of them."""
    total = 1
    for factor in term:
        plain = unquoted(factor)
        labels = (plain,) if plain in frame.columns else categorical_arguments(factor)
        for name in labels:
            if name in frame.columns and (name != plain or _is_factor(frame[name])):
                total *= max(1, frame[name].nunique() - 1)
    return total


def _as_floats(frame: pd.DataFrame, factors: Iterable[str]) -> pd.DataFrame:
    """Integers as floats for expressions, in which int64 could overflow (``I(x**4)``), except where they are labels."""
    expressions = [f for f in factors if f not in frame.columns and unquoted(f) not in frame.columns]
    labels = {name for expression in expressions for name in categorical_arguments(expression)}
    integers = [
        c
        for c in frame.columns
        if c not in labels
        and (_holds_huge_integers(frame[c]) or (expressions and pd.api.types.is_integer_dtype(frame[c].dtype)))
    ]
    return frame.astype(dict.fromkeys(integers, np.float64)) if integers else frame


def _check_numbers(frame: pd.DataFrame, numbers: frozenset[str]) -> None:
    """Refuse labels in new data where the model was fitted to numbers."""
    for name in numbers & set(frame.columns):
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise DataError(
                f"{name!r} with {frame[name].dtype} values",
                "the model was fitted to numbers in this column",
                f"convert it: pd.to_numeric(data[{name!r}])",
                SEE,
            )


def _check_every_term(columns: list[Column], terms: Sequence[Term]) -> None:
    """Refuse a term that got no column: a factor with one level."""
    present = {column.term for column in columns}
    for term in terms:
        if term not in present:
            raise DataError(
                f"the term {term_name(term)!r}",
                "it has no column of its own: a factor with one level has nothing to compare",
                "take it out of the formula, or check whether a filter left one level only",
                SEE,
            )


def evaluate_vector(expression: str, frame: pd.DataFrame, role: str) -> NDArray[np.float64]:
    """Evaluate a response or offset to one numeric vector.

    Raises
    ------
    DataError
        If it is categorical or has several columns.
    """
    variables = variables_of(expression, list(frame.columns))
    frame = _as_floats(frame[list(variables)], [expression])
    for name in variables:
        dtype = frame[name].dtype
        api = pd.api.types
        if not api.is_numeric_dtype(dtype) or api.is_bool_dtype(dtype) or api.is_complex_dtype(dtype):
            raise DataError(
                f"{role} {expression!r}",
                f"the column {name!r} holds {dtype} values, not numbers",
                "convert it to numbers (pd.to_numeric shows which values cannot be read); a binary or count response "
                "needs a generalised model, for example Bambi's families",
                "docs, page 'Limitations'",
            )
    if role == "response" and expression not in variables and is_truth_value(expression):
        raise DataError(
            f"{role} {expression!r}",
            "it is true or false, not a number",
            "use the column itself; a binary response needs a generalised model, for example Bambi's families",
            "docs, page 'Limitations'",
        )
    if variables == (unquoted(expression),):
        return frame[variables[0]].to_numpy(dtype=np.float64)
    braced = expression if expression.startswith("{") else f"{{{expression}}}"
    recipe, matrix = _fit_recipe(f"0 + {braced}", frame, {})
    if role == "offset" and recipe.transform_state:
        raise FormulaError(
            f"offset({expression})",
            f"{next(iter(recipe.transform_state))!r} learns from the rows it sees: new rows would get another offset",
            "make the column beforehand (data['z'] = ...), or use arithmetic with fixed numbers",
            SEE,
        )
    if matrix.shape[1] != 1:
        raise DataError(
            f"{role} {expression!r}",
            f"it evaluates to {matrix.shape[1]} columns",
            "use an expression that yields one number per row",
            SEE,
        )
    return matrix.iloc[:, 0].to_numpy(dtype=np.float64)


def _warn(extrapolated: dict[str, str]) -> None:
    """One warning for each spline that leaves its boundary knots, however many terms it is part of."""
    for message in extrapolated.values():
        warn(message)


def _fit_recipe(rhs: str, frame: pd.DataFrame, extrapolated: dict[str, str]) -> tuple[Any, pd.DataFrame]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            functions = formula_functions(extrapolated)
            matrix = Formula(rhs).get_model_matrix(frame, na_action="ignore", context=functions)
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error.__cause__, HierlmmError):  # it says what is wrong better than formulaic's wrapping of it
            raise error.__cause__ from error
        raise FormulaError(
            repr(rhs),
            f"the terms cannot be evaluated on these data: {str(error).splitlines()[0]}",
            "check the arguments of the functions in the formula and the types of the columns",
            SEE,
        ) from error
    return matrix.model_spec, pd.DataFrame(matrix)


def _materialise(recipe: Any, frame: pd.DataFrame, extrapolated: dict[str, str]) -> pd.DataFrame:
    from formulaic.errors import DataMismatchWarning, FormulaicError

    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            return pd.DataFrame(recipe.get_model_matrix(frame, context=formula_functions(extrapolated)))
    except DataMismatchWarning as error:
        unseen = re.sub(r"np\.\w+\(([^)]*)\)", r"\1", str(error).partition("{")[2].partition("}")[0])
        raise DataError(
            f"new data with the level {unseen}" if unseen else "new data with a level that is new",
            "this level was not in the data that the model was fitted to, so no coefficient belongs to it",
            "leave these rows out, or refit with data that contain it",
            SEE,
        ) from error
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        problem = str(error).splitlines()[0]
        outside = "bounds" in problem
        raise DataError(
            "new data outside the range of the data that the model was fitted to" if outside else "new data",
            f"the terms cannot be evaluated on them: {problem}",
            "leave these rows out, or refit with a spline that goes on beyond the data: ns(x, 3) is linear there"
            if outside
            else "give the columns the types that they had at fitting time",
            SEE,
        ) from error


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
            pieces = [_split_name(str(c), len(exprs))[exprs.index(expr)] for c in row.columns]
            return list(dict.fromkeys(pieces))
    return [plain]


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
