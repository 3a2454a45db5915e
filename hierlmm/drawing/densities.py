"""Prior and posterior density of one number, and their heights at a hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.theme import theme


def draw_savage_dickey(found: Any, figure: Figure) -> Any:
    """Draw a `SavageDickey`; see its ``plot``."""
    curves, own = found.curves, theme()
    x = curves["value"].to_numpy()
    panel = found.hypothesis
    posterior = {panel: np.vstack([x, curves["posterior"]])}
    panels = Panels(posterior, "hypothesis", (6.4, 4.2), figure, name="density")
    colours = {"prior": own.grey, "posterior": own.colour_of("NUTS")}
    panels.map("line_xy", "posterior", posterior, color=colours["posterior"], width=1.8)
    panels.map("line_xy", "prior", {panel: np.vstack([x, curves["prior"]])}, color=colours["prior"], width=1.8)
    panels.rule(panel, x=found.value, linestyle=panels.dashes)
    for name, colour in colours.items():
        height = float(np.exp(found.table[f"log_{name}_density"].iloc[0]))
        panels.map("scatter_xy", f"{name}_height", {panel: np.array([[found.value], [height]])}, color=colour, size=45)
    entries = [Entry(name, colour, width=1.8) for name, colour in colours.items()]
    return panels.finish(
        {panel: ""},
        title=f"{panel}: log Bayes factor {found.log_bf:.2f}",
        caption="The factor of the hypothesis is the ratio of the two heights, posterior to prior",
        xlabel=panel.partition("=")[0].strip(),
        ylabel="density",
        legend=entries,
    )
