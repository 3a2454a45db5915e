"""The tree that ArviZ reads: no gaps, no warnings, names a reader knows, and densities that are those of the model."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hierlmm as hl
from hierlmm.bayes.tree import matrices, response_name


@pytest.fixture(scope="module")
def growth_frame():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"subject": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5.0), 20)})
    frame["group"] = pd.Categorical(np.where(frame["subject"] % 2, "b", "a"))
    frame["u"] = rng.normal(size=100)
    b = rng.normal(size=(20, 3)) * [2.0, 0.5, 0.7]
    frame["y"] = 5.0 + np.einsum("ij,ij->i", np.column_stack([np.ones(100), frame[["t", "u"]]]), b[frame["subject"]])
    frame["y"] += rng.normal(size=100)
    return frame


SHORT = {"draws": 250, "tune": 300, "chains": 2, "seed": 3, "progressbar": False}
FORMULAS = {
    "unstructured": ("y ~ t + group + (t + u | subject)", {}),
    "diagonal": ("y ~ t + (t || subject)", {}),
    "identity": ("y ~ t + (t | subject)", {"covariance": "identity"}),
    "blocks": ("y ~ t + (1 + t | subject) + (0 + u | subject)", {}),
    "correlated residuals": ("y ~ t + (1 | subject)", {"residual": hl.AR1("t")}),
    "variance of the average row": ("y ~ t + (1 | subject)", {"residual_variance": hl.VarExp("t")}),
}


@pytest.fixture(scope="module")
def fits(growth_frame):
    import warnings

    found = {}
    for name, (formula, options) in FORMULAS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hl.FitWarning)  # short chains
            found[name] = hl.TwoLevelModel.from_formula(formula, growth_frame, **options).fit(**SHORT)
    return found


@pytest.mark.parametrize("name", FORMULAS)
def test_diagnostics_of_the_whole_tree_have_no_gaps(fits, name):
    tree = fits[name].datatree
    assert not az.summary(tree, round_to="none").isna().any(axis=None)
    assert all(np.isfinite(v).all() for v in az.rhat(tree).data_vars.values())
    az.qds(tree)


def test_correlations_are_those_of_the_pairs_and_D_follows(fits):
    for name, pairs in {"unstructured": 3, "diagonal": 0, "identity": 0, "blocks": 1}.items():
        fit = fits[name]
        posterior = fit.datatree["posterior"]
        assert ("corr_b" in posterior) == bool(pairs)
        assert not pairs or posterior["corr_b"].sizes["pair"] == pairs
        corr, D = fit.draws("corr_b"), fit.draws("D")
        sd = posterior["sd_b"].to_numpy()
        np.testing.assert_allclose(np.einsum("...kk->...k", D), sd**2, rtol=1e-13)
        np.testing.assert_array_equal(np.einsum("...kk->...k", corr), 1.0)
        for a, i in enumerate(fit.design.term):
            for b, j in enumerate(fit.design.term[:a]):
                label = f"{j}, {i}"
                stored = 0.0
                if pairs and label in posterior["pair"]:
                    stored = posterior["corr_b"].sel(pair=label).to_numpy()
                np.testing.assert_array_equal(corr[..., a, b], stored + 0.0 * corr[..., a, b])
                np.testing.assert_array_equal(corr[..., b, a], corr[..., a, b])


@pytest.mark.parametrize("name", FORMULAS)
def test_log_prior_is_the_density_that_the_priors_state(fits, name):
    fit = fits[name]
    group, priors = fit.datatree["log_prior"], fit.priors
    c, s = 1, 17
    stored = {str(k): v.to_numpy()[c, s] for k, v in group.data_vars.items()}
    own = priors.logpdf(
        fit.draws("beta")[c, s], fit.draws("sd_b")[c, s], fit.draws("corr_b")[c, s], 1.0, fit.design.blocks
    ) - float(priors.sigma.logpdf(1.0))
    assert sum(np.sum(stored[k]) for k in ("beta", "sd_b", "corr_b") if k in stored) == pytest.approx(own, rel=1e-10)
    sigma = fit.draws("sigma")[c, s]
    if name == "variance of the average row":
        slope = fit.datatree["posterior"]["residual_variance"].to_numpy()[c, s, 0]
        factor = np.exp(slope * fit.design.frame["t"].mean())
        assert stored["sigma"] == pytest.approx(float(priors.sigma.logpdf(sigma * factor)) + np.log(factor), rel=1e-10)
    else:
        assert stored["sigma"] == pytest.approx(float(priors.sigma.logpdf(sigma)), rel=1e-12)
    if name == "correlated residuals":
        assert stored["residual"].shape == (1,)
        rho = fit.datatree["posterior"]["residual_correlation"].to_numpy()[c, s, 0]
        assert stored["residual"][0] == pytest.approx(float(priors.residual[0].logpdf(rho)), rel=1e-8)


def test_rows_have_the_names_of_the_data(fits, growth_frame):
    tree = fits["unstructured"].datatree
    np.testing.assert_array_equal(tree["observed_data"]["y"], growth_frame["y"])
    np.testing.assert_array_equal(tree["constant_data"]["t"], growth_frame["t"])
    assert list(tree["constant_data"]["group"].to_numpy()) == list(growth_frame["group"])
    assert "subject" in tree["constant_data"].coords


def test_a_response_that_a_tree_cannot_name_is_called_y(growth_frame):
    frame = growth_frame.assign(sigma=growth_frame["y"] + 100, obs=growth_frame["t"])
    assert response_name(hl.TwoLevelModel.from_formula("sigma ~ t + (1 | subject)", frame).design) == "y"
    assert response_name(hl.TwoLevelModel.from_formula("I(sigma / 2) ~ t + (1 | subject)", frame).design) == "y"
    model = hl.TwoLevelModel.from_formula("log(sigma) ~ obs + (1 | subject)", frame)
    tree = model.fit_reml().to_datatree(draws=10)
    assert "log(sigma)" in tree["observed_data"]
    np.testing.assert_array_equal(tree["constant_data"]["obs_column"], frame["t"])


def test_extended_fits_have_more_groups_and_the_same_answers(fits):
    fit = fits["unstructured"]
    more = fit.extend(draws=50, seed=1)
    assert {"prior", "prior_predictive", "posterior_predictive"} <= set(more.datatree.children)
    assert "prior" not in fit.datatree.children
    assert type(more) is type(fit)
    pd.testing.assert_frame_equal(more.summary(), fit.summary())
    assert set(more.datatree["prior"].data_vars) == set(more.datatree["posterior"].data_vars) - {"subject_coef"}
    y = fit.posterior_predictive(50, seed=1)["posterior_predictive"]["y"]
    np.testing.assert_array_equal(more.datatree["posterior_predictive"]["y"], y)
    with pytest.raises(hl.SpecificationError, match="'posterior_predictive'"):
        fit.extend("predictive")
    with pytest.raises(hl.SpecificationError):
        fit.extend("prior", draws=0)


def test_expected_responses_and_the_log_likelihood_by_subject(fits):
    fit = fits["unstructured"]
    more = fit.extend("mu", "log_likelihood_subject")
    design, c, s = fit.design, 1, 40
    mu = design.X @ fit.draws("beta")[c, s] + np.sum(design.Z * fit.draws("b")[c, s][design.subject_index], axis=1)
    np.testing.assert_allclose(more.datatree["posterior"]["mu"].to_numpy()[c, s], mu, rtol=1e-12)
    r2 = az.bayesian_r2(more.datatree, pred_mean="mu", scale="sigma", summary=False)
    assert 0.3 < float(np.mean(r2)) < 1.0
    D, sigma = fit.draws("D")[c, s], fit.draws("sigma")[c, s]
    rows = design.subject_index == 4
    V = design.Z[rows] @ D @ design.Z[rows].T + sigma**2 * np.eye(rows.sum())
    own = stats.multivariate_normal(design.X[rows] @ fit.draws("beta")[c, s], V).logpdf(design.y[rows])
    stored = more.datatree["log_likelihood_subject"]["y"].to_numpy()[c, s, 4]
    assert stored == pytest.approx(float(own), rel=1e-9)
    assert more.datatree["log_likelihood"]["y"].dims == ("chain", "draw", "obs")


def test_draws_of_the_prior_have_their_own_matrices(fits):
    fit = fits["blocks"]
    prior = fit.prior_predictive(100, seed=2)["prior"]
    corr, D = matrices(fit.design, prior)
    assert corr.shape == (1, 100, 3, 3)
    np.testing.assert_array_equal(corr[..., 2, :2], 0.0)
    assert np.linalg.eigvalsh(D).min() > 0
