"""Plot of the two-step iteration: every parameter, and what the log-likelihood still lacks, by iteration."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import GREY, PALETTE
from hierlmm.options import checked

__all__ = ["plot_gls_steps"]

LACK = "log10(last loglik − loglik)"


@checked
def plot_gls_steps(steps: Any, backend: str | None, figure_kwargs: dict[str, Any] | None) -> Any:
    """One panel for each parameter, with a line at its last value, and one for the log-likelihood."""
    trace = steps.trace
    parameters = [c for c in trace.columns if c not in ("loglik", "change")]
    lack = trace["loglik"].iloc[-1] - trace["loglik"].to_numpy()
    # What is lacking falls to rounding; below that there is nothing to see.
    floor = 1e-12 * max(1.0, abs(float(trace["loglik"].iloc[-1])))
    with np.errstate(divide="ignore"):
        lack = np.where(lack > floor, np.log10(np.maximum(lack, floor)), np.nan)
    paths = trace[parameters].to_numpy().T
    last = paths[:, -1:]
    # A coefficient that does not move would fill its panel with rounding errors.
    paths = np.where(np.ptp(paths, axis=1, keepdims=True) <= 1e-9 * np.abs(last), last, paths)
    iteration = trace.index.to_numpy(dtype=float)
    lines = {name: np.vstack([iteration, y]) for name, y in zip([*parameters, LACK], [*paths, lack], strict=True)}
    panels = Panels(lines, "parameter", each(0.6, 2.8, 0.8, 2.1), backend, figure_kwargs, name="trace")
    ends = np.array([0.0, float(max(steps.iterations, 1))])
    for parameter in parameters:
        panels.draw.line(ends, np.full(2, float(trace[parameter].iloc[-1])), panels.target(parameter), color=GREY)
    panels.map("line_xy", "line", lines, color=PALETTE[0])
    if steps.iterations <= 40:
        panels.map("scatter_xy", "step", lines, size=14, color=PALETTE[0])
    kind = "REML" if steps.reml else "ML"
    title = f"{steps.design.hierarchy.response}: two-step iteration to the {kind} fit"
    return panels.finish(title=title, xlabel="iteration")
