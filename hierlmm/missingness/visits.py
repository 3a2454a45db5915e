"""Measurements as a table of subjects by planned visits, from a model or from a long table.

A visit is a distinct value of the time column; a measurement is missing where a subject has no row for a visit, or a
row without response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import (
    column_names,
    is_number,
    occasions_in_use,
    quote,
    refuse_rounding,
    require_columns,
    shorten,
    to_pandas,
)
from hierlmm.text import show

SEE = "docs, page 'Missing data'"
MOST = 40
"""Most visits: more distinct times were not planned."""


@dataclass(frozen=True, eq=False)
class Visits:
    """Responses by subject and planned visit.

    Attributes
    ----------
    y : (J, K)
        NaN where nothing was measured.
    subjects, times : Index
        Labels of the rows and, in order, of the visits.
    group : Series by subject, or None
    response, time : str
        Names of the columns.
    n_dropped : int
        Rows that the model dropped.
    """

    y: FloatArray
    subjects: pd.Index
    times: pd.Index
    group: pd.Series | None
    response: str
    time: str
    n_dropped: int = 0

    @property
    def last(self) -> IntArray:
        """Position of each subject's last measurement, -1 where there is none."""
        seen = np.isfinite(self.y)
        back = np.argmax(seen[:, ::-1], axis=1)
        return np.where(seen.any(axis=1), seen.shape[1] - 1 - back, -1)


def visits_of(
    data: Any, response: str | None = None, subject: str | None = None, time: str | None = None, by: str | None = None
) -> Visits:
    """Responses by subject and visit, of a model, a fit, or a long table with its columns named.

    Raises
    ------
    SpecificationError
        If columns are not named, or there is no time.
    DataError
        If there are more times than visits can be, a subject has two rows for one, or ``by`` varies within a subject.
    """
    design = getattr(data, "design", None)
    if isinstance(design, Design):
        return _of_design(design, response, subject, time, by)
    for name, given in (("response", response), ("subject", subject), ("time", time)):
        if given is None:
            remedy = f"give it by name: {name}='...'; or give a model, which knows its columns"
            raise SpecificationError(f"a table without {name}", "its columns are not known", remedy, SEE)
    wanted = list(dict.fromkeys([str(response), str(subject), str(time), *([by] if by else [])]))
    require_columns(wanted, column_names(data), "missing data")
    frame = to_pandas(data, wanted)
    if not is_number(frame[str(response)]):
        received = f"response={response!r}, a column of labels"
        raise SpecificationError(received, "a response is a column of numbers", "name another column", SEE)
    y = frame[str(response)].to_numpy(dtype=float, na_value=np.nan)
    return _table(frame, y, str(response), str(subject), str(time), by)


def _of_design(design: Design, response: str | None, subject: str | None, time: str | None, by: str | None) -> Visits:
    for name, given in (("response", response), ("subject", subject)):
        if given is not None:
            reason = "a model knows its response and its subjects"
            raise SpecificationError(f"{name}={given!r} beside a model", reason, "leave it out", SEE)
    chosen = time or time_column(design)
    for role, column in (("time", chosen), ("by", by)):
        if column is not None and column not in design.frame.columns:
            reason = f"the model does not use a column of this name: {shorten(map(str, design.frame.columns))}"
            remedy = "name one of these, or give the table itself with response=, subject= and time="
            raise SpecificationError(f"{role}={column!r}", reason, remedy, SEE)
    own = design.hierarchy
    return _table(design.frame, design.y, own.response, own.subject, chosen, by, design.n_dropped)


def time_column(design: Design) -> str:
    """The time of the residual structure, else the one variable of level 1.

    Raises
    ------
    SpecificationError
    """
    own = None if design.residual is None else design.residual.time
    within = design.level1_variables()
    if own is not None and own in design.frame.columns:
        return own
    if len(within) == 1:
        return within[0]
    several = f"several columns vary within subjects: {shorten(within)}" if within else "no column is a time"
    raise SpecificationError("a model whose visits are not known", several, "name the column: time='...'", SEE)


