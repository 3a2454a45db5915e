"""Time-varying covariates: by hand, against the definition, and with another future behind their back."""

import numpy as np
import pandas as pd
import pytest
from rules_of_time import ALL_RULES, BY_HAND, FUTURE_RULES, NAN, build, rule_id, values

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError

# --- By hand ----------------------------------------------------------------------------------------------------------


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
