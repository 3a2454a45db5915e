"""What the tables of a time-varying covariate may look like, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
from rules_of_time import ALL_RULES, BY_HAND, NAN, build, values

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError


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


@pytest.mark.parametrize("columns", [{}, {"new": "x"}])
def test_a_rule_that_a_message_suggests_can_be_made(visits, columns):
    with pytest.raises(SpecificationError) as refused:
        hl.time_varying(visits, columns, subject="id", time="t")
    suggested = re.search(r"hl\.Lag\(.*?\)", str(refused.value)).group()
    assert eval(suggested, {"hl": hl}) == hl.Lag("x", 1)
