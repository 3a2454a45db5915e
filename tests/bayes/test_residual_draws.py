"""What follows from draws of a residual structure: beta, b, replicates, log-likelihoods, prints."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pytest
from draws import check_moments
from priors_by_definition import as_written, natural, prior_of_beta
from residual_by_definition import frozen, where_ratio_is_one
from scipy import stats
from structures_by_definition import (
    CORRELATIONS,
    VARIANCES,
    build,
    second_definition,
)
from textbook import marginal_covariance

import hierlmm as hl
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.predictive import posterior_predictive_draws
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.errors import FitWarning, NotAvailableError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.residual_rows import residual_rows

QUIET = {"progressbar": False}
RECOVERY = [("AR1, nugget", "VarIdent", 2), ("Unstructured", "VarIdent", 1), ("Exponential", "VarExp", 1)]


@pytest.mark.parametrize("case", RECOVERY, ids=lambda c: f"{c[0]} + {c[1]}, q = {c[2]}")
def test_beta_and_b_have_the_exact_conditional_distribution(thirty, case):
    """One (θ, η) many times: the draws are those of the dense conditional, and the summary is its mean and SD."""
    pair, q = case[:2], case[2]
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    priors = resolve_priors(None, design)
    posterior = residual_posterior(design, priors, signed=False)
    point = posterior.mode + np.random.default_rng(2).normal(scale=0.3, size=len(posterior.mode))
    S = 3000
    found = posterior.conditional(np.tile(point, (S, 1)), np.random.default_rng(3), "draws")
    sd, corr, sigma, _ = natural(design, point[: posterior.n_theta], posterior.products.scaling.y_scale)
    D = as_written(design, priors, corr * np.outer(sd, sd))
    residual = second_definition(pair, design, posterior.rows.report(point[posterior.n_theta :]))
    sigma = where_ratio_is_one(design, sigma, residual)
    Vinv = np.linalg.inv(marginal_covariance(design, D, sigma, residual))
    m, prior = prior_of_beta(design, priors)
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.X.T @ Vinv @ design.X)
    beta = covariance @ (np.linalg.solve(prior, m) + design.X.T @ Vinv @ design.y)
    check_moments(found.natural.beta, beta, covariance)
    few = posterior.conditional(np.tile(point, (3, 1)), np.random.default_rng(3), "summary")
    for j in (0, 7, 13, 29):
        rows = design.subject_index == j
        gain = D @ design.Z[rows].T @ Vinv[np.ix_(rows, rows)]
        mean, K = gain @ (design.y[rows] - design.X[rows] @ beta), gain @ design.X[rows]
        variance = D - gain @ design.Z[rows] @ D + K @ covariance @ K.T
        check_moments(found.b[:, j], mean, variance)
        np.testing.assert_allclose(few.summary[0][j], mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(few.summary[1][j], np.sqrt(np.diag(variance)), rtol=1e-7)
    shown = np.concatenate([part[0] for part in found.reported.values()])
    np.testing.assert_allclose(shown, list(posterior.rows.report(found.eta[0]).values()))


def test_summary_of_random_effects_is_that_of_the_draws(range_and_intercept, fitted):
    summary = fit_of(
        sample_collapsed(
            range_and_intercept.design,
            range_and_intercept.priors,
            draws=1000,
            seed=3,
            random_effects="summary",
            **QUIET,
        )
    )
    draws = fitted.draws("b")[..., 0]
    error = [float(az.mcse(draws[..., j], method="mean")) for j in range(draws.shape[2])]
    assert np.abs((summary.b.to_numpy()[:, 0] - draws.mean(axis=(0, 1))) / error).max() < 4.5
    np.testing.assert_allclose(summary.b_sd.to_numpy()[:, 0], draws.std(axis=(0, 1)), rtol=0.12)
    np.testing.assert_array_equal(summary.draws("sigma"), fitted.draws("sigma"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        none = fit_of(
            sample_collapsed(
                range_and_intercept.design,
                range_and_intercept.priors,
                draws=50,
                chains=2,
                random_effects="none",
                seed=3,
                **QUIET,
            )
        )
    assert "b" not in none.datatree["posterior"]
    with pytest.raises(NotAvailableError, match="random effects"):
        _ = none.b


@pytest.mark.parametrize("pair", [("AR1, nugget", "VarIdent"), ("Toeplitz", "VarPower")], ids=" + ".join)
def test_replicates_have_the_covariance_of_the_model(thirty, pair):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1).design
    rows = residual_rows(design)
    eta = np.array([p.unconstrained(p.start) for p in rows.parameters]) + 0.4
    S, sd, sigma, rng = 4000, 1.3, 0.8, np.random.default_rng(0)
    beta, b = np.tile([50.0, 1.0, 2.0, 0.5], (S, 1)), sd * rng.standard_normal((S, design.n_subjects, 1))
    y = posterior_predictive_draws(design, beta, b, np.full(S, sigma), rng, np.tile(eta, (S, 1)))
    V = marginal_covariance(design, np.array([[sd**2]]), sigma, second_definition(pair, design, rows.report(eta)))
    for j in (0, 5, 13):
        own = np.flatnonzero(design.subject_index == j)
        check_moments(y[:, own], design.X[own] @ beta[0], V[np.ix_(own, own)])


def test_predictive_draws_of_fits(fitted, fitted_marginal):
    for fit in (fitted, fitted_marginal):
        replicated = fit.posterior_predictive(draws=100, seed=1)["posterior_predictive"]["y"]
        assert replicated.shape == (4, 100, fit.n_obs)
        spread = float(replicated.mean()), float(replicated.std())
        assert spread[0] == pytest.approx(fit.design.y.mean(), abs=1.0)
        assert spread[1] == pytest.approx(fit.design.y.std(), rel=0.15)
        prior = fit.prior_predictive(draws=200, seed=1)
        values = prior["prior"]["residual_correlation"].to_numpy()
        assert values.shape == (1, 200, len(fit.residual_estimate.correlation_parameters))
        for k, p in enumerate(residual_rows(fit.design).parameters[: values.shape[2]]):
            assert ((values[..., k] > p.lower) & (values[..., k] < p.upper)).all()
        assert prior["prior_predictive"]["y"].shape == (1, 200, fit.n_obs)


def test_prior_draws_follow_the_priors(thirty):
    chosen = hl.Priors(residual={"rho": hl.Normal(0.8, 0.4), "ratio(b/a)": hl.Gamma(2, 1)})
    model = build(thirty, hl.AR1("occasion"), hl.VarIdent("group"), 0)
    from hierlmm.bayes.predictive import prior_draws

    made = prior_draws(model.design, resolve_priors(chosen, model.design), 4000, np.random.default_rng(0))
    rho = stats.truncnorm((-1 - 0.8) / 0.4, (1 - 0.8) / 0.4, 0.8, 0.4)
    assert stats.kstest(made["residual_correlation"][:, 0], rho.cdf).pvalue > 1e-3
    assert stats.kstest(made["residual_variance"][:, 0], stats.gamma(2).cdf).pvalue > 1e-3
    default = resolve_priors(None, model.design).residual[2]
    assert stats.kstest(made["residual_variance"][:, 1], frozen(default).cdf).pvalue > 1e-3


def test_log_likelihood_of_subjects_is_that_of_dense_normals(fitted, fitted_marginal):
    for fit, pair in ((fitted, ("Exponential", "equal")), (fitted_marginal, ("AR1, nugget", "VarIdent"))):
        design = fit.design
        values = fit.log_likelihood("subject")["log_likelihood"]["y"].to_numpy()
        for chain, draw in ((0, 0), (3, 777)):
            D = fit.draws("D")[chain, draw] if design.term else np.empty((0, 0))
            report = fit.residual_at(fit.residual_draws()[chain, draw]).parameters
            sigma = float(fit.draws("sigma")[chain, draw])
            V = marginal_covariance(design, D, sigma, second_definition(pair, design, report))
            mean = design.X @ fit.draws("beta")[chain, draw]
            for j in (0, 13, 29):
                own = np.flatnonzero(design.subject_index == j)
                expected = stats.multivariate_normal(mean[own], V[np.ix_(own, own)]).logpdf(design.y[own])
                assert values[chain, draw, j] == pytest.approx(expected, rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = fitted.loo()
    assert result.elpd < fitted.log_likelihood("subject")["log_likelihood"]["y"].to_numpy().sum(axis=2).max()


def test_leaving_one_measurement_out_needs_independent_rows(thirty, fitted):
    with pytest.raises(NotAvailableError, match="correlated given all parameters"):
        fitted.loo("observation")
    model = build(thirty, None, hl.VarIdent("group"), 0, "y ~ t")
    fit = fit_of(sample_collapsed(model.design, model.priors, draws=400, seed=1, **QUIET))
    values = fit.log_likelihood("observation")["log_likelihood"]["y"].to_numpy()
    by_subject = fit.log_likelihood("subject")["log_likelihood"]["y"].to_numpy()
    totals = np.stack([values[..., model.design.subject_index == j].sum(axis=-1) for j in range(30)], axis=-1)
    np.testing.assert_allclose(totals, by_subject, rtol=1e-10)


def test_prints(fitted, fitted_marginal):
    text = repr(fitted)
    assert "Exponential" in text and "range" in text and "LogNormal" in text
    text = repr(fitted_marginal)
    assert "Marginal model, posterior by NUTS" in text
    for name in ("rho", "nugget", "ratio(b/a)", "ratio(c/a)"):
        assert name in text and name in fitted_marginal._repr_html_()
    components = fitted_marginal.variance_components()
    assert list(components.index) == ["rho", "nugget", "ratio(b/a)", "ratio(c/a)", "sigma"]
    assert (components["lower"] < components["estimate"]).all() and (components["estimate"] < components["upper"]).all()
    with pytest.raises(NotAvailableError, match="marginal model"):
        _ = fitted_marginal.b


def test_residual_estimate_is_the_structure_at_the_mean_of_eta(fitted_marginal):
    mean = fitted_marginal.residual_draws().mean(axis=(0, 1))
    found = fitted_marginal.residual_estimate
    np.testing.assert_allclose(found.eta, mean)
    subject = fitted_marginal.design.subjects[2]
    rows = np.flatnonzero(fitted_marginal.design.subject_index == 2)
    pair = ("AR1, nugget", "VarIdent")
    sigma = second_definition(pair, fitted_marginal.design, found.parameters)[np.ix_(rows, rows)]
    V = fitted_marginal.marginal_covariance(subject)
    ratio = np.asarray(V) / sigma
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)
