"""Fit one simulated data set, quietly: by REML or ML, or with draws of the collapsed posterior.

What a planned or simulated study is analysed by; optima and draws are looked at, and nothing is printed or warned of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.posterior import Conditional
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.bayes.sample_collapsed import sample_theta
from hierlmm.design.design import Design
from hierlmm.errors import SpecificationError
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.likelihood.estimate import maximise_design

__all__ = ["Sampled", "likelihood_of", "require_collapsed", "sample_posterior"]

FloatArray = NDArray[np.float64]


def likelihood_of(design: Design, *, reml: bool) -> LikelihoodNumbers:
    """Fit by REML or ML without warnings; what went wrong is read off the fit."""
    found = maximise_design(design, reml=reml)
    return LikelihoodNumbers(found.design, found.criterion, found.optimum)


def require_collapsed(priors: ResolvedPriors, what: str) -> None:
    """Refuse priors that only the explicit sampler can handle.

    Raises
    ------
    SpecificationError
    """
    obstacle = why_not_collapsed(priors)
    if obstacle:
        raise SpecificationError(
            f"{what} with {'this D' if priors.common_corr else 'these priors'}",
            f"{obstacle}, so every refit would need the explicit sampler, some seconds each",
            "use estimator='reml', or covariance='unstructured'"
            if priors.common_corr
            else "use Normal priors for fixed effects and HalfNormal, HalfStudentT, HalfCauchy or Gamma for standard "
            "deviations",
            "docs, page 'Calibration'",
        )


class Sampled(NamedTuple):
    """Draws of one posterior.

    ``theta`` (chains, S, m), the number of divergent ones, and what they say of β, σ, D (``natural``), η and b, the
    last only for the draws asked for.
    """

    theta: FloatArray
    diverging: int
    found: Conditional


def sample_posterior(
    design: Design,
    priors: ResolvedPriors,
    rng: np.random.Generator,
    options: Mapping[str, Any],
    *,
    effects_of: NDArray[np.intp] | None = None,
) -> Sampled:
    """Sample the collapsed posterior of a design and recover β, and b for the flat draws ``effects_of``."""
    posterior = posterior_of(design, priors)
    settings = Settings(seed=int(rng.integers(2**32)), cores=1, progressbar=False, **options)
    theta, statistics, _ = sample_theta(posterior, settings)
    flat = theta.reshape(-1, theta.shape[2])
    which, few = ("none", slice(None)) if effects_of is None else ("draws", effects_of)
    found = posterior.conditional(flat, rng, which, few)
    return Sampled(theta, int(statistics["diverging"].sum()), found)
