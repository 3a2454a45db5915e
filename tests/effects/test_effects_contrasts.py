"""Marginal means, contrasts, slopes and hypotheses: against emmeans, closed forms and the draws themselves."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from references import references_of
from scipy import stats

import hierlmm as hl
from hierlmm.effects.anova import term_rows
from hierlmm.effects.judge import adjusted_p, adjusted_quantiles
from hierlmm.effects.parse import parse_hypotheses
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.quantiles import largest_t_quantile, largest_t_sf
from hierlmm.text import table_lines

EFFECTS = references_of("effects")
METHODS = {"satterthwaite": "satterthwaite", "kenward_roger": "kenward-roger"}
RATS = "weight ~ treatment * sex + lsize + (1 | litter)"
DENTAL = "distance ~ sex * time + (1 + time | subject)"
AT = {"time": [0, 6]}


@cache
def frozen(name):
    return json.loads((EFFECTS / f"{name}.json").read_text())


@cache
def fitted(name):
    formula = {"dental": DENTAL, "petri": "y ~ group + (1 | dish)", "rat_pups": RATS}.get(name.split("_reml")[0])
    if name.startswith("dental"):
        formula = formula or DENTAL.replace("|", "||" if "diagonal" in name else "|")
        model = hl.TwoLevelModel.from_formula(formula, hl.load_dataset("dental"))
        return model.fit_ml() if name.endswith("_ml") else model.fit_reml()
    if name.startswith("sleepstudy"):
        formula = "reaction ~ days + I(days ** 2) + (1 + days | subject)"
        return hl.TwoLevelModel.from_formula(formula, hl.load_dataset("sleepstudy")).fit_reml()
    return hl.TwoLevelModel.from_formula(formula, hl.load_dataset(name.removesuffix("_reml"))).fit_reml()


def agree(effects, rows, *, p_rtol=1e-5, p_atol=0.0):
    """Compare a table with emmeans' rows, in emmeans' order (its first factor changes fastest)."""
    theirs, ours = pd.DataFrame(rows), effects.table
    assert len(ours) == len(theirs)
    estimate = next(c for c in theirs.columns if c in ("estimate", "emmean") or c.endswith(".trend"))
    np.testing.assert_allclose(ours["estimate"], theirs[estimate].astype(float), rtol=1e-7)
    np.testing.assert_allclose(ours["se"], theirs["SE"], rtol=1e-7)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=2e-7)
    scale = theirs["SE"].max()
    for side in ("lower", "upper"):
        np.testing.assert_allclose(ours[side], theirs[f"{side}.CL"], rtol=1e-6, atol=2e-6 * scale)
    if "p" in ours:
        np.testing.assert_allclose(ours["t"], theirs["t.ratio"], rtol=1e-6)
        np.testing.assert_allclose(ours["p"], theirs["p.value"], rtol=p_rtol, atol=p_atol)


@pytest.mark.parametrize("name", ["dental_reml", "dental_ml", "dental_diagonal_reml"])
@pytest.mark.parametrize("method", METHODS)
def test_dental_means_contrasts_and_slopes_are_emmeans(name, method):
    ref, fit, df = frozen(name), fitted(name), METHODS[method]
    if method not in ref["means"]:
        assert name == "dental_ml"
        return
    agree(fit.marginal_means("sex", by="time", at=AT, df=df), ref["means"][method])
    agree(fit.marginal_means("sex", df=df), ref["means_overall"][method])
    agree(fit.contrasts("sex", by="time", at=AT, df=df), ref["pairs"][method])
    agree(fit.slopes("time", by="sex", df=df), ref["slopes"][method])
    agree(fit.slopes("time", by="sex", df=df).contrasts(), ref["slopes_pairs"][method])
    # Tukey for all six pairs of cells; emmeans orders the cells with sex fastest.
    cells = fit.contrasts(["time", "sex"], at=AT, df=df)
    agree(cells, ref["cells_tukey"][method], p_rtol=1e-4, p_atol=1e-10)
    assert cells.adjust == "tukey" and "all pairs of 4" in repr(cells)


@pytest.mark.parametrize("method", METHODS)
def test_petri_with_every_correction(method):
    ref, fit, df = frozen("petri_reml"), fitted("petri_reml"), METHODS[method]
    agree(fit.marginal_means("group", df=df), ref["means"][method])
    for adjust in ("tukey", "holm", "bonferroni", "sidak", "none", "fdr"):
        # emmeans computes 1 - (1 - p)^m and 1 - ptukey-like tails with rounding errors of 1e-13.
        agree(fit.contrasts("group", adjust=adjust, df=df), ref[f"pairs_{adjust}"][method], p_rtol=1e-4, p_atol=1e-12)
    agree(fit.contrasts("group", "trt.vs.ctrl", adjust="none", df=df), ref["control_none"][method])
    agree(fit.contrasts("group", "consecutive", adjust="none", df=df), ref["consecutive_none"][method])
    weights = {"treated - control": [-1, 0.5, 0.5]}
    agree(fit.contrasts("group", weights, df=df), ref["custom"][method])
    by_label = {"treated - control": {"A": 0.5, "Control": -1, "B": 0.5}}
    agree(fit.contrasts("group", by_label, df=df), ref["custom"][method])


@pytest.mark.parametrize("method", METHODS)
def test_rat_pups_with_weights_families_and_a_covariate(method):
    ref, fit, df = frozen("rat_pups_reml"), fitted("rat_pups_reml"), METHODS[method]
    agree(fit.marginal_means("treatment", df=df), ref["means_equal"][method])
    agree(fit.marginal_means("treatment", weights="proportional", df=df), ref["means_proportional"][method])
    agree(fit.marginal_means("treatment", by="sex", at={"lsize": 10}, df=df), ref["means_by"][method])
    agree(fit.contrasts("treatment", df=df), ref["pairs"][method], p_rtol=1e-4)
    agree(fit.contrasts("treatment", by="sex", df=df), ref["pairs_by"][method], p_rtol=1e-4)
    agree(fit.contrasts("treatment", by="sex", adjust="holm", df=df), ref["pairs_by_holm"][method])
    agree(fit.contrasts("treatment", "trt.vs.ctrl", by="sex", adjust="none", df=df), ref["control_by"][method])


@pytest.mark.parametrize("method", METHODS)
def test_slopes_of_a_curve(method):
    ref = frozen("sleepstudy_quadratic_reml")["slopes"][method]
    effects = fitted("sleepstudy_quadratic_reml").slopes("days", at={"days": [0, 4.5, 9]}, df=METHODS[method])
    theirs = pd.DataFrame(ref)
    # emtrends takes a forward difference with a step of 1e-6: 1e-6 of the curvature.
    np.testing.assert_allclose(effects.table["estimate"], theirs["days.trend"], rtol=1e-5)
    np.testing.assert_allclose(effects.table["se"], theirs["SE"], rtol=1e-5)
    np.testing.assert_allclose(effects.table["df"], theirs["df"], rtol=1e-4)
    expected = [[0.0, 1.0, 2 * d] for d in (0, 4.5, 9)]
    np.testing.assert_allclose(effects.L, expected, atol=1e-9)


def test_largest_t_is_mvtnorms():
    ref = frozen("petri_reml")
    half = np.array([[1.0, 0.5], [0.5, 1.0]])
    four = np.array([[1, 0.3, 0.2, 0.1], [0.3, 1, 0.4, -0.2], [0.2, 0.4, 1, 0.5], [0.1, -0.2, 0.5, 1]])
    for case in ref["mvt"]:
        np.testing.assert_allclose(largest_t_sf(case["t"], case["df"], half), case["p"], rtol=1e-6, atol=2e-9)
    for case in ref["mvt4"]:
        np.testing.assert_allclose(largest_t_sf(case["t"], case["df"], four), case["p"], rtol=5e-5)
    quantile = ref["mvt_quantile"]
    np.testing.assert_allclose(largest_t_quantile(0.95, 27, half), quantile["value"], rtol=2e-4)  # qmvt stops early
    np.testing.assert_allclose(largest_t_sf(largest_t_quantile(0.95, 27, half), 27, half), 0.05, rtol=1e-8)


def test_largest_t_in_closed_forms():
    for m in (2, 3, 5):  # independent normals
        expected = 1 - (1 - 2 * stats.norm.sf(2.2)) ** m
        np.testing.assert_allclose(largest_t_sf(2.2, np.inf, np.eye(m)), expected, rtol=2e-4 if m > 2 else 1e-6)
    same = np.ones((3, 3))  # one and the same statistic
    np.testing.assert_allclose(largest_t_sf(2.0, 9, same), 2 * stats.t.sf(2.0, 9), rtol=1e-12)
    np.testing.assert_allclose(largest_t_quantile(0.9, 9, same), stats.t.ppf(0.95, 9), rtol=1e-12)
    # Pairwise differences of k equal means: the studentised range, whose correlations are singular.
    for k, rtol in ((3, 1e-6), (4, 2e-4)):
        C = np.array([np.eye(k)[i] - np.eye(k)[j] for i in range(k) for j in range(i + 1, k)])
        corr = C @ C.T / 2
        for t in (1.5, 3.0, 8.0):  # in the far tail the relative error stays
            exact = stats.studentized_range.sf(np.sqrt(2) * t, k, 27)
            np.testing.assert_allclose(largest_t_sf(t, 27, corr), exact, rtol=rtol, atol=1e-12)
    # A mixture of independent normals with a common scale, integrated numerically.
    s, w = np.linspace(1e-4, 4, 20001), None
    w = stats.chi.pdf(s * np.sqrt(6), 6) * np.sqrt(6)
    inside = np.trapezoid((1 - 2 * stats.norm.sf(2.5 * s)) ** 4 * w, s)
    np.testing.assert_allclose(largest_t_sf(2.5, 6, np.eye(4)), 1 - inside, rtol=2e-4)


def test_quantiles_and_p_values_tell_the_same_story():
    """At the edge of the interval p is 1 - ci, for every correction that has both."""
    corr = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]])
    df = np.array([8.0, 8.0, 20.0])
    for adjust in ("none", "bonferroni", "sidak", "tukey", "mvt"):
        edge = adjusted_quantiles(df, 0.9, adjust, 3, corr)
        np.testing.assert_allclose(adjusted_p(edge, df, adjust, 3, corr), 0.1, rtol=1e-4)
    raw = adjusted_p(np.array([3.0, -2.0, 0.5]), df, "none", 3, corr)
    for adjust in ("bonferroni", "sidak", "tukey", "mvt", "holm", "fdr"):
        assert np.all(adjusted_p(np.array([3.0, -2.0, 0.5]), df, adjust, 3, corr) >= raw)


def test_dunnett_for_a_control_is_less_strict_than_bonferroni():
    fit = fitted("petri_reml")
    effects = fit.contrasts("group", "trt.vs.ctrl")
    assert effects.adjust == "mvt"
    half = {a: fit.contrasts("group", "trt.vs.ctrl", adjust=a).table["upper"] for a in ("none", "mvt", "bonferroni")}
    assert (half["none"] < half["mvt"]).all() and (half["mvt"] < half["bonferroni"]).all()
    width = (effects.table["upper"] - effects.table["estimate"]) / effects.table["se"]
    np.testing.assert_allclose(width, largest_t_quantile(0.95, 27, np.array([[1.0, 0.5], [0.5, 1.0]])), rtol=1e-7)
    other = fit.contrasts("group", "trt.vs.ctrl", reference="B").table
    assert list(other["contrast"]) == ["Control - B", "A - B"]


def test_means_are_predictions_of_the_population():
    fit, rows = fitted("dental_reml"), pd.DataFrame({"sex": ["Female", "Male"] * 2, "time": [0, 0, 6, 6]})
    means = fit.marginal_means("sex", by="time", at=AT, df="normal", ci=0.9)
    predicted = fit.predict(rows, level="population")
    np.testing.assert_allclose(means.table["estimate"], predicted["estimate"], rtol=1e-12)
    overall = fit.marginal_means().table
    np.testing.assert_allclose(overall["estimate"], predicted["estimate"].mean(), rtol=1e-12)


def test_proportional_weights_are_those_of_the_rows():
    fit, data = fitted("rat_pups_reml"), hl.load_dataset("rat_pups")
    share = data["sex"].value_counts(normalize=True)
    by_sex = fit.marginal_means("treatment", by="sex").table.set_index(["sex", "treatment"])["estimate"]
    expected = sum(share[s] * by_sex[s] for s in share.index)
    ours = fit.marginal_means("treatment", weights="proportional").table.set_index("treatment")["estimate"]
    pd.testing.assert_series_equal(ours, expected, check_names=False, check_index_type=False)


def test_combinations_that_do_not_occur_have_no_proportional_weight():
    """Two factors averaged over, one of whose six combinations is absent: L by hand from the counts."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "f": list("abcc" * 30), "g": list("uuvu" * 30)})
    data["f"] = np.where((data["s"] % 5 == 0) & (data["f"] == "a"), "b", data["f"])
    data["z"] = np.where(data["s"] % 2, "one", "two")
    data["y"] = rng.normal(size=30)[data["s"]] + rng.normal(size=120)
    counts = data.groupby(["f", "g"]).size()
    assert len(counts) == 4  # of six: nothing is (a, v) or (b, v)
    fit = hl.TwoLevelModel.from_formula("y ~ z + f + g + (1 | s)", data).fit_reml()
    means = fit.marginal_means("z", weights="proportional")
    share = {f"{v}[T.{level}]": (data[v] == level).mean() for v, level in (("f", "b"), ("f", "c"), ("g", "v"))}
    for row, z in zip(means.L, means.table["z"], strict=True):
        expected = [share.get(c, 1.0 if c == "Intercept" else float(c == f"z[T.{z}]")) for c in fit.design.coef]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-15)


