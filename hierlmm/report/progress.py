"""Progress on standard error: a spinner in a terminal, plain lines with the time elsewhere (log files, CI)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

HEARTBEAT = 15.0


class Progress:
    """Status lines, each headed by the seconds since the start.

    Parameters
    ----------
    quiet : bool
        Show notes only.
    stream : text stream, optional
        Standard error by default.
    stopped : threading.Event, optional
        Set when the user has interrupted: the step under way then ends in a KeyboardInterrupt, even if a library took
        the interrupt for a wish to stop early and returned what it had.
    """

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, stopped: threading.Event | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._stopped = stopped
        self._quiet = quiet
        self._start = time.perf_counter()
        self._console = None if quiet else _terminal(self._stream)

    @property
    def interactive(self) -> bool:
        """Whether something on the screen can move (a sampler may then draw its own bars)."""
        return self._console is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def line(self, text: str) -> None:
        """Print one status line."""
        if not self._quiet:
            self._print(f"{self._stamp()} {text}")

    def note(self, text: str) -> None:
        """Print something that must be known, quiet or not."""
        self._print(f"Note: {text}")

    @contextmanager
    def step(self, text: str, *, animate: bool = True) -> Iterator[None]:
        """Show that a step is under way until the block ends.

        Parameters
        ----------
        text : str
            What is being done.
        animate : bool
            False if the step draws on the terminal by itself.
        """
        with self._showing(text, animate):
            yield
        if self._stopped is not None and self._stopped.is_set():
            raise KeyboardInterrupt

    @contextmanager
    def _showing(self, text: str, animate: bool) -> Iterator[None]:
        if self._quiet:
            yield
        elif self._console is None:
            self.line(text)
            with self._heartbeat():
                yield
        elif animate:
            stamp = self._stamp()
            with self._console.status(f"{stamp} {text}"):
                yield
            self._print(f"{stamp} {text}")
        else:
            self.line(text)
            yield

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Say every now and then that a long step is still alive."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                self.line("... still at work on this")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _stamp(self) -> str:
        return f"[{self.elapsed:5.1f} s]"

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Write a time for a reader: ``0.3 s``, ``1 min 12 s``."""
    if seconds < 60:
        return f"{seconds:z.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _terminal(stream: TextIO) -> Any:
    """Return rich's console if the stream is a terminal in which something can be redrawn, else None."""
    if not stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=stream)
    return None if console.is_dumb_terminal else console
