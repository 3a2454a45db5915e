"""Effect plots: the mean along a covariate with bands, at stated values of the others, for one fit or several."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.comparison.compare import Comparison
from hierlmm.drawing.style import (
    PALETTE,
    backend_module,
    canvas,
    finish,
    grid_shape,
    percent,
    resolve_backend,
    without_backticks,
)
from hierlmm.effects.curves import EffectCurves, effect_curves
from hierlmm.effects.grid import plain_name, reference_grid
from hierlmm.effects.jumps import break_lines
from hierlmm.effects.table import Effects
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.options import checked, choose, renamed
from hierlmm.plots.effect_controls import add_controls
from hierlmm.plots.fits import pick_fits
from hierlmm.text import show

__all__ = ["plot_effects"]

FloatArray = NDArray[np.float64]
type Cell = tuple[str, str]
SEE = "docs, page 'Effect plots'"
DATA = ("none", "points", "partial")
MOST_PANELS = 24
MANY_POINTS = 300


@renamed(focal="variable", residuals="residual_level")
@checked
def plot_effects(
    *fits: Any,
    variable: str | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    data: Literal["none", "points", "partial"] = "none",
    residual_level: Literal["subject", "population"] | None = None,
    labels: Sequence[str] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Draw the mean along a covariate with its bands, at stated values of the other covariates.

    One fit: the first variable of ``by`` has the colours, the second and variables with several values in ``at`` have
    the panels. Several fits: each fit has a colour, all variables have panels, and every fit is asked at the same
    values. The dark band is pointwise; the light one, if asked for, holds for the whole curve. Curves are dashed where
    they are extrapolated. With ``backend="plotly"`` variables with several values in ``at`` get a slider each.

    Parameters
    ----------
    *fits : Fit, Comparison, mapping of fits, or EffectCurves
        What to draw; the name of the covariate may follow as the last one.
    variable : str, optional
        The covariate on the horizontal axis; by default the first numeric one of level 1.
    by : str or sequence of str, optional
        Up to two variables that tell curves apart.
    at : mapping, optional
        Variable -> the value or values at which it is held.
    data : {"none", "points", "partial"}
        Draw the measurements, or partial residuals (`EffectCurves.points`), behind the curves.
    residual_level : {"subject", "population"}, optional
        Which residuals partial residuals are made of; the subject's own where there are random effects.
    labels : sequence of str, optional
        Names of the fits; their estimators otherwise.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the covariate and of the response otherwise.
    col_wrap : int, optional
        Panels in a row.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise. Plotly: ``.savefig("curves.html")`` needs nothing from the network.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.
    **options
        ``n``, ``ci``, ``simultaneous``, ``level``, ``weights``, ``df``, ``transform``, ``seed`` of ``fit.effects``.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``points``, ``simultaneous``, ``band``, ``curve``, ``extrapolated`` over ``panel`` and ``line``.

    Raises
    ------
    SpecificationError
        If there are more than 7 colours or 24 panels, or the fits have different responses.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    >>> collection = fit.plot_effects("time", by="sex", data="partial")  # doctest: +SKIP
    """
    choose("data", data, DATA)
    if len(fits) == 1 and isinstance(fits[0], Effects):
        from hierlmm.plots.effects import plot_effects as plot_table

        return plot_table(fits[0], col_wrap=col_wrap, backend=backend, figure_kwargs=figure_kwargs)
    name = resolve_backend(backend)
    curves = _curves(fits, labels, variable, by, at, options)
    layout = _Layout(curves, selectable=name == "plotly")
    points = {label: _points(own, data, residual_level) for label, own in curves.items()}
    if data == "points":
        points = dict(list(points.items())[:1])  # the same measurements lie behind every fit
    first = layout.selections[0]
    rows, columns = grid_shape(len(layout.panels), col_wrap or layout.columns)
    single = len(layout.panels) == 1
    collection = canvas(
        _stack(layout, {c: own["curve"] for c, own in layout.geometry(first).items()}, ("x", "y")),
        "panel",
        backend=name,
        size=(0.7 + (5.9 if single else 3.5 * columns), 1.3 + (3.7 if single else 3.0 * rows)),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        sharex=True,
        sharey=True,
        **({"aes": {"color": ["line"]}, "color": list(PALETTE[: len(layout.lines)])} if len(layout.lines) > 1 else {}),
    )
    drawn = [_draw(collection, layout, selection, points, data, k) for k, selection in enumerate(layout.selections)]
    draw = backend_module(name)
    limits, reference = _limits(curves, points), next(iter(curves.values()))
    x = [v for own in curves.values() for v in own.grid.points[own.variable]]
    room = 0.03 * (max(x) - min(x))
    for panel in layout.panels:
        target = collection.get_target("effects", {"panel": panel})
        draw.xlim((min(x) - room, max(x) + room), target)
        draw.ylim(limits, target)
    finish(
        collection,
        "panel",
        {panel: panel for panel in layout.panels},
        title=None,
        xlabel=reference.variable if xlabel is None else xlabel,
        ylabel=reference.ylabel if ylabel is None else ylabel,
        legend="line" if len(layout.lines) > 1 else None,
    )
    _add_title(collection, _title(curves, data))
    if len(layout.selections) > 1:
        add_controls(collection.get_viz("figure"), layout.selectable, layout.selections, drawn)
    return collection


