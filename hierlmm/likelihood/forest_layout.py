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
from hierlmm.likelihood.forest_rows import products_of_rows


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

    @cached_property
    def spans(self) -> list[tuple[int, int, int]]:
        """Factors in the order of elimination: which one, its first random effect, and the first of the next."""
        order = (*self.forest.chain, *self.forest.rest)
        ends = np.cumsum([0, *(self.n_groups[k] * self.sizes[k] for k in order)]).tolist()
        return [(k, *own) for k, own in zip(order, itertools.pairwise(ends), strict=True)]

    @property
    def rest_spans(self) -> list[tuple[int, int, int]]:
        """Those of the rest, counted from its first random effect."""
        end = self.forest.end
        return [(k, lo - end, hi - end) for k, lo, hi in self.spans[len(self.forest.chain) :]]

    @cached_property
    def dense(self) -> IntArray:
        """Of the random effects of the rest: first one of the group, where the factor begins in Λ, its q: (3, r)."""
        found = [
            (home, self.at[k], self.sizes[k])
            for k, lo, hi in self.rest_spans
            for home in range(lo, hi, self.sizes[k])
            for _ in range(self.sizes[k])
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3).T.copy()

    def parts(self, values: FloatArray) -> list[tuple[int, FloatArray]]:
        """Rows of all random effects (T, P) by factor: pairs of a factor and its (J, q, P)."""
        return [(k, values[lo:hi].reshape(-1, self.sizes[k], values.shape[1])) for k, lo, hi in self.spans]

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
        EE = np.zeros((self.at[-1], self.at[-1]))
        own: list[FloatArray] = [np.empty(0)] * len(self.sizes)
        EE[np.ix_(self.order, self.order)] = of_chain
        for k, lo, hi in self.spans[: len(self.forest.chain)]:
            size = self.sizes[k]
            own[k] = spreads[lo:hi, :size].reshape(-1, size, size)
        for k, sums, spread in of_rest:
            EE[self.own(k), self.own(k)] = sums
            own[k] = spread
        return EE, tuple(own)


@dataclass(frozen=True, eq=False)
class GroupedRows(Layout):
    """Rows and their random-effects columns in the order of elimination.

    Attributes
    ----------
    z : (N, n)
        Values of the random-effects columns that a row touches, ``forest.number`` says which.
    """

    z: FloatArray

    def products(self, weight: FloatArray) -> tuple[FloatArray, ...]:
        """Z'WZ as `forest_rows.products_of_rows` lays it out."""
        f = self.forest
        found: tuple[FloatArray, ...] = products_of_rows(self.z, f.number, f.place, weight, f.n_rest, f.plan)
        return found

    @cached_property
    def Z(self) -> Any:
        """All random-effects columns in the order of elimination, sparse: (N, T)."""
        from scipy.sparse import csr_array

        (N, n), number = self.z.shape, self.forest.number
        shape = N, self.spans[-1][-1]
        return csr_array((self.z.ravel(), number.ravel(), np.arange(0, N * n + 1, n)), shape=shape)

    @cached_property
    def Zt(self) -> Any:
        """Z' for many products: (T, N)."""
        return self.Z.T.tocsr()


def grouped_rows(factors: Sequence[Factor]) -> GroupedRows:
    """Rows of factors (of the same rows) in the best order of elimination."""
    forest = plant(factors)
    z = np.concatenate([factors[k].Z for k in (*forest.chain, *forest.rest)]).T.copy()
    return GroupedRows(forest, tuple(f.q for f in factors), tuple(f.n_groups for f in factors), z)
