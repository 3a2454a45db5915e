"""Matrices: equal to formulaic's own, the same from every kind of table, and the same again for new rows."""

from __future__ import annotations

import decimal
import pickle

import formulaic
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import hierlmm as hl
from hierlmm.design.formula import join_terms
from hierlmm.errors import DataError, FitWarning

RNG = np.random.default_rng(11)
SUBJECTS, ROWS = 12, 6
N = SUBJECTS * ROWS
DATA = pd.DataFrame(
    {
        "g": np.repeat(np.arange(SUBJECTS), ROWS),
        "t": np.tile(np.arange(ROWS), SUBJECTS),
        "x": RNG.normal(size=N),
        "size": np.exp(RNG.normal(size=N)),
        "cond": np.tile(["a", "b", "c"], N // 3),
        "flag": RNG.random(N) > 0.5,
        "w": np.repeat(RNG.normal(size=SUBJECTS), ROWS),
        "sex": np.repeat(np.where(np.arange(SUBJECTS) % 2, "F", "M"), ROWS),
        "y": RNG.normal(size=N),
    }
)

FIXED = [
    "t + x",
    "0 + t",
    "sex * t * w",
    "cond * sex + x",
    "0 + cond + sex",
    "sex / t",
    "t / cond",
    "sex:cond",
    "flag * t",
    "I(x > 0) + I(flag * t) + I(sex == 'M')",
    "np.log(size) + log(size + 1) + np.where(x > 0, x, 0)",
    "{x / size} * sex",
    "poly(t, 2) * sex",
    "bs(t, df=4) * sex",
    "cr(t, df=4, constraints='center') * w",
    "cs(x, df=3, constraints='center')",
    "center(x) * scale(size)",
    "C(t) + C(sex, contr.treatment('M')):x",
    "C(sex, contr.sum) * x",
    "C(cond, contr.helmert) * C(sex, Sum)",
    "I(t**2) + cond:I(x**2)",
    "(t + x + w)**2 - t:x",
]


def design_of(fixed, random="1", data=DATA, **options):
    return hl.TwoLevelModel.from_formula(f"y ~ {fixed} + ({random} | g)", data, **options).design


@pytest.mark.parametrize("fixed", FIXED)
def test_columns_are_formulaics_own(fixed):
    design = design_of(fixed)
    own = formulaic.Formula(join_terms(design.hierarchy.fixed_terms)).get_model_matrix(
        DATA.astype({"t": float} if "C(t)" not in fixed else {}).assign(flag=DATA["flag"].astype("category"))
        if "I(flag" not in fixed
        else DATA
    )
    assert set(design.coef) == set(own.columns)
    for c, name in enumerate(design.coef):
        np.testing.assert_allclose(design.X[:, c], own[name].to_numpy(dtype=float), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fixed", FIXED)
def test_columns_factor_into_level_1_and_level_2(fixed):
    design = design_of(fixed)
    np.testing.assert_array_equal(design.X, design.X1[:, design.coef_level1] * design.W[design.subject_index])
    assert design.W.shape == (SUBJECTS, len(design.coef))


@pytest.mark.parametrize("fixed", FIXED)
def test_new_rows_get_the_columns_that_they_had_at_fitting_time(fixed):
    """Knots, centres, polynomial coefficients and categories are remembered: a few rows give the same values."""
    design = design_of(fixed)
    rows = [3, 40, 41, 70]
    for data, kept in [(DATA, np.arange(N)), (DATA.iloc[rows], rows), (pl.from_pandas(DATA)[rows], rows)]:
        new = design.new(
            data.drop(columns="y") if isinstance(data, pd.DataFrame) else data.drop("y"), need_subject=True
        )
        np.testing.assert_allclose(new.X, design.X[kept], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(new.X1, design.X1[kept], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(new.Z, design.Z[kept], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(new.subject_index, design.subject_index[kept])


@pytest.mark.parametrize("random", ["t", "poly(t, 2)", "cond", "bs(x, df=3)", "scale(t) + x"])
def test_random_effects_design_is_rows_by_effects(random):
    design = design_of(random, random)
    own = formulaic.Formula(random).get_model_matrix(DATA)
    assert design.term == tuple(own.columns)
    np.testing.assert_allclose(design.Z, own.to_numpy(dtype=float), rtol=1e-12, atol=1e-12)
    assert design.Z.flags.c_contiguous


def test_a_frozen_design_survives_pickling():
    design = pickle.loads(pickle.dumps(design_of("bs(t, df=4) * sex", "t")))
    np.testing.assert_array_equal(design.new(DATA.iloc[:5], need_subject=True).X, design.X[:5])


def test_offsets_are_arithmetic():
    design = design_of("t + offset(log(size)) + offset(-x + 2 * w) + offset(`x`)")
    expected = np.log(DATA["size"]) - DATA["x"] + 2 * DATA["w"] + DATA["x"]
    np.testing.assert_allclose(design.offset, expected, rtol=1e-12)
    np.testing.assert_allclose(design.new(DATA.iloc[:4], need_subject=False).offset, expected[:4], rtol=1e-12)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("log(size)", np.log(DATA["size"])),
        ("np.sqrt(size)", np.sqrt(DATA["size"])),
        ("I(size - x)", DATA["size"] - DATA["x"]),
        ("{size / 2}", DATA["size"] / 2),
        ("`size`", DATA["size"]),
    ],
)
def test_responses_may_be_expressions(response, expected):
    model = hl.TwoLevelModel.from_formula(f"{response} ~ t + (1 | g)", DATA)
    np.testing.assert_allclose(model.design.y, expected, rtol=1e-12)


# --- kinds of tables -------------------------------------------------------------------------------------------------

FORMULA = "y ~ t * sex + cond + flag + (t | g)"


def as_polars_enum(frame):
    return pl.from_pandas(frame).with_columns(
        pl.col("cond").cast(pl.Enum(["a", "b", "c", "never"])), pl.col("sex").cast(pl.Categorical)
    )


def as_dictionary_table(frame):
    table = pa.Table.from_pandas(frame)
    cond = pa.DictionaryArray.from_arrays(
        pa.array([["a", "b", "c"].index(v) for v in frame["cond"]], pa.int8()), ["a", "b", "c"]
    )
    return table.set_column(table.schema.get_field_index("cond"), "cond", cond)


TABLES = {
    "polars": pl.from_pandas,
    "polars lazy": lambda f: pl.from_pandas(f).lazy(),
    "polars Enum": as_polars_enum,
    "pyarrow": pa.Table.from_pandas,
    "pyarrow dictionary": as_dictionary_table,
    "nullable": lambda f: f.convert_dtypes(),
    "pyarrow-backed": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "object": lambda f: f.astype(object),
    "string[python]": lambda f: f.astype({"cond": "string[python]", "sex": "string[pyarrow]"}),
    "category": lambda f: f.assign(cond=pd.Categorical(f["cond"], categories=["a", "b", "c", "never"])),
    "narrow": lambda f: f.astype({"t": "int8", "g": "uint16"}),
    "other index": lambda f: f.set_index(pd.MultiIndex.from_arrays([f["g"], f["t"]], names=["a", "b"])),
    "same index": lambda f: f.set_axis(np.zeros(len(f), dtype=int)),
    "names that are no text": lambda f: f.rename(columns={"w": 0, "size": ("a", 1)}),
    "fortran": lambda f: f[f.columns[::-1]],
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_design(kind):
    wanted = hl.TwoLevelModel.from_formula(FORMULA, DATA).design
    design = hl.TwoLevelModel.from_formula(FORMULA, TABLES[kind](DATA)).design
    assert (design.coef, design.term) == (wanted.coef, wanted.term)
    assert wanted.coef[:4] == ("Intercept", "t", "sex[T.M]", "cond[T.b]")
    np.testing.assert_array_equal(design.X, wanted.X)
    np.testing.assert_array_equal(design.y, wanted.y)
    np.testing.assert_array_equal(design.subject_index, wanted.subject_index)
    assert list(design.subjects) == list(range(SUBJECTS))


@pytest.mark.parametrize("kind", TABLES)
def test_new_rows_may_come_in_any_kind_of_table(kind):
    design = hl.TwoLevelModel.from_formula(FORMULA, DATA).design
    new = design.new(TABLES[kind](DATA), need_subject=True)
    np.testing.assert_array_equal(new.X, design.X)
    np.testing.assert_array_equal(new.subject_index, design.subject_index)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "Int16", "uint8[pyarrow]"])
def test_small_integers_do_not_overflow(dtype):
    """``I(t**3)`` of an 8-bit 5 is 125, of a 6 it would be 216 - 256."""
    data = DATA.assign(t=(10 * DATA["t"]).astype(dtype))
    design = design_of("I(t**3) + I(3 - t)", data=data)
    np.testing.assert_array_equal(design.X[:, 1], (10.0 * DATA["t"]) ** 3)
    np.testing.assert_array_equal(design.X[:, 2], 3 - 10.0 * DATA["t"])


def test_small_integers_that_are_labels_too_do_not_overflow():
    data = DATA.assign(t=(30 * DATA["t"]).astype("uint8"))
    design = design_of("C(t):x + I(t**2)", data=data)
    np.testing.assert_array_equal(design.X[:, design.coef.index("I(t ** 2)")], (30.0 * DATA["t"]) ** 2)


@pytest.mark.parametrize(
    "table",
    [
        DATA.assign(cond=pd.Categorical(DATA["cond"], categories=["c", "never", "a", "b"])),
        pl.from_pandas(DATA).with_columns(pl.col("cond").cast(pl.Enum(["c", "a", "b"]))),
        pa.Table.from_pandas(DATA.assign(cond=pd.Categorical(DATA["cond"], categories=["c", "a", "b"]))),
    ],
    ids=["pandas", "polars", "pyarrow"],
)
def test_the_order_of_categories_is_kept(table):
    design = design_of("cond", data=table)
    assert design.coef == ("Intercept", "cond[T.a]", "cond[T.b]")
    np.testing.assert_array_equal(design.X[:, 1], DATA["cond"] == "a")


def test_large_integers_do_not_overflow():
    data = DATA.assign(t=DATA["t"] * 10_000_000)
    np.testing.assert_allclose(design_of("I(t**3)", data=data).X[:, 1], (DATA["t"] * 1e7) ** 3)


@pytest.mark.parametrize("values", [[decimal.Decimal(int(v)) for v in DATA["t"]], DATA["t"].astype(object)])
def test_numbers_in_object_columns_are_numbers_not_labels(values):
    assert design_of("t", data=DATA.assign(t=values)).coef == ("Intercept", "t")


def test_integer_labels_stay_labels_in_C():
    design = design_of("C(t)")
    assert design.coef == ("Intercept", *(f"C(t)[T.{k}]" for k in range(1, ROWS)))


def test_the_users_columns_are_kept_as_they_are():
    before = DATA.copy(deep=True)
    design = design_of("I(t**2) + sex")
    pd.testing.assert_frame_equal(DATA, before)
    assert design.frame["t"].dtype == np.int64


# --- subjects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "subjects"),
    [
        (DATA["g"] * 10, [10 * k for k in range(SUBJECTS)]),
        (DATA["g"] + 0.5, [k + 0.5 for k in range(SUBJECTS)]),
        (DATA["g"].map("s{:02d}".format), [f"s{k:02d}" for k in range(SUBJECTS)]),
        (DATA["g"].astype("Int64"), list(range(SUBJECTS))),
        (DATA["g"].astype(object), list(range(SUBJECTS))),
        (pd.Categorical(DATA["g"], categories=range(20)), list(range(SUBJECTS))),
        (pd.Categorical(DATA["g"], categories=range(19, -1, -1)), list(range(SUBJECTS - 1, -1, -1))),
        (DATA["g"] > 5, [False, True]),
    ],
)
def test_subject_labels(labels, subjects):
    data = DATA.assign(g=labels).sample(frac=1, random_state=3)
    design = design_of("x", data=data)
    assert list(design.subjects) == subjects
    assert not isinstance(design.subjects, pd.CategoricalIndex)
    assert list(design.subjects[design.subject_index]) == list(data["g"])
    new = design.new(data.iloc[:9], need_subject=True)
    np.testing.assert_array_equal(new.subject_index, design.subject_index[:9])


def test_a_subject_that_is_new_has_no_index():
    new = design_of("x").new(DATA.assign(g=DATA["g"] + 5), need_subject=True)
    assert new.subject_index[0] == 5
    assert set(new.subject_index[DATA["g"] >= SUBJECTS - 5]) == {-1}


def test_the_grouping_column_may_be_a_covariate_too():
    """``y ~ year + (1 | year)``: a trend over the groups."""
    assert design_of("t + g").coef == ("Intercept", "t", "g")
    assert design_of("x:g").hierarchy.level2 == {"Intercept": "1", "x": "0 + g"}


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = ["my var", "a.b", "größe", "x[1]", "class", "log", "C", "center", "I", "np", "obs", "chain", "draw", "subject"]
NAMES += [
    "term",
    "coef",
    "level1",
    "beta",
    "b",
    "sigma",
    "offset",
    "None",
    "True",
    "lambda",
    "a:b",
    "a+b",
    "a|b",
    "a~b",
]
NAMES += ["x(1)", "it's", 'q"q', "{z}", "a\\b", "x%", " lead", "x*", "T.a", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_any_column_name_can_be_used(name):
    q = name if name.isidentifier() else f"`{name}`"
    number = DATA.assign(**{name: DATA["x"]})
    design = design_of(f"t * {q}", q, data=number)
    assert design.coef == ("Intercept", "t", name, f"t:{name}")
    assert design.term == ("Intercept", name)
    np.testing.assert_array_equal(design.new(number, need_subject=True).X, design.X)
    factor = design_of(f"t * {q}", "t", data=DATA.assign(**{name: DATA["sex"]}))
    assert factor.coef == ("Intercept", "t", f"{name}[T.M]", f"t:{name}[T.M]")
    assert factor.hierarchy.level2 == {"Intercept": q, "t": q}


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_the_subject_or_the_response(name):
    q = name if name.isidentifier() else f"`{name}`"
    model = hl.TwoLevelModel.from_formula(f"y ~ t + (t | {q})", DATA.rename(columns={"g": name}))
    assert (model.subject, model.design.subjects.name) == (name, name)
    again = hl.TwoLevelModel.from_formula(model.formula, model.data)
    assert again.hierarchy == model.hierarchy
    response = hl.TwoLevelModel.from_formula(f"{q} ~ t + (t | g)", DATA.rename(columns={"y": name}))
    np.testing.assert_array_equal(response.design.y, DATA["y"])
    levels = hl.TwoLevelModel(f"{q} ~ t", subject="g", data=DATA.rename(columns={"y": name}))
    assert levels.hierarchy == response.hierarchy


@pytest.mark.parametrize("name", ["obs", "chain", "draw", "subject", "term", "coef"])
def test_names_of_dimensions_are_not_reserved(name):
    """They become coordinates, not variables, and collide with nothing."""
    as_subject = hl.TwoLevelModel.from_formula(f"y ~ t + x + (t | {name})", DATA.rename(columns={"g": name}))
    as_covariate = hl.TwoLevelModel.from_formula(f"y ~ t + {name} + (t | g)", DATA.rename(columns={"x": name}))
    one, other = as_subject.fit_reml(), as_covariate.fit_reml()
    np.testing.assert_allclose(one.beta.to_numpy(), other.beta.to_numpy(), rtol=1e-10)
    assert one.b.shape == other.b.shape == (SUBJECTS, 2)


# --- missing values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [lambda f: f, lambda f: f.convert_dtypes(), pl.from_pandas, pa.Table.from_pandas])
def test_dropped_rows_are_counted_and_reported(convert):
    data = DATA.astype({"t": float})
    data.loc[[3, 4], "t"] = np.nan
    data.loc[[4, 20], "sex"] = None
    data.loc[[50], "w"] = np.nan  # not in the model
    message = r"3 of 72 rows were dropped because values are missing in (t \(2\), sex|sex \(2\), t) \(2\)\."
    with pytest.warns(FitWarning, match=message) as caught:
        design = design_of("t * sex", data=convert(data), missing="drop")
    assert (design.n_obs, design.n_dropped) == (N - 3, 3)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(design.y, DATA["y"].drop(index=[3, 4, 20]))


def test_the_warning_points_at_the_users_line():
    data = DATA.assign(x=DATA["x"].where(DATA.index != 2))
    with pytest.warns(FitWarning, match="1 of 72 rows") as caught:
        hl.TwoLevelModel("y ~ x", subject="g", data=data, missing="drop")
    assert caught[0].filename == __file__
    with pytest.warns(FitWarning, match="1 of 72 rows") as caught:
        hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, missing="drop")
    assert caught[0].filename == __file__


def test_nothing_is_dropped_from_complete_data():
    assert design_of("x", missing="drop").n_dropped == 0


def test_new_rows_must_be_complete_and_known():
    design = design_of("sex * C(t) + log(size) + x")
    for change, fragment in [
        ({"sex": "X"}, "this level of 'sex' was not in the data that the model was fitted to"),
        ({"x": np.nan}, "1 of 1 rows is incomplete"),
        ({"x": "high"}, "the model was fitted to numbers in this column"),
        ({"x": np.inf}, "'x' has no finite value there"),
        ({"size": 0.0}, "'log(size)' has no finite value there"),
        ({"t": 3.5}, "this level was not in the data"),
    ]:
        with pytest.raises(DataError) as caught:
            design.new(DATA.iloc[[0]].astype(dict.fromkeys(change, object)).assign(**change), need_subject=False)
        assert fragment in str(caught.value)
    with pytest.raises(DataError, match="new data without the column 'x'"):
        design.new(DATA.drop(columns="x"), need_subject=False)
    with pytest.raises(DataError, match="new data without the subject column 'g'"):
        design.new(DATA.drop(columns="g"), need_subject=True)
    with pytest.raises(DataError, match="outside the range of the data that the model was fitted to"):
        design_of("cr(t, df=4, constraints='center', extrapolation='raise')").new(DATA.assign(t=99), need_subject=False)
