"""What a posterior fit answers, on one fit of the dental data, and what the convergence checks say."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
from references import align, reference
from samples import DENTAL
from scipy import stats

from hierlmm.bayes.convergence import assess_convergence
from hierlmm.bayes.distributions import HalfNormal
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.record import posterior_record
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.tree import matrices
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.by_subject import subject_loglik
from hierlmm.model import TwoLevelModel


def test_default_settings_converge(dental_posterior):
    fit = dental_posterior
    check = fit.convergence()
    assert fit.converged
    assert fit.warnings == ()
    assert check.max_rhat < 1.01
    assert min(check.min_ess_bulk, check.min_ess_tail) > 400
    assert check.divergences == 0


def test_agrees_with_reml_where_theory_says_so(dental_posterior):
    """Under weak priors the posterior of beta is close to lme4's estimate and standard error."""
    ref = reference("pr_sextime_rirs_reml")
    names = dental_posterior.design.coef
    estimate, error = (np.array(align(ref["optimum"][key], names)) for key in ("coef", "se"))
    difference = (dental_posterior.beta.to_numpy() - estimate) / error
    assert np.abs(difference).max() < 0.2
    np.testing.assert_allclose(dental_posterior.beta_se.to_numpy(), error, rtol=0.15)


def test_tree_has_the_names_and_dimensions_of_the_contract(dental_posterior, dental_design):
    posterior = dental_posterior.datatree["posterior"]
    dims = {
        "beta": ("coef",),
        "b": ("subject", "term"),
        "sd_b": ("term",),
        "corr_b": ("pair",),
        "sigma": (),
        "icc": (),
        "subject_coef": ("subject", "level1"),
    }
    assert {str(name) for name in posterior.data_vars} == set(dims)
    for name, expected in dims.items():
        assert posterior[name].dims == ("chain", "draw", *expected)
    assert list(posterior["coef"].to_numpy()) == list(dental_design.coef)
    groups = set(dental_posterior.to_datatree().children)
    assert groups >= {"posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data", "log_prior"}
    attrs = dental_posterior.datatree.attrs
    assert (attrs["estimator"], attrs["sampler"], attrs["seed"]) == ("NUTS", "explicit", 1)
    assert "diverging" in dental_posterior.sample_stats


def test_arviz_reads_it(dental_posterior):
    table = az.summary(dental_posterior.datatree, var_names=["beta"], round_to="none")
    np.testing.assert_allclose(table["mean"].astype(float), dental_posterior.beta, rtol=1e-10)


def test_point_estimates_are_means_and_sds_of_the_draws(dental_posterior):
    fit = dental_posterior
    flat = fit.draws("beta").reshape(-1, 4)
    np.testing.assert_allclose(fit.beta, flat.mean(axis=0))
    np.testing.assert_allclose(fit.beta_cov, np.cov(flat, rowvar=False))
    np.testing.assert_allclose(fit.b_sd.to_numpy(), fit.draws("b").std(axis=(0, 1), ddof=1))
    assert fit.sd_b["Intercept"] < np.sqrt(fit.D.loc["Intercept", "Intercept"])  # mean of roots, root of mean
    np.testing.assert_allclose(fit.subject_coef, fit.draws("subject_coef").mean(axis=(0, 1)), rtol=1e-10)
    assert fit.icc == pytest.approx(float(fit.datatree["posterior"]["icc"].mean()))
    assert list(fit.b.index) == list(fit.design.subjects)
    np.testing.assert_allclose(np.diag(fit.corr_b), 1.0)


def test_tables(dental_posterior):
    columns = ["estimate", "se", "lower", "upper", "ess_bulk", "ess_tail", "r_hat", "mcse"]
    summary, components = dental_posterior.summary(), dental_posterior.variance_components()
    assert list(summary.columns) == list(components.columns) == columns
    assert summary.index.name == "coef"
    assert list(components.index) == ["sd(Intercept)", "sd(time)", "corr(Intercept, time)", "sigma"]
    np.testing.assert_allclose(summary["estimate"], dental_posterior.beta)
    narrow = dental_posterior.summary(ci=0.5)
    assert (narrow["lower"] > summary["lower"]).all()
    assert (narrow["upper"] < summary["upper"]).all()
    quantiles = np.quantile(dental_posterior.draws("sigma"), [0.025, 0.975])
    np.testing.assert_allclose(components.loc["sigma", ["lower", "upper"]].astype(float), quantiles)
    with pytest.raises(SpecificationError, match="ci=95"):
        dental_posterior.summary(ci=95)


