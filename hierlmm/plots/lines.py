"""Fitted lines on a grid: where to evaluate them, and with which covariates.

The grid is sent through ``design.new``, so polynomials, splines and interactions come out as they were fitted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of
from hierlmm.design.questions import (
    first_row_of_subjects,
    numbers_at_level1,
    occasion_of,
    rows_by_subject,
    rows_of_subject,
)
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.style import break_lines, with_unit
from hierlmm.effects.curve_checks import jumps_along
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import is_number, occasions_in_use
from hierlmm.predict.means import means_of_rows
from hierlmm.predict.rows import Rows

STEPS = 40
MOST_SEEN = 1000
"""Most values of x that are points of every line, so that it goes through the fitted values."""


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: variable (None: order of the rows), label, position by row, and any categories."""

    variable: str | None
    label: str
    position: FloatArray
    categories: tuple[Any, ...] | None = None

    def ticks(self) -> tuple[list[int], list[str]]:
        """Positions and texts of ticks where the backend's own would mislead: categories, and few whole numbers."""
        if self.categories is not None:
            return list(range(len(self.categories))), [str(c) for c in self.categories]
        few = self.variable is None and self.position.max() <= 15
        ticks = list(range(1, int(self.position.max()) + 1)) if few else []
        return ticks, [str(t) for t in ticks]

    def mark(self, panels: Panels, names: Iterable[Any]) -> None:
        """Write these texts below panels, where there are any."""
        ticks, texts = self.ticks()
        for name in names if ticks else ():
            panels.draw.xticks(ticks, texts, panels.target(name))


def x_axis(design: Design, x: str | None) -> Axis:
    """Choose the horizontal axis: the column named, or the occasions, a number or label of level 1, the rows."""
    time = None if design.residual is None else design.residual.time
    known = list(dict.fromkeys([*design.level1_variables(), *([] if time is None else [time])]))
    if x is None:
        x = default_axis(design)
        return rows_axis(design) if x is None else axis_along(design, x)
    if x not in known:
        there = ", ".join(map(repr, known)) or "none"
        received = f"variable={x!r}"
        reason = f"it is not a level-1 variable of this model, which must vary within subjects.{closest(x, known)}"
        raise SpecificationError(received, reason, f"use one of its level-1 variables ({there}), or leave variable out")
    return axis_along(design, x)


def default_axis(design: Design) -> str | None:
    """The occasions, or the first variable of level 1, numbers before labels."""
    return next(filter(None, [occasion_of(design), *numbers_at_level1(design), *design.level1_variables()]), None)


def rows_axis(design: Design) -> Axis:
    """The rows of every subject as they stand."""
    order = 1 + pd.Series(design.subject_index).groupby(design.subject_index).cumcount()
    return Axis(None, f"row within {design.hierarchy.subject}", np.asarray(order, dtype=np.float64))


def axis_along(design: Design, x: str) -> Axis:
    """A column on the horizontal axis: a number, or labels at 0, 1, ... in their order, in time where they have one."""
    column = design.frame[x]
    if is_number(column) and x not in design.levels.categories:
        return Axis(x, with_unit(x, design.units), column.to_numpy(dtype=np.float64))
    categories = tuple(occasions_in_use(column)[0])
    codes = pd.Categorical(column, categories=list(categories)).codes
    return Axis(x, with_unit(x, design.units), np.asarray(codes, dtype=np.float64), categories)


def subject_lines(fit: Fit, axis: Axis, subjects: Sequence[int] | IntArray) -> dict[int, FloatArray]:
    """Fitted lines of subjects (positions) over their own range of x: position -> (2, n).

    Where the subject has one row at an x, the line there is its fitted value. With a family: means of the response.
    """
    design = fit.design
    if axis.variable is None:
        values = fit.fitted("subject").to_numpy() / design.trials
        rows = {int(j): rows_of_subject(design, j) for j in subjects}
        return {j: np.vstack([axis.position[own], values[own]]) for j, own in rows.items()}
    new, at, lines = rows_along(design, axis, subjects)
    return lines(fitted_by(fit, new, at))


def fitted_by(fit: Fit, new: Any, at: IntArray) -> FloatArray:
    """Fitted values of the subjects at these rows, with a family those of one trial."""
    return means_of_rows(fit, Rows(new.X, new.Z, new.offset, at, new.frame), "subject")


def rows_along(
    design: Design, axis: Axis, subjects: Sequence[int] | IntArray
) -> tuple[Any, IntArray, Callable[[FloatArray], dict[int, FloatArray]]]:
    """New rows of subjects over their own range of x, the subject of each, and how values there become lines (2, n)."""
    courses = Courses(design, axis)
    grids = {int(j): courses.grid(courses.rows[j]) for j in subjects}
    lengths = [len(grid) for grid in grids.values()]
    new = design.new(courses.table(list(grids), list(grids.values())), need_subject=True)

    def lines(values: FloatArray) -> dict[int, FloatArray]:
        pieces = zip(grids.items(), np.split(values, np.cumsum(lengths)[:-1]), strict=True)
        return {j: break_lines(np.vstack([grid, piece]), courses.jumps) for (j, grid), piece in pieces}

    return new, np.repeat(list(grids), lengths), lines


