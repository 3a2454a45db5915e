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
from hierlmm.likelihood.forest_kernel import Plan


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
    plan : Plan
        What the compiled elimination asks of it.
    place : (N, w)
        Which ones the w columns of the rest that a row touches are among those of its finest group.
    number : (N, n)
        The random effects of every row: of its groups in the chain, then of those in the rest.
    n_rest : int
        Random effects of the rest, r.
    """

    chain: tuple[int, ...]
    rest: tuple[int, ...]
    plan: Plan
    place: IntArray
    number: IntArray
    n_rest: int

    @property
    def end(self) -> int:
        """Random effects of the chain, which is the number of the first of the rest."""
        return int(self.plan.first[-1])


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
    first, line = np.concatenate([[0], np.cumsum(q * J)]), np.concatenate([[0], np.cumsum(J)])
    width = np.cumsum(q[::-1])[::-1].copy()
    at, columns = 0, []
    for k in (*chain, *rest):
        own = factors[k]
        columns += [at + own.index * own.q + a for a in range(own.q)]
        at += own.n_groups * own.q
    leaf, number = factors[chain[0]].index, np.array(columns, dtype=np.int64).T.copy()
    pairs, place = np.unique(leaf[:, None] * at + number[:, width[0] :], return_inverse=True)
    touched, start = pairs // at, np.searchsorted(pairs, np.arange(J[0]) * at)
    reach, count = [], np.repeat(width - q + at - first[-1], J)
    count[: J[0]] = width[0] - q[0] + np.bincount(touched, minlength=J[0])
    for level, k in enumerate(chain):
        row = np.zeros(J[level], dtype=np.int64)
        row[factors[k].index] = np.arange(len(leaf))
        above = number[row, width[0] - width[level] + q[level] : width[0]]
        if level == 0:
            group = np.concatenate([np.repeat(np.arange(J[0]), above.shape[1]), touched])
            reach.append(np.concatenate([above.ravel(), pairs - touched * at])[np.argsort(group, kind="stable")])
        else:
            of_rest = np.broadcast_to(np.arange(first[-1], at), (J[level], at - first[-1]))
            reach.append(np.hstack([above, of_rest]).ravel())
    of_group = np.repeat(q, J)
    base, begin = (np.concatenate([[0], np.cumsum(own)]) for own in (of_group * (of_group + count), count))
    plan = Plan(q, J, first, width, line, base, begin, np.concatenate(reach))
    place = place.reshape(len(leaf), -1) - start[leaf][:, None]
    return Forest(tuple(chain), tuple(rest), plan, place, number, int(at - first[-1]))
