"""What ArviZ's none backend was told to draw."""

from __future__ import annotations

import numpy as np


def drawn(collection, visual, name, **where):
    """Data of one visual of the none backend."""
    return collection.get_viz(visual, name, where)


def calls(collection, name, function, **where):
    """What was called on one panel of the none backend."""
    return [c for c in collection.get_target(name, where) if c.get("function") == function]


def lines_of(visual):
    """Separate the lines of an artist with gaps."""
    x, y = np.asarray(visual["x"]), np.asarray(visual["y"])
    ends = np.flatnonzero(np.isnan(x))
    pieces = [(a[~np.isnan(a)], b[~np.isnan(b)]) for a, b in zip(np.split(x, ends), np.split(y, ends), strict=True)]
    return [piece for piece in pieces if len(piece[0])]


def title_of(collection):
    """The title of a drawn figure in one line."""
    return collection.get_viz("figure")._suptitle.get_text().replace("\n", " ")
