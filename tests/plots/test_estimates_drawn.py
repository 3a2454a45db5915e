"""Forest plots, random effects and posteriors: the data drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_by_none import calls, drawn

from hierlmm import plots
from hierlmm.datasets import load_dataset
from hierlmm.errors import SpecificationError
from hierlmm.fits.named_draws import parameter_draws
from hierlmm.model import TwoLevelModel

# --- forest ---------------------------------------------------------------------------------------------------------


def test_forest_shows_the_numbers_of_the_table(three):
    collection = plots.plot_forest(three, backend="none")
    table = three.table.set_index(["parameter", "estimator"])
    assert list(collection.viz.parameter.to_numpy()) == list(three.table["parameter"].unique())
    for parameter in collection.viz.parameter.to_numpy():
        for row, estimator in zip((3, 2, 1), three.labels, strict=True):
            line = drawn(collection, "interval", "estimate", parameter=parameter, estimator=estimator)
            expected = table.loc[(parameter, estimator), ["lower", "upper"]]
            np.testing.assert_allclose(np.asarray(line["x"]), expected.to_numpy(dtype=float))
            assert set(np.asarray(line["y"])) == {row}
            point = drawn(collection, "point_estimate", "estimate", parameter=parameter, estimator=estimator)
            assert np.asarray(point["x"]).item() == table.loc[(parameter, estimator), "estimate"]


def test_forest_inner_interval_is_the_fits_own(three, sleep_reml):
    collection = plots.plot_forest(three, backend="none", inner_ci=0.8)
    line = drawn(collection, "inner_interval", "estimate", parameter="days", estimator="REML")
    np.testing.assert_allclose(np.asarray(line["x"]), sleep_reml.summary(0.8).loc["days", ["lower", "upper"]])
    assert "inner_interval" not in plots.plot_forest(three, backend="none", inner_ci=None).viz.children


def test_forest_names_estimators_and_chooses_parameters(three):
    collection = plots.plot_forest(three, backend="none", parameters=["fixed", "sigma"])
    assert list(collection.viz.parameter.to_numpy()) == ["Intercept", "days", "sigma"]
    ticks = calls(collection, "estimate", "yticks", parameter="Intercept")[0]
    assert ticks["labels"] == ["NUTS", "REML", "ML"] and ticks["ticks"] == [3, 2, 1]
    assert calls(collection, "estimate", "yticks", parameter="days")[0]["labels"] == ["", "", ""]
    with pytest.raises(SpecificationError, match="Did you mean 'days'"):
        plots.plot_forest(three, backend="none", parameters="day")


def test_forest_leaves_out_intervals_that_do_not_exist():
    fit = TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", load_dataset("dyestuff2")).fit_reml()
    collection = plots.plot_forest(fit, backend="none")
    assert drawn(collection, "interval", "estimate", parameter="sd(Intercept)", estimator="REML") is None
    assert drawn(collection, "point_estimate", "estimate", parameter="sd(Intercept)", estimator="REML")["x"] == 0.0


# --- random effects -------------------------------------------------------------------------------------------------


def test_random_effects_are_sorted_and_have_their_intervals(three, sleep_reml, sleep_like_nuts):
    collection = plots.plot_random_effects(three, backend="none", reference="REML")
    for term in ("Intercept", "days"):
        point = drawn(collection, "point_estimate", "effects", term=term, estimator="REML")
        values = np.asarray(point["x"])
        assert len(values) == 18 and np.all(np.diff(values) >= 0)
        order = sleep_reml.b[term].sort_values().index
        ticks = calls(collection, "effects", "yticks", term=term)[0]
        assert ticks["labels"] == [str(s) for s in order]
        posterior = drawn(collection, "point_estimate", "effects", term=term, estimator="NUTS")
        np.testing.assert_allclose(np.asarray(posterior["x"]), sleep_like_nuts.b[term].loc[order])
        assert np.all(np.asarray(posterior["y"]) > np.asarray(point["y"]))
        line = np.asarray(drawn(collection, "interval", "effects", term=term, estimator="REML")["x"])
        half = 1.959964 * sleep_reml.b_sd[term].loc[order].to_numpy()
        np.testing.assert_allclose(line[1::3] - line[0::3], 2 * half, rtol=1e-6)
        assert np.isnan(line[2::3]).all()


def test_random_effects_of_a_posterior_are_quantiles_of_its_draws(sleep_like_nuts):
    collection = plots.plot_random_effects(sleep_like_nuts, terms="days", ci=0.5, backend="none")
    line = np.asarray(drawn(collection, "interval", "effects", term="days", estimator="NUTS")["x"])
    first = sleep_like_nuts.b["days"].idxmin()
    draws = sleep_like_nuts.datatree["posterior"]["b"].sel(subject=first, term="days").to_numpy()
    np.testing.assert_allclose(line[:2], np.quantile(draws, [0.25, 0.75]))


def test_random_effects_of_many_subjects():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.repeat(np.arange(200), 4), "t": np.tile(np.arange(4.0), 200)})
    frame["y"] = rng.normal(size=200)[frame["id"]] + rng.normal(size=800)
    fit = TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml()
    b = fit.b["Intercept"].sort_values()
    chosen = plots.plot_random_effects(fit, backend="none")
    values = np.asarray(drawn(chosen, "point_estimate", "effects", term="Intercept", estimator="REML")["x"])
    np.testing.assert_array_equal(values[[*range(20), *range(-20, 0)]], b.iloc[[*range(20), *range(-20, 0)]])
    assert len(values) == 60 and np.all(np.diff(values) >= 0)
    some = plots.plot_random_effects(fit, max_subjects=20, backend="none")
    values = np.asarray(drawn(some, "point_estimate", "effects", term="Intercept", estimator="REML")["x"])
    assert len(values) == 20
    assert values[0] == fit.b["Intercept"].min() and values[-1] == fit.b["Intercept"].max()
    assert len(calls(some, "effects", "yticks", term="Intercept")[0]["labels"]) == 20


def test_random_effects_sorted_by_one_term(sleep_reml):
    collection = plots.plot_random_effects(sleep_reml, sort_by="days", backend="none")
    orders = [calls(collection, "effects", "yticks", term=t)[0]["labels"] for t in ("Intercept", "days")]
    assert orders[0] == orders[1] == [str(s) for s in sleep_reml.b["days"].sort_values().index]
    with pytest.raises(SpecificationError, match="no random effect"):
        plots.plot_random_effects(sleep_reml, terms="day", backend="none")


@pytest.fixture(scope="module")
def no_slopes():
    """A REML fit whose slopes do not vary; the optimiser leaves an SD of about 1e-14."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "t": np.tile(np.arange(4.0), 30)})
    e = rng.normal(size=(30, 4))
    # Residuals free of any slope within subjects: less variation of slopes than residuals alone would give.
    e -= np.outer(e @ np.arange(-1.5, 2.0), np.arange(-1.5, 2.0)) / 5.0
    data["y"] = 20 + rng.normal(0, 2, 30)[data["id"]] + 0.7 * data["t"] + e.ravel()
    return TwoLevelModel.from_formula("y ~ t + (1 + t || id)", data).fit_reml()


