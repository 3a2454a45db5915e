"""A time-varying covariate of some subjects: what was measured, what the rule made of it, and the area so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, evenly, join_with_gaps
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError, closest

SEE = "docs, page 'Time-varying covariates'"
MEASURED, GIVEN, BRIDGED = "measured", "given to a row", "carried or bridged"
MOST = 12


@pictured
def plot_time_varying(
    found: Any,
    *,
    variable: str | None = None,
    subjects: int | Sequence[Any] | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw a time-varying covariate of some subjects: its measurements, and the values that the rows got.

    A dashed line leads from a measurement to the row that got its value later. The area of `Cumulative` is filled up to
    the subject's last row, and has panels of its own below: how it grows, with a mark for each row. The number above
    is the last of them.

    Parameters
    ----------
    found : TimeVarying
    variable : str, optional
        One of the new columns; the first whose history is numbers by default.
    subjects : int or sequence, optional
        How many, evenly spaced among those with many measurements, or their labels; 4 by default.

    Returns
    -------
    Picture
        Visuals ``history``, ``measured``, ``bridged`` and ``given`` over ``panel``.

    Raises
    ------
    SpecificationError
        If there is no such column or subject, or the covariate is no number.
    """
    name = _column(found, variable)
    rule = found.rules[name]
    chosen = _subjects(found, rule.variable, subjects)
    courses = {str(label): _course(found, name, label) for label in chosen}
    kind = type(rule).__name__
    grows = kind in ("Cumulative", "TimeSince")
    names = [*courses, *(f"{label} " for label in courses)] if grows else list(courses)
    size = each(0.8, 2.5 if len(chosen) > 1 else 5.0, 1.1, 2.3)
    panels = Panels(dict.fromkeys(names, NOTHING), "panel", size, figure, len(chosen), name="history", sharex=True)
    blue, orange = theme().palette[:2]
    panels.map(
        "line_xy", "history", _all(names, {k: c.line for k, c in courses.items()}), color=theme().grey, width=1.6
    )
    if kind == "Cumulative":
        _areas(panels, courses, blue)
    if not grows:
        panels.map("line_xy", "bridged", _all(names, {k: c.bridges for k, c in courses.items()}), color=blue, width=1.2,
                   linestyle=panels.dashes)  # fmt: skip
    panels.map("scatter_xy", "measured", _all(names, {k: c.measured for k, c in courses.items()}), color=theme().data,
               size=20)  # fmt: skip
    given = {f"{k} " if grows else k: c.given for k, c in courses.items()}
    if grows:
        panels.map("line_xy", "growth", _all(names, given), color=blue, width=1.4)
    panels.map("scatter_xy", "given", _all(names, given), color=blue if grows else orange, size=30 if grows else 34)
    _limits(panels, courses, grows=grows, filled=kind == "Cumulative")
    titles = {k: f"{found.subject} {k}{_last(c, name) if grows else ''}" for k, c in courses.items()}
    picture = panels.finish(
        titles | {n: "" for n in names if n.endswith(" ")},
        title=f"{name}: {rule.describe()}",
        xlabel=found.time,
        ylabel=rule.variable,
        legend=_legend(grows, name),
    )
    if grows:
        panels.draw.ylabel(name, panels.target(names[len(chosen)]))
    return picture


@dataclass(frozen=True, eq=False)
class _Course:
    """Of one subject, arrays (2, n): measurements, the line that the rule draws, values of rows, what leads there."""

    measured: FloatArray
    line: FloatArray
    given: FloatArray
    bridges: FloatArray
    area: FloatArray


def _course(found: Any, name: str, label: Any) -> _Course:
    rule, time = found.rules[name], found.time
    history, rows = found.measured[rule.variable], found.data
    own = history[history[found.subject] == label]
    mine = rows[rows[found.subject] == label].sort_values(time, kind="stable")
    measured = own[[time, rule.variable]].to_numpy(dtype=np.float64).T
    given = mine[[time, name]].to_numpy(dtype=np.float64).T
    last = float(given[0].max())
    kind = type(rule).__name__
    steps = kind == "LastValue" or "step" in str(getattr(rule, "rule", "")) or getattr(rule, "how", "") == "last"
    line = _stairs(measured) if steps else measured
    # A value that is carried comes from the last measurement at or before the row, or its lag earlier.
    lag = float(getattr(rule, "lag", 0.0))
    from_ = np.searchsorted(measured[0], given[0] - lag + 1e-9 * (1.0 + np.abs(given[0])), side="right") - 1
    carried = zip(from_, *given, strict=True) if steps and kind != "Cumulative" else ()
    bridges = [
        np.array([[measured[0, k], t], [y, y]])
        for k, t, y in carried
        if k >= 0 and np.isfinite(y) and t > measured[0, k]
    ]
    return _Course(measured, line, given, join_with_gaps(bridges), _area(rule, measured, last, steps))


