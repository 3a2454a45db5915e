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

import time as clock
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.diagnostics.design_result import DesignAnalysis
from hierlmm.diagnostics.plan import SEE, Stated, first_study, plan_of
from hierlmm.diagnostics.replicate import Failure, probability, replicate, reported, streams, whole
from hierlmm.diagnostics.study import ALTERNATIVES, ESTIMATORS, Analysis, Found, Study, summaries
from hierlmm.errors import SpecificationError
from hierlmm.options import checked, renamed

__all__ = ["ALTERNATIVES", "ESTIMATORS", "DesignAnalysis", "design_analysis"]


@renamed(n="simulations", method="estimator", coef="coefs", reference="quantiles")
@checked
def design_analysis(
    source: Any,
    *,
    beta: Mapping[str, float] | pd.Series | None = None,
    D: Any = None,
    sigma: float | None = None,
    family: Any = None,
    dispersion: Mapping[str, float] | pd.Series | None = None,
    trials: int | None = None,
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
        random effects in the order of the formula, and the residual SD of a Gaussian response. Needed unless a fit is
        given.
    family, dispersion, trials
        Of another response, as `simulate` takes them: ``family="poisson"`` where a formula is given (models and fits
        have their own), dispersion parameters by name (``{"shape": 2.0}``), trials of each row of a binomial response.
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
        posterior interval (or, one-sided, by the posterior probability of the other sign being below alpha). Other
        families than the Gaussian have no REML: they are fitted by ML (Laplace's method), and not by ``"nuts"``.
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
        estimated on its boundary, approximate otherwise and for other families), or normal, which overstates power
        when there are few subjects.
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
    analysis = Analysis(estimator, alternative, probability("alpha", alpha), quantiles, draws, tune)
    n = whole("simulations", simulations, 10)
    sizes, dropout = _sizes(n_subjects), _chance_to_leave(dropout)
    plan = plan_of(Stated(source, beta, D, sigma, times, level2, level1, time, priors, family, dispersion, trials))
    used_seed, seeds = streams(seed, n * len(sizes))
    first = first_study(plan, sizes[-1])
    names = reported(coefs, first.coef, SEE)
    analysis = analysis.of(plan, first)
    study = Study(plan, analysis, dropout, first.coef, [first.coef.index(c) for c in names])
    started, label = clock.perf_counter(), f"Design analysis ({analysis.estimator.upper()})"
    results, failures = replicate(
        lambda k: study.run(sizes[k // n], seeds[k]), n * len(sizes), cores=cores, progressbar=progressbar, label=label
    )
    true = np.array([float(plan.beta.get(c, 0.0)) for c in names])
    found = _by_size(sizes, results, failures)
    return DesignAnalysis(
        table=pd.concat({size: summaries(own, names, true, n) for size, own in found.items()}, names=["n_subjects"]),
        formula=plan.formula,
        estimator=analysis.estimator.upper(),
        quantiles=quantiles if estimator != "nuts" else "posterior",
        coefs=tuple(names),
        alternative=alternative,
        alpha=analysis.alpha,
        dropout=dropout,
        simulations=n,
        singular={size: float(np.mean([r.singular for r in own])) if own else np.nan for size, own in found.items()},
        failures=tuple(failures),
        seed=used_seed,
        seconds=clock.perf_counter() - started,
        family=first.family,
    )


def _by_size(sizes: list[int], results: list[Found | None], failures: list[Failure]) -> dict[int, list[Found]]:
    """The studies of each size that could be fitted."""
    n = len(results) // len(sizes)
    found = {size: [r for r in results[i * n : (i + 1) * n] if r is not None] for i, size in enumerate(sizes)}
    if all(len(studies) < 2 for studies in found.values()):
        received = f"simulated studies of {', '.join(map(str, sizes))} subjects, hardly one of which could be fitted"
        remedy = "lower dropout, or plan more subjects or occasions, or a simpler model"
        raise SpecificationError(received, f"the first failed because {failures[0].reason}", remedy, SEE)
    return found


def _chance_to_leave(dropout: float) -> float:
    if not 0 <= dropout < 1:
        reason = "a probability of leaving at each occasion lies in [0, 1)"
        raise SpecificationError(f"dropout={dropout!r}", reason, "try dropout=0.1", SEE)
    return float(dropout)


def _sizes(n_subjects: Any) -> list[int]:
    values = [n_subjects] if isinstance(n_subjects, int | np.integer) else list(n_subjects)
    sizes = sorted({whole("n_subjects", v, 2) for v in values})
    if not sizes:
        received = "n_subjects without a number"
        raise SpecificationError(received, "at least one size is needed", "for example n_subjects=(20, 40, 80)", SEE)
    return sizes
