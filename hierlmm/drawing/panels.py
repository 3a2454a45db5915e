"""A figure of panels: the canvas, marks on its panels, titles, labels and the legend, in every backend of ArviZ.

Everything is drawn through ``arviz_plots.PlotCollection``. Widths of lines and sizes of points are given for letters of
10 points, and follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, check_figure, figure_options
from hierlmm.drawing.finishing import DOTS, MARKERS, Entry, finish_matplotlib, legend_matplotlib
from hierlmm.drawing.interactive import finish_bokeh, finish_plotly, legend_plotly
from hierlmm.drawing.style import (
    LABELLED,
    backend_module,
    grid_shape,
    resolve_backend,
    stack_points,
    without_backticks,
)
from hierlmm.drawing.theme import quiet_axes, theme
from hierlmm.errors import SpecificationError

type Size = tuple[float, float]
CELLS = 50
"""Hexagons in a row."""
WIDEST = 16.0
"""Inches that a figure may be wide before it has fewer columns."""


@dataclass(frozen=True)
class each:
    """Size of a figure whose panels have this size each, with margins, in inches; it has at least this width.

    For letters of 10 points. Margins grow with the letters, panels less; rows of ``text`` grow as much.
    """

    left: float
    column: float
    bottom: float
    row: float
    least: float = 0.0
    text: bool = False

    def size(self, rows: int, columns: int) -> Size:
        """Inches of a figure with that many rows and columns."""
        letters, panel = theme().scale, growth()
        width = letters * self.left + panel * self.column * columns
        row = (letters if self.text else panel) * self.row
        return max(panel * self.least, width), letters * self.bottom + row * rows

    def columns(self, wanted: int) -> int:
        """At most that many columns, and no wider than can be shown."""
        return min(wanted, max(1, int(WIDEST / (growth() * self.column or 1.0))))


def growth() -> float:
    """How panels grow with the letters."""
    scale = theme().scale
    return scale**0.6 if scale > 1.0 else scale


class Panels:
    """A panel for each value of a dimension, in a wrapped grid.

    Parameters
    ----------
    data : xarray.Dataset, or mapping of panels to arrays (2, n)
        Its coordinates name the panels and the values of the aesthetics.
    dim : str
        The dimension of the panels.
    size : (width, height), or `each`
        Inches, for letters of 10 points; what the user gave overrides it.
    figure : Figure
        The arguments that all plots share (`hierlmm.drawing.figure.pictured`).
    col_wrap : int, optional
        As the plots take it.
    name : str
        Name of the variable, where ``data`` is a mapping.
    **aesthetics
        Aesthetic -> the dimension that it shows, and its values.
    """

    def __init__(
        self,
        data: Any,
        dim: str,
        size: Size | each,
        figure: Figure,
        col_wrap: int | None = None,
        *,
        name: str = "",
        sharex: bool = False,
        sharey: bool = False,
        **aesthetics: tuple[str, Sequence[Any]],
    ) -> None:
        self.backend, self.dim, self.figure = resolve_backend(figure.get("backend")), dim, figure
        self.draw, self.theme = backend_module(self.backend), theme()
        data = stack_points(data, dim, name) if isinstance(data, dict) else data
        (self.name,) = data.data_vars
        self.names = data[dim].to_numpy().tolist()
        check_figure(figure, self.backend, len(self.names))
        rows, columns = grid_shape(len(self.names), col_wrap)
        if isinstance(size, each) and col_wrap is None:
            columns = size.columns(columns)
            rows = -(-len(self.names) // columns)
        looks: dict[str, Any] = {key: list(values) for key, (_, values) in aesthetics.items()}
        if looks:
            looks["aes"] = {key: [own] for key, (own, _) in aesthetics.items()}
        inches = size.size(rows, columns) if isinstance(size, each) else (growth() * size[0], growth() * size[1])
        options = figure_options(self.backend, inches, figure, sharex=sharex, sharey=sharey)
        given = figure.get("ax") is not None
        self.collection: Any = self._on_axes(data, looks) if given else self._wrap(data, columns, options, looks)

    def _wrap(self, data: Any, columns: int, options: Any, looks: Any) -> Any:
        from arviz_base import rc_context

        from hierlmm.drawing.picture import Picture, as_picture

        try:
            with rc_context({"plot.max_subplots": None}), quiet_axes():
                made = Picture.wrap(
                    data, cols=[self.dim], col_wrap=columns, backend=self.backend, figure_kwargs=options, **looks
                )
            return as_picture(made)
        except (AttributeError, TypeError, ValueError) as error:
            given = self.figure.get("figure_kwargs")
            if not given:
                raise
            reason = f"{self.backend} cannot make such a figure: {' '.join(str(error).split())[:200]}"
            remedy = "leave figure_kwargs out, and use figsize=(9, 4), in inches, for a size"
            raise SpecificationError(f"figure_kwargs={dict(given)!r}", reason, remedy) from error

    def _on_axes(self, data: Any, looks: Any) -> Any:
        """A collection whose one panel is the axes that the user gave."""
        import xarray as xr

        from hierlmm.drawing.picture import Picture, as_picture

        ax = self.figure["ax"]
        holder = np.empty(1, dtype=object)
        holder[0] = ax
        places = {name: (self.dim, [0]) for name in ("row_index", "col_index")}
        root = {"figure": np.array(ax.get_figure(root=True), dtype=object), "plot": (self.dim, holder), **places}
        tree = xr.DataTree(xr.Dataset(root, coords={self.dim: self.names}))
        return as_picture(Picture(data, tree, backend="matplotlib", **looks), on_given_axes=True)

    def map(self, visual: str | Callable[..., Any], name: str, data: Any, **look: Any) -> None:
        """Draw in all panels by a function of ArviZ (``"line_xy"``, ``"scatter_xy"``) or one's own.

        Data are a Dataset, or a mapping of panels to arrays (2, n).
        """
        from arviz_plots import visuals

        function = getattr(visuals, visual) if isinstance(visual, str) else visual
        data = stack_points(data, self.dim, self.name) if isinstance(data, dict) else data
        self.collection.map(function, name, data=data, **self.sized(look))

    def sized(self, look: Mapping[str, Any]) -> dict[str, Any]:
        """A look with its width (points) and size (points²) as the letters and the backend have them."""
        scaled = dict(look)
        if isinstance(scaled.get("width"), (int, float)):
            scaled["width"] *= self.theme.scale
        if isinstance(size := scaled.get("size"), (int, float)) and self.backend != "none":
            size *= self.theme.scale**2
            # bokeh has the diameter in dots of the screen, plotly its square.
            dots = size * DOTS**2
            scaled["size"] = {"bokeh": dots**0.5, "plotly": dots}.get(self.backend, size)
        if self.backend == "plotly" and "edgecolor" in scaled:
            scaled.setdefault("width", self.theme.scale)  # else a hollow point has no edge
        if isinstance(marker := scaled.get("marker"), str):
            scaled["marker"] = MARKERS[marker].get(self.backend, marker) if marker in MARKERS else marker
            if (self.backend, marker) == ("bokeh", "diamond"):  # its own is narrower
                scaled["angle"] = np.pi / 4
        return scaled

    def scatter(self, panel: Any, x: Any, y: Any, **look: Any) -> None:
        """Draw points in one panel."""
        self.draw.scatter(np.asarray(x), np.asarray(y), self.target(panel), **self.sized(look))

    def line(self, panel: Any, x: Any, y: Any, **look: Any) -> None:
        """Draw a line in one panel."""
        self.draw.line(np.asarray(x), np.asarray(y), self.target(panel), **self.sized(look))

    def cells(self, panel: Any, x: FloatArray, y: FloatArray) -> None:
        """Draw how many points lie where, as hexagons from paper to grey on a logarithmic scale (matplotlib)."""
        from matplotlib.colors import ListedColormap

        shades = ListedColormap([self.theme.mix(share) for share in np.linspace(0.12, 0.8, 64)])
        self.target(panel).hexbin(x, y, gridsize=CELLS, mincnt=1, bins="log", cmap=shades, linewidths=0.2, zorder=0.5)

    def row_of_cells(self, panel: Any, y: float, colours: Sequence[str]) -> None:
        """Fill squares around (0, y), (1, y), ... with colours, as few areas as may be: each takes time."""
        if self.backend == "matplotlib":
            from matplotlib.colors import to_rgb

            edges = np.arange(len(colours) + 1) - 0.5
            self.target(panel).pcolormesh(edges, [y - 0.5, y + 0.5], [[to_rgb(colour) for colour in colours]])
            return
        at = 0
        for colour, alike in groupby(colours):
            ends = np.array([at - 0.5, (at := at + len(list(alike))) - 0.5])
            self.band(panel, ends, np.full(2, y - 0.5), np.full(2, y + 0.5), color=colour, alpha=1.0)

    def target(self, panel: Any) -> Any:
        """The axes of a panel."""
        return self.collection.get_target(self.name, {self.dim: panel})

    @property
    def dashes(self) -> Any:
        """The second style of lines."""
        return self.draw.get_default_aes("linestyle", 2)[1]

    def rule(
        self, panel: Any, *, x: float | None = None, y: float | None = None, width: float = 1, **look: Any
    ) -> None:
        """Draw a grey line across a panel, at x or at y."""
        line, at = (self.draw.vline, x) if y is None else (self.draw.hline, y)
        if self.backend == "plotly":  # which draws nothing into a panel that is empty so far
            look["exclude_empty_subplots"] = False
        line(at, self.target(panel), color=self.theme.grey, width=width * self.theme.scale, **look)

    def band(self, panel: Any, x: FloatArray, low: Any, high: Any, *, alpha: float, color: str | None = None) -> None:
        """Fill between two lines."""
        low, high = (np.asarray(side, dtype=np.float64) for side in (low, high))
        color = self.theme.palette[0] if color is None else color
        self.draw.fill_between_y(x, low, high, self.target(panel), color=color, alpha=alpha)

    def name_rows(
        self,
        panel: Any,
        at: Iterable[float],
        names: Iterable[Any],
        *,
        room: float = 0.8,
        most: int = LABELLED,
        **look: Any,
    ) -> None:
        """Name the rows of a panel, unless they are more than can be read, and leave room above and below them."""
        rows, texts = list(at), [str(name) for name in names]
        texts = [text.replace("\n", "<br>") for text in texts] if self.backend == "plotly" else texts
        shown = (rows, texts) if len(rows) <= most else ([], [])
        self.draw.yticks(*shown, self.target(panel), **look)
        self.limit(panel, y=(min(rows) - room, max(rows) + room))

    def name_point(self, panel: Any, x: float, y: float, name: str, *, left: bool) -> None:
        """Write a name beside a point, to its left or to its right."""
        text, side = (f"{name}  ", "right") if left else (f"  {name}", "left")
        if self.backend == "plotly":  # which says where the text lies, and not which of its ends is at the point
            side = "left" if left else "right"
        look: dict[str, Any] = {
            "vertical_align": "center" if self.backend == "matplotlib" else "middle",
            "horizontal_align": side,
        }
        look |= {"size": 0.75 * self.theme.size, "color": self.theme.ink}
        self.draw.text(x, y, text, self.target(panel), **look)

    def limit(self, panel: Any, x: Sequence[float] | None = None, y: Sequence[float] | None = None) -> None:
        """Set the ranges of the axes of a panel."""
        if x is not None:
            self.draw.xlim(tuple(x), self.target(panel))
        if y is not None:
            self.draw.ylim(tuple(y), self.target(panel))

    def ratios(self, axis: str, values: FloatArray, null: float) -> None:
        """Put an axis of ratios on a logarithmic scale in all panels (matplotlib), with numbers that can be read."""
        known = values[np.isfinite(values)]
        if self.backend != "matplotlib" or not len(known) or known.min() <= 0.0:
            return
        from matplotlib.ticker import MaxNLocator, NullLocator

        low, high = min(float(known.min()), null), max(float(known.max()), null)
        room = (high / low) ** 0.06
        low, high = low / room, high * room
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1.0)
        steps = (1.0,) if high / low > 300.0 else (1.0, 3.0) if high / low > 30.0 else (1.0, 2.0, 5.0)
        ticks = np.sort(np.outer(decades, steps).ravel())
        if high / low < 5.0:
            ticks = np.asarray(MaxNLocator(4).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        for panel in self.names:
            target = self.target(panel)
            getattr(target, f"set_{axis}scale")("log")
            getattr(target, f"set_{axis}lim")(low, high)
            getattr(target, f"set_{axis}ticks")(ticks, [f"{tick:g}" for tick in ticks])
            getattr(target, f"{axis}axis").set_minor_locator(NullLocator())

    def finish(
        self,
        titles: Mapping[Any, str] | None = None,
        *,
        title: str | None = None,
        caption: str = "",
        xlabel: str | Mapping[Any, str] | None = None,
        ylabel: str | None = None,
        legend: Sequence[Entry] = (),
    ) -> Any:
        """Add what is written: titles (the panels' names by default), labels of the outer axes, a caption, a legend.

        Returns
        -------
        Picture
        """
        titles = {name: str(name) for name in self.names} if titles is None else titles
        own = self.figure.get("title")
        heading = without_backticks((title or "") if own is None else own)

        self.collection.title, self.collection.caption = heading, caption
        on_axes = self.figure.get("ax") is not None
        if on_axes:  # the figure is the user's: its one panel has all titles
            titles = {name: "\n".join(filter(None, [heading, text])) for name, text in titles.items()}
            heading = ""
        with quiet_axes():
            self._label(titles, xlabel, None if ylabel is None else without_backticks(ylabel))
            written = (self.collection, self.theme, heading, caption)
            if self.backend == "matplotlib":
                if legend:
                    legend_matplotlib(self, legend, on_axes=on_axes)
                finish_matplotlib(*written, on_axes)
            elif self.backend == "plotly":
                legend_plotly(self, legend)
                finish_plotly(*written)
            elif self.backend == "bokeh":
                finish_bokeh(*written, legend)
        return self.collection

    def _label(self, titles: Mapping[Any, str], xlabel: str | Mapping[Any, str] | None, ylabel: str | None) -> None:
        cells = {name: self.collection.viz.dataset.sel({self.dim: name}) for name in titles}
        places = {name: (int(cell["row_index"]), int(cell["col_index"])) for name, cell in cells.items()}
        last_row = {column: max(r for r, c in places.values() if c == column) for _, column in places.values()}
        for name, text in titles.items():
            target, (row, column) = cells[name]["plot"].item(), places[name]
            self.draw.title(without_backticks(text), target)
            if isinstance(xlabel, Mapping):
                self.draw.xlabel(without_backticks(xlabel[name]), target)
            elif xlabel is not None and row == last_row[column]:
                self.draw.xlabel(without_backticks(xlabel), target)
                # A panel above an empty cell is the lowest of its column, and shared axes would leave it unlabelled.
                self.draw.set_ticklabel_visibility(target, axis="x", visible=True)
            if ylabel is not None and column == 0:
                self.draw.ylabel(ylabel, target)
