"""Population-averaged coefficients that a hierarchy implies: what GEE estimates, from a fit that has random effects.

A coefficient of a generalised hierarchy is about a subject: the change of ``g(E[y | b])``. What holds for the mean over
subjects is another function, ``m(x) = E_b g⁻¹(x'β + z'b)``, and in general no g makes it linear. The
population-averaged coefficients are the linear function that comes closest at the rows of the data (Hedeker, du Toit,
Demirtas & Gibbons 2018, Biometrics 74, 354-361; GLMMadaptive's ``marginal_coefs``):

    β_m = (X'X)⁻¹ X' [g(m(x)) − offset]

With the identity link β_m = β. With the log link ``g(m) = x'β + z'Dz/2``: only what Z spans moves, for a random
intercept β₀ by D/2. With probit and a random intercept ``β_m = β / √(1 + D)``, and with logit about
``β / √(1 + 0.346 D)`` (Zeger, Liang & Albert 1988, Biometrics 44, 1049-1060): coefficients are attenuated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first
from hierlmm.errors import NotAvailableError
from hierlmm.families.family import Family
from hierlmm.options import check_ci, checked
from hierlmm.predict.generalised import marginal_line, random_variance
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import listed

VALUES = 4_000_000
DRAWS = (200, 1000)
"""Rows times draws that are averaged, and the least and most draws."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class MarginalCoefficients(Result):
    """Population-averaged coefficients beside the conditional ones.

    Attributes
    ----------
    table : pandas.DataFrame
        By ``coef``: ``estimate``, ``se``, ``lower``, ``upper``, ``z``, ``p`` (a posterior has neither of the two) of
        the population-averaged coefficient, the ``conditional`` one, and their ``ratio``.
    cov : pandas.DataFrame
        Covariance of the population-averaged coefficients.
    link : str
    ci : float
    notes : tuple of str
    """

    table: pd.DataFrame
    cov: pd.DataFrame
    link: str
    ci: float
    notes: tuple[str, ...] = ()

    def _page(self) -> Page:
        shown = self.table.to_string(float_format=lambda v: f"{v:.4g}").splitlines()
        title = f"Population-averaged coefficients ({self.link} link)"
        return Page(title, [Table(self.table, shown, index=True), *(Paragraph(note, 110) for note in self.notes)])


def average_coefficients(family: Family, design: Design, beta: FloatArray, D: FloatArray) -> FloatArray:
    """β_m of β (p,) and D (q, q): (p,)."""
    eta = design.offset + design.X @ beta
    averaged = marginal_line(family, eta, random_variance(design.Z, D)) - design.offset
    return np.linalg.lstsq(design.X, averaged, rcond=None)[0]


def marginal_coefficients(fit: Any, ci: float = 0.95) -> MarginalCoefficients:
    """See `hierlmm.fit.generalised.GeneralisedFit.marginal_coefficients`."""
    half = float(norm.ppf(0.5 + check_ci(ci) / 2.0))
    if fit.design.family.name == "ordinal":
        received, reason = "population-averaged coefficients of an ordinal response", "each threshold has its own"
        remedy = "use fit.probabilities(level='marginal')"
        raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")
    if fit.has_draws:
        return _of_draws(fit, ci)
    design, record, family = fit.design, fit.record, fit.family

    def values(parameters: FloatArray) -> FloatArray:
        at = record.at(parameters)
        return average_coefficients(family, design, at.beta, at.D)

    estimate, cov = record.delta(values)
    se = np.sqrt(np.diag(cov))
    z = estimate / se
    conditional = fit.beta.to_numpy()
    table = pd.DataFrame(
        {
            "estimate": estimate,
            "se": se,
            "lower": estimate - half * se,
            "upper": estimate + half * se,
            "z": z,
            "p": 2.0 * norm.sf(np.abs(z)),
            "conditional": conditional,
            "ratio": estimate / conditional,
        },
        index=fit.beta.index,
    )
    index = fit.beta.index
    return MarginalCoefficients(table, pd.DataFrame(cov, index, index), family.link, ci, _notes(fit))


def averaged_draws(fit: Any) -> FloatArray:
    """β_m of some draws, evenly spaced: (S, p)."""
    design = fit.design
    beta, D = (own.reshape(-1, *own.shape[2:]) for own in (fit.draws("beta"), fit.draws("D")))
    most = int(np.clip(VALUES // design.n_obs, *DRAWS))
    keep = np.linspace(0, len(beta) - 1, min(len(beta), most)).astype(int)
    return np.stack([average_coefficients(design.family, design, beta[s], D[s]) for s in keep])


def _of_draws(fit: Any, ci: float) -> MarginalCoefficients:
    """The same of each of some draws: posterior mean and SD, and equal-tailed intervals."""
    design, family = fit.design, fit.design.family
    values = averaged_draws(fit)
    index, conditional = pd.Index(design.coef, name="coef"), fit.draws("beta").mean(axis=(0, 1))
    lower, upper = np.quantile(values, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
    columns = {"estimate": values.mean(axis=0), "se": values.std(axis=0, ddof=1), "lower": lower, "upper": upper}
    table = pd.DataFrame({**columns, "conditional": conditional}, index=index)
    table["ratio"] = table["estimate"] / table["conditional"]
    cov = pd.DataFrame(np.cov(values.T).reshape(len(index), len(index)), index, index)
    return MarginalCoefficients(table, cov, family.link, ci, _notes(fit))


def with_log_link(design: Design) -> str:
    """Which coefficients are other ones of the mean over subjects, with a log link."""
    varying = any(design.level1_columns[k] for own in design.random for k in own.columns.columns)
    slopes = "; random slopes move other coefficients as well" if varying else ""
    return f"With the log link a random intercept moves the intercept, by half its variance{slopes}."


def told(design: Design) -> tuple[str, str, str]:
    """Whom a conditional coefficient is about: ``one patient``, ``its`` mean, the other ``subjects``."""
    if design.has_several_factors:
        return f"groups of {listed(list(finest_first(design)))}", "their", "groups"
    return f"one {design.hierarchy.subject}", "its", "subjects"


def _notes(fit: Any) -> tuple[str, ...]:
    link = fit.design.family.link
    one, its, who = told(fit.design)
    first = (
        f"The conditional coefficient is about {one}: the change of the {link} of {its} mean. The "
        "population-averaged one is about the mean over all of them, which is what GEE estimates."
    )
    if link == "identity":
        return (first, "With the identity link the two are the same.")
    if link == "log":
        return first, with_log_link(fit.design)
    attenuated = (
        "Averaging a curve that saturates flattens it: the population-averaged coefficients are closer to zero, the "
        f"more {who} differ. Neither is wrong; they answer different questions."
    )
    return first, attenuated
