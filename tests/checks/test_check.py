"""The page of checks: a planted fault is found by its check, clean data are left alone, numbers are as defined."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.checks.columns import collinearity
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome, judge
from hierlmm.checks.registry import CHECKS
from hierlmm.checks.rows import duplicates
from hierlmm.text import SLOT, templates

FORMULA = "y ~ t * arm + age + (t | id)"


def study(seed=6, n=50, rows=6, **faults):
    """Subjects with slopes; a fault is a function of the frame and the random generator that changes y."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), rows), "t": np.tile(np.arange(float(rows)), n)})
    frame["arm"] = np.where(frame["id"] % 2, "drug", "none")
    for name in ("age", "site"):
        frame[name] = rng.normal(50.0, 10.0, n)[frame["id"]]
    b = rng.multivariate_normal([0, 0], [[4.0, 0.0], [0.0, 0.3]], n)[frame["id"]]
    frame["error"] = rng.normal(size=len(frame))
    for fault in faults.values():
        fault(frame, rng)
    frame["y"] = frame.pop("error") + frame["t"] + b[:, 0] + b[:, 1] * frame["t"]
    return frame


def add(values):
    def fault(frame, rng):
        frame["error"] += values(frame)

    return fault


def at_one(row, size):
    return add(lambda frame: np.where(np.arange(len(frame)) == row, size, 0.0))


def pulled(frame, rng):
    frame.loc[frame["id"] == 7, "age"] = 110.0
    frame.loc[frame["id"] == 7, "error"] += 14.0


def autoregressive(frame, rng):
    lag = np.abs(np.subtract.outer(range(6), range(6)))
    frame["error"] = 2.0 * (frame["error"].to_numpy().reshape(-1, 6) @ np.linalg.cholesky(0.8**lag).T).ravel()


def stretched(frame, rng):
    frame["error"] *= np.where(frame["arm"] == "drug", 2.0, 1.0)


def entered_twice(frame, rng):
    frame.loc[38] = frame.loc[37]


def wider(frame, rng):
    frame["error"] += np.where(frame["arm"] == "drug", 8.0 * rng.normal(size=50)[frame["id"]], 0.0)


FAULTS = {
    "duplicates": (entered_twice, "rows 37 and 38 (id 6)"),
    "effect_spread": (wider, "Intercept do not spread alike along arm"),
    "outlying_rows": (at_one(37, 8.0), "row 37 (id 6)"),
    "outlying_subjects": (add(lambda f: np.where(f["id"] == 9, 22.0, 0.0)), "id 9"),
    "influential_subjects": (pulled, "id 7"),
    "mean": (add(lambda f: -0.4 * (f["t"] - 2.5) ** 2), "along t"),
    "spread": (stretched, "at drug as at none"),
    "serial": (autoregressive, "more alike"),
    "level2": (add(lambda f: 0.5 * (f["site"] - 50.0)), "Intercept go along site"),
    "effect_normality": (add(lambda f: 2.0 * np.exp(np.random.default_rng(3).normal(size=50))[f["id"]]), "right"),
    "residual_normality": (
        add(lambda f: 2.0 * np.random.default_rng(5).standard_t(2, len(f))),
        "Level-1 residuals are",
    ),
}


@pytest.fixture(scope="module")
def clean():
    frame = study()
    return frame, hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml()


@pytest.fixture(scope="module")
def quiet(clean):
    frame, fit = clean
    return fit.check(frame)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    fault, word = FAULTS[name]
    frame = study(fault=fault)
    page = hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml().check(frame)
    finding = page[name]
    assert finding.severity == "act", page
    assert word in finding.seen
    assert finding.why and finding.do and finding.read.startswith("docs, page")
    assert finding.sentence in " ".join(str(page).split())
    assert not page.ok


def test_clean_data_are_left_alone(quiet):
    assert quiet.ok
    assert set(quiet.table["severity"]) == {"fine"}
    assert quiet.table["p"].notna().sum() == 11
    assert str(quiet).splitlines()[1] == "18 fine, 2 left out"


def test_every_check_has_its_sentences_and_is_on_the_page_or_left_out(quiet):
    words = templates(collinearity.__globals__["__file__"])
    for name in CHECKS:
        assert {"seen", "why", "do", "read", "fine"} <= set(words[name]), name
    assert set(quiet.table.index) | set(quiet.left_out) == set(CHECKS)


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(clean):
    return Material(clean[1], 199, 0)


