"""Work beside the server's own thread, so that one user's fit does not keep the others waiting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


async def in_thread[T](work: Callable[..., T], *given: object) -> T:
    """What the work returns; in a browser's Python, which has no threads, it is done here.

    Parameters
    ----------
    work : callable
    *given
        Its arguments.
    """
    if sys.platform == "emscripten":
        return work(*given)
    return await asyncio.to_thread(work, *given)
