"""Residual structures bound to data: rows in order, distances or patterns of positions, parameters with their starts.

Rows are sorted by subject and, where a structure has positions, by position. A serial structure then needs the
distance of each row to the one before; any other structure needs the distinct sets of positions, each with the subjects
that have it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.covariance.composed import in_group
from hierlmm.covariance.declared import data_error, naming_group
from hierlmm.covariance.parameters import Parameter, check_parameters, natural_slopes, natural_values
from hierlmm.covariance.positions import Rows
from hierlmm.covariance.residual.base import MOST_OCCASIONS, Observed, ResidualCorrelation, check_matrix
from hierlmm.covariance.variance import VarianceFunction

SHRINK = 0.8
CHECKED = 60
"""Positions of the longest subject at which a structure's matrix is looked at."""


@dataclass(frozen=True, eq=False)
class PatternGroup:
    """Distinct sets of n positions: ``t`` (K, n), the number of subjects of each, and where its matrix lies.

    All of them belong to subjects of one level (see `Level`).
    """

    t: FloatArray
    count: FloatArray
    offset: IntArray
    level: int


@dataclass(frozen=True)
class Groups:
    """Groups of subjects with residual parameters of their own.

    Attributes
    ----------
    column : str or None
        Where the groups stand; None without any.
    levels : tuple
        Their labels, in order; one that is None without any.
    place : (J,)
        Which of them each subject belongs to.
    """

    column: str | None
    levels: tuple[Any, ...]
    place: IntArray


@dataclass(frozen=True, eq=False)
class Level:
    """Subjects with parameters of their own: those of a group, or all of them.

    Attributes
    ----------
    label
        The group; None without groups.
    spec : ResidualCorrelation
        The structure, which knows the bounds of its parameters.
    observed : Observed
        Of these subjects.
    own : slice
        Places of its parameters among all.
    rows : (N,)
        Which rows are theirs, in the order of `Rows`.
    """

    label: Any
    spec: ResidualCorrelation
    observed: Observed
    own: slice
    rows: BoolArray

    def name(self, parameter: str) -> str:
        """Name of a parameter in tables."""
        return parameter if self.label is None else in_group(parameter, self.label)


class Serial(NamedTuple):
    """The O(n) form of a serial structure by row: share u and decay (N,), their derivatives by parameter (k, N)."""

    u: FloatArray
    decay: FloatArray
    du: FloatArray
    d_decay: FloatArray


class _Bound:
    """What has parameters that η moves."""

    parameters: tuple[Parameter, ...]

    def values(self, eta: FloatArray) -> FloatArray:
        """Parameters from η."""
        return natural_values(self.parameters, eta)