def test_offsets_truth_values_and_labels_of_numbers(dental):
    data = dental.assign(off=2.0 * dental["time"], male=dental["sex"] == "Male")
    fit = hl.TwoLevelModel.from_formula("distance ~ male * time + offset(off) + (1 | subject)", data).fit_reml()
    beta = fit.beta
    means = fit.marginal_means("male", at={"time": 0, "off": [0, 10]}).table
    assert list(means["male"]) == [False, True]
    np.testing.assert_allclose(
        means["estimate"], [beta["Intercept"] + 5, beta[["Intercept", "male[T.True]"]].sum() + 5]
    )
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + sex + C(time) + (1 | subject)", dental).fit_reml()
    means = fit.marginal_means("time").table
    assert list(means["time"]) == [0, 2, 4, 6]
    np.testing.assert_allclose(np.diff(means["estimate"])[0], fit.beta["C(time)[T.2]"], rtol=1e-12)


def test_terms_are_tested_whatever_the_coding(dental):
    """The test of a main effect at equal weights does not depend on the reference or on the intercept."""
    tests = []
    for data in (dental, dental.assign(sex=dental["sex"].cat.reorder_categories(["Male", "Female"]))):
        for formula in ("distance ~ sex * C(time) + (1 | subject)", "distance ~ C(time) * sex + (1 | subject)"):
            tests.append(hl.TwoLevelModel.from_formula(formula, data).fit_reml().anova().loc[["sex", "C(time)"], "F"])
    for test in tests[1:]:
        np.testing.assert_allclose(test, tests[0], rtol=1e-6)
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * C(time) + (1 | subject)", dental).fit_reml()
    pair = fit.contrasts("sex").table.iloc[0]
    np.testing.assert_allclose(fit.anova().loc["sex", "F"], pair["t"] ** 2, rtol=1e-8)
    without = hl.TwoLevelModel.from_formula("distance ~ 0 + sex + C(time) + (1 | subject)", dental).fit_reml()
    plain = hl.TwoLevelModel.from_formula("distance ~ sex + C(time) + (1 | subject)", dental).fit_reml()
    np.testing.assert_allclose(without.anova().loc["C(time)"], plain.anova().loc["C(time)"], rtol=1e-6)


