"""Plots of simulation studies: ranks and recovery of a calibration, power and precision of a planned study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.drawing.style import GREY, PALETTE, backend_module, canvas, finish, grid_shape, resolve_backend, wrap_title
from hierlmm.options import checked

__all__ = ["plot_power", "plot_ranks", "plot_recovery"]

FloatArray = NDArray[np.float64]
COVERED, MISSED = "interval holds the truth", "interval misses it"
POWER, WIDTH = "power", "interval width"


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
    from arviz_plots import plot_ecdf_pit, visuals

    name = resolve_backend(backend)
    names = [wrap_title(p) for p in positions.columns]
    data = xr.Dataset({"rank": (("dataset", "parameter"), positions.to_numpy())}, coords={"parameter": names})
    rows, columns = grid_shape(len(names))
    collection = canvas(
        data,
        "parameter",
        backend=name,
        size=(0.6 + 3.0 * columns, 0.6 + 2.5 * rows),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        sharex=True,
        sharey=True,
    )
    plot_ecdf_pit(
        xr.DataTree.from_dict({"prior_sbc": data}),
        sample_dims=["dataset"],
        envelope_prob=ci,
        plot_collection=collection,
        visuals={
            "suspicious_points": False,
            "p_value_text": False,
            "xlabel": False,
            "ylabel": False,
            "title": False,
            "ecdf_lines": {"color": PALETTE[0]},
        },
    )
    z, *limits = band
    x = np.concatenate([[0.0], z, [1.0]])
    bottom, top = (np.concatenate([[0.0], v - z, [0.0]]) for v in limits)
    collection.map(visuals.fill_between_y, "band", data=data, x=x, y_bottom=bottom, y_top=top, color=GREY, alpha=0.25)
    return finish(
        collection,
        "parameter",
        dict(zip(names, names, strict=True)),
        title=None,
        xlabel=xlabel,
        ylabel="Δ ECDF",
    )


@checked
def plot_recovery(
    calibration: Any, parameters: Sequence[str], backend: str | None, figure_kwargs: dict[str, Any] | None
) -> Any:
    """Estimates with 95 % intervals against the truth, and the line of perfect recovery."""
    import xarray as xr
    from arviz_plots import visuals

    name = resolve_backend(backend)
    n = len(calibration.truth)
    groups = [COVERED, MISSED]
    points = np.full((len(parameters), 2, 2, n), np.nan)
    lines = np.full((len(parameters), 2, 2, 3 * n), np.nan)
    for p, parameter in enumerate(parameters):
        x, estimate, low, high = (
            table[parameter].to_numpy()
            for table in (calibration.truth, calibration.estimate, calibration.lower, calibration.upper)
        )
        missed = (x < low) | (x > high)
        for g, member in enumerate((~missed, missed)):
            count = int(member.sum())
            points[p, g, :, :count] = x[member], estimate[member]
            lines[p, g, 0, : 3 * count] = np.repeat(x[member], 3)
            lines[p, g, 1, : 3 * count] = np.column_stack([low[member], high[member], np.full(count, np.nan)]).ravel()
    coords = {"parameter": list(parameters), "result": groups, "plot_axis": ["x", "y"]}
    dims = ("parameter", "result", "plot_axis", "point")
    points_data = xr.Dataset({"recovery": (dims, points)}, coords=coords)
    rows, columns = grid_shape(len(parameters))
    collection = canvas(
        points_data,
        "parameter",
        backend=name,
        size=(0.6 + 3.0 * columns, 1.2 + 2.6 * rows),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        aes={"color": ["result"]},
        color=[PALETTE[0], PALETTE[1]],
    )
    width = 0.8 if n <= 300 else 0.4
    collection.map(
        visuals.line_xy,
        "interval",
        data=xr.Dataset({"recovery": (dims, lines)}, coords=coords),
        width=width,
        alpha=0.45,
    )
    collection.map(visuals.scatter_xy, "estimate", data=points_data, size=9 if n <= 300 else 4)
    draw = backend_module(name)
    for parameter in parameters:
        ends = np.array([calibration.truth[parameter].min(), calibration.truth[parameter].max()])
        draw.line(ends, ends, collection.get_target("recovery", {"parameter": parameter}), color=GREY)
    what = "Posterior means" if calibration.estimator == "NUTS" else f"{calibration.estimator} estimates"
    return finish(
        collection,
        "parameter",
        {p: wrap_title(p) for p in parameters},
        title=f"{what} with 95 % intervals",
        xlabel="true value",
        ylabel="estimate",
        legend="result",
    )


@checked
def plot_power(analysis: Any, backend: str | None, figure_kwargs: dict[str, Any] | None) -> Any:
    """Power, and expected width of the interval, against the number of subjects, with Monte-Carlo bands."""
    import xarray as xr
    from arviz_plots import visuals

    name = resolve_backend(backend)
    coefs, table = list(analysis.coefs), analysis.table
    panels = [f"{what}: {coef}" for coef in coefs for what in (POWER, WIDTH)]
    sizes = np.array(sorted(table.index.unique("n_subjects")), dtype=float)
    lines = np.empty((len(panels), 2, len(sizes)))
    bands = np.empty((len(panels), 2, len(sizes)))
    for c, coef in enumerate(coefs):
        rows = table.xs(coef, level="coef").loc[sizes]
        lines[2 * c] = sizes, rows["power"]
        bands[2 * c] = rows["power_lower"], rows["power_upper"]
        lines[2 * c + 1] = sizes, rows["width"]
        bands[2 * c + 1] = rows["width"] - 1.96 * rows["width_mcse"], rows["width"] + 1.96 * rows["width_mcse"]
    coords = {"panel": panels, "plot_axis": ["x", "y"]}
    data = xr.Dataset({"study": (("panel", "plot_axis", "point"), lines)}, coords=coords)
    collection = canvas(
        data,
        "panel",
        backend=name,
        size=(8.0, 0.6 + 2.7 * len(coefs)),
        col_wrap=2,
        figure_kwargs=figure_kwargs,
    )
    collection.map(visuals.line_xy, "mean", data=data, color=PALETTE[0], width=1.5)
    collection.map(visuals.scatter_xy, "point", data=data, color=PALETTE[0], size=20)
    draw = backend_module(name)
    for k, panel in enumerate(panels):
        target = collection.get_target("study", {"panel": panel})
        draw.fill_between_y(sizes, bands[k, 0], bands[k, 1], target, color=PALETTE[0], alpha=0.2)
        if k % 2 == 0:
            draw.hline(0.8, target, color=GREY, linestyle=draw.get_default_aes("linestyle", 2)[1], width=1)
            draw.ylim((-0.02, 1.02), target)
        else:
            draw.ylim((0.0, 1.1 * float(bands[k].max())), target)
    return finish(
        collection,
        "panel",
        {panel: wrap_title(panel) for panel in panels},
        title=f"{analysis.estimator}, {analysis.simulations} simulated studies for each size",
        xlabel="number of subjects",
    )
