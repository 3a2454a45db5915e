"""Refusals of values: missing, infinite, too large, not numeric, and of responses that leave nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from refusals import DATA, SUBJECTS, N, formula, refused

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError


@pytest.mark.parametrize(
    "convert",
    [lambda f: f, lambda f: f.convert_dtypes(), lambda f: f.astype(object), pl.from_pandas, pa.Table.from_pandas],
)
def test_missing_values_are_named_and_counted(convert):
    data = DATA.copy()
    data.loc[[101, 102], "t"] = np.nan
    data.loc[102, "sex"] = None
    data.loc[139, "g"] = None
    fit = formula("y ~ t + sex + (t | g)", convert(data))
    refused(DataError, fit, received="t (2)", reason="3 of 40 rows are incomplete", remedy="missing='drop'")
    refused(DataError, fit, received="sex (1)")
    refused(DataError, fit, received="g (1)")


def test_new_data_with_missing_values():
    new = DATA.assign(t=DATA["t"].where(DATA.index != 107))
    with pytest.raises(DataError) as caught:
        formula()().fit_reml().predict(new)
    assert "new data with missing values in t (1)" in str(caught.value)
    assert "drop these rows first" in caught.value.remedy
    assert "missing='drop'" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["str", "category"])
def test_subjects_that_vanish_are_counted(dtype):
    data = DATA.assign(g=DATA["g"].astype(dtype), y=DATA["y"].where(~DATA["g"].isin(["s1", "s6"])))
    with pytest.warns(hl.FitWarning, match=r"^10 of 40 rows, and with them 2 of 8 subjects \('g'\), were dropped"):
        assert formula(data=data, missing="drop")().design.n_subjects == 6
    with pytest.warns(hl.FitWarning, match=r"^1 of 40 rows was dropped"):
        formula(data=DATA.assign(y=DATA["y"].where(DATA.index != 107)), missing="drop")()


def test_missing_says_nothing_but_raise_or_drop():
    refused(
        SpecificationError, formula(missing="impute"), received="missing='impute'", remedy="'raise' or missing='drop'"
    )


def test_a_column_without_values_cannot_be_dropped():
    data = DATA.assign(x=np.nan)
    refused(DataError, formula("y ~ x + (1 | g)", data, missing="drop"), received="x (40)", reason="no row is complete")


@pytest.mark.parametrize(
    ("text", "change", "received"),
    [
        ("y ~ t + x + (t | g)", {"x": np.inf}, "'x' with 1 infinite or undefined values, first in row 107"),
        ("y ~ t + x + (t | g)", {"y": -np.inf}, "'y' with 1 infinite or undefined values, first in row 107"),
        ("y ~ t + log(t) + (t | g)", {}, "'log(t)' with 8 infinite or undefined values, first in row 100"),
        ("y ~ np.sqrt(x) + (1 | g)", {"x": -1.0}, "'np.sqrt(x)' with"),
        ("log(t) ~ x + (1 | g)", {}, "'log(t)' with 8 infinite or undefined values, first in row 100"),
        ("y ~ t + offset(1 / t) + (1 | g)", {}, "'offset' with 8 infinite or undefined values, first in row 100"),
    ],
)
def test_infinite_values_are_named_with_their_row(text, change, received):
    data = DATA.copy()
    for name, value in change.items():
        data.loc[107, name] = value
    refused(DataError, formula(text, data), received=received, reason="has no finite value there")


@pytest.mark.parametrize("text", ["y ~ x + (1 | g)", "y ~ 0 + x + (1 | g)", "y ~ t + (0 + x | g)"])
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_a_covariate_that_cannot_be_squared_is_not_called_constant(text, scale):
    data = DATA.assign(x=np.linspace(-1.0, 1.0, len(DATA)) * scale)
    refused(
        DataError,
        formula(text, data),
        received=f"a column 'x' with values up to {scale:g} in size",
        reason="sizes from 1e-150 to 1e+150",
        remedy="rescale it",
    )
    rescaled = formula("y ~ x + (1 | g)", data.assign(x=data["x"] / scale * 1e100))
    assert "x" in rescaled().design.coef


@pytest.mark.parametrize("text", ["y ~ x + (1 | g)", "y ~ t + x + (1 + x | g)", "y ~ t + (1 + x | g)"])
@pytest.mark.parametrize("origin", [1e12, -1e10])
def test_a_covariate_far_from_zero_is_not_called_constant(text, origin):
    data = DATA.assign(x=origin + np.linspace(-1.0, 1.0, len(DATA)))
    limit = f"here {1e-9 * (abs(origin) + 1):.2g}"
    refused(
        DataError,
        formula(text, data),
        received=f"a column 'x' with values around {origin:.3g} and an SD of {np.std(data['x'] - origin):.3g}",
        reason=f"the limit is an SD of 1e-09 times the size of the values, {limit}",
        remedy="centre it: subtract its mean",
    )
    assert "x" in formula("y ~ x + (1 | g)", data.assign(x=data["x"] - origin))().design.coef


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e12])
def test_nearly_collinear_columns_are_not_refused(shift):
    """Far from zero is not collinear, and neither is a correlation of 0.999999."""
    data = DATA.assign(x=DATA["t"] + 1e-5 * DATA["x"], t=DATA["t"] + shift * (abs(shift) < 1e10))
    assert formula("y ~ t + x + (1 | g)", data)().design.coef == ("Intercept", "t", "x")


@pytest.mark.parametrize("value", [0.0, 2.0, 1e15])
def test_a_constant_response(value):
    refused(
        DataError,
        formula(data=DATA.assign(y=value)),
        received=f"a response 'y' that is {value:g} in every row",
        reason="without variation there is no variance",
    )


@pytest.mark.parametrize("scale", [1e-140, 1e-20, 1e-16, 1e140])
def test_a_small_or_large_response_is_not_constant(scale):
    data = DATA.assign(y=DATA["y"] + 3 * DATA["w"])
    sigma = formula("y ~ t + (1 | g)", data)().fit_reml().sigma
    scaled = formula("y ~ t + (1 | g)", data.assign(y=data["y"] * scale))().fit_reml()
    assert scaled.sigma / scale == pytest.approx(sigma, rel=1e-6)


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_a_response_whose_squares_cannot_be_represented(scale):
    refused(DataError, formula(data=DATA.assign(y=DATA["y"] * scale)), reason="their squares", remedy="rescale it")


OWN = DATA["g"].str[1:].astype(float)


@pytest.mark.parametrize(
    ("text", "values", "reason"),
    [
        ("y ~ t + (1 | g)", 2 + 3 * DATA["t"], "the fixed effects leave"),
        ("y ~ t + (1 | g)", 1e6 + 3 * DATA["t"] + 1e-7 * DATA["x"], "the fixed effects leave"),
        ("y ~ 0 + t + (0 + t | g)", 3 * DATA["t"], "the fixed effects leave"),
        ("y ~ 1 + (1 | g)", DATA["w"], "the fixed and random effects leave"),
        ("y ~ t + x + (1 | g)", OWN**2 + 0.7 * DATA["x"], "the fixed and random effects leave"),
        ("y ~ t + (t | g)", OWN**2 + np.sin(OWN) * DATA["t"], "the fixed and random effects leave"),
    ],
)
def test_a_response_that_the_model_reproduces(text, values, reason):
    refused(
        DataError,
        formula(text, DATA.assign(y=values)),
        received="a response 'y' that the model reproduces exactly",
        reason=reason,
        remedy="computed from a covariate",
    )


@pytest.mark.parametrize("text", ["y ~ t + (1 | g)", "y ~ t + x + (1 | g)", "y ~ t + (t | g)"])
def test_a_small_remainder_is_one(text):
    data = DATA.assign(y=OWN + 3 * DATA["t"] + 1e-4 * np.random.default_rng(6).normal(size=N))
    assert formula(text, data)().design.n_obs == N


def test_as_many_random_effects_as_rows_leave_no_remainder_by_construction():
    """Saturated is not reproduced: two rows and two independent effects for each subject."""
    assert formula("y ~ t + (t || g)", DATA[DATA["t"] < 2])().design.n_obs == 2 * SUBJECTS


def test_an_exact_fit_of_the_first_subjects_only():
    many = pd.concat([DATA.assign(g=DATA["g"] + f"-{k:04d}") for k in range(200)], ignore_index=True)
    exact = 2 + 3 * many["t"]
    last = many["g"] == many["g"].max()
    fit = formula("y ~ t + (1 | g)", many.assign(y=exact.where(~last, exact + many["x"])))
    assert fit().design.n_obs == len(many)
    refused(DataError, formula("y ~ t + (1 | g)", many.assign(y=exact)), received="reproduces exactly")
