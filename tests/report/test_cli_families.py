"""Families on the command line: the fit is that of Python, and what does not fit together is refused."""

from __future__ import annotations

import pandas as pd
import pytest
from command_line import refused

import hierlmm as hl
from hierlmm.cli import main
from hierlmm.families.names import FAMILIES
from hierlmm.report import arguments

POISSON = ["fit", "esoph", "ncases ~ ncontrols + (1 | agegp)", "--quiet", "--family", "poisson"]


def test_the_help_names_every_family():
    assert ", ".join(FAMILIES) == arguments.FAMILIES


def test_counts_by_quadrature_are_those_of_python(tmp_path, capsys):
    assert main([*POISSON, "--n-quadrature", "9", "--out", str(tmp_path), "--no-plots"]) == 0
    said = capsys.readouterr().out
    model = hl.TwoLevelModel.from_formula(POISSON[2], hl.load_dataset("esoph"), family="poisson")
    fit = model.fit_ml(n_quadrature=9)
    assert repr(fit) in said
    written = pd.read_csv(tmp_path / "estimates.csv").set_index("parameter")["estimate"]
    assert written["ncontrols"] == pytest.approx(fit.beta["ncontrols"], rel=1e-12)
    assert (tmp_path / "random_effects_ml.csv").exists()


def test_a_link_trials_and_exposure(tmp_path, capsys):
    data = hl.load_dataset("esoph").assign(total=lambda d: d["ncases"] + d["ncontrols"])
    data.to_csv(tmp_path / "esoph.csv", index=False)
    start = ["fit", str(tmp_path / "esoph.csv"), "ncases ~ 1 + (1 | agegp)", "--quiet", "--family"]
    assert main([*start, "binomial", "--link", "probit", "--trials", "total"]) == 0
    assert "binomial (probit link)" in capsys.readouterr().out
    assert main([*start, "negative_binomial", "--exposure", "total"]) == 0
    assert "offset(log(total))" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--link", "probit"], "the links of this family"),
        (["--n-quadrature", "0"], "--n-quadrature 0"),
        (["--n-quadrature", "5", "--estimators", "gee"], "only ML integrates"),
        (["--estimators", "reml"], "REML of a Poisson model"),
        (["--trials", "n"], "counts no trials"),
        (["--exposure", "nowhere"], "no column of this name"),
        (["--family", "poison"], "there is no such family"),
        (["--family", "bernoulli"], "--family binomial with --trials"),
        (["--family", "gaussian", "--trials", "n"], "counts no trials"),
        (["--family", "gaussian", "--estimators", "ml", "--n-quadrature", "5"], "integrated out exactly"),
    ],
)
def test_what_does_not_fit_together_is_refused(more, words, capsys):
    assert words in refused([*POISSON, *more], capsys)


def test_a_link_needs_a_family(capsys):
    assert "a link belongs to a family" in refused([*POISSON[:4], "--link", "log"], capsys)
