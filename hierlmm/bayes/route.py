"""Which way to the posterior: collapsed, or if asked for the explicit hierarchy.

b can always be integrated out, β where it is normal a priori. Where the priors of D and σ are among those that
`collapsed_kernel` compiles, the sampler meets that density; where they are not (`why_not_collapsed` names the
obstacle), it meets the same marginal likelihood in PyMC, beside whatever priors there are. All ways have the same
posterior.

`prior_conflicts` tells whether the priors leave room for what the likelihood says. A prior conflicts with the data
when the REML estimate lies so far out that the prior's log density has dropped by more than `DROP` from its maximum
(for a normal prior, 3.5 standard deviations). The posterior is then a compromise that the draws themselves cannot
show: they converge to it. Where the prior of a random intercept is not stated at the average covariates (random
effects that are not correlated, priors that were chosen), a covariate whose zero is far from the data, such as a
calendar year, is the usual cause: the spread of intercepts then belongs to a point nobody has seen.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.collapsed_factors import evaluation_seconds
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import Gamma, Normal, StudentT
from hierlmm.bayes.generalised_model import why_not_compiled
from hierlmm.bayes.generalised_whitening import why_not_whitened
from hierlmm.bayes.marginal_draws import sample_marginalized
from hierlmm.bayes.record import PosteriorRecord
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.sample_collapsed import RANDOM_EFFECTS, sample_collapsed, sample_compiled
from hierlmm.bayes.sample_generalised import sample_joint, sample_laplace
from hierlmm.design.bound import distance_notes
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL
from hierlmm.design.questions import row_order_messages
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.options import choose

SAMPLERS = ("auto", "collapsed", "explicit")
GENERALISED_SAMPLERS = ("auto", "laplace", "explicit")
TUNE = 1000
TARGET_ACCEPT, GENERALISED_TARGET = 0.9, 0.95
STEPS, PATIENCE = 5.0, 3600.0
"""Several grouping factors: evaluations of the collapsed density a draw, and seconds that all of them may take."""
FACTOR_TARGET = 0.8
"""Several grouping factors, as many effective draws of few parameters by fewer steps, which are dear."""
MANY, MANY_TARGET = 2000, 0.65
"""From so many random effects on, where steps are short for their number's sake alone, long trajectories cost more than
they give; the optimum there is 0.65 (Beskos et al. 2013, Bernoulli 19:1501)."""


def sample_posterior(
    design: Design,
    priors: ResolvedPriors,
    *,
    sampler: str,
    centered: bool,
    random_effects: str,
    target_accept: float | None,
    tune: int | None,
    **settings: Any,
) -> PosteriorRecord:
    """Sample by the route asked for; the tree's ``attrs["sampler"]`` and ``attrs["why"]`` say which it was and why.

    Further settings are those of `Settings`.

    Raises
    ------
    SpecificationError
        If an option is given that the route would ignore.
    """
    choose("random_effects", random_effects, RANDOM_EFFECTS)
    settings["tune"] = TUNE if tune is None else tune
    if not design.is_gaussian:
        effects = sum(len(own.group.labels) * own.Z.shape[1] for own in design.random)
        default = GENERALISED_TARGET if effects < MANY else MANY_TARGET
        settings["target_accept"] = default if target_accept is None else target_accept
        return _sample_generalised(design, priors, sampler, centered, random_effects, settings)
    choose("sampler", sampler, SAMPLERS)
    refuse_fitted_values(design)
    asked = sampler
    if sampler == "auto":
        sampler = "explicit" if centered else "collapsed"
    if not design.term:
        random_effects = "auto" if sampler == "explicit" else "none"
    _refuse_ignored(sampler, centered, random_effects)
    why = ""
    if design.has_several_factors:
        sampler, why = _route_of_factors(design, priors, asked, settings)
    default = FACTOR_TARGET if design.has_several_factors and sampler == "collapsed" else TARGET_ACCEPT
    settings["target_accept"] = default if target_accept is None else target_accept
    notes = (*prior_conflicts(design, priors), *row_order_messages(design), *distance_notes(design))
    if sampler == "explicit":
        return sample_explicit(design, priors, centered=centered, notes=notes, why=why, **settings)
    if not design.has_several_factors and (obstacle := why_not_collapsed(priors)):
        settings["way"] = partial(sample_marginalized, why=obstacle)
    else:
        given = {"tune": tune, "target_accept": target_accept}
        settings["way"] = partial(sample_compiled, why=why, free=[name for name in given if given[name] is None])
    return sample_collapsed(design, priors, random_effects=random_effects, notes=notes, **settings)


def _route_of_factors(design: Design, priors: ResolvedPriors, asked: str, settings: dict[str, Any]) -> tuple[str, str]:
    """Several grouping factors: collapsed where priors allow it and an evaluation is cheap; and why."""
    if asked == "explicit":
        return asked, "as asked for"
    if obstacle := why_not_collapsed(priors):
        if asked == "collapsed":
            remedy = "leave sampler out, which samples the explicit hierarchy then, or use another prior"
            raise SpecificationError("sampler='collapsed' with several grouping factors", obstacle, remedy, MULTILEVEL)
        return "explicit", obstacle
    seconds = evaluation_seconds(design)
    at_once = min(settings["chains"], os.cpu_count() or 1)
    expected = seconds * STEPS * settings["chains"] * (settings["draws"] + settings["tune"]) / at_once
    taken = f"{seconds:.2g} s" if seconds > 0.1 else f"{1000.0 * seconds:.2g} ms"
    cost = f"one evaluation of the collapsed density takes {taken}"
    if asked == "auto" and expected > PATIENCE:
        return "explicit", f"{cost}, all of them would take about {expected / 3600:.1f} hours"
    return "collapsed", cost


def _sample_generalised(
    design: Design, priors: ResolvedPriors, sampler: str, centered: bool, random_effects: str, settings: dict[str, Any]
) -> PosteriorRecord:
    """Sample another family: exactly with compiled code, by Laplace's method, or on the PyMC model."""
    if sampler == "collapsed":
        reason = "random effects can be integrated out exactly only beside a Gaussian response"
        remedy = "leave sampler out (exact), or use sampler='laplace', an approximation that says how good it is"
        raise SpecificationError(f"sampler='collapsed' with {design.family}", reason, remedy, "docs, page 'Families'")
    choose("sampler", sampler, GENERALISED_SAMPLERS)
    obstacle = why_not_compiled(priors)
    if design.has_several_factors:
        obstacle = obstacle or why_not_whitened(design)
        if sampler == "laplace":
            reason = "how far it is from the posterior is said by quadrature, which has too many dimensions here"
            remedy = "leave sampler out, which is exact"
            raise SpecificationError("sampler='laplace' with several grouping factors", reason, remedy, MULTILEVEL)
    if sampler == "explicit" or centered or (obstacle and sampler == "auto"):
        _refuse_ignored("explicit" if sampler != "laplace" else sampler, centered, random_effects)
        why = "as asked for" if sampler == "explicit" else obstacle or ""
        notes = family_conflicts(design, priors)
        return sample_explicit(design, priors, centered=centered, notes=notes, why=why, **settings)
    if obstacle:
        remedy = "use another prior, or sampler='explicit'"
        raise SpecificationError("sampler='laplace'", obstacle, remedy, "docs, page 'Families'")
    sample = sample_laplace if sampler == "laplace" else sample_joint
    return sample(design, priors, random_effects=random_effects, notes=family_conflicts(design, priors), **settings)


