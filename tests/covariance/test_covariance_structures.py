"""Compound-symmetric D: one variance and one correlation, by REML, ML and NUTS."""

import json

import numpy as np
import pandas as pd
import pytest
from draws import largest_difference
from pymc_density import evaluate
from references import references_of
from scipy import stats
from textbook import dense_fit

import hierlmm as hl
from hierlmm.bayes.distributions import LKJ
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.covariance.random import (
    compound_symmetry_corr,
    equal_correlation_factor,
    lowest_corr,
    random_covariance,
)
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products

STRUCTURES = references_of("structures")
FORMULA = "reaction ~ days + (1 + days | subject)"
PHASE = "reaction ~ days + (0 + phase | subject)"


def reference(name):
    return json.loads((STRUCTURES / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def phases(sleepstudy):
    phase = np.select([sleepstudy["days"] < 3, sleepstudy["days"] < 6], ["a", "b"], "c")
    return sleepstudy.assign(phase=phase)


def model(data, formula=FORMULA, **options):
    return hl.TwoLevelModel.from_formula(formula, data, covariance="compound_symmetry", **options)


def equal(q, sd, corr):
    return sd**2 * ((1 - corr) * np.eye(q) + corr * np.ones((q, q)))


@pytest.mark.parametrize(
    ("name", "formula", "method"),
    [
        ("sleepstudy_compsymm_reml", FORMULA, "fit_reml"),
        ("sleepstudy_compsymm_ml", FORMULA, "fit_ml"),
        ("sleepstudy_phase_compsymm_reml", PHASE, "fit_reml"),
    ],
)
def test_agrees_with_nlme(phases, name, formula, method):
    ref = reference(name)
    fit = getattr(model(phases, formula), method)()
    assert fit.converged
    assert fit.n_parameters == 5  # two of β, two of D, σ
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    np.testing.assert_allclose(fit.beta, list(ref["coef"].values()), rtol=1e-6)
    np.testing.assert_allclose(fit.beta_se, list(ref["se"].values()), rtol=1e-5)
    np.testing.assert_allclose(fit.D, ref["D"], rtol=1e-4)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-5)
    table = fit.variance_components()
    assert list(table.index) == ["sd(all random effects)", "corr(all random effects)", "sigma"]
    # nlme differences its Hessian numerically: its intervals have about three digits.
    for row, interval in zip(table.index, (ref["sd"], ref["corr"], ref["sigma_interval"]), strict=True):
        got = table.loc[row, ["lower", "estimate", "upper"]].to_numpy(dtype=float)
        np.testing.assert_allclose(got, interval, rtol=0.02, atol=0.01)


def test_is_the_nested_model_where_the_correlation_is_positive(phases):
    """A subject effect and a phase-within-subject effect: covariance τ², variance τ² + τ²_phase."""
    ref = reference("sleepstudy_phase_nested_reml")
    fit = model(phases, PHASE).fit_reml()
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    D = fit.D.to_numpy()
    assert D[0, 1] == pytest.approx(ref["variance"]["subject"], rel=1e-4)
    assert D[0, 0] - D[0, 1] == pytest.approx(ref["variance"]["subject:phase"], rel=1e-4)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [FORMULA, PHASE])
def test_criterion_is_that_of_the_dense_matrix(phases, formula, reml):
    design = model(phases, formula).design
    q = len(design.term)
    criterion = Criterion(cross_products(design), random_covariance(design.covariance, design.blocks), reml)
    sigma, scaling = 24.0, criterion.products.scaling
    for sd, corr in ((30.0, 0.4), (4.0, 0.6 * lowest_corr(q))):
        D = equal(q, sd, corr)
        lam = criterion.structure.parameters(scaling.Bz @ D @ scaling.Bz.T / sigma**2)
        value, gradient = criterion.joint(np.append(lam, np.log(sigma / scaling.y_scale)))
        dense, *_ = dense_fit(design, D, sigma, reml)
        assert value == pytest.approx(dense, rel=1e-10)
        for m in range(2):
            step = np.zeros(3)
            step[m] = 1e-5
            point = np.append(lam, np.log(sigma / scaling.y_scale))
            numeric = (criterion.joint(point + step)[0] - criterion.joint(point - step)[0]) / 2e-5
            assert gradient[m] == pytest.approx(numeric, rel=1e-5, abs=1e-6)


