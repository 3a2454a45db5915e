"""Draws and summaries of beta and b after theta, against dense conditionals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from collapsed_cases import make, random_points
from draws import check_moments
from priors_by_definition import as_written, natural, prior_of_beta
from textbook import dense_fit, marginal_covariance

from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.moments import summarise_random_effects
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.recover import draw_random_effects, recover_beta
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula


def dense_recovery(design, priors, D, sigma):
    """β | y, θ and b | y, θ (mean, covariance), and the gain and residual that make b | y, β, θ."""
    Vinv = np.linalg.inv(marginal_covariance(design, D, sigma))
    m, S = prior_of_beta(design, priors)
    y = design.y - design.offset
    covariance = np.linalg.inv(np.linalg.inv(S) + design.X.T @ Vinv @ design.X)
    beta = covariance @ (np.linalg.solve(S, m) + design.X.T @ Vinv @ y)
    J, q = design.n_subjects, len(design.term)
    mean, var, gain = np.empty((J, q)), np.empty((J, q, q)), []
    for j in range(J):
        rows = design.subject_index == j
        G = D @ design.Z[rows].T @ Vinv[np.ix_(rows, rows)]
        gain.append(G)
        mean[j] = G @ (y[rows] - design.X[rows] @ beta)
        K = G @ design.X[rows]
        var[j] = D - G @ design.Z[rows] @ D + K @ covariance @ K.T
    return beta, covariance, mean, var, gain


RECOVERY = ["intercept", "slope", "three effects", "identity", "blocks", "by group", "no intercept", "offset", "chosen"]


@pytest.mark.parametrize("case", RECOVERY)
def test_draws_of_beta_and_b_have_the_exact_conditional_distribution(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    theta = random_points(posterior, 1, seed=4)[0]
    sd, corr, sigma, _ = natural(design, theta, posterior.products.scaling.y_scale)
    D = as_written(design, priors, corr * np.outer(sd, sd))
    sd = np.sqrt(np.diag(D))
    corr = D / np.outer(sd, sd)
    S, rng = 40_000, np.random.default_rng(9)
    found = recover_beta(posterior, np.tile(theta, (S, 1)), rng)
    np.testing.assert_allclose(found.sd[0], sd, rtol=1e-12)
    np.testing.assert_allclose(found.corr[0], corr, atol=1e-12)
    np.testing.assert_allclose(found.D[-1], corr * np.outer(sd, sd), rtol=1e-10, atol=1e-12)
    assert found.sigma[0] == pytest.approx(sigma, rel=1e-12)
    b = draw_random_effects(posterior, found, rng)
    mean_beta, cov_beta, mean, var, gain = dense_recovery(design, priors, found.D[0], sigma)
    check_moments(found.beta, mean_beta, cov_beta)
    for j in range(design.n_subjects):
        check_moments(b[:, j], mean[j], var[j])
    # Jointly: Cov(b_i, β) = -K_i Cov(β), and given β the draws of b have mean G_i (y_i - X_i β).
    for j in (0, design.n_subjects - 1):
        rows = design.subject_index == j
        residual = (design.y - design.offset)[rows] - found.beta @ design.X[rows].T
        centred = b[:, j] - residual @ gain[j].T
        check_moments(centred, np.zeros(len(sd)), found.D[0] - gain[j] @ design.Z[rows] @ found.D[0])
        scaled = centred / centred.std(axis=0)
        moves = (found.beta - mean_beta) / np.sqrt(np.diag(cov_beta))
        assert np.abs(scaled.T @ moves / S).max() < 5 / np.sqrt(S)
        # One draw tells nothing of the next: (β, b) adds no dependence to that of θ, and b needs no R-hat of its own.
        for values in (scaled, moves):
            assert np.abs(values[1:].T @ values[:-1] / S).max() < 5 / np.sqrt(S)


@pytest.mark.parametrize("case", RECOVERY)
def test_rao_blackwell_summary_equals_the_average_of_dense_conditionals(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.4, size=(25, len(posterior.mode)))
    found = recover_beta(posterior, theta, np.random.default_rng(2))
    means, variances = [], []
    for D, sigma in zip(found.D, found.sigma, strict=True):
        _, _, mean, var, _ = dense_recovery(design, priors, D, sigma)
        means.append(mean)
        variances.append(np.einsum("jkk->jk", var))
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sd**2, np.mean(variances, axis=0) + np.var(means, axis=0), rtol=1e-8)


@pytest.mark.parametrize("formula", ["y ~ x + (1 + x | g)", "y ~ x * w + (1 + x | g)", "y ~ w + (1 | g)"])
def test_rao_blackwell_summary_of_balanced_data_is_exact(formula):
    """Where subjects share a design pattern their moments come from shared forms (and pieces of a few alone)."""
    rng = np.random.default_rng(12)
    counts = np.array([4] * 11 + [3] * 2)
    frame = pd.DataFrame({"g": np.repeat(np.arange(13), counts)})
    frame["x"] = np.concatenate([np.arange(float(n)) for n in counts])
    frame["w"] = rng.normal(size=13)[frame["g"]]
    frame["y"] = 5.0 + rng.normal(size=13)[frame["g"]] * (1 + frame["x"]) + rng.normal(size=len(frame))
    design = design_from_formula(parse_formula(formula), frame)
    priors = resolve_priors(None, design)
    posterior = collapsed_posterior(design, priors, signed=False)
    assert np.bincount(posterior.products.pattern).tolist() in ([11, 2], [2, 11])
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.4, size=(25, len(posterior.mode)))
    found = recover_beta(posterior, theta, np.random.default_rng(2))
    each = [dense_recovery(design, priors, D, sigma)[2:4] for D, sigma in zip(found.D, found.sigma, strict=True)]
    means, variances = np.array([m for m, _ in each]), np.array([np.einsum("jkk->jk", v) for _, v in each])
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sd**2, variances.mean(axis=0) + means.var(axis=0), rtol=1e-8)


def test_nothing_fixed_is_recovered_too(irregular):
    design, priors = make(irregular, "nothing fixed")
    posterior = collapsed_posterior(design, priors, signed=False)
    found = recover_beta(posterior, np.tile(posterior.mode, (20_000, 1)), np.random.default_rng(3))
    assert found.beta.shape == (20_000, 0)
    b = draw_random_effects(posterior, found, np.random.default_rng(4))
    *_, blup, covariance = dense_fit(design, found.D[0], found.sigma[0], reml=False)
    for j in range(design.n_subjects):
        check_moments(b[:, j], blup[j], covariance[j])
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, blup, rtol=1e-8)
    np.testing.assert_allclose(sd, np.sqrt(np.einsum("jkk->jk", covariance)), rtol=1e-8)


def test_numpy_and_the_compiled_loop_draw_the_same_random_effects(irregular, monkeypatch):
    from hierlmm.bayes import recover

    design, priors = make(irregular, "slope")
    posterior = collapsed_posterior(design, priors)
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.3, size=(40, len(posterior.mode)))
    natural = recover_beta(posterior, theta, np.random.default_rng(2))
    few = draw_random_effects(posterior, natural, np.random.default_rng(3))
    monkeypatch.setattr(recover, "FEW", 0)
    many = draw_random_effects(posterior, natural, np.random.default_rng(3))
    np.testing.assert_allclose(few, many, rtol=1e-9, atol=1e-9 * np.abs(many).max())
