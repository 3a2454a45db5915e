"""Marginal means, contrasts or slopes with their intervals: one panel per family, one row per effect."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import segments
from hierlmm.drawing.theme import theme
from hierlmm.options import checked
from hierlmm.text import show


@checked
@pictured
def plot_effects(
    effects: Any,
    *,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the rows of `fit.marginal_means`, `fit.contrasts` or `fit.slopes` with their intervals.

    The numbers are those of ``effects.table``, corrected for multiplicity where the table is. Families (``by``) share
    one scale, so that they can be compared; contrasts and slopes have a line at zero.

    Parameters
    ----------
    effects : Effects
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.

    Returns
    -------
    Picture
        Visuals ``interval`` and ``point_estimate`` over ``family``.
    """
    table, labels = effects.table, effects.labels
    lines, points, ticks = {}, {}, {}
    for rows in effects.families:
        panel = ", ".join(f"{v} = {show(effects.keys[v].iloc[rows[0]])}" for v in effects.by) or effects.kind
        y = np.arange(len(rows), 0, -1, dtype=np.float64)
        part = table.iloc[rows]
        lines[panel] = segments(part["lower"].to_numpy(), part["upper"].to_numpy(), y)
        points[panel] = np.vstack([part["estimate"].to_numpy(dtype=np.float64), y])
        ticks[panel] = [labels[i] for i in rows]
    longest = max(len(own) for own in ticks.values())
    width = 0.075 * max(len(text) for own in ticks.values() for text in own)
    size = each(0.8, 2.6 + width, 1.0, 0.85 + 0.3 * longest, least=4.5, text=True)
    panels = Panels(points, "family", size, figure, col_wrap, name="effects", sharex=True)
    colour = theme().colour_of(effects.estimator)
    panels.map("line_xy", "interval", lines, color=colour, width=1.6)
    panels.map("scatter_xy", "point_estimate", points, color=colour, size=30)
    for panel, own in ticks.items():
        if effects.kind != "marginal means":
            panels.rule(panel, x=0.0, linestyle=panels.dashes)
        panels.name_rows(panel, range(len(own), 0, -1), own, room=0.6, most=len(own))
    return panels.finish(
        {panel: panel if effects.by else "" for panel in ticks},
        title=f"{effects.title}, {effects.intervals_text}",
        xlabel=effects.xlabel,
    )
