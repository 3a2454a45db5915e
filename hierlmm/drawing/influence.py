"""Which subjects a fit rests on: Cook's distance beside the move of the covariance parameters."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.style import NOTHING, crowd
from hierlmm.drawing.theme import theme
from hierlmm.options import checked

APART = (0.2, 0.08)
"""Shares of the axes by which names are apart."""
MIDDLE = 0.5


@checked
@pictured
def plot_influence(influence: Any, *, max_labels: int = 5, **figure: Unpack[Figure]) -> Any:
    """Draw an `Influence`; see its method ``plot``."""
    table = influence.table.dropna()
    moved = influence.theta == "updated" and table["theta"].max() > 0.0
    x = table["theta"].to_numpy() if moved else np.arange(1.0, len(table) + 1.0)
    y = table["cook"].to_numpy()
    panels = Panels({"": np.vstack([x, y])}, "panel", (6.4, 4.3), figure, name="influence")
    panels.map("scatter_xy", "points", {"": np.vstack([x, y])}, color=theme().data, size=22, alpha=crowd(len(x)))
    shown, named = list[tuple[float, float]](), list[int]()
    for k in np.argsort(y / y.max() + (x / x.max() if moved else 0.0))[::-1][:max_labels]:
        place = x[k] / x.max(), y[k] / y.max()
        if all(abs(place[0] - a) > APART[0] or abs(place[1] - b) > APART[1] for a, b in shown):
            shown.append(place)
            named.append(int(k))
            panels.name_point("", x[k], y[k], str(table.index[k]), left=place[0] > MIDDLE)
    far = np.vstack([x[named], y[named]]) if named else NOTHING
    panels.map("scatter_xy", "standing_out", {"": far}, color=theme().palette[1], size=24, alpha=0.9)
    first = table["cook"].idxmax()
    return panels.finish(
        {"": ""},
        title=f"The fit rests most on {influence.subject} {first} ({influence.estimator})",
        caption="Cook's distance: how far all coefficients move, squared, in their own uncertainty."
        + (" Covariance parameters held." if influence.theta == "fixed" else ""),
        xlabel=f"move of the covariance parameters (in {'SDs' if 'pareto_k' in table else 'SEs'})"
        if moved
        else f"{influence.subject}, in order",
        ylabel="Cook's distance",
    )
