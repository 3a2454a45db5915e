"""Marginal models: generalised least squares, what a marginal model has and has not, new rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from textbook import dense_fit

import hierlmm as hl
from hierlmm.errors import DataError, FormulaError, NotAvailableError, SpecificationError


@pytest.fixture(scope="module")
def dental_occasions(dental):
    return dental.assign(occasion=(dental["age"] - 6) // 2)


@pytest.fixture(scope="module")
def model(dental_occasions):
    return hl.MarginalModel(
        "distance ~ sex * time",
        correlation=hl.AR1("occasion"),
        variance=hl.VarIdent("sex"),
        subject="subject",
        data=dental_occasions,
    )


@pytest.fixture(scope="module")
def fit(model):
    return model.fit_reml()


def covariance(fit):
    """V of all rows, from the estimates."""
    design, found = fit.design, fit.residual_estimate.parameters
    lag = np.abs(np.subtract.outer(*[design.frame["occasion"].to_numpy()] * 2))
    g = np.where(design.frame["sex"] == "Male", found["ratio(Male/Female)"], 1.0)
    same = design.subject_index[:, None] == design.subject_index
    return np.where(same, found["rho"] ** lag, 0.0) * np.outer(g, g)


def test_generalised_least_squares_at_its_own_covariance(fit):
    value, beta, cov, *_ = dense_fit(fit.design, np.zeros((0, 0)), fit.sigma, True, covariance(fit))
    assert fit.criterion == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.beta_cov, cov, rtol=1e-7)


def test_subjects_likelihoods_add_up(model):
    fit = model.fit_ml()
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, rel=1e-11)


def test_normalized_residuals_have_no_correlation_left(fit):
    r = fit.residuals("response").to_numpy()
    V = fit.sigma**2 * covariance(fit)
    assert (fit.residuals("normalized") ** 2).sum() == pytest.approx(r @ np.linalg.solve(V, r), rel=1e-9)
    np.testing.assert_allclose(fit.residuals("pearson"), r / np.sqrt(np.diag(V)), rtol=1e-9)
    np.testing.assert_allclose(r, fit.design.y - fit.fitted())


def test_what_a_marginal_model_has_not(fit):
    for name in ("D", "sd_b", "corr_b", "b", "b_sd", "subject_coef", "icc"):
        with pytest.raises(NotAvailableError) as caught:
            getattr(fit, name)
        assert name in caught.value.received
    with pytest.raises(NotAvailableError, match="not what a subject has of its own"):
        fit.predict(level="subject")
    for method in (fit.fitted, lambda level: fit.residuals(level=level)):
        with pytest.raises(SpecificationError, match="no line of a subject"):
            method(level="subject")
    assert not fit.is_singular


def test_random_effects_do_not_belong_into_its_formula(dental):
    with pytest.raises(FormulaError, match="marginal model has no random effects"):
        hl.MarginalModel("distance ~ time + (1 | subject)", subject="subject", data=dental)


def test_predictions_of_new_rows(fit, dental_occasions):
    rows = dental_occasions.iloc[[0, 3, 60]]
    found = fit.predict(rows, interval="confidence")
    np.testing.assert_allclose(found["estimate"], fit.fitted().iloc[[0, 3, 60]])
    X = fit.design.X[[0, 3, 60]]
    np.testing.assert_allclose(found["se"], np.sqrt(np.einsum("ij,jk,ik->i", X, fit.beta_cov, X)), rtol=1e-7)
    # A new measurement has the residual SD of its own group.
    wide = fit.predict(rows, interval="prediction")
    ratio = np.where(rows["sex"] == "Male", fit.residual_estimate.parameters["ratio(Male/Female)"], 1.0)
    np.testing.assert_allclose(wide["se"] ** 2, found["se"] ** 2 + (fit.sigma * ratio) ** 2, rtol=1e-7)


def test_the_fit_is_frozen_and_repeatable(model, fit):
    again = model.fit_reml()
    assert again.criterion == fit.criterion
    with pytest.raises(AttributeError):
        fit.warnings = ()


def test_what_is_printed(model, fit):
    text = repr(fit)
    assert "Marginal" in text and "REML" in text
    for name in fit.residual_estimate.parameters:
        assert name.split("(")[0] in text
    assert "AR1(" in repr(model)


def test_independent_rows_are_ordinary_least_squares(dental):
    fit = hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental).fit_reml()
    beta, rss, *_ = np.linalg.lstsq(fit.design.X, fit.design.y, rcond=None)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-10)
    assert fit.sigma**2 == pytest.approx(float(rss[0]) / (fit.n_obs - 4), rel=1e-10)
    assert fit.residual_estimate is None
    assert fit.n_parameters == 5
    assert list(fit.variance_components().index) == ["sigma"]


def test_a_negative_correlation_is_no_random_intercept():
    data = hl.load_dataset("negative_icc")
    marginal = hl.MarginalModel(
        "y ~ time + x", correlation=hl.CompoundSymmetry(), subject="subject", data=data
    ).fit_reml()
    mixed = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data).fit_reml()
    assert marginal.residual_estimate.parameters["rho"] == pytest.approx(-0.2110327, abs=1e-6)
    assert mixed.D.iloc[0, 0] == 0.0
    assert 2 * (marginal.loglik - mixed.loglik) == pytest.approx(24.9334036, abs=1e-5)
    low = marginal.variance_components(method="profile").loc["rho"]
    assert -1 / 3 < low["lower"] < low["upper"] < 0


def test_variance_of_the_fitted_value_settles(sleepstudy):
    """VarPower() of the fitted mean: at the end the covariate is the fitted value itself."""
    fit = hl.MarginalModel(
        "reaction ~ days", correlation=hl.AR1(), variance=hl.VarPower(), subject="subject", data=sleepstudy
    ).fit_reml()
    fixed = hl.MarginalModel(
        "reaction ~ days",
        correlation=hl.AR1(),
        variance=hl.VarPower("mean"),
        subject="subject",
        data=sleepstudy.assign(mean=fit.fitted().to_numpy()),
    ).fit_reml()
    assert fit.converged
    assert fit.residual_estimate.parameters["power"] == pytest.approx(
        fixed.residual_estimate.parameters["power"], rel=1e-5
    )
    np.testing.assert_allclose(fit.beta, fixed.beta, rtol=1e-6)


@pytest.mark.parametrize("variance", [hl.VarPower(), hl.VarExp()], ids=["power", "exp"])
def test_variance_of_the_fitted_value_settles_with_random_effects_too(sleepstudy, variance):
    """Dense V from the reported fitted values, D, σ and parameter gives these fitted values back."""
    model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy, residual_variance=variance)
    fit = model.fit_ml()
    v, (value,) = fit.fitted("subject").to_numpy(), fit.residual_estimate.parameters.values()
    sd = fit.sigma * (np.abs(v) ** value if isinstance(variance, hl.VarPower) else np.exp(value * v))
    _, beta, _, b, _ = dense_fit(fit.design, fit.D.to_numpy(), 1.0, False, np.diag(sd**2))
    again = fit.design.X @ beta + b[fit.design.subject_index, 0]
    np.testing.assert_allclose(again, v, atol=1e-7 * np.ptp(v))


def test_order_of_rows_is_the_occasion_when_none_is_named(dental_occasions):
    by_order = hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=dental_occasions)
    named = hl.MarginalModel(
        "distance ~ time", correlation=hl.AR1("occasion"), subject="subject", data=dental_occasions
    )
    assert by_order.fit_ml().loglik == pytest.approx(named.fit_ml().loglik, rel=1e-12)
    turned = dental_occasions.iloc[::-1]
    again = hl.MarginalModel("distance ~ time", correlation=hl.AR1("occasion"), subject="subject", data=turned)
    assert again.fit_ml().loglik == pytest.approx(named.fit_ml().loglik, rel=1e-12)


def test_marginal_covariance_of_a_subject(fit):
    V = fit.marginal_covariance(1)
    assert isinstance(V, pd.DataFrame)
    rows = np.flatnonzero(fit.design.subject_index == 0)
    np.testing.assert_allclose(V, fit.sigma**2 * covariance(fit)[np.ix_(rows, rows)], rtol=1e-9)


def test_advice_for_a_marginal_fit_names_what_it_has(dental):
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=dental).fit_reml()
    with pytest.raises(DataError, match=r"fit\.design\.subjects"):
        fit.marginal_covariance(999)
    for name in ("b_cov", "plot_random_effects"):
        with pytest.raises(NotAvailableError, match=f"{name} of a marginal model"):
            getattr(fit, name)()


def test_comparison_with_gee_takes_the_working_correlation_of_the_model(dental):
    build = {"subject": "subject", "data": dental}
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), **build).fit_reml()
    found = fit.compare_marginal()
    assert found.gee.correlation == "ar1"
    assert found.gee.time == "age"
    assert "Marginal model by REML against GEE" in repr(found)
    assert "Mixed" not in repr(found)
    assert fit.compare_marginal("exchangeable").gee.correlation == "exchangeable"
    assert hl.MarginalModel("distance ~ time", **build).fit_ml().compare_marginal().gee.correlation == "independence"
    toeplitz = hl.MarginalModel("distance ~ time", correlation=hl.Toeplitz(), **build).fit_reml()
    with pytest.raises(SpecificationError, match=r"compare_marginal\('exchangeable'\)"):
        toeplitz.compare_marginal()
    mixed = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_reml().compare_marginal()
    assert mixed.gee.correlation == "exchangeable"
    assert "Mixed model by REML against GEE" in repr(mixed)


def test_residual_estimate_prints_its_structure(dental):
    fit = hl.MarginalModel(
        "distance ~ time", correlation=hl.AR1("age"), variance=hl.VarIdent("sex"), subject="subject", data=dental
    ).fit_reml()
    text = repr(fit.residual_estimate)
    assert text.startswith("ResidualEstimate(AR1(")
    assert "rho = " in text
    assert "array" not in text
