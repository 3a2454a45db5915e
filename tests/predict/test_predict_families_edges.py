"""Predictions of generalised fits at the edge: D without full rank, means outside their range, trials that are none."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl


def fit(formula, data, family, **options):
    return hl.TwoLevelModel.from_formula(formula, data, family=family, **options).fit_ml()


@pytest.fixture(scope="module")
def singular():
    """A slope that does not vary between subjects."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(25), 4), np.tile(np.arange(4.0), 25)
    y = rng.poisson(np.exp(0.4 + 0.1 * x + 0.6 * rng.normal(size=25)[g]))
    return fit("y ~ x + (x | g)", pd.DataFrame({"g": g, "x": x, "y": y}), "poisson")


def test_new_responses_of_a_subject_where_D_is_singular(singular):
    assert singular.optimum.n_boundary
    found = singular.predict(level="subject", interval="prediction")
    assert np.all(found["lower"] <= found["estimate"])
    assert np.all(found["estimate"] <= found["upper"])
    assert np.mean((singular.design.y >= found["lower"]) & (singular.design.y <= found["upper"])) > 0.9
