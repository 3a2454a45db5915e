"""Rows of a data set in the order of subjects and positions, as a residual structure has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.declared import data_error
from hierlmm.covariance.residual.base import ResidualCorrelation
from hierlmm.covariance.variance import sorted_levels
from hierlmm.frames import is_number, occasions_in_use, quote, shorten
from hierlmm.groups import group_order, group_starts

SAME_TIME = 1e-10
"""Distance, relative to the median one, below which two times are one time with rounding errors."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Order of the rows by subject and position.

    Attributes
    ----------
    order : (N,)
        Row of the data at each place.
    start : (J + 1,)
        IntArray of subject j are ``start[j]:start[j+1]``.
    t : (N,)
        Positions, in this order.
    labels : tuple of str
        Names of the occasions that the codes in ``t`` stand for.
    """

    order: IntArray
    start: IntArray
    t: FloatArray
    labels: tuple[str, ...]

    @property
    def gaps(self) -> FloatArray:
        """Distance of each row to the row before, 0 on a subject's first: (N,)."""
        found = np.diff(self.t, prepend=0.0)
        found[self.start[:-1]] = 0.0
        return found


def make_rows(
    spec: ResidualCorrelation | None, column: pd.Series | None, subject_index: IntArray, subjects: pd.Index
) -> Rows:
    """Sort the rows by subject and position, and refuse positions that the structure cannot use.

    Parameters
    ----------
    spec : ResidualCorrelation or None
    column : Series (N,) or None
        The structure's ``time`` column, if it has one.
    subject_index : (N,)
    subjects : Index (J,)

    Raises
    ------
    DataError
        Positions that are no numbers (or no whole numbers), or the same position twice in one subject.
    """
    J = len(subjects)
    start = group_starts(subject_index, J)
    if spec is None or column is None:
        order = group_order(subject_index)
        place = np.arange(len(order)) - np.repeat(start[:-1], np.diff(start))
        return Rows(order, start, place.astype(np.float64), ())
    values, labels = _positions(spec, column)
    order = group_order(subject_index, values)
    t = values[order]
    rows = Rows(order, start, t, labels)
    if not spec.ties:
        _refuse_ties(spec, rows, column, subjects)
    return rows


def labelled(spec: ResidualCorrelation, column: pd.Series) -> bool:
    """Whether positions are places of labels among all occasions of the data, whoever missed which of them."""
    text = isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.infer_dtype(column) == "string"
    return spec.by_occasion or (spec.integer and text)


def _positions(spec: ResidualCorrelation, column: pd.Series) -> tuple[FloatArray, tuple[str, ...]]:
    name = type(spec).__name__
    if labelled(spec, column):
        sorted_levels(name, column)  # refuses labels that have no order
        levels, known = occasions_in_use(column)
        if (spec._in_order or spec.integer) and not known and len(levels) > 2:  # two are neighbours in any order
            received = f"{name}({column.name!r}) and occasions {shorten(levels)}"
            what = "correlations of neighbours" if spec.by_occasion else "one correlation for each lag"
            reason = f"it has {what}, and the order of these in time cannot be told from text"
            order = ", ".join(map(repr, levels[:3]))
            remedy = (
                f"say it: data[{column.name!r}] = pd.Categorical(data[{column.name!r}], [{order}, ...], ordered=True)"
            )
            raise data_error(received, reason, remedy)
        codes = column.map({label: k for k, label in enumerate(levels)}).to_numpy(dtype=np.float64)
        return codes, tuple(f"{label:g}" if isinstance(label, float) else str(label) for label in levels)
    kind = pd.api.types.infer_dtype(column)
    if kind in ("timedelta64", "timedelta"):
        remedy = f"make a column of numbers, for example days: data[{column.name!r}].dt.total_seconds() / 86400"
        raise data_error(f"{name} and durations in {column.name!r}", "a distance in time needs a unit", remedy)
    if kind in ("datetime64", "datetime", "date", "period"):
        raise data_error(
            f"{name} and dates in {column.name!r}",
            "a distance in time needs a unit",
            f"make a column of numbers, for example days since the start: (data[{column.name!r}] - "
            f"data[{column.name!r}].min()).dt.days",
        )
    if not is_number(column) or pd.api.types.is_complex_dtype(column):
        raise data_error(
            f"{name} and a column {column.name!r} of type {column.dtype}",
            "positions of a serial structure are numbers",
            f"use a column of times (data[{column.name!r}].astype(float), if these are numbers), or Unstructured for "
            "labelled occasions (AR1 or Toeplitz to count them)",
        )
    values = column.to_numpy(dtype=np.float64)
    if not np.all(np.isfinite(values)):
        received = f"{name} and {int(np.sum(~np.isfinite(values)))} times in {column.name!r} that are not finite"
        raise data_error(received, "a position is a number", "correct or drop these rows")
    if spec.integer and np.any(values != np.round(values)):
        bad = values[values != np.round(values)][0]
        raise data_error(
            f"{name}({column.name!r}) and the value {bad:g}",
            "its positions are whole numbers that count the occasions",
            f"use Exponential({column.name!r}) or CAR1({column.name!r}) for continuous time, or a column 1, 2, 3, ...",
        )
    return values, ()


def _refuse_ties(spec: ResidualCorrelation, rows: Rows, column: pd.Series, subjects: pd.Index) -> None:
    gaps = np.diff(rows.t)
    gaps[rows.start[1:-1] - 1] = np.inf
    seen = gaps[(gaps > 0) & np.isfinite(gaps)]
    same = gaps <= (SAME_TIME * np.median(seen) if seen.size else 0.0)
    places = np.flatnonzero(same)
    if places.size:
        at = places[0]
        subject = subjects[int(np.searchsorted(rows.start, at, side="right")) - 1]
        data_rows = column.index[rows.order[at : at + 2]]
        value = column.iloc[rows.order[at]]
        remedy = "average the replicates, or correct the column"
        if spec.nugget is not None:
            remedy = f"average them, correct the column, or allow replicates: {type(spec).__name__}(..., nugget=True)"
        raise data_error(
            f"two rows of {quote(subject)} with {column.name} {quote(value)} (rows {shorten(data_rows)}; "
            f"{places.size} such pairs in all)",
            "two residuals at one position would be correlated perfectly, or there is no telling which came first",
            remedy,
        )
