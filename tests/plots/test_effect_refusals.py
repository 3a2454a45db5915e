"""Curves that cannot be asked for, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.effects.curve_checks import _moves_along
from hierlmm.errors import NotAvailableError, SpecificationError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": "yaer"}, "no covariate of this name. Did you mean 'year'"),
        ({"variable": "chol_unused"}, "no covariate"),
        ({"variable": "sex"}, "is a factor in this model"),
        ({"variable": "year", "by": "year"}, "what the curves run along"),
        ({"variable": "year", "by": "sx"}, "Did you mean 'sex'"),
        ({"variable": "year", "by": ["sex", "age", "basepro"]}, "no third way"),
        ({"variable": "year", "at": {"sex": "other"}}, "no such level"),
        ({"variable": "year", "at": {"weight": 3}}, "no covariate of this name"),
        ({"variable": "year", "at": {"age": "old"}}, "is a number"),
        ({"variable": "year", "at": {"year": 3}}, "two points at least"),
        ({"variable": "year", "at": {"year": ["a", 1]}}, "is a number"),
        ({"variable": "year", "n": 1}, "two points at least"),
        ({"variable": "year", "ci": 1.5}, "between 0 and 1"),
        ({"variable": "year", "transform": "log"}, "not one of the choices"),
        ({"variable": "year", "simultaneous": "panel"}, "not one of the choices"),
        ({"variable": "year", "level": "mean"}, "not one of the choices"),
    ],
)
def test_refusals(cirrhosis, arguments, message):
    with pytest.raises(SpecificationError, match=message):
        cirrhosis.effects(**arguments)


def test_refused_levels(cirrhosis, gee):
    with pytest.raises(NotAvailableError, match="mean over subjects"):
        gee.effects("time", level="subject")
    with pytest.raises(NotAvailableError, match="about the mean"):
        cirrhosis.effects("year", level="subject")
    assert cirrhosis.effects("year", level="marginal", n=3).table.equals(cirrhosis.effects("year", n=3).table)


def test_constant_covariate(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ 0 + one + time + (1 | subject)", dental.assign(one=2.5))
    with pytest.raises(SpecificationError, match=r"same value, 2\.5, in all rows"):
        model.fit_reml().effects("one")


def test_covariates_that_cannot_stand_still(dental, pbc):
    square = hl.TwoLevelModel.from_formula(
        "distance ~ time + t2 + (1 | subject)", dental.assign(t2=dental["time"] ** 2)
    )
    with pytest.raises(SpecificationError, match="function of 'time'"):
        square.fit_reml().effects("time")
    late = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year + late + (1 | subject)", pbc.assign(late=np.where(pbc["year"] > 3, "yes", "no"))
    )
    with pytest.raises(SpecificationError, match="function of 'year'"):
        late.fit_reml().effects("year", by="late")
    inside = hl.TwoLevelModel.from_formula("log(bili) ~ year + I(year > 3) + (1 | subject)", pbc).fit_reml()
    table = inside.effects("year", at={"year": [2.9, 3.1]}).table
    step = table["estimate"].diff().iloc[1] - 0.2 * inside.beta["year"]
    assert step == pytest.approx(inside.beta.iloc[-1] if "I(" in inside.beta.index[-1] else inside.beta.iloc[1])
    older = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year + now + (1 | subject)", pbc.assign(now=pbc["age"] + pbc["year"])
    )
    assert "within subjects now changes exactly with year" in repr(older.fit_reml().effects("year", n=3))


@pytest.mark.parametrize("function", [lambda x: x**2, lambda x: np.where(x > 0, "high", "low"), lambda x: 3 - x**3])
def test_functions_of_a_covariate_of_level_2_are_refused(between, function):
    data = between.assign(other=function(between["iq"]))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + iq + other + (1 | subject)", data).fit_reml()
    with pytest.raises(SpecificationError, match="'other' is a function of 'iq'"):
        fit.effects("iq")


@pytest.mark.parametrize("response", ["distance", "I(distance / 10)", "sqrt(distance)", "np.log1p(distance)"])
def test_what_is_no_logarithm_is_not_undone(response, dental):
    text = f"np.{response}" if response.startswith("sqrt") else response
    fit = hl.TwoLevelModel.from_formula(f"{text} ~ time + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="not written as one"):
        fit.effects("time", transform="exp")


def test_remedies_name_what_can_be_done(dental):
    with pytest.raises(SpecificationError, match=r"plot_effects\(fit, 'time'\)") as caught:
        hl.plot_effects("time")
    assert "Effect plots" in caught.value.see
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="leave by= out"):
        fit.effects("time", by="sex")


@pytest.mark.parametrize("unit", [-1e4, 1e-4, 1.0, 1e4])
def test_a_covariate_moves_along_where_its_deviations_within_subjects_do(unit):
    """A correlation of 0.999 within subjects, whatever the unit and the subjects' means."""
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(20), 5)
    x, mean = rng.normal(size=100), rng.normal(size=20)[subject]
    assert _moves_along(x, unit * (x + 100.0 * mean), subject)
    assert not _moves_along(x, unit * (x + 0.3 * rng.normal(size=100)), subject)
    assert not _moves_along(x, unit * mean, subject)


def test_two_meanings_are_no_one_picture():
    rng = np.random.default_rng(3)
    who, x = np.repeat(np.arange(30), 4), np.tile(np.arange(4.0), 30)
    y = rng.poisson(np.exp(0.3 + 0.2 * x + 0.6 * rng.normal(size=30)[who]))
    model = hl.TwoLevelModel.from_formula(
        "y ~ x + (1 | who)", pd.DataFrame({"who": who, "x": x, "y": y}), family="poisson"
    )
    ml, gee = model.fit_ml(), model.fit_gee()
    with pytest.raises(SpecificationError, match="level='marginal'"):
        hl.plot_effects(ml, gee, "x")
    with pytest.raises(SpecificationError, match="level='marginal'"):
        hl.plot_effects(ml.effects("x"), gee.effects("x"))
    both = hl.plot_effects(ml, gee, "x", level="marginal")
    assert [c for c in (both.caption, gee.plot_effects("x").caption) if "Mean over subjects." not in c] == []
    assert "b = 0" in ml.plot_effects("x").caption
