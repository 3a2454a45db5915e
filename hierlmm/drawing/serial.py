"""Semivariogram or autocorrelation of residuals, with the curve and the bands of the fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.drawing.panels import Panels
from hierlmm.drawing.shapes import NOTHING
from hierlmm.drawing.style import INK, PALETTE, percent
from hierlmm.options import checked

__all__ = ["plot_serial"]

LINES = {"subject": "the subjects' own lines", "population": "the population line"}


@checked
def plot_serial(check: Any, *, backend: str | None, figure_kwargs: Mapping[str, Any] | None) -> Any:
    """Draw a `Semivariogram` or `Autocorrelation`; see their ``plot``."""
    table, panel = check.table, check.column
    x = table["lag"].to_numpy(dtype=np.float64)
    points = np.vstack([x, table[panel]])
    outside = table["outside"].to_numpy(dtype=bool)
    panels = Panels({panel: points}, "statistic", (7.2, 4.4), backend, figure_kwargs, name="serial")
    if len(x) > 1:
        for ending, alpha in (("_all", 0.13), ("", 0.25)):
            panels.band(panel, x, table[f"lower{ending}"], table[f"upper{ending}"], alpha=alpha)
    if panel == "semivariance":
        panels.rule(panel, y=check.expected_mean_square, linestyle=panels.dashes, width=1.2)
    else:
        panels.rule(panel, y=0.0)
    panels.map("line_xy", "expected", {panel: np.vstack([x, table["expected"]])}, color=PALETTE[0], width=2)
    for label, which, color in (("observed", ~outside, INK), ("standing_out", outside, PALETTE[1])):
        panels.map("scatter_xy", label, {panel: points[:, which] if which.any() else NOTHING}, color=color, size=45)
    level = " at the level of the data" if panel == "semivariance" and not check.refit else ""
    dash = "\ndashed: mean square of the residuals that it expects" if panel == "semivariance" else ""
    if len(x) <= 10:
        panels.draw.xticks(x.tolist(), [f"{v:.3g}" for v in x], panels.target(panel))
    which = f"{check.estimator}, {check.correlation}"
    return panels.finish(
        {panel: f"points: data; curve: fitted model, with its {percent(check.ci)} bands{level}{dash}"},
        title=f"{check.name} of {check.kind} residuals around {LINES[check.level]} ({which})",
        xlabel=f"lag ({check.time})",
        ylabel=panel,
    )
