"""The collapsed density against dense matrices, finite differences and REML."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from collapsed_cases import CASES, make, random_points
from differences import relative_central
from priors_by_definition import as_written, natural, prior_of_beta, prior_of_theta
from samples import random_design
from textbook import dense_fit, marginal_covariance

from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.distributions import Normal
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.covariance.random import random_covariance
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.likelihood.criterion import Criterion

# --- the density, written down a second time -------------------------------------------------------------------------


def dense_log_posterior(design, priors, theta, y_scale):
    """log p(y, θ) with y ~ N(X m, V + X P⁻¹ X'), N × N."""
    sd, corr, sigma, _ = natural(design, theta, y_scale)
    V = marginal_covariance(design, as_written(design, priors, corr * np.outer(sd, sd)), sigma)
    mean = design.offset.copy()
    if design.coef:
        m, covariance = prior_of_beta(design, priors)
        mean += design.X @ m
        V = V + design.X @ covariance @ design.X.T
    L = np.linalg.cholesky(V)
    z = np.linalg.solve(L, design.y - mean)
    loglik = -0.5 * (z @ z + design.n_obs * np.log(2 * np.pi)) - np.log(np.diag(L)).sum()
    return loglik + prior_of_theta(design, priors, theta, y_scale)


@pytest.mark.parametrize("case", CASES)
def test_signed_standard_deviations_have_the_same_posterior(irregular, case):
    # u and -u share the density of sd = |u| s, so p(u) = p(log sd) s / (2 sd); a sign changes a row of correlations.
    design, priors = make(irregular, case)
    plain = collapsed_posterior(design, priors, signed=False)
    posterior = collapsed_posterior(design, priors, signed=True)
    posterior = replace(posterior, uncentering=np.eye(len(design.term)))  # where the priors are stated
    packed = unpack(posterior.buffer)
    n_sd = len(packed.sd_prior)
    for theta in random_points(posterior, 4):
        sd, factor, _ = posterior.natural(theta[None])
        logs = theta.copy()
        first = [int(np.flatnonzero(packed.sd_index == k)[0]) for k in range(n_sd)]
        logs[:n_sd] = np.log(sd[0][first])
        if design.covariance != "compound_symmetry":
            logs[n_sd:-1] = z_of_factor(factor[0], packed.cpc_index, n_sd, len(theta))
        expected = plain.log_density(logs)[0] - np.sum(np.log(2.0 * np.abs(theta[:n_sd])))
        value, exact = posterior.log_density(theta)
        assert value == pytest.approx(expected, rel=1e-10, abs=1e-8)
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6 * np.abs(exact).max())


def z_of_factor(factor, cpc_index, n_sd, m):
    """Fisher's z of the partial correlations of a factor whose rows may have changed sign."""
    R = factor @ factor.T
    L = np.linalg.cholesky(R)
    z = np.zeros(m - n_sd - 1)
    for i in range(len(L)):
        rest = 1.0
        for j in range(i):
            k = int(cpc_index[i, j])
            if k >= 0:
                c = L[i, j] / rest
                z[k - n_sd] = np.arctanh(c)
                rest *= np.sqrt(1.0 - c**2)
    return z


def test_standard_deviations_that_may_be_zero_are_signed(dental_design, sleepstudy):
    # dental's slopes hardly differ between children, sleepstudy's do.
    slopes = collapsed_posterior(dental_design, resolve_priors(None, dental_design))
    assert list(unpack(slopes.buffer).sd_prior[:, 5] > 0) == [False, True]
    design = design_from_formula(parse_formula("reaction ~ days + (days | subject)"), sleepstudy)
    clear = collapsed_posterior(design, resolve_priors(None, design))
    assert not np.any(unpack(clear.buffer).sd_prior[:, 5])


