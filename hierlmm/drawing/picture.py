"""The object that every plot returns: a plot collection of ArviZ that a notebook shows as its picture.

Imported where something is drawn: it loads ArviZ.
"""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from arviz_plots import PlotCollection, PlotMatrix

RESOLUTION = 2
"""Dots of the picture in a notebook for each dot of its size there, for sharp letters on any screen."""


class _Shown:
    """``savefig``, ``show`` and the forms of a notebook, for both kinds of collections."""

    backend: str
    on_given_axes = False
    title = ""
    caption = ""
    """What stands above and below the panels."""

    def _figure(self) -> Any:
        return self.get_viz("figure")  # type: ignore[attr-defined]

    def _repr_png_(self) -> Any:
        """The picture of matplotlib, with its size, unless the notebook shows the figure of the given axes anyway."""
        if self.backend != "matplotlib" or (self.on_given_axes and _is_open(self._figure())):
            return None
        figure, file = self._figure(), io.BytesIO()
        figure.savefig(file, format="png", dpi=RESOLUTION * figure.dpi)
        width, height = (round(v) for v in figure.get_size_inches() * figure.dpi)
        return file.getvalue(), {"width": width, "height": height}

    def _repr_html_(self) -> str | None:
        """The picture of plotly or bokeh, whole: it asks nothing of the network."""
        if self.backend not in ("plotly", "bokeh"):
            return None
        page, height = _page(self.backend, self._figure())
        look = f'width="100%" height="{height}" style="border: 0"'
        return f'<iframe srcdoc="{html.escape(page)}" {look}></iframe>'

    def __repr__(self) -> str:
        found = self._viz_dt["plot"]  # type: ignore[attr-defined]  # one array of panels, or an array for each variable
        n = sum(v.size for v in found.data_vars.values()) if hasattr(found, "data_vars") else found.size
        return f"<{type(self).__name__} of {n} panel{'' if n == 1 else 's'} by {self.backend}: .savefig(path), .show()>"

    def savefig(self, filename: Any, **options: Any) -> None:
        """Write the picture to a file.

        Parameters
        ----------
        filename : str or Path
            matplotlib: ``.png``, ``.pdf``, ``.svg``, ...; plotly and bokeh: ``.html``, which needs nothing from the
            network, and pictures where their own packages for these are installed.
        **options
            Passed to the backend.
        """
        path = Path(filename)
        if self.backend == "bokeh" and path.suffix == ".html" and not options:
            path.write_text(_page("bokeh", self._figure())[0], encoding="utf-8")
            return
        super().savefig(path, **options)  # type: ignore[misc]

    def show(self) -> None:
        """Show the picture: in a notebook below the cell, elsewhere in a window or browser."""
        if self.backend == "matplotlib" and not _is_open(self._figure()) and (display := _display()):
            display(self)
            return
        super().show()  # type: ignore[misc]


class Picture(_Shown, PlotCollection):
    """What every plot returns: a notebook shows it, ``savefig`` writes it, ``get_viz("figure")`` is the figure."""


class PictureMatrix(_Shown, PlotMatrix):
    """A `Picture` whose panels are pairs."""


def as_picture(collection: Any, *, on_given_axes: bool = False) -> Any:
    """Make a `Picture` of a plot collection of ArviZ (the same object), and take its figure out of pyplot's hands.

    Else a notebook shows a figure of matplotlib twice, and pyplot keeps all of them. Windows stay open.
    """
    if not isinstance(collection, _Shown):
        collection.__class__ = PictureMatrix if isinstance(collection, PlotMatrix) else Picture
    collection.on_given_axes = on_given_axes
    if collection.backend == "matplotlib" and not on_given_axes and not _has_windows():
        from matplotlib import pyplot

        pyplot.close(collection.get_viz("figure"))
    return collection


def _page(backend: str, figure: Any) -> tuple[str, int]:
    """A page with the figure and all that it needs, and the height of the figure in dots."""
    if backend == "plotly":
        return figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False}), int(
            figure.layout.height or 450
        ) + 20
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    return file_html(figure, INLINE, title="hierlmm"), _bokeh_height(figure) + 40


def _bokeh_height(figure: Any) -> int:
    """Height of plots in a grid, one below the other, and of what stands above them."""
    children = getattr(figure, "children", [])
    if not children:
        return int(getattr(figure, "height", None) or 60)
    if isinstance(children[0], tuple):  # a grid: (plot, row, column)
        rows: dict[int, int] = {}
        for plot, row, *_ in children:
            rows[row] = max(rows.get(row, 0), _bokeh_height(plot))
        return sum(rows.values())
    return sum(_bokeh_height(child) for child in children)


def _has_windows() -> bool:
    """Whether pyplot opens windows, which are its own."""
    import matplotlib
    from matplotlib.backends import BackendFilter, backend_registry

    return matplotlib.get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE)


def _is_open(figure: Any) -> bool:
    from matplotlib import pyplot

    number = getattr(figure, "number", None)
    return number is not None and pyplot.fignum_exists(number)


def _display() -> Any:
    """The ``display`` of a notebook; None outside of one."""
    import sys

    shell = sys.modules.get("IPython")
    return shell.display.display if shell is not None and shell.get_ipython() is not None else None
