"""What the plots share: the canvas, colours, labels, and lines drawn as one artist.

Everything is drawn through ``arviz_plots.PlotCollection``, so that every plot exists in every backend of ArviZ. Many
segments of one look are one line with gaps (NaN between them): 200 subjects cost as much as one.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module, util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import MissingPackageError, SpecificationError

__all__ = [
    "GREY",
    "LABELLED",
    "PALETTE",
    "backend_module",
    "break_lines",
    "canvas",
    "finish",
    "grid_shape",
    "join_with_gaps",
    "percent",
    "resolve_backend",
    "segments",
    "stack_points",
    "without_backticks",
    "wrap_title",
]

FloatArray = NDArray[np.float64]
# Okabe and Ito (2008): distinct under every common colour-vision deficiency.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8c8c8c"
BACKENDS = ("matplotlib", "bokeh", "plotly", "none")
PACKAGES = {"bokeh": ("bokeh",), "plotly": ("plotly", "webcolors"), "matplotlib": ("matplotlib",)}
DPI = 100
LABELLED = 60
"""Most subjects whose names are written on the axis."""


def resolve_backend(backend: str | None) -> str:
    """Return the backend to draw with: ArviZ's default (``rcParams["plot.backend"]``) if none is named.

    Raises
    ------
    SpecificationError
        If ArviZ has no such backend.
    MissingPackageError
        If its package is not installed.
    """
    from arviz_base import rcParams

    name = str(rcParams["plot.backend"]) if backend is None else backend
    if name not in BACKENDS:
        raise SpecificationError(
            f"backend={name!r}", "ArviZ has no backend of this name", f"use one of {', '.join(map(repr, BACKENDS))}"
        )
    lacking = [package for package in PACKAGES.get(name, ()) if util.find_spec(package) is None]
    if lacking:
        raise MissingPackageError(
            f"backend={name!r}",
            f"the package {lacking[0]} is not installed",
            'pip install "hierlmm[interactive]", or leave backend out to draw with matplotlib',
            "docs, page 'Installation'",
        )
    return name


def backend_module(backend: str) -> Any:
    """Functions of a backend: ``title``, ``xlabel``, ``yticks``, ``ylim``, ..."""
    return import_module(f"arviz_plots.backend.{backend}")


def grid_shape(n_panels: int, col_wrap: int | None = None) -> tuple[int, int]:
    """Return rows and columns of a wrapped grid: ``col_wrap`` columns, or 3 or 4, whichever fills it better."""
    if col_wrap is not None and col_wrap < 1:
        raise SpecificationError(
            f"col_wrap={col_wrap!r}", "a row holds at least one panel", "use a number of 1 or more"
        )
    columns = min(n_panels, col_wrap or (3 if n_panels in (5, 6, 9) else 4))
    return -(-n_panels // columns), columns


def canvas(
    data: Any,
    panel: str,
    *,
    backend: str,
    size: tuple[float, float],
    col_wrap: int,
    figure_kwargs: Mapping[str, Any] | None,
    sharex: bool = False,
    sharey: bool = False,
    **aesthetics: Any,
) -> Any:
    """Make a `PlotCollection` with one panel for each coordinate of the dimension ``panel``.

    Parameters
    ----------
    data : xarray.Dataset
        Its coordinates name the panels and the values of the aesthetics.
    size : (width, height)
        Inches; ``figure_kwargs`` overrides it.
    **aesthetics
        ``aes=`` and values of aesthetics, passed to ``PlotCollection.wrap``.
    """
    from arviz_base import rc_context
    from arviz_plots import PlotCollection

    options: dict[str, Any] = {"figsize": (size[0] * DPI, size[1] * DPI), "figsize_units": "dots"}
    if backend == "matplotlib":
        # Constrained layout keeps titles, labels and the legend inside the figure, also without bbox_inches="tight".
        options = {"figsize": size, "figsize_units": "inches", "layout": "constrained"}
    options |= {"sharex": sharex, "sharey": sharey}
    given = dict(figure_kwargs or {})
    if "figsize" in given and backend != "matplotlib":
        given.setdefault("figsize_units", "inches")
    options |= given
    if backend != "matplotlib" and options["figsize_units"] == "inches":
        options |= {"figsize": tuple(DPI * v for v in options["figsize"]), "figsize_units": "dots"}
    try:
        with rc_context({"plot.max_subplots": None}):
            return PlotCollection.wrap(
                data, cols=[panel], col_wrap=col_wrap, backend=backend, figure_kwargs=options, **aesthetics
            )
    except (AttributeError, TypeError, ValueError) as error:
        if not figure_kwargs:
            raise
        raise SpecificationError(
            f"figure_kwargs={dict(figure_kwargs)!r}",
            f"{backend} cannot make such a figure: {' '.join(str(error).split())[:200]}",
            "use for example figure_kwargs={'figsize': (9, 4)}, in inches",
        ) from error


def finish(
    collection: Any,
    panel: str,
    titles: Mapping[Any, str],
    *,
    title: str | None,
    xlabel: str | Mapping[Any, str] | None = None,
    ylabel: str | None = None,
    legend: str | None = None,
) -> Any:
    """Add panel titles, axis labels on the outer panels, the figure's title and the legend of a dimension."""
    draw = backend_module(collection.backend)
    title, ylabel = (None if text is None else without_backticks(text) for text in (title, ylabel))
    if isinstance(xlabel, Mapping):
        xlabel = {value: without_backticks(text) for value, text in xlabel.items()}
    elif xlabel is not None:
        xlabel = without_backticks(xlabel)
    positions = collection.viz
    last_row: dict[int, int] = {}
    for value in titles:
        cell = positions.dataset.sel({panel: value})
        last_row[int(cell["col_index"])] = max(last_row.get(int(cell["col_index"]), 0), int(cell["row_index"]))
    for value, text in titles.items():
        cell = positions.dataset.sel({panel: value})
        target, row, column = cell["plot"].item(), int(cell["row_index"]), int(cell["col_index"])
        draw.title(text, target)
        if isinstance(xlabel, Mapping):
            draw.xlabel(xlabel[value], target)
        elif xlabel is not None and row == last_row[column]:
            draw.xlabel(xlabel, target)
            # A panel above an empty cell is the lowest of its column, and shared axes would leave it unlabelled.
            draw.set_ticklabel_visibility(target, axis="x", visible=True)
        if ylabel is not None and column == 0:
            draw.ylabel(ylabel, target)
    matplotlib = collection.backend == "matplotlib"
    width = collection.get_viz("figure").get_size_inches()[0] if matplotlib else 1.0
    if title is not None:
        collection.add_title("\n".join(textwrap.wrap(title, int(9.5 * width))) if matplotlib else title)
    if legend is not None:
        entries = collection.aes["color"].to_dataset()
        n = entries.sizes.get(legend, 0)
        # A column holds its line and the longest text, at about 0.09 inches a letter.
        longest = max((len(str(v)) for v in entries[legend].to_numpy()), default=0) if legend in entries.coords else 0
        wide = max(1.15, 0.6 + 0.09 * longest)
        # Below the panels a legend never meets the title, whatever the shape of the figure.
        place = {"loc": "outside lower center", "ncols": min(n, max(1, int(width / wide))), "frameon": False}
        collection.add_legend(legend, title="", **(place if matplotlib else {}))
    return collection


