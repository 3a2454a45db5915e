"""A word while something slow happens, and a line that says how far it is."""

from __future__ import annotations

import html
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPILING = "Compiling the likelihood for the first time on this machine (some seconds); later runs start at once."

PACKAGE = (str(Path(__file__).parent),)
"""For ``warnings.warn(..., skip_file_prefixes=PACKAGE)``: a warning points to the user's own line."""
RATE = 0.1
"""Seconds between two looks at a progress bar."""
BAR = 24
"""Letters of a progress bar."""


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


def elapsed_text(share: float, seconds: float) -> str:
    """Seconds so far and, where enough is done to say it, those that are left: ``6 s, about 6 s left``."""
    left = f", about {seconds * (1.0 - share) / share:.0f} s left" if 0.05 < share < 1.0 else ""
    return f"{seconds:.0f} s{left}"


class ProgressLine:
    """One line that says how far something is, and disappears when it is done; in a terminal or a notebook.

    A context manager. `show` may be called from another thread, also when it is all over.
    """

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), False
        self._length = 0
        self._handle: Any = None

    def __enter__(self) -> ProgressLine:
        self._open = True
        return self

    def show(self, text: str) -> None:
        """Write the line anew."""
        with self._lock:
            if self._open:
                self._write(text)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open = False
            if self._handle is not None or self._length:
                self._write("")

    def _write(self, text: str) -> None:
        if "ipykernel" in sys.modules and not sys.stderr.isatty():
            self._display(f"<small>{html.escape(text)}</small>" if text else "")
            return
        # A line that is broken by the terminal could not be written over.
        text = text[: shutil.get_terminal_size().columns - 1]
        end = "\r" if not text else ""
        print(f"\r{text:<{self._length}}{end}", end="", file=sys.stderr, flush=True)
        self._length = len(text)

    def _display(self, markup: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(markup), display_id=True)
        else:
            self._handle.update(HTML(markup))


@contextmanager
def counted(n: int, label: str, show: bool) -> Iterator[Callable[[], None]]:
    """A bar of n steps; what is yielded is called after each."""
    if not show:
        yield lambda: None
        return
    start, done, shown = time.perf_counter(), 0, -RATE
    with ProgressLine() as line:

        def advance() -> None:
            nonlocal done, shown
            done += 1
            seconds = time.perf_counter() - start
            if seconds - shown >= RATE:
                shown, filled = seconds, BAR * done // n
                bar = f"[{'#' * filled}{'.' * (BAR - filled)}]"
                line.show(f"{label} {bar} {done} of {n}, {elapsed_text(done / n, seconds)}")

        yield advance
