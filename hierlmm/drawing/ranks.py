"""Subjects sorted, one below the other, each with an interval: caterpillars, and expected ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.drawing.panels import Panels
from hierlmm.drawing.style import LABELLED, PALETTE, evenly, percent, segments
from hierlmm.options import checked


def sorted_size(width: float, rows: int, each: float = 0.18) -> tuple[float, float]:
    """Size of a figure with that many rows."""
    return width, 1.3 + min(10.0, max(2.2, rows * each))


def sorted_label(subject: str, shown: int, total: int) -> str:
    """Label of the axis of subjects: what they are, and how many of them are shown."""
    return f"{subject} ({f'{shown} of {total}' if total > shown else total}, sorted)"


def draw_sorted(panels: Panels, lines: Any, points: Any, rows: int, size: int = 16, **look: Any) -> None:
    """Draw intervals and estimates, thinner where the rows are many."""
    small = rows > LABELLED
    panels.map("line_xy", "interval", lines, width=0.8 if small else 1.3, alpha=0.75, **look)
    panels.map("scatter_xy", "point_estimate", points, size=6 if small else size, **look)


@checked
def plot_ranks(
    ranking: Any,
    *,
    max_subjects: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw a `Ranking`; see `hierlmm.plots.plot_ranks`."""
    table, term = ranking.table, ranking.term
    total = len(table)
    table = table.iloc[evenly(total, max_subjects)]
    J = len(table)
    y = np.arange(J, 0, -1, dtype=np.float64)
    points = {term: np.vstack([table["expected_rank"].to_numpy(), y])}
    lines = {term: segments(table["rank_lower"].to_numpy(), table["rank_upper"].to_numpy(), y)}
    panels = Panels(points, "term", sorted_size(5.0, J), backend, figure_kwargs, name="ranks")
    draw_sorted(panels, lines, points, J, color=PALETTE[0])
    panels.rule(term, x=ranking.top + 0.5, linestyle=panels.dashes)
    panels.name_rows(term, y, table.index)
    first = "largest" if ranking.largest_first else "smallest"
    return panels.finish(
        {term: term},
        title=f"Ranks of subjects ({ranking.estimator}) with {percent(ranking.ci)} intervals",
        xlabel=f"expected rank (1: {first}; dashed: the first {ranking.top})",
        ylabel=sorted_label(ranking.subject, J, total),
    )