def segments(start: FloatArray, end: FloatArray, position: FloatArray) -> FloatArray:
    """Horizontal segments as one line with gaps: rows x and y, (2, 3n)."""
    gap = np.full_like(np.asarray(start, dtype=float), np.nan)
    x = np.column_stack([start, end, gap]).ravel()
    y = np.column_stack([position, position, gap]).ravel()
    return np.vstack([x, y])


def join_with_gaps(lines: Sequence[FloatArray]) -> FloatArray:
    """Lines of shape (2, n_i) as one line with gaps, (2, Σ(n_i + 1))."""
    gap = np.full((2, 1), np.nan)
    return np.hstack([part for line in lines for part in (line, gap)]) if lines else np.full((2, 1), np.nan)


def break_lines(line: FloatArray, jumps: FloatArray) -> FloatArray:
    """A line (rows x, y, ...) with a gap after the last point before each jump."""
    return np.insert(line, np.flatnonzero(np.isin(line[0], jumps[0])) + 1, np.nan, axis=1)


def stack_points(parts: Mapping[Any, FloatArray], dim: str, name: str) -> Any:
    """Arrays of shape (2, n_k), padded with NaN, as one Dataset with dimensions ``dim``, ``plot_axis``, ``point``."""
    import xarray as xr

    width = max((part.shape[1] for part in parts.values()), default=0)
    stacked = np.full((len(parts), 2, width), np.nan)
    for k, part in enumerate(parts.values()):
        stacked[k, :, : part.shape[1]] = part
    coords = {dim: list(parts), "plot_axis": ["x", "y"]}
    return xr.Dataset({name: ((dim, "plot_axis", "point"), stacked)}, coords=coords)


def percent(ci: float) -> str:
    """Write 0.95 as ``95 %``."""
    return f"{100 * ci:g} %"


def without_backticks(text: str) -> str:
    """The text with names of columns as they are, and not as a formula spells them."""
    return re.sub(r"`([^`]+)`", r"\1", text)


def wrap_title(text: str, width: int = 26) -> str:
    """Break a long name of a parameter after colons, commas and dots, so that neighbouring titles do not overlap."""
    lines = [""]
    for piece in re.split(r"(?<=[:, ])", text):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)
