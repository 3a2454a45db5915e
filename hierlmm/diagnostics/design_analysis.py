"""Design analysis: what a planned two-level study can be expected to find, by simulating and fitting it many times.

For each number of subjects, n studies are drawn from assumed parameters and analysed as the real one will be. Power is
the share of studies whose test of β_c = 0 rejects. What comes with it is as telling (Gelman & Carlin 2014): the type S
error, the share of significant estimates with the wrong sign, and the type M error, the factor by which significant
estimates are too large on average. Where power is low, whatever is significant is an exaggeration.

Likelihood fits are judged with t quantiles on between-within ("containment") degrees of freedom (Schluchter & Elashoff
1990): for a coefficient in the equation of a level-1 coefficient that varies by subject, J less the number of
coefficients in that equation; otherwise N - Jq less the number of coefficients of such kind. On balanced data this is
the exact t test of the subjects' means or slopes, as long as D is not estimated on its boundary; where it often is (few
subjects), and on unbalanced data in small samples, it is an approximation. With normal quantiles (``quantiles="z"``)
intervals from few subjects are too short and power is overstated.

A simulated study that cannot be fitted (nobody was measured twice, a level of a factor did not occur) is counted as
failed and left out of the other numbers.

References
----------
Gelman, A., Carlin, J. (2014). Beyond power calculations: assessing type S (sign) and type M (magnitude) errors.
Perspectives on Psychological Science 9, 641-651.

Schluchter, M. D., Elashoff, J. T. (1990). Small-sample adjustments to tests with unbalanced repeated measures assuming
several covariance structures. Journal of Statistical Computation and Simulation 37, 69-87.
"""

from __future__ import annotations

import ast
import html
import textwrap
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import norm, t

from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.nuts import Settings, check_settings
from hierlmm.bayes.predictive import subject_lines
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.route import refuse_fitted_values
from hierlmm.bayes.sample_collapsed import sample_theta
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.parameters import unconstrained_values
from hierlmm.datasets.simulate import simulate
from hierlmm.design.build import design_from_formula
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT, parse_formula, term_name, unquoted
from hierlmm.design.questions import rows_by_subject
from hierlmm.design.residual import Residual
from hierlmm.diagnostics.calibrate import likelihood_of, require_collapsed
from hierlmm.diagnostics.replicate import Failure, binomial_interval, probability, replicate, streams, whole
from hierlmm.errors import DataError, HierlmmError, NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.options import checked, choose, renamed

__all__ = ["ALTERNATIVES", "ESTIMATORS", "DesignAnalysis", "between_within_df", "design_analysis"]

FloatArray = NDArray[np.float64]
ESTIMATORS = ("reml", "ml", "nuts")
ALTERNATIVES = ("two-sided", "greater", "less")
QUANTILES = ("t", "z")
SEE = "docs, page 'Calibration', section 'Planning a study'"
LEAST_POWER = 0.3  # a power below says more about the level of the test than about the effect
FURTHEST = 2.0  # an answer beyond so many times the largest size is not given
EXTRAPOLATION = 0.2  # relative error allowed to the noncentrality when the answer is e times the nearest size


class Found(NamedTuple):
    """What one simulated study found, for each coefficient (k,)."""

    estimate: FloatArray
    se: FloatArray
    lower: FloatArray
    upper: FloatArray
    significant: NDArray[np.bool_]
    rows: int
    singular: bool


@dataclass(frozen=True)
class _Plan:
    """A study to be: ``draw(n_subjects, rng, dropout)`` makes the design with a simulated response."""

    formula: str
    draw: Callable[[int, np.random.Generator, float], Design]
    beta: Mapping[str, float]
    priors: Any
    least: int = 2
    """Subjects in whom every level of every factor occurs."""


