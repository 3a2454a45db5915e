"""The measurement history of one covariate: H_i = {(s_1, x_1), (s_2, x_2), ...}, sorted, and a search in it.

Subject and time become one integer key, so that "the last measurement of subject i at or before time t" is one binary
search for all rows together: O((N + M) log M) for N rows and M measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import quote, shorten

TIES = ("raise", "mean", "last")
SEE = "docs, page 'Time-varying covariates'"
data_error = partial(DataError, see=SEE)


@dataclass(frozen=True, eq=False)
class History:
    """The measurements of one covariate, sorted by subject and time, at most one at a time.

    Attributes
    ----------
    codes : ndarray of int, (M,)
        Subject of each measurement, 0 ... J-1.
    times : ndarray, (M,)
    measured : pandas.Series, (M,)
        Values, indexed 0 ... M-1.
    first : ndarray of int, (J + 1,)
        Measurements of subject j are ``first[j] ... first[j + 1] - 1``.
    levels : ndarray, (T,)
        The distinct times, ascending.
    keys : ndarray of int, (M,)
    n_missing, n_tied : int
        Measurements left out because their value is missing, and merged because another has the same time.
    """

    codes: IntArray
    times: FloatArray
    measured: pd.Series
    first: IntArray
    levels: FloatArray
    keys: IntArray
    n_missing: int
    n_tied: int

    def last(self, codes: IntArray, at: FloatArray, slack: float, *, strict: bool = False) -> IntArray:
        """Position of each subject's last measurement at or before a time, -1 where there is none.

        Parameters
        ----------
        codes, at : ndarray, (N,)
            Subject and time of each question.
        slack : float
            Times that differ by no more than this are the same.
        strict : bool
            Before the time, not at it.
        """
        if strict:
            rank = np.searchsorted(self.levels, at - slack, side="left")
        else:
            rank = np.searchsorted(self.levels, at + slack, side="right")
        found = np.searchsorted(self.keys, codes * (len(self.levels) + 1) + rank, side="right") - 1
        return np.where(found >= self.first[codes], found, -1)

    def numbers(self) -> FloatArray:
        """Values as floats."""
        return self.measured.to_numpy(np.float64)

    def subset(self, keep: BoolArray) -> History:
        """Return the history with these measurements only."""
        codes, times = self.codes[keep], self.times[keep]
        first, measured = np.searchsorted(codes, np.arange(len(self.first))), self.measured[keep].reset_index(drop=True)
        return History(codes, times, measured, first, self.levels, self.keys[keep], self.n_missing, self.n_tied)


def make_history(
    codes: IntArray, times: FloatArray, values: pd.Series, labels: pd.Index, *, missing: str, ties: str
) -> History:
    """Sort measurements by subject and time, after refusing what is ambiguous.

    Parameters
    ----------
    codes : ndarray of int, (M,)
        Position of the subject in `labels`; -1 for subjects of whom the outcome has no row.
    times : ndarray, (M,)
    values : pandas.Series, (M,)
    labels : pandas.Index, (J,)
    missing : {"raise", "drop"}
    ties : {"raise", "mean", "last"}
    """
    name = str(values.name)
    values = values.reset_index(drop=True)
    known = codes >= 0
    absent = values.isna().to_numpy(bool) & known
    _refuse_unusable(values, absent, name, missing)
    keep = known & ~absent
    codes, times, values = codes[keep], times[keep], values[keep]
    levels, rank = np.unique(times, return_inverse=True)
    keys = codes * (len(levels) + 1) + rank + 1
    order = np.argsort(keys, kind="stable")
    codes, times, keys, values = codes[order], times[order], keys[order], values.iloc[order].reset_index(drop=True)
    again = np.zeros(len(keys), dtype=bool)
    again[1:] = keys[1:] == keys[:-1]
    n_tied = int(again.sum())
    if n_tied:
        values = _without_ties(values, again, ties, codes, times, labels)
        codes, times, keys = codes[~again], times[~again], keys[~again]
    first = np.searchsorted(codes, np.arange(len(labels) + 1))
    return History(codes, times, values, first, levels, keys, int(absent.sum()), n_tied)


def _refuse_unusable(values: pd.Series, absent: BoolArray, name: str, missing: str) -> None:
    if absent.any() and missing == "raise":
        received = f"measurements of {name!r} of which {int(absent.sum())} are missing"
        drop = "pass missing='drop' to build the covariate from the measurements that exist"
        reason = "a missing measurement says nothing about the value at its time"
        raise data_error(received, reason, f"{drop} (the report counts the others), or impute first")
    if pd.api.types.is_float_dtype(values.dtype) and np.isinf(values.to_numpy(np.float64)).any():
        received = f"infinite measurements of {name!r}"
        raise DataError(received, "no area or line can be drawn through them", "correct or drop them")


def _without_ties(
    values: pd.Series, again: BoolArray, ties: str, codes: IntArray, times: FloatArray, labels: pd.Index
) -> pd.Series:
    name = str(values.name)
    if ties == "raise":
        examples = shorten([f"{quote(labels[codes[k]])} at {times[k]:g}" for k in np.flatnonzero(again)], 3)
        received = f"several measurements of {name!r} of one subject at one time: {examples}"
        remedy = "remove the duplicates, or pass ties='mean' (their mean) or ties='last' (the last of these rows)"
        raise data_error(received, "which of them is the value at that time?", remedy)
    starts = np.flatnonzero(~again)
    if ties == "last":
        return values.iloc[np.append(starts[1:], len(values)) - 1].reset_index(drop=True)
    if not is_real(values.dtype):
        reason = "it is not numeric and has no mean"
        raise SpecificationError(f"ties='mean' for {name!r}", reason, "pass ties='last', or remove the duplicates")
    sizes = np.diff(np.append(starts, len(values)))
    return pd.Series(np.add.reduceat(values.to_numpy(np.float64), starts) / sizes, name=values.name)


def is_real(dtype: Any) -> bool:
    """Whether a column of this type holds real numbers (or true and false, which count as 1 and 0)."""
    api = pd.api.types
    return (api.is_numeric_dtype(dtype) or api.is_bool_dtype(dtype)) and not api.is_complex_dtype(dtype)


def rounding(*times: FloatArray | float) -> float:
    """Return the difference that two times may have by rounding alone: 16 units in the last place of the largest."""
    largest = max((float(np.max(np.abs(t), initial=0.0)) for t in times), default=0.0)
    return 16.0 * float(np.finfo(np.float64).eps) * largest


def one_of(received: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in allowed:
        remedy = f"use one of {', '.join(map(repr, allowed))}"
        raise SpecificationError(received, "there is no such choice", remedy, SEE)


def time_values(column: pd.Series, table: str) -> FloatArray:
    """Times as finite floats, or a refusal."""
    if not is_real(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        received = f"times {column.name!r} of {table} that are of type {column.dtype}"
        remedy = "count them from an origin, for example (data['date'] - data['start']).dt.days / 365.25"
        raise data_error(received, "lags and areas need times as numbers in one unit", remedy)
    times = column.to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(times)
    if wrong.any():
        rows, first = f"{int(wrong.sum())} of {len(times)} rows", quote(column.index[np.flatnonzero(wrong)[0]])
        received = f"times {column.name!r} of {table} that are missing or infinite in {rows}"
        remedy = f"drop these rows (the first is row {first}) or supply the times"
        raise data_error(received, "without its time a row has no place in the history", remedy)
    return times


def subject_codes(column: pd.Series, table: str) -> tuple[IntArray, pd.Index]:
    """Number the subjects in order of appearance; a missing label is refused."""
    categorical = isinstance(column.dtype, pd.CategoricalDtype)  # labels in another table need not be categories
    labels = column.astype(column.cat.categories.dtype) if categorical else column
    if labels.isna().any():
        received = f"subjects {column.name!r} of {table} that are missing in {int(labels.isna().sum())} rows"
        raise DataError(received, "a row without a subject has no history", "drop these rows or supply the labels")
    codes, uniques = pd.factorize(labels)
    return codes.astype(np.int64), pd.Index(uniques)
