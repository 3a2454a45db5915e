"""β and b after the covariance parameters were sampled in PyMC, by any sampler and in any model.

Given the covariance parameters β and b are normal: one draw of them for every draw of these makes the joint draws exact
(`recover`). `sample_marginalized` samples them for a model whose priors the compiled posterior has not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.collapsed_residual import ResidualPosterior
from hierlmm.bayes.explicit import beta_draws, random_covariance_draws
from hierlmm.bayes.explicit_residual import sd_name, variable_name
from hierlmm.bayes.given import refuse_impossible, refuse_other_data, refuse_other_statistics
from hierlmm.bayes.marginal_likelihood import marginal_likelihood
from hierlmm.bayes.marginalized import build_marginalized_model, unit_of
from hierlmm.bayes.nuts import Settings, run
from hierlmm.bayes.posterior import Collapsed
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.sample_collapsed import Sampled, collapsed_attrs, kept_effects
from hierlmm.bayes.tree import aligned, corr_pairs
from hierlmm.design.design import Design
from hierlmm.errors import DataError, SpecificationError
from hierlmm.likelihood.residual_rows import residual_rows

SEE = "docs, page 'The collapsed posterior'"


def sample_marginalized(design: Design, priors: ResolvedPriors, chosen: Settings, *, why: str) -> Sampled:
    """Sample the covariance parameters on the PyMC model with b integrated out: a way for `sample_collapsed`.

    Parameters
    ----------
    design, priors, chosen
        The model and how to sample it.
    why : str
        Why the compiled posterior does not do, for the record.
    """
    import nutpie

    started = time.perf_counter()
    model = build_marginalized_model(design, priors)
    compiled = nutpie.compile_pymc_model(model, var_names=[v.name for v in model.free_RVs])
    attrs = {"route": "pymc", "why": why, "compile_seconds": round(time.perf_counter() - started, 3)}
    tree = run(compiled, chosen)
    values = aligned(design, tree["posterior"].to_dataset(), "fit")
    return Sampled(partial(_recovered, design, priors, values), tree["sample_stats"].to_dataset(), attrs)


def recovered_record(
    design: Design, priors: ResolvedPriors, trace: Any, seed: int | None, random_effects: str
) -> PosteriorRecord:
    """A posterior from draws of the covariance parameters.

    Parameters
    ----------
    design, priors
        The model. Where the trace has ``beta``, it is kept, else drawn with the normal prior of ``priors``.
    trace : DataTree
        With a group ``posterior``: see `hierlmm.recover`.
    seed : int, optional
    random_effects : {"auto", "draws", "summary", "none"}
    """
    if "posterior" not in getattr(trace, "children", {}):
        reason = "draws are read from its group 'posterior'"
        received = f"a trace of type {type(trace).__name__}"
        raise SpecificationError(received, reason, "give what pm.sample() or nutpie.sample() returned", SEE)
    refuse_other_data(design, trace, "recover")
    values = aligned(design, trace["posterior"].to_dataset(), "recover")
    refuse_impossible(values, "recover")
    size = trace["posterior"].sizes["chain"] * trace["posterior"].sizes["draw"]
    random_effects = kept_effects(design, size, random_effects)
    statistics = trace["sample_stats"].to_dataset() if "sample_stats" in trace.children else None
    if statistics is not None:
        refuse_other_statistics(trace["posterior"], statistics, "recover")
    draws, groups = _recovered(design, priors, values, seed, random_effects)
    refuse_impossible(draws, "recover")
    own = {k: v for k, v in trace["posterior"].attrs.items() if k in ("sampling_time", "tuning_steps")}
    attrs = collapsed_attrs(random_effects, route="recovered", **own)
    known = priors if _is_of_model(design, priors, set(values)) else None
    return posterior_record(design, known, draws, statistics, attrs, groups=groups)


def beta_moments(
    design: Design, priors: ResolvedPriors, draws: Mapping[str, FloatArray], eta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean (S, p) and covariance (S, p, p) of β given each draw of the covariance parameters.

    Parameters
    ----------
    design, priors
        The model, with normal priors of β.
    draws : mapping of str to (chain, draw, ...)
        ``sd_b`` and ``corr_b`` (matrices) where there are random effects, and ``sigma``.
    eta : (chain, draw, k)
        Unconstrained residual parameters.
    """
    raw = dict(draws)
    if design.has_residual_structure:
        for k, parameter in enumerate(residual_rows(design).parameters):
            raw[variable_name(parameter)] = np.vectorize(parameter.natural)(eta[..., k])
    likelihood = marginal_likelihood(design, priors)
    theta = _theta(likelihood, priors, raw, given=False)
    natural = likelihood.conditional(theta.reshape(-1, theta.shape[-1]), np.random.default_rng(0), "none").natural
    scaling = likelihood.products.scaling
    return scaling.beta(natural.mean_working), np.array([scaling.beta_cov(own) for own in natural.covariance_working])


