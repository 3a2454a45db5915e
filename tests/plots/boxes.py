"""What can be seen wrong in a figure: texts that meet or are cut, marks outside their axes."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from hierlmm.drawing.interactive import bokeh_axes, panels_of, plotly_axes
from hierlmm.drawing.letters import LETTER

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


def faults_elsewhere(picture):
    """What is wrong in a figure of plotly or bokeh, as far as Python sees it: their letters are drawn elsewhere."""
    figure = picture.get_viz("figure")
    return _faults_plotly(figure) if picture.backend == "plotly" else _faults_bokeh(picture)


def _wide(text, size, room):
    return max(len(line) for line in text.replace("<br>", "\n").split("\n")) * LETTER * size > room + 2 * size


def _faults_plotly(figure):
    layout, wrong = figure.layout, []
    size, title = layout.font.size, layout.title.text or ""
    panels = [a for a in layout.annotations if a.yref != "paper"]
    rows = max((str(a.text).count("<br>") + 1 for a in panels), default=0)
    above = 1.2 * 1.15 * size * (title.count("<br>") + 1 if title else 0) + 1.1 * size * rows
    wrong += ["no room above"] if above > layout.margin.t else []
    wrong += [f"cut: {title!r}"] if title and _wide(title, 1.15 * size, layout.width) else []
    for a in layout.annotations:
        if a.yref == "paper":  # the caption
            lines = str(a.text).count("<br>") + 1
            wrong += ["no room below"] if -a.yshift + lines * a.font.size > layout.margin.b else []
            wrong += [f"cut: {a.text!r}"] if _wide(a.text, a.font.size, layout.width) else []
    for name, group in plotly_axes(figure).items():
        limits = figure.layout[group["names"][0]].range
        if limits is not None and not all(_inside(part, limits) for part in group["parts"]):
            wrong.append(f"outside along {name}")
        if figure.layout[group["names"][0]].type in ("category", "multicategory"):
            wrong.append(f"categories along {name}")
    wrong += ["lists in lists" for trace in figure.data if trace.x is not None and np.ndim(trace.x) > 1]
    return wrong


def _faults_bokeh(picture):
    plots = panels_of(picture)
    wrong = [
        f"outside along {letter}"
        for (letter, _), group in bokeh_axes(plots).items()
        if not all(_inside(part, (group["range"].start, group["range"].end)) for part in group["parts"])
    ]
    for plot in plots:
        size = float(plot.title.text_font_size.removesuffix("px"))
        wrong += [f"cut: {plot.title.text!r}"] if plot.title.text and _wide(plot.title.text, size, plot.width) else []
        for renderer in plot.renderers:
            data = renderer.data_source.data.values()
            wrong += ["lists in lists" for values in data if np.ndim(values) > 1]
    return wrong


def _inside(part, limits):
    low, high = sorted(limits)
    slack = 1e-6 * (high - low)
    return bool(np.all((part >= low - slack) & (part <= high + slack)))