def test_the_first_column_is_of_the_data(material, clean):
    fit, found = clean[1], material.simulated
    marginal, distance = (fit.design.y - fit.fitted("population")).to_numpy(), []
    for subject in fit.design.subjects:
        rows = fit.design.subject_index == fit.design.position(subject)
        V = fit.marginal_covariance(subject).to_numpy()
        distance.append(marginal[rows] @ np.linalg.solve(V, marginal[rows]))
    np.testing.assert_allclose(found.distance[:, 0], distance, rtol=1e-8)
    V, rows = fit.marginal_covariance(subject).to_numpy(), np.flatnonzero(rows)  # of the last subject
    for k, row in enumerate(rows):
        forecast = V[k, :k] @ np.linalg.solve(V[:k, :k], marginal[rows[:k]])
        place = np.flatnonzero(material.rows == row)[0]
        np.testing.assert_allclose(found.forecast[place, 0], fit.fitted("population").iloc[row] + forecast, rtol=1e-8)
    exact = fit.influence("fixed")
    np.testing.assert_allclose(found.cook[:, 0], exact.table["cook"], rtol=1e-8)
    np.testing.assert_allclose(found.dfbetas, exact.dfbetas, rtol=1e-6, atol=1e-10)


def test_the_other_columns_are_as_the_model_makes_them(material):
    found = material.simulated
    for values in (found.residual, found.ahead, found.normalised):
        np.testing.assert_allclose(np.mean(values**2, axis=0), 1.0)
    # Over data sets the expected squared distance of a subject is its rows, less what β takes.
    p, n = 5, material.sizes.sum()
    total = found.distance[:, 1:].sum(axis=0)
    assert abs(total.mean() - (n - p)) < 4.0 * np.sqrt(2.0 * (n - p) / len(total))


def test_the_picture_has_the_p_value_of_the_text(quiet):
    for name in ("mean", "spread", "residual_normality", "effect_normality"):
        p = quiet[name].seen.rsplit("(", 1)[1].rstrip(")")
        assert all(panel.title.endswith(p) for panel in quiet[name].panels), name


def test_a_page_is_judged_by_holm():
    p = {"mean": 0.004, "spread": 0.012, "serial": 0.03, "ranks": 0.5}
    words = (
        "along",
        "size",
        "where",
        "ratio",
        "high",
        "low",
        "lag",
        "alike",
        "observed",
        "expected",
        "share",
        "remedy",
    )
    slots = dict.fromkeys(words, "1")
    found = {f.check: f for f in judge({name: Outcome(slots, value) for name, value in p.items()})}
    pages = [found[name].p_page for name in p]
    np.testing.assert_allclose(pages, [0.016, 0.036, 0.06, 0.5])
    assert [found[name].severity for name in p] == ["act", "act", "fine", "fine"]
    small = judge({"mean": Outcome(slots, 0.002, matters=False), "spread": Outcome(slots, 0.009, matters=False)})
    assert [f.severity for f in small] == ["look", "look"]
    # What differs by one simulated data set, as on another machine, stands in the order of the checks.
    close = judge({"mean": Outcome(slots, 0.004), "spread": Outcome(slots, 0.002), "serial": Outcome(slots, 0.5)})
    assert [f.check for f in close] == ["mean", "spread", "serial"]


def test_few_subjects_are_the_reason_that_is_given():
    fit = hl.TwoLevelModel.from_formula("y ~ t + arm + (1 | id)", study(n=8)).fit_reml()
    found = CHECKS["level2"](Material(fit, 99, 0))
    assert isinstance(found, LeftOut) and found.reason.startswith("fewer than 10 subjects")


def test_the_way_out_of_unequal_spread_is_one_that_the_model_takes(clean):
    frame = clean[0].assign(y=lambda d: d["y"] * np.where(d["arm"] == "drug", 3.0, 1.0))
    fit = hl.MarginalModel("y ~ t * arm", correlation=hl.AR1("t"), subject="id", data=frame).fit_reml()
    found = CHECKS["spread"](Material(fit, 99, 0))
    assert found.slots["along"] == "arm" and "(group='arm')" in found.slots["remedy"]


def test_ranks_of_a_normal_response_are_exact(clean):
    """They depend on no simulation, which only says how far they may be from even."""
    fit = clean[1]
    assert len({CHECKS["ranks"](Material(fit, 49, seed)).size for seed in range(3)}) == 1


