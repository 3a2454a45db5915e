"""Refusals of names, and of covariates at the wrong level."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import DATA, N, formula, levels, refused

from hierlmm.errors import DataError, FormulaError, HierlmmError, SpecificationError


@pytest.mark.parametrize(
    ("fit", "received", "reason", "remedy"),
    [
        (formula("y ~ tt + (1 | g)"), "'tt'", "there is no column named 'tt'. Did you mean 't'?", "g, sex, t, w, x, y"),
        (formula("yy ~ t + (1 | g)"), "response 'yy'", "no column of this name. Did you mean 'y'?", "y"),
        (formula("log(yy) ~ t + (1 | g)"), "'log(yy)'", "there is no column named 'yy'", "y"),
        (formula("y ~ t + (1 | id)"), "subject 'id'", "no column of this name", "use one of the columns: g, t, x"),
        (levels(subject="gg"), "subject 'gg'", "Did you mean 'g'?", "use one of the columns"),
        (levels(level2={"t": "sexx"}), "'sexx'", "Did you mean 'sex'?", "use one of the columns"),
        (formula("y ~ t + (time | g)"), "'time'", "there is no column named 'time'", "use one of the columns"),
        (formula("`y y` ~ t + (1 | g)"), "response 'y y'", "no column of this name", "use one of the columns"),
    ],
)
def test_unknown_names(fit, received, reason, remedy):
    refused(HierlmmError, fit, received=received, reason=reason, remedy=remedy)


def test_unknown_level_1_term():
    refused(
        SpecificationError,
        levels(level2={"time": "sex"}),
        received="level2 for 'time'",
        reason="level 1 ('y ~ t') has no coefficient of this name",
        remedy="use one of Intercept, t, or add 'time' to level 1",
    )
    refused(
        SpecificationError, levels(random=["x"]), received="random effect 'x'", remedy="level-1 terms: Intercept, t"
    )


def test_reserved_names():
    taken = DATA.rename(columns={"x": "Intercept"})
    refused(
        DataError,
        formula("y ~ Intercept + (1 | g)", taken),
        received="a column named 'Intercept'",
        reason="reserved for the constant",
        remedy="rename",
    )
    assert formula("y ~ t + (1 | g)", taken)().design.coef == ("Intercept", "t")  # only where it is used
    refused(
        FormulaError,
        formula("y ~ `1` + (1 | g)", DATA.assign(**{"1": DATA["x"]})),
        reason="the column name '1' is reserved: in a formula it is a number",
        remedy="columns={'1': 'x1'}",
    )


@pytest.mark.parametrize(("name", "text"), [("sex[T.M]", "sex + `sex[T.M]`"), ("t:x", "t:x + `t:x`")])
def test_a_column_may_not_be_called_like_a_coefficient(name, text):
    data = DATA.assign(**{name: np.random.default_rng(6).normal(size=N)})
    refused(DataError, formula(f"y ~ {text} + (1 | g)", data), received=f"two coefficients named {name!r}")


def test_a_level_2_covariate_that_varies_within_a_subject():
    data = DATA.assign(w=DATA["w"].where(DATA.index != 117, 9.0))
    refused(
        SpecificationError,
        levels(level2={"Intercept": "w"}, data=data),
        received="'w' at level 2 (to explain 'Intercept')",
        reason="it varies within g 's3' (rows 115, 116, 117, 118, 119)",
        remedy="put 'w' into the level-1 formula, or use its mean by g",
    )
    refused(
        SpecificationError,
        levels(level2={"t": "sex * t"}),
        received="'t' at level 2 (to explain 't')",
        reason="it varies within g 's0'",
    )
    changing = DATA.assign(sex=DATA["sex"].where(DATA.index != 103, "F"))
    refused(SpecificationError, levels(level2={"t": "sex"}, data=changing), reason="it varies within g 's0' (rows 100")


def test_a_level_1_covariate_that_varies_in_no_subject():
    refused(
        SpecificationError,
        levels("y ~ t + sex"),
        received="'sex' at level 1",
        reason="it is constant within every g",
        remedy="move it to level 2, for example level2={'Intercept': 'sex'}",
    )
    refused(
        SpecificationError,
        formula("y ~ t + w + (w | g)"),
        received="a random effect of 'w' by 'g'",
        reason="'w' is constant within every g",
        remedy="take 'w' out of the parenthesis",
    )
