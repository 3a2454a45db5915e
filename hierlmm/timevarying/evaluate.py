"""What a rule makes of a history: a value for every row, with where it came from.

Everything is computed for all rows at once: the position k(r) of the last measurement at or before the time of row r
comes from `History.last`, and an area up to t is the running area A_k at that measurement plus the last stretch,

    A_k = A_{k-1} + (s_k - s_{k-1}) (x_{k-1} + x_k) / 2,        area(t) = A_k + (t - s_k) x_k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.errors import SpecificationError
from hierlmm.frames import quote, shorten
from hierlmm.timevarying.history import SEE, History, data_error, is_real, rounding
from hierlmm.timevarying.rules import Cumulative, CurrentValue, Interpolate, Lag, LastValue, Rule, TimeSince

specification_error = partial(SpecificationError, see=SEE)

OBSERVED, CARRIED, INTERPOLATED, NOT_YET, TOO_OLD, NOT_THEN, ABSENT = range(7)


@dataclass(frozen=True, eq=False)
class Answer:
    """One new column: its values, the source code of each row, the gap each bridges, and who used the future."""

    column: Any
    source: IntArray
    gap: FloatArray
    future: BoolArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Whose value is wanted, and when: subject codes (N,) into the labels (J,), times (N,)."""

    who: IntArray
    when: FloatArray
    slack: float
    labels: pd.Index

    def earlier(self, by: float) -> Moments:
        """The same subjects at earlier times."""
        return replace(self, when=self.when - by)


def evaluate(rule: Rule, history: History, who: IntArray, at: FloatArray, labels: pd.Index) -> Answer:
    """Apply a rule to every row.

    Parameters
    ----------
    rule : Rule
    history : History
        Of the rule's variable.
    who, at : (N,)
        Subject and time of every row.
    labels : Index (J,)

    Raises
    ------
    DataError, SpecificationError
        If the rule needs numbers and has labels, needs the future and may not use it, begins where nothing is known,
        or has a condition that cannot be used.
    """
    needs = isinstance(rule, Interpolate | Cumulative) or (isinstance(rule, Lag) and rule.how == "linear")
    dtype = history.measured.dtype
    if needs and not is_real(dtype):
        received = f"{type(rule).__name__}({rule.variable!r}), a column of type {dtype}"
        reason = "lines and areas need numbers"
        raise data_error(received, reason, "use LastValue, CurrentValue, Lag(how='last') or TimeSince for labels")
    rows = Moments(who, at, rounding(history.times, at, rule.lag if isinstance(rule, Lag) else 0.0), labels)
    answer = next(apply for kind, apply in RULES.items() if isinstance(rule, kind))(rule, history, rows)
    absent = (np.diff(history.first) == 0)[who] & (answer.source == NOT_YET)  # not "not yet": never
    return replace(answer, source=np.where(absent, ABSENT, answer.source))


def _current(rule: CurrentValue, history: History, rows: Moments) -> Answer:
    answer = _last(history, history.last(rows.who, rows.when, rows.slack), rows, within=0.0)
    return replace(answer, source=np.where(answer.source == TOO_OLD, NOT_THEN, answer.source))


def _last_value(rule: LastValue, history: History, rows: Moments) -> Answer:
    return _last(history, history.last(rows.who, rows.when, rows.slack, strict=rule.strict), rows, within=rule.within)


def _lag(rule: Lag, history: History, rows: Moments) -> Answer:
    then = rows.earlier(rule.lag)
    k = history.last(then.who, then.when, then.slack)
    return _last(history, k, then, None) if rule.how == "last" else _line(history, k, then, known_until=rows.when)


def _last(history: History, k: IntArray, rows: Moments, within: float | None) -> Answer:
    """The value at position k, missing where k is -1 or the value too old."""
    age = _age(history, k, rows)
    source = np.where(k < 0, NOT_YET, np.where(age == 0.0, OBSERVED, CARRIED))
    if within is not None:
        source[(k >= 0) & (age > within + (rows.slack if within > 0 else 0.0))] = TOO_OLD
    values = history.measured.reindex(np.where(source < NOT_YET, k, -1))
    return Answer(values, source, np.where(source < NOT_YET, age, 0.0), np.zeros(len(k), dtype=bool))