def test_repeats_that_agree_by_chance_are_no_duplicates():
    """Three readings a visit, rounded to whole numbers, agree in some visits; a copied file agrees in all."""
    frame = pd.concat([study()] * 3, ignore_index=True)
    rng = np.random.default_rng(4)
    frame["y"] = (2.0 * frame["y"] + 4.0 * rng.normal(size=len(frame))).round()
    frame["n"] = np.minimum(np.abs(frame["y"]), 3.0)
    assert frame.duplicated(["id", "t", "y"]).sum() > 50

    def finding(data, formula="y ~ t * arm + age + (t | id)", **model):
        fit = hl.TwoLevelModel.from_formula(formula, data, **model).fit_ml()
        return duplicates(Material(fit, 99, 0))

    assert isinstance(finding(frame), LeftOut)
    assert isinstance(finding(frame, "y ~ arm + (1 | id)"), LeftOut)  # nothing tells the rows of a subject apart
    exact = frame.assign(y=frame["y"] + np.random.default_rng(5).normal(size=len(frame)))
    assert finding(exact).severity == "fine"
    copied = finding(pd.concat([exact, exact[exact["id"] < 5]]))
    assert copied.severity == "look" and copied.size == 90
    assert isinstance(finding(frame, "n ~ t + (1 | id)", family="poisson"), LeftOut)
    once = frame.drop_duplicates(["id", "t"])
    assert finding(once, "n ~ t + (1 | id)", family="poisson").size == 0
    found = finding(pd.concat([once, once.iloc[[4]]]), "n ~ t + (1 | id)", family="poisson")
    assert found.severity == "look" and found.slots["which"] == "rows 4 and 4 (id 0)" and found.size == 1


def test_collinearity_is_the_variance_inflation_factor():
    rng = np.random.default_rng(8)
    frame = study().drop(columns="site")
    frame["x"] = 2.0 * frame["t"] + rng.normal(size=len(frame))
    frame["y"] = rng.normal(size=len(frame))
    fit = hl.TwoLevelModel.from_formula("y ~ t + x + (0 + t | id)", frame).fit_reml()
    assert fit.is_singular  # least squares, where the factor has its textbook form
    r = np.corrcoef(frame["t"], frame["x"])[0, 1]
    np.testing.assert_allclose(collinearity(Material(fit, 99, 0)).size, 1.0 / (1.0 - r**2), rtol=1e-6)


def test_powers_and_interactions_of_one_variable_are_no_collinearity(clean):
    frame = clean[0].assign(year=clean[0]["t"] + 2000.0)
    fit = hl.TwoLevelModel.from_formula("y ~ year * arm + I((year - 2000)**2) + (1 | id)", frame).fit_reml()
    page = fit.check(simulations=279)
    assert page["collinearity"].severity == "fine" and page["collinearity"].size < 1.1
    assert page["scaling"].severity == "look" and "year lies far from zero" in page["scaling"].seen


# --- other fits ------------------------------------------------------------------------------------------------------


def test_counts_that_vary_too_much_are_found(patients):
    fit = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson").fit_ml()
    page = fit.check()
    assert page["dispersion"].severity == "act" and page["notes"].severity == "look"
    assert "vary more within subjects" in page["dispersion"].seen
    enough = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="negative_binomial")
    assert enough.fit_ml().check(simulations=199)["dispersion"].severity == "fine"
    assert "Overdispersion" in page["notes"].seen
    assert {"residual_normality", "level2", "leverage"} <= set(page.left_out)


def test_a_posterior_has_its_sampler_and_its_priors_checked(sleep_nuts, seizures_nuts):
    page = sleep_nuts.check(simulations=279)
    assert page["convergence"].severity == "fine" and "chains agree" in page["convergence"].seen
    assert page["priors"].severity == "fine"
    assert page["outlying_rows"].p <= 0.02  # of subject 332, as by REML
    short = seizures_nuts.check(simulations=279)
    assert short["convergence"].severity == "act" and short.findings[0].check == "convergence"


def test_marginal_models_and_gee(dental):
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.AR1("time"), subject="subject", data=dental
    ).fit_reml()
    page = marginal.check(simulations=279)
    assert page.left_out["effect_normality"] == "the fit has no random effects"
    assert {"mean", "spread", "serial", "ranks", "outlying_subjects"} <= set(page.table.index)
    gee = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_gee()
    assert {"mean", "outlying_subjects", "influential_subjects"} <= set(gee.check(simulations=279).table.index)


def test_a_variance_of_zero_is_looked_at():
    frame = study()
    frame["y"] = np.random.default_rng(3).normal(size=len(frame))
    fit = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_ml()
    page = fit.check(simulations=279)
    assert page["boundary"].severity == "look" and "no variation in Intercept" in page["boundary"].seen
    assert "variances of the random effects are estimated as zero" in page.left_out["effect_normality"]


