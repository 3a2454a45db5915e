"""Working correlations of GEE and their moment estimators.

With residuals ``r`` and products of the pairs of rows of the same subject:

- exchangeable: ``α = Σ_pairs r_j r_k / (P φ)``, with ``φ = Σ r² / N`` and P the number of pairs, or
  ``φ = Σ r² / (N − p)`` and P the number of pairs less p
- AR(1): ``R_jk = α^|t_j − t_k|``, α the least-squares fit of the products ``r_j r_k / mean(r²)`` of all pairs on
  ``α^lag`` (geepack), or the mean product of neighbours over ``mean(r²)`` (package gee)
- unstructured: ``R_jk = mean(r_j r_k) / mean(r²)`` over the subjects that have both positions (both packages)

Such moments can leave the set of correlation matrices. They are then pulled towards the identity just far enough to go
on, and ``inside`` is False: an estimate that ends there is refused by the caller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import brentq

from hierlmm.arrays import FloatArray, IntArray

SMALLEST = 1e-8
"""A working correlation with a smaller eigenvalue than this is no correlation matrix to solve with."""
PULLED = 1e-6
GRID = 4001


@dataclass(frozen=True)
class Rows:
    """Rows sorted by subject.

    Attributes
    ----------
    start : (J + 1,)
        Where each subject's rows begin.
    position : (N,)
        Position of each row on the axis of the correlation (AR: in units of the spacing; unstructured: a code).
    """

    start: IntArray
    position: FloatArray

    @cached_property
    def sizes(self) -> IntArray:
        """Rows of each subject, (J,)."""
        return np.diff(self.start)

    @cached_property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """First and second row of every pair of rows of the same subject."""
        first, second = [], []
        for size in np.unique(self.sizes):
            a, b = np.triu_indices(size, 1)
            at = self.start[:-1][self.sizes == size][:, None]
            first.append((at + a).ravel())
            second.append((at + b).ravel())
        return np.concatenate(first), np.concatenate(second)

    @cached_property
    def patterns(self) -> tuple[IntArray, list[FloatArray]]:
        """Which pattern of positions each subject has, and the patterns (up to a shift)."""
        known: dict[bytes, int] = {}
        found: list[FloatArray] = []
        index = np.empty(len(self.start) - 1, dtype=np.intp)
        for i, (a, b) in enumerate(zip(self.start[:-1], self.start[1:], strict=True)):
            own = self.position[a:b]
            key = own.tobytes()
            if key not in known:
                known[key] = len(found)
                found.append(own)
            index[i] = known[key]
        return index, found


@dataclass
class WorkingMoments(ABC):
    """A working correlation in the state of the current residuals: it starts as the identity.

    Attributes
    ----------
    rows : Rows
    n_fixed : int
        What the divisors of the exchangeable moments are reduced by: p, or 0.
    inside : bool
        Whether the current moments make a positive definite correlation matrix for every subject.
    raw : FloatArray or float
        The moments before they were pulled inside.
    """

    rows: Rows
    n_fixed: int
    inside: bool = True
    parameter: Any = 0.0
    raw: Any = 0.0
    _inverses: list[FloatArray] = field(default_factory=list)

    def update(self, residual: FloatArray) -> None:
        """Estimate the parameter from the residuals (N,), rows sorted by subject."""
        self.raw, reachable = self.moments(residual, float(residual @ residual) / len(residual))
        self.parameter = self.raw
        patterns = self._check_patterns()
        smallest = min((float(np.linalg.eigvalsh(self.matrix(p))[0]) for p in patterns), default=1.0)
        self.inside = reachable and smallest > SMALLEST
        if smallest <= SMALLEST:
            self.parameter = self.raw * (1.0 - (PULLED - smallest) / (1.0 - smallest))
        self._inverses = []

    @abstractmethod
    def moments(self, residual: FloatArray, mean_square: float) -> tuple[Any, bool]:
        """Estimate the parameter, and say whether the equation for it has a solution inside its range."""

    @abstractmethod
    def matrix(self, position: FloatArray) -> FloatArray:
        """Working correlation of rows at these positions."""

    def _check_patterns(self) -> list[FloatArray]:
        return self.rows.patterns[1]

    def subject_matrix(self, i: int) -> FloatArray:
        """Working correlation of the rows of subject i."""
        return self.matrix(self.rows.position[self.rows.start[i] : self.rows.start[i + 1]])

    def solve(self, i: int, values: FloatArray) -> FloatArray:
        """``R_i⁻¹ values`` for subject i."""
        index, patterns = self.rows.patterns
        if not self._inverses:
            self._inverses = [np.linalg.inv(self.matrix(p)) for p in patterns]
        return self._inverses[index[i]] @ values


class Independent(WorkingMoments):
    """The identity."""

    def moments(self, residual: FloatArray, mean_square: float) -> tuple[float, bool]:
        """Return 0: nothing to estimate."""
        return 0.0, True

    def _check_patterns(self) -> list[FloatArray]:
        return []

    def matrix(self, position: FloatArray) -> FloatArray:
        """Return the identity."""
        return np.eye(len(position))

    def solve(self, i: int, values: FloatArray) -> FloatArray:
        """Return the values, a copy."""
        return values.copy()


class ExchangeableMoments(WorkingMoments):
    """The same correlation between any two rows of a subject."""

    @property
    def n_pairs(self) -> int:
        """Pairs of rows of the same subject."""
        return int(np.sum(self.rows.sizes * (self.rows.sizes - 1)) // 2)

    def moments(self, residual: FloatArray, mean_square: float) -> tuple[Any, bool]:
        """Mean product of all pairs."""
        totals = np.add.reduceat(residual, self.rows.start[:-1])
        products = 0.5 * (float(totals @ totals) - float(residual @ residual))
        scale = mean_square * len(residual) / (len(residual) - self.n_fixed)
        return products / ((self.n_pairs - self.n_fixed) * scale), True

    def _check_patterns(self) -> list[FloatArray]:
        return [np.zeros(2), np.zeros(int(self.rows.sizes.max()))]  # the largest subject has the narrowest range

    def matrix(self, position: FloatArray) -> FloatArray:
        """α off the diagonal."""
        n = len(position)
        return np.full((n, n), self.parameter) + (1.0 - self.parameter) * np.eye(n)

    def solve(self, i: int, values: FloatArray) -> FloatArray:
        """Closed form: ``(v − α Σv / (1 + (n − 1) α)) / (1 − α)``."""
        a, n = self.parameter, int(self.rows.sizes[i])
        return (values - a / (1.0 + (n - 1) * a) * values.sum(axis=0)) / (1.0 - a)


@dataclass
class AutoregressiveMoments(WorkingMoments):
    """``α^lag``; a negative α where all lags are whole numbers."""

    neighbours_only: bool = False

    @cached_property
    def _lags(self) -> tuple[IntArray, IntArray, IntArray, FloatArray, bool]:
        first, second = self.rows.pairs
        lag = np.abs(self.rows.position[first] - self.rows.position[second])
        whole = bool(np.all(np.abs(lag - np.round(lag)) <= 1e-8 * np.maximum(lag, 1.0)))
        lag = np.round(lag) if whole else np.round(lag, 9)
        if self.neighbours_only:
            keep = lag == 1.0
            first, second, lag = first[keep], second[keep], lag[keep]
        distinct, code = np.unique(lag, return_inverse=True)
        return first, second, code.astype(np.intp), distinct, whole

    @property
    def n_pairs(self) -> int:
        """Pairs that the estimate uses."""
        return len(self._lags[0])

    def moments(self, residual: FloatArray, mean_square: float) -> tuple[Any, bool]:
        """Least squares of the products of pairs on ``α^lag``; the mean product if there is one lag only."""
        first, second, code, lag, whole = self._lags
        count = np.bincount(code).astype(float)
        mean = np.bincount(code, residual[first] * residual[second]) / count / mean_square
        if len(lag) == 1 and lag[0] == 1.0:
            value = float(mean[0])
            return (value, True) if abs(value) < 1.0 - SMALLEST else (float(np.sign(value)) * (1.0 - PULLED), False)
        return _power_fit(lag, mean, count, whole)

    def matrix(self, position: FloatArray) -> FloatArray:
        """``α^|t_j − t_k|``."""
        lag = np.abs(position[:, None] - position[None, :])
        if self.parameter < 0:
            lag = np.round(lag)  # whole by construction; a rounding error would make a negative number's power NaN
        return np.asarray(self.parameter**lag, dtype=float)


def _power_fit(lag: FloatArray, mean: FloatArray, count: FloatArray, whole: bool) -> tuple[float, bool]:
    """Minimise ``Σ count (mean − α^lag)²`` over −1 < α < 1 (0 ≤ α < 1 unless the lags are whole numbers)."""
    weight = count / count.sum()
    grid = np.linspace(-1.0 if whole else 0.0, 1.0, GRID)
    powers = grid[:, None] ** lag
    best = int(np.argmin((powers * (powers - 2.0 * mean)) @ weight))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]

    def slope(alpha: float) -> float:
        # Derivative in α; in log α (which is zero nowhere) for lags below one.
        return float(np.sum(weight * lag * alpha ** (lag - 1.0 if whole else lag) * (alpha**lag - mean)))

    if not whole and best == 0:
        return 0.0, True  # no positive correlation: the nearest that α^lag can come to a negative one
    low = low if whole else max(low, 1e-12)
    if slope(low) < 0.0 < slope(high):
        return float(brentq(slope, low, high, xtol=1e-15, rtol=1e-14)), True
    value = float(grid[best])
    return value, abs(value) < 1.0


class UnstructuredMoments(WorkingMoments):
    """A correlation of its own for every pair of positions (codes 0 to T − 1)."""

    @cached_property
    def _table(self) -> tuple[IntArray, IntArray, FloatArray]:
        subject = np.repeat(np.arange(len(self.rows.sizes)), self.rows.sizes)
        position = self.rows.position.astype(np.intp)
        present = np.zeros((len(self.rows.sizes), int(position.max()) + 1))
        present[subject, position] = 1.0
        return subject, position, present.T @ present

    @property
    def counts(self) -> FloatArray:
        """Subjects that have both positions, (T, T)."""
        return self._table[2]

    def moments(self, residual: FloatArray, mean_square: float) -> tuple[Any, bool]:
        """Mean product of every pair of positions, over the mean square of all residuals."""
        subject, position, counts = self._table
        table = np.zeros((len(self.rows.sizes), len(counts)))
        table[subject, position] = residual
        products = table.T @ table / counts / mean_square
        np.fill_diagonal(products, 0.0)
        return products, True

    def matrix(self, position: FloatArray) -> FloatArray:
        """Rows and columns of the matrix of all positions."""
        n = len(position)
        if np.ndim(self.parameter) == 0:
            return np.eye(n)
        code = position.astype(np.intp)
        return np.asarray(self.parameter)[np.ix_(code, code)] + np.eye(n)
