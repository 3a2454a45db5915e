"""Boundary optima: found, checked from the side of D, and described in words."""

import numpy as np
import pandas as pd
import pytest

from hierlmm.covariance.random import random_covariance
from hierlmm.datasets import load_dataset
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.maximise import maximise
from hierlmm.model import TwoLevelModel


def test_dyestuff2_has_no_variation_between_batches():
    fit = TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", load_dataset("dyestuff2")).fit_reml()
    assert fit.is_singular
    assert fit.converged
    assert fit.D.iloc[0, 0] == 0.0
    assert "The data support no variation in Intercept between subjects" in fit.warnings[0]
    assert "not an error" in fit.warnings[0]
    assert "error" not in repr(fit).lower().replace("not an error", "")
    components = fit.variance_components()
    assert np.isnan(components.loc["sd(Intercept)", "upper"])
    assert np.isfinite(components.loc["sigma", "upper"])


def test_zero_is_left_when_it_is_a_saddle(sleepstudy):
    # λ = 0 is a stationary point by symmetry; the derivative with respect to D says that it is no optimum.
    model = TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleepstudy)
    design = model.design
    criterion = Criterion(cross_products(design), random_covariance(design.covariance, design.blocks), True)
    stationary = criterion.evaluate(np.zeros(3))
    assert np.max(np.abs(stationary.gradient)) == 0.0
    optimum = maximise(criterion, start=np.zeros(3))
    assert optimum.value == pytest.approx(model.fit_reml().criterion, rel=1e-12)
    assert optimum.n_boundary == 0


def simulate_perfect_correlation(seed):
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(12), 4)
    time = np.tile(np.arange(4.0), 12)
    common = rng.normal(size=12)[subject]
    y = 5 + common * (1 + 0.5 * time) + 2.0 * rng.normal(size=48)
    return pd.DataFrame({"subject": subject, "time": time, "y": y})


def test_a_correlation_of_one_is_called_singular():
    singular, said = 0, 0
    for seed in range(8):
        fit = TwoLevelModel.from_formula("y ~ time + (time | subject)", simulate_perfect_correlation(seed)).fit_reml()
        assert fit.converged
        assert fit.optimum.boundary_slope > -1e-6
        on_edge = abs(fit.corr_b.iloc[0, 1]) > 1 - 1e-8 or np.any(fit.sd_b == 0)
        assert fit.is_singular == on_edge
        singular += fit.is_singular
        if fit.is_singular and np.all(fit.sd_b > 0):
            assert "perfectly dependent" in fit.warnings[0]
            said += 1
    assert singular >= 3 and said


@pytest.mark.parametrize("covariance", ["unstructured", "diagonal", "identity"])
def test_no_point_nearby_is_better(covariance):
    rng = np.random.default_rng(0)
    for seed in range(6):
        data = simulate_perfect_correlation(seed)
        model = TwoLevelModel.from_formula("y ~ time + (time | subject)", data, covariance=covariance)
        design = model.design
        criterion = Criterion(cross_products(design), random_covariance(design.covariance, design.blocks), True)
        optimum = maximise(criterion)
        assert optimum.converged
        for scale in (1e-3, 1e-2, 0.1, 1.0):
            for _ in range(20):
                trial = criterion(optimum.lam + scale * rng.normal(size=len(optimum.lam)))
                assert trial >= optimum.value - 1e-9


def test_negative_intraclass_correlation_ends_at_zero():
    data = load_dataset("negative_icc")
    fit = TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data).fit_reml()
    assert fit.is_singular
    assert fit.D.iloc[0, 0] == 0.0
    ols = np.linalg.lstsq(fit.design.X, fit.design.y, rcond=None)[0]
    np.testing.assert_allclose(fit.beta, ols, rtol=1e-10)


def test_draws_of_a_singular_fit_stay_around_the_estimate():
    # A normal distribution on the empty column of the factor, squared, would push every draw away from the boundary.
    for seed in range(8):
        fit = TwoLevelModel.from_formula("y ~ time + (time | subject)", simulate_perfect_correlation(seed)).fit_reml()
        tree = fit.to_datatree(draws=500, seed=1)
        assert ("boundary" in tree.attrs or "boundary" in tree["posterior"].attrs) == fit.is_singular
        for k in range(2):
            lower, upper = np.quantile(tree["posterior"]["sd_b"].to_numpy()[..., k], [0.01, 0.99])
            assert lower - 1e-8 <= fit.sd_b.iloc[k] <= upper + 1e-8


def test_a_singular_block_has_no_interval():
    for seed in range(8):
        fit = TwoLevelModel.from_formula("y ~ time + (time | subject)", simulate_perfect_correlation(seed)).fit_reml()
        components = fit.variance_components()
        inside = components.drop(index="sigma")
        assert inside["upper"].isna().all() == fit.is_singular
        assert np.isfinite(components.loc["sigma", ["lower", "upper"]]).all()
