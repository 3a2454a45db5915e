"""What the command line refuses, and how it ends when something fails."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest
from command_line import REML, SIMPLE, refused

import hierlmm
from hierlmm.cli import main
from hierlmm.report import run as report_run


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


def test_long_files_with_numbered_columns_are_not_wide(dental, tmp_path):
    path = tmp_path / "long.csv"
    dental.assign(pc1=dental["time"], pc2=dental["age"] ** 2).to_csv(path, index=False)
    assert main(["fit", str(path), "distance ~ pc1 + pc2 + (1 | subject)", *REML]) == 0


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
