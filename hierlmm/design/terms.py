"""The terms of a model as a recipe: learnt from one sample of rows, applied to any rows, holding none.

``X[:, c] = X1[:, coef_level1[c]] * W[group, c]``: every column of the combined model is a level-1 column times a
level-2 value. ``X1`` holds the columns that vary within subjects, and whatever varies by a grouping factor is some of
them: ``Z = X1[:, columns]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.columns import Column, FactorColumns
from hierlmm.design.formula import INTERCEPT, variables_of
from hierlmm.design.hierarchy import Hierarchy
from hierlmm.design.levels import Levels, as_fitted_truth_values
from hierlmm.design.recipes import evaluate_vector
from hierlmm.errors import DataError
from hierlmm.frames import quote, shorten
from hierlmm.frozen import OwnArrays

SEE_GROUPS = "docs, page 'Different hierarchies by group'"

type Parts = tuple[tuple[str, str], ...]
"""Factor columns that a column is the product of: ``(factor, column name)``."""


@dataclass(frozen=True)
class RandomColumns(OwnArrays):
    """Which level-1 columns vary by a grouping factor, and which of them may correlate.

    With a D of its own for each level of ``by`` they stand once for each level, one level after the other: q·G random
    effects, of which a subject has the q of its level; the columns of all others are zero in its rows.

    Attributes
    ----------
    group : str
        The grouping factor.
    columns : (q,)
        Positions among the level-1 columns.
    names : tuple of str
        Their names, ``term``.
    blocks : tuple of tuple of int
        Positions in ``names`` that may correlate.
    covariance : str
        Structure of D.
    by : str
        Factor with a D of its own in each level; empty without one.
    levels : tuple
        Its levels.
    who : (J,)
        Position among the levels of the one that each fitted subject has; empty without levels.
    """

    group: str
    columns: IntArray
    names: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    covariance: str
    by: str = ""
    levels: tuple[Any, ...] = ()
    who: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @property
    def n_own(self) -> int:
        """Number of random effects that a subject has, q."""
        return len(self.names) // max(1, len(self.levels))

    @property
    def names_beside(self) -> tuple[str, ...]:
        """Names beside those of other grouping factors: ``Intercept | batch``."""
        return tuple(f"{name} | {self.group}" for name in self.names)

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Positions in ``names`` of each level's random effects; all in one part without levels."""
        q = self.n_own
        return tuple(tuple(range(start, start + q)) for start in range(0, len(self.names), max(1, q)))

    @property
    def n_parameters(self) -> int:
        """Number of parameters of D."""
        if self.covariance in SPECTRAL:
            return len(self.parts) * (1 if self.covariance == "identity" else 2)
        return sum(len(b) * (len(b) + 1) // 2 for b in self.blocks)

    def for_levels(self, by: str, levels: tuple[Any, ...], who: IntArray) -> RandomColumns:
        """The same random effects once for each level of a factor, none of which correlates with another level's."""
        q, G = len(self.names), len(levels)
        names = tuple(f"{name}[{level}]" for level in levels for name in self.names)
        blocks = tuple(tuple(m + q * g for m in block) for g in range(G) for block in self.blocks)
        structure = "blocks" if self.covariance == "unstructured" else self.covariance
        if all(len(block) == 1 for block in blocks) and structure == "blocks":
            structure = "diagonal"
        return RandomColumns(self.group, np.tile(self.columns, G), names, blocks, structure, by, levels, who)

    def values(self, X1: FloatArray, level: IntArray) -> FloatArray:
        """Z (n, q·G) of rows with these level-1 columns (n, k), at these positions among the levels (n,)."""
        Z = X1[:, self.columns]
        if self.levels:
            Z = Z * (np.arange(len(self.names)) // self.n_own == level[:, None])
        return np.ascontiguousarray(Z)


NO_COLUMNS = RandomColumns("", np.empty(0, dtype=np.intp), (), (), "none")
"""Nothing varies: a marginal model."""


def side_by_side(random: Sequence[RandomColumns]) -> RandomColumns:
    """Random effects of several grouping factors as those of one D, block diagonal; names have their factor."""
    names, blocks, at = list[str](), list[tuple[int, ...]](), 0
    for own in random:
        names += own.names_beside
        blocks += [tuple(at + m for m in block) for block in own.blocks]
        at += len(own.names)
    structure = "diagonal" if all(len(block) == 1 for block in blocks) else "blocks"
    return RandomColumns("", np.concatenate([own.columns for own in random]), tuple(names), tuple(blocks), structure)


@dataclass(frozen=True)
class NewData:
    """Design matrices of new rows; ``subject_index`` is -1 for a subject that was not in the fitted data."""

    frame: pd.DataFrame
    X: FloatArray
    Z: FloatArray
    X1: FloatArray
    offset: FloatArray
    subject_index: IntArray | None = None


@dataclass(frozen=True)
class Terms(OwnArrays):
    """The columns of a model, without its rows.

    Attributes
    ----------
    hierarchy : Hierarchy
        What was said.
    levels : Levels
        Categories of every factor.
    factors : FactorColumns
        How the columns of each factor are made: codings, knots, centres.
    fixed : tuple of Column
        Columns of X.
    level1_columns : tuple of Parts
        Columns of X1.
    coef_level1 : (p,)
        Which level-1 column each fixed coefficient belongs to.
    random : tuple of RandomColumns
        One for each grouping factor (a two-level model has one); none in a marginal model.
    dtypes : mapping
        The columns of the data that the terms were learnt from, and their types.
    """

    hierarchy: Hierarchy
    levels: Levels
    factors: FactorColumns
    fixed: tuple[Column, ...]
    level1_columns: tuple[Parts, ...]
    coef_level1: IntArray
    random: tuple[RandomColumns, ...]
    dtypes: Mapping[str, Any]

    @cached_property
    def coef(self) -> tuple[str, ...]:
        """Names of the fixed coefficients."""
        return tuple(c.name for c in self.fixed)

    @cached_property
    def level1(self) -> tuple[str, ...]:
        """Names of the level-1 columns."""
        return tuple(parts_name(parts) for parts in self.level1_columns)

    @cached_property
    def by_subject(self) -> RandomColumns:
        """What varies by subject; with several grouping factors what varies by any of them, side by side."""
        if len(self.random) > 1:
            return side_by_side(self.random)
        return self.random[0] if self.random else NO_COLUMNS

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Columns that new rows must have."""
        fixed = self._variables([*(f for c in self.fixed for f in c.term), *self.hierarchy.offsets])
        by = [self.by_subject.by] if self.by_subject.by else []
        return tuple(dict.fromkeys([*fixed, *self.level1_variables(), *by]))

    def level1_variables(self) -> list[str]:
        """Columns of the data that vary within subjects, in the order of level 1."""
        return self._variables(f for term in self.hierarchy.level1_terms for f in term)

    def random_variables(self) -> list[str]:
        """Columns of the data that the random effects are multiplied by."""
        return self._variables(f for block in self.hierarchy.blocks for term in block.terms for f in term)

    def level2_variables(self) -> list[str]:
        """Columns of the data that explain level-1 coefficients (constant within every subject)."""
        return self._variables(sorted({f for terms in self.hierarchy.level2_terms for term in terms for f in term}))

    def _variables(self, factors: Iterable[str]) -> list[str]:
        columns = list(self.dtypes)
        return list(dict.fromkeys(v for f in dict.fromkeys(factors) for v in variables_of(f, columns)))

    def apply(self, frame: pd.DataFrame) -> NewData:
        """Evaluate the columns on complete rows, whether or not they are those that the terms were learnt from.

        Parameters
        ----------
        frame : pandas.DataFrame
            What `hierlmm.frames.to_pandas` returned, with the columns ``variables``.

        Raises
        ------
        DataError
            If a factor level is new, a column holds labels in place of numbers, or a value is not finite.
        """
        frame = as_fitted_truth_values(frame, self.dtypes)
        coded, n = self.levels.apply(frame), len(frame)
        values = self.factors.values(coded[list(self.variables)])  # a new subject may have a label of another type
        for (factor, name), column in values.items():
            check_finite(column, name, factor, frame)
        X1 = stack([product(values, parts, n) for parts in self.level1_columns], n)
        X = stack([product(values, c.parts, n) for c in self.fixed], n)
        own = self.by_subject
        level = level_positions(frame[own.by], own.levels) if own.by else np.zeros(n, dtype=np.intp)
        return NewData(frame, X, own.values(X1, level), X1, self.offset(coded))

    def offset(self, frame: pd.DataFrame) -> FloatArray:
        """Sum of the offsets, (n,)."""
        return sum((evaluate_vector(o, frame, "offset") for o in self.hierarchy.offsets), np.zeros(len(frame)))


def level_positions(column: pd.Series, levels: tuple[Any, ...]) -> IntArray:
    """Positions of values among the levels of the factor by which D differs, (n,).

    Raises
    ------
    DataError
        If a value is none of them.
    """
    at = pd.Index(levels, dtype=object).get_indexer(pd.Index(column.to_numpy(object), dtype=object))
    if np.any(at < 0):
        name, new = column.name, column.iloc[int(np.flatnonzero(at < 0)[0])]
        reason = f"no subject of this {name!r} was in the data that the model was fitted to, so its D is not known"
        remedy = f"use one of the levels {shorten(map(quote, levels))}, or fit a model with one D for all (no group=)"
        raise DataError(f"{name} = {quote(new)}", reason, remedy, SEE_GROUPS)
    return at.astype(np.intp)


def parts_name(parts: Parts) -> str:
    """Name of a column as formulaic writes it: ``Intercept``, ``time``, ``sex[T.Male]:time``."""
    return ":".join(name for _, name in parts) if parts else INTERCEPT


def product(values: Mapping[tuple[str, str], FloatArray], parts: Parts, n: int) -> FloatArray:
    """The column that is the product of these factor columns, (n,)."""
    result = np.ones(n)
    for part in parts:
        result = result * values[part]
    return result


def stack(columns: Sequence[FloatArray], n: int) -> FloatArray:
    """Columns side by side, (n, k), also if there are none."""
    return np.column_stack(columns) if columns else np.empty((n, 0))


def check_finite(column: FloatArray, name: str, source: str, frame: pd.DataFrame) -> None:
    """Refuse infinite and undefined values.

    Raises
    ------
    DataError
        With the first row that holds one.
    """
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        received = f"{name!r} with {bad.size} infinite or undefined values, first in row {quote(frame.index[bad[0]])}"
        reason = f"{source!r} has no finite value there (division by zero, or the log of zero?)"
        raise DataError(received, reason, "correct or drop these rows, or use another transformation")
