"""What a command prints and what it writes to a folder."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import REML, SIMPLE, refused
from samples import DENTAL

from hierlmm.cli import main
from hierlmm.report import run as report_run
from hierlmm.report.progress import Progress
from hierlmm.report.run import run


@pytest.fixture(scope="module")
def nuts(tmp_path_factory):
    """One short run of both estimators, from a file to a folder."""
    folder = tmp_path_factory.mktemp("nuts")
    out, err = StringIO(), StringIO()
    arguments = ["--draws", "60", "--tune", "60", "--chains", "2", "--seed", "3", "--ci", "0.9"]
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["fit", "dental", DENTAL, "--out", str(folder / "made" / "here"), *arguments])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), folder=folder / "made" / "here")


# --- one estimator ---


def test_reml_prints_hierarchy_and_fit(capsys):
    assert main(["fit", "dental", DENTAL, "--estimators", "reml"]) == 0
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
    assert main(["fit", "dental", DENTAL, *REML, "--out", str(folder)]) == 0
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
    assert main(["fit", "dental", DENTAL, *REML, "--covariance", "diagonal"]) == 0
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
    summary = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_reml().summary(ci=0.9)
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
    assert main(["fit", "dental", DENTAL, "--estimators", "reml,bambi", "--quiet"]) == 0
    assert "Bambi is not shown: Bambi has no correlations" in capsys.readouterr().err
    assert "use --estimators" in refused(["fit", "dental", DENTAL, "--estimators", "bambi", "--quiet"], capsys)


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
