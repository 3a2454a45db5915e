"""Wrong arguments get a message in four parts, whatever they are; formulas from strangers cost nothing."""

from __future__ import annotations

import contextlib
import decimal
import inspect
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import hierlmm as hl
from hierlmm.options import checked

FORMULA = "distance ~ sex * time + (1 + time | subject)"
STRANGE = ["abc", "", None, -1, 1e300, float("nan"), True, [], {}, object(), 3.5, b"x", np.array([1, 2.0]), [None]]
STRANGE += [{"time": [[1]]}, {"abc": 1}, lambda x: x, (1, 2, 3), [[1]], pd.DataFrame({"a": [1]}), 10**9]


@pytest.fixture(scope="module")
def model(dental):
    return hl.TwoLevelModel.from_formula(FORMULA, dental)


@pytest.fixture(scope="module")
def fits(model, dental):
    marginal = hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1("time"), subject="subject", data=dental)
    return {"reml": model.fit_reml(), "gee": model.fit_gee(), "marginal": marginal.fit_reml()}


# Methods of fits and functions, called with something strange in each argument in turn.
GIVEN = {"data": None, "history": None, "newdata": None, "variable": "time", "term": "time"}
GIVEN |= {"variables": "sex", "by": "sex", "time": "time", "a": 1, "b": 2, "hypotheses": "time = 0", "times": [6]}
METHODS = [
    "summary",
    "variance_components",
    "fitted",
    "residuals",
    "predict",
    "predict_subject",
    "contrasts",
    "hypothesis",
]
METHODS += [
    "slopes",
    "marginal_means",
    "effects",
    "marginal_covariance",
    "heterogeneity",
    "compare_subjects",
    "interpret",
]
METHODS += [
    "rank_subjects",
    "to_datatree",
    "implied_marginal",
    "compare_marginal",
    "plot_forest",
    "plot_effects",
    "anova",
]


ASKED = [(kind, m) for kind in ("reml", "gee", "marginal") for m in METHODS if kind == "reml" or "plot" not in m]


@pytest.mark.parametrize(("kind", "method"), ASKED)
def test_methods_refuse_in_words(fits, dental, kind, method):
    call = getattr(fits[kind], method)
    names = [p.name for p in inspect.signature(call).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    required = {
        p.name: GIVEN[p.name]
        for p in inspect.signature(call).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    given = {name: dental if value is None else value for name, value in required.items()}
    for name in names:
        for strange in STRANGE:
            with contextlib.suppress(hl.HierlmmError), np.errstate(over="ignore", invalid="ignore"):
                call(**given | {name: strange})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.predict(ci="a"), "text was given where a number is needed"),
        (lambda fit: fit.predict(ci=[0.5]), "a list that holds a number was given"),
        (lambda fit: fit.hypothesis(None), "None was given where text or a list of names is needed"),
        (lambda fit: fit.contrasts("sex", by=[1]), "a list that holds a whole number was given"),
        (lambda fit: fit.to_datatree(draws=0), "nothing would be drawn"),
        (lambda fit: fit.rank_subjects("time", seed=-1), "a seed is a whole number from 0"),
        (lambda fit: fit.rank_subjects("time", draws=10**9), "the largest number that is taken here is 1,000,000"),
        (lambda fit: fit.plot_forest(labls=["a"]), r"no argument of this name. Did you mean 'labels'\?"),
        (lambda fit: fit.plot_trajectories(xlab="x"), r"no argument of this name. Did you mean 'xlabel'\?"),
        (lambda fit: fit.plot_effects("time", simultanous=True), r"Did you mean 'simultaneous'\?"),
        (lambda fit: fit.plot_forest(figure_kwargs={"figsze": (3, 3)}), "cannot make such a figure"),
        (lambda fit: fit.predict(None, "subject", None, 0.95, 4), "too many positional arguments"),
        (lambda fit: fit.compare_subjects(1), "missing a required argument: 'b'"),
        (lambda fit: fit.marginal_covariance([1]), "not in the fitted data"),
        (lambda fit: fit.contrasts("sex", {"x": ["a", "b"]}), "they are not numbers"),
        (lambda fit: fit.effects("time", at={"sex": [["Male"]]}), "one number or label"),
        (lambda fit: hl.calibrate("model"), "it needs a model"),
        (lambda fit: hl.Normal("a", 1), "text was given where a number is needed"),
        (lambda fit: hl.load_dataset("dental", codng="x"), r"Did you mean 'coding'\?"),
    ],
)
def test_what_is_said(fits, call, message):
    with (
        pytest.raises(hl.SpecificationError, match=message)
        if "fitted data" not in message
        else pytest.raises(hl.DataError, match=message)
    ):
        call(fits["reml"])


def test_times_of_a_prediction_are_numbers(fits):
    history = {"subject": ["new"], "sex": ["Male"], "time": [0], "distance": [26.0]}
    with pytest.raises(hl.HierlmmError, match="times"):
        fits["reml"].predict_subject(pd.DataFrame(history), times="abc")


