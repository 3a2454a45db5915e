"""How often every count, or every category, was observed, beside how often it was replicated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.drawing.figure import Figure
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent, segments
from hierlmm.drawing.theme import theme

BARS = 30
"""Most bars of a rootogram; of more counts several share one."""
TICKS = 6
"""Most numbers along the axis of counts."""
HALF = 0.4
"""Half the width of a bar, in widths of its class."""


class Look(NamedTuple):
    """Title, panels in a row, and the arguments that all plots share."""

    title: str
    col_wrap: int | None
    figure: Figure


def draw_rootogram(
    groups: Mapping[str, IntArray], observed: FloatArray, replicated: FloatArray, ci: float, look: Look, name: str
) -> Any:
    """Bars of the square roots of the frequencies in the data, hanging from those expected (Tukey's rootogram).

    Parameters
    ----------
    groups : mapping
        Rows of each panel, by its name.
    observed : (N,)
    replicated : (S, N)
    ci : float
        Probability of the interval around zero, class by class.
    look : Look
    name : str
        The response.
    """
    classes = _classes(observed, replicated)
    bars, outlines, curves, areas = {}, {}, {}, {}
    for panel, rows in groups.items():
        found = np.sqrt(_frequencies(classes, observed[None, rows])[0])
        each_set = _frequencies(classes, replicated[:, rows])
        top = np.sqrt(each_set.mean(axis=0))
        low, high = np.quantile(np.sqrt(each_set), [(1 - ci) / 2, (1 + ci) / 2], axis=0)
        bars[panel] = classes.bars(top - found, top)
        outlines[panel] = classes.outlines(top - found, top)
        curves[panel] = np.vstack([classes.centre, top])
        areas[panel] = classes.steps(top - high, top - low)
    panels = Panels(curves, "panel", each(0.8, 3.4, 1.2, 2.5, 5.0), look.figure, look.col_wrap, name="rootogram")
    color, ink = theme().colour_of("NUTS"), theme().ink
    for panel in groups:
        panels.band(panel, *areas[panel], alpha=0.25, color=color)
        panels.band(panel, *bars[panel], alpha=0.25, color=ink)
        panels.rule(panel, y=0.0)
    panels.map("line_xy", "observed", outlines, color=ink, width=0.8)
    panels.map("line_xy", "expected", curves, color=color, width=1.5)
    panels.map("scatter_xy", "points", curves, color=color, size=16)
    step = max(1, -(-len(classes.centre) // TICKS))
    marked = classes.centre[::step]
    for panel in groups:  # whole numbers
        panels.draw.xticks(marked, [f"{v:g}" for v in classes.edges[:-1:step]], panels.target(panel))
    said = f"Bars: data, hanging from what is expected. Area: where {percent(ci)} of bars end under the model."
    if classes.beyond:
        said += " Last bar: with all beyond."
    return panels.finish(title=look.title, caption=said, xlabel=name, ylabel="square root of the frequency")


class _Classes(NamedTuple):
    """Lowest count of each class, and one more; whether counts beyond are in the last."""

    edges: FloatArray
    beyond: bool

    @property
    def width(self) -> float:
        return float(self.edges[1] - self.edges[0])

    @property
    def centre(self) -> FloatArray:
        return self.edges[:-1] + 0.5 * (self.width - 1.0)

    def _sides(self, half: float) -> tuple[FloatArray, FloatArray]:
        return self.centre - half * self.width, self.centre + half * self.width

    def bars(self, low: FloatArray, top: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x, lower and upper end of bars with nothing between them, for an area."""
        left, right = self._sides(HALF)
        x, upper = np.stack([left, left, right, right], axis=1).ravel(), np.repeat(top, 4)
        return x, np.stack([top, low, low, top], axis=1).ravel(), upper

    def outlines(self, low: FloatArray, top: FloatArray) -> FloatArray:
        """The same as lines, (2, n), with gaps."""
        left, right = self._sides(HALF)
        gap = np.full(len(top), np.nan)
        x = np.stack([left, left, right, right, left, gap], axis=1).ravel()
        return np.vstack([x, np.stack([top, low, low, top, top, gap], axis=1).ravel()])

    def steps(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x, lower and upper end of an area without gaps."""
        left, right = self._sides(0.5)
        return np.stack([left, right], axis=1).ravel(), np.repeat(low, 2), np.repeat(high, 2)


def _classes(observed: FloatArray, replicated: FloatArray) -> _Classes:
    largest = float(observed.max())  # a long tail of the model must not leave the data in one bar
    last = max(largest, min(1.5 * largest + 3.0, float(np.quantile(replicated, 0.995))))
    width = np.ceil((last + 1.0) / BARS)
    edges = np.arange(0.0, last + 1.0 + width, width)
    return _Classes(edges, bool(replicated.max() >= edges[-1]))


def _frequencies(classes: _Classes, y: FloatArray) -> FloatArray:
    """Rows of data sets (n, N) in each class: (n, K)."""
    K = len(classes.edges) - 1
    place = np.minimum(np.floor(y / classes.width).astype(np.int64), K - 1)
    return np.apply_along_axis(np.bincount, 1, place, minlength=K)


def draw_bars(
    groups: Mapping[str, IntArray],
    categories: Sequence[str],
    observed: FloatArray,
    replicated: FloatArray,
    ci: float,
    look: Look,
    said: str = "Bars: data. Intervals of 50 and {ci} of the replications, around their mean.",
) -> Any:
    """Shares of categories 0, 1, ... in the data as bars, in replications as intervals; as `draw_rootogram`."""
    at = -np.arange(len(categories), dtype=np.float64)
    tails = [(1 - ci) / 2, 0.25, 0.75, (1 + ci) / 2]
    bars, outer, inner, means = {}, {}, {}, {}
    for panel, rows in groups.items():
        bars[panel] = np.array([np.mean(observed[rows] == k) for k in range(len(at))])
        shares = np.stack([np.mean(replicated[:, rows] == k, axis=1) for k in range(len(at))], axis=1)
        low, q1, q3, high = np.quantile(shares, tails, axis=0)
        outer[panel], inner[panel] = segments(low, high, at), segments(q1, q3, at)
        means[panel] = np.vstack([shares.mean(axis=0), at])
    size = each(1.0, 3.1, 1.1, 1.0 + 0.3 * len(at), 4.6)
    panels = Panels(means, "panel", size, look.figure, look.col_wrap, name="bars", sharex=True)
    color, ink = theme().colour_of("NUTS"), theme().ink
    for panel, share in bars.items():
        for row, end in zip(at, share, strict=True):
            panels.band(panel, np.array([0.0, end]), [row - HALF] * 2, [row + HALF] * 2, alpha=0.3, color=ink)
    ends = {panel: segments(at - HALF, at + HALF, share)[::-1] for panel, share in bars.items()}
    panels.map("line_xy", "observed", ends, color=ink, width=2)
    panels.map("line_xy", "interval", outer, color=color, width=1.2)
    panels.map("line_xy", "inner", inner, color=color, width=4.0, alpha=0.6)
    panels.map("scatter_xy", "replications", means, color=color, size=16)
    for panel in groups:
        panels.name_rows(panel, at, categories)
    return panels.finish(title=look.title, caption=said.format(ci=percent(ci)), xlabel="share of the rows")


def category_names(design: Design) -> list[str]:
    """Labels of the categories of an ordinal response, or of failure and success."""
    known = design.outcome.categories(design.hierarchy.response, design.frame)
    name = unquoted(design.hierarchy.response)
    if known or name not in design.frame.columns:
        return list(map(str, known)) or ["0", "1"]
    labels = [design.frame[name][design.y == k] for k in (0, 1)]
    short = [str(own.iloc[0]) if len(own) else str(k) for k, own in enumerate(labels)]
    return ["0", "1"] if short in (["0.0", "1.0"], ["0", "1"]) else short
