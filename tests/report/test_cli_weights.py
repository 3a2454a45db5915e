"""Weights and groups on the command line: the fit is that of Python."""

from __future__ import annotations

import pytest
from command_line import refused

import hierlmm as hl
from hierlmm.cli import main

FORMULA = "distance ~ sex * time + (1 + time | subject)"


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (["--weights", "age"], {"weights": "age"}),
        (["--group", "sex"], {"group": "sex"}),
        (["--residual-group", "sex", "--weights", "age"], {"residual_group": "sex", "weights": "age"}),
    ],
)
def test_the_fit_is_that_of_python(said, options, capsys):
    assert main(["fit", "dental", FORMULA, "--quiet", "--estimators", "ml", *said]) == 0
    fit = hl.TwoLevelModel.from_formula(FORMULA, hl.load_dataset("dental"), **options).fit_ml()
    assert repr(fit) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["--weights", "nowhere"], "no column of this name"),
        (["--group", "time"], "--group time"),
        (["--weights", "age", "--family", "poisson"], "--weights age with Poisson"),
    ],
)
def test_what_cannot_be_used_is_refused_in_the_words_of_the_command_line(said, words, capsys):
    assert words in refused(["fit", "dental", FORMULA, "--quiet", "--estimators", "ml", *said], capsys)
