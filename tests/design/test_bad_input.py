"""Every refusal says what was received, why it cannot be used, what to do and where to read more."""

from __future__ import annotations

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, FormulaError, HierlmmError, SpecificationError

RNG = np.random.default_rng(5)
SUBJECTS, ROWS = 8, 5
N = SUBJECTS * ROWS
DATA = pd.DataFrame(
    {
        "g": np.repeat([f"s{k}" for k in range(SUBJECTS)], ROWS),
        "t": np.tile(np.arange(ROWS, dtype=float), SUBJECTS),
        "x": RNG.normal(size=N),
        "w": np.repeat(RNG.normal(size=SUBJECTS), ROWS),
        "sex": np.repeat(np.where(np.arange(SUBJECTS) % 2, "F", "M"), ROWS),
        "y": RNG.normal(size=N),
    },
    index=pd.Index(range(100, 100 + N)),
)


def refused(kind, fit, **parts):
    """Run and check that each named part of the message holds its text, and that no part is empty."""
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("error")
        fit()
    error = caught.value
    assert isinstance(error, HierlmmError)
    for part in ("received", "reason", "remedy", "see"):
        assert getattr(error, part).strip()
        assert getattr(error, part) in str(error)
    for part, text in parts.items():
        assert text in getattr(error, part)


def formula(text="y ~ t + (t | g)", data=DATA, **options):
    return lambda: hl.TwoLevelModel.from_formula(text, data, **options)


def levels(level1="y ~ t", level2=None, data=DATA, subject="g", **options):
    return lambda: hl.TwoLevelModel(level1, level2, subject=subject, data=data, **options)


# --- names -----------------------------------------------------------------------------------------------------------


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
    data = DATA.assign(**{name: RNG.normal(size=N)})
    refused(DataError, formula(f"y ~ {text} + (1 | g)", data), received=f"two coefficients named {name!r}")


# --- levels ----------------------------------------------------------------------------------------------------------


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


# --- missing and infinite values -------------------------------------------------------------------------------------


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
    with pytest.warns(hl.FitWarning, match=r"^1 of 40 rows were dropped"):
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


# --- designs that determine nothing ----------------------------------------------------------------------------------


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


def test_as_many_fixed_effects_as_rows():
    data = DATA.assign(label=[f"u{k}" for k in range(N)])
    refused(DataError, formula("y ~ label + (1 | g)", data), received="40 rows and 40 fixed effects")


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
    data = DATA.assign(y=OWN + 3 * DATA["t"] + 1e-4 * RNG.normal(size=N))
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


# --- types -----------------------------------------------------------------------------------------------------------

DAYS = pd.Timestamp("2024-01-01") + pd.to_timedelta(DATA["t"].to_numpy(), unit="D")


@pytest.mark.parametrize(
    "values",
    [
        DAYS,
        DAYS.tz_localize("UTC"),
        DAYS.to_period("D"),
        [d.date() for d in DAYS],
        [d.time() for d in DAYS],
        pd.to_timedelta(DATA["t"].to_numpy(), unit="D"),
        pd.array(DAYS, dtype="timestamp[us][pyarrow]"),
    ],
    ids=["datetime", "time zone", "period", "date", "time", "timedelta", "pyarrow"],
)
def test_dates_are_no_covariates(values):
    refused(
        DataError,
        formula("y ~ day + (1 | g)", DATA.assign(day=values)),
        received="covariate 'day' that holds",
        reason="a coefficient needs a number, with a unit and a zero",
        remedy="pd.Timedelta(days=1) gives days",
    )


