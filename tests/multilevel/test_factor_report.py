"""Fits with several factors side by side, and on the command line."""

from __future__ import annotations

import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.cli import main
from hierlmm.errors import NotAvailableError

FORMULA = "strength ~ 1 + (1 | batch / cask)"


def test_fits_side_by_side_have_their_factors(pastes, nested):
    model = hl.MultilevelModel.from_formula(FORMULA, pastes)
    both = model.compare("reml", "ml")
    assert both.labels == ["REML", "ML"]
    wide = both.wide()
    assert wide.loc["sd(Intercept | batch)", ("REML", "estimate")] == pytest.approx(nested.sd_b["batch"].iloc[0])
    assert both.statistics.loc["groups of batch:cask", "ML"] == 30 and "subjects" not in both.statistics.index
    assert "sd(Intercept | batch:cask)" in repr(both) and both.plot_forest(backend="none") is not None
    for draw in (both.plot_random_effects, both.plot_trajectories, both.plot_shrinkage):
        with pytest.raises(NotAvailableError, match="several grouping factors"):
            draw(backend="none")
    for name in ("gee", "bambi"):
        with pytest.raises(NotAvailableError, match="MultilevelModel"):
            model.compare(name)


def test_the_command_line_fits_several_factors(tmp_path, capsys):
    assert main(["fit", "pastes", FORMULA, "--estimators", "reml", "--out", str(tmp_path), "--no-plots", "-q"]) == 0
    said = capsys.readouterr().out
    assert (
        "β₀[batch:cask] = β₀₀[batch] + b₀[batch:cask]" in said and "batch:cask  Intercept    8.4337    2.9041" in said
    )
    assert "Fit with" not in said
    effects = pd.read_csv(tmp_path / "random_effects_reml.csv")
    assert list(effects) == ["factor", "group", "term", "estimate", "sd"] and len(effects) == 40
    assert main(["fit", "pastes", FORMULA, "--weights", "cask", "-q"]) == 2
    assert "--weights with several grouping factors" in capsys.readouterr().err
    rows = pd.DataFrame({"k": [1, 0, 2, 1] * 3, "n": [2, 3] * 6, "a": [1, 1, 1, 2, 2, 2] * 2, "b": [1, 2, 3] * 4})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    trials = [str(tmp_path / "rows.csv"), "k ~ 1 + (1 | a) + (1 | b)", "--family", "binomial", "--trials", "n", "-q"]
    assert main(["fit", *trials]) == 0
    said = capsys.readouterr().out
    assert "Family: binomial (logit link)" in said and "Fit with" not in said
    assert main(["datasets", "penicillin"]) == 0
    assert "Fit it:  hierlmm fit penicillin" in capsys.readouterr().out
