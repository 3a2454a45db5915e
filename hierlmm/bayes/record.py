"""What an estimator returns: a frozen record of a posterior, its draws under the contract's names and dimensions.

`hierlmm.fit.make.fit_of` makes a fit of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hierlmm._version import __version__
from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import assess_convergence
from hierlmm.bayes.family_draws import psi_draws, rows_log_likelihood
from hierlmm.bayes.family_misfit import misfit
from hierlmm.bayes.log_prior import log_prior
from hierlmm.bayes.predictive import (
    conditional_log_likelihood,
    effect_lines,
    normal_log_density,
    residual_sd_ratios,
)
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import constant_data, dataset, effects_names, icc, observed_data, response_name
from hierlmm.design.design import Design, level2_prediction
from hierlmm.errors import warn

SMALL = 5_000_000
"""Largest number of values (40 MB) for which ``subject_coef`` and the pointwise log-likelihood are stored."""


@dataclass(frozen=True, eq=False)
class PosteriorRecord:
    """A sampled posterior.

    Attributes
    ----------
    design : Design
    datatree : xarray.DataTree
        Draws, sampler statistics and data; ``attrs`` has the estimator, the route, and the sampler's settings.
    priors : ResolvedPriors or None
    estimator : str
        ``"NUTS"`` or ``"Bambi"``.
    warnings : tuple of str
        What looks wrong about convergence, and what else must be known before the posterior is used.
    """

    design: Design
    datatree: Any
    priors: ResolvedPriors | None
    estimator: str
    warnings: tuple[str, ...] = ()


def posterior_record(
    design: Design,
    priors: ResolvedPriors | None,
    draws: Mapping[str, FloatArray],
    sample_stats: Any,
    attrs: dict[str, Any],
    *,
    log_likelihood: bool | None = None,
    groups: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> PosteriorRecord:
    """Put draws into a DataTree of the contract's names and dimensions, and check convergence.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors or None
    draws : mapping of str to (chain, draw, ...)
        ``beta``, ``sd_b``, ``corr_b``, ``D``, ``sigma`` (or the dispersion of a family) and, unless only summarised,
        ``b``; with several grouping factors one of each, ``b_batch``.
    sample_stats : xarray.Dataset or None
    attrs : dict
        At least ``estimator`` and ``sampler``.
    log_likelihood : bool, optional
        As in `sample_explicit`; needs ``b``.
    groups : mapping of str to xarray.Dataset, optional
        Further groups of the tree.
    notes : tuple of str
        What else must be known before the fit is used.
    """
    import xarray as xr

    draws = dict(draws)
    C, S = next(iter(draws.values())).shape[:2]
    beta = draws.get("beta", np.empty((C, S, 0)))
    if design.is_gaussian:
        draws |= icc(design, draws)
    if "b" in draws and C * S * design.n_subjects * len(design.level1) <= SMALL:
        own = level2_prediction(design, beta)
        own[..., design.own_level1] += draws["b"]
        draws["subject_coef"] = own
    tree = {"posterior": dataset(design, draws)}
    if sample_stats is not None:
        tree["sample_stats"] = sample_stats
    small = C * S * design.n_obs <= SMALL
    independent = design.residual is None  # given b alone, correlated measurements have no density one by one
    if (
        all(name in draws for name in effects_names(design))
        and independent
        and (small if log_likelihood is None else log_likelihood)
    ):
        tree["log_likelihood"] = dataset(design, {response_name(design): _by_row(design, draws, beta, groups or {})})
    tree["observed_data"] = observed_data(design)
    tree["constant_data"] = constant_data(design)
    tree |= dict(groups or {})
    if priors is not None:
        eta = tree["residual"]["unconstrained"].to_numpy() if "residual" in tree else np.empty((C, S, 0))
        tree["log_prior"] = log_prior(design, priors, draws, eta)
    datatree = xr.DataTree.from_dict(tree)
    formula = design.hierarchy.formula
    datatree.attrs |= {**attrs, "formula": formula, "library": "hierlmm", "version": __version__}
    datatree["posterior"].attrs |= {"sample_dims": ["chain", "draw"], "inference_library": "nutpie"}
    notes = (*notes, *misfit(design, draws, groups or {}))
    verdict = assess_convergence(datatree)
    for message in (*verdict.messages, *notes):
        warn(message)
    return PosteriorRecord(design, datatree, priors, str(attrs["estimator"]), verdict.messages + notes)


def _by_row(design: Design, draws: Mapping[str, FloatArray], beta: FloatArray, groups: Mapping[str, Any]) -> FloatArray:
    """Log-likelihood of every row given the random effects, (chain, draw, N)."""
    if not design.is_gaussian:
        return rows_log_likelihood(design, effect_lines(design, beta, draws), psi_draws(design, draws))
    sigma = draws["sigma"]
    if design.has_several_factors:
        return normal_log_density(design.y, effect_lines(design, beta, draws), sigma)
    if design.residual_variance is not None:
        sigma = sigma[..., None] * residual_sd_ratios(design, groups["residual"]["unconstrained"].to_numpy())
    return conditional_log_likelihood(design, beta, draws["b"], sigma)


def residual_group(names: Sequence[str], eta: FloatArray) -> Any:
    """Group ``residual``: the unconstrained residual parameters (chain, draw, parameter)."""
    import xarray as xr

    coords = {"chain": np.arange(eta.shape[0]), "draw": np.arange(eta.shape[1]), "parameter": list(names)}
    return xr.Dataset({"unconstrained": (["chain", "draw", "parameter"], eta)}, coords=coords)