def test_marginal_log_likelihood_equals_a_dense_normal(dental_posterior):
    fit, design = dental_posterior, dental_posterior.design
    total = 0.0
    for j in range(design.n_subjects):
        rows = design.subject_index == j
        V = design.Z[rows] @ fit.D.to_numpy() @ design.Z[rows].T + fit.sigma**2 * np.eye(rows.sum())
        total += stats.multivariate_normal(design.X[rows] @ fit.beta.to_numpy(), V).logpdf(design.y[rows])
    assert fit.loglik == pytest.approx(total, rel=1e-10)
    root = np.array([[[np.sqrt(2.0), 0.0], [0.0, 0.0]]])  # of a singular D
    assert np.isfinite(subject_loglik(design, fit.beta.to_numpy()[None], root, np.ones(1))).all()


def test_log_likelihood_is_conditional_and_pointwise(dental_posterior):
    fit, design = dental_posterior, dental_posterior.design
    stored = fit.datatree["log_likelihood"]["distance"]
    assert stored.dims == ("chain", "draw", "obs")
    mu = design.X @ fit.draws("beta")[1, 7] + (design.Z * fit.draws("b")[1, 7][design.subject_index]).sum(axis=1)
    expected = stats.norm(mu, fit.draws("sigma")[1, 7]).logpdf(design.y)
    np.testing.assert_allclose(stored.to_numpy()[1, 7], expected, rtol=1e-10)
    np.testing.assert_array_equal(fit.log_likelihood()["log_likelihood"]["distance"], stored)


def test_posterior_predictive_moments(dental_posterior):
    tree = dental_posterior.posterior_predictive(seed=1)
    y = tree["posterior_predictive"]["distance"].to_numpy()
    fitted = dental_posterior.fitted().to_numpy()
    np.testing.assert_allclose(y.mean(axis=(0, 1)), fitted, atol=0.15)
    assert 0.9 < np.mean((y.mean(axis=(0, 1)) - fitted) / dental_posterior.sigma) + 1 < 1.1
    covered = np.mean(
        (np.quantile(y, 0.025, axis=(0, 1)) < dental_posterior.design.y)
        & (dental_posterior.design.y < np.quantile(y, 0.975, axis=(0, 1)))
    )
    assert 0.93 <= covered <= 1.0
    assert "posterior_predictive" not in dental_posterior.datatree.children
    assert dental_posterior.posterior_predictive(50, seed=1)["posterior_predictive"].sizes["draw"] == 50
    with pytest.raises(SpecificationError, match="2000 draws"):
        dental_posterior.posterior_predictive(5000)


def test_prior_predictive_follows_the_priors(dental_posterior):
    tree = dental_posterior.prior_predictive(4000, seed=2)
    priors, design = dental_posterior.priors, dental_posterior.design
    assert {"prior", "prior_predictive"} <= set(tree.children)
    assert "prior" not in dental_posterior.datatree.children
    beta = tree["prior"]["beta"].to_numpy()[0]
    centred = beta[:, 0] + beta[:, 1:] @ design.X[:, 1:].mean(axis=0)
    expected = [priors.beta[0].mean, priors.beta[0].sd]
    np.testing.assert_allclose([centred.mean(), centred.std()], expected, rtol=0.06)
    sd = tree["prior"]["sd_b"].to_numpy()[0]
    assert stats.kstest(sd[:, 1], stats.halfnorm(scale=priors.sd_b[1].sd).cdf).pvalue > 1e-4
    # The correlation with the prior is that of the lines at the average time.
    D = matrices(design, tree["prior"])[1][0]
    line = np.array([1.0, design.Z[:, 1].mean()])
    corr = (D @ line)[:, 1] / np.sqrt(np.einsum("a,sab,b->s", line, D, line) * D[:, 1, 1])
    assert stats.kstest((corr + 1) / 2, stats.beta(2, 2).cdf).pvalue > 1e-4