def refuse_fitted_values(design: Design) -> None:
    """Refuse a residual variance that depends on the fitted value, which is a parameter here.

    Raises
    ------
    NotAvailableError
    """
    variance = design.residual_variance
    if variance is not None and variance.variable is None:
        name = type(variance).__name__
        raise NotAvailableError(
            f"{name}() of the fitted value, by NUTS",
            "the fitted value is itself a parameter there, and the random effects can no longer be integrated out",
            f"fit by REML or ML; or let the variance depend on a column: {name}('time'), or on the fitted values of an "
            "earlier fit as a column",
            "docs, page 'Residual structures'",
        )


def _refuse_ignored(sampler: str, centered: bool, random_effects: str) -> None:
    """An option that the route would ignore is refused."""
    if sampler == "collapsed" and centered:
        received = "centered=True with sampler='collapsed'"
        reason = "the collapsed route has no random effects to centre: they are integrated out"
        raise SpecificationError(received, reason, "leave centered out, or use sampler='explicit'")
    if sampler == "explicit" and random_effects not in ("auto", "draws"):
        reason = "there the random effects are sampled with everything else, so their draws exist and are kept"
        remedy = "leave random_effects out, or use the collapsed route (sampler='auto')"
        raise SpecificationError(f"random_effects={random_effects!r} on the explicit route", reason, remedy)


