"""The last strokes of a figure of plotly or bokeh: ranges, legend, titles, caption and margins as matplotlib's.

Neither measures its letters where Python can see it, so rooms are worked out from sizes and numbers of letters.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.drawing.finishing import DOTS, HANDLE, Entry
from hierlmm.drawing.letters import LETTER, break_by_letters
from hierlmm.drawing.theme import GRID, Theme

MARGIN = 0.05
"""Room beyond the marks, as a share of their range: that of matplotlib."""
SMALL, LARGE = 0.85, 1.15
"""Letters of the caption and of the title, in sizes of the others."""

BAR = {
    "orientation": "v",
    "bgcolor": "rgba(0, 0, 0, 0)",
    "remove": ["zoomin", "zoomout", "autoscale", "lasso", "select"],
}
"""plotly's buttons: beside the title there is no room for them, nor for many."""


@contextmanager
def palette(backend: str, own: Theme) -> Iterator[None]:
    """Our colours for what ArviZ draws by itself, as far as it asks the backend for some."""
    if backend == "plotly":
        import plotly.graph_objects as go
        import plotly.io as pio

        layout = {"colorway": own.palette, "plot_bgcolor": own.paper, "paper_bgcolor": own.paper}
        before, pio.templates["hierlmm"] = pio.templates.default, go.layout.Template(layout=layout)
        pio.templates.default = "hierlmm"
        try:
            yield
        finally:
            pio.templates.default = before
            del pio.templates["hierlmm"]
    elif backend == "bokeh":
        from bokeh.io import curdoc
        from bokeh.themes import Theme as Look

        before = curdoc().theme
        curdoc().theme = Look(json={"attrs": {"Cycler": {"colors": list(own.palette)}}})
        try:
            yield
        finally:
            curdoc().theme = before
    else:
        yield


def numbers(values: Any) -> FloatArray:
    """The finite numbers among values; none, if they are no numbers."""
    if values is None:
        return np.empty(0)
    array = np.ravel(np.asarray(values))
    if array.dtype == object:
        array = np.array([v for v in array if isinstance(v, (int, float, np.number))], dtype=float)
    return array[np.isfinite(array)].astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def ends(parts: Iterable[FloatArray]) -> tuple[float, float] | None:
    """The range of an axis that holds all marks, with a margin."""
    values = np.concatenate([np.empty(0), *parts])
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    room = MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


# plotly


def plotly_axes(figure: Any) -> dict[str, dict[str, Any]]:
    """Axes of a figure that share a range: the first of them -> ``names`` and ``parts``, the numbers drawn along them.

    Lines across a panel count along the axis that they stand on.
    """
    groups: dict[str, dict[str, Any]] = {}
    root = {}
    for letter in "xy":
        for axis in figure.select_xaxes() if letter == "x" else figure.select_yaxes():
            name = axis.plotly_name.replace("axis", "")
            root[name] = axis.matches or name
            groups.setdefault(root[name], {"names": [], "parts": []})["names"].append(axis.plotly_name)
    for trace in figure.data:
        if trace.type in ("scatter", "scattergl"):
            for letter in "xy":
                groups[root[trace[f"{letter}axis"] or letter]]["parts"].append(numbers(trace[letter]))
    for shape in figure.layout.shapes:
        for letter in "xy":
            if (ref := shape[f"{letter}ref"] or letter) in root and shape.type == "line":
                groups[root[ref]]["parts"].append(numbers([shape[f"{letter}0"], shape[f"{letter}1"]]))
    return groups


def _ranges_plotly(figure: Any) -> None:
    """Set the ranges that nobody has set: plotly's own leave no room beside lines, and none for lines across."""
    for group in plotly_axes(figure).values():
        axes = [figure.layout[name] for name in group["names"]]
        if all(axis.range is None and axis.type in (None, "-", "linear") for axis in axes) and (
            found := ends(group["parts"])
        ):
            for axis in axes:
                axis.range = found