def test_predictions_widen_as_they_should(dental_posterior):
    fit = dental_posterior
    np.testing.assert_allclose(fit.predict()["estimate"], fit.fitted(), rtol=1e-10)
    width = {}
    for level in ("subject", "population", "new_subject"):
        for interval in ("credible", "prediction"):
            table = fit.predict(level=level, interval=interval)
            assert ((table["lower"] < table["estimate"]) & (table["estimate"] < table["upper"])).all()
            width[level, interval] = float((table["upper"] - table["lower"]).mean())
    for level in ("subject", "population", "new_subject"):
        assert width[level, "credible"] < width[level, "prediction"]
    assert width["population", "credible"] < width["new_subject", "credible"]
    assert width["subject", "prediction"] < width["new_subject", "prediction"]


def test_new_subject_prediction_matches_the_marginal_distribution(dental_posterior):
    fit = dental_posterior
    table = fit.predict(level="new_subject", interval="prediction", ci=0.95).iloc[:1]
    z = fit.design.Z[0]
    sd = np.sqrt(z @ fit.D.to_numpy() @ z + fit.sigma**2)
    width = float((table["upper"] - table["lower"]).iloc[0])
    assert width == pytest.approx(2 * 1.96 * sd, rel=0.1)


def test_new_rows_and_unseen_subjects(dental_posterior):
    new = pd.DataFrame({"subject": [1, 1], "sex": ["Female", "Female"], "time": [0.0, 10.0]})
    seen = dental_posterior.predict(new, interval="credible")
    assert list(seen.columns) == ["estimate", "se", "lower", "upper"]
    own = dental_posterior.subject_coef.loc[1]
    np.testing.assert_allclose(seen["estimate"], own["Intercept"] + own["time"] * new["time"], rtol=1e-8)
    unseen = new.assign(subject=99)
    with pytest.raises(DataError, match="new_subject"):
        dental_posterior.predict(unseen)
    without = dental_posterior.predict(new.drop(columns="subject"), level="population")["estimate"]
    np.testing.assert_allclose(dental_posterior.predict(unseen, level="new_subject")["estimate"], without)


def test_printed_fit_says_what_must_be_known(dental_posterior):
    text = repr(dental_posterior)
    for part in (
        "distance ~ 1 + sex + time + sex:time + (1 + time | subject)",
        "4 chains of 2000",
        "Number of obs: 108, subject: 27",
        "Residual",
        "HalfStudentT(4, 2.915)",
        "nothing looks wrong",
    ):
        assert part in text
    html = dental_posterior._repr_html_()
    assert "<table" in html
    assert "sd(Intercept)" in html


def test_absent_draws_are_explained(dental_posterior):
    with pytest.raises(NotAvailableError, match="no such variable"):
        dental_posterior.draws("gamma")


def test_too_few_draws_are_called_out(dental):
    with pytest.warns(FitWarning) as caught:
        fit = TwoLevelModel.from_formula(DENTAL, dental).fit(draws=20, tune=20, chains=2, seed=1, progressbar=False)
    text = " ".join(str(w.message) for w in caught)
    assert "effective sample size" in text
    assert "To do:" in text
    assert not fit.converged
    assert "NOT CONVERGED" in repr(fit)
    assert "NOT CONVERGED" not in repr(fit.summary())


