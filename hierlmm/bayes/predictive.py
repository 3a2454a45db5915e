"""What the model predicts, in numpy from draws: log-likelihood, replicated data, and draws from the prior.

The log-likelihood here is the conditional one, y_i | b_i ~ N(X_i beta + Z_i b_i, sigma² I); the marginal one, per
subject, is `hierlmm.likelihood.by_subject.subject_loglik`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import as_response, dataset, effects_names, icc, response_name
from hierlmm.covariance.random import equal_correlations, lowest_corr, sheared
from hierlmm.design.design import Design, own_effects
from hierlmm.errors import HierlmmError, NotAvailableError
from hierlmm.families.family import Family
from hierlmm.likelihood.residual_rows import ResidualRows, residual_names, residual_rows
from hierlmm.options import check_counts

LARGEST = 1e15
"""Largest mean from which a response is drawn: priors allow counts that no generator can draw."""


def factor_lines(
    design: Design, beta: FloatArray, draws: Mapping[str, FloatArray], factors: Sequence[int]
) -> FloatArray:
    """Expected response of every row given the random effects of some of several grouping factors, (..., N)."""
    lines, names = beta @ design.X.T + design.offset, effects_names(design)
    for k in factors:
        term = design.random[k]
        for a in range(term.Z.shape[1]):
            lines = lines + term.Z[:, a] * draws[names[k]][..., term.group.index, a]
    return lines


def effect_lines(design: Design, beta: FloatArray, draws: Mapping[str, FloatArray]) -> FloatArray:
    """The same given all random effects, by the variables of a tree (`effects_names`)."""
    if design.has_several_factors:
        return factor_lines(design, beta, draws, range(len(design.random)))
    return subject_lines(design, beta, draws["b"])


def subject_lines(design: Design, beta: FloatArray, b: FloatArray) -> FloatArray:
    """Expected response of every row given the random effects, (..., N), from beta (..., p) and b (..., J, q)."""
    lines = beta @ design.X.T + design.offset
    for k in range(design.own_Z.shape[1]):
        lines = lines + design.own_Z[:, k] * b[..., design.subject_index, k]
    return lines


def new_effects(design: Design, root: FloatArray, rng: np.random.Generator, *shape: int) -> FloatArray:
    """Random effects of new subjects of the same groups, (*shape, J, q), from a root of D, or one for each draw."""
    noise = rng.standard_normal((*shape, design.n_subjects, root.shape[-1]))
    return own_effects(design, noise @ np.swapaxes(root, -1, -2))


def conditional_log_likelihood(design: Design, beta: FloatArray, b: FloatArray, sigma: FloatArray) -> FloatArray:
    """Pointwise log density of y given the random effects, (..., N); sigma is (...), or (..., N) by row."""
    return normal_log_density(design.y, subject_lines(design, beta, b), sigma)


def normal_log_density(y: FloatArray, lines: FloatArray, sigma: FloatArray) -> FloatArray:
    """Log density of responses around their lines, (..., N); sigma is (...), or (..., N) by row."""
    scale = np.asarray(sigma)
    if scale.ndim < lines.ndim:
        scale = scale[..., None]
    z = (y - lines) / scale
    return -0.5 * z**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def residual_sd_ratios(design: Design, eta: FloatArray) -> FloatArray:
    """Residual SD over σ of every row, (..., N), from unconstrained residual parameters (..., k)."""
    rows = residual_rows(design)
    if rows.variance is None:
        return np.ones((*eta.shape[:-1], design.n_obs))
    flat = as_rows(eta)[:, rows.n_correlation :]
    out = np.empty((len(flat), design.n_obs))
    for s, own in enumerate(flat):
        out[s, rows.rows.order] = np.exp(rows.variance.log_ratio(own))
    return out.reshape(*eta.shape[:-1], design.n_obs)


def posterior_predictive_draws(
    design: Design,
    beta: FloatArray,
    b: FloatArray,
    sigma: FloatArray,
    rng: np.random.Generator,
    eta: FloatArray | None = None,
) -> FloatArray:
    """Replicated responses of the same subjects, (..., N); eta (..., k) are the residual parameters, if any."""
    lines = subject_lines(design, beta, b)
    noise = rng.standard_normal(lines.shape)
    if eta is not None and eta.shape[-1]:
        noise = residual_rows(design).colour(eta, noise)
    return lines + np.asarray(sigma)[..., None] * noise


def prior_draws(design: Design, priors: ResolvedPriors, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draw parameters, random effects and responses from the prior.

    Returns
    -------
    dict of str to (draws, ...)
        ``beta``, ``sd_b``, ``corr_b``, ``D``, ``b``, ``sigma``, ``y`` (draws, N), and what tables show of a residual
        structure: ``residual_correlation``, ``residual_variance``.
    """
    made, eta = prior_draws_with_eta(design, priors, draws, rng)
    return made | (reported(residual_rows(design), eta) if design.has_residual_structure else {})


