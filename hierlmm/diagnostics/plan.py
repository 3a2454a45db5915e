"""The plan of a study: what was stated about it, and designs with simulated responses drawn from that.

Either everything is stated (a formula, times, covariates), and `hierlmm.datasets.simulate` draws the rows; or the
planned subjects are those of the data, each taken equally often, with their own times and covariates.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.parameters import unconstrained_values
from hierlmm.datasets.responses import draw_responses, stated_dispersion
from hierlmm.datasets.simulate import simulate
from hierlmm.design.build import design_from_formula
from hierlmm.design.design import Design
from hierlmm.design.formula import parse_formula, quoted, term_name, unquoted
from hierlmm.design.outcome import Outcome, with_trials
from hierlmm.design.questions import rows_by_subject
from hierlmm.design.residual import Residual
from hierlmm.diagnostics import replicate
from hierlmm.errors import DataError, HierlmmError, NotAvailableError, SpecificationError
from hierlmm.families.family import Family
from hierlmm.families.names import family_of
from hierlmm.fits.base import Fit
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.residual_rows import residual_rows

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
    family: Any = None
    dispersion: Mapping[str, float] | pd.Series | None = None
    trials: int | None = None


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
        _refuse_other_family(base, stated)
        stated = _with_estimates(base, stated)
    elif not isinstance(source, str):
        received = f"a source of type {type(source).__name__!r}"
        remedy = "for example hl.design_analysis('y ~ group * time + (1 + time | subject)', beta=..., D=..., sigma=...)"
        raise SpecificationError(received, "a design analysis starts from a formula, a model or a fit", remedy, SEE)
    family = (
        base.family if isinstance(base, Design) else family_of("gaussian" if stated.family is None else stated.family)
    )
    wanted = ("beta", "D", "sigma") if family.name == "gaussian" and not stated.dispersion else ("beta", "D")
    missing = [name for name in wanted if getattr(stated, name) is None]
    if missing:
        received = f"a design analysis without {' and '.join(missing)}"
        needed = "beta, D and sigma" if "sigma" in wanted else "beta, D and dispersion"
        remedy = f"give {needed}, or pass a fit whose estimates serve as the truth"
        raise SpecificationError(received, "the truth that studies are drawn from is not complete", remedy, SEE)
    beta: Any = stated.beta
    if not hasattr(beta, "items"):
        received = f"beta of type {type(beta).__name__!r}"
        raise SpecificationError(received, "coefficients need names", "for example {'time': 0.5}", SEE)
    stated = replace(stated, beta={str(name): float(value) for name, value in beta.items()})
    if isinstance(base, Design) and stated.times is None:
        return _resampling_plan(base, stated)
    return _simulated_plan(base, family, stated)


def _with_estimates(base: Design, stated: Stated) -> Stated:
    """Take what was left out from the fit, or the priors from the model."""
    source = stated.source
    found: dict[str, Any] = {}
    if isinstance(source, Fit):
        names = ("beta", "D", "sigma" if base.is_gaussian else "dispersion")
        found = {name: getattr(source, name) for name in names if getattr(stated, name) is None}
        if stated.sigma is not None and "dispersion" in found:
            found["dispersion"] = found["dispersion"].drop("sigma", errors="ignore")
        priors = getattr(source, "priors", None)
        priors = priors if getattr(priors, "source", "default") == "chosen" else None
    else:  # as the user stated them; defaults follow each study's data
        priors = getattr(source, "_priors", None)
    return replace(stated, priors=priors if stated.priors is None else stated.priors, **found)


def _refuse_structure(base: Design, source: Any, times: Any) -> None:
    """A residual structure needs its parameters (from a fit), it and groups need subjects like those of the data."""
    if not base.term:
        received = "a design analysis of a marginal model"
        remedy = "use a TwoLevelModel; hl.calibrate simulates from a marginal model on its own design"
        raise NotAvailableError(received, "it draws subjects with random effects", remedy, SEE)
    if base.group and times is not None:
        received, reason = f"times=... with group={base.group!r}", "subjects at new times have no group of their own"
        raise NotAvailableError(received, reason, "leave times out, for subjects like those of the data", SEE)
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


def _refuse_other_family(base: Design, stated: Stated) -> None:
    """A model has its own family, and its rows their own trials."""
    received = f"family={stated.family!r}" if stated.family is not None else f"trials={stated.trials!r}"
    if stated.family is not None:
        raise SpecificationError(f"{received} with a model or fit", "it has its own family", "leave family out", SEE)
    if stated.trials is not None and stated.times is None:
        reason = "without times the planned rows are those of the data, with the trials they have"
        raise SpecificationError(received, reason, "leave trials out, or give times=[...] as well", SEE)


# --- Everything is stated ---------------------------------------------------------------------------------------------


def _simulated_plan(base: Design | None, family: Family, stated: Stated) -> Plan:
    formula = stated.source if base is None else base.hierarchy.formula
    if stated.times is None:
        reason = "how often and when a subject is measured decides what the study can see"
        remedy = "give times=[0, 1, 2, 3], or pass a model or fit whose subjects are taken as they are"
        raise SpecificationError("a formula without times", reason, remedy, SEE)
    parsed = parse_formula(formula)
    if parsed.offsets:
        received, reason = f"{formula!r} with times", "rows that are drawn anew have no offset or exposure"
        raise NotAvailableError(
            received, reason, "leave the offset out, or times, for rows like those of the data", SEE
        )
    names = ("beta", "D", "sigma", "times", "level2", "level1", "time", "dispersion", "trials")
    settings: dict[str, Any] = {name: getattr(stated, name) for name in names}
    if stated.time is None:
        settings["time"] = _time_of(formula, parsed, {*(stated.level2 or {}), *(stated.level1 or {})})
    settings["random"] = list(dict.fromkeys(term_name(term) for part in parsed.random for term in part.terms))
    settings["subject"] = parsed.random[0].subject if parsed.random else "subject"
    settings["group"] = parsed.group
    counted = "trials" if family.has_trials and parsed.response.isidentifier() else None
    response, outcome = with_trials(parsed.response, Outcome(family, counted) if base is None else base.outcome)
    own, renamed = replace(parsed, response=response), {"trials": outcome.trials}

    def draw(size: int, rng: Rng, dropout: float) -> Design:
        data = simulate(n_subjects=size, dropout=dropout, response=response, family=family, seed=rng, **settings)
        data = data.rename(columns=renamed) if outcome.trials else data
        covariance = None if base is None else base.covariance
        return _checked(design_from_formula(own, data, covariance=covariance, outcome=outcome))

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
    family, natural = base.family, {} if base.is_gaussian else stated_dispersion(base.family, sigma, stated.dispersion)
    reason = "the model has no such coefficient."
    for name in beta:
        replicate.refuse_unknown(f"beta[{name!r}]", name, base.coef, reason, "use names among {}", SEE)
    coefficients = np.array([beta.get(c, 0.0) for c in base.coef])
    root = _root(base, stated.D, sigma if base.is_gaussian else None)
    residual = stated.source.residual_estimate if isinstance(stated.source, Fit) else None
    hierarchy = base.hierarchy
    parsed = parse_formula(hierarchy.formula)
    covariance = None if hierarchy.covariance == "blocks" else hierarchy.covariance  # blocks stand in the formula
    structure = Residual(base.residual, base.residual_variance)
    rows = rows_by_subject(base)
    # Offsets of an exposure stand in the formula.
    outcome, response = Outcome(family, base.outcome.trials), unquoted(hierarchy.response)
    own = replace(parsed, response=quoted(response))

    def draw_family(frame: pd.DataFrame, at: IntArray, who: IntArray, rng: Rng) -> Design:
        """Responses at the linear predictors of rows of the data, read as data are."""
        b = rng.standard_normal((who[-1] + 1, root.shape[1])) @ root.T
        eta = base.offset[at] + base.X[at] @ coefficients + np.einsum("ij,ij->i", base.Z[at], b[who])
        frame[response] = draw_responses(rng, family, eta, natural, base.trials[at])[0]
        return _checked(design_from_formula(own, frame, covariance=covariance, outcome=outcome))

    def draw(size: int, rng: Rng, dropout: float) -> Design:
        J = base.n_subjects
        order = np.concatenate([rng.permutation(J) for _ in range(-(-size // J))])[:size]
        kept = rng.geometric(dropout, size) if dropout > 0 else np.full(size, base.n_obs)
        taken = [rows[j][: kept[i]] for i, j in enumerate(order)]
        at, who = np.concatenate(taken), np.repeat(np.arange(size), [len(r) for r in taken])
        frame = base.frame.iloc[at].reset_index(drop=True)
        frame[hierarchy.subject] = who + 1
        if not base.is_gaussian:
            return draw_family(frame, at, who, rng)
        design = design_from_formula(parsed, frame, covariance=covariance, residual=structure)
        colour = None if residual is None else lambda noise: _coloured(design, residual, noise)
        _, y = replicate.drawn_response(design, coefficients, root, sigma, rng, colour)
        return _checked(design.with_response(y))

    return Plan(hierarchy.formula, draw, beta, stated.priors, least=base.n_subjects)


def _root(base: Design, D: Any, sigma: float | None) -> FloatArray:
    """A root of D (q, q), in the order of the random effects; sigma where the response has it."""
    if hasattr(D, "loc"):
        D = D.reindex(index=list(base.term), columns=list(base.term)).to_numpy()
    matrix, q = np.array(D, dtype=float, ndmin=2), len(base.term)
    if matrix.shape == (q, q) and (sigma is None or sigma > 0):
        root, values = replicate.eigen_root(0.5 * (matrix + matrix.T))
        if np.all(values >= -1e-8 * np.abs(values).max()):
            return root
    received, more, example = f"D={np.round(matrix, 6).tolist()}", "", "for example D=[[3.2, 0.1], [0.1, 0.03]]"
    if sigma is not None:
        received, more, example = f"{received} and sigma={sigma!r}", "; sigma is positive", f"{example}, sigma=1.3"
    reason = f"D is a covariance matrix of shape ({q}, {q}), in the order {', '.join(base.term)}{more}"
    raise SpecificationError(received, reason, example, SEE)


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
