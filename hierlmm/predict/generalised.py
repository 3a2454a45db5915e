"""Predictions of a generalised fit, on the scale of the link or of the response.

    subject        x'β + z'b̂_i           population     x'β
    new_subject    x'β + z'b, b ~ N(0, D), one subject     marginal   the mean of the responses over such subjects

What is linear has its interval on the scale of the link, and the ends are transformed; so has the marginal mean,
through ``g(mean)``. Standard errors are by the delta method in (λ, β̃, ψ) jointly; a subject's mode moves with them, and
the variance of b around it is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import drawn_responses
from hierlmm.design.design import own_columns
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.generalised_draws import parameter_draws
from hierlmm.frames import column_names, to_pandas
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.predict.averages import by_quadrature, mean_over_subjects
from hierlmm.predict.lines import interval_table, through_link
from hierlmm.predict.rows import SEE, Rows, check_request, described, rows_of

DRAWS = 4000
DELTA = "the joint uncertainty of the coefficients, of D and of the dispersion (delta method)"


def predict_generalised(
    fit: Any, newdata: Any, level: str, interval: str | None, ci: float, scale: str, trials: Any
) -> pd.DataFrame:
    """See `hierlmm.fit.generalised.GeneralisedFit.predict`."""
    check_request(fit.design, level, interval, ci)
    rows = rows_of(fit.design, newdata, level)
    family, (n, counted) = fit.family, trials_of(fit, newdata, trials)
    if family.name == "ordinal" and (scale == "response" or level == "marginal" or interval == "prediction"):
        reason = "a category has no mean" if interval != "prediction" else "a category has no interval"
        if level == "marginal":
            reason = "the mean over subjects is another line at each threshold"
        remedy = f"use fit.probabilities(level={level!r}), or scale='link' with level='subject' or 'population'"
        raise NotAvailableError("predictions of an ordinal response", reason, remedy, SEE)
    refuse_measured_links(scale, interval)
    eta, variance = line(fit, rows, level, spread=interval is not None)

    def back(at: FloatArray) -> FloatArray:
        return at if scale == "link" else family.mean(at) * n

    table = pd.DataFrame({"estimate": back(eta)}, index=rows.index)
    contains, quantile = DELTA, "normal, on the scale of the link"
    if interval == "prediction":
        low, high = _measurements(fit, rows, level, ci, n)
        table = table.assign(lower=low, upper=high)
        contains, quantile = f"{DELTA}, and the distribution of a response", f"of {DRAWS} simulated responses"
    elif interval is not None:
        own = interval_table(eta, variance, ci, np.full(len(eta), np.inf), rows.index)
        table = through_link(own, back)
    return tell_scale(described(table, level, interval, ci, contains, quantile), fit, scale, counted)


def refuse_measured_links(scale: str, interval: str | None) -> None:
    """Refuse the interval of a new response on the scale of a link."""
    if scale == "link" and interval == "prediction":
        received, reason = "scale='link' with interval='prediction'", "a new response has no link: only its mean has"
        remedy = "use scale='response' for a new response, or interval='confidence' for linear predictors"
        raise NotAvailableError(received, reason, remedy, SEE)


def trials_of(fit: Any, newdata: Any, trials: Any) -> tuple[FloatArray, str]:
    """Trials of the rows to predict, and where they come from: as given, the column of the model's trials, else 1.

    Raises
    ------
    NotAvailableError
        If they are given for a family that counts none.
    """
    if trials is not None and not fit.family.has_trials:
        reason = f"a {fit.family.title} response counts no trials"
        raise NotAvailableError("trials=", reason, "leave it out", "docs, page 'Families'")
    if newdata is None and trials is None:
        return np.asarray(fit.design.trials), "those of the fitted rows"
    columns = [] if newdata is None else list(column_names(newdata))
    own = fit.design.outcome.trials if fit.family.has_trials else None
    if trials is None and own in columns:
        return _whole_trials(to_pandas(newdata, [own])[own], f"the column {own!r} of the new data"), f"column {own!r}"
    rows = len(fit.design.X) if newdata is None else len(to_pandas(newdata, columns))
    if trials is None:
        return np.ones(rows), f"1, since the new data have no column {own!r}: probabilities, and responses of one trial"
    if np.shape(trials) not in ((), (rows,)):
        received, reason = f"trials= of shape {np.shape(trials)}", f"{rows} rows are predicted"
        raise SpecificationError(received, reason, "give a number, or one for each row", SEE)
    return np.broadcast_to(_whole_trials(trials, f"trials={trials!r}"), (rows,)), "as given"


def _whole_trials(trials: Any, received: str) -> FloatArray:
    try:
        given = np.asarray(trials, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.full(1, np.nan)
    if not np.all((given >= 1.0) & (given < np.inf) & (given == np.round(given))):
        remedy = "give a whole number from 1 on, or one for each row: trials=newdata['n']"
        raise SpecificationError(received, "numbers of trials are 1, 2, ...", remedy, SEE)
    return given


def tell_scale(table: pd.DataFrame, fit: Any, scale: str, trials: str) -> pd.DataFrame:
    """Say in ``attrs`` what the scale is, and of how many trials the numbers are."""
    table.attrs["scale"] = scale
    if fit.family.has_trials and scale == "response":
        table.attrs["trials"] = trials
    return table


def category_probabilities(fit: Any, newdata: Any, level: str) -> pd.DataFrame:
    """See `hierlmm.fit.generalised.GeneralisedFit.probabilities`."""
    check_request(fit.design, level, None, 0.95)
    rows = rows_of(fit.design, newdata, level)
    family, found = fit.family, fit.solution
    if level == "marginal":
        spread = random_variance(rows.Z, found.D)
        values = by_quadrature(lambda eta: family.probabilities(eta, found.psi), rows.line(found.beta), spread)
    else:
        values = family.probabilities(line(fit, rows, level, spread=False)[0], found.psi)
    columns = pd.Index(fit.design.rows.categories, name="category")
    return pd.DataFrame(values, index=rows.index, columns=columns)


def line(fit: Any, rows: Rows, level: str, *, spread: bool) -> tuple[FloatArray, FloatArray]:
    """Estimates on the scale of the link, and their variances, (n,) each (NaN unless ``spread``)."""
    record = fit.record

    def values(parameters: FloatArray) -> FloatArray:
        at = record.at(parameters)
        eta = rows.line(at.beta)
        if level == "subject":
            return eta + np.einsum("ij,ij->i", rows.Z, at.b[rows.subject])
        if level == "marginal":
            return marginal_line(fit.family, eta, random_variance(rows.Z, at.D))
        return eta

    if not spread:
        estimate = values(record.optimum.lam)
        return estimate, np.full(len(estimate), np.nan)
    estimate, variance = record.variances(values)
    if level == "subject":
        Z = own_columns(fit.design, rows.Z)
        variance += np.einsum("ia,iab,ib->i", Z, fit.b_cov[rows.subject], Z)
    elif level == "new_subject":
        variance += random_variance(rows.Z, record.solution.D)
    return estimate, variance


def marginal_line(family: Any, eta: FloatArray, variance: FloatArray) -> FloatArray:
    """The mean over subjects on the scale of the link."""
    return family.function.link(mean_over_subjects(family, eta, variance))


def random_variance(Z: FloatArray, D: FloatArray) -> FloatArray:
    """Variance z'Dz of every row, of one D or of draws of it: (n, q) and (..., q, q) -> (..., n)."""
    return np.einsum("ia,...ab,ib->...i", Z, D, Z, optimize=D.ndim > 2)