def _age(history: History, k: IntArray, rows: Moments) -> FloatArray:
    """Time since measurement k; zero if only rounding makes a difference, NaN where k is -1."""
    age = rows.when - _take(history.times, k)
    return np.where(np.abs(age) <= rows.slack, 0.0, age)


def _take(values: FloatArray, k: IntArray) -> FloatArray:
    """values[k], NaN where k is -1."""
    return np.where(k >= 0, values[k], np.nan) if len(values) else np.full(len(k), np.nan)


def _line(history: History, k: IntArray, rows: Moments, known_until: FloatArray | None) -> Answer:
    """On the line from measurement k to the next, if there is one (not after `known_until`); else carried forward."""
    age = _age(history, k, rows)
    following = np.where((k >= 0) & (k + 1 < history.first[rows.who + 1]), k + 1, -1)
    later = _take(history.times, following)
    usable = (following >= 0) & (age > 0)
    if known_until is not None:
        usable &= later <= known_until + rows.slack
    x, width = history.numbers(), later - _take(history.times, k)
    here = _take(x, k)
    values = np.where(usable, here + (_take(x, following) - here) * age / width, here)
    source = np.where(k < 0, NOT_YET, np.where(age == 0.0, OBSERVED, np.where(usable, INTERPOLATED, CARRIED)))
    gap = np.where(usable, width, np.where(k >= 0, age, 0.0))
    return Answer(values, source, gap, usable if known_until is None else np.zeros(len(k), dtype=bool))


def _interpolate(rule: Interpolate, history: History, rows: Moments) -> Answer:
    answer = _line(history, history.last(rows.who, rows.when, rows.slack), rows, known_until=None)
    if answer.future.any() and not rule.future:
        first = int(np.flatnonzero(answer.future)[0])
        between = f"{int(answer.future.sum())} of {len(rows.when)} rows between two measurements"
        where = f"the first of subject {quote(rows.labels[rows.who[first]])} at {rows.when[first]:g}"
        reason, x = "the line to the next measurement uses a value from the row's future", rule.variable
        remedy = f"use LastValue({x!r}), or say Interpolate({x!r}, future=True) if the future may be used"
        raise data_error(f"Interpolate({x!r}) for {between}, {where}", reason, remedy)
    return answer


def _time_since(rule: TimeSince, history: History, rows: Moments) -> Answer:
    if rule.when is not None:
        history = history.subset(_meets(rule, history))
    k = history.last(rows.who, rows.when, rows.slack)
    if rule.which == "first":
        k = np.where(k >= 0, history.first[rows.who], -1)
    return replace(_last(history, k, rows, within=None), column=_age(history, k, rows))


def _meets(rule: TimeSince, history: History) -> BoolArray:
    """Which measurements meet the condition, each judged from the subject's measurements up to it and no others."""
    if not callable(rule.when):
        return np.asarray(history.measured == rule.when, dtype=bool)
    out, asked = np.zeros(len(history.measured), dtype=bool), f"TimeSince({rule.variable!r}, when=...)"
    for k, start in enumerate(history.first[history.codes]):
        known = history.measured.iloc[start : k + 1].reset_index(drop=True)
        try:
            meets = np.asarray(rule.when(known))
        except Exception as error:
            received = f"{asked}, a condition that fails on the measurements {shorten(map(quote, known), 3)}"
            how = "a function of a pandas Series (a subject's measurements so far) that gives true and false"
            remedy = f"write {how}, for example when=lambda x: x > 12"
            raise specification_error(received, f"it raised {type(error).__name__}: {error}", remedy) from error
        if meets.shape != (len(known),) or meets.dtype != bool:
            received = f"{asked}, a condition that gives {meets.dtype} of shape {meets.shape}"
            reason = f"it must say true or false for every measurement that it is given, here {len(known)}"
            raise specification_error(received, reason, "for example when=lambda x: x > 12")
        out[k] = meets[-1]
    return out