@pytest.mark.parametrize("case", CASES)
def test_density_equals_a_dense_normal(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    for theta in random_points(posterior, 4):
        expected = dense_log_posterior(design, priors, theta, posterior.products.scaling.y_scale)
        assert posterior.log_density(theta)[0] == pytest.approx(expected, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_gradient_equals_finite_differences(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    for theta in random_points(posterior, 4, seed=1):
        exact = posterior.log_density(theta)[1]
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("structure", ["unstructured", "diagonal", "identity"])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 6), (2, 4), (3, 3), (3, 6)])
def test_density_and_gradient_on_random_designs(q, p, balanced, structure):
    """The balanced ones have one pattern with compressed rows."""
    design = random_design(q * 10 + p, q, p, 40, 4, structure, balanced)
    priors = resolve_priors(None, design)
    posterior = collapsed_posterior(design, priors, signed=False)
    assert (posterior.products.n_patterns == 1) == balanced
    for theta in random_points(posterior, 2, seed=2):
        value, exact = posterior.log_density(theta)
        expected = dense_log_posterior(design, priors, theta, posterior.products.scaling.y_scale)
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-8)
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("case", ["p = 6", "slope", "three effects", "identity", "no intercept", "offset"])
def test_mode_is_stationary_and_the_root_whitens(irregular, case):
    posterior = collapsed_posterior(*make(irregular, case), signed=False)
    assert np.abs(posterior.log_density(posterior.mode)[1]).max() < 1e-3
    hessian = np.array(
        [
            (posterior.log_density(posterior.mode + e)[1] - posterior.log_density(posterior.mode - e)[1]) / 2e-5
            for e in 1e-5 * np.eye(len(posterior.mode))
        ]
    )
    assert np.linalg.eigvalsh(-hessian).min() > 0.05  # below it the root is another one
    np.testing.assert_allclose(-posterior.root.T @ hessian @ posterior.root, np.eye(len(posterior.mode)), atol=1e-4)


# --- the bridge to REML ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["p = 6", "slope", "three effects", "blocks", "by group", "no intercept", "offset"])
def test_flat_prior_limit_is_the_reml_criterion(irregular, case):
    """log p(y | θ) - ½ log|P₀| + ½ p log 2π -> -½ REML criterion, at any D and σ, as the priors of β widen."""
    design, _ = make(irregular, case)
    p = len(design.coef)
    error = []
    for widening in (1e2, 1e3, 1e6):
        wide = Priors(
            intercept=None if design.intercept is None else Normal(60.0, 100.0 * widening),
            beta={c: Normal(0.0, 100.0 * widening) for c in design.coef if c != "Intercept"},
        ).resolve(design)
        posterior = collapsed_posterior(design, wide, signed=False)
        scaling = posterior.products.scaling
        theta = np.random.default_rng(3).normal(scale=0.4, size=len(posterior.mode))
        sd, corr, sigma, _ = natural(design, theta, scaling.y_scale)
        loglik = posterior.log_density(theta)[0] - prior_of_theta(design, wide, theta, scaling.y_scale)
        log_det_precision = np.linalg.slogdet(wide.beta_normal()[1])[1]
        flat = loglik - 0.5 * log_det_precision + 0.5 * p * np.log(2 * np.pi)
        D = as_written(design, wide, corr * np.outer(sd, sd))
        reml = dense_fit(design, D, sigma, reml=True)[0]
        error.append(abs(flat + 0.5 * reml))
    assert error[1] == pytest.approx(error[0] / 100, rel=0.02)  # the limit is approached as the prior precision
    assert error[2] < 1e-8 * abs(reml)

    # And the same number from the function that fit_reml() minimises, with σ not profiled out.
    structure = random_covariance(design.covariance, design.blocks)
    criterion = Criterion(posterior.products, structure, reml=True)
    lam = structure.parameters(scaling.Bz @ D @ scaling.Bz.T / sigma**2)
    assert criterion.joint(np.append(lam, theta[-1]))[0] == pytest.approx(-2 * flat, rel=1e-9)
