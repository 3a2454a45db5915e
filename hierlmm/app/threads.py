"""Work beside the server's own thread, so that one user's fit does not keep the others waiting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from shiny import reactive


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


def kept(task: Any) -> Any:
    """The last result of an extended task as a reactive value; None before the first.

    An output that waited for the task itself would be marked as being worked out, which the browser takes for an error
    when another change comes between.

    Parameters
    ----------
    task : shiny.reactive.ExtendedTask
    """
    last: Any = reactive.value(None)

    @reactive.effect
    def _keep() -> None:
        if task.status() == "success":
            last.set(task.result())

    return last
