"""Design analysis of other families: studies are drawn from the family and judged as its own fits are."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hierlmm as hl
from hierlmm.diagnostics.plan import Stated, plan_of
from hierlmm.diagnostics.study import Analysis, by_likelihood

TRIAL = "count ~ arm + time + (1 | patient)"
SAID = {
    "beta": {"Intercept": 0.7, "arm[T.b]": 0.4, "time": 0.1},
    "D": 0.3,
    "times": [0, 1, 2],
    "level2": {"arm": ["a", "b"]},
}


@pytest.fixture(scope="module")
def power():
    return hl.design_analysis(
        TRIAL, **SAID, family="poisson", n_subjects=(16, 40), simulations=60, seed=1, quantiles="z", progressbar=False
    )


def test_a_planned_response_is_drawn_from_its_family():
    plan = plan_of(Stated(TRIAL, **SAID, family="negative_binomial", dispersion={"shape": 2.0}))
    design = plan.draw(6000, np.random.default_rng(3), 0.0)
    eta = design.X @ [SAID["beta"][name] for name in design.coef]
    mean = np.exp(eta + 0.15)  # over subjects
    assert np.mean(design.y / mean) == pytest.approx(1.0, abs=0.03)
    variance = mean + mean**2 * (1.5 * np.exp(0.3) - 1.0)  # of a negative binomial with a lognormal mean
    assert np.mean((design.y - mean) ** 2 / variance) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_a_study_is_judged_as_its_summary_says(alternative):
    plan = plan_of(Stated(TRIAL, **SAID, family="poisson"))
    design = plan.draw(20, np.random.default_rng(2), 0.0)
    found = by_likelihood(design, [1, 2], Analysis("ml", alternative, 0.05, "z"))
    summary = hl.TwoLevelModel.from_formula(TRIAL, design.frame, family="poisson").fit_ml().summary().iloc[1:]
    for name in ("estimate", "se", "lower", "upper"):
        np.testing.assert_allclose(getattr(found, name), summary[name], rtol=1e-8)
    p = {"two-sided": summary["p"], "greater": stats.norm.sf(summary["z"]), "less": stats.norm.cdf(summary["z"])}
    np.testing.assert_array_equal(found.significant, p[alternative] < 0.05)


def test_power_is_that_of_the_information(power):
    """The standard error that the studies report is that of the estimates, and power what a normal estimate has."""
    for _, row in power.table.iterrows():
        assert row["sd"] == pytest.approx(row["se"], rel=3.5 / np.sqrt(2 * 59))
        expected = stats.norm.sf(1.96 - row["true"] / row["se"])
        assert abs(row["power"] - expected) < 3.5 * np.sqrt(0.25 / 60)
        assert abs(row["bias"]) < 3.5 * row["sd"] / np.sqrt(60)
    by_size = power.table.xs("arm[T.b]", level="coef")
    assert by_size.loc[16, "width"] / by_size.loc[40, "width"] == pytest.approx(np.sqrt(40 / 16), rel=0.15)


def test_it_prints_and_draws_like_the_other(power):
    text = " ".join(str(power).split())
    assert "ML (Laplace approximation), Poisson response, 60 simulated studies" in text
    assert "on the scale of the link (log)" in text
    assert "normal quantiles, as summary() of the fit" in text
    assert power.estimator == "ML" and power.family == hl.families.Poisson()
    power.plot()


def test_t_quantiles_are_wider_than_normal_ones(power):
    t = hl.design_analysis(TRIAL, **SAID, family="poisson", n_subjects=16, simulations=10, seed=1, progressbar=False)
    assert "t quantiles on between-within degrees of freedom, an approximation" in " ".join(str(t).split())
    ratio = t.table.loc[(16, "arm[T.b]"), "width"] / t.table.loc[(16, "arm[T.b]"), "se"]
    assert ratio == pytest.approx(2 * stats.t.ppf(0.975, 14), rel=1e-9)


def test_the_subjects_of_a_fit_come_with_their_trials_and_exposure():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(24), 4)
    data = pd.DataFrame(
        {"g": g, "x": rng.normal(size=96), "years": rng.uniform(1, 30, 96), "n": rng.integers(1, 9, 96)}
    )
    b = 0.5 * rng.normal(size=24)[g]
    data["events"] = rng.poisson(data["years"] * np.exp(0.2 + 0.3 * data["x"] + b))
    data["wins"] = rng.binomial(data["n"], 1 / (1 + np.exp(-b)))
    rates = hl.TwoLevelModel.from_formula("events ~ x + (1 | g)", data, family="poisson", exposure="years").fit_ml()
    design = plan_of(Stated(rates)).draw(2400, np.random.default_rng(1), 0.0)
    frame = design.frame
    mean = frame["years"] * np.exp(design.X @ rates.beta + 0.5 * rates.D.iloc[0, 0])
    assert np.mean(design.y) / np.mean(mean) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(design.offset, np.log(frame["years"]))
    wins = hl.TwoLevelModel.from_formula("p(wins, n) ~ x + (1 | g)", data, family="binomial").fit_ml()
    design = plan_of(Stated(wins)).draw(48, np.random.default_rng(1), 0.0)
    assert sorted(design.trials) == sorted(np.tile(data["n"], 2))
    assert np.all(design.y <= design.trials)
    planned = plan_of(Stated(wins, times=[0, 1], level1={"x": ("normal", 0, 1)}, time="visit", trials=3))
    assert np.all(planned.draw(10, np.random.default_rng(1), 0.0).trials == 3)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_studies_without_a_maximum_are_counted():
    rare = hl.design_analysis(
        "y ~ arm + (1 | subject)",
        beta={"Intercept": -2.5, "arm[T.b]": -1.0},
        D=0.2,
        family="bernoulli",
        times=[0, 1],
        level2={"arm": ["a", "b"]},
        n_subjects=(12, 120),
        simulations=20,
        seed=1,
        progressbar=False,
    )
    failed = rare.table["failed"].to_numpy()
    assert failed[0] > 0.3 > failed[1]
    assert any("no maximum with standard errors" in failure.reason for failure in rare.failures)
    assert "are left out" in str(rare)


def test_categories_and_heavy_tails_are_planned_too():
    asked = {"times": [0, 1, 2], "n_subjects": 20, "simulations": 10, "seed": 1, "progressbar": False}
    thresholds = {"threshold 2": 1.0, "threshold 3": 2.0}
    grades = hl.design_analysis(
        "y ~ time + (1 | g)", beta={"time": 1.0}, D=0.4, family="ordinal", dispersion=thresholds, **asked
    )
    heavy = {"family": "student_t", "sigma": 0.5, "dispersion": {"nu": 5.0}}
    outliers = hl.design_analysis("y ~ time + (1 | g)", beta={"time": 1.0}, D=0.4, **heavy, **asked)
    for plan in (grades, outliers):
        assert plan.table["power"].iloc[0] >= 0.6
        assert plan.table["bias"].iloc[0] == pytest.approx(0.0, abs=4 * plan.table["bias_mcse"].iloc[0])
