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


def lines_of(picture):
    """Points of every line of a profile, by panel and line."""
    axes = picture.get_viz("figure").axes
    return [np.vstack([c.get_offsets() for c in one.collections]) for one in axes]


@pytest.mark.parametrize(
    "asked", [("sex", "visit"), ("visit", "sex"), (["visit", "sex"], None), (["sex", "visit"], None)]
)
def test_means_by_visit_are_a_profile_with_a_line_for_each_arm(mmrm, asked):
    variables, by = asked
    means = mmrm.marginal_means(variables, by=by)
    picture = means.plot()
    assert below(picture) == ("visit", VISITS)
    (points,) = lines_of(picture)
    table = means.table.set_index(["sex", "visit"])
    order = [(sex, visit) for sex in ("Female", "Male") for visit in VISITS]
    np.testing.assert_allclose(points[:, 1], table.loc[order, "estimate"])
    np.testing.assert_array_equal(np.round(points[:, 0]), [0, 1, 2, 3] * 2)
    assert np.all(points[:4, 0] < points[4:, 0])  # beside each other
    ends = [line.get_ydata() for line in picture.get_viz("figure").axes[0].lines if len(line.get_ydata()) == 12]
    for sex, y in zip(("Female", "Male"), ends, strict=True):
        expected = table.loc[[(sex, visit) for visit in VISITS], ["lower", "upper"]].to_numpy().ravel()
        np.testing.assert_allclose(y[np.isfinite(y)], expected)
    assert [text.get_text() for text in picture.get_viz("figure").legends[0].get_texts()] == ["Female", "Male"]


def test_differences_by_visit_have_a_line_at_zero(mmrm):
    contrasts = mmrm.contrasts("sex", by="visit", together=True)
    picture = contrasts.plot()
    assert below(picture) == ("visit", VISITS)
    assert picture.title.startswith("Female - Male: ")
    (points,) = lines_of(picture)
    np.testing.assert_allclose(points[:, 1], contrasts.table.set_index("visit").loc[VISITS, "estimate"])
    assert [0.0, 0.0] in [list(line.get_ydata()) for line in picture.get_viz("figure").axes[0].lines]


def test_numbers_stand_where_they_are(dental):
    data = dental[dental["age"] != 12]
    structure = {"correlation": hl.Unstructured("age"), "subject": "subject"}
    means = hl.MarginalModel("distance ~ sex * C(age)", data=data, **structure).fit_reml().marginal_means("age")
    picture = means.plot()
    assert below(picture) == ("age", ["8", "10", "14"])
    assert lines_of(picture)[0][:, 0].tolist() == [8.0, 10.0, 14.0]


def test_a_profile_along_what_is_asked(mmrm):
    means = mmrm.marginal_means("sex", by="visit")
    across = means.plot(variable="sex", by="visit")
    assert below(across) == ("sex", ["Female", "Male"])
    figure = across.get_viz("figure")
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(VISITS)
    assert below(means.plot(by="sex")) == ("visit", VISITS)
    forest = mmrm.contrasts("visit", by="sex").plot()  # contrasts of visits lie along nothing
    assert len(forest.get_viz("figure").axes) == 2
    for wrong in ({"variable": "weight"}, {"by": "arm"}, {"variable": "visit", "by": "visit"}):
        with pytest.raises(hl.SpecificationError, match="no such variable"):
            means.plot(**wrong)
    with pytest.raises(hl.SpecificationError, match="by='sex' without variable="):
        mmrm.marginal_means("sex").plot(by="sex")


def test_other_variables_have_panels(trial):
    data = trial.assign(clinic=np.where(trial["subject"].astype(str).str[-1].isin(list("02468")), "north", "south"))
    fit = hl.TwoLevelModel.from_formula("distance ~ clinic + sex * visit + (1 | subject)", data).fit_reml()
    picture = fit.marginal_means(["sex", "clinic"], by="visit").plot()
    titles = [axes.get_title() for axes in picture.get_viz("figure").axes]
    assert titles == ["clinic = north", "clinic = south"]
    assert not faults(picture.get_viz("figure"))


def test_names_of_rows_stand_once_where_families_have_the_same(mmrm):
    left, right = mmrm.contrasts("visit", by="sex").plot().get_viz("figure").axes
    names = [[text.get_text() for text in axes.get_yticklabels() if text.get_visible()] for axes in (left, right)]
    assert len(names[0]) == 6 and not names[1]
