"""Rows by their groups of several factors, and where each factor stands: in Λ, and in the order of elimination."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.likelihood.forest import Factor, Forest, plant
from hierlmm.likelihood.forest_rows import lines_of_rows, products_of_rows, sums_of_rows


@dataclass(frozen=True, eq=False)
class Layout:
    """Factors in the order of the formula, and the order in which their groups are eliminated.

    Attributes
    ----------
    forest : Forest
    sizes, n_groups : tuple of int
        Random effects a group, and groups, of every factor in the order of the formula.
    """

    forest: Forest
    sizes: tuple[int, ...]
    n_groups: tuple[int, ...]

    @property
    def plan(self) -> tuple[IntArray, ...]:
        """What the compiled elimination asks of the forest."""
        f = self.forest
        return f.q, f.J, f.first, f.width, f.above, f.start, f.column

    @property
    def order(self) -> list[int]:
        """Positions in Λ of the random effects of the chain, finest factor first."""
        return [i for k in self.forest.chain for i in range(self.at[k], self.at[k + 1])]

    def of_chain(self, Lambda: FloatArray) -> FloatArray:
        """Λ of the factors of the chain, finest first."""
        return np.ascontiguousarray(Lambda[np.ix_(self.order, self.order)])

    @cached_property
    def at(self) -> tuple[int, ...]:
        """Position of the first random effect of each factor in Λ."""
        return tuple(int(k) for k in np.concatenate([[0], np.cumsum(self.sizes)]))

    def own(self, k: int) -> slice:
        """Positions of the random effects of factor k in Λ."""
        return slice(self.at[k], self.at[k + 1])

    def block(self, Lambda: FloatArray, k: int) -> FloatArray:
        """Λ of factor k."""
        return Lambda[self.own(k), self.own(k)]

    def root(self, D: FloatArray) -> FloatArray:
        """H with D = HH', both block diagonal."""
        found = np.zeros_like(D)
        for k in range(len(self.sizes)):
            found[self.own(k), self.own(k)] = covariance_root(self.block(D, k))
        return found

    def parts(self, values: FloatArray) -> list[tuple[int, FloatArray]]:
        """Rows of all random effects (T, P) by factor: pairs of a factor and its (J, q, P)."""
        f, found = self.forest, []
        for level, k in enumerate(f.chain):
            found.append((k, values[f.first[level] : f.first[level + 1]].reshape(-1, self.sizes[k], values.shape[1])))
        begin = int(f.first[-1])
        for k, (lo, hi) in zip(f.rest, self.rest_slices, strict=True):
            found.append((k, values[begin + lo : begin + hi].reshape(-1, self.sizes[k], values.shape[1])))
        return found

    @cached_property
    def rest_slices(self) -> list[tuple[int, int]]:
        """Columns of each factor of the rest."""
        ends = np.cumsum([0, *(self.n_groups[k] * self.sizes[k] for k in self.forest.rest)]).tolist()
        return list(itertools.pairwise(ends))

    def times(self, Lambda: FloatArray, values: FloatArray) -> FloatArray:
        """(I ⊗ Λ) of all groups times values (T, P)."""
        out = np.empty_like(values)
        for (k, part), (_, own) in zip(self.parts(values), self.parts(out), strict=True):
            own[:] = self.block(Lambda, k) @ part
        return out

    def collect(
        self, of_chain: FloatArray, spreads: FloatArray, of_rest: Sequence[tuple[int, FloatArray, FloatArray]]
    ) -> tuple[FloatArray, tuple[FloatArray, ...]]:
        """Σ_g Z_g'V⁻¹Z_g of all factors (q, q), and conditional covariances of the groups by factor (J, q, q).

        Parameters
        ----------
        of_chain, spreads
            As `forest_kernel.come_back` returns them.
        of_rest
            As `Rest.moments` returns them.
        """
        f, EE = self.forest, np.zeros((self.at[-1], self.at[-1]))
        own: list[FloatArray] = [np.empty(0)] * len(self.sizes)
        EE[np.ix_(self.order, self.order)] = of_chain
        for level, k in enumerate(f.chain):
            size = self.sizes[k]
            own[k] = spreads[f.first[level] : f.first[level + 1], :size].reshape(-1, size, size)
        for k, sums, spread in of_rest:
            EE[self.own(k), self.own(k)] = sums
            own[k] = spread
        return EE, tuple(own)


@dataclass(frozen=True, eq=False)
class GroupedRows(Layout):
    """Rows and their random-effects columns in the order of elimination.

    Attributes
    ----------
    Z : (Q, N), group : (m, N), zr : (N, w)
        Columns of the chain, groups of the chain, columns of the rest.
    """

    Z: FloatArray
    group: IntArray
    zr: FloatArray

    def products(self, right: FloatArray, weight: FloatArray) -> tuple[FloatArray, ...]:
        """Z'WZ and Z'right' as `forest_rows.products_of_rows` lays them out; right (P, N) is not weighted."""
        f = self.forest
        levels, ends = (f.q, f.J, f.first, f.width), (f.rest_column, f.place, len(f.column), f.n_rest)
        found: tuple[FloatArray, ...] = products_of_rows(self.Z, right, weight, self.group, *levels, self.zr, *ends)
        return found

    def lines(self, b: FloatArray) -> FloatArray:
        """Zb of the rows, (N,), of b (T,)."""
        found: FloatArray = lines_of_rows(*self._rows, b)
        return found

    def sums(self, v: FloatArray) -> FloatArray:
        """Z'v of all groups, (T, P), of v (P, N)."""
        found: FloatArray = sums_of_rows(*self._rows, v, self.forest.n_rest)
        return found

    @property
    def _rows(self) -> tuple[Any, ...]:
        f = self.forest
        return self.Z, self.group, f.q, f.first, self.zr, f.rest_column


def grouped_rows(factors: Sequence[Factor]) -> GroupedRows:
    """Rows of factors (of the same rows) in the best order of elimination."""
    forest = plant(factors)
    Z = np.concatenate([factors[k].Z for k in forest.chain])
    group = np.array([factors[k].index for k in forest.chain])
    zr = np.concatenate([np.empty((0, Z.shape[1])), *(factors[k].Z for k in forest.rest)]).T.copy()
    sizes, n_groups = tuple(f.q for f in factors), tuple(f.n_groups for f in factors)
    return GroupedRows(forest, sizes, n_groups, Z, group, zr)
