"""Shares of variance with intervals: the intra-class correlation, and R² of fixed effects and of the whole model.

For a row with random-effects columns z and residual SD σ g, the share of what lies between subjects is

    ICC(z) = z'Dz / (z'Dz + σ²g²)                                        one number for a random intercept alone

and over all rows, with f = Var(Xβ̂), r = mean z'Dz (Johnson 2014), e = mean σ²g²,

    marginal R² = f / (f + r + e),    conditional R² = (f + r) / (f + r + e)           (Nakagawa & Schielzeth 2013).

Intervals: by the delta method on the logit; as the range over the likelihood region (`likelihood.profile`), of
functions of the covariance parameters; by a parametric bootstrap; of a posterior from its draws. None leaves [0, 1].
A marginal model of compound symmetry has its correlation ρ for ICC, which may be negative, down to -1/(n - 1); there
the delta method is on Fisher's log((1 + (n - 1) ρ) / (1 - ρ)), the artanh of that range in all Wald intervals.

References
----------
Johnson, P. C. D. (2014). Extension of Nakagawa & Schielzeth's R²GLMM to random slopes models. Methods in Ecology and
Evolution 5, 944-946.

Nakagawa, S., Schielzeth, H. (2013). A general and simple method for obtaining R² from generalized linear mixed-effects
models. Methods in Ecology and Evolution 4, 133-142.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.residual import CompoundSymmetry
from hierlmm.design.formula import INTERCEPT, MULTILEVEL
from hierlmm.drawing.style import evenly
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.covariance_table import other_optima, quantile
from hierlmm.frames import is_number
from hierlmm.inference.bootstrap import bootstrap_fit
from hierlmm.inference.refits import SEE
from hierlmm.interpret.variation import covariance_draws
from hierlmm.likelihood.descent import central_differences
from hierlmm.likelihood.profile import profile_interval, region_points
from hierlmm.options import check_ci, checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import number, percentage, sayer, table_lines

SAY = sayer(__file__)
METHODS = ("delta", "profile", "bootstrap")
MOST_ROWS = 10
"""Different rows that are shown."""
MARGINAL, CONDITIONAL = "marginal", "conditional"
ZERO = 1e-6
"""Share of the estimate below which a lower limit by profile is zero."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class VarianceShares(Result):
    """Shares of the variance of a response, with intervals.

    Attributes
    ----------
    title : str
    ci : float
    table : pandas.DataFrame
        ``estimate``, ``lower``, ``upper``; of an ICC that changes, before them the variables that it depends on.
    notes : tuple of str
        Sentences.
    """

    title: str
    ci: float
    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def estimate(self) -> float:
        """The share, where there is one.

        Raises
        ------
        NotAvailableError
            If there are several.
        """
        if len(self.table) != 1:
            reason = "it changes from row to row"
            raise NotAvailableError(f"one value of {self.title}", reason, "read .table", SEE)
        return float(self.table["estimate"].iloc[0])

    def _page(self) -> Page:
        keys = [c for c in self.table.columns if c not in ("estimate", "lower", "upper")]
        named = self.table.reset_index(names="") if isinstance(self.table.index[0], str) else self.table
        shown = Table(named, table_lines(named, [*keys, ""]), self.title)
        return Page(self.title, ["", shown, "", *(Paragraph(note) for note in self.notes)])


class _Rows(NamedTuple):
    """Rows that stand for all rows of their kind: positions, and the variables that tell them apart."""

    at: IntArray
    columns: pd.DataFrame


type Share = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]
"""A function of β (p,), D (q, q), σ (1,) and residual SD ratios (n,): shares (k,)."""


