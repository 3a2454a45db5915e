"""``hierlmm report`` and ``--report``: one page, of models with residual structures and of marginal models."""

from __future__ import annotations

import pytest
from command_line import refused

import hierlmm as hl
from hierlmm.cli import main

HIERARCHY = "distance ~ sex * time + (1 | subject)"


def test_a_page_of_a_marginal_model_by_two_estimators(tmp_path, capsys):
    path = tmp_path / "growth.html"
    said = ["--subject", "subject", "--residual", "car1:time", "--estimators", "reml,gee", "--quiet"]
    assert main(["report", "dental", "distance ~ sex * time", *said, "--out", str(path)]) == 0
    printed, text = capsys.readouterr().out, path.read_text(encoding="utf-8")
    dental = hl.load_dataset("dental")
    model = hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental, correlation=hl.CAR1("time"))
    assert repr(model.fit_reml()) in printed and str(path) in printed
    assert "load_dataset(&#39;dental&#39;)" in text and "correlation=hl.CAR1(&#39;time&#39;)" in text
    assert "unexpected failure" not in text and "GEE" in text


def test_residual_structures_are_those_of_python(capsys):
    said = ["--residual", "CAR1:time", "--residual-variance", "varident:sex", "--estimators", "ml", "--quiet"]
    assert main(["fit", "dental", HIERARCHY, *said]) == 0
    options = {"residual": hl.CAR1("time"), "residual_variance": hl.VarIdent("sex")}
    fit = hl.TwoLevelModel.from_formula(HIERARCHY, hl.load_dataset("dental"), **options).fit_ml()
    assert repr(fit) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["--residual", "car2:time"], "car1"),
        (["--residual", "exponential"], "--residual exponential:COLUMN"),
        (["--residual-variance", "varpowre:age"], "varpower"),
        (["--report", "growth.pdf"], "growth.html"),
        (["--subject", "subject", "--covariance", "diagonal"], "--covariance with --subject"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_fitted(said, words, capsys):
    assert words in refused(["fit", "dental", HIERARCHY, "--quiet", "--estimators", "ml", *said], capsys)
