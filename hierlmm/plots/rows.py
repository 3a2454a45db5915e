"""Rows of data in groups that have colours or panels: levels of a factor, or classes of a number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.questions import is_label, levels_of
from hierlmm.drawing.style import evenly
from hierlmm.errors import SpecificationError, closest

FEW = 5
"""A number with at most that many values is taken as it is, others are cut into three classes."""
COLOURS = 7
PANELS = 24


@dataclass(frozen=True)
class Groups:
    """Labels of groups, and the group of every row (N,)."""

    labels: list[str]
    codes: IntArray


def row_groups(design: Design, variable: str | None, *, name: str = "by", most: int = COLOURS) -> Groups:
    """Group the rows by a column of the data; one group without a column.

    Parameters
    ----------
    design : Design
    variable : str, optional
    name : str
        Of the argument that named the column.
    most : int
        More groups are refused.

    Raises
    ------
    SpecificationError
        If there is no such column, or it has too many values.
    """
    if variable is None:
        return Groups([""], np.zeros(design.n_obs, dtype=np.intp))
    check_column(design, variable, name)
    groups = _labelled(design, variable) if is_label(design, variable) else _numbers(design, variable)
    if variable == design.hierarchy.subject:
        groups = Groups([str(s) for s in design.subjects], np.asarray(design.subject_index))
    if len(groups.labels) > most:
        reason = (
            f"so many {'colours cannot be told apart' if name == 'by' else 'panels cannot be read'} (at most {most})"
        )
        remedy = "use a column with few values, or pd.cut() it into classes before the fit"
        raise SpecificationError(f"{name}={variable!r} with {len(groups.labels)} values", reason, remedy)
    return groups


def evenly_by_group(codes: IntArray, most: int | None) -> IntArray:
    """Positions of at most that many of n things, evenly spaced within each group, in their order.

    Evenly spaced in the order of the data they may all miss a group: of subjects who were allotted to A, B and C in
    turn every third one is in B.
    """
    order = np.argsort(codes, kind="stable")
    return np.sort(order[evenly(len(codes), most)])


def check_column(design: Design, variable: str, name: str) -> None:
    """Refuse a column that the model does not have."""
    known = [str(c) for c in design.frame.columns if c != design.hierarchy.response]
    if variable not in known:
        reason = f"the model has no column of this name.{closest(variable, known)}"
        remedy = f"use one of the columns in use ({', '.join(map(repr, known))})"
        raise SpecificationError(f"{name}={variable!r}", reason, remedy)


def _labelled(design: Design, variable: str) -> Groups:
    levels = levels_of(design, variable)
    codes = pd.Categorical(design.frame[variable], categories=levels).codes
    return Groups([str(level) for level in levels], np.asarray(codes, dtype=np.intp))


def _numbers(design: Design, variable: str) -> Groups:
    values = design.frame[variable].to_numpy(dtype=np.float64)
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= FEW:
        return Groups([f"{v:.6g}" for v in distinct], codes)
    edges = np.quantile(values, [0.0, 1 / 3, 2 / 3, 1.0])
    codes = np.searchsorted(edges[1:3], values, side="left")
    return Groups([f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)], codes)


def apart(values: FloatArray, seed: int = 0) -> FloatArray:
    """Moves of values by up to a quarter of their smallest distance, which tell coinciding points apart."""
    distinct = np.unique(values)
    step = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
    return np.random.default_rng(seed).uniform(-0.25 * step, 0.25 * step, len(values))