def test_spectral_factor_is_what_it_claims():
    structure = random_covariance("compound_symmetry", ((0, 1, 2, 3),))
    D = equal(4, 1.7, -0.2)
    lam = structure.parameters(D)
    Lambda = structure.factor(lam)
    np.testing.assert_allclose(Lambda @ Lambda.T, D, atol=1e-14)
    np.testing.assert_allclose(lam**2, [1.2 * 1.7**2, 0.4 * 1.7**2])
    np.testing.assert_allclose(structure.normalise_signs(-lam), lam)
    assert structure.factor(np.stack([lam, 2 * lam])).shape == (2, 4, 4)
    assert compound_symmetry_corr(D) == pytest.approx(-0.2)


@pytest.mark.parametrize("corr", [lowest_corr(4), -0.2, 0.0, 0.5, 0.99])
def test_cholesky_factor_in_closed_form(corr):
    L = equal_correlation_factor(np.array([corr]), 4)[0]
    assert np.array_equal(L, np.tril(L))
    np.testing.assert_allclose(L @ L.T, equal(4, 1.0, corr), atol=1e-14)


def simulated(slopes_against_intercepts, n=60, seed=5):
    """Subjects whose slopes equal (1) or oppose (-1) their intercepts."""
    rng = np.random.default_rng(seed)
    t = np.tile(np.arange(4.0) - 1.5, n)
    b = np.repeat(rng.normal(0, 2.0, n), 4)
    y = 1.0 + b + slopes_against_intercepts * b * t + rng.normal(0, 1.0, 4 * n)
    return pd.DataFrame({"y": y, "t": t, "g": np.repeat(np.arange(n), 4)})


@pytest.mark.parametrize("sign", [1, -1])
def test_boundaries_of_the_correlation(sign):
    """At r = 1 the contrasts have no variance, at r = -1/(q-1) the mean has none: singular, converged, and said so."""
    fit = model(simulated(sign), "y ~ t + (1 + t | g)").fit_reml()
    assert fit.converged
    assert fit.is_singular
    assert fit.corr_b.iloc[0, 1] == pytest.approx(sign, abs=1e-6)
    assert fit.optimum.boundary_slope > 0
    table = fit.variance_components()
    assert table.loc[["sd(all random effects)", "corr(all random effects)"], "se"].isna().all()
    assert np.isfinite(table.loc["sigma", "se"])
    grid = [fit.criterion_function(np.array([a, e])) for a in np.linspace(0, 3, 16) for e in np.linspace(0, 3, 16)]
    assert fit.criterion <= min(grid) + 1e-9
    tree = fit.to_datatree(draws=50, chains=2)
    np.testing.assert_allclose(tree["posterior"]["corr_b"].to_numpy()[..., 0], sign, atol=1e-6)


def test_no_variation_at_all():
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(4.0), 20)
    # Residuals without a mean or a slope within any subject: less variation between subjects than by chance.
    e = rng.normal(size=(20, 4))
    e -= e @ (c := np.arange(4.0) - 1.5)[:, None] * c / (c @ c)
    data = pd.DataFrame({"y": (e - e.mean(axis=1, keepdims=True)).ravel(), "t": t, "g": np.repeat(np.arange(20), 4)})
    fit = model(data, "y ~ t + (1 + t | g)").fit_reml()
    assert fit.converged
    assert fit.is_singular
    assert "no variation" in str(fit)


def test_intervals_stay_inside_the_admissible_interval(phases):
    for ci in (0.95, 0.999999):
        table = model(phases, PHASE).fit_reml().variance_components(ci)
        row = table.loc["corr(all random effects)"]
        assert lowest_corr(3) < row["lower"] < row["estimate"] < row["upper"] < 1


def test_never_better_than_unstructured_and_never_worse_than_identity(phases):
    fits = {
        c: hl.TwoLevelModel.from_formula(PHASE, phases, covariance=c).fit_reml().loglik
        for c in ("identity", "compound_symmetry", "unstructured")
    }
    assert fits["identity"] <= fits["compound_symmetry"] <= fits["unstructured"]


def test_says_what_it_is(sleepstudy, phases):
    two = model(sleepstudy)
    assert two.covariance == "compound_symmetry"
    assert "ρσ²_b" in str(two)
    assert "compound symmetry: one variance and one correlation" in str(two)
    assert "3 (2 in D, and σ)" in str(two)
    text = str(model(phases, PHASE).fit_reml())
    assert text.count("39.87") == 3
    assert text.count("0.76") == 3
    levels = hl.TwoLevelModel("reaction ~ days", subject="subject", data=sleepstudy, covariance="compound_symmetry")
    assert levels.fit_reml().loglik == pytest.approx(two.fit_reml().loglik)


