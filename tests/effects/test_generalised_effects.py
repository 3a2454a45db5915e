"""Means, ratios, slopes and curves of models with a family: emmeans, closed forms, integrals and draws."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from references import HERE, references_of
from scipy import stats

import hierlmm as hl

FOLDER = references_of("generalized_effects")
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
AT = {"time": [0, 1]}


@cache
def data():
    table = pd.read_csv(HERE / "data" / "generalized.csv")
    return table.assign(grade=table["rating"].astype(str), ill=np.where(table["binary"] == 1, "yes", "no"))


@cache
def fitted(name):
    ref = json.loads((FOLDER / f"{name}.json").read_text())
    family = {
        "bernoulli": hl.families.Bernoulli,
        "binomial": hl.families.Binomial,
        "gamma": hl.families.Gamma,
        "poisson": hl.families.Poisson,
        "negative_binomial": hl.families.NegativeBinomial,
    }[ref["family"]](link=ref["link"])
    return ref, hl.TwoLevelModel.from_formula(ref["formula"], data(), family=family).fit_ml()


def agree(effects, rows):
    """Compare a table with emmeans' rows, whose first factor changes fastest."""
    ours, theirs = effects.table, pd.DataFrame(rows)
    assert len(ours) == len(theirs)
    column = next(c for c in ("response", "prob", "rate", "ratio", "odds.ratio", "estimate", "emmean") if c in theirs)
    scale = theirs["SE"].max()
    np.testing.assert_allclose(ours["estimate"], theirs[column], rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(ours["se"], theirs["SE"], rtol=1e-4)
    for side, other in (("lower", "asymp.LCL"), ("upper", "asymp.UCL")):
        np.testing.assert_allclose(ours[side], theirs[other], rtol=1e-4, atol=1e-4 * scale)
    if "p" in ours:
        np.testing.assert_allclose(ours["t"], theirs["z.ratio"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours["p"], theirs["p.value"], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_means_ratios_and_slopes_are_emmeans(name):
    ref, fit = fitted(name)
    agree(fit.marginal_means("treat"), ref["means"])
    agree(fit.marginal_means("treat", scale="link"), ref["means_link"])
    agree(fit.marginal_means("treat", weights="proportional"), ref["means_proportional"])
    agree(fit.marginal_means("treat", by="time", at=AT), ref["means_at"])
    # emmeans makes no ratios of hazards.
    scale = "link" if ref["link"] == "cloglog" else "response"
    agree(fit.contrasts("treat", by="time", at=AT, scale=scale), ref["pairs_at"])
    agree(fit.contrasts("grade", scale=scale), ref["grades"])
    agree(fit.contrasts("grade", scale="link"), ref["grades_link"])
    agree(fit.contrasts("grade", adjust="holm", scale=scale), ref["grades_holm"])
    agree(fit.slopes("time", by="treat"), ref["slopes"])
    agree(fit.slopes("time", by="treat").contrasts(), ref["slopes_pairs"])
    joint = {row["model term"]: row["p.value"] for row in ref["joint"]}
    assert fit.anova().loc["grade", "p"] == pytest.approx(joint["grade"], rel=1e-4)


def test_what_numbers_are_is_said():
    _, poisson = fitted("poisson_log_rs")
    _, offset = fitted("poisson_offset_ri")
    _, logit = fitted("bernoulli_logit_ri")
    _, cloglog = fitted("binomial_cloglog_ri")
    _, probit = fitted("bernoulli_probit_ri")
    said = repr(poisson.marginal_means("treat"))
    assert said.startswith("Marginal means of count (ML)")
    assert "at b = 0: for a subject in the middle, not the mean over subjects" in said
    assert "the mean over subjects." in repr(poisson.marginal_means("treat", level="marginal"))
    assert repr(poisson.contrasts("treat")).startswith("Ratios of means of count (ML)")
    assert repr(offset.marginal_means("treat")).count("exposure = ") == 1
    assert repr(logit.contrasts("treat")).startswith("Odds ratios of binary (ML)")
    assert list(logit.contrasts("treat").table["contrast"]) == ["a / b"]
    assert "no difference is a ratio of 1" in repr(logit.contrasts("treat"))
    assert repr(cloglog.contrasts("treat")).startswith("Hazard ratios")
    assert repr(probit.contrasts("treat")).startswith("Differences of probit of the probability of binary")
    assert "scale of the link (log)" in repr(poisson.slopes("time"))
    assert "Coefficients are on the scale of the link (logit)" in repr(logit.hypothesis("time = 0"))


def test_a_single_ratio_is_told_with_the_larger_first():
    _, fit = fitted("poisson_log_rs")
    found = fit.contrasts("treat", at={"time": 1.5})
    assert found.table["lower"].iloc[0] > 1
    assert found.headline.startswith("ratio of means of a to b: ")
    turned = fit.contrasts("treat", {"b / a": {"b": 1, "a": -1}}, at={"time": 1.5})
    assert turned.headline == found.headline
    _, open_ = fitted("bernoulli_logit_ri")
    assert open_.contrasts("treat", at={"time": 0}).headline.startswith("Whether a or b is higher is open: odds ratio")


def test_mean_over_subjects_with_the_log_link_is_closed_form():
    _, fit = fitted("poisson_log_rs")
    record = fit.record
    z = np.array([1.0, 1.0])

    def line(parameters):
        at = record.at(parameters)
        beta = dict(zip(fit.design.coef, at.beta, strict=True))
        grade = np.mean([0.0, *(beta[f"grade[T.{k}]"] for k in "234")])
        return np.array([beta["Intercept"] + beta["time"] + grade + 0.5 * z @ at.D @ z])

    value, cov = record.delta(line)
    found = fit.marginal_means("treat", at={"time": 1}, level="marginal").table.iloc[0]
    assert found["estimate"] == pytest.approx(np.exp(value[0]), rel=1e-9)
    assert found["se"] == pytest.approx(np.exp(value[0]) * np.sqrt(cov[0, 0]), rel=1e-6)
    half = stats.norm.ppf(0.975) * np.sqrt(cov[0, 0])
    assert found["upper"] == pytest.approx(np.exp(value[0] + half), rel=1e-6)
    # The variance of the random part is the same in both groups: it does not touch their ratio.
    same = [fit.contrasts("treat", level=level).table for level in ("population", "marginal")]
    np.testing.assert_allclose(same[0]["estimate"], same[1]["estimate"], rtol=1e-8)


def test_mean_over_subjects_with_the_logit_link_is_an_integral():
    _, fit = fitted("bernoulli_logit_ri")
    b = np.linspace(-9, 9, 4001)
    weight = stats.norm.pdf(b) * (b[1] - b[0])

    def mean(beta, sd):
        beta = dict(zip(fit.design.coef, beta, strict=True))
        each = [beta["Intercept"] + beta["time"] + beta.get(f"grade[T.{k}]", 0.0) for k in "1234"]
        p = [weight @ (1 / (1 + np.exp(-(e + sd * b)))) for e in each]
        return np.mean(np.log(p) - np.log1p(-np.array(p)))

    found = fit.marginal_means("treat", at={"time": 1}, level="marginal", scale="link").table.iloc[0]
    assert found["estimate"] == pytest.approx(mean(fit.beta.to_numpy(), float(fit.sd_b.iloc[0])), rel=1e-8)
    # Its standard error is the spread of the same integral over draws of the parameters, up to curvature.
    posterior = fit.to_datatree(draws=300, chains=4)["posterior"]
    draws = zip(posterior["beta"].to_numpy().reshape(1200, -1), posterior["sd_b"].to_numpy().ravel(), strict=True)
    spread = np.std([mean(*own) for own in draws], ddof=1)
    assert found["se"] == pytest.approx(spread, rel=4 / np.sqrt(2400))
    odds = [fit.contrasts("treat", level=level).table["estimate"].iloc[0] for level in ("population", "marginal")]
    assert abs(np.log(odds[1])) < abs(np.log(odds[0]))  # attenuated


@pytest.mark.parametrize("name", ["bernoulli_logit_ri", "poisson_offset_ri", "gamma_inverse_ri"])
def test_means_are_predictions(name):
    _, fit = fitted(name)
    row = pd.DataFrame({"time": [0.5], "treat": ["b"], "grade": ["3"], "exposure": [2.0]})
    at = {"time": 0.5, "treat": "b", "grade": "3"} | ({"exposure": 2.0} if "offset" in name else {})
    for level in ("population", "marginal"):
        for scale in ("response", "link"):
            ours = fit.marginal_means("treat", at=at, level=level, scale=scale).table.iloc[0]
            theirs = fit.predict(row, level=level, interval="confidence", scale=scale).iloc[0]
            np.testing.assert_allclose(ours[list(theirs.index)].astype(float), theirs, rtol=1e-6)


def test_tests_of_terms_are_walds():
    _, fit = fitted("bernoulli_logit_ri")
    table = fit.anova()
    assert list(table.columns) == ["chi2", "df", "p"]
    # In the presence of treat × time, treat is tested where time is zero and time at equal weights of the groups.
    z = fit.contrasts("treat", at={"time": 0}).table["t"].iloc[0]
    assert table.loc["treat", "chi2"] == pytest.approx(z**2, rel=1e-8)
    assert table.loc["time", "chi2"] == pytest.approx(fit.slopes("time").table["t"].iloc[0] ** 2, rel=1e-6)
    grades = [f"grade[T.{k}]" for k in "234"]
    beta, V = fit.beta[grades], fit.beta_cov.loc[grades, grades]
    chi2 = float(beta @ np.linalg.solve(V, beta))
    assert table.loc["grade", "chi2"] == pytest.approx(chi2, rel=1e-8)
    assert table.loc["grade", "p"] == pytest.approx(stats.chi2.sf(chi2, 3), rel=1e-8)
    joint = fit.hypothesis([f"{g} = 0" for g in grades]).joint
    assert joint.F * joint.df1 == pytest.approx(chi2, rel=1e-8)


@pytest.mark.parametrize("level", ["population", "marginal"])
def test_curves_are_means_and_bands_stay_in_range(level):
    _, fit = fitted("bernoulli_logit_ri")
    some = {"time": [-0.9, 0.5, 1.9]}
    curves = fit.effects("time", by="treat", at=some, level=level, simultaneous=True)
    means = fit.marginal_means("treat", by="time", at=some, level=level).table.sort_values(["treat", "time"])
    for column in ("estimate", "se", "lower", "upper"):
        np.testing.assert_allclose(curves.table[column], means[column], rtol=1e-7)
    far = {"time": list(np.linspace(-12, 12, 30))}
    with pytest.warns(hl.FitWarning, match="extrapolated"):
        wide = fit.effects("time", by="treat", at=far, simultaneous=True, level=level)
    bands = wide.table.filter(regex="lower|upper|estimate").to_numpy()
    assert np.all((bands >= 0) & (bands <= 1))
    assert np.all(wide.table["lower_simultaneous"] <= wide.table["lower"])
    points = curves.points()
    assert set(points["y"]) == {0.0, 1.0}


def test_an_inverse_link_turns_intervals_round():
    _, fit = fitted("gamma_inverse_ri")
    table = fit.marginal_means("treat").table
    assert np.all((table["lower"] < table["estimate"]) & (table["estimate"] < table["upper"]))
    curve = fit.effects("time", simultaneous=True, n=5).table
    assert np.all((curve["lower_simultaneous"] < curve["lower"]) & (curve["upper"] < curve["upper_simultaneous"]))


def test_a_separated_level_leaves_the_others_alone():
    table = data().assign(binary=np.where(data()["grade"] == "4", 1, data()["binary"]))
    fit = hl.TwoLevelModel.from_formula("binary ~ time + grade + (1 | group)", table, family="bernoulli").fit_ml()
    for level in ("population", "marginal"):
        means = fit.marginal_means("grade", level=level).table.set_index("grade")["se"]
        assert np.isnan(means["4"])
        assert means[["1", "2", "3"]].notna().all()
        pairs = fit.contrasts("grade", level=level).table.set_index("contrast")
        assert pairs.loc["1 / 2"].notna().all()
        assert pairs.loc["1 / 4", ["se", "lower", "upper", "t", "p"]].isna().all()


def test_what_there_is_not_is_refused():
    _, fit = fitted("poisson_log_rs")
    ordinal = hl.TwoLevelModel.from_formula(
        "rating ~ time + treat + (1 | group)",
        data().assign(rating=pd.Categorical(data()["rating"], ordered=True)),
        family="ordinal",
    ).fit_ml()
    assert repr(ordinal.contrasts("treat")).startswith("Odds ratios of rating")
    assert repr(ordinal.marginal_means("treat")).startswith("Marginal probabilities of the categories of rating")
    assert repr(ordinal.marginal_means("treat", scale="link")).startswith("Marginal means, latent rating (logit scale)")
    for call, words in [
        (lambda: fit.marginal_means("treat", df="satterthwaite"), "without degrees of freedom"),
        (lambda: fit.effects("time").points("partial"), "straight scale"),
        (lambda: fit.effects("time", scale="link").points(), "need not exist"),
        (lambda: fit.effects("time", transform="exp"), "on its own scale as they are"),
        (lambda: fit.compare_subjects("g01", "g02"), "joint distribution"),
        (lambda: ordinal.contrasts("treat", level="marginal"), "every threshold"),
        (lambda: ordinal.marginal_means("treat", level="marginal", scale="link"), "every threshold"),
        (lambda: ordinal.marginal_means("treat", at={"rating": 7}), "no such level"),
        (lambda: ordinal.effects("time").points(), "one of the categories and no probability"),
        (lambda: ordinal.plot_trajectories(), "no mean to draw"),
    ]:
        with pytest.raises(hl.HierlmmError, match=words):
            call()


@pytest.mark.parametrize("level", ["population", "marginal"])
def test_categories_have_probabilities(level):
    table = data().assign(rating=pd.Categorical(data()["rating"], ordered=True))
    model = hl.TwoLevelModel.from_formula("rating ~ time + treat + ill + (time | group)", table, family="ordinal")
    fit = model.fit_ml()
    labels, record = list(fit.design.rows.categories), fit.record
    node = np.linspace(-8, 8, 1601)
    weight = stats.norm.pdf(node) * (node[1] - node[0])

    def by_hand(parameters):
        """Probabilities of treat = b at time = 1: lines of thresholds averaged over ill, and their differences."""
        at = record.at(parameters)
        beta = dict(zip(fit.design.coef, at.beta, strict=True))
        thresholds = np.append(0.0, np.cumsum(np.exp(at.psi)))
        eta = beta["Intercept"] + beta["time"] + beta["treat[T.b]"] + np.array([0.0, beta["ill[T.yes]"]])
        if level == "population":
            below = stats.logistic.cdf(thresholds - eta.mean())
        else:
            sd = np.sqrt(np.ones(2) @ at.D @ np.ones(2))
            each = stats.logistic.cdf(thresholds - eta[:, None] - sd * node[:, None, None])
            mean = np.tensordot(weight, each, 1)
            below = stats.logistic.cdf(stats.logistic.ppf(mean).mean(axis=0))
        return np.diff([0.0, *below, 1.0])

    means = fit.marginal_means("treat", at={"time": 1}, level=level)
    own = means.table[means.table["treat"] == "b"].set_index("rating")
    assert list(own.index) == labels
    p, cov = record.delta(by_hand)
    se = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(own["estimate"], p, rtol=1e-7)
    np.testing.assert_allclose(own["se"], se, rtol=1e-5)
    for side, sign in (("lower", -1), ("upper", 1)):
        end = stats.logistic.cdf(stats.logistic.ppf(p) + sign * stats.norm.ppf(0.975) * se / (p * (1 - p)))
        np.testing.assert_allclose(own[side], end, rtol=1e-5)
    pairs = means.contrasts()
    assert pairs.by == ("rating",)
    assert repr(pairs).startswith("Differences of probabilities of the categories of rating")
    first = means.table["estimate"][means.table["treat"] == "a"].to_numpy()
    np.testing.assert_allclose(pairs.table["estimate"], first - p, atol=1e-8)
    assert abs(pairs.table["estimate"].sum()) < 1e-12
    # Without other factors they are predictions.
    at = {"time": 1, "treat": "b", "ill": "yes"}
    one = fit.marginal_means(at={**at, "rating": labels[1:]}, level=level).table
    expected = fit.probabilities(pd.DataFrame({k: [v] for k, v in at.items()}), level=level).to_numpy()[0]
    np.testing.assert_allclose(one["estimate"], expected[1:], rtol=1e-9)
    curves = fit.effects("time", by="treat", at={"time": [0, 1]}, level=level, simultaneous=True)
    assert curves.by == ("rating", "treat")
    last = curves.table[(curves.table["treat"] == "b") & (curves.table["time"] == 1)]
    np.testing.assert_allclose(last["estimate"], p, rtol=1e-7)
    assert np.all(curves.table.filter(regex="lower|upper") > 0) and np.all(curves.table.filter(regex="lower|upper") < 1)
    assert list(curves.plot().viz["curve"].dims) == ["panel", "line"]


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_probabilities_of_categories_are_emmeans(link):
    ref = json.loads((references_of("ordinal_effects") / f"cumulative_{link}_ri.json").read_text())
    table = data().assign(rating=pd.Categorical(data()["rating"].astype(str), ordered=True))
    family = hl.families.Ordinal(link=ref["link"])
    means = (
        hl.TwoLevelModel.from_formula(ref["formula"], table, family=family)
        .fit_ml()
        .marginal_means("treat", at={"time": 1})
    )
    ours = means.table.sort_values(["rating", "treat"])
    theirs = pd.DataFrame(ref["means"])
    assert list(ours["rating"].astype(str)) == list(theirs["rating"])
    np.testing.assert_allclose(ours["estimate"], theirs["prob"], rtol=1e-5)
    np.testing.assert_allclose(ours["se"], theirs["SE"], rtol=1e-4)
    pairs, expected = means.contrasts().table, pd.DataFrame(ref["pairs"])
    np.testing.assert_allclose(pairs["estimate"], expected["estimate"], atol=1e-6)
    for own, column in (("se", "SE"), ("t", "z.ratio"), ("lower", "asymp.LCL"), ("p", "p.value")):
        np.testing.assert_allclose(pairs[own], expected[column], rtol=1e-4, atol=1e-6)


def test_gee_has_means_over_subjects():
    fit = hl.TwoLevelModel.from_formula("binary ~ time + treat + (1 | group)", data(), family="bernoulli").fit_gee()
    means = fit.marginal_means("treat", at={"time": 0})
    predicted = fit.predict(pd.DataFrame({"time": [0, 0], "treat": ["a", "b"]}), interval="confidence")
    for column in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(means.table[column], predicted[column], rtol=1e-7)
    assert "mean over subjects (no random effects)" in repr(means)
    ratio = fit.contrasts("treat", "trt.vs.ctrl").table.iloc[0]
    assert ratio["estimate"] == pytest.approx(np.exp(fit.beta["treat[T.b]"]), rel=1e-10)
    assert "times that of a Bernoulli response" in fit.interpret().text.replace("\n  ", " ")
