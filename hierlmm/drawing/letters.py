"""Texts broken to the room that they have."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

LETTER = 0.54
"""Width of a letter, on average, in sizes of the letters: where nothing can be measured."""


def break_text(text: str, room: float, width: Any) -> str:
    """Break lines after spaces, commas and colons, but not before %, so that none is wider than the room.

    A word that is wider is broken within: before brackets and after underlines.

    Parameters
    ----------
    text : str
        Breaks in it are kept.
    room : float
        Width of the room.
    width : callable
        Width of a text in one line, in the same unit.
    """
    lines: list[str] = []
    for given in text.split("\n"):
        lines.append("")
        words = re.split(r"(?<=[:, ])(?!%)", given)
        long = [re.split(r"(?=[\[(])|(?<=_)", word) if width(word.strip()) > room else [word] for word in words]
        for piece in (piece for pieces in long for piece in pieces):
            if lines[-1] and width((lines[-1] + piece).strip()) > room:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def break_by_letters(text: str, room: float, size: float) -> str:
    """Break lines by the number of letters of this size."""
    return break_text(text, room, lambda line: LETTER * size * len(line))


def break_artist(artist: Any, room: float) -> bool:
    """Break a text of matplotlib to a width in dots; return whether it has changed."""
    given = artist.get_text()
    broken = break_text(given, room, lambda line: text_width(artist, line)) if given else given
    artist.set_text(broken)
    return bool(broken != given)


def text_width(artist: Any, line: str) -> float:
    """Width in dots of a line in the letters of an artist of matplotlib."""
    dpi = artist.get_figure(root=True).dpi
    width, _, _ = _measure(float(dpi)).get_text_width_height_descent(line, artist.get_fontproperties(), False)
    return float(width)


def write_literally(part: Any) -> None:
    """Write texts as they are: two dollar signs in names of columns or subjects enclose no formula.

    Only the numbers at ticks keep their powers of ten.
    """
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    numbers: set[Text] = set()
    for axis in part.findobj(Axis):
        if isinstance(axis.get_major_formatter(), (ScalarFormatter, LogFormatter)):
            ticks = (*axis.majorTicks, *axis.minorTicks)  # as they are: asked for labels, an axis writes them too early
            numbers.update([label for tick in ticks for label in (tick.label1, tick.label2)], [axis.get_offset_text()])
    for text in part.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)


@cache
def _measure(dpi: float) -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, dpi)
