"""A figure of panels: the canvas, marks on its panels, titles, labels and the legend, in every backend of ArviZ.

Everything is drawn through ``arviz_plots.PlotCollection``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.drawing.style import (
    DPI,
    GREY,
    LABELLED,
    PALETTE,
    backend_module,
    grid_shape,
    resolve_backend,
    stack_points,
    without_backticks,
    wrap_title,
)
from hierlmm.errors import SpecificationError

type Size = tuple[float, float]


def each(left: float, column: float, bottom: float, row: float, least: float = 0.0) -> Callable[[int, int], Size]:
    """Size of a figure whose panels have this size each, with margins; it has at least this width."""
    return lambda rows, columns: (max(least, left + column * columns), bottom + row * rows)


class Panels:
    """A panel for each value of a dimension, in a wrapped grid.

    Parameters
    ----------
    data : xarray.Dataset, or mapping of panels to arrays (2, n)
        Its coordinates name the panels and the values of the aesthetics.
    dim : str
        The dimension of the panels.
    size : (width, height), or a function of the numbers of rows and columns that returns it
        Inches (`each`); ``figure_kwargs`` overrides it.
    backend, figure_kwargs, col_wrap
        As the plots take them.
    name : str
        Name of the variable, where ``data`` is a mapping.
    **aesthetics
        Aesthetic -> the dimension that it shows, and its values.
    """

    def __init__(
        self,
        data: Any,
        dim: str,
        size: Size | Callable[[int, int], Size],
        backend: str | None,
        figure_kwargs: Mapping[str, Any] | None,
        col_wrap: int | None = None,
        *,
        name: str = "",
        sharex: bool = False,
        sharey: bool = False,
        **aesthetics: tuple[str, Sequence[Any]],
    ) -> None:
        self.backend, self.dim = resolve_backend(backend), dim
        self.draw = backend_module(self.backend)
        data = stack_points(data, dim, name) if isinstance(data, dict) else data
        (self.name,) = data.data_vars
        self.names = data[dim].to_numpy().tolist()
        rows, columns = grid_shape(len(self.names), col_wrap)
        looks: dict[str, Any] = {key: list(values) for key, (_, values) in aesthetics.items()}
        if looks:
            looks["aes"] = {key: [own] for key, (own, _) in aesthetics.items()}
        width_height = size(rows, columns) if callable(size) else size
        figure = _figure(self.backend, width_height, figure_kwargs, sharex, sharey)
        self.collection = self._wrap(data, columns, figure, figure_kwargs, looks)

    def _wrap(self, data: Any, columns: int, figure: Any, given: Mapping[str, Any] | None, looks: Any) -> Any:
        from arviz_base import rc_context
        from arviz_plots import PlotCollection

        try:
            with rc_context({"plot.max_subplots": None}):
                return PlotCollection.wrap(
                    data, cols=[self.dim], col_wrap=columns, backend=self.backend, figure_kwargs=figure, **looks
                )
        except (AttributeError, TypeError, ValueError) as error:
            if not given:
                raise
            reason = f"{self.backend} cannot make such a figure: {' '.join(str(error).split())[:200]}"
            remedy = "use for example figure_kwargs={'figsize': (9, 4)}, in inches"
            raise SpecificationError(f"figure_kwargs={dict(given)!r}", reason, remedy) from error

    def map(self, visual: str | Callable[..., Any], name: str, data: Any, **look: Any) -> None:
        """Draw in all panels by a function of ArviZ (``"line_xy"``, ``"scatter_xy"``) or one's own.

        Data are a Dataset, or a mapping of panels to arrays (2, n).
        """
        from arviz_plots import visuals

        function = getattr(visuals, visual) if isinstance(visual, str) else visual
        data = stack_points(data, self.dim, self.name) if isinstance(data, dict) else data
        self.collection.map(function, name, data=data, **look)

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
        line(at, self.target(panel), color=GREY, width=width, **look)

    def band(self, panel: Any, x: FloatArray, low: Any, high: Any, *, alpha: float, color: str = PALETTE[0]) -> None:
        """Fill between two lines."""
        low, high = (np.asarray(side, dtype=np.float64) for side in (low, high))
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
        shown = (rows, texts) if len(rows) <= most else ([], [])
        self.draw.yticks(*shown, self.target(panel), **look)
        self.limit(panel, y=(min(rows) - room, max(rows) + room))

    def limit(self, panel: Any, x: Sequence[float] | None = None, y: Sequence[float] | None = None) -> None:
        """Set the ranges of the axes of a panel."""
        if x is not None:
            self.draw.xlim(tuple(x), self.target(panel))
        if y is not None:
            self.draw.ylim(tuple(y), self.target(panel))

    def finish(
        self,
        titles: Mapping[Any, str] | None = None,
        *,
        title: str | None = None,
        xlabel: str | Mapping[Any, str] | None = None,
        ylabel: str | None = None,
        legend: str | None = None,
        legend_columns: int | None = None,
    ) -> Any:
        """Add titles (the panels' names by default), labels of the outer axes and a legend; return the collection."""
        titles = {name: wrap_title(name) for name in self.names} if titles is None else titles
        self._label(titles, xlabel, None if ylabel is None else without_backticks(ylabel))
        if title is not None:
            self._add_title(without_backticks(title))
        if legend is not None:
            self._add_legend(legend, legend_columns)
        return self.collection

    def _label(self, titles: Mapping[Any, str], xlabel: str | Mapping[Any, str] | None, ylabel: str | None) -> None:
        cells = {name: self.collection.viz.dataset.sel({self.dim: name}) for name in titles}
        places = {name: (int(cell["row_index"]), int(cell["col_index"])) for name, cell in cells.items()}
        last_row = {column: max(r for r, c in places.values() if c == column) for _, column in places.values()}
        for name, text in titles.items():
            target, (row, column) = cells[name]["plot"].item(), places[name]
            self.draw.title(text, target)
            if isinstance(xlabel, Mapping):
                self.draw.xlabel(without_backticks(xlabel[name]), target)
            elif xlabel is not None and row == last_row[column]:
                self.draw.xlabel(without_backticks(xlabel), target)
                # A panel above an empty cell is the lowest of its column, and shared axes would leave it unlabelled.
                self.draw.set_ticklabel_visibility(target, axis="x", visible=True)
            if ylabel is not None and column == 0:
                self.draw.ylabel(ylabel, target)

    @property
    def width(self) -> float:
        """Width of a figure of matplotlib, in inches."""
        return float(self.collection.get_viz("figure").get_size_inches()[0])

    def _add_title(self, title: str) -> None:
        lines = textwrap.wrap(title, int(9.5 * self.width)) if self.backend == "matplotlib" else [title]
        self.collection.add_title("\n".join(lines))

    def _add_legend(self, dim: str, columns: int | None) -> None:
        place: dict[str, Any] = {}
        if self.backend == "matplotlib":
            if columns is None:
                names = [str(v) for v in self.collection.aes["color"].to_dataset()[dim].to_numpy()]
                # A column holds its line and the longest text, at about 0.09 inches a letter.
                wide = max(1.15, 0.6 + 0.09 * max(map(len, names)))
                columns = min(len(names), max(1, int(self.width / wide)))
            # Below the panels a legend never meets the title, whatever the shape of the figure.
            place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
        self.collection.add_legend(dim, title="", **place)


def _figure(
    backend: str, size: Size, figure_kwargs: Mapping[str, Any] | None, sharex: bool, sharey: bool
) -> dict[str, Any]:
    """Options of the backend's figure."""
    options: dict[str, Any] = {"figsize": (size[0] * DPI, size[1] * DPI), "figsize_units": "dots"}
    if backend == "matplotlib":
        # Constrained layout keeps titles, labels and the legend inside the figure, also without bbox_inches="tight".
        options = {"figsize": size, "figsize_units": "inches", "layout": "constrained"}
    given = dict(figure_kwargs or {})
    if "figsize" in given and backend != "matplotlib":
        given.setdefault("figsize_units", "inches")
    options |= {"sharex": sharex, "sharey": sharey} | given
    if backend != "matplotlib" and options["figsize_units"] == "inches":
        options |= {"figsize": tuple(DPI * v for v in options["figsize"]), "figsize_units": "dots"}
    return options
