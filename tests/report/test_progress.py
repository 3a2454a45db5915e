"""Lines of progress and durations."""

from __future__ import annotations

import time
from io import StringIO

import pytest

from hierlmm.report.progress import Progress, duration


def test_progress_lines_outside_a_terminal(monkeypatch):
    monkeypatch.setattr("hierlmm.report.progress.HEARTBEAT", 0.02)
    stream = StringIO()
    progress = Progress(stream=stream)
    with progress.step("Sampling"):
        time.sleep(0.2)
    progress.note("look")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("s] Sampling")
    assert "still at work" in lines[1]
    assert lines[-1] == "Note: look"
    assert not progress.interactive


def test_progress_in_a_terminal(monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(stream=stream)
    assert progress.interactive
    with progress.step("Reading [the] data"):
        pass
    with progress.step("Sampling", animate=False):
        pass
    assert "Reading [the] data" in stream.getvalue()
    assert "Sampling" in stream.getvalue()
    assert not Progress(stream=stream, quiet=True).interactive


@pytest.mark.parametrize(("seconds", "text"), [(0.26, "0.3 s"), (59.94, "59.9 s"), (72.4, "1 min 12 s")])
def test_durations(seconds, text):
    assert duration(seconds) == text
