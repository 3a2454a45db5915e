"""The study that is planned: one draw of it, analysed as the real one will be, and what many of them say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from hierlmm.arrays import BoolArray, FloatArray, Rng
from hierlmm.bayes.nuts import check_settings
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.route import refuse_fitted_values
from hierlmm.design.design import Design
from hierlmm.diagnostics import replicate
from hierlmm.diagnostics.plan import SEE, Plan
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.options import choose

ESTIMATORS = ("reml", "ml", "nuts")
ALTERNATIVES = ("two-sided", "greater", "less")
QUANTILES = ("t", "z")


class Found(NamedTuple):
    """What one simulated study found, for each coefficient (k,)."""

    estimate: FloatArray
    se: FloatArray
    lower: FloatArray
    upper: FloatArray
    significant: BoolArray
    rows: int
    singular: bool


@dataclass(frozen=True)
class Analysis:
    """How a study will be analysed; the settings of `design_analysis`."""

    estimator: str = "reml"
    alternative: str = "two-sided"
    alpha: float = 0.05
    quantiles: str = "t"
    draws: int = 1000
    tune: int = 300

    def __post_init__(self) -> None:
        choose("estimator", self.estimator, ESTIMATORS)
        choose("alternative", self.alternative, ALTERNATIVES)
        choose("quantiles", self.quantiles, QUANTILES)
        check_settings(draws=self.draws, tune=self.tune, chains=1, target_accept=0.8)

    def of(self, plan: Plan, first: Design) -> Analysis:
        """The analysis of this plan: by ML where there is no REML.

        Raises
        ------
        NotAvailableError, SpecificationError
            Where NUTS is the estimator of a model that it cannot fit quickly.
        """
        if self.estimator == "nuts" and not first.is_gaussian:
            received = f"design_analysis(estimator='nuts') of a {first.family.title} response"
            reason = "its random effects are sampled as well, so that every simulated study would take seconds"
            raise NotAvailableError(received, reason, "use estimator='ml'", SEE)
        if self.estimator == "nuts":
            refuse_fitted_values(first)
            replicate.require_collapsed(resolve_priors(plan.priors, first), "design_analysis(estimator='nuts')")
        return self if first.is_gaussian else replace(self, estimator="ml")


@dataclass(frozen=True)
class Study:
    """A study that can be repeated: what is drawn, with which coefficients ``coef``, and how it is analysed."""

    plan: Plan
    analysis: Analysis
    dropout: float
    coef: tuple[str, ...]
    position: list[int]
    """Of the coefficients to report."""

    def run(self, size: int, seed: np.random.SeedSequence) -> Found:
        """Draw and analyse it once."""
        rng = np.random.default_rng(seed)
        design = self.plan.draw(size, rng, self.dropout)
        if design.coef != self.coef:
            reason = "a level of a factor did not occur"
            raise SpecificationError("a simulated study", reason, "plan more subjects", SEE)
        if self.analysis.estimator == "nuts":
            return by_nuts(design, self.plan.priors, self.position, rng, self.analysis)
        return by_likelihood(design, self.position, self.analysis)


def between_within_df(design: Design) -> FloatArray:
    """Between-within degrees of freedom of each fixed effect, (p,); at least 1 (Schluchter & Elashoff 1990)."""
    varying = np.isin(design.coef_level1, design.term_level1)
    same = design.coef_level1[:, None] == design.coef_level1[None, :]
    between = design.n_subjects - same.sum(axis=1)
    within = design.n_obs - design.n_subjects * design.n_own - np.sum(~varying)
    return np.maximum(np.where(varying, between, within), 1).astype(float)


def by_likelihood(design: Design, position: list[int], analysis: Analysis) -> Found:
    """Fit by REML or ML, and judge by t or z tests."""
    fit = replicate.likelihood_of(design, reml=analysis.estimator == "reml")
    estimate, se = fit.beta.to_numpy()[position], fit.beta_se.to_numpy()[position]
    if not design.is_gaussian and not (fit.converged and np.all(np.isfinite(se))):
        reason = "its likelihood had no maximum with standard errors (too few events, or columns that separate them)"
        raise NotAvailableError("a simulated study", reason, "plan more subjects or occasions", SEE)
    df = between_within_df(design)[position] if analysis.quantiles == "t" else np.full(len(position), np.inf)
    half, significant = judged(estimate, se, df, analysis.alpha, analysis.alternative)
    return Found(estimate, se, estimate - half, estimate + half, significant, design.n_obs, fit.is_singular)


def judged(
    estimate: FloatArray, se: FloatArray, df: FloatArray, alpha: float, alternative: str
) -> tuple[FloatArray, BoolArray]:
    """Half widths of intervals by Student's t, and which t tests reject."""
    tail = t.sf(estimate / se, df)
    p = {"greater": tail, "less": 1.0 - tail, "two-sided": 2.0 * np.minimum(tail, 1.0 - tail)}[alternative]
    return t.ppf(1.0 - alpha / 2.0, df) * se, np.asarray(p) < alpha


