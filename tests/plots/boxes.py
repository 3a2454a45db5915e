"""What can be seen wrong in a figure of matplotlib: texts that meet or are cut, marks outside their axes."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.text import Text

ROOM = 1.5
"""Dots by which boxes may meet: they are a little larger than the letters."""


def texts(figure):
    """Box of every text that is seen, by its words."""
    figure.canvas.draw()
    hidden = {id(text) for axes in figure.axes for text in _beyond(axes)}
    found = []
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden:
            found.append((text.get_text(), text.get_window_extent()))
    return found


def _beyond(axes):
    """Labels of ticks beyond the limits of their axis, which are there and are not drawn; of both, if only one is."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * (high - low)
        for tick in (*axis.majorTicks, *axis.minorTicks):
            if not low - slack <= tick.get_loc() <= high + slack or not axes.get_visible():
                yield from (tick.label1, tick.label2)


def faults(figure):
    """What is wrong, in words."""
    found, page = texts(figure), figure.bbox
    wrong = [
        f"cut: {words!r}"
        for words, box in found
        if box.x0 < page.x0 - ROOM or box.x1 > page.x1 + ROOM or box.y0 < page.y0 - ROOM or box.y1 > page.y1 + ROOM
    ]
    for i, (words, box) in enumerate(found):
        for other, beside in found[i + 1 :]:
            width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            if width > ROOM and height > ROOM:
                wrong.append(f"overlap: {words!r} and {other!r}")
    return wrong + [mark for axes in figure.axes for mark in outside(axes)]


def outside(axes):
    """Marks of data that lie beyond the limits of the axes."""
    limits = np.sort([axes.get_xlim(), axes.get_ylim()], axis=1)
    slack = 1e-6 * np.ptp(limits, axis=1)
    marks = [line.get_xydata() for line in axes.lines if line.get_transform() == axes.transData]
    marks += [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)]
    wrong = []
    for points in marks:
        points = np.asarray(np.ma.filled(points, np.nan), dtype=float)
        points = points[np.isfinite(points).all(axis=1)]
        if np.any((points < limits[:, 0] - slack) | (points > limits[:, 1] + slack)):
            wrong.append(f"outside: {points[:3].tolist()}")
    return wrong
