"""A picture of matplotlib as SVG inside a page: a name for readers who listen, no address, no id used twice."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from hierlmm.text import count

MOST_MARKS, MANY = 3000, 300
"""Where a picture has more marks than the first, those that come as more than the second at once are an image in it."""
DPI = 150
# Letters as outlines: alike everywhere, and no font is needed.
LOOK: Any = {"svg.fonttype": "path", "svg.hashsalt": "hierlmm"}


def inline_svg(picture: Any, heading: str, number: int) -> str:
    """Write a picture as an ``<svg>`` for the middle of a page.

    Parameters
    ----------
    picture : Picture
        Of matplotlib.
    heading : str
        What the page calls it.
    number : int
        Its number on the page, in front of every id.
    """
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D

    figure = picture.get_viz("figure")
    marks = {artist: _marks(artist) for artist in figure.findobj(lambda a: isinstance(a, (Collection, Line2D)))}
    for artist in marks if sum(marks.values()) > MOST_MARKS else ():
        artist.set_rasterized(marks[artist] > MANY)
    file = io.StringIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(file, format="svg", dpi=DPI, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)
    width, height = 72 * figure.get_size_inches()
    panels = len([ax for ax in figure.axes if ax.get_visible()])
    said = [heading, f"picture of {count(panels, 'panel')}", picture.title, picture.caption]
    label = html.escape(". ".join(" ".join(str(text).split()) for text in said if text))
    body = _own_ids(file.getvalue().partition("<svg")[2].partition(">")[2], f"p{number}-")
    return f'<svg viewBox="0 0 {width:g} {height:g}" style="width:{width:g}pt" role="img" aria-label="{label}">{body}'


def _marks(artist: Any) -> int:
    offsets = artist.get_offsets() if hasattr(artist, "get_offsets") else ()
    paths = artist.get_paths() if hasattr(artist, "get_paths") else ()
    points = artist.get_xydata() if hasattr(artist, "get_xydata") else ()
    return max(len(offsets), sum(len(path.vertices) for path in paths), len(points))


def _own_ids(body: str, prefix: str) -> str:
    """Without comments and metadata; only ids that something refers to, with a prefix."""
    body = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|\n\s*", lambda m: " " if m[0][0] == "\n" else "", body, flags=re.S
    )
    body = body.replace("xlink:href", "href")
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), body)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", body)
