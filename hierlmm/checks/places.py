"""Where a mean or a spread is looked at along a column: means of its levels, or a smoother through its values.

Both are linear in what is averaged, ``W r`` with W (places, n), so that all simulated data sets cost one product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.residual_curve import smoother_weights
from hierlmm.drawing.style import evenly
from hierlmm.frames import is_number

FEW, MANY = 12, 21
"""Distinct values up to which each has a mean of its own; places of a smoother otherwise."""
MOST = 2000
"""Rows that a smoother goes through where its places differ between data sets; of more evenly spaced ones."""


@dataclass(frozen=True, eq=False)
class Places:
    """Places along a column.

    Attributes
    ----------
    name : str
    x : (places,)
        Values, or positions of levels.
    labels : list of str
        Levels; empty for numbers.
    values : (n,)
        The column as numbers.
    weights : (places, n)
    """

    name: str
    x: FloatArray
    labels: list[str]
    values: FloatArray
    weights: FloatArray

    def at_rows(self, curve: FloatArray) -> FloatArray:
        """Values at the places, (places, c), carried to the rows by straight lines between them: (n, c)."""
        k = np.clip(np.searchsorted(self.x, self.values, side="right") - 1, 0, len(self.x) - 2)
        share = np.clip((self.values - self.x[k]) / (self.x[k + 1] - self.x[k]), 0.0, 1.0)[:, None]
        return np.asarray((1.0 - share) * curve[k] + share * curve[k + 1])


def places(column: pd.Series, name: str | None = None) -> Places | None:
    """Places along a column; None where it has one value, or too many levels."""
    name = str(column.name) if name is None else name
    numeric = is_number(column) and column.dtype != bool
    codes, levels = pd.factorize(column, sort=True)
    if len(levels) < 2 or np.any(codes < 0) or (not numeric and len(levels) > FEW):
        return None
    if len(levels) <= FEW:
        weights = (codes[None, :] == np.arange(len(levels))[:, None]).astype(np.float64)
        weights /= weights.sum(axis=1, keepdims=True)
        x = np.asarray(levels, dtype=np.float64) if numeric else np.arange(len(levels), dtype=np.float64)
        labels = [] if numeric else [str(level) for level in levels]
        return Places(name, x, labels, x[codes], weights)
    values = column.to_numpy(dtype=np.float64)
    grid = _grid(values)
    return Places(name, grid, [], values, smoother_weights(values, grid))


def _grid(values: FloatArray) -> FloatArray:
    """Evenly spaced places through the bulk of the values."""
    low, high = np.quantile(values, [0.03, 0.97])
    return np.linspace(float(low), float(high), MANY)


def along_each(x: FloatArray, *values: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Smoothers through every column of values (n, S + 1) along that of x (n, S + 1): the places, (places, S + 1)."""
    if x.shape[1] > 1 and len(x) > MOST:
        some = evenly(len(x), MOST)
        x, values = x[some], tuple(v[some] for v in values)
    grid = _grid(x[:, 0])
    if x.shape[1] == 1:
        weights = smoother_weights(x[:, 0], grid)
        return grid, [weights @ v for v in values]
    found = [np.empty((MANY, x.shape[1])) for _ in values]
    for s, own in enumerate(x.T):
        # A line is not drawn out beyond the fitted values of a simulated data set.
        weights = smoother_weights(own, np.clip(grid, own.min(), own.max()))
        for curve, v in zip(found, values, strict=True):
            curve[:, s] = weights @ v[:, s]
    return grid, found


def joint_band(
    curves: dict[Any, tuple[FloatArray, FloatArray]], ci: float = 0.95
) -> tuple[dict[Any, CurveBand], float]:
    """One band around several curves, x and (places, S + 1) each, and the p-value of their largest deviation.

    The curve that comes nearest to the edge of its band, or furthest beyond it, is the first.
    """
    x = np.concatenate([own for own, _ in curves.values()])
    stacked = np.concatenate([curve for _, curve in curves.values()])
    band = curve_band(x, stacked[:, 0], stacked[:, 1:], ci)
    ends = np.cumsum([len(own) for own, _ in curves.values()])
    parts = {}
    for (name, _), start, end in zip(curves.items(), [0, *ends[:-1]], ends, strict=True):
        cut = slice(start, end)
        parts[name] = CurveBand(
            band.x[cut], band.observed[cut], band.lower[cut], band.upper[cut], band.p_value, band.ci
        )
    return dict(sorted(parts.items(), key=lambda part: -reach(part[1]).max())), band.p_value


def reach(band: CurveBand) -> FloatArray:
    """How far a curve is from the middle of its band, in half widths."""
    half = 0.5 * (band.upper - band.lower)
    gap = np.abs(band.observed - 0.5 * (band.lower + band.upper))
    return np.divide(gap, half, out=np.zeros_like(gap), where=half > 0)


def furthest(bands: dict[str, CurveBand]) -> tuple[str, float, float]:
    """The first of curves with a joint band; how far it is from the middle where it is furthest out, and where."""
    name, band = next(iter(bands.items()))
    k = int(np.argmax(reach(band)))
    return name, float(abs(band.observed[k] - 0.5 * (band.lower[k] + band.upper[k]))), float(band.x[k])


def spread_ratio(band: CurveBand) -> tuple[float, int, int]:
    """Of roots of sizes: the largest spread over the smallest, relative to what is expected, and where they are."""
    middle = 0.5 * (band.lower + band.upper)
    known = np.flatnonzero(middle > 1e-8 * middle.max())  # a level of one subject is its own mean
    seen, expected = band.observed[known], middle[known]
    ratio = (seen.max() / max(seen.min(), 1e-12) / (expected.max() / expected.min())) ** 2
    return float(ratio), int(known[np.argmin(seen)]), int(known[np.argmax(seen)])
