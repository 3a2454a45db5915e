"""Measurements and partial residuals behind curves, and where the data end."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cirrhosis_trial import HELD

import hierlmm as hl
from hierlmm.errors import FitWarning, NotAvailableError


def test_partial_residuals_of_the_full_curve_are_the_data(dental_reml, dental):
    """Nothing is held: the population line plus its residual is the measurement."""
    curves = dental_reml.effects("time", by="sex")
    partial = curves.points("partial", residual_level="population")
    np.testing.assert_allclose(partial["y"], dental["distance"], rtol=1e-10)
    own = curves.points("partial")
    shift = dental_reml.fitted("subject") - dental_reml.fitted("population")
    np.testing.assert_allclose(own["y"], dental["distance"] - shift, rtol=1e-10)
    np.testing.assert_allclose(curves.points("points")["y"], dental["distance"])


def test_partial_residuals_are_adjusted_data(cirrhosis, pbc):
    """They are moved by the effects of what is held, and by nothing else."""
    partial = cirrhosis.effects("year", by="sex", at=HELD).points("partial", residual_level="population")
    beta, female = cirrhosis.beta, (pbc["sex"] == "female").to_numpy()
    moved = np.log(pbc["bili"])
    for name, value in HELD.items():
        slope = beta[name] + female * beta[next(c for c in beta.index if c.startswith(f"{name}:"))]
        moved = moved + slope * (value - pbc[name])
    np.testing.assert_allclose(partial["y"], moved, atol=1e-9)


def test_points_belong_to_their_curve(cirrhosis, pbc):
    at = {"age": [40, 50, 60]}
    curves = cirrhosis.effects("year", by="age", at=at | {"sex": "male"}, n=3)
    points = curves.points()
    assert len(points) == (pbc["sex"] == "male").sum()
    ages = pbc.loc[points.index, "age"]
    assert np.all(np.abs(points["age"] - ages) <= [min(abs(a - v) for v in at["age"]) + 1e-12 for a in ages])
    assert len(curves.points("partial")) == len(pbc)
    panels = cirrhosis.effects("year", by="sex", at=at, n=3)
    assert len(panels.points()) == len(pbc) and len(panels.points("partial")) == 3 * len(pbc)


def test_residuals_that_are_not_there(gee, dental_reml):
    with pytest.raises(NotAvailableError, match="no line of a subject"):
        gee.effects("time").points("partial", residual_level="subject")
    y = gee.effects("time", by="sex").points("partial")["y"]
    np.testing.assert_allclose(y, dental_reml.design.y, rtol=1e-10)


def test_beyond_the_groups_own_data_is_dashed_without_a_warning(cirrhosis, pbc):
    last = pbc.groupby("sex", observed=True)["year"].max()
    table = cirrhosis.effects("year", by="sex", at=HELD, n=2001).table
    for sex, own in table.groupby("sex", observed=True):
        assert own.loc[~own["extrapolated"], "year"].max() == pytest.approx(last[sex], abs=0.01)
    assert table["extrapolated"].any()


def test_held_values_beyond_the_data_are_said(cirrhosis):
    with pytest.warns(FitWarning, match=r"age = 200, data from 26\.\d+ to 78\.\d+"):
        assert cirrhosis.effects("year", at={"age": 200}, n=3).table["extrapolated"].all()
    with pytest.warns(FitWarning, match="age = 200"):
        table = cirrhosis.effects("year", by="age", at={"age": [50, 200], "sex": "male"}, n=3).table
    assert table.groupby("age")["extrapolated"].all().tolist() == [False, True]


def test_boundary_knots_inside_the_data(pbc):
    formula = "log(bili) ~ bs(year, df=4, boundary_knots=[0, 8]) + (1 | subject)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = hl.TwoLevelModel.from_formula(formula, pbc).fit_reml()
    with pytest.warns(FitWarning, match="beyond the boundary knots"):
        table = fit.effects("year", n=29).table
    assert table.loc[table["extrapolated"], "year"].min() > 8.0
    assert not table.loc[table["year"] <= 8.0, "extrapolated"].any()