@dataclass(frozen=True, eq=False)
class BoundCorrelation(_Bound):
    """A correlation structure with the positions of one data set.

    Attributes
    ----------
    spec : ResidualCorrelation
    rows : Rows
    parameters : tuple of Parameter
        Of all levels, one after the other.
    levels : tuple of Level
        Subjects with parameters of their own, all of them together without groups.
    gaps : (N,)
        Distance to the subject's previous row (0 on the first), in the order of `Rows`.
    groups : tuple of PatternGroup
        Patterns by number of rows; empty for a serial structure.
    offset : (J,)
        Where each subject's pattern lies in the packed factors.
    """

    spec: ResidualCorrelation
    rows: Rows
    parameters: tuple[Parameter, ...]
    levels: tuple[Level, ...]
    gaps: FloatArray
    groups: tuple[PatternGroup, ...]
    offset: IntArray

    @property
    def observed(self) -> Observed:
        """What the data show of the first level."""
        return self.levels[0].observed

    @property
    def is_serial(self) -> bool:
        """Whether the structure whitens in O(n)."""
        return not self.groups

    @cached_property
    def packed_size(self) -> int:
        """Numbers in the packed factors of all patterns."""
        return sum(g.t.shape[0] * g.t.shape[1] ** 2 for g in self.groups)

    def slopes(self, eta: FloatArray) -> FloatArray:
        """Derivatives of the parameters with respect to η."""
        return natural_slopes(self.parameters, eta)

    def report(self, eta: FloatArray) -> dict[str, float]:
        """What tables show."""
        values = self.values(eta)
        found: dict[str, float] = {}
        for level in self.levels:
            own = level.spec.report(level.observed, values[level.own])
            found |= {level.name(name): value for name, value in own.items()}
        return found

    def without(self, subject: int, rows: Rows, kept: BoolArray) -> BoundCorrelation:
        """The same structure, parameters and starts without one subject, given the other rows and which they are."""
        groups = self.groups
        if groups:
            at = self.offset[subject]
            groups = tuple(replace(group, count=group.count - (group.offset == at)) for group in groups)
        levels = tuple(replace(level, rows=level.rows[kept]) for level in self.levels)
        offset = np.delete(self.offset, subject) if groups else self.offset
        return replace(self, rows=rows, levels=levels, gaps=self.gaps[kept], groups=groups, offset=offset)

    def matrices(self, group: PatternGroup, values: FloatArray) -> FloatArray:
        """Correlation matrices (K, n, n) of the patterns of a group at parameters (k,)."""
        level = self.levels[group.level]
        return level.spec.matrix(group.t, values[level.own])

    def serial(self, values: FloatArray) -> Serial:
        """The O(n) form at parameters (k,), by row."""
        u, decay = np.empty(len(self.gaps)), np.empty(len(self.gaps))
        du, d_decay = np.zeros((2, len(values), len(self.gaps)))
        for level in self.levels:
            form = level.spec.markov(self.gaps[level.rows], values[level.own])
            assert form is not None
            u[level.rows], decay[level.rows] = form.u, form.decay
            du[level.own, level.rows] = form.du[:, None]
            d_decay[level.own, level.rows] = form.d_decay
        return Serial(u, decay, du, d_decay)


