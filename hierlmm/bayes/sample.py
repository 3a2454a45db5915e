"""NUTS on the explicit hierarchy: compile, sample, put the draws under the contract's names, check convergence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.convergence import assess_convergence
from hierlmm.bayes.explicit import build_pymc_model, draws_of_model
from hierlmm.bayes.explicit_residual import residual_draws
from hierlmm.bayes.predictive import conditional_log_likelihood, residual_sd_ratios
from hierlmm.bayes.priors import Priors, ResolvedPriors, resolve_priors
from hierlmm.design.design import Design, level2_prediction
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import SpecificationError, warn
from hierlmm.likelihood.residual_rows import ResidualRows, residual_names, residual_rows
from hierlmm.notice import interactive

if TYPE_CHECKING:
    from hierlmm.fits.posterior import PosteriorFit

__all__ = [
    "SMALL",
    "VARIABLE_DIMS",
    "make_posterior_fit",
    "model_coords",
    "refuse_interrupted",
    "residual_group",
    "sample_explicit",
    "whole_seed",
]

FloatArray = NDArray[np.float64]
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


def sample_explicit(
    design: Design,
    priors: ResolvedPriors | Priors | str | None = None,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    centered: bool = False,
    target_accept: float = 0.9,
    max_treedepth: int = 10,
    cores: int | None = None,
    progressbar: bool = True,
    log_likelihood: bool | None = None,
    why: str | None = None,
    notes: tuple[str, ...] = (),
) -> PosteriorFit:
    """Sample the posterior of the explicit hierarchy with NUTS (nutpie).

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors, Priors, "bambi" or None
    draws, tune, chains : int
        Draws kept and warm-up draws of each chain, and the number of chains.
    seed : int, optional
        Drawn and recorded in the result's ``attrs`` if not given.
    centered : bool
        See `build_pymc_model`.
    target_accept : float
        Between 0 and 1; larger is slower and safer.
    max_treedepth : int
        A trajectory has at most ``2**max_treedepth`` steps.
    cores : int, optional
        Chains that run at the same time; all by default.
    progressbar : bool
        Show progress, in a terminal or notebook.
    log_likelihood : bool, optional
        Whether to store the pointwise conditional log-likelihood; by default if it has at most 5 million values.
    why : str, optional
        Why this route was taken, for the record.
    notes : tuple of str
        What else must be known before the fit is used.

    Returns
    -------
    PosteriorFit

    Raises
    ------
    SpecificationError
        If a setting is out of range.

    Warns
    -----
    FitWarning
        For everything about convergence that looks wrong.
    """
    check_settings(draws=draws, tune=tune, chains=chains, target_accept=target_accept)
    resolved = resolve_priors(priors, design)
    seed = whole_seed(seed)
    started = time.perf_counter()
    model = build_pymc_model(design, resolved, centered=centered)
    import nutpie

    compiled = nutpie.compile_pymc_model(model, var_names=[v.name for v in model.free_RVs])
    ready = time.perf_counter()
    tree = nutpie.sample(
        compiled,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=cores,
        seed=seed,
        save_warmup=False,
        progress_bar=progressbar and interactive(),
        adaptation="draw_diag",  # twice the effective draws of the default here for the smallest SDs
        target_accept=target_accept,
        maxdepth=max_treedepth,
    )
    refuse_interrupted(tree, draws)
    done = time.perf_counter()
    raw = {str(name): values.to_numpy() for name, values in tree["posterior"].to_dataset().data_vars.items()}
    attrs = {
        "estimator": "NUTS",
        "sampler": "explicit",
        "parametrization": "centred" if centered else "non-centred",
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "target_accept": target_accept,
        "seed": seed,
        "compile_seconds": round(ready - started, 3),
        "sampling_seconds": round(done - ready, 3),
    }
    if why:
        attrs["why"] = why
    posterior = draws_of_model(design, resolved, raw)
    groups = {"residual": residual_draws(design, raw)[1]} if design.has_residual_structure else None
    return make_posterior_fit(
        design,
        resolved,
        posterior,
        tree["sample_stats"].to_dataset(),
        attrs,
        log_likelihood=log_likelihood,
        groups=groups,
        notes=notes,
    )


def make_posterior_fit(
    design: Design,
    priors: ResolvedPriors | None,
    draws: Mapping[str, FloatArray],
    sample_stats: Any,
    attrs: dict[str, Any],
    *,
    log_likelihood: bool | None = None,
    groups: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> PosteriorFit:
    """Put draws into a DataTree of the contract's names and dimensions, check convergence, and make the fit.

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

    from hierlmm._version import __version__
    from hierlmm.fits.posterior import PosteriorFit

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
    kind = PosteriorFit
    if not design.term:
        from hierlmm.fits.marginal import MarginalPosterior

        kind = MarginalPosterior
    return kind(design, datatree, priors, str(attrs["estimator"]), verdict.messages + notes)


def residual_group(rows: ResidualRows, eta: FloatArray) -> Any:
    """Group ``residual``: the unconstrained residual parameters (chain, draw, parameter)."""
    import xarray as xr

    names = [p.name for p in rows.parameters]
    coords = {"chain": np.arange(eta.shape[0]), "draw": np.arange(eta.shape[1]), "parameter": names}
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


def refuse_interrupted(tree: Any, draws: int) -> None:
    """Raise the KeyboardInterrupt that nutpie turns into a shorter posterior."""
    if tree["posterior"].sizes["draw"] < draws:
        raise KeyboardInterrupt


def whole_seed(seed: Any) -> int:
    """Seed as a whole number; a random one for None, one drawn from a numpy generator.

    Raises
    ------
    SpecificationError
        If it is no whole number between 0 and 2^63.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**32))
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**63:
        raise SpecificationError(
            f"seed={seed!r}", "a seed is a whole number from 0 to 2^63 - 1", "use for example seed=1, or leave it out"
        )
    return int(seed)


def check_settings(*, draws: int, tune: int, chains: int, target_accept: float) -> None:
    for name, value, least in (("draws", draws, 1), ("tune", tune, 1), ("chains", chains, 1)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise SpecificationError(
                f"{name}={value!r}",
                f"{name} is a whole number, at least {least}",
                f"use for example {name}={least or 500}",
            )
    if not 0 < target_accept < 1:
        raise SpecificationError(
            f"target_accept={target_accept!r}",
            "it is a probability strictly between 0 and 1",
            "use 0.9, or 0.99 against divergences",
        )
