"""The last strokes of a figure of matplotlib: legend, titles broken to their room, caption."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hierlmm.drawing.letters import break_artist, text_width, write_literally
from hierlmm.drawing.theme import SEE, Theme
from hierlmm.errors import SpecificationError

DOTS = 100.0 / 72.0
"""Dots of a screen for a point of a letter, where the backend counts in dots."""
HANDLE = 4.2
"""Room of a mark in the legend and of what is between two entries, in sizes of the letters."""
MARKERS: dict[str, dict[str, str]] = {
    "circle": {"matplotlib": "o"},
    "square": {"matplotlib": "s"},
    "diamond": {"matplotlib": "D", "bokeh": "square"},
}
DASHES = {"solid": "-", "dashed": "--"}


@dataclass(frozen=True)
class Entry:
    """A line of the legend: a text, and the mark as it is drawn."""

    label: str
    color: str
    line: str = "solid"
    """"solid", "dashed", or none if empty."""
    marker: str = ""
    """"circle", "square", "diamond", or none if empty."""
    hollow: bool = False
    width: float = 2.0
    size: float = 30.0
    alpha: float = 1.0
    style: Any = None
    """Style of the line as the backend spells it, in place of ``line``."""


def legend_matplotlib(panels: Any, entries: Sequence[Entry], *, on_axes: bool) -> None:
    """Add a legend below the panels, whose marks are those that are drawn."""
    from matplotlib.lines import Line2D

    own, scale = panels.theme, panels.theme.scale
    handles = [
        Line2D(
            [],
            [],
            color=e.color,
            alpha=e.alpha,
            linestyle=e.style or DASHES.get(e.line, "none"),  # type: ignore[arg-type]
            linewidth=e.width * scale,
            marker=MARKERS[e.marker]["matplotlib"] if e.marker else "none",
            markersize=e.size**0.5 * scale,
            markerfacecolor=own.paper if e.hollow else e.color,
        )
        for e in entries
    ]
    labels = [e.label for e in entries]
    if on_axes:
        ax = panels.figure["ax"]
        ax.legend(handles, labels, frameon=False)
        return
    figure = panels.collection.get_viz("figure")
    # Below the panels a legend never meets the title, whatever the shape of the figure.
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    first = figure.legend(handles, labels, ncols=1, **place)
    longest = max(text_width(text, text.get_text()) for text in first.get_texts())
    column = longest + HANDLE * own.size * figure.dpi / 72.0
    first.remove()
    columns = max(1, min(len(labels), int(figure.get_size_inches()[0] * figure.dpi / column)))
    figure.legend(handles, labels, ncols=columns, **place)


def finish_matplotlib(collection: Any, own: Theme, heading: str, caption: str, on_axes: bool) -> None:
    """Break the titles to the width of their axes, and the figure's to its own; write the caption below.

    A figure is laid out once for that: nobody knows the width of an axis before.
    """
    figure = collection.get_viz("figure")
    axes = list(np.ravel(collection.viz["plot"].to_numpy()))
    if heading:
        figure.suptitle(heading, color=own.ink)
    below = _caption(figure, axes, caption, own) if caption else None
    for part in axes if on_axes else [figure]:
        write_literally(part)
    if not on_axes:
        _break(figure, axes)
        if below is not None:
            _fit(figure, below, caption)
    else:
        for ax in axes:
            break_artist(ax.title, float(ax.get_window_extent().width))


def _break(figure: Any, axes: Sequence[Any]) -> None:
    whole = 0.97 * figure.get_size_inches()[0] * figure.dpi
    if figure._suptitle is not None:
        break_artist(figure._suptitle, whole)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            wide, high = figure.get_size_inches()
            received, reason = f"figsize=({wide:g}, {high:g})", "nothing is left beside the letters"
            remedy = "use a larger size, or smaller letters: hl.style(...)"
            raise SpecificationError(received, reason, remedy, SEE) from None
    changed = thin_numbers(axes) | turn_names(axes)
    for ax in axes:
        box = ax.get_window_extent()
        for text, room in ((ax.title, box.width), (ax.xaxis.label, box.width), (ax.yaxis.label, box.height)):
            changed |= break_artist(text, float(room))
    if changed:  # one layout more: the next drawing starts from where there is room for the new lines
        figure.draw_without_rendering()


def thin_numbers(axes: Sequence[Any]) -> bool:
    """Take fewer numbers where those below an axis would meet, in a figure that is laid out; whether any did."""
    from matplotlib.ticker import AutoLocator, MaxNLocator

    changed = False
    for ax in axes:
        boxes = _boxes_below(ax)
        if isinstance(ax.xaxis.get_major_locator(), AutoLocator) and _meet(boxes):
            widest = max(box.width for box in boxes)
            bins = max(1, int(ax.get_window_extent().width / (widest + 0.8 * boxes[0].height)))
            ax.xaxis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
            for own in ax.get_shared_x_axes().get_siblings(ax):
                own.xaxis.reset_ticks()  # else the old ones stay, undrawn
            changed = True
    return changed


def turn_names(axes: Sequence[Any]) -> bool:
    """Turn the names below an axis where they would meet, and leave some out where turned ones would, or numbers."""
    from matplotlib.ticker import FixedLocator

    changed = False
    for ax in axes:
        boxes = _boxes_below(ax)
        if isinstance(ax.xaxis.get_major_locator(), FixedLocator) and _meet(boxes):
            ticks, names = ax.get_xticks(), [text.get_text() for text in ax.get_xticklabels()]
            numbers = all(re.fullmatch(r"[-−]?[\d.]*", name) for name in names)
            letters = boxes[0].height
            needed = max(box.width for box in boxes) + 0.4 * letters if numbers else 1.1 * letters
            apart = min(right.x0 + right.x1 - left.x0 - left.x1 for left, right in pairwise(boxes)) / 2.0
            step = max(1, int(np.ceil(needed / max(apart, 1e-6))))
            for own in ax.get_shared_x_axes().get_siblings(ax):
                own.set_xticks(ticks[::step], names[::step])
                own.tick_params(axis="x", labelrotation=0 if numbers else 90)
            changed = True
    return changed


def _boxes_below(ax: Any) -> list[Any]:
    """Boxes of the texts at the ticks of the lower axis, from left to right."""
    low, high = sorted(ax.xaxis.get_view_interval())
    labels = [tick.label1 for tick in ax.xaxis.majorTicks if low <= tick.get_loc() <= high]
    boxes = [label.get_window_extent() for label in labels if label.get_visible() and label.get_text()]
    return sorted(boxes, key=lambda box: box.x0)


def _meet(boxes: Sequence[Any]) -> bool:
    return any(right.x0 - left.x1 < 0.4 * boxes[0].height for left, right in pairwise(boxes))


def _fit(figure: Any, text: Any, caption: str) -> None:
    """Break a caption anew where its panel is not in the middle of the figure, and it would be cut."""
    box, width = text.get_window_extent(), figure.get_size_inches()[0] * figure.dpi
    if box.x0 < 0.0 or box.x1 > width:
        centre = 0.5 * (box.x0 + box.x1)
        text.set_text(caption)
        break_artist(text, 1.9 * min(centre, width - centre))
        figure.draw_without_rendering()


def _caption(figure: Any, axes: Sequence[Any], caption: str, own: Theme) -> Any:
    """Small grey lines below a single panel, or below all; a part of the layout, so that nothing meets them."""
    small, room = 0.85 * own.size, 0.95 * figure.get_size_inches()[0] * figure.dpi
    look: dict[str, Any] = {"fontsize": small, "color": own.mix(0.65), "ha": "center", "va": "top"}
    if len(axes) == 1:
        below = axes[0].xaxis.label
        text = axes[0].annotate(
            caption, (0.5, 0.0), xycoords=below, xytext=(0, -0.5 * own.size), textcoords="offset points", **look
        )
        room *= 0.88
    elif figure.legends:  # both at the edge of the figure would lie on each other
        figure.legends[0].set_title(caption, prop={"size": small})
        text = figure.legends[0].get_title()
        text.set(color=look["color"], ha="center", multialignment="center")
    else:
        text = figure.supxlabel(caption, fontsize=small, color=look["color"])
    break_artist(text, room)
    return text