def test_equations_of_many_effects(sleepstudy):
    data = sleepstudy.assign(day=sleepstudy["days"] // 2)
    many = model(data, "reaction ~ 0 + C(day) + (0 + C(day) | subject)")
    text = str(many.equations())
    assert "with variance σ²_b and covariance ρσ²_b" in text
    assert "5 × 5" in text
    assert r"\rho" in many.equations().latex
    three = str(model(sleepstudy.assign(q=sleepstudy["days"] ** 2), "reaction ~ days + q + (days + q | subject)"))
    assert three.count("ρσ²_b") >= 6
    assert "2·ρσ²_b·daysᵢⱼ·qᵢⱼ" in three


def test_one_random_effect_is_just_a_variance(sleepstudy):
    one = model(sleepstudy, "reaction ~ days + (1 | subject)")
    assert one.covariance == "unstructured"


def test_comparisons_know_the_structure(sleepstudy):
    plain = hl.TwoLevelModel.from_formula(FORMULA, sleepstudy)
    both = hl.compare(model(sleepstudy).fit_reml(), plain.fit_reml(), labels=["equal", "free"])
    assert any("compound_symmetry" in note for note in both.notes)


def test_prior_is_uniform_on_the_admissible_interval(phases):
    design = model(phases, PHASE).design
    priors = resolve_priors(None, design)
    assert priors.common_sd
    assert priors.common_corr
    assert "Uniform(-0.5, 1)" in str(priors)
    r = np.linspace(-0.499, 0.999, 5)
    np.testing.assert_allclose(priors.corr_b.logpdf_equal(r, 3), -np.log(1.5))
    assert priors.corr_b.logpdf_equal(-0.6, 3) == -np.inf


@pytest.mark.parametrize("q", [2, 3, 5])
def test_prior_is_lkj_on_the_line_of_equal_correlations(q):
    prior = LKJ(2.5)
    r = np.linspace(lowest_corr(q), 1.0, 2001)[1:-1]
    on_line = prior.logpdf(np.array([equal(q, 1.0, v) for v in r]))
    difference = prior.logpdf_equal(r, q) - on_line
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)
    assert np.trapezoid(np.exp(prior.logpdf_equal(r, q)), r) == pytest.approx(1.0, abs=1e-4)


def test_prior_draws_have_the_prior(phases):
    from hierlmm.bayes.predictive import prior_draws

    design = model(phases, PHASE).design
    draws = prior_draws(design, resolve_priors(None, design), 2000, np.random.default_rng(1))
    corr = draws["corr_b"][:, 0, 1]
    np.testing.assert_allclose(draws["corr_b"][:, 0, 2], draws["corr_b"][:, 1, 2], atol=1e-14)
    assert stats.kstest(corr, stats.uniform(-0.5, 1.5).cdf).pvalue > 1e-3


def test_by_name_priors_of_the_common_standard_deviation_are_refused(sleepstudy):
    with pytest.raises(hl.SpecificationError, match="one standard deviation common"):
        _ = model(sleepstudy, priors=Priors(sd_b={"days": hl.HalfNormal(1)})).priors


def test_explicit_model_has_the_stated_density_and_draws(phases):
    """Log density of the PyMC model against priors and a dense hierarchy, its variables against `draws_of_model`."""
    from hierlmm.bayes.explicit import build_pymc_model, draws_of_model

    design = model(phases, PHASE).design
    priors = resolve_priors(Priors(corr_b=LKJ(2.0)), design)
    logp, values = evaluate(build_pymc_model(design, priors, centered=True), 5, design)
    u, sd, sigma = values["corr_b_unit"], float(values["sd_b_common"]), float(values["sigma"])
    r = -0.5 + 1.5 * u
    np.testing.assert_allclose(values["D"], equal(3, sd, r), rtol=1e-10)
    raw = {k: values[k][None, None] for k in ("beta_centered", "corr_b_unit", "sd_b_common", "sigma", "random_coef")}
    out = draws_of_model(design, priors, raw)
    for name in ("D", "b", "corr_b"):
        np.testing.assert_allclose(out[name][0, 0], values[name], rtol=1e-9, atol=1e-9)
    beta = out["beta"][0, 0]
    expected = priors.logpdf(beta, np.full(3, sd), values["corr_b"], sigma, design.blocks)
    expected += stats.multivariate_normal(np.zeros(3), values["D"]).logpdf(values["b"]).sum()
    mean = design.X @ beta + np.einsum("ij,ij->i", design.Z, values["b"][design.subject_index])
    expected += stats.norm(mean, sigma).logpdf(design.y).sum()
    # The model's density of u, not of r = -1/2 + 3/2 u.
    expected += np.log(1.5)
    assert logp == pytest.approx(expected, rel=1e-8)


