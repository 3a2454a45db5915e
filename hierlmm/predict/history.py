"""The first measurements of new subjects, and the rows at which they are to be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design, NewData
from hierlmm.design.formula import unquoted, variables_of
from hierlmm.design.questions import rows_of_subject, time_of
from hierlmm.design.recipes import evaluate_vector
from hierlmm.errors import DataError, FormulaError, SpecificationError
from hierlmm.frames import column_names, complete_rows, quote, require_columns, shorten, to_pandas
from hierlmm.predict.rows import SEE, Rows


@dataclass(frozen=True)
class Course:
    """One new subject: its measurements (h rows) and the rows to predict (m rows).

    Attributes
    ----------
    label : object
        Its label, None if the history has no subject column.
    y : (h,)
    past : Rows
        Where they were measured.
    new : Rows
        The rows to predict.
    places : (m,)
        Their positions in the table that is returned.
    """

    label: Any
    y: FloatArray
    past: Rows
    new: Rows
    places: IntArray

    def excess(self, beta: FloatArray) -> FloatArray:
        """Measurements less their expectation at b = 0: (..., p) -> (..., h)."""
        return self.y - self.past.offset - beta @ self.past.X.T


@dataclass(frozen=True)
class Courses:
    """New subjects, the index of the rows to predict, and the columns that name these rows."""

    subjects: tuple[Course, ...]
    index: pd.Index
    names: dict[str, Any]


def courses_of(
    design: Design,
    history: Any,
    times: Any,
    newdata: Any = None,
    *,
    retrospective: bool = False,
    time: str | None = None,
) -> Courses:
    """Read histories and the rows to predict, subject by subject.

    Raises
    ------
    DataError, SpecificationError
        If columns are absent or missing values occur; if a subject is in the fitted data already; if a level-2
        covariate changes; if a measurement is later than a time to predict and ``retrospective`` is not set.
    """
    time = time_of(design, time)
    past, y = _history(design, history)
    name = design.hierarchy.subject
    labelled = name in past.frame.columns
    codes, labels = _labels(past.frame[name]) if labelled else (np.zeros(len(y), dtype=np.intp), [None])
    _only_new_subjects(design, past, labelled=labelled)
    _constant_level2(design, past.frame, codes, labels)
    both = times is not None and newdata is not None
    if both or (times is None and newdata is None and (design.level1_variables() or time is not None)):
        received = "times and newdata" if both else "neither times nor newdata"
        remedy = f"give times=[...] (values of {time or 'the level-1 variable'}), or newdata=, a table of rows"
        raise SpecificationError(received, "one of them says what to predict", remedy, SEE)
    if newdata is None:
        table, names = _at_times(design, past.frame, codes, labels, times, time)
    else:
        table, names = newdata, {}
    new = design.new(table, need_subject=labelled)
    owner = _owners(design, new, labels, labelled=labelled)
    _constant_level2(design, pd.concat([past.frame, new.frame]), np.concatenate([codes, owner]), labels)
    if not retrospective:
        _no_later_history(design, past.frame, codes, new.frame, owner, labels, time)
    measured = Rows(past.X, past.Z, past.offset, codes, past.frame)
    asked = Rows(new.X, new.Z, new.offset, owner, new.frame)
    found = [course_of(label, k, y, measured, asked) for k, label in enumerate(labels)]
    return Courses(tuple(found), asked.index, names)


def course_of(label: Any, k: int, y: FloatArray, measured: Rows, asked: Rows) -> Course:
    """The course of subject number k of both tables."""
    h, m = np.flatnonzero(measured.subject == k), np.flatnonzero(asked.subject == k)
    return Course(label, y[h], measured.take(h), asked.take(m), m)


def _history(design: Design, history: Any) -> tuple[NewData, FloatArray]:
    present = column_names(history)
    response = design.hierarchy.response
    needed = list(variables_of(response, list(design.frame.columns)))
    require_columns(needed, present, "history without the response", add=True)
    past = design.new(history, need_subject=False)
    if len(past.X) == 0:
        remedy = "use fit.predict(newdata, level='new_subject') for a subject without measurements"
        raise DataError("a history without rows", "there are no measurements to learn from", remedy, SEE)
    frame, _ = complete_rows(to_pandas(history, needed), "raise", new=True)
    y = evaluate_vector(response, frame, "response")
    if not np.all(np.isfinite(y)):
        received = f"a history with infinite or undefined values of {response!r}"
        raise DataError(received, "nothing can be learned from them", "correct or drop these rows", SEE)
    if needed != [unquoted(response)] and not _row_by_row(design, response):
        reason = "its values depend on all rows of the fitted data, so that of a new row is not known"
        remedy = "make the column before the fit, with constants that you can apply to new rows as well"
        raise FormulaError(f"the response {response!r}", reason, remedy, SEE)
    return past, y


def _row_by_row(design: Design, response: str) -> bool:
    """Whether a row's response depends on that row only (not so for ``center(y)``)."""
    part = rows_of_subject(design, design.subject_index[0])
    alone = evaluate_vector(response, design.frame.iloc[part], "response")
    return bool(np.allclose(alone, evaluate_vector(response, design.frame, "response")[part], rtol=1e-8, atol=0.0))


