"""Variances and correlations that the data show at their times (see `implied.marginal`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.implied.grid import MOST_TIMES, Grid

__all__ = ["empirical_moments"]

FloatArray = NDArray[np.float64]
FEWEST = 3
"""Rows or pairs behind an empirical variance or correlation."""


def empirical_moments(fit: Any, grid: Grid) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Empirical variances by time and correlations by pair of times, of residuals around the population line."""
    design: Design = fit.design
    rows = np.flatnonzero(grid.keep)
    if not len(rows):
        return None, None
    r = design.y[rows] - fit.fitted("population").to_numpy()[rows]
    X = design.X[rows]
    C = fit.covariance("naive").to_numpy() if fit.estimator == "GEE" else fit.beta_cov.to_numpy()
    square = r**2 + np.einsum("ia,ab,ib->i", X, C, X)
    t = grid.column[rows]
    distinct, code = np.unique(t, return_inverse=True)
    few = len(distinct) <= MOST_TIMES
    if not few:
        cuts = np.unique(np.quantile(t, np.linspace(0.0, 1.0, 11)[1:-1]))
        code = np.searchsorted(cuts, t, side="left")
    table = pd.DataFrame({"t": t, "v": square}).groupby(code).agg(t=("t", "mean"), n=("v", "size"), v=("v", "mean"))
    table = table[table["n"] >= FEWEST].reset_index(drop=True)
    table.columns = pd.Index([grid.name, "n", "variance"])
    if not few or len(distinct) > 12:
        return (table if len(table) else None), None
    return (table if len(table) else None), _empirical_correlation(design, grid, rows, r, X, C, code, distinct)


def _empirical_correlation(
    design: Design,
    grid: Grid,
    rows: NDArray[np.intp],
    r: FloatArray,
    X: FloatArray,
    C: FloatArray,
    code: NDArray[Any],
    distinct: FloatArray,
) -> pd.DataFrame | None:
    """Correlations of pairs of times, where no subject has a time twice."""
    owner = design.subject_index[rows]
    if pd.DataFrame({"s": owner, "t": code}).duplicated().any():
        return None
    shape = (design.n_subjects, len(distinct))
    seen, value, half = np.zeros(shape), np.zeros(shape), np.zeros((*shape, X.shape[1]))
    seen[owner, code], value[owner, code], half[owner, code] = 1.0, r, X
    n = seen.T @ seen
    total = value.T @ value + np.einsum("jsa,ab,jtb->st", half, C, half, optimize=True)
    with np.errstate(invalid="ignore"):
        cov = total / n
    sd = np.sqrt(np.diag(cov))
    found = [
        (distinct[i], distinct[j], distinct[j] - distinct[i], int(n[i, j]), cov[i, j] / (sd[i] * sd[j]))
        for i in range(len(distinct))
        for j in range(i + 1, len(distinct))
        if n[i, j] >= FEWEST
    ]
    if not found:
        return None
    return pd.DataFrame(found, columns=[grid.name, f"{grid.name}_bis", "lag", "n", "correlation"])