def test_non_centred_model_makes_the_same_effects(phases):
    from hierlmm.bayes.explicit import build_pymc_model, draws_of_model

    design = model(phases, PHASE).design
    priors = resolve_priors(None, design)
    _, values = evaluate(build_pymc_model(design, priors), 6, design)
    free = ("beta_centered", "corr_b_unit", "sd_b_common", "sigma", "z")
    out = draws_of_model(design, priors, {k: values[k][None, None] for k in free})
    for name in ("D", "b", "corr_b", "sd_b", "beta"):
        np.testing.assert_allclose(out[name][0, 0], values[name], rtol=1e-9, atol=1e-9)
    whitened = np.linalg.solve(np.linalg.cholesky(values["D"]), values["b"].T).T
    np.testing.assert_allclose(whitened, values["z"], rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_nuts_integrates_the_random_effects_out(phases):
    collapsed = model(phases, PHASE).fit(draws=1000, seed=1, progressbar=False)
    attrs = collapsed.datatree.attrs
    assert (attrs["sampler"], attrs["route"]) == ("collapsed", "compiled")
    explicit = model(phases, PHASE).fit(draws=1000, seed=2, sampler="explicit", progressbar=False)
    for name in ("beta", "sd_b", "corr_b", "sigma", "b"):
        assert largest_difference(collapsed, explicit, name) < 4.5
        assert name == "b" or largest_difference(collapsed, explicit, name, "sd") < 4.5


def test_bambi_is_told_apart(sleepstudy):
    with pytest.raises(hl.SpecificationError, match="compound_symmetry"):
        model(sleepstudy).to_bambi()


@pytest.fixture(scope="module")
def posterior(phases):
    """A posterior fit made of draws from the prior, many enough for the checks of convergence."""
    from hierlmm.bayes.predictive import prior_draws
    from hierlmm.bayes.record import posterior_record

    design = model(phases, PHASE).design
    priors = resolve_priors(None, design)
    draws = prior_draws(design, priors, 2000, np.random.default_rng(4))
    chains = {k: v.reshape(4, 500, *v.shape[1:]) for k, v in draws.items() if k != "y"}
    return fit_of(
        posterior_record(
            design, priors, chains, None, {"estimator": "NUTS", "sampler": "explicit"}, log_likelihood=False
        )
    )


def test_posterior_tables_have_one_correlation(posterior):
    table = posterior.variance_components()
    assert list(table.index) == ["sd(all random effects)", "corr(all random effects)", "sigma"]
    row = table.loc["corr(all random effects)"]
    assert row["estimate"] == pytest.approx(0.25, abs=0.05)  # of the uniform distribution on (-1/2, 1)
    assert lowest_corr(3) < row["lower"] < row["upper"] < 1
    sd = posterior.draws("sd_b")
    assert table.loc["sd(all random effects)", "estimate"] == pytest.approx(sd[..., 0].mean())
    text = str(posterior)
    assert text.count(f"{row['estimate']:.2f}") >= 3
    assert "Uniform(-0.5, 1)" in text
    assert "corr(all random effects)" in posterior._repr_html_()


def test_plots_of_a_posterior_have_one_correlation(posterior):
    from hierlmm.fits.named_draws import parameter_draws

    assert [k for k in parameter_draws(posterior) if "(" in k] == ["sd(all random effects)", "corr(all random effects)"]
    posterior.plot_posterior(backend="none")
    posterior.plot_forest(backend="none")


def test_calibration_follows_the_common_correlation(phases):
    tiny = {"draws": 50, "tune": 100, "seed": 1, "progressbar": False}
    for options in (tiny, {"estimator": "reml", "truth": model(phases, PHASE).fit_reml(), "seed": 1}):
        recovered = hl.calibrate(model(phases, PHASE), simulations=20, **options)
        assert "corr(all random effects)" in recovered.truth.columns
