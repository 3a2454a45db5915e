r"""Dynamic prediction: a new subject's trajectory from its first measurements, without refitting.

Given (β, D, Σ) a new subject's history y_h and any function of its future are jointly normal. With
V = Z_h D Z_h' + Σ_hh and the gains

    G_line = z*'D Z_h' V⁻¹,    G_measurement = (z*'D Z_h' + Σ_*h) V⁻¹,
    E(· | y_h, β) = x*'β + G (y_h - X_h β),    Var(line | y_h, β) = z*'D z* - G_line V G_line',
    Var(measurement | y_h, β) = z*'D z* + Σ_** - G_measurement V G_measurement'

With independent errors Σ_*h = 0 and both expectations agree; with serial correlation a measurement also leans on the
residuals nearby (see `hierlmm.predict.residual`).

*Likelihood fits.* A refit at fixed θ would let the new subject inform β as well, and so does the update

    V_β⁺ = (V_β⁻¹ + X_h'V⁻¹X_h)⁻¹,    β⁺ = β̂ + V_β⁺ X_h'V⁻¹ (y_h - X_h β̂),
    Var = Var(· | y_h, β) + (x* - X_h'G')' V_β⁺ (x* - X_h'G')

which is exact. θ stays where it is; its uncertainty enters as in `hierlmm.predict.likelihood`.

*Posteriors.* A refit would weigh every draw by what it says of the new subject, w_s ∝ p(y_h | β_s, θ_s): importance
weights, Pareto smoothed, with the k of Vehtari et al. as their warrant. The prediction is the mixture of the draws'
conditional normal distributions with these weights; quantiles are those of the mixture, found by Newton's method.

References
----------
Vehtari, A., Simpson, D., Gelman, A., Yao, Y., Gabry, J. (2024). Pareto smoothed importance sampling. Journal of Machine
Learning Research 25 (72).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import GOOD_K, smoothed_weights
from hierlmm.errors import NotAvailableError, warn
from hierlmm.frames import apart, quote, shorten
from hierlmm.likelihood.by_subject import covariance_root, rows_loglik
from hierlmm.likelihood.large_sample import differences
from hierlmm.likelihood.quantiles import mixture_quantiles
from hierlmm.likelihood.solution import Solution
from hierlmm.predict.history import Course, Courses, course_of, courses_of
from hierlmm.predict.lines import interval_table, quantile_note, with_theta
from hierlmm.predict.residual import Structures, draws_of_structure, residual_covariance, residual_variance
from hierlmm.predict.rows import SEE, Rows, check_request, described, pieces, rows_of
from hierlmm.results import NotedTable

if TYPE_CHECKING:
    from hierlmm.fits.likelihood_tables import LikelihoodNumbers
    from hierlmm.fits.posterior import PosteriorNumbers


COLUMNS = ("estimate", "se", "lower", "upper")
MIXTURE = "quantiles of the mixture over the posterior draws"


class Conditional(NamedTuple):
    """A new subject's rows given its history, β, D and Σ; leading dimensions are those of the draws, if any.

    ``gain`` (..., m, h): G; ``variance`` (..., m); ``factor`` (..., h, h): lower Cholesky factor of V.
    """

    gain: FloatArray
    variance: FloatArray
    factor: FloatArray


def condition(
    fit: Any, course: Course, D: FloatArray, sigma: Any, *, measurement: bool, structure: Structures = None
) -> Conditional:
    """Gains and conditional variances for the lines of the rows to predict, or for new measurements there.

    Parameters
    ----------
    fit : Fit
        For its residual structure.
    course : Course
    D : (..., q, q)
    sigma : float or (...)
    measurement : bool
    structure : ResidualEstimate or sequence of them, optional
        Residual structure, the fit's own otherwise.
    """
    Z, new, frame = course.past.Z, course.new.Z, course.past.frame
    V = Z @ D @ Z.T + residual_covariance(fit, frame, sigma=sigma, structure=structure)
    cross = new @ D @ Z.T
    variance = np.einsum("ma,...ab,mb->...m", new, D, new)
    if measurement:
        cross = cross + residual_covariance(fit, frame, course.new.frame, sigma=sigma, structure=structure)
        variance = variance + residual_variance(fit, course.new.frame, sigma=sigma, structure=structure)
    factor = np.linalg.cholesky(V)
    half = np.linalg.solve(factor, np.swapaxes(cross, -1, -2))
    gain = np.swapaxes(np.linalg.solve(np.swapaxes(factor, -1, -2), half), -1, -2)
    return Conditional(gain, np.maximum(variance - np.einsum("...hm,...hm->...m", half, half), 0.0), factor)


def predict_new_subject(
    fit: LikelihoodNumbers,
    history: Any,
    times: Any = None,
    *,
    interval: str | None = None,
    ci: float = 0.95,
    **asked: Any,
) -> pd.DataFrame:
    """See `LikelihoodFit.predict_subject`; ``asked`` is for `courses_of`.

    Costs O(h³) for a history of h measurements.
    """
    check_request(fit.design, "new_subject", interval, ci)
    courses = courses_of(fit.design, history, times, **asked)
    measurement = interval == "prediction"
    estimate, variances, shifts = _along_theta(fit, courses.subjects, len(courses.index), measurement=measurement)
    variance, df = with_theta(variances, shifts)
    table = interval_table(estimate, variance, ci, df, courses.index)
    contains = "the joint uncertainty of β and b, and how the prediction moves with θ̂"
    return _finish(table, courses, interval, ci, contains, quantile_note(df))


def updated(
    fit: LikelihoodNumbers, course: Course, state: Solution, *, measurement: bool, fitted: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Means and variances (m,), (m,) of new rows given the history, which informs β as well unless ``fitted``."""
    found = condition(fit, course, state.D, state.sigma, measurement=measurement, structure=state.residual)
    beta, beta_cov = state.beta, state.beta_cov
    if len(beta) and not fitted:
        # V_β⁺ = V_β - V_β X_h'(V + X_h V_β X_h')⁻¹ X_h V_β: the same update, without inverting V_β.
        XV = course.past.X @ beta_cov
        total = found.factor @ found.factor.T + XV @ course.past.X.T
        gain = np.linalg.solve(total, XV).T
        beta = beta + gain @ course.excess(beta)
        beta_cov = beta_cov - gain @ XV
    mean = course.new.line(beta) + found.gain @ course.excess(beta)
    x = course.new.X - found.gain @ course.past.X
    return mean, found.variance + np.einsum("ia,ab,ib->i", x, beta_cov, x)


