"""Panels of a page of checks: points, the curve through them, the band of the model, the names of what stands out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.drawing.figure import Figure
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, crowd, evenly, whole_ticks
from hierlmm.drawing.theme import theme

MOST_NAMED, MOST_POINTS, APART, ROOM = 3, 2000, 0.12, 0.08
"""Points that are named, points that are drawn (evenly spaced ones, and all that stand out), room between
names and around all, as shares of the axes."""
MOST_COUNTED = 12
"""Range of whole numbers, such as lags, that are ticks as they are."""
CHARACTERS = 28
"""Characters of tick labels that have room beside each other."""


@dataclass(frozen=True, eq=False)
class CheckPanel:
    """What a check looked at.

    Attributes
    ----------
    title, xlabel : str
    points : (2, n)
    curve : (2, m)
        What was observed on the whole; empty without one.
    band : (2, m)
        Where the model expects it, at the places of the curve.
    marked : (k,)
        Points that stand out, the furthest first, and their ``names``.
    level, limit : float, optional
        Height of a grey line, and of a dashed one that the largest of all seldom passes.
    ticks : tuple of str
        Names of the places 0, 1, ... of a factor.
    diagonal : bool
        Whether points of a true model lie along y = x.
    """

    title: str
    xlabel: str
    points: FloatArray
    curve: FloatArray = field(default_factory=lambda: np.empty((2, 0)))
    band: FloatArray = field(default_factory=lambda: np.empty((2, 0)))
    marked: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    names: tuple[str, ...] = ()
    level: float | None = None
    limit: float | None = None
    ticks: tuple[str, ...] = ()
    diagonal: bool = False


def plot_check_panels(
    shown: Sequence[CheckPanel], title: str, caption: str, col_wrap: int | None, figure: Figure
) -> Any:
    """Draw panels side by side."""
    names = [str(k) for k in range(len(shown))]
    points = {name: _thinned(panel) for name, panel in zip(names, shown, strict=True)}
    panels = Panels(points, "check", each(0.5, 3.1, 0.9, 2.7), figure, col_wrap, name="checks")
    own, most = theme(), max(part.shape[1] for part in points.values())
    for name, panel in zip(names, shown, strict=True):
        if panel.level is not None:
            panels.rule(name, y=panel.level)
        if panel.limit is not None:
            panels.rule(name, y=panel.limit, linestyle=panels.dashes)
        if panel.diagonal:
            ends = panel.points[0][[0, -1]]
            panels.line(name, ends, ends, color=own.grey, width=1.0)
        if panel.band.size:
            panels.band(name, panel.curve[0], *panel.band, alpha=0.2, color=own.ink)
    panels.map("scatter_xy", "points", points, color=own.data, size=14, alpha=max(0.25, crowd(most)))
    marked = {name: panel.points[:, panel.marked] for name, panel in zip(names, shown, strict=True)}
    beyond = {name: part if part.size else NOTHING for name, part in marked.items()}
    panels.map("scatter_xy", "standing_out", beyond, color=own.palette[1], size=20, alpha=0.9)
    curves = {n: p.curve if p.curve.size and not p.diagonal else NOTHING for n, p in zip(names, shown, strict=True)}
    panels.map("line_xy", "curve", curves, color=own.palette[0], width=2.0)
    for name, panel in zip(names, shown, strict=True):
        _name_points(panels, name, panel)
        if panel.ticks:
            panels.draw.xticks(list(range(len(panel.ticks))), _short(panel.ticks), panels.target(name))
        elif np.all(panel.points[0] == np.round(panel.points[0])) and np.ptp(panel.points[0]) <= MOST_COUNTED:
            counts = whole_ticks(int(panel.points[0].min()), int(panel.points[0].max()), 5)  # no lag is 2.5
            panels.draw.xticks(counts, [str(v) for v in counts], panels.target(name))
        panels.limit(name, x=(-0.6, len(panel.ticks) - 0.4) if panel.ticks else _room(panel, 0), y=_room(panel, 1))
    return panels.finish(
        {name: panel.title for name, panel in zip(names, shown, strict=True)},
        title=title,
        caption=caption,
        xlabel={name: panel.xlabel for name, panel in zip(names, shown, strict=True)},
    )


def _short(levels: tuple[str, ...]) -> list[str]:
    """Names of levels side by side in a panel, on at most two lines each."""
    width = max(4, CHARACTERS // len(levels))
    lines = (textwrap.wrap(level, width, max_lines=2, placeholder=" …", break_long_words=False) for level in levels)
    return ["\n".join(x if len(x) <= width + 1 else f"{x[:width]}…" for x in own) for own in lines]


def _room(panel: CheckPanel, axis: int) -> tuple[float, float]:
    """Range of an axis, with room around all that is drawn."""
    seen = [panel.points[axis], panel.curve[axis]]
    if axis == 1:
        seen += [panel.band.ravel(), np.array([v for v in (panel.level, panel.limit) if v is not None])]
    values = np.concatenate(seen)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = ROOM * ((high - low) or 1.0)
    return low - room, high + room


def _thinned(panel: CheckPanel) -> FloatArray:
    """At most so many of the points, those that stand out apart."""
    others = np.setdiff1d(np.arange(panel.points.shape[1]), panel.marked)
    kept = panel.points[:, others[evenly(len(others), MOST_POINTS)]] if len(others) else NOTHING
    if panel.ticks:  # points of one level lie side by side
        kept = kept + np.vstack([np.random.default_rng(0).uniform(-0.2, 0.2, kept.shape[1]), np.zeros(kept.shape[1])])
    return kept


def _name_points(panels: Panels, name: str, panel: CheckPanel) -> None:
    """Write the names of the first points that stand out, where there is room."""
    x, y = panel.points
    width, height = np.ptp(x) or 1.0, np.ptp(y) or 1.0
    shown = list[tuple[float, float]]()
    for k, text in zip(panel.marked[: len(panel.names)], panel.names, strict=False):
        place = (x[k] - x.min()) / width, (y[k] - y.min()) / height
        if len(shown) < MOST_NAMED and all(abs(place[1] - b) > APART or abs(place[0] - a) > 0.45 for a, b in shown):
            shown.append(place)
            panels.name_point(name, x[k], y[k], text, left=place[0] > 0.5)