DROP = 6.0
FLAT_SHARE = 1e-3
"""Share of a dispersion parameter in a direction in which the likelihood is flat, from which it is not estimated."""
FAR = 10.0
"""Standard deviations of a level-1 covariate from its mean to its zero, beyond which the zero is far from the data."""


def prior_conflicts(design: Design, priors: ResolvedPriors) -> tuple[str, ...]:
    """Name the priors that the REML estimates lie far outside of, and say what to do."""
    reml = maximise_design(design, reml=True).solution
    beta = priors.centering @ reml.beta
    named = list(zip(priors.stated_coef, priors.beta, beta, strict=True))
    A = priors.random_centering
    sds = np.sqrt(np.diag(A @ reml.D @ A.T))
    named += _named_sds(priors, sds)
    named.append(("sigma", priors.sigma, reml.whitened_sd))
    return _conflicts(design, named, "REML")


def family_conflicts(design: Design, priors: ResolvedPriors) -> tuple[str, ...]:
    """The same of another family, by maximum likelihood with Laplace's method.

    What the likelihood leaves open (a separated column, a dispersion at the end of its range) contradicts no prior.
    """
    found = maximise_generalised(design)
    if not found.converged:
        return ()
    own, (m, p) = found.solution, (found.criterion.structure.n_parameters, len(design.coef))
    J = np.zeros((p, len(found.optimum.lam)))
    J[:, m : m + p] = priors.centering @ np.linalg.inv(found.criterion.scaling.Bx)
    known = np.isfinite(np.diag(found.transformed(J)))
    beta = np.where(known, priors.centering @ own.beta, np.nan)
    A = priors.random_centering
    sds = np.sqrt(np.maximum(np.diag(A @ own.D @ A.T), 0.0))
    steps = np.where(np.any(np.abs(found.flat[m + p :]) > FLAT_SHARE, axis=1), np.nan, np.exp(own.psi))
    named = [*zip(priors.stated_coef, priors.beta, beta, strict=True)]
    named += zip(priors.dispersion_names, priors.dispersion, steps, strict=True)
    return _conflicts(design, [*named, *_named_sds(priors, sds)], "ML")


def _named_sds(priors: ResolvedPriors, sds: FloatArray) -> list[tuple[str, Prior, Any]]:
    return list(zip(priors.stated_sd, priors.sd_b, sds, strict=True))


def _conflicts(design: Design, named: list[tuple[str, Prior, Any]], by: str) -> tuple[str, ...]:
    """What is said of the priors that leave no room for an estimate; NaN says that there is none."""
    found = [own for own in named if np.isfinite(own[2]) and _drop(own[1], float(own[2])) > DROP]
    if not found:
        return ()
    listing = "; ".join(f"{name} ~ {prior}, {by} {value:.4g}" for name, prior, value in found)
    reason = count = ""
    X1 = design.like_all().X1
    mean, sd = X1.mean(axis=0), X1.std(axis=0)
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
