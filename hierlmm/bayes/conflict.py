"""Whether the priors leave room for what the likelihood says.

A prior conflicts with the data when the REML estimate lies so far out that the prior's log density has dropped by more
than `DROP` from its maximum (for a normal prior, 3.5 standard deviations). The posterior is then a compromise that the
draws themselves cannot show: they converge to it. Where the prior of a random intercept is not stated at the average
covariates (random effects that are not correlated, priors that were chosen), a covariate whose zero is far from the
data, such as a calendar year, is the usual cause: the spread of intercepts then belongs to a point nobody has seen.
"""

from __future__ import annotations

import numpy as np

from hierlmm.bayes.distributions import Gamma, Normal, Prior, StudentT
from hierlmm.bayes.priors import AVERAGE, ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.likelihood.estimate import maximise_design

__all__ = ["prior_conflicts"]

DROP = 6.0
FAR = 10.0
"""Standard deviations of a level-1 covariate from its mean to its zero, beyond which the zero is far from the data."""


def prior_conflicts(design: Design, priors: ResolvedPriors) -> tuple[str, ...]:
    """Name the priors that the REML estimates lie far outside of, and say what to do."""
    reml = maximise_design(design, reml=True).solution
    beta = priors.centering @ reml.beta
    named = list(zip(priors.stated_coef, priors.beta, beta, strict=True))
    A = priors.random_centering
    sds = np.sqrt(np.diag(A @ reml.D @ A.T))
    moved = bool(np.any(priors.random_center))
    for term, prior, value in zip(priors.term, priors.sd_b, sds, strict=True):
        named.append((f"sd({term}){AVERAGE if moved and term == INTERCEPT else ''}", prior, value))
    named.append(("sigma", priors.sigma, reml.whitened_sd))
    found = [(name, prior, value) for name, prior, value in named if _drop(prior, float(value)) > DROP]
    if not found:
        return ()
    listing = "; ".join(f"{name} ~ {prior}, REML {value:.4g}" for name, prior, value in found)
    reason = count = ""
    mean, sd = design.X1.mean(axis=0), design.X1.std(axis=0)
    if np.any((sd > 0.0) & (np.abs(mean) > FAR * sd)):
        reason = (
            "This happens when the zero of a covariate is far from the data (a calendar year), because what is said "
            "of an intercept then belongs to a point far outside. "
        )
        count = "count the covariate from a point within the data, for example I(x - 2015) or center(x); or "
    return (
        f"The prior leaves no room for what the data say ({listing}): the posterior is a compromise of the two and "
        f"may be wrong about every parameter, however well the chains agree. {reason}To do: {count}set the priors "
        "named with hl.Priors(...).",
    )


def _drop(prior: Prior, value: float) -> float:
    """How far the log density at the estimate lies below its maximum; 0 where the support has hard ends."""
    match prior:
        case Normal(mean=mean) | StudentT(mean=mean):
            peak = mean
        case Gamma(shape=shape, rate=rate):
            peak = max(shape - 1.0, 1e-6) / rate
        case _:
            peak = 0.0
    highest, here = prior.logpdf(np.array([peak, value]))
    return float(highest - here) if np.isfinite(here) and np.isfinite(highest) else 0.0
