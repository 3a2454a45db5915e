"""Calibration with residual structures and of marginal models: it passes where it must, fails where it must."""

from __future__ import annotations

import numpy as np
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
    result = calibrate(model, 150, method="reml", truth=fit, seed=2, progressbar=False)
    assert result.truth["rho"].nunique() == 1
    assert result.truth["rho"].iloc[0] == pytest.approx(fit.residual_estimate.parameters["rho"])
    covers(result.summary(), 150)
    assert abs(result.estimate["rho"].mean() - result.truth["rho"].iloc[0]) < 0.05


def test_the_truth_must_have_the_same_structure(dental):
    other = marginal(dental, hl.CompoundSymmetry()).fit_reml()
    with pytest.raises(SpecificationError, match="a fit of the same model"):
        calibrate(marginal(dental, hl.AR1()), 10, method="reml", truth=other)
