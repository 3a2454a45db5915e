"""Curves of effects: against R, predictions and marginal means; of every kind of fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cirrhosis_trial import FORMULA, HELD, published_copy
from references import reference
from scipy import stats

import hierlmm as hl
from hierlmm.errors import FitWarning, NotAvailableError

# Against R ----------------------------------------------------------------------------------------------------------


def on_the_grid_of(fit, ref, **options):
    """Our curves at the rows of an R grid, in its order."""
    rows = pd.DataFrame(ref["grid"])
    at = {v: rows[v].unique().tolist() for v in ("year", "age", "basepro")}
    table = fit.effects("year", by="sex", at=at, df="normal", **options).table
    keys = [v for v in ("year", "sex", "age", "basepro") if v in table]
    return rows.merge(table.astype({"sex": str}), on=keys, how="left", validate="one_to_one")


@pytest.mark.parametrize("name", ["pbcseq", "pbc2"])
@pytest.mark.parametrize("part", ["inside", "beyond"])
def test_curve_and_limits_against_r(name, part, cirrhosis, pbc):
    if name == "pbc2":
        cirrhosis = hl.TwoLevelModel.from_formula(FORMULA, published_copy()).fit_reml()
    ref = reference(f"{name}_curve", "effect_plots")[part]
    if part == "beyond":
        with pytest.warns(FitWarning, match="extrapolated: year from -1 to 18, data from 0 to 14.1"):
            table = on_the_grid_of(cirrhosis, ref)
        rows = zip(ref["grid"]["year"], ref["grid"]["sex"], strict=True)  # the last man was seen before year 14
        assert table["extrapolated"].tolist() == [x in (-1, 18) or (x, sex) == (14, "male") for x, sex in rows]
    else:
        table = on_the_grid_of(cirrhosis, ref)
        assert not table["extrapolated"].any()
    for ours, theirs in (("estimate", "pred"), ("se", "se")):
        np.testing.assert_allclose(table[ours], ref[theirs], atol=1e-5, rtol=0)
    # R's file has 1.96 for the quantile, 3.6e-5 more than it is.
    exact = 1.96 / stats.norm.ppf(0.975)
    for ours, theirs in (("lower", "low"), ("upper", "upp")):
        limit = table["estimate"] + exact * (table[ours] - table["estimate"])
        np.testing.assert_allclose(limit, ref[theirs], atol=1e-5, rtol=0)


def test_curve_of_nlme_before_the_optimum():
    ref = reference("pbc_effectplot_grid", "splines")
    fit = hl.TwoLevelModel.from_formula(FORMULA, published_copy()).fit_reml()
    table = on_the_grid_of(fit, ref)
    for ours, theirs in (("estimate", "pred"), ("lower", "low"), ("upper", "upp")):
        np.testing.assert_allclose(table[ours], ref[theirs], atol=1e-4, rtol=0)


# The curves ---------------------------------------------------------------------------------------------------------


def test_curves_are_predictions(cirrhosis, gee):
    for one, variable, held in ((cirrhosis, "year", HELD), (gee, "time", {})):
        curves = one.effects(variable, by="sex", at=held, n=7, df="normal")
        table = curves.table
        rows = table[[variable, "sex"]].assign(**curves.held)
        expected = one.predict(rows, level="population", interval="confidence")
        np.testing.assert_allclose(table["estimate"], expected["estimate"], rtol=1e-12)
        np.testing.assert_allclose(table["se"], expected["se"], rtol=1e-9)
        half = stats.norm.ppf(0.975) * table["se"]
        np.testing.assert_allclose(table["upper"] - table["estimate"], half, rtol=1e-9)


def test_means_are_points_of_the_curve(cirrhosis):
    """Averaged factors, held means and Satterthwaite's quantiles are those of marginal means."""
    curves = cirrhosis.effects("year", at={"year": [0, 2, 9]})
    assert list(curves.averaged) == ["sex"]
    means = cirrhosis.marginal_means("year", at={"year": [0, 2, 9]}).table
    for column in ("estimate", "se", "lower", "upper"):
        np.testing.assert_allclose(curves.table[column], means[column], rtol=1e-10)
    share = cirrhosis.effects("year", at={"year": [0, 2, 9]}, weights="proportional")
    means = cirrhosis.marginal_means("year", at={"year": [0, 2, 9]}, weights="proportional").table
    np.testing.assert_allclose(share.table["estimate"], means["estimate"], rtol=1e-10)
    assert np.abs(share.table["estimate"] - curves.table["estimate"]).min() > 1e-3


def test_what_is_asked_is_what_is_there(cirrhosis, pbc):
    curves = cirrhosis.effects("year", by=["age", "sex"], n=5)
    assert curves.by == ("age", "sex") and curves.panels == ()
    quartiles = [float(f"{v:.3g}") for v in pbc["age"].quantile([0.25, 0.5, 0.75])]
    assert curves.grid.points["age"] == tuple(quartiles)
    assert curves.held == {"basepro": pytest.approx(pbc["basepro"].mean())}
    assert len(curves.curves) == 6 and len(curves) == 30
    several = cirrhosis.effects("year", by="sex", at={"basepro": [10, 11], "age": [40, 50, 60]}, n=3)
    assert several.panels == ("basepro", "age")
    assert several.table.columns[:4].tolist() == ["basepro", "age", "sex", "year"]
    key, rows = several.curves[3]
    assert key == {"basepro": 10.0, "age": 50.0, "sex": "female"}
    own = several.table.iloc[rows]
    assert set(own["age"]) == {50.0} and set(own["sex"]) == {"female"} and own["year"].is_monotonic_increasing