def test_factors_coded_in_full_hold_the_terms_that_they_contain(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + time + C(sex, contr.sum) + (1 | subject)", dental).fit_reml()
    same = hl.TwoLevelModel.from_formula("distance ~ time + sex + (1 | subject)", dental).fit_reml()
    np.testing.assert_allclose(fit.anova().loc["time"], same.anova().loc["time"], rtol=1e-6)
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + time + time:sex + (1 | subject)", dental).fit_reml()
    assert list(fit.anova().index) == ["time", "time:sex"]


def test_a_term_without_one_that_it_contains_is_not_tested(dental_design):
    alone = replace(dental_design, terms=replace(dental_design.terms, fixed=dental_design.fixed_columns[3:]))
    assert alone.fixed_columns[0].name == "sex[T.Male]:time"
    with pytest.raises(SpecificationError, match="without 'time', which it contains"):
        term_rows(alone)


# --- hypotheses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "weights", "sign", "value"),
    [
        ("sex[T.Male]:time = 0", [0, 0, 0, 1], "=", 0),
        ("time:sex[T.Male] = 0", [0, 0, 0, 1], "=", 0),  # the factors of an interaction in any order
        ("2*time - sex[T.Male]/2 == .5e0", [0, -0.5, 2, 0], "=", 0.5),
        ("time = sex[T.Male]", [0, -1, 1, 0], "=", 0),
        ("-(time - 2) + Intercept * 3 > 1 + 1", [3, 0, -1, 0], ">", 0),
        ("0.5 >= time", [0, 0, -1, 0], ">", -0.5),
        ("  time+6*sex[T.Male]:time<1e1", [0, 0, 1, 6], "<", 10),
        ("2 * (time + sex[T.Male]) / 4 = 0", [0, 0.5, 0.5, 0], "=", 0),
    ],
)
def test_hypotheses_are_read(dental_design, text, weights, sign, value):
    (found,) = parse_hypotheses(text, dental_design)
    np.testing.assert_allclose(found.weights, weights, atol=1e-15)
    assert (found.sign, found.value) == (sign, pytest.approx(value))


