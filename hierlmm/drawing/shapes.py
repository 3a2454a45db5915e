"""Points and lines as arrays, before they are drawn.

Many segments of one look are one line with gaps (NaN between them): 200 subjects cost as much as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import SpecificationError

__all__ = ["NOTHING", "break_lines", "evenly", "join_with_gaps", "segments", "stack_points"]

FloatArray = NDArray[np.float64]
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


def evenly(n: int, most: int | None, name: str = "max_subjects") -> NDArray[np.intp]:
    """Positions of at most that many of n things, evenly spaced, the first and the last included."""
    if most is not None and most < 1:
        raise SpecificationError(f"{name}={most!r}", "at least one subject must be drawn", "use a number of 1 or more")
    return np.unique(np.linspace(0, n - 1, min(n, n if most is None else most)).round().astype(int))