def further_measurements(
    fit: LikelihoodNumbers, rows: Rows, fitted_rows: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """New measurements of fitted subjects whose errors are correlated: they lean on the residuals nearby.

    Returns
    -------
    estimate : (n,)
    variances : (n, 1 + r)
        Given θ, and derivatives along the directions of θ̂.
    shifts : (n, r)
        Derivatives of the estimates.
    """
    return _along_theta(fit, _own_courses(fit, rows, fitted_rows), len(rows.X), measurement=True, fitted=True)


def _along_theta(
    fit: LikelihoodNumbers, courses: Sequence[Course], n: int, *, measurement: bool, fitted: bool = False
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimates, variances and shifts, as `further_measurements` returns them, of the n rows of some courses."""
    solutions, steps = fit.large_sample.neighbours()
    estimate, variances, shifts = np.empty(n), np.empty((n, 1 + len(steps))), np.empty((n, len(steps)))
    for course in courses:
        found = [updated(fit, course, at, measurement=measurement, fitted=fitted) for at in solutions]
        means, own = (differences(np.stack(part), steps) for part in zip(*found, strict=True))
        estimate[course.places], variances[course.places], shifts[course.places] = means[0], own.T, means[1:].T
    return estimate, variances, shifts


def further_measurement_draws(fit: PosteriorNumbers, rows: Rows, ci: float, fitted_rows: bool) -> pd.DataFrame:
    """The same from a posterior: the mixture over its draws, b integrated out, as a table."""
    parameters = _parameters(fit)
    weight = np.full(len(parameters[2]), 1.0 / len(parameters[2]))
    out = np.empty((4, len(rows.X)))
    for course in _own_courses(fit, rows, fitted_rows):
        _fill(out, fit, course, parameters, weight, ci, measurement=True)
    table = pd.DataFrame(dict(zip(COLUMNS, out, strict=True)), index=rows.index)
    contains = "the posterior uncertainty of all parameters, of the subject's b and of its residuals nearby"
    return described(table, "subject", "prediction", ci, contains, MIXTURE)


def _own_courses(fit: Any, rows: Rows, fitted_rows: bool) -> list[Course]:
    """Fitted subjects with their fitted rows as history."""
    if fitted_rows:
        received = "predict(level='subject', interval='prediction') of the fitted rows, with correlated residuals"
        reason = "a new measurement leans on the residuals nearby, and at a fitted row that is its own"
        remedy = "give newdata with other times, or use interval='confidence' for the lines"
        raise NotAvailableError(received, reason, remedy, SEE)
    design = fit.design
    measured = rows_of(design, None, "subject")
    return [course_of(design.subjects[j], j, design.y, measured, rows) for j in np.unique(rows.subject)]


def predict_new_subject_draws(
    fit: PosteriorNumbers,
    history: Any,
    times: Any = None,
    *,
    interval: str | None = None,
    ci: float = 0.95,
    reweight: bool = True,
    **asked: Any,
) -> pd.DataFrame:
    """See `PosteriorFit.predict_subject`; ``asked`` is for `courses_of`.

    Costs O(S h³) for S draws and a history of h measurements.
    """
    check_request(fit.design, "new_subject", interval, ci)
    courses = courses_of(fit.design, history, times, **asked)
    parameters = _parameters(fit)
    out, draws = np.empty((4, len(courses.index))), len(parameters[2])
    quality: dict[Any, tuple[float, float]] = {}
    for course in courses.subjects:
        weight = np.full(draws, 1.0 / draws)
        if reweight:
            weight, k = smoothed_weights(_history_loglik(fit, course, *parameters))
            quality[course.label] = (k, float(1.0 / np.sum(weight**2)))
        _fill(out, fit, course, parameters, weight, ci, measurement=interval == "prediction")
    table = pd.DataFrame(dict(zip(COLUMNS, out, strict=True)), index=courses.index)
    contains = "the posterior uncertainty of β, D and σ and that of b given the history"
    table = _finish(table, courses, interval, ci, contains, MIXTURE)
    if reweight:
        _report_weights(table, quality)
    return table


def _parameters(fit: PosteriorNumbers) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draws of β (S, p), D (S, q, q) and σ (S,)."""
    q = len(fit.design.term)
    beta, sigma = fit.draws("beta").reshape(-1, len(fit.design.coef)), fit.draws("sigma").ravel()
    return beta, fit.draws("D").reshape(-1, q, q) if q else np.empty((len(sigma), 0, 0)), sigma


def _fill(
    out: FloatArray,
    fit: PosteriorNumbers,
    course: Course,
    parameters: tuple[FloatArray, FloatArray, FloatArray],
    weight: FloatArray,
    ci: float,
    *,
    measurement: bool,
) -> None:
    """Put a subject's estimates, SDs and quantiles into its rows of the table, columns of ``out`` (4, n)."""
    # Rows to predict in pieces: arrays of (draws, rows) stay below the memory budget.
    for part in pieces(len(course.places), 8 * len(weight)):
        piece = replace(course, new=course.new.take(part), places=course.places[part])
        mean, variance = _moments(fit, piece, *parameters, measurement=measurement)
        centre = weight @ mean
        out[0, piece.places] = centre
        out[1, piece.places] = np.sqrt(weight @ (variance + (mean - centre) ** 2))
        out[2:, piece.places] = mixture_quantiles(mean, np.sqrt(variance), weight, (0.5 - ci / 2.0, 0.5 + ci / 2.0))


def _finish(
    table: pd.DataFrame, courses: Courses, interval: str | None, ci: float, contains: str, quantile: str
) -> pd.DataFrame:
    """Put the names of the rows before the numbers, and say what they are."""
    notes: dict[str, Any] = {
        "level": "new_subject",
        "scale": "response",
        "estimate": "the line of a new subject given its first measurements",
    }
    if interval is None:
        table = table[["estimate"]]
    else:
        about = "a new measurement of the new subject" if interval == "prediction" else "its line"
        contains += ", and the residual variance" if interval == "prediction" else ""
        notes |= {
            "ci": ci,
            "interval": f"{100 * ci:g} % for {about}, given its history; contains {contains}",
            "quantile": quantile,
        }
    if courses.names:
        columns = apart(courses.names, COLUMNS)  # a time called "lower" stands as "at lower"
        names = pd.DataFrame(courses.names, index=courses.index).rename(columns=columns)
        table = pd.concat([names, table], axis=1)
    told = NotedTable(table)
    told.attrs.update(notes)
    return told


def _history_loglik(
    fit: PosteriorNumbers, course: Course, beta: FloatArray, D: FloatArray, sigma: FloatArray
) -> FloatArray:
    """Log p(y_h | β_s, θ_s) of every draw, b integrated out: (S,)."""
    past, root, start = course.past, covariance_root(D), np.array([0, len(course.y)])
    structures = draws_of_structure(fit)
    if structures is None:
        return rows_loglik(past.Z, past.X, course.y - past.offset, start, beta, root, sigma)[:, 0]
    out, columns = np.empty(len(sigma)), np.column_stack([past.Z, past.X, course.y - past.offset])
    for s, structure in enumerate(structures):
        L = np.linalg.cholesky(residual_covariance(fit, past.frame, sigma=1.0, structure=structure))
        Z, X, y = np.split(np.linalg.solve(L, columns), [past.Z.shape[1], columns.shape[1] - 1], axis=1)
        one = slice(s, s + 1)
        out[s] = rows_loglik(Z, X, y[:, 0], start, beta[one], root[one], sigma[one])[0, 0]
        out[s] -= np.log(np.diag(L)).sum()
    return out


def _moments(
    fit: PosteriorNumbers, course: Course, beta: FloatArray, D: FloatArray, sigma: FloatArray, *, measurement: bool
) -> tuple[FloatArray, FloatArray]:
    """Conditional means and variances of the rows to predict under every draw: (S, m), (S, m)."""
    m, h = len(course.places), len(course.y)
    mean, variance, structures = np.empty((len(sigma), m)), np.empty((len(sigma), m)), draws_of_structure(fit)
    for piece in pieces(len(sigma), 4 * (h * h + 3 * m * h)):
        own = None if structures is None else structures[piece]
        found = condition(fit, course, D[piece], sigma[piece], measurement=measurement, structure=own)
        mean[piece] = course.new.offset + beta[piece] @ course.new.X.T
        mean[piece] += np.einsum("smh,sh->sm", found.gain, course.excess(beta[piece]))
        variance[piece] = found.variance
    return mean, variance


def _report_weights(table: pd.DataFrame, quality: dict[Any, tuple[float, float]]) -> None:
    table.attrs["pareto_k"] = {label: k for label, (k, _) in quality.items()}
    table.attrs["ess"] = {label: ess for label, (_, ess) in quality.items()}
    bad = [label for label, (k, _) in quality.items() if not k <= GOOD_K]
    if not bad:
        return
    who = "the new subject" if bad == [None] else f"new subject {shorten(map(quote, bad))}"
    warn(
        f"The history of {who} changes the posterior more than reweighting its draws can follow (Pareto k "
        f"{max(quality[label][0] for label in bad):z.2f}, above {GOOD_K}). The prediction is not reliable: refit with "
        "the new subject's rows in the data, or use reweight=False, which leaves β, D and σ as they were."
    )
