"""Columns of time-varying covariates for the rows of the outcome, and a report of where every value came from.

Everything is computed for all rows at once: the position k(r) of the last measurement at or before the time of row r
comes from `History.last`, and an area up to t is the running area A_k at that measurement plus the last stretch,

    A_k = A_{k-1} + (s_k - s_{k-1}) (x_{k-1} + x_k) / 2,        area(t) = A_k + (t - s_k) x_k.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import MISSING_CHOICES, column_names, quote, require_columns, shorten, to_pandas
from hierlmm.options import checked
from hierlmm.timevarying.history import TIES, History, is_number, make_history, rounding, subject_codes, time_values
from hierlmm.timevarying.rules import Cumulative, CurrentValue, Interpolate, Lag, LastValue, Rule, TimeSince

__all__ = ["TimeVarying", "time_varying"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SEE = "docs, page 'Time-varying covariates'"
data_error = partial(DataError, see=SEE)
specification_error = partial(SpecificationError, see=SEE)

OBSERVED, CARRIED, INTERPOLATED, NOT_YET, TOO_OLD, NOT_THEN, ABSENT = range(7)
SOURCES = [
    "observed",
    "carried",
    "interpolated",
    "no history yet",
    "too old",
    "not measured then",
    "subject without history",
]
REPORT = [
    "rule",
    "observed",
    "carried",
    "interpolated",
    "from_future",
    "no_history_yet",
    "too_old",
    "not_measured",
    "subject_absent",
    "largest_gap",
    "ignored",
    "merged",
]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class TimeVarying:
    """A table with time-varying covariates, and where their values came from.

    Attributes
    ----------
    data : pandas.DataFrame
        The outcome table with the new columns; its rows in their order, its index kept.
    report : pandas.DataFrame
        One row per new column. ``rule`` in words; numbers of rows whose value was ``observed`` (measured at the time
        wanted), ``carried`` forward, ``interpolated``, and how many of these used a measurement after the row's time
        (``from_future``); numbers of rows without a value because the subject has ``no_history_yet``, the last value
        is ``too_old``, nothing was measured then (``not_measured``), or the subject is not in the history at all
        (``subject_absent``); ``largest_gap``, the longest stretch of time without a measurement that a value bridges;
        measurements ``ignored`` because they are missing, or ``merged`` with others of the same time. The area of
        `Cumulative` is "observed" where it ends at a measurement, "carried" where its last stretch holds the last
        value.
    source : pandas.DataFrame
        The same for each row and new column: a category such as ``"carried"``.
    sentences : tuple of str
        The report in words.
    """

    data: pd.DataFrame
    report: pd.DataFrame
    source: pd.DataFrame
    sentences: tuple[str, ...]

    def __repr__(self) -> str:
        lines = [self.sentences[0]]
        for sentence in self.sentences[1:]:
            lines += textwrap.wrap(sentence, 100, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *others = (html.escape(s) for s in self.sentences)
        items = "".join(f"<li>{s}</li>" for s in others)
        return f"<div><p><strong>{head}</strong></p><ul>{items}</ul></div>"


@dataclass(frozen=True, eq=False)
class _Answer:
    """One new column: its values, the source code of each row, the gap each bridges, and who used the future."""

    column: Any
    source: IntArray
    gap: FloatArray
    future: NDArray[np.bool_]


@checked
def time_varying(
    data: Any,
    columns: Mapping[str, Rule],
    *,
    subject: str,
    time: str,
    history: Any = None,
    history_subject: str | None = None,
    history_time: str | None = None,
    missing: str = "raise",
    ties: str = "raise",
) -> TimeVarying:
    """Give every row the value of a covariate that its history up to the row's time implies.

    No value depends on a measurement after the row's own time, unless a rule says ``future=True``.

    Parameters
    ----------
    data : DataFrame
        The outcome table, one row per measurement of the outcome: pandas, or anything narwhals reads. Not changed.
    columns : mapping of str to rule
        New column names, and what they are: `CurrentValue`, `LastValue`, `Lag`, `Interpolate`, `Cumulative` or
        `TimeSince`.
    subject, time : str
        Columns of `data`: who, and when (a number).
    history : DataFrame, optional
        The measurements of the covariates, at times of their own and in any order of rows. By default `data` itself.
    history_subject, history_time : str, optional
        The columns of `history`, if they have other names. The unit and origin of time must be the same.
    missing : {"raise", "drop"}
        Missing measurements of a covariate are refused, or left out and counted: earlier ones then stand in for them.
    ties : {"raise", "mean", "last"}
        Several measurements of one subject at one time are refused, averaged, or the last row is taken.

    Returns
    -------
    TimeVarying
        ``.data`` is the table for a model; printing it says what was observed, carried and interpolated.

    Raises
    ------
    DataError
        If subjects, times or measurements are missing, measured twice, infinite or not numeric where numbers are
        needed; if the two tables have no subject in common; if a rule needs the future and may not use it; if an
        origin lies before a first measurement or after a row.
    SpecificationError
        If a name is taken, or a rule or option does not exist.

    Notes
    -----
    Rows before a subject's first measurement, and of subjects without measurements, get a missing value, counted in
    the report; models refuse missing values unless told otherwise. Times that differ by no more than rounding error
    (16 units in the last place of the largest time) are the same time.

    Examples
    --------
    >>> import pandas as pd
    >>> visits = pd.DataFrame({"id": [1, 1, 2], "year": [1.0, 3.0, 1.0]})
    >>> lab = pd.DataFrame({"id": [1, 1, 2], "year": [0.0, 2.0, 2.0], "x": [10.0, 14.0, 9.0]})
    >>> rules = {"x": LastValue("x"), "area": Cumulative("x")}
    >>> time_varying(visits, rules, subject="id", time="year", history=lab).data
       id  year     x  area
    0   1   1.0  10.0  10.0
    1   1   3.0  14.0  38.0
    2   2   1.0   NaN   NaN
    """
    _check_options(columns, missing, ties)
    rows = to_pandas(data)
    require_columns([subject], column_names(rows), "subject")
    require_columns([time], column_names(rows), "time")
    for name in columns:
        if name in rows:
            raise specification_error(
                f"a new column {name!r}", "the data already have a column of this name", "choose another name"
            )
    who, labels = subject_codes(rows[subject], "the data")
    at = time_values(rows[time], "the data")
    histories, n_subjects_shared = _histories(
        rows if history is None else history,
        columns,
        labels,
        subject if history_subject is None else history_subject,
        time if history_time is None else history_time,
        missing,
        ties,
    )
    answers = {}
    for name, rule in columns.items():
        own = histories[rule.variable]
        _require_numbers(rule, own)
        answers[name] = _without_absent(_evaluate(rule, own, who, at, labels), own, who)
    made = {name: _column(answer.column, rows.index) for name, answer in answers.items()}
    report = pd.DataFrame(
        {name: _report(columns[name], answer, histories[columns[name].variable]) for name, answer in answers.items()}
    ).T.rename_axis("column")
    report = report[REPORT].astype({c: "int64" for c in REPORT[1:] if c != "largest_gap"} | {"largest_gap": "float64"})
    categories = pd.CategoricalDtype(SOURCES)
    source = pd.DataFrame(
        {n: pd.Categorical.from_codes(a.source, dtype=categories) for n, a in answers.items()}, index=rows.index
    )
    table = "the same table" if history is None else "a table of their own"
    head = (
        f"{len(columns)} time-varying covariate{'s' if len(columns) > 1 else ''} for {len(rows)} rows of "
        f"{len(labels)} subject{'' if len(labels) == 1 else 's'} ({subject!r}), from measurements in {table}"
    )
    if n_subjects_shared < len(labels):
        head += f", which has {n_subjects_shared} of these subjects"
    sentences = [head + ".", *(_sentence(n, pd.Series(report.loc[n]), columns[n], time) for n in columns)]
    n_future = int(report["from_future"].sum())
    if n_future == 0:
        judged = [repr(n) for n, r in columns.items() if isinstance(r, TimeSince) and callable(r.when)]
        sentences.append(
            f"No rule was given anything measured after its row's time; the condition of {', '.join(judged)} saw a "
            "subject's own measurements up to the one it judges."
            if judged
            else "No value depends on anything measured after its row's time."
        )
    return TimeVarying(rows.assign(**made), report, source, tuple(sentences))


def _check_options(columns: Mapping[str, Rule], missing: str, ties: str) -> None:
    if not isinstance(columns, Mapping) or not columns:
        raise specification_error(
            f"columns={columns!r}",
            "it must say which columns to make, and how",
            'pass a dictionary such as {"x_before": hl.Lag("x", by=1)}',
        )
    for name, rule in columns.items():
        if not isinstance(name, str) or not isinstance(rule, Rule):
            raise specification_error(
                f"the column {name!r}: {rule!r}",
                "it is not a name with a rule",
                'use CurrentValue, LastValue, Lag, Interpolate, Cumulative or TimeSince, as in {"x_1": hl.Lag("x", 1)}',
            )
    for option, value, allowed in (("missing", missing, MISSING_CHOICES), ("ties", ties, TIES)):
        if value not in allowed:
            raise specification_error(
                f"{option}={value!r}", "there is no such choice", f"use one of {', '.join(map(repr, allowed))}"
            )


def _histories(
    table: Any, columns: Mapping[str, Rule], labels: pd.Index, subject: str, time: str, missing: str, ties: str
) -> tuple[dict[str, History], int]:
    """The history of every covariate asked for, by its name in the table, and the number of subjects in both tables."""
    names = list(dict.fromkeys(rule.variable for rule in columns.values()))
    present = column_names(table)
    require_columns([subject], present, "subject of the history")
    require_columns([time], present, "time of the history")
    require_columns(names, present, "covariate")
    measured = to_pandas(table, list(dict.fromkeys([subject, time, *names])))
    own_codes, own_labels = subject_codes(measured[subject], "the history")
    position = labels.get_indexer(own_labels) if labels.dtype == own_labels.dtype else _match(labels, own_labels)
    shared = int((position >= 0).sum())
    if shared == 0 and len(labels) and len(own_labels):
        raise data_error(
            f"a history of subjects {shorten(map(quote, own_labels), 3)}, and data of {shorten(map(quote, labels), 3)}",
            "no subject is in both",
            f"write the labels in the same way in both tables (types: {own_labels.dtype} and {labels.dtype})",
        )
    codes = position.astype(np.int64)[own_codes]
    times = time_values(measured[time], "the history")
    return (
        {n: make_history(codes, times, measured[n], labels, missing=missing, ties=ties) for n in names},
        shared,
    )


def _match(labels: pd.Index, own: pd.Index) -> IntArray:
    """Match labels of different types by value (1 and 1.0 are equal, 1 and "1" are not)."""
    return labels.astype(object).get_indexer(own.astype(object)).astype(np.int64)


def _require_numbers(rule: Rule, history: History) -> None:
    needs = isinstance(rule, Interpolate | Cumulative) or (isinstance(rule, Lag) and rule.how == "linear")
    dtype = history.measured.dtype
    if needs and not is_number(dtype):
        raise data_error(
            f"{type(rule).__name__}({rule.variable!r}), a column of type {dtype}",
            "lines and areas need numbers",
            "use LastValue, CurrentValue, Lag(how='last') or TimeSince for labels",
        )


# --- The rules --------------------------------------------------------------------------------------------------------


def _evaluate(rule: Rule, history: History, who: IntArray, at: FloatArray, labels: pd.Index) -> _Answer:
    slack = rounding(history.times, at, rule.lag if isinstance(rule, Lag) else 0.0)
    if isinstance(rule, CurrentValue):
        answer = _last(history, history.last(who, at, slack), at, slack, within=0.0)
        return replace(answer, source=np.where(answer.source == TOO_OLD, NOT_THEN, answer.source))
    if isinstance(rule, LastValue):
        return _last(history, history.last(who, at, slack, strict=rule.strict), at, slack, within=rule.within)
    if isinstance(rule, Lag):
        k = history.last(who, at - rule.lag, slack)
        if rule.how == "last":
            return _last(history, k, at - rule.lag, slack, within=None)
        return _line(history, who, k, at - rule.lag, slack, known_until=at)
    if isinstance(rule, Interpolate):
        return _interpolate(rule, history, who, at, slack, labels)
    if isinstance(rule, TimeSince):
        return _time_since(rule, history, who, at, slack)
    return _cumulative(rule, history, who, at, slack, labels)


def _last(history: History, k: IntArray, at: FloatArray, slack: float, within: float | None) -> _Answer:
    """The value at position k, missing where k is -1 or the value too old."""
    age = _age(history, k, at, slack)
    source = np.where(k < 0, NOT_YET, np.where(age == 0.0, OBSERVED, CARRIED))
    if within is not None:
        source[(k >= 0) & (age > within + (slack if within > 0 else 0.0))] = TOO_OLD
    values = history.measured.reindex(np.where(source < NOT_YET, k, -1))
    return _Answer(values, source, np.where(source < NOT_YET, age, 0.0), np.zeros(len(k), dtype=bool))


def _age(history: History, k: IntArray, at: FloatArray, slack: float) -> FloatArray:
    """Time since measurement k; zero if only rounding makes a difference, NaN where k is -1."""
    age = at - _take(history.times, k)
    return np.where(np.abs(age) <= slack, 0.0, age)


def _take(values: FloatArray, k: IntArray) -> FloatArray:
    """values[k], NaN where k is -1."""
    if not len(values):
        return np.full(len(k), np.nan)
    return np.where(k >= 0, values[k], np.nan)


def _line(
    history: History,
    who: IntArray,
    k: IntArray,
    at: FloatArray,
    slack: float,
    known_until: FloatArray | None,
) -> _Answer:
    """On the line from measurement k to the next, if there is one (not after `known_until`); else carried forward."""
    age = _age(history, k, at, slack)
    following = np.where((k >= 0) & (k + 1 < history.first[who + 1]), k + 1, -1)
    later = _take(history.times, following)
    usable = (following >= 0) & (age > 0)
    if known_until is not None:
        usable &= later <= known_until + slack
    x, width = history.numbers(), later - _take(history.times, k)
    here = _take(x, k)
    values = np.where(usable, here + (_take(x, following) - here) * age / width, here)
    source = np.where(k < 0, NOT_YET, np.where(age == 0.0, OBSERVED, np.where(usable, INTERPOLATED, CARRIED)))
    gap = np.where(usable, width, np.where(k >= 0, age, 0.0))
    return _Answer(values, source, gap, usable if known_until is None else np.zeros(len(k), dtype=bool))


def _interpolate(
    rule: Interpolate, history: History, who: IntArray, at: FloatArray, slack: float, labels: pd.Index
) -> _Answer:
    answer = _line(history, who, history.last(who, at, slack), at, slack, known_until=None)
    if answer.future.any() and not rule.future:
        first = int(np.flatnonzero(answer.future)[0])
        raise data_error(
            f"Interpolate({rule.variable!r}) for {int(answer.future.sum())} of {len(at)} rows between two "
            f"measurements, the first of subject {quote(labels[who[first]])} at {at[first]:g}",
            "the line to the next measurement uses a value from the row's future",
            f"use LastValue({rule.variable!r}), or say Interpolate({rule.variable!r}, future=True) if the future "
            "may be used",
        )
    return answer


def _time_since(rule: TimeSince, history: History, who: IntArray, at: FloatArray, slack: float) -> _Answer:
    if rule.when is not None:
        history = history.subset(_meets(rule, history))
    k = history.last(who, at, slack)
    if rule.which == "first":
        k = np.where(k >= 0, history.first[who], -1)
    age = _age(history, k, at, slack)
    source = np.where(k < 0, NOT_YET, np.where(age == 0.0, OBSERVED, CARRIED))
    return _Answer(age, source, np.where(k >= 0, age, 0.0), np.zeros(len(k), dtype=bool))


def _meets(rule: TimeSince, history: History) -> NDArray[np.bool_]:
    """Which measurements meet the condition, each judged from the subject's measurements up to it and no others."""
    if not callable(rule.when):
        return np.asarray(history.measured == rule.when, dtype=bool)
    out = np.zeros(len(history.measured), dtype=bool)
    for k, start in enumerate(history.first[history.codes]):
        known = history.measured.iloc[start : k + 1].reset_index(drop=True)
        try:
            meets = np.asarray(rule.when(known))
        except Exception as error:
            raise specification_error(
                f"TimeSince({rule.variable!r}, when=...), a condition that fails on the measurements "
                f"{shorten(map(quote, known), 3)}",
                f"it raised {type(error).__name__}: {error}",
                "write a function of a pandas Series (a subject's measurements so far) that gives true and false, "
                "for example when=lambda x: x > 12",
            ) from error
        if meets.shape != (len(known),) or meets.dtype != bool:
            raise specification_error(
                f"TimeSince({rule.variable!r}, when=...), a condition that gives {meets.dtype} of shape {meets.shape}",
                f"it must say true or false for every measurement that it is given, here {len(known)}",
                "for example when=lambda x: x > 12",
            )
        out[k] = meets[-1]
    return out


