"""Pictures of results: a calibration, a planned study, the two-step iteration, what residuals have in common.

``figure`` is the backend and the options of the figure, as `hierlmm.drawing.panels.Panels` takes them; whoever asks has
checked them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import GREY, INK, NOTHING, PALETTE, percent, segments, stack_points, wrap_title

COVERED, MISSED = "interval holds the truth", "interval misses it"
POWER, WIDTH = "power", "interval width"
HIDDEN = ("suspicious_points", "p_value_text", "xlabel", "ylabel", "title")


def plot_ecdf(
    positions: pd.DataFrame, band: tuple[FloatArray, FloatArray, FloatArray], ci: float, xlabel: str, *figure: Any
) -> Any:
    """Δ-ECDF of positions in (0, 1) by parameter, with a band: where it is, its lower and upper limit."""
    import xarray as xr
    from arviz_plots import plot_ecdf_pit

    names = [wrap_title(p) for p in positions.columns]
    data = xr.Dataset({"rank": (("dataset", "parameter"), positions.to_numpy())}, coords={"parameter": names})
    panels = Panels(data, "parameter", each(0.6, 3.0, 0.6, 2.5), *figure, sharex=True, sharey=True)
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


def plot_recovery(calibration: Any, parameters: Sequence[str], *figure: Any) -> Any:
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
    panels = Panels(points_data, "parameter", each(0.6, 3.0, 1.2, 2.6), *figure, color=colours)
    panels.map("line_xy", "interval", lines_data, width=0.8 if n <= 300 else 0.4, alpha=0.45)
    panels.map("scatter_xy", "estimate", points_data, size=9 if n <= 300 else 4)
    for parameter in parameters:
        ends = np.array([calibration.truth[parameter].min(), calibration.truth[parameter].max()])
        panels.draw.line(ends, ends, panels.target(parameter), color=GREY)
    what = "Posterior means" if calibration.estimator == "NUTS" else f"{calibration.estimator} estimates"
    title = f"{what} with 95 % intervals"
    return panels.finish(title=title, xlabel="true value", ylabel="estimate", legend="result")


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


LACK = "log10(last loglik − loglik)"


def plot_gls_steps(steps: Any, *figure: Any) -> Any:
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
    panels = Panels(lines, "parameter", each(0.6, 2.8, 0.8, 2.1), *figure, name="trace")
    ends = np.array([0.0, float(max(steps.iterations, 1))])
    for parameter in parameters:
        panels.draw.line(ends, np.full(2, float(trace[parameter].iloc[-1])), panels.target(parameter), color=GREY)
    panels.map("line_xy", "line", lines, color=PALETTE[0])
    if steps.iterations <= 40:
        panels.map("scatter_xy", "step", lines, size=14, color=PALETTE[0])
    kind = "REML" if steps.reml else "ML"
    title = f"{steps.design.hierarchy.response}: two-step iteration to the {kind} fit"
    return panels.finish(title=title, xlabel="iteration")


LINES = {"subject": "the subjects' own lines", "population": "the population line"}


def plot_serial(check: Any, *figure: Any) -> Any:
    """Draw a `Semivariogram` or `Autocorrelation`; see their ``plot``."""
    table, panel = check.table, check.column
    x = table["lag"].to_numpy(dtype=np.float64)
    points = np.vstack([x, table[panel]])
    outside = table["outside"].to_numpy(dtype=bool)
    panels = Panels({panel: points}, "statistic", (7.2, 4.4), *figure, name="serial")
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
