"""Work on a range, split over threads: compiled functions release Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

THREADS = 2


def in_threads[T](size: int, work: Callable[[int, int], T]) -> list[T]:
    """What ``work(lo, hi)`` returns for the pieces lo:hi of ``range(size)``, one piece for each thread."""
    bounds = [int(bound) for bound in np.linspace(0, size, THREADS + 1)]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))
