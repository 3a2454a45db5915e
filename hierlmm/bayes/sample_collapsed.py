"""NUTS over θ through nutpie, with the compiled density as a C function, or as a Python function if need be.

The C route builds the object that ``nutpie.compile_pymc_model`` returns, with our own compiled functions in the place
of PyMC's; chains then never take Python's lock. nutpie gives that class no promise of stability, so if it cannot be
built the documented ``from_pyfunc`` is used: the same draws, more slowly, and ``attrs["route"]`` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import compiled_expand
from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.nuts import Settings, draws_of
from hierlmm.bayes.posterior import Collapsed
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.loading import loading
from hierlmm.notice import notice_if_slow

RANDOM_EFFECTS = ("auto", "draws", "summary", "none")
DRAWS_LIMIT = 10_000_000
"""Largest number of values of b (80 MB) for which ``random_effects="auto"`` keeps draws."""
MANY_SUBJECTS = 2000
"""From so many subjects on, the sampler asks whether the posterior of θ is nearly normal around its mode."""
FAR, CROOKED = 3.0, 0.2
"""Nearly normal: at so many posterior standard deviations from the mode, along each whitened coordinate, the gradient
is that of a normal density but for a fifth."""
EASY = {"tune": 200, "target_accept": 0.7}
"""Settings for a nearly normal posterior, whitened already: there is but the step size to tune, and the longer steps
that suit it cost fewer evaluations for each effective draw (a quarter, in `benchmarks/many_subjects.py`)."""


class Sampled(NamedTuple):
    """What sampling with b integrated out gave: how draws of everything follow, and statistics of the sampler."""

    recover: Callable[[int, str], tuple[dict[str, FloatArray], dict[str, Any]]]
    statistics: Any
    attrs: dict[str, Any]
    notes: tuple[str, ...] = ()


def sample_collapsed(
    design: Design,
    priors: ResolvedPriors,
    *,
    way: Callable[[Design, ResolvedPriors, Settings], Sampled] | None = None,
    random_effects: str = "auto",
    notes: tuple[str, ...] = (),
    **settings: Any,
) -> PosteriorRecord:
    """Sample with b integrated out, then draw β and b exactly.

    Parameters
    ----------
    design, priors
        The model.
    way : callable, optional
        How to sample; by default on the compiled posterior, where `why_not_collapsed` must be None for these priors.
    random_effects : {"auto", "draws", "summary", "none"}
        Keep a draw of b for every draw of θ; or its exact posterior mean and SD (Rao-Blackwell); or neither.
        ``"auto"`` keeps draws up to 10 million values.
    notes : tuple of str
        What else must be known before the fit is used.
    **settings
        Of `Settings`.
    """
    chosen = Settings(**settings)
    started = time.perf_counter()
    found = (way or sample_compiled)(design, priors, chosen)
    sampled = time.perf_counter()
    random_effects = kept_effects(design, chosen.chains * chosen.draws, random_effects)
    draws, groups = found.recover(chosen.seed, random_effects)
    attrs = collapsed_attrs(random_effects, **{**chosen.attrs, **found.attrs})
    attrs["sampling_seconds"] = round(sampled - started - attrs.get("compile_seconds", 0.0), 3)
    attrs["recovery_seconds"] = round(time.perf_counter() - sampled, 3)
    notes = (*notes, *found.notes)
    return posterior_record(design, priors, draws, found.statistics, attrs, groups=groups, notes=notes)


def sample_compiled(
    design: Design, priors: ResolvedPriors, chosen: Settings, why: str = "", free: Sequence[str] = ()
) -> Sampled:
    """Sample the compiled posterior.

    Parameters
    ----------
    design, priors
        The model.
    chosen : Settings
    why : str
        Recorded where it says something.
    free : sequence of str
        Settings that nobody has asked for: many subjects make them cheaper (`EASY`).
    """
    with notice_if_slow():
        posterior = posterior_of(design, priors)
    easier: dict[str, Any] = {name: value for name, value in EASY.items() if name in free}
    if easier and design.n_subjects >= MANY_SUBJECTS and nearly_normal(posterior):
        chosen = replace(chosen, **easier)
    theta, statistics, route = sample_theta(posterior, chosen)

    def recover(seed: int, random_effects: str) -> Any:
        return posterior.recover(theta, np.random.default_rng(seed), random_effects)

    attrs = {"route": route, **chosen.attrs} | ({"why": why} if why else {})
    return Sampled(recover, statistics, attrs, mode_notes(posterior, theta))


def collapsed_attrs(random_effects: str, **more: Any) -> dict[str, Any]:
    """What the tree says of a posterior that was sampled with b integrated out."""
    return {"estimator": "NUTS", "sampler": "collapsed", "random_effects": random_effects, **more}


def kept_effects(design: Design, draws: int, random_effects: str) -> str:
    """What is kept of b for so many draws: ``"auto"`` decided by size, nothing where there is none."""
    if random_effects == "auto":
        effects = sum(len(own.group.labels) * own.Z.shape[1] for own in design.random)
        random_effects = "draws" if draws * effects <= DRAWS_LIMIT else "summary"
    return random_effects if design.term else "none"


def sample_theta(posterior: Collapsed, settings: Settings) -> tuple[FloatArray, Any, str]:
    """Draw θ by NUTS.

    Returns
    -------
    theta : (chains, draws, m)
    statistics : xarray.Dataset
        nutpie's sampler statistics.
    route : {"compiled", "python"}
    """
    import xarray as xr

    # nutpie does not tell a chain its number: where there are several modes, the chains of each are a run of their own.
    chains, number = settings.chains, min(len(posterior.modes), settings.chains)
    starts = np.linalg.solve(posterior.root, (posterior.modes - posterior.mode).T).T[:number]
    theta, statistics, route = [], [], ""
    for k, start in enumerate(starts):
        model, route = nutpie_model(posterior, start)
        z, own = draws_of(model, "z", replace(settings, chains=len(range(k, chains, number)), seed=settings.seed + k))
        theta.append(posterior.mode + z @ posterior.root.T)
        statistics.append(own)
    if number == 1:
        return theta[0], statistics[0], route
    order = np.argsort(np.concatenate([np.arange(k, chains, number) for k in range(number)]))
    joined = xr.concat(statistics, dim="chain").isel(chain=order).assign_coords(chain=np.arange(chains))
    return np.concatenate(theta)[order], joined, route


def nearly_normal(posterior: Collapsed) -> bool:
    """Whether log p(z) is close to −z²/2 in whitened coordinates: see `FAR`."""
    density, m = posterior.evaluator(), len(posterior.mode)
    if len(posterior.modes) > 1:
        return False
    for k in range(m):
        for far in (-FAR, FAR):
            z = np.zeros(m)
            z[k] = far
            value, gradient = density(z)
            if not np.isfinite(value) or np.linalg.norm(gradient + z) > CROOKED * FAR:
                return False
    return True


def mode_notes(posterior: Collapsed, theta: FloatArray) -> tuple[str, ...]:
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


def nutpie_model(posterior: Any, start: FloatArray) -> tuple[Any, str]:
    """The posterior as nutpie takes it: compiled where its parts are, else as Python functions."""
    try:
        found = posterior.compiled()
        if found is not None:
            return _compiled_model(start, *found), "compiled"
    except (ImportError, TypeError, AttributeError):
        pass  # nutpie's class has changed: the documented way follows
    return _python_model(start, posterior.evaluator), "python"


def _compiled_model(start: FloatArray, density: Any, data: FloatArray) -> Any:
    with loading():
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
        m, make_density, make_expand, [np.dtype(np.float64)], [(m,)], ["z"], make_initial_point_fn=_initial_point(start)
    )