def intraclass_correlation(
    fit: Any, *, ci: float = 0.95, method: str = "delta", n: int = 1000, seed: int | None = None
) -> VarianceShares:
    """The intra-class correlation of a fit; see `hierlmm.LikelihoodFit.intraclass_correlation`."""
    check_ci(ci)
    choose("method", method, METHODS)
    if not fit.design.term:
        return _of_marginal(fit, ci, method, n, seed)
    if fit.design.has_several_factors:
        return _of_factors(fit, ci, method, n, seed)
    design, rows = fit.design, _different_rows(fit)
    Z = design.Z[rows.at]

    def shares(beta: FloatArray, D: FloatArray, sigma: FloatArray, ratio: FloatArray) -> FloatArray:
        between = np.einsum("ij,jk,ik->i", Z, D, Z)
        return between / (between + (sigma * ratio) ** 2)

    estimate, lower, upper = _intervals(fit, shares, rows.at, ci, method, n, seed)
    table = rows.columns.assign(estimate=estimate, lower=lower, upper=upper)
    if len(table) == 1:
        table.index = pd.Index(["ICC"])
        notes = [SAY("shares.icc", share=percentage(float(estimate[0])), value=number(float(estimate[0])))]
    else:
        names = " and ".join(map(str, rows.columns.columns)) or "the row"
        notes = [SAY("shares.several", names=names, low=number(estimate.min()), high=number(estimate.max()))]
    if design.residual is not None:
        notes.append(SAY("shares.serial"))
    return VarianceShares("Intra-class correlation", ci, table, (*notes, _how(fit, ci, method, lower, n)))


def r_squared(
    fit: Any, *, ci: float = 0.95, method: str = "delta", n: int = 1000, seed: int | None = None
) -> VarianceShares:
    """R² of a fit; see `hierlmm.LikelihoodFit.r_squared`."""
    check_ci(ci)
    choose("method", method, METHODS)
    if method == "profile":
        reason = "R² depends on the fixed effects too, and a likelihood region is sought in the covariance parameters"
        raise SpecificationError("method='profile' of R²", reason, "use method='delta' or method='bootstrap'", SEE)
    design = fit.design
    S = design.Z.T @ design.Z / design.n_obs
    centred = design.X - design.X.mean(axis=0)
    C = centred.T @ centred / max(design.n_obs - 1, 1)

    def shares(beta: FloatArray, D: FloatArray, sigma: FloatArray, ratio: FloatArray) -> FloatArray:
        f, r, e = float(beta @ C @ beta), float(np.sum(S * D)), float(np.mean((sigma * ratio) ** 2))
        total = f + r + e
        return np.array([f / total, (f + r) / total])[: 2 if design.term else 1]

    estimate, lower, upper = _intervals(fit, shares, np.arange(design.n_obs), ci, method, n, seed)
    names = [MARGINAL, CONDITIONAL][: len(estimate)]
    table = pd.DataFrame({"estimate": estimate, "lower": lower, "upper": upper}, index=names)
    notes = [SAY("shares.marginal_r", share=percentage(float(estimate[0])))]
    if len(names) == 2:
        several = "_factors" if design.has_several_factors else ""
        notes.append(SAY(f"shares.conditional_r{several}", share=percentage(float(estimate[1]))))
        if np.ptp(design.Z, axis=0).max(initial=0.0) > 0.0:
            notes.append(SAY("shares.johnson"))
    return VarianceShares("R²", ci, table, (*notes, _how(fit, ci, method, lower, n)))


def _different_rows(fit: Any) -> _Rows:
    """Rows of the data that differ in z or in their residual SD; of many of them some, evenly in their order."""
    design = fit.design
    estimate = fit.residual_estimate
    ratio = np.ones(design.n_obs) if estimate is None else estimate.sd_ratio(design.frame, design.variance_fitted)
    what = np.round(np.column_stack([design.Z, ratio]), 9)
    at = np.sort(np.unique(what, axis=0, return_index=True)[1])
    structure = design.residual_variance
    names = design.terms.random_variables()
    names += [] if structure is None else [str(v) for v in structure.columns]
    names += [design.group] if design.group else []
    names = [v for v in dict.fromkeys(names) if v in design.frame and len(design.frame[v].iloc[at].unique()) > 1]
    columns = design.frame[names].iloc[at].reset_index(drop=True)
    order = np.lexsort([_rank(columns[v]) for v in reversed(names)]) if names else np.arange(len(at))
    at = at[order]
    kept = evenly(len(at), MOST_ROWS)
    shown = columns.iloc[order[kept]].reset_index(drop=True)
    shown.attrs = {}  # units of the data
    return _Rows(at[kept], shown)


