"""Draws of a generalised fit: (λ, β̃, ψ) ~ N(optimum, information⁻¹), and b given the estimates."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import constant_data, corr_pairs, dim_of_D, observed_data, pair_labels
from hierlmm.errors import NotAvailableError
from hierlmm.options import check_counts

APPROXIMATION = (
    "large-sample: (lambda, beta, log dispersion) normal around the optimum, b normal around its conditional mode at "
    "the estimates"
)


def parameter_draws(fit: Any, size: int, rng: np.random.Generator) -> FloatArray:
    """Draw (λ, β̃, ψ): (size, k).

    Raises
    ------
    NotAvailableError
        If the fit has no standard errors.
    """
    if not np.all(np.isfinite(fit.record.covariance)):
        reason = "the observed information has no inverse, so there is no normal distribution to draw from"
        remedy = "see fit.warnings for why; model.fit() draws from a posterior"
        raise NotAvailableError("draws of a fit without standard errors", reason, remedy, "docs, page 'Families'")
    values, vectors = np.linalg.eigh(fit.record.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return fit.optimum.lam + rng.standard_normal((size, len(root))) @ root.T


def generalised_tree(fit: Any, draws: int, chains: int, seed: int | None) -> Any:
    """Build the DataTree of `GeneralisedNumbers.to_datatree`."""
    import xarray as xr

    check_counts(draws=draws, chains=chains)
    rng = np.random.default_rng(seed)
    size, design, scaling = draws * chains, fit.design, fit.criterion_function.scaling
    lam, working, psi = fit.criterion_function.split(parameter_draws(fit, size, rng).T)
    half = np.linalg.solve(scaling.Bz, fit.criterion_function.structure.factor(lam.T))
    D = half @ np.swapaxes(half, 1, 2)
    sd = np.sqrt(np.einsum("skk->sk", D))
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = D / (sd[:, :, None] * sd[:, None, :])
    values, vectors = np.linalg.eigh(fit.b_cov)
    noise = rng.standard_normal((size, design.n_subjects, design.n_own))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    b = fit.b.to_numpy() + np.einsum("jab,sjb->sja", root, noise, optimize=True)
    pairs = corr_pairs(design)
    variables = {
        "beta": (("coef",), scaling.beta(working.T)),
        "b": (("subject", "term"), b),
        "sd_b": ((dim_of_D(design),), sd),
        **({"corr_b": (("pair",), corr[(..., *pairs)])} if len(pairs[0]) else {}),
        **{name: ((), np.array([fit.family.natural(p)[name] for p in psi.T])) for name in fit.dispersion.index},
    }
    posterior = xr.Dataset(
        {
            name.replace(" ", "_"): (("chain", "draw", *dims), own.reshape(chains, draws, *own.shape[1:]))
            for name, (dims, own) in variables.items()
        },
        coords={
            "chain": np.arange(chains),
            "draw": np.arange(draws),
            "coef": list(design.coef),
            "term": list(design.own_term),
            **({dim_of_D(design): list(design.term)} if design.group else {}),
            "subject": design.subjects.to_numpy(),
            **({"pair": pair_labels(design.term, pairs)} if len(pairs[0]) else {}),
        },
        attrs={"estimator": fit.estimator, "approximation": APPROXIMATION, "seed": -1 if seed is None else seed},
    )
    groups = {"posterior": posterior, "observed_data": observed_data(design), "constant_data": constant_data(design)}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(posterior.attrs)
    return tree
