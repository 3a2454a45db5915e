"""Draws of a generalised fit: (λ, β̃, ψ) ~ N(optimum, information⁻¹), and b given the estimates."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.fits.draws import random_draws, symmetric_roots, tree_of_draws
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
    check_counts(draws=draws, chains=chains)
    rng = np.random.default_rng(seed)
    size, design, scaling = draws * chains, fit.design, fit.criterion_function.scaling
    lam, working, psi = fit.criterion_function.split(parameter_draws(fit, size, rng).T)
    half = np.linalg.solve(scaling.Bz, fit.criterion_function.structure.factor(lam.T))
    D = half @ np.swapaxes(half, 1, 2)
    noise = rng.standard_normal((size, design.n_subjects, design.n_own))
    b = fit.b.to_numpy() + np.einsum("jab,sjb->sja", symmetric_roots(fit.b_cov), noise, optimize=True)
    variables = {
        "beta": (("coef",), scaling.beta(working.T)),
        **random_draws(design, b, D),
        **{name: ((), np.array([fit.family.natural(p)[name] for p in psi.T])) for name in fit.dispersion.index},
    }
    attrs = {"approximation": APPROXIMATION, "seed": -1 if seed is None else seed}
    return tree_of_draws(fit, variables, (chains, draws), attrs)