def by_nuts(design: Design, priors: Any, position: list[int], rng: Rng, analysis: Analysis) -> Found:
    """Sample the posterior, and judge by its equal-tailed interval, or one-sided by a probability."""
    options = {"draws": analysis.draws, "tune": analysis.tune, "chains": 1, "target_accept": 0.8}
    beta = replicate.sample_posterior(design, resolve_priors(priors, design), rng, options).found.natural.beta[
        :, position
    ]
    alpha, alternative = analysis.alpha, analysis.alternative
    lower, upper = np.quantile(beta, [alpha / 2.0, 1.0 - alpha / 2.0], axis=0)
    if alternative == "two-sided":
        significant = (lower > 0.0) | (upper < 0.0)
    else:
        significant = np.mean(beta <= 0.0 if alternative == "greater" else beta >= 0.0, axis=0) < alpha
    return Found(beta.mean(axis=0), beta.std(axis=0, ddof=1), lower, upper, significant, design.n_obs, False)


COLUMNS = [
    *("true", "estimate", "bias", "bias_mcse", "sd", "se", "width", "width_mcse"),
    *("power", "power_mcse", "power_lower", "power_upper", "coverage", "coverage_mcse"),
    *("type_s", "type_m", "rows", "failed", "n_used"),
]


def summaries(studies: list[Found], coefs: list[str], true: FloatArray, n: int) -> pd.DataFrame:
    """Summaries of the studies of one size, a row for each coefficient; NaN if fewer than two could be fitted."""
    m, index = len(studies), pd.Index(coefs, name="coef")
    if m < 2:
        return pd.DataFrame({"true": true, "failed": 1.0 - m / n, "n_used": m}, index=index).reindex(columns=COLUMNS)
    estimate, se, lower, upper = (np.array([getattr(s, f) for s in studies]) for f in Found._fields[:4])
    significant = np.array([s.significant for s in studies])
    width, hits = upper - lower, significant.sum(axis=0).astype(float)
    low, high = replicate.binomial_interval(hits, np.full(len(coefs), float(m)))
    chosen = np.where(significant, estimate, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.where((true != 0) & (hits > 0), 1.0, np.nan)
        counts = np.where(hits > 0, hits, np.nan)
        type_s = known * np.nansum(np.sign(chosen) == -np.sign(true), axis=0) / counts
        type_m = known * np.nansum(np.abs(chosen), axis=0) / counts / np.abs(true)

    def mean_of(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(m)

    def share(p: FloatArray) -> tuple[FloatArray, FloatArray]:
        return p, np.sqrt(p * (1.0 - p) / m)

    mean, mcse = mean_of(estimate)
    columns = [
        *(true, mean, mean - true, mcse, estimate.std(axis=0, ddof=1), se.mean(axis=0), *mean_of(width)),
        *(*share(hits / m), low, high, *share(np.mean((lower <= true) & (true <= upper), axis=0))),
        *(type_s, type_m, np.mean([s.rows for s in studies]), 1.0 - m / n, m),
    ]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=index)
