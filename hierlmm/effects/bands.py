"""Bands around curves ``L β``: pointwise, and simultaneous over all rows of a piece.

The simultaneous band is ``f̂ ± c se``, c the quantile of the largest ``|t|`` of the piece's rows
(`hierlmm.likelihood.quantiles.band_quantile`; Liu 2010). For a posterior c is the quantile over draws of
``max_i |f_i - mean_i| / sd_i`` (sup-t band; Montiel Olea and Plagborg-Møller 2019).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.effects.judge import Judge, PosteriorDraws, estimates, sup_t
from hierlmm.likelihood.quantiles import band_quantile

__all__ = ["bands"]

FloatArray = NDArray[np.float64]


def bands(
    judge: Judge, L: FloatArray, offset: FloatArray, ci: float, pieces: list[NDArray[np.intp]], seed: int
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Columns of the table, and the half-width of the simultaneous band of each piece in standard errors."""
    found = estimates(judge, L, offset, ci)
    half, widest = np.zeros(len(L)), []
    for rows in pieces:
        if isinstance(judge, PosteriorDraws):
            c = np.array([sup_t(judge, L, offset, found, rows, ci)])
        else:
            assert found.df is not None
            c = band_quantile(L[rows], judge.cov, found.df[rows], ci, seed)
        half[rows] = c * found.se[rows]
        widest.append(float(c.max()))
    columns = found._replace(df=None).columns
    if pieces:
        columns |= {"lower_simultaneous": found.estimate - half, "upper_simultaneous": found.estimate + half}
    return columns, np.array(widest)
