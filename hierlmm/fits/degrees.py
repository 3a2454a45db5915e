"""Degrees of freedom of a fit, and its fixed effects with t, df and p.

    t = β̂_k / se_k  against Student's t with ν_k degrees of freedom

by Satterthwaite or by Kenward and Roger, who also correct se_k (`likelihood.degrees`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution

from hierlmm.errors import NotAvailableError
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.likelihood.degrees import KenwardRogerDegrees, SatterthwaiteDegrees, kenward_roger, satterthwaite_degrees
from hierlmm.likelihood.wald import FixedDegrees, Wald, method_name, two_sided
from hierlmm.options import check_ci

SEE = "docs, page 'Contrasts'"
BOUNDARY = {
    "satterthwaite": "D is singular: Satterthwaite's degrees of freedom are those given the boundary, as if the "
    "variances of zero were known (lmerTest does the same)",
    "kenward-roger": "D is singular: Kenward and Roger's expansion is made for estimates inside the parameter space; "
    "these are its formulas at the boundary (as pbkrtest evaluates them)",
}
FLAT = (
    "the criterion does not change along some direction of the residual parameters: Satterthwaite's degrees of freedom "
    "take these as known"
)


def fit_satterthwaite(fit: LikelihoodEstimates) -> SatterthwaiteDegrees:
    """Satterthwaite's method for a fit, from its large-sample distribution of θ."""
    return satterthwaite_degrees(fit.large_sample)


def fit_kenward_roger(fit: LikelihoodEstimates) -> KenwardRogerDegrees:
    """Kenward and Roger's method for a fit.

    Raises
    ------
    NotAvailableError
        If the fit is not by REML, or its residuals are not independent with equal variance.
    """
    if not fit.reml:
        received, remedy = "df='kenward-roger' for a fit by ML", "use model.fit_reml(), or df='satterthwaite'"
        raise NotAvailableError(received, "the method corrects the REML estimates of the covariance", remedy, SEE)
    if fit.criterion_function.whitens:
        raise NotAvailableError(
            "df='kenward-roger' for a model with a residual structure",
            "the method needs a covariance that is linear in its parameters; it is implemented for random effects with "
            "independent residuals of equal variance",
            "use df='satterthwaite'",
            SEE,
        )
    return kenward_roger(fit.solution)


def likelihood_wald(fit: LikelihoodEstimates, df: str | None = None) -> Wald:
    """How linear functions of β are judged: by Satterthwaite's method unless another is named."""
    name = "satterthwaite" if df is None else method_name(df)
    beta, cov = fit.beta.to_numpy(), fit.beta_cov.to_numpy()
    notes: tuple[str, ...] = (BOUNDARY[name],) if fit.is_singular and name in BOUNDARY else ()
    if name == "satterthwaite":
        notes += (FLAT,) if fit.large_sample.flat.size else ()
        return Wald(name, beta, cov, fit._satterthwaite, notes)
    if name == "kenward-roger":
        return Wald(name, beta, fit._kenward_roger.adjusted, fit._kenward_roger, notes)
    value = np.inf if name == "normal" else float(fit.n_obs - len(beta))
    return Wald(name, beta, cov, FixedDegrees(value))


def summary_with_degrees(wald: Wald, coef: pd.Index, ci: float) -> pd.DataFrame:
    """Fixed effects with intervals, t, df and p by one method."""
    check_ci(ci)
    estimate, se, df = wald.rows(np.eye(len(coef)))
    half = t_distribution.ppf(0.5 + ci / 2.0, df) * se
    t = estimate / se
    columns = {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half, "t": t, "df": df}
    table = pd.DataFrame({**columns, "p": two_sided(t, df)}, index=coef)
    table.attrs = {"df": wald.method, "description": wald.description, "notes": list(wald.notes)}
    return table
