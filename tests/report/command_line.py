"""Commands that several files run, and a check of those that are refused."""

from __future__ import annotations

from hierlmm.cli import main

SIMPLE = "distance ~ time + (1 | subject)"
REML = ["--estimators", "reml", "--quiet"]


def refused(argv, capsys):
    """Run a command that must end in a four-part message; return the message."""
    assert main(argv) == 2
    message = capsys.readouterr().err
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in message
    assert "Traceback" not in message
    return message
