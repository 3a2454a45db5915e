"""Sentences and ranges of models with a family."""

import numpy as np
import pandas as pd
import pytest
from references import HERE
from scipy import stats

import hierlmm as hl


@pytest.fixture(scope="module")
def data():
    table = pd.read_csv(HERE / "data" / "generalized.csv")
    return table.assign(ill=np.where(table["binary"] == 1, "yes", "no"))


@pytest.fixture(scope="module")
def poisson(data):
    return hl.TwoLevelModel.from_formula("count ~ time * treat + (time | group)", data, family="poisson").fit_ml()


@pytest.fixture(scope="module")
def logistic(data):
    return hl.TwoLevelModel.from_formula("ill ~ time + treat + (1 | group)", data, family="bernoulli").fit_ml()


def told(fit):
    return " ".join(fit.interpret().text.replace("\n  ", " ").split())


def test_rate_ratios_and_means(poisson):
    said, facts = told(poisson), poisson.interpret().facts
    slope = np.exp(poisson.beta["time"])
    assert f"The mean of count is multiplied by {slope:.4g} per unit of time" in said
    assert "for a subject in the middle (b = 0) with treat = a" in said
    assert "The distribution of count is Poisson (log link). Coefficients are on the log scale" in said
    assert "fit.marginal_coefficients()" in said
    assert "residual SD" not in said
    values = facts["value"].to_numpy()
    for expected in (slope, np.exp(poisson.beta["Intercept"]), np.exp(poisson.beta["treat[T.b]"])):
        assert np.isclose(values, expected, rtol=1e-12).any()


def test_odds_ratios_and_probabilities(logistic):
    said = told(logistic)
    assert f"The odds of ill = 'yes' are multiplied by {np.exp(logistic.beta['time']):.4g} per unit of time" in said
    p = 1 / (1 + np.exp(-logistic.beta["Intercept"]))
    assert f"the probability of ill = 'yes' for a subject in the middle (b = 0) with treat = a is {p:.4g}" in said
    ratio = np.exp(logistic.beta["treat[T.b]"])
    assert f"the odds ratio, treat = b over treat = a, is {ratio:.4g}" in said
    low, high = np.array([-1, 1]) * stats.norm.ppf(0.975) * logistic.sd_b.iloc[0] + logistic.beta["Intercept"]
    ends = [f"{1 / (1 + np.exp(-v)):.4g}" for v in (low, high)]
    assert f"where time = 0 between {ends[0]} and {ends[1]}" in said


def test_warnings_come_first(data):
    table = data.assign(binary=np.where((data["treat"] == "b"), 1, data["binary"]))
    fit = hl.TwoLevelModel.from_formula("binary ~ time + treat + (1 | group)", table, family="bernoulli").fit_ml()
    first = fit.interpret().sentences[0]
    assert first.section == "Read this first"
    assert "Separation" in first.text


@pytest.mark.parametrize(
    ("formula", "family", "words"),
    [
        (
            "binary ~ time + (1 | group)",
            hl.families.Bernoulli(link="probit"),
            "The slope of the probit of the",
        ),
        ("positive ~ time + (1 | group)", hl.families.Gamma(link="inverse"), "The slope of the inverse of the mean"),
        ("heavy ~ time + (1 | group)", "student_t", "The average slope of heavy on time"),
        ("rating ~ time + (1 | group)", "ordinal", "The odds of a higher rating are multiplied by"),
        (
            "p(successes, trials) ~ time + (1 | group)",
            hl.families.Binomial(link="cloglog"),
            "The hazard of",
        ),
        ("overdispersed ~ 1 + (1 | group)", "negative_binomial", "shape = "),
        ("count ~ 0 + time + (1 | group)", "poisson", "the log of the mean of count is zero"),
    ],
)
def test_every_link_has_its_words(data, formula, family, words):
    table = data.assign(rating=pd.Categorical(data["rating"], ordered=True))
    said = told(hl.TwoLevelModel.from_formula(formula, table, family=family).fit_ml())
    assert words in said
    assert "{" not in said


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_ordered_categories_are_told_as_probabilities(data, link):
    table = data.assign(rating=pd.Categorical(data["rating"], ordered=True))
    family = hl.families.Ordinal(link=link)
    fit = hl.TwoLevelModel.from_formula("rating ~ time + treat + (1 | group)", table, family=family).fit_ml()
    said = next(s for s in fit.interpret().sentences if "with treat = b are: 1 " in s.text)
    row = fit.marginal_means("treat", at={"time": 0}).table.query("treat == 'b' and rating == 3").iloc[0]
    for side in ("estimate", "lower", "upper"):
        assert said.facts[f"{side}, 3"] == pytest.approx(row[side], rel=1e-7)
    assert "as probabilities of categories" in told(fit)