def test_names_with_signs_and_commas_are_read_whole(dental):
    data = dental.rename(columns={"time": "time - 2"})
    formula = "distance ~ C(sex, contr.treatment('Male')) * I(`time - 2` ** 2) + `time - 2` + (1 | subject)"
    design = hl.TwoLevelModel.from_formula(formula, data).fit_reml().design
    for i, name in enumerate(design.coef):
        (found,) = parse_hypotheses(f"{name} = 1", design)
        np.testing.assert_array_equal(found.weights, np.eye(len(design.coef))[i])


def test_chains_lists_and_commas_are_several(dental_design):
    both = parse_hypotheses("time = 0, sex[T.Male] = 0", dental_design)
    chain = parse_hypotheses("time = sex[T.Male] = 0", dental_design)
    assert [len(both), len(chain), len(parse_hypotheses(["time = 0", "Intercept = 1"], dental_design))] == [2, 2, 2]
    np.testing.assert_array_equal(chain[0].weights, [0, -1, 1, 0])
    np.testing.assert_array_equal(chain[1].weights, [0, 1, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sex = 0", "no coefficient of this model"),
        ("time2 = 0", "Did you mean 'time'"),
        ("time", "compares nothing"),
        ("time * time = 0", "not linear"),
        ("1 / time = 0", "not linear"),
        ("time = time", "no coefficient is left"),
        ("(time = 0", "not closed"),
        ("time = 0,", "ends too early"),
        ("time / 0 = 1", "divides by zero"),
        ("time ) = 0", "cannot stand there"),
        ("* time = 0", "cannot stand there"),
        ("time 2 = 0", "cannot stand there"),
        (3, "text or a list of names is needed"),
        ([], "nothing to test"),
    ],
)
def test_what_is_no_hypothesis_is_refused(text, message):
    with pytest.raises(SpecificationError, match=message):
        fitted("dental_reml").hypothesis([text] if text == 3 else text)


def test_hypotheses_of_a_likelihood_fit():
    fit, ref = fitted("dental_reml"), frozen("dental_reml")
    one = fit.hypothesis("sex[T.Male]:time = 0")
    table = fit.summary(df="satterthwaite").loc["sex[T.Male]:time"]
    pd.testing.assert_series_equal(one.table.iloc[0][table.index], table, check_names=False, check_dtype=False)
    assert one.joint is None
    for method, df in METHODS.items():
        both = fit.hypothesis(["sex[T.Male] = 0.5", "time + sex[T.Male]:time = 0.7"], df=df)
        np.testing.assert_allclose(both.joint.F, ref["joint_value"][method]["F"], rtol=1e-7)
        np.testing.assert_allclose(both.joint.p, ref["joint_value"][method]["p"], rtol=1e-6)
        np.testing.assert_allclose(both.table["estimate"], fit.beta.to_numpy() @ both.L.T - [0.5, 0.7], rtol=1e-12)
    up, down = fit.hypothesis("time > 0.4").table.iloc[0], fit.hypothesis("time < 0.4").table.iloc[0]
    np.testing.assert_allclose(up["p"], stats.t.sf(up["t"], up["df"]), rtol=1e-12)
    np.testing.assert_allclose(up["p"] + down["p"], 1.0, rtol=1e-12)
    assert "one-sided" in repr(fit.hypothesis("time > 0.4"))
    with pytest.raises(SpecificationError, match="contradicts"):
        fit.hypothesis("time = 0, time = 1")


# --- posteriors and GEE ----------------------------------------------------------------------------------------------


