"""A word while something slow happens that has no progress bar of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMPILING = "Compiling the likelihood for the first time on this machine (some seconds); later runs start at once."

PACKAGE = (str(Path(__file__).parent),)
"""For ``warnings.warn(..., skip_file_prefixes=PACKAGE)``: a warning points to the user's own line."""


def interactive() -> bool:
    """Whether somebody is watching: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def notice_if_slow(message: str = COMPILING, after: float = 1.5) -> Iterator[None]:
    """Write a message to standard error if the block takes longer than ``after`` seconds and somebody is watching."""
    if not interactive():
        yield
        return
    timer = threading.Timer(after, lambda: print(message, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