def test_an_exposure_is_told(data):
    fit = hl.TwoLevelModel.from_formula(
        "events ~ treat + (1 | group)", data, family="poisson", exposure="exposure"
    ).fit_ml()
    said = told(fit)
    assert "the rate ratio, treat = b over treat = a" in said
    assert "Means below are rates per unit of exposure, those where exposure = 1" in said


def test_ranges_carry_the_joint_uncertainty(poisson):
    table = poisson.heterogeneity("time").table.set_index("group")
    row = table.loc["treat = a"]
    m, s = poisson.beta["time"], poisson.sd_b["time"]
    assert row["low"] == pytest.approx(m - stats.norm.ppf(0.975) * s, rel=1e-9)
    assert row["share"] == pytest.approx(stats.norm.cdf(m / s), rel=1e-9)
    # Mean and log SD are jointly normal: quantiles of many draws.
    record, k = poisson.record, poisson.design.coef.index("time")
    value, cov = record.delta(lambda at: np.array([record.at(at).beta[k], 0.5 * np.log(record.at(at).D[1, 1])]))
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal(value, cov, size=400_000)
    low = draws[:, 0] - stats.norm.ppf(0.975) * np.exp(draws[:, 1])
    share = stats.norm.cdf(draws[:, 0] / np.exp(draws[:, 1]))
    new = rng.normal(draws[:, 0], np.exp(draws[:, 1]))
    for name, values in {"low": low, "share": share}.items():
        expected = np.quantile(values, [0.025, 0.975])
        found = row[[f"{name}_lower", f"{name}_upper"]].to_numpy(dtype=float)
        np.testing.assert_allclose(found, expected, atol=0.01 * np.ptp(expected))
    expected = np.quantile(new, [0.025, 0.975])
    np.testing.assert_allclose(
        row[["new_low", "new_high"]].to_numpy(dtype=float), expected, atol=0.01 * np.ptp(expected)
    )
    assert row["sd_upper"] == pytest.approx(poisson.variance_components().loc["sd(time)", "upper"], rel=1e-3)


def test_rates_are_told_per_unit_of_exposure_and_many_groups_by_their_extremes(patients):
    table = patients.assign(weeks=patients["week"] + 1.0, site=np.array(["x", "y", "z"])[patients["patient"] % 3])
    formula = "seizures ~ arm * week + site + (1 | patient)"
    model = hl.TwoLevelModel.from_formula(formula, table, family="poisson", exposure="weeks")
    fit = model.fit_ml()
    said = told(fit)
    assert "Means below are rates per unit of weeks, those where weeks = 1" in said
    assert "have weeks at its mean, 2.5, unless at={'weeks': 1} says otherwise" in said
    assert "Level 2 lets its coefficients differ by arm, site (Intercept alone) and by random deviations" in said
    assert said.count("95 % of subjects with") == 2
    assert "Of 6 groups these are the one with the lowest and the one with the highest mean" in said
    printed = repr(fit.marginal_means("arm"))
    assert "weeks = 2.5 (the mean of the exposure; at={'weeks': 1} gives rates)" in " ".join(printed.split())
    assert "gives rates" not in repr(fit.marginal_means("arm", at={"weeks": 1}))


def test_a_family_without_a_title_is_called_by_its_class():
    class Rare(hl.families.Poisson):
        title = ""

    assert str(Rare()) == "Rare (log link)"
    assert Rare.title == "Rare"
