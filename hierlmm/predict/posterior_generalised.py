"""Predictions of a generalised posterior: every draw gives a mean, and the draws together its uncertainty.

    subject      g⁻¹(x'β_s + z'b_s)        population   g⁻¹(x'β_s)
    new_subject  g⁻¹(x'β_s + z'b), b ~ N(0, D_s), one subject     marginal   the mean of g⁻¹ over such subjects

Estimates are posterior means on the scale asked for; that at ``"new_subject"`` is of b = 0, the median over subjects,
as of a likelihood fit. Rows are taken in pieces, so that working arrays stay below `rows.MEMORY_BUDGET`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import drawn_responses
from hierlmm.errors import NotAvailableError
from hierlmm.fits.posterior import flattened
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.predict.averages import by_quadrature, mean_over_subjects
from hierlmm.predict.generalised import random_variance, refuse_measured_links, tell_scale, trials_of
from hierlmm.predict.posterior import POSTERIOR_CONTENTS, as_draws, check_budget, new_subjects
from hierlmm.predict.rows import SEE, Rows, check_request, described, pieces, random_columns, rows_of

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
    rows, n, counted = _asked(fit, newdata, level, interval, ci, scale, trials)
    if fit.family.name == "ordinal" and interval == "prediction":
        remedy = f"use fit.probabilities(level={level!r}), or kind='draws' for draws of categories"
        reason = "a category has no mean and no interval"
        raise NotAvailableError("a prediction interval of an ordinal response", reason, remedy, SEE)
    rng = np.random.default_rng(seed)
    one = replace(rows, subject=np.zeros(len(n), dtype=np.intp)) if level in ("new_subject", "marginal") else rows
    effects = _effects(fit, level, interval, rng, 1)  # one new subject for all rows
    found = np.empty((4, len(n)))
    tails = [0.5 - ci / 2.0, 0.5 + ci / 2.0]
    for piece in pieces(len(n), ARRAYS * int(np.prod(fit.draw_shape))):
        own = one.take(piece)
        if interval != "prediction":
            middle = None if level == "new_subject" else effects
            found[0, piece] = _means(fit, own, level, middle, scale, n[piece]).mean(axis=0)
        if interval is None:
            continue
        if interval == "prediction":
            values = drawn_responses(fit.family, line(fit, own, effects), flattened(fit.psi_draws()), n[piece], rng)
            found[0, piece] = values.mean(axis=0)
        else:
            values = _means(fit, own, level, effects, scale, n[piece])
        found[1, piece] = values.std(axis=0, ddof=1)
        method: Any = "inverted_cdf" if interval == "prediction" else "linear"
        found[2:, piece] = np.quantile(values, tails, axis=0, method=method)
    table = pd.DataFrame({"estimate": found[0]}, index=rows.index)
    contains = POSTERIOR_CONTENTS[level] + (", and the distribution of a response" if interval == "prediction" else "")
    if interval is not None:
        table = table.assign(se=found[1], lower=found[2], upper=found[3])
    told = described(table, level, interval, ci, contains, "equal-tailed quantiles of the posterior draws")
    return tell_scale(told, fit, scale, counted)


def drawn_predictions(
    fit: Any, newdata: Any, level: str, interval: str | None, scale: str, trials: Any, seed: int | None
) -> Any:
    """Draws behind the predictions, joint over rows, as `hierlmm.predict.posterior.prediction_draws` has them."""
    rows, n, _ = _asked(fit, newdata, level, interval, 0.5, scale, trials)
    new = level == "new_subject" or (level == "marginal" and interval == "prediction")
    who, labels = new_subjects(fit, rows) if new else (rows.subject, 0)
    check_budget(len(n), int(np.prod(fit.draw_shape)), labels * rows.Z.shape[1])
    rng = np.random.default_rng(seed)
    effects, rows = _effects(fit, level, interval, rng, labels), replace(rows, subject=who)
    if interval == "prediction":
        values = drawn_responses(fit.family, line(fit, rows, effects), flattened(fit.psi_draws()), n, rng)
    else:
        values = _means(fit, rows, level, effects, scale, n)
    name = "response" if interval == "prediction" else "line" if scale == "link" else "mean"
    return as_draws(fit, values, rows, level, name)


def category_means(fit: Any, newdata: Any, level: str) -> pd.DataFrame:
    """Posterior means of the probabilities of categories; see `hierlmm.fit.generalised.GeneralisedFit`."""
    check_request(fit.design, level, None, 0.95)
    if level == "subject":
        fit.need_effects("probabilities(level='subject')", draws=True)
    rows, family, categories = rows_of(fit.design, newdata, level), fit.family, fit.design.rows.categories
    psi, D = flattened(fit.psi_draws())[:, None], flattened(fit.draws("D"))
    effects = flattened(fit.draws("b")) if level == "subject" else None
    values = np.empty((len(rows.X), len(categories)))
    for piece in pieces(len(values), ARRAYS * len(psi) * len(categories)):
        own = rows.take(piece)
        eta = line(fit, own, effects)
        if level == "marginal":
            drawn = by_quadrature(lambda e: family.probabilities(e, psi), eta, random_variance(own.Z, D))
        else:
            drawn = family.probabilities(eta, psi)
        values[piece] = drawn.mean(axis=0)
    return pd.DataFrame(values, index=rows.index, columns=pd.Index(categories, name="category"))


def line(fit: Any, rows: Rows, effects: FloatArray | None) -> FloatArray:
    """Linear predictors at every draw, (S, n), with ``effects`` (S, J, q) of the subjects of the rows, or at b = 0."""
    eta = flattened(fit.draws("beta")) @ rows.X.T + rows.offset
    if effects is not None:
        Z = random_columns(fit.design, rows, effects)
        for k in range(Z.shape[1]):
            eta = eta + Z[:, k] * effects[:, rows.subject, k]
    return eta


def posterior_means(fit: Any, rows: Rows, level: str) -> FloatArray:
    """Posterior means of the means (of one trial) of rows at a level, other than of a new subject: (n,)."""
    effects, found = (flattened(fit.draws("b")) if level == "subject" else None), np.empty(len(rows.X))
    for piece in pieces(len(found), ARRAYS * int(np.prod(fit.draw_shape))):
        found[piece] = _means(fit, rows.take(piece), level, effects, "response", np.ones(1)).mean(axis=0)
    return found


def _asked(
    fit: Any, newdata: Any, level: str, interval: str | None, ci: float, scale: str, trials: Any
) -> tuple[Rows, FloatArray, str]:
    """The rows, their trials and where these come from, after checking that there is something to predict."""
    check_request(fit.design, level, interval, ci)
    refuse_measured_links(scale, interval)
    if level == "subject":
        fit.need_effects("predict(level='subject')", draws=True)
    rows = rows_of(fit.design, newdata, level)
    ordinal = fit.family.name == "ordinal"
    if ordinal and interval != "prediction" and (scale == "response" or level == "marginal"):
        reason = "a category has no mean" if scale == "response" else "the mean over subjects is another line at each "
        reason += "threshold" if scale != "response" else ""
        remedy = f"use fit.probabilities(level={level!r}), or scale='link' with level='subject' or 'population', or "
        remedy += "interval='prediction' with kind='draws' for categories"
        raise NotAvailableError("predictions of an ordinal response", reason, remedy, SEE)
    return rows, *trials_of(fit, newdata, trials)


def _effects(fit: Any, level: str, interval: str | None, rng: np.random.Generator, labels: int) -> FloatArray | None:
    """Random effects at every draw: of the subjects (S, J, q), of new ones (S, labels, q), or none."""
    if level == "subject":
        return flattened(fit.draws("b"))
    if level == "population" or (level == "marginal" and interval != "prediction"):
        return None
    root = covariance_root(flattened(fit.draws("D")))
    noise = rng.standard_normal((len(root), labels, root.shape[-1]))
    return np.einsum("sij,slj->sli", root, noise)


def _means(fit: Any, rows: Rows, level: str, effects: FloatArray | None, scale: str, n: FloatArray) -> FloatArray:
    """Means of the response, or their link, at every draw, (S, n)."""
    family, eta = fit.family, line(fit, rows, effects)
    if level != "marginal":
        return eta if scale == "link" else family.mean(eta) * n
    mean = mean_over_subjects(family, eta, random_variance(rows.Z, flattened(fit.draws("D"))))
    return family.function.link(mean) if scale == "link" else mean * n