def test_degrees_of_freedom_of_gee_are_refused(fits):
    with pytest.raises(hl.ArgumentError, match="its arguments are ci, se"):
        fits["gee"].summary(df="satterthwaite")


def test_an_argument_error_is_a_type_error_and_keeps_the_signature():
    @checked
    def door(n: int, names: list[str] | None = None, *, level: str = "subject") -> int:
        return n

    assert list(inspect.signature(door).parameters) == ["n", "names", "level"]
    assert door(np.int64(3)) == 3 and door(2, ("a",)) == 2
    for bad in (
        lambda: door("3"),
        lambda: door(2.0),
        lambda: door(True),
        lambda: door(1, "ab"),
        lambda: door(1, lvl="x"),
    ):
        with pytest.raises(hl.ArgumentError):
            bad()
    assert issubclass(hl.ArgumentError, TypeError) and issubclass(hl.ArgumentError, hl.SpecificationError)


# Tables with columns that no model can use, and with decimals, which one can.


def test_nested_columns_are_refused(dental):
    table = pl.from_pandas(dental).with_columns(s=pl.struct("distance", "time"), l=pl.concat_list("distance", "time"))
    for formula in ("s ~ time + (1 | subject)", "distance ~ s + (1 | subject)", "distance ~ l + (1 | subject)"):
        with pytest.raises(hl.DataError):
            hl.TwoLevelModel.from_formula(formula, table)
    with pytest.raises(hl.DataError, match="labels of type dict"):
        hl.TwoLevelModel.from_formula("distance ~ time + (1 | s)", table)


@pytest.mark.parametrize("scale", [decimal.Decimal(1) / 4, decimal.Decimal(10) ** 30])
def test_decimals_are_numbers(dental, scale):
    values = [decimal.Decimal(int(t)) * scale for t in dental["time"]]
    columns = {"distance": dental["distance"].to_numpy(), "subject": dental["subject"].to_numpy()}
    table = pa.table(columns | {"x": pa.array(values, pa.decimal256(60, 2))})
    plain = pd.DataFrame(columns | {"x": dental["time"] * float(scale)})
    formula = "distance ~ x + (1 | subject)"
    found, expected = (hl.TwoLevelModel.from_formula(formula, t).fit_reml() for t in (table, plain))
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-12)


# Formulas from strangers.
FOURTEEN = [f"I(time + {k})" for k in range(14)]


@pytest.mark.parametrize(
    ("rhs", "message"),
    [
        (f"({' + '.join(FOURTEEN)})**16", "the limit is 2,000"),
        ("*".join(FOURTEEN), "multiplied out it has 2,047 terms .* the limit is 2,000"),
        ("time**1000000000", "the limit is 2,000"),
        (
            "hashed(subject, levels=10**9)",
            "hashed would make 1,000,000,000 columns; the limit of one function is 1,000",
        ),
        ("hashed(subject, 10**9)", "the limit of one function is 1,000"),
        ("hashed(subject, levels=int(1e9))", "an unknown number of columns"),
        ("poly(time, 10**7)", "the limit of one function is 1,000"),
        ("bs(time, df=5, degree=10**7)", "the limit of one function is 1,000"),
        ("I(time + 10**10**10)", "beyond the largest floating-point number"),
        ("I(time * (1 << 10**10))", "beyond the largest floating-point number"),
        ("C(time, levels=[1] * 10**8)", "a list or a text stands in arithmetic"),
        ("C(time, levels='a' * 10**9)", "a list or a text stands in arithmetic"),
        ("(" * 3000 + "time" + ")" * 3000, "nested more than 50 deep"),
        ("I(" + "-" * 3000 + "time)", "more than 200 operators"),
        ("I(" + "time + " * 2000 + "time)", "more than 200 operators"),
        ("time:" * 9999 + "time", "the limit is 20,000"),
    ],
)
def test_formulas_from_strangers_are_refused_at_once(dental, rhs, message):
    tracemalloc.start()
    try:
        with pytest.raises(hl.FormulaError, match=message) as caught:
            hl.TwoLevelModel.from_formula(f"distance ~ {rhs} + (1 | subject)", dental)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1500
    assert peak < 100e6  # bytes; without the limits minutes, or all memory