def _rank(column: pd.Series) -> FloatArray:
    """Numbers as they are, categories by their order, other labels as text."""
    if is_number(column):
        return column.to_numpy(dtype=np.float64)
    labels = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype(str).astype("category")
    return np.asarray(labels.cat.codes, dtype=np.float64)


def _intervals(
    fit: Any, shares: Share, at: IntArray, ci: float, method: str, n: int, seed: int | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimates and limits of shares that look at the rows ``at``."""
    if fit.has_draws:
        return _by_draws(fit, shares, at, ci)

    def of(own: Any) -> FloatArray:
        solution = own.solution
        return shares(solution.beta, solution.D, np.array([solution.sigma]), _ratio(own, solution.residual, at))

    estimate = of(fit)
    if method == "bootstrap":
        found = bootstrap_fit(fit, n, statistic=of, seed=seed)
        own = found.table(ci).iloc[-len(estimate) :]
        return estimate, own["lower"].to_numpy(), own["upper"].to_numpy()
    if method == "profile":
        return estimate, *_by_profile(fit, of, ci)
    return estimate, *_by_delta(fit, shares, at, estimate, ci)


def _ratio(fit: Any, residual: Any, at: IntArray) -> FloatArray:
    """Residual SD of rows over σ."""
    design = fit.design
    if residual is None:
        return np.ones(len(at))
    fitted = design.variance_fitted
    return np.asarray(residual.sd_ratio(design.frame.iloc[at], None if fitted is None else fitted[at]))


def _by_draws(fit: Any, shares: Share, at: IntArray, ci: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    beta = fit.draws("beta")
    beta = beta.reshape(-1, beta.shape[-1])
    D = covariance_draws(fit) if fit.design.term else np.zeros((len(beta), 0, 0))
    sigma, eta = fit.draws("sigma").reshape(-1, 1), fit.residual_draws()
    etas = eta.reshape(len(beta), eta.shape[-1])
    ones = np.ones(len(at))
    structured = fit.design.residual_variance is not None
    ratios = [_ratio(fit, fit.residual_at(own), at) if structured else ones for own in etas]
    values = np.array([shares(*own) for own in zip(beta, D, sigma, ratios, strict=True)])
    lower, upper = np.quantile(values, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
    return values.mean(axis=0), lower, upper


def _by_delta(fit: Any, shares: Share, at: IntArray, estimate: FloatArray, ci: float) -> tuple[FloatArray, FloatArray]:
    """On the logit; nothing where D is singular, or at a share of exactly 0 or 1."""
    z, large = quantile(ci), fit.large_sample
    beta = fit.solution.beta

    def of_theta(parameters: FloatArray) -> FloatArray:
        own = large.solution(parameters)
        return _logit(shares(beta, own.D, np.array([own.sigma]), _ratio(fit, own.residual, at)))

    own = fit.solution
    se = np.sqrt(np.diag(own.beta_cov))  # steps of differences are in this unit
    rest = own.D, np.array([own.sigma]), _ratio(fit, own.residual, at)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_beta = (
            central_differences(lambda u: _logit(shares(beta + u * se, *rest)), np.zeros(len(beta))).T / se
            if len(beta)
            else np.zeros((len(estimate), 0))
        )
        variance = large.standard_errors_of(of_theta)[1] ** 2
        variance = variance + np.einsum("ij,jk,ik->i", by_beta, own.beta_cov, by_beta)
        spread = np.where(fit.is_singular | ~np.isfinite(_logit(estimate)), np.nan, np.sqrt(variance))
        ends = [_logit(estimate) + sign * z * spread for sign in (-1.0, 1.0)]
    return tuple(1.0 / (1.0 + np.exp(-end)) for end in ends)  # type: ignore[return-value]


def _logit(share: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(share) - np.log1p(-share))


def _by_profile(fit: Any, of: Callable[[Any], FloatArray], ci: float) -> tuple[FloatArray, FloatArray]:
    """The range over the likelihood region, each share by itself."""
    large, criterion, drop = fit.large_sample, fit.criterion_function, float(chi2.ppf(ci, 1))
    elsewhere = region_points(criterion, large.centre, drop) + other_optima(fit, drop)

    class At(NamedTuple):
        solution: Any
        design: Any

    ends, estimate = [], of(fit)
    for k in range(len(estimate)):

        def scalar(parameters: FloatArray, k: int = k) -> float:
            return float(of(At(large.solution(parameters), fit.design))[k])

        with np.errstate(all="ignore"):
            lower, upper = profile_interval(criterion, large.centre, scalar, drop, elsewhere)
        ends.append((0.0 if lower < ZERO * max(estimate[k], upper) else lower, min(upper, 1.0)))
    found = np.array(ends)
    return found[:, 0], found[:, 1]


def _of_factors(fit: Any, ci: float, method: str, n: int, seed: int | None) -> VarianceShares:
    """The share of each of several grouping factors, where these have random intercepts alone."""
    design, names = fit.design, [own.columns.group for own in fit.design.random]
    if any(own.columns.names != (INTERCEPT,) for own in design.random):
        received = "intraclass_correlation with random slopes of several factors"
        reason = "shares change from row to row, and are worked out for random intercepts of several factors only"
        remedy = (
            "use fit.implied_marginal(at=...), which has correlations of two rows where you say, with intervals; or "
            "fit.icc at the origin of the covariates"
        )
        raise NotAvailableError(received, reason, remedy, MULTILEVEL)

    def shares(beta: FloatArray, D: FloatArray, sigma: FloatArray, ratio: FloatArray) -> FloatArray:
        return np.diag(D) / (np.trace(D) + sigma[0] ** 2)

    estimate, lower, upper = _intervals(fit, shares, np.arange(1), ci, method, n, seed)
    columns = {"estimate": estimate, "lower": lower, "upper": upper}
    table = pd.DataFrame(columns, index=pd.Index(names, name="factor"))
    said = [f"{percentage(float(v))} lies between groups of {k}" for k, v in zip(names, estimate, strict=True)]
    note = SAY("shares.factors", shares=" and ".join(said))
    return VarianceShares("Intra-class correlation", ci, table, (note, _how(fit, ci, method, lower, n)))


def _of_marginal(fit: Any, ci: float, method: str, n: int, seed: int | None) -> VarianceShares:
    """The correlation of compound symmetry, which may be negative."""
    if type(fit.design.residual) is not CompoundSymmetry or fit.design.residual_variance is not None:
        received = "intraclass_correlation of a marginal model without one common correlation"
        reason = (
            "its rows correlate by distance or occasion, or have unequal variances, so that no single number says it"
        )
        remedy = "use hl.CompoundSymmetry() for one correlation, or fit.implied_marginal() for all of them"
        raise NotAvailableError(received, reason, remedy, SEE)
    (name,) = fit.residual_estimate.parameters
    if fit.has_draws:
        row = fit.variance_components(ci).loc[name]
        row = row.rename({"mean": "estimate"})
    elif method == "bootstrap":
        row = bootstrap_fit(fit, n, seed=seed).table(ci).loc[name]
    else:
        row = fit.variance_components(ci, method="wald" if method == "delta" else "profile").loc[name]
    table = pd.DataFrame([row[["estimate", "lower", "upper"]].to_numpy(dtype=float)], index=["ICC"])
    table.columns = pd.Index(["estimate", "lower", "upper"])
    most = int(fit.design.rows_per_subject.max())
    said = SAY("shares.marginal", value=number(float(row["estimate"])), least=number(-1.0 / (most - 1)), rows=most)
    how = _how(fit, ci, "fisher" if method == "delta" else method, table["lower"].to_numpy(), n)
    return VarianceShares("Intra-class correlation", ci, table, (said, how))


def _how(fit: Any, ci: float, method: str, lower: FloatArray, n: int) -> str:
    if fit.has_draws:
        return SAY("shares.by_draws", ci=100.0 * ci)
    key = f"by_{method}"
    if method in ("delta", "fisher") and np.isnan(lower).all():
        key = "by_nothing_factors" if fit.design.has_several_factors else "by_nothing"
    others = int(fit.design.rows_per_subject.max()) - 1
    return SAY(f"shares.{key}", ci=100.0 * ci, n=n, estimator=fit.estimator, others=others)
