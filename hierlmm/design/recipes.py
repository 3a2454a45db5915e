"""formulaic's model specifications: learnt from rows, evaluated on others, with messages in our words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import SEE, categorical_arguments, is_truth_value, unquoted, variables_of
from hierlmm.design.levels import data_error, holds_huge_integers
from hierlmm.design.spline_functions import formula_functions
from hierlmm.errors import DataError, FormulaError, HierlmmError, warn

OF_FAMILY = "response of a family"
OTHERS = "labels of two levels are family='bernoulli', ordered ones family='ordinal'"
GENERALISED = "needs its own family, for example family='bernoulli' or 'poisson'"


def as_floats(frame: pd.DataFrame, factors: Iterable[str]) -> pd.DataFrame:
    """Integers as floats for expressions, in which int64 could overflow (``I(x**4)``), except where they are labels."""
    expressions = [f for f in factors if f not in frame.columns and unquoted(f) not in frame.columns]
    labels = {name for expression in expressions for name in categorical_arguments(expression)}
    known = [c for c in frame.columns if c not in labels]
    whole = {c for c in known if expressions and pd.api.types.is_integer_dtype(frame[c].dtype)}
    integers = [c for c in known if c in whole or holds_huge_integers(frame[c])]
    return frame.astype(dict.fromkeys(integers, np.float64)) if integers else frame


def warn_beyond(extrapolated: dict[str, str]) -> None:
    """One warning for each spline that leaves its boundary knots, however many terms it is part of."""
    for message in extrapolated.values():
        warn(message)


def fit_recipe(
    rhs: str, frame: pd.DataFrame, extrapolated: dict[str, str], states: Mapping[str, Any] | None = None
) -> tuple[Any, pd.DataFrame]:
    """Learn a right-hand side from rows: formulaic's specification, and its matrix; ``states`` are known already."""
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            known = {call: dict(state) for call, state in (states or {}).items()}
            options = {"na_action": "ignore", "context": formula_functions(extrapolated)}
            matrix = Formula(rhs).get_model_matrix(frame, **options, transform_state=known)
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error.__cause__, HierlmmError):  # it says what is wrong better than formulaic's wrapping of it
            raise error.__cause__ from error
        reason = f"the terms cannot be evaluated on these data: {str(error).splitlines()[0]}"
        remedy = "check the arguments of the functions in the formula and the types of the columns"
        raise FormulaError(repr(rhs), reason, remedy, SEE) from error
    return matrix.model_spec, pd.DataFrame(matrix)


def materialise(recipe: Any, frame: pd.DataFrame, extrapolated: dict[str, str]) -> pd.DataFrame:
    """Evaluate a specification on other rows."""
    from formulaic.errors import DataMismatchWarning, FormulaicError

    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            return pd.DataFrame(recipe.get_model_matrix(frame, context=formula_functions(extrapolated)))
    except DataMismatchWarning as error:
        unseen = re.sub(r"np\.\w+\(([^)]*)\)", r"\1", str(error).partition("{")[2].partition("}")[0])
        received = f"new data with the level {unseen}" if unseen else "new data with a level that is new"
        reason = "this level was not in the data that the model was fitted to, so no coefficient belongs to it"
        raise data_error(received, reason, "leave these rows out, or refit with data that contain it") from error
    except (FormulaicError, ValueError, TypeError, ArithmeticError) as error:
        problem = str(error).splitlines()[0]
        received, remedy = "new data", "give the columns the types that they had at fitting time"
        if "bounds" in problem:
            received = "new data outside the range of the data that the model was fitted to"
            spline = "a spline that goes on beyond the data: ns(x, 3) is linear there"
            remedy = f"leave these rows out, or refit with {spline}"
        raise data_error(received, f"the terms cannot be evaluated on them: {problem}", remedy) from error


def evaluate_vector(expression: str, frame: pd.DataFrame, role: str) -> FloatArray:
    """Evaluate a response or offset to one numeric vector.

    Raises
    ------
    DataError
        If it is categorical or has several columns.
    """
    received, variables = f"{role} {expression!r}", variables_of(expression, list(frame.columns))
    frame = as_floats(frame[list(variables)], [expression])
    for name in variables:
        dtype, api = frame[name].dtype, pd.api.types
        if not api.is_numeric_dtype(dtype) or api.is_bool_dtype(dtype) or api.is_complex_dtype(dtype):
            reason = f"the column {name!r} holds {dtype} values, not numbers"
            convert = "convert it to numbers (pd.to_numeric shows which values cannot be read)"
            if api.is_bool_dtype(dtype):
                convert = f"data[{name!r}].astype(int) makes 0 and 1 of it, whose mean is the share of yes"
            remedy = f"{convert}; {OTHERS if role == OF_FAMILY else f'a binary or count response {GENERALISED}'}"
            raise DataError(received, reason, remedy, "docs, page 'Families'")
    if role in ("response", OF_FAMILY) and expression not in variables and is_truth_value(expression):
        remedy = f"make it a column, data['yes'] = ..., and use that; a binary response {GENERALISED}"
        raise DataError(received, "it is true or false, not a number", remedy, "docs, page 'Families'")
    if variables == (unquoted(expression),):
        return frame[variables[0]].to_numpy(dtype=np.float64)
    braced = expression if expression.startswith("{") else f"{{{expression}}}"
    recipe, matrix = fit_recipe(f"0 + {braced}", frame, {})
    if role == "offset" and recipe.transform_state:
        learns = next(iter(recipe.transform_state))
        reason = f"{learns!r} learns from the rows it sees: new rows would get another offset"
        remedy = "make the column beforehand (data['z'] = ...), or use arithmetic with fixed numbers"
        raise FormulaError(f"offset({expression})", reason, remedy, SEE)
    if matrix.shape[1] != 1:
        reason = f"it evaluates to {matrix.shape[1]} columns"
        raise data_error(received, reason, "use an expression that yields one number per row")
    return matrix.iloc[:, 0].to_numpy(dtype=np.float64)
