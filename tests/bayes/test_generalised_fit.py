"""Posteriors of generalised models from the door: priors, routes, the tree, the print, and what is refused."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from generalised_cases import build, data_of, model_of

import hierlmm as hl
from hierlmm.bayes.elsewhere import _refuse_disorder
from hierlmm.bayes.family_draws import family_subject_loglik, psi_draws
from hierlmm.bayes.generalised import Marginal, joint_posterior
from hierlmm.bayes.sample_generalised import k_notes, pareto_k, tie_notes, worth
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError
from hierlmm.fits.posterior_print import _verdict

QUICK = {"draws": 250, "tune": 250, "chains": 2, "seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def counts():
    model = model_of("negative_binomial", "log", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return model.fit(**QUICK)


def test_default_priors_stand_on_the_scale_of_the_link():
    frame = data_of("poisson", "log")
    frame["area"] = np.linspace(1.0, 3.0, len(frame))
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", frame, family="poisson", exposure="area")
    table = model.priors.to_frame()["prior"]
    rate = np.log(frame["y"].sum() / frame["area"].sum())
    assert table["Intercept (at average covariates)"] == str(hl.Normal(rate, 2.5))
    assert table["x"] == str(hl.Normal(0, 2.5 / frame["x"].std(ddof=0)))
    assert table["sd(Intercept)"] == str(hl.HalfNormal(2.5))
    assert "sigma" not in table.index


def test_priors_of_dispersion_are_chosen_by_name():
    chosen = hl.Priors(sigma=hl.HalfNormal(2), dispersion={"nu": hl.Gamma(3, 1)})
    table = build("student_t", "identity", priors=chosen).priors.to_frame()["prior"]
    assert list(table[["sigma", "nu"]]) == [str(hl.HalfNormal(2)), str(hl.Gamma(3, 1))]
    assert model_of("ordinal", "logit").priors.dispersion_names == ("step 2", "step 3")
    with pytest.raises(SpecificationError, match="no residual SD"):
        build("negative_binomial", "log", priors=hl.Priors(sigma=hl.HalfNormal(2)))
    with pytest.raises(SpecificationError, match="'shap'"):
        build("negative_binomial", "log", priors=hl.Priors(dispersion={"shap": hl.HalfNormal(2)}))


def test_bambi_priors():
    logit = build("bernoulli", "logit", priors="bambi").priors
    x = data_of("bernoulli", "logit")["x"]
    assert logit.beta[0] == hl.Normal(0.0, 1.5)
    assert logit.beta[1].sd == pytest.approx(1.0 / x.std(ddof=0))
    assert "HalfCauchy" in str(build("gamma", "log", priors="bambi").priors.dispersion[0])
    with pytest.raises(NotAvailableError, match="thresholds"):
        build("ordinal", "logit", priors="bambi")


def test_the_tree_has_the_names_of_every_fit(counts):
    tree = counts.datatree
    assert {"beta", "sd_b", "b", "shape", "subject_coef"} == set(tree["posterior"].data_vars)
    assert {"sample_stats", "log_likelihood", "log_prior", "observed_data", "constant_data"} <= set(tree.children)
    assert tree["posterior"]["shape"].dims == ("chain", "draw")
    assert tree.attrs["sampler"] == "joint"
    assert tree.attrs["route"] == "compiled"
    assert tree["log_prior"]["shape"].dims == ("chain", "draw")


def test_numbers_and_print(counts):
    assert list(counts.dispersion.index) == ["shape"]
    assert list(counts.variance_components().index) == ["sd(Intercept)", "shape"]
    text = str(counts)
    assert "negative binomial (log link)" in text
    assert "shape" in text
    assert counts.fitted().min() > 0.0
    np.testing.assert_allclose(counts.fitted("population", scale="link"), counts.design.X @ counts.beta, atol=1e-8)
    assert counts.residuals("pearson").std() < 3.0
    assert counts.posterior_predictive(draws=3, seed=1)["posterior_predictive"]["y"].shape == (2, 3, counts.n_obs)


def test_predictions(counts):
    rows = counts.design.frame.head(5)
    line = counts.predict(rows, "population", scale="link")["estimate"]
    np.testing.assert_allclose(line, counts.design.X[:5] @ counts.beta, atol=1e-8)
    middle, mean = (counts.predict(rows, level, "credible") for level in ("population", "marginal"))
    assert np.all(mean["estimate"] > middle["estimate"])  # E exp(b) > 1
    one = counts.predict(rows, "new_subject", "credible")
    assert np.all(one["upper"] - one["lower"] > middle["upper"] - middle["lower"])
    own = counts.predict(rows, "subject", "prediction")
    assert np.all(own["lower"] == np.round(own["lower"]))
    np.testing.assert_allclose(
        counts.predict()["estimate"], np.exp(counts.line_draws(most=10_000)[0]).mean(axis=0), rtol=1e-10
    )
    marginal = counts.marginal_coefficients().table
    assert marginal.loc["Intercept", "estimate"] > marginal.loc["Intercept", "conditional"]


def test_rows_and_subjects_left_out(counts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        subject, row = counts.loo(), counts.loo("observation")
    assert subject.n == counts.n_subjects
    assert row.n == counts.n_obs
    by_row = counts.datatree["log_likelihood"]["y"].sum("obs").mean()
    assert float(by_row) > subject.elpd


def test_the_likelihood_of_a_subject_is_that_of_maximum_likelihood():
    model = model_of("poisson", "log", "1")
    fit = model.fit_ml(n_quadrature=15)
    at = fit.solution
    found = family_subject_loglik(model.design, at.beta[None], at.root[None], at.psi[None])[0]
    np.testing.assert_allclose(found, fit.subject_loglik(), atol=1e-8)


def test_psi_of_thresholds():
    design = model_of("ordinal", "logit").design
    psi = np.array([[[0.3, -0.2]]])
    draws = {name.replace(" ", "_"): np.array([[v]]) for name, v in design.family.natural(psi[0, 0]).items()}
    np.testing.assert_allclose(psi_draws(design, draws), psi)


def test_weights_of_an_approximation():
    """Lognormal weights are tame; those of a normal whose variance is half of what it should be have a heavy tail."""
    rng, n = np.random.default_rng(1), 4000
    x, y = rng.standard_normal(n), 0.5**0.5 * rng.standard_normal(n)
    tame, heavy = 0.5 * x, 0.5 * y**2  # the ratio of N(0, 1) to N(0, 1/2): k = 1/2 at least
    assert pareto_k(np.zeros(n) + 0.05 * np.tanh(x)) == 0.0
    assert pareto_k(tame) < 0.4 < pareto_k(2.0 * heavy)
    assert pareto_k(-2.0 * heavy) < 0.0  # turned round the weights are bounded
    assert worth(tame) == pytest.approx(np.exp(-0.25), abs=0.03)
    assert k_notes(0.1, 0.9) == ()
    assert "worth 45 %" in k_notes(0.1, 0.45)[0]


def test_laplace_says_how_good_it_is():
    model = model_of("poisson", "log", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = model.fit(**QUICK, sampler="laplace")
    assert fit.pareto_k < 0.7
    assert "Pareto k" in str(fit)
    assert fit.datatree["posterior"]["b"].shape == (2, 250, 8, 1)


@pytest.mark.parametrize(
    ("k", "words"), [(0.3, "nothing looks wrong"), (1.4, "which is not the posterior"), (np.nan, "was not compared")]
)
def test_chains_at_an_approximation_do_not_look_right(k, words):
    worst = {"max_rhat": 1.0, "min_ess_bulk": 900.0, "min_ess_tail": 900.0, "divergences": 0, "messages": ()}
    said = {"convergence": lambda: SimpleNamespace(**worst), "warnings": ()}
    text = _verdict(SimpleNamespace(**said, datatree=SimpleNamespace(attrs={"pareto_k": k})))
    assert words in text
    assert ("nothing looks wrong" in text) == (k < 0.7)


def test_prior_predictive_draws():
    tree = model_of("ordinal", "logit").prior_predictive(draws=20, seed=1)
    assert set(np.unique(tree["prior_predictive"]["y"])) <= {0.0, 1.0, 2.0, 3.0}
    assert "threshold_2" in tree["prior"]


def test_what_there_is_not_is_refused(counts):
    model = model_of("negative_binomial", "log", "1")
    with pytest.raises(SpecificationError, match="only beside a Gaussian"):
        model.fit(**QUICK, sampler="collapsed")
    with pytest.raises(SpecificationError, match="only beside a Gaussian"):
        model.to_pymc(marginalized=True)
    with pytest.raises(NotAvailableError, match="normal around the linear predictor"):
        counts.plot_qq()
    with pytest.raises(NotAvailableError):
        counts.icc  # noqa: B018
    with pytest.raises(NotAvailableError):
        counts.sigma  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(("name", "link"), [("bernoulli", "logit")])
def test_both_routes_have_one_posterior(name, link):
    model = model_of(name, link)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        ours = model.fit(seed=1, progressbar=False)
        explicit = model.fit(seed=2, progressbar=False, sampler="explicit", target_accept=0.95)
    for table in ("summary", "variance_components"):
        a, b = getattr(ours, table)(), getattr(explicit, table)()
        apart = (a["estimate"] - b["estimate"]) / np.hypot(a["mcse"], b["mcse"])
        assert np.abs(apart).max() < 4.0
    assert ours.convergence().divergences == 0


@pytest.mark.slow
def test_three_binary_rows_a_subject():
    rng = np.random.default_rng(4)
    subject = np.repeat(np.arange(150), 3)
    x = rng.normal(size=450)
    p = 1.0 / (1.0 + np.exp(-(0.3 + 0.7 * x + rng.normal(size=150)[subject])))
    frame = pd.DataFrame({"y": (rng.random(450) < p).astype(int), "x": x, "subject": subject})
    fit = hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", frame, family="bernoulli").fit(
        seed=1, progressbar=False
    )
    check = fit.convergence()
    assert check.divergences == 0
    assert check.max_rhat < 1.01
    assert check.min_ess_bulk > 400


def test_marginal_by_quadrature_is_above_laplace_in_general():
    model = model_of("bernoulli", "logit", "1")
    packed = joint_posterior(model.design, model.priors).model
    phi, scale = packed.data.centre.copy(), packed.data.sd_prior[0, -1]
    phi[0] = 1.0 / scale if scale else 0.0  # a standard deviation of 1
    values = [Marginal(packed, points).log_density(phi)[0] for points in (1, 9, 25)]
    assert abs(values[1] - values[2]) < 1e-4 < abs(values[0] - values[2])


def test_chains_that_stand_still_are_sampled_again(monkeypatch):
    """Trajectories of a normal density that stay where they are; leapfrog steps then have the posterior."""
    from hierlmm.bayes import sample_generalised

    asked, run = [], sample_generalised.run

    def stuck(model, settings, **options):
        asked.append(options)
        tree = run(model, settings, **options)
        if options:
            z = tree["posterior"]["z"]
            tree["posterior"]["z"] = z * 0.01 + xr.DataArray([-1.0, 1.0], dims="chain")
        return tree

    monkeypatch.setattr(sample_generalised, "run", stuck)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = model_of("poisson", "log", "1").fit(**QUICK)
    assert asked == [{"exact_normal_trajectory": True, "maxdepth": sample_generalised.DEPTH}, {}]
    assert fit.convergence().max_rhat < 1.1


def test_a_scale_that_goes_to_zero_is_told_with_its_reason():
    rng, g = np.random.default_rng(1), np.repeat(np.arange(10), 4)
    data = pd.DataFrame({"g": g, "y": np.where(rng.random(40) < 0.6, 0.0, rng.normal(size=40))})
    design = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", data, family="student_t").design
    (note,) = tie_notes(design, {"sigma": np.full((2, 50), 1e-9)})
    assert "responses are equal to another" in note
    assert not tie_notes(design, {"sigma": np.full((2, 50), 0.4)})


def test_chains_that_cannot_begin(monkeypatch):
    import nutpie

    def fails(*arguments, **options):
        raise RuntimeError("All initialization points failed")

    monkeypatch.setattr(nutpie, "sample", fails)
    with pytest.raises(NotAvailableError, match=r"(?s)no number at any place.*separate the outcomes"):
        model_of("poisson", "log", "1").fit(**QUICK)


def test_thresholds_of_a_tree_ascend():
    design, ones = model_of("ordinal", "logit").design, np.ones((1, 5))
    _refuse_disorder(design, {"threshold_2": ones, "threshold_3": 2.0 * ones})
    with pytest.raises(DataError, match="thresholds ascend"):
        _refuse_disorder(design, {"threshold_2": 2.0 * ones, "threshold_3": ones})
