"""Degrees of freedom of a fit, and its fixed effects with t, df and p.

    t = β̂_k / se_k  against Student's t with ν_k degrees of freedom

by Satterthwaite or by Kenward and Roger, who also correct se_k (`likelihood.degrees`, `likelihood.residual_degrees`);
or with se_k from the subjects' scores (`likelihood.empirical`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.frames import shorten
from hierlmm.likelihood.degrees import KenwardRogerDegrees, SatterthwaiteDegrees, kenward_roger, satterthwaite_degrees
from hierlmm.likelihood.empirical import EmpiricalDegrees, empirical
from hierlmm.likelihood.residual_degrees import structured_kenward_roger
from hierlmm.likelihood.residual_rows import ResidualRows
from hierlmm.likelihood.wald import FixedDegrees, Wald, df_advised, errors_name, method_name, two_sided
from hierlmm.options import check_ci
from hierlmm.results import NotedTable

SEE = "docs, page 'Contrasts'"
BOUNDARY = {
    "satterthwaite": "D is singular: Satterthwaite's degrees of freedom are those given the boundary, as if the "
    "variances of zero were known (lmerTest does the same)",
    "kenward-roger": "D is singular: Kenward and Roger's expansion is made for estimates inside the parameter space; "
    "these are its formulas at the boundary (as pbkrtest evaluates them)",
}
FLAT = (
    "the criterion does not change along some direction of the residual parameters: the degrees of freedom take these "
    "as known"
)
MUCH = 0.1
HELD = "D is singular: the method is that given the boundary, as if the variances of zero were known"
BENDS = (
    "second derivatives of the covariance change a standard error by more than a tenth, more than an expansion "
    "is good for: df='kenward-roger-linear' leaves them out"
)
ALONE = (
    "coefficients that single subjects determine alone, or almost: {} ({}). The residuals of these subjects are fitted "
    "away and say nothing of a standard error, which is left out: use that of the model, se='model'"
)


def fit_satterthwaite(fit: LikelihoodEstimates) -> SatterthwaiteDegrees:
    """Satterthwaite's method for a fit, from its large-sample distribution of θ."""
    return satterthwaite_degrees(fit.large_sample)


def fit_kenward_roger(fit: LikelihoodEstimates) -> KenwardRogerDegrees:
    """Kenward and Roger's method for a fit by REML."""
    rows = _structured(fit)
    return kenward_roger(fit.solution) if rows is None else structured_kenward_roger(fit.large_sample, rows)


def _structured(fit: LikelihoodEstimates) -> ResidualRows | None:
    """Rows with a residual structure; None where V is linear: independent residuals, perhaps of known weights."""
    rows = fit.criterion_function.rows
    return rows if isinstance(rows, ResidualRows) and rows.parameters else None


def fit_empirical(fit: LikelihoodEstimates, kind: str) -> EmpiricalDegrees:
    """Empirical covariance and degrees of freedom of one kind."""
    return empirical(fit.design, fit.solution, kind)


def likelihood_wald(fit: LikelihoodEstimates, df: str | None = None, se: str | None = None) -> Wald:
    """How linear functions of β are judged: by Satterthwaite's method unless another is named."""
    name, errors = "satterthwaite" if df is None else method_name(df), errors_name(se)
    beta = fit.beta.to_numpy()
    if errors != "model":
        return _empirical_wald(fit, df, name, errors)
    if name.startswith("kenward-roger"):
        if not fit.reml:
            received, remedy = f"df={df!r} for a fit by ML", "use model.fit_reml(), or df='satterthwaite'"
            raise NotAvailableError(received, "the method corrects the REML estimates of the covariance", remedy, SEE)
        found = fit._kenward_roger
        linear = found.adjusted - found.second
        if name == "kenward-roger-linear":
            return Wald(name, beta, linear, found, _notes(fit, name))
        return Wald(name, beta, found.adjusted, found, _notes(fit, name) + _bends(df, found.adjusted, linear))
    degrees = fit._satterthwaite if name == "satterthwaite" else _fixed(fit, name)
    return Wald(name, beta, fit.beta_cov.to_numpy(), degrees, _notes(fit, name))


def _fixed(fit: LikelihoodEstimates, name: str) -> FixedDegrees:
    return FixedDegrees(np.inf if name == "normal" else float(fit.n_obs - len(fit.beta)))


def _notes(fit: LikelihoodEstimates, name: str) -> tuple[str, ...]:
    """What must be known of a method where parameters are at the end of their range."""
    if name in ("normal", "residual"):
        return ()
    family = name.removesuffix("-linear")
    if family == "kenward-roger" and _structured(fit) is None:
        return (BOUNDARY[family],) if fit.is_singular else ()
    boundary = HELD if family == "kenward-roger" else BOUNDARY[family]
    return (boundary,) * fit.is_singular + (FLAT,) * bool(fit.large_sample.flat.size)


def _bends(df: str | None, adjusted: FloatArray, linear: FloatArray) -> tuple[str, ...]:
    """What must be known of a covariance with second derivatives beside the one without, in units of its errors.

    Raises
    ------
    NotAvailableError
        If it is no covariance.
    """
    unit = np.sqrt(np.diag(linear))
    if not np.linalg.eigvalsh(adjusted / np.outer(unit, unit))[0] > 0.0:
        received = f"df={df!r} for this fit"
        reason = "the second derivatives of the covariance outweigh all else, and a variance would be negative"
        raise NotAvailableError(received, reason, "use df='kenward-roger-linear', or df='satterthwaite'", SEE)
    return (BENDS,) if np.any(np.abs(np.sqrt(np.diag(adjusted)) / unit - 1.0) > MUCH) else ()


def _empirical_wald(fit: LikelihoodEstimates, df: str | None, name: str, errors: str) -> Wald:
    if fit.design.has_several_factors:
        received = f"se={errors!r} with several grouping factors"
        remedy = f"leave se out, or use df={df_advised(fit.reml)!r}"
        reason = "these are standard errors from the scores of independent subjects"
        raise NotAvailableError(received, reason, remedy, MULTILEVEL)
    if name.startswith("kenward-roger"):
        received, remedy = f"df={df!r} and se={errors!r}", "leave df out, or leave se out"
        reason = "Kenward and Roger's method has standard errors of its own, from the model"
        raise NotAvailableError(received, reason, remedy, SEE)
    found = fit._empirical(errors)
    degrees = found if name == "satterthwaite" else _fixed(fit, name)
    wald = Wald(name, fit.beta.to_numpy(), found.cov, degrees, (), errors)
    if not len(found.lost):
        return wald
    wald = replace(wald, lost=found.lost, model=found.half @ found.half.T)
    without = np.isnan(wald.rows(np.eye(len(fit.beta)))[1])
    who = f"{fit.design.hierarchy.subject} {shorten(fit.design.subjects[found.full])}"
    return replace(wald, notes=(ALONE.format(shorten(fit.beta.index[without]), who),)) if without.any() else wald


def summary_with_degrees(wald: Wald, coef: pd.Index, ci: float) -> pd.DataFrame:
    """Fixed effects with intervals, t, df and p by one method."""
    check_ci(ci)
    estimate, se, df = wald.rows(np.eye(len(coef)))
    half = t_distribution.ppf(0.5 + ci / 2.0, df) * se
    t = estimate / se
    columns = {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half, "t": t, "df": df}
    table = NotedTable({**columns, "p": two_sided(t, df)}, index=coef)
    table.attrs = {"df": wald.method, "se": wald.se, "description": wald.description, "notes": list(wald.notes)}
    return table