def _labels(column: pd.Series) -> tuple[IntArray, list[Any]]:
    codes, labels = pd.factorize(column)
    return codes.astype(np.intp), list(labels)


def _only_new_subjects(design: Design, past: NewData, *, labelled: bool) -> None:
    if not labelled or past.subject_index is None or np.all(past.subject_index < 0):
        return
    name = design.hierarchy.subject
    known = pd.unique(past.frame[name][past.subject_index >= 0])
    instead = "use fit.predict(newdata, level='subject') for subjects of the fitted data"
    if not design.term:
        instead = "refit without the rows of these subjects"
    received = f"a history of {name} {shorten(map(quote, known))}"
    reason = "in the fitted data already, so that these measurements would count twice"
    raise DataError(received, reason, f"{instead}, or give a new subject a new label", SEE)


def _constant_level2(design: Design, frame: pd.DataFrame, codes: NDArray[Any], labels: Sequence[Any]) -> None:
    for variable in design.constant_variables():
        who = _first_with_changes(design, frame[variable], codes, labels)
        if who:
            received = f"{variable!r} with more than one value for {who}"
            remedy = f"give {who} one value of {variable!r} in the history and in the rows to predict"
            raise DataError(received, "it is a level-2 variable, constant within every subject", remedy, SEE)


def _first_with_changes(design: Design, column: pd.Series, codes: NDArray[Any], labels: Sequence[Any]) -> str:
    """The first subject whose values differ, in words; empty where all are constant."""
    values = pd.factorize(column)[0]
    first = pd.Series(values).groupby(codes).transform("first").to_numpy()
    changed = np.flatnonzero(values != first)
    return _who(design, labels[int(codes[changed[0]])]) if changed.size else ""


