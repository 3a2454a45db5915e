"""Refusals of designs that determine nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from refusals import DATA, ROWS, N, formula, refused

import hierlmm as hl
from hierlmm.errors import DataError


def test_one_row_for_each_subject():
    one = DATA.groupby("g", as_index=False).first()
    refused(
        DataError,
        formula("y ~ x + (x | g)", one),
        received="one row for each of the 8 values of 'g'",
        reason="a random slope cannot be told apart from the residual",
        remedy="long format",
    )
    refused(DataError, formula("y ~ 1 + (1 | g)", one), reason="the random effect cannot be told apart")


def test_fewer_subjects_than_random_effects():
    two = DATA.iloc[: 2 * ROWS]
    refused(
        DataError,
        formula("y ~ 1 + (t + x | g)", two),
        received="2 subjects and 3 random effects",
        reason="3 × 3 covariance",
        remedy="let fewer coefficients vary",
    )


def test_as_many_random_effects_as_rows():
    short = DATA[DATA["t"] < 2]
    refused(
        DataError, formula(data=short), received="2 random effects (Intercept, t) for each of 8 subjects, and 16 rows"
    )


def test_one_subject():
    refused(
        DataError,
        formula(data=DATA.iloc[:ROWS]),
        received="1 g",
        reason="cannot be seen in one subject",
        remedy="check that 'g' is the grouping column",
    )


def test_subjects_as_fixed_effects_leave_nothing_to_vary():
    refused(
        DataError,
        formula("y ~ g + (1 | g)"),
        received="8 fixed coefficients for 'Intercept' (Intercept, ..., g[T.s7]) and 8 subjects",
        reason="level 2 explains 'Intercept' exactly in every g",
        remedy="is 'g' itself among them?",
    )
    assert formula("y ~ g + (0 + t | g)")().design.term == ("t",)  # fixed intercepts, random slopes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("y ~ t + I(2 * t + 1) + (1 | g)", "'I(2 * t + 1)' is constant or a linear combination"),
        ("y ~ t + x + {t + x} + {t - x} + (1 | g)", "'t + x', 't - x' are constant or a linear combination"),
        ("y ~ t + I(0 * x + 3) + (1 | g)", "'I(0 * x + 3)' is constant"),
        ("y ~ 0 + I(0 * x) + t + (1 | g)", "'I(0 * x)' is constant"),
        ("y ~ sex + I(sex == 'M') + (1 | g)", "\"I(sex == 'M')\" is constant or a linear combination"),
        ("y ~ 0 + t + x + {t + 3 * x} + (1 | g)", "'t + 3 * x' is constant or a linear combination"),
        ("y ~ t + I(1e9 + t) + (1 | g)", "'I(1000000000.0 + t)' is constant or a linear combination"),
    ],
)
def test_dependent_columns_are_named_before_fitting(text, names):
    refused(DataError, formula(text), received="columns and rank", reason=names, remedy="take the term out")


def test_a_natural_spline_that_holds_the_constant():
    fit = formula("y ~ cs(t, df=3) + (1 | g)")
    refused(DataError, fit, received="4 columns and rank 3", remedy="cs(x, df=3, constraints='center')")
    assert len(formula("y ~ cs(t, df=3, constraints='center') + (1 | g)")().design.coef) == 4


def test_dependent_random_effects():
    refused(
        DataError,
        formula("y ~ t + (t + I(t + 1) | g)"),
        received="random effects Intercept, t, I(t + 1)",
        reason="'I(t + 1)' follows from the columns before",
        remedy="leave out",
    )


def test_as_many_fixed_effects_as_rows():
    data = DATA.assign(label=[f"u{k}" for k in range(N)])
    refused(DataError, formula("y ~ label + (1 | g)", data), received="40 rows and 40 fixed effects")


@pytest.mark.parametrize("text", ["y ~ t + site + (1 | g)", "y ~ t * site + (1 | g)", "y ~ t + C(site) + (1 | g)"])
def test_a_factor_with_one_level(text):
    for values in ("north", pd.Categorical(["north"] * N, categories=["north", "south"])):
        refused(
            DataError, formula(text, DATA.assign(site=values)), received="a factor 'site' that is 'north' in every row"
        )
    numeric = DATA.assign(k=3)
    refused(DataError, formula("y ~ t + C(k) + (1 | g)", numeric), received="the term 'C(k)'", reason="one level")


def test_factor_levels_unseen_in_training():
    model = formula("y ~ sex * t + (1 | g)")()
    refused(
        DataError,
        lambda: model.design.new(DATA.assign(sex="X"), need_subject=False),
        received="sex = 'X'",
        reason="this level of 'sex' was not in the data that the model was fitted to",
        remedy="use one of the levels 'F', 'M'",
    )
    labelled = formula("y ~ C(t) + (1 | g)")()
    refused(
        DataError,
        lambda: labelled.design.new(DATA.assign(t=9.0), need_subject=False),
        received="new data with the level 9.0",
        reason="no coefficient belongs to it",
    )


def test_two_visits_and_a_random_slope_have_a_way_out():
    """Any two variances and correlation is what such a slope would have said."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"pat": np.repeat(np.arange(20), 2), "visit": np.tile([0, 1], 20), "y": rng.normal(size=40)})
    model = hl.TwoLevelModel.from_formula
    with pytest.raises(DataError) as refused:
        model("y ~ visit + (visit | pat)", data)
    assert "(1 | pat)" in refused.value.remedy
    assert "correlation=hl.UnstructuredHeterogeneous('visit'), subject='pat'" in refused.value.remedy
    assert model("y ~ visit + (1 | pat)", data).fit_reml().converged
    structure = hl.UnstructuredHeterogeneous("visit")
    assert hl.MarginalModel("y ~ visit", correlation=structure, subject="pat", data=data).fit_reml().converged
