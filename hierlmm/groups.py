"""Rows in groups: which rows belong to each, where every row's group is a position in an index (n,)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import IntArray


def group_order(index: IntArray, within: NDArray[Any] | None = None) -> IntArray:
    """Rows sorted by group, (n,): in their own order, or in that of the values ``within``."""
    if within is not None:
        return np.lexsort((within, index))
    return np.arange(len(index)) if np.all(index[1:] >= index[:-1]) else np.argsort(index, kind="stable")


def group_starts(index: IntArray, n_groups: int) -> NDArray[np.int64]:
    """Where each group starts among the rows sorted by group, and where the last ends: (G + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=n_groups))]).astype(np.int64)


def rows_of_groups(index: IntArray, n_groups: int, within: NDArray[Any] | None = None) -> list[IntArray]:
    """Rows of each group, as `group_order` sorts them."""
    return np.split(group_order(index, within), group_starts(index, n_groups)[1:-1])


def first_rows(index: IntArray, n_groups: int) -> IntArray:
    """First row of each group, (G,)."""
    first = np.zeros(n_groups, dtype=np.intp)
    first[index[::-1]] = np.arange(len(index))[::-1]  # the last assignment, the first row, stays
    return first


def groups_above(fine: IntArray, coarse: IntArray, n_fine: int) -> IntArray | None:
    """The group of a coarser factor that each group of a finer one lies in, (n_fine,); None where it is not nested."""
    found = np.zeros(n_fine, dtype=np.int64)
    found[fine] = coarse
    return found if np.array_equal(found[fine], coarse) else None
