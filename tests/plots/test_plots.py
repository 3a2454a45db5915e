"""Plots: the data drawn, in ArviZ's ``none`` backend; and in matplotlib that nothing is clipped or overlaps."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hierlmm import plots
from hierlmm.comparison.compare import compare
from hierlmm.datasets import load_dataset
from hierlmm.drawing.style import wrap_title
from hierlmm.errors import MissingPackageError, SpecificationError
from hierlmm.model import TwoLevelModel
from hierlmm.plots.lines import STEPS, population_line, subject_lines, x_axis
from hierlmm.plots.posterior import parameter_draws
from hierlmm.plots.shrinkage import pooled_coefficients, separate_coefficients

# A new subject's prediction needs a history besides the fit: test_predict.py draws it in every backend.
OF_THEIR_OWN = ("plot_optima", "plot_subject_prediction")  # need a history, or a likelihood with several maxima
PLOTS = [getattr(plots, name) for name in plots.__all__ if name not in OF_THEIR_OWN]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleep(sleepstudy):
    return TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", sleepstudy)


@pytest.fixture(scope="module")
def reml(sleep_reml):
    return sleep_reml


@pytest.fixture(scope="module")
def ml(sleep):
    return sleep.fit_ml()


@pytest.fixture(scope="module")
def nuts(sleep_like_nuts):
    return sleep_like_nuts


@pytest.fixture(scope="module")
def three(nuts, reml, ml):
    return compare(nuts, reml, ml)


def drawn(collection, visual, name, **where):
    """Data of one visual of the none backend."""
    return collection.get_viz(visual, name, where)


def calls(collection, name, function, **where):
    """What was called on one panel of the none backend."""
    return [c for c in collection.get_target(name, where) if c.get("function") == function]


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


def test_forest_inner_interval_is_the_fits_own(three, reml):
    collection = plots.plot_forest(three, backend="none", inner_ci=0.8)
    line = drawn(collection, "inner_interval", "estimate", parameter="days", estimator="REML")
    np.testing.assert_allclose(np.asarray(line["x"]), reml.summary(0.8).loc["days", ["lower", "upper"]])
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


def test_random_effects_are_sorted_and_have_their_intervals(three, reml, nuts):
    collection = plots.plot_random_effects(three, backend="none", reference="REML")
    for term in ("Intercept", "days"):
        point = drawn(collection, "point_estimate", "effects", term=term, estimator="REML")
        values = np.asarray(point["x"])
        assert len(values) == 18 and np.all(np.diff(values) >= 0)
        order = reml.b[term].sort_values().index
        ticks = calls(collection, "effects", "yticks", term=term)[0]
        assert ticks["labels"] == [str(s) for s in order]
        posterior = drawn(collection, "point_estimate", "effects", term=term, estimator="NUTS")
        np.testing.assert_allclose(np.asarray(posterior["x"]), nuts.b[term].loc[order])
        assert np.all(np.asarray(posterior["y"]) > np.asarray(point["y"]))
        line = np.asarray(drawn(collection, "interval", "effects", term=term, estimator="REML")["x"])
        half = 1.959964 * reml.b_sd[term].loc[order].to_numpy()
        np.testing.assert_allclose(line[1::3] - line[0::3], 2 * half, rtol=1e-6)
        assert np.isnan(line[2::3]).all()


def test_random_effects_of_a_posterior_are_quantiles_of_its_draws(nuts):
    collection = plots.plot_random_effects(nuts, terms="days", ci=0.5, backend="none")
    line = np.asarray(drawn(collection, "interval", "effects", term="days", estimator="NUTS")["x"])
    first = nuts.b["days"].idxmin()
    draws = nuts.datatree["posterior"]["b"].sel(subject=first, term="days").to_numpy()
    np.testing.assert_allclose(line[:2], np.quantile(draws, [0.25, 0.75]))


def test_random_effects_of_many_subjects():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.repeat(np.arange(200), 4), "t": np.tile(np.arange(4.0), 200)})
    frame["y"] = rng.normal(size=200)[frame["id"]] + rng.normal(size=800)
    fit = TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml()
    everyone = plots.plot_random_effects(fit, backend="none")
    assert calls(everyone, "effects", "yticks", term="Intercept")[0]["labels"] == []
    some = plots.plot_random_effects(fit, max_subjects=20, backend="none")
    values = np.asarray(drawn(some, "point_estimate", "effects", term="Intercept", estimator="REML")["x"])
    assert len(values) == 20
    assert values[0] == fit.b["Intercept"].min() and values[-1] == fit.b["Intercept"].max()
    assert len(calls(some, "effects", "yticks", term="Intercept")[0]["labels"]) == 20


def test_random_effects_sorted_by_one_term(reml):
    collection = plots.plot_random_effects(reml, sort_by="days", backend="none")
    orders = [calls(collection, "effects", "yticks", term=t)[0]["labels"] for t in ("Intercept", "days")]
    assert orders[0] == orders[1] == [str(s) for s in reml.b["days"].sort_values().index]
    with pytest.raises(SpecificationError, match="no random effect"):
        plots.plot_random_effects(reml, terms="day", backend="none")


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
    assert curve is None or np.isnan(np.asarray(curve["x"])).all()
    forest = plots.plot_forest(no_slopes, backend="none")
    assert drawn(forest, "point_estimate", "estimate", parameter="sd(t)", estimator="REML")["x"] == 0.0


# --- posterior ------------------------------------------------------------------------------------------------------


def test_posterior_has_each_estimate_in_its_own_panel_only(three, reml, ml):
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


def test_posterior_of_likelihood_fits_alone_is_large_sample(reml):
    collection = plots.plot_posterior(reml, parameters="days", backend="none")
    curve = drawn(collection, "dist", "estimate", parameter="days", estimator="REML")
    x, y = np.asarray(curve["x"]), np.asarray(curve["y"])
    mean = np.trapezoid(x * y, x)
    assert mean == pytest.approx(reml.beta["days"], abs=0.1)
    line = calls(collection, "estimate", "vline", parameter="days")
    assert line[0]["x"] == reml.beta["days"]


def test_draws_carry_the_labels_of_the_tables(nuts):
    draws = parameter_draws(nuts)
    components = nuts.variance_components()
    for name in components.index:
        assert draws[name].mean() == pytest.approx(components.loc[name, "estimate"])
    assert set(nuts.design.coef) <= set(draws)


# --- trajectories ---------------------------------------------------------------------------------------------------


def lines_of(visual):
    """Separate the lines of an artist with gaps."""
    x, y = np.asarray(visual["x"]), np.asarray(visual["y"])
    ends = np.flatnonzero(np.isnan(x))
    pieces = [(a[~np.isnan(a)], b[~np.isnan(b)]) for a, b in zip(np.split(x, ends), np.split(y, ends), strict=True)]
    return [piece for piece in pieces if len(piece[0])]


def test_trajectories_are_faceted_by_the_level_2_factor(dental_reml, dental):
    collection = plots.plot_trajectories(dental_reml, backend="none")
    assert list(collection.viz.panel.values) == ["sex: Female", "sex: Male"]
    for sex, n in (("Female", 11), ("Male", 16)):
        panel = f"sex: {sex}"
        lines = lines_of(drawn(collection, "subject", "trajectories", panel=panel))
        assert len(lines) == n
        points = drawn(collection, "points", "trajectories", panel=panel)
        y = np.asarray(points["y"])
        own = dental.loc[dental["sex"] == sex, "distance"]
        np.testing.assert_array_equal(np.sort(y[~np.isnan(y)]), np.sort(own))
        (x, y), *rest = lines_of(drawn(collection, "population", "trajectories", panel=panel))
        assert not rest
        grid = pd.DataFrame({"time": x, "sex": sex})
        np.testing.assert_allclose(y, dental_reml.predict(grid, level="population")["estimate"])


def test_subject_lines_are_the_subjects_own_regressions(reml):
    collection = plots.plot_trajectories(reml, subjects=[308, 335], backend="none")
    assert list(collection.viz.panel.values) == ["308", "335"]
    for subject in (308, 335):
        ((x, y),) = lines_of(drawn(collection, "subject", "trajectories", panel=str(subject)))
        own = reml.subject_coef.loc[subject]
        np.testing.assert_allclose(y, own["Intercept"] + own["days"] * x)
        assert calls(collection, "trajectories", "title", panel=str(subject))[0]["string"] == f"subject {subject}"


def test_styles_of_trajectories(dental_reml):
    layers = {
        "all": {"points", "subject", "population"},
        "data": {"points", "lines"},
        "subject": {"points", "subject"},
        "population": {"points", "lines", "population"},
    }
    for show, expected in layers.items():
        collection = plots.plot_trajectories(dental_reml, show=show, backend="none")
        assert expected == {"points", "lines", "subject", "population"} & set(collection.viz.children)
    raw = plots.plot_trajectories(dental_reml, show=["lines"], by=[], backend="none")
    pieces = lines_of(drawn(raw, "lines", "trajectories", panel=""))
    assert len(pieces) == 27 and all(list(x) == [0, 2, 4, 6] for x, _ in pieces)
    with pytest.raises(SpecificationError, match="Did you mean 'subject'"):
        plots.plot_trajectories(dental_reml, show="subjects", backend="none")


def test_trajectories_of_curves_splines_and_categories():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"id": np.repeat(np.arange(12), 6), "t": rng.uniform(0, 5, 72), "dose": ["a", "b", "c"] * 24})
    frame["age"] = rng.normal(50, 5, 12)[frame["id"]]
    frame["y"] = frame["t"] ** 2 + 0.1 * frame["age"] + rng.normal(size=12)[frame["id"]] + rng.normal(size=72)
    fit = TwoLevelModel.from_formula("y ~ bs(t, df=4) * dose + age + (1 | id)", frame).fit_reml()
    collection = plots.plot_trajectories(fit, backend="none")
    ((x, y),) = lines_of(drawn(collection, "population", "trajectories", panel=""))
    assert len(x) == STEPS and x[0] == frame["t"].min()
    # The average over subjects of the lines at b = 0, by prediction one by one; a dose holds until the next row.
    single = []
    for _, own in frame.sort_values("t").groupby("id"):
        at = np.maximum(np.searchsorted(own["t"], x, side="right") - 1, 0)
        new = pd.DataFrame({"t": x, "dose": own["dose"].to_numpy()[at], "age": own["age"].iloc[0]})
        single.append(fit.predict(new, level="population")["estimate"])
    np.testing.assert_allclose(y, np.mean(single, axis=0))
    _check_through_fitted(fit, frame["t"])
    by_dose = plots.plot_trajectories(fit, variable="dose", backend="none")
    assert calls(by_dose, "trajectories", "xticks", panel="")[0]["labels"] == ["a", "b", "c"]


def _check_through_fitted(fit, x):
    """Every subject line passes through its fitted values."""
    lines = subject_lines(fit, x_axis(fit.design, None), range(fit.n_subjects))
    fitted, index, x = fit.fitted().to_numpy(), fit.design.subject_index, np.asarray(x, dtype=float)
    for j, (grid, y) in lines.items():
        at = np.searchsorted(grid, x[index == j])
        np.testing.assert_array_equal(grid[at], x[index == j])
        np.testing.assert_allclose(y[at], fitted[index == j], rtol=1e-9)
    return lines


def test_lines_follow_an_offset_that_varies_within_subjects(dental):
    data = dental.assign(o=10.0 * dental["time"], up=dental["distance"] + 10 * dental["time"])
    fit = TwoLevelModel.from_formula("up ~ time + offset(o) + (1 + time | subject)", data).fit_reml()
    _check_through_fitted(fit, data["time"])
    x, y = population_line(fit, x_axis(fit.design, None), np.arange(27))
    np.testing.assert_allclose(y, fit.beta["Intercept"] + (fit.beta["time"] + 10) * x)
    # The offset is the same function of time for all, so it goes on where a subject has no rows.
    short = data[(data["subject"] != data["subject"].iloc[0]) | (data["time"] < 3)]
    less = TwoLevelModel.from_formula("up ~ time + offset(o) + (1 + time | subject)", short).fit_reml()
    x, y = population_line(less, x_axis(less.design, None), np.arange(27))
    np.testing.assert_allclose(y, less.beta["Intercept"] + (less.beta["time"] + 10) * x)


def test_lines_follow_a_square_made_by_the_user_at_irregular_times():
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"id": np.repeat(np.arange(20), 5), "t": rng.uniform(0, 6, 100)})
    data["t2"] = (data["t"] - 3) ** 2
    data["noise"] = rng.normal(size=100)
    data["y"] = data["t2"] + rng.normal(size=20)[data["id"]] + rng.normal(size=100)
    fit = TwoLevelModel.from_formula("y ~ t + t2 + (1 | id)", data).fit_reml()
    lines = _check_through_fitted(fit, data["t"])
    own = fit.subject_coef.iloc[0]
    x, y = lines[0]
    np.testing.assert_allclose(y, own["Intercept"] + own["t"] * x + own["t2"] * (x - 3) ** 2, atol=0.1)
    noisy = TwoLevelModel.from_formula("y ~ t + t2 + noise + (1 | id)", data).fit_reml()
    _check_through_fitted(noisy, data["t"])


def test_a_variable_used_as_a_factor_joins_its_observed_values(dental):
    data = dental.assign(age=dental["time"] + 8.0)
    for formula in ("distance ~ C(age) + (1 | subject)", "distance ~ C(age + 1) + (1 | subject)"):
        fit = TwoLevelModel.from_formula(formula, data).fit_reml()
        lines = _check_through_fitted(fit, data["age"])
        assert all(list(x) == [8, 10, 12, 14] for x, _ in lines.values())
        x, y = population_line(fit, x_axis(fit.design, None), np.arange(27))
        assert list(x) == [8, 10, 12, 14]
        np.testing.assert_allclose(y, data.groupby("age")["distance"].mean())


def test_trajectories_without_a_level_1_variable():
    fit = TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", load_dataset("dyestuff")).fit_reml()
    collection = plots.plot_trajectories(fit, backend="none")
    ((x, y),) = lines_of(drawn(collection, "population", "trajectories", panel=""))
    assert list(x) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(y, fit.beta["Intercept"])
    assert calls(collection, "trajectories", "xticks", panel="")[0]["ticks"] == [1, 2, 3, 4, 5]


def test_trajectories_refuse_what_the_model_does_not_know(dental_reml, reml):
    with pytest.raises(SpecificationError, match="not a level-2 variable"):
        plots.plot_trajectories(dental_reml, by="age", backend="none")
    with pytest.raises(SpecificationError, match="vary within subjects"):
        plots.plot_trajectories(dental_reml, variable="sex", backend="none")
    with pytest.raises(SpecificationError, match="not in the fitted data"):
        plots.plot_trajectories(reml, subjects=[1], backend="none")


def test_trajectories_say_how_many_subjects_are_drawn(reml):
    collection = plots.plot_trajectories(reml, max_subjects=6, backend="none")
    assert len(lines_of(drawn(collection, "subject", "trajectories", panel=""))) == 6
    assert "subject lines (6 of 18 subjects)" in collection.aes["color"].dataset.coords["line"].to_numpy()


# --- shrinkage ------------------------------------------------------------------------------------------------------


def test_separate_and_pooled_fits_are_least_squares(reml, sleepstudy, dental_reml, dental):
    separate = separate_coefficients(reml)
    own = sleepstudy[sleepstudy["subject"] == 308]
    slope, intercept = np.polyfit(own["days"], own["reaction"], 1)
    np.testing.assert_allclose(separate.loc[308, ["Intercept", "days"]], [intercept, slope])
    pooled = pooled_coefficients(dental_reml)
    for sex, subjects in dental.groupby("sex", observed=True)["subject"]:
        rows = dental[dental["sex"] == sex]
        slope, intercept = np.polyfit(rows["time"], rows["distance"], 1)
        np.testing.assert_allclose(pooled.loc[subjects.unique()], [[intercept, slope]] * subjects.nunique())


def test_separate_fits_hold_fixed_slopes_at_the_fit(sleepstudy):
    fit = TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_reml()
    rest = sleepstudy["reaction"] - fit.beta["days"] * sleepstudy["days"]
    expected = rest.groupby(sleepstudy["subject"]).mean()
    np.testing.assert_allclose(separate_coefficients(fit)["Intercept"], expected)


def test_subjects_with_too_few_rows_have_no_separate_fit(sleepstudy):
    short = sleepstudy[(sleepstudy["subject"] != 308) | (sleepstudy["days"] == 0)]
    fit = TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", short).fit_reml()
    assert separate_coefficients(fit).isna().any(axis=1).sum() == 1
    collection = plots.plot_shrinkage(fit, backend="none")
    assert len(lines_of(drawn(collection, "shift", "shrinkage", panel=""))) == 17


def test_shrinkage_goes_from_separate_to_partial(reml):
    collection = plots.plot_shrinkage(reml, backend="none")
    moves = lines_of(drawn(collection, "shift", "shrinkage", panel=""))
    separate, partial = separate_coefficients(reml), reml.subject_coef
    assert len(moves) == 18
    for (x, y), subject in zip(moves, separate.index, strict=True):
        assert list(x) == [separate.loc[subject, "Intercept"], partial.loc[subject, "Intercept"]]
        assert list(y) == [separate.loc[subject, "days"], partial.loc[subject, "days"]]
    pooled = drawn(collection, "points_pooled fit", "shrinkage", panel="", estimate="pooled fit")
    assert np.asarray(pooled["x"]).item() == pytest.approx(reml.beta["Intercept"])


def test_ellipse_holds_its_share_of_subjects(reml):
    collection = plots.plot_shrinkage(reml, coverage=0.9, backend="none")
    ((x, y),) = lines_of(drawn(collection, "ellipse", "shrinkage", panel=""))
    deviation = np.vstack([x - reml.beta["Intercept"], y - reml.beta["days"]])
    distance = np.einsum("in,ij,jn->n", deviation, np.linalg.inv(reml.D), deviation)
    np.testing.assert_allclose(distance, 4.60517, rtol=1e-5)


def test_shrinkage_of_one_term_is_sorted(reml):
    collection = plots.plot_shrinkage(reml, terms="days", backend="none")
    point = drawn(collection, "points_partial pooling", "shrinkage", panel="", estimate="partial pooling")
    assert np.all(np.diff(np.asarray(point["x"])) >= 0)
    order = reml.subject_coef["days"].sort_values().index
    assert calls(collection, "shrinkage", "yticks", panel="")[0]["labels"] == [str(s) for s in order]
    with pytest.raises(SpecificationError, match="one or two"):
        plots.plot_shrinkage(reml, terms=[], backend="none")


def test_separate_fits_far_away_do_not_set_the_scale():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "t": rng.uniform(0, 6, 150)})
    data["y"] = 20 + rng.normal(0, 2, 30)[data["id"]] + (0.7 + rng.normal(0, 0.3, 30)[data["id"]]) * data["t"]
    data["y"] += rng.normal(size=150)
    close = pd.DataFrame({"id": [30, 30, 31, 31], "t": [1, 1.05, 4, 4.04], "y": [24, 22.8, 24, 22.5]})
    fit = TwoLevelModel.from_formula("y ~ t + (1 + t | id)", pd.concat([data, close])).fit_reml()
    separate, partial = separate_coefficients(fit), fit.subject_coef
    assert separate["t"].min() < -20
    for terms in (["Intercept", "t"], "t"):
        axes = plots.plot_shrinkage(fit, terms=terms, backend="matplotlib").get_viz("figure").axes[0]
        low, high = axes.get_ylim() if len(terms) == 2 else axes.get_xlim()
        assert -5 < low < partial["t"].min() and partial["t"].max() < high < 5
        assert "2 of 32 separate fits lie outside" in axes.get_title()
    collection = plots.plot_shrinkage(fit, backend="none")
    moves = lines_of(drawn(collection, "shift", "shrinkage", panel=""))
    limits = calls(collection, "shrinkage", "ylim", panel="")[0]["lims"]
    limits_x = calls(collection, "shrinkage", "xlim", panel="")[0]["lims"]
    assert len(moves) == 32
    for (x, y), subject in list(zip(moves, separate.index, strict=True))[-2:]:
        assert (x[1], y[1]) == tuple(partial.loc[subject, ["Intercept", "t"]])
        # From the border, in the direction of the separate fit.
        assert np.isclose([x[0], y[0]] * 2, [*np.ravel([limits_x, limits])[[0, 2, 1, 3]]]).any()
        way = separate.loc[subject, ["Intercept", "t"]].to_numpy() - [x[1], y[1]]
        np.testing.assert_allclose((x[0] - x[1]) * way[1], (y[0] - y[1]) * way[0])


# --- every plot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("kind", ["likelihood", "posterior", "comparison"])
def test_every_plot_takes_every_fit(plot, kind, reml, nuts, three):
    collection = plot({"likelihood": reml, "posterior": nuts, "comparison": three}[kind], backend="none")
    assert type(collection).__name__ == "PlotCollection"


def visible_ticks(ax):
    low, high = sorted(ax.get_ylim())
    return [t for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high]


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_clipped_or_overlaps(plot, three, dental_reml):
    for fits in (three, dental_reml):
        figure = plot(fits, backend="matplotlib").get_viz("figure")
        figure.canvas.draw()
        page = figure.bbox
        texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label, *visible_ticks(ax))]
        boxes = [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
        legends = [legend.get_window_extent() for legend in figure.legends]
        titles = [t.get_window_extent() for t in [figure._suptitle] if t is not None and t.get_text()]
        for box in boxes + legends + titles:
            assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, box
            assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, box
        panels = [ax.get_window_extent() for ax in figure.axes]
        panel_titles = [ax.title.get_window_extent() for ax in figure.axes if ax.title.get_text()]
        for outer in legends + titles:
            assert not any(outer.overlaps(box) for box in panels + panel_titles)
        for i, box in enumerate(panel_titles):
            assert not any(box.overlaps(other) for other in panel_titles[i + 1 :])


def test_several_estimators_have_a_legend(three):
    for plot in (three.plot_forest, three.plot_posterior, three.plot_random_effects):
        (legend,) = plot(backend="matplotlib").get_viz("figure").legends
        assert [t.get_text() for t in legend.get_texts()] == ["NUTS", "REML", "ML"]
    (legend,) = three.plot_trajectories(backend="matplotlib").get_viz("figure").legends
    assert [t.get_text() for t in legend.get_texts()] == ["subject lines", "population line"]
    (legend,) = three.plot_shrinkage(backend="matplotlib").get_viz("figure").legends
    assert [t.get_text() for t in legend.get_texts()] == ["separate fits", "partial pooling", "pooled fit"]


def test_figures_are_saved(three, tmp_path):
    three.plot_forest(figure_kwargs={"figsize": (9, 4)}).savefig(tmp_path / "forest.png")
    three.plot_shrinkage("REML").savefig(tmp_path / "shrinkage.pdf", bbox_inches="tight")
    assert all(path.stat().st_size > 3000 for path in tmp_path.iterdir())


@pytest.mark.parametrize("plot", PLOTS)
def test_bokeh(plot, three):
    pytest.importorskip("bokeh")
    assert "bokeh" in type(plot(three, backend="bokeh").get_viz("figure")).__module__


@pytest.mark.parametrize("plot", PLOTS)
def test_plotly(plot, three):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    assert "plotly" in type(plot(three, backend="plotly").get_viz("figure")).__module__


def test_backends_are_checked(three, monkeypatch):
    with pytest.raises(SpecificationError, match="no backend of this name"):
        plots.plot_forest(three, backend="ggplot")
    monkeypatch.setattr("hierlmm.drawing.style.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="not installed"):
        plots.plot_forest(three, backend="plotly")


def test_long_names_are_broken():
    assert wrap_title("sex[T.Male]:time") == "sex[T.Male]:time"
    broken = wrap_title("corr(bs(t, df=4)[1], bs(t, df=4)[2])")
    assert "\n" in broken and all(len(line) <= 26 for line in broken.splitlines())
