"""Whether the priors leave room for what the likelihood says.

A prior conflicts with the data when the REML estimate lies so far out that the prior's log density has dropped by more
than `DROP` from its maximum (for a normal prior, 3.5 standard deviations). The posterior is then a compromise that the
draws themselves cannot show: they converge to it. The usual cause is a covariate whose zero is far from the data, such
as a calendar year, because an intercept, and the spread of intercepts, then belong to a point nobody has seen.
"""

from __future__ import annotations

import numpy as np

from hierlmm.bayes.distributions import Gamma, Prior
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.design import Design
from hierlmm.fits.likelihood import LikelihoodFit
from hierlmm.likelihood.estimate import maximise_design

__all__ = ["prior_conflicts"]

DROP = 6.0


def prior_conflicts(design: Design, priors: ResolvedPriors) -> tuple[str, ...]:
    """Name the priors that the REML estimates lie far outside of, and say what to do."""
    reml = LikelihoodFit(*maximise_design(design, reml=True))
    beta = reml.beta.to_numpy().copy()
    if priors.intercept is not None:
        beta[priors.intercept] += priors.center @ beta
    named = [(name, prior, value) for name, prior, value in zip(priors.coef, priors.beta, beta, strict=True)]
    sds = np.sqrt(np.diag(reml._D_values))
    named += [(f"sd({t})", p, v) for t, p, v in zip(priors.term, priors.sd_b, sds, strict=True)]
    named.append(("sigma", priors.sigma, reml._whitened_sd))
    found = [(name, prior, value) for name, prior, value in named if _drop(prior, float(value)) > DROP]
    if not found:
        return ()
    listing = "; ".join(f"{name} ~ {prior}, REML {value:.4g}" for name, prior, value in found)
    return (
        f"The prior leaves no room for what the data say ({listing}): the posterior is a compromise of the two and "
        "may be wrong about every parameter, however well the chains agree. This happens when the zero of a covariate "
        "is far from the data (a calendar year), because intercepts then belong to a point far outside. To do: count "
        "the covariate from a point within the data, for example I(x - 2015) or center(x); or set the priors named "
        "with hl.Priors(...).",
    )


def _drop(prior: Prior, value: float) -> float:
    """How far the log density at the estimate lies below its maximum; 0 where the support has hard ends."""
    peak = getattr(prior, "mean", 0.0) if not prior.is_positive else 0.0
    if isinstance(prior, Gamma):
        peak = max(prior.shape - 1.0, 1e-6) / prior.rate
    highest, here = prior.logpdf(np.array([peak, value]))
    return float(highest - here) if np.isfinite(here) and np.isfinite(highest) else 0.0
