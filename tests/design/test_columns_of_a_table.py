"""What a table from a spreadsheet may hold: cells without rows, numbers as text, truth values as response."""

from __future__ import annotations

import pytest

import hierlmm as hl


def model(formula, data, **options):
    return hl.MarginalModel(formula, subject="subject", data=data, **options)


@pytest.fixture(scope="module")
def visits(dental):
    return dental.assign(visit="v" + dental["age"].astype(str))


@pytest.mark.parametrize("formula", ["distance ~ sex * visit", "distance ~ sex:visit", "distance ~ visit * C(sex)"])
def test_a_cell_without_rows_is_named(visits, formula):
    data = visits[(visits["sex"] == "Female") | (visits["age"] != 10)]
    with pytest.raises(hl.DataError) as caught:
        model(formula, data)
    said = str(caught.value)
    assert "no row has" in said and "sex 'Male'" in said and "visit 'v10'" in said and "more)" not in said


def test_how_many_other_cells_and_none_where_all_exist(visits):
    data = visits[(visits["sex"] == "Female") | (visits["age"] < 12)]
    with pytest.raises(hl.DataError, match=r"no row has sex 'Male' and age 12 \(nor 1 more\)"):
        model("distance ~ sex * C(age)", data)
    with pytest.raises(hl.DataError) as caught:
        model("distance ~ sex * visit + again", visits.assign(again=visits["visit"]))
    assert "no row has" not in str(caught.value)


def test_numbers_as_text_are_seen(dental):
    as_text = dental.assign(time=dental["time"].astype(float).astype(str))
    with pytest.raises(hl.DataError, match=r"data\['time'\] = pd\.to_numeric\(data\['time'\]\)"):
        model("distance ~ sex * time", as_text)
    comma = as_text.assign(time=as_text["time"].str.replace(".", ",", regex=False))
    with pytest.raises(hl.DataError, match=r"pd\.to_numeric\(data\['time'\]\.str\.replace\(',', '\.'\)\)"):
        model("distance ~ sex * time", comma)


@pytest.mark.parametrize("name", ["whole numbers", "stated labels", "labels with points"])
def test_labels_may_look_like_numbers(dental, name):
    text = dental["time"].astype(float).astype(str)
    column = {"whole numbers": dental["age"].astype(str), "stated labels": text, "labels with points": "v" + text}[name]
    term = "C(z)" if name == "stated labels" else "z"
    assert len(model(f"distance ~ {term}", dental.assign(z=column)).design.coef) == 4


def test_truth_values_are_no_normal_response(dental):
    data = dental.assign(large=dental["distance"] > 24)
    with pytest.raises(hl.DataError, match=r"astype\(int\)[\s\S]*family='bernoulli'"):
        model("large ~ sex", data)
    model("large ~ sex", data.assign(large=data["large"].astype(int)))
