"""Calibration with residual structures and of marginal models: it passes where it must, fails where it must."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.diagnostics.calibrate import calibrate
from hierlmm.diagnostics.calibration import LOGLIK
from hierlmm.errors import SpecificationError

FAST = {"draws": 400, "tune": 200, "seed": 1, "progressbar": False}


def marginal(data, correlation=None, variance=None, priors=None):
    return hl.MarginalModel(
        "distance ~ time", correlation=correlation, variance=variance, subject="subject", data=data, priors=priors
    )


def covers(table, n, columns=(50, 80, 95)):
    """Coverage within four binomial standard errors of its nominal value."""
    for level in columns:
        p = level / 100
        assert (np.abs(table[f"cover{level}"] - p) < 4 * np.sqrt(p * (1 - p) / n)).all(), table


def test_an_autoregression_is_calibrated(dental):
    result = calibrate(marginal(dental, hl.AR1()), 60, **FAST)
    assert result.ok, result.verdict
    assert list(result.summary().index) == ["Intercept", "time", "rho", "sigma", LOGLIK]
    covers(result.summary(), 60)
    assert not result.failures


def test_a_prior_on_a_part_of_the_range_is_calibrated(dental):
    """The truth is drawn from the part, and the sampler's coordinates are those of the part."""
    priors = hl.Priors(residual={"rho": hl.Uniform(-0.3, 0.3), "ratio(Male/Female)": hl.LogNormal(1, 0.3)})
    model = marginal(dental, hl.CompoundSymmetry(), hl.VarIdent("sex"), priors)
    result = calibrate(model, 60, **FAST)
    assert result.ok, result.verdict
    assert result.truth["rho"].between(-0.3, 0.3).all()
    assert (result.lower["rho"] >= -0.3).all() and (result.upper["rho"] <= 0.3).all()
    covers(result.summary(), 60)


def test_a_random_effect_beside_a_residual_structure(dental):
    model = hl.TwoLevelModel.from_formula(
        "distance ~ time + (1 | subject)", dental, residual_variance=hl.VarIdent("sex")
    )
    first = dental["subject"].iloc[0]
    result = calibrate(model, 40, subjects=[first], **FAST)
    assert result.ok, result.verdict
    expected = ["Intercept", "time", "sd(Intercept)", "ratio(Male/Female)", "sigma", f"b(Intercept, {first})", LOGLIK]
    assert list(result.summary().index) == expected


def test_a_wrong_prior_of_the_correlation_fails(dental):
    """The study can fail: data with strong correlation, and a fit that believes in weak ones."""
    narrow = marginal(dental, hl.AR1(), priors=hl.Priors(residual={"rho": hl.Uniform(-0.2, 0.2)}))
    result = calibrate(narrow, 40, truth=hl.Priors(residual={"rho": hl.Uniform(0.6, 0.9)}), **FAST)
    assert not result.ok
    assert result.summary().loc["rho", "cover95"] == 0.0


def test_likelihood_intervals_around_the_estimates_of_a_fit(dental):
    model = marginal(dental, hl.AR1())
    fit = model.fit_reml()
    result = calibrate(model, 150, estimator="reml", truth=fit, seed=2, progressbar=False)
    assert (result.truth["rho"] == result.truth["rho"].iloc[0]).all()
    assert result.truth["rho"].iloc[0] == pytest.approx(fit.residual_estimate.parameters["rho"])
    covers(result.summary(), 150)
    assert abs(result.estimate["rho"].mean() - result.truth["rho"].iloc[0]) < 0.05


def test_the_truth_must_have_the_same_structure(dental):
    other = marginal(dental, hl.CompoundSymmetry()).fit_reml()
    with pytest.raises(SpecificationError, match="a fit of the same model"):
        calibrate(marginal(dental, hl.AR1()), 10, estimator="reml", truth=other)


@pytest.mark.parametrize("number", [1, 20, 25, 35])
@pytest.mark.parametrize("structure", [hl.CAR1("t"), hl.Exponential("t")], ids=["CAR1", "Exponential"])
def test_profile_intervals_hold_the_estimate_where_it_may_be_zero(structure, number):
    """Small data sets in which the correlation, or the SD of the random effects, may be zero: no limit is missing."""
    rng = np.random.default_rng(np.random.SeedSequence(1).spawn(number + 1)[number])
    subject, occasion = np.repeat(np.arange(27), 4), np.tile(np.arange(4.0), 27)
    t = occasion + np.random.default_rng(1).uniform(-0.4, 0.4, (27, 4)).ravel()
    b, e = 1.5 * rng.standard_normal(27), rng.standard_normal(108)
    for k in np.flatnonzero(occasion):
        d = 0.4 ** (t[k] - t[k - 1])
        e[k] = d * e[k - 1] + np.sqrt(1 - d**2) * e[k]
    frame = pd.DataFrame({"id": subject, "t": t, "x": subject % 2, "y": 20 + 0.5 * t + b[subject] + e})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = hl.TwoLevelModel.from_formula("y ~ x * t + (1 | id)", frame, residual=structure).fit_reml()
    profile = fit.variance_components(method="profile")
    assert profile[["lower", "upper"]].notna().all(axis=None)
    assert (profile["lower"] <= profile["estimate"] + 1e-8).all()
    assert (profile["estimate"] <= profile["upper"]).all()
    assert (profile["upper"] > profile["lower"]).all()