def _cumulative(rule: Cumulative, history: History, rows: Moments) -> Answer:
    times, x = history.times, history.numbers()
    width = np.diff(times, prepend=0.0)
    height = x.copy()
    height[1:] = x[:-1] if rule.rule == "step" else (x[:-1] + x[1:]) / 2.0
    begins = history.first[:-1][np.diff(history.first) > 0]
    width[begins] = 0.0
    # By subject, compensated: one sum over a million rows would lose digits.
    running = np.asarray(pd.Series(width * height).groupby(history.codes).cumsum(), dtype=np.float64)

    k = history.last(rows.who, rows.when, rows.slack)
    end = _line(history, k, rows, known_until=None if rule.future else rows.when)
    age = _age(history, k, rows)
    area = _take(running, k) + age * (_take(x, k) + end.column) / 2.0
    bridged = np.where(end.source == INTERPOLATED, end.gap, np.nan_to_num(age))
    if rule.origin is None:
        elapsed = rows.when - _take(times, np.where(k >= 0, history.first[rows.who], -1))
    else:
        origin = float(rule.origin)
        area = area - _area_before(rule, history, rows, k, origin, running)
        elapsed = rows.when - origin
        width = np.where(times > origin, np.minimum(width, times - origin), 0.0)
        if rule.extend_back:
            width[begins] = np.maximum(times[begins] - origin, 0.0)
    if rule.average:
        long = np.abs(elapsed) > rows.slack
        area = np.where(long, area / np.where(long, elapsed, 1.0), end.column)
    longest = _take(np.asarray(pd.Series(width).groupby(history.codes).cummax(), dtype=np.float64), k)
    gap = np.fmax(np.nan_to_num(longest), bridged)
    return Answer(np.where(k >= 0, area, np.nan), end.source, np.where(k >= 0, gap, 0.0), end.future)


def _area_before(
    rule: Cumulative, history: History, rows: Moments, k: IntArray, origin: float, running: FloatArray
) -> FloatArray:
    """The part of each row's area that lies before the origin (negative where the area is extended back to it)."""
    early = rows.when < origin - rows.slack
    if early.any():
        reason, remedy = "an area cannot end before it begins", "choose an earlier origin, or leave these rows out"
        raise data_error(f"{rule!r} for {int(early.sum())} of {len(rows.when)} rows before the origin", reason, remedy)
    everybody = replace(rows, who=np.arange(len(rows.labels)), when=np.full(len(rows.labels), origin))
    k0 = history.last(everybody.who, everybody.when, rows.slack)
    has = np.diff(history.first) > 0
    starts_late = has & (k0 < 0)
    if starts_late.any() and not rule.extend_back:
        late = f"{int(starts_late.sum())} of {int(has.sum())} subjects first measured after the origin"
        received = f"{rule!r}, and {late} (the first: {quote(rows.labels[np.flatnonzero(starts_late)][0])})"
        remedy = "pass extend_back=True to take the first value back to the origin, or leave origin out"
        raise data_error(received, "the value between the origin and the first measurement is not known", remedy)
    times, x = history.times, history.numbers()
    opening = np.where(has, history.first[:-1], -1)
    held = _take(running, k0) + (origin - _take(times, k0)) * _take(x, k0)
    back = -(_take(times, opening) - origin) * _take(x, opening)
    carried = np.where(k0 >= 0, held, np.where(has, back, 0.0))[rows.who]
    if rule.rule == "step":
        return carried
    # The line through the origin may be drawn only where its far end is known at the row's time.
    line = _line(history, k0, everybody, known_until=None)
    drawn = _take(running, k0) + _age(history, k0, everybody) * (_take(x, k0) + line.column) / 2.0
    known = (line.source == INTERPOLATED)[rows.who] & ((k > k0[rows.who]) | rule.future)
    return np.where(known, drawn[rows.who], carried)


RULES: dict[type, Callable[..., Answer]] = {
    CurrentValue: _current,
    LastValue: _last_value,
    Lag: _lag,
    Interpolate: _interpolate,
    Cumulative: _cumulative,
    TimeSince: _time_since,
}
