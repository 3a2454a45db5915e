"""Residual SDs with several sources: known weights, groups with parameters of their own, and a variance function.

    SD_ij = σ · ratio_g(i) · f(v_ij; δ_g(i)) / √w_ij

with w known weights, g the group of a subject (ratio 1 in the first) and f the variance function that was stated, whose
parameters δ are those of the group. The logarithm is a sum; what was not stated is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import data_error, group_places, naming_group
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.variance import VarianceFunction, Writer, sorted_levels
from hierlmm.frames import is_number, shorten

FITTED = "fitted value"


class _State(NamedTuple):
    """What is remembered of the data: levels of the groups, and of the stated function by group (one without any)."""

    levels: tuple[Any, ...]
    own: tuple[Any, ...]
    parts: tuple[tuple[Parameter, ...], ...]


@dataclass(frozen=True)
class Composed(VarianceFunction):
    """A variance function within groups, for rows of known weights.

    Parameters
    ----------
    own : VarianceFunction or None
        What was stated of the variance.
    group : str or None
        Column of the groups with parameters of their own.
    weights : str or None
        Column of the weights: the residual variance is inversely proportional to them.
    """

    own: VarianceFunction | None = None
    group: str | None = None
    weights: str | None = None
    _sizes: ClassVar[tuple[int, ...]] = (0,)

    @property
    def variable(self) -> str | None:  # type: ignore[override]  # a property of what was stated
        """Column of the stated function (None: the fitted value), or of the groups, or of the weights."""
        return (self.group or self.weights) if self.own is None else self.own.variable

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it depends on."""
        own = () if self.own is None else self.own.columns
        return tuple(dict.fromkeys(c for c in (*own, self.group, self.weights) if c is not None))

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Weights have any unit, so that σ, the SD at weight 1, may be far from that of the rows."""
        return self.weights is not None or (self.own is not None and self.own.centred)

    @property
    def _linear(self) -> bool:  # type: ignore[override]
        return self.own is None or self.own._linear

    def read(self, frame: pd.DataFrame, fitted: Any = None) -> Any:
        """The columns side by side, with the fitted values where the stated function depends on them."""
        found = frame[list(self.columns)]
        return found if self.variable is not None else found.assign(**{FITTED: np.asarray(fitted)})

    def prepare(self, column: Any) -> tuple[FloatArray, _State]:
        """Numbers (N, 3) of every row: that of the stated function, the place of its group, log weight / 2."""
        levels: tuple[Any, ...] = ()
        if self.group is not None:
            levels = tuple(sorted_levels("group", column[self.group]))
        place = self._places(column, levels)
        v, states, parts, own = np.zeros(len(column)), [], [], self.own
        for g in range(max(len(levels), 1) if own is not None else 0):
            assert own is not None
            member = place == g
            v[member], state = self._prepared(column[member], levels[g : g + 1])
            states.append(state)
            parts.append(own.parameters(v[member], state))
        return np.column_stack([v, place, self._half_logs(column)]), _State(levels, tuple(states), tuple(parts))

    def _prepared(self, rows: pd.DataFrame, level: Sequence[Any]) -> tuple[FloatArray, Any]:
        """Numbers of the stated function in the rows of one group; a refusal names the group."""
        assert self.own is not None
        column = rows[FITTED if self.own.variable is None else self.own.variable]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.cat.remove_unused_categories()
        with naming_group(self.group, level[0] if level else None):
            return self.own.prepare(column)

    def apply(self, column: Any, state: _State) -> FloatArray:
        """Numbers (n, 3) of new rows."""
        place = self._places(column, state.levels)
        v = np.zeros(len(column))
        for g, own in enumerate(state.own):
            member = place == g
            if self.own is not None and member.any():
                name = FITTED if self.own.variable is None else self.own.variable
                v[member] = self.own.apply(column[name][member], own)
        return np.column_stack([v, place, self._half_logs(column)])

    def _places(self, frame: pd.DataFrame, levels: Sequence[Any]) -> FloatArray:
        """Place of each row's group among the levels, 0 without groups."""
        return np.zeros(len(frame)) if self.group is None else group_places(frame[self.group], levels)

    def _half_logs(self, frame: pd.DataFrame) -> FloatArray:
        return np.zeros(len(frame)) if self.weights is None else 0.5 * np.log(checked_weights(frame[self.weights]))

    def parameters(self, v: FloatArray, state: _State) -> tuple[Parameter, ...]:
        """SD ratios between groups, then those of the stated function, group by group."""
        first = () if not state.levels else state.levels[:1]
        ratios = [Parameter(f"ratio({level}/{first[0]})", 1.0, 0.0) for level in state.levels[1:]]
        if not state.levels:
            return tuple(p for part in state.parts for p in part)
        by_group = zip(state.levels, state.parts, strict=False)
        return (*ratios, *(replace(p, name=in_group(p.name, level)) for level, part in by_group for p in part))

    def bound(self, state: _State) -> Composed:
        """Tell a copy how many parameters of the stated function each group has."""
        own = copy(self)
        object.__setattr__(own, "_sizes", (max(len(state.levels) - 1, 0), *(len(part) for part in state.parts)))
        return own

    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """The sum of the logarithms."""
        n_ratios, *sizes = self._sizes
        place = v[:, 1].astype(np.intp)
        total = np.concatenate([[0.0], np.log(values[:n_ratios])])[place] - v[:, 2]
        for g, own in self._parts(sizes, n_ratios):
            assert self.own is not None
            member = place == g
            total[member] += self.own.log_ratio(v[member, 0], values[own])
        return total

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Of the ratios exact, of the stated function its own."""
        n_ratios, *sizes = self._sizes
        place = v[:, 1].astype(np.intp)
        found = np.zeros((len(values), len(v)))
        for k in range(n_ratios):
            found[k, place == k + 1] = 1.0 / values[k]
        for g, own in self._parts(sizes, n_ratios):
            assert self.own is not None
            member = place == g
            found[own, member] = self.own.derivatives(v[member, 0], values[own])
        return found

    def _parts(self, sizes: Sequence[int], first: int) -> list[tuple[int, slice]]:
        """Each group with the places of its parameters of the stated function."""
        ends = first + np.cumsum([0, *sizes])
        return [(g, slice(int(ends[g]), int(ends[g + 1]))) for g in range(len(sizes))]

    def said(self, text: Callable[[Any], str]) -> str:
        """What was stated, as a user would write it.

        Parameters
        ----------
        text : callable
            Writes the variance function.
        """
        parts = [] if self.own is None else [text(self.own)]
        parts += [f"group={self.group!r}"] if self.group is not None else []
        return ", ".join([*parts, f"weights={self.weights!r}"] if self.weights is not None else parts)

    def formula(self) -> str:
        """``sigma[arm] · ratio[visit] / sqrt(w)``."""
        sigma = "sigma" if self.group is None else f"sigma[{self.group}]"
        text = sigma if self.own is None else self.own.formula().replace("sigma", sigma, 1)
        return text if self.weights is None else f"{text} / sqrt({self.weights})"

    def symbols(self, write: Writer, row: str, power: int) -> Any:
        """The factors one after the other; None where the stated function has no short form."""
        own = None if self.own is None else self.own.symbols(write, row, power)
        if self.own is not None and own is None:
            return None
        factors = [] if own is None else [own]
        if self.group is not None:
            factors.insert(0, write.powered(write.code("ratio") + "(" + write.column(self.group, row) + ")", power))
        if self.weights is not None:
            factors.append(write.raised(write.column(self.weights, row), "-1" if power == 2 else "-1/2"))
        return write.product(*factors)


def composed(own: VarianceFunction | None, group: str | None, weights: str | None) -> VarianceFunction | None:
    """The variance function of a model: what was stated alone, or with groups and weights."""
    return own if group is None and weights is None else Composed(own, group, weights)


def stated(variance: VarianceFunction | None) -> VarianceFunction | None:
    """The variance function that was stated."""
    return variance.own if isinstance(variance, Composed) else variance


def group_of(variance: VarianceFunction | None) -> str | None:
    """Column of the groups with residual parameters of their own; None without any."""
    return variance.group if isinstance(variance, Composed) else None


def weights_of(variance: VarianceFunction | None) -> str | None:
    """Column of the weights; None where all rows count alike."""
    return variance.weights if isinstance(variance, Composed) else None


def in_group(name: str, level: Any) -> str:
    """Name of a parameter in one group: ``rho[placebo]``."""
    return f"{name}[{level}]"


def checked_weights(column: pd.Series) -> FloatArray:
    """Weights as numbers, refused where they are none, not finite or not positive.

    Raises
    ------
    DataError
    """
    name, remedy = f"weights={column.name!r}", "correct or drop these rows; a weight of 1 leaves a row's variance at σ²"
    if not is_number(column) or pd.api.types.is_complex_dtype(column):
        reason = "a residual variance is divided by its weight, which is a positive number"
        raise data_error(f"{name}, a column of type {column.dtype}", reason, f"make it numbers: {column.name!r}")
    values = column.to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0.0)))
    if bad.size:
        rows = shorten(f"{row}: {value:g}" for row, value in zip(column.index[bad], values[bad], strict=True))
        received = f"{name} with {bad.size} weight{'s' * (bad.size > 1)} that {_wrong(values[bad])} (rows {rows})"
        reason = "a residual variance is divided by its weight, and would be infinite, zero or negative"
        raise data_error(received, reason, remedy)
    return values


def _wrong(values: FloatArray) -> str:
    if not np.all(np.isfinite(values)):
        return "are not finite"
    return "are zero or negative"
