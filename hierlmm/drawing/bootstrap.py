"""Pictures of bootstraps: histograms of draws with an estimate and an interval; of a likelihood ratio with its χ²."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent
from hierlmm.drawing.theme import theme

BINS = 40


def outline(values: FloatArray, bins: int = BINS) -> tuple[FloatArray, FloatArray]:
    """Upper edge of a histogram of unit area: x and y of its corners."""
    low, high = float(values.min()), float(values.max())
    room = 1e-9 * max(1.0, abs(low)) if high - low <= 0.0 else 0.0
    number = min(bins, max(5, len(values) // 5))
    count, edges = np.histogram(values, bins=number, range=(low - room, high + room))
    height = count / (len(values) * np.diff(edges))
    return np.repeat(edges, 2)[1:-1], np.repeat(height, 2)


def plot_bootstrap(found: Any, parameters: Sequence[str], ci: float, method: str, figure: Figure) -> Any:
    """A histogram for each parameter, with its estimate and the ends of its interval."""
    own, table = theme(), found.table(ci, method)
    corners = {name: outline(found.draws[name].dropna().to_numpy()) for name in parameters}
    panels = Panels(
        {name: np.vstack(xy) for name, xy in corners.items()},
        "parameter",
        each(0.6, 3.0, 0.9, 2.1),
        figure,
        name="draw",
    )
    colour = own.colour_of(found.estimator)
    for name, (x, y) in corners.items():
        panels.band(name, x, np.zeros(len(y)), y, alpha=0.3, color=colour)
        panels.line(name, x, y, color=colour, width=0.8)
        row = table.loc[name]
        panels.line(name, np.full(2, row["estimate"]), np.array([0.0, 1.05 * y.max()]), color=own.ink, width=1.4)
        for end in row[["lower", "upper"]]:
            if np.isfinite(end):
                panels.line(
                    name, np.full(2, end), np.array([0.0, 0.7 * y.max()]), color=own.ink, linestyle=panels.dashes
                )
        panels.limit(name, y=(-0.06 * float(y.max()), 1.1 * float(y.max())))
    marks = [Entry("estimate", own.ink, width=1.4)]
    marks.append(Entry(f"{percent(ci)} interval ({method})", own.ink, line="dashed", width=1.0))
    title = f"{found.kind.capitalize()} bootstrap, {found.estimator}, {len(found.draws)} data sets"
    return panels.finish(title=title, ylabel="density", legend=marks)


def plot_bootstrap_test(test: Any, figure: Figure) -> Any:
    """The simulated likelihood ratios, that of the data, and the density of χ²."""
    own, panel = theme(), "likelihood ratio"
    x, y = outline(test.draws)
    panels = Panels({panel: np.vstack([x, y])}, "statistic", (6.4, 3.6), figure, name="draw")
    colour = own.colour_of(test.estimator)
    panels.band(panel, x, np.zeros(len(y)), y, alpha=0.3, color=colour)
    panels.line(panel, x, y, color=colour, width=0.8)
    end = 1.05 * max(float(test.draws.max()), test.statistic)
    grid = np.linspace(0.02 * end, end, 300)
    density = chi2.pdf(grid, test.df)
    shown = density <= 1.2 * y.max()
    panels.line(panel, grid[shown], density[shown], color=own.grey, width=1.4)
    panels.line(panel, np.full(2, test.statistic), np.array([0.0, 0.9 * y.max()]), color=own.ink, width=1.6)
    panels.limit(panel, x=(0.0, end), y=(0.0, 1.25 * float(y.max())))
    marks = [Entry("simulated under the smaller model", colour), Entry("data", own.ink, width=1.6)]
    marks.append(Entry(f"χ² with {test.df} df", own.grey, width=1.4))
    title = f"Bootstrap of a likelihood ratio, p = {test.p:.4f}"
    return panels.finish({panel: ""}, title=title, xlabel="likelihood ratio", ylabel="density", legend=marks)
