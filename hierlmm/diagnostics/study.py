"""The study that is planned: one draw of it, analysed as the real one will be, and what many of them say.

Either everything is stated (a formula, times, covariates), and `hierlmm.datasets.simulate` draws the rows; or the
planned subjects are those of the data, each taken equally often, with their own times and covariates.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from hierlmm.arrays import BoolArray, FloatArray, Rng
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.route import refuse_fitted_values
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.parameters import unconstrained_values
from hierlmm.datasets.simulate import simulate
from hierlmm.design.build import design_from_formula
from hierlmm.design.design import Design
from hierlmm.design.formula import parse_formula, term_name, unquoted
from hierlmm.design.questions import rows_by_subject
from hierlmm.design.residual import Residual
from hierlmm.diagnostics import replicate
from hierlmm.errors import DataError, HierlmmError, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.residual_rows import residual_rows


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

    def refuse(self, plan: Plan, first: Design) -> None:
        """Refuse models that NUTS cannot fit quickly, where it is the estimator."""
        if self.estimator == "nuts":
            refuse_fitted_values(first)
            replicate.require_collapsed(resolve_priors(plan.priors, first), "design_analysis(estimator='nuts')")


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
    within = design.n_obs - design.n_subjects * len(design.term) - np.sum(~varying)
    return np.maximum(np.where(varying, between, within), 1).astype(float)


def by_likelihood(design: Design, position: list[int], analysis: Analysis) -> Found:
    """Fit by REML or ML, and judge by t or z tests."""
    fit = replicate.likelihood_of(design, reml=analysis.estimator == "reml")
    estimate, se = fit.beta.to_numpy()[position], fit.beta_se.to_numpy()[position]
    df = between_within_df(design)[position] if analysis.quantiles == "t" else np.full(len(position), np.inf)
    half = t.ppf(1.0 - analysis.alpha / 2.0, df) * se
    tail = t.sf(estimate / se, df)
    p = {"greater": tail, "less": 1.0 - tail, "two-sided": 2.0 * np.minimum(tail, 1.0 - tail)}[analysis.alternative]
    significant = np.asarray(p) < analysis.alpha
    return Found(estimate, se, estimate - half, estimate + half, significant, design.n_obs, fit.is_singular)


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


SEE = "docs, page 'Calibration', section 'Planning a study'"


@dataclass(frozen=True)
class Stated:
    """What the user said about the study, as in `design_analysis`."""

    source: Any
    beta: Mapping[str, float] | pd.Series | None = None
    D: Any = None
    sigma: float | None = None
    times: Sequence[float] | None = None
    level2: Mapping[str, Any] | None = None
    level1: Mapping[str, Any] | None = None
    time: str | None = None
    priors: Any = None


@dataclass(frozen=True)
class Plan:
    """A study to be: ``draw(n_subjects, rng, dropout)`` makes the design with a simulated response."""

    formula: str
    draw: Callable[[int, Rng, float], Design]
    beta: Mapping[str, float]
    priors: Any
    least: int = 2
    """Subjects in whom every level of every factor occurs."""


def plan_of(stated: Stated) -> Plan:
    """Make the plan of what was stated; what is not stated comes from the fit, if there is one.

    Raises
    ------
    SpecificationError, NotAvailableError
        If parameters are missing, or do not fit together.
    """
    source, base = stated.source, getattr(stated.source, "design", None)
    if isinstance(base, Design):
        _refuse_structure(base, source, stated.times)
        stated = _with_estimates(stated)
    elif not isinstance(source, str):
        received = f"a source of type {type(source).__name__!r}"
        remedy = "for example hl.design_analysis('y ~ group * time + (1 + time | subject)', beta=..., D=..., sigma=...)"
        raise SpecificationError(received, "a design analysis starts from a formula, a model or a fit", remedy, SEE)
    missing = [name for name in ("beta", "D", "sigma") if getattr(stated, name) is None]
    if missing:
        received = f"a design analysis without {' and '.join(missing)}"
        remedy = "give beta, D and sigma, or pass a fit whose estimates serve as the truth"
        raise SpecificationError(received, "the truth that studies are drawn from is not complete", remedy, SEE)
    beta: Any = stated.beta
    if not hasattr(beta, "items"):
        received = f"beta of type {type(beta).__name__!r}"
        raise SpecificationError(received, "coefficients need names", "for example {'time': 0.5}", SEE)
    stated = replace(stated, beta={str(name): float(value) for name, value in beta.items()})
    if isinstance(base, Design) and stated.times is None:
        return _resampling_plan(base, stated)
    return _simulated_plan(base, stated)


def _with_estimates(stated: Stated) -> Stated:
    """Take what was left out from the fit, or the priors from the model."""
    source = stated.source
    found: dict[str, Any] = {}
    if isinstance(source, Fit):
        found = {name: getattr(source, name) for name in ("beta", "D", "sigma") if getattr(stated, name) is None}
        priors = getattr(source, "priors", None)
        priors = priors if getattr(priors, "source", "default") == "chosen" else None
    else:  # as the user stated them; defaults follow each study's data
        priors = getattr(source, "_priors", None)
    return replace(stated, priors=priors if stated.priors is None else stated.priors, **found)


def _refuse_structure(base: Design, source: Any, times: Any) -> None:
    """A residual structure needs its parameters (from a fit) and subjects that have positions (those of the data)."""
    if not base.term:
        received = "a design analysis of a marginal model"
        remedy = "use a TwoLevelModel; hl.calibrate simulates from a marginal model on its own design"
        raise NotAvailableError(received, "it draws subjects with random effects", remedy, SEE)
    if not base.is_gaussian:
        received, reason = f"a design analysis of {base.family}", "it judges tests of means of a normal response"
        remedy = "draw studies by hl.simulate(family=...), fit each by fit_ml(), and count what its summary() says"
        raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")
    if not base.has_residual_structure:
        return
    structure = base.residual or base.residual_variance
    if not isinstance(source, Fit):
        received = f"a design analysis of a model with {structure}, without values of its parameters"
        reason = "the truth that studies are drawn from is not complete"
        raise SpecificationError(received, reason, "pass a fit, whose estimates serve as the truth", SEE)
    if times is not None:
        reason = "planned subjects with residual structure are drawn from those of the data, at their times"
        raise NotAvailableError(f"times=... with {structure}", reason, "leave times out", SEE)


# --- Everything is stated ---------------------------------------------------------------------------------------------


def _simulated_plan(base: Design | None, stated: Stated) -> Plan:
    formula = stated.source if base is None else base.hierarchy.formula
    if stated.times is None:
        reason = "how often and when a subject is measured decides what the study can see"
        remedy = "give times=[0, 1, 2, 3], or pass a model or fit whose subjects are taken as they are"
        raise SpecificationError("a formula without times", reason, remedy, SEE)
    parsed = parse_formula(formula)
    settings: dict[str, Any] = {
        name: getattr(stated, name) for name in ("beta", "D", "sigma", "times", "level2", "level1", "time")
    }
    if stated.time is None:
        settings["time"] = _time_of(formula, parsed, {*(stated.level2 or {}), *(stated.level1 or {})})
    settings["random"] = list(dict.fromkeys(term_name(term) for part in parsed.random for term in part.terms))
    settings["subject"] = parsed.random[0].subject if parsed.random else "subject"

    def draw(size: int, rng: Rng, dropout: float) -> Design:
        data = simulate(n_subjects=size, dropout=dropout, response=parsed.response, seed=rng, **settings)
        return _checked(design_from_formula(parsed, data, covariance=None if base is None else base.covariance))

    return Plan(formula, draw, settings["beta"], stated.priors)


def _time_of(formula: str, parsed: Any, covariates: set[str]) -> str:
    """The one variable of the formula that is no covariate, or ``"time"`` if there is none."""
    terms = [*parsed.fixed, *(term for part in parsed.random for term in part.terms)]
    names = dict.fromkeys(name for term in terms for factor in term for name in _names(factor))
    left = [name for name in names if name not in covariates]
    if len(left) > 1:
        received = f"{formula!r} with the variables {', '.join(left)}"
        reason = "one of them is the time, and the others are covariates that are not described"
        described = "describe them in level2={...} (between subjects) or level1={...} (within)"
        raise SpecificationError(received, reason, f"{described}, or name the time: time='...'", SEE)
    return left[0] if left else "time"


def _names(factor: str) -> list[str]:
    """Variables of a factor expression, without the functions that are called."""
    try:
        nodes = list(ast.walk(ast.parse(factor, mode="eval")))
    except SyntaxError:
        return [unquoted(factor)]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in called]


# --- Subjects of the data ---------------------------------------------------------------------------------------------


def _resampling_plan(base: Design, stated: Stated) -> Plan:
    """Planned subjects are those of the data: their rows, times and covariates, each equally often."""
    if stated.level2 or stated.level1 or stated.time:
        reason = "without times the planned subjects are those of the data, with the covariates they have"
        remedy = "give times=[...] as well, or leave level2, level1 and time out"
        raise SpecificationError("covariates of a new design without times", reason, remedy, SEE)
    beta: Any = stated.beta
    sigma: Any = stated.sigma
    reason = "the model has no such coefficient."
    for name in beta:
        replicate.refuse_unknown(f"beta[{name!r}]", name, base.coef, reason, "use names among {}", SEE)
    coefficients = np.array([beta.get(c, 0.0) for c in base.coef])
    root = _root(base, stated.D, sigma)
    residual = stated.source.residual_estimate if isinstance(stated.source, Fit) else None
    hierarchy = base.hierarchy
    parsed = parse_formula(hierarchy.formula)
    structure = Residual(base.residual, base.residual_variance)
    rows = rows_by_subject(base)

    def draw(size: int, rng: Rng, dropout: float) -> Design:
        J = base.n_subjects
        order = np.concatenate([rng.permutation(J) for _ in range(-(-size // J))])[:size]
        kept = rng.geometric(dropout, size) if dropout > 0 else np.full(size, base.n_obs)
        taken = [rows[j][: kept[i]] for i, j in enumerate(order)]
        frame = base.frame.iloc[np.concatenate(taken)].reset_index(drop=True)
        frame[hierarchy.subject] = np.repeat(np.arange(1, size + 1), [len(r) for r in taken])
        design = design_from_formula(parsed, frame, covariance=base.covariance, residual=structure)
        colour = None if residual is None else lambda noise: _coloured(design, residual, noise)
        _, y = replicate.drawn_response(design, coefficients, root, sigma, rng, colour)
        return _checked(design.with_response(y))

    return Plan(hierarchy.formula, draw, beta, stated.priors, least=base.n_subjects)


def _root(base: Design, D: Any, sigma: float) -> FloatArray:
    """A root of D (q, q), in the order of the random effects."""
    if hasattr(D, "loc"):
        D = D.reindex(index=list(base.term), columns=list(base.term)).to_numpy()
    matrix, q = np.array(D, dtype=float, ndmin=2), len(base.term)
    if matrix.shape == (q, q) and sigma > 0:
        root, values = replicate.eigen_root(0.5 * (matrix + matrix.T))
        if np.all(values >= -1e-8 * np.abs(values).max()):
            return root
    received = f"D={np.round(matrix, 6).tolist()} and sigma={sigma!r}"
    reason = f"D is a covariance matrix of shape ({q}, {q}), in the order {', '.join(base.term)}; sigma is positive"
    raise SpecificationError(received, reason, "for example D=[[3.2, 0.1], [0.1, 0.03]], sigma=1.3", SEE)


def _coloured(design: Design, residual: ResidualEstimate, noise: FloatArray) -> FloatArray:
    """Give independent standard normal residuals the estimated structure, on the rows of another design."""
    rows, k = residual_rows(design), residual.n_correlation
    values: list[float] = []
    if residual.correlation is not None:
        values += residual.correlation.values(residual.eta[:k]).tolist()
    if residual.variance is not None:
        values += residual.variance.values(residual.eta[k:]).tolist()
    if len(values) != len(rows.parameters):
        received = f"a planned study in which {design.residual_variance or design.residual} has other parameters"
        reason = "a group or an occasion of the fitted data does not occur in it"
        raise SpecificationError(received, reason, "plan more subjects", SEE)
    return rows.colour(unconstrained_values(rows.parameters, np.array(values)), noise)


def _checked(design: Design) -> Design:
    check_design(design)
    return design


def first_study(plan: Plan, size: int) -> Design:
    """One study without dropout, so that mistakes in the plan are reported before a thousand of them are made."""
    size = max(size, plan.least)
    for attempt in range(5):  # covariates are drawn, and may be unlucky
        try:
            return plan.draw(size, np.random.default_rng(attempt), 0.0)
        except DataError as error:
            problem = error
        except HierlmmError:
            raise
        except (TypeError, ValueError) as error:
            received = "a plan that cannot be simulated"
            raise SpecificationError(received, str(error), "check beta, D, times and the covariates", SEE) from error
    received = f"a plan whose simulated studies of {size} subjects cannot be fitted, even complete: {problem.received}"
    remedy = f"plan more subjects or occasions; or, as for data: {problem.remedy}"
    raise SpecificationError(received, problem.reason, remedy, SEE) from problem
