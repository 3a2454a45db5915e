"""Log prior density of every draw, parameter by parameter: what power-scaling of the prior needs.

Densities are those of the parameters as they are reported, (beta, sd_b, corr_b, sigma, residual parameters); their sum
is `ResolvedPriors.logpdf`. Random effects are not in it: N(0, D) is the second level of the model, and scaling it with
the prior would ask another question (Kallioinen et al. 2024, section 2.3).

References
----------
Kallioinen, N., Paananen, T., Bürkner, P.-C., Vehtari, A. (2024). Detecting and diagnosing prior and likelihood
sensitivity with power-scaling. Statistics and Computing 34, 57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import dim_of_D, dispersion_variables
from hierlmm.design.design import Design
from hierlmm.likelihood.residual_rows import residual_rows


def log_prior(design: Design, priors: ResolvedPriors, draws: Mapping[str, FloatArray], eta: FloatArray) -> Any:
    """Group ``log_prior``: ``beta`` (coef), ``sd_b`` (term), ``corr_b``, ``sigma``, ``residual`` (parameter).

    Parameters
    ----------
    design, priors
        The model.
    draws : mapping of str to (chain, draw, ...)
        ``beta``, ``sd_b``, ``corr_b`` (matrices), ``D`` and ``sigma``.
    eta : (chain, draw, k)
        Unconstrained residual parameters.
    """
    import xarray as xr

    chains, length = next(iter(draws.values())).shape[:2]
    found: dict[str, tuple[tuple[str, ...], FloatArray]] = {}
    coords: dict[str, Any] = {"chain": np.arange(chains), "draw": np.arange(length)}
    if design.coef:
        centred = draws["beta"] @ priors.centering.T
        each = [prior.logpdf(centred[..., k]) for k, prior in enumerate(priors.beta)]
        found["beta"] = (("chain", "draw", "coef"), np.stack(each, axis=-1))
        coords["coef"] = np.array(design.coef, dtype=str)
    if design.term:
        sd, corr = _of_random_effects(design, priors, draws)
        found["sd_b"] = (("chain", "draw", dim_of_D(design))[: sd.ndim], sd)
        if corr is not None:
            found["corr_b"] = (("chain", "draw"), corr)
        if sd.ndim == 3:
            coords[dim_of_D(design)] = np.array(design.term, dtype=str)
    shift = np.zeros((chains, length))
    if design.has_residual_structure:
        rows = residual_rows(design)
        values = [np.vectorize(p.natural)(eta[..., k]) for k, p in enumerate(rows.parameters)]
        each = [prior.logpdf(v) for prior, v in zip(priors.residual, values, strict=True)]
        if each:  # known weights have none
            found["residual"] = (("chain", "draw", "parameter"), np.stack(each, axis=-1))
            coords["parameter"] = [p.name for p in rows.parameters]
        if priors.average_row:  # the prior is of σ exp(shift), the residual SD of the average row
            shift = np.array([rows.shift(e) for e in as_rows(eta)]).reshape(chains, length)
    if not design.is_gaussian:
        return xr.Dataset(found | _of_dispersion(design, priors, draws), coords=coords)
    found["sigma"] = (("chain", "draw"), priors.sigma.logpdf(draws["sigma"] * np.exp(shift)) + shift)
    return xr.Dataset(found, coords=coords)


def _of_dispersion(design: Design, priors: ResolvedPriors, draws: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Of the dispersion parameters of a family, by variable; of a threshold, the prior of the step to it."""
    before: Any = 0.0
    found = dict[str, Any]()
    for name, prior in zip(dispersion_variables(design), priors.dispersion, strict=True):
        value = draws[name] - before
        before = draws[name] if design.family.name == "ordinal" else 0.0
        found[name] = (("chain", "draw"), prior.logpdf(value))
    return found


def _of_random_effects(
    design: Design, priors: ResolvedPriors, draws: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray | None]:
    """Of the SDs (chain, draw, term), or (chain, draw) of a common one; and of all correlations (chain, draw)."""
    sd, corr, q = draws["sd_b"], draws["corr_b"], len(design.term)
    if moved := bool(np.any(priors.random_center)):
        D = priors.random_centering @ draws["D"] @ priors.random_centering.T
        own = np.sqrt(np.einsum("...kk->...k", D))
        sd, corr = own, D / (own[..., None] * own[..., None, :])
    if priors.common_sd:
        firsts = range(0, q, priors.n_own)
        of_sd = np.sum([priors.sd_b[k].logpdf(sd[..., k]) for k in firsts], axis=0)
    else:
        of_sd = np.stack([prior.logpdf(sd[..., k]) for k, prior in enumerate(priors.sd_b)], axis=-1)
    if moved:  # D* = A D A' has the density of D; the SDs and correlations have not
        of_sd[..., priors.intercepts] += priors.log_jacobian(draws["sd_b"], sd, design.blocks)
    if priors.corr_b is None:
        return of_sd, None
    if priors.common_corr:
        each = [priors.corr_b.logpdf_equal(corr[..., k, k + 1], priors.n_own) for k in firsts]
        return of_sd, np.sum(each, axis=0)
    blocks = [np.array(b) for b in design.blocks if len(b) > 1]
    each = [priors.corr_b.logpdf(corr[..., b[:, None], b]) for b in blocks]
    return of_sd, np.sum(each, axis=0) if each else None