@dataclass(frozen=True, eq=False)
class BoundVariance(_Bound):
    """A variance function with the covariate of one data set, v (N,) in the order of `Rows`."""

    spec: VarianceFunction
    parameters: tuple[Parameter, ...]
    v: FloatArray
    state: Any

    def log_ratio(self, eta: FloatArray) -> FloatArray:
        """log(SD / σ) of each row: (N,)."""
        return self.spec.log_ratio(self.v, self.values(eta))

    def derivatives(self, eta: FloatArray) -> FloatArray:
        """Derivatives of `log_ratio` with respect to η: (k, N)."""
        slopes = natural_slopes(self.parameters, eta)
        return slopes[:, None] * self.spec.derivatives(self.v, self.values(eta))

    def shift(self, eta: FloatArray) -> float:
        """Mean of `log_ratio` where the function is centred, else 0: the whitened rows have the SD ``σ exp(shift)``.

        σ is the SD where the ratio is 1, which may be far outside the data; the average row is not.
        """
        return float(np.mean(self.log_ratio(eta))) if self.spec.centred else 0.0

    def centred_log_ratio(self, eta: FloatArray) -> FloatArray:
        """``log_ratio - shift``: (N,)."""
        log_ratio = self.log_ratio(eta)
        return log_ratio - log_ratio.mean() if self.spec.centred else log_ratio

    def centred_derivatives(self, eta: FloatArray) -> FloatArray:
        """Derivatives of `centred_log_ratio` with respect to η: (k, N)."""
        found = self.derivatives(eta)
        return found - found.mean(axis=1, keepdims=True) if self.spec.centred else found

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups with an SD of their own, the reference first; empty for a function of a number."""
        return self.spec._groups(self.state)

    def report(self, eta: FloatArray) -> dict[str, float]:
        """Parameters by name."""
        return {p.name: float(v) for p, v in zip(self.parameters, self.values(eta), strict=True)}


def bind_correlation(
    spec: ResidualCorrelation, rows: Rows, residual: FloatArray, groups: Groups, *, mixed: bool, n_parameters: int
) -> BoundCorrelation:
    """Bind a structure to the rows of a data set.

    Parameters
    ----------
    spec : ResidualCorrelation
    rows : Rows
    residual : (N,)
        Residuals of an ordinary regression, in the order of ``rows``: starting values come from them.
    groups : Groups
        Groups of subjects with parameters of their own.
    mixed : bool
        Whether the model has random effects.
    n_parameters : int
        Parameters besides those of the correlation, for the check that the data can carry them.

    Raises
    ------
    DataError
    """
    gaps = rows.gaps
    levels: list[Level] = []
    parameters: tuple[Parameter, ...] = ()
    for g, label in enumerate(groups.levels):
        with naming_group(groups.column, label):
            level, own = _bind_level(spec, *_part(rows, residual, groups.place == g), label, len(parameters), mixed)
        levels.append(level)
        parameters += own
    if n_parameters + len(parameters) > len(gaps):
        raise data_error(
            f"{type(spec).__name__} with {len(parameters)} parameters, {n_parameters} others, and {len(gaps)} rows",
            "there are more parameters than measurements",
            "use a structure with fewer parameters: CompoundSymmetry, AR1 or Exponential",
        )
    start = np.array([p.natural(p.unconstrained(p.start)) for p in parameters])
    spec = levels[0].spec
    if spec.markov(gaps[levels[0].rows], start[levels[0].own]) is not None:
        return BoundCorrelation(spec, rows, parameters, tuple(levels), gaps, (), np.zeros(0, dtype=np.int64))
    patterns, offset = _pattern_groups(rows, groups.place, stationary=spec.stationary)
    return BoundCorrelation(spec, rows, parameters, tuple(levels), gaps, patterns, offset)


def _part(rows: Rows, residual: FloatArray, members: BoolArray) -> tuple[Rows, FloatArray, BoolArray]:
    """Rows and residuals of some of the subjects, and which rows these are."""
    n = np.diff(rows.start)
    own = np.repeat(members, n)
    start = np.concatenate([[0], np.cumsum(n[members])])
    return Rows(rows.order[own], start, rows.t[own], rows.labels), residual[own], own


def _bind_level(
    spec: ResidualCorrelation, rows: Rows, residual: FloatArray, own: BoolArray, label: Any, first: int, mixed: bool
) -> tuple[Level, tuple[Parameter, ...]]:
    """What some of the subjects show, and the structure's parameters for them, from the place ``first`` on."""
    n = np.diff(rows.start)
    gaps = np.diff(rows.t, prepend=0.0)
    inner = np.ones(len(gaps), dtype=bool)
    inner[rows.start[:-1]] = False
    if not inner.any():
        received = f"one row for each subject, and {type(spec).__name__}"
        reason = "there is no pair of rows within a subject to correlate"
        raise data_error(received, reason, "check the subject column, or leave the correlation out")
    positive = gaps[inner & (gaps > 0.0)]
    largest, step = spec._largest(rows.t, rows.start), float(np.median(positive)) if positive.size else 1.0
    neighbour, occasions = _neighbour_correlation(residual, inner), _occasion_correlation(spec, rows, residual, mixed)
    observed = Observed(largest, step, neighbour, rows.labels, occasions, mixed)
    parameters = check_parameters(type(spec).__name__, spec.parameters(observed))
    longest = int(np.argmax(n))
    check_matrix(spec, rows.t[rows.start[longest] : rows.start[longest + 1]][:CHECKED], parameters)
    level = Level(label, spec.within(parameters), observed, slice(first, first + len(parameters)), own)
    return level, tuple(replace(p, name=level.name(p.name)) for p in parameters) if label is not None else parameters


def _neighbour_correlation(residual: FloatArray, inner: BoolArray) -> float:
    places = np.flatnonzero(inner)
    a, b = residual[places - 1], residual[places]
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -0.9, 0.95)) if size > 0 else 0.0


