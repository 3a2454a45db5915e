"""Where effect curves rest on the form of the model alone: beyond the data, or beyond boundary knots.

A point of a curve is extrapolated where its covariate lies outside the range that the data have (in its group, where
there are groups), or outside the boundary knots of a spline, where the curve goes on as its end piece does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.splines import SplineBasis
from hierlmm.effects.grid import Grid
from hierlmm.errors import FitWarning, warn
from hierlmm.fits.base import Fit
from hierlmm.text import show

__all__ = ["extrapolated", "level_is", "warn_of"]

FloatArray = NDArray[np.float64]
ROUNDING = 1e-9


def level_is(column: pd.Series, value: Any) -> NDArray[np.bool_]:
    """Which rows have this level of a factor."""
    return np.asarray(column.to_numpy(dtype=object) == value, dtype=bool)


def extrapolated(
    fit: Fit, grid: Grid, variable: str, keys: pd.DataFrame, held: Mapping[str, Any]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which grid points lie beyond the data of their group or beyond boundary knots, and what to warn of."""
    frame = fit.design.frame
    column, x = frame[variable].to_numpy(dtype=np.float64), keys[variable].to_numpy(dtype=np.float64)
    slack = ROUNDING * float(np.ptp(column))
    outside = (x < column.min() - slack) | (x > column.max() + slack)
    sentences = []
    if outside.any():
        sentences.append(
            f"{variable} from {show(float(x.min()))} to {show(float(x.max()))}, data from {show(float(column.min()))} "
            f"to {show(float(column.max()))}"
        )
    knots = _beyond_knots(fit, variable, x)
    if (knots & ~outside).any():
        sentences.append(f"{variable} beyond the boundary knots of its spline")
    beyond = outside | knots
    own = [v for v in keys.columns if v != variable and v in grid.factors]
    fixed = np.ones(len(frame), dtype=bool)
    for v in held:
        if v in grid.factors:
            fixed &= level_is(frame[v], held[v])
    for combination, rows in _groups(keys, own):
        seen = fixed.copy()
        for v, value in combination.items():
            seen &= level_is(frame[v], value)
        if not seen.any():
            beyond[rows] = True
            levels = ", ".join(f"{v} = {show(w)}" for v, w in {**combination, **_factors(held, grid)}.items())
            sentences.append(f"no row of the data has {levels}")
            continue
        low, high = column[seen].min() - slack, column[seen].max() + slack
        beyond[rows] |= (x[rows] < low) | (x[rows] > high)
    for v, values in grid.points.items():
        if v == variable or v in grid.factors:
            continue
        known = frame[v].to_numpy(dtype=np.float64)
        room = ROUNDING * float(np.ptp(known))
        far = [w for w in values if w < known.min() - room or w > known.max() + room]
        if far:
            sentences.append(
                f"{v} = {', '.join(map(show, far))}, data from {show(float(known.min()))} to {show(float(known.max()))}"
            )
            beyond |= np.isin(keys[v], far) if v in keys else True
    return beyond, sentences


def _factors(held: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    return {v: x for v, x in held.items() if v in grid.factors}


def _groups(keys: pd.DataFrame, names: list[str]) -> list[tuple[dict[str, Any], NDArray[np.intp]]]:
    if not names:
        return [({}, np.arange(len(keys)))]
    found = keys.groupby(names, observed=True, sort=False).indices
    pairs = [(k if isinstance(k, tuple) else (k,), np.asarray(rows, dtype=np.intp)) for k, rows in found.items()]
    return [(dict(zip(names, k, strict=True)), rows) for k, rows in pairs]


def _beyond_knots(fit: Fit, variable: str, x: FloatArray) -> NDArray[np.bool_]:
    """Where a spline in the variable itself is extrapolated."""
    beyond = np.zeros(len(x), dtype=bool)
    for recipe in fit.design.factors.recipes:
        for call, state in recipe.transform_state.items():
            if not re.match(rf"\w+\(\s*{re.escape(variable)}\s*[,)]", str(call)) or not isinstance(state, dict):
                continue
            if isinstance(basis := state.get("basis"), SplineBasis):
                beyond |= basis.beyond(x)
            elif "lower_bound" in state and "upper_bound" in state:
                beyond |= (x < state["lower_bound"]) | (x > state["upper_bound"])
    return beyond


def warn_of(sentences: list[str], caught: list[Any]) -> None:
    """One warning for everything that is extrapolated; what else was said is passed on."""
    if sentences:
        warn(
            f"Effect curves are extrapolated: {'; '.join(sentences)}. They are drawn dashed there, and rest on "
            "the form of the model alone."
        )
    said = {str(w.message) for w in caught if issubclass(w.category, FitWarning)}
    for message in sorted(said):
        if not (sentences and "extrapolated" in message):
            warn(message)
    for w in caught:
        if not issubclass(w.category, FitWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
