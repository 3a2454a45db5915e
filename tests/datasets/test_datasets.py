"""The data sets: counts, known facts, reference levels, files from outside, and wide to long."""

from __future__ import annotations

import csv
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from hierlmm.datasets import describe_dataset, list_datasets, load_dataset, to_long
from hierlmm.errors import DataError, HierlmmError, SpecificationError, UnknownDatasetError

SHIPPED = list(list_datasets().query("ships")["name"])


def raw_rows(stem: str) -> list[dict[str, str]]:
    with (files("hierlmm.datasets") / "data" / f"{stem}.csv").open() as source:
        return list(csv.DictReader(source))


# --- The catalogue ----------------------------------------------------------------------------------------------------


def test_the_list_names_every_data_set_once():
    table = list_datasets()
    assert list(table.columns) == ["name", "rows", "subjects", "subject", "response", "ships", "title"]
    assert table["name"].is_unique
    assert set(table.loc[~table["ships"], "name"]) == {"aids", "prothro"}
    assert {"dental", "sleepstudy", "esoph", "pbc", "rats", "petri", "pastes", "penicillin"} <= set(SHIPPED)
    assert {"dyestuff", "dyestuff2", "rat_pups", "negative_icc", "active"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_data_are_what_the_description_says(name):
    data, about = load_dataset(name), describe_dataset(name)
    assert list(data.columns) == [c.name for c in about.columns]
    assert len(data) == about.rows
    assert data[about.subject].nunique() == about.subjects
    for column in about.columns:
        stated = re.search(r"missing in (\d+) rows", column.meaning)
        assert data[column.name].isna().sum() == (int(stated[1]) if stated else 0), column.name
        if "(reference)" in column.unit:
            reference = data[column.name].cat.categories[0]
            assert column.unit.startswith(f"{reference} (reference)")
            assert not data[column.name].cat.ordered


@pytest.mark.parametrize("name", list(list_datasets()["name"]))
def test_every_name_in_a_suggested_formula_is_a_column(name):
    about = describe_dataset(name)
    words = set(re.findall(r"[a-z_]\w*", about.formula)) - {"log"}
    assert words <= {c.name for c in about.columns}
    assert {about.subject, about.response} <= words


def test_a_description_prints_and_renders():
    about = describe_dataset("dental")
    text, html = repr(about), about._repr_html_()
    for part in ("27 subjects", "distance ~ sex * time + (1 + time | subject)", "[mm]", "Biometrika 51, 313-326"):
        assert part in text
    assert max(map(len, repr(describe_dataset("esoph")).splitlines())) <= 100
    assert "<table" in html
    assert "<td>distance</td>" in html
    assert "low &lt; medium &lt; high" in describe_dataset("rats")._repr_html_()
    with pytest.raises(AttributeError):
        about.rows = 1


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(UnknownDatasetError) as caught:
        load_dataset("Dentall")
    assert "'dental'" in caught.value.remedy
    assert "sleepstudy" in caught.value.remedy
    assert not isinstance(caught.value, KeyError)
    with pytest.raises(HierlmmError):
        describe_dataset(3)


# --- Known facts ------------------------------------------------------------------------------------------------------


def test_dental_means_are_the_published_ones():
    data = load_dataset("dental")
    means = data.pivot_table(index="sex", columns="age", values="distance", observed=True)
    # Potthoff & Roy (1964): 11 girls, 16 boys.
    np.testing.assert_allclose(means.loc["Female"], [21.18, 22.23, 23.09, 24.09], atol=0.006)
    np.testing.assert_allclose(means.loc["Male"], [22.875, 23.8125, 25.71875, 27.46875])
    by_hand = [float(r["y"]) for r in raw_rows("dental") if r["sex"] == "Female" and r["age"] == "8"]
    assert len(by_hand) == 11
    assert means.loc["Female", 8] == pytest.approx(sum(by_hand) / 11)
    assert (data["time"] == data["age"] - 8).all()
    assert data.groupby("subject")["sex"].nunique().eq(1).all()
    assert data["subject"].dtype == np.int64


def test_sleepstudy_is_the_lme4_data():
    data = load_dataset("sleepstudy")
    assert data.groupby("subject").size().eq(10).all()
    assert (data["subject"].min(), data["subject"].max()) == (308, 372)
    slope, intercept = np.polyfit(data["days"], data["reaction"], 1)
    # Balanced data: lme4's fixed effects are the least-squares ones, 251.405 and 10.467.
    assert (intercept, slope) == (pytest.approx(251.405, abs=5e-4), pytest.approx(10.467, abs=5e-4))


def test_the_old_esoph_holds_cases_plus_controls():
    new, old = load_dataset("esoph"), load_dataset("esoph", coding="1980s")
    pd.testing.assert_frame_equal(new, load_dataset("esoph", coding="corrected"))
    assert (new["ncontrols"].sum(), old["ncontrols"].sum(), new["ncases"].sum()) == (775, 975, 200)
    assert (old["ncontrols"] == new["ncontrols"] + new["ncases"]).all()
    assert (old["ncontrols"] != new["ncontrols"]).sum() == 59
    pd.testing.assert_frame_equal(new.drop(columns="ncontrols"), old.drop(columns="ncontrols"))
    assert list(new["tobgp"].cat.categories) == ["0-9g/day", "10-19", "20-29", "30+"]
    assert "975" in repr(describe_dataset("esoph"))


def test_pbc_codes_are_the_right_way_round():
    data = load_dataset("pbc")
    patients = data.drop_duplicates("subject")
    assert patients["trt"].value_counts().to_dict() == {"D-penicillamine": 158, "placebo": 154}
    assert data["sex"].value_counts().to_dict() == {"Female": 1708, "Male": 237}
    np.testing.assert_allclose(data["year"], data["day"] / 365.25)
    first = data.iloc[0]
    assert (first["trt"], first["sex"], first["bili"]) == ("D-penicillamine", "Female", 14.5)


def test_factors_nest_and_cross_as_described():
    pastes, penicillin = load_dataset("pastes"), load_dataset("penicillin")
    assert (pastes["sample"].astype(str) == pastes["batch"].astype(str) + ":" + pastes["cask"].astype(str)).all()
    assert pastes.groupby("sample", observed=False).size().eq(2).all()
    assert pd.crosstab(penicillin["plate"], penicillin["sample"]).eq(1).all(axis=None)
    assert load_dataset("dyestuff")["yield"].mean() == 1527.5
    between, within = (lambda d: (5 * d.mean().var(), d.var().mean()))(
        load_dataset("dyestuff2").groupby("batch", observed=True)["yield"]
    )
    assert between < within


def test_litters_dishes_and_groups():
    pups, petri, rats = load_dataset("rat_pups"), load_dataset("petri"), load_dataset("rats")
    assert pups.groupby("litter")["treatment"].nunique().eq(1).all()
    assert petri.groupby("dish")["group"].nunique().eq(1).all()
    assert list(petri["group"].cat.categories) == ["Control", "A", "B"]
    assert list(rats["activitylevel"].cat.categories) == ["low", "medium", "high"]
    assert rats["activitylevel"].cat.ordered


def test_negative_icc_is_negative():
    data = load_dataset("negative_icc")
    wide = data.pivot_table(index="subject", columns="time", values="y")
    wide = wide - wide.groupby(data.drop_duplicates("subject").set_index("subject")["x"]).transform("mean")
    corr = np.corrcoef(wide.to_numpy(), rowvar=False)
    assert corr[np.triu_indices(4, 1)].mean() == pytest.approx(-0.2, abs=0.1)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_call_returns_a_copy_of_its_own(name):
    data = load_dataset(name)
    response = describe_dataset(name).response
    data[response] = -1
    again = load_dataset(name)
    assert (again[response] != -1).all()


def test_a_coding_that_does_not_exist_is_refused():
    with pytest.raises(SpecificationError, match="corrected"):
        load_dataset("esoph", coding="1970s")
    with pytest.raises(SpecificationError, match="one coding only"):
        load_dataset("dental", coding="1980s")


# --- Files from outside -----------------------------------------------------------------------------------------------

AIDS = """"patient","Time","death","CD4","obstime","drug","gender","prevOI","AZT","start","stop","event"
"1",16.97,0,10.67,0,"ddC","male","AIDS","intolerance",0,6,0
"1",16.97,0,8.42,6,"ddC","male","AIDS","intolerance",6,12,0
"2",19,0,6.32,0,"ddI","female","noAIDS","failure",0,6,0
"""
PROTHRO = """"","id","pro","time","treat","Time","start","stop","death","event"
"1",1,38,0,"prednisone",0.41,0,0.24,1,0
"2",1,31,0.24,"placebo",0.41,0.24,0.41,1,1
"""


@pytest.mark.parametrize("name", ["aids", "prothro"])
def test_what_does_not_ship_says_where_to_get_it(name, monkeypatch, tmp_path):
    monkeypatch.delenv("HIERLMM_DATA", raising=False)
    with pytest.raises(UnknownDatasetError, match="is not set") as caught:
        load_dataset(name)
    assert f'data({name}, package = "JM")' in caught.value.remedy
    assert "HIERLMM_DATA" in caught.value.remedy
    monkeypatch.setenv("HIERLMM_DATA", str(tmp_path))
    with pytest.raises(UnknownDatasetError, match=f"no file {name}.csv"):
        load_dataset(name)
    monkeypatch.setenv("HIERLMM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UnknownDatasetError, match="not a folder"):
        load_dataset(name)
    assert not describe_dataset(name).ships


@pytest.mark.parametrize(
    "text", [AIDS, AIDS.lower().replace("ddc", "ddC").replace("ddi", "ddI").replace('aids"', 'AIDS"')]
)
def test_aids_is_read_as_r_writes_it(text, monkeypatch, tmp_path):
    (tmp_path / "aids.csv").write_text(text)
    monkeypatch.setenv("HIERLMM_DATA", str(tmp_path))
    data = load_dataset("aids")
    assert list(data.columns) == [c.name for c in describe_dataset("aids").columns]
    assert data["subject"].tolist() == [1, 1, 2]
    assert data["drug"].cat.categories.tolist() == ["ddC", "ddI"]
    assert data["prevoi"].tolist() == ["AIDS", "AIDS", "noAIDS"]
    assert data["time"].tolist() == [16.97, 16.97, 19]


def test_prothro_keeps_both_times_apart(monkeypatch, tmp_path):
    (tmp_path / "prothro.csv").write_text(PROTHRO)
    monkeypatch.setenv("HIERLMM_DATA", str(tmp_path))
    data = load_dataset("prothro")
    assert data["time"].tolist() == [0, 0.24]
    assert data["eventtime"].tolist() == [0.41, 0.41]
    assert data["treat"].cat.categories[0] == "placebo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AIDS.replace("CD4", "count"), "Columns are missing: cd4"),
        (AIDS.replace("ddI", "AZT"), "'AZT'; expected: ddC, ddI"),
        (AIDS.replace("10.67", "high"), "'cd4' is not numeric"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_is_refused(text, message, monkeypatch, tmp_path):
    (tmp_path / "aids.csv").write_text(text)
    monkeypatch.setenv("HIERLMM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_dataset("aids")
    assert "aids.csv" in caught.value.received


# --- Wide to long -----------------------------------------------------------------------------------------------------


@pytest.fixture
def wide():
    dental = load_dataset("dental")
    table = dental.pivot_table(index=["subject", "sex"], columns="age", values="distance", observed=True)
    table = table.add_prefix("d").reset_index()
    return table.rename_axis(columns=None)[["sex", "d10", "d8", "d12", "subject", "d14"]]


@pytest.mark.parametrize(
    "values",
    ["d", r"d(\d+)", ["d8", "d10", "d12", "d14"], ["d14", "d8", "d10", "d12"], {f"d{a}": a for a in (10, 8, 12, 14)}],
)
def test_round_trip(wide, values):
    before = wide.copy()
    long = to_long(wide, subject="subject", values=values, time="age", response="distance")
    expected = load_dataset("dental")[["subject", "sex", "age", "distance"]]
    pd.testing.assert_frame_equal(long, expected, check_dtype=False)
    pd.testing.assert_series_equal(long["sex"], expected["sex"])  # still categorical, same reference
    assert long.attrs == {"n_missing": 0, "n_dropped": 0, "n_subjects_dropped": 0}
    pd.testing.assert_frame_equal(wide, before)


def test_the_time_is_transformed_as_asked(wide):
    ages = lambda **kw: to_long(wide, values="d", **kw)["time"].tolist()[:4]  # noqa: E731
    assert ages() == [8.0, 10.0, 12.0, 14.0]
    assert to_long(wide, values="d", names_transform=int)["time"].dtype == np.int64
    assert sorted(ages(names_transform=None)) == ["10", "12", "14", "8"]
    assert ages(names_transform=lambda s: int(s) - 8) == [0, 2, 4, 6]


def test_a_subject_column_is_added_where_there_is_none(wide):
    long = to_long(wide.drop(columns="subject"), values="d")
    assert list(long.columns) == ["subject", "sex", "time", "y"]
    assert long["subject"].tolist() == np.repeat(np.arange(1, 28), 4).tolist()
    assert list(to_long(wide, values="d", keep=[]).columns) == ["subject", "time", "y"]


def test_columns_named_by_numbers_and_hyphens():
    table = pd.DataFrame({-1: [1.0], 0: [2.0], 2: [3.0]})
    assert to_long(table, values=[0, 2, -1])[["time", "y"]].to_numpy().tolist() == [[-1, 1], [0, 2], [2, 3]]
    hyphens = pd.DataFrame({"week-2": [1.0], "week-4": [2.0]})
    with pytest.raises(SpecificationError, match="sign or a hyphen"):
        to_long(hyphens, values=["week-2", "week-4"])
    assert to_long(hyphens, values=["week-2", "week-4"], names_pattern=r"-(\d+)$")["time"].tolist() == [2, 4]


def test_missing_cells_are_kept_or_counted(wide):
    wide.loc[0, ["d8", "d14"]] = np.nan
    wide.loc[3, ["d8", "d10", "d12", "d14"]] = np.nan
    kept = to_long(wide, values="d")
    assert len(kept) == 108
    assert kept["y"].isna().sum() == 6
    assert kept.attrs == {"n_missing": 6, "n_dropped": 0, "n_subjects_dropped": 0}
    with pytest.raises(SpecificationError, match="missing='keep' or missing='drop'"):
        to_long(wide, values="d", missing=True)
    dropped = to_long(wide, values="d", missing="drop")
    assert len(dropped) == 102
    assert dropped["y"].notna().all()
    assert dropped.attrs == {"n_missing": 6, "n_dropped": 6, "n_subjects_dropped": 1}
    assert dropped.index.tolist() == list(range(102))


def test_other_kinds_of_tables_give_the_same(wide):
    pl = pytest.importorskip("polars")
    expected = to_long(wide.assign(sex=wide["sex"].astype(str)), values="d")
    table = pl.DataFrame({c: wide[c].tolist() for c in wide})
    for other in (table, table.lazy(), table.to_arrow()):
        long = to_long(other, values="d")
        assert isinstance(long, pd.DataFrame)
        pd.testing.assert_frame_equal(long, expected, check_dtype=False)
    holes = to_long(pl.DataFrame({"d1": [1, None], "d2": [3, 4]}), values="d")
    assert holes.attrs["n_missing"] == 1
    nullable = pd.DataFrame({"d1": pd.array([1, None], dtype="Int64"), "d2": pd.array([3, 4], dtype="Int64")})
    assert to_long(nullable, values="d")["y"].isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"values": "week"}, SpecificationError, "No column holds measurements"),
        ({}, {"values": ["d8", "d9"]}, SpecificationError, "no such columns"),
        ({}, {"values": "d(("}, SpecificationError, "not a regular expression"),
        ({}, {"values": r"(d)(\d+)"}, SpecificationError, "2 groups"),
        ({}, {"values": ["sex", "d8"]}, SpecificationError, "No time is found"),
        ({}, {"values": ["d8"], "names_pattern": "(d)"}, SpecificationError, "cannot convert"),
        ({}, {"values": {"d8": 1, "d10": 1}}, SpecificationError, "Both would be the measurement at 1"),
        ({}, {"values": {"sex": 0, "d10": 1}}, DataError, "not numeric"),
        ({}, {"values": "d", "time": "sex"}, SpecificationError, "already have"),
        ({}, {"values": "d", "time": "y"}, SpecificationError, "the same"),
        ({}, {"values": "d", "subject": "child"}, SpecificationError, "no such columns"),
        ({}, {"values": "d", "keep": ["age"]}, SpecificationError, "no such columns"),
        ({}, {"values": ["d8", "d10"], "subject": "d8"}, SpecificationError, "cannot name the subject"),
        ({"subject": 7}, {"values": "d"}, DataError, "several: 7"),
        ({"subject": np.nan}, {"values": "d"}, DataError, "27 of its 27"),
    ],
)
def test_wide_data_that_cannot_be_used(wide, change, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        to_long(wide.assign(**change), **options)


def test_what_is_not_a_table_is_refused(wide):
    with pytest.raises(DataError, match="data frame"):
        to_long("d8", values="d")
    with pytest.raises(DataError, match="one column"):
        to_long(pd.concat([wide, wide[["d8"]]], axis=1), values="d")


def test_a_prefix_before_labels_is_answered_with_a_mapping():
    wide = pd.DataFrame({"pat": [1, 2], "y_pre": [1.0, 2.0], "y_post": [3.0, 4.0]})
    with pytest.raises(SpecificationError) as refused:
        to_long(wide, subject="pat", values="y_", response="y")
    assert "('pre', 'post') is no number" in refused.value.reason
    assert "values={'y_pre': 0, 'y_post': 1}" in refused.value.remedy
    assert to_long(wide, subject="pat", values={"y_pre": 0, "y_post": 1}, response="y")["time"].tolist() == [0, 1, 0, 1]