def _is_of_model(design: Design, priors: ResolvedPriors, names: set[str]) -> bool:
    """Whether a trace has the free variables of the model's own PyMC model; in others the priors may be any."""
    return {v.name for v in build_marginalized_model(design, priors).free_RVs} <= names


def _recovered(
    design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray], seed: Any, random_effects: str
) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """Draws of everything and further groups of the tree, from draws of the covariance parameters."""
    names = set(raw)
    given = bool(design.coef) and any(name.split("[")[0] in ("beta", "beta_centered") for name in names)
    if not given and not priors.beta_is_normal:
        reason = "a fixed effect has a prior that is not normal, and the trace has no draws of beta"
        raise DataError("a trace without 'beta'", reason, "keep beta in the trace, under this name", SEE)
    likelihood = marginal_likelihood(design, None if given else priors)
    theta = _theta(likelihood, priors, raw, given)
    return likelihood.recover(theta, np.random.default_rng(seed), random_effects)


def _theta(likelihood: Collapsed, priors: ResolvedPriors, raw: Mapping[str, FloatArray], given: bool) -> FloatArray:
    """θ of `marginal_likelihood` (chain, draw, m) from draws by name."""
    design, scaling = likelihood.design, likelihood.products.scaling
    head = next(iter(raw.values())).shape[:2]
    eta, shift = np.empty((*head, 0)), np.zeros(head)
    if isinstance(likelihood, ResidualPosterior) and design.has_residual_structure:
        eta = _eta(likelihood, priors, raw)
        if sd_name(design) != "sigma":
            flat = as_rows(eta)
            shift = np.array([likelihood.rows.shift(e) for e in flat]).reshape(eta.shape[:-1])
    own = raw.get(sd_name(design))
    log_sd = np.log(_find(raw, "sigma")) + shift if own is None else np.log(own)
    parts = [(log_sd - np.log(scaling.y_scale))[..., None], eta]
    if given:
        parts.insert(0, (beta_draws(design, priors, raw) - scaling.shift) @ (scaling.Bx / scaling.y_scale).T)
    if design.term:
        F = _factor(design, priors, raw)
        parts.insert(0, F.reshape(*F.shape[:2], -1))
    return np.concatenate(parts, axis=-1)


def _factor(design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray]) -> FloatArray:
    """A factor of D (chain, draw, q, q): from the model's free variables, from D, or from SDs and correlations."""
    q, (rows, cols) = len(design.term), corr_pairs(design)
    kept = {name.split("[")[0] for name in raw}
    if kept & ({"corr_b_partial", "corr_b_unit"} if len(rows) else {"sd_b_centered", "sd_b_common"}):
        sd, L = random_covariance_draws(design, priors, raw)
        return sd[..., None] * L
    if "D" in raw:
        return _root(raw["D"].reshape(*raw["D"].shape[:2], q, q))
    sd = _find(raw, "sd_b", *(f"sd_b[{t}]" for t in design.term))
    corr = np.zeros((*sd.shape, q))
    corr[..., np.arange(q), np.arange(q)] = 1.0
    if len(rows):
        own = _find(raw, "corr_b")
        own = own[..., rows, cols] if own.ndim == 4 else own
        corr[..., rows, cols] = corr[..., cols, rows] = own
    return sd[..., None] * _root(corr)


def _root(matrices: FloatArray) -> FloatArray:
    """A factor of symmetric matrices (..., q, q), singular ones too."""
    values, vectors = np.linalg.eigh(matrices)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def _eta(likelihood: ResidualPosterior, priors: ResolvedPriors, raw: Mapping[str, FloatArray]) -> FloatArray:
    """Unconstrained residual parameters (chain, draw, k)."""
    found = []
    for parameter, prior in zip(likelihood.rows.parameters, priors.residual, strict=True):
        name, unit = variable_name(parameter), unit_of(parameter, prior)
        if name not in raw and unit in raw:
            low, high = prior.support
            natural = low + (high - low) * raw[unit]
        else:
            natural = _find(raw, name)
        found.append(np.vectorize(parameter.unconstrained)(natural))
    return np.stack(found, axis=-1)


def _find(raw: Mapping[str, FloatArray], name: str, *elements: str) -> FloatArray:
    """A variable of the trace, perhaps element by element."""
    if name in raw:
        return raw[name]
    if elements and all(element in raw for element in elements):
        return np.stack([raw[element] for element in elements], axis=-1)
    received = f"a trace with the variables {', '.join(sorted(raw)) or '(none)'}"
    reason = f"the model's {name!r} is not among them"
    remedy = f"keep it under the name that model.to_pymc(marginalized=True) gives it: pm.Deterministic({name!r}, ...)"
    raise DataError(received, reason, remedy, SEE)
