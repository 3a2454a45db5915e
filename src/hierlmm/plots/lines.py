"""Fitted lines on a grid: where to evaluate them, and with which covariates.

The grid is sent through ``design.new``, so polynomials, splines and interactions come out as they were fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import Design
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit

__all__ = ["Axis", "population_line", "subject_lines", "x_axis"]

FloatArray = NDArray[np.float64]
STEPS = 40


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: variable (None: order of the rows), label, position by row, and any categories."""

    variable: str | None
    label: str
    position: FloatArray
    categories: tuple[Any, ...] | None = None

    def ticks(self) -> tuple[list[int], list[str]]:
        """Positions and texts of ticks where the backend's own would mislead: categories, and few whole numbers."""
        if self.categories is not None:
            return list(range(len(self.categories))), [str(c) for c in self.categories]
        few = self.variable is None and self.position.max() <= 15
        ticks = list(range(1, int(self.position.max()) + 1)) if few else []
        return ticks, [str(t) for t in ticks]


def x_axis(design: Design, x: str | None) -> Axis:
    """Choose the variable of the horizontal axis: the first numeric level-1 variable unless one is named."""
    level1, frame = design.level1_variables(), design.frame
    numeric = [v for v in level1 if _is_numeric(frame[v])]
    if x is None:
        if not level1:
            order = 1 + pd.Series(design.subject_index).groupby(design.subject_index).cumcount()
            return Axis(None, f"row within {design.hierarchy.subject}", np.asarray(order, dtype=np.float64))
        x = (numeric or level1)[0]
    if x not in level1:
        known = ", ".join(map(repr, level1)) or "none"
        raise SpecificationError(
            f"x={x!r}",
            f"it is not a level-1 variable of this model, which must vary within subjects.{closest(x, level1)}",
            f"use one of its level-1 variables ({known}), or leave x out",
        )
    if _is_numeric(frame[x]):
        return Axis(x, x, frame[x].to_numpy(dtype=np.float64))
    categories = design.levels.categories[x]
    codes = pd.Categorical(frame[x], categories=list(categories)).codes
    return Axis(x, x, np.asarray(codes, dtype=np.float64), categories)


def subject_lines(fit: Fit, axis: Axis, subjects: Sequence[int] | NDArray[np.intp]) -> dict[int, FloatArray]:
    """Fitted lines of subjects (positions) over their own range of x: position -> (2, n)."""
    design = fit.design
    if axis.variable is None:
        values = fit.fitted("subject").to_numpy()
        rows_of = {int(j): np.flatnonzero(design.subject_index == j) for j in subjects}
        return {j: np.vstack([axis.position[r], values[r]]) for j, r in rows_of.items()}
    profiles = _profiles(design, axis.variable)
    grids = {int(j): _grid(axis, axis.position[design.subject_index == j]) for j in subjects}
    data = pd.concat([_at(profiles.iloc[[j]], axis, grid) for j, grid in grids.items()], ignore_index=True)
    new = design.new(data, need_subject=True)
    b = fit.b.to_numpy()[np.repeat(list(grids), [len(g) for g in grids.values()])]
    y = new.offset + new.X @ fit.beta.to_numpy() + np.einsum("ij,ij->i", new.Z, b)
    pieces = np.split(y, np.cumsum([len(g) for g in grids.values()])[:-1])
    return {j: np.vstack([grid, piece]) for (j, grid), piece in zip(grids.items(), pieces, strict=True)}


def population_line(fit: Fit, axis: Axis, subjects: NDArray[np.intp]) -> FloatArray:
    """Line at b = 0, averaged over the covariates of these subjects, over their common range of x: (2, n)."""
    design = fit.design
    rows = np.isin(design.subject_index, subjects)
    if axis.variable is None:
        fitted = pd.Series(fit.fitted("population").to_numpy()[rows]).groupby(axis.position[rows]).mean()
        return np.vstack([fitted.index.to_numpy(dtype=float), fitted.to_numpy()])
    grid = _grid(axis, axis.position[rows])
    own = _profiles(design, axis.variable).iloc[subjects].drop(columns=[design.hierarchy.subject, axis.variable])
    if own.shape[1]:
        counts = own.groupby(list(own.columns), observed=True, sort=False).size()
        weights = np.asarray(counts, dtype=np.float64)
        distinct = counts.index.to_frame(index=False).astype(own.dtypes.to_dict())
    else:
        weights, distinct = np.ones(1), pd.DataFrame(index=[0])
    y = np.zeros(len(grid))
    step = max(1, 100_000 // len(grid))
    for start in range(0, len(distinct), step):
        part = distinct.iloc[start : start + step]
        data = _at(part.loc[part.index.repeat(len(grid))], axis, np.tile(grid, len(part)))
        new = design.new(data, need_subject=False)
        lines = (new.offset + new.X @ fit.beta.to_numpy()).reshape(len(part), len(grid))
        y += weights[start : start + step] @ lines
    return np.vstack([grid, y / weights.sum()])


def _profiles(design: Design, x: str) -> pd.DataFrame:
    """One row for each subject: its level-2 values, and typical values of its other level-1 variables."""
    frame = design.frame
    level1 = [v for v in design.level1_variables() if v != x]
    _, first = np.unique(design.subject_index, return_index=True)
    profiles = frame.iloc[first].reset_index(drop=True)
    groups = frame.groupby(design.subject_index, sort=True)
    for name in level1:
        if _is_numeric(frame[name]):
            profiles[name] = groups[name].mean().to_numpy()
        else:
            common = groups[name].agg(lambda values: values.mode().iloc[0])
            profiles[name] = pd.Series(common.to_numpy()).astype(frame[name].dtype)
    responses = [c for c in profiles.columns if c not in _needed(design)]
    return profiles.drop(columns=responses)


def _needed(design: Design) -> set[str]:
    from hierlmm.formula import variables_of

    columns = list(design.frame.columns)
    factors = {f for column in design.fixed_columns for f in column.term} | set(design.hierarchy.offsets)
    found = {v for f in factors for v in variables_of(f, columns)}
    return found | set(design.level1_variables()) | {design.hierarchy.subject}


def _at(profile: pd.DataFrame, axis: Axis, grid: FloatArray) -> pd.DataFrame:
    """Repeat a profile (or use rows already repeated) with x on the grid."""
    rows = profile.loc[profile.index.repeat(len(grid))] if len(profile) == 1 else profile
    values: Any = grid
    if axis.categories is not None:
        labels = np.array(axis.categories, dtype=object)[grid.astype(int)]
        values = pd.Categorical(labels, categories=list(axis.categories))
    return rows.reset_index(drop=True).assign(**{str(axis.variable): values})


def _grid(axis: Axis, values: FloatArray) -> FloatArray:
    if axis.categories is not None:
        return np.unique(values)
    low, high = float(values.min()), float(values.max())
    return np.array([low]) if low == high else np.linspace(low, high, STEPS)


def _is_numeric(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
