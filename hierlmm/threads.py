"""Work on a range, split over threads: compiled functions release Python's lock.

The pieces of a range do not depend on the number of threads, nor does the order of what they return: sums over them are
the same to the last digit on every machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PIECES = 2

_pools: dict[int, ThreadPoolExecutor] = {}
_own = threading.local()


def in_threads[T](size: int, work: Callable[[int, int], T]) -> list[T]:
    """What ``work(lo, hi)`` returns for the pieces lo:hi of ``range(size)``, of which there are two."""
    bounds = [int(bound) for bound in np.linspace(0, size, PIECES + 1)]
    return _spread(bounds, work)


def in_blocks[T](size: int, block: int, work: Callable[[int, int], T]) -> list[T]:
    """The same for pieces of ``block`` numbers, the last of what is left."""
    return _spread([*range(0, size, block), size], work)


def _spread[T](bounds: list[int], work: Callable[[int, int], T]) -> list[T]:
    """Results in order; here and now where one thread has to do it all, or this is a thread of the pool itself."""
    pieces = list(pairwise(bounds))
    if len(pieces) < 2 or THREADS < 2 or getattr(_own, "inside", False):
        return [work(lo, hi) for lo, hi in pieces]
    return list(_pool(THREADS).map(lambda piece: work(*piece), pieces))


def _pool(number: int) -> ThreadPoolExecutor:
    """Threads that wait for work: to make them takes longer than a small piece of it."""
    if number not in _pools:
        _pools[number] = ThreadPoolExecutor(number, initializer=lambda: setattr(_own, "inside", True))
    return _pools[number]


if hasattr(os, "register_at_fork"):  # a child process has none of the threads
    os.register_at_fork(after_in_child=_pools.clear)
