"""Lines of subjects and of the population: the data drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_by_none import calls, drawn, lines_of

from hierlmm import plots
from hierlmm.datasets import load_dataset
from hierlmm.errors import SpecificationError
from hierlmm.model import TwoLevelModel
from hierlmm.plots.lines import population_line, subject_lines, x_axis


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


def test_subject_lines_are_the_subjects_own_regressions(sleep_reml):
    collection = plots.plot_trajectories(sleep_reml, subjects=[308, 335], backend="none")
    assert list(collection.viz.panel.values) == ["308", "335"]
    for subject in (308, 335):
        ((x, y),) = lines_of(drawn(collection, "subject", "trajectories", panel=str(subject)))
        own = sleep_reml.subject_coef.loc[subject]
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
    assert np.isin(frame["t"], x).all() and x[0] == frame["t"].min()
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


def test_trajectories_refuse_what_the_model_does_not_know(dental_reml, sleep_reml):
    with pytest.raises(SpecificationError, match="not a level-2 variable"):
        plots.plot_trajectories(dental_reml, by="age", backend="none")
    with pytest.raises(SpecificationError, match="vary within subjects"):
        plots.plot_trajectories(dental_reml, variable="sex", backend="none")
    with pytest.raises(SpecificationError, match="not in the fitted data"):
        plots.plot_trajectories(sleep_reml, subjects=[1], backend="none")


def test_trajectories_say_how_many_subjects_are_drawn(sleep_reml):
    collection = plots.plot_trajectories(sleep_reml, max_subjects=6, backend="none")
    assert len(lines_of(drawn(collection, "subject", "trajectories", panel=""))) == 6
    figure = plots.plot_trajectories(sleep_reml, max_subjects=6).get_viz("figure")
    assert figure.get_suptitle() == "reaction along days, 6 of 18 subjects (REML)"


def test_the_legend_says_what_the_population_line_averages(sleep_reml):
    for subjects, text in ((None, "population line, averaged over subjects"), (2, "population line")):
        figure = plots.plot_trajectories(sleep_reml, subjects=subjects, backend="matplotlib").get_viz("figure")
        (legend,) = figure.legends
        assert legend.get_texts()[-1].get_text() == text


@pytest.mark.parametrize("step", ["I(years > 3)", "I(years >= 3)"])
def test_a_line_that_jumps_goes_through_the_fitted_values(step):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 6), "years": np.tile([0.0, 1.0, 2.0, 3.0, 3.1, 6.0], 20)})
    frame["y"] = 70 + 2 * frame["years"] + 3 * (frame["years"] > 3) * frame["years"] + rng.normal(size=20)[frame["id"]]
    frame["y"] += 0.5 * rng.normal(size=120)
    fit = TwoLevelModel.from_formula(f"y ~ years * {step} + (1 | id)", frame).fit_reml()
    picture = plots.plot_trajectories(fit, backend="none")
    lines = [lines_of(drawn(picture, "population", "trajectories", panel=""))]
    lines += [lines_of(drawn(picture, "subject", "trajectories", panel=""))[:2]]
    for pieces, level in zip(lines, ("population", "subject"), strict=True):
        fitted = fit.fitted(level).to_numpy()[:6]
        before, after = pieces
        x, y = np.concatenate([before[0], after[0]]), np.concatenate([before[1], after[1]])
        assert (before[0][-1] == 3.0) == (step == "I(years > 3)") and after[0][0] - before[0][-1] < 1e-6
        for at, value in zip(frame["years"][:6], fitted, strict=True):
            assert y[x == at].tolist() == pytest.approx([value], rel=1e-12)
