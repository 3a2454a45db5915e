"""Pictures of profile likelihoods: ζ over the values of a parameter, and the density that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm

from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent
from hierlmm.drawing.theme import theme


def plot_profile(profile: Any, parameters: Sequence[str], kind: str, ci: float, figure: Figure) -> Any:
    """A panel for each parameter: ζ with the line of a normal likelihood, or a density; the interval in both."""
    table = profile.table(ci).loc[list(parameters)]
    draw = _zeta if kind == "zeta" else _density
    lines = {name: _line(profile, name, kind) for name in parameters}
    panels = Panels(lines, "parameter", each(0.6, 2.9, 0.9, 2.1), figure, name="profile")
    colour = theme().colour_of(profile.fit.estimator)
    panels.map("line_xy", "curve", lines, color=colour, width=1.8)
    for name in parameters:
        draw(panels, profile, name, table.loc[name], ci, colour)
    marks = [Entry("profile likelihood", colour, width=1.8)]
    if kind == "zeta":
        marks.append(Entry("normal likelihood (Wald)", theme().grey, width=1.0))
    marks.append(Entry(f"{percent(ci)} interval", theme().ink, line="dashed", width=1.0))
    title = f"Profile likelihood, {profile.fit.estimator}"
    return panels.finish(title=title, ylabel="ζ" if kind == "zeta" else "density", legend=marks)


def _line(profile: Any, name: str, kind: str) -> Any:
    if kind == "density":
        return np.vstack(profile.density(name))
    values, zeta = profile.curve(name)
    x = np.linspace(values[0], values[-1], 101)
    return np.vstack([x, PchipInterpolator(values, zeta)(x)])


def _zeta(panels: Panels, profile: Any, name: str, row: Any, ci: float, colour: str) -> None:
    values, zeta = profile.curve(name)
    at = int(np.argmin(np.abs(zeta)))
    slope = float(PchipInterpolator(values, zeta).derivative()(values[at]))
    x = np.linspace(values[0], values[-1], 101)
    straight = slope * (x - values[at])
    inside = np.abs(straight) <= 3.2
    if inside.sum() > 1:
        panels.line(name, x[inside], straight[inside], color=theme().grey, width=1.0)
    z = float(norm.ppf(0.5 + ci / 2.0))
    for end, height in ((row["lower"], -z), (row["upper"], z)):
        if values[0] <= end <= values[-1]:
            at_end = bool(np.isclose(end, values[[0, -1]]).any())  # of the parameter's range: ζ does not get there
            xs, ys = np.array([values[0], end, end]), np.array([height, height, -3.2])
            xs, ys = (xs[1:], np.array([0.0, -3.2])) if at_end else (xs, ys)
            panels.line(name, xs, ys, color=theme().ink, linestyle=panels.dashes)
    panels.limit(name, y=(-3.3, 3.3))


def _density(panels: Panels, profile: Any, name: str, row: Any, ci: float, colour: str) -> None:
    x, density = profile.density(name)
    top = float(density.max())
    panels.band(name, x, np.zeros(len(x)), density, alpha=0.2, color=colour)
    panels.line(name, np.full(2, row["estimate"]), np.array([0.0, 1.05 * top]), color=theme().ink, width=1.4)
    for end in (row["lower"], row["upper"]):
        if x[0] <= end <= x[-1]:
            panels.line(name, np.full(2, end), np.array([0.0, 0.6 * top]), color=theme().ink, linestyle=panels.dashes)
    panels.limit(name, y=(0.0, 1.1 * top))
