"""The room of one's own table: what is read, what is refused, and that names of columns are text and nothing else."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import os
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from rooms import run

import hierlmm as hl
from hierlmm.app import own_data
from hierlmm.errors import DataError

EVIL = ["<script>alert(1)</script>", '`__import__("os").system("touch x")`', "=cmd|' /C calc'!A0 & {y}"]


def growth(names=("id", "week", "weight"), separator=","):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(12), 4), "week": np.tile(np.arange(4.0), 12)})
    frame["weight"] = 20 + 2 * frame["week"] + np.repeat(rng.normal(size=12), 4) + rng.normal(size=48)
    text = io.StringIO()
    frame.set_axis(list(names), axis=1).to_csv(text, index=False, sep=separator)
    return text.getvalue().encode()


def bomb():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("growth.csv", b"0," * 5_000_000)
    return packed.getvalue()


def test_a_table_is_read_from_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for separator in (",", ";", "\t"):
        source = own_data.read_table("growth.csv", growth(separator=separator))
        assert source.frame.shape == (48, 3)
    assert own_data.guess_columns(source.frame) == {"subject": "id", "time": "week", "outcome": "weight"}
    assert not os.listdir(tmp_path)


BAD = {
    "a web page": (b"<html><body>hello</body></html>", "one column only"),
    "nothing": (b"", "empty"),
    "names only": (b"id,week,weight\n", "no rows"),
    "numbers only": (b"1,2,3\n4,5,6\n", "holds numbers"),
    "a zip": (bomb(), "not text"),
    "a gzip": (gzip.compress(growth()), "not text"),
    "a bzip2": (bz2.compress(growth()), "not text"),
    "null bytes": (b"id,week\n\0\0,1\n", "binary"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not text"),
    "Latin-1": ("id,größe\n1,2\n".encode("latin-1"), "not text in UTF-8"),
    "twice a name": (b"id,week,week\n1,2,3\n", "two columns are named"),
    "ragged": (b"id,week,weight\n1,2,3,4,5\n1,2,3\n", "fields"),
    "too many columns": (b",".join(b"c%d" % k for k in range(300)) + b"\n1\n", "300 columns"),
    "too many rows": (b"a,b\n" + b"1,2\n" * 100_001, "100,002 lines"),
    "too many bytes": (b"a,b\n" + b"1," * 5_000_001, "10.0 MB"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", ["growth.csv", "growth.csv.gz", "../../growth.parquet"])
def test_what_is_no_table_is_refused(what, name):
    content, reason = BAD[what]
    with pytest.raises(DataError) as refused:
        own_data.read_table(name, content)
    assert reason in refused.value.reason
    assert refused.value.remedy and refused.value.see == own_data.SEE


def test_a_file_too_large_to_be_sent_is_refused_by_its_size():
    with pytest.raises(DataError, match=r"200\.0 MB"):
        own_data.read_table("big.csv", b"", 200_000_000)


def test_names_of_columns_are_text(tmp_path, monkeypatch):
    """They stand escaped on the page, and the fit is that of a table with plain names."""
    monkeypatch.chdir(tmp_path)
    evil, plain = (own_data.read_table("t.csv", growth(names)).frame for names in (EVIL, ("id", "week", "weight")))
    names = own_data.guess_columns(evil)
    assert list(names.values()) == EVIL
    found, other = (
        own_data.fit_table(evil, names, "slopes"),
        own_data.fit_table(plain, own_data.guess_columns(plain), "slopes"),
    )
    np.testing.assert_allclose(found.fits["REML"].beta, other.fits["REML"].beta, rtol=1e-12)
    page = own_data.show(found)
    assert "<script" not in page and "&lt;script&gt;" not in re.sub(r"<[^>]*>", "", own_data.show(other))
    assert "&lt;script&gt;" in own_data.refusal(DataError(EVIL[0], "a", "b", "c"), names)
    assert "<script" not in own_data.refusal(DataError(EVIL[0], "a", "b", "c"), names)
    assert not os.listdir(tmp_path)


def test_code_of_a_file_runs(tmp_path, monkeypatch):
    """Also where the name of the file and of the columns hold quotes and worse."""
    monkeypatch.chdir(tmp_path)
    name = "my \"own\" 'data'.csv"
    (tmp_path / name).write_bytes(growth(EVIL))
    frame = own_data.read_table(name, growth(EVIL)).frame
    names = own_data.guess_columns(frame)
    code = own_data.ROOM.code({**own_data.ROOM.read({}), "file": name, "columns": names})
    found = own_data.fit_table(frame, names, "slopes")
    np.testing.assert_allclose(run(code)["reml"].beta, found.fits["REML"].beta, rtol=1e-10)


def test_code_of_an_example():
    values = own_data.ROOM.read({"example": "dental", "random": "intercepts"})
    found, names = own_data.numbers(**values), run(own_data.ROOM.code(values))
    np.testing.assert_allclose(found.fits["REML"].beta, names["reml"].beta, rtol=1e-10)
    np.testing.assert_allclose(found.fits["GEE"].beta_se, names["gee"].beta_se, rtol=1e-8)
    fit = hl.TwoLevelModel.from_formula("distance ~ age + (1 | subject)", hl.load_dataset("dental")).fit_reml()
    assert found.fits["REML"].beta["time"] == pytest.approx(fit.beta["age"])


def test_columns_that_cannot_be_fitted():
    frame = own_data.read_table("t.csv", growth()).frame.assign(word="a", flag=True)
    for names, reason in (
        (("id", "id", "weight"), "its own column"),
        (("id", "week", "word"), "numbers"),
        (("id", "flag", "weight"), "numbers"),
    ):
        with pytest.raises(DataError, match=reason):
            own_data.fit_table(frame, dict(zip(own_data.ROLES, names, strict=True)), "slopes")
    assert own_data.chosen_columns(frame, {"time": "no such", "outcome": "week"})["time"] == "week"


def test_rows_with_missing_values_are_counted():
    frame = own_data.read_table("t.csv", growth()).frame
    frame.loc[[3, 9], "weight"] = np.nan
    found = own_data.fit_table(frame, own_data.guess_columns(frame), "intercepts")
    assert (found.dropped, len(found.data)) == (2, 46)
    assert "2 rows with missing values" in own_data.show(found)


@pytest.mark.parametrize("sent", [None, {}, [], "x", {"name": "a.csv"}, {"name": "a.csv", "content": 7, "size": "x"}])
def test_messages_that_are_no_file(sent):
    pytest.importorskip("shiny")
    from hierlmm.app.own_data_live import _table_of

    found = _table_of(sent)
    assert found["frame"] is None and not found["refused"]
    good = {"name": "a.csv", "content": base64.b64encode(growth()).decode(), "size": len(growth())}
    assert _table_of(good)["frame"].shape == (48, 3)
    assert "not valid" not in _table_of({**good, "content": "%%%"})["refused"]
