"""Predictions of a posterior with several grouping factors: every draw gives a line.

    line_s = x'β_s + Σ_k z_k'b_ks[group]        over the factors of the level,      measurement_s ~ N(line_s, σ_s²)

A group that was not in the data has b ~ N(0, D_s) at every draw; rows of one new group share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import effects_names
from hierlmm.design.factors import own_part
from hierlmm.fits.base import INTERVALS
from hierlmm.fits.posterior import flattened
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.options import check_ci, choose
from hierlmm.predict.factors import FactorRows, point_estimates, rows_to_predict, told
from hierlmm.predict.rows import pieces

if TYPE_CHECKING:
    from hierlmm.fits.multilevel_posterior import MultilevelPosteriorNumbers


def predict_factor_draws(
    fit: MultilevelPosteriorNumbers,
    newdata: Any,
    level: str,
    interval: str | None,
    ci: float,
    new_groups: str,
    seed: int | None,
) -> pd.DataFrame:
    """See `MultilevelPosterior.predict`."""
    choose("new_groups", new_groups, ("refuse", "allow"))
    if interval is not None:
        choose("interval", interval, INTERVALS)
    check_ci(ci)
    rows = rows_to_predict(fit.design, newdata, level, new_groups)
    if rows.groups:
        fit.need_effects(f"predict(level={level!r})", draws=interval is not None)
    estimate = point_estimates(fit, rows)
    table = pd.DataFrame({"estimate": estimate}, index=rows.index)
    if interval is None:
        return told(table, level, None, ci, "")
    tails = [(1 - ci) / 2, (1 + ci) / 2]
    found, rng = np.empty((3, len(estimate))), np.random.default_rng(seed)
    for piece in pieces(len(estimate), 4.0 * np.prod(fit.draw_shape)):
        lines = lines_of_draws(fit, rows.take(piece), rng)
        if interval == "prediction":
            lines += rng.standard_normal(lines.shape) * flattened(fit.draws("sigma"))
        found[0, piece] = lines.std(axis=1, ddof=1)
        found[1:, piece] = np.quantile(lines, tails, axis=1)
    table = table.assign(se=found[0], lower=found[1], upper=found[2])
    return told(table, level, interval, ci, "equal-tailed quantiles of the posterior draws")


def lines_of_draws(fit: MultilevelPosteriorNumbers, rows: FactorRows, rng: np.random.Generator | None) -> FloatArray:
    """Draws of the lines of some rows, (n, S); without a generator, new groups are at b = 0."""
    lines = rows.X @ flattened(fit.draws("beta")).T + rows.offset[:, None]
    for k, at in rows.groups.items():
        columns = fit.design.random[k].columns.columns
        b = flattened(fit.draws(effects_names(fit.design)[k]))
        new = np.flatnonzero(at < 0)
        if len(new):  # an interval is about one row: one new group serves them all
            drawn = np.zeros((len(b), len(columns)))
            if rng is not None:
                root = covariance_root(flattened(fit.draws("D"))[(slice(None), *own_part(fit.design, k))])
                drawn = np.einsum("sij,sj->si", root, rng.standard_normal(root.shape[:2]))
            b = np.concatenate([b, drawn[:, None]], axis=1)  # at position -1
        for a, column in enumerate(columns):
            lines += rows.X1[:, column, None] * b[:, at, a].T
    return lines