def _table(
    frame: pd.DataFrame, y: FloatArray, response: str, subject: str, time: str, by: str | None, dropped: int = 0
) -> Visits:
    column, who = frame[time], frame[subject]
    known = (column.notna() & who.notna()).to_numpy()
    column, who, y = column[known], who[known], y[known]
    times = _in_order(column, time)
    if len(times) > MOST:
        received = f"{len(times)} distinct values of {time!r}"
        reason = f"planned visits are common to the subjects, {MOST} of them at most"
        remedy = (
            f"make a column of visits, data['visit'] = data[{time!r}].round() for example, and name it: time='visit'"
        )
        raise DataError(received, reason, remedy, SEE)
    if not len(times):
        received = f"a table without rows that have {subject} and {time}"
        raise DataError(received, "nothing was measured", "look at the table: data.head()", SEE)
    subjects = _sorted(who.astype(object), subject)
    row, place = subjects.get_indexer(pd.Index(who.astype(object))), times.get_indexer(pd.Index(column))
    found = np.full((len(subjects), len(times)), np.nan)
    cell = row * len(times) + place
    counts = np.bincount(cell[np.isfinite(y)], minlength=found.size)
    if counts.max(initial=0) > 1:
        at = int(np.argmax(counts > 1))
        label = f"{subject} {quote(subjects[at // len(times)])} at {time} {show(times[at % len(times)])}"
        reason = "a subject has one measurement at a visit"
        raise DataError(f"{counts[at]} measurements of {label}", reason, "average them, or tell visits apart", SEE)
    seen = np.isfinite(y)
    found.ravel()[cell[seen]] = y[seen]
    group = None if by is None else of_subjects(frame[known], subject, by, subjects, "by")
    return Visits(found, subjects, times, group, unquoted(response), time, dropped)


def _in_order(column: pd.Series, time: str) -> pd.Index:
    """Distinct visits in their order.

    Raises
    ------
    DataError
        If they are text that does not tell it.
    """
    if not isinstance(column.dtype, pd.CategoricalDtype):
        _sorted(column, time)  # refuses what has no order at all
    occasions, known = occasions_in_use(column)
    refuse_rounding(column, occasions)
    if not known:
        received = f"visits {shorten(occasions)} in {time!r}"
        reason = "who dropped out depends on their order in time, which cannot be told from text"
        order = ", ".join(map(repr, occasions[:3]))
        remedy = f"say it: data[{time!r}] = pd.Categorical(data[{time!r}], [{order}, ...], ordered=True)"
        raise DataError(received, reason, remedy, SEE)
    return pd.Index(occasions, name=time)


def _sorted(column: pd.Series, name: str) -> pd.Index:
    """Distinct labels in order."""
    try:
        return pd.Index(np.sort(column.unique()), name=name)
    except TypeError:
        kinds = shorten(dict.fromkeys(type(v).__name__ for v in column))
        reason, remedy = "they have no common order", f"make them text: data[{name!r}].astype(str)"
        raise DataError(f"labels of several kinds in {name!r}: {kinds}", reason, remedy, SEE) from None


def of_subjects(frame: pd.DataFrame, subject: str, column: str, subjects: pd.Index, role: str) -> pd.Series:
    """A column by subject.

    Raises
    ------
    DataError
        If it varies within one.
    """
    pairs = frame[[subject, column]].dropna().drop_duplicates()
    twice = pairs[subject].duplicated()
    if twice.any():
        received = f"{role}={column!r}, which varies within {subject} {quote(pairs.loc[twice, subject].iloc[0])}"
        raise DataError(received, "it is of subjects", "name a column that is constant within subjects", SEE)
    return pairs.set_index(subject)[column].astype(object).reindex(subjects)
