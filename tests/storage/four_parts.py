"""A refusal says what was received, why not, what to do and where to read."""

import pytest


def refused(call, kind, *words):
    with pytest.raises(kind) as caught:
        call()
    for part in ("Received:", "Why not:", "To do:", "Read:", *words):
        assert part in str(caught.value), (part, str(caught.value))