def population_line(fit: Fit, axis: Axis, subjects: IntArray) -> FloatArray:
    """Line at b = 0, averaged over the covariates of these subjects, over their common range of x: (2, n).

    With a family linear predictors are averaged, and the mean at the average is drawn.
    """
    if axis.variable is None:
        own = np.isin(fit.design.subject_index, subjects)
        values = fit.fitted("population").to_numpy() / fit.design.trials
        fitted = pd.Series(values[own]).groupby(axis.position[own]).mean()
        return np.vstack([fitted.index.to_numpy(dtype=float), fitted.to_numpy()])
    x, X, offset, jumps = _averaged_rows(fit.design, axis, subjects)
    nobody = np.full(len(x), -1, dtype=np.intp)
    rows = Rows(X, np.zeros((len(x), len(fit.design.term))), offset, nobody, pd.DataFrame(index=range(len(x))))
    return break_lines(np.vstack([x, means_of_rows(fit, rows, "population")]), jumps)


def averaged_line(design: Design, axis: Axis, subjects: IntArray, beta: FloatArray) -> FloatArray:
    """Line at b = 0 with any coefficients, averaged as in `population_line`."""
    x, X, offset, jumps = _averaged_rows(design, axis, subjects)
    return break_lines(np.vstack([x, offset + X @ beta]), jumps)


