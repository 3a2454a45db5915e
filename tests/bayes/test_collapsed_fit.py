"""Fits by the collapsed sampler: against the explicit one, the routes to it, seeds, what is kept, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from draws import largest_difference
from scipy import stats

from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.distributions import LKJ, Gamma, HalfNormal, LogNormal, Normal, StudentT, Uniform
from hierlmm.bayes.priors import Priors
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.model import TwoLevelModel


@pytest.fixture(scope="module")
def dental_model(dental):
    return TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)


@pytest.fixture(scope="module")
def collapsed(dental_model):
    return dental_model.fit(draws=1000, seed=2, progressbar=False)


def test_collapsed_and_explicit_have_one_posterior(collapsed, dental_posterior):
    for name in ("beta", "sd_b", "corr_b", "sigma", "b", "subject_coef", "icc"):
        assert largest_difference(collapsed, dental_posterior, name) < 4
    for name in ("beta", "sd_b", "corr_b", "sigma"):
        assert largest_difference(collapsed, dental_posterior, name, "sd") < 4


def test_the_two_trees_are_alike(collapsed, dental_posterior):
    one, other = collapsed.datatree, dental_posterior.datatree
    assert set(one.children) == set(other.children)
    for group in ("posterior", "log_likelihood", "observed_data", "constant_data"):
        a, b = one[group].to_dataset(), other[group].to_dataset()
        assert set(a.data_vars) == set(b.data_vars)
        for name in a.data_vars:
            assert a[name].dims == b[name].dims
            assert {**a[name].sizes, "draw": 0} == {**b[name].sizes, "draw": 0}
        for name in set(a.coords) - {"chain", "draw"}:
            np.testing.assert_array_equal(a[name], b[name])
    assert {"diverging", "energy"} <= set(collapsed.sample_stats.data_vars) & set(
        dental_posterior.sample_stats.data_vars
    )
    for table in ("summary", "variance_components"):
        a, b = (getattr(fit, table)() for fit in (collapsed, dental_posterior))
        assert list(a.index) == list(b.index)
        assert list(a.columns) == list(b.columns)


def test_auto_takes_the_collapsed_route_and_says_so(collapsed):
    attrs = collapsed.datatree.attrs
    assert (attrs["sampler"], attrs["route"], attrs["random_effects"]) == ("collapsed", "compiled", "draws")
    assert collapsed.converged
    assert "collapsed" in repr(collapsed).splitlines()[0]
    np.testing.assert_array_equal(collapsed.draws("D"), np.swapaxes(collapsed.draws("D"), -1, -2))
    np.testing.assert_array_equal(np.einsum("...kk->...k", collapsed.draws("corr_b")), 1.0)


def test_draws_of_everything_belong_together(collapsed):
    """D from sd and corr, subject_coef from β and b, in every draw."""
    sd, corr = collapsed.draws("sd_b"), collapsed.draws("corr_b")
    np.testing.assert_allclose(collapsed.draws("D"), corr * sd[..., None] * sd[..., None, :], rtol=1e-10)
    beta, b, own = (collapsed.draws(name) for name in ("beta", "b", "subject_coef"))
    male = (collapsed.design.W[:, 1] == 1).astype(float)
    np.testing.assert_allclose(own[..., 0], beta[..., :1] + male * beta[..., 1:2] + b[..., 0], rtol=1e-10)


@pytest.mark.parametrize(
    ("priors", "why"),
    [
        (Priors(beta=StudentT(4, 0, 3)), "not normal"),
        (Priors(sigma=Uniform(0, 20)), "Uniform"),
        (Priors(sd_b={"time": Uniform(0, 5)}), "Uniform"),
    ],
)
def test_other_priors_are_sampled_with_b_integrated_out(dental, priors, why):
    model = TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental, priors=priors)
    assert why in why_not_collapsed(model.priors)


@pytest.mark.slow
def test_the_fit_says_how_other_priors_were_sampled(dental):
    priors = Priors(beta={"time": StudentT(4, 0, 3)}, sd_b=LogNormal(2, 1))
    model = TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, priors=priors)
    fit = model.fit(draws=1000, seed=1, progressbar=False)
    attrs = fit.datatree.attrs
    assert (attrs["sampler"], attrs["route"]) == ("collapsed", "pymc")
    assert "not normal" in attrs["why"]
    explicit = model.fit(draws=1000, seed=2, sampler="explicit", progressbar=False)
    for name in ("beta", "sd_b", "sigma", "b", "subject_coef"):
        assert largest_difference(fit, explicit, name) < 4.5
        assert name == "b" or largest_difference(fit, explicit, name, "sd") < 4.5


def test_seeds(dental_model, collapsed):
    again = dental_model.fit(draws=1000, seed=2, progressbar=False)
    other = dental_model.fit(draws=1000, seed=3, progressbar=False)
    for name in ("beta", "b", "sd_b", "sigma"):
        np.testing.assert_array_equal(again.draws(name), collapsed.draws(name))
        assert not np.any(other.draws(name) == collapsed.draws(name))
        assert largest_difference(other, collapsed, name) < 4.5
    chains = collapsed.draws("sigma")
    assert not np.any(chains[1:] == chains[:1])


def test_python_callback_has_the_same_posterior(dental_model, collapsed, monkeypatch):
    from hierlmm.bayes import sample_collapsed as module

    def unavailable(posterior):
        raise ImportError

    monkeypatch.setattr(module, "_compiled_model", unavailable)
    fit = dental_model.fit(draws=1000, seed=4, progressbar=False)
    assert fit.datatree.attrs["route"] == "python"
    for name in ("beta", "sd_b", "corr_b", "sigma", "b"):
        assert largest_difference(fit, collapsed, name) < 4


def test_summary_of_random_effects(dental_model, collapsed):
    fit = dental_model.fit(draws=1000, seed=2, progressbar=False, random_effects="summary")
    np.testing.assert_array_equal(fit.draws("beta"), collapsed.draws("beta"))
    error = collapsed.b_sd / np.sqrt(4000)
    assert (np.abs(fit.b - collapsed.b) < 6 * error).to_numpy().all()
    np.testing.assert_allclose(fit.b_sd, collapsed.b_sd, rtol=0.08)
    np.testing.assert_allclose(fit.fitted(), collapsed.fitted(), atol=0.1)
    assert fit.subject_coef.shape == (27, 2)
    assert not {"b", "subject_coef"} & set(fit.datatree["posterior"].data_vars)
    assert set(fit.datatree["random_effects"].data_vars) == {"mean", "sd"}
    with pytest.raises(NotAvailableError, match="random_effects='draws'") as error:
        fit.draws("b")
    assert "fit.b" in error.value.reason
    assert list(fit.predict(level="population", interval="credible").columns) == ["estimate", "se", "lower", "upper"]
    assert len(fit.predict(level="new_subject", interval="prediction")) == 108
    assert len(fit.predict()) == 108
    for impossible in (lambda: fit.predict(interval="credible"), fit.posterior_predictive, fit.log_likelihood):
        with pytest.raises(NotAvailableError, match="random_effects='draws'"):
            impossible()
    assert "108" in repr(fit)


def test_no_random_effects_kept(dental_model):
    fit = dental_model.fit(draws=500, seed=2, progressbar=False, random_effects="none")
    assert "b" not in fit.datatree["posterior"]
    assert "random_effects" not in fit.datatree.children
    assert len(fit.predict(level="population", interval="credible")) == 108
    for impossible in (lambda: fit.b, lambda: fit.b_sd, lambda: fit.draws("b"), fit.predict, lambda: fit.subject_coef):
        with pytest.raises(NotAvailableError, match="keeps no draws of the random effects"):
            impossible()
    assert "Number of obs: 108" in repr(fit)
    with pytest.raises(SpecificationError, match="random_effects='everything'"):
        dental_model.fit(random_effects="everything")


def test_automatic_choice_by_size(dental_model, monkeypatch):
    from hierlmm.bayes import sample_collapsed as module

    monkeypatch.setattr(module, "DRAWS_LIMIT", 4 * 500 * 27 * 2 - 1)
    fit = dental_model.fit(draws=500, seed=2, progressbar=False)
    assert fit.datatree.attrs["random_effects"] == "summary"


def test_settings_are_checked(dental_model):
    for setting, words in (
        ({"draws": 0}, "draws=0"),
        ({"chains": 0}, "chains=0"),
        ({"target_accept": 1.2}, "strictly between 0 and 1"),
        ({"sampler": "gibbs"}, "not one of the choices"),
    ):
        with pytest.raises(SpecificationError, match=words):
            dental_model.fit(progressbar=False, **setting)


def test_too_few_draws_are_told_as_on_the_explicit_route(dental_model):
    with pytest.warns(FitWarning) as record:
        fit = dental_model.fit(draws=60, tune=200, chains=2, seed=1, progressbar=False)
    assert any("effective sample size" in str(w.message) for w in record)
    assert not fit.converged
    assert fit.warnings == tuple(str(w.message) for w in record)


def test_priors_reach_the_posterior(sleepstudy):
    """A prior far from the data and much sharper must win, on either side."""
    sharp = Priors(beta={"days": Normal(-3, 0.01)}, sd_b=HalfNormal(1e-3), sigma=Gamma(4e6, 1e5))
    model = TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy, priors=sharp)
    with pytest.warns(FitWarning, match="leaves no room"):
        fit = model.fit(seed=3, progressbar=False, target_accept=0.95)
    assert fit.beta["days"] == pytest.approx(-3, abs=0.1)
    assert fit.sd_b["Intercept"] < 0.01
    assert fit.sigma == pytest.approx(40, abs=0.2)


def test_prior_alone_where_the_data_say_nothing():
    """One row per subject and a huge known σ: the posterior of sd and correlation is the prior."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"subject": np.repeat(np.arange(5), 2), "t": np.tile([0.0, 1.0], 5), "y": rng.normal(size=10)})
    design = design_from_formula(parse_formula("y ~ t + (1 + t | subject)"), frame)
    chosen = Priors(sd_b={"Intercept": Gamma(3, 2), "t": HalfNormal(1.0)}, sigma=Gamma(1e8, 1e4), corr_b=LKJ(1.5))
    fit = fit_of(
        sample_collapsed(design, chosen.resolve(design), draws=4000, seed=1, progressbar=False, target_accept=0.95)
    )
    thin = slice(None, None, 10)
    known = {
        "Intercept": (fit.draws("sd_b")[:, thin, 0], stats.gamma(3, scale=0.5)),
        "t": (fit.draws("sd_b")[:, thin, 1], stats.halfnorm()),
        "corr": ((fit.draws("corr_b")[:, thin, 0, 1] + 1) / 2, stats.beta(1.5, 1.5)),
    }
    for draws, law in known.values():
        assert stats.kstest(draws.ravel(), law.cdf).pvalue > 1e-3
