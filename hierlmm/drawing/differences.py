"""Differences of criteria from the best model: a panel for each criterion, a row for each model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import segments
from hierlmm.drawing.theme import theme

NAMES = {
    "loglik": "log-likelihood",
    "aic": "AIC",
    "aicc": "AICc",
    "bic": "BIC",
    "caic": "conditional AIC",
    "loo_subject": "elpd of a subject left out",
}


def plot_differences(table: pd.DataFrame, criteria: Sequence[str], models: Sequence[str], figure: Figure) -> object:
    """Draw ``difference`` ± ``se`` by ``criterion`` and ``model``; zero is the best model."""
    lines, points = {}, {}
    at = {model: float(y) for y, model in enumerate(reversed(models), 1)}
    for name in criteria:
        part = table[table["criterion"] == name]
        y, x = np.array([at[m] for m in part["model"]]), part["difference"].to_numpy(dtype=np.float64)
        se = part["se"].fillna(0.0).to_numpy(dtype=np.float64)
        panel = NAMES.get(name, name)
        points[panel], lines[panel] = np.vstack([x, y]), segments(x - se, x + se, y)
    width = 0.075 * max(len(m) for m in models)
    size = each(0.8 + width, 2.6, 1.0, 0.9 + 0.32 * len(models), least=4.0, text=True)
    panels = Panels(points, "criterion", size, figure, name="differences", sharey=True)
    colour = theme().palette[0]
    for panel in points:
        panels.rule(panel, x=0.0, linestyle=panels.dashes)
    panels.map("line_xy", "interval", lines, color=colour, width=1.6)
    panels.map("scatter_xy", "point_estimate", points, color=colour, size=30)
    for panel in points:
        panels.name_rows(panel, at.values(), at, room=0.6, most=len(at))
    return panels.finish(
        title="Differences from the best model",
        caption="0 is the best, to the right is worse; lines: one standard error of the difference over subjects",
        xlabel="difference",
    )


def plot_path(table: pd.DataFrame, title: str, figure: Figure) -> object:
    """Draw ``aic`` and ``bic`` of every model as differences from the lowest, the one ``chosen`` in another colour."""
    rows = table[["aic", "bic"]] - table[["aic", "bic"]].min()
    chosen = table["chosen"].to_numpy(dtype=bool)
    y = np.arange(len(table), 0, -1, dtype=np.float64)
    points = {NAMES[name]: np.vstack([rows[name].to_numpy(dtype=np.float64), y]) for name in ("aic", "bic")}
    width = 0.075 * max(len(str(m)) for m in table.index)
    size = each(0.8 + width, 2.8, 1.0, 0.9 + 0.32 * len(table), least=4.0, text=True)
    panels = Panels(points, "criterion", size, figure, name="differences", sharey=True)
    own = theme()
    colours = {"fitted": own.grey, "chosen": own.palette[0]}
    for panel in points:
        panels.rule(panel, x=0.0, linestyle=panels.dashes)
    for label, which in (("fitted", ~chosen), ("chosen", chosen)):
        panels.map("scatter_xy", label, {p: v[:, which] for p, v in points.items()}, color=colours[label], size=40)
    for panel in points:
        panels.name_rows(panel, y.tolist(), list(table.index), room=0.6, most=len(table))
        x = points[panel][0]
        for k in np.flatnonzero(np.isfinite(x)):  # beside one that is far off the others lie on each other
            panels.name_point(panel, x[k], y[k], f"{x[k]:.1f}", left=bool(x[k] > 0.5 * np.nanmax(x)))
    marks = [Entry(label, colour, line="", marker="circle", size=40) for label, colour in colours.items()]
    return panels.finish(title=title, xlabel="difference from the lowest", legend=marks)
