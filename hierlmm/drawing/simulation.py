"""Plots of simulation studies: ranks and recovery of a calibration, power and precision of a planned study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.shapes import segments, stack_points
from hierlmm.drawing.style import GREY, PALETTE, wrap_title
from hierlmm.options import checked

__all__ = ["plot_power", "plot_ranks", "plot_recovery"]

FloatArray = NDArray[np.float64]
COVERED, MISSED = "interval holds the truth", "interval misses it"
POWER, WIDTH = "power", "interval width"
HIDDEN = ("suspicious_points", "p_value_text", "xlabel", "ylabel", "title")


@checked
def plot_ranks(
    positions: pd.DataFrame,
    band: tuple[FloatArray, FloatArray, FloatArray],
    ci: float,
    xlabel: str,
    backend: str | None,
    figure_kwargs: dict[str, Any] | None,
) -> Any:
    """Δ-ECDF of positions in (0, 1) by parameter, with a band: where it is, its lower and upper limit."""
    import xarray as xr
    from arviz_plots import plot_ecdf_pit

    names = [wrap_title(p) for p in positions.columns]
    data = xr.Dataset({"rank": (("dataset", "parameter"), positions.to_numpy())}, coords={"parameter": names})
    panels = Panels(data, "parameter", each(0.6, 3.0, 0.6, 2.5), backend, figure_kwargs, sharex=True, sharey=True)
    visuals: Any = {**dict.fromkeys(HIDDEN, False), "ecdf_lines": {"color": PALETTE[0]}}
    plot_ecdf_pit(
        xr.DataTree.from_dict({"prior_sbc": data}),
        sample_dims=["dataset"],
        envelope_prob=ci,
        plot_collection=panels.collection,
        visuals=visuals,
    )
    z, *limits = band
    x = np.concatenate([[0.0], z, [1.0]])
    bottom, top = (np.concatenate([[0.0], v - z, [0.0]]) for v in limits)
    panels.map("fill_between_y", "band", data, x=x, y_bottom=bottom, y_top=top, color=GREY, alpha=0.25)
    return panels.finish(dict(zip(names, names, strict=True)), xlabel=xlabel, ylabel="Δ ECDF")


@checked
def plot_recovery(
    calibration: Any, parameters: Sequence[str], backend: str | None, figure_kwargs: dict[str, Any] | None
) -> Any:
    """Estimates with 95 % intervals against the truth, and the line of perfect recovery."""
    n = len(calibration.truth)
    tables = (calibration.truth, calibration.estimate, calibration.lower, calibration.upper)
    points, lines = {}, {}
    for parameter in parameters:
        x, estimate, low, high = (table[parameter].to_numpy() for table in tables)
        missed = (x < low) | (x > high)
        for result, own in ((COVERED, ~missed), (MISSED, missed)):
            points[parameter, result] = np.vstack([x[own], estimate[own]])
            lines[parameter, result] = segments(low[own], high[own], x[own])[::-1]
    points_data, lines_data = (stack_points(part, ("parameter", "result"), "recovery") for part in (points, lines))
    colours = ("result", PALETTE[:2])
    panels = Panels(points_data, "parameter", each(0.6, 3.0, 1.2, 2.6), backend, figure_kwargs, color=colours)
    panels.map("line_xy", "interval", lines_data, width=0.8 if n <= 300 else 0.4, alpha=0.45)
    panels.map("scatter_xy", "estimate", points_data, size=9 if n <= 300 else 4)
    for parameter in parameters:
        ends = np.array([calibration.truth[parameter].min(), calibration.truth[parameter].max()])
        panels.draw.line(ends, ends, panels.target(parameter), color=GREY)
    what = "Posterior means" if calibration.estimator == "NUTS" else f"{calibration.estimator} estimates"
    title = f"{what} with 95 % intervals"
    return panels.finish(title=title, xlabel="true value", ylabel="estimate", legend="result")


@checked
def plot_power(analysis: Any, backend: str | None, figure_kwargs: dict[str, Any] | None) -> Any:
    """Power, and expected width of the interval, against the number of subjects, with Monte-Carlo bands."""
    coefs, table = list(analysis.coefs), analysis.table
    sizes = np.array(sorted(table.index.unique("n_subjects")), dtype=float)
    lines: dict[str, FloatArray] = {}
    bands = {}
    for coef in coefs:
        rows = table.xs(coef, level="coef").loc[sizes]
        power, width = f"{POWER}: {coef}", f"{WIDTH}: {coef}"
        lines |= {power: np.vstack([sizes, rows["power"]]), width: np.vstack([sizes, rows["width"]])}
        error = 1.96 * rows["width_mcse"]
        bands[power] = rows["power_lower"], rows["power_upper"]
        bands[width] = rows["width"] - error, rows["width"] + error
    panels = Panels(lines, "panel", each(8.0, 0.0, 0.6, 2.7), backend, figure_kwargs, 2, name="study")
    panels.map("line_xy", "mean", lines, color=PALETTE[0], width=1.5)
    panels.map("scatter_xy", "point", lines, color=PALETTE[0], size=20)
    for panel, (low, high) in bands.items():
        panels.band(panel, sizes, low, high, alpha=0.2)
        is_power = panel.startswith(f"{POWER}: ")
        if is_power:
            panels.rule(panel, y=0.8, linestyle=panels.dashes)
        panels.limit(panel, y=(-0.02, 1.02) if is_power else (0.0, 1.1 * float(np.max([low, high]))))
    title = f"{analysis.estimator}, {analysis.simulations} simulated studies for each size"
    return panels.finish(title=title, xlabel="number of subjects")
