"""Draws of the parameters under the names that tables use: ``time``, ``sd(Intercept)``, ``corr(Intercept, time)``."""

from __future__ import annotations

from typing import Any

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import dispersion_labels, dispersion_variables, matrices
from hierlmm.design.design import Design
from hierlmm.fits.base import Fit
from hierlmm.fits.components import component_labels, component_values, correlated_pairs, group_sigma_draws
from hierlmm.fits.side_by_side import MARGINAL_SIGMA, SCALE_SIGMA, is_marginal

KINDS = ("fixed", "sd", "corr", "residual", "sigma")


def named_draws(design: Design, dataset: Any) -> dict[str, dict[str, FloatArray]]:
    """Draws (chain, draw) by kind (`KINDS`) and name, from a dataset in the contract's names, posterior or prior."""
    found: dict[str, dict[str, FloatArray]] = {kind: {} for kind in KINDS}
    if "beta" in dataset:
        beta = dataset["beta"].transpose("chain", "draw", "coef").to_numpy()
        found["fixed"] = {name: beta[..., k] for k, name in enumerate(design.coef)}
    if "sd_b" in dataset:
        values = component_values(design, matrices(design, dataset)[1], 0.0 * dataset["sd_b"].to_numpy()[..., 0])
        for k, name in enumerate(component_labels(design)[:-1]):
            found[name.split("(")[0]][name] = values[..., k]
    scalars = zip(dispersion_labels(design), dispersion_variables(design), strict=True)
    found["sigma"] = {
        label: dataset[name].transpose("chain", "draw").to_numpy() for label, name in scalars if name in dataset
    }
    for name in ("residual_correlation", "residual_variance"):
        if name in dataset:
            dimension = f"{name}_parameter"
            values = dataset[name].transpose("chain", "draw", dimension).to_numpy()
            found["residual"] |= {str(v): values[..., k] for k, v in enumerate(dataset[dimension].to_numpy())}
    found["residual"] |= group_sigma_draws(design, dataset)
    return found


def plain_draws(design: Design, dataset: Any) -> dict[str, FloatArray]:
    """Draws (chain, draw) by name, in the order of the tables."""
    return {name: own for kind in named_draws(design, dataset).values() for name, own in kind.items()}


def parameter_draws(fit: Fit) -> dict[str, FloatArray]:
    """Draws by label of the tables (chain, draw), correlations in both orders, for every fit."""
    kinds = named_draws(fit.design, fit.to_datatree()["posterior"].to_dataset())
    draws = {name: values for kind in KINDS for name, values in kinds[kind].items()}
    if kinds["sd"]:
        term = fit.design.term
        for a, b in correlated_pairs(fit.design):
            draws[f"corr({term[b]}, {term[a]})"] = draws[f"corr({term[a]}, {term[b]})"]
    if is_marginal(fit) and "sigma" in draws:
        draws[MARGINAL_SIGMA] = draws["sigma"]  # its label beside a fit with random effects
    if fit.design.family.name == "student_t":
        draws[SCALE_SIGMA] = draws["sigma"]  # beside a fit of another family
    return draws
