"""In which order groups are eliminated from a model with several grouping factors.

Groups of a factor share no rows, so that their block of ``Z'Z`` is block diagonal and stays so when they are eliminated
first. It stays so for the next factor too where the first is nested in it. Factors that are nested in each other form a
*chain*, the finest first, and are eliminated group by group; each group is coupled to the one group of every coarser
factor that it lies in. All other factors are the *rest*, one dense block at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.groups import groups_above


@dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor: the group of every row (N,), and the values of its random effects, rows last (q, N)."""

    index: IntArray
    n_groups: int
    Z: FloatArray

    @property
    def q(self) -> int:
        """Random effects of a group."""
        return len(self.Z)


@dataclass(frozen=True, eq=False)
class Forest:
    """The order of elimination.

    Random effects of all groups are numbered one after the other: those of the chain from its finest factor on, then
    those of the rest.

    Attributes
    ----------
    chain, rest : tuple of int
        Positions of the factors.
    q, J : (m,)
        Random effects a group, and groups, of the factors of the chain.
    first : (m + 1,)
        Number of the first random effect of each, and of the rest.
    width : (m,)
        Random effects of a group and of all that it lies in.
    above : (J_0 + ... + J_m, m)
        Of every group of the chain, level after level, the group that it lies in at each coarser level.
    start : (J_0 + 1,), column : (n,)
        Columns of the rest (from 0) that the rows of each group of the finest factor touch.
    place : (N, w)
        Where those of a row stand in ``column``.
    rest_column : (N, w)
        The columns of the rest that a row touches, w of them.
    n_rest : int
        Random effects of the rest, r.
    """

    chain: tuple[int, ...]
    rest: tuple[int, ...]
    q: IntArray
    J: IntArray
    first: IntArray
    width: IntArray
    above: IntArray
    start: IntArray
    column: IntArray
    place: IntArray
    rest_column: IntArray
    n_rest: int


def lies_in(fine: Factor, coarse: Factor) -> IntArray | None:
    """The group of a coarser factor that every group of a finer one lies in, (J,); None where it is not nested."""
    return groups_above(fine.index, coarse.index, fine.n_groups)


def _chain_from(factors: Sequence[Factor], first: int) -> list[int]:
    """Factors nested in each other, finest first, that begin with one of them."""
    chain = [first]
    for k in sorted(range(len(factors)), key=lambda k: -factors[k].n_groups):
        if k not in chain and lies_in(factors[chain[-1]], factors[k]) is not None:
            chain.append(k)
    return chain


def plant(factors: Sequence[Factor]) -> Forest:
    """Choose the chain that leaves the smallest rest, and say what touches what.

    Parameters
    ----------
    factors : sequence of Factor
        Of the same rows.
    """
    size = [f.n_groups * f.q for f in factors]
    chains = [_chain_from(factors, k) for k in range(len(factors))]
    chain = min(chains, key=lambda own: (sum(size) - sum(size[k] for k in own), -size[own[0]]))
    rest = [k for k in range(len(factors)) if k not in chain]
    q = np.array([factors[k].q for k in chain], dtype=np.int64)
    J = np.array([factors[k].n_groups for k in chain], dtype=np.int64)
    m = len(chain)
    above = np.zeros((int(J.sum()), m), dtype=np.int64)
    begin = np.concatenate([[0], np.cumsum(J)])
    for fine in range(m):
        for coarse in range(fine + 1, m):
            found = lies_in(factors[chain[fine]], factors[chain[coarse]])
            assert found is not None
            above[begin[fine] : begin[fine + 1], coarse] = found
    columns, at = [], 0
    for k in rest:
        own = factors[k]
        columns += [at + own.index * own.q + a for a in range(own.q)]
        at += own.n_groups * own.q
    leaf = factors[chain[0]]
    n = len(leaf.index)
    rest_column = np.array(columns, dtype=np.int64).reshape(len(columns), n).T.copy()
    pairs, place = np.unique(leaf.index[:, None] * max(at, 1) + rest_column, return_inverse=True)
    group = pairs // max(at, 1)
    start = np.searchsorted(group, np.arange(leaf.n_groups + 1))
    return Forest(
        tuple(chain),
        tuple(rest),
        q,
        J,
        np.concatenate([[0], np.cumsum(q * J)]).astype(np.int64),
        np.cumsum(q[::-1])[::-1].astype(np.int64),
        above,
        start.astype(np.int64),
        (pairs - group * max(at, 1)).astype(np.int64),
        place.reshape(rest_column.shape).astype(np.int64),
        rest_column,
        at,
    )
