"""Time-varying covariates: by hand, against R, against the definition, and with another future behind their back."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, references_of

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError

REFERENCE = references_of("time_varying")


def build(rows, rule, **options):
    """The column that one rule gives."""
    return hl.time_varying(rows, {"new": rule}, subject="id", time="t", **options)


def values(rows, rule, **options):
    return build(rows, rule, **options).data["new"].to_numpy()


@pytest.fixture
def lab():
    """Subject 1 measured at 0, 2 and 5; subject 2 at 1; rows out of order on purpose."""
    return pd.DataFrame({"id": [1, 2, 1, 1], "t": [5.0, 1.0, 0.0, 2.0], "x": [8.0, 7.0, 10.0, 14.0]})


@pytest.fixture
def visits():
    return pd.DataFrame(
        {"id": [1, 1, 1, 1, 1, 2, 2, 3], "t": [4.0, -1.0, 0.0, 1.0, 6.0, 0.5, 3.0, 1.0]}, index=range(10, 18)
    )


# --- By hand ----------------------------------------------------------------------------------------------------------

NAN = np.nan


def below_11(x):
    return x < 11


def above_11(x):
    return x > 11


def rule_id(rule):
    """The rule as it is written, so that a test has the same id in every process."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", repr(rule))


BY_HAND = [
    (hl.CurrentValue("x"), [NAN, NAN, 10, NAN, NAN, NAN, NAN, NAN]),
    (hl.LastValue("x"), [14, NAN, 10, 10, 8, NAN, 7, NAN]),
    (hl.LastValue("x", within=1.0), [NAN, NAN, 10, 10, 8, NAN, NAN, NAN]),
    (hl.LastValue("x", strict=True), [14, NAN, NAN, 10, 8, NAN, 7, NAN]),
    (hl.Lag("x", 1.0), [14, NAN, NAN, 10, 8, NAN, 7, NAN]),
    (hl.Lag("x", 3.0, how="linear"), [12, NAN, NAN, NAN, 12, NAN, NAN, NAN]),
    (hl.Interpolate("x", future=True), [10, NAN, 10, 12, 8, NAN, 7, NAN]),
    (hl.Cumulative("x"), [24 + 28, NAN, 0, 10, 24 + 33 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", rule="step"), [20 + 28, NAN, 0, 10, 20 + 42 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", future=True), [24 + 24, NAN, 0, 11, 24 + 33 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", average=True), [52 / 4, NAN, 10, 10, 65 / 6, NAN, 7, NAN]),
    (hl.Cumulative("x", origin=-1, extend_back=True), [62, NAN, 10, 20, 75, NAN, 28, NAN]),
    (hl.TimeSince("x"), [2, NAN, 0, 1, 1, NAN, 2, NAN]),
    (hl.TimeSince("x", which="first"), [4, NAN, 0, 1, 6, NAN, 2, NAN]),
    (hl.TimeSince("x", when=14.0), [2, NAN, NAN, NAN, 4, NAN, NAN, NAN]),
    (hl.TimeSince("x", when=below_11, which="last"), [4, NAN, 0, 1, 1, NAN, 2, NAN]),
]


@pytest.mark.parametrize(("rule", "expected"), BY_HAND, ids=lambda v: "" if isinstance(v, list) else rule_id(v))
def test_by_hand(visits, lab, rule, expected):
    np.testing.assert_allclose(values(visits, rule, history=lab), expected, rtol=1e-14)


def test_the_order_of_rows_does_not_matter(visits, lab):
    rules = {f"c{k}": rule for k, (rule, _) in enumerate(BY_HAND)}
    built = hl.time_varying(visits, rules, subject="id", time="t", history=lab).data
    again = hl.time_varying(visits.sample(frac=1, random_state=3), rules, subject="id", time="t", history=lab[::-1])
    pd.testing.assert_frame_equal(again.data.sort_index(), built.sort_index())


def test_the_report_counts_what_was_done(visits, lab):
    built = hl.time_varying(
        visits,
        {"a": hl.LastValue("x", within=1.0), "b": hl.Interpolate("x", future=True), "c": hl.Cumulative("x")},
        subject="id",
        time="t",
        history=lab,
    )
    counts = ["observed", "carried", "interpolated", "from_future", "no_history_yet", "too_old", "subject_absent"]
    assert built.report.loc["a", counts].tolist() == [1, 2, 0, 0, 2, 2, 1]
    assert built.report.loc["b", counts].tolist() == [1, 2, 2, 2, 2, 0, 1]
    assert built.report.loc["c", counts].tolist() == [1, 4, 0, 0, 2, 0, 1]
    assert built.report["largest_gap"].tolist() == [1.0, 3.0, 3.0]
    assert built.source["b"].tolist() == [
        "interpolated", "no history yet", "observed", "interpolated", "carried", "no history yet", "carried",
        "subject without history",
    ]  # fmt: skip
    assert built.data.index.equals(visits.index) and built.source.index.equals(visits.index)
    text = " ".join(repr(built).split())
    assert "2 VALUES USE A MEASUREMENT AFTER THEIR ROW'S TIME" in text
    assert "No value depends on" not in text
    assert "has 2 of these subjects" in text
    assert "Missing in 2 (no measurement comes before), 2 (the last value is too old), 1 (the subject has no" in text
    assert "AFTER" in built._repr_html_()
    past = build(visits, hl.LastValue("x"), history=lab)
    assert "No value depends on anything measured after its row's time." in repr(past)


@pytest.mark.parametrize(
    ("rule", "at", "gap"),
    [
        (hl.Cumulative("x"), 6.0, 3.0),  # from 2 to 5
        (hl.Cumulative("x"), 4.0, 2.0),  # from 0 to 2, from 2 to 4
        (hl.Cumulative("x", origin=1.0), 4.0, 2.0),
        (hl.Cumulative("x", origin=1.0), 3.0, 1.0),  # of the two from 0 to 2 only the half after the origin
        (hl.Cumulative("x", origin=0.0, extend_back=True), 4.0, 2.0),
        (hl.Cumulative("x", origin=-4.0, extend_back=True), 6.0, 4.0),  # nothing is known from -4 to 0
        (hl.Cumulative("x", origin=-4.0, extend_back=True), 1.0, 4.0),
        (hl.Cumulative("x", origin=-1.0, extend_back=True), 1.0, 1.0),
    ],
    ids=repr,
)
def test_the_longest_gap_that_an_area_bridges(lab, rule, at, gap):
    """Subject 1 is measured at 0, 2 and 5."""
    built = build(pd.DataFrame({"id": [1], "t": [at]}), rule, history=lab)
    assert built.report.loc["new", "largest_gap"] == gap


def test_a_condition_sees_the_past_of_its_subject_only():
    rows = pd.DataFrame({"id": [1] * 4 + [2] * 3, "t": [0.0, 1, 2, 3, 0, 1, 2], "x": [5.0, 4, 6, 9, 100, 90, 95]})
    seen = []
    above_mean = hl.TimeSince("x", when=lambda x: seen.append(list(x)) or x > x.mean())
    np.testing.assert_array_equal(values(rows, above_mean), [NAN, NAN, 0, 0, NAN, NAN, NAN])
    own = {1: [5.0, 4, 6, 9], 2: [100.0, 90, 95]}
    assert seen == [own[i][: k + 1] for i in own for k in range(len(own[i]))]
    rise = hl.TimeSince("x", when=lambda x: x.diff() > 0)
    np.testing.assert_array_equal(values(rows, rise), [NAN, NAN, 0, 0, NAN, NAN, 0])
    changed = rows.assign(x=rows["x"].where(rows["t"] < 3, -1000.0))  # another future
    np.testing.assert_array_equal(values(changed, above_mean)[:3], values(rows, above_mean)[:3])
    text = " ".join(repr(build(rows, above_mean)).split())
    assert "No value depends on" not in text
    assert "the condition of 'new' saw a subject's own measurements up to the one it judges" in text


def test_a_condition_that_fails_is_refused_in_words(visits, lab):
    with pytest.raises(SpecificationError, match="ZeroDivisionError") as caught:
        values(visits, hl.TimeSince("x", when=lambda x: 1 / 0), history=lab)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_was_not_measured_then_is_not_called_too_old(visits, lab):
    built = build(visits, hl.CurrentValue("x"), history=lab)
    assert built.report.loc["new", ["observed", "too_old", "not_measured"]].tolist() == [1, 0, 4]
    assert set(built.source["new"]) == {"observed", "not measured then", "no history yet", "subject without history"}
    assert "4 (nothing was measured then)" in " ".join(repr(built).split())


# --- Against a slow oracle --------------------------------------------------------------------------------------------


def random_tables(seed, *, grid=False):
    rng = np.random.default_rng(seed)
    n, m = 300, 250
    draw = (lambda k: rng.integers(0, 25, k) * 0.1) if grid else (lambda k: rng.uniform(-1, 3, k))
    rows = pd.DataFrame({"id": rng.integers(0, 30, n), "t": draw(n)})
    lab = pd.DataFrame({"id": rng.integers(0, 35, m) - 3, "t": draw(m), "x": rng.normal(10, 3, m)})
    return rows, lab.drop_duplicates(["id", "t"])


def path(known, at):
    """Lines through the known measurements, constant outside."""
    return np.interp(at, known["t"], known["x"])


def slow(rule, own, t):
    """One row, from the definition; times are compared up to rounding."""
    eps = 1e-9
    past = own[own["t"] <= t + eps]
    if isinstance(rule, hl.Lag):
        s = t - rule.lag
        if not (past["t"] <= s + eps).any():
            return np.nan
        return path(past, s) if rule.how == "linear" else past[past["t"] <= s + eps]["x"].iloc[-1]
    if isinstance(rule, hl.LastValue) and rule.strict:
        past = past[past["t"] < t - eps]
    if isinstance(rule, hl.TimeSince):
        past = past[rule.when(past["x"])]
    if past.empty:
        return np.nan
    last = past.iloc[-1]
    if isinstance(rule, hl.CurrentValue):
        return last["x"] if abs(last["t"] - t) < eps else np.nan
    if isinstance(rule, hl.LastValue):
        return last["x"] if rule.within is None or t - last["t"] <= rule.within + eps else np.nan
    if isinstance(rule, hl.Interpolate):
        return path(own, t)
    if isinstance(rule, hl.TimeSince):
        return t - (last if rule.which == "last" else past.iloc[0])["t"]
    start = past["t"].iloc[0] if rule.origin is None else rule.origin
    known = own if rule.future else past
    cuts = np.unique(np.r_[start, known["t"][(known["t"] > start) & (known["t"] < t)], t])
    if rule.rule == "step":
        held = [
            known[known["t"] <= c + eps]["x"].iloc[-1] if (known["t"] <= c + eps).any() else known["x"].iloc[0]
            for c in cuts
        ]
        area = np.sum(np.diff(cuts) * np.array(held[:-1]))
    else:
        area = np.trapezoid(path(known, cuts), cuts)
    if not rule.average:
        return area
    return area / (t - start) if t - start > eps else path(past, t)


ALL_RULES = [
    hl.CurrentValue("x"),
    hl.LastValue("x"),
    hl.LastValue("x", within=0.3),
    hl.LastValue("x", strict=True),
    hl.Lag("x", 0.3),
    hl.Lag("x", 0.7, how="linear"),
    hl.Cumulative("x"),
    hl.Cumulative("x", rule="step"),
    hl.Cumulative("x", average=True),
    hl.Cumulative("x", origin=-1.0, extend_back=True),
    hl.Cumulative("x", origin=-1.0, extend_back=True, rule="step"),
    hl.Cumulative("x", origin=-1.0, extend_back=True, average=True),
    hl.TimeSince("x", when=above_11),
    hl.TimeSince("x", when=above_11, which="first"),
]
FUTURE_RULES = [
    hl.Interpolate("x", future=True),
    hl.Cumulative("x", future=True),
    hl.Cumulative("x", future=True, origin=-1.0, extend_back=True),
]


@pytest.mark.parametrize("grid", [False, True], ids=["irregular", "grid"])
@pytest.mark.parametrize("rule", ALL_RULES + FUTURE_RULES, ids=rule_id)
def test_against_the_definition(rule, grid):
    rows, lab = random_tables(1, grid=grid)
    by_subject = {i: own.sort_values("t") for i, own in lab.groupby("id")}
    nobody = lab.iloc[:0]
    expected = [slow(rule, by_subject.get(i, nobody), t) for i, t in rows[["id", "t"]].itertuples(index=False)]
    found = values(rows, rule, history=lab)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    assert np.isfinite(found).sum() > 10 or (isinstance(rule, hl.CurrentValue) and not grid)


def test_an_origin_among_the_measurements():
    rows, lab = random_tables(2)
    lab = pd.concat([lab, pd.DataFrame({"id": range(30), "t": -1.5, "x": 5.0})])  # everybody is measured before 0.5
    rows = rows[rows["t"] >= 0.5]
    by_subject = {i: own.sort_values("t") for i, own in lab.groupby("id")}
    for rule in (
        hl.Cumulative("x", origin=0.5),
        hl.Cumulative("x", origin=0.5, rule="step"),
        hl.Cumulative("x", origin=0.5, future=True),
        hl.Cumulative("x", origin=0.5, average=True),
    ):
        expected = [slow(rule, by_subject[i], t) for i, t in rows[["id", "t"]].itertuples(index=False)]
        np.testing.assert_allclose(values(rows, rule, history=lab), expected, rtol=1e-11, atol=1e-11)


# --- Nothing looks into the future ------------------------------------------------------------------------------------


def futures(rows, lab, cut, rng):
    """The same past up to `cut`, and two other futures: other values, and other times."""
    later = lab["t"] > cut
    other = lab.assign(x=lab["x"].where(~later, rng.normal(-50, 20, len(lab))))
    moved = lab.assign(t=lab["t"].where(~later, cut + 1e-6 + rng.exponential(1.0, len(lab))))
    return rows["t"] <= cut, [other, moved, lab[~later]]


@pytest.mark.parametrize("rule", ALL_RULES, ids=rule_id)
def test_the_future_changes_nothing(rule):
    rng = np.random.default_rng(5)
    for seed, cut in ((3, 0.2), (4, 1.0), (5, 2.2)):
        rows, lab = random_tables(seed)
        before, others = futures(rows, lab, cut, rng)
        found = values(rows, rule, history=lab)[before]
        for other in others:
            # Up to rounding: which times count as equal depends, in the last place, on the largest time.
            np.testing.assert_allclose(values(rows, rule, history=other)[before], found, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rule", FUTURE_RULES, ids=rule_id)
def test_the_future_changes_what_was_told_to_use_it(rule):
    rows, lab = random_tables(4)
    before, (other, *_) = futures(rows, lab, 1.0, np.random.default_rng(5))
    found, changed = values(rows, rule, history=lab)[before], values(rows, rule, history=other)[before]
    differs = np.abs(found - changed) > 1e-6
    assert differs.any()
    built = build(rows, rule, history=lab)
    assert set(np.flatnonzero(before)[differs]) <= set(np.flatnonzero(built.source["new"] == "interpolated"))
    assert built.report.loc["new", "from_future"] == (built.source["new"] == "interpolated").sum()


def test_interpolation_refuses_the_future_unless_told(visits, lab):
    with pytest.raises(DataError, match="2 of 8 rows between two measurements"):
        build(visits, hl.Interpolate("x"), history=lab)
    measured = lab.rename(columns={"x": "z"}).assign(x=lab["x"])
    assert values(measured, hl.Interpolate("x")).tolist() == lab["x"].tolist()  # nothing to interpolate


def test_an_interpolated_lag_uses_what_is_known_by_the_row():
    lab = pd.DataFrame({"id": 1, "t": [0.0, 2.0, 10.0], "x": [0.0, 4.0, 400.0]})
    rows = pd.DataFrame({"id": 1, "t": [2.0, 4.0, 9.9, 10.0]})
    built = build(rows, hl.Lag("x", 1.0, how="linear"), history=lab)
    np.testing.assert_allclose(built.data["new"], [2.0, 4.0, 4.0, 4.0 + 396.0 * 7 / 8])
    assert built.source["new"].tolist() == ["interpolated", "carried", "carried", "interpolated"]
    assert built.report.loc["new", "from_future"] == 0


def test_times_that_differ_by_rounding_are_the_same():
    lab = pd.DataFrame({"id": 1, "t": np.arange(1, 11) * 0.1, "x": np.arange(1.0, 11.0)})
    assert 0.3 - 0.1 != 0.2
    assert values(lab, hl.Lag("x", 0.1))[1:].tolist() == list(range(1, 10))
    built = build(pd.DataFrame({"id": [1], "t": [0.1 + 0.2]}), hl.CurrentValue("x"), history=lab)
    assert built.data["new"].tolist() == [3.0]
    assert built.report.loc["new", "largest_gap"] == 0.0
    near = build(pd.DataFrame({"id": [1], "t": [0.3 - 1e-9]}), hl.LastValue("x"), history=lab)
    assert near.data["new"].tolist() == [2.0]  # a measurement one billionth later is the future


# --- Against R --------------------------------------------------------------------------------------------------------


def test_areas_of_the_cirrhosis_trial_are_those_of_r():
    pbc = hl.load_dataset("pbc")
    ref = json.loads((REFERENCE / "pbc.json").read_text())
    shuffled = pbc.sample(frac=1, random_state=1)
    built = hl.time_varying(
        shuffled,
        {"trap": hl.Cumulative("protime"), "step": hl.Cumulative("protime", rule="step")},
        subject="subject",
        time="year",
    ).data.sort_index()
    assert built["subject"].head(ref["n"]).tolist() == ref["id"]
    year = (pbc["day"] / 365.25).to_numpy()
    np.testing.assert_allclose(pbc["year"], year, rtol=1e-14)
    np.testing.assert_allclose(built["trap"].head(ref["n"]), ref["trap"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(built["step"].head(ref["n"]), ref["step"], rtol=1e-12, atol=1e-12)
    assert built["trap"].sum() == pytest.approx(ref["sum_trap_all"], rel=1e-12)
    assert built["step"].sum() == pytest.approx(ref["sum_step_all"], rel=1e-12)


def test_values_between_visits_are_those_of_r():
    pbc = hl.load_dataset("pbc")
    ref = json.loads((REFERENCE / "pbc.json").read_text())
    rows = pbc.head(ref["n"])[["subject", "year"]].assign(year=lambda d: d["year"] + 0.5)
    built = hl.time_varying(
        rows,
        {
            "linear": hl.Interpolate("protime", future=True),
            "carried": hl.LastValue("protime"),
            "area": hl.Cumulative("protime", future=True),
        },
        subject="subject",
        time="year",
        history=pbc,
    ).data
    linear = np.array(ref["linear"])
    np.testing.assert_allclose(built["linear"], linear, rtol=1e-12)
    np.testing.assert_allclose(built["carried"], ref["carried"], rtol=1e-12)
    np.testing.assert_allclose(built["area"], ref["area"], rtol=1e-12)


def test_the_areas_of_the_published_copy():
    pbc2 = pd.read_csv(data_elsewhere("pbc2_cumprothrombin")).sample(frac=1, random_state=1)
    rules = {"a": hl.Cumulative("prothrombin"), "b": hl.Cumulative("prothrombin", rule="step")}
    built = hl.time_varying(pbc2, rules | {"c": hl.Cumulative("prothrombin", origin=0)}, subject="id", time="year").data
    np.testing.assert_allclose(built["a"], built["cum_trap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(built["c"], built["cum_trap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(built["b"], built["cum_locf"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["trapezoid", "step"])
def test_the_cumulative_effect_of_prothrombin_is_that_of_nlme(rule):
    ref = json.loads((REFERENCE / "pbc_fits.json").read_text())["trap" if rule == "trapezoid" else "step"]
    pbc = hl.load_dataset("pbc")
    data = hl.time_varying(pbc, {"area": hl.Cumulative("protime", rule=rule)}, subject="subject", time="year").data
    fit = hl.TwoLevelModel.from_formula(
        "log(bili) ~ ns(year, 2) + sex + age + area + (ns(year, 2) || subject)", data
    ).fit_reml()
    # The years of the shipped copy differ from R's by up to 0.0004.
    np.testing.assert_allclose(fit.beta, ref["coef"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(fit.beta_se, ref["se"], rtol=1e-3)
    assert fit.loglik == pytest.approx(ref["logLik"], abs=1e-3)


# --- What the tables may look like ------------------------------------------------------------------------------------


def test_missing_measurements_are_refused_or_counted(visits, lab):
    holes = pd.concat([lab, pd.DataFrame({"id": [1, 1], "t": [3.0, 5.5], "x": [NAN, NAN]})])
    with pytest.raises(DataError, match="2 are missing"):
        build(visits, hl.LastValue("x"), history=holes)
    built = build(visits, hl.LastValue("x"), history=holes, missing="drop")
    np.testing.assert_allclose(built.data["new"], BY_HAND[1][1])
    assert built.report.loc["new", "ignored"] == 2
    assert "2 measurements with a missing value were left out" in " ".join(repr(built).split())
    # What nobody asks about is not missed.
    other = pd.concat([lab, pd.DataFrame({"id": [99], "t": [3.0], "x": [NAN]})])
    assert build(visits, hl.LastValue("x"), history=other).report.loc["new", "ignored"] == 0


def test_ties_are_refused_or_settled_as_asked(visits, lab):
    twice = pd.concat([lab, pd.DataFrame({"id": [1], "t": [2.0], "x": [20.0]})])
    with pytest.raises(DataError, match=r"several measurements of 'x' of one subject at one time: 1 at 2"):
        build(visits, hl.LastValue("x"), history=twice)
    mean = build(visits, hl.LastValue("x"), history=twice, ties="mean")
    last = build(visits, hl.LastValue("x"), history=twice, ties="last")
    assert mean.data["new"].iloc[0] == 17.0
    assert last.data["new"].iloc[0] == 20.0
    assert mean.report.loc["new", "merged"] == last.report.loc["new", "merged"] == 1
    with pytest.raises(SpecificationError, match="no mean"):
        build(visits, hl.LastValue("x"), history=twice.assign(x="a"), ties="mean")
    repeated = pd.concat([visits, visits])  # rows of the outcome at one time are no tie
    assert build(repeated, hl.LastValue("x"), history=lab).report.loc["new", "observed"] == 2


def test_labels_can_be_carried_but_not_drawn_through(visits, lab):
    drug = lab.assign(x=pd.Categorical(["stopped", "full", "half", "full"], ["full", "half", "stopped"]))
    built = build(visits, hl.LastValue("x"), history=drug)
    assert built.data["new"].tolist() == ["full", NAN, "half", "half", "stopped", NAN, "full", NAN]
    assert built.data["new"].cat.categories.tolist() == ["full", "half", "stopped"]
    since = values(visits, hl.TimeSince("x", when="half"), history=drug)
    np.testing.assert_allclose(since, [4, NAN, 0, 1, 6, NAN, NAN, NAN])
    for rule in (hl.Cumulative("x"), hl.Interpolate("x", future=True), hl.Lag("x", 1, how="linear")):
        with pytest.raises(DataError, match="need numbers"):
            build(visits, rule, history=drug)


def test_other_kinds_of_tables_give_the_same(visits, lab):
    pl = pytest.importorskip("polars")
    rules = {f"c{k}": rule for k, rule in enumerate(ALL_RULES[:6])}
    expected = hl.time_varying(visits, rules, subject="id", time="t", history=lab).data.reset_index(drop=True)
    own = hl.time_varying(
        pl.from_pandas(visits),
        rules,
        subject="id",
        time="t",
        history=pl.from_pandas(lab).rename({"id": "who", "t": "at"}),
        history_subject="who",
        history_time="at",
    )
    pd.testing.assert_frame_equal(own.data, expected)


def test_labels_of_subjects_match_by_value(visits, lab):
    expected = values(visits, hl.LastValue("x"), history=lab)
    floats = lab.assign(id=lab["id"].astype(float))
    categories = visits.assign(id=visits["id"].astype("category"))
    np.testing.assert_allclose(values(visits, hl.LastValue("x"), history=floats), expected)
    np.testing.assert_allclose(values(categories, hl.LastValue("x"), history=lab), expected)
    with pytest.raises(DataError, match="no subject is in both"):
        build(visits, hl.LastValue("x"), history=lab.assign(id=lab["id"].astype(str)))


def test_nothing_that_was_given_is_changed(visits, lab):
    before, measured = visits.copy(), lab.copy()
    build(visits, hl.Cumulative("x"), history=lab)
    pd.testing.assert_frame_equal(visits, before)
    pd.testing.assert_frame_equal(lab, measured)


def test_a_history_without_rows_gives_missing_values(visits, lab):
    built = build(visits, hl.Cumulative("x"), history=lab.iloc[:0])
    assert built.data["new"].isna().all()
    assert built.report.loc["new", "subject_absent"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": NAN}, "missing or infinite in 4 of 4 rows"),
        ({"t": np.inf}, "missing or infinite"),
        ({"t": "monday"}, "need times as numbers"),
        ({"t": pd.Timestamp("2020-01-01")}, "need times as numbers"),
        ({"id": None}, "missing in 4 rows"),
        ({"x": np.inf}, "infinite"),
    ],
)
def test_histories_that_cannot_be_used(visits, lab, change, message):
    with pytest.raises(DataError, match=message):
        build(visits, hl.LastValue("x"), history=lab.assign(**change))


def test_areas_from_an_origin_that_cannot_be_computed(visits, lab):
    with pytest.raises(DataError, match="1 of 8 rows before the origin"):
        build(visits, hl.Cumulative("x", origin=0.0), history=lab)
    with pytest.raises(DataError, match="1 of 2 subjects first measured after the origin"):
        build(visits[visits["t"] >= 0], hl.Cumulative("x", origin=0.0), history=lab)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hl.Lag("x", 0), "must be positive"),
        (lambda: hl.Lag("x", -1.0), "must be positive"),
        (lambda: hl.Lag("x", NAN), "finite number"),
        (lambda: hl.Lag("x", 1, how="next"), "no such choice"),
        (lambda: hl.LastValue("x", within=0), "must be positive"),
        (lambda: hl.Cumulative("x", rule="simpson"), "no such choice"),
        (lambda: hl.Cumulative("x", rule="step", future=True), "never need the next"),
        (lambda: hl.Cumulative("x", extend_back=True), "without an origin"),
        (lambda: hl.TimeSince("x", which="next"), "no such choice"),
    ],
)
def test_rules_that_make_no_sense(make, message):
    with pytest.raises(SpecificationError, match=message):
        make()


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "which columns to make"),
        ({"t": hl.LastValue("x")}, {}, "already have a column"),
        ({"new": "x"}, {}, "not a name with a rule"),
        ({"new": hl.LastValue("x")}, {"ties": "first"}, "no such choice"),
        ({"new": hl.LastValue("x")}, {"missing": "skip"}, "no such choice"),
        ({"new": hl.TimeSince("x", when=lambda x: 3)}, {}, "true or false for every measurement"),
        ({"new": hl.LastValue("y")}, {}, "no column of this name"),
    ],
)
def test_requests_that_cannot_be_met(visits, lab, columns, options, message):
    with pytest.raises((SpecificationError, DataError), match=message):
        hl.time_varying(visits, columns, subject="id", time="t", history=lab, **options)
