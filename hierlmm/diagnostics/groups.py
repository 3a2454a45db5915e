"""Further groups of a posterior's tree, for ArviZ's functions that compare a posterior with something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hierlmm.bayes.predictive import subject_lines
from hierlmm.diagnostics.loo import log_likelihood_tree
from hierlmm.errors import SpecificationError
from hierlmm.fits.posterior import PosteriorNumbers

SEE = "docs, page 'Posterior fits', section 'The tree'"
USUAL = ("prior", "prior_predictive", "posterior_predictive")


def _prior(fit: PosteriorNumbers, draws: int | None, seed: int | None) -> dict[str, Any]:
    made = fit.prior_predictive(500 if draws is None else draws, seed)
    return {"prior": made["prior"], "prior_predictive": made["prior_predictive"]}


def _posterior_predictive(fit: PosteriorNumbers, draws: int | None, seed: int | None) -> dict[str, Any]:
    return {"posterior_predictive": fit.posterior_predictive(draws, seed)["posterior_predictive"]}


def _mu(fit: PosteriorNumbers, draws: int | None, seed: int | None) -> dict[str, Any]:
    """The posterior with the expected response of every row beside the parameters, for ``az.bayesian_r2``."""
    import xarray as xr

    fit.need_effects("mu", draws=True) if fit.design.term else None
    design = fit.design
    b = fit.draws("b") if design.term else np.empty((*fit.draw_shape, design.n_subjects, 0))
    mu = subject_lines(design, fit.draws("beta"), b)
    if not design.is_gaussian:
        mu = design.family.mean(mu) * design.trials  # refused where categories have no mean
    posterior = fit.datatree["posterior"].to_dataset()
    found = posterior.assign(mu=(("chain", "draw", "obs"), mu)).assign_coords(obs=np.arange(design.n_obs))
    return {"posterior": xr.DataTree(found)}


def _log_likelihood(fit: PosteriorNumbers, draws: int | None, seed: int | None) -> dict[str, Any]:
    return {"log_likelihood": log_likelihood_tree(fit, "observation")["log_likelihood"]}


def _log_likelihood_subject(fit: PosteriorNumbers, draws: int | None, seed: int | None) -> dict[str, Any]:
    return {"log_likelihood_subject": log_likelihood_tree(fit, "subject")["log_likelihood"]}


GROUPS: dict[str, Callable[..., dict[str, Any]]] = {
    "prior": _prior,
    "prior_predictive": _prior,
    "posterior_predictive": _posterior_predictive,
    "mu": _mu,
    "log_likelihood": _log_likelihood,
    "log_likelihood_subject": _log_likelihood_subject,
}


def extend[F: PosteriorNumbers](fit: F, groups: tuple[str, ...], draws: int | None, seed: int | None) -> F:
    """A fit of the same posterior with further groups in its tree; see `PosteriorFit.extend`."""
    import xarray as xr

    wanted = groups or USUAL if fit.priors is not None else groups or USUAL[2:]
    unknown = [name for name in wanted if name not in GROUPS]
    if unknown:
        reason, remedy = "no such group can be added", f"use {', '.join(map(repr, GROUPS))}"
        raise SpecificationError(f"group {unknown[0]!r}", reason, remedy, SEE)
    made: dict[str, Any] = {}
    for maker in dict.fromkeys(GROUPS[name] for name in wanted):
        made |= maker(fit, draws, seed)
    tree = fit.datatree.copy()
    for name, values in made.items():
        tree[name] = xr.DataTree(values.to_dataset())
    return replace(fit, datatree=tree)
