"""A small picture as SVG text, drawn in a millisecond: lines, points, bands, cells, in the colours of `drawing.theme`.

Colours are classes (``c0`` ... ``c5`` of the palette, ``ink``, ``data``); the style sheet says what they are on light
and on dark paper.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 44


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two ends."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(k * unit for k in (1, 2, 5, 10) if k * unit >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def limits(*values: Any, room: float = 0.05) -> tuple[float, float]:
    """Ends of an axis that holds all finite values."""
    every = np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    extra = room * (high - low) or 0.5
    return low - extra, high + extra


class Chart:
    """A picture with two axes.

    Parameters
    ----------
    title : str
        Above the picture, and what a screen reader says of it.
    x, y : (float, float)
        Ends of the axes.
    xlabel, ylabel : str
    size : (int, int)
        Width and height in pixels of the drawing; it is scaled to the width of its place.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        xlabel: str = "",
        ylabel: str = "",
        size: tuple[int, int] = (460, 300),
    ) -> None:
        self.title, self.x, self.y, self.size = title, x, y, size
        self.xlabel, self.ylabel = xlabel, ylabel
        self.attributes = ""
        self._grid = True
        self._marks: list[str] = []
        self._legend: list[tuple[str, str]] = []
        self._ticks: tuple[Sequence[tuple[float, str]] | None, Sequence[tuple[float, str]] | None] = (None, None)

    def across(self, x: float) -> float:
        """Pixels from the left."""
        return LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.size[0] - LEFT - RIGHT)

    def down(self, y: float) -> float:
        """Pixels from the top."""
        return self.size[1] - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.size[1] - TOP - BOTTOM)

    def _points(self, x: Iterable[float], y: Iterable[float]) -> str:
        return " ".join(f"{self.across(a):.1f},{self.down(b):.1f}" for a, b in zip(x, y, strict=True))

    def line(self, x: Any, y: Any, kind: str = "c0", label: str = "") -> None:
        """A line; ``kind`` names a colour, and ``thin``, ``bold`` or ``dashed``."""
        self._marks.append(f'<polyline class="line {kind}" points="{self._points(x, y)}"/>')
        self._named(kind, label)

    def _named(self, kind: str, label: str) -> None:
        if label and (kind, label) not in self._legend:
            self._legend.append((kind, label))

    def dots(self, x: Any, y: Any, kind: str = "data", label: str = "", radius: float = 3.5) -> None:
        """Points."""
        self._marks += [
            f'<circle class="dot {kind}" cx="{self.across(a):.1f}" cy="{self.down(b):.1f}" r="{radius}"/>'
            for a, b in zip(x, y, strict=True)
        ]
        self._named(f"dots {kind}", label)

    def handles(self, x: Any, y: Any, names: Sequence[str]) -> None:
        """Points that can be moved up and down, by pointer and by arrow keys."""
        low, high = self.y
        for k, (a, b, name) in enumerate(zip(x, y, names, strict=True)):
            said = f'role="slider" aria-orientation="vertical" aria-label="{html.escape(name)}" aria-valuenow="{b:.2f}"'
            said += f' aria-valuemin="{low:g}" aria-valuemax="{high:g}"'
            self._marks.append(
                f'<circle class="dot handle" tabindex="0" {said} data-k="{k}" '
                f'data-y="{b:.4f}" cx="{self.across(a):.1f}" cy="{self.down(b):.1f}" r="8"/>'
            )
        self.attributes = f' data-low="{low}" data-high="{high}" data-top="{TOP}" data-bottom="{self.size[1] - BOTTOM}"'

    def rule(self, y: float, kind: str = "rule") -> None:
        """A line across."""
        self.line(self.x, (y, y), kind)

    def cells(self, matrix: Any, top: float, form: str = "") -> None:
        """A matrix as coloured cells, its first row above: blue is positive, red negative."""
        n, self._grid = len(matrix), False
        wide, high = self.across(1) - self.across(0), self.down(0) - self.down(1)
        for (i, j), value in np.ndenumerate(matrix):
            x, y = self.across(j - 0.5), self.down(n - 1 - i + 0.5)
            weight = min(abs(float(value)) / (top or 1.0), 1.0)
            place = f'x="{x:.1f}" y="{y:.1f}" width="{wide + 0.3:.1f}" height="{high + 0.3:.1f}"'
            self._marks.append(f'<rect class="{"plus" if value >= 0 else "minus"}" {place} opacity="{weight:.3f}"/>')
            if form:
                kind = "strong" if weight > 0.6 else "weak"
                middle = f'x="{x + wide / 2:.1f}" y="{y + high / 2 + 4:.1f}"'
                self._marks.append(f'<text class="cell {kind}" {middle}>{format(float(value), form)}</text>')

    def tick(self, x: Sequence[tuple[float, str]] | None = None, y: Sequence[tuple[float, str]] | None = None) -> None:
        """Ticks in place of round numbers: position and text."""
        self._ticks = (x, y)

    def _axes(self) -> list[str]:
        across, down = self._ticks
        across = [(v, f"{v:g}") for v in ticks(*self.x)] if across is None else across
        down = [(v, f"{v:g}") for v in ticks(*self.y, most=5)] if down is None else down
        width, height = self.size
        low, right = height - BOTTOM, width - RIGHT
        found = [f'<path class="axis" d="M{LEFT} {TOP}V{low}H{right}"/>']
        for value, text in across:
            x = self.across(value)
            found.append(f'<path class="tick" d="M{x:.1f} {low}v4"/>')
            found.append(f'<text class="number" x="{x:.1f}" y="{low + 17}">{html.escape(text)}</text>')
        for value, text in down:
            y = self.down(value)
            if self._grid:
                found.append(f'<path class="grid" d="M{LEFT - 4} {y:.1f}H{right}"/>')
            found.append(f'<text class="number end" x="{LEFT - 7}" y="{y + 4:.1f}">{html.escape(text)}</text>')
        middle = (TOP + low) / 2
        found.append(
            f'<text class="label" x="{(LEFT + right) / 2:.0f}" y="{height - 8}">{html.escape(self.xlabel)}</text>'
        )
        turned = f'transform="translate(13 {middle:.0f}) rotate(-90)"'
        found.append(f'<text class="label" {turned}>{html.escape(self.ylabel)}</text>')
        return found

    def svg(self) -> str:
        """The picture in a figure, with its legend as text below."""
        width, height = self.size
        title = html.escape(self.title)
        keys = "".join(
            f'<span class="key"><svg viewBox="0 0 26 12" width="26" height="12" aria-hidden="true">{_key(kind)}</svg> '
            f"{html.escape(label)}</span>"
            for kind, label in self._legend
        )
        legend = f'<figcaption class="keys">{keys}</figcaption>' if keys else ""
        role = "group" if self.attributes else "img"
        return (
            f'<figure class="chart"><svg viewBox="0 0 {width} {height}" role="{role}" aria-label="{title}"'
            f"{self.attributes}>"
            f'<text class="title" x="{LEFT}" y="18">{title}</text>{"".join(self._axes())}{"".join(self._marks)}</svg>'
            f"{legend}</figure>"
        )


def _key(kind: str) -> str:
    if kind.startswith("dots "):
        return f'<circle class="dot {kind.removeprefix("dots ")}" cx="13" cy="6" r="3.5"/>'
    return f'<path class="line {kind}" d="M1 6H25"/>'