def test_a_variance_of_zero_is_drawn_as_zero(no_slopes):
    assert no_slopes.is_singular
    collection = plots.plot_random_effects(no_slopes, backend="none")
    assert set(np.asarray(drawn(collection, "point_estimate", "effects", term="t", estimator="REML")["x"])) == {0.0}
    line = np.asarray(drawn(collection, "interval", "effects", term="t", estimator="REML")["x"])
    assert set(line[~np.isnan(line)]) == {0.0}
    assert calls(collection, "effects", "title", term="t")[0]["string"] == "t\n(no variation)"
    assert calls(collection, "effects", "title", term="Intercept")[0]["string"] == "Intercept"
    assert calls(collection, "effects", "yticks", term="t")[0]["labels"] == [str(s) for s in no_slopes.b.index]
    axes = plots.plot_random_effects(no_slopes, terms="t", backend="matplotlib").get_viz("figure").axes
    assert 0.1 < axes[0].get_xlim()[1] < 10
    posterior = plots.plot_posterior(no_slopes, backend="none")
    curve = drawn(posterior, "dist", "estimate", parameter="sd(t)", estimator="REML")
    assert curve is None
    point = drawn(posterior, "point_estimate_REML", "estimate", parameter="sd(t)")
    assert (point["x"], np.isfinite(point["y"])) == (0.0, True)
    forest = plots.plot_forest(no_slopes, backend="none")
    assert drawn(forest, "point_estimate", "estimate", parameter="sd(t)", estimator="REML")["x"] == 0.0


