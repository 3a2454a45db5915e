"""Expected ranks of subjects with their intervals, sorted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.interpret.ranking import Ranking, rank_subjects
from hierlmm.options import checked
from hierlmm.plots.fits import one_fit


@checked
def plot_ranks(
    ranking: Ranking | Fit | SideBySide,
    *,
    term: str | None = None,
    max_subjects: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw every subject's expected rank with its interval, first ranks on top.

    Parameters
    ----------
    ranking : Ranking, Fit or Comparison
        What ``fit.rank_subjects()`` returns; or a fit (of a comparison, the reference), ranked as it does by default.
    term : str, optional
        Coefficient to rank a fit by.
    max_subjects : int, optional
        Draw that many subjects, evenly spaced in the order (the first and the last included); all by default.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``interval`` and ``point_estimate`` over ``term``. The dashed line ends the ranks that
        ``prob_top`` counts.
    """
    if isinstance(ranking, (Fit, SideBySide)):
        ranking, term = rank_subjects(one_fit(ranking), term), None
    return ranking.plot(term=term, max_subjects=max_subjects, backend=backend, figure_kwargs=figure_kwargs)