@pytest.mark.parametrize("pattern", ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"])
def test_text_that_holds_dates_is_no_covariate(pattern):
    data = DATA.assign(day=DAYS.strftime(pattern))
    refused(
        DataError,
        formula("y ~ day + (1 | g)", data),
        received="covariate 'day' that holds dates as text (the first: '2024-01-01",
        remedy="--categorical day",
    )
    for text, table in (
        ("C(day)", data),
        ("day", data.assign(day=data["day"].astype("category"))),
        ("day", data.assign(day=data["day"].replace(data["day"].iloc[0], "before"))),
    ):
        assert len(formula(f"y ~ {text} + (1 | g)", table)().design.coef) == ROWS


@pytest.mark.parametrize("kind", [pl.Date, pl.Datetime, pl.Duration])
def test_dates_of_other_tables_are_no_covariates(kind):
    start = [
        datetime.timedelta(days=int(k)) if kind is pl.Duration else datetime.datetime(2024, 1, 1 + int(k))
        for k in DATA["t"]
    ]
    table = pl.from_pandas(DATA).with_columns(pl.Series("day", start).cast(kind))
    for data in (table, table.to_arrow()):
        refused(DataError, formula("y ~ day + (1 | g)", data), remedy="gives days")


@pytest.mark.parametrize(
    ("values", "types"),
    [
        ([1 if k % 2 else "a" for k in range(N)], "int, str"),
        ([[k] for k in range(N)], "list"),
        ([complex(k, 1) for k in range(N)], "complex"),
        ([b"a" if k % 2 else b"b" for k in range(N)], "bytes"),
    ],
)
def test_columns_that_are_neither_numbers_nor_labels(values, types):
    data = DATA.assign(v=values)
    refused(
        DataError,
        formula("y ~ v + (1 | g)", data),
        received=f"covariate 'v' that holds values of type {types}",
        remedy="pd.to_numeric(data['v']) for numbers",
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (DATA["y"].astype(str), str(DATA["y"].astype(str).dtype)),  # "object" before pandas 3
        (DATA["y"] > 0, "bool"),
        (pd.Categorical(DATA["y"] > 0), "category"),
        (DATA["y"] + 1j, "complex128"),
        (DAYS, "datetime64"),
    ],
)
def test_a_response_that_is_not_numeric(values, dtype):
    refused(
        DataError,
        formula(data=DATA.assign(y=values)),
        received="response 'y'",
        reason=f"the column 'y' holds {dtype}",
        remedy="convert it to numbers",
    )


@pytest.mark.parametrize("text", ["I(y > 0)", "{y > 0}", "I((y + 1) >= x)", "np.greater(y, 0)", "np.isin(y, [1, 2])"])
def test_a_response_that_is_a_comparison(text):
    fit = formula(f"{text} ~ t + (1 | g)")
    refused(DataError, fit, received="response", reason="true or false", remedy="generalised model")


def test_a_comparison_in_arithmetic_is_a_number():
    assert set(formula("I(2.0 * (y > 0)) ~ t + (1 | g)")().design.y) == {0.0, 2.0}
    assert formula("np.exp(y) ~ t + (1 | g)")().design.y[0] == np.exp(DATA["y"].iloc[0])


def test_a_response_with_several_columns():
    refused(DataError, formula("poly(y, 2) ~ t + (1 | g)"), received="response 'poly(y, 2)'", reason="2 columns")


@pytest.mark.parametrize(
    ("labels", "types"),
    [
        ([k if k % 2 else f"s{k}" for k in np.repeat(range(SUBJECTS), ROWS).tolist()], "int, str"),
        (pd.Categorical([k if k % 2 else f"s{k}" for k in np.repeat(range(SUBJECTS), ROWS).tolist()]), "int, str"),
        ([(k, 1) for k in np.repeat(range(SUBJECTS), ROWS).tolist()], "tuple"),
        ([datetime.date(2024, 1, k + 1) for k in np.repeat(range(SUBJECTS), ROWS).tolist()], "date"),
    ],
)
def test_subject_labels_of_other_types(labels, types):
    refused(
        DataError,
        formula(data=DATA.assign(g=labels)),
        received=f"a subject column 'g' with labels of type {types}",
        remedy="data['g'].astype(str)",
    )


# --- labels that are large integers ---------------------------------------------------------------------------------

LARGE = 76561198000000000  # floats of this size are 16 apart
CODES = np.repeat(np.arange(SUBJECTS), ROWS)


def large(dtype, start=LARGE, missing=False):
    values = [start + int(k) for k in CODES]
    return pd.Series([None if missing and k == 0 else v for k, v in enumerate(values)], DATA.index, dtype=dtype)