def legend_plotly(panels: Any, entries: Sequence[Entry]) -> None:
    """Add the entries of the legend; `finish_plotly` finds their place."""
    import plotly.graph_objects as go

    own, figure = panels.theme, panels.collection.get_viz("figure")
    for e in entries:
        mode = "+".join(kind for kind, on in (("lines", e.line or e.style), ("markers", e.marker)) if on)
        dash = e.style or {"dashed": "dash"}.get(e.line, e.line or None)
        look = {"color": e.color, "width": e.width * own.scale, "dash": dash}
        face = own.paper if e.hollow else e.color
        marker = {"color": face, "symbol": e.marker or None, "size": DOTS * own.scale * e.size**0.5}
        marker["line"] = {"color": e.color, "width": 1.2 if e.hollow else 0}
        mark = {"name": e.label, "mode": mode, "line": look, "marker": marker, "opacity": e.alpha, "showlegend": True}
        figure.add_trace(go.Scatter(x=[None], y=[None], hoverinfo="skip", **mark))


def _lines(text: str) -> int:
    return text.count("<br>") + 1 if text.strip() else 0


def finish_plotly(collection: Any, own: Theme, heading: str, caption: str) -> None:
    """Colours, letters, titles and margins as matplotlib's."""
    figure, size = collection.get_viz("figure"), DOTS * own.size
    width, height = float(figure.layout.width or 700), float(figure.layout.height or 450)
    figure.layout.annotations = [a for a in figure.layout.annotations if a.text and a.text.strip()]
    title = _html(break_by_letters(heading, 0.95 * width, LARGE * size))
    small = _html(break_by_letters(caption, 0.95 * width, SMALL * size))
    panel = 1.3 * size * max((_lines(str(a.text)) for a in figure.layout.annotations if a.yref != "paper"), default=0)
    labelled = any(axis.title.text for axis in figure.select_xaxes())
    ticks = 8 + 1.25 * size
    below = ticks + (1.45 * size if labelled else 0.0)
    legend = below + 0.3 * size + (1.25 * SMALL * size * _lines(small) + 0.5 * size if small else 0.0)
    names = [trace.name for trace in figure.data if trace.showlegend and trace.name]
    entry = LETTER * size * max(map(len, names), default=0) + HANDLE * size
    rows = -(-len(names) // max(1, int(0.95 * width // entry))) if names else 0
    top, bottom = 10 + 1.3 * LARGE * size * _lines(title) + panel, legend + 1.6 * size * rows + 8
    figure.update_layout(
        template="none",
        paper_bgcolor=own.paper,
        plot_bgcolor=own.paper,
        font={"color": own.ink, "size": size},
        margin={"l": 3.2 * size, "r": 1.2 * size, "t": top, "b": bottom},
        hovermode="closest",
        modebar={**BAR, "color": own.mix(0.3), "activecolor": own.mix(0.6)},
    )
    inner = height - top - bottom
    look = {"orientation": "h", "traceorder": "normal", "x": 0.5, "xanchor": "center", "yanchor": "top"}
    figure.update_layout(legend={**look, "y": -legend / inner, "font": {"size": size}, "title": {"side": "left"}})
    if title:
        first = panel + 6 + 1.3 * LARGE * size * (_lines(title) - 1)  # its place is that of the first line
        place = {"yref": "paper", "y": 1.0, "yanchor": "bottom", "pad": {"b": first}, "x": 0.5, "xanchor": "center"}
        figure.update_layout(title={"text": title, "font": {"size": LARGE * size, "color": own.ink}, **place})
    if small:
        figure.add_annotation(
            text=small, xref="paper", yref="paper", x=0.5, y=0, yshift=-below - 0.3 * size, showarrow=False,
            yanchor="top", font={"size": SMALL * size, "color": own.mix(0.65)},
        )  # fmt: skip
    _ranges_plotly(figure)
    _spread_rows(figure, (below if _upper_labels(figure) else ticks) + panel + 0.3 * size, inner)
    figure.for_each_annotation(lambda a: a.update(font={"size": size}) if a.yref != "paper" else None)
    line = {"linecolor": own.mix(0.45), "gridcolor": own.mix(GRID), "zeroline": False, "showline": True}
    line |= {"showgrid": True, "ticks": "outside", "tickcolor": own.mix(0.45), "tickfont": {"color": own.mix(0.85)}}
    label = {"title": {"font": {"size": size, "color": own.ink}, "standoff": 0.3 * size}}
    figure.update_xaxes(automargin="left+right", **line, **label)
    figure.update_yaxes(automargin="left+right", **line, **label)


def _upper_labels(figure: Any) -> bool:
    """Whether panels above others have a label below them."""
    return any(axis.title.text and axis.anchor and _domain(figure, axis)[0] > 0.01 for axis in figure.select_xaxes())


def _domain(figure: Any, xaxis: Any) -> tuple[float, float]:
    """Where a panel is, from below: the domain of the vertical axis that its horizontal one stands on."""
    found = figure.layout[str(xaxis.anchor).replace("y", "yaxis", 1)].domain
    return (0.0, 1.0) if found is None else found


def _spread_rows(figure: Any, gap: float, inner: float) -> None:
    """Rows of panels as high as the texts between them leave room for."""
    starts = sorted({round(axis.domain[0], 6) for axis in figure.select_yaxes() if axis.domain}, reverse=True)
    tops = sorted({round(axis.domain[1], 6) for axis in figure.select_yaxes() if axis.domain}, reverse=True)
    if len(starts) < 2 or len(starts) != len(tops):
        return
    gap = min(gap / inner, 0.8 / (len(starts) - 1))
    step = (1.0 + gap) / len(starts)
    for axis in figure.select_yaxes():
        if axis.domain:
            k = starts.index(round(axis.domain[0], 6))
            axis.domain = (max(0.0, 1.0 - k * step - (step - gap)), 1.0 - k * step)


def _html(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>")


# bokeh


def _drawn(renderer: Any, names: Sequence[str]) -> Iterable[FloatArray]:
    """The numbers of a mark along one axis."""
    for name in names:
        value = getattr(renderer.glyph, name, None)
        field = getattr(value, "field", value)
        if isinstance(field, str) and field in renderer.data_source.data:
            yield numbers(renderer.data_source.data[field])


ALONG = {"x": ("x", "x0", "x1", "x2", "left", "right"), "y": ("y", "y0", "y1", "y2", "top", "bottom")}


def bokeh_axes(plots: Sequence[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Ranges of plots: (letter, id) -> ``range`` and ``parts``, the numbers drawn along it."""
    from bokeh.models.annotations import Span
    from bokeh.models.renderers import GlyphRenderer

    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for plot in plots:
        for letter, dimension in (("x", "height"), ("y", "width")):
            own = getattr(plot, f"{letter}_range")
            group = groups.setdefault((letter, own.id), {"range": own, "parts": []})
            for renderer in plot.renderers:
                if isinstance(renderer, GlyphRenderer):
                    group["parts"] += _drawn(renderer, ALONG[letter])
            spans = [s for s in plot.center if isinstance(s, Span) and s.dimension == dimension]
            group["parts"] += [numbers([s.location]) for s in spans]
    return groups


def panels_of(collection: Any) -> list[Any]:
    """The plots of a figure of bokeh."""
    found = collection.viz["plot"]  # one array of panels, or an array for each variable
    arrays = found.data_vars.values() if hasattr(found, "data_vars") else [found]
    return [plot for own in arrays for plot in np.ravel(own.to_numpy()) if hasattr(plot, "x_range")]


def _ranges_bokeh(plots: Sequence[Any]) -> None:
    """Set the ranges that nobody has set: bokeh's own do not see lines across a panel."""
    from bokeh.models.ranges import DataRange1d

    for group in bokeh_axes(plots).values():
        own = group["range"]
        free = isinstance(own, DataRange1d) and not np.isfinite([_or_nan(own.start), _or_nan(own.end)]).any()
        if free and (found := ends(group["parts"])):
            own.start, own.end = found


def _or_nan(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


def finish_bokeh(collection: Any, own: Theme, heading: str, caption: str, entries: Sequence[Entry] = ()) -> None:
    """Colours, letters, titles and margins as matplotlib's; the legend and the caption stand below the panels."""
    size = DOTS * own.size
    plots = panels_of(collection)
    entries = [*entries, *_taken_down(plots)]
    _ranges_bokeh(plots)
    for plot in plots:
        _dress_bokeh(plot, own, size)
    bar = getattr(collection.get_viz("figure"), "toolbar", None)
    if bar is not None:
        bar.logo = None
    if heading:
        collection.add_title(_html(heading), color=own.ink, size=f"{LARGE * size:.4g}px", styles=_page_style(own))
    small = f'<div style="color: {own.mix(0.65)}; font-size: {SMALL * size:.4g}px">{_html(caption)}</div>'
    parts = [small] if caption else []
    parts += [f"<div>{''.join(_mark(e, own, size) for e in entries)}</div>"] if entries else []
    if parts:
        import xarray as xr
        from bokeh.layouts import column
        from bokeh.models.widgets.markups import Div

        styles: dict[str, Any] = {name.replace("_", "-"): value for name, value in _page_style(own).items()}
        styles |= {"color": own.ink, "font-size": f"{size:.4g}px", "text-align": "center"}
        div = Div(text="".join(parts), width=_breadth(collection.get_viz("figure")) or 600, styles=styles)
        collection.viz["figure"] = xr.DataArray(np.array(column(collection.get_viz("figure"), div), dtype=object))


def _taken_down(plots: Sequence[Any]) -> list[Entry]:
    """Entries of the legends that ArviZ has put beside the panels, where bokeh has no room for them."""
    found = []
    for plot in plots:
        for legend in list(plot.legend):
            for place in (plot.left, plot.right, plot.above, plot.below, plot.center):
                if legend in place:
                    place.remove(legend)
            found += [Entry(str(i.label.value), i.renderers[0].glyph.line_color, width=2.0) for i in legend.items]
    return found


def _breadth(figure: Any) -> int:
    """Width of plots in a grid, side by side, and of what stands above or below them."""
    children = getattr(figure, "children", [])
    if children and isinstance(children[0], tuple):  # a grid: (plot, row, column)
        rows: dict[int, int] = {}
        for plot, row, *_ in children:
            rows[row] = rows.get(row, 0) + _breadth(plot)
        return max(rows.values())
    return max(map(_breadth, children)) if children else int(getattr(figure, "width", None) or 0)


def _page_style(own: Theme) -> dict[str, str]:
    return {"background": own.paper, "font_family": "sans-serif", "padding": "6px"}


def _dress_bokeh(plot: Any, own: Theme, size: float) -> None:
    """Colours and letters of one panel."""
    points = f"{size:.4g}px"
    plot.background_fill_color = plot.border_fill_color = own.paper
    plot.outline_line_color = None
    plot.title.text_color, plot.title.text_font_size = own.ink, points
    plot.title.text = break_by_letters(plot.title.text or "", 0.8 * float(plot.width or 400), size)
    plot.title.align, plot.title.text_font_style = "center", "normal"
    for axis in plot.axis:
        axis.axis_label_text_color, axis.major_label_text_color = own.ink, own.mix(0.85)
        axis.axis_label_text_font_size = axis.major_label_text_font_size = points
        axis.axis_label_text_font_style = "normal"
        axis.axis_line_color = axis.major_tick_line_color = own.mix(0.45)
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = own.mix(GRID)


def _mark(e: Entry, own: Theme, size: float) -> str:
    """An entry of the legend: the mark as it is drawn, and its text."""
    wide, high = 2.2 * size, 1.1 * size
    parts = []
    if e.line or e.style:
        dash = ' stroke-dasharray="7 4"' if e.line == "dashed" or e.style else ""
        dash = {"dotted": ' stroke-dasharray="2 3"', "dashdot": ' stroke-dasharray="7 3 2 3"'}.get(str(e.style), dash)
        look = f'stroke="{e.color}" stroke-width="{e.width * own.scale:.3g}"{dash}'
        parts.append(f'<line x1="0" x2="{wide:.3g}" y1="{high / 2:.3g}" y2="{high / 2:.3g}" {look}/>')
    if e.marker:
        r, face = 0.5 * DOTS * own.scale * e.size**0.5, own.paper if e.hollow else e.color
        look = f'fill="{face}" stroke="{e.color}"'
        place = f"translate({wide / 2:.4g} {high / 2:.4g}) rotate({45 if e.marker == 'diamond' else 0})"
        square = f'<rect x="{-r:.3g}" y="{-r:.3g}" width="{2 * r:.3g}" height="{2 * r:.3g}" {look}/>'
        shape = f'<circle r="{r:.3g}" {look}/>' if e.marker == "circle" else square
        parts.append(f'<g transform="{place}">{shape}</g>')
    svg = f'<svg width="{wide:.3g}" height="{high:.3g}" style="vertical-align: middle; opacity: {e.alpha:g}">'
    text = f"{svg}{''.join(parts)}</svg> {html.escape(e.label)}"
    return f'<span style="display: inline-block; margin: 0 0.7em; white-space: nowrap">{text}</span>'