def _occasion_correlation(spec: ResidualCorrelation, rows: Rows, residual: FloatArray, mixed: bool) -> FloatArray:
    """Pairwise correlations between occasions, shrunk towards independence; refuse pairs that nobody has."""
    if not spec.by_occasion:
        return np.zeros((0, 0))
    m, J = len(rows.labels), len(rows.start) - 1
    pairs = spec._own_pairs(m)
    if not 2 <= m <= MOST_OCCASIONS:
        raise data_error(
            f"{m} different values of {spec.time!r} in {J} subjects, and {type(spec).__name__}",
            f"it has a correlation {spec._pairs_words}, {len(pairs[0])} in all"
            + ("" if m < 2 else f", and the subjects do not line up on {MOST_OCCASIONS} common occasions or fewer"),
            f"use Exponential({spec.time!r}) or Toeplitz, or a column of common occasions",
        )
    together = seen_together(rows)
    if together[pairs].min() == 0:
        i, j = sorted(int(side[int(np.argmin(together[pairs]))]) for side in pairs)
        raise data_error(
            f"0 subjects with rows at both {rows.labels[i]} and {rows.labels[j]} of {spec.time!r}",
            f"{type(spec).__name__} has a correlation {spec._pairs_words}, and no subject shows that of these two",
            f"line the occasions up (round {spec.time!r} to the planned ones), or use Exponential or Toeplitz",
        )
    filled = np.zeros((J, m))
    filled[np.repeat(np.arange(J), np.diff(rows.start)), rows.t.astype(np.intp)] = residual
    scale = np.sqrt(np.sum(filled**2, axis=0) / np.maximum(np.diag(together), 1.0))
    filled = filled / np.where(scale > 0, scale, 1.0)
    R = filled.T @ filled / np.maximum(together, 1.0)
    R = (SHRINK * (0.5 if mixed else 1.0)) * R
    np.fill_diagonal(R, 1.0)
    low = float(np.linalg.eigvalsh(R)[0])
    if low < 0.02:
        R = (R + (0.02 - low) * np.eye(m)) / (1.02 - low)
    return R


def seen_together(rows: Rows, own: BoolArray | None = None) -> FloatArray:
    """Subjects with rows at both of two occasions, of some rows (N,) or all: (m, m)."""
    seen = np.zeros((len(rows.start) - 1, len(rows.labels)))
    at = np.repeat(np.arange(len(seen)), np.diff(rows.start)), rows.t.astype(np.intp)
    seen[at] = 1.0 if own is None else own
    return seen.T @ seen


def _pattern_groups(rows: Rows, place: IntArray, *, stationary: bool) -> tuple[tuple[PatternGroup, ...], IntArray]:
    n = np.diff(rows.start)
    offset = np.zeros(len(n), dtype=np.int64)
    groups: list[PatternGroup] = []
    at = 0
    for level, size in itertools.product(range(int(place.max()) + 1), np.unique(n)):
        members = np.flatnonzero((n == size) & (place == level))
        if not members.size:
            continue
        t = rows.t[rows.start[members][:, None] + np.arange(size)]
        if stationary:
            t = t - t[:, :1]
        distinct, which, count = np.unique(t, axis=0, return_inverse=True, return_counts=True)
        places = at + np.arange(len(distinct), dtype=np.int64) * int(size) ** 2
        offset[members] = places[which.ravel()]
        groups.append(PatternGroup(distinct, count.astype(np.float64), places, level))
        at += len(distinct) * int(size) ** 2
    return tuple(groups), offset


def bind_variance(spec: VarianceFunction, column: Any, rows: Rows) -> BoundVariance:
    """Bind a variance function to what it reads of the data (N rows), in their order."""
    v, state = spec.prepare(column)
    parameters = check_parameters(type(spec).__name__, spec.parameters(v, state))
    return BoundVariance(spec.bound(state), parameters, v[rows.order], state)
