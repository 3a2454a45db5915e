"""Predictions of a generalised fit with several grouping factors, on the scale of the link or of the response.

    η̂ = x'β̂ + Σ_k z_k'b̂_k[group]        over the factors of the level

Intervals are made on the scale of the link, and their ends transformed. The variance is that of the delta method in
(λ, β̃, ψ) jointly, modes moving along, and that of the random effects around their joint mode, z'ΛH⁻¹Λ'z; groups that
were not in the data add z'Dz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, solve_triangular

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.families.rows import rowwise
from hierlmm.fits.base import INTERVALS
from hierlmm.fits.several import SEE
from hierlmm.options import check_ci, choose
from hierlmm.predict.factors import Equations, FactorRows, line_in_words, lines_of, rows_to_predict
from hierlmm.predict.generalised import DELTA, tell_scale, trials_of
from hierlmm.predict.lines import interval_table, through_link
from hierlmm.predict.rows import pieces
from hierlmm.results import NotedTable

if TYPE_CHECKING:
    from hierlmm.fits.generalised_multilevel import GeneralisedMultilevelNumbers


def predict_generalised_factors(
    fit: GeneralisedMultilevelNumbers,
    newdata: Any,
    level: str,
    interval: str | None,
    ci: float,
    scale: str,
    trials: Any,
    new_groups: str,
) -> pd.DataFrame:
    """See `hierlmm.fit.generalised_multilevel.GeneralisedMultilevelFit.predict`."""
    check_scaled(fit, interval, ci, scale, new_groups)
    if interval == "prediction":
        received = "interval='prediction' of a generalised fit with several grouping factors"
        reason = "draws of all its random effects together are not made yet"
        raise NotAvailableError(received, reason, "use interval='confidence', for the mean of the response", SEE)
    rows = rows_to_predict(fit.design, newdata, level, new_groups)
    family, (n, counted) = fit.family, trials_of(fit, newdata, trials)
    eta, record = _lines(fit, rows, fit.optimum.lam), fit.record

    def back(at: FloatArray) -> FloatArray:
        return at if scale == "link" else family.mean(at) * n

    table, words = pd.DataFrame({"estimate": back(eta)}, index=rows.index), line_in_words(level)
    attrs: dict[str, Any] = {"level": level, "scale": scale, "estimate": words}
    if interval is not None:
        variance = record.variances(lambda parameters: _lines(fit, rows, parameters))[1]
        variance = variance + conditional_variances(fit, rows)
        own = interval_table(eta, variance, ci, np.full(len(eta), np.inf), rows.index)
        table = through_link(own, back)
        attrs |= {"ci": ci, "interval": f"{100 * ci:g} % for {words}; contains {DELTA}, and that of the random effects"}
        attrs |= {"quantile": "normal, on the scale of the link"}
    told = NotedTable(table)
    told.attrs |= attrs
    return tell_scale(told, fit, scale, counted)


def check_scaled(fit: Any, interval: str | None, ci: float, scale: str, new_groups: str) -> None:
    """Refuse what predictions of a generalised model with several grouping factors have not."""
    choose("new_groups", new_groups, ("refuse", "allow"))
    choose("scale", scale, ("response", "link"))
    if interval is not None:
        choose("interval", interval, INTERVALS)
    check_ci(ci)
    if fit.family.name == "ordinal" and (scale == "response" or interval == "prediction"):
        remedy = "use fit.probabilities(), or scale='link'"
        raise NotAvailableError("predictions of an ordinal response", "a category has no mean", remedy, SEE)


def category_probabilities_of_factors(fit: Any, newdata: Any, level: str, new_groups: str) -> pd.DataFrame:
    """See `hierlmm.fit.generalised_multilevel.GeneralisedMultilevelFit.probabilities`."""
    choose("new_groups", new_groups, ("refuse", "allow"))
    rows = rows_to_predict(fit.design, newdata, level, new_groups)
    values = fit.family.probabilities(_lines(fit, rows, fit.optimum.lam), fit.solution.psi)
    columns = pd.Index(fit.design.rows.categories, name="category")
    return pd.DataFrame(values, index=rows.index, columns=columns)


def _lines(fit: Any, rows: FactorRows, parameters: FloatArray) -> FloatArray:
    at = fit.record.at(parameters)
    return lines_of(rows, fit.design, at.beta, [b for b, _ in at.by_factor] if rows.groups else [])


def conditional_variances(fit: Any, rows: FactorRows) -> FloatArray:
    """Variances of the random effects of rows around their mode given the estimates, (n,), by a dense H.

    Raises
    ------
    NotAvailableError
        If there are too many random effects for that.
    """
    variance = np.zeros(len(rows.X))
    if not rows.groups:
        return variance
    design, state, equations = fit.design, fit.solution, Equations(fit.design)
    p = design.X.shape[1]
    eta, psi = state.line(design), state.psi.copy()
    weight = -rowwise(design.family.derivatives, design.y, design.trials, eta, psi, 2)[:, 2]
    W = equations.rows
    H = (W.T @ (W * weight[:, None])).toarray()
    H = equations.scaled(equations.scaled(H, state).T, state)[p:, p:]
    H[np.diag_indices_from(H)] += 1.0
    L = cho_factor(H, lower=True)[0]
    for part in pieces(len(rows.X), 2.0 * len(H)):
        own = equations.scaled(equations.columns(rows.take(part)), state)[:, p:]
        error = solve_triangular(L, own.T, lower=True)
        variance[part] = np.einsum("ij,ij->j", error, error)
    return variance + equations.of_new_groups(state, rows)