def _cumulative(
    rule: Cumulative, history: History, who: IntArray, at: FloatArray, slack: float, labels: pd.Index
) -> _Answer:
    times, x = history.times, history.numbers()
    width = np.diff(times, prepend=0.0)
    height = x.copy()
    height[1:] = x[:-1] if rule.rule == "step" else (x[:-1] + x[1:]) / 2.0
    begins = history.first[:-1][np.diff(history.first) > 0]
    width[begins] = 0.0
    # By subject, compensated: one sum over a million rows would lose digits.
    running = np.asarray(pd.Series(width * height).groupby(history.codes).cumsum(), dtype=np.float64)

    k = history.last(who, at, slack)
    end = _line(history, who, k, at, slack, known_until=None if rule.future else at)
    age = _age(history, k, at, slack)
    area = _take(running, k) + age * (_take(x, k) + end.column) / 2.0
    bridged = np.where(end.source == INTERPOLATED, end.gap, np.nan_to_num(age))
    if rule.origin is None:
        start = _take(times, np.where(k >= 0, history.first[who], -1))
        elapsed = at - start
    else:
        origin = float(rule.origin)
        area = area - _area_before(rule, history, who, k, origin, slack, running, x, at, labels)
        elapsed = at - origin
        width = np.where(times > origin, np.minimum(width, times - origin), 0.0)
        if rule.extend_back:
            width[begins] = np.maximum(times[begins] - origin, 0.0)
    if rule.average:
        long = np.abs(elapsed) > slack
        area = np.where(long, area / np.where(long, elapsed, 1.0), end.column)
    longest = _take(np.asarray(pd.Series(width).groupby(history.codes).cummax(), dtype=np.float64), k)
    gap = np.fmax(np.nan_to_num(longest), bridged)
    return _Answer(np.where(k >= 0, area, np.nan), end.source, np.where(k >= 0, gap, 0.0), end.future)


