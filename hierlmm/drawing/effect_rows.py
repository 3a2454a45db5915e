"""Marginal means, contrasts or slopes with their intervals: one panel per family, one row per effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.drawing.style import (
    GREY,
    PALETTE,
    backend_module,
    canvas,
    finish,
    grid_shape,
    resolve_backend,
    segments,
    stack_points,
    wrap_title,
)
from hierlmm.options import checked
from hierlmm.text import show

__all__ = ["plot_effects"]


@checked
def plot_effects(
    effects: Any,
    *,
    col_wrap: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw the rows of `fit.marginal_means`, `fit.contrasts` or `fit.slopes` with their intervals.

    The numbers are those of ``effects.table``, corrected for multiplicity where the table is. Families (``by``) share
    one scale, so that they can be compared; contrasts and slopes have a line at zero.

    Parameters
    ----------
    effects : Effects
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``interval`` and ``point_estimate`` over ``family``.
    """
    from arviz_plots import visuals

    name = resolve_backend(backend)
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
    n_rows, columns = grid_shape(len(ticks), col_wrap)
    collection = canvas(
        stack_points(points, "family", "effects"),
        "family",
        backend=name,
        size=(max(4.5, 0.8 + (2.6 + width) * columns), 1.0 + n_rows * (0.75 + 0.3 * longest)),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        sharex=True,
    )
    collection.map(
        visuals.line_xy, "interval", data=stack_points(lines, "family", "effects"), color=PALETTE[0], width=1.6
    )
    collection.map(
        visuals.scatter_xy, "point_estimate", data=stack_points(points, "family", "effects"), color=PALETTE[0], size=30
    )
    draw = backend_module(name)
    for panel, own in ticks.items():
        target = collection.get_target("effects", {"family": panel})
        if effects.kind != "marginal means":
            draw.vline(0.0, target, color=GREY, linestyle=draw.get_default_aes("linestyle", 2)[1], width=1)
        draw.yticks(list(range(len(own), 0, -1)), own, target)
        draw.ylim((0.4, len(own) + 0.6), target)
    return finish(
        collection,
        "family",
        {panel: wrap_title(panel) if effects.by else "" for panel in ticks},
        title=f"{effects.title}, {effects.intervals_text}",
        xlabel=effects.xlabel,
    )