def _at_times(
    design: Design, past: pd.DataFrame, codes: NDArray[Any], labels: Sequence[Any], times: Any, time: str | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every subject's constant covariates at each of the times."""
    level1 = design.level1_variables()
    if time is None and level1:
        reason = f"this model has several level-1 variables ({shorten(map(repr, level1))}), or one that is no number"
        remedy = "give newdata=, a table of rows with all of them, and time=, the name of the one that is the time"
        raise SpecificationError("times", reason, remedy, SEE)
    if time is None and times is not None:
        reason = "this model has no level-1 variable, so all measurements of a subject have one expectation"
        raise SpecificationError("times", reason, "leave times out", SEE)
    try:
        values = np.atleast_1d(np.asarray(times, dtype=np.float64)) if time is not None else np.zeros(1)
    except (TypeError, ValueError):
        raise SpecificationError(
            f"times={times!r}", "they are not numbers", "give the times to predict at, such as times=[6, 8]", SEE
        ) from None
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
        raise DataError(f"times={times!r}", "times are finite numbers, one or more", "use times=[4, 5, 6]", SEE)
    first = np.array([np.flatnonzero(codes == k)[0] for k in range(len(labels))])
    if time is not None:
        require_columns([time], list(past.columns), "history without the column", add=True)
    others = [v for v in level1 if v != time]
    if others:  # also where the history has one value of it, which need not stay
        received = f"times, and the level-1 variable {others[0]!r} besides {time!r}"
        remedy = f"give newdata=, a table of rows with {' and '.join(map(repr, [time, *others]))}"
        raise DataError(received, "its value at the times to predict is not known", remedy, SEE)
    carried = [c for c in past.columns if c != time]
    for variable in carried:
        who = _first_with_changes(design, past[variable], codes, labels)
        if who:
            received = f"{variable!r} with more than one value for {who}"
            reason = "its value at the times to predict is not known"
            raise DataError(received, reason, f"give newdata=, a table of rows with {variable!r} (and {time!r})", SEE)
    table = past.iloc[np.repeat(first, len(values))].reset_index(drop=True)
    names: dict[str, Any] = {}
    if design.hierarchy.subject in past.columns:
        names[design.hierarchy.subject] = table[design.hierarchy.subject]
    if time is not None:
        table[time] = np.tile(values, len(first))
        names[time] = table[time]
    return table, names


def _owners(design: Design, new: NewData, labels: Sequence[Any], *, labelled: bool) -> IntArray:
    """Which of the new subjects each row to predict belongs to."""
    name = design.hierarchy.subject
    if not labelled:
        if name in new.frame.columns:
            received = f"new data with the column {name!r}, and a history without it"
            remedy = f"put {name!r} into the history as well, or leave it out of both for a single subject"
            raise DataError(received, "which measurements belong to which row is not said", remedy, SEE)
        return np.zeros(len(new.X), dtype=np.intp)
    owner = pd.Index(labels).get_indexer(pd.Index(new.frame[name].to_numpy()))
    if np.any(owner < 0):
        received = f"{name} {shorten(map(quote, pd.unique(new.frame[name][owner < 0])))} in the rows to predict"
        remedy = "use fit.predict(newdata, level='new_subject') for subjects without measurements"
        raise DataError(received, "the history has no measurements of them", remedy, SEE)
    return owner


def _no_later_history(
    design: Design,
    past: pd.DataFrame,
    codes: NDArray[Any],
    new: pd.DataFrame,
    owner: IntArray,
    labels: Sequence[Any],
    time: str | None,
) -> None:
    if time is None:
        if design.level1_variables():
            raise SpecificationError(
                f"rows to predict by {shorten(map(repr, design.level1_variables()))}",
                "which of these level-1 variables is the time is not known, nor whether the history comes before",
                "say time='...', the name of the time, or retrospective=True if measurements may be used whatever "
                "their time",
                SEE,
            )
        return
    for table, what in ((past, "history"), (new, "new data")):
        require_columns([time], list(table.columns), f"{what} without the column", add=True)
    last = pd.Series(past[time].to_numpy()).groupby(codes).max().to_numpy()
    early = np.flatnonzero(new[time].to_numpy() < last[owner])
    if early.size:
        k = int(owner[early[0]])
        raise DataError(
            f"a history of {_who(design, labels[k])} up to {time} = {last[k]:g}, and a prediction at "
            f"{time} = {float(new[time].iloc[early[0]]):g}",
            "a prediction from measurements that come later is no forecast",
            "predict later times, cut the history, or say retrospective=True to use later measurements",
            SEE,
        )


def _who(design: Design, label: Any) -> str:
    return "the subject" if label is None else f"{design.hierarchy.subject} {quote(label)}"
