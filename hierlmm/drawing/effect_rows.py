"""Marginal means, contrasts or slopes with their intervals: a panel per family and a row per effect, or a profile."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.profiles import draw_profile, profile_of
from hierlmm.drawing.style import segments
from hierlmm.drawing.theme import theme
from hierlmm.options import checked
from hierlmm.text import show


@checked
@pictured
def plot_effects(
    effects: Any,
    *,
    variable: str | None = None,
    by: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the rows of `fit.marginal_means`, `fit.contrasts` or `fit.slopes` with their intervals.

    The numbers are those of ``effects.table``, corrected for multiplicity where the table is. Families (``by``) share
    one scale, so that they can be compared; contrasts and slopes have a line at zero. Along three visits or more, or a
    number that makes three families or more, rows are a profile: the variable below, up to six lines with intervals
    beside each other, and panels for other variables.

    Parameters
    ----------
    effects : Effects
    variable : str, optional
        Draw a profile along this variable of the rows: numbers where they are, labels in their order.
    by : str, optional
        Variable whose values are the lines of a profile; by default the first of the others.
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.

    Returns
    -------
    Picture
        Visuals ``interval`` and ``point_estimate`` over ``family`` (in a profile over ``effect``, and ``curve``).
    """
    table, labels = effects.table, effects.labels
    if (profile := profile_of(effects, variable, by)) is not None:
        return draw_profile(effects, profile, _title(effects), _caption(effects), col_wrap, figure)
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
    same = len({tuple(own) for own in ticks.values()}) == 1  # names stand at the left once
    left, column = (0.8 + width, 2.6) if same else (0.8, 2.6 + width)
    size = each(left, column, 1.0 + written, 0.85 + 0.3 * longest, least=4.5, text=True)
    panels = Panels(points, "family", size, figure, col_wrap, name="effects", sharex=True, sharey=same)
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