@renamed(n="simulations", method="estimator", coef="coefs", reference="quantiles")
@checked
def design_analysis(
    source: Any,
    *,
    beta: Mapping[str, float] | pd.Series | None = None,
    D: Any = None,
    sigma: float | None = None,
    n_subjects: Sequence[int] | int = (20, 40, 80),
    times: Sequence[float] | None = None,
    level2: Mapping[str, Any] | None = None,
    level1: Mapping[str, Any] | None = None,
    time: str | None = None,
    estimator: str = "reml",
    simulations: int = 200,
    coefs: str | Sequence[str] | None = None,
    alternative: str = "two-sided",
    alpha: float = 0.05,
    quantiles: str = "t",
    dropout: float = 0.0,
    priors: Any = None,
    draws: int = 1000,
    tune: int = 300,
    seed: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
) -> DesignAnalysis:
    """Simulate a planned study many times: power, precision, and how far significant estimates are off.

    Parameters
    ----------
    source : str, TwoLevelModel or fit
        The analysis that is planned: a formula (``"distance ~ sex * time + (1 + time | subject)"``), a model, or a fit,
        whose estimates then serve as parameters unless others are given.
    beta, D, sigma
        The assumed truth, as `simulate` takes it: fixed effects by name (not named is zero), the covariance of the
        random effects in the order of the formula, and the residual SD. Needed unless a fit is given.
    n_subjects : int or sequence of int
        Numbers of subjects to look at.
    times : sequence of float, optional
        Planned occasions of each subject. With a model or a fit they may be left out: then the planned subjects are
        those of the data, each taken equally often (in random order, with their own times and covariates).
    level2, level1 : mapping, optional
        Covariates, as `simulate` takes them: ``{"sex": ["Female", "Male"]}`` allocates subjects in turn,
        ``{"age": ("normal", 40, 10)}`` draws.
    time : str, optional
        Name of the column of times; by default the one variable of the formula that is no covariate.
    estimator : {"reml", "ml", "nuts"}
        How the study will be analysed. Likelihood methods judge by t (or z) tests; ``"nuts"`` by the equal-tailed
        posterior interval (or, one-sided, by the posterior probability of the other sign being below alpha).
    simulations : int
        Simulated studies for each number of subjects. The Monte-Carlo error of a power of 0.8 is 0.028 for 200.
    coefs : str or sequence of str, optional
        Which coefficients to report; by default all but the intercept.
    alternative : {"two-sided", "greater", "less"}
        Alternative to β = 0.
    alpha : float
        Level of the test; intervals have probability 1 - alpha.
    quantiles : {"t", "z"}
        Quantiles for likelihood fits: t on between-within degrees of freedom (exact on balanced data unless D is
        estimated on its boundary, approximate otherwise), or normal, which overstates power when there are few
        subjects.
    dropout : float
        Probability, at every occasion after the first, that a subject leaves for good (completely at random).
    priors : Priors, optional
        For ``"nuts"``; by default those of the model, or data-scaled ones resolved for each simulated study, as
        `TwoLevelModel.fit` would.
    draws, tune : int
        For ``"nuts"``, one chain for each study.
    seed, cores, progressbar
        As in `calibrate`.

    Returns
    -------
    DesignAnalysis
        ``.table``, ``.plot()``, ``.subjects_needed()``; printing it says the result in words.

    Raises
    ------
    SpecificationError
        If parameters are missing, names stand for nothing, a setting is out of range, or no simulated study of any size
        can be fitted.

    References
    ----------
    Gelman & Carlin (2014), Perspectives on Psychological Science 9, 641-651.

    Examples
    --------
    >>> plan = design_analysis(
    ...     "distance ~ sex * time + (1 + time | subject)",
    ...     beta={"Intercept": 21, "sex[T.Male]": 1.4, "time": 0.5, "sex[T.Male]:time": 0.3},
    ...     D=[[3.2, 0.0], [0.0, 0.03]], sigma=1.3, times=[0, 2, 4, 6], level2={"sex": ["Female", "Male"]},
    ...     coefs="sex[T.Male]:time", n_subjects=[20, 40], simulations=20, seed=1)
    >>> plan.table.shape
    (2, 19)
    """
    choose("estimator", estimator, ESTIMATORS)
    choose("alternative", alternative, ALTERNATIVES)
    choose("quantiles", quantiles, QUANTILES)
    alpha, n = probability("alpha", alpha), whole("simulations", simulations, 10)
    if not 0 <= dropout < 1:
        raise SpecificationError(
            f"dropout={dropout!r}", "a probability of leaving at each occasion lies in [0, 1)", "try dropout=0.1", SEE
        )
    check_settings(draws=draws, tune=tune, chains=1, target_accept=0.8)
    sizes = _sizes(n_subjects)
    plan = _plan(source, beta, D, sigma, times, level2, level1, time, priors)
    used_seed, seeds = streams(seed, n * len(sizes))
    first = _first_study(plan, sizes[-1])
    names = _coefs(coefs, first)
    if estimator == "nuts":
        refuse_fitted_values(first)
        require_collapsed(resolve_priors(plan.priors, first), "design_analysis(estimator='nuts')")
    position = [first.coef.index(c) for c in names]

    def work(k: int) -> Found:
        rng = np.random.default_rng(seeds[k])
        design = plan.draw(sizes[k // n], rng, dropout)
        if design.coef != first.coef:
            raise SpecificationError(
                "a simulated study", "a level of a factor did not occur", "plan more subjects", SEE
            )
        if estimator == "nuts":
            return _by_nuts(design, plan.priors, position, rng, alternative, alpha, draws, tune)
        return _by_likelihood(design, estimator == "reml", position, alternative, alpha, quantiles)

    started = clock.perf_counter()
    label = f"Design analysis ({estimator.upper()})"
    results, failures = replicate(work, n * len(sizes), cores=cores, progressbar=progressbar, label=label)
    true = np.array([float(plan.beta.get(c, 0.0)) for c in names])
    found = {size: [r for r in results[i * n : (i + 1) * n] if r is not None] for i, size in enumerate(sizes)}
    if all(len(studies) < 2 for studies in found.values()):
        raise SpecificationError(
            f"simulated studies of {', '.join(map(str, sizes))} subjects, hardly one of which could be fitted",
            f"the first failed because {failures[0].reason}",
            "lower dropout, or plan more subjects or occasions, or a simpler model",
            SEE,
        )
    table = pd.concat({size: _row(studies, names, true, n) for size, studies in found.items()}, names=["n_subjects"])
    return DesignAnalysis(
        table=table,
        formula=plan.formula,
        estimator=estimator.upper(),
        quantiles=quantiles if estimator != "nuts" else "posterior",
        coefs=tuple(names),
        alternative=alternative,
        alpha=alpha,
        dropout=float(dropout),
        simulations=n,
        singular={
            size: float(np.mean([r.singular for r in studies])) if studies else np.nan
            for size, studies in found.items()
        },
        failures=tuple(failures),
        seed=used_seed,
        seconds=clock.perf_counter() - started,
    )


# --- The plan ---------------------------------------------------------------------------------------------------------


def _sizes(n_subjects: Any) -> list[int]:
    values = [n_subjects] if isinstance(n_subjects, int | np.integer) else list(n_subjects)
    sizes = sorted({whole("n_subjects", v, 2) for v in values})
    if not sizes:
        raise SpecificationError(
            "n_subjects without a number", "at least one size is needed", "for example n_subjects=(20, 40, 80)", SEE
        )
    return sizes


def _plan(
    source: Any,
    beta: Any,
    D: Any,
    sigma: float | None,
    times: Any,
    level2: Mapping[str, Any] | None,
    level1: Mapping[str, Any] | None,
    time: str | None,
    priors: Any,
) -> _Plan:
    base: Design | None = None
    residual: ResidualEstimate | None = None
    if isinstance(source, str):
        formula = source
    elif isinstance(getattr(source, "design", None), Design):
        base = source.design
        formula = base.hierarchy.formula
        _refuse_structure(base, source, times)
        if isinstance(source, Fit):
            residual = source.residual_estimate
            beta = source.beta if beta is None else beta
            D = source.D if D is None else D
            sigma = source.sigma if sigma is None else sigma
            chosen = getattr(source, "priors", None)
            if priors is None and getattr(chosen, "source", "default") == "chosen":
                priors = chosen
        elif priors is None:
            priors = getattr(source, "_priors", None)  # as the user stated them; defaults follow each study's data
    else:
        raise SpecificationError(
            f"a source of type {type(source).__name__!r}",
            "a design analysis starts from a formula, a model or a fit",
            "for example hl.design_analysis('y ~ group * time + (1 + time | subject)', beta=..., D=..., sigma=...)",
            SEE,
        )
    missing = [name for name, value in (("beta", beta), ("D", D), ("sigma", sigma)) if value is None]
    if missing:
        raise SpecificationError(
            f"a design analysis without {' and '.join(missing)}",
            "the truth that studies are drawn from is not complete",
            "give beta, D and sigma, or pass a fit whose estimates serve as the truth",
            SEE,
        )
    if not hasattr(beta, "items"):
        raise SpecificationError(
            f"beta of type {type(beta).__name__!r}", "coefficients need names", "for example {'time': 0.5}", SEE
        )
    truth = {str(name): float(value) for name, value in beta.items()}
    assert sigma is not None
    if base is not None and times is None:
        if level2 or level1 or time:
            raise SpecificationError(
                "covariates of a new design without times",
                "without times the planned subjects are those of the data, with the covariates they have",
                "give times=[...] as well, or leave level2, level1 and time out",
                SEE,
            )
        return _resampling_plan(base, truth, D, sigma, priors, residual)
    covariance = base.covariance if base is not None else None
    return _simulated_plan(formula, covariance, truth, D, sigma, times, level2, level1, time, priors)


def _refuse_structure(base: Design, source: Any, times: Any) -> None:
    """A residual structure needs its parameters (from a fit) and subjects that have positions (those of the data)."""
    if not base.term:
        raise NotAvailableError(
            "a design analysis of a marginal model",
            "it draws subjects with random effects",
            "use a TwoLevelModel; hl.calibrate simulates from a marginal model on its own design",
            SEE,
        )
    if not base.has_residual_structure:
        return
    structure = base.residual or base.residual_variance
    if not isinstance(source, Fit):
        raise SpecificationError(
            f"a design analysis of a model with {structure}, without values of its parameters",
            "the truth that studies are drawn from is not complete",
            "pass a fit, whose estimates serve as the truth",
            SEE,
        )
    if times is not None:
        raise NotAvailableError(
            f"times=... with {structure}",
            "planned subjects with residual structure are drawn from those of the data, at their times",
            "leave times out",
            SEE,
        )


def _simulated_plan(
    formula: str,
    covariance: str | None,
    beta: dict[str, float],
    D: Any,
    sigma: float,
    times: Any,
    level2: Mapping[str, Any] | None,
    level1: Mapping[str, Any] | None,
    time: str | None,
    priors: Any,
) -> _Plan:
    if times is None:
        raise SpecificationError(
            "a formula without times",
            "how often and when a subject is measured decides what the study can see",
            "give times=[0, 1, 2, 3], or pass a model or fit whose subjects are taken as they are",
            SEE,
        )
    parsed = parse_formula(formula)
    subject = parsed.random[0].subject if parsed.random else "subject"
    random = list(dict.fromkeys(term_name(term) for part in parsed.random for term in part.terms))
    if time is None:
        time = _time_of(formula, parsed, {*(level2 or {}), *(level1 or {})})

    def draw(size: int, rng: np.random.Generator, dropout: float) -> Design:
        data = simulate(
            beta=beta,
            D=D,
            sigma=sigma,
            random=random,
            n_subjects=size,
            times=times,
            level2=level2,
            level1=level1,
            dropout=dropout,
            response=parsed.response,
            subject=subject,
            time=time,
            seed=rng,
        )
        return _checked(design_from_formula(parsed, data, covariance=covariance))

    return _Plan(formula, draw, beta, priors)


def _time_of(formula: str, parsed: Any, covariates: set[str]) -> str:
    """The one variable of the formula that is no covariate, or ``"time"`` if there is none."""
    terms = [*parsed.fixed, *(term for part in parsed.random for term in part.terms)]
    names = dict.fromkeys(name for term in terms for factor in term for name in _names(factor))
    left = [name for name in names if name not in covariates]
    if len(left) > 1:
        raise SpecificationError(
            f"{formula!r} with the variables {', '.join(left)}",
            "one of them is the time, and the others are covariates that are not described",
            "describe them in level2={...} (between subjects) or level1={...} (within), or name the time: time='...'",
            SEE,
        )
    return left[0] if left else "time"


def _names(factor: str) -> list[str]:
    """Variables of a factor expression, without the functions that are called."""
    try:
        nodes = list(ast.walk(ast.parse(factor, mode="eval")))
    except SyntaxError:
        return [unquoted(factor)]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in called]


def _resampling_plan(
    base: Design, beta: dict[str, float], D: Any, sigma: float, priors: Any, residual: ResidualEstimate | None
) -> _Plan:
    """Planned subjects are those of the data: their rows, times and covariates, each equally often."""
    for name in beta:
        if name not in base.coef:
            raise SpecificationError(
                f"beta[{name!r}]",
                f"the model has no such coefficient.{closest(name, base.coef)}",
                f"use names among {shorten(base.coef)}",
                SEE,
            )
    coefficients = np.array([beta.get(c, 0.0) for c in base.coef])
    if hasattr(D, "loc"):
        D = D.reindex(index=list(base.term), columns=list(base.term)).to_numpy()
    matrix = np.array(D, dtype=float, ndmin=2)
    q = len(base.term)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T)) if matrix.shape == (q, q) else (np.array([-1.0]), None)
    if not np.all(values >= -1e-8 * np.abs(values).max()) or vectors is None or not sigma > 0:
        raise SpecificationError(
            f"D={np.round(matrix, 6).tolist()} and sigma={sigma!r}",
            f"D is a covariance matrix of shape ({q}, {q}), in the order {', '.join(base.term)}; sigma is positive",
            "for example D=[[3.2, 0.1], [0.1, 0.03]], sigma=1.3",
            SEE,
        )
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    hierarchy = base.hierarchy
    parsed = parse_formula(hierarchy.formula)
    rows = rows_by_subject(base)

    def draw(size: int, rng: np.random.Generator, dropout: float) -> Design:
        J = base.n_subjects
        order = np.concatenate([rng.permutation(J) for _ in range(-(-size // J))])[:size]
        kept = rng.geometric(dropout, size) if dropout > 0 else np.full(size, base.n_obs)
        taken = [rows[j][: kept[i]] for i, j in enumerate(order)]
        frame = base.frame.iloc[np.concatenate(taken)].reset_index(drop=True)
        frame[hierarchy.subject] = np.repeat(np.arange(1, size + 1), [len(r) for r in taken])
        structure = Residual(base.residual, base.residual_variance)
        design = design_from_formula(parsed, frame, covariance=base.covariance, residual=structure)
        b = rng.standard_normal((size, q)) @ root.T
        line = subject_lines(design, coefficients, b)
        noise = _coloured(design, residual, rng.standard_normal(design.n_obs))
        return _checked(design.with_response(line + sigma * noise))

    return _Plan(hierarchy.formula, draw, beta, priors, least=base.n_subjects)


def _coloured(design: Design, residual: ResidualEstimate | None, noise: FloatArray) -> FloatArray:
    """Give independent standard normal residuals the estimated structure, on the rows of another design."""
    if residual is None:
        return noise
    rows, k = residual_rows(design), residual.n_correlation
    values: list[float] = []
    if residual.correlation is not None:
        values += residual.correlation.values(residual.eta[:k]).tolist()
    if residual.variance is not None:
        values += residual.variance.values(residual.eta[k:]).tolist()
    if len(values) != len(rows.parameters):
        raise SpecificationError(
            f"a planned study in which {design.residual_variance or design.residual} has other parameters",
            "a group or an occasion of the fitted data does not occur in it",
            "plan more subjects",
            SEE,
        )
    return rows.colour(unconstrained_values(rows.parameters, np.array(values)), noise)


def _checked(design: Design) -> Design:
    check_design(design)
    return design


def _first_study(plan: _Plan, size: int) -> Design:
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
            raise SpecificationError(
                "a plan that cannot be simulated", str(error), "check beta, D, times and the covariates", SEE
            ) from error
    raise SpecificationError(
        f"a plan whose simulated studies of {size} subjects cannot be fitted, even complete: {problem.received}",
        problem.reason,
        f"plan more subjects or occasions; or, as for data: {problem.remedy}",
        SEE,
    ) from problem


def _coefs(coef: Any, design: Design) -> list[str]:
    if coef is None:
        return [c for c in design.coef if c != INTERCEPT] or list(design.coef)
    wanted = [coef] if isinstance(coef, str) else list(coef)
    for name in wanted:
        if name not in design.coef:
            raise SpecificationError(
                f"coefs={name!r}",
                f"the planned model has no such coefficient.{closest(name, design.coef)}",
                f"use one of: {shorten(design.coef)}",
                SEE,
            )
    return wanted


# --- One study --------------------------------------------------------------------------------------------------------


def between_within_df(design: Design) -> FloatArray:
    """Between-within degrees of freedom of each fixed effect, (p,); at least 1 (Schluchter & Elashoff 1990)."""
    varying = np.isin(design.coef_level1, design.term_level1)
    same = design.coef_level1[:, None] == design.coef_level1[None, :]
    between = design.n_subjects - same.sum(axis=1)
    within = design.n_obs - design.n_subjects * len(design.term) - np.sum(~varying)
    return np.maximum(np.where(varying, between, within), 1).astype(float)


def _by_likelihood(
    design: Design, reml: bool, position: list[int], alternative: str, alpha: float, quantiles: str
) -> Found:
    fit = likelihood_of(design, reml=reml)
    estimate, se = fit.beta.to_numpy()[position], fit.beta_se.to_numpy()[position]
    df = between_within_df(design)[position] if quantiles == "t" else np.full(len(position), np.inf)
    half = t.ppf(1.0 - alpha / 2.0, df) * se
    tail = t.sf(estimate / se, df)
    p = {"greater": tail, "less": 1.0 - tail, "two-sided": 2.0 * np.minimum(tail, 1.0 - tail)}[alternative]
    significant = np.asarray(p) < alpha
    return Found(estimate, se, estimate - half, estimate + half, significant, design.n_obs, fit.is_singular)


def _by_nuts(
    design: Design,
    priors: Any,
    position: list[int],
    rng: np.random.Generator,
    alternative: str,
    alpha: float,
    draws: int,
    tune: int,
) -> Found:
    posterior = posterior_of(design, resolve_priors(priors, design))
    seed = int(rng.integers(2**32))
    settings = Settings(draws, tune, chains=1, target_accept=0.8, seed=seed, cores=1, progressbar=False)
    beta = posterior.conditional(sample_theta(posterior, settings)[0][0], rng, "none").natural.beta[:, position]
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


def _row(studies: list[Found], coefs: list[str], true: FloatArray, n: int) -> pd.DataFrame:
    """Summaries of the studies of one size, a row for each coefficient; NaN if fewer than two could be fitted."""
    m = len(studies)
    if m < 2:
        filled = {"true": true, "failed": 1.0 - m / n, "n_used": m}
        return pd.DataFrame(filled, index=pd.Index(coefs, name="coef")).reindex(columns=COLUMNS)
    estimate, se, lower, upper = (np.array([getattr(s, f) for s in studies]) for f in Found._fields[:4])
    significant = np.array([s.significant for s in studies])
    width, hits = upper - lower, significant.sum(axis=0).astype(float)
    power, covered = hits / m, np.mean((lower <= true) & (true <= upper), axis=0)
    low, high = binomial_interval(hits, np.full(len(coefs), float(m)))
    chosen = np.where(significant, estimate, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.where((true != 0) & (hits > 0), 1.0, np.nan)
        counts = np.where(hits > 0, hits, np.nan)
        type_s = known * np.nansum(np.sign(chosen) == -np.sign(true), axis=0) / counts
        type_m = known * np.nansum(np.abs(chosen), axis=0) / counts / np.abs(true)
    return pd.DataFrame(
        {
            "true": true,
            "estimate": estimate.mean(axis=0),
            "bias": estimate.mean(axis=0) - true,
            "bias_mcse": estimate.std(axis=0, ddof=1) / np.sqrt(m),
            "sd": estimate.std(axis=0, ddof=1),
            "se": se.mean(axis=0),
            "width": width.mean(axis=0),
            "width_mcse": width.std(axis=0, ddof=1) / np.sqrt(m),
            "power": power,
            "power_mcse": np.sqrt(power * (1.0 - power) / m),
            "power_lower": low,
            "power_upper": high,
            "coverage": covered,
            "coverage_mcse": np.sqrt(covered * (1.0 - covered) / m),
            "type_s": type_s,
            "type_m": type_m,
            "rows": np.mean([s.rows for s in studies]),
            "failed": 1.0 - m / n,
            "n_used": m,
        },
        index=pd.Index(coefs, name="coef"),
    )


# --- The result -------------------------------------------------------------------------------------------------------


@checked
@dataclass(frozen=True, eq=False, repr=False)
class DesignAnalysis:
    """What a planned study can be expected to find.

    Attributes
    ----------
    table : DataFrame
        Index ``n_subjects`` × ``coef``; columns

        ``true``, ``estimate``, ``bias``, ``bias_mcse``
            The assumed value, the mean estimate, their difference and its Monte-Carlo standard error.
        ``sd``, ``se``
            Standard deviation of the estimates, and mean of the standard errors (equal if these are right).
        ``width``, ``width_mcse``
            Expected width of the interval of probability 1 - alpha.
        ``power``, ``power_mcse``, ``power_lower``, ``power_upper``
            Share of studies that reject β = 0 (where the true value is zero, the error rate of the test), its
            Monte-Carlo standard error and 95 % interval (Wilson).
        ``coverage``, ``coverage_mcse``
            Share of intervals that hold the true value.
        ``type_s``, ``type_m``
            Among significant estimates: the share with the wrong sign, and the mean of abs(estimate) / abs(true).
        ``rows``
            Mean number of rows of a study.
        ``failed``, ``n_used``
            Share of simulated studies that could not be fitted, and number of those that could; everything else is
            about the latter, and NaN if they are fewer than two.
    estimator : {"REML", "ML", "NUTS"}
    quantiles : {"t", "z", "posterior"}
        Where intervals come from.
    singular : dict of int to float
        For each size, the share of studies whose D was estimated on the boundary.
    failures : tuple of Failure
    """

    table: pd.DataFrame
    formula: str
    estimator: str
    quantiles: str
    coefs: tuple[str, ...]
    alternative: str
    alpha: float
    dropout: float
    simulations: int
    singular: dict[int, float]
    failures: tuple[Failure, ...]
    seed: int
    seconds: float

    def subjects_needed(self, power: float = 0.8) -> pd.DataFrame:
        """Number of subjects at which a power is reached, from all sizes together.

        The information about β grows in proportion to the number of subjects J, so the power of a test at level alpha
        is about Φ(δ √J - z); δ is estimated by maximum likelihood from the rejections at all sizes with a power of at
        least 0.3 (or `power`, if less). Smaller sizes say more about the level of the test than about the effect.

        Parameters
        ----------
        power : float

        Returns
        -------
        pandas.DataFrame
            By coefficient: ``n_subjects``, and ``lower``, ``upper``, 95 % limits that allow for Monte-Carlo error, for
            sizes that disagree, and for extrapolation. NaN where the sizes do not say: the true value is zero, no size
            reaches a power of 0.3, the answer exceeds twice the largest size, or every study of all sizes used rejects.
            A limit is NaN where there is none.
        """
        rows = {coef: self._needed(coef, probability("power", power)) for coef in self.coefs}
        index = pd.Index(self.coefs, name="coef")
        return pd.DataFrame.from_dict(rows, orient="index", columns=["n_subjects", "lower", "upper"]).set_axis(index)

    def _needed(self, coef: str, power: float) -> list[float]:
        own = self._fitted(coef)
        informative = own[own["power"] >= min(LEAST_POWER, power)]
        if own["true"].iloc[0] == 0 or informative.empty or (informative["power"] == 1.0).all():
            return [np.nan] * 3
        z = float(norm.ppf(1.0 - self.alpha / (2.0 if self.alternative == "two-sided" else 1.0)))
        sizes = informative.index.to_numpy(dtype=float)
        delta, se = self._noncentrality(informative, z)
        root = float(norm.ppf(power)) + z
        if not (delta > 0 and root > 0):
            return [np.nan] * 3
        answer = (root / delta) ** 2
        if answer > FURTHEST * sizes.max():
            return [np.nan] * 3
        distance = max(0.0, np.log(answer / sizes.max()), np.log(sizes.min() / answer))
        half = 1.96 * np.hypot(se, EXTRAPOLATION * distance * delta)
        bounds = [d if d > 0 else np.nan for d in (delta, delta + half, delta - half)]
        return [float(np.ceil((root / d) ** 2)) for d in bounds]

    def _fitted(self, coef: str) -> pd.DataFrame:
        own = pd.DataFrame(self.table.xs(coef, level="coef"))
        return own[own["n_used"] >= 2]

    @staticmethod
    def _noncentrality(own: pd.DataFrame, z: float) -> tuple[float, float]:
        """δ and its standard error, enlarged where the sizes disagree more than by chance."""
        root, m = np.sqrt(own.index.to_numpy(dtype=float)), own["n_used"].to_numpy(dtype=float)
        hits = own["power"].to_numpy() * m

        def negative(delta: float) -> float:
            x = delta * root - z
            return -float(np.sum(hits * norm.logcdf(x) + (m - hits) * norm.logsf(x)))

        best = minimize_scalar(negative, bounds=(0.0, 20.0 / root.min()), method="bounded", options={"xatol": 1e-8})
        x = float(best.x) * root - z
        p = np.clip(norm.cdf(x), 1e-12, 1 - 1e-12)
        information = np.sum(m * (norm.pdf(x) * root) ** 2 / (p * (1 - p)))
        excess = float(np.sum((hits - m * p) ** 2 / (m * p * (1 - p) + 0.5))) / max(len(m) - 1, 1)
        return float(best.x), float(np.sqrt(max(1.0, excess) / information))

    @cached_property
    def sentences(self) -> list[str]:
        """The result in plain words, a paragraph for each coefficient."""
        needed = self.subjects_needed(0.8)
        return [line for coef in self.coefs for line in self._sentences(coef, needed.T[coef])]

    def _sentences(self, coef: str, needed: pd.Series) -> list[str]:
        own = pd.DataFrame(self.table.xs(coef, level="coef"))
        true = float(own["true"].iloc[0])
        interval = f"{100 * (1 - self.alpha):g} % interval"
        lines = [f"{coef}, true value {true:g}"]
        failed_first = self._first_failures()
        remedy = "lower dropout or more subjects" if self.dropout else "more subjects or occasions"
        for size, (_, row) in zip(self.singular, own.iterrows(), strict=True):
            if row["n_used"] < 2:
                lines.append(
                    f"  with {size} subjects {self._share_failed(row)} (the first because "
                    f"{failed_first[size]}): {remedy}"
                )
                continue
            chance = f"{row['power']:z.2f} ± {row['power_mcse']:z.2f}"
            what = (
                "the chance to see an effect that is not there is" if true == 0 else "the chance to see the effect is"
            )
            lines.append(f"  with {size} subjects {what} {chance}; the {interval} is {row['width']:.3g} wide")
            if true != 0 and row["power"] < 0.5 and np.isfinite(row["type_m"]):
                lines.append(
                    f"    what is significant there is {row['type_m']:z.1f} times the true value on average, and has "
                    f"the wrong sign in {100 * row['type_s']:z.0f} %"
                )
            if row["failed"] > 0:
                lines.append(f"    {self._share_failed(row)} and are left out (the first because {failed_first[size]})")
        if true != 0:
            lines.append(f"  for a chance of 0.80: {self._needed_sentence(coef, needed)}")
        return lines

    def _share_failed(self, row: pd.Series) -> str:
        share = 100 * row["failed"]
        text = f"{share:z.0f}" if share >= 1 else f"{share:.1g}"
        number = "no simulated study" if row["n_used"] == 0 else f"{text} % of the simulated studies"
        return f"{number} could {'' if row['n_used'] == 0 else 'not '}be fitted"

    def _first_failures(self) -> dict[int, str]:
        """For each size with failures, the reason of the first."""
        sizes = list(self.singular)
        return {sizes[f.number // self.simulations]: f.reason for f in reversed(self.failures)}

    def _needed_sentence(self, coef: str, needed: pd.Series) -> str:
        own = self._fitted(coef)
        sizes, power = own.index.to_numpy(dtype=int), own["power"].to_numpy()
        least, largest = sizes.min(), sizes.max()
        if np.isfinite(needed["n_subjects"]):
            far = FURTHEST * largest
            upper = f"{needed['upper']:z.0f}" if needed["upper"] <= far else f"more than {far:z.0f}"
            text = f"about {needed['n_subjects']:z.0f} subjects ({needed['lower']:z.0f} to {upper})"
            if not least <= needed["n_subjects"] <= largest:
                text += f", outside the sizes tried: check with n_subjects={needed['n_subjects']:z.0f}"
            return text
        enough = sizes[power == 1.0]
        if len(enough) and power[0] >= LEAST_POWER:
            return f"{least} subjects, the fewest tried, are already enough"
        if len(enough):
            below = sizes[power < LEAST_POWER].max()
            return f"between {below} and {enough.min()} subjects; try sizes in between"
        if largest < max(self.singular):
            return "the sizes that could be fitted are too small to say; see why larger ones failed"
        return (
            "the sizes tried are too small to say; try larger ones, for example "
            f"n_subjects=({2 * largest}, {4 * largest}, {8 * largest})"
        )

    def notes(self) -> list[str]:
        """What must be known to read the numbers."""
        direction = {"two-sided": "differs from zero", "greater": "is above zero", "less": "is below zero"}
        notes = [f"To see an effect: a test at level {self.alpha:g} finds that it {direction[self.alternative]}."]
        notes[0] += " ± is the Monte-Carlo standard error."
        if self.quantiles == "t":
            notes.append(
                "Intervals and tests use t quantiles on between-within degrees of freedom: exact on balanced data only "
                "for studies whose D is not on its boundary, an approximation otherwise."
            )
        elif self.quantiles == "z":
            notes.append(
                "Intervals and tests use normal quantiles, which overstates power when there are few subjects; "
                "quantiles='t' allows for it."
            )
        else:
            notes.append("Intervals are equal-tailed posterior intervals; priors are part of the analysis.")
        if self.dropout:
            notes.append(f"Dropout {self.dropout:g} at every occasion after the first, completely at random.")
        boundary = {size: share for size, share in self.singular.items() if share > 0.05}
        if boundary:
            text = ", ".join(f"{100 * share:z.0f} % with {size} subjects" for size, share in boundary.items())
            words = f"D was estimated on its boundary (singular) in some simulated studies: {text}."
            if self.quantiles == "t":
                words += " There the t test is not exact, and its error rate may differ from the nominal level."
            notes.append(words)
        if self.failures:
            notes.append(
                f"{len(self.failures)} of {self.simulations * len(self.singular)} simulated studies could not be "
                "fitted; power and all else is about those that could."
            )
        return notes

    def _header(self) -> str:
        return f"Design analysis: {self.formula}\n{self.estimator}, {self.simulations} simulated studies for each size"

    def __repr__(self) -> str:
        body = [*self.sentences, ""]
        for note in self.notes():
            body += textwrap.wrap(f"Note: {note}", 100)
        return "\n".join([f"{self._header()}; {self.seconds:z.1f} s", "", *body])

    def _repr_html_(self) -> str:
        columns = ["true", "power", "power_mcse", "width", "bias", "coverage", "type_s", "type_m", "failed"]
        shown = self.table[columns].to_html(border=0, float_format=lambda v: f"{v:.3g}", na_rep="")
        head = "<br>".join(html.escape(line) for line in self._header().splitlines())
        words = "<br>".join(html.escape(line).replace("  ", "&emsp;") for line in self.sentences)
        notes = "<br>".join(html.escape(note) for note in self.notes())
        return f"<div><p><strong>{head}</strong></p><p>{words}</p>{shown}<p>{notes}</p></div>"

    def plot(self, *, backend: str | None = None, figure_kwargs: dict[str, Any] | None = None) -> Any:
        """Draw power and expected interval width against the number of subjects, with 95 % Monte-Carlo bands.

        Sizes of which no study could be fitted are left out.

        Parameters
        ----------
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        figure_kwargs : dict, optional

        Returns
        -------
        arviz_plots.PlotCollection
        """
        from hierlmm.drawing.simulation import plot_power

        return plot_power(replace(self, table=self.table[self.table["n_used"] >= 2]), backend, figure_kwargs)
