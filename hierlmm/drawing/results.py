"""Pictures of results: a calibration, a planned study, the two-step iteration, what residuals have in common.

``figure`` has the arguments that all plots share, as `hierlmm.drawing.panels.Panels` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, percent, segments, stack_points, whole_ticks
from hierlmm.drawing.theme import theme

COVERED, MISSED = "interval holds the truth", "interval misses it"
POWER, WIDTH = "power", "interval width"
HIDDEN = ("suspicious_points", "p_value_text", "xlabel", "ylabel", "title")


def plot_ecdf(
    positions: pd.DataFrame, band: tuple[FloatArray, FloatArray, FloatArray], ci: float, xlabel: str, figure: Figure
) -> Any:
    """Δ-ECDF of positions in (0, 1) by parameter, with a band: where it is, its lower and upper limit."""
    import xarray as xr
    from arviz_plots import plot_ecdf_pit

    names = [str(p) for p in positions.columns]
    data = xr.Dataset({"rank": (("dataset", "parameter"), positions.to_numpy())}, coords={"parameter": names})
    panels = Panels(data, "parameter", each(0.6, 3.0, 0.6, 2.5), figure, sharex=True, sharey=True)
    visuals: Any = {**dict.fromkeys(HIDDEN, False), "ecdf_lines": {"color": theme().palette[0]}}
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
    panels.map("fill_between_y", "band", data, x=x, y_bottom=bottom, y_top=top, color=theme().grey, alpha=0.25)
    return panels.finish(xlabel=xlabel, ylabel="Δ ECDF")


def plot_recovery(calibration: Any, parameters: Sequence[str], figure: Figure) -> Any:
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
    own, colour = theme(), theme().colour_of(calibration.estimator)
    colours = {COVERED: colour, MISSED: own.beside(colour)}
    looks = ("result", list(colours.values()))
    panels = Panels(points_data, "parameter", each(0.6, 3.0, 1.2, 2.6), figure, color=looks)
    panels.map("line_xy", "interval", lines_data, width=0.8 if n <= 300 else 0.4, alpha=0.45)
    panels.map("scatter_xy", "estimate", points_data, size=9 if n <= 300 else 4)
    for parameter in parameters:
        ends = np.array([calibration.truth[parameter].min(), calibration.truth[parameter].max()])
        panels.line(parameter, ends, ends, color=own.grey)
    what = "Posterior means" if calibration.estimator == "NUTS" else f"{calibration.estimator} estimates"
    marks = [Entry(label, colour, marker="circle", width=0.8, size=16) for label, colour in colours.items()]
    title = f"{what} with 95 % intervals"
    return panels.finish(title=title, xlabel="true value", ylabel="estimate", legend=marks)


def plot_power(analysis: Any, figure: Figure) -> Any:
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
    panels = Panels(lines, "panel", each(0.8, 3.6, 0.6, 2.7), figure, 2, name="study")
    colour = theme().colour_of(analysis.estimator)
    panels.map("line_xy", "mean", lines, color=colour, width=1.5)
    panels.map("scatter_xy", "point", lines, color=colour, size=20)
    for panel, (low, high) in bands.items():
        panels.band(panel, sizes, low, high, color=colour, alpha=0.2)
        is_power = panel.startswith(f"{POWER}: ")
        if is_power:
            panels.rule(panel, y=0.8, linestyle=panels.dashes)
        panels.limit(panel, y=(-0.02, 1.02) if is_power else (0.0, 1.1 * float(np.max([low, high]))))
    title = f"{analysis.estimator}, {analysis.simulations} simulated studies for each size"
    said = "bands: 95 % Monte-Carlo error; dashed: power of 80 %"
    return panels.finish(title=title, caption=said, xlabel="number of subjects")


LACK = "log10(last loglik − loglik)"


def plot_gls_steps(steps: Any, figure: Figure) -> Any:
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
    panels = Panels(lines, "parameter", each(0.6, 2.8, 0.8, 2.1), figure, name="trace")
    kind, ticks = "REML" if steps.reml else "ML", whole_ticks(0, max(steps.iterations, 1))
    colour = theme().colour_of(kind)
    ends = np.array([0.0, float(max(steps.iterations, 1))])
    for parameter in parameters:
        panels.line(parameter, ends, np.full(2, float(trace[parameter].iloc[-1])), color=theme().grey)
    for panel in lines:
        panels.draw.xticks(ticks, [str(t) for t in ticks], panels.target(panel))
    panels.map("line_xy", "line", lines, color=colour, width=1.5)
    if steps.iterations <= 40:
        panels.map("scatter_xy", "step", lines, size=14, color=colour)
    title = f"{steps.design.hierarchy.response}: two-step iteration to the {kind} fit in {steps.iterations} steps"
    return panels.finish(title=title, caption="Grey: where it ends", xlabel="iteration")


LINES = {"subject": "the subjects' own lines", "population": "the population line"}


def plot_serial(check: Any, figure: Figure) -> Any:
    """Draw a `Semivariogram` or `Autocorrelation`; see their ``plot``."""
    table, panel, own = check.table, check.column, theme()
    x = table["lag"].to_numpy(dtype=np.float64)
    points = np.vstack([x, table[panel]])
    outside = table["outside"].to_numpy(dtype=bool)
    panels = Panels({panel: points}, "statistic", (7.2, 4.6), figure, name="serial")
    colour = own.colour_of(check.estimator)
    if len(x) > 1:
        for ending, alpha in (("_all", 0.13), ("", 0.25)):
            panels.band(panel, x, table[f"lower{ending}"], table[f"upper{ending}"], alpha=alpha, color=colour)
    variance = panel == "semivariance"
    panels.rule(panel, y=check.expected_mean_square if variance else 0.0, width=1.2)
    panels.map("line_xy", "expected", {panel: np.vstack([x, table["expected"]])}, color=colour, width=2)
    warning = own.beside(colour)
    for label, which, color in (("observed", ~outside, own.ink), ("standing_out", outside, warning)):
        panels.map("scatter_xy", label, {panel: points[:, which] if which.any() else NOTHING}, color=color, size=45)
    if len(x) <= 10:
        panels.draw.xticks(x.tolist(), [f"{v:.3g}" for v in x], panels.target(panel))
    marks = [Entry("data", own.ink, line="", marker="circle", size=45)]
    marks += [Entry("data outside the bands", warning, line="", marker="circle", size=45)] if outside.any() else []
    marks += [Entry(f"fitted model ({check.correlation})", colour)]
    marks += [Entry("mean square it expects", own.grey, width=1.2)] if variance else []
    level = ", at the level of the data" if variance and not check.refit else ""
    return panels.finish(
        {panel: ""},
        title=f"{check.name} of {check.kind.replace('pearson', 'Pearson')} residuals",
        caption=f"Residuals around {LINES[check.level]}, {check.estimator}; bands: {percent(check.ci)} at each lag and "
        f"(light) at all lags of the fitted model{level}",
        xlabel=f"lag ({check.time})",
        ylabel=panel,
        legend=marks,
    )
