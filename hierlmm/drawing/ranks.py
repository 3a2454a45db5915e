"""Subjects sorted, one below the other, each with an interval: caterpillars, and expected ranks."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.arrays import IntArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import LABELLED, evenly, percent, segments
from hierlmm.drawing.theme import theme
from hierlmm.options import checked


def sorted_size(width: float, rows: int, height: float = 0.21) -> each:
    """Size of a figure whose panels have that many rows of letters, as far as they are named."""
    return each(1.0, width, 1.3, max(1.6, min(rows, LABELLED) * height), text=True)


def sorted_label(subject: str, shown: int, total: int) -> str:
    """Label of the axis of subjects: what they are, and how many of them are shown."""
    return f"{subject} ({f'{shown} of {total}' if total > shown else total}, sorted)"


def chosen_rows(total: int, most: int | None) -> tuple[IntArray, tuple[int, ...]]:
    """At most that many of the rows of an order: a third from either end, a third evenly spaced between them.

    Returns
    -------
    positions, (first, end)
        Positions in the order; among them, where those in between start and end. Nothing where all are chosen.
    """
    if most is None or most >= total or most < 3:
        return evenly(total, most), ()
    end = most // 3
    middle = end + evenly(total - 2 * end, most - 2 * end)
    return np.concatenate([np.arange(end), middle, np.arange(total - end, total)]), (end, end + len(middle))


def draw_sorted(panels: Panels, lines: Any, points: Any, rows: int, size: int = 18, **look: Any) -> None:
    """Draw intervals and estimates, thinner where the rows are many."""
    small = rows > LABELLED
    panels.map("line_xy", "interval", lines, width=0.8 if small else 1.3, alpha=0.75, **look)
    panels.map("scatter_xy", "point_estimate", points, size=6 if small else size, **look)


@checked
@pictured
def plot_ranks(
    ranking: Any,
    *,
    max_subjects: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw a `Ranking`; see `hierlmm.plots.plot_ranks`."""
    table, term = ranking.table, ranking.term
    total = len(table)
    rows, between = chosen_rows(total, LABELLED if max_subjects is None else max_subjects)
    table = table.iloc[rows]
    J = len(table)
    y = np.arange(J, 0, -1, dtype=np.float64)
    points = {term: np.vstack([table["expected_rank"].to_numpy(), y])}
    lines = {term: segments(table["rank_lower"].to_numpy(), table["rank_upper"].to_numpy(), y)}
    panels = Panels(points, "term", sorted_size(4.2, J), figure, name="ranks")
    draw_sorted(panels, lines, points, J, color=theme().colour_of(ranking.estimator))
    panels.rule(term, x=ranking.top + 0.5, linestyle=panels.dashes)
    for row in between:
        panels.rule(term, y=J - row + 0.5, width=0.6)
    panels.name_rows(term, y, table.index)
    who = f"groups of {ranking.factor}" if ranking.factor else "subjects"
    first = "largest" if ranking.largest_first else "smallest"
    return panels.finish(
        {term: term},
        caption="The first, the last, and between the grey lines evenly spaced ones" if between else "",
        title=f"Ranks of {who} ({ranking.estimator}) with {percent(ranking.ci)} intervals",
        xlabel=f"expected rank (1: {first}; dashed: the first {ranking.top})",
        ylabel=sorted_label(ranking.subject, J, total),
    )
