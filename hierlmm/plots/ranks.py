"""Expected ranks of subjects with their intervals, sorted."""

from __future__ import annotations

from typing import Any, Unpack

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.interpret.ranking import Ranking, rank_subjects
from hierlmm.options import checked
from hierlmm.plots.fits import one_fit


@checked
@pictured
def plot_ranks(
    ranking: Ranking | Fit | SideBySide,
    *,
    term: str | None = None,
    max_subjects: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw every subject's expected rank with its interval, first ranks on top.

    Parameters
    ----------
    ranking : Ranking, Fit or Comparison
        What ``fit.rank_subjects()`` returns; or a fit (of a comparison, the reference), ranked as it does by default.
    term : str, optional
        Coefficient to rank a fit by.
    max_subjects : int, optional
        Draw that many subjects: the first, the last, and some between them; by default as many as can be read.

    Returns
    -------
    Picture
        Visuals ``interval`` and ``point_estimate`` over ``term``. The dashed line ends the ranks that
        ``prob_top`` counts.
    """
    if isinstance(ranking, (Fit, SideBySide)):
        ranking, term = rank_subjects(one_fit(ranking), term), None
    return ranking.plot(term=term, max_subjects=max_subjects, **figure)