# What is drawn -------------------------------------------------------------------------------------------------------


def _curves(
    given: tuple[Any, ...],
    labels: Sequence[str] | None,
    variable: str | None,
    by: str | Sequence[str] | None,
    at: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, EffectCurves]:
    """Label -> curves, every fit at the values of the first."""
    if given and isinstance(given[-1], str):
        variable, given = given[-1], given[:-1]
    if not given:
        raise SpecificationError(
            "plot_effects() without a fit" if variable is None else f"plot_effects({variable!r}) without a fit",
            "there is nothing to draw the curves of",
            f"pass the fit first: plot_effects(fit, {variable or 'time'!r}), "
            f"or fit.plot_effects({variable or 'time'!r})",
            SEE,
        )
    ready = [g for g in given if isinstance(g, EffectCurves)]
    if ready:
        if len(ready) < len(given) or variable is not None or by is not None or at is not None or options:
            raise SpecificationError(
                "effect curves together with fits, or with what curves are made of",
                "curves have been made already, with their own variable, by and at",
                "pass fits and all arguments, or curves only",
                SEE,
            )
        curves = dict(zip(pick_fits([c.fit for c in ready], labels), ready, strict=True))
    else:
        one = len(given) == 1 and isinstance(given[0], (Comparison, Mapping, Sequence))
        fits = pick_fits(given[0] if one else list(given), labels)
        curves = _same_question(fits, variable, by, at, options)
    first = next(iter(curves.values()))
    for label, own in curves.items():
        if (own.ylabel, own.variable, own.by, own.panels) != (first.ylabel, first.variable, first.by, first.panels):
            raise SpecificationError(
                f"curves of {first.ylabel!r} along {first.variable!r} and, for {label!r}, of {own.ylabel!r} along "
                f"{own.variable!r}",
                "one picture has one response, one covariate on the axis, and one set of variables for its curves",
                "draw them apart",
                SEE,
            )
    return curves


def _same_question(
    fits: dict[str, Fit],
    variable: str | None,
    by: str | Sequence[str] | None,
    at: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, EffectCurves]:
    responses = list(dict.fromkeys(fit.design.hierarchy.response for fit in fits.values()))
    if len(responses) > 1:
        raise SpecificationError(
            f"fits of {' and '.join(map(repr, responses))}",
            "one picture has one response on its vertical axis",
            "draw them apart",
            SEE,
        )
    wanted = {plain_name(v): x for v, x in (at or {}).items()}
    known = {label: set(reference_grid(fit.design).points) for label, fit in fits.items()}
    anywhere = set().union(*known.values())
    curves: dict[str, EffectCurves] = {}
    for label, fit in fits.items():
        # What no fit knows stays in, to be refused with the names of what there is.
        own = {v: x for v, x in wanted.items() if v in known[label] or v not in anywhere}
        made = effect_curves(fit, variable, by, own, **options)
        curves[label] = made
        variable, by = made.variable, made.by
        fixed = {v: x for v, x in made.grid.points.items() if v not in made.averaged}
        wanted |= {v: list(x) for v, x in fixed.items() if v not in wanted or v == variable}
    return curves


