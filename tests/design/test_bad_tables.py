"""Refusals of tables, and labels that are large integers."""

from __future__ import annotations

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from refusals import DATA, ROWS, SUBJECTS, N, formula, refused

from hierlmm.errors import DataError, FormulaError

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
