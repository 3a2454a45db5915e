"""Marginal means, contrasts or slopes with their intervals: one panel per family, one row per effect."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import segments, stack_points
from hierlmm.drawing.theme import theme
from hierlmm.options import checked
from hierlmm.text import show


@checked
@pictured
def plot_effects(
    effects: Any,
    *,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the rows of `fit.marginal_means`, `fit.contrasts` or `fit.slopes` with their intervals.

    The numbers are those of ``effects.table``, corrected for multiplicity where the table is. Families (``by``) share
    one scale, so that they can be compared; contrasts and slopes have a line at zero. Where families are three values
    of a number or more, with up to four effects each, they are one panel along that number.

    Parameters
    ----------
    effects : Effects
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.

    Returns
    -------
    Picture
        Visuals ``interval`` and ``point_estimate`` over ``family`` (along a number: over ``effect``).
    """
    table, labels = effects.table, effects.labels
    if _runs_along_a_number(effects):
        return _draw_along(effects, figure)
    lines, points, ticks = {}, {}, {}
    for rows in effects.families:
        panel = ", ".join(f"{v} = {show(effects.keys[v].iloc[rows[0]])}" for v in effects.by) or effects.kind
        y = np.arange(len(rows), 0, -1, dtype=np.float64)
        part = table.iloc[rows]
        lines[panel] = segments(part["lower"].to_numpy(), part["upper"].to_numpy(), y)
        points[panel] = np.vstack([part["estimate"].to_numpy(dtype=np.float64), y])
        ticks[panel] = [labels[i] for i in rows]
    longest = max(len(own) for own in ticks.values())
    width = 0.075 * max(len(text) for own in ticks.values() for text in own)
    written = 0.7 if effects.headline else 0.0  # a title of two lines, and a caption
    size = each(0.8, 2.6 + width, 1.0 + written, 0.85 + 0.3 * longest, least=4.5, text=True)
    panels = Panels(points, "family", size, figure, col_wrap, name="effects", sharex=True)
    colour = theme().colour_of(effects.estimator)
    panels.map("line_xy", "interval", lines, color=colour, width=1.6)
    panels.map("scatter_xy", "point_estimate", points, color=colour, size=30)
    for panel, own in ticks.items():
        if effects.kind != "marginal means":
            panels.rule(panel, x=effects.null, linestyle=panels.dashes)
        panels.name_rows(panel, range(len(own), 0, -1), own, room=0.6, most=len(own))
    if effects.scale is not None and effects.scale.is_ratio:
        panels.ratios("x", table[["lower", "upper", "estimate"]].to_numpy(dtype=np.float64), effects.null)
    return panels.finish(
        {panel: panel if effects.by else "" for panel in ticks},
        title=_title(effects),
        caption=_caption(effects),
        xlabel=effects.axis_label,
    )


def _caption(effects: Any) -> str:
    """What stands behind a headline; of a fit with a family, which mean it is about."""
    about = "" if effects.scale is None else f"{effects.level[:1].upper()}{effects.level[1:]}."
    behind = f"{effects.title}, {effects.intervals_text}. {effects.averaged}" if effects.headline else ""
    return " ".join(filter(None, [behind.strip(), about]))


def _title(effects: Any) -> str:
    """What is drawn; of one effect, its number."""
    return effects.headline or f"{effects.title}, {effects.intervals_text}"


def _runs_along_a_number(effects: Any) -> bool:
    """Whether families are values of one number, with the same few effects each: lines say more than panels."""
    if len(effects.by) != 1 or len(effects.families) < 3:
        return False
    names = [[effects.labels[i] for i in rows] for rows in effects.families]
    few = all(own == names[0] for own in names) and len(names[0]) <= 4
    return few and pd.api.types.is_numeric_dtype(effects.keys[effects.by[0]].dtype)


def _draw_along(effects: Any, figure: Figure) -> Any:
    """One panel: every effect as a line along the number, with an interval at each of its values."""
    table, (by,), own = effects.table, effects.by, theme()
    names = [effects.labels[i] for i in effects.families[0]]
    colours = [own.colour_of(effects.estimator)] if len(names) == 1 else list(own.palette[: len(names)])
    x = np.array([float(effects.keys[by].iloc[rows[0]]) for rows in effects.families])
    shift = 0.012 * np.ptp(x) * (np.arange(len(names)) - 0.5 * (len(names) - 1))
    points, lines = {}, {}
    for k, name in enumerate(names):
        part = table.iloc[[rows[k] for rows in effects.families]]
        points["", name] = np.vstack([x + shift[k], part["estimate"].to_numpy(dtype=np.float64)])
        low, high = (part[side].to_numpy(dtype=np.float64) for side in ("lower", "upper"))
        lines["", name] = segments(low, high, x + shift[k])[::-1]
    stacked, ranges = (stack_points(part, ("family", "effect"), "effects") for part in (points, lines))
    panels = Panels(stacked, "family", (6.6, 4.6), figure, color=("effect", colours))
    if effects.kind != "marginal means":
        panels.rule("", y=effects.null, linestyle=panels.dashes)
    panels.map("line_xy", "curve", stacked, width=0.9, alpha=0.6)
    panels.map("line_xy", "interval", ranges, width=1.6)
    panels.map("scatter_xy", "point_estimate", stacked, size=30)
    if effects.scale is not None and effects.scale.is_ratio:
        panels.ratios("y", table[["lower", "upper", "estimate"]].to_numpy(dtype=np.float64), effects.null)
    marks = [
        Entry(name, colour, marker="circle", width=1.6, size=30) for name, colour in zip(names, colours, strict=True)
    ]
    title = _title(effects) if len(names) > 1 else f"{names[0]}: {_title(effects)}"
    return panels.finish(
        {"": ""},
        title=title,
        caption=_caption(effects),
        xlabel=by,
        ylabel=effects.axis_label,
        legend=marks if len(names) > 1 else (),
    )
