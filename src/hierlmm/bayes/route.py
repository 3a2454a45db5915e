"""Which way to the posterior: collapsed wherever that is exact, else the explicit hierarchy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.sample_collapsed import RANDOM_EFFECTS, sample_collapsed
from hierlmm.design import Design
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import choose

if TYPE_CHECKING:
    from hierlmm.fits.posterior import PosteriorFit

__all__ = ["SAMPLERS", "sample_posterior"]

SAMPLERS = ("auto", "collapsed", "explicit")
TARGET_ACCEPT = {"collapsed": 0.8, "explicit": 0.9}


def sample_posterior(
    design: Design,
    priors: ResolvedPriors,
    *,
    sampler: str,
    centered: bool,
    draws: int,
    tune: int,
    chains: int,
    seed: int | None,
    target_accept: float | None,
    progressbar: bool,
    random_effects: str,
) -> PosteriorFit:
    """Sample by the route asked for; the fit's ``attrs["sampler"]`` and ``attrs["why"]`` say which it was and why.

    Raises
    ------
    SpecificationError
        If ``sampler="collapsed"`` and a prior rules it out.
    """
    choose("sampler", sampler, SAMPLERS)
    choose("random_effects", random_effects, RANDOM_EFFECTS)
    obstacle = why_not_collapsed(priors)
    if sampler == "collapsed" and obstacle:
        raise SpecificationError(
            "sampler='collapsed'",
            f"{obstacle}, so the coefficients or variances cannot be integrated out in closed form",
            "use sampler='explicit' (or 'auto'), or a Normal prior for fixed effects and HalfNormal, HalfStudentT, "
            "HalfCauchy, Exponential or Gamma for standard deviations",
            "docs, page 'Estimators'",
        )
    if sampler == "auto":
        sampler = "explicit" if obstacle or centered else "collapsed"
    accept = TARGET_ACCEPT[sampler] if target_accept is None else target_accept
    if sampler == "collapsed":
        return sample_collapsed(
            design,
            priors,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            target_accept=accept,
            progressbar=progressbar,
            random_effects=random_effects,
        )
    return sample_explicit(
        design,
        priors,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        centered=centered,
        target_accept=accept,
        progressbar=progressbar,
        why=obstacle,
    )
