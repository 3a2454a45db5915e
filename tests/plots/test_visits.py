"""Pictures of models whose time is a factor: visits stand on the horizontal axis, in their order."""

from __future__ import annotations

import numpy as np
import pytest
from boxes import faults

import hierlmm as hl
from hierlmm.design.questions import occasion_of

VISITS = ["week 2", "week 4", "week 10", "week 12"]


@pytest.fixture(scope="module")
def trial(dental):
    """Text in no order of the alphabet, and a covariate of every row."""
    weight = np.random.default_rng(4).normal(50.0, 5.0, len(dental))
    return dental.assign(visit=dental["time"].map(dict(zip((0, 2, 4, 6), VISITS, strict=True))), weight=weight)


@pytest.fixture(scope="module")
def mmrm(trial):
    formula = "distance ~ weight + sex * visit"
    return hl.MarginalModel(formula, correlation=hl.Unstructured("visit"), subject="subject", data=trial).fit_reml()


@pytest.fixture(scope="module")
def intercepts(trial):
    return hl.TwoLevelModel.from_formula("distance ~ weight + sex * visit + (1 | subject)", trial)


def below(picture):
    """Names and texts below the lowest panels."""
    axes = picture.get_viz("figure").axes[-1]
    return axes.get_xlabel(), [text.get_text() for text in axes.get_xticklabels()]


def test_visits_are_on_the_axis_and_not_a_covariate(mmrm, intercepts):
    """With a structure that names them, and without; `weight` is the first number of level 1."""
    fit = intercepts.fit_reml()
    assert mmrm.design.level1_variables()[0] == "weight"
    pictures = [mmrm.plot_data(), mmrm.plot_trajectories(), fit.plot_data(), fit.plot_trajectories()]
    pictures += [fit.plot_separate_lines(), hl.plots.plot_prior_predictive(intercepts, draws=2)]
    assert [below(picture) for picture in pictures] == [("visit", VISITS)] * len(pictures)
    assert below(mmrm.plot_trajectories(variable="weight"))[0] == "weight"


def test_visits_that_are_no_term_of_the_mean(trial):
    structure = {"correlation": hl.Unstructured("visit"), "subject": "subject"}
    fit = hl.MarginalModel("distance ~ sex + weight", data=trial, **structure).fit_reml()
    assert below(fit.plot_trajectories()) == below(fit.plot_trajectories(variable="visit")) == ("visit", VISITS)
    with pytest.raises(hl.SpecificationError, match="not a level-1 variable"):
        fit.plot_trajectories(variable="sex")


def test_which_column_holds_the_occasions(trial, sleepstudy):
    def asked(formula, data):
        return occasion_of(hl.TwoLevelModel.from_formula(formula, data).design)

    assert asked("reaction ~ days + (1 | subject)", sleepstudy) == "days"
    assert asked("distance ~ weight + visit + (1 | subject)", trial) == "visit"
    numbered = trial.assign(visit=trial["time"].astype("category"))
    assert asked("distance ~ weight + visit + (1 | subject)", numbered) == "visit"
    treated = trial.assign(dose=np.where(trial["time"] < 3, "dose 1", "dose 2"))  # twice each: no occasions
    assert asked("distance ~ time + dose + (1 | subject)", treated) is None
    crossed = trial.assign(drug=trial["time"].map({0: "a", 2: "b", 4: "c", 6: "d"}))  # the alphabet is no order in time
    assert asked("distance ~ weight + drug + (1 | subject)", crossed) is None


def test_names_of_visits_turn_where_they_have_no_room_beside_each_other(intercepts):
    with hl.style("lecture"):
        figure = hl.plots.plot_prior_predictive(intercepts, draws=4).get_viz("figure")
        assert not [fault for fault in faults(figure) if "overlap" in fault]
        assert {text.get_rotation() for text in figure.axes[-1].get_xticklabels()} == {90.0}
        assert below(hl.plots.plot_prior_predictive(intercepts, draws=4))[1] == VISITS
