"""Priors asked before any fit, at both doors."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl


@pytest.fixture(scope="module", params=["two-level", "marginal"])
def model(request, dental):
    if request.param == "marginal":
        return hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1("time"), subject="subject", data=dental)
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)


def test_before_a_fit_and_after_it_the_priors_say_the_same(model, dental):
    tree = model.prior_predictive(draws=300, seed=4)
    assert set(tree.children) == {"prior", "prior_predictive", "observed_data", "constant_data"}
    assert tree["prior_predictive"]["distance"].shape == (1, 300, len(dental))
    with pytest.warns(hl.FitWarning):
        fit = model.fit(draws=20, tune=50, chains=1, seed=1, progressbar=False)
    again = fit.prior_predictive(draws=300, seed=4)
    for group in ("prior", "prior_predictive"):
        assert tree[group].to_dataset().equals(again[group].to_dataset())
    if model.design.term:
        prior = model.priors.sigma.sample(np.random.default_rng(0), 20_000)
        drawn = model.prior_predictive(5000, seed=5)["prior"]["sigma"].to_numpy()
        assert np.median(drawn) == pytest.approx(np.median(prior), rel=0.06)


def test_a_number_of_draws_is_asked_for(model):
    with pytest.raises(hl.ArgumentError, match="nothing would be drawn"):
        model.prior_predictive(draws=0)
