"""The record of an estimator that a fit was made of, and the answers that a fit keeps without its rows.

The way back from `hierlmm.fit.make.fit_of`. A posterior and GEE answer from draws and estimates. A likelihood fit works
everything out from the rows: without a residual structure their cross-products suffice, else the solution at the
optimum, and what tables are made of, are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.estimate import LikelihoodEstimate

SOLVED = ("Lambda", "working_sd", "whitened_sd", "shift", "sigma", "beta", "beta_cov", "root", "D", "b")
"""What is kept of a solution, by name."""
GENERALISED = ("b", "b_cov", "subject_loglik")
"""The same of a generalised model, where the rest follows from the optimum."""


def record_of(fit: Fit) -> Any:
    """What `fit_of` made this fit of."""
    it: Any = fit
    if it.has_likelihood and not it.design.is_gaussian:
        vars(it.record)["warnings"] = it.warnings  # not worked out again
        return it.record
    if it.has_likelihood:
        record = LikelihoodEstimate(it.design, it.criterion_function, it.optimum)
        vars(record)["warnings"] = it.warnings  # not worked out again, which may take further fits
        return record
    if it.has_working_correlation:
        from hierlmm.gee.record import GEERecord

        return GEERecord(it.design, it.estimate, it.time, it.se, it.warnings)
    from hierlmm.bayes.record import PosteriorRecord

    return PosteriorRecord(it.design, it.datatree, it.priors, it.estimator, it.warnings)


def answers_of(fit: Fit) -> dict[str, Any]:
    """What a fit without its rows cannot work out, as numbers, text and arrays by name.

    Raises
    ------
    NotAvailableError
        If the model has several grouping factors.
    """
    it: Any = fit
    if it.design.has_several_factors:
        reason = "what a fit with several grouping factors answers is worked out from its rows"
        raise NotAvailableError("save(data=False)", reason, "save the fit with its data", MULTILEVEL)
    found: dict[str, Any] = {"print": repr(fit), "html": fit._repr_html_()}
    if not it.has_likelihood:
        return found
    if not it.design.is_gaussian:
        return found | {"modes": {name: getattr(it.solution, name) for name in GENERALISED}}
    if not it.criterion_function.whitens:
        return found
    large, effects, optima = it.large_sample, it.solution.effects, it.optima
    return found | {
        "solution": {name: getattr(it.solution, name) for name in SOLVED},
        "effects": {name: getattr(effects, name) for name in ("origin", "slope", "covariance")},
        "components": it._components._asdict(),
        "satterthwaite": dict(vars(it._satterthwaite)),
        "large sample": {name: getattr(large, name) for name in ("centre", "covariance", "flat")},
        "optima": {"columns": list(optima.columns), "values": optima.to_numpy()},
    }


def put_back(fit: Fit, answers: Mapping[str, Any]) -> None:
    """Give a new fit its answers: they stand where it would keep what it had worked out.

    Parameters
    ----------
    fit : Fit
    answers : mapping
        From `answers_of`.
    """
    kept = vars(fit)
    if "print" in answers:
        kept["_told"] = (answers["print"], answers["html"])
    if "modes" in answers:
        vars(fit.solution).update(answers["modes"])
    if "solution" in answers:
        kept |= _likelihood_answers(fit, answers)


def _likelihood_answers(fit: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
    from hierlmm.fits.covariance_table import WaldComponents
    from hierlmm.likelihood.conditional import ConditionalEffects
    from hierlmm.likelihood.degrees import SatterthwaiteDegrees
    from hierlmm.likelihood.large_sample import LargeSample
    from hierlmm.likelihood.solution import Solution

    solution = Solution(fit.criterion_function, fit.optimum.lam)
    vars(solution).update(answers["solution"], effects=ConditionalEffects(**answers["effects"]))
    table = answers["optima"]
    index = pd.RangeIndex(1, len(table["values"]) + 1, name="optimum")
    return {
        "solution": solution,
        "_components": WaldComponents(**answers["components"]),
        "_satterthwaite": SatterthwaiteDegrees(**answers["satterthwaite"]),
        "large_sample": LargeSample(fit.criterion_function, **answers["large sample"]),
        "optima": pd.DataFrame(table["values"], index=index, columns=table["columns"]),
    }