def test_posterior_effects_are_those_of_the_draws(dental_posterior):
    fit = dental_posterior
    beta = fit.draws("beta").reshape(-1, 4)
    effects = fit.contrasts("sex", by="time", at=AT, rope=(-2, 0.5), ci=0.9)
    draws = np.column_stack([-beta[:, 1], -beta[:, 1] - 6 * beta[:, 3]])
    np.testing.assert_allclose(effects.draws, draws, rtol=1e-9, atol=1e-12)
    table = effects.table
    np.testing.assert_allclose(table["estimate"], draws.mean(0), rtol=1e-9)
    np.testing.assert_allclose(table["se"], draws.std(0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(table[["lower", "upper"]].T, np.quantile(draws, [0.05, 0.95], axis=0), rtol=1e-9)
    np.testing.assert_array_equal(table["prob_positive"], (draws > 0).mean(0))
    np.testing.assert_array_equal(table["prob_rope"], ((draws > -2) & (draws < 0.5)).mean(0))
    assert "p" not in table and "df" not in table
    slopes = fit.slopes("time", by="sex").table
    np.testing.assert_allclose(slopes["estimate"], [beta[:, 2].mean(), (beta[:, 2] + beta[:, 3]).mean()], rtol=1e-9)


def test_posterior_agrees_with_reml(dental_posterior):
    reml, bayes = fitted("dental_reml"), dental_posterior
    a, b = (f.contrasts("sex", by="time", at=AT).table for f in (reml, bayes))
    np.testing.assert_allclose(a["estimate"], b["estimate"], atol=0.1 * a["se"].max())


def test_simultaneous_intervals_hold_together(dental_posterior):
    effects = dental_posterior.contrasts(["sex", "time"], at=AT, simultaneous=True)
    table, draws = effects.table, effects.draws
    inside = np.all((draws >= table["lower"].to_numpy()) & (draws <= table["upper"].to_numpy()), axis=1)
    assert abs(inside.mean() - 0.95) <= 1 / len(draws)
    alone = dental_posterior.contrasts(["sex", "time"], at=AT)
    assert (alone.table["upper"] < table["upper"]).all()
    assert "no correction is applied" in repr(alone) and "sup-t" in repr(effects)


def test_posterior_hypotheses(dental_posterior):
    beta = dental_posterior.draws("beta").reshape(-1, 4)
    both = dental_posterior.hypothesis("time > 0.5, sex[T.Male] < 1")
    holds = np.column_stack([beta[:, 2] > 0.5, beta[:, 1] < 1])
    np.testing.assert_array_equal(both.table["prob"], holds.mean(0))
    assert both.probability == holds.all(1).mean() and both.joint is None
    near = dental_posterior.hypothesis("time = 0.5", rope=0.1).table.iloc[0]
    assert near["prob"] == (beta[:, 2] > 0.5).mean()
    assert near["prob_rope"] == (np.abs(beta[:, 2] - 0.5) < 0.1).mean()
    centre = beta.mean(0)
    at_mean = dental_posterior.hypothesis(
        [f"time = {centre[2]!r}".replace("np.float64(", "").rstrip(")"), "Intercept > 0"]
    )
    assert at_mean.probability is None
    inner = dental_posterior.hypothesis([f"time = {centre[2]:.12f}", f"sex[T.Male] = {centre[1]:.12f}"])
    outer = dental_posterior.hypothesis(["time = 0", "sex[T.Male]:time = 0"])
    assert inner.probability > 0.999 and outer.probability < 0.002


def test_gee_has_normal_quantiles(dental):
    gee = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_gee()
    effects = gee.contrasts("sex", by="time", at=AT)
    row, cov = effects.L[1], gee.beta_cov.to_numpy()
    np.testing.assert_allclose(effects.table["se"].iloc[1], np.sqrt(row @ cov @ row), rtol=1e-12)
    half = (effects.table["upper"] - effects.table["estimate"]) / effects.table["se"]
    np.testing.assert_allclose(half, stats.norm.ppf(0.975), rtol=1e-12)
    test = gee.hypothesis("sex[T.Male] = 0, sex[T.Male]:time = 0").joint
    np.testing.assert_allclose(test.p, stats.chi2.sf(2 * test.F, 2), rtol=1e-12)
    assert "marginal mean" in effects.level
    with pytest.raises(NotAvailableError, match="without degrees of freedom"):
        gee.contrasts("sex", df="satterthwaite")


# --- refusals, frozenness, display -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.marginal_means("sexx"), "Did you mean 'sex'"),
        (lambda f: f.marginal_means("sex", at={"tme": 1}), "Did you mean 'time'"),
        (lambda f: f.marginal_means("sex", at={"sex": "Mal"}), "Did you mean 'Male'"),
        (lambda f: f.marginal_means("sex", at={"time": ["a"]}), "is a number"),
        (lambda f: f.marginal_means("sex", at={"time": np.inf}), "is a number"),
        (lambda f: f.marginal_means("sex", at={"time": []}), "no value is left"),
        (lambda f: f.marginal_means("sex", by="sex"), "both as what is asked"),
        (lambda f: f.marginal_means("sex", weights="cells"), "not one of the choices"),
        (lambda f: f.marginal_means("sex", ci=95), "between 0 and 1"),
        (lambda f: f.marginal_means("sex", adjust="tukey"), "another family"),
        (lambda f: f.marginal_means("time", at={"time": range(200_001)}), "more than 200000 rows"),
        (lambda f: f.contrasts("time"), "nothing to compare"),
        (lambda f: f.contrasts("sex", "all"), "not one of the choices"),
        (lambda f: f.contrasts("sex", reference="Male"), "only comparisons with a control"),
        (lambda f: f.contrasts("sex", "trt.vs.ctrl", reference="Mail"), "Did you mean 'Male'"),
        (lambda f: f.contrasts("sex", {"a": [1, -1, 0]}), "there are 2 rows"),
        (lambda f: f.contrasts("sex", {"a": [0, 0]}), "all zero"),
        (lambda f: f.contrasts("sex", {}), "no contrast is named"),
        (lambda f: f.contrasts("sex", "consecutive", adjust="tukey"), "another family"),
        (lambda f: f.contrasts("sex", adjust="scheffe"), "not one of the choices"),
        (lambda f: f.contrasts("sex").contrasts(), "contrasts of contrasts"),
        (lambda f: f.slopes("sex"), "is a factor"),
        (lambda f: f.slopes("tme"), "Did you mean 'time'"),
        (lambda f: f.contrasts("sex", simultaneous=True), "no posterior"),
        (lambda f: f.contrasts("sex", rope=1), "no posterior"),
        (lambda f: f.contrasts("sex").draws, "draws of a fit by REML"),
    ],
)
def test_what_cannot_be_had_is_refused(call, message):
    with pytest.raises((SpecificationError, NotAvailableError), match=message):
        call(fitted("dental_reml"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.contrasts("sex", adjust="holm"), "no p-values"),
        (lambda f: f.contrasts("sex", df="satterthwaite"), "quantiles of draws"),
        (lambda f: f.contrasts("sex", rope=(1, 0)), "region is empty"),
        (lambda f: f.anova(), "no F test"),
    ],
)
def test_what_a_posterior_has_not_is_refused(dental_posterior, call, message):
    with pytest.raises((SpecificationError, NotAvailableError), match=message):
        call(dental_posterior)