def _measurements(fit: Any, rows: Rows, level: str, ci: float, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Quantiles of new responses, over draws of the parameters, of b and of the response: (n,) each."""
    rng = np.random.default_rng(0)
    family, q = fit.family, len(fit.design.term)
    sample = parameter_draws(fit, DRAWS, rng)
    own = covariance_root(fit.b_cov) if level == "subject" else None
    drawn = np.empty((DRAWS, len(rows.X)))
    for s, parameters in enumerate(sample):
        lam, working, psi = fit.criterion_function.split(parameters)
        scaling = fit.criterion_function.scaling
        eta = rows.line(scaling.beta(working))
        if own is not None:
            b = fit.b.to_numpy() + np.einsum("jab,jb->ja", own, rng.standard_normal(own.shape[:2]))
            eta = eta + np.einsum("ij,ij->i", own_columns(fit.design, rows.Z), b[rows.subject])
        elif level != "population":
            root = scaling.factor(fit.criterion_function.structure.factor(lam))
            eta = eta + np.einsum("ij,ij->i", rows.Z, rng.standard_normal((len(eta), q)) @ root.T)
        drawn[s] = drawn_responses(family, eta[None], psi[None], n, rng)[0]
    tail = 0.5 - ci / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0, method="inverted_cdf")
    return low, high
