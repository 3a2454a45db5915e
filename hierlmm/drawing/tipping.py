"""The effect of a treatment against what is added to responses after drop-out."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.drawing.figure import Figure
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.style import percent
from hierlmm.drawing.theme import theme
from hierlmm.text import number, show


def draw_tipping(found: Any, figure: Figure) -> Any:
    """Draw a `TippingPoint`; see its ``plot``."""
    table = found.table.sort_index()
    x = table.index.to_numpy(dtype=np.float64)
    panel, own = found.response, theme()
    line = {panel: np.vstack([x, table["estimate"]])}
    panels = Panels(line, "response", (6.4, 4.2), figure, name="tipping")
    colour = own.colour_of("NUTS" if found.method == "draws" else "REML")
    panels.band(panel, x, table["lower"], table["upper"], alpha=0.25, color=colour)
    panels.map("line_xy", "estimate", line, color=colour, width=1.8)
    panels.rule(panel, y=0.0)
    tips = not np.isnan(found.tipping)
    if tips:
        panels.rule(panel, x=found.tipping, linestyle=panels.dashes)
    leaves = "leaves" if found.holds_zero else "reaches"
    stays = "holds zero everywhere" if found.holds_zero else "stays off zero"
    where = f"dashed: the interval {leaves} zero at {number(found.tipping)}" if tips else f"the interval {stays}"
    return panels.finish(
        {panel: ""},
        title=f"{found.arm} - {found.reference} at {show(found.visit)}, with {percent(found.ci)} interval",
        caption=where,
        xlabel=f"added to {found.response} after drop-out in {found.arm}",
        ylabel="difference",
    )
