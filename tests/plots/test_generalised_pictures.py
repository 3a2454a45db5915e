"""Pictures of models with a family: what is drawn, on which scale."""

import numpy as np
import pandas as pd
import pytest
from references import HERE

import hierlmm as hl
from hierlmm.plots.lines import population_line, subject_lines, x_axis


@pytest.fixture(scope="module")
def data():
    return pd.read_csv(HERE / "data" / "generalized.csv")


@pytest.fixture(scope="module")
def counts(data):
    return hl.TwoLevelModel.from_formula("count ~ time * treat + (time | group)", data, family="poisson").fit_ml()


@pytest.fixture(scope="module")
def binary(data):
    return hl.TwoLevelModel.from_formula("binary ~ time * treat + (1 | group)", data, family="bernoulli").fit_ml()


@pytest.fixture(scope="module")
def binomial(data):
    formula = "p(successes, trials) ~ time + treat + (1 | group)"
    return hl.TwoLevelModel.from_formula(formula, data, family="binomial").fit_ml()


@pytest.mark.parametrize("kind", ["counts", "binary", "binomial"])
def test_subjects_lines_go_through_fitted_means(kind, request):
    fit = request.getfixturevalue(kind)
    axis = x_axis(fit.design, None)
    x, y = subject_lines(fit, axis, [3])[3]
    rows = np.flatnonzero(fit.design.subject_index == 3)
    fitted = (fit.fitted() / fit.design.trials).to_numpy()[rows]
    for row, expected in zip(rows, fitted, strict=True):
        assert y[np.flatnonzero(np.isclose(x, axis.position[row]))[0]] == pytest.approx(expected, rel=1e-10)
    group = np.flatnonzero(fit.design.frame.groupby("group", sort=True)["treat"].first().to_numpy() == "b")
    x, y = population_line(fit, axis, group)
    rows = pd.DataFrame({"time": x, "treat": "b"})
    np.testing.assert_allclose(y, fit.predict(rows, level="population")["estimate"], rtol=1e-9)


def title(picture):
    return picture.viz["figure"].item()._suptitle.get_text()


def axis_of(picture):
    return picture.viz["figure"].item().axes[0]


def test_effect_curves_have_their_names_and_range(binary, counts):
    picture = binary.plot_effects("time", by="treat", data="points", simultaneous=True)
    axis = axis_of(picture)
    assert axis.get_ylabel() == "probability of binary"
    points = np.vstack([c.get_offsets() for c in axis.collections if len(c.get_offsets()) > 1])[:, 1]
    points = np.ma.filled(points, np.nan)[np.isfinite(np.ma.filled(points, np.nan))]
    assert np.all((points >= 0) & (points <= 1))
    assert len(np.unique(points)) > 100  # moved apart
    assert len(np.unique(points > 0.5)) == 2
    assert axis_of(counts.plot_effects("time")).get_ylabel() == "count"
    assert axis_of(counts.plot_effects("time", scale="link")).get_ylabel() == "log of the mean of count"


def test_linear_and_poisson_curves_of_one_response(counts, data):
    linear = hl.TwoLevelModel.from_formula("count ~ time * treat + (time | group)", data).fit_ml()
    picture = hl.plots.plot_effects(linear, counts, variable="time", labels=["linear", "Poisson"])
    assert axis_of(picture).get_ylabel() == "count"


def test_scales_are_named(counts, binary):
    assert "b (log scale)" in axis_of(counts.plot_random_effects()).get_xlabel()
    assert "(log scale)" in str(title(counts.plot_forest()))
    assert "(log scale)" in str(title(counts.plot_posterior()))
    ratio = binary.contrasts("treat").plot()
    lines = axis_of(ratio).lines
    assert any(np.allclose(line.get_xdata(), 1.0) for line in lines)  # no difference is a ratio of 1
    assert axis_of(binary.plot_trajectories()).get_ylabel() == "probability of binary"


@pytest.mark.parametrize("response", ["pain", "cured"])
def test_levels_have_names_and_points_beside_each_other(response, patients):
    family = {"pain": "ordinal", "cured": "bernoulli"}[response]
    model = hl.TwoLevelModel.from_formula(f"{response} ~ week + arm + (1 | patient)", patients, family=family)
    picture = model.plot_data()
    axis = axis_of(picture)
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == {"pain": ["none", "some", "much"], "cured": ["no", "yes"]}[response]
    figure = picture.viz["figure"].item()
    points = np.vstack([c.get_offsets() for ax in figure.axes for c in ax.collections])
    assert len(np.unique(points, axis=0)) == len(patients)
    if response == "cured":
        x, y = axis.lines[0].get_data()
        rows = patients[patients["arm"] == "drug"]
        np.testing.assert_allclose(y, (rows["cured"] == "yes").groupby(rows["week"]).mean())
        np.testing.assert_array_equal(x, [0, 1, 2, 3])
    else:
        assert not axis.lines


def test_successes_are_drawn_as_shares(binomial):
    axis = axis_of(binomial.plot_data())
    assert axis.get_ylabel().endswith("/ trials")
    points = np.vstack([c.get_offsets() for c in axis.collections])
    assert points[:, 1].max() < 1.3


def test_marginal_coefficients_have_densities_of_draws(cured_nuts):
    picture = hl.compare(cured_nuts).plot_posterior()
    figure = picture.viz["figure"].item()
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert np.isfinite(panels["week (marginal)"].lines[0].get_ydata()).sum() > 100


def test_panels_that_say_the_same_are_one(patients):
    formula = "seizures ~ week + (1 | patient)"
    fit = hl.TwoLevelModel.from_formula(formula, patients, family="poisson").fit_ml()
    titles = [ax.get_title() for ax in fit.plot_forest().viz["figure"].item().axes]
    assert "Intercept (marginal)" in titles
    assert "week (marginal)" not in titles
    drawn = fit.plot_forest(parameters="week (marginal)").viz["figure"].item().axes
    assert [ax.get_title() for ax in drawn if ax.get_title()] == ["week (marginal)"]


def test_ratios_have_a_logarithmic_axis(counts):
    axis = axis_of(counts.contrasts("treat", at={"time": 1}).plot())
    assert axis.get_xscale() == "log"
    assert all("$" not in text.get_text() for text in axis.get_xticklabels())
    assert axis_of(counts.contrasts("treat", at={"time": 1}, scale="link").plot()).get_xscale() == "linear"