def prior_draws_with_eta(
    design: Design, priors: ResolvedPriors, draws: int, rng: np.random.Generator, *, subjects: bool = True
) -> tuple[dict[str, Any], FloatArray]:
    """As `prior_draws`, with the unconstrained residual parameters (draws, k) in place of what tables show of them.

    Of another family these are its dispersion parameters ψ.
    Without ``subjects`` the parameters alone, no ``b`` and no ``y``, which are most of the work.
    """
    q, J = len(design.term), design.n_subjects
    centred = [p.sample(rng, draws) for p in priors.beta]
    beta = np.column_stack(centred) @ priors.uncentering.T if centred else np.empty((draws, 0))
    if priors.common_sd:
        each = [priors.sd_b[k].sample(rng, draws) for k in range(0, q, priors.n_own)]
        sd = np.repeat(np.column_stack(each), priors.n_own, axis=1)
    else:
        sd = np.column_stack([p.sample(rng, draws) for p in priors.sd_b]) if q else np.empty((draws, 0))
    L = np.zeros((draws, q, q))
    L[:, np.arange(q), np.arange(q)] = 1.0
    if priors.corr_b is not None and priors.common_sd:
        low, shapes = lowest_corr(priors.n_own), priors.corr_b.equal_shapes(priors.n_own)
        unit = np.column_stack([rng.beta(*shapes, draws) for _ in range(priors.n_groups)])
        L = equal_correlations(low + (1.0 - low) * unit, design.terms.by_subject.parts)
    elif priors.corr_b is not None:
        for block in design.blocks:
            L[:, np.array(block)[:, None], np.array(block)] = priors.corr_b.sample_cholesky(rng, len(block), draws)
    sd, L = sheared(priors.random_uncentering, sd, L)
    corr = L @ np.swapaxes(L, -1, -2)
    corr[:, np.arange(q), np.arange(q)] = 1.0
    noise = rng.standard_normal((draws, J, q)) if subjects else np.empty((draws, 0, q))
    b = np.einsum("sjk,slk->sjl", noise, sd[..., None] * L, optimize=True)
    b = own_effects(design, b) if subjects else b
    parameters = {"beta": beta, "sd_b": sd, "corr_b": corr, "D": corr * sd[..., None] * sd[:, None, :]}
    if not design.is_gaussian:
        level1, psi = _prior_dispersion(design, priors, draws, rng)
        if not subjects:
            return parameters | level1, psi
        y = family_responses(design, subject_lines(design, beta, b), psi, rng)
        return {**parameters, **level1, "b": b, "y": y}, psi
    sigma = priors.sigma.sample(rng, draws)
    eta = _prior_eta(design, priors, draws, rng)
    if design.residual_variance is not None and design.residual_variance.centred:  # the prior is of the average row
        rows = residual_rows(design)
        sigma = sigma * np.exp([-rows.shift(e) for e in eta])
    parameters["sigma"] = sigma
    if not subjects:
        return parameters, eta
    return parameters | {"b": b, "y": posterior_predictive_draws(design, beta, b, sigma, rng, eta)}, eta


