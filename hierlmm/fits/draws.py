"""Draws from the large-sample distribution of a likelihood fit, in the contract's names and dimensions.

    (λ, η, log σ) ~ N(optimum, 2 H⁻¹),     β ~ N(β̂, V_β),     b_i | β ~ N(K_i0 - K_i β, M_i)

with V_β, K_i and M_i at the estimated θ (`likelihood.large_sample`, `likelihood.conditional`); ``attrs`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import constant_data, corr_pairs, dim_of_D, observed_data, pair_labels
from hierlmm.design.design import Design
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.likelihood.conditional import of_subjects
from hierlmm.options import check_counts

APPROXIMATION = (
    "large-sample: beta normal given theta; (lambda, log sigma) normal on the unconstrained scale; "
    "b from its conditional distribution given the draw of beta, at the estimated theta"
)


def large_sample_tree(fit: LikelihoodEstimates, draws: int, chains: int, seed: int | None) -> Any:
    """Build the DataTree of `LikelihoodEstimates.to_datatree`."""
    check_counts(draws=draws, chains=chains)
    rng = np.random.default_rng(seed)
    size = draws * chains
    design = fit.design
    p = len(design.coef)
    root = np.linalg.cholesky(fit.beta_cov.to_numpy()) if p else np.empty((0, 0))
    beta = fit.beta.to_numpy() + rng.standard_normal((size, p)) @ root.T
    sample = fit.large_sample.sample(size, rng)
    D, sigma = fit.large_sample.split_draws(sample)
    effects = of_subjects(design, fit.solution.effects)
    noise = rng.standard_normal((size, design.n_subjects, design.n_own))
    b = np.einsum("jab,sjb->sja", symmetric_roots(effects.covariance), noise, optimize=True)
    b += effects.origin - np.einsum("jqp,sp->sjq", effects.slope, beta, optimize=True)
    residual, labels = _residual_draws(fit, sample)
    variables = {"beta": (("coef",), beta), **random_draws(design, b, D), "sigma": ((), sigma), **residual}
    attrs = {"approximation": APPROXIMATION, "seed": -1 if seed is None else seed}
    if fit.is_singular:
        attrs["boundary"] = (
            "D is singular at the optimum: the directions without variance are held at zero in every draw, so the "
            "draws understate what is uncertain there"
        )
    return tree_of_draws(fit, variables, (chains, draws), attrs, labels)


def random_draws(design: Design, b: FloatArray, D: FloatArray) -> dict[str, Any]:
    """Dimensions and draws of ``b`` (S, J, q) and of what tables show of D (S, q, q), if there are random effects."""
    if not design.term:
        return {}
    sd, pairs = np.sqrt(np.einsum("skk->sk", D)), corr_pairs(design)
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = (D / (sd[:, :, None] * sd[:, None, :]))[(..., *pairs)]
    found = {"b": (("subject", "term"), b), "sd_b": ((dim_of_D(design),), sd)}
    return found | ({"corr_b": (("pair",), corr)} if len(pairs[0]) else {})


def tree_of_draws(
    fit: Any,
    variables: Mapping[str, tuple[tuple[str, ...], FloatArray]],
    shape: tuple[int, int],
    attrs: Mapping[str, Any],
    labels: Mapping[str, list[str]] | None = None,
) -> Any:
    """Tree of independent draws, as chains, with the data.

    Parameters
    ----------
    fit : Fit
    variables : mapping of str to (dimensions, (S, ...))
    shape : (int, int)
        Chains, and draws of each.
    attrs : mapping
        Of the posterior and the tree, beside the estimator.
    labels : mapping of str to list of str, optional
        Of the dimensions of residual parameters.
    """
    import xarray as xr

    design = fit.design
    coords = {
        "chain": np.arange(shape[0]),
        "draw": np.arange(shape[1]),
        "coef": list(design.coef),
        "term": list(design.own_term),
        **({dim_of_D(design): list(design.term)} if design.group else {}),
        "subject": design.subjects.to_numpy(),
        **({"pair": pair_labels(design.term, corr_pairs(design))} if "corr_b" in variables else {}),
        **(labels or {}),
    }
    found = {
        name.replace(" ", "_"): (("chain", "draw", *dims), values.reshape(*shape, *values.shape[1:]))
        for name, (dims, values) in variables.items()
    }
    posterior = xr.Dataset(found, coords=coords, attrs={"estimator": fit.estimator, **attrs})
    groups = {"posterior": posterior, "observed_data": observed_data(design), "constant_data": constant_data(design)}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(posterior.attrs)
    return tree


def _residual_draws(fit: LikelihoodEstimates, sample: FloatArray) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Variables ``residual_correlation`` and ``residual_variance`` of the draws, and the labels of their dimensions."""
    estimate = fit.residual_estimate
    if estimate is None:
        return {}, {}
    k, eta = estimate.n_correlation, sample[:, fit.criterion_function.structure.n_parameters : -1]
    variables, labels = {}, {}
    for name, bound, part in (
        ("residual_correlation", estimate.correlation, eta[:, :k]),
        ("residual_variance", estimate.variance, eta[:, k:]),
    ):
        if bound is None:
            continue
        reports = [bound.report(row) for row in part]
        labels[f"{name}_parameter"] = list(reports[0])
        variables[name] = ((f"{name}_parameter",), np.array([list(r.values()) for r in reports]))
    return variables, labels


def symmetric_roots(covariance: FloatArray) -> FloatArray:
    """Symmetric square roots of a stack of positive semi-definite matrices."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, 1, 2)
