"""Plot of the two-step iteration: every parameter, and what the log-likelihood still lacks, by iteration."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.drawing.style import GREY, PALETTE, backend_module, canvas, finish, grid_shape, resolve_backend, wrap_title
from hierlmm.options import checked

__all__ = ["plot_gls_steps"]

LACK = "log10(last loglik − loglik)"


@checked
def plot_gls_steps(steps: Any, backend: str | None, figure_kwargs: dict[str, Any] | None) -> Any:
    """One panel for each parameter, with a line at its last value, and one for the log-likelihood."""
    import xarray as xr
    from arviz_plots import visuals

    name = resolve_backend(backend)
    trace = steps.trace
    parameters = [c for c in trace.columns if c not in ("loglik", "change")]
    panels = [*parameters, LACK]
    lack = trace["loglik"].iloc[-1] - trace["loglik"].to_numpy()
    # What is lacking falls to rounding; below that there is nothing to see.
    floor = 1e-12 * max(1.0, abs(float(trace["loglik"].iloc[-1])))
    with np.errstate(divide="ignore"):
        lack = np.where(lack > floor, np.log10(np.maximum(lack, floor)), np.nan)
    paths = trace[parameters].to_numpy().T
    last = paths[:, -1:]
    # A coefficient that does not move would fill its panel with rounding errors.
    paths = np.where(np.ptp(paths, axis=1, keepdims=True) <= 1e-9 * np.abs(last), last, paths)
    values = np.vstack([paths, lack])
    steps_axis = np.broadcast_to(trace.index.to_numpy(dtype=float), values.shape)
    data = xr.Dataset(
        {"trace": (("parameter", "plot_axis", "point"), np.stack([steps_axis, values], axis=1))},
        coords={"parameter": panels, "plot_axis": ["x", "y"]},
    )
    rows, columns = grid_shape(len(panels))
    collection = canvas(
        data,
        "parameter",
        backend=name,
        size=(0.6 + 2.8 * columns, 0.8 + 2.1 * rows),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
    )
    draw = backend_module(name)
    ends = np.array([0.0, float(max(steps.iterations, 1))])
    for parameter in parameters:
        level = np.full(2, float(trace[parameter].iloc[-1]))
        draw.line(ends, level, collection.get_target("trace", {"parameter": parameter}), color=GREY)
    collection.map(visuals.line_xy, "line", data=data, color=PALETTE[0])
    if steps.iterations <= 40:
        collection.map(visuals.scatter_xy, "step", data=data, size=14, color=PALETTE[0])
    kind = "REML" if steps.reml else "ML"
    return finish(
        collection,
        "parameter",
        {p: wrap_title(p) for p in panels},
        title=f"{steps.design.hierarchy.response}: two-step iteration to the {kind} fit",
        xlabel="iteration",
    )
