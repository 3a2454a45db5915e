"""Effect curves: the mean along a covariate with bands, one panel or slider position for each combination of values.

Curves are given as `hierlmm.effects.curves.EffectCurves` are, with their table, grid, keys and points.

Sliders of a plotly figure: one for each variable, whose positions combine. A trace belongs to one combination of
values. The first slider sets which traces are visible, the second which are opaque: two independent properties, so
that a trace is seen where both agree, without a line of script. A third variable and more share the second slider,
which then steps through their combinations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.labels import label_ends
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import (
    break_lines,
    crowd,
    off_the_edges,
    percent,
    resolve_backend,
    stack_points,
    with_unit,
    without_backticks,
)
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.options import checked, choose, renamed
from hierlmm.text import show

type Cell = tuple[str, str]
SEE = "docs, page 'Effect plots'"
DATA = ("none", "points", "partial")
MOST_PANELS = 24
MANY_POINTS = 300
MOST_NAMED = 4
MOST_POINTS = 3000


@renamed(residuals="residual_level")
@checked
@pictured
def draw_curves(
    curves: Mapping[str, Any],
    *,
    data: Literal["none", "points", "partial"] = "none",
    residual_level: Literal["subject", "population"] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw effect curves by label; see `hierlmm.plots.plot_effects`, which makes them."""
    choose("data", data, DATA)
    layout = _Layout(curves, selectable=resolve_backend(figure.get("backend")) == "plotly")
    points = {label: _points(own, data, residual_level) for label, own in curves.items()}
    if data == "points":
        points = dict(list(points.items())[:1])  # the same measurements lie behind every fit
    colours = layout.colours
    stacked = _stack(layout, {c: own["curve"] for c, own in layout.geometry(layout.selections[0]).items()})
    size = (6.6, 5.0) if len(layout.panels) == 1 else each(0.7, 3.5, 1.3, 3.0)
    wrap = col_wrap or layout.columns
    looks: dict[str, Any] = {}
    if len(layout.lines) > 1:
        looks = {"color": ("line", colours), "width": ("line", layout.widths)}
    panels = Panels(stacked, "panel", size, figure, wrap, sharex=True, sharey=True, **looks)
    drawn = [_draw(panels, layout, selection, points, data, k) for k, selection in enumerate(layout.selections)]
    reference, limits = next(iter(curves.values())), _limits(curves, points)
    x = [v for own in curves.values() for v in own.grid.points[own.variable]]
    room = 0.03 * (max(x) - min(x))
    headline = reference.headline if len(curves) == 1 else ""
    for panel in layout.panels:
        panels.limit(panel, (min(x) - room, max(x) + room), limits)
    panels.finish(
        {panel: panel for panel in layout.panels},
        title=headline or _title(curves),
        caption=" ".join([*([f"{_title(curves)}."] if headline else []), _caption(curves, data, points)]),
        xlabel=with_unit(reference.variable, reference.fit.design.units) if xlabel is None else xlabel,
        ylabel=with_unit(reference.ylabel, reference.fit.design.units) if ylabel is None else ylabel,
        legend=_legend(panels, layout),
    )
    if len(layout.selections) > 1:
        add_controls(panels.collection.get_viz("figure"), layout.selectable, layout.selections, drawn)
    return panels.collection


def _legend(panels: Panels, layout: _Layout) -> list[Entry]:
    """Entries of the legend, unless few lines can be named where they end."""
    if len(layout.lines) == 1:
        return []
    if len(layout.panels) == 1 and not layout.overlay:
        ends = {}
        for (_, line), own in layout.geometry(layout.selections[0]).items():
            whole = np.where(np.isnan(own["curve"][1]), own["extrapolated"][1], own["curve"][1])
            ends[line] = float(whole[np.isfinite(whole)][-1])
        colours = dict(zip(layout.lines, layout.colours, strict=True))
        if len(ends) <= MOST_NAMED and label_ends(panels, layout.panels[0], ends, colours):
            return []
    widths = [w / panels.theme.scale for w in layout.widths]
    return [Entry(line, c, width=w) for line, c, w in zip(layout.lines, layout.colours, widths, strict=True)]


