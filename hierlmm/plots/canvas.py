"""The figure of a picture that ArviZ draws whole: backend, size, axes of the user, and the title with the verdict."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from hierlmm.drawing.figure import Figure, check_figure, figure_options
from hierlmm.drawing.finishing import thin_numbers
from hierlmm.drawing.interactive import finish_bokeh, finish_plotly, palette, panels_of
from hierlmm.drawing.letters import break_artist, break_by_letters, write_literally
from hierlmm.drawing.panels import each
from hierlmm.drawing.style import backend_module, grid_shape, resolve_backend, without_backticks
from hierlmm.drawing.theme import theme
from hierlmm.fits.posterior import PosteriorNumbers


class Canvas:
    """Backend, size and labels for a function of ArviZ, and the title with the verdict.

    Parameters
    ----------
    figure : Figure
        The arguments that all plots share (`hierlmm.drawing.figure.pictured`).
    size : (width, height)
        Inches, for letters of 10 points.
    n_panels : int
    one : str
        How to ask for one panel, where axes are given and there are several; empty if nothing makes one.
    """

    def __init__(self, figure: Figure, size: tuple[float, float], n_panels: int = 1, one: str = "") -> None:
        from hierlmm.bayes.labels import Labeller

        self.backend, self.figure, self.labeller = resolve_backend(figure.get("backend")), figure, Labeller()
        check_figure(figure, self.backend, n_panels, one)
        self.ax = figure.get("ax")
        self.letters = theme().scale if self.backend == "matplotlib" else 1.0
        self.options = figure_options(self.backend, [v * self.letters for v in size], figure)
        if self.ax is not None:
            self.options = {"FigureClass": _handing_out(self.ax)}

    def draw(self, function: str, data: Any, *, sharex: Any = None, **options: Any) -> Any:
        """Call a function of ArviZ by name."""
        import arviz_plots as az
        from arviz_base import rc_context

        if function != "combine_plots":
            options["labeller"] = self.labeller
        with rc_context({"plot.max_subplots": None}), palette(self.backend, theme()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(overlay|constrained_layout).*")
            figure = self.options | ({} if sharex is None else {"sharex": sharex})
            return getattr(az, function)(data, backend=self.backend, figure_kwargs=figure, **options)

    def legend(self, collection: Any, dim: str, title: str = "") -> None:
        """Add a legend, below the panels in matplotlib: there it never meets the title."""
        if self.backend == "matplotlib":
            for own in collection.get_viz("figure").legends:
                own.remove()
            collection.add_legend(dim, title=title, loc="outside lower center", ncols=3, frameon=False)

    def name_grid(self, collection: Any, columns: Sequence[str], rows: Sequence[str]) -> None:
        """Name the columns of a grid above it, and its rows beside it."""
        draw = backend_module(self.backend)
        for column in columns:
            draw.title(column, collection.get_target("draws", {"column": column, "parameter": rows[0]}))
        for row in rows:
            label = row if len(row) <= 14 else row.replace(", ", ",\n")
            draw.ylabel(label, collection.get_target("draws", {"column": columns[0], "parameter": row}))
        if self.backend == "matplotlib":  # rendered from a list of marks, panels have no margins
            for axes in collection.get_viz("figure").axes:
                axes.margins(y=0.15)
        self._drop_texts(collection)

    def _drop_texts(self, collection: Any) -> None:
        """Take texts out of small panels, where they have no place."""
        figure = collection.get_viz("figure")
        if self.backend == "matplotlib":
            for text in [text for axes in figure.axes for text in axes.texts]:
                text.remove()
        elif self.backend == "plotly":
            figure.data = [trace for trace in figure.data if getattr(trace, "mode", "") != "text"]
        elif self.backend == "bokeh":
            for plot in panels_of(collection):
                plot.renderers = [r for r in plot.renderers if type(r.glyph).__name__ != "Text"]

    def lift_names(self, collection: Any) -> None:
        """Move names above the points that they stand at, and make room for them in the frame."""
        if self.backend == "matplotlib":
            from matplotlib.transforms import ScaledTranslation

            figure = collection.get_viz("figure")
            for axes in [self.ax] if self.ax is not None else figure.axes:
                axes.margins(y=0.15)
                up = ScaledTranslation(0.0, 4.0 * self.letters / 72.0, axes.get_figure(root=True).dpi_scale_trans)
                for text in axes.texts:
                    text.set_transform(text.get_transform() + up)

    def finish(self, collection: Any, fit: PosteriorNumbers, what: str, verdict: str, *notes: str) -> Any:
        """Write the title: what is seen, which parameters, and the verdict."""
        from hierlmm.drawing.picture import as_picture

        own, note = self.figure.get("title"), "; ".join(filter(None, notes))
        heading = f"{without_backticks(fit.design.hierarchy.response)}: {what}" + (f" ({note})" if note else "")
        lines = [heading, verdict] if own is None else own.split("\n")
        if self.ax is not None:
            from matplotlib import pyplot

            pyplot.close(collection.get_viz("figure"))
            collection.viz["figure"] = np.array(self.ax.get_figure(root=True), dtype=object)
            self.ax.set_title("\n".join(filter(None, [*lines, self.ax.get_title()])))
            break_artist(self.ax.title, float(self.ax.get_window_extent().width))
        elif self.backend == "matplotlib" and any(lines):
            width = int(9.5 * collection.get_viz("figure").get_size_inches()[0] / self.letters)
            collection.add_title("\n".join(part for line in lines for part in textwrap.wrap(line, width)))
        elif self.backend in ("plotly", "bokeh"):
            heading = "\n".join(filter(None, lines))
            (finish_plotly if self.backend == "plotly" else finish_bokeh)(collection, theme(), heading, "")
        if self.backend == "matplotlib":
            write_literally(self.ax or collection.get_viz("figure"))
        if self.backend == "matplotlib" and self.ax is None:
            figure = collection.get_viz("figure")
            _break_names(figure)
            figure.draw_without_rendering()
            thin_numbers(figure.axes)
        return as_picture(collection, on_given_axes=self.ax is not None)


def wrapped(figure: Figure, n_panels: int, bottom: float = 1.1) -> tuple[Canvas, int]:
    """A canvas for a panel of every parameter, and how many stand in a row."""
    size, columns = each(0.5, 2.7, bottom, 1.8), grid_shape(n_panels)[1]
    columns = size.columns(columns)
    wide, high = size.size(-(-n_panels // columns), columns)
    # In matplotlib the canvas grows as much as the letters.
    letters = theme().scale if resolve_backend(figure.get("backend")) == "matplotlib" else 1.0
    one = "choose one parameter (parameters='sigma')"
    return Canvas(figure, (wide / letters, high / letters), n_panels, one), columns


def _handing_out(ax: Any) -> Any:
    """A class of figures whose one panel is the axes of the user: ArviZ makes a figure, and asks it for panels."""
    from matplotlib.figure import Figure as Drawn

    class OnAxes(Drawn):
        def subplots(self, *_: Any, **__: Any) -> Any:
            panels = np.empty((1, 1), dtype=object)
            panels[0, 0] = ax
            return panels

        def legend(self, *args: Any, **named: Any) -> Any:
            own = {name: value for name, value in named.items() if name not in ("loc", "ncols")}
            return ax.legend(*args, **(own | {"frameon": False}))

    return OnAxes


def _break_names(figure: Any) -> None:
    """Break the names of panels and rows to the cell that each has; label the lowest panel of every column."""
    wide, high = 72.0 * figure.get_size_inches()
    cells = [(axes, spec) for axes in figure.axes if axes.axison and (spec := axes.get_subplotspec()) is not None]
    lowest: dict[int, int] = {}
    for _, spec in cells:
        lowest[spec.colspan.start] = max(spec.rowspan.start, lowest.get(spec.colspan.start, 0))
    for axes, spec in cells:
        rows, columns = spec.get_gridspec().get_geometry()
        for text, room in ((axes.title, wide / columns), (axes.yaxis.label, high / rows)):
            text.set_text(break_by_letters(text.get_text(), 0.95 * room, text.get_fontsize()))
        if spec.rowspan.start == lowest[spec.colspan.start]:  # one above an empty cell too, which shared axes forget
            axes.tick_params(axis="x", labelbottom=True)
        elif not axes.xaxis.get_tick_params().get("labelbottom", True):
            axes.set_xlabel("")