def _area_before(
    rule: Cumulative,
    history: History,
    who: IntArray,
    k: IntArray,
    origin: float,
    slack: float,
    running: FloatArray,
    x: FloatArray,
    at: FloatArray,
    labels: pd.Index,
) -> FloatArray:
    """The part of each row's area that lies before the origin (negative where the area is extended back to it)."""
    early = at < origin - slack
    if early.any():
        raise data_error(
            f"{rule!r} for {int(early.sum())} of {len(at)} rows before the origin",
            "an area cannot end before it begins",
            "choose an earlier origin, or leave these rows out",
        )
    everybody = np.arange(len(labels))
    k0 = history.last(everybody, np.full(len(labels), origin), slack)
    has = np.diff(history.first) > 0
    starts_late = has & (k0 < 0)
    if starts_late.any() and not rule.extend_back:
        who_late = labels[np.flatnonzero(starts_late)]
        raise data_error(
            f"{rule!r}, and {int(starts_late.sum())} of {int(has.sum())} subjects first measured after the origin "
            f"(the first: {quote(who_late[0])})",
            "the value between the origin and the first measurement is not known",
            "pass extend_back=True to take the first value back to the origin, or leave origin out",
        )
    opening = np.where(has, history.first[:-1], -1)
    held = _take(running, k0) + (origin - _take(history.times, k0)) * _take(x, k0)
    back = -(_take(history.times, opening) - origin) * _take(x, opening)
    carried = np.where(k0 >= 0, held, np.where(has, back, 0.0))[who]
    if rule.rule == "step":
        return carried
    # The line through the origin may be drawn only where its far end is known at the row's time.
    line = _line(history, everybody, k0, np.full(len(labels), origin), slack, known_until=None)
    age = _age(history, k0, np.full(len(labels), origin), slack)
    drawn = _take(running, k0) + age * (_take(x, k0) + line.column) / 2.0
    known = (line.source == INTERPOLATED)[who] & ((k > k0[who]) | rule.future)
    return np.where(known, drawn[who], carried)


