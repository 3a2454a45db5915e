"""NUTS on the explicit hierarchy: compile and sample."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hierlmm.bayes.explicit import build_pymc_model, draws_of_model
from hierlmm.bayes.explicit_residual import residual_draws
from hierlmm.bayes.priors import Priors, ResolvedPriors, resolve_priors
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.design.design import Design
from hierlmm.errors import SpecificationError
from hierlmm.notice import interactive

__all__ = ["check_settings", "refuse_interrupted", "sample_explicit", "whole_seed"]


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
) -> PosteriorRecord:
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
    PosteriorRecord

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
    return posterior_record(
        design,
        resolved,
        posterior,
        tree["sample_stats"].to_dataset(),
        attrs,
        log_likelihood=log_likelihood,
        groups=groups,
        notes=notes,
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
    """Refuse numbers of draws or chains below 1, and a target outside (0, 1)."""
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
