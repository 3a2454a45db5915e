"""Expected ranks of subjects with their intervals, sorted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.drawing.style import (
    GREY,
    LABELLED,
    PALETTE,
    backend_module,
    canvas,
    finish,
    percent,
    resolve_backend,
    segments,
    stack_points,
)
from hierlmm.errors import SpecificationError
from hierlmm.options import checked

__all__ = ["plot_ranks"]


@checked
def plot_ranks(
    ranking: Any,
    *,
    max_subjects: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw a `Ranking`; see `hierlmm.plots.plot_ranks`."""
    from arviz_plots import visuals

    name = resolve_backend(backend)
    table = ranking.table
    total = len(table)
    if max_subjects is not None and max_subjects < 1:
        raise SpecificationError(
            f"max_subjects={max_subjects!r}", "at least one subject must be drawn", "use a number of 1 or more"
        )
    if max_subjects is not None and max_subjects < total:
        table = table.iloc[np.unique(np.linspace(0, total - 1, max_subjects).round().astype(int))]
    J = len(table)
    y = np.arange(J, 0, -1, dtype=np.float64)
    points = {ranking.term: np.vstack([table["expected_rank"].to_numpy(), y])}
    lines = {ranking.term: segments(table["rank_lower"].to_numpy(), table["rank_upper"].to_numpy(), y)}
    small = J > LABELLED
    collection = canvas(
        stack_points(points, "term", "ranks"),
        "term",
        backend=name,
        size=(5.0, 1.3 + min(10.0, max(2.2, J * 0.18))),
        col_wrap=1,
        figure_kwargs=figure_kwargs,
    )
    collection.map(
        visuals.line_xy,
        "interval",
        data=stack_points(lines, "term", "ranks"),
        color=PALETTE[0],
        width=0.8 if small else 1.3,
        alpha=0.75,
    )
    collection.map(
        visuals.scatter_xy,
        "point_estimate",
        data=stack_points(points, "term", "ranks"),
        color=PALETTE[0],
        size=6 if small else 16,
    )
    draw = backend_module(name)
    target = collection.get_target("ranks", {"term": ranking.term})
    draw.vline(ranking.top + 0.5, target, color=GREY, linestyle=draw.get_default_aes("linestyle", 2)[1], width=1)
    draw.yticks([] if small else y.tolist(), [] if small else [str(s) for s in table.index], target)
    draw.ylim((0.2, J + 0.8), target)
    first = "largest" if ranking.largest_first else "smallest"
    shown = f"{J} of {total}" if total > J else f"{total}"
    return finish(
        collection,
        "term",
        {ranking.term: ranking.term},
        title=f"Ranks of subjects ({ranking.estimator}) with {percent(ranking.ci)} intervals",
        xlabel=f"expected rank (1: {first}; dashed: the first {ranking.top})",
        ylabel=f"{ranking.subject} ({shown}, sorted)",
    )
