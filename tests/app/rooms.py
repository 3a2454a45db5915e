"""What tests of the app share."""

from __future__ import annotations

import contextlib
import io


def run(code):
    """The names that the code of a room makes."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "the code for this picture", "exec"), names)
    return names
