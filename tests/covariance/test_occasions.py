"""Occasions that are text stand in the order of the numbers in them, not of the alphabet."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl


@pytest.fixture(scope="module")
def eleven():
    """A response that follows the one before, at eleven visits; half of the subjects leave after the ninth."""
    rng = np.random.default_rng(3)
    e = np.zeros((40, 11))
    for k in range(11):
        e[:, k] = 0.8 * e[:, k - 1] + rng.normal(size=40)
    rows = [(i, k + 1, f"visit {k + 1}", e[i, k]) for i in range(40) for k in range(11 if i % 2 else 9)]
    return pd.DataFrame(rows, columns=["id", "number", "visit", "y"])


@pytest.mark.parametrize("mean", ["y ~ 1", "y ~ visit"])
def test_neighbours_are_those_of_the_numbers(eleven, mean):
    fits = [
        hl.MarginalModel(mean, correlation=hl.AnteDependence(time), subject="id", data=eleven).fit_ml()
        for time in ("visit", "number")
    ]
    assert fits[0].loglik == pytest.approx(fits[1].loglik, abs=1e-7)
    assert "rho(visit 9, visit 10)" in fits[0].variance_components().index


def test_drop_out_is_seen(eleven):
    found = hl.missing_patterns(eleven, response="y", subject="id", time="visit").table
    assert found["kind"].tolist() == ["complete", "monotone"]


def test_an_order_that_text_does_not_tell_is_asked_for(eleven):
    named = eleven.replace({"visit": {"visit 1": "start", "visit 11": "end"}})
    order = ["start", *(f"visit {k}" for k in range(2, 11)), "end"]
    stated = named.assign(visit=pd.Categorical(named["visit"], order))
    with pytest.raises(hl.DataError, match="cannot be told from text"):
        hl.MarginalModel("y ~ 1", correlation=hl.AnteDependence("visit"), subject="id", data=named)
    with pytest.raises(hl.DataError, match="cannot be told from text"):
        hl.missing_patterns(named, response="y", subject="id", time="visit")
    fit = hl.MarginalModel("y ~ 1", correlation=hl.AnteDependence("visit"), subject="id", data=stated).fit_ml()
    assert "rho(start, visit 2)" in fit.variance_components().index
    assert hl.missing_patterns(stated, response="y", subject="id", time="visit").table["kind"].tolist()[1] == "monotone"
