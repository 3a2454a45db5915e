"""Patterns and dropped rows, counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, SpecificationError

NAN = np.nan


@pytest.fixture(scope="module")
def trial():
    """Six subjects, three visits; the last one was never measured, one visit of f has no row."""
    y = {"a": [1, 2, 3], "b": [4, 5, NAN], "c": [6, NAN, 7], "d": [8, NAN, NAN], "e": [NAN, NAN, NAN], "f": [9, 10, 11]}
    rows = [(s, "uv"[s in "bdf"], f"V{k + 1}", k + 1, v) for s, own in y.items() for k, v in enumerate(own)]
    frame = pd.DataFrame(rows, columns=["id", "arm", "visit", "time", "y"])
    return frame.drop(index=frame.index[(frame["id"] == "f") & (frame["time"] == 2)])


def test_patterns_are_counted(trial):
    found = hl.missing_patterns(trial, response="y", subject="id", time="visit", by="arm")
    table = found.table.set_index("pattern")
    assert table["subjects"].to_dict() == {"xxx": 1, "xx.": 1, "x..": 1, "x.x": 2, "...": 1}
    kinds = {"xxx": "complete", "xx.": "monotone", "x..": "monotone", "x.x": "intermittent", "...": "nothing measured"}
    assert table["kind"].to_dict() == kinds
    assert table["share"].sum() == pytest.approx(1.0)
    assert table.loc["x.x", ["u", "v"]].tolist() == [1, 1]
    v = found.visits.loc["v"]
    assert v["measured"].tolist() == [3, 1, 1]
    assert v["dropped_out"].tolist() == [0, 1, 1]
    assert v["mean"].tolist() == [7.0, 5.0, 11.0]
    text = " ".join(repr(found).split())
    assert "8 of 18 planned measurements are missing (44.4 %)" in text
    assert "1 subjects were not measured at all" in text


def test_a_model_knows_its_columns_and_what_it_dropped(trial):
    with pytest.warns(FitWarning, match="7 of 17 rows"):
        model = hl.MarginalModel(
            "y ~ time", correlation=hl.CompoundSymmetry(), subject="id", data=trial, missing="drop"
        )
    found = model.missing_data()
    assert found.table.set_index("pattern")["subjects"].to_dict() == {"xxx": 1, "xx.": 1, "x..": 1, "x.x": 2}
    assert found.n_dropped == 7
    assert "The model dropped 7 rows" in " ".join(repr(found).split())
    dropped = hl.dropped_rows(model, trial)
    missing = trial[trial["y"].isna()]
    assert dropped.table.index.tolist() == missing.index.tolist()
    assert set(dropped.table["missing"]) == {"y"}
    assert dropped.columns.loc["y"].tolist() == [7, 7]
    assert dropped.subjects.loc["e"].tolist() == [3, 0]
    assert "of whom 1 lose all rows" in repr(dropped)
    with pytest.raises(DataError, match="other rows"):
        hl.dropped_rows(model, trial.iloc[:5])


def test_rows_dropped_for_a_covariate_say_so(trial):
    data = trial.assign(time=trial["time"].where(trial["id"] != "f"))
    with pytest.warns(FitWarning):
        model = hl.MarginalModel("y ~ time", subject="id", data=data, missing="drop")
    found = hl.dropped_rows(model, data)
    assert found.columns["missing"].to_dict() == {"y": 7, "time": 2}
    assert set(found.table["missing"]) == {"y", "time"}


def test_what_cannot_be_told_is_refused(trial, dental):
    with pytest.raises(SpecificationError, match="its columns are not known"):
        hl.missing_patterns(trial, response="y", subject="id")
    with pytest.raises(DataError, match="one measurement at a visit"):
        hl.missing_patterns(pd.concat([trial, trial]), response="y", subject="id", time="visit")
    with pytest.raises(DataError, match="varies within id"):
        hl.missing_patterns(trial, response="y", subject="id", time="visit", by="time")
    with pytest.raises(SpecificationError, match="column of numbers"):
        hl.missing_patterns(trial, response="arm", subject="id", time="visit")
    rng = np.random.default_rng(0)
    irregular = trial.assign(when=rng.normal(size=len(trial))).pipe(lambda d: pd.concat([d] * 4, ignore_index=True))
    irregular["when"] += rng.normal(size=len(irregular))
    with pytest.raises(DataError, match="planned visits are common"):
        hl.missing_patterns(irregular, response="y", subject="id", time="when")
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    with pytest.raises(SpecificationError, match="does not use a column"):
        model.missing_data(by="sex")
    with pytest.raises(SpecificationError, match="knows its response"):
        hl.missing_patterns(model, response="distance")
    assert model.missing_data().table["kind"].tolist() == ["complete"]


def test_groups_and_times_do_not_overwrite_columns(trial):
    named = trial.assign(arm=trial["arm"].map({"u": "share", "v": "kind"}), mean=trial["time"])
    found = hl.missing_patterns(named, response="y", subject="id", time="mean", by="arm")
    table = found.table.set_index("pattern")
    assert table["share"].sum() == pytest.approx(1.0)
    assert table.loc["xxx", "kind"] == "complete"
    assert table["at share"].sum() + table["at kind"].sum() == 6
    assert found.visits.index.names == ["group", "at mean"]
    assert found.visits.loc["kind", "mean"].tolist() == [7.0, 5.0, 11.0]


def test_tables_without_order_or_rows_are_refused(trial):
    columns = {"response": "y", "subject": "id", "time": "visit"}
    with pytest.raises(DataError, match="nothing was measured"):
        hl.missing_patterns(trial.head(0), **columns)
    for name in ("visit", "id"):
        mixed = trial.assign(**{name: [k if k < 3 else v for k, v in enumerate(trial[name])]})
        with pytest.raises(DataError, match=f"labels of several kinds in '{name}': int, str"):
            hl.missing_patterns(mixed, **columns)


def test_columns_of_dropped_rows_may_have_any_name(trial):
    """Names that the tables use themselves: the data's columns stand under another one."""
    for old, new in (("y", "missing"), ("id", "missing"), ("time", "index"), ("id", "index"), ("id", "dropped")):
        data = trial.rename(columns={old: new})
        who, y, time = ({old: new}.get(name, name) for name in ("id", "y", "time"))
        with pytest.warns(FitWarning):
            model = hl.MarginalModel(f"{y} ~ {time}", subject=who, data=data, missing="drop")
        found = hl.dropped_rows(model, data)
        shown = {c: f"at {c}" if c in ("missing", "index") else c for c in (who, y, time)}
        assert found.table.columns[:2].tolist() == [shown[who], "missing"]
        assert set(found.table.columns) == {"missing", *shown.values()}
        assert found.subject == shown[who] and set(found.table["missing"]) == {y}
        assert (
            found.table[shown[y]].isna().all()
            and found.table[shown[who]].tolist() == data.loc[data[y].isna(), who].tolist()
        )
        assert found.subjects.loc["e"].tolist() == [3, 0]
        assert found.subjects.index.name == ("at dropped" if who == "dropped" else who)
        assert shown[who] in repr(found) and "<table>" in found._repr_html_()