def prior_parameters(design: Design, priors: ResolvedPriors, draws: int, seed: int | None) -> Any:
    """Draws of the parameters alone from the prior: dataset of one chain, without random effects."""
    check_counts(draws=draws)
    made, eta = prior_draws_with_eta(design, priors, draws, np.random.default_rng(seed), subjects=False)
    made |= reported(residual_rows(design), eta) if design.has_residual_structure else {}
    return dataset(design, _there(design, made))


def prior_tree(design: Design, priors: ResolvedPriors, draws: int, seed: int | None) -> dict[str, Any]:
    """Groups ``prior`` and ``prior_predictive`` of a tree, one chain of draws."""
    import xarray as xr

    check_counts(draws=draws)
    drawn = prior_draws(design, priors, draws, np.random.default_rng(seed))
    y = as_response(design, drawn.pop("y"))[None]
    made = _there(design, drawn)
    groups = {
        "prior": made | (icc(design, made) if design.is_gaussian else {}),
        "prior_predictive": {response_name(design): y},
    }
    return {name: xr.DataTree(dataset(design, values)) for name, values in groups.items()}


def _there(design: Design, drawn: dict[str, Any]) -> dict[str, Any]:
    """One chain of what the model has."""
    absent = [*([] if design.coef else ["beta"]), *([] if design.term else ["sd_b", "corr_b", "D", "b"])]
    return {name: values[None] for name, values in drawn.items() if name not in absent}


def _prior_dispersion(
    design: Design, priors: ResolvedPriors, draws: int, rng: np.random.Generator
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Dispersion parameters of another family by variable, and as ψ (draws, m), from their priors."""
    psi = np.log(np.column_stack([p.sample(rng, draws) for p in priors.dispersion] or [np.empty((draws, 0))]))
    rows = [design.family.natural(own) for own in psi]
    return {name.replace(" ", "_"): np.array([row[name] for row in rows]) for name in rows[0]}, psi


def family_responses(design: Design, eta: FloatArray, psi: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw responses of another family at linear predictors (S, N) and ψ (S, m): (S, N)."""
    return drawn_responses(design.family, eta, psi, design.trials, rng)


def drawn_responses(
    family: Family, eta: FloatArray, psi: FloatArray, trials: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The same of any rows, whose numbers of trials are ``trials`` (N,).

    Raises
    ------
    NotAvailableError
        Where a linear predictor leads out of the range of a mean.
    """
    found = np.empty(eta.shape)
    for s, own in enumerate(eta):
        mu = own if family.name == "ordinal" else np.minimum(family.mean(own), LARGEST)
        try:
            found[s] = family.draw(rng, mu, psi[s], trials)
        except HierlmmError:
            raise
        except ValueError as error:  # of numpy's generator
            received = f"draws of a {family.title} response at means from {np.min(mu):.3g} to {np.max(mu):.3g}"
            reason = f"the {family.link} link does not keep means inside their range, and nothing is drawn outside it"
            remedy = f"use the {family.links[0]} link, or ask for means instead of responses"
            raise NotAvailableError(received, reason, remedy, "docs, page 'Families'") from error
    return found


def _prior_eta(design: Design, priors: ResolvedPriors, draws: int, rng: np.random.Generator) -> FloatArray:
    """Unconstrained residual parameters from their priors, cut off at the parameters' ranges: (draws, k)."""
    if not design.has_residual_structure:
        return np.empty((draws, 0))
    columns = []
    for parameter, prior in zip(residual_rows(design).parameters, priors.residual, strict=True):
        values = np.atleast_1d(prior.sample(rng, draws))
        for _ in range(1000):
            outside = ~((values > parameter.lower) & (values < parameter.upper))
            if not outside.any():
                break
            values[outside] = prior.sample(rng, int(outside.sum()))
        columns.append([parameter.unconstrained(float(v)) for v in values])
    return np.array(columns).T


def reported(rows: ResidualRows, eta: FloatArray) -> dict[str, FloatArray]:
    """What tables show of the residual structure at each η (S, k), by posterior variable."""
    values = np.array([list(rows.report(e).values()) for e in eta]).reshape(len(eta), -1)
    found, at = {}, 0
    for variable, names in residual_names(rows).items():
        if names:
            found[variable] = values[:, at : at + len(names)]
        at += len(names)
    return found