def _points(curves: EffectCurves, data: str, residuals: Literal["subject", "population"] | None) -> pd.DataFrame | None:
    return None if data == "none" else curves.points("partial" if data == "partial" else "points", residuals)


class _Layout:
    """Which curve is in which panel, has which colour, and belongs to which position of the sliders."""

    def __init__(self, curves: Mapping[str, EffectCurves], *, selectable: bool) -> None:
        self.curves = curves
        first = next(iter(curves.values()))
        self.overlay = len(curves) > 1
        self.selectable = first.panels if selectable else ()
        self.colour = () if self.overlay else first.by[:1]
        self.facets = (*(first.by if self.overlay else first.by[1:]), *(() if selectable else first.panels))
        points = first.grid.points
        self.lines = (
            list(curves) if self.overlay else [self._text(self.colour, c) for c in self._all(points, self.colour)]
        )
        self.panels = [self._text(self.facets, c) for c in self._all(points, self.facets)]
        self.selections = self._all(points, self.selectable)
        # The values of the last variable side by side, the others below each other.
        last = len(points[self.facets[-1]]) if len(self.facets) > 1 else 0
        self.columns = last if 2 <= last <= 4 else None
        if len(self.lines) > len(PALETTE):
            what = f"{len(self.lines)} fits" if self.overlay else f"by={self.colour[0]!r} with {len(self.lines)} values"
            raise SpecificationError(
                what,
                f"so many colours cannot be told apart; there are {len(PALETTE)}",
                "choose some" if self.overlay else f"choose some: at={{{self.colour[0]!r}: [...]}}",
                SEE,
            )
        if len(self.panels) > MOST_PANELS:
            raise SpecificationError(
                f"{len(self.panels)} panels ({', '.join(self.facets)})",
                "so many panels cannot be read",
                "choose fewer values in at={...}, or backend='plotly' for sliders",
                SEE,
            )

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


def _stack(layout: _Layout, cells: Mapping[Cell, FloatArray], axes: tuple[str, ...]) -> Any:
    """Arrays (axes, n) by panel and line, padded with NaN, as a Dataset."""
    import xarray as xr

    width = max((part.shape[1] for part in cells.values()), default=1)
    stacked = np.full((len(layout.panels), len(layout.lines), len(axes), width), np.nan)
    for (panel, line), part in cells.items():
        stacked[layout.panels.index(panel), layout.lines.index(line), :, : part.shape[1]] = part
    coords = {"panel": layout.panels, "line": layout.lines, "plot_axis": list(axes)}
    data = xr.Dataset({"effects": (("panel", "line", "plot_axis", "point"), stacked)}, coords=coords)
    # A dimension that no aesthetic loops over would reach the visual: one line as many lines of one point.
    return data.isel(line=0, drop=True) if len(layout.lines) == 1 else data


def _band(da: Any, target: Any, **look: Any) -> Any:
    """A filled band from ``plot_axis`` x, lower, upper, without the padding."""
    from arviz_plots.plot_collection import backend_from_object

    x, lower, upper = (da.sel(plot_axis=axis).to_numpy() for axis in ("x", "lower", "upper"))
    there = np.isfinite(x)
    return backend_from_object(target).fill_between_y(x[there], lower[there], upper[there], target, **look)