def test_patterns_are_drawn_whatever_the_time_is_called(trial):
    for name in ("mean", "group", "share"):
        renamed = trial.rename(columns={"visit": name})
        found = hl.missing_patterns(renamed, response="y", subject="id", time=name, by="arm")
        assert found.plot(backend="none").viz["measured"] is not None


def test_patterns_of_many_subjects_are_counted_once():
    """By visit and group, against counts by pandas."""
    rng = np.random.default_rng(4)
    wide = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a1", "a2", "a3"]).where(rng.random((400, 3)) > 0.3)
    wide["arm"] = np.where(rng.random(400) < 0.3, "_rank", "kind")
    long = wide.reset_index().melt(["index", "arm"], var_name="visit", value_name="y")
    found = hl.missing_patterns(long, response="y", subject="index", time="visit", by="arm")
    words = wide[["a1", "a2", "a3"]].notna().replace({True: "x", False: "."}).agg("".join, axis=1)
    table = found.table.set_index("pattern")
    counts = pd.crosstab(words, wide["arm"])
    assert table["subjects"].to_dict() == words.value_counts().to_dict()
    for arm, shown in (("_rank", "_rank"), ("kind", "at kind")):
        assert table[shown].to_dict() == counts[arm].to_dict()
        later = wide.loc[wide["arm"] == arm, ["a1", "a2", "a3"]].notna()
        gone = [0, int((later["a1"] & ~later["a2"] & ~later["a3"]).sum()), int((later["a2"] & ~later["a3"]).sum())]
        assert found.visits.loc[arm, "dropped_out"].tolist() == gone
    ranks = table["kind"].map(["complete", "monotone", "intermittent", "nothing measured"].index)
    assert ranks.is_monotonic_increasing


def test_times_that_differ_by_rounding_are_no_two_visits():
    """0.3 and 3 times 0.1: two visits, or two levels, of the same name."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"s": np.repeat(np.arange(20), 4), "k": np.tile(np.arange(1, 5), 20)})
    frame["t"] = np.where(frame["s"] % 2 == 1, (frame["k"] / 10).round(1), frame["k"] * 0.1)
    frame["y"] = rng.normal(size=80)
    with pytest.raises(hl.DataError, match="differ by a rounding error"):
        hl.missing_patterns(frame, response="y", subject="s", time="t")
    for options in ({"correlation": hl.Unstructured("t")}, {"variance": hl.VarIdent("t")}):
        with pytest.raises(hl.DataError, match="rounding error"):
            hl.MarginalModel("y ~ k", subject="s", data=frame, **options)
    rounded = hl.missing_patterns(frame.assign(t=frame["t"].round(6)), response="y", subject="s", time="t")
    assert rounded.table["pattern"].tolist() == ["xxxx"]
