"""NUTS over θ through nutpie, with the compiled density as a C function, or as a Python function if need be.

The C route builds the object that ``nutpie.compile_pymc_model`` returns, with our own compiled functions in the place
of PyMC's; chains then never take Python's lock. nutpie gives that class no promise of stability, so if it cannot be
built the documented ``from_pyfunc`` is used: the same draws, more slowly, and ``attrs["route"]`` says so.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.collapsed import CollapsedPosterior, collapsed_posterior
from hierlmm.bayes.collapsed_kernel import compiled_density, compiled_expand, evaluate
from hierlmm.bayes.collapsed_residual import ResidualPosterior, residual_posterior
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.bayes.record import PosteriorRecord, posterior_record, residual_group
from hierlmm.bayes.recover import Natural, draw_random_effects, recover_beta, summarise_random_effects
from hierlmm.bayes.recover_residual import recover_residual
from hierlmm.bayes.sample import check_settings, refuse_interrupted, whole_seed
from hierlmm.bayes.structured_kernel import compiled_structured
from hierlmm.design.design import Design
from hierlmm.likelihood.residual_rows import residual_names
from hierlmm.notice import interactive, notice_if_slow

__all__ = ["RANDOM_EFFECTS", "mode_notes", "sample_collapsed", "sample_theta"]

FloatArray = NDArray[np.float64]

RANDOM_EFFECTS = ("auto", "draws", "summary", "none")
DRAWS_LIMIT = 10_000_000
"""Largest number of values of b (80 MB) for which ``random_effects="auto"`` keeps draws."""


def sample_collapsed(
    design: Design,
    priors: ResolvedPriors,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    target_accept: float = 0.9,
    cores: int | None = None,
    progressbar: bool = True,
    random_effects: str = "auto",
    notes: tuple[str, ...] = (),
) -> PosteriorRecord:
    """Sample the collapsed posterior, then draw β and b exactly.

    Parameters
    ----------
    design, priors
        The model; `why_not_collapsed` must be None for these priors.
    draws, tune, chains, seed, target_accept, cores, progressbar
        As in `sample_explicit`.
    random_effects : {"auto", "draws", "summary", "none"}
        Keep a draw of b for every draw of θ; or its exact posterior mean and SD (Rao-Blackwell); or neither.
        ``"auto"`` keeps draws up to 10 million values.
    notes : tuple of str
        What else must be known before the fit is used.

    Returns
    -------
    PosteriorRecord
    """
    check_settings(draws=draws, tune=tune, chains=chains, target_accept=target_accept)
    seed = whole_seed(seed)
    started = time.perf_counter()
    structured = design.has_residual_structure or not design.term
    posterior: CollapsedPosterior | ResidualPosterior
    with notice_if_slow():
        posterior = residual_posterior(design, priors) if structured else collapsed_posterior(design, priors)
    theta, statistics, route = sample_theta(
        posterior,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        target_accept=target_accept,
        cores=cores,
        progressbar=progressbar and interactive(),
    )
    notes = (*notes, *mode_notes(posterior, theta))
    sampled = time.perf_counter()
    rng = np.random.default_rng(seed)
    flat = theta.reshape(chains * draws, -1)
    if random_effects == "auto":
        random_effects = "draws" if chains * draws * design.Z.shape[1] * design.n_subjects <= DRAWS_LIMIT else "summary"
    if isinstance(posterior, ResidualPosterior):
        kept, groups = _structured(posterior, flat, rng, random_effects, chains, draws)
    else:
        kept, groups = _plain(posterior, flat, rng, random_effects, chains, draws)
    attrs = {
        "estimator": "NUTS",
        "sampler": "collapsed",
        "route": route,
        "random_effects": random_effects,
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "target_accept": target_accept,
        "seed": seed,
        "sampling_seconds": round(sampled - started, 3),
        "recovery_seconds": round(time.perf_counter() - sampled, 3),
    }
    return posterior_record(design, priors, kept, statistics, attrs, groups=groups, notes=notes)


def _plain(
    posterior: CollapsedPosterior,
    theta: FloatArray,
    rng: np.random.Generator,
    random_effects: str,
    chains: int,
    draws: int,
) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """Draws by name, and further groups of the tree."""
    design = posterior.design
    natural = recover_beta(posterior, theta, rng)
    kept = _by_chain(natural, chains, draws)
    groups: dict[str, Any] = {}
    if random_effects == "draws":
        kept["b"] = draw_random_effects(posterior, natural, rng).reshape(chains, draws, design.n_subjects, -1)
    elif random_effects == "summary":
        groups["random_effects"] = _summary_group(design, *summarise_random_effects(posterior, natural))
    return kept, groups


def _structured(
    posterior: ResidualPosterior,
    theta: FloatArray,
    rng: np.random.Generator,
    random_effects: str,
    chains: int,
    draws: int,
) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """As `_plain`, with a residual structure or without random effects."""
    design, rows = posterior.design, posterior.rows
    found = recover_residual(posterior, theta, rng, random_effects)
    kept = _by_chain(found.natural, chains, draws)
    if not design.term:
        kept = {name: values for name, values in kept.items() if name in ("beta", "sigma")}
    groups: dict[str, Any] = {}
    if found.b is not None:
        kept["b"] = found.b.reshape(chains, draws, design.n_subjects, -1)
    elif found.summary is not None:
        groups["random_effects"] = _summary_group(design, *found.summary)
    if design.has_residual_structure:
        groups["residual"] = residual_group(rows, found.eta.reshape(chains, draws, -1))
        names = residual_names(rows)
        at = 0
        for variable, own in names.items():
            if own:
                part = found.reported[:, at : at + len(own)]
                kept[variable] = part.reshape(chains, draws, len(own))
            at += len(own)
    return kept, groups


def _by_chain(natural: Natural, chains: int, draws: int) -> dict[str, FloatArray]:
    found = {
        "beta": natural.beta,
        "sd_b": natural.sd,
        "corr_b": natural.corr,
        "D": natural.D,
        "sigma": natural.sigma,
    }
    return {
        name: values.reshape(chains, draws, *values.shape[1:])
        for name, values in found.items()
        if name != "beta" or values.shape[1]
    }


def _summary_group(design: Design, mean: FloatArray, sd: FloatArray) -> Any:
    import xarray as xr

    coords = {"subject": design.subjects.to_numpy(), "term": np.array(design.term, dtype=str)}
    dims = ("subject", "term")
    return xr.Dataset({"mean": (dims, mean), "sd": (dims, sd)}, coords=coords)


def sample_theta(
    posterior: CollapsedPosterior | ResidualPosterior,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    target_accept: float,
    cores: int | None,
    progressbar: bool,
) -> tuple[FloatArray, Any, str]:
    """Draw θ by NUTS.

    Returns
    -------
    theta : (chains, draws, m)
    statistics : xarray.Dataset
        nutpie's sampler statistics.
    route : {"compiled", "python"}
    """
    import nutpie
    import xarray as xr

    # nutpie does not tell a chain its number: where there are several modes, the chains of each are a run of their own.
    starts = np.linalg.solve(posterior.root, (posterior.modes - posterior.mode).T).T[:chains]
    theta, statistics, route = [], [], ""
    for k, start in enumerate(starts):
        model, route = _model(posterior, start)
        tree = nutpie.sample(
            model,
            draws=draws,
            tune=tune,
            chains=len(range(k, chains, len(starts))),
            cores=cores,
            seed=seed + k,
            save_warmup=False,
            progress_bar=progressbar,
            target_accept=target_accept,
        )
        refuse_interrupted(tree, draws)
        theta.append(posterior.mode + tree["posterior"]["z"].to_numpy() @ posterior.root.T)
        statistics.append(tree["sample_stats"].to_dataset())
    if len(starts) == 1:
        return theta[0], statistics[0], route
    order = np.argsort(np.concatenate([np.arange(k, chains, len(starts)) for k in range(len(starts))]))
    joined = xr.concat(statistics, dim="chain").isel(chain=order).assign_coords(chain=np.arange(chains))
    return np.concatenate(theta)[order], joined, route


def mode_notes(posterior: CollapsedPosterior | ResidualPosterior, theta: FloatArray) -> tuple[str, ...]:
    """Say in which modes the chains sit, where there are several: theta (chains, draws, m)."""
    if len(posterior.modes) == 1:
        return ()
    folded = theta.copy()
    signed = posterior.signed
    folded[..., signed] = np.abs(folded[..., signed])
    away = np.linalg.solve(posterior.root, (folded[..., None, :] - posterior.modes)[..., None])[..., 0]
    nearest = np.argmin(np.linalg.norm(away, axis=-1), axis=-1)
    share = np.stack([np.mean(nearest == k, axis=1) for k in range(len(posterior.modes))], axis=1)
    number = len(posterior.modes)
    if np.ptp(share, axis=0).max() < 0.5:
        return (
            f"The posterior of the covariance parameters has {number} modes, and every chain visits each: read its "
            "distribution as a whole (fit.plot_posterior()), not its mean.",
        )
    home = np.argmax(share, axis=1)
    where = "; ".join(
        f"mode {k + 1}: chain{'s' if np.sum(home == k) > 1 else ''} "
        + ", ".join(str(c + 1) for c in np.flatnonzero(home == k))
        for k in range(number)
        if np.any(home == k)
    )
    return (
        f"Chains sit in different modes of the posterior ({where}): NUTS hardly crosses from one to the other, and how "
        "often each is visited says where chains began, not how probable it is. To go on: compare the modes "
        "(model.fit_ml().optima lists those of the likelihood), give the covariance parameters a prior that tells them "
        "apart, or simplify the random effects.",
    )


def _initial_point(start: FloatArray) -> Any:
    """Start near a mode, chains apart from each other by a posterior standard deviation."""

    def draw(seed: int) -> FloatArray:
        return start + np.random.default_rng(seed).normal(size=len(start))

    return draw


def _model(posterior: CollapsedPosterior | ResidualPosterior, start: FloatArray) -> tuple[Any, str]:
    """The posterior as nutpie takes it: compiled where its parts are, else as Python functions."""
    try:
        if isinstance(posterior, CollapsedPosterior):
            return _compiled_model(start, compiled_density(), posterior.buffer), "compiled"
        if posterior.packed is not None:
            return _compiled_model(start, compiled_structured(), posterior.packed), "compiled"
    except (ImportError, TypeError, AttributeError):
        pass  # nutpie's class has changed: the documented way follows
    if isinstance(posterior, ResidualPosterior):
        return _python_model(start, posterior.evaluator), "python"
    buffer = posterior.buffer
    return _python_model(start, lambda: lambda z: evaluate(z, buffer)), "python"


def _compiled_model(start: FloatArray, density: Any, data: FloatArray) -> Any:
    from nutpie.compile_pymc import CompiledPyMCModel

    m = len(start)
    return CompiledPyMCModel(
        dims={},
        compiled_logp_func=density,
        compiled_expand_func=compiled_expand(),
        initial_point_func=_initial_point(start),
        shared_data={"buffer": data},
        shared_var_keys={},
        user_data=data,
        n_expanded=m,
        shape_info=(["z"], [slice(0, m)], [(m,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=m,
        _shapes={"z": (m,)},
        _coords={},
    )


def _python_model(start: FloatArray, make_density: Any) -> Any:
    """Hand nutpie a maker of Python functions, z -> (log density, gradient); each chain makes its own."""
    from nutpie.compiled_pyfunc import from_pyfunc

    m = len(start)

    def make_expand(_seed1: int, _seed2: int, _chain: int) -> Any:
        return lambda z: {"z": z}

    return from_pyfunc(
        m,
        make_density,
        make_expand,
        [np.dtype(np.float64)],
        [(m,)],
        ["z"],
        make_initial_point_fn=_initial_point(start),
    )
