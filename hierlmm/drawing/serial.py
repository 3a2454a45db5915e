"""Semivariogram or autocorrelation of residuals, with the curve and the bands of the fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.drawing.style import GREY, PALETTE, backend_module, canvas, finish, percent, resolve_backend, stack_points
from hierlmm.options import checked

__all__ = ["plot_serial"]

LINES = {"subject": "the subjects' own lines", "population": "the population line"}


@checked
def plot_serial(check: Any, *, backend: str | None, figure_kwargs: Mapping[str, Any] | None) -> Any:
    """Draw a `Semivariogram` or `Autocorrelation`; see their ``plot``."""
    from arviz_plots import visuals

    name = resolve_backend(backend)
    table = check.table
    x = table["lag"].to_numpy(dtype=np.float64)
    panel = check.column
    points = np.vstack([x, table[check.column]])
    outside = points[:, table["outside"].to_numpy(dtype=bool)]
    inside = points[:, ~table["outside"].to_numpy(dtype=bool)]
    collection = canvas(
        stack_points({panel: points}, "statistic", "serial"),
        "statistic",
        backend=name,
        size=(7.2, 4.4),
        col_wrap=1,
        figure_kwargs=figure_kwargs,
    )
    draw = backend_module(name)
    target = collection.get_target("serial", {"statistic": panel})
    if len(x) > 1:
        for low, high, alpha in (("lower_all", "upper_all", 0.13), ("lower", "upper", 0.25)):
            draw.fill_between_y(x, table[low].to_numpy(), table[high].to_numpy(), target, color=PALETTE[0], alpha=alpha)
    dashed = draw.get_default_aes("linestyle", 2)[1]
    if panel == "semivariance":
        draw.hline(check.expected_mean_square, target, color=GREY, linestyle=dashed, width=1.2)
    else:
        draw.hline(0.0, target, color=GREY, width=1.0)
    curve = np.vstack([x, table["expected"]])
    collection.map(
        visuals.line_xy, "expected", data=stack_points({panel: curve}, "statistic", "serial"), color=PALETTE[0], width=2
    )
    for label, part, color in (("observed", inside, "#202020"), ("standing_out", outside, PALETTE[1])):
        shown = part if part.shape[1] else np.full((2, 1), np.nan)
        data = stack_points({panel: shown}, "statistic", "serial")
        collection.map(visuals.scatter_xy, label, data=data, color=color, size=45)
    bands = f"its {percent(check.ci)} bands"
    if check.column == "semivariance" and not check.refit:
        bands += " at the level of the data"
    dash = "\ndashed: mean square of the residuals that it expects" if panel == "semivariance" else ""
    if len(x) <= 10:
        draw.xticks(x.tolist(), [f"{v:.3g}" for v in x], target)
    which = f"{check.estimator}, {check.correlation}"
    return finish(
        collection,
        "statistic",
        {panel: f"points: data; curve: fitted model, with {bands}{dash}"},
        title=f"{check.name} of {check.kind} residuals around {LINES[check.level]} ({which})",
        xlabel=f"lag ({check.time})",
        ylabel=panel,
    )