# --- The report -------------------------------------------------------------------------------------------------------


def _without_absent(answer: _Answer, history: History, who: IntArray) -> _Answer:
    """Tell subjects who are not in the history from those who are not in it yet."""
    absent = (np.diff(history.first) == 0)[who] & (answer.source == NOT_YET)
    return _Answer(answer.column, np.where(absent, ABSENT, answer.source), answer.gap, answer.future)


def _column(values: Any, index: pd.Index) -> pd.Series:
    return values.set_axis(index) if isinstance(values, pd.Series) else pd.Series(values, index=index)


def _report(rule: Rule, answer: _Answer, history: History) -> dict[str, Any]:
    counts = np.bincount(answer.source, minlength=len(SOURCES))
    return {
        "rule": rule.describe(),
        "observed": counts[OBSERVED],
        "carried": counts[CARRIED],
        "interpolated": counts[INTERPOLATED],
        "from_future": int(answer.future.sum()),
        "no_history_yet": counts[NOT_YET],
        "too_old": counts[TOO_OLD],
        "not_measured": counts[NOT_THEN],
        "subject_absent": counts[ABSENT],
        "largest_gap": float(np.max(answer.gap, initial=0.0)),
        "ignored": history.n_missing,
        "merged": history.n_tied,
    }


def _sentence(name: str, found: pd.Series, rule: Rule, time: str) -> str:
    """One column of the report in words."""
    words = {
        "observed": "measured at the time wanted in {} rows",
        "carried": "carried forward in {}",
        "interpolated": "interpolated in {}",
    }
    if isinstance(rule, Cumulative):
        words = {
            "observed": "ends at a measurement in {} rows",
            "carried": "the last stretch holds the last value in {}",
            "interpolated": "the last stretch is interpolated in {}",
        }
    if isinstance(rule, TimeSince):
        words = {"observed": "zero in {} rows", "carried": "positive in {}"}
    parts = [text.format(found[key]) for key, text in words.items() if found[key] or key == "observed"]
    gap = found["largest_gap"]
    if gap > 0:
        parts.append(f"longest {'time' if isinstance(rule, TimeSince) else 'gap bridged'} {gap:.4g} ({time!r})")
    text = f"{name}: {found['rule']}; {', '.join(parts)}."
    none = "no measurement yet meets the condition" if isinstance(rule, TimeSince) and rule.when is not None else ""
    reasons = {
        "no_history_yet": none or "no measurement comes before",
        "too_old": "the last value is too old",
        "not_measured": "nothing was measured then",
        "subject_absent": "the subject has no measurement at all",
    }
    gone = [f"{found[key]} ({why})" for key, why in reasons.items() if found[key]]
    if gone:
        text += f" Missing in {', '.join(gone)}."
    if found["ignored"]:
        text += f" {found['ignored']} measurements with a missing value were left out."
    if found["merged"]:
        text += f" {found['merged']} measurements at a time that occurs before were merged."
    if found["from_future"]:
        text += f" {found['from_future']} VALUES USE A MEASUREMENT AFTER THEIR ROW'S TIME."
    return text
