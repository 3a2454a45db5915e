"""Several grouping factors as an explicit hierarchy in PyMC, every factor with dimensions of its own.

    y_i = offset_i + x_i'beta + sum_k z_ik'b_k[group of row i in factor k] + e_i,      e_i ~ N(0, sigma²)
    b_kj = F_k z_kj,   z_kj ~ N(0, I),   D_k = F_k F_k'

for every group j of every factor k, or centred, ``b_kj ~ N(0, D_k)`` sampled as it is: ``b_batch`` (batch, batch_term)
beside ``z_batch``; ``sd_b`` and ``corr_b`` have the standard deviations and correlations of all factors, one after the
other. Of another family the sum is the linear predictor ``eta``, and the response as in `explicit_family`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import as_pymc_variable
from hierlmm.bayes.explicit import (
    beta_draws,
    fixed_effects,
    product,
    pymc_module,
    random_covariance_draws,
    random_covariance_variables,
)
from hierlmm.bayes.explicit_family import dispersion_draws, family_response
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import effects_names, factor_dims, model_coords
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.generalised import maximise_generalised

if TYPE_CHECKING:
    import pymc as pm


def determined_factors(design: Design) -> tuple[str, ...]:
    """Factors whose effects the rows determine more than D does: better sampled as they are, centred.

    At the estimate by REML (of other families by maximum likelihood) the conditional variance of an effect given y is
    then below half of that in D, on average over groups and effects (Papaspiliopoulos, Roberts & Sköld 2007); what
    other factors blur counts. Effects of other factors are sampled as standardised ones.
    """
    found: Any = (maximise_design(design, reml=True) if design.is_gaussian else maximise_generalised(design)).solution
    spread, chosen = [own.covariance if design.is_gaussian else own[1] for own in found.by_factor], []
    for k, (term, covariance) in enumerate(zip(design.random, spread, strict=True)):
        before, after = np.diag(found.D[own_part(design, k)]), np.einsum("jaa->a", covariance)
        if np.all(before > 0.0) and np.mean(after / (len(covariance) * before)) < 0.5:
            chosen.append(term.columns.group)
    return tuple(chosen)


def build_factor_model(design: Design, priors: ResolvedPriors, centred: Sequence[str] = ()) -> pm.Model:
    """Build the explicit hierarchy of a design with several grouping factors.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors
    centred : sequence of str
        Factors whose random effects are free variables themselves; those of others are made of standardised ones,
        ``z_batch``.

    Returns
    -------
    pymc.Model
        With the variables ``beta`` (coef), ``sd_b`` (term), ``corr_b`` (pair of terms), the random effects of every
        factor (``b_batch``, with dimensions ``batch`` and ``batch_term``), ``mu`` (obs), ``sigma`` and the observed
        ``y`` (obs); of another family ``eta`` (obs) as well, and its dispersion in the place of ``sigma``.
    """
    pm = pymc_module()
    with pm.Model(coords=model_coords(design)) as model:
        beta, mu = fixed_effects(design, priors), design.offset
        if beta is not None:
            mu = mu + pm.math.dot(design.X, beta)
        factor = random_covariance_variables(design, priors, fold=True)
        for k, (name, dims) in enumerate(zip(effects_names(design), factor_dims(design), strict=True)):
            own, term = own_part(design, k), design.random[k]
            moved = bool(np.any(priors.random_center[own[0]]))
            if term.columns.group in centred:
                free = f"{name}_centered" if moved else name
                if factor.ndim == 1:
                    b = pm.Normal(free, 0.0, factor[own[0]], dims=dims)
                else:
                    b = pm.MvNormal(free, np.zeros(term.Z.shape[1]), chol=factor[own], dims=dims)
            else:
                moved, z = True, pm.Normal(f"z{name[1:]}", 0.0, 1.0, dims=dims)
                b = z * factor[own[0]] if factor.ndim == 1 else product(z, factor[own].T, term.Z.shape[1])
            if np.any(priors.random_center[own[0]]):
                b = product(b, priors.random_uncentering[own].T, term.Z.shape[1])
            b = pm.Deterministic(name, b, dims=dims) if moved else b
            mu = mu + (term.Z * b[term.group.index]).sum(axis=1)
        if not design.is_gaussian:
            family_response(design, priors, pm.Deterministic("eta", mu, dims="obs"))
            return model
        sigma: Any = as_pymc_variable("sigma", [priors.sigma], None, ["sigma"])
        pm.Normal("y", pm.Deterministic("mu", mu, dims="obs"), sigma, observed=design.y, dims="obs")
    return model


def factor_draws_of_model(
    design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Compute the model's named variables from draws (chain, draw, ...) of its free ones, as its Deterministics do."""
    sd, L = random_covariance_draws(design, priors, raw)
    half = sd[..., None] * L
    corr = L @ np.swapaxes(L, -1, -2)
    corr[..., np.arange(sd.shape[-1]), np.arange(sd.shape[-1])] = 1.0
    level1 = {"sigma": raw["sigma"]} if design.is_gaussian else dispersion_draws(design, raw)
    found = {"sd_b": sd, "corr_b": corr, "D": corr * sd[..., None] * sd[..., None, :], **level1}
    for k, name in enumerate(effects_names(design)):
        rows, columns = own_part(design, k)
        if name in raw:
            found[name] = raw[name]
        elif f"{name}_centered" in raw:
            found[name] = raw[f"{name}_centered"] @ priors.random_uncentering[rows, columns].T
        else:
            found[name] = raw[f"z{name[1:]}"] @ np.swapaxes(half[..., rows, columns], -1, -2)
    return {"beta": beta_draws(design, priors, raw), **found} if priors.coef else found
