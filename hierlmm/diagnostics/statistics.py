"""Test statistics of predictive checks: numbers of a data set that say something of its subjects.

With e the residuals of least squares on X, and e~ what is left of them after every subject's own least squares on Z_i:

    sd_within   sqrt(Σ_ij (y_ij - ȳ_i)² / (N - J))
    sd_between  SD of the subjects' means ȳ_i
    sd_slope    SD of the subjects' own slopes along time, weighted by Σ_j (t_ij - t̄_i)²
    lag1        Σ e~_ij e~_i,j+1 / Σ e~_ij²
    skewness    Σ e³ / N / (Σ e² / N)^(3/2)
    maximum     max y_ij

Of counts, successes and categories there are, with the share of a category for each of its labels:

    mean        Σ_ij y_ij / N
    sd          SD of the rows
    zeros       share of rows that are zero
    dispersion  sd_within² / mean
    one_value   share of subjects (with two rows or more) all of whose rows are the same
    share(...)  share of rows in a category

``lag1`` is no estimate of the residual correlation (residuals from subjects' own lines correlate negatively); its
replications have the same bias, so it can be compared with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.questions import rows_by_subject, time_of
from hierlmm.errors import SpecificationError, closest
from hierlmm.groups import group_order, group_starts
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr

type Statistic = Callable[[FloatArray], FloatArray]
"""From data sets (n, N) to a number of each, (n,)."""
SEE = "docs, page 'Posterior fits', section 'Predictive checks'"
MOST = 12
"""Most groups: more are chosen from, evenly."""


class Sums:
    """Some rows of a design sorted by subject (and time), for sums by subject of data sets (n, N)."""

    def __init__(self, design: Design, rows: IntArray) -> None:
        time = time_of(design)
        self.time = None if time is None else design.frame[time].to_numpy(dtype=np.float64)
        subjects, index = np.unique(design.subject_index[rows], return_inverse=True)
        order = group_order(index, None if self.time is None else self.time[rows])
        self.order, self.index = rows[order], index[order]
        self.start = group_starts(index, len(subjects))
        self.count = np.diff(self.start)

    def total(self, values: FloatArray) -> FloatArray:
        """Sums over the sorted rows of every subject, (n, J)."""
        return np.add.reduceat(values, self.start[:-1], axis=-1)

    def centred(self, values: FloatArray) -> FloatArray:
        """Sorted rows less the mean of their subject."""
        return values - (self.total(values) / self.count)[..., self.index]


def built_in(design: Design, rows: IntArray | None = None) -> dict[str, Statistic]:
    """The statistics that the data of a design have, or some rows of them; residuals are those of all rows."""
    rows = np.arange(design.n_obs) if rows is None else rows
    found = _of_measurements(design, rows)
    return _of_whole_numbers(design, rows, found) if design.family.discrete else found


def _of_whole_numbers(design: Design, rows: IntArray, others: Mapping[str, Statistic]) -> dict[str, Statistic]:
    """Of counts, of successes, of yes and no, or of categories, which have no distances and so no mean."""
    sums, name = Sums(design, rows), design.family.name
    found: dict[str, Statistic] = {"mean": lambda y: y[:, rows].mean(axis=-1)}
    if name == "ordinal":
        labels = design.outcome.categories(design.hierarchy.response, design.frame)
        found = {f"share({label})": _share(rows, k) for k, label in enumerate(labels)}
    elif name != "bernoulli":
        found["sd"] = lambda y: y[:, rows].std(axis=-1, ddof=1)
        found["zeros"] = lambda y: np.mean(y[:, rows] == 0, axis=-1)
        found["maximum"] = others["maximum"]
        if (within := others.get("sd_within")) is not None and not design.family.has_trials:

            def dispersion(y: FloatArray) -> FloatArray:
                mean = y[:, rows].mean(axis=-1)
                return within(y) ** 2 / np.where(mean > 0.0, mean, 1.0)

            found["dispersion"] = dispersion
    several = sums.count > 1
    if several.any() and name in ("ordinal", "bernoulli"):

        def one_value(y: FloatArray) -> FloatArray:
            own, first = y[:, sums.order], sums.start[:-1]
            low, high = (extreme.reduceat(own, first, axis=-1) for extreme in (np.minimum, np.maximum))
            return np.mean((low == high)[:, several], axis=-1)

        found["one_value"] = one_value
    kept = () if name == "ordinal" else ("sd_between", "sd_slope")
    return found | {own: others[own] for own in kept if own in others}


def _share(rows: IntArray, category: int) -> Statistic:
    return lambda y: np.mean(y[:, rows] == category, axis=-1)


def _of_measurements(design: Design, rows: IntArray) -> dict[str, Statistic]:
    sums = Sums(design, rows)
    n, J = len(rows), len(sums.count)
    Q = np.linalg.qr(design.X)[0] if design.coef else np.empty((design.n_obs, 0))

    def residual(y: FloatArray) -> FloatArray:
        e = y - design.offset
        return e - (e @ Q) @ Q.T

    def skewness(y: FloatArray) -> FloatArray:
        e = residual(y)[:, rows]
        squares = e * e
        return np.mean(squares * e, axis=-1) / np.mean(squares, axis=-1) ** 1.5

    found: dict[str, Statistic] = {}
    if n > J:
        found["sd_within"] = lambda y: np.sqrt(np.sum(np.square(sums.centred(y[:, sums.order])), axis=-1) / (n - J))
    if J > 1:
        found["sd_between"] = lambda y: np.std(sums.total(y[:, sums.order]) / sums.count, axis=-1, ddof=1)
    slope = None if sums.time is None else _slope_sd(sums, sums.time)
    lag = _lag1(design, sums, residual)
    found |= {name: own for name, own in (("sd_slope", slope), ("lag1", lag)) if own is not None}
    return found | ({"skewness": skewness} if n > 2 else {}) | {"maximum": lambda y: y[:, rows].max(axis=-1)}


def _slope_sd(sums: Sums, time: FloatArray) -> Statistic | None:
    t = sums.centred(time[sums.order])
    weight = sums.total(t * t)
    if np.sum(weight > 0.0) < 2:
        return None
    share = weight / weight.sum()

    def sd(y: FloatArray) -> FloatArray:
        slope = sums.total(y[:, sums.order] * t) / np.where(weight > 0.0, weight, 1.0)
        centre = slope @ share
        return np.sqrt(np.square(slope - centre[:, None]) @ share)

    return sd


def _lag1(design: Design, sums: Sums, residual: Statistic) -> Statistic | None:
    """Autocorrelation of what is left after each subject's own regression; None where nothing is left."""
    U = np.ascontiguousarray(design.Z[sums.order].T)
    within_subject_qr(U, np.empty((0, len(sums.order))), sums.start, RANK_TOLERANCE)
    if not np.any(sums.count > len(U) + 1):
        return None
    same = sums.index[1:] == sums.index[:-1]

    def correlation(y: FloatArray) -> FloatArray:
        e = residual(y)[:, sums.order]
        for u in U:  # orthonormal within subjects
            e = e - sums.total(e * u)[:, sums.index] * u
        return np.sum((e[:, 1:] * e[:, :-1])[:, same], axis=-1) / np.sum(e * e, axis=-1)

    return correlation


