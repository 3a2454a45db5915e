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
from hierlmm.bayes.predictive import conditional_log_likelihood, residual_sd_ratios
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design, level2_prediction
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import warn
from hierlmm.likelihood.residual_rows import residual_names, residual_rows

SMALL = 5_000_000
"""Largest number of values (40 MB) for which ``subject_coef`` and the pointwise log-likelihood are stored."""

VARIABLE_DIMS: dict[str, list[str]] = {
    "beta": ["coef"],
    "b": ["subject", "term"],
    "sd_b": ["term"],
    "corr_b": ["term", "term_bis"],
    "D": ["term", "term_bis"],
    "sigma": [],
    "icc": [],
    "subject_coef": ["subject", "level1"],
    "y": ["obs"],
    "residual_correlation": ["residual_correlation_parameter"],
    "residual_variance": ["residual_variance_parameter"],
}


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
        ``beta``, ``sd_b``, ``corr_b``, ``D``, ``sigma`` and, unless only summarised, ``b``.
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
    C, S = draws["sigma"].shape
    beta = draws.get("beta", np.empty((C, S, 0)))
    if INTERCEPT in design.term:
        k = design.term.index(INTERCEPT)
        draws["icc"] = draws["D"][..., k, k] / (draws["D"][..., k, k] + draws["sigma"] ** 2)
    if "b" in draws and C * S * design.n_subjects * len(design.level1) <= SMALL:
        own = level2_prediction(design, beta)
        own[..., design.term_level1] += draws["b"]
        draws["subject_coef"] = own
    tree = {"posterior": dataset(design, draws)}
    if sample_stats is not None:
        tree["sample_stats"] = sample_stats
    small = C * S * design.n_obs <= SMALL
    independent = design.residual is None  # given b alone, correlated measurements have no density one by one
    if "b" in draws and independent and (small if log_likelihood is None else log_likelihood):
        sigma = draws["sigma"]
        if design.residual_variance is not None:
            sigma = sigma[..., None] * residual_sd_ratios(
                design, (groups or {})["residual"]["unconstrained"].to_numpy()
            )
        ll = conditional_log_likelihood(design, beta, draws["b"], sigma)
        tree["log_likelihood"] = dataset(design, {"y": ll})
    tree["observed_data"] = xr.Dataset({"y": ("obs", design.y)}, coords={"obs": np.arange(design.n_obs)})
    tree["constant_data"] = _constant_data(design)
    tree |= dict(groups or {})
    datatree = xr.DataTree.from_dict(tree)
    formula = design.hierarchy.formula
    datatree.attrs |= {**attrs, "formula": formula, "library": "hierlmm", "version": __version__}
    datatree["posterior"].attrs |= {"sample_dims": ["chain", "draw"], "inference_library": "nutpie"}
    verdict = assess_convergence(datatree)
    for message in (*verdict.messages, *notes):
        warn(message)
    return PosteriorRecord(design, datatree, priors, str(attrs["estimator"]), verdict.messages + notes)


def residual_group(names: Sequence[str], eta: FloatArray) -> Any:
    """Group ``residual``: the unconstrained residual parameters (chain, draw, parameter)."""
    import xarray as xr

    coords = {"chain": np.arange(eta.shape[0]), "draw": np.arange(eta.shape[1]), "parameter": list(names)}
    return xr.Dataset({"unconstrained": (["chain", "draw", "parameter"], eta)}, coords=coords)


def model_coords(design: Design) -> dict[str, Any]:
    """Coordinates of every dimension of the contract."""
    names = residual_names(residual_rows(design)) if design.has_residual_structure else {}
    return {
        **{f"{variable}_parameter": np.array(own, dtype=str) for variable, own in names.items() if own},
        "coef": np.array(design.coef, dtype=str),
        "term": np.array(design.term, dtype=str),
        "term_bis": np.array(design.term, dtype=str),
        "level1": np.array(design.level1, dtype=str),
        "subject": design.subjects.to_numpy(),
        "obs": np.arange(design.n_obs),
    }


def dataset(design: Design, draws: Mapping[str, FloatArray]) -> Any:
    """Dataset of draws (chain, draw, ...) under the contract's names."""
    import xarray as xr

    coords = model_coords(design)
    first = next(iter(draws.values()))
    kept = {name: (["chain", "draw", *VARIABLE_DIMS[name]], values) for name, values in draws.items()}
    used = {d for dims, _ in kept.values() for d in dims}
    sample = {"chain": np.arange(first.shape[0]), "draw": np.arange(first.shape[1])}
    return xr.Dataset(kept, coords={**sample, **{k: v for k, v in coords.items() if k in used}})


def _constant_data(design: Design) -> Any:
    import xarray as xr

    coords = model_coords(design)
    return xr.Dataset(
        {
            "X": (("obs", "coef"), design.X),
            "Z": (("obs", "term"), design.Z),
            "offset": ("obs", design.offset),
            "subject_index": ("obs", design.subject_index),
        },
        coords={k: coords[k] for k in ("obs", "coef", "term", "subject")},
    )