@pytest.mark.parametrize("structure", ["none", "residual", "marginal"])
def test_a_criterion_is_asked_with_the_right_numbers(dental, structure):
    formula = "distance ~ sex * time + (1 + time | subject)"
    fit = {
        "none": lambda: hl.TwoLevelModel.from_formula(formula, dental).fit_reml(),
        "residual": lambda: hl.TwoLevelModel.from_formula(
            formula.replace("1 + ", "0 + "), dental, residual_variance=hl.VarIdent("sex")
        ).fit_ml(),
        "marginal": lambda: hl.MarginalModel(
            "distance ~ time", correlation=hl.Toeplitz(), subject="subject", data=dental
        ).fit_ml(),
    }[structure]()
    at, criterion = fit.optimum.lam, fit.criterion_function
    for call in (criterion, criterion.evaluate):
        for wrong in (
            at[:-1],
            np.append(at, 1.0),
            at[None],
            [],
            1.0,
            None,
            "abc",
            list(map(str, at)),
            {},
            at + 1j,
            [[1], 2],
        ):
            with pytest.raises(hl.ArgumentError, match=f"it is a function of {len(at)} numbers"):
                call(wrong)
        for place in range(len(at)):
            missing = at.copy()
            missing[place] = np.nan
            with pytest.raises(hl.ArgumentError, match=r"NaN[^$]*fit\.optimum\.lam"):
                call(missing)
    assert criterion(list(at)) == criterion(tuple(at)) == criterion(at) == pytest.approx(fit.criterion, abs=1e-9)
    assert criterion(np.ones(len(at), dtype=int)) == criterion.evaluate(np.ones(len(at))).value
    huge = criterion(np.full(len(at), 1e200))  # far out there is no value, which is no argument to refuse
    assert not huge < fit.criterion


def test_the_limits_hold_in_every_formula(fits, dental):
    deep = "(" * 3000 + "time" + ")" * 3000
    for call in (
        lambda: hl.TwoLevelModel("distance ~ time", {"Intercept": deep}, subject="subject", data=dental),
        lambda: hl.TwoLevelModel(f"distance ~ {deep}", subject="subject", data=dental),
        lambda: hl.MarginalModel(f"distance ~ {deep}", subject="subject", data=dental),
        lambda: hl.TwoLevelModel.from_formula(f"distance ~ time + ({deep} | subject)", dental),
        lambda: fits["reml"].hypothesis(f"{deep} = 0"),
    ):
        with pytest.raises(hl.HierlmmError, match="nested more than 50 deep"):
            call()
    assert fits["reml"].hypothesis("-" * 3000 + "time = 0").table.shape[0] == 1


def test_labels_without_number_are_counted_before_they_are_coded():
    n = 20_000
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(np.arange(n // 2), 2), "y": rng.normal(size=n)})
    frame["k"], frame["l"] = frame["g"].astype(str), np.arange(n).astype(str)
    with pytest.raises(hl.FormulaError, match=r"at least 200,000,000 columns, .* from 'k:l', and 20,000 rows"):
        hl.TwoLevelModel.from_formula("y ~ k * l + (1 | g)", frame)


def test_ordinary_formulas_stay_within_the_limits(dental):
    for rhs in ("(sex + time)**2", "ns(time, 3)", "I(2**time)", "poly(time, 2)"):
        hl.TwoLevelModel.from_formula(f"distance ~ {rhs} + (1 | subject)", dental)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hl.AR1(rho=0.5),
        lambda: hl.Toeplitz(lags=2),
        lambda: hl.VarPower("t", power=3),
        lambda: hl.UnstructuredHeterogeneous("t", "sex"),
    ],
)
def test_structures_have_the_arguments_that_they_have(call):
    with pytest.raises(hl.ArgumentError, match="To do: "):
        call()


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_a_seed_of_simulated_data_is_a_whole_number(seed):
    with pytest.raises(hl.HierlmmError, match="seed="):
        hl.simulate(n_subjects=3, times=[0, 1], beta={"Intercept": 1}, sigma=1, D=[[1]], seed=seed)


def test_a_hierarchy_of_words_is_refused(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ 1 + (1 | subject)", dental)
    with pytest.raises(hl.SpecificationError, match="no arrays of numbers"):
        hl.subject_hierarchy(model, beta={"Intercept": 1}, D=[[1]], residual=1.0)


def test_models_list_their_arguments_and_show_no_column():
    data = hl.load_dataset("sleepstudy")
    for model in (
        lambda **more: hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", data, **more),
        lambda **more: hl.TwoLevelModel("reaction ~ days", subject="subject", data=data, **more),
        lambda **more: hl.MarginalModel("reaction ~ days", subject="subject", data=data, **more),
    ):
        with pytest.raises(hl.ArgumentError) as refused:
            model(sample_weight=data["days"])
        assert len(refused.value.received) < 120
        assert refused.value.remedy.startswith("its arguments are ") and "missing" in refused.value.remedy
        assert "unknown" not in refused.value.remedy


@pytest.mark.parametrize("kind", [np.asarray, pl.Series, pd.Series])
def test_values_where_a_column_is_named_are_sent_into_the_data(dental, kind):
    values = kind(dental["age"] * 1.0)
    column = getattr(values, "name", "weights")
    remedy = rf"data\['{column}'\] = \.\.\., then weights='{column}'"
    with pytest.raises(hl.SpecificationError, match=remedy):
        hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, weights=values)
    with pytest.raises(hl.SpecificationError, match=r"data\['sex'\] = \.\.\., then group='sex'"):
        hl.MarginalModel("distance ~ time", subject="subject", data=dental, group=dental["sex"])
