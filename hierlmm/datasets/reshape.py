"""Wide to long: one row per subject becomes one row per measurement.

A wide table holds the repeated measurements of subject i in columns, y_i(t_1), ..., y_i(t_m); a mixed model wants the
rows (i, t_j, y_ij). Nothing is lost on the way: a missing cell stays a row with NaN unless it is asked to go, and how
many there were is written on the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import shorten
from hierlmm.options import checked, renamed

SEE = "the documentation of hierlmm.to_long"
data_error = partial(DataError, see=SEE)
specification_error = partial(SpecificationError, see=SEE)
_listed = partial(shorten, limit=12)
type Transform = Callable[[Any], Any]
TRAILING_NUMBER = r"(\d+(?:\.\d+)?)$"


@renamed(id="subject", names_to="time", values_to="response", drop_missing="missing")
@checked
def to_long(
    data: Any,
    *,
    subject: str | None = None,
    values: str | Sequence[Any] | Mapping[Any, Any],
    time: str = "time",
    response: str = "y",
    names_pattern: str | None = None,
    names_transform: Callable[[Any], Any] | None = float,
    keep: Sequence[str] | None = None,
    missing: Any = "keep",
) -> pd.DataFrame:
    r"""Make long data of wide data: one row per subject and measurement.

    Parameters
    ----------
    data : DataFrame
        One row per subject: pandas, or anything narwhals reads (polars, PyArrow, ...). It is not changed.
    subject : str, optional
        The column that names the subject, one row each. By default ``"subject"``, which is added as 1, 2, ... if the
        data have no such column.
    values : list of columns, str, or mapping
        Which columns hold the repeated measurements, and when they were taken:

        - a list of columns: the time is the number at the end of each name (``d8`` -> 8), or what `names_pattern`
          finds;
        - a string with a group, such as ``r"d(\d+)"``: every column whose whole name matches, the time being the group;
        - a string without a group, such as ``"d"``: a prefix; every column that is this prefix and then a number;
        - a mapping column -> time, such as ``{"baseline": 0, "week4": 4}``, used as it is.
    time, response : str
        Names of the new columns for the time and the measurement.
    names_pattern : str, optional
        A regular expression with one group, searched in each name of a list `values`; the group is the time.
    names_transform : callable, optional
        Turns the text of the time into its value; None keeps the text.
    keep : list of str, optional
        The other columns to repeat on every row (covariates of the subject). By default all of them.
    missing : {"keep", "drop"}
        Rows whose measurement is missing are kept, with NaN, or dropped.

    Returns
    -------
    pandas.DataFrame
        Columns: the subject, the kept columns, `time`, `response`; subjects in their original order, times
        ascending within a subject. Its ``attrs`` count what was missing: ``n_missing`` (cells), ``n_dropped``
        (rows dropped) and ``n_subjects_dropped`` (subjects of whom no row is left).

    Raises
    ------
    SpecificationError
        If the columns cannot be found, a name holds no time, or names clash.
    DataError
        If subjects are not unique or missing, or measurements are not numeric.

    Examples
    --------
    >>> import pandas as pd
    >>> wide = pd.DataFrame({"id": [1, 2], "sex": ["F", "M"], "d8": [21.0, 26.0], "d10": [20.0, 25.0]})
    >>> to_long(wide, subject="id", values="d", time="age", response="distance")
       id sex   age  distance
    0   1   F   8.0      21.0
    1   1   F  10.0      20.0
    2   2   M   8.0      26.0
    3   2   M  10.0      25.0
    """
    if not isinstance(missing, str) or missing not in ("keep", "drop"):
        received = f"missing={missing!r}"
        raise specification_error(received, "this is not one of the choices", "use missing='keep' or missing='drop'")
    wide = _to_pandas(data)
    twice = wide.columns[wide.columns.duplicated()].unique()
    if len(twice):
        received = f"data with several columns named {_listed(twice)}"
        raise data_error(received, "A name must stand for one column.", "Rename or drop the duplicates.")
    times = _times(list(wide.columns), values, names_pattern, names_transform)
    name, wide = _with_subject(wide, subject, times)
    covariates = _kept(list(wide.columns), keep, name, times)
    _check_new_names([name, *covariates], time, response)

    columns = _sorted_by_time(times)
    matrix = _measurements(wide, columns)  # (J, m)
    n_subjects, m = matrix.shape
    long = wide[[name, *covariates]].take(np.repeat(np.arange(n_subjects), m)).reset_index(drop=True)
    # Through a Series, so that equal types stay what they are: integers, dates, text.
    long[time] = pd.Series([times[c] for c in columns] * n_subjects)
    long[response] = matrix.ravel()

    present = ~np.isnan(matrix)
    counts: dict[Hashable | None, Any] = {"n_missing": int((~present).sum()), "n_dropped": 0, "n_subjects_dropped": 0}
    if missing == "drop":
        long = long.loc[present.ravel()].reset_index(drop=True)
        counts |= {"n_dropped": counts["n_missing"], "n_subjects_dropped": int((~present.any(axis=1)).sum())}
    long.attrs = counts
    return long


def _to_pandas(data: Any) -> pd.DataFrame:
    """Return the data as a pandas DataFrame, without changing it."""
    if isinstance(data, pd.DataFrame):
        return data
    import narwhals as nw

    try:
        frame = nw.from_native(data)
    except TypeError as error:
        received = f"an object of type {type(data).__name__!r}"
        remedy = "Pass a pandas, polars or PyArrow table with one row per subject."
        raise data_error(received, "It is not a data frame that narwhals can read.", remedy) from error
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return frame.to_pandas()


def _times(columns: list[Any], values: Any, pattern: str | None, transform: Transform | None) -> dict[Any, Any]:
    """Find the columns that hold measurements, and the time of each: a dict column -> time."""
    if isinstance(values, Mapping):
        _need_columns(columns, list(values))
        times = dict(values)
    elif isinstance(values, str):
        times = _times_by_name(columns, values, transform)
    else:
        if not isinstance(values, Iterable):
            remedy = "Name the columns in a list, give their prefix, or a mapping column -> time."
            raise specification_error(f"values={values!r}", "This names no columns.", remedy)
        chosen = list(values)
        _need_columns(columns, chosen)
        times = {c: _time_in(str(c), pattern, transform) for c in chosen}
    begun = [c for c in columns if not times and isinstance(values, str) and str(c).startswith(values)]
    if begun:
        rest = ", ".join(repr(str(c).removeprefix(str(values))) for c in begun[:4])
        received = f"values={values!r} and the columns {_listed(begun)}"
        given = ", ".join(f"{c!r}: {k}" for k, c in enumerate(begun[:4])) + (", ..." if len(begun) > 4 else "")
        remedy = f"Give the times in a mapping column -> time: values={{{given}}}."
        raise specification_error(received, f"What follows the prefix ({rest}) is no number, so no time.", remedy)
    if not times:
        how = "give their prefix, a regular expression with one group, or a mapping column -> time."
        reason = f"No column holds measurements under that description. The columns are: {_listed(columns)}."
        raise specification_error(f"values={values!r}", reason, f"Name the columns in a list, {how}")
    seen: dict[Any, Any] = {}
    for column, time in times.items():
        if not isinstance(time, Hashable):
            received, reason = f"the time {time!r} of the column {column!r}", "A time is one number or label."
            raise specification_error(received, reason, "Give a mapping column -> time, such as {'bp1': 1, 'bp2': 2}.")
        if time in seen:
            received = f"the columns {seen[time]!r} and {column!r}"
            remedy = "Give each column its own time, for example with a mapping column -> time."
            raise specification_error(received, f"Both would be the measurement at {time!r}.", remedy)
        seen[time] = column
    return times


def _times_by_name(columns: list[Any], values: str, transform: Transform | None) -> dict[Any, Any]:
    """Find the columns that match a regular expression with a group, or a prefix followed by a number."""
    prefixed = re.compile(re.escape(values) + r"(-?\d+(?:\.\d+)?)")
    regex = _one_group(values) if _compiled(values).groups else prefixed
    found = {c: regex.fullmatch(str(c)) for c in columns}
    return {c: _transformed(str(c), m.group(1), transform) for c, m in found.items() if m}


def _time_in(name: str, pattern: str | None, transform: Transform | None) -> Any:
    """Read the time out of the name of one column."""
    received = f"the column {name!r}"
    if pattern is None:
        if re.fullmatch(r"-\d+(?:\.\d+)?", name):  # a column called -1: the name is the time
            return _transformed(name, name, transform)
        if re.search(r"-\d+(?:\.\d+)?$", name):
            remedy = r"Say which with names_pattern, such as r'(-?\d+)$' for a sign or r'-(\d+)$' for a hyphen."
            raise specification_error(received, "The minus before the number could be a sign or a hyphen.", remedy)
        pattern = TRAILING_NUMBER
    match = _one_group(pattern).search(name)
    if match is None:
        remedy = "Give names_pattern, a regular expression with one group, or values as a mapping column -> time."
        raise specification_error(received, f"No time is found in its name with the pattern {pattern!r}.", remedy)
    return _transformed(name, match.group(1), transform)


def _transformed(name: str, text: str, transform: Transform | None) -> Any:
    if transform is None:
        return text
    try:
        return transform(text)
    except (TypeError, ValueError) as error:
        received = f"the column {name!r}, whose time reads {text!r}"
        remedy = "Make the pattern catch the number only, or pass another names_transform (None keeps the text)."
        raise specification_error(received, f"names_transform cannot convert it: {error}.", remedy) from error


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        received, remedy = f"the pattern {pattern!r}", r"Write it like r'd(\d+)', or pass the columns as a list."
        raise specification_error(received, f"It is not a regular expression: {error}.", remedy) from error


def _one_group(pattern: str) -> re.Pattern[str]:
    regex = _compiled(pattern)
    if regex.groups != 1:
        received = f"the pattern {pattern!r}"
        remedy = r"Put parentheses around the number only, like r'd(\d+)'; use (?:...) for other groups."
        raise specification_error(received, f"It has {regex.groups} groups; exactly one must catch the time.", remedy)
    return regex


def _with_subject(wide: pd.DataFrame, named: str | None, times: Mapping[Any, Any]) -> tuple[str, pd.DataFrame]:
    """Return the name of the subject column and data that have it, each subject once."""
    subject = "subject" if named is None else named
    if subject in times:
        received, remedy = f"the column {subject!r}, as subject and among values", "Leave it out of values."
        raise specification_error(received, "A column cannot name the subject and hold a measurement.", remedy)
    if named is None and subject not in wide.columns:
        return subject, wide.assign(subject=np.arange(1, len(wide) + 1))
    _need_columns(list(wide.columns), [subject])
    missing = int(wide[subject].isna().sum())
    if missing:
        reason = f"{missing} of its {len(wide)} values are missing."
        raise data_error(f"the subject column {subject!r}", reason, "Fill them in, or drop these rows.")
    twice = list(wide[subject][wide[subject].duplicated()].unique())
    if twice:
        reason = f"Wide data have one row per subject, but these have several: {_listed(twice)}."
        remedy = "If the data are long already, use them as they are; otherwise make the identifiers unique."
        raise data_error(f"the subject column {subject!r}", reason, remedy)
    return subject, wide


def _kept(columns: list[Any], keep: Sequence[str] | None, subject: str, times: Mapping[Any, Any]) -> list[Any]:
    if keep is None:
        return [c for c in columns if c != subject and c not in times]
    chosen = [keep] if isinstance(keep, str) else list(keep)
    _need_columns(columns, chosen)
    return [c for c in chosen if c != subject]


def _check_new_names(old: list[Any], time: str, response: str) -> None:
    clash = [n for n in (time, response) if n in old]
    if clash or time == response:
        received = f"time={time!r}, response={response!r}"
        reason = f"The data already have the column {clash[0]!r}." if clash else "Both names are the same."
        raise specification_error(received, reason, "Choose other names, or leave the old column out with keep=[...].")


def _measurements(wide: pd.DataFrame, columns: list[Any]) -> np.ndarray:
    """Return the measurements as floats, shape (subjects, times); missing cells are NaN."""
    wrong = [c for c in columns if not pd.api.types.is_numeric_dtype(wide[c])]
    if wrong:
        remedy = "Convert them first, for example with pandas.to_numeric, or leave them out of values."
        raise data_error(f"the columns {_listed(wrong)}", "They hold measurements and are not numeric.", remedy)
    return np.column_stack([wide[c].to_numpy(dtype=float, na_value=np.nan) for c in columns])


def _sorted_by_time(times: Mapping[Any, Any]) -> list[Any]:
    """Sort columns by time; times that have no order (mixed types) keep the order of the columns."""
    try:
        return sorted(times, key=lambda c: times[c])
    except TypeError:
        return list(times)


def _need_columns(columns: list[Any], needed: list[Any]) -> None:
    absent = [c for c in needed if c not in columns]
    if absent:
        reason = f"The data have no such columns. They have: {_listed(columns)}."
        raise specification_error(f"the columns {_listed(absent)}", reason, "Correct the names.")
