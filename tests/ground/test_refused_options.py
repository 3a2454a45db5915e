"""What would be ignored, or would fail deep inside, is refused in words; what a fit must add to its numbers is said."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes import route
from hierlmm.bayes.record import PosteriorRecord
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise


@pytest.fixture(scope="module")
def dental():
    return hl.load_dataset("dental")


@pytest.fixture(scope="module")
def mixed(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental)


@pytest.fixture(scope="module")
def marginal(dental):
    return hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental, correlation=hl.AR1())


# Calibration.


def test_no_calibration_where_the_variance_follows_the_fitted_value(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, residual_variance=hl.VarPower())
    for method in ("nuts", "reml"):
        with pytest.raises(NotAvailableError, match=r"VarPower\(\) of the fitted value"):
            hl.calibrate(model, simulations=10, draws=50, tune=50, estimator=method, cores=1, progressbar=False)


def test_no_subjects_to_follow_in_a_marginal_model(marginal):
    with pytest.raises(SpecificationError, match="no random effects"):
        hl.calibrate(marginal, simulations=10, draws=50, tune=50, subjects=[1], cores=1, progressbar=False)


# compare.


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (("reml", "gee"), {"correlation": "independence", "se": "naive"}, "fit_gee"),
        (("reml", "ml"), {"nonsense": 1}, "no such option"),
        (("nuts", "reml"), {"drws": 5}, "Did you mean 'draws'"),
        (("reml", "ml"), {"draws": 100}, "none of these estimators samples"),
        (("nuts", "gee"), {"draws": 100, "scale": "n"}, "fit_gee"),
    ],
)
def test_options_that_compare_would_ignore(mixed, marginal, names, options, words):
    for model in (mixed, marginal):
        with pytest.raises(SpecificationError, match=words):
            model.compare(*names, **options)
    assert mixed.compare("reml", "ml", seed=1, progressbar=False).labels == ["REML", "ML"]


# Arguments of the other kind of model.


def test_arguments_of_the_other_kind_of_model_are_named(dental):
    data = {"subject": "subject", "data": dental}
    with pytest.raises(SpecificationError, match="use correlation"):
        hl.MarginalModel("distance ~ time", residual=hl.AR1(), **data)
    with pytest.raises(SpecificationError, match="use variance"):
        hl.MarginalModel("distance ~ time", residual_variance=hl.VarIdent("sex"), **data)
    with pytest.raises(SpecificationError, match="use residual,"):
        hl.TwoLevelModel("distance ~ time", correlation=hl.AR1(), **data)
    with pytest.raises(SpecificationError, match="use residual_variance"):
        hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, variance=hl.VarIdent("sex"))
    with pytest.raises(TypeError, match="Did you mean 'correlation'"):
        hl.MarginalModel("distance ~ time", corelation=hl.AR1(), **data)


def test_a_prior_of_random_effects_that_do_not_exist(dental):
    for prior in (hl.HalfNormal(1), {"Intercept": hl.HalfNormal(1)}, {}):
        with pytest.raises(SpecificationError, match="no random effects"):
            hl.MarginalModel("distance ~ time", subject="subject", data=dental, priors=hl.Priors(sd_b=prior))


# Working correlations.


@pytest.mark.parametrize("structure", [hl.CAR1("age"), hl.Exponential("age")])
def test_the_working_correlation_of_continuous_time(dental, structure):
    model = hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental, correlation=structure)
    own, named = model.fit_gee(), model.fit_gee("ar1", time="age")
    pd.testing.assert_series_equal(own.beta, named.beta)
    with_nugget = hl.MarginalModel(
        "distance ~ sex * time", subject="subject", data=dental, correlation=type(structure)("age", nugget=True)
    )
    with pytest.raises(SpecificationError, match="counterpart"):
        with_nugget.fit_gee()


# Rows that were dropped.


def test_a_structure_that_counts_rows_says_that_rows_were_dropped(dental, monkeypatch):
    holes = dental.copy()
    holes.loc[holes.index[[1, 6]], "distance"] = np.nan

    def model(structure, data=holes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            return hl.MarginalModel(
                "distance ~ time", subject="subject", data=data, correlation=structure, missing="drop"
            )

    for structure in (hl.AR1(), hl.Toeplitz()):
        assert any("2 rows with missing values were dropped" in w for w in model(structure).fit_reml().warnings)
        assert not any("dropped" in w for w in model(structure, dental).fit_reml().warnings)
    for structure in (hl.CompoundSymmetry(), hl.Exponential("age"), None):
        assert not any("dropped" in w for w in model(structure).fit_reml().warnings)
    seen = {}

    def sampled(design, priors, **options):
        seen.update(options)
        return PosteriorRecord(design, None, priors, "NUTS")

    monkeypatch.setattr(route, "sample_collapsed", sampled)
    model(hl.AR1()).fit()
    assert any("2 rows with missing values were dropped" in w for w in seen["notes"])


# Competition of random effects and residual correlation, both ways.


def serial_data(sd, seed=2, J=40, n=8):
    rng = np.random.default_rng(seed)
    t = np.arange(n, dtype=float)
    L = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(t, t)) / 3.0))
    y = sd * rng.normal(size=(J, 1)) + rng.normal(size=(J, n)) @ L.T
    return pd.DataFrame({"id": np.repeat(np.arange(J), n), "t": np.tile(t, J), "y": y.ravel()})


def test_random_effects_that_the_residual_correlation_makes_redundant():
    def fit(sd, seed=2):
        model = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", serial_data(sd, seed), residual=hl.Exponential("t"))
        return model.fit_reml()

    def falls(found):
        bare = hl.MarginalModel("y ~ t", subject="id", data=found.design.frame, correlation=hl.Exponential("t"))
        return maximise(make_criterion(bare.design, reml=True)).value / 2 + found.loglik

    noted = 0
    for seed in range(8):
        found = fit(0.3, seed)
        notes = [w for w in found.warnings if "without the random effects" in w]
        if not any("boundary" in w for w in found.warnings):
            assert bool(notes) == (falls(found) < 2.705543 / 2)
        for note in notes:
            noted += 1
            assert f"falls by {falls(found):.4f}" in note
    assert noted
    assert not any("compete" in w for w in fit(3.0).warnings)


# Fits.


def test_intervals_that_draws_do_not_have(mixed):
    from hierlmm.fit.posterior import PosteriorFit

    fit = PosteriorFit(mixed.design, None, None)
    for method in ("profile", "wald", "profil"):
        with pytest.raises(SpecificationError, match="quantiles of the draws"):
            fit.variance_components(method=method)


def test_rows_of_covariance_parameters_are_called_components(mixed, marginal):
    for model in (mixed, marginal):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = model.fit(draws=20, tune=20, chains=2, seed=1, progressbar=False)
        table, reml = posterior.variance_components(), model.fit_reml().variance_components()
        assert table.index.name == reml.index.name == "component"
        assert list(table.index) == list(reml.index)


def test_a_marginal_fit_has_no_covariances_of_random_effects(marginal):
    with pytest.raises(NotAvailableError, match="marginal model"):
        _ = marginal.fit_reml().b_cov