def _draw(
    collection: Any,
    layout: _Layout,
    selection: tuple[Any, ...],
    points: Mapping[str, pd.DataFrame | None],
    data: str,
    number: int,
) -> range:
    """Draw one position of the sliders, bottom to top; return the positions of its traces (plotly)."""
    from arviz_plots import visuals

    figure = collection.get_viz("figure")
    before = len(figure.data) if layout.selectable else 0
    ending = "" if number == 0 else f"_{number}"
    behind = layout.points(selection, points, data)
    if behind:
        many = sum(part.shape[1] for part in behind.values()) > MANY_POINTS * len(layout.panels)
        coloured = len(layout.lines) > 1 and not (layout.overlay and data == "points")
        look: dict[str, Any] = {"size": 7 if many else 14, "alpha": 0.25 if many else 0.55}
        stacked = _stack(layout, behind, ("x", "y"))
        if not coloured:
            look["color"] = "#404040"
        collection.map(
            visuals.scatter_xy, f"points{ending}", data=stacked, ignore_aes=set() if coloured else "all", **look
        )
    cells = layout.geometry(selection)
    lone = {} if len(layout.lines) > 1 else {"color": PALETTE[0]}
    ignore: Any = set() if len(layout.lines) > 1 else "all"
    faint = 1.0 if len(layout.lines) <= 2 else 0.6
    for name, alpha in (("simultaneous", 0.15), ("band", 0.28)):
        bands = {c: own[name] for c, own in cells.items() if name in own}
        if bands:
            stacked = _stack(layout, bands, ("x", "lower", "upper"))
            collection.map(_band, f"{name}{ending}", data=stacked, ignore_aes=ignore, alpha=alpha * faint, **lone)
    if faint < 1.0:  # where several bands lie on top of each other their edges tell them apart
        edges = {c: _edges(own["band"]) for c, own in cells.items()}
        stacked = _stack(layout, edges, ("x", "y"))
        collection.map(visuals.line_xy, f"edge{ending}", data=stacked, ignore_aes=ignore, width=0.8, alpha=0.8)
    dashes = backend_module(collection.backend).get_default_aes("linestyle", 2)[1]
    for name, look in (("curve", {"width": 2.4}), ("extrapolated", {"width": 1.8, "linestyle": dashes})):
        lines = {c: own[name] for c, own in cells.items()}
        if name == "curve" or any(np.isfinite(part[1]).any() for part in lines.values()):
            stacked = _stack(layout, lines, ("x", "y"))
            collection.map(visuals.line_xy, f"{name}{ending}", data=stacked, ignore_aes=ignore, **look, **lone)
    return range(before, len(figure.data)) if layout.selectable else range(0)


def _edges(band: FloatArray) -> FloatArray:
    """Lower and upper edge as one line with a gap."""
    return np.hstack([band[[0, 1]], np.full((2, 1), np.nan), band[[0, 2]]])


def _limits(curves: Mapping[str, EffectCurves], points: Mapping[str, pd.DataFrame | None]) -> tuple[float, float]:
    """One range of the vertical axis for all panels and positions of the sliders."""
    values = [points[label]["y"].to_numpy() for label in points if points[label] is not None]  # type: ignore[index]
    for own in curves.values():
        table = own.table
        values += [table[c].to_numpy() for c in table.columns if str(c).startswith(("lower", "upper"))]
    low, high = (float(f(np.concatenate(values))) for f in (np.nanmin, np.nanmax))
    room = 0.03 * ((high - low) or 1.0)
    return low - room, high + room


def _title(curves: Mapping[str, EffectCurves], data: str) -> str:
    """What is held, what the bands are, and what the points are."""
    first = next(iter(curves.values()))
    held: dict[str, Any] = {}
    for own in curves.values():
        held |= {v: x for v, x in own.held.items() if v not in held}
    text = [f"At {', '.join(f'{v} = {_short(x)}' for v, x in held.items())}."] if held else []
    averaged = list(dict.fromkeys(v for own in curves.values() for v in own.averaged))
    if averaged:
        text.append(f"Averaged over {', '.join(averaged)}.")
    if first.transform is not None:
        text.append(f"Median of {first.ylabel}.")
    both = "pointwise and (light) simultaneous bands" if first.simultaneous else "pointwise bands"
    text.append(f"{percent(first.ci)} {both}.")
    if data != "none":
        where = ", at their own values" if data == "points" and (first.held or first.panels) else ""
        text.append(f"Points: {'partial residuals' if data == 'partial' else 'measurements'}{where}.")
    if len(curves) == 1:
        text.append(f"{first.estimator}.")
    return " ".join(text)


def _add_title(collection: Any, text: str) -> None:
    """A title in small letters, broken to fit: it has to say what is held."""
    figure, text = collection.get_viz("figure"), without_backticks(text)
    if collection.backend == "matplotlib":
        collection.add_title("\n".join(textwrap.wrap(text, int(13.0 * figure.get_size_inches()[0]))), size=10.5)
    elif collection.backend == "plotly":
        collection.add_title("\n".join(textwrap.wrap(text, int(figure.layout.width / 7.5))), size=14)
    else:
        collection.add_title(text)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