def _averaged_rows(
    design: Design, axis: Axis, subjects: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Grid along x, X and offset there averaged over subjects, and the jumps along x."""
    courses = Courses(design, axis)
    grid = courses.grid(np.flatnonzero(np.isin(design.subject_index, subjects)))
    distinct, weights = courses.distinct(np.asarray(subjects))
    X, offset = np.zeros((len(grid), len(design.coef))), np.zeros(len(grid))
    step = max(1, 100_000 // len(grid))
    for start in range(0, len(distinct), step):
        part = distinct[start : start + step].tolist()
        new = design.new(courses.table(part, [grid] * len(part)), need_subject=False)
        own = weights[start : start + step] / weights.sum()
        X += np.einsum("j,jgp->gp", own, new.X.reshape(len(part), len(grid), -1))
        offset += own @ new.offset.reshape(len(part), len(grid))
    return grid, X, offset, courses.jumps


class Courses:
    """How the variables of a model run along x, subject by subject.

    A variable is constant within subjects; or a function of x that all subjects share (an offset or a square computed
    from time), interpolated over all rows; or the subject's own, interpolated over its rows and held at the first and
    the last of them beyond. Categories are not interpolated: they hold until the next row, and a subject's line then
    joins its rows.
    """

    def __init__(self, design: Design, axis: Axis) -> None:
        self.design, self.axis = design, axis
        self.frame, index = design.frame, design.subject_index
        self.rows = rows_by_subject(design, axis.position)
        self.first = first_row_of_subjects(design)
        used, coded = _variables(design)
        self.codes = {v: np.asarray(pd.factorize(self.frame[v])[0]) for v in used if v != axis.variable}
        self.constant = [v for v, codes in self.codes.items() if np.all(codes == codes[self.first[index]])]
        varying = [v for v in self.codes if v not in self.constant]
        self.steps = {v for v in varying if v in coded or not is_number(self.frame[v])}
        self.shared = [v for v in varying if self._is_shared(v)]
        self.own = [v for v in varying if v not in self.shared]
        # Between its rows nothing is known of a category.
        self.joins_rows = axis.categories is not None or axis.variable in coded or bool(self.steps)
        self.joins_levels = axis.categories is not None or axis.variable in coded
        # A jump is searched for between measured x, and so is on its own side of each of them.
        seen = np.unique(axis.position)
        whole = np.linspace(seen[0], seen[-1], 5 * STEPS + 1)
        whole = np.union1d(whole, seen) if len(seen) <= MOST_SEEN else whole
        none = self.joins_levels or axis.variable is None
        self.jumps = np.empty((2, 0)) if none else jumps_along(design, str(axis.variable), whole)

    def grid(self, rows: IntArray) -> FloatArray:
        """Values of x at which a line through these rows is evaluated."""
        observed = np.unique(self.axis.position[rows])
        one_subject = len(np.unique(self.design.subject_index[rows])) == 1
        if self.joins_levels or len(observed) == 1 or (self.joins_rows and (one_subject or len(observed) <= STEPS)):
            return observed
        inside = self.jumps[:, (self.jumps[0] >= observed[0]) & (self.jumps[1] <= observed[-1])]
        even = np.union1d(np.linspace(observed[0], observed[-1], STEPS), inside)
        return np.union1d(even, observed) if one_subject or len(observed) <= MOST_SEEN else even

    def distinct(self, subjects: IntArray) -> tuple[IntArray, FloatArray]:
        """Subjects whose lines at b = 0 differ, and how many subjects each of them stands for."""
        if self.own:
            return subjects, np.ones(len(subjects))
        names = [v for v in self.constant if v != self.design.hierarchy.subject]
        keys = np.column_stack([np.zeros(len(subjects), int), *(self.codes[v][self.first[subjects]] for v in names)])
        _, which, counts = np.unique(keys, axis=0, return_index=True, return_counts=True)
        return subjects[which], counts.astype(np.float64)

    def table(self, subjects: Sequence[int], grids: Sequence[FloatArray]) -> pd.DataFrame:
        """Rows of new data: the variables of each subject at the x of its grid."""
        x = np.concatenate(grids)
        first = np.repeat(self.first[list(subjects)], [len(grid) for grid in grids])
        columns: dict[str, Any] = {v: self.frame[v].iloc[first].reset_index(drop=True) for v in self.constant}
        everyone = np.argsort(self.axis.position, kind="stable")
        for name in self.shared:
            columns[name] = self._along(name, [everyone], [x])
        for name in self.own:
            columns[name] = self._along(name, [self.rows[j] for j in subjects], grids)
        columns[str(self.axis.variable)] = x
        if self.axis.categories is not None:
            labels = np.array(self.axis.categories, dtype=object)[x.astype(int)]
            columns[str(self.axis.variable)] = pd.Categorical(labels, categories=list(self.axis.categories))
        return pd.DataFrame(columns)

    def _along(self, name: str, rows_of: Sequence[IntArray], grids: Sequence[FloatArray]) -> Any:
        if name in self.steps:
            rows = [self._step(name, r, grid) for r, grid in zip(rows_of, grids, strict=True)]
            return self.frame[name].iloc[np.concatenate(rows)].reset_index(drop=True)
        values = self.frame[name].to_numpy(dtype=np.float64)
        return np.concatenate([self._interpolate(values, r, grid) for r, grid in zip(rows_of, grids, strict=True)])

    def _interpolate(self, values: FloatArray, rows: IntArray, grid: FloatArray) -> FloatArray:
        """Mean of the rows at each observed x, and straight lines between them."""
        observed, at = np.unique(self.axis.position[rows], return_inverse=True)
        means = np.bincount(at, values[rows]) / np.bincount(at)
        between = np.asarray(np.interp(grid, observed, means))
        if self.axis.categories is None:
            return between
        return np.where(np.isin(grid, observed), between, values[rows].mean())

    def _step(self, name: str, rows: IntArray, grid: FloatArray) -> IntArray:
        """Row whose category holds at each x: the most frequent one of the last observed x."""
        observed, at = np.unique(self.axis.position[rows], return_inverse=True)
        chosen = np.array([self._mode(name, rows[at == k]) for k in range(len(observed))])
        held = chosen[np.maximum(np.searchsorted(observed, grid, side="right") - 1, 0)]
        if self.axis.categories is None:
            return held
        return np.where(np.isin(grid, observed), held, self._mode(name, rows))

    def _mode(self, name: str, rows: IntArray) -> int:
        codes = self.codes[name][rows]
        return int(rows[np.argmax(codes == np.bincount(codes).argmax())])

    def _is_shared(self, name: str) -> bool:
        """Whether a variable is the same function of x in all subjects: rows that share an x agree, or it is smooth."""
        x, codes = self.axis.position, self.codes[name]
        _, start, at, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
        tied = counts[at] > 1
        if name in self.steps:
            return bool(np.all(codes == codes[start[at]]) and tied.mean() > 0.5)
        values = self.frame[name].to_numpy(dtype=np.float64)
        spread = float(np.ptp(values))
        if not np.all(np.abs(values - values[start[at]]) <= 1e-9 * spread):
            return False
        if tied.mean() > 0.5 or self.axis.categories is not None:
            return bool(tied.mean() > 0.5)
        u, v = x[start], values[start]
        if len(u) < 5:
            return False
        left = np.diff(u)[:-1] / (u[2:] - u[:-2])
        rough = v[1:-1] - (v[:-2] + left * (v[2:] - v[:-2]))
        return bool(np.sqrt(np.mean(rough**2)) < 0.01 * spread)


def _variables(design: Design) -> tuple[list[str], set[str]]:
    """Columns that new data must have, and those of them that an expression turns into categories."""
    columns = list(design.frame.columns)
    factors = {f for column in design.fixed_columns for f in column.term} | set(design.hierarchy.offsets)
    factors |= {f for term in design.hierarchy.level1_terms for f in term}
    found = {v for f in factors for v in variables_of(f, columns)} | {design.hierarchy.subject}
    calls = (f for f in factors if f not in columns and re.search(r"\b(C|hashed)\(", f))
    coded = {v for f in calls for v in variables_of(f, columns)}
    return [c for c in columns if c in found], coded
