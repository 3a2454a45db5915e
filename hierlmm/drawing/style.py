"""Backends and labels; points and lines as arrays, before they are drawn.

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

BACKENDS = ("matplotlib", "bokeh", "plotly", "none")
PACKAGES = {"bokeh": ("bokeh",), "plotly": ("plotly", "webcolors"), "matplotlib": ("matplotlib",)}
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


def with_unit(name: str, units: Mapping[str, Any]) -> str:
    """The name of a column with its unit, where the table knew it."""
    unit = units.get(without_backticks(name))
    return f"{name} ({unit})" if isinstance(unit, str) and unit else name


def without_backticks(text: str) -> str:
    """The text with names of columns as they are, and not as a formula spells them."""
    return re.sub(r"`([^`]+)`", r"\1", text)


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


def whole_ticks(first: int, last: int, most: int = 7) -> list[int]:
    """At most that many whole numbers from the first to the last, at even steps."""
    steps = (k * 10**power for power in range(12) for k in (1, 2, 5))
    step = next(step for step in steps if (last - first) // step < most)
    return list(range(first, last + 1, step))


def off_the_edges(y: FloatArray, family: str) -> FloatArray:
    """Zeros and ones of a yes-or-no response moved inwards by chance, so that many are seen; others stay."""
    if family != "bernoulli":
        return y
    return y + (1.0 - 2.0 * y) * np.random.default_rng(0).uniform(0.0, 0.06, np.shape(y))


def crowd(n: float) -> float:
    """Opacity of that many points of one panel: where they lie on each other, their density is seen."""
    return float(np.clip(0.65 * (200.0 / max(n, 1.0)) ** 0.5, 0.06, 0.65))
