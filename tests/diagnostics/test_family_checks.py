"""Checks of generalised posteriors: statistics by hand, what is wrong is seen, trees, power scaling, refusals."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import hierlmm as hl
from hierlmm.bayes.route import family_conflicts
from hierlmm.diagnostics.calibrate import calibrate
from hierlmm.diagnostics.pit import loo_pit, pit_tree
from hierlmm.diagnostics.statistics import built_in
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError


def test_statistics_of_counts_by_hand(seizures_nuts, patients):
    found = {name: float(own(seizures_nuts.design.y[None])[0]) for name, own in built_in(seizures_nuts.design).items()}
    y, groups = patients["seizures"], patients.groupby("patient")["seizures"]
    within = ((y - groups.transform("mean")) ** 2).sum() / (len(y) - 24)
    slopes = [np.polyfit(own["week"], own["seizures"], 1)[0] for _, own in patients.groupby("patient")]
    expected = {
        "mean": y.mean(),
        "sd": y.std(),
        "zeros": (y == 0).mean(),
        "maximum": y.max(),
        "dispersion": within / y.mean(),
        "sd_between": groups.mean().std(),
        "sd_slope": np.std(slopes),
    }
    assert found == pytest.approx(expected)


def test_statistics_of_yes_and_no_and_of_categories_by_hand(cured_nuts, pain_nuts, patients):
    yes = (patients["cured"] == "yes").groupby(patients["patient"])
    found = {name: float(own(cured_nuts.design.y[None])[0]) for name, own in built_in(cured_nuts.design).items()}
    assert list(found) == ["mean", "one_value", "sd_between", "sd_slope"]
    assert found["mean"] == pytest.approx((patients["cured"] == "yes").mean())
    assert found["one_value"] == pytest.approx(yes.mean().isin([0.0, 1.0]).mean())
    found = {name: float(own(pain_nuts.design.y[None])[0]) for name, own in built_in(pain_nuts.design).items()}
    shares = patients["pain"].value_counts(normalize=True)
    assert {name: found[f"share({name})"] for name in shares.index} == pytest.approx(shares.to_dict())
    assert found["one_value"] == pytest.approx((patients.groupby("patient")["pain"].nunique() == 1).mean())


def test_statistics_of_nothing_but_zeros_are_numbers(seizures_nuts):
    nothing = np.zeros((1, seizures_nuts.n_obs))
    assert all(np.isfinite(own(nothing)).all() for own in built_in(seizures_nuts.design).values())


def test_counts_that_vary_more_than_poisson_are_seen(seizures_nuts, patients):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        model = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson")
        poisson = model.fit(draws=300, tune=300, chains=2, seed=1, progressbar=False)
    wrong, right = (fit.ppc(draws=40) for fit in (poisson, seizures_nuts))
    assert wrong.table.loc["dispersion", "p"] < 0.01
    assert "larger than the model expects" in wrong.table.loc["dispersion", "verdict"]
    assert wrong.pit_p < 0.05
    assert right.table.loc["dispersion", "p"] > 0.05
    assert right.table.loc["zeros", "p"] > 0.05
    assert right.pit_p > 0.01


@pytest.mark.parametrize("level", ["subject", "mixed"])
def test_other_replications(cured_nuts, level):
    check = cured_nuts.ppc(level, draws=10)
    assert (check.table["p"] > 0.01).all()
    assert check.pit_p > 0.01
    tree = cured_nuts.posterior_predictive(5, seed=1, level=level)["posterior_predictive"]["cured"]
    assert tree.shape == (2, 5, cured_nuts.n_obs)
    assert set(np.unique(tree)) == {0, 1}


def test_power_scaling_by_its_definition(seizures_nuts):
    fit = seizures_nuts
    center = fit.design.X[:, 1].mean()
    beta, sd, shape = fit.draws("beta").reshape(-1, 2), fit.draws("sd_b").ravel(), fit.draws("shape").ravel()
    intercept, slope = fit.priors.beta
    log_prior = (
        stats.norm.logpdf(beta[:, 0] + center * beta[:, 1], intercept.mean, intercept.sd)
        + stats.norm.logpdf(beta[:, 1], slope.mean, slope.sd)
        + stats.halfnorm.logpdf(sd, scale=fit.priors.sd_b[0].sd)
        + fit.priors.dispersion[0].logpdf(shape)
    )
    draws = np.column_stack([beta, sd, shape])
    shift = [np.log(2.0) * np.cov(own, log_prior, ddof=0)[0, 1] / own.std() for own in draws.T]
    found = fit.psense().table
    assert list(found.index) == ["Intercept", "week", "sd(Intercept)", "shape"]
    np.testing.assert_allclose(found["shift"], shift, atol=1e-8)
    assert (found["likelihood"] > found["prior"]).all()


def test_further_groups_of_the_tree(seizures_nuts):
    fit, design = seizures_nuts, seizures_nuts.design
    tree = fit.extend("prior", "posterior_predictive", "mu", "log_likelihood", "log_likelihood_subject").datatree
    mu = np.exp(fit.draws("beta") @ design.X.T + fit.draws("b")[..., design.subject_index, 0])
    np.testing.assert_allclose(tree["posterior"]["mu"], mu)
    shape = fit.draws("shape")[..., None]
    rows = stats.nbinom.logpmf(design.y, shape, shape / (shape + mu))
    np.testing.assert_allclose(tree["log_likelihood"]["seizures"], rows, atol=1e-8)
    assert tree["log_likelihood_subject"]["seizures"].shape == (2, 300, 24)
    assert tree["posterior_predictive"]["seizures"].dtype == tree["observed_data"]["seizures"].dtype == np.int64
    assert {"shape", "beta", "sd_b", "b"} <= set(tree["prior"].data_vars)
    az.plot_ppc_rootogram(tree, backend="none")
    az.plot_ppc_tstat(tree, backend="none")
    az.plot_loo_pit(tree, backend="none")


def test_means_of_categories_are_refused_and_their_pictures_are_not(pain_nuts):
    with pytest.raises(NotAvailableError, match="no distances"):
        pain_nuts.extend("mu")
    az.plot_ppc_pava(pain_nuts.extend("posterior_predictive").datatree, backend="none")


def test_subjects_left_out_by_weights(seizures_nuts):
    """PIT between the weighted shares of replications below, and up to, what was observed."""
    found = loo_pit(seizures_nuts, statistic="mean", seed=3)
    tree, _, _ = pit_tree(seizures_nuts, "subject", "mean", np.random.default_rng(3))
    replicated = tree["posterior_predictive"]["seizures"].to_numpy().reshape(-1, 24)
    observed = tree["observed_data"]["seizures"].to_numpy()
    log_weight = -tree["log_likelihood"]["seizures"].to_numpy().reshape(-1, 24)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    weight /= weight.sum(axis=0)
    below, up_to = (np.sum(weight * own, axis=0) for own in (replicated < observed, replicated <= observed))
    assert np.all(found.pit.to_numpy() > below - 0.03)
    assert np.all(found.pit.to_numpy() < up_to + 0.03)
    wide = up_to - below > 0.04
    assert np.min((found.pit.to_numpy() - below)[wide] / (up_to - below)[wide]) < 0.4  # ties are broken at random
    assert found.p > 0.01


def bare(fit):
    """The named draws alone, as another program would keep them."""
    posterior = fit.datatree["posterior"].to_dataset().drop_vars("subject_coef").drop_attrs()
    return xr.DataTree.from_dict({"posterior": posterior})


@pytest.mark.parametrize("name", ["seizures_nuts", "pain_nuts"])
def test_trees_from_elsewhere(name, request, patients):
    fit = request.getfixturevalue(name)
    response, family = fit.design.hierarchy.response, fit.family
    model = hl.TwoLevelModel.from_formula(f"{response} ~ week + (1 | patient)", patients, family=family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        own, other = hl.from_datatree(model, fit.datatree), hl.from_datatree(model, bare(fit))
    for again in (own, other):
        assert type(again) is type(fit)
        assert again.loglik == pytest.approx(fit.loglik)
        assert again.dispersion.to_dict() == pytest.approx(fit.dispersion.to_dict())
        assert again.psense().table["prior"].to_dict() == pytest.approx(fit.psense().table["prior"].to_dict())
    broken = bare(fit)
    first = fit.dispersion.index[0].replace(" ", "_")
    broken["posterior"] = broken["posterior"].to_dataset().assign({first: -broken["posterior"][first]})
    with pytest.raises(DataError, match=f"{first}.*\n.*above zero"):
        hl.from_datatree(model, broken)
    with pytest.raises(NotAvailableError, match="from_datatree"):
        hl.recover(model, fit.datatree)


def test_what_is_new_in_a_tree_is_saved(seizures_nuts, tmp_path):
    fit = seizures_nuts.extend("prior", "posterior_predictive")
    again = hl.load_fit(fit.save(tmp_path / "fit.nc"))
    assert again.ppc(draws=5).table.equals(fit.ppc(draws=5).table)
    assert again.datatree["posterior_predictive"]["seizures"].dtype == np.int64
    xr.testing.assert_equal(again.datatree["prior_predictive"].dataset, fit.datatree["prior_predictive"].dataset)


def test_priors_that_leave_no_room_are_named(patients):
    def said(family, formula="seizures ~ week + (1 | patient)", data=patients, **priors):
        model = hl.TwoLevelModel.from_formula(formula, data, family=family, priors=hl.Priors(**priors))
        return family_conflicts(model.design, model.priors)

    assert said("poisson") == said("negative_binomial") == ()
    (message,) = said("poisson", intercept=hl.Normal(6.0, 0.2), beta={"week": hl.Normal(3.0, 0.1)})
    assert "Intercept" in message
    assert "week ~ Normal(3, 0.1), ML" in message
    assert "shape" in said("negative_binomial", dispersion={"shape": hl.Gamma(400.0, 2.0)})[0]
    assert "sd(Intercept)" in said("poisson", sd_b=hl.HalfNormal(0.02))[0]
    # A separated column has no estimate that could contradict its prior.
    split = patients.assign(sick=(patients["seizures"] > 2).astype(int), much=(patients["seizures"] > 2) * 1.0)
    assert said("bernoulli", "sick ~ much + (1 | patient)", split) == ()


@pytest.fixture(scope="module")
def counting(patients):
    priors = hl.Priors(intercept=hl.Normal(0.5, 0.5), beta=hl.Normal(0.0, 0.3), sd_b=hl.HalfNormal(0.7))
    few = patients[patients["patient"] < 12]
    return hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", few, family="poisson", priors=priors)


FAST = {"draws": 200, "tune": 200, "seed": 1, "cores": 1, "progressbar": False}


def test_calibration_of_counts_passes_and_fails_where_it_must(counting):
    right = calibrate(counting, 20, **FAST)
    assert list(right.ranks.columns) == ["Intercept", "week", "sd(Intercept)", "log-likelihood"]
    assert right.ok, right.verdict
    wrong = calibrate(counting, 12, truth=hl.Priors(intercept=hl.Normal(0.5, 0.5), beta=hl.Normal(1.3, 0.1)), **FAST)
    assert not wrong.ok
    assert wrong.summary().loc["week", "p_uniform"] < 0.001
    assert "week: the posterior lies too low" in wrong.verdict


def test_calibration_at_the_estimates_of_a_fit(counting):
    fit = counting.fit_ml()
    result = calibrate(counting, 10, truth=fit, subjects=[3], **FAST)
    assert result.source == "fit"
    np.testing.assert_allclose(result.truth["week"], fit.beta["week"])
    assert "b(Intercept, 3)" in result.truth
    assert ((result.estimate - result.truth) / result.sd)["week"].abs().max() < 4.0
    assert result.truth["b(Intercept, 3)"].std() > 0.0


def test_calibration_that_there_is_not(counting, seizures_nuts):
    for estimator, why in (("reml", "no REML"), ("ml", "not studied")):
        with pytest.raises(NotAvailableError, match=why):
            calibrate(counting, 10, estimator=estimator)
    with pytest.raises(SpecificationError, match="its parameters are not those"):
        calibrate(counting, 10, truth=seizures_nuts, **FAST)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dispersion"),
    [("poisson", {}), ("bernoulli", {}), ("negative_binomial", {"dispersion": {"shape": hl.Gamma(4, 1)}})],
)
def test_calibration_of_families(family, dispersion, patients):
    priors = hl.Priors(intercept=hl.Normal(0.5, 0.7), beta=hl.Normal(0, 0.4), sd_b=hl.HalfNormal(0.8), **dispersion)
    data = patients.assign(y=np.arange(len(patients)) % 2)
    model = hl.TwoLevelModel.from_formula("y ~ week + (1 | patient)", data, family=family, priors=priors)
    result = calibrate(model, 60, **FAST | {"seed": 3})
    assert result.ok, result.verdict


@pytest.mark.slow
def test_a_tree_of_the_explicit_model(pain_nuts, patients):
    import pymc as pm

    model = hl.TwoLevelModel.from_formula("pain ~ week + (1 | patient)", patients, family="ordinal")
    with model.to_pymc(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = pm.sample(500, tune=500, chains=2, random_seed=1, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = hl.from_datatree(model, tree)
    assert np.abs(fit.beta - pain_nuts.beta).max() < 0.3 * pain_nuts.beta_se.max()
    assert fit.loo().elpd == pytest.approx(pain_nuts.loo().elpd, abs=2.0)
