"""Predictions of a generalised posterior with several grouping factors: every draw gives a mean.

    g⁻¹(x'β_s + Σ_k z_k'b_ks[group])        over the factors of the level

Groups that were not in the data are drawn at every draw, as `factor_draws` does: means over draws are then means over
such groups. (Integrated draw by draw, exp(z'D_s z/2) of a log link, the mean would hang on few draws of a large D.) On
the scale of the link they are at b = 0 in the estimate, which is the mean of their lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import drawn_responses
from hierlmm.fits.posterior import flattened
from hierlmm.options import choose
from hierlmm.predict.factor_draws import lines_of_draws
from hierlmm.predict.factors import FactorRows, rows_to_predict, told
from hierlmm.predict.generalised import refuse_measured_links, tell_scale, trials_of
from hierlmm.predict.generalised_factors import check_scaled, tell_new
from hierlmm.predict.rows import pieces

ARRAYS = 5


def predict_generalised_factor_draws(
    fit: Any,
    newdata: Any,
    level: str,
    interval: str | None,
    ci: float,
    scale: str,
    trials: Any,
    new_groups: str,
    seed: int | None,
) -> pd.DataFrame:
    """See `hierlmm.fit.generalised_factor_draws.GeneralisedMultilevelPosterior.predict`."""
    check_scaled(fit, interval, ci, scale, new_groups)
    refuse_measured_links(scale, interval)
    rows, (n, counted) = _rows(fit, newdata, level, new_groups), trials_of(fit, newdata, trials)
    psi, rng, tails = flattened(fit.psi_draws()), np.random.default_rng(seed), [0.5 - ci / 2.0, 0.5 + ci / 2.0]
    found = np.empty((4, len(n)))
    for piece in pieces(len(n), ARRAYS * int(np.prod(fit.draw_shape))):
        own, counts = rows.take(piece), n[piece]
        eta = lines_of_draws(fit, own, rng).T
        values = eta if scale == "link" else fit.family.mean(eta) * counts
        middle = lines_of_draws(fit, own, None).T if scale == "link" else values
        found[0, piece] = middle.mean(axis=0)
        if interval is None:
            continue
        if interval == "prediction":
            values = drawn_responses(fit.family, eta, psi, counts, rng)
        found[1, piece] = values.std(axis=0, ddof=1)
        method: Any = "inverted_cdf" if interval == "prediction" else "linear"
        found[2:, piece] = np.quantile(values, tails, axis=0, method=method)
    table = pd.DataFrame({"estimate": found[0]}, index=rows.index)
    if interval is not None:
        table = table.assign(se=found[1], lower=found[2], upper=found[3])
    quantile = "" if interval is None else "equal-tailed quantiles of the posterior draws"
    return tell_scale(tell_new(told(table, level, interval, ci, quantile), rows, scale), fit, scale, counted)


def category_means_of_factors(fit: Any, newdata: Any, level: str, new_groups: str) -> pd.DataFrame:
    """Posterior means of the probabilities of categories, (n, categories)."""
    rows, categories = _rows(fit, newdata, level, new_groups), fit.design.rows.categories
    psi, values = flattened(fit.psi_draws())[:, None], np.empty((len(rows.X), len(categories)))
    rng = np.random.default_rng(0)
    for piece in pieces(len(values), ARRAYS * len(psi) * len(categories)):
        eta: FloatArray = lines_of_draws(fit, rows.take(piece), rng).T
        values[piece] = fit.family.probabilities(eta, psi).mean(axis=0)
    return pd.DataFrame(values, index=rows.index, columns=pd.Index(categories, name="category"))


def _rows(fit: Any, newdata: Any, level: str, new_groups: str) -> FactorRows:
    choose("new_groups", new_groups, ("refuse", "allow"))
    rows = rows_to_predict(fit.design, newdata, level, new_groups)
    if rows.groups:
        fit.need_effects(f"predict(level={level!r})", draws=True)
    return rows
