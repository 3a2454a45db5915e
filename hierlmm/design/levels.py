"""Which columns of the data are labels, and with which categories: learnt from the fitted rows, kept for new ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.design.formula import SEE, categorical_arguments, unquoted
from hierlmm.errors import DataError
from hierlmm.frames import quote, shorten

data_error = partial(DataError, see=SEE)
NO_NUMBER = "a coefficient needs a number, with a unit and a zero"
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


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
                fitted = f"this level of {name!r} was not in the data that the model was fitted to"
                remedy = f"use one of the levels {shorten(map(quote, known))}, or refit with data that contain it"
                raise data_error(f"{name} = {quote(unseen[0])}", f"{fitted}, so no coefficient belongs to it", remedy)
            at = np.array([*(position[v] for v in present), -1], dtype=np.intp)[codes]
            ordered = is_factor(frame[name]) and frame[name].cat.ordered
            frame = frame.assign(**{name: pd.Categorical.from_codes(at, pd.Index(known), ordered=ordered)})
        return frame


def is_factor(values: pd.Series) -> bool:
    """Whether a column is categorical."""
    return isinstance(values.dtype, pd.CategoricalDtype)


def as_fitted_truth_values(frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
    """Make ones and zeros of new data true and false where the fitted column held these (``C(g)`` compares types).

    Parameters
    ----------
    frame : pandas.DataFrame
    fitted : mapping
        Columns of the fitted data and their types.
    """
    found = {}
    for name in frame.columns:
        if name not in fitted or not pd.api.types.is_bool_dtype(fitted[name]):
            continue
        values = frame[name].astype(frame[name].cat.categories.dtype) if is_factor(frame[name]) else frame[name]
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
        if holds_huge_integers(values) and name not in labels:
            continue
        if is_factor(values):
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
            received = f"a factor {name!r} that is {quote(categories[name][0])} in every row"
            remedy = "take it out of the formula, or check whether a filter (or missing='drop') left one level only"
            raise data_error(received, "with one level there is nothing to compare", remedy)
    return Levels(categories)


def _refuse_text_dates(values: pd.Series) -> None:
    """Refuse text that holds dates only (a CSV file gives them so): each of them would get a coefficient."""
    texts = pd.unique(values.dropna())
    if not all(isinstance(text, str) and ISO_DATE.fullmatch(text.strip()) for text in texts):
        return
    stripped = pd.Series(texts, dtype=str).str.strip()
    if pd.to_datetime(stripped, errors="coerce", format="ISO8601", utc=True).isna().any():
        return
    name = values.name
    received = f"covariate {name!r} that holds dates as text (the first: {quote(texts[0])})"
    days = f"days = pd.to_datetime(data[{name!r}]), data[{name!r}] = (days - days.min()) / pd.Timedelta(days=1)"
    category = f"data[{name!r}].astype('category') (command line: --categorical {name})"
    remedy = f"make it one: {days} gives days; for one coefficient per date use {category}"
    raise data_error(received, f"{NO_NUMBER}; as text every date would be a category", remedy)


def holds_huge_integers(values: pd.Series) -> bool:
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
        column = f"data[{name!r}]"
        length = column if kind.startswith("timedelta") else f"({column} - {column}.min())"
        convert = f"{column} = {length} / pd.Timedelta(days=1)"
        days = f"make it one: {convert} gives days (first pd.to_datetime for dates that are objects)"
        remedy = f"{days}; for one coefficient per date use labels: .astype(str).astype('category')"
        raise data_error(f"{role} that holds {kind} values", NO_NUMBER, remedy)
    types = sorted({type(v).__name__ for v in values.dropna()})
    reason = "they are neither numbers nor labels of one type, so 1 and '1' could be the same or not"
    remedy = f"convert it: data[{name!r}].astype(str) for labels, pd.to_numeric(data[{name!r}]) for numbers"
    raise data_error(f"{role} that holds values of type {', '.join(types)}", reason, remedy)
