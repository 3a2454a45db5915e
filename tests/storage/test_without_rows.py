"""A fit that was saved without its rows answers what needs none, refuses the rest and says how, and takes them back."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import saved_fits
import walk
from four_parts import refused

import hierlmm as hl

KINDS = ["reml strange", "ml dental", "reml two optima", "reml m car1 varexp", "reml m unstructured varident"]
KINDS += ["reml sleepstudy power", "reml own structure", "gee dental ar1", "gee strange"]
KINDS += ["family poisson", "family binomial", "family ordinal", "family own"]
KINDS += ["nuts dental", "nuts sleepstudy car1", "nuts summary", "nuts marginal"]
ALWAYS = {"print", "html", "beta", "beta_cov", "beta_se", "sigma", "D", "sd_b", "corr_b", "b", "b_sd", "icc"}
ALWAYS |= {
    "summary()",
    "summary(0.8)",
    "variance_components()",
    "warnings",
    "converged",
    "n_obs",
    "n_subjects",
    "frame",
}
OF_LIKELIHOOD = {"optima", "criterion", "loglik", "aic", "bic", "information_criteria()", "gradient_norm", "b_cov"}
OF_LIKELIHOOD |= {"blup_variances()", "summary(satterthwaite)", "is_singular", "optimum", "search"}
OF_GEE = {"standard_errors()", "covariance()", "correlation_parameters", "scale"}
OF_DRAWS = {"draws(beta)", "draws(D)", "draws(corr_b)", "convergence()", "sample_stats", "priors"}
ROWS = {"/observed_data", "/constant_data"}


@pytest.fixture(scope="module")
def fits():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return {name: saved_fits.ALL[name]() for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_what_needs_no_rows_is_the_same_and_the_rest_is_refused(fits, name, tmp_path):
    fit = fits[name]
    path = fit.save(tmp_path / "fit.nc", data=False)
    without = hl.load_fit(path)
    rows = fit.design.frame
    now = walk.answers(without, rows)
    call = f"hl.load_fit('{path}', data=...)"
    costly = {name for name in walk.DERIVED if call in str(now.get(f"{name}()"))}  # refused now, and compared elsewhere
    was = walk.answers(fit, rows, without=frozenset(costly))
    same = {question for question in was if not walk.differing(was[question], now[question])}
    of_kind = OF_LIKELIHOOD if fit.has_likelihood else OF_DRAWS if fit.has_draws else OF_GEE
    assert not (ALWAYS | of_kind) & was.keys() - same
    for question in was.keys() - same - {"datatree"}:
        assert "data=False" in str(now[question]), question
        assert call in str(now[question])
    if fit.has_draws:
        assert {g for g in was["datatree"] if g not in now["datatree"]} == ROWS
        assert not walk.differing({g: was["datatree"][g] for g in now["datatree"]}, now["datatree"])
    refused(lambda: without.predict(rows), hl.NotAvailableError, "data=...")
    whole = walk.answers(hl.load_fit(path, data=rows), without=frozenset(walk.DERIVED))
    assert len(whole) > 40
    told = {question: was[question] for question in whole}
    assert not walk.differing(told, whole), "\n".join(walk.differing(told, whole)[:20])


def test_no_response_and_no_covariate_is_in_the_file(fits, tmp_path):
    for name in ("reml strange", "nuts dental"):
        fit = fits[name]
        held = fit.save(tmp_path / "with.nc", overwrite=True).read_bytes()
        left_out = fit.save(tmp_path / "without.nc", data=False, overwrite=True).read_bytes()
        assert fit.design.y.tobytes() in held
        assert fit.design.y.tobytes() not in left_out
        assert fit.design.X[:, -1].copy().tobytes() not in left_out


def test_it_can_be_copied_and_not_saved_again(fits, tmp_path):
    fit = fits["reml m car1 varexp"]
    without = hl.load_fit(fit.save(tmp_path / "fit.nc", data=False))
    assert repr(copy.deepcopy(without)) == repr(fit)
    refused(lambda: without.save(tmp_path / "again.nc", data=False), hl.NotAvailableError, "data=...")


def as_a_file_gives_it(frame, folder):
    frame.to_csv(folder / "rows.csv", index=False)
    return pd.read_csv(folder / "rows.csv")


def test_the_same_data_in_another_form(dental, tmp_path):
    """From a file, with other columns and types; polars; a categorical of the same order; with the dropped rows."""
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental).fit_reml()
    path = fit.save(tmp_path / "fit.nc", data=False)
    given = [as_a_file_gives_it(dental, tmp_path), pl.from_pandas(dental), dental.assign(sex=dental["sex"].astype(str))]
    given += [dental.astype({"time": float}), dental.assign(sex=pd.Categorical(dental["sex"], ["Female", "Male"]))]
    given += [dental.assign(another=1)]
    for data in given:
        loaded = hl.load_fit(path, data=data)
        assert repr(loaded) == repr(fit)
        assert (loaded.fitted().to_numpy() == fit.fitted().to_numpy()).all()
    model = saved_fits.strange_model
    with pytest.warns(hl.FitWarning, match="dropped"):
        strange = model().fit_reml()
    path = strange.save(tmp_path / "strange.nc", data=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = hl.load_fit(path, data=saved_fits.strange())
    assert loaded.design.n_dropped == strange.design.n_dropped == 4
    assert loaded.fitted().equals(strange.fitted())


def test_other_data_are_refused(dental, tmp_path):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental).fit_reml()
    path = fit.save(tmp_path / "fit.nc", data=False)
    moved = dental.copy()
    moved.loc[50, "distance"] = np.nextafter(moved.loc[50, "distance"], np.inf)
    turned = dental.assign(sex=pd.Categorical(dental["sex"], ["Male", "Female"]))
    changed = {
        "the values (or the order of the levels) of distance": moved,
        "of sex are not": turned,
        "108 rows, and these have 107": dental.iloc[1:],
        "no column of this name": dental.drop(columns="time"),
        "of distance, subject, sex, time are": dental.iloc[::-1],
    }
    for words, data in changed.items():
        refused(lambda data=data: hl.load_fit(path, data=data), hl.DataError, words)
    refused(lambda: hl.load_fit(fit.save(tmp_path / "with.nc"), data=moved), hl.DataError, "of distance")
    refused(lambda: hl.load_fit(path, data=3), hl.DataError, "not a table")
