"""Predictions of a generalised fit with several grouping factors, on the scale of the link or of the response.

    η̂ = x'β̂ + Σ_k z_k'b̂_k[group]        over the factors of the level

Intervals are made on the scale of the link, and their ends transformed. The variance is that of the delta method in
(λ, β̃, ψ) jointly, modes moving along, and that of the random effects around their joint mode, z'ΛH⁻¹Λ'z; groups that
were not in the data add z'Dz. On the scale of the response they have the mean over their random effects,

    E g⁻¹(η̂ + e),   e ~ N(0, z'Dz)

with the standard deviation of g⁻¹ over the distribution on the scale of the link that the interval comes from.
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
from hierlmm.predict.averages import by_quadrature, mean_over_subjects
from hierlmm.predict.factors import (
    Equations,
    FactorRows,
    line_in_words,
    lines_of,
    new_groups_variance,
    rows_to_predict,
)
from hierlmm.predict.generalised import DELTA, tell_scale, trials_of
from hierlmm.predict.lines import interval_table, through_link
from hierlmm.predict.rows import pieces
from hierlmm.results import NotedTable

if TYPE_CHECKING:
    from hierlmm.fits.generalised_multilevel import GeneralisedMultilevelNumbers

OF_NEW = {
    "response": "of groups that were not in the data the mean over their random effects",
    "link": "groups that were not in the data in their middle, at b = 0",
}


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

    table, words, variance = pd.DataFrame({"estimate": back(eta)}, index=rows.index), line_in_words(level), None
    attrs: dict[str, Any] = {"level": level, "scale": scale, "estimate": words}
    if interval is not None:
        variance = record.variances(lambda parameters: _lines(fit, rows, parameters))[1]
        variance = variance + conditional_variances(fit, rows)
        own = interval_table(eta, variance, ci, np.full(len(eta), np.inf), rows.index)
        table = through_link(own, back)
        attrs |= {"ci": ci, "interval": f"{100 * ci:g} % for {words}; contains {DELTA}, and that of the random effects"}
        attrs |= {"quantile": "normal, on the scale of the link"}
    if scale == "response" and np.any(new := rows.new):
        own = _means_of_new(fit, rows.take(new), eta[new], None if variance is None else variance[new])
        table.loc[new, own.columns] = own.to_numpy() * n[new, None]
    told = NotedTable(table)
    told.attrs |= attrs
    return tell_scale(tell_new(told, rows, scale), fit, scale, counted)


def tell_new(table: pd.DataFrame, rows: FactorRows, scale: str) -> pd.DataFrame:
    """Say in ``attrs`` what the estimate is for groups that were not in the data, where there are any."""
    if np.any(rows.new):
        table.attrs["estimate"] += f"; {OF_NEW[scale]}"
    return table


def _means_of_new(fit: Any, rows: FactorRows, eta: FloatArray, variance: FloatArray | None) -> pd.DataFrame:
    """Means (of one trial) over the random effects of new groups, and with a variance the standard errors."""
    family = fit.family
    found = {"estimate": mean_over_subjects(family, eta, new_groups_variance(fit.design, fit.solution.D, rows))}
    if variance is not None:
        middle = by_quadrature(family.mean, eta, variance)
        found["se"] = np.sqrt(by_quadrature(lambda at: (family.mean(at) - middle) ** 2, eta, variance))
    return pd.DataFrame(found)


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
    eta, found, new = _lines(fit, rows, fit.optimum.lam), fit.solution, rows.new

    def probabilities(at: FloatArray) -> FloatArray:
        return fit.family.probabilities(at, found.psi)

    values = probabilities(eta)
    if np.any(new):
        spread = new_groups_variance(fit.design, found.D, rows.take(new))
        values[new] = by_quadrature(probabilities, eta[new], spread)
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
    return variance + new_groups_variance(design, state.D, rows)