@pytest.mark.parametrize("formula", ["distance ~ time + I(time > 3)", "distance ~ time + np.maximum(time - 3, 0)"])
def test_no_slope_at_a_jump_or_a_kink(dental, formula):
    fit = hl.TwoLevelModel.from_formula(f"{formula} + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="jump or a kink"):
        fit.slopes("time", at={"time": 3})
    beside = fit.slopes("time", at={"time": [2.5]}).table["estimate"].iloc[0]
    np.testing.assert_allclose(beside, fit.beta["time"], rtol=1e-8)


def test_weights_that_are_no_contrast_are_said():
    assert "no comparisons" in repr(fitted("petri_reml").contrasts("group", {"mean of A and B": [0, 0.5, 0.5]}))


def test_effects_are_frozen():
    fit = fitted("rat_pups_reml")
    effects, test = fit.contrasts("treatment", by="sex"), fit.hypothesis("lsize = 0, Intercept = 8")
    for made in (effects, test):
        before, answer = made.table, made.table
        answer.loc[:, "estimate"] = 0.0
        pd.testing.assert_frame_equal(made.table, before)
        with pytest.raises(ValueError, match="read-only"):
            made.L[...] = 0.0
        again = pickle.loads(pickle.dumps(made))
        pd.testing.assert_frame_equal(again.table, before)
        with pytest.raises(AttributeError):
            made.L = None
        with pytest.raises(ValueError, match="read-only"):
            again.L[...] = 0.0


def test_tables_say_how_they_were_made():
    fit = fitted("rat_pups_reml")
    text = repr(fit.contrasts("treatment", by="sex", adjust="holm", df="kenward-roger"))
    for words in ("Kenward and Roger", "Holm's method", "Bonferroni's method", "within each sex", "lsize = 13.3292"):
        assert words in text
    assert "population line" in text and "marginal mean" in text
    proportional = repr(fit.marginal_means("treatment", weights="proportional"))
    assert "Averaged over sex with proportional weights" in proportional
    page = fit.contrasts("treatment")._repr_html_()
    assert "<table" in page and "Tukey" in page
    html = hl.TwoLevelModel.from_formula(
        "y ~ g + (1 | dish)",
        hl.load_dataset("petri").assign(g=lambda d: d["group"].cat.rename_categories({"A": "<b>A</b>"})),
    )
    assert "<b>A" not in html.fit_reml().contrasts("g")._repr_html_()
    assert "<table" in fit.hypothesis("lsize = 0")._repr_html_()


@pytest.mark.parametrize("backend", ["none", "matplotlib", "bokeh", "plotly"])
def test_plots(backend):
    import matplotlib.pyplot as plt

    fit = fitted("rat_pups_reml")
    effects = fit.contrasts("treatment", by="sex")
    collection = effects.plot(backend=backend)
    assert list(collection.viz["plot"].coords["family"].to_numpy()) == ["sex = Male", "sex = Female"]
    fit.marginal_means("treatment").plot(backend=backend)
    if backend == "matplotlib":
        ax = collection.get_target("effects", {"family": "sex = Male"})
        assert [t.get_text() for t in ax.get_yticklabels()] == ["Control - Low", "Control - High", "Low - High"]
        drawn = np.asarray(ax.collections[-1].get_offsets())
        np.testing.assert_allclose(drawn[:, 0], effects.table["estimate"].iloc[:3])
        np.testing.assert_allclose(drawn[:, 1], [3, 2, 1])
        segments = np.column_stack(ax.lines[0].get_data())
        np.testing.assert_allclose(segments[[0, 1]][:, 0], effects.table[["lower", "upper"]].iloc[0])
        plt.close("all")


# --- nothing left to test, names, backticks --------------------------------------------------------------------------


@cache
def additive():
    return hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 | subject)", hl.load_dataset("dental")).fit_reml()


