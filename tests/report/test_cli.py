"""The command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hierlmm
from hierlmm.cli import main
from hierlmm.report import run as report_run
from hierlmm.report.progress import Progress, duration
from hierlmm.report.read import read_data
from hierlmm.report.run import run

FORMULA = "distance ~ sex * time + (1 + time | subject)"
SIMPLE = "distance ~ time + (1 | subject)"
REML = ["--estimators", "reml", "--quiet"]


def refused(argv, capsys):
    """Run a command that must end in a four-part message; return the message."""
    assert main(argv) == 2
    message = capsys.readouterr().err
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in message
    assert "Traceback" not in message
    return message


@pytest.fixture(scope="module")
def nuts(tmp_path_factory):
    """One short run of both estimators, from a file to a folder."""
    folder = tmp_path_factory.mktemp("nuts")
    out, err = StringIO(), StringIO()
    arguments = ["--draws", "60", "--tune", "60", "--chains", "2", "--seed", "3", "--ci", "0.9"]
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["fit", "dental", FORMULA, "--out", str(folder / "made" / "here"), *arguments])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), folder=folder / "made" / "here")


@pytest.fixture
def dental_csv(dental, tmp_path):
    path = tmp_path / "growth.csv"
    dental.to_csv(path, index=False)
    return path


# --- help, version, data sets ---


def test_module_prints_help_in_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "hierlmm", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("fit", "demo", "datasets", "exit codes", "examples"):
        assert word in done.stdout


def test_usage_error_names_what_is_required(capsys):
    assert main(["fit"]) == 2
    assert "required: DATA_OR_FILE, FORMULA\n" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom hierlmm.cli import main\nmain(['fit', '--help'])\n"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'pandas', 'pymc', 'matplotlib', 'arviz')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_version_and_no_command(capsys):
    import hierlmm

    assert main(["--version"]) == 0
    assert hierlmm.__version__ in capsys.readouterr().out
    assert main([]) == 0
    assert "hierlmm demo" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "demo", "datasets"])
def test_help_of_commands(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: hierlmm " + command in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_usage_error_is_2(capsys):
    assert main(["fit"]) == 2
    assert "See hierlmm fit --help" in capsys.readouterr().err
    assert main(["fit", "dental", SIMPLE, "--draws", "many"]) == 2


def test_datasets_are_listed(capsys):
    from hierlmm.datasets.catalogue import catalogue

    assert main(["datasets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in catalogue())


def test_dataset_is_described_with_the_next_command(capsys):
    assert main(["datasets", "dental"]) == 0
    assert f"hierlmm fit dental '{FORMULA}' --out dental-output" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pastes", "penicillin"])
def test_dataset_beyond_two_levels_suggests_no_command(name, capsys):
    assert main(["datasets", name]) == 0
    assert "hierlmm fit" not in capsys.readouterr().out


def test_unknown_dataset_to_describe(capsys):
    assert "sleepstudy" in refused(["datasets", "sleepstud"], capsys)


# --- one estimator ---


def test_reml_prints_hierarchy_and_fit(capsys):
    assert main(["fit", "dental", FORMULA, "--estimators", "reml"]) == 0
    out, err = capsys.readouterr()
    assert out.index("data set 'dental'") < out.index("Level 2: between subjects") < out.index("fitted by REML")
    assert "432.58" in out
    assert "Side by side" not in out
    assert ".fit_reml()" not in out
    assert "Fitting by REML" in err
    assert "Nothing was written" in err


def test_quiet_leaves_standard_error_empty(capsys):
    assert main(["fit", "dental", SIMPLE, *REML]) == 0
    assert capsys.readouterr().err == ""


def test_reml_writes_a_folder(tmp_path, capsys):
    folder = tmp_path / "results"
    assert main(["fit", "dental", FORMULA, *REML, "--out", str(folder)]) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.txt",
        "estimates.csv",
        "summary_reml.txt",
        "random_effects_reml.csv",
        "forest.png",
        "trajectories.png",
        "random_effects.png",
    }
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    estimates = pd.read_csv(folder / "estimates.csv").set_index("parameter")
    assert estimates.loc["time", "estimate"] == pytest.approx(0.4795455, abs=1e-6)
    effects = pd.read_csv(folder / "random_effects_reml.csv")
    assert list(effects.columns) == ["subject", "term", "estimate", "sd"]
    assert len(effects) == 54
    for plot in folder.glob("*.png"):
        assert plot.read_bytes().startswith(b"\x89PNG")


def test_comparison_of_likelihood_fits_without_plots(tmp_path, capsys):
    arguments = ["--estimators", "REML, ml,reml", "--out", str(tmp_path), "--no-plots", "--quiet"]
    assert main(["fit", "dental", SIMPLE, *arguments]) == 0
    assert not list(tmp_path.glob("*.png"))
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert list(table["estimator"].unique()) == ["REML", "ML"]
    assert "Side by side" in capsys.readouterr().out


def test_files_of_an_earlier_run_are_named(tmp_path, capsys):
    out = ["--out", str(tmp_path), "--no-plots"]
    assert main(["fit", "dental", SIMPLE, "--estimators", "reml,ml", *out]) == 0
    (tmp_path / "mine.txt").write_text("keep")
    capsys.readouterr()
    assert main(["fit", "dental", SIMPLE, "--estimators", "ml", *out]) == 0
    note = next(line for line in capsys.readouterr().err.splitlines() if "earlier run" in line)
    assert "comparison.csv" in note
    assert "summary_reml.txt" in note
    assert "summary_ml.txt" not in note
    assert "mine.txt" not in note
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_covariance_option(capsys):
    assert main(["fit", "dental", FORMULA, *REML, "--covariance", "diagonal"]) == 0
    assert "variances without correlations" in capsys.readouterr().out


# --- NUTS beside REML ---


def test_short_chains_end_in_3_and_are_written(nuts):
    assert nuts.code == 3
    assert "did not converge" in nuts.err
    assert "--target-accept" in nuts.err
    expected = {"comparison.csv", "comparison.html", "summary_nuts.txt", "summary_reml.txt", "posterior.nc"}
    expected |= {"random_effects_nuts.csv", "forest.png", "trajectories.png", "random_effects.png"}
    assert expected <= {path.name for path in nuts.folder.iterdir()}


def test_results_come_in_reading_order(nuts):
    marks = ["Level 1: within subject", "fitted by REML", "posterior by NUTS", "Side by side", "Written to"]
    assert [nuts.out.index(m) for m in marks] == sorted(nuts.out.index(m) for m in marks)
    assert "Traceback" not in nuts.err
    assert "Sampling by NUTS" in nuts.err
    assert "seed 3" in nuts.err


def test_comparison_has_nuts_as_reference(nuts):
    table = pd.read_csv(nuts.folder / "comparison.csv")
    assert list(table["estimator"].unique()) == ["NUTS", "REML"]
    assert (table.loc[table["estimator"] == "NUTS", "difference"] == 0).all()


def test_intervals_have_the_probability_asked_for(nuts, dental):
    import hierlmm as hl

    table = pd.read_csv(nuts.folder / "comparison.csv").query("estimator == 'REML'").set_index("parameter")
    summary = hl.TwoLevelModel.from_formula(FORMULA, dental).fit_reml().summary(ci=0.9)
    np.testing.assert_allclose(table.loc[summary.index, "upper"], summary["upper"], rtol=1e-5)
    assert "Intervals at 90 %" in (nuts.folder / "summary_reml.txt").read_text(encoding="utf-8")


def test_html_stands_alone(nuts):
    page = (nuts.folder / "comparison.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Level 2" in page
    assert "REML" in page
    assert not any(word in page for word in ("http://", "https://", "<script", "<link", "<img"))


def test_posterior_comes_back(nuts):
    import arviz as az

    tree = az.from_netcdf(nuts.folder / "posterior.nc")
    assert tree["posterior"]["beta"].sizes == {"chain": 2, "draw": 60, "coef": 4}
    assert list(tree["posterior"]["term"].to_numpy()) == ["Intercept", "time"]
    assert "diverging" in tree["sample_stats"]
    assert tree.attrs["seed"] == 3


def test_netcdf_without_what_it_cannot_hold(tmp_path):
    import xarray as xr

    from hierlmm.report.write import write_netcdf

    message = np.array([None, "lost", {}], dtype=object)
    stats = xr.Dataset({"energy": ("draw", np.arange(3.0)), "message": ("draw", message)}, attrs={"settings": {"a": 1}})
    names = xr.Dataset({"x": ("who", np.ones(2))}, coords={"who": np.array(["Anna", "Bo"], dtype=object)})
    path = tmp_path / "x.nc"
    for _ in range(2):  # an earlier file is replaced
        write_netcdf(xr.DataTree.from_dict({"sample_stats": stats, "posterior": names}), path)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert list(tree["sample_stats"].data_vars) == ["energy"]
        assert list(tree["posterior"]["who"].to_numpy()) == ["Anna", "Bo"]


def test_demo(dental_posterior, monkeypatch, tmp_path, capsys):
    asked, real = {}, report_run.fit_by

    def fit_by(name, model, **options):
        return (asked.update(options) or dental_posterior) if name == "nuts" else real(name, model)

    monkeypatch.setattr(report_run, "fit_by", fit_by)
    code = main(["demo", "--out", str(tmp_path / "demo"), "--no-plots"])
    out, err = capsys.readouterr()
    assert code == (0 if dental_posterior.converged else 3)
    assert asked["seed"] == 1
    assert "β₁ᵢ = β₁₀ + β₁₁·sex[Male] + b₁ᵢ" in out
    assert "Side by side" in out
    assert "model.compare(" in out
    assert "Finished after" in err
    assert (tmp_path / "demo" / "comparison.csv").exists()


def test_bambi_that_cannot_express_the_model_is_a_note(tmp_path, capsys):
    assert main(["fit", "dental", FORMULA, "--estimators", "reml,bambi", "--quiet"]) == 0
    assert "Bambi is not shown: Bambi has no correlations" in capsys.readouterr().err
    assert "use --estimators" in refused(["fit", "dental", FORMULA, "--estimators", "bambi", "--quiet"], capsys)


# --- reading files ---


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
        assert main(["fit", str(tmp_path / name), FORMULA, *REML]) == 0, name
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


# --- refusing ---


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


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("distance ~ age in years + (1 | subject)", "unless the name stands in backticks"),
        ("distance ~ sex * age  in years + (1 | subject)", "unless the name stands in backticks"),
        ("distance ~  + (1 | subject)", "in double quotes the shell runs"),
        ("distance ~ sex * + (1 | subject)", "in double quotes the shell runs"),
        ("distance ~ sex + (1 +  | subject)", "in double quotes the shell runs"),
    ],
)
def test_names_with_blanks(dental, tmp_path, formula, reason, capsys):
    path = tmp_path / "growth.csv"
    dental.rename(columns={"age": "age in years"}).to_csv(path, index=False)
    message = refused(["fit", str(path), formula, *REML], capsys)
    assert reason in message
    assert "hierlmm fit DATA 'y ~ `age in years` + (1 | subject)'" in message
    for right in ("sex ** 2 + `age in years` + (1 | subject)", "sex + (`age in years` || subject)"):
        assert main(["fit", str(path), f"distance ~ {right}", *REML]) == 0


@pytest.mark.parametrize(
    ("formula", "rename"),
    [
        ("weight ~ time + (1 | id)", "weight.{}"),
        ("d8 ~ 1 + (1 | id)", "d{}"),
        ("y ~ time + (1 | subject)", "score_{}"),
    ],
)
def test_wide_files_get_the_call_that_makes_them_long(dental, tmp_path, formula, rename, monkeypatch, capsys):
    wide = dental.pivot_table(index="subject", columns="age", values="distance").rename(columns=rename.format)
    wide = wide.reset_index().rename(columns={"subject": "id"})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    message = refused(["fit", str(tmp_path / "wide.csv"), formula, *REML], capsys)
    assert "a wide file: 27 rows" in message and rename.format(8) in message
    call = re.search(r"(hl\.to_long\(.*index=False\))", message)[1]
    monkeypatch.chdir(tmp_path)
    eval(call, {"hl": hierlmm, "data": wide})
    long = pd.read_csv("long.csv")
    assert sorted(long["time"].unique()) == [8, 10, 12, 14] and len(long) == len(dental)
    response = next(name for name in long.columns if name in ("weight", "d", "score"))
    subject = "id" if "id)" in formula else "subject"
    assert main(["fit", "long.csv", f"{response} ~ time + (1 | {subject})", *REML]) == 0


def test_text_in_a_sheet_stays_text(tmp_path):
    codes = pd.DataFrame({"id": ["01", "1", "02"], "y": [1.5, 2.0, None], "n": [1, 2, 3], "arm": ["a", "NA", "b"]})
    codes.to_excel(tmp_path / "codes.xlsx", index=False)
    read = read_data(str(tmp_path / "codes.xlsx")).frame
    assert list(read["id"]) == ["01", "1", "02"]
    assert (read["y"].dtype, read["n"].dtype) == (np.float64, np.int64)
    assert read["arm"].isna().tolist() == [False, True, False]


def test_long_files_with_numbered_columns_are_not_wide(dental, tmp_path):
    path = tmp_path / "long.csv"
    dental.assign(pc1=dental["time"], pc2=dental["age"] ** 2).to_csv(path, index=False)
    assert main(["fit", str(path), "distance ~ pc1 + pc2 + (1 | subject)", *REML]) == 0


def test_examples_of_the_help_stand_in_single_quotes(capsys):
    for arguments in (["--help"], ["fit", "--help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert "hierlmm fit" in text and '"' not in text


def test_file_that_does_not_exist(dental_csv, capsys):
    wrong = str(dental_csv).replace("growth", "grwth")
    assert "Did you mean 'growth.csv'?" in refused(["fit", wrong, SIMPLE, *REML], capsys)
    assert "no folder" in refused(["fit", str(dental_csv.parent / "no" / "x.csv"), SIMPLE, *REML], capsys)
    assert "on this machine" in refused(["fit", "https://example.org/x.csv", SIMPLE, *REML], capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["dentl", SIMPLE], "Did you mean 'dental'?"),
        (["dental", "distance ~ timme + (1 | subject)"], "Did you mean 'time'?"),
        (["dental", "distance + time"], "a '~'"),
        (["dental", "distance ~ time + (1 | subject"], "do not match"),
        (["dental", "distance", "~", "time"], "in single quotes"),
        (["dental", SIMPLE, "--estimators", "nuts,rmel"], "Did you mean 'reml'?"),
        (["dental", SIMPLE, "--estimators", ","], "names no estimator"),
        (["dental", SIMPLE, "--covariance", "round"], "use one of 'unstructured'"),
        (["dental", SIMPLE, "--missing", "ignore"], "use --missing raise or --missing drop"),
        (["dental", SIMPLE, "--ci", "95"], "between 0 and 1"),
        (["dental", SIMPLE, "--target-accept", "1"], "--target-accept 1"),
        (["dental", SIMPLE, "--draws", "0"], "--draws 0"),
        (["dental", SIMPLE, "--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_arguments(arguments, reason, capsys):
    assert reason in refused(["fit", *arguments], capsys)


def test_an_earlier_name_of_an_option_is_refused_with_the_one_to_use(capsys):
    assert main(["fit", "dental", SIMPLE, "--method", "reml"]) == 2
    assert "--method is called --estimators now: --estimators reml" in capsys.readouterr().err


def test_out_that_is_a_file(dental_csv, capsys):
    for command in (["fit", "dental", SIMPLE], ["demo"]):
        assert "this is a file" in refused([*command, "--out", str(dental_csv)], capsys)
    assert "cannot be written to" in refused(["demo", "--out", str(dental_csv / "below")], capsys)
    assert dental_csv.read_text().startswith("subject")


def test_unexpected_failure(monkeypatch, capsys):
    def fail(name, model):
        raise ZeroDivisionError("somewhere\ndeep")

    monkeypatch.setattr(report_run, "fit_by", fail)
    assert main(["fit", "dental", SIMPLE, *REML]) == 1
    message = capsys.readouterr().err
    assert "ZeroDivisionError: somewhere deep" in message
    assert "--debug" in message
    assert "Traceback" not in message
    assert main(["fit", "dental", SIMPLE, *REML, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def stop(name, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_run, "fit_by", stop)
    assert main(["fit", "dental", SIMPLE, *REML]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_interrupt_that_a_library_swallows(monkeypatch, capsys):
    import signal

    real = report_run.fit_by

    def swallow(name, model):
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            return real(name, model)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(report_run, "fit_by", swallow)
    assert main(["fit", "dental", SIMPLE, *REML]) == 130
    assert "fitted by REML" not in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_reader_that_leaves_early():
    script = f"{sys.executable!r} -m hierlmm datasets | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_warnings_of_libraries_are_for_debug(monkeypatch, capsys):
    real = report_run.fit_by

    def noisy(name, model):
        warnings.warn("an old function", stacklevel=1)
        return real(name, model)

    monkeypatch.setattr(report_run, "fit_by", noisy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["fit", "dental", SIMPLE, *REML]) == 0
        assert caught == []
        assert main(["fit", "dental", SIMPLE, *REML, "--debug"]) == 0
        assert [str(w.message) for w in caught] == ["an old function"]
    assert capsys.readouterr().err == ""


# --- progress ---


def test_progress_lines_outside_a_terminal(monkeypatch):
    monkeypatch.setattr("hierlmm.report.progress.HEARTBEAT", 0.02)
    stream = StringIO()
    progress = Progress(stream=stream)
    with progress.step("Sampling"):
        time.sleep(0.2)
    progress.note("look")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("s] Sampling")
    assert "still at work" in lines[1]
    assert lines[-1] == "Note: look"
    assert not progress.interactive


def test_progress_in_a_terminal(monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(stream=stream)
    assert progress.interactive
    with progress.step("Reading [the] data"):
        pass
    with progress.step("Sampling", animate=False):
        pass
    assert "Reading [the] data" in stream.getvalue()
    assert "Sampling" in stream.getvalue()
    assert not Progress(stream=stream, quiet=True).interactive


@pytest.mark.parametrize(("seconds", "text"), [(0.26, "0.3 s"), (59.94, "59.9 s"), (72.4, "1 min 12 s")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plot_that_cannot_be_drawn_is_a_note(dental, monkeypatch, tmp_path, capsys):
    from hierlmm import TwoLevelModel
    from hierlmm.comparison.compare import Comparison
    from hierlmm.errors import SpecificationError

    def refuse(self, **options):
        raise SpecificationError("a plot", "there is nothing to draw", "leave it")

    monkeypatch.setattr(Comparison, "plot_trajectories", refuse)
    model = TwoLevelModel.from_formula(SIMPLE, dental)
    progress = Progress(quiet=True)
    assert run(model, ["reml"], sampling={}, ci=0.95, folder=tmp_path, plots=True, progress=progress) == []
    assert "trajectories.png was not drawn: there is nothing to draw." in capsys.readouterr().err
    assert not (tmp_path / "trajectories.png").exists()
    assert (tmp_path / "forest.png").exists()