def refuse_with_curves() -> SpecificationError:
    """Make the error for arguments that are of no use once curves are there."""
    received = "effect curves together with fits, or with what curves are made of"
    reason = "curves have been made already, with their own variable, by and at"
    return SpecificationError(received, reason, "pass fits and all arguments, or curves only", SEE)


def _points(curves: Any, data: str, residuals: Literal["subject", "population"] | None) -> pd.DataFrame | None:
    if data == "none":
        return None
    table = curves.points("partial" if data == "partial" else "points", residuals)
    some = table.sample(MOST_POINTS, random_state=0).sort_index() if len(table) > MOST_POINTS else table
    if curves.scale is not None:
        some = some.assign(y=off_the_edges(some["y"].to_numpy(dtype=np.float64), curves.fit.design.family.name))
    some.attrs = {"of": len(table)}
    return some


class _Layout:
    """Which curve is in which panel, has which colour, and belongs to which position of the sliders."""

    def __init__(self, curves: Mapping[str, Any], *, selectable: bool) -> None:
        self.curves = curves
        first = next(iter(curves.values()))
        self.overlay = len(curves) > 1
        self.selectable: tuple[str, ...] = first.panels if selectable else ()
        self.colour: tuple[str, ...] = tuple([] if self.overlay else first.by[:1])
        self.facets: tuple[str, ...] = (
            *(first.by if self.overlay else first.by[1:]),
            *(() if selectable else first.panels),
        )
        points = first.grid.points
        self.lines = (
            list(curves) if self.overlay else [self._text(self.colour, c) for c in self._all(points, self.colour)]
        )
        self.panels = [self._text(self.facets, c) for c in self._all(points, self.facets)]
        self.selections = self._all(points, self.selectable)
        # The values of the last variable side by side, the others below each other.
        last = len(points[self.facets[-1]]) if len(self.facets) > 1 else 0
        self.columns = last if 2 <= last <= 4 else None
        own = theme()
        most = len(own.palette)
        # Curves that coincide stay visible: each is narrower than the one below it.
        step = 1.5 if self.overlay else 0.0
        self.widths = [own.scale * (2.2 + step * k) for k in reversed(range(len(self.lines)))]
        estimators = [one.estimator for one in curves.values()]
        self.colours = own.colours_of(estimators) if self.overlay else list(own.palette[: len(self.lines)])
        self.alone = own.colour_of(estimators[0])
        if len(self.lines) > most:
            what = f"{len(self.lines)} fits" if self.overlay else f"by={self.colour[0]!r} with {len(self.lines)} values"
            reason = f"so many colours cannot be told apart; there are {most}"
            remedy = "choose some" if self.overlay else f"choose some: at={{{self.colour[0]!r}: [...]}}"
            raise SpecificationError(what, reason, remedy, SEE)
        if len(self.panels) > MOST_PANELS:
            received = f"{len(self.panels)} panels ({', '.join(self.facets)})"
            remedy = "choose fewer values in at={...}, or backend='plotly' for sliders"
            raise SpecificationError(received, "so many panels cannot be read", remedy, SEE)

    @staticmethod
    def _all(points: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[tuple[Any, ...]]:
        return list(itertools.product(*(points[v] for v in names)))

    @staticmethod
    def _text(names: Sequence[str], values: Sequence[Any]) -> str:
        return ", ".join(f"{v} = {show(x)}" for v, x in zip(names, values, strict=True))

    def cell(self, label: str, key: Mapping[str, Any]) -> Cell:
        """Panel and line of a curve."""
        line = label if self.overlay else self._text(self.colour, [key[v] for v in self.colour])
        return self._text(self.facets, [key[v] for v in self.facets]), line

    def geometry(self, selection: tuple[Any, ...]) -> dict[Cell, dict[str, FloatArray]]:
        """Lines and bands of the curves of one position of the sliders."""
        found = {}
        for label, own in self.curves.items():
            table = own.table
            for key, rows in own.curves:
                if tuple(key[v] for v in self.selectable) == selection:
                    found[self.cell(label, key)] = _geometry(table.iloc[rows], own.columns[own.variable], own.jumps)
        return found

    def points(
        self, selection: tuple[Any, ...], points: Mapping[str, pd.DataFrame | None], data: str
    ) -> dict[Cell, FloatArray]:
        """Points behind the curves of one position of the sliders."""
        found: dict[Cell, FloatArray] = {}
        for label, table in points.items():
            if table is None:
                continue
            own = self.curves[label]
            variables = [*own.panels, *own.by]
            names = [own.point_columns[v] for v in variables]
            groups = table.groupby(names, observed=True, sort=False) if names else [((), table)]
            for values, part in groups:
                key = dict(zip(variables, values if isinstance(values, tuple) else (values,), strict=True))
                if tuple(key[v] for v in self.selectable) == selection:
                    found[self.cell(label, key)] = (
                        part[[own.point_columns[own.variable], "y"]].to_numpy(dtype=np.float64).T
                    )
        return found


def _geometry(table: pd.DataFrame, variable: str, jumps: FloatArray) -> dict[str, FloatArray]:
    x, y = table[variable].to_numpy(dtype=np.float64), table["estimate"].to_numpy(dtype=np.float64)
    beyond = table["extrapolated"].to_numpy(dtype=bool)
    # Dashes start at the last point that was seen, so that the curve has no gap.
    near = beyond | np.r_[beyond[1:], False] | np.r_[False, beyond[:-1]]
    parts = {
        "curve": break_lines(np.vstack([x, np.where(beyond, np.nan, y)]), jumps),
        "extrapolated": break_lines(np.vstack([x, np.where(near, y, np.nan)]), jumps),
    }
    for name, ending in (("band", ""), ("simultaneous", "_simultaneous")):
        if f"lower{ending}" in table:
            parts[name] = np.vstack([x, table[f"lower{ending}"], table[f"upper{ending}"]])
    return parts


def _stack(layout: _Layout, cells: Mapping[Cell, FloatArray], axes: tuple[str, ...] = ("x", "y")) -> Any:
    """Arrays (axes, n) by panel and line as a Dataset."""
    nothing = np.empty((len(axes), 0))
    every = {cell: cells.get(cell, nothing) for cell in itertools.product(layout.panels, layout.lines)}
    data = stack_points(every, ("panel", "line"), "effects", axes)
    # A dimension that no aesthetic loops over would reach the visual: one line as many lines of one point.
    return data.isel(line=0, drop=True) if len(layout.lines) == 1 else data


def _band(da: Any, target: Any, **look: Any) -> Any:
    """A filled band from ``plot_axis`` x, lower, upper, without the padding."""
    from arviz_plots.plot_collection import backend_from_object

    x, lower, upper = (da.sel(plot_axis=axis).to_numpy() for axis in ("x", "lower", "upper"))
    there = np.isfinite(x)
    return backend_from_object(target).fill_between_y(x[there], lower[there], upper[there], target, **look)


def _draw(
    panels: Panels,
    layout: _Layout,
    selection: tuple[Any, ...],
    points: Mapping[str, pd.DataFrame | None],
    data: str,
    number: int,
) -> range:
    """Draw one position of the sliders, bottom to top; return the positions of its traces (plotly)."""
    figure = panels.collection.get_viz("figure")
    before = len(figure.data) if layout.selectable else 0
    ending = "" if number == 0 else f"_{number}"
    many = len(layout.lines) > 1
    behind = layout.points(selection, points, data)
    if behind:
        n = sum(part.shape[1] for part in behind.values()) / len(layout.panels)
        look: dict[str, Any] = {"size": 14 if n <= MANY_POINTS else 7, "alpha": crowd(n), "ignore_aes": {"width"}}
        grey = not many or (layout.overlay and data == "points")
        if grey:
            look |= {"color": panels.theme.data, "ignore_aes": "all"}
        stacked = _stack(layout, behind)
        if grey and many:  # the measurements, which belong to no line: of the one fit that has them
            stacked = stacked.sel(line=next(iter(behind))[1], drop=True)
        panels.map("scatter_xy", f"points{ending}", stacked, **look)
    cells = layout.geometry(selection)
    lone: dict[str, Any] = {} if many else {"color": layout.alone, "ignore_aes": "all"}
    band: dict[str, Any] = {"ignore_aes": {"width"}} if many else lone
    faint = 0.35 if many and layout.overlay else 0.6 if len(layout.lines) > 2 else 1.0
    for name, alpha in (("simultaneous", 0.15), ("band", 0.28)):
        bands = {c: own[name] for c, own in cells.items() if name in own}
        if bands:
            stacked = _stack(layout, bands, ("x", "lower", "upper"))
            panels.map(_band, f"{name}{ending}", stacked, alpha=alpha * faint, **band)
    if faint < 1.0:  # where several bands lie on top of each other their edges tell them apart
        edges = _stack(layout, {c: _edges(own["band"]) for c, own in cells.items()})
        panels.map("line_xy", f"edge{ending}", edges, width=0.9, alpha=0.8, ignore_aes={"width"})
    width: dict[str, Any] = {} if many else {"width": 2.4}
    for name, look in (("curve", width), ("extrapolated", {**width, "linestyle": panels.dashes})):
        lines = {c: own[name] for c, own in cells.items()}
        if name == "curve" or any(np.isfinite(part[1]).any() for part in lines.values()):
            panels.map("line_xy", f"{name}{ending}", _stack(layout, lines), **look, **lone)
    return range(before, len(figure.data)) if layout.selectable else range(0)


def _edges(band: FloatArray) -> FloatArray:
    """Lower and upper edge as one line with a gap."""
    return np.hstack([band[[0, 1]], np.full((2, 1), np.nan), band[[0, 2]]])


def _limits(curves: Mapping[str, Any], points: Mapping[str, pd.DataFrame | None]) -> tuple[float, float]:
    """One range of the vertical axis for all panels and positions of the sliders."""
    values = [points[label]["y"].to_numpy() for label in points if points[label] is not None]  # type: ignore[index]
    for own in curves.values():
        table = own.table
        values += [table[c].to_numpy() for c in table.columns if str(c).startswith(("lower", "upper"))]
    low, high = (float(f(np.concatenate(values))) for f in (np.nanmin, np.nanmax))
    room = 0.03 * ((high - low) or 1.0)
    return low - room, high + room


def _title(curves: Mapping[str, Any]) -> str:
    """What is drawn, and by whom."""
    first = next(iter(curves.values()))
    what = "Median" if first.transform is not None else "Mean"
    who = f" ({first.estimator})" if len(curves) == 1 else ""
    if first.scale is not None:
        return f"{first.scale.title} along {first.variable}{first.by_text}{who}"
    return f"{what} of {first.ylabel} along {first.variable}{first.by_text}{who}"


def _caption(curves: Mapping[str, Any], data: str, points: Mapping[str, pd.DataFrame | None]) -> str:
    """What is held, what the bands are, and what the points are."""
    first = next(iter(curves.values()))
    held: dict[str, Any] = {}
    for own in curves.values():
        held |= {v: x for v, x in own.held.items() if v not in held}
    text = [f"At {', '.join(f'{v} = {_short(x)}' for v, x in held.items())}."] if held else []
    averaged = list(dict.fromkeys(v for own in curves.values() for v in own.averaged))
    if averaged:
        text.append(f"Averaged over {', '.join(averaged)}.")
    both = "pointwise and (light) simultaneous bands" if first.simultaneous else "pointwise bands"
    text.append(f"{percent(first.ci)} {both}.")
    if first.scale is not None:
        random = any(own.fit.has_random_effects for own in curves.values())
        middle, mean = random and first.level == "population", "Mean over subjects."
        text.append("For a subject in the middle (b = 0)." if middle else mean)
    if data != "none":
        where = ", at their own values" if data == "points" and (first.held or first.panels) else ""
        shown = next(p for p in points.values() if p is not None)
        some = f"{len(shown)} of {shown.attrs['of']} " if len(shown) < shown.attrs["of"] else ""
        text.append(f"Points: {some}{'partial residuals' if data == 'partial' else 'measurements'}{where}.")
    return without_backticks(" ".join(text))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SLIDER = 75
"""Height of a slider, in pixels."""
NOTHING = "rgba(0, 0, 0, 0)"


def add_controls(
    figure: Any, names: Sequence[str], selections: Sequence[tuple[Any, ...]], traces: Sequence[range]
) -> None:
    """Add the sliders, each in its middle position.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
    names : sequence of str
        Variables that can be selected.
    selections : sequence of tuple
        Combinations of their values.
    traces : sequence of range
        Positions in ``figure.data`` of the traces of each combination.
    """
    groups = [names[:1], names[1:]] if len(names) > 1 else [names]
    own = [[selection[:1], selection[1:]][: len(groups)] for selection in selections]
    positions = [list(dict.fromkeys(key[k] for key in own)) for k in range(len(groups))]
    start = [len(values) // 2 for values in positions]
    drawn = [i for part in traces for i in part]
    opacity = {i: 1.0 if figure.data[i].opacity is None else figure.data[i].opacity for i in drawn}
    fill = {i: figure.data[i].fillcolor or NOTHING for i in drawn}
    hover = {i: "all" if figure.data[i].line.width else "skip" for i in drawn}
    key_of = {i: key for key, part in zip(own, traces, strict=True) for i in part}
    sliders: list[dict[str, Any]] = []
    below = figure.layout.margin.b
    for k, (group, values) in enumerate(zip(groups, positions, strict=True)):
        steps: list[dict[str, Any]] = []
        for value in values:
            there = [key_of[i][k] == value for i in drawn]
            change: dict[str, list[Any]] = {"visible": there}
            if k == 1:
                change = {
                    "opacity": [opacity[i] if t else 0.0 for i, t in zip(drawn, there, strict=True)],
                    # The opacity of a trace is not that of its fill.
                    "fillcolor": [fill[i] if t else NOTHING for i, t in zip(drawn, there, strict=True)],
                    "hoverinfo": [hover[i] if t else "skip" for i, t in zip(drawn, there, strict=True)],
                }
            steps.append({"method": "restyle", "label": ", ".join(map(show, value)), "args": [change, drawn]})
        value_of = {"prefix": f"{', '.join(group)} = ", "xanchor": "left"}
        place = {"len": 0.9, "x": 0.05, "y": 0.0, "pad": {"t": below + SLIDER * k}}
        sliders.append({"active": start[k], "currentvalue": value_of, "steps": steps, **place})
    for position, i in enumerate(drawn):
        for k in range(len(groups)):
            for name, settings in sliders[k]["steps"][start[k]]["args"][0].items():
                figure.data[i][name] = settings[position]
    room = SLIDER * len(groups)
    height, margin = (figure.layout.height or 450) + room, {"b": below + room}
    legend = {"itemclick": False, "itemdoubleclick": False}  # a click there would undo what the sliders have hidden
    figure.update_layout(sliders=sliders, height=height, margin=margin, legend=legend)
