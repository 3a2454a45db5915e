"""The last strokes of a figure in each backend: legend, titles broken to their room, caption, letters, margins."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hierlmm.drawing.letters import break_artist, break_by_letters, text_width, write_literally
from hierlmm.drawing.theme import GRID, SEE, Theme
from hierlmm.errors import SpecificationError

DOTS = 100.0 / 72.0
"""Dots of a screen for a point of a letter, where the backend counts in dots."""
HANDLE = 4.2
"""Room of a mark in the legend and of what is between two entries, in sizes of the letters."""
MARKERS: dict[str, dict[str, str]] = {
    "circle": {"matplotlib": "o"},
    "square": {"matplotlib": "s"},
    "diamond": {"matplotlib": "D"},
}
DASHES = {"solid": "-", "dashed": "--"}


@dataclass(frozen=True)
class Entry:
    """A line of the legend: a text, and the mark as it is drawn."""

    label: str
    color: str
    line: str = "solid"
    """"solid", "dashed", or none if empty."""
    marker: str = ""
    """"circle", "square", "diamond", or none if empty."""
    hollow: bool = False
    width: float = 2.0
    size: float = 30.0
    alpha: float = 1.0
    style: Any = None
    """Style of the line as the backend spells it, in place of ``line``."""


def add_legend(panels: Any, entries: Sequence[Entry], *, on_axes: bool) -> None:
    """Add a legend below the panels (beside them in plotly and bokeh), whose marks are those that are drawn."""
    if not entries or panels.backend == "none":
        return
    kinds = {"matplotlib": _legend_matplotlib, "plotly": _legend_plotly, "bokeh": _legend_bokeh}
    kinds[panels.backend](panels, entries, on_axes)


def _legend_matplotlib(panels: Any, entries: Sequence[Entry], on_axes: bool) -> None:
    from matplotlib.lines import Line2D

    own, scale = panels.theme, panels.theme.scale
    handles = [
        Line2D(
            [],
            [],
            color=e.color,
            alpha=e.alpha,
            linestyle=e.style or DASHES.get(e.line, "none"),  # type: ignore[arg-type]
            linewidth=e.width * scale,
            marker=MARKERS[e.marker]["matplotlib"] if e.marker else "none",
            markersize=e.size**0.5 * scale,
            markerfacecolor=own.paper if e.hollow else e.color,
        )
        for e in entries
    ]
    labels = [e.label for e in entries]
    if on_axes:
        ax = panels.figure["ax"]
        ax.legend(handles, labels, frameon=False)
        return
    figure = panels.collection.get_viz("figure")
    # Below the panels a legend never meets the title, whatever the shape of the figure.
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    first = figure.legend(handles, labels, ncols=1, **place)
    longest = max(text_width(text, text.get_text()) for text in first.get_texts())
    column = longest + HANDLE * own.size * figure.dpi / 72.0
    first.remove()
    columns = max(1, min(len(labels), int(figure.get_size_inches()[0] * figure.dpi / column)))
    figure.legend(handles, labels, ncols=columns, **place)


def _legend_plotly(panels: Any, entries: Sequence[Entry], _: bool) -> None:
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


def _legend_bokeh(panels: Any, entries: Sequence[Entry], _: bool) -> None:
    from bokeh.models.annotations import Legend, LegendItem

    own, plots = panels.theme, np.ravel(panels.collection.viz["plot"].to_numpy())
    plot, nan, items = plots[-1], [float("nan")], []
    for e in entries:
        drawn = []
        if e.line or e.style:
            look = {"line_color": e.color, "line_dash": e.style or e.line, "line_width": e.width * own.scale}
            drawn.append(plot.line(nan, nan, line_alpha=e.alpha, **look))
        if e.marker:
            face = own.paper if e.hollow else e.color
            size = DOTS * own.scale * e.size**0.5
            drawn.append(plot.scatter(nan, nan, marker=e.marker, size=size, fill_color=face, line_color=e.color))
        items.append(LegendItem(label=e.label, renderers=drawn))
    look = {"items": items, "border_line_color": None, "background_fill_color": None}
    plot.add_layout(Legend(**look), "below")


def finish_matplotlib(collection: Any, own: Theme, heading: str, caption: str, on_axes: bool) -> None:
    """Break the titles to the width of their axes, and the figure's to its own; write the caption below.

    A figure is laid out once for that: nobody knows the width of an axis before.
    """
    figure = collection.get_viz("figure")
    axes = list(np.ravel(collection.viz["plot"].to_numpy()))
    if heading:
        figure.suptitle(heading, color=own.ink)
    if caption:
        _caption(figure, axes, caption, own)
    for part in axes if on_axes else [figure]:
        write_literally(part)
    if not on_axes:
        _break(figure, axes)
    else:
        for ax in axes:
            break_artist(ax.title, float(ax.get_window_extent().width))


def _break(figure: Any, axes: Sequence[Any]) -> None:
    whole = 0.97 * figure.get_size_inches()[0] * figure.dpi
    if figure._suptitle is not None:
        break_artist(figure._suptitle, whole)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            wide, high = figure.get_size_inches()
            received, reason = f"figsize=({wide:g}, {high:g})", "nothing is left beside the letters"
            remedy = "use a larger size, or smaller letters: hl.style(...)"
            raise SpecificationError(received, reason, remedy, SEE) from None
    changed = False
    for ax in axes:
        box = ax.get_window_extent()
        for text, room in ((ax.title, box.width), (ax.xaxis.label, box.width), (ax.yaxis.label, box.height)):
            changed |= break_artist(text, float(room))
    if changed:  # one layout more: the next drawing starts from where there is room for the new lines
        figure.draw_without_rendering()


def _caption(figure: Any, axes: Sequence[Any], caption: str, own: Theme) -> None:
    """Small grey lines below a single panel, or below all; a part of the layout, so that nothing meets them."""
    small, room = 0.85 * own.size, 0.95 * figure.get_size_inches()[0] * figure.dpi
    look: dict[str, Any] = {"fontsize": small, "color": own.mix(0.65), "ha": "center", "va": "top"}
    if len(axes) == 1:
        below = axes[0].xaxis.label
        text = axes[0].annotate(
            caption, (0.5, 0.0), xycoords=below, xytext=(0, -0.5 * own.size), textcoords="offset points", **look
        )
        room *= 0.88
    elif figure.legends:  # both at the edge of the figure would lie on each other
        figure.legends[0].set_title(caption, prop={"size": small})
        text = figure.legends[0].get_title()
        text.set(color=look["color"], ha="center", multialignment="center")
    else:
        text = figure.supxlabel(caption, fontsize=small, color=look["color"])
    break_artist(text, room)


def finish_plotly(collection: Any, own: Theme, heading: str, caption: str, on_axes: bool) -> None:
    """Colours, letters, titles and margins as matplotlib's."""
    del on_axes
    figure, size = collection.get_viz("figure"), DOTS * own.size
    width = float(figure.layout.width or 700)
    title = break_by_letters(heading, 0.95 * width, 1.15 * size)
    lines, grid = title.count("\n") + 1 if title else 0, own.mix(GRID)
    panel_titles = max((str(a.text).count("<br>") + 1 for a in figure.layout.annotations if a.text), default=0)
    top = 12 + 1.5 * size * lines + 1.35 * size * panel_titles
    small = break_by_letters(caption, 0.95 * width, 0.85 * size)
    bottom = 4.2 * size + (1.2 * size * (small.count("\n") + 2) if small else 0)
    figure.update_layout(
        template="none",
        paper_bgcolor=own.paper,
        plot_bgcolor=own.paper,
        font={"color": own.ink, "size": size},
        margin={"l": 4.5 * size, "r": 1.5 * size, "t": top, "b": bottom},
        legend={"font": {"size": size}},
        hovermode="closest",
    )
    if title:
        place = {"x": 0.5, "xanchor": "center", "y": 1.0, "yanchor": "top", "yref": "container", "pad": {"t": 10}}
        figure.update_layout(title={"text": _html(title), "font": {"size": 1.15 * size, "color": own.ink}, **place})
    if small:
        figure.add_annotation(
            text=_html(small), xref="paper", yref="paper", x=0.5, y=0, yshift=-3.4 * size, showarrow=False,
            yanchor="top", font={"size": 0.85 * size, "color": own.mix(0.65)},
        )  # fmt: skip
    line = {"linecolor": own.mix(0.45), "gridcolor": grid, "zeroline": False, "showline": True, "showgrid": True}
    figure.update_xaxes(ticks="outside", tickcolor=own.mix(0.45), automargin=True, **line)
    figure.update_yaxes(ticks="outside", tickcolor=own.mix(0.45), automargin=True, **line)


def _html(text: str) -> str:
    return text.replace("\n", "<br>")


def finish_bokeh(collection: Any, own: Theme, heading: str, caption: str, on_axes: bool) -> None:
    """Colours, letters and titles as matplotlib's."""
    del on_axes
    size = DOTS * own.size
    points = f"{size:.4g}px"
    for plot in np.ravel(collection.viz["plot"].to_numpy()):
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
        for legend in plot.legend:
            legend.label_text_color, legend.label_text_font_size = own.ink, points
    for text, letters in ((caption, 0.85 * size), (heading, 1.15 * size)):
        if text:  # the last is on top
            styles = {"background": own.paper, "font_family": "sans-serif", "padding": "6px"}
            collection.add_title(text, color=own.ink, size=f"{letters:.4g}px", styles=styles)
