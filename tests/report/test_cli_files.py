"""Files that the command line reads, or refuses to read."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import REML, SIMPLE, refused
from samples import DENTAL

from hierlmm.cli import main
from hierlmm.errors import DataError
from hierlmm.report.read import read_data


def test_formats_give_the_same_fit(dental, tmp_path, capsys):
    plain = dental.assign(sex=dental["sex"].astype(str))
    files = {
        "a.csv": lambda p: plain.to_csv(p, index=False),
        "a.tsv": lambda p: plain.to_csv(p, index=False, sep="\t"),
        "a.csv.gz": lambda p: plain.to_csv(p, index=False),
        "bom.csv": lambda p: plain.to_csv(p, index=False, encoding="utf-8-sig"),
        "german.csv": lambda p: plain.to_csv(p, index=False, sep=";", decimal=","),
        "a.parquet": plain.to_parquet,
        "a.xlsx": lambda p: plain.to_excel(p, index=False),
        "indexed.parquet": lambda p: plain.set_index("subject").to_parquet(p),
    }
    for name, write in files.items():
        write(tmp_path / name)
        assert main(["fit", str(tmp_path / name), DENTAL, *REML]) == 0, name
        out, err = capsys.readouterr()
        assert "432.58" in out, name
        assert f"file {tmp_path / name}" in out
        assert err == ""


@pytest.fixture
def coded_csv(dental, tmp_path):
    def write(label):
        path = tmp_path / "coded.csv"
        columns = {"subject": [label(int(k)) for k in dental["subject"]], "visit": [f"{k:02d}" for k in dental["time"]]}
        dental.assign(**columns).to_csv(path, index=False)
        return str(path)

    return write


@pytest.mark.parametrize("formula", [None, SIMPLE])
def test_labels_with_leading_zeros_stay_apart(coded_csv, formula):
    path = coded_csv(lambda k: "0" * (k % 3) + str(k // 3 + 1))  # 1, 01, 001, 2, 02, ...
    source = read_data(path, formula=formula)
    assert source.frame["subject"].nunique() == 27
    assert "column 'subject' is read as text, because it holds labels with leading zeros" in source.notes[0]
    assert pd.api.types.is_integer_dtype(source.frame["visit"])  # a number, if nothing says that it is a label
    assert read_data(path, ["sex,visit"]).frame["visit"].cat.categories.tolist() == ["00", "02", "04", "06"]


@pytest.mark.parametrize("start", [76561198000000000, 2**63, 10**19 + 2**63, 10**24])
@pytest.mark.parametrize("formula", [None, SIMPLE])
@pytest.mark.parametrize("gap", [False, True])
def test_long_labels_stay_apart(coded_csv, start, formula, gap, capsys):
    path = coded_csv(lambda k: "" if gap and k == 27 else str(start + k))
    source = read_data(path, formula=formula)
    assert source.frame["subject"].nunique() == 27 - gap
    assert ["more than 15 digits" in n for n in source.notes] == [True] * (formula is not None)
    if not gap:
        assert main(["fit", path, SIMPLE, *REML]) == 0
        assert "groups: subject, 27" in capsys.readouterr().out


def test_a_column_of_dates_is_no_factor(dental, tmp_path, capsys):
    path = tmp_path / "dates.csv"
    dental.assign(day=["2020-01-26", "2020-02-26", "2020-03-26", "2020-04-26"] * 27).to_csv(path, index=False)
    command = ["fit", str(path), "distance ~ day + (1 | subject)", *REML]
    assert "covariate 'day' that holds dates as text" in refused(command, capsys)
    assert main([*command, "--categorical", "day"]) == 0


def test_categorical_turns_codes_into_categories(dental_csv, capsys):
    formula = "distance ~ age + (1 | subject)"
    assert main(["fit", str(dental_csv), formula, *REML, "--categorical", "age,sex"]) == 0
    assert "age[T.14]" in capsys.readouterr().out
    message = refused(["fit", str(dental_csv), formula, *REML, "--categorical", "agee"], capsys)
    assert "Did you mean 'age'?" in message


def test_file_named_like_a_dataset_wins(dental, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dental.iloc[:60].to_csv("dental", index=False)
    assert main(["fit", "dental", SIMPLE, *REML]) == 0
    out, err = capsys.readouterr()
    assert "file dental" in out
    assert "Number of obs: 60" in out
    assert "instead of the data set" in err


def test_folder_named_like_a_dataset_does_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("dental").mkdir()
    assert main(["fit", "dental", SIMPLE, *REML]) == 0
    assert "data set 'dental'" in capsys.readouterr().out
    Path("data").mkdir()
    assert "not a folder" in refused(["fit", "data", SIMPLE, *REML], capsys)


def test_missing_values(dental, tmp_path, capsys):
    path = tmp_path / "holes.csv"
    holes = dental.copy()
    holes.loc[[3, 7], "distance"] = np.nan
    holes.to_csv(path, index=False, na_rep="NA")
    message = refused(["fit", str(path), SIMPLE, *REML], capsys)
    assert "distance (2)" in message
    assert "--missing drop" in message
    assert main(["fit", str(path), SIMPLE, *REML, "--missing", "drop"]) == 0
    out, err = capsys.readouterr()
    assert "Number of obs: 106" in out
    assert "Note: 2 of 108 rows were dropped" in err


def test_word_none_is_a_level(dental, tmp_path, capsys):
    path = tmp_path / "levels.csv"
    dental.assign(arm=dental["sex"].map({"Female": "None", "Male": "Drug"})).to_csv(path, index=False)
    assert main(["fit", str(path), "distance ~ arm + time + (1 | subject)", *REML]) == 0
    assert "arm[T.None]" in capsys.readouterr().out


def test_numbers_spoilt_by_a_word_are_pointed_out(dental, tmp_path, capsys):
    path = tmp_path / "spoilt.csv"
    spoilt = dental.astype({"age": object})
    spoilt.loc[4, "age"] = "ten"
    spoilt.to_csv(path, index=False)
    assert main(["fit", str(path), SIMPLE, *REML]) == 0
    assert "column 'age' is text, because 1 of its 108 entries are not numbers (the first: 'ten' in row 5)" in (
        capsys.readouterr().err
    )


BAD_FILES = {
    "empty.csv": (b"", "it is empty"),
    "blank.csv": (b"\n  \n", "it is empty"),
    "names.csv": (b"subject,time,distance\n", "no rows"),
    "ragged.csv": (b"subject,time\n1,2\n1,2,3,4\n", "line 3"),
    "rownames.csv": (b"time,distance\n1,0,20\n2,1,21\n", "more fields than its first line"),
    "zerobased.csv": (b"time,distance\n0,0,20\n1,1,21\n", "more fields than its first line"),
    "many.csv": (b"time,distance\n0,0,20,3\n1,1,21,3\n", "more fields than its first line"),
    "twice.csv": (b"time,time,y\n1,2,3\n", "two columns are named 'time'"),
    "headless.csv": (b"1,2,3\n4,5,6\n", "where the names of the columns are expected"),
    "single.csv": (b"time distance\n1 2\n", "one column only"),
    "binary.csv": (b"a,b\n\0\0\1,2\n", "binary data"),
    "latin.csv": ("größe,y\n1,2\n".encode("latin-1"), "not text in UTF-8"),
    "broken.csv.gz": (gzip.compress(b"a,b\n" + bytes(range(48, 120)) * 99)[:40], "cannot be read"),
    "plain.csv.gz": (b"a,b\n1,2\n", "cannot be read"),
    "broken.parquet": (b"PAR1 or not", "not a Parquet file"),
    "sheet.xlsx": (b"PK", "not an Excel file"),
    "sheet.xls": (b"PK", "files of type '.xls' are not read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_unusable_files(name, tmp_path, capsys):
    content, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    message = refused(["fit", str(tmp_path / name), SIMPLE, *REML], capsys)
    assert reason in message
    assert name in message


def test_parquet_without_pyarrow(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refused(["fit", str(tmp_path / "a.parquet"), SIMPLE, *REML], capsys)
    assert 'pip install "hierlmm[parquet]"' in message


def test_excel_without_openpyxl(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    message = refused(["fit", str(tmp_path / "a.xlsx"), SIMPLE, *REML], capsys)
    assert "needs the package openpyxl" in message and 'pip install "hierlmm[excel]"' in message


def test_a_book_of_several_sheets_says_which_is_read(dental, tmp_path):
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        dental.to_excel(book, sheet_name="growth", index=False)
        dental.head().to_excel(book, sheet_name="notes", index=False)
    read = read_data(str(tmp_path / "a.xlsx"))
    assert read.notes == ("the first of 2 sheets is read, 'growth'.",)
    assert len(read.frame) == len(dental)


def test_text_in_a_sheet_stays_text(tmp_path):
    codes = pd.DataFrame({"id": ["01", "1", "02"], "y": [1.5, 2.0, None], "n": [1, 2, 3], "arm": ["a", "NA", "b"]})
    codes.to_excel(tmp_path / "codes.xlsx", index=False)
    read = read_data(str(tmp_path / "codes.xlsx")).frame
    assert list(read["id"]) == ["01", "1", "02"]
    assert (read["y"].dtype, read["n"].dtype) == (np.float64, np.int64)
    assert read["arm"].isna().tolist() == [False, True, False]


def test_file_that_does_not_exist(dental_csv, capsys):
    wrong = str(dental_csv).replace("growth", "grwth")
    assert "Did you mean 'growth.csv'?" in refused(["fit", wrong, SIMPLE, *REML], capsys)
    assert "no folder" in refused(["fit", str(dental_csv.parent / "no" / "x.csv"), SIMPLE, *REML], capsys)
    assert "on this machine" in refused(["fit", "https://example.org/x.csv", SIMPLE, *REML], capsys)


def test_a_file_that_cannot_be_read_names_the_page_on_files(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError) as refused:
        read_data(str(tmp_path / "empty.csv"))
    assert "hierlmm fit --help" in refused.value.see and "blanks" not in refused.value.see