@pytest.fixture
def made(dental_design):
    """Make a fit from invented draws."""

    def make(change=lambda draws, stats: None, chains=4, draws=500):
        import xarray as xr

        rng = np.random.default_rng(1)
        shape = (chains, draws)
        sd = np.exp(rng.normal(size=(*shape, 2)) * 0.1)
        corr = np.broadcast_to(np.eye(2), (*shape, 2, 2)).copy()
        values = {
            "beta": rng.normal(size=(*shape, 4)),
            "sd_b": sd,
            "corr_b": corr,
            "D": corr * sd[..., None] * sd[..., None, :],
            "b": rng.normal(size=(*shape, 27, 2)),
            "sigma": np.exp(rng.normal(size=shape) * 0.1),
        }
        stats = {
            "diverging": np.zeros(shape, bool),
            "energy": rng.normal(size=shape),
            "maxdepth_reached": np.zeros(shape, bool),
        }
        change(values, stats)
        data = xr.Dataset({k: (("chain", "draw"), v) for k, v in stats.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            return fit_of(
                posterior_record(
                    dental_design,
                    resolve_priors(None, dental_design),
                    values,
                    data,
                    {"estimator": "NUTS", "sampler": "explicit"},
                )
            )

    return make


def test_independent_draws_raise_no_alarm(made):
    fit = made()
    assert assess_convergence(fit.datatree).ok
    assert np.isnan(fit.variance_components().loc["corr(Intercept, time)", "r_hat"])  # constant here


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("diverging", lambda s: np.eye(*s, dtype=bool), "4 of 2000 draws ended in a divergence"),
        ("energy", lambda s: np.cumsum(np.random.default_rng(2).normal(size=s), axis=1), "E-BFMI"),
        ("maxdepth_reached", lambda s: np.ones(s, bool), "largest trajectory length"),
    ],
)
def test_each_statistic_has_its_message(made, name, value, words):
    def change(draws, stats):
        stats[name] = value(stats[name].shape)

    messages = assess_convergence(made(change).datatree).messages
    assert len(messages) == 1
    assert words in messages[0]
    assert "To do:" in messages[0]


def test_chains_that_disagree_are_named(made):
    def change(draws, stats):
        draws["sd_b"][0, :, 1] += 3

    messages = assess_convergence(made(change).datatree).messages
    assert messages[0].startswith("R-hat is")
    assert "sd(time)" in messages[0]


def test_one_random_effect_in_one_chain_is_enough_to_be_named(made):
    """R-hat and ESS of b count as those of every other quantity."""

    def stuck(draws, stats):
        draws["b"][2, :, 14, 1] += 3

    def slow(draws, stats):
        draws["b"][..., 5, 0] = np.cumsum(draws["b"][..., 5, 0], axis=1) / 10

    subject = made().design.subjects
    for change, words in ((stuck, f"b[{subject[14]}, time]"), (slow, f"b[{subject[5]}, Intercept]")):
        messages = assess_convergence(made(change).datatree).messages
        assert messages and all(words in m for m in messages)
        assert not made(change).converged


@pytest.mark.parametrize("attrs", [{"sampler": "explicit"}, {"sampler": "collapsed"}, {}])
def test_b_is_left_out_where_it_is_drawn_exactly_and_only_there(made, attrs):
    """Collapsed, b is an independent draw given θ (test_collapsed_recovery.py); in any other tree part of the chain."""

    def stuck(draws, stats):
        draws["b"][2, :, 14, 1] += 3

    tree = made(stuck).datatree
    tree.attrs = attrs
    assert bool(assess_convergence(tree).messages) == (attrs.get("sampler") != "collapsed")


def test_one_chain_cannot_be_judged(made):
    messages = assess_convergence(made(chains=1, draws=2000).datatree).messages
    assert any("One chain only" in m for m in messages)


def test_random_effects_kept_as_summary(made, dental_design):
    import xarray as xr

    fit = made()
    draws = {name: fit.draws(name) for name in ("beta", "sd_b", "corr_b", "D", "sigma")}
    mean, sd = fit.b, fit.b_sd
    summary = xr.Dataset({"mean": (("subject", "term"), mean), "sd": (("subject", "term"), sd)})
    kept = fit_of(
        posterior_record(
            dental_design,
            fit.priors,
            draws,
            None,
            {"estimator": "NUTS", "sampler": "x"},
            groups={"random_effects": summary},
        )
    )
    np.testing.assert_allclose(kept.b, mean)
    np.testing.assert_allclose(kept.b_sd, sd)
    with pytest.raises(NotAvailableError, match="means and SDs"):
        kept.posterior_predictive()


def test_nothing_fixed(sleepstudy):
    design = design_from_formula(parse_formula("reaction ~ 0 + (1 | subject)"), sleepstudy)
    fit = fit_of(sample_explicit(design, Priors(sd_b=HalfNormal(500)), seed=1, centered=True, progressbar=False))
    assert "beta" not in fit.datatree["posterior"]
    assert fit.beta.empty
    assert fit.summary().empty
    means = sleepstudy.groupby("subject")["reaction"].mean()
    np.testing.assert_allclose(fit.b["Intercept"], means, rtol=0.03)
    assert "(none)" in repr(fit)
    assert np.isfinite(fit.loglik)
