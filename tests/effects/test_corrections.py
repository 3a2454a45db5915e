"""Several comparisons at once: the largest t, quantiles, p-values and families."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_fits import fitted, frozen
from scipy import stats

import hierlmm as hl
from hierlmm.effects.judge import adjusted_p, adjusted_quantiles
from hierlmm.likelihood.quantiles import largest_t_quantile, largest_t_sf


def test_largest_t_is_mvtnorms():
    ref = frozen("petri_reml")
    half = np.array([[1.0, 0.5], [0.5, 1.0]])
    four = np.array([[1, 0.3, 0.2, 0.1], [0.3, 1, 0.4, -0.2], [0.2, 0.4, 1, 0.5], [0.1, -0.2, 0.5, 1]])
    for case in ref["mvt"]:
        np.testing.assert_allclose(largest_t_sf(case["t"], case["df"], half), case["p"], rtol=1e-6, atol=2e-9)
    for case in ref["mvt4"]:
        np.testing.assert_allclose(largest_t_sf(case["t"], case["df"], four), case["p"], rtol=5e-5)
    quantile = ref["mvt_quantile"]
    (quantile_27,) = largest_t_quantile(0.95, np.array([27.0]), half)
    np.testing.assert_allclose(quantile_27, quantile["value"], rtol=2e-4)  # qmvt stops early
    np.testing.assert_allclose(largest_t_sf(quantile_27, 27, half), 0.05, rtol=1e-8)


def test_largest_t_in_closed_forms():
    for m in (2, 3, 5):  # independent normals
        expected = 1 - (1 - 2 * stats.norm.sf(2.2)) ** m
        np.testing.assert_allclose(largest_t_sf(2.2, np.inf, np.eye(m)), expected, rtol=2e-4 if m > 2 else 1e-6)
    same = np.ones((3, 3))  # one and the same statistic
    np.testing.assert_allclose(largest_t_sf(2.0, 9, same), 2 * stats.t.sf(2.0, 9), rtol=1e-12)
    np.testing.assert_allclose(largest_t_quantile(0.9, np.array([9.0]), same)[0], stats.t.ppf(0.95, 9), rtol=1e-12)
    # Pairwise differences of k equal means: the studentised range, whose correlations are singular.
    for k, rtol in ((3, 1e-6), (4, 2e-4)):
        C = np.array([np.eye(k)[i] - np.eye(k)[j] for i in range(k) for j in range(i + 1, k)])
        corr = C @ C.T / 2
        for t in (1.5, 3.0, 8.0):  # in the far tail the relative error stays
            exact = stats.studentized_range.sf(np.sqrt(2) * t, k, 27)
            np.testing.assert_allclose(largest_t_sf(t, 27, corr), exact, rtol=rtol, atol=1e-12)
    # A mixture of independent normals with a common scale, integrated numerically.
    s, w = np.linspace(1e-4, 4, 20001), None
    w = stats.chi.pdf(s * np.sqrt(6), 6) * np.sqrt(6)
    inside = np.trapezoid((1 - 2 * stats.norm.sf(2.5 * s)) ** 4 * w, s)
    np.testing.assert_allclose(largest_t_sf(2.5, 6, np.eye(4)), 1 - inside, rtol=2e-4)


def test_quantiles_and_p_values_tell_the_same_story():
    """At the edge of the interval p is 1 - ci, for every correction that has both."""
    corr = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]])
    df = np.array([8.0, 8.0, 20.0])
    for adjust in ("none", "bonferroni", "sidak", "tukey", "mvt"):
        edge = adjusted_quantiles(df, 0.9, adjust, 3, corr)
        np.testing.assert_allclose(adjusted_p(edge, df, adjust, 3, corr), 0.1, rtol=1e-4)
    raw = adjusted_p(np.array([3.0, -2.0, 0.5]), df, "none", 3, corr)
    for adjust in ("bonferroni", "sidak", "tukey", "mvt", "holm", "fdr"):
        assert np.all(adjusted_p(np.array([3.0, -2.0, 0.5]), df, adjust, 3, corr) >= raw)


def test_dunnett_for_a_control_is_less_strict_than_bonferroni():
    fit = fitted("petri_reml")
    effects = fit.contrasts("group", "trt.vs.ctrl")
    assert effects.adjust == "mvt"
    for method, adjust in (("dunnett", None), ("Dunnett", "dunnett"), ("trt.vs.ctrl", "dunnett")):
        pd.testing.assert_frame_equal(fit.contrasts("group", method, adjust=adjust).table, effects.table)
    with pytest.raises(hl.SpecificationError, match="comparisons with one control"):
        fit.contrasts("group", adjust="dunnett")
    half = {a: fit.contrasts("group", "trt.vs.ctrl", adjust=a).table["upper"] for a in ("none", "mvt", "bonferroni")}
    assert (half["none"] < half["mvt"]).all() and (half["mvt"] < half["bonferroni"]).all()
    width = (effects.table["upper"] - effects.table["estimate"]) / effects.table["se"]
    np.testing.assert_allclose(
        width, largest_t_quantile(0.95, np.array([27.0]), np.array([[1.0, 0.5], [0.5, 1.0]]))[0], rtol=1e-7
    )
    other = fit.contrasts("group", "trt.vs.ctrl", reference="B").table
    assert list(other["contrast"]) == ["Control - B", "A - B"]


@pytest.mark.parametrize("adjust", ["tukey", "bonferroni", "holm", "sidak", "mvt", "fdr"])
def test_differences_of_zero_do_not_count_in_their_family(dental, adjust):
    """Before its first knot the curve is a line: three slopes, two of them equal, leave two equal comparisons."""
    fit = hl.TwoLevelModel.from_formula("distance ~ ns(time, 2) + (1 | subject)", dental).fit_reml()
    with pytest.warns(hl.FitWarning, match="extrapolated"):
        slopes = fit.slopes("time", at={"time": [-2, -1, 3]})
    found = slopes.contrasts(adjust=adjust).table
    assert found["t"].isna().tolist() == [True, False, False]
    plain = slopes.contrasts(adjust="none").table
    known = ~plain["t"].isna()
    if adjust in ("tukey", "mvt", "holm", "fdr"):  # Holm and fdr of two equal p-values: 2p and p
        factor = 2.0 if adjust == "holm" else 1.0
        np.testing.assert_allclose(found["p"][known], factor * plain["p"][known].clip(upper=1 / factor), rtol=1e-5)
    else:
        p = plain["p"][known]
        expected = np.minimum(1.0, 2 * p) if adjust == "bonferroni" else 1 - (1 - p) ** 2
        np.testing.assert_allclose(found["p"][known], expected, rtol=1e-9)


def test_families_taken_together(dental):
    """One comparison at each of four visits: alone in its family it is not corrected, together they are four."""
    model = hl.MarginalModel(
        "distance ~ sex * C(age)", correlation=hl.UnstructuredHeterogeneous("age"), subject="subject", data=dental
    )
    fit = model.fit_ml()
    alone = fit.contrasts("sex", by="age", df="normal")
    together = fit.contrasts("sex", by="age", df="normal", together=True)
    bonferroni = fit.contrasts("sex", by="age", df="normal", together=True, adjust="bonferroni").table
    np.testing.assert_allclose(bonferroni["p"], np.minimum(1.0, 4.0 * alone.table["p"]), rtol=1e-12)
    cov = together.L @ fit.beta_cov.to_numpy() @ together.L.T
    scale = np.sqrt(np.diag(cov))
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(4), cov / np.outer(scale, scale), 200_000)
    largest = np.abs(draws).max(axis=1)
    for t, p in zip(together.table["t"], together.table["p"], strict=True):
        expected = np.mean(largest > abs(t))
        assert abs(p - expected) < 4.0 * np.sqrt(expected * (1.0 - expected) / len(largest)) + 1e-5
    assert "the family of 4." in str(together) and "within each" not in str(together)
    with pytest.raises(hl.SpecificationError, match="another family"):
        fit.contrasts("sex", by="age", together=True, adjust="tukey")
