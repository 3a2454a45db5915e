"""Residuals against fitted values and normal quantiles: the smoother, the bands, and what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_by_none import calls, drawn
from scipy.stats import norm

import hierlmm as hl
from hierlmm.design.questions import rows_by_subject
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.normality import effects_of, normality
from hierlmm.diagnostics.residual_curve import residual_curve, smooth
from hierlmm.diagnostics.serial_residuals import linear_residuals
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.plots.residuals import _band_text, _seen


def two_level(seed, n=30, slope=0.0, errors=None):
    """Random intercepts; ``slope`` of a square that the model lacks; errors drawn by a function."""
    rng = np.random.default_rng(seed)
    time = np.tile(np.arange(6.0), n)
    subject = np.repeat(np.arange(n), 6)
    noise = rng.normal(size=6 * n) if errors is None else errors(rng, 6 * n)
    y = 10.0 + time + rng.normal(size=n)[subject] + slope * (time - 2.5) ** 2 + noise
    return pd.DataFrame({"y": y, "time": time, "subject": subject})


def fitted(seed, **options):
    return hl.TwoLevelModel.from_formula("y ~ time + (1 | subject)", two_level(seed, **options)).fit_reml()


# The smoother.


def test_the_smoother_is_that_of_cleveland():
    from statsmodels.nonparametric.smoothers_lowess import lowess

    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(0, 10, 80))
    y = np.sin(x) + rng.normal(size=80)
    theirs = lowess(y, x, frac=0.5, it=0, delta=0.0, return_sorted=False)
    np.testing.assert_allclose(smooth(x, y, x, 0.5), theirs, atol=1e-7)


def test_the_smoother_keeps_straight_lines_and_takes_ties():
    x = np.repeat([1.0, 2.0, 5.0, 9.0], 10)
    np.testing.assert_allclose(smooth(x, 3.0 - 2.0 * x, np.linspace(0, 10, 7)), 3.0 - 2.0 * np.linspace(0, 10, 7))
    assert np.isfinite(smooth(np.repeat([0.0, 1.0], 50), np.arange(100.0), np.linspace(0, 1, 9), 0.3)).all()


# The band.


def test_the_band_holds_a_share_of_curves_and_the_data_are_one_of_them():
    rng = np.random.default_rng(5)
    curves = rng.normal(size=(20, 2000)).cumsum(axis=0) ** 3  # skewed up and down alike, wider to the right
    band = curve_band(np.arange(20.0), curves[:, 0], curves[:, 1:], 0.9)
    inside = np.all((curves >= band.lower[:, None]) & (curves <= band.upper[:, None]), axis=0)
    assert abs(inside.mean() - 0.9) < 0.002
    p = [curve_band(np.arange(20.0), c, curves, 0.9).p_value for c in rng.normal(size=(200, 20)).cumsum(axis=1) ** 3]
    assert abs(np.mean(np.array(p) <= 0.2) - 0.2) < 4 * np.sqrt(0.16 / 200)


def test_a_square_that_is_missing_stands_out():
    found = residual_curve(fitted(3, slope=0.35), "pearson", "subject", 0.95, 199)
    assert found.stands_out and found.outside.any() and found.p_value <= 0.01


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.04, "The residuals leave the band from 44 to 45, as 5 % do by chance (p = 0.04)"),
        (0.01, "The residuals leave what the model expects from 44 to 45"),
        (0.06, "Residuals go along the fitted values as the model expects"),
    ],
)
def test_the_headline_is_sober_where_checks_call_it_fine(p, said):
    found = CurveBand(np.array([43.0, 44, 45]), np.array([0.0, 2, 2]), -np.ones(3), np.ones(3), p, 0.95)
    assert _seen(found) == said
    assert ("fit.check() has one p for fitted values and covariates" in _band_text(found, 3)) == (p == 0.04)


def test_residuals_rise_with_fitted_values_where_the_model_is_right():
    """Shrinkage: Cov(r, fitted) = Σ V⁻¹ (V - Σ) is positive; the band follows, and zero is outside of it."""
    data = hl.simulate(
        beta={"Intercept": 10},
        D=np.array([[1.0]]),
        sigma=1.0,
        random=["Intercept"],
        n_subjects=400,
        times=(0, 1),
        seed=2,
    )
    fit = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | subject)", data).fit_reml()
    found = residual_curve(fit, "response", "subject", 0.95, 199)
    assert not found.stands_out
    assert found.upper[0] < 0.0 < found.lower[-1]
    assert residual_curve(fit, "response", "population", 0.95, 0) is None  # all fitted values are equal


def test_of_many_rows_those_of_some_subjects_are_taken(monkeypatch, sleep_reml):
    monkeypatch.setattr("hierlmm.diagnostics.residual_curve.MOST_ROWS", 100)
    found = residual_curve(sleep_reml, "pearson", "subject", 0.95, 50)
    chosen = sleep_reml.design.subjects[np.linspace(0, 17, 10).round().astype(int)]
    rows = np.isin(sleep_reml.design.frame["subject"], chosen)
    y, x = sleep_reml.residuals("pearson")[rows], sleep_reml.fitted()[rows]
    np.testing.assert_allclose(found.observed, smooth(x.to_numpy(), y.to_numpy(), found.x), atol=1e-8)
    assert np.isfinite(found.lower).all()


def test_long_subjects_have_a_smoother_and_no_band(monkeypatch, sleep_reml):
    for module in ("normality", "residual_curve"):
        monkeypatch.setattr(f"hierlmm.diagnostics.{module}.LONGEST", 9)
    found = residual_curve(sleep_reml, "pearson", "subject", 0.95, 199)
    assert np.isfinite(found.observed).all() and np.isnan(found.lower).all() and not found.stands_out
    with pytest.raises(NotAvailableError, match="a subject with 10 rows"):
        sleep_reml.plot_qq()
    picture = sleep_reml.plot_residuals(max_points=40)
    assert picture.title.endswith(", 40 of 180 points")


def test_many_points_are_hexagons_or_a_sample_that_the_title_names(monkeypatch, sleep_reml):
    monkeypatch.setattr("hierlmm.plots.residuals.MOST_POINTS", 100)
    picture = sleep_reml.plot_residuals(simulations=0)
    hexagons = [c for c in picture.get_viz("figure").axes[0].collections if type(c).__name__ == "PolyCollection"]
    assert sum(c.get_array().sum() for c in hexagons if c.get_array() is not None) == pytest.approx(180)
    assert "how many of 180 points" in picture.caption and "points" not in picture.title
    assert sleep_reml.plot_residuals(simulations=0, backend="none").title.endswith(", 100 of 180 points")


# Quantiles.


def test_random_effects_are_the_linear_functions_and_have_their_variances(sleep_reml):
    subjects = rows_by_subject(sleep_reml.design)
    linear = linear_residuals(sleep_reml, subjects, "subject", "normalized")
    y = [sleep_reml.design.y[rows, None] for rows in subjects]
    variances = sleep_reml.blup_variances()["var_of_blup"]
    for k, term in enumerate(sleep_reml.design.term):
        own = effects_of(sleep_reml, linear, subjects, k)
        np.testing.assert_allclose(own.residuals(y)[:, 0], sleep_reml.b[term], atol=1e-8)
        np.testing.assert_allclose(
            [S[0, 0] for S in own.S], variances.xs(term, level="term").loc[sleep_reml.b.index], rtol=1e-8
        )


def test_standardised_by_the_variance_of_the_blups(sleep_reml):
    band = normality(sleep_reml, (2,), 0.95, 50).bands["days"]
    sd = np.sqrt(sleep_reml.blup_variances()["var_of_blup"].xs("days", level="term"))
    z = np.sort(sleep_reml.b["days"] / sd)
    np.testing.assert_allclose(band.observed, z / np.sqrt(np.mean(z**2)), rtol=1e-7)
    np.testing.assert_allclose(band.x, norm.ppf((np.arange(18) + 0.5) / 18))


def test_heavy_tails_stand_out_and_the_panel_says_so():
    fit = fitted(7, errors=lambda rng, n: rng.standard_t(2, n))
    found = normality(fit, (1, 2), 0.95, 400)
    assert found.bands["residuals"].stands_out and found.bands["residuals"].outside.any()
    titles = [ax.get_title() for ax in fit.plot_qq(simulations=200).get_viz("figure").axes]
    assert titles[0].startswith("level 1: residuals\nleaves the band")
    assert titles[1].startswith("level 2: Intercept")


@pytest.mark.slow
def test_the_bands_are_left_as_often_as_they_say():
    """3 % to 7 % expected within Monte-Carlo error (0.022 for 100); `benchmarks/residual_pictures.py` has more."""
    left = {"residuals": [], "Intercept": [], "smoother": []}
    for seed in range(100):
        fit = fitted(seed)
        for part, band in normality(fit, (1, 2), 0.95, 199, seed).bands.items():
            left[part].append(band.stands_out)
        left["smoother"].append(residual_curve(fit, "pearson", "subject", 0.95, 99, seed=seed).stands_out)
    assert all(np.mean(values) <= 0.05 + 3 * 0.022 for values in left.values()), {
        k: np.mean(v) for k, v in left.items()
    }


def test_what_is_drawn(sleep_reml):
    picture = sleep_reml.plot_residuals(kind="response", backend="none")
    points = drawn(picture, "points", "residuals", panel="")
    np.testing.assert_allclose(points["x"], sleep_reml.fitted())
    np.testing.assert_allclose(points["y"], sleep_reml.residuals())
    curve = residual_curve(sleep_reml, "response", "subject", 0.95, 199)
    line = drawn(picture, "smoother", "residuals", panel="")
    np.testing.assert_allclose(line["y"], curve.observed)
    (band,) = calls(picture, "residuals", "fill_between_y", panel="")
    np.testing.assert_allclose(band["y_top"], curve.upper)
    by = sleep_reml.plot_residuals(by="days", simulations=0, backend="none")
    assert sum("points_" in str(name) for name in by.viz) == 3


def test_marginal_models_and_gee_have_level_1_only(dental):
    model = hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1(), subject="subject", data=dental)
    for fit in (model.fit_reml(), model.fit_gee("exchangeable")):
        assert len(fit.plot_qq(simulations=20, backend="none").viz["plot"]) == 1
        with pytest.raises(NotAvailableError, match="no random effects"):
            fit.plot_qq(level=2)
        fit.plot_residuals(simulations=20, backend="none")
    with pytest.raises(SpecificationError, match="level 1 are the residuals"):
        model.fit_reml().plot_qq(level=3)
