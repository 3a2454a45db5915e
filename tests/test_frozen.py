"""What a user does to the answers of a model or a fit does not change the model or the fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes.sample import make_posterior_fit
from hierlmm.design import ARRAYS

FORMULA = "distance ~ sex * time + (1 + time | subject)"


@pytest.fixture
def model(dental):
    return hl.TwoLevelModel.from_formula(FORMULA, dental)


@pytest.fixture
def fit(model):
    return model.fit_reml()


@pytest.fixture
def posterior(fit):
    tree = fit.to_datatree(draws=200)["posterior"].to_dataset()
    draws = {name: tree[name].to_numpy() for name in ("beta", "b", "sd_b", "corr_b", "D", "sigma")}
    attrs = {"estimator": "NUTS", "sampler": "explicit"}
    return make_posterior_fit(fit.design, None, draws, None, attrs, log_likelihood=False)


@pytest.mark.parametrize("kind", ["fit", "posterior"])
@pytest.mark.parametrize("name", ["beta", "beta_cov", "beta_se", "D", "sd_b", "corr_b", "b", "b_sd", "subject_coef"])
def test_tables_of_a_fit_are_copies(request, kind, name):
    fit = request.getfixturevalue(kind)
    predicted = fit.predict(interval="confidence") if kind == "fit" else fit.predict()
    before = getattr(fit, name).copy()
    answer = getattr(fit, name)
    answer.loc[...] = 0.0
    answer *= 0.0
    assert (answer == 0.0).all(axis=None)
    same = pd.testing.assert_series_equal if isinstance(before, pd.Series) else pd.testing.assert_frame_equal
    same(getattr(fit, name), before)
    again = fit.predict(interval="confidence") if kind == "fit" else fit.predict()
    pd.testing.assert_frame_equal(again, predicted)


def test_arrays_of_a_fit_are_read_only(fit, posterior):
    with pytest.raises(ValueError, match="read-only"):
        fit.b_cov[...] = 0.0
    draws = posterior.draws("beta")
    with pytest.raises(ValueError, match="read-only"):
        draws -= draws.mean((0, 1))
    assert np.isclose(posterior.draws("beta").mean((0, 1)), fit.beta, atol=0.5).all()


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_a_design_are_read_only(model, name):
    other = model.design.with_response(model.design.y + 1.0)
    for design in (model.design, other, pickle.loads(pickle.dumps(other)), copy.deepcopy(other)):
        with pytest.raises(ValueError, match="read-only"):
            getattr(design, name)[...] = 0


def test_a_new_response_stays_the_callers(model):
    y = np.array(model.design.y)
    design = model.design.with_response(y)
    y[:] = 0.0
    np.testing.assert_array_equal(design.y, model.design.y)


def test_data_of_a_model_are_a_copy(dental):
    table = dental.copy()
    model = hl.TwoLevelModel.from_formula(FORMULA, table)
    criterion = model.fit_reml().criterion
    table.loc[:, "distance"] = 0.0
    rows = model.data
    rows.loc[:, "distance"] = 0.0
    assert (model.data["distance"] > 0).all()
    assert model.fit_reml().criterion == criterion