@pytest.mark.parametrize(
    "labels",
    [
        large("uint64"),
        large("uint64", 2**63),
        large("Int64", missing=True),
        large("UInt64", 2**63, missing=True),
        large("int64[pyarrow]", missing=True),
        large(object, missing=True),
        large(object, 2**63, missing=True),
        large(object, 2**65),
        large(object, 2**65, missing=True),
        large(object, missing=True).map(lambda v: v if v is None else decimal.Decimal(v)),
    ],
    ids=lambda labels: f"{labels.dtype}, {labels.iloc[-1]}, {labels.isna().sum()}",
)
@pytest.mark.filterwarnings("ignore:1 of 40 rows")
def test_large_integer_labels_stay_apart(labels):
    data = DATA.assign(g=labels)
    design = formula("y ~ t + (1 | g)", data, missing="drop")().design
    assert [int(v) for v in design.subjects] == list(
        range(int(labels.iloc[-1]) - SUBJECTS + 1, int(labels.iloc[-1]) + 1)
    )
    assert list(design.new(data.iloc[[7, 38]], need_subject=True).subject_index) == [1, 7]
    by_time = pd.Series([int(labels.iloc[-1]) + int(t) for t in DATA["t"]], DATA.index, dtype=object)
    by_time.iloc[0] = None
    factor = formula("y ~ C(k) + (1 | g)", DATA.assign(k=by_time), missing="drop")().design
    assert len(factor.coef) == ROWS
    assert factor.coef[-1] == f"C(k)[T.{int(labels.iloc[-1]) + ROWS - 1}]"


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt64, pl.Int128])
@pytest.mark.filterwarnings("ignore:1 of 40 rows")
def test_large_integer_labels_of_other_tables_stay_apart(dtype):
    table = pl.from_pandas(DATA).with_columns(pl.Series("g", list(large(object, missing=True)), dtype=dtype))
    assert formula(data=table, missing="drop")().design.subjects.tolist() == [LARGE + k for k in range(SUBJECTS)]


def test_large_integers_are_numbers_where_they_are_no_labels():
    huge = pd.Series([2**70 * (1 + k % 7) for k in range(N)], DATA.index, dtype=object)
    design = formula("huge ~ x + (1 | g)", DATA.assign(huge=huge))().design
    assert design.y[1] == 2.0**71
    assert formula("y ~ huge + (1 | g)", DATA.assign(huge=huge))().design.coef == ("Intercept", "huge")


def test_labels_that_were_rounded_before():
    refused(
        DataError,
        formula(data=DATA.assign(g=large("float64"))),
        received="a subject column 'g' of floats above 2**53",
        reason="different subjects have the same label",
        remedy="'Int64'",
    )


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, [1, 2], {"y": [1.0]}, np.zeros((3, 2)), DATA["y"], "data.csv"])
def test_what_is_no_table(data):
    refused(DataError, formula(data=data), received=f"data of type {type(data).__name__}", remedy="pd.DataFrame(...)")


@pytest.mark.parametrize("data", [DATA.iloc[:0], pl.from_pandas(DATA)[:0], pa.Table.from_pandas(DATA.iloc[:0])])
def test_a_table_without_rows(data):
    refused(DataError, formula(data=data), received="a table without rows", remedy="check the filters")


@pytest.mark.parametrize("name", ["t", "g", "y"])
def test_two_columns_of_one_name(name):
    double = pd.concat([DATA, DATA[[name]]], axis=1)
    table = pa.Table.from_pandas(DATA)
    arrow = table.append_column(name, table[name])
    for data in (double, arrow):
        refused(DataError, formula(data=data), received=f"more than one column named {name!r}", remedy="rename or drop")
    assert formula("y ~ t + (t | g)", pd.concat([DATA, DATA[["x"]]], axis=1))().design.n_obs == N  # x is not in use


def test_column_names_with_several_levels():
    refused(DataError, formula(data=pd.concat({"a": DATA}, axis=1)), received="2 levels", remedy="flatten them")


def test_a_column_hidden_by_the_index():
    refused(DataError, formula(data=DATA.set_index("g")), received="subject 'g'", reason="no column of this name")


def test_functions_that_do_not_fit_the_column():
    refused(FormulaError, formula("y ~ log(sex) + (1 | g)"), received="log(sex)", reason="cannot be evaluated")
    refused(FormulaError, formula("y ~ bs(t, df=1) + (1 | g)"), received="bs(t, df=1): df=1", reason="at least 3")
