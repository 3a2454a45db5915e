"""Marginal means, contrasts or slopes along one of their variables: lines by another, panels by the rest.

The usual picture of a trial: visits below, a line for each arm, intervals beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.drawing.figure import Figure
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import segments, stack_points
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError, closest
from hierlmm.frames import occasions_in_use
from hierlmm.text import show

SEE = "docs, page 'Contrasts'"
FEW, COLOURS, PANELS = 6, 7, 24
"""Lines of a picture that was not asked for, and lines and panels at most."""
APART = 0.018
"""Distance of intervals beside each other, as a share of the axis."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The variable below, the place of every row along it and what is written there; names of lines and panels."""

    x: str
    place: FloatArray
    ticks: tuple[list[float], list[str]]
    lines: tuple[IntArray, list[str]]
    panels: tuple[IntArray, list[str]]


def profile_of(effects: Any, variable: str | None, by: str | None) -> Profile | None:
    """How rows lie along ``variable``, with colours for ``by``; None where they are to be rows of a forest.

    Without both: along three occasions of the fit or more, or numbers that make families, if few lines say all.

    Raises
    ------
    SpecificationError
        If rows differ in no such variable, or there are too many lines or panels.
    """
    keys = effects.keys.reset_index(drop=True)
    asked = variable is not None or by is not None
    along = _default(effects) if variable is None else variable
    if along is None and not asked:
        return None
    if along is None or along not in keys.columns:
        received = f"by={by!r} without variable=" if along is None else f"variable={along!r}"
        raise SpecificationError(received, *_unknown(keys.columns, str(along)), SEE)
    own = [*(c for c in keys.columns if c not in effects.by), *effects.by]
    rest: dict[str, pd.Series] = {c: keys[c] for c in own if c != along}
    if len(set(effects.row_names)) > 1:
        rest = {"": pd.Series(effects.row_names, dtype=object), **rest}
    if by is not None and by not in rest:
        raise SpecificationError(f"by={by!r}", *_unknown([c for c in rest if c], by), SEE)
    colour = next(iter(rest), None) if by is None else by
    lines = _groups({c: column for c, column in rest.items() if c == colour}, keys, named=False)
    panels = _groups({c: column for c, column in rest.items() if c != colour}, keys, named=True)
    if not asked and (len(lines[1]) > FEW or len(panels[1]) > PANELS):
        return None
    for what, names, most in (("colours", lines[1], COLOURS), ("panels", panels[1], PANELS)):
        if len(names) > most:
            reason = f"so many {what} cannot be told apart (at most {most})"
            remedy = "say by=... with fewer values, or leave variable and by out"
            raise SpecificationError(f"{len(names)} {what} along {along!r}", reason, remedy, SEE)
    return Profile(along, *_places(keys[along]), lines, panels)


def _default(effects: Any) -> str | None:
    """The occasions of the fit, or a number that makes families, where there are three of them or more."""
    keys = effects.keys
    numbers = [c for c in effects.by if len(effects.by) == 1 and pd.api.types.is_numeric_dtype(keys[c].dtype)]
    return next((c for c in (effects.occasion, *numbers) if c in keys.columns and keys[c].nunique() > 2), None)


def _unknown(known: Iterable[str], name: str) -> tuple[str, str]:
    known = list(known)
    reason = f"these rows differ in no such variable.{closest(name, known)}"
    return reason, f"use one of {', '.join(map(repr, known))}" if known else "leave it out"


def _places(column: pd.Series) -> tuple[FloatArray, tuple[list[float], list[str]]]:
    """Numbers where they are; labels at 0, 1, ... in their order, text by the numbers in it."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all() and not isinstance(column.iloc[0], (str, bool, np.bool_)):
        distinct = np.unique(numbers)
        few = len(distinct) <= 8
        return numbers, ((distinct.tolist(), [show(v) for v in distinct]) if few else ([], []))
    labels, _ = occasions_in_use(pd.Series(pd.Categorical(column, categories=list(column.unique()))))
    place = column.map({label: float(k) for k, label in enumerate(labels)}).to_numpy(dtype=np.float64)
    return place, ([float(k) for k in range(len(labels))], [show(label) for label in labels])


def _groups(columns: dict[str, pd.Series], keys: pd.DataFrame, *, named: bool) -> tuple[IntArray, list[str]]:
    """Group of every row by these columns, and names of groups in the order in which they come."""
    texts = []
    for c, column in columns.items():
        full = c and (named or pd.api.types.is_numeric_dtype(column.dtype))
        texts.append([f"{c} = {show(v)}" if full else show(v) for v in column])
    joined = [", ".join(own) for own in zip(*texts, strict=True)] if texts else [""] * len(keys)
    codes, labels = pd.factorize(pd.Series(joined, dtype=object))
    return np.asarray(codes, dtype=np.intp), [str(label) for label in labels]


def draw_profile(effects: Any, profile: Profile, title: str, caption: str, col_wrap: int | None, figure: Figure) -> Any:
    """Every line with an interval at each of its places."""
    own, (line_of, names), (panel_of, shown) = theme(), profile.lines, profile.panels
    colours = [own.colour_of(effects.estimator)] if len(names) == 1 else list(own.palette[: len(names)])
    numbers = effects.table[["estimate", "lower", "upper"]].to_numpy(dtype=np.float64)
    gap = np.diff(np.unique(profile.place)).min(initial=np.inf)
    apart = min(APART * float(np.ptp(profile.place)), 0.5 * float(gap) / len(names))
    x = profile.place + apart * (line_of - 0.5 * (len(names) - 1))
    points, intervals = {}, {}
    for p, panel in enumerate(shown):
        for k, name in enumerate(names):
            rows = np.flatnonzero((line_of == k) & (panel_of == p))
            rows = rows[np.argsort(x[rows], kind="stable")]
            estimate, low, high = numbers[rows].T
            points[panel, name] = np.vstack([x[rows], estimate])
            intervals[panel, name] = segments(low, high, x[rows])[::-1]
    stacked, ranges = (stack_points(part, ("family", "effect"), "effects") for part in (points, intervals))
    size = (6.6, 4.6) if len(shown) == 1 else each(0.8, 3.6, 1.3, 3.1)
    panels = Panels(stacked, "family", size, figure, col_wrap, sharex=True, sharey=True, color=("effect", colours))
    for panel in shown:
        if effects.kind != "marginal means":
            panels.rule(panel, y=effects.null, linestyle=panels.dashes)
        if profile.ticks[0]:
            panels.draw.xticks(*profile.ticks, panels.target(panel))
    panels.map("line_xy", "curve", stacked, width=0.9, alpha=0.6)
    panels.map("line_xy", "interval", ranges, width=1.6)
    panels.map("scatter_xy", "point_estimate", stacked, size=30)
    if effects.scale is not None and effects.scale.is_ratio:
        panels.ratios("y", numbers, effects.null)
    marks = [
        Entry(name, colour, marker="circle", width=1.6, size=30) for name, colour in zip(names, colours, strict=True)
    ]
    name = effects.row_names[0] if effects.row_names and len(names) == 1 else names[0] if len(names) == 1 else ""
    return panels.finish(
        {panel: panel for panel in shown},
        title=f"{name}: {title}" if name else title,
        caption=caption,
        xlabel=profile.x,
        ylabel=effects.axis_label,
        legend=marks if len(names) > 1 else (),
    )
