"""Which way to the posterior: collapsed wherever that is exact, else the explicit hierarchy.

β and b can be integrated out in closed form where β is normal a priori and the priors of D and σ are among those that
`collapsed_kernel` compiles (`why_not_collapsed` names the obstacle). Both ways have the same posterior.
"""

from __future__ import annotations

from typing import Any

from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.conflict import prior_conflicts
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.bayes.record import PosteriorRecord
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.sample_collapsed import RANDOM_EFFECTS, sample_collapsed
from hierlmm.design.design import Design
from hierlmm.design.questions import row_order_messages
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.options import choose

__all__ = ["SAMPLERS", "refuse_fitted_values", "sample_posterior"]

SAMPLERS = ("auto", "collapsed", "explicit")
TARGET_ACCEPT = 0.9


def sample_posterior(
    design: Design,
    priors: ResolvedPriors,
    *,
    sampler: str,
    centered: bool,
    random_effects: str,
    target_accept: float | None,
    **settings: Any,
) -> PosteriorRecord:
    """Sample by the route asked for; the tree's ``attrs["sampler"]`` and ``attrs["why"]`` say which it was and why.

    Further settings are those of `Settings`.

    Raises
    ------
    SpecificationError
        If ``sampler="collapsed"`` and a prior rules it out.
    """
    choose("sampler", sampler, SAMPLERS)
    choose("random_effects", random_effects, RANDOM_EFFECTS)
    obstacle = why_not_collapsed(priors)
    refuse_fitted_values(design)
    if sampler == "collapsed" and obstacle:
        reason, remedy = obstacle, "use sampler='explicit' or 'auto'; no prior changes this"
        if not priors.common_corr:
            reason += ", so the coefficients or variances cannot be integrated out in closed form"
            remedy = "use sampler='explicit' (or 'auto'), or a Normal prior for fixed effects and HalfNormal, "
            remedy += "HalfStudentT, HalfCauchy or Gamma for standard deviations"
        raise SpecificationError("sampler='collapsed'", reason, remedy, "docs, page 'Estimators'")
    if sampler == "auto":
        sampler = "explicit" if obstacle or centered else "collapsed"
    if not design.term:
        random_effects = "auto" if sampler == "explicit" else "none"
    _refuse_ignored(sampler, centered, random_effects)
    settings["target_accept"] = TARGET_ACCEPT if target_accept is None else target_accept
    notes = (*prior_conflicts(design, priors), *row_order_messages(design))
    if sampler == "collapsed":
        return sample_collapsed(design, priors, random_effects=random_effects, notes=notes, **settings)
    return sample_explicit(design, priors, centered=centered, why=obstacle, notes=notes, **settings)


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
