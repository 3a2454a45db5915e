"""Refusals of columns of a kind that is no number and no label."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from refusals import DATA, ROWS, SUBJECTS, N, formula, refused

from hierlmm.errors import DataError

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
        remedy=".astype(int) makes 0 and 1 of it" if dtype in ("bool", "category") else "convert it to numbers",
    )


@pytest.mark.parametrize("text", ["I(y > 0)", "{y > 0}", "I((y + 1) >= x)", "np.greater(y, 0)", "np.isin(y, [1, 2])"])
def test_a_response_that_is_a_comparison(text):
    fit = formula(f"{text} ~ t + (1 | g)")
    refused(DataError, fit, received="response", reason="true or false", remedy="family='bernoulli'")


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