# --- posterior ------------------------------------------------------------------------------------------------------


def test_posterior_has_each_estimate_in_its_own_panel_only(three, sleep_reml, sleep_ml):
    collection = plots.plot_posterior(three, backend="none")
    wide = three.wide()
    for parameter in collection.viz.parameter.to_numpy():
        lines = calls(collection, "estimate", "vline", parameter=parameter)
        assert [line["x"] for line in lines] == [wide.loc[parameter, (e, "estimate")] for e in ("REML", "ML")]
        curve = drawn(collection, "dist", "estimate", parameter=parameter, estimator="NUTS")
        x, y = np.asarray(curve["x"]), np.asarray(curve["y"])
        assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.03)
        assert x[0] < wide.loc[parameter, ("NUTS", "estimate")] < x[-1]
        interval = drawn(collection, "interval_NUTS", "estimate", parameter=parameter, estimator="NUTS")
        np.testing.assert_allclose(np.asarray(interval["x"]), wide.loc[parameter, "NUTS"][["lower", "upper"]])


def test_posterior_of_likelihood_fits_alone_is_large_sample(sleep_reml):
    collection = plots.plot_posterior(sleep_reml, parameters="days", backend="none")
    curve = drawn(collection, "dist", "estimate", parameter="days", estimator="REML")
    x, y = np.asarray(curve["x"]), np.asarray(curve["y"])
    assert np.trapezoid(x * y, x) == pytest.approx(sleep_reml.beta["days"], abs=0.1)


@pytest.fixture(scope="module")
def boundary_near():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5.0), 20)})
    frame["y"] = rng.normal(size=20)[frame["id"]] + 0.4 * rng.normal(size=20)[frame["id"]] * frame["t"]
    frame["y"] += rng.normal(size=100)
    fit = TwoLevelModel.from_formula("y ~ t + (1 + t | id)", frame).fit_reml()
    assert (
        fit.variance_components().notna().all(axis=None)
        and fit.variance_components().loc["corr(Intercept, t)", "lower"] < -0.99
    )
    return fit


def test_density_of_a_likelihood_fit_is_the_one_its_interval_belongs_to(boundary_near):
    """The interval of any probability holds that share of the area; half of it lies below the estimate."""
    table = boundary_near.variance_components()
    collection = plots.plot_posterior(boundary_near, parameters=["sd", "corr", "sigma"], backend="none")
    for name in ("sd(Intercept)", "sd(t)", "sigma"):
        curve = drawn(collection, "dist", "estimate", parameter=name, estimator="REML")
        x, y = np.asarray(curve["x"]), np.asarray(curve["y"])
        area = np.concatenate([[0.0], np.cumsum((y[1:] + y[:-1]) * np.diff(x) / 2.0)])
        below = np.interp(table.loc[name, ["lower", "estimate", "upper"]].to_numpy(dtype=float), x, area)
        np.testing.assert_allclose(below / area[-1], [0.025, 0.5, 0.975], atol=0.002)
        for ci in (0.5, 0.9):
            low, high = boundary_near.variance_components(ci).loc[name, ["lower", "upper"]]
            share = (np.interp(high, x, area) - np.interp(low, x, area)) / area[-1]
            assert share == pytest.approx(ci, abs=0.002)
    # The data say nothing of the correlation: its interval is all that is possible.
    assert drawn(collection, "dist", "estimate", parameter="corr(Intercept, t)", estimator="REML") is None


def test_draws_carry_the_labels_of_the_tables(sleep_like_nuts):
    draws = parameter_draws(sleep_like_nuts)
    components = sleep_like_nuts.variance_components()
    for name in components.index:
        assert draws[name].mean() == pytest.approx(components.loc[name, "estimate"])
    assert set(sleep_like_nuts.design.coef) <= set(draws)