def _stairs(points: FloatArray) -> FloatArray:
    """Values held until the next measurement."""
    x, y = np.repeat(points[0], 2)[1:], np.repeat(points[1], 2)[:-1]
    return np.vstack([x, y])


def _area(rule: Any, measured: FloatArray, end: float, steps: bool) -> FloatArray:
    """The upper edge of the area up to a subject's last row: what is carried is a level line."""
    x, y = measured
    start = getattr(rule, "origin", None)
    if start is not None and start < x[0]:
        x, y = np.r_[start, x], np.r_[y[0], y]
    known = x <= end
    at = y[known][-1] if known.any() else np.nan
    if getattr(rule, "future", False) and not known.all():
        at = float(np.interp(end, x, y))
    edge = np.vstack([np.r_[x[known], end], np.r_[y[known], at]])
    edge = _stairs(edge) if steps else edge
    if start is not None and start > edge[0, 0]:
        first = np.interp(start, *edge)
        inside = edge[0] > start
        edge = np.vstack([np.r_[start, edge[0, inside]], np.r_[first, edge[1, inside]]])
    return edge


def _areas(panels: Panels, courses: dict[str, _Course], colour: str) -> None:
    for key, own in courses.items():
        panels.band(key, own.area[0], np.zeros(own.area.shape[1]), own.area[1], alpha=0.25, color=colour)


def _all(names: list[str], parts: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: parts.get(name, NOTHING) for name in names}


def _limits(panels: Panels, courses: dict[str, _Course], *, grows: bool, filled: bool) -> None:
    """One scale for all subjects; areas stand on zero."""
    drawn = [c.measured[1] for c in courses.values()]
    drawn += [] if grows else [c.given[1] for c in courses.values()]
    values = np.concatenate(drawn)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    low, high = (min(0.0, low), max(0.0, high)) if filled else (low, high)
    room = 0.07 * ((high - low) or 1.0)
    top = np.concatenate([c.given[1] for c in courses.values()])
    most, least = float(np.nanmax(top, initial=0.0)), float(np.nanmin(top, initial=0.0))
    for key in courses:
        panels.limit(key, y=(low - (0.0 if filled and low == 0.0 else room), high + room))
        if grows:
            panels.limit(f"{key} ", y=(least - 0.03 * (most - least), most + 0.08 * ((most - least) or 1.0)))


def _last(course: _Course, name: str) -> str:
    known = course.given[:, np.isfinite(course.given[1])]
    return f"\n{name} {known[1, -1]:.4g} at {known[0, -1]:.4g}" if known.shape[1] else ""


def _legend(grows: bool, name: str) -> list[Entry]:
    own = theme()
    entries = [Entry(MEASURED, own.data, line="", marker="circle", size=20.0)]
    if grows:
        return [*entries, Entry(f"{name}, at the rows", own.palette[0], marker="circle", width=1.4)]
    entries.append(Entry(GIVEN, own.palette[1], line="", marker="circle", size=34.0))
    return [*entries, Entry(BRIDGED, own.palette[0], line="dashed", width=1.2)]


def _column(found: Any, column: str | None) -> str:
    rules = found.rules
    numbers = [
        n for n, rule in rules.items() if pd.api.types.is_numeric_dtype(found.measured[rule.variable].iloc[:, 2])
    ]
    if column is None and numbers:
        return numbers[0]
    if column not in rules:
        received = f"variable={column!r}"
        reason = f"no new column has this name.{closest(str(column), list(rules))}"
        raise SpecificationError(received, reason, f"use one of {', '.join(map(repr, rules))}", SEE)
    if column not in numbers:
        reason = f"its covariate {rules[column].variable!r} holds labels, which have no height"
        raise SpecificationError(f"variable={column!r}", reason, "draw a column that is made of numbers", SEE)
    return str(column)


def _subjects(found: Any, variable: str, subjects: int | Sequence[Any] | None) -> list[Any]:
    history = found.measured[variable]
    counts = history[found.subject].value_counts()
    known = [s for s in found.data[found.subject].unique() if s in counts.index]
    if isinstance(subjects, (int, np.integer)) or subjects is None:
        wanted, least = (4 if subjects is None else int(subjects)), counts[known].median()
        # A short history shows little.
        long = [s for s in known if counts[s] >= least] if len(known) > wanted else known
        return [long[k] for k in evenly(len(long), wanted, "subjects")]
    unknown = [s for s in subjects if s not in known]
    if unknown or not 0 < len(subjects) <= MOST:
        received = f"subjects={list(subjects)!r}"
        reason = "they have no measurements in this history" if unknown else f"a picture has 1 to {MOST} of them"
        raise SpecificationError(received, reason, "use labels of the data, or a number", SEE)
    return list(subjects)