@pytest.mark.parametrize("estimator", ["reml", "gee"])
def test_a_difference_of_zero_has_no_test(dental, estimator):
    model = hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 | subject)", dental)
    fit = additive() if estimator == "reml" else model.fit_gee()
    for slopes in (fit.slopes("time", by="sex"), fit.slopes("time", at={"time": [0, 6]})):
        found = slopes.contrasts()
        row = found.table.iloc[0]
        assert row["estimate"] == row["se"] == row["lower"] == row["upper"] == 0.0
        assert row[["df", "t", "p"]].isna().all()
        assert "no coefficient is left" in repr(found) and "no row is tested" in repr(found)


def test_a_difference_of_zero_has_no_probability(dental_posterior):
    found = dental_posterior.slopes("time", at={"time": [0, 6]}).contrasts(rope=1).table.iloc[0]
    assert found["estimate"] == found["se"] == 0.0
    assert found[["prob_positive", "prob_rope"]].isna().all()


def test_a_slope_that_is_known_has_no_test(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex + time + offset(0.1 * age) + (1 | subject)", dental).fit_reml()
    row = fit.slopes("age").table.iloc[0]
    np.testing.assert_allclose(row["estimate"], 0.1, rtol=1e-9)
    assert row["se"] == 0.0 and row[["t", "p"]].isna().all()


@pytest.mark.parametrize("adjust", ["tukey", "bonferroni", "holm", "sidak", "mvt", "fdr"])
def test_differences_of_zero_do_not_count_in_their_family(dental, adjust):
    """Before its first knot the curve is a line: three slopes, two of them equal, leave two equal comparisons."""
    fit = hl.TwoLevelModel.from_formula("distance ~ ns(time, 2) + (1 | subject)", dental).fit_reml()
    with pytest.warns(hl.FitWarning, match="extrapolated"):
        slopes = fit.slopes("time", at={"time": [-2, -1, 3]})
    found = slopes.contrasts(adjust=adjust).table
    assert found["t"].isna().tolist() == [True, False, False]
    plain = slopes.contrasts(adjust="none").table
    known = ~plain["t"].isna()
    if adjust in ("tukey", "mvt", "holm", "fdr"):  # Holm and fdr of two equal p-values: 2p and p
        factor = 2.0 if adjust == "holm" else 1.0
        np.testing.assert_allclose(found["p"][known], factor * plain["p"][known].clip(upper=1 / factor), rtol=1e-5)
    else:
        p = plain["p"][known]
        expected = np.minimum(1.0, 2 * p) if adjust == "bonferroni" else 1 - (1 - p) ** 2
        np.testing.assert_allclose(found["p"][known], expected, rtol=1e-9)


def test_small_differences_are_no_rounding():
    table = additive().contrasts("time", at={"time": [3, 3.00001]}).table.iloc[0]
    unit = additive().slopes("time").table.iloc[0]
    np.testing.assert_allclose(table["t"], -unit["t"], rtol=1e-6)


NAMES = ("t", "se", "estimate", "contrast", "slope")


@pytest.mark.parametrize("name", NAMES)
def test_covariates_named_like_a_result_stand_aside(dental, name):
    """Numbers are those of the same model with a plain name, in every table that can hold the covariate."""
    fit, plain = (
        hl.TwoLevelModel.from_formula(f"distance ~ sex * {v} + (1 | subject)", dental.rename(columns={"time": v}))
        for v in (name, "time")
    )
    fit, plain = fit.fit_reml(), plain.fit_reml()
    for ask in (
        lambda f, v: f.contrasts("sex", by=v, at={v: [0, 3, 6]}),
        lambda f, v: f.slopes(v, by="sex"),
        lambda f, v: f.slopes(v, at={v: [0, 1]}),
        lambda f, v: f.marginal_means(["sex", v], at={v: [0, 1]}),
        lambda f, v: f.contrasts(["sex", v], at={v: [0, 1]}),
    ):
        ours, theirs = ask(fit, name), ask(plain, "time")
        assert ours.table.columns.is_unique and ours.by == tuple(name if v == "time" else v for v in theirs.by)
        shown = {f"at {name}": "time"} if f"at {name}" in ours.table else {name: "time"}
        columns = ours.table.rename(columns=shown) if "time" in theirs.table else ours.table
        columns = columns.replace(f"per unit of {name}", "per unit of time")
        pd.testing.assert_frame_equal(columns, theirs.table)
        assert len(repr(ours).splitlines()) == len(repr(theirs).splitlines())
        assert "<table" in ours._repr_html_()
        ours.plot(backend="none")
    titles = fit.contrasts("sex", by=name, at={name: [0, 6]}).plot(backend="none").viz["plot"].coords["family"]
    assert titles.to_numpy().tolist() == [f"{name} = 0", f"{name} = 6"]


def test_a_factor_named_contrast_keeps_its_levels(dental):
    data = dental.rename(columns={"sex": "contrast"})
    fit = hl.TwoLevelModel.from_formula("distance ~ contrast * time + (1 | subject)", data).fit_reml()
    table = fit.contrasts("time", by="contrast", at=AT).table
    assert table["at contrast"].tolist() == ["Female", "Male"] and table["contrast"].tolist() == ["0 - 6"] * 2


def test_predictions_of_new_subjects_keep_a_time_called_estimate(dental):
    data = dental.rename(columns={"time": "estimate"})
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * estimate + (1 | subject)", data).fit_reml()
    found = fit.predict_subject(data[data["subject"] == data["subject"].iloc[0]].drop(columns="subject"), [7, 8])
    assert found.columns.tolist() == ["at estimate", "estimate"] and found["at estimate"].tolist() == [7, 8]
    assert found["estimate"].min() > 15


def test_names_in_backticks_are_the_names_in_them(dental):
    data = dental.rename(columns={"time": "my time"})
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * `my time` + (1 | subject)", data).fit_reml()
    for ask in (
        lambda v: fit.marginal_means("sex", by=v, at={v: [0, 1]}),
        lambda v: fit.marginal_means(v, at={v: [0, 1]}),
        lambda v: fit.contrasts("sex", by=v, at={v: [0, 1]}),
        lambda v: fit.slopes(v, by="sex"),
        lambda v: fit.effects(v, by="sex", at={v: [0, 1]}),
    ):
        pd.testing.assert_frame_equal(ask("`my time`").table, ask("my time").table)
    for text in ("sex[T.Male]:`my time` = 0", "`my time`:sex[T.Male] = 0", "2 * `my time` - 1 = 0"):
        np.testing.assert_array_equal(fit.hypothesis(text).L, fit.hypothesis(text.replace("`", "")).L)


def test_no_number_to_take_a_slope_of(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match=r"use fit\.marginal_means"):
        fit.slopes("time")


def test_plots_say_what_is_drawn():
    fit = additive()
    for effects, xlabel, title in (
        (fit.contrasts("time", at={"time": [0, 3, 6]}), "difference of distance", "95 % intervals (Tukey's method)"),
        (fit.contrasts("sex"), "difference of distance", "95 % intervals"),
        (fit.slopes("time"), "distance per unit of time", "95 % intervals"),
        (fit.slopes("time", by="sex").contrasts(), "difference of slopes of distance", "95 % intervals"),
        (fit.marginal_means("sex"), "distance", "95 % intervals"),
    ):
        assert (effects.xlabel, effects.intervals_text) == (xlabel, title)
        axes = effects.plot(backend="matplotlib").get_viz("figure").axes[0]
        assert axes.get_xlabel() == xlabel
        assert axes.figure._suptitle.get_text().replace("\n", " ").endswith(title)
    ranks = fit.rank_subjects(top=4).plot(backend="matplotlib").get_viz("figure").axes[0]
    assert "dashed: the first 4" in ranks.get_xlabel()


def test_numbers_of_a_table_as_text():
    table = pd.DataFrame(
        {
            "sex": ["F", "M"],
            "estimate": [12.34567, -0.5],
            "df": [np.inf, 24.96],
            "p": [1e-5, 0.05],
            "prob_positive": [1e-5, np.nan],
        }
    )
    assert [line.split() for line in table_lines(table, ["sex"])] == [
        ["sex", "estimate", "df", "p", "prob_positive"],
        ["F", "12.346", "inf", "<0.0001", "<0.0001"],
        ["M", "-0.500", "25.0", "0.0500"],
    ]


@pytest.mark.parametrize("level", [-1e6, -3.0, 0.0, 1e6])
def test_a_slope_where_another_covariate_is_far_below_zero(level):
    data = hl.load_dataset("dental").assign(z=lambda d: np.sin(np.arange(len(d))))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + z + (1 | subject)", data).fit_reml()
    found = fit.slopes("time", at={"z": level, "time": 1.0}).table
    np.testing.assert_allclose(found["estimate"], fit.beta["time"], rtol=1e-7)


@pytest.mark.parametrize("ci", [0.95, 0.5])
def test_intervals_of_posterior_hypotheses_are_quantiles_of_the_draws(dental_posterior, ci):
    table = dental_posterior.hypothesis(["time > 0.5", "2 * time = sex[T.Male]"], ci=ci).table
    beta = dental_posterior.draws("beta").reshape(-1, 4)
    names = list(dental_posterior.beta.index)
    time, male = (beta[:, names.index(name)] for name in ("time", "sex[T.Male]"))
    for row, draws in zip(table.itertuples(), (time - 0.5, 2.0 * time - male), strict=True):
        place = (len(draws) - 1) * np.array([0.5 - ci / 2, 0.5 + ci / 2])  # between the draws on both sides
        expected = np.interp(place, np.arange(len(draws)), np.sort(draws))
        np.testing.assert_allclose([row.lower, row.upper], expected, rtol=1e-10)


@pytest.mark.parametrize("sign", ["<=", ">=", "==", "<", ">", "="])
def test_blanks_around_a_sign_mean_nothing(sign, dental_design):
    (close,), (wide,) = (parse_hypotheses(f"time{s}10", dental_design) for s in (sign, f"  {sign}  "))
    assert (close.sign, close.value) == (wide.sign, wide.value) == (sign[0], 10.0)
    np.testing.assert_array_equal(close.weights, wide.weights)


def test_a_slope_of_terms_that_fall(dental):
    """The derivative of -t + t² is -1 for the one column and 2t for the other, also below zero."""
    data = dental.assign(t=dental["time"] - 3.0)
    fit = hl.TwoLevelModel.from_formula("distance ~ I(-t) + I(t**2) + (1 | subject)", data).fit_reml()
    falls, square = fit.beta.iloc[1:]
    found = fit.slopes("t", at={"t": [-2.0, -1.0, 0.0, 1.0]}).table["estimate"]
    np.testing.assert_allclose(found, -falls + 2.0 * square * np.array([-2.0, -1.0, 0.0, 1.0]), rtol=1e-7)
