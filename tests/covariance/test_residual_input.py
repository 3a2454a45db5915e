"""Residual structures: input that is taken in any form, and input that is refused in words."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from structures_by_definition import same

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, HierlmmError, SpecificationError

T = np.tile(np.arange(4.0), 27)
GOOD_TIMES = {
    "negative": T - 100,
    "seconds since 1970": 1.7e9 + 86400 * T,
    "nanoseconds since 1970": 1.7e18 + 86400e9 * T,
    "8-bit": T.astype("int8"),
    "Decimal": [Decimal(str(t)) for t in T],
    "objects": T.astype(object),
    "nullable": pd.array(T.astype(int), dtype="Int64"),
    "tiny": 1e-9 * T,
}


@pytest.mark.parametrize("times", GOOD_TIMES)
def test_any_numbers_are_times(times):
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.Exponential("t"), subject="subject",
        data=dental.assign(t=GOOD_TIMES[times]),
    ).fit_reml()  # fmt: skip
    assert fit.loglik == pytest.approx(-222.293724287844, rel=1e-10)
    assert fit.converged and not fit.warnings


def test_polars_and_categories_without_rows():
    polars = pytest.importorskip("polars")
    dental = hl.load_dataset("dental")
    dental["sex"] = pd.Categorical(dental["sex"].astype(str), ["Female", "Other", "Male"])
    options = {"correlation": hl.Unstructured("age"), "variance": hl.VarIdent("sex"), "subject": "subject"}
    ours = hl.MarginalModel("distance ~ time", data=dental, **options).fit_ml()
    theirs = hl.MarginalModel("distance ~ time", data=polars.from_pandas(dental), **options).fit_ml()
    assert list(ours.residual_estimate.variance_parameters) == ["ratio(Male/Female)"]
    same(ours, theirs)


def dental_with(**columns):
    return hl.load_dataset("dental").assign(**columns)


DATES = pd.Timestamp("2020-01-01") + pd.to_timedelta(T, "D")
DUPLICATED = np.where(np.arange(108) == 1, 0.0, T)
BAD = {
    "text": (lambda: hl.Exponential("t"), None, {"t": T.astype(str)}, "type"),
    "dates": (lambda: hl.CAR1("t"), None, {"t": DATES}, "a distance in time needs a unit"),
    "python dates": (lambda: hl.CAR1("t"), None, {"t": pd.Series(DATES).dt.date.to_numpy()}, "needs a unit"),
    "durations": (lambda: hl.Gaussian("t"), None, {"t": pd.to_timedelta(T, "D")}, "total_seconds"),
    "truth values": (lambda: hl.AR1("t"), None, {"t": T > 1}, "positions of a serial structure are numbers"),
    "categories": (lambda: hl.CAR1("t"), None, {"t": pd.Categorical(T)}, "astype"),
    "complex": (lambda: hl.Exponential("t"), None, {"t": T + 1j}, "numbers"),
    "infinite": (lambda: hl.Exponential("t"), None, {"t": np.where(T == 3, np.inf, T)}, "27 times in 't'"),
    "fractions": (lambda: hl.AR1("t"), None, {"t": T / 2}, "0.5.*whole numbers"),
    "duplicated": (lambda: hl.Exponential("t"), None, {"t": DUPLICATED}, r"t 0.0 \(rows 0, 1; 1 such"),
    "duplicated, order": (lambda: hl.AR1("t"), None, {"t": DUPLICATED}, "nugget=True"),
    "duplicated, lags": (lambda: hl.Toeplitz("t"), None, {"t": DUPLICATED}, "average the replicates"),
    "duplicated, occasions": (lambda: hl.Unstructured("t"), None, {"t": DUPLICATED}, "average the replicates"),
    "duplicated to rounding": (lambda: hl.CAR1("t"), None, {"t": np.where(T == 1, 1e-13, T)}, "27 such pairs"),
    "constant": (lambda: hl.Exponential("t"), None, {"t": 1.0}, "81 such pairs"),
    "missing": (lambda: hl.Exponential("t"), None, {"t": np.where(T == 2, np.nan, T)}, r"missing values in t \(27\)"),
    "occasions that do not line up": (
        lambda: hl.Unstructured("t"), None, {"t": T + np.linspace(0, 0.3, 108)}, "do not line up"),
    "occasions seen together too rarely": (
        lambda: hl.Unstructured("t"), None, {"t": np.where((T == 3) & (np.arange(108) > 8), 2.5, T)}, "0 subjects"),
    "occasions of two kinds": (lambda: hl.Unstructured("t"), None, {"t": [1, "a", 2, 3] * 27}, "of type int, str"),
    "lags never seen": (lambda: hl.Toeplitz("age"), None, {}, "lag 1 of 'age'"),
    "lags without end": (lambda: hl.Toeplitz("t"), None, {"t": (1e9 * T).astype(int)}, "lags up to 3000000000"),
    "one unit is no distance": (lambda: hl.CAR1("t"), None, {"t": 86400e6 * T}, "here 1 to many digits"),
    "one unit is far": (lambda: hl.CAR1("t"), None, {"t": 1e-6 * T}, "here 0 to many digits"),
    "unknown column": (lambda: hl.AR1("tiem"), None, {}, "Did you mean 'time'"),
    "unknown variance column": (lambda: None, lambda: hl.VarIdent("sx"), {}, "Did you mean 'sex'"),
    "the response as time": (lambda: hl.Exponential("distance"), None, {}, "response"),
    "the response in the variance": (lambda: None, lambda: hl.VarPower("distance"), {}, "depend on the response"),
    "the subject as time": (lambda: hl.Exponential("subject"), None, {}, "81 such pairs"),
    "a class": (lambda: hl.AR1, None, {}, r"write AR1\(...\)"),
    "text for a structure": (lambda: "ar1", None, {}, "no residual correlation"),
    "a variance as correlation": (lambda: hl.VarIdent("sex"), None, {}, "no residual correlation"),
    "a correlation as variance": (lambda: None, lambda: hl.AR1(), {}, "no residual variance"),
    "rho of 1": (lambda: hl.AR1(start=1), None, {}, "bounds excluded"),
    "rho not a number": (lambda: hl.AR1(start=float("nan")), None, {}, "bounds excluded"),
    "rho as text": (lambda: hl.AR1(start="0.3"), None, {}, "bounds excluded"),
    "rho as truth value": (lambda: hl.AR1(start=True), None, {}, "bounds excluded"),
    "a range of 0": (lambda: hl.Exponential("t", start=0), None, {}, "between 0 and ∞"),
    "phi above 1": (lambda: hl.CAR1("t", start=1.2), None, {}, "between 0 and 1"),
    "rho below the bound of four rows": (lambda: hl.CompoundSymmetry(start=-0.5), None, {}, "between -0.3333 and 1"),
    "a share for nugget": (lambda: hl.AR1(nugget=0.2), None, {}, "write nugget=True"),
    "a number for the column": (lambda: hl.AR1(0.5), None, {}, "name of the column"),
    "a number of lags": (lambda: hl.Toeplitz(3), None, {}, "name of the column"),
    "no column": (lambda: hl.Exponential(), None, {}, r"Exponential\(\)"),
    "no group": (lambda: None, lambda: hl.VarIdent(), {}, r"VarIdent\(\)"),
    "two groups' columns": (lambda: None, lambda: hl.VarIdent(["sex", "age"]), {}, "name of a column"),
    "a group with one row": (lambda: None, lambda: hl.VarIdent("g"), {"g": ["x"] + ["y"] * 107}, "one row with 'x'"),
    "one group": (lambda: None, lambda: hl.VarIdent("g"), {"g": "x"}, "two groups or more"),
    "a group for every row": (lambda: None, lambda: hl.VarIdent("g"), {"g": np.arange(108.0)}, "108 groups"),
    "groups of two kinds": (lambda: None, lambda: hl.VarIdent("g"), {"g": [1, "a"] * 54}, "labels of type int, str"),
    "a power of zero": (lambda: None, lambda: hl.VarPower("time"), {}, "a zero in row 0"),
    "a power of text": (lambda: None, lambda: hl.VarPower("sex"), {}, "use VarIdent"),
    "a power of a constant": (lambda: None, lambda: hl.VarPower("g"), {"g": 2.0}, "2 in every row"),
    "a power of ±1": (lambda: None, lambda: hl.VarPower("g"), {"g": np.where(T > 1, 1.0, -1.0)}, "on average"),
    "a power of infinity": (lambda: None, lambda: hl.VarPower("g"), {"g": np.where(T > 2, np.inf, 1.0)}, "not finite"),
    "an exponential far from zero": (lambda: None, lambda: hl.VarExp("g"), {"g": 1e12 + T}, r"data\['g'\].mean\(\)"),
    "an exponential of dates": (lambda: None, lambda: hl.VarExp("g"), {"g": DATES}, "function of a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["marginal", "hierarchical"])
def test_bad_input_is_refused_when_the_model_is_made(case, kind):
    correlation, variance, columns, match = BAD[case]
    with pytest.raises(HierlmmError, match="(?s)" + match) as caught:
        data = dental_with(**columns)
        spec = correlation(), variance() if variance else None
        if kind == "marginal":
            hl.MarginalModel("distance ~ sex", correlation=spec[0], variance=spec[1], subject="subject", data=data)
        else:
            hl.TwoLevelModel.from_formula(
                "distance ~ sex + (1 | subject)", data, residual=spec[0], residual_variance=spec[1]
            )
    error = caught.value
    assert all(isinstance(part, str) and part for part in (error.received, error.reason, error.remedy, error.see))


def test_rows_without_a_time_can_be_dropped():
    data = dental_with(t=np.where(np.arange(108) == 5, np.nan, T))
    with pytest.warns(FitWarning, match="1 of 108 rows was dropped"):
        model = hl.MarginalModel(
            "distance ~ time", correlation=hl.Exponential("t"), subject="subject", data=data, missing="drop"
        )
    complete = hl.MarginalModel(
        "distance ~ time", correlation=hl.Exponential("t"), subject="subject", data=data.drop(index=data.index[5])
    )
    same(model.fit_reml(), complete.fit_reml())


def test_one_row_for_each_subject():
    data = dental_with().query("age == 8")
    with pytest.raises(DataError, match="no two rows are correlated"):
        hl.MarginalModel("distance ~ sex", correlation=hl.AR1(), subject="subject", data=data)


def test_fewer_subjects_than_occasions_that_coefficients_leave():
    data = dental_with().query("subject in (1, 2, 12, 13)")
    with pytest.raises(DataError, match="4 subjects, 4 occasions"):
        hl.MarginalModel("distance ~ sex", correlation=hl.Unstructured("age"), subject="subject", data=data)


def test_wrong_kinds_are_named():
    with pytest.raises(SpecificationError, match="a class was given"):
        hl.MarginalModel("distance ~ time", correlation=hl.Gaussian, subject="subject", data=dental_with())