type Asked = str | Sequence[str] | Mapping[str, Callable[[FloatArray], float]] | None
"""Names, functions of one data set by name, or all built-in ones."""


def chosen(design: Design, statistics: Asked) -> dict[str, Statistic]:
    """The statistics asked for: names, or functions of one data set (N,) by name; all built-in ones by default."""
    known = built_in(design)
    if statistics is None:
        return known
    if isinstance(statistics, Mapping):
        return {name: _each(function) for name, function in statistics.items()}
    wanted = [statistics] if isinstance(statistics, str) else list(statistics)
    for name in wanted:
        if name not in known:
            reason = f"these data have no such statistic.{closest(name, list(known))}"
            remedy = f"use {', '.join(map(repr, known))}, or a function of one data set: {{'range': np.ptp}}"
            raise SpecificationError(f"statistics={name!r}", reason, remedy, SEE)
    return {name: known[name] for name in wanted}


def chosen_of_groups(design: Design, statistics: Asked, by: str) -> dict[tuple[Any, str], Statistic]:
    """The statistics asked for, of the rows of each group, by its label and the statistic's name."""
    names = chosen(design, statistics)
    found: dict[tuple[Any, str], Statistic] = {}
    for label, rows in row_groups(design, by).items():
        own = built_in(design, rows)
        if isinstance(statistics, Mapping):
            own = {name: _each(function, rows) for name, function in statistics.items()}
        found |= {(label, name): own[name] for name in names if name in own}
    return found


def row_groups(design: Design, by: str) -> dict[Any, IntArray]:
    """Rows of each subject (``"subject"``), or of each value of a column, by its label: at most 12, evenly chosen."""
    column = column_of(design, by)
    if column == design.hierarchy.subject:
        labels, rows = list(design.subjects), rows_by_subject(design)
    else:
        values = design.frame[column]
        labels = sorted(values.unique().tolist())
        rows = [np.flatnonzero(values == label) for label in labels]
    some = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST)).round().astype(int))
    return {labels[k]: rows[k] for k in some}


def column_of(design: Design, by: str) -> str:
    """The column that ``by`` names: that of the subjects, or another one that the model uses."""
    known = [str(name) for name in design.frame.columns if name != design.hierarchy.response]
    column = design.hierarchy.subject if by == "subject" else by
    if column not in known:
        reason = f"the model uses no such column.{closest(by, known)}"
        raise SpecificationError(f"by={by!r}", reason, f"use 'subject' or one of {', '.join(map(repr, known))}", SEE)
    return column


def _each(function: Callable[[FloatArray], float], rows: IntArray | None = None) -> Statistic:
    """The function of every data set, or of some rows of it."""
    return lambda y: np.array([float(function(own)) for own in (y if rows is None else y[:, rows])])
