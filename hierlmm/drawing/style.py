"""Backends, colours and labels; points and lines as arrays, before they are drawn.

Many segments of one look are one line with gaps (NaN between them): 200 subjects cost as much as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module, util
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import MissingPackageError, SpecificationError

# Okabe and Ito (2008): distinct under every common colour-vision deficiency.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8c8c8c"
INK = "#202020"
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
        reason = "ArviZ has no backend of this name"
        raise SpecificationError(f"backend={name!r}", reason, f"use one of {', '.join(map(repr, BACKENDS))}")
    lacking = [package for package in PACKAGES.get(name, ()) if util.find_spec(package) is None]
    if lacking:
        reason = f"the package {lacking[0]} is not installed"
        remedy = 'pip install "hierlmm[interactive]", or leave backend out to draw with matplotlib'
        raise MissingPackageError(f"backend={name!r}", reason, remedy, "docs, page 'Installation'")
    return name


def backend_module(backend: str) -> Any:
    """Functions of a backend: ``title``, ``xlabel``, ``yticks``, ``ylim``, ..."""
    return import_module(f"arviz_plots.backend.{backend}")


def grid_shape(n_panels: int, col_wrap: int | None = None) -> tuple[int, int]:
    """Return rows and columns of a wrapped grid: ``col_wrap`` columns, or 3 or 4, whichever fills it better."""
    if col_wrap is not None and col_wrap < 1:
        received = f"col_wrap={col_wrap!r}"
        raise SpecificationError(received, "a row holds at least one panel", "use a number of 1 or more")
    columns = min(n_panels, col_wrap or (3 if n_panels in (5, 6, 9) else 4))
    return -(-n_panels // columns), columns


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


NOTHING = np.full((2, 1), np.nan)
"""A line or points of which none is seen."""


def segments(start: FloatArray, end: FloatArray, position: FloatArray) -> FloatArray:
    """Horizontal segments as one line with gaps: rows x and y, (2, 3n)."""
    gap = np.full_like(np.asarray(start, dtype=float), np.nan)
    x = np.column_stack([start, end, gap]).ravel()
    y = np.column_stack([position, position, gap]).ravel()
    return np.vstack([x, y])


def join_with_gaps(lines: Sequence[FloatArray]) -> FloatArray:
    """Lines of shape (2, n_i) as one line with gaps, (2, Σ(n_i + 1))."""
    return np.hstack([part for line in lines for part in (line, NOTHING)]) if lines else NOTHING


def break_lines(line: FloatArray, jumps: FloatArray) -> FloatArray:
    """A line (rows x, y, ...) with a gap after the last point before each jump."""
    return np.insert(line, np.flatnonzero(np.isin(line[0], jumps[0])) + 1, np.nan, axis=1)


def stack_points(
    parts: Mapping[Any, FloatArray], dims: str | tuple[str, ...], name: str, axes: Sequence[str] = ("x", "y")
) -> Any:
    """Arrays (axes, n), padded with NaN, as one Dataset with dimensions ``dims``, ``plot_axis``, ``point``.

    Their keys are the coordinates of one dimension, or tuples of those of several.
    """
    import xarray as xr

    dims = (dims,) if isinstance(dims, str) else dims
    keys = [key if len(dims) > 1 else (key,) for key in parts]
    coords = {dim: list(dict.fromkeys(key[k] for key in keys)) for k, dim in enumerate(dims)}
    width = max((part.shape[1] for part in parts.values()), default=0)
    stacked = np.full((*map(len, coords.values()), len(axes), width), np.nan)
    for key, part in zip(keys, parts.values(), strict=True):
        at = tuple(known.index(value) for known, value in zip(coords.values(), key, strict=True))
        stacked[at][:, : part.shape[1]] = part
    coords["plot_axis"] = list(axes)
    return xr.Dataset({name: ((*dims, "plot_axis", "point"), stacked)}, coords=coords)


def evenly(n: int, most: int | None, name: str = "max_subjects") -> IntArray:
    """Positions of at most that many of n things, evenly spaced, the first and the last included."""
    if most is not None and most < 1:
        raise SpecificationError(f"{name}={most!r}", "at least one subject must be drawn", "use a number of 1 or more")
    return np.unique(np.linspace(0, n - 1, min(n, n if most is None else most)).round().astype(int))
