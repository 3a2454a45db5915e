"""Marginal means: what is averaged, with which weights, and what is at hand beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_fits import AT, fitted
from scipy import stats

import hierlmm as hl
from hierlmm.errors import NotAvailableError


def test_means_are_predictions_of_the_population():
    fit, rows = fitted("dental_reml"), pd.DataFrame({"sex": ["Female", "Male"] * 2, "time": [0, 0, 6, 6]})
    means = fit.marginal_means("sex", by="time", at=AT, df="normal", ci=0.9)
    predicted = fit.predict(rows, level="population")
    np.testing.assert_allclose(means.table["estimate"], predicted["estimate"], rtol=1e-12)
    overall = fit.marginal_means().table
    np.testing.assert_allclose(overall["estimate"], predicted["estimate"].mean(), rtol=1e-12)


def test_proportional_weights_are_those_of_the_rows():
    fit, data = fitted("rat_pups_reml"), hl.load_dataset("rat_pups")
    share = data["sex"].value_counts(normalize=True)
    by_sex = fit.marginal_means("treatment", by="sex").table.set_index(["sex", "treatment"])["estimate"]
    expected = sum(share[s] * by_sex[s] for s in share.index)
    ours = fit.marginal_means("treatment", weights="proportional").table.set_index("treatment")["estimate"]
    pd.testing.assert_series_equal(ours, expected, check_names=False, check_index_type=False)


def test_combinations_that_do_not_occur_have_no_proportional_weight():
    """Two factors averaged over, one of whose six combinations is absent: L by hand from the counts."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "f": list("abcc" * 30), "g": list("uuvu" * 30)})
    data["f"] = np.where((data["s"] % 5 == 0) & (data["f"] == "a"), "b", data["f"])
    data["z"] = np.where(data["s"] % 2, "one", "two")
    data["y"] = rng.normal(size=30)[data["s"]] + rng.normal(size=120)
    counts = data.groupby(["f", "g"]).size()
    assert len(counts) == 4  # of six: nothing is (a, v) or (b, v)
    fit = hl.TwoLevelModel.from_formula("y ~ z + f + g + (1 | s)", data).fit_reml()
    means = fit.marginal_means("z", weights="proportional")
    share = {f"{v}[T.{level}]": (data[v] == level).mean() for v, level in (("f", "b"), ("f", "c"), ("g", "v"))}
    for row, z in zip(means.L, means.table["z"], strict=True):
        expected = [share.get(c, 1.0 if c == "Intercept" else float(c == f"z[T.{z}]")) for c in fit.design.coef]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-15)


def test_offsets_truth_values_and_labels_of_numbers(dental):
    data = dental.assign(off=2.0 * dental["time"], male=dental["sex"] == "Male")
    fit = hl.TwoLevelModel.from_formula("distance ~ male * time + offset(off) + (1 | subject)", data).fit_reml()
    beta = fit.beta
    means = fit.marginal_means("male", at={"time": 0, "off": [0, 10]}).table
    assert list(means["male"]) == [False, True]
    np.testing.assert_allclose(
        means["estimate"], [beta["Intercept"] + 5, beta[["Intercept", "male[T.True]"]].sum() + 5]
    )
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + sex + C(time) + (1 | subject)", dental).fit_reml()
    means = fit.marginal_means("time").table
    assert list(means["time"]) == [0, 2, 4, 6]
    np.testing.assert_allclose(np.diff(means["estimate"])[0], fit.beta["C(time)[T.2]"], rtol=1e-12)


def test_gee_has_normal_quantiles(dental):
    gee = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_gee()
    effects = gee.contrasts("sex", by="time", at=AT)
    row, cov = effects.L[1], gee.beta_cov.to_numpy()
    np.testing.assert_allclose(effects.table["se"].iloc[1], np.sqrt(row @ cov @ row), rtol=1e-12)
    half = (effects.table["upper"] - effects.table["estimate"]) / effects.table["se"]
    np.testing.assert_allclose(half, stats.norm.ppf(0.975), rtol=1e-12)
    test = gee.hypothesis("sex[T.Male] = 0, sex[T.Male]:time = 0").joint
    np.testing.assert_allclose(test.p, stats.chi2.sf(2 * test.F, 2), rtol=1e-12)
    assert "marginal mean" in effects.level
    with pytest.raises(NotAvailableError, match="without degrees of freedom"):
        gee.contrasts("sex", df="satterthwaite")
