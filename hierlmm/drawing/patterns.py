"""Patterns of missing visits: a row for each pattern, a column for each visit."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING
from hierlmm.drawing.theme import theme
from hierlmm.text import show


def draw_patterns(found: Any, most: int, figure: Figure) -> Any:
    """Draw `MissingPatterns`; see its ``plot``."""
    table = found.table.sort_values("subjects", ascending=False, kind="stable").head(most)
    visits = [show(v) for v in dict.fromkeys(found.visits.index.get_level_values(-1))]
    rows = np.arange(len(table), 0, -1, dtype=np.float64)
    seen = np.array([[letter == "x" for letter in word] for word in table["pattern"]])
    x, y = np.meshgrid(np.arange(len(visits), dtype=np.float64), rows)
    panel, own = found.response, theme()
    marks = {name: np.vstack([x[at], y[at]]) if at.any() else NOTHING for name, at in (("seen", seen), ("gone", ~seen))}
    size = each(1.2, 1.6 + 0.55 * len(visits), 1.0, 0.4 + 0.32 * len(table), least=4.6, text=True)
    panels = Panels({panel: marks["seen"]}, "pattern", size, figure, name="patterns")
    colours = {"seen": own.palette[0], "gone": own.grey}
    panels.map("scatter_xy", "measured", {panel: marks["seen"]}, color=colours["seen"], size=60)
    panels.map("scatter_xy", "missing", {panel: marks["gone"]}, color=colours["gone"], size=8)
    shares = [f"{n} ({100 * s:.0f} %)" for n, s in zip(table["subjects"], table["share"], strict=True)]
    panels.name_rows(panel, rows, shares, room=0.6, most=len(rows))
    panels.draw.xticks(list(range(len(visits))), visits, panels.target(panel))
    panels.limit(panel, x=(-0.5, len(visits) - 0.5))
    entries = [
        Entry("measured", colours["seen"], line="", marker="circle", size=60),
        Entry("missing", colours["gone"], line="", marker="circle", size=8),
    ]
    left = len(found.table) - len(table)
    return panels.finish(
        {panel: ""},
        title=f"{found.response}: patterns of {found.n_subjects} subjects",
        caption=f"{left} rarer patterns are not drawn" if left else "",
        xlabel=found.time,
        ylabel="subjects",
        legend=entries,
    )
