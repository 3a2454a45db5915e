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