def test_frozen_copied_and_said(cirrhosis):
    curves = cirrhosis.effects("year", by="sex", at=HELD, simultaneous=True, n=9)
    before = curves.table
    before.loc[:, "estimate"] = 0.0
    assert curves.table["estimate"].abs().min() > 0.0
    with pytest.raises(ValueError, match="read-only"):
        curves.L[0, 0] = 1.0
    text = repr(curves)
    for words in (
        "b = 0",
        "At age = 49, basepro = 10.6.",
        "95 %, pointwise",
        "Satterthwaite",
        "16384 directions",
        "seed 0",
    ):
        assert words in text, words
    assert "<table" in curves._repr_html_()
    averaged = repr(cirrhosis.effects("year", n=5))
    assert "Averaged over sex with equal weights." in averaged
    assert "directions" not in averaged


def test_other_kinds_of_fits(dental, gee):
    naive = gee.with_se("naive").effects("time", n=3)
    assert "naive covariance" in repr(naive) and "robust covariance" in repr(gee.effects("time", n=3))
    assert np.abs(naive.table["se"] / gee.effects("time", n=3).table["se"] - 1).max() > 0.01
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_reml()
    curves = marginal.effects("time", by="sex", n=3, simultaneous=True)
    assert "marginal mean (no random effects)" in repr(curves)
    np.testing.assert_allclose(curves.points("partial")["y"], dental["distance"], rtol=1e-10)
    with pytest.raises(NotAvailableError, match="without random effects"):
        marginal.effects("time", level="subject")


def test_default_covariate_is_of_level_1(cirrhosis, sleep_reml):
    assert cirrhosis.effects(n=3).variable == "year"
    assert sleep_reml.effects(n=3).variable == "days"


def test_exp_is_the_median(cirrhosis):
    linear = cirrhosis.effects("year", by="sex", at=HELD, n=5, simultaneous=True)
    scaled = cirrhosis.effects("year", by="sex", at=HELD, n=5, simultaneous=True, transform="exp")
    for column in ("estimate", "lower", "upper", "lower_simultaneous", "upper_simultaneous"):
        np.testing.assert_allclose(scaled.table[column], np.exp(linear.table[column]), rtol=1e-12)
    np.testing.assert_allclose(scaled.table["se"], np.exp(linear.table["estimate"]) * linear.table["se"], rtol=1e-12)
    assert scaled.ylabel == "bili" and "median of bili" in repr(scaled) and "not its mean" in repr(scaled)
    y = scaled.points("partial")["y"]
    np.testing.assert_allclose(np.log(y), linear.points("partial")["y"], rtol=1e-9, atol=1e-12)


def test_a_factor_within_subjects(sleepstudy):
    data = sleepstudy.assign(room=np.where(sleepstudy["days"] % 2 < 0.5, "a", "b"))
    rng = np.random.default_rng(1)
    free = data.assign(room=rng.permutation(data["room"]))
    fit = hl.TwoLevelModel.from_formula("reaction ~ days * room + (1 | subject)", free).fit_reml()
    assert len(fit.effects("days", by="room", n=5).curves) == 2


def test_curves_along_level_2_beside_other_covariates_of_level_2(between):
    fit = hl.TwoLevelModel.from_formula("distance ~ time + sex + iq + ses + (1 | subject)", between).fit_reml()
    found = fit.effects("iq", by="sex", at={"iq": [-1, 1]})
    means = fit.marginal_means(["sex", "iq"], at={"iq": [-1, 1]}).table
    np.testing.assert_allclose(found.table["estimate"], means["estimate"], rtol=1e-10)
    few = between[between["subject"].isin(between["subject"].unique()[[0, 3, 6, 12, 15, 18, 21]])]
    fit = hl.TwoLevelModel.from_formula("distance ~ time + iq + ses + (1 | subject)", few).fit_reml()
    assert len(fit.effects("iq", n=5)) == 5


@pytest.mark.parametrize("log", ["log", "np.log", "np.log2", "np.log10"])
def test_a_logarithm_is_undone_by_its_base(log, dental):
    fit = hl.TwoLevelModel.from_formula(f"{log}(distance) ~ sex * time + (1 | subject)", dental).fit_reml()
    natural = hl.TwoLevelModel.from_formula("log(distance) ~ sex * time + (1 | subject)", dental).fit_reml()
    options = {"by": "sex", "at": {"time": [0, 6]}, "transform": "exp"}
    found, expected = fit.effects("time", **options), natural.effects("time", **options)
    assert found.ylabel == "distance" and found.table["estimate"].between(20, 30).all()
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-6)
    for kind in ("points", "partial"):
        pd.testing.assert_frame_equal(found.points(kind), expected.points(kind), rtol=1e-6)