def test_a_level_that_one_subject_has_is_to_act_on(dental):
    frame = dental.assign(site=np.where(dental["subject"] == 3, "b", "a"))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + site + (1 | subject)", frame).fit_reml()
    finding = fit.check(simulations=279)["leverage"]
    assert finding.severity == "act"
    assert finding.seen == "Without subject 3 the other subjects do not determine site[T.b]."


def test_of_many_rows_some_subjects_are_looked_at():
    frame = study(n=1000)
    page = hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml().check(simulations=279)
    assert "Looked at: 833 of 1,000 subjects" in page.note


# --- how it shows itself ----------------------------------------------------------------------------------------------


def test_it_is_drawn(quiet):
    picture = quiet.plot(backend="none", max_panels=4)
    assert picture.viz["points"].sizes == {"check": 4}
    assert quiet.plot("spread", backend="none").viz["curve"] is not None
    (panel, *_) = quiet["residual_normality"].panels  # coloured is what is outside the band, and nothing else
    low, high = (np.interp(panel.points[0], panel.curve[0], side) for side in panel.band)
    outside = (panel.points[1] < low) | (panel.points[1] > high)
    np.testing.assert_array_equal(np.flatnonzero(outside), panel.marked)
    assert quiet.plot(["serial", "mean"], max_panels=1, backend="none").viz["points"].sizes == {"check": 1}


def test_what_is_not_there_is_refused(quiet, clean):
    with pytest.raises(hl.SpecificationError, match=r"Did you mean 'spread'"):
        quiet["spred"]
    with pytest.raises(hl.SpecificationError, match=r"the fit has no priors"):
        quiet["priors"]
    with pytest.raises(hl.SpecificationError, match=r"nothing to draw"):
        quiet.plot("convergence", backend="none")
    with pytest.raises(hl.DataError, match=r"without the column 'id'"):
        clean[1].check(clean[0].drop(columns="id"))


def test_simulations_that_could_find_nothing_are_refused():
    """Holm's correction multiplies the smallest p-value, 1 / (simulations + 1), by the number of checks."""
    frame = study(fault=at_one(37, 9.0))
    fit = hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml()
    with pytest.raises(hl.SpecificationError, match=r"use at least 19, better 499"):
        fit.check(frame, simulations=18)
    with pytest.raises(hl.SpecificationError, match=r"(?s)1/20, and corrected for \d+ checks") as refused:
        fit.check(frame, simulations=19)
    least = int(re.search(r"at least (\d+)", str(refused.value))[1])
    page = fit.check(frame, simulations=least)
    assert least == 20 * page.table["p"].notna().sum() - 1
    assert page["outlying_rows"].severity == "act" and page["outlying_rows"].p_page > 0.0499


def test_data_of_other_subjects_are_refused_and_of_some_told(clean, quiet):
    frame, fit = clean
    for labels, shown in ((frame["id"] + 100, "100, 101"), (frame["id"].astype(str), "'0', '1'")):
        with pytest.raises(hl.DataError, match=r"(?s)Received: .*Why not: .*To do: .*Read: ") as refused:
            fit.check(frame.assign(id=labels), simulations=279)
        assert f"data= with 50 subjects in 'id', none of them in the fit: {shown}" in str(refused.value)
        assert "the fit's 50 subjects by their labels, which are 0, 1, 2, 3, 4, ... (50 in all)" in str(refused.value)
    with pytest.raises(hl.DataError, match="none of them in the fit"):  # also where no column is new
        fit.check(frame[["id", "t", "y"]].assign(id=-1), simulations=279)
    some = fit.check(frame[frame["id"] > 1].assign(id=lambda d: d["id"].astype("category")), simulations=279)
    assert some.note.endswith("data= has no row of 2 of 50 subjects: 0, 1; what it says is of the others.")
    assert "data=" not in quiet.note


def test_it_is_a_result(quiet):
    assert quiet.to_frame().index.name == "check"
    assert "<li>mean: residuals have the mean" in quiet._repr_html_()
    again = quiet.table
    again.iloc[0, 0] = "act"
    assert quiet.ok


@pytest.mark.parametrize("path", sorted(Path(hl.__file__).parent.rglob("sentences.toml")), ids=lambda p: p.parent.name)
def test_slots_of_sentences_can_be_filled(path):
    """A slot is a name, and how its number is written; anything else would stand in the text as it is."""
    text = re.sub(SLOT, "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"\{\w+[!.\[][^}]*\}", text)
