"""Slopes, and differences that are zero or small."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from effect_fits import additive

import hierlmm as hl
from hierlmm.errors import SpecificationError


@pytest.mark.parametrize("formula", ["distance ~ time + I(time > 3)", "distance ~ time + np.maximum(time - 3, 0)"])
def test_no_slope_at_a_jump_or_a_kink(dental, formula):
    fit = hl.TwoLevelModel.from_formula(f"{formula} + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="jump or a kink"):
        fit.slopes("time", at={"time": 3})
    beside = fit.slopes("time", at={"time": [2.5]}).table["estimate"].iloc[0]
    np.testing.assert_allclose(beside, fit.beta["time"], rtol=1e-8)


@pytest.mark.parametrize("estimator", ["reml", "gee"])
def test_a_difference_of_zero_has_no_test(dental, estimator):
    model = hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 | subject)", dental)
    fit = additive() if estimator == "reml" else model.fit_gee()
    for slopes in (fit.slopes("time", by="sex"), fit.slopes("time", at={"time": [0, 6]})):
        found = slopes.contrasts()
        row = found.table.iloc[0]
        assert row["estimate"] == row["se"] == row["lower"] == row["upper"] == 0.0
        assert row[["df", "t", "p"]].isna().all()
        assert "no coefficient is left" in repr(found) and "no row is tested" in repr(found)


def test_a_difference_of_zero_has_no_probability(dental_posterior):
    found = dental_posterior.slopes("time", at={"time": [0, 6]}).contrasts(rope=1).table.iloc[0]
    assert found["estimate"] == found["se"] == 0.0
    assert found[["prob_positive", "prob_rope"]].isna().all()


def test_a_slope_that_is_known_has_no_test(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex + time + offset(0.1 * age) + (1 | subject)", dental).fit_reml()
    row = fit.slopes("age").table.iloc[0]
    np.testing.assert_allclose(row["estimate"], 0.1, rtol=1e-9)
    assert row["se"] == 0.0 and row[["t", "p"]].isna().all()


def test_small_differences_are_no_rounding():
    table = additive().contrasts("time", at={"time": [3, 3.00001]}).table.iloc[0]
    unit = additive().slopes("time").table.iloc[0]
    np.testing.assert_allclose(table["t"], -unit["t"], rtol=1e-6)


def test_no_number_to_take_a_slope_of(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match=r"use fit\.marginal_means"):
        fit.slopes("time")


@pytest.mark.parametrize("level", [-1e6, -3.0, 0.0, 1e6])
def test_a_slope_where_another_covariate_is_far_below_zero(level):
    data = hl.load_dataset("dental").assign(z=lambda d: np.sin(np.arange(len(d))))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + z + (1 | subject)", data).fit_reml()
    found = fit.slopes("time", at={"z": level, "time": 1.0}).table
    np.testing.assert_allclose(found["estimate"], fit.beta["time"], rtol=1e-7)


def test_a_slope_of_terms_that_fall(dental):
    """The derivative of -t + t² is -1 for the one column and 2t for the other, also below zero."""
    data = dental.assign(t=dental["time"] - 3.0)
    fit = hl.TwoLevelModel.from_formula("distance ~ I(-t) + I(t**2) + (1 | subject)", data).fit_reml()
    falls, square = fit.beta.iloc[1:]
    found = fit.slopes("t", at={"t": [-2.0, -1.0, 0.0, 1.0]}).table["estimate"]
    np.testing.assert_allclose(found, -falls + 2.0 * square * np.array([-2.0, -1.0, 0.0, 1.0]), rtol=1e-7)


def test_extrapolation_is_said_of_the_values_asked_for_only():
    """The steps of the derivative beside the end of the data were warned of as well."""
    data = hl.load_dataset("sleepstudy")
    fit = hl.TwoLevelModel.from_formula("reaction ~ ns(days, 3) + (1 | subject)", data).fit_reml()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.slopes("days", at={"days": [0, 9]})
    with pytest.warns(hl.FitWarning) as said:
        fit.slopes("days", at={"days": [-0.01, 5]})
    assert ["days is -0.01" in str(one.message) for one in said] == [True]
