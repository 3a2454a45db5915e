"""Predictions of a generalised posterior: every draw gives a mean, and the draws together its uncertainty.

    subject      g⁻¹(x'β_s + z'b_s)        population   g⁻¹(x'β_s)
    new_subject  g⁻¹(x'β_s + z'b), b ~ N(0, D_s), one subject     marginal   the mean of g⁻¹ over such subjects

Estimates are posterior means on the scale asked for; that at ``"new_subject"`` is of b = 0, the median over subjects,
as of a likelihood fit. Rows are taken in pieces, so that working arrays stay below `rows.MEMORY_BUDGET`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import drawn_responses
from hierlmm.errors import NotAvailableError
from hierlmm.fits.posterior import flattened
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.predict.averages import mean_over_subjects
from hierlmm.predict.generalised import trials_of
from hierlmm.predict.posterior import POSTERIOR_CONTENTS
from hierlmm.predict.rows import SEE, Rows, check_request, described, pieces, rows_of

ARRAYS = 5


def predict_draws(
    fit: Any,
    newdata: Any,
    level: str,
    interval: str | None,
    ci: float,
    scale: str,
    trials: Any,
    seed: int | None,
) -> pd.DataFrame:
    """See `hierlmm.fit.posterior_generalised.GeneralisedPosterior.predict`."""
    check_request(level, interval, ci)
    if level == "subject":
        fit.need_effects("predict(level='subject')", draws=True)
    rows, family = rows_of(fit.design, newdata, level), fit.family
    if family.name == "ordinal" and scale == "response" and interval != "prediction":
        reason, remedy = "a category has no mean", "use scale='link', or interval='prediction' for categories"
        raise NotAvailableError("predictions of an ordinal response", reason, remedy, SEE)
    n = trials_of(fit, newdata, trials)
    rng, psi = np.random.default_rng(seed), flattened(fit.psi_draws())
    noise = rng.standard_normal((len(psi), len(fit.design.term)))  # one new subject for all rows
    found = np.empty((4, len(n)))
    tails = [0.5 - ci / 2.0, 0.5 + ci / 2.0]
    for piece in pieces(len(n), ARRAYS * len(psi)):
        own = rows.take(piece)
        middle = level if level != "new_subject" else "population"
        found[0, piece] = (
            means(fit, own, middle, noise, scale, n[piece]).mean(axis=0) if interval != "prediction" else 0
        )
        if interval is None:
            continue
        if interval == "prediction":
            eta = line(fit, own, "new_subject" if level == "marginal" else level, noise)
            values = drawn_responses(family, eta, psi, n[piece], rng)
            found[0, piece] = values.mean(axis=0)
        else:
            values = means(fit, own, level, noise, scale, n[piece])
        found[1, piece] = values.std(axis=0, ddof=1)
        method: Any = "inverted_cdf" if interval == "prediction" else "linear"
        found[2:, piece] = np.quantile(values, tails, axis=0, method=method)
    table = pd.DataFrame({"estimate": found[0]}, index=rows.index)
    contains = POSTERIOR_CONTENTS[level] + (", and the distribution of a response" if interval == "prediction" else "")
    if interval is not None:
        table = table.assign(se=found[1], lower=found[2], upper=found[3])
    told = described(table, level, interval, ci, contains, "equal-tailed quantiles of the posterior draws")
    told.attrs["scale"] = scale
    return told


def line(fit: Any, rows: Rows, level: str, noise: FloatArray) -> FloatArray:
    """Linear predictors at every draw, (S, n); ``noise`` (S, q) is that of a new subject."""
    eta = flattened(fit.draws("beta")) @ rows.X.T + rows.offset
    if level == "subject":
        b = flattened(fit.draws("b"))
        for k in range(rows.Z.shape[1]):
            eta = eta + rows.Z[:, k] * b[:, rows.subject, k]
    elif level == "new_subject":
        b = np.einsum("sij,sj->si", covariance_root(flattened(fit.draws("D"))), noise)
        eta = eta + b @ rows.Z.T
    return eta


def means(fit: Any, rows: Rows, level: str, noise: FloatArray, scale: str, n: FloatArray) -> FloatArray:
    """Means of the response, or their link, at every draw, (S, n)."""
    family, eta = fit.family, line(fit, rows, level, noise)
    if level != "marginal":
        return eta if scale == "link" else family.mean(eta) * n
    variance = np.einsum("na,sab,nb->sn", rows.Z, flattened(fit.draws("D")), rows.Z, optimize=True)
    mean = mean_over_subjects(family, eta, variance)
    return family.function.link(mean) if scale == "link" else mean * n
