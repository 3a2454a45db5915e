"""Simulated data with several factors, and the design analysis of such studies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, t

import hierlmm as hl
from hierlmm.errors import HierlmmError, SpecificationError

close = np.testing.assert_allclose
ARM = {"school": {"arm": ["control", "treated"]}}
TRUTH = {"beta": {"Intercept": 50, "arm[T.treated]": 4}, "D": {"school": 9, "school:class": 4}, "sigma": 8.0}


def test_data_are_their_parameters_and_random_effects():
    data, truth = hl.simulate_multilevel(
        "y ~ arm + x + (1 + x | school / class)",
        sizes={"school": 6, "class": 3},
        rows=4,
        beta={"Intercept": 50, "x": 2.0},
        D={"school": [[9, 1], [1, 1]], "school:class": [[4, 0], [0, 0.5]]},
        sigma=1e-9,
        covariates={**ARM, "row": {"x": ("normal", 0, 1)}},
        seed=4,
        return_truth=True,
    )
    assert list(data) == ["school", "class", "arm", "x", "y"] and len(data) == 72
    assert data.groupby("school")["arm"].nunique().eq(1).all() and data["arm"].eq("treated").mean() == 0.5
    school = truth.b["school"].loc[data["school"]].to_numpy()
    inner = truth.b["school:class"].loc[data["school"].astype(str) + ":" + data["class"].astype(str)].to_numpy()
    own = school + inner
    close(data["y"], 50 + own[:, 0] + (2 + own[:, 1]) * data["x"], atol=1e-6)
    assert truth.beta["arm[T.treated]"] == 0.0 and "sd(x | school)" in repr(truth)


def test_crossed_groups_are_those_of_the_formula():
    asked = {"sizes": {"plate": 24, "sample": 6}, "beta": {"Intercept": 23.0}, "sigma": 0.5, "rows": 2, "seed": 1}
    formula, D = "y ~ 1 + (1 | plate) + (1 | sample)", {"plate": 1.0, "sample": 4.0}
    data, truth = hl.simulate_multilevel(formula, D=D, return_truth=True, **asked)
    assert len(data) == 288 and {name: len(b) for name, b in truth.b.items()} == {"plate": 24, "sample": 6}
    assert hl.simulate_multilevel(formula, D=D, **asked).equals(data)
    noise = data["y"] - 23.0 - truth.b["plate"].loc[data["plate"]].to_numpy()[:, 0]
    noise -= truth.b["sample"].loc[data["sample"]].to_numpy()[:, 0]
    assert noise.std() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(("items", "rows"), [(16, 1), (15, 1), (4, 2), (3, 4)])
def test_covariates_of_rows_vary_within_crossed_factors(items, rows):
    """Half of the rows of every subject and item have each condition, up to one row where halves are not whole."""
    asked = {"beta": {"Intercept": 0}, "D": {"subj": 0.5, "item": 0.3}, "sigma": 1.0, "seed": 1}
    sizes, covariates = {"subj": 20, "item": items}, {"row": {"cond": ["a", "b"]}}
    data = hl.simulate_multilevel(
        "y ~ cond + (1 | subj) + (1 | item)", sizes=sizes, rows=rows, covariates=covariates, **asked
    )
    for factor in sizes:
        n = pd.crosstab(data[factor], data["cond"])
        assert np.all(np.abs(n["a"] - n["b"]) <= 1)


def test_covariates_that_follow_a_factor_are_told():
    asked = {"beta": {"Intercept": 0}, "D": {"subj": 0.5, "item": 0.3}, "sigma": 1.0, "seed": 1}
    sizes, lists = {"subj": 20, "item": 2}, {"cond": ["a", "b"], "list": ["u", "v"]}  # a round is four rows
    formula = "y ~ cond + list + (1 | subj) + (1 | item)"
    with pytest.warns(hl.FitWarning) as told:
        hl.simulate_multilevel(formula, sizes=sizes, covariates={"row": lists}, **asked)
    said = sorted(str(w.message) for w in told)
    assert len(said) == 2 and said[0].startswith("cond is constant within item")
    assert "{'item': {'cond': ...}}" in said[0]
    meant = {"item": {"cond": lists["cond"]}, "subj": {"list": lists["list"]}}
    hl.simulate_multilevel(formula, sizes=sizes, covariates=meant, **asked)


def test_power_of_a_balanced_design_is_that_of_the_exact_test():
    """Treated schools, all alike: the t test of school means."""
    found = hl.multilevel_design_analysis(
        "y ~ arm + (1 | school / class)", sizes={"school": [10, 20], "class": 3}, rows=5, covariates=ARM, **TRUTH
    ).table
    schools = np.array([10.0, 20.0])
    se = np.sqrt(4.0 * (9 + 4 / 3 + 64 / 15) / schools)
    close(found["se"], se, rtol=1e-6)
    close(found["df"], schools - 2, rtol=1e-5)
    end = t.ppf(0.975, schools - 2)
    close(found["power"], nct.sf(end, schools - 2, 4 / se) + nct.cdf(-end, schools - 2, 4 / se), rtol=1e-5)
    one = hl.multilevel_design_analysis(
        "y ~ arm + (1 | school / class)",
        sizes={"school": 10, "class": 3},
        rows=5,
        covariates=ARM,
        alternative="greater",
        **TRUTH,
    ).table
    close(one["power"], nct.sf(t.ppf(0.95, 8), 8, 4 / se[0]), rtol=1e-5)
    assert (one[["school", "class", "rows", "n_obs"]] == [10, 3, 5, 150]).all(axis=None)


def test_simulated_studies_agree_with_the_expected_information():
    found = hl.multilevel_design_analysis(
        "y ~ arm + (1 | school / class)",
        sizes={"school": 12, "class": 2},
        rows=5,
        covariates=ARM,
        simulations=60,
        seed=3,
        progressbar=False,
        **TRUTH,
    )
    row = found.table.iloc[0]
    assert abs(row["simulated"] - row["power"]) < 4.0 * np.sqrt(row["power"] * (1 - row["power"]) / 60)
    assert abs(row["bias"]) < 4.0 * row["se"] / np.sqrt(60) and row["coverage"] > 0.8 and row["failed"] == 0.0
    assert "share of 60 studies drawn and fitted by REML" in " ".join(repr(found).split())


def test_the_design_of_a_fit_has_its_own_standard_errors(nested):
    row = hl.multilevel_design_analysis(nested).table.iloc[0]
    kr = nested.summary(df="kenward-roger").iloc[0]
    assert (row["se"], row["df"]) == (pytest.approx(kr["se"], rel=1e-6), pytest.approx(kr["df"], rel=1e-5))
    larger = hl.multilevel_design_analysis(
        nested,
        sizes={"batch": 20, "cask": 3},
        rows=2,
        D={"batch": 0.0, "batch:cask": 8.0},
        simulations=12,
        seed=1,
        progressbar=False,
    ).table.iloc[0]
    assert 0.0 < larger["singular"] < 1.0  # without variation between batches its estimate is zero in half of all
    assert larger["se"] == pytest.approx(np.sqrt((8.0 + nested.sigma**2 / 2) / 60), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sizes": {"school": 20}}, "grouping columns of the formula are school, class"),
        ({"D": {"school": 1.0}}, "give D of each of them"),
        ({"D": {"school": -1.0, "school:class": 1.0}}, r"D\['school'\]=\[\[-1.0\]\]"),
        ({"D": {"school": "x", "school:class": 1.0}}, "not a matrix of numbers"),
        ({"beta": {"Intercept": np.nan}}, "not a finite number"),
        ({"sigma": 0.0}, "positive"),
        ({"beta": {"arm": 1.0}}, "no such coefficient"),
        ({"covariates": {"arm": {"arm": ["a", "b"]}}}, "say what they vary by: school, school:class or row"),
        ({"sizes": {"school": 1, "class": 3}}, "whole number, at least 2"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, match):
    asked = {"sizes": {"school": 20, "class": 3}, "rows": 2, "covariates": ARM, **TRUTH, **change}
    with pytest.raises(SpecificationError, match=match):
        hl.simulate_multilevel("y ~ arm + (1 | school / class)", **asked)


def test_a_table_of_D_goes_by_its_names():
    """Whatever the order of its rows; a block of zeros where the formula has ``||``."""
    names = ["x", "Intercept"]
    asked = {"sizes": {"a": 5, "b": 3}, "rows": 2, "beta": {}, "sigma": 1.0, "return_truth": True}
    asked["covariates"] = {"row": {"x": ("normal", 0, 1)}}
    for bar, corner in (("|", 0.5), ("||", 0.0)):
        given = {"a": pd.DataFrame([[4.0, corner], [corner, 9.0]], names, names), "b": 1.0}
        formula = f"y ~ x + (1 + x {bar} a) + (1 | b)"
        truth = hl.simulate_multilevel(formula, D=given, **asked)[1]
        close(truth.D["a"], [[9.0, corner], [corner, 4.0]])
    with pytest.raises(SpecificationError, match="keeps some of its random effects apart"):
        hl.simulate_multilevel(formula, D={"a": [[9.0, 0.5], [0.5, 4.0]], "b": 1.0}, **asked)


def test_factors_may_have_any_name():
    """Also those of the columns of the table, and of the rows in covariates; sizes are any whole numbers."""
    asked = {"D": {"row": 1, "se": 1}, "beta": {}, "sigma": 1.0}
    formula, varies = "y ~ 1 + (1 | row) + (1 | se)", {"row": {"x": ("normal", 0, 1)}}
    data = hl.simulate_multilevel(formula, sizes={"row": 6, "se": 3}, covariates=varies, **asked)
    assert data.groupby("row")["x"].nunique().eq(1).all()
    found = hl.multilevel_design_analysis(formula, sizes={"row": np.array([6, 8]), "se": np.int64(3)}, rows=2, **asked)
    assert found.table["row"].tolist() == [6, 8] and (found.table["at se"] == 3).all() and (found.table["se"] < 1).all()


def test_a_design_analysis_needs_the_whole_truth(nested):
    with pytest.raises(SpecificationError, match="not complete"):
        hl.multilevel_design_analysis("y ~ 1 + (1 | a / b)", sizes={"a": 5, "b": 2}, beta={}, sigma=1.0)
    with pytest.raises(SpecificationError, match="without sizes the design is that of the data"):
        hl.multilevel_design_analysis(nested, rows=3)
    with pytest.raises(SpecificationError, match="has no number"):
        hl.multilevel_design_analysis(nested, sizes={"batch": [], "cask": 3})
    with pytest.raises(SpecificationError, match="formula or a fit"):
        hl.multilevel_design_analysis(3, sizes={"a": 5})
    with pytest.raises(HierlmmError, match="as many groups as rows"):
        asked = {"sizes": {"a": 5, "b": 2}, "D": {"a": 1, "a:b": 1}, "beta": {}, "sigma": 1.0}
        hl.multilevel_design_analysis("y ~ 1 + (1 | a / b)", **asked)
