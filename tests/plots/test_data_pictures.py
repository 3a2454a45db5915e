"""Pictures of the data, of regressions alone, of differences between subjects and of histories: what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from boxes import faults
from drawn_by_none import calls, drawn, lines_of
from matplotlib import pyplot as plt

import hierlmm as hl
from hierlmm.drawing.labels import spread
from hierlmm.errors import SpecificationError


def points_of(visual):
    """Points that are drawn, without the padding."""
    x, y = np.asarray(visual["x"], dtype=float), np.asarray(visual["y"], dtype=float)
    there = np.isfinite(x)
    return x[there], y[there]


@pytest.fixture(scope="module")
def dental_model(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)


@pytest.fixture(scope="module")
def esoph():
    return hl.load_dataset("esoph")


@pytest.fixture(scope="module")
def esoph_reml(esoph):
    return hl.TwoLevelModel.from_formula("ncases ~ ncontrols + (ncontrols | agegp)", esoph).fit_reml()


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(123)
    y = np.repeat(rng.normal(0.0, 100.0, 10), 8) + rng.normal(0.0, 20.0, 80)
    return pd.DataFrame({"y": y, "cluster": np.repeat(np.arange(10), 8)})


# The data.


def test_every_subject_has_its_own_line(dental, dental_model):
    picture = dental_model.plot_data(backend="none")
    for sex, part in dental.groupby("sex", observed=True):
        lines = lines_of(drawn(picture, "lines", "data", panel=str(sex)))
        own = [one.sort_values("time")["distance"].tolist() for _, one in part.groupby("subject")]
        assert sorted(y.tolist() for _, y in lines) == sorted(own)
        assert len(points_of(drawn(picture, "points", "data", panel=str(sex)))[0]) == len(part)


def test_rows_without_a_time_are_counted_from_one(clusters):
    """As in the trajectories of a fit."""
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | cluster)", clusters)
    axes = model.plot_prior_predictive(draws=1, seed=1).get_viz("figure").axes[0]
    assert axes.get_xlabel() == "row within cluster"
    assert np.nanmin(axes.lines[0].get_xdata()) == 1.0
    assert model.fit_reml().plot_trajectories().get_viz("figure").axes[0].get_xlabel() == "row within cluster"


@pytest.mark.parametrize("how", [{}, {"by": "arm"}, {"facet": "arm"}])
def test_some_subjects_of_every_group_are_drawn(how):
    """Allotted in turn: evenly spaced in the order of the data they would miss one arm of three."""
    data = pd.DataFrame({"subject": np.repeat(np.arange(60), 3), "t": np.tile([0.0, 1.0, 2.0], 60)})
    data["arm"] = np.array(["A", "B", "C"])[data["subject"] % 3]
    data["y"] = np.random.default_rng(1).normal(size=len(data))
    model = hl.TwoLevelModel.from_formula("y ~ arm * t + (1 | subject)", data)
    picture = model.plot_data(max_subjects=40, backend="none", **how)
    for arm in "ABC":
        where = ("points_" + arm, "") if "by" in how else ("points", arm)
        assert len(points_of(drawn(picture, where[0], "data", panel=where[1]))[0]) == pytest.approx(40, abs=3)
    fitted = model.fit_reml().plot_trajectories(max_subjects=40, backend="none")
    for arm in "ABC":
        x, _ = points_of(drawn(fitted, "points", "trajectories", panel=f"arm: {arm}"))
        assert len(x) == pytest.approx(40, abs=3)


def test_names_with_dollar_signs_are_written_as_they_are(dental):
    """Between two of them matplotlib would set a formula, or raise; numbers at ticks keep their powers of ten."""
    odd = dental.rename(columns={"distance": r"cost ($) per \foo ($)"})
    odd["subject"] = [f"$A_{s}$" for s in odd["subject"]]
    fit = hl.TwoLevelModel.from_formula(r"`cost ($) per \foo ($)` ~ time + (1 | subject)", odd).fit_reml()
    picture = fit.plot_random_effects()
    picture._repr_png_()
    (axes,) = picture.get_viz("figure").axes
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())
    assert not axes.xaxis.label.get_parse_math()
    assert all(label.get_parse_math() for label in axes.get_xticklabels())
    _, own = plt.subplots()
    fit.plot_residuals(ax=own)
    own.get_figure().canvas.draw()
    assert r"\foo" in own.get_xlabel()


def test_a_fit_adds_its_population_line(dental_model, dental_reml):
    assert "population" not in dental_model.plot_data(backend="none").viz
    picture = dental_reml.plot_data(facet="sex", backend="none")
    x, y = points_of(drawn(picture, "population", "data", panel="Male"))
    rows = pd.DataFrame({"sex": "Male", "time": x, "subject": dental_reml.design.subjects[0]})
    np.testing.assert_allclose(y, dental_reml.predict(rows, level="population")["estimate"], rtol=1e-10)
    by = dental_reml.plot_data(by="sex", backend="none")
    x, y = points_of(drawn(by, "population_Male", "data", panel=""))
    np.testing.assert_allclose(y[np.argsort(x)][[0, -1]], [22.6156, 27.3234], atol=2e-3)  # 22.6156 + 6 (0.7844 - ...)


def test_many_subjects_are_a_sample_and_the_title_says_so():
    data = hl.simulate(
        beta={"Intercept": 10, "time": -1},
        D=np.array([[4.0]]),
        sigma=1.0,
        random=["Intercept"],
        n_subjects=1000,
        times=(0, 1, 2),
        seed=1,
    )
    model = hl.TwoLevelModel.from_formula("y ~ time + (1 | subject)", data)
    picture = model.plot_data(max_subjects=50)
    assert picture.get_viz("figure")._suptitle.get_text() == "y along time, 50 of 1,000 subjects"
    assert len(lines_of(drawn(model.plot_data(max_subjects=50, backend="none"), "lines", "data", panel=""))) == 50


def test_clusters_without_a_time_stand_beside_each_other(clusters):
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | cluster)", clusters)
    picture = model.plot_data(backend="none")
    places, heights = [], []
    for k in range(6):
        x, y = points_of(drawn(picture, f"points_{k}", "data", panel=""))
        assert set(np.round(x).astype(int) % 6) == {k}
        places += np.round(x).astype(int).tolist()
        heights += y.tolist()
    assert sorted(zip(places, heights, strict=True)) == sorted(zip(clusters["cluster"], clusters["y"], strict=True))
    dashes = lines_of(drawn(picture, "means", "data", panel=""))
    np.testing.assert_allclose([y[0] for _, y in dashes], clusters.groupby("cluster")["y"].mean())
    fit = model.fit_reml()
    dashes = lines_of(drawn(fit.plot_data(backend="none"), "means", "data", panel=""))
    np.testing.assert_allclose([y[0] for _, y in dashes], fit.subject_coef["Intercept"])


def test_a_sample_of_clusters_stands_side_by_side(clusters):
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | cluster)", clusters)
    picture = model.plot_data(max_subjects=4, backend="none")
    kept = [0, 3, 6, 9]
    for k, cluster in enumerate(kept):
        x, y = points_of(drawn(picture, f"points_{k}", "data", panel=""))
        assert set(np.round(x)) == {k} and sorted(y) == sorted(clusters.loc[clusters["cluster"] == cluster, "y"])
    dashes = lines_of(drawn(picture, "means", "data", panel=""))
    np.testing.assert_allclose([y[0] for _, y in dashes], clusters.groupby("cluster")["y"].mean().loc[kept])
    np.testing.assert_allclose([x.mean() for x, _ in dashes], range(4))


def test_few_groups_have_colours_and_coinciding_points_are_moved(esoph, esoph_reml):
    picture = esoph_reml.design and hl.TwoLevelModel.from_formula(
        "ncases ~ ncontrols + (ncontrols | agegp)", esoph
    ).plot_data(backend="none")
    for label, part in esoph.groupby("agegp", observed=True):
        x, y = points_of(drawn(picture, f"points_{label}", "data", panel=""))
        assert sorted(x) == sorted(part["ncontrols"])
        assert sorted(np.round(y)) == sorted(part["ncases"]) and np.abs(y - np.round(y)).max() <= 0.25


def test_numbers_have_three_classes(between):
    model = hl.TwoLevelModel.from_formula("distance ~ time + iq + (1 | subject)", between)
    picture = model.plot_data(by="iq", backend="none")
    sizes = [len(points_of(drawn(picture, name, "data", panel=""))[0]) for name in picture.viz if "points_" in name]
    assert len(sizes) == 3 and sum(sizes) == len(between) and min(sizes) == max(sizes) == 36


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "sx"}, "Did you mean 'sex'"),
        ({"facet": "distance"}, "no column of this name"),
        ({"by": "subject"}, "so many colours"),
        ({"facet": "subject"}, "so many panels"),
        ({"population": True}, "call fit.plot_data"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, words, dental_model):
    with pytest.raises(SpecificationError, match=words):
        dental_model.plot_data(**options)


# Regressions alone.


def test_lines_alone_are_least_squares_and_the_others_the_models(esoph, esoph_reml):
    picture = esoph_reml.plot_separate_lines(backend="none")
    for label, part in esoph.groupby("agegp", observed=True):
        slope, intercept = np.polyfit(part["ncontrols"], part["ncases"], 1)
        x, y = points_of(drawn(picture, f"lines_{label}", "lines", model="each alone"))
        np.testing.assert_allclose(y, intercept + slope * x, atol=1e-8)
        assert (x.min(), x.max()) == (part["ncontrols"].min(), part["ncontrols"].max())
        x, y = points_of(drawn(picture, f"lines_{label}", "lines", model="mixed model"))
        a, b = esoph_reml.subject_coef.loc[label]
        np.testing.assert_allclose(y, a + b * x, atol=1e-8)
    slope, intercept = np.polyfit(esoph["ncontrols"], esoph["ncases"], 1)
    x, y = points_of(drawn(picture, "shared", "lines", model="each alone"))
    np.testing.assert_allclose(y, intercept + slope * x, atol=1e-8)
    x, y = points_of(drawn(picture, "shared", "lines", model="mixed model"))
    np.testing.assert_allclose(y, esoph_reml.beta.iloc[0] + esoph_reml.beta.iloc[1] * x, atol=1e-8)


def test_groups_are_named_in_their_colours(esoph_reml):
    figure = esoph_reml.plot_separate_lines().get_viz("figure")
    for ax in figure.axes:
        texts = {t.get_text(): t.get_color() for t in ax.texts}
        assert {str(s) for s in esoph_reml.design.subjects} <= set(texts)
        assert len(set(texts.values())) == 6
    assert not figure.legends


def test_of_many_groups_those_that_move_most_have_colours(sleep_reml):
    picture = sleep_reml.plot_separate_lines(coloured=2, backend="none")
    named = {name.removeprefix("lines_") for name in picture.viz if str(name).startswith("lines_")}
    own = pd.DataFrame(
        {s: np.polyfit(d["days"], d["reaction"], 1)[::-1] for s, d in sleep_reml.design.frame.groupby("subject")}
    ).T.to_numpy()
    gap = own - sleep_reml.subject_coef.to_numpy()
    days = np.linspace(0, 9, 40)
    moves = np.sqrt(np.mean((gap[:, [0]] + gap[:, [1]] * days) ** 2, axis=1))
    assert named == {str(sleep_reml.design.subjects[k]) for k in np.argsort(-moves)[:2]}


def test_labels_are_apart_and_near():
    placed = spread(np.array([1.0, 1.1, 5.0, 1.05]), 0.5, 0.0, 6.0)
    assert placed[2] == 5.0
    np.testing.assert_allclose(np.sort(placed[[0, 1, 3]]), [0.55, 1.05, 1.55])
    assert placed[0] < placed[3] < placed[1]


# Differences between subjects.


def test_heterogeneity_draws_its_numbers(dental_reml):
    found = dental_reml.heterogeneity()
    picture = found.plot(backend="none")
    for term, rows in found.table.groupby("term", sort=False):
        spans = lines_of(drawn(picture, "range", "heterogeneity", term=term))
        np.testing.assert_allclose([x for x, _ in spans], rows[["low", "high"]])
        spans = lines_of(drawn(picture, "new", "heterogeneity", term=term))
        np.testing.assert_allclose([x for x, _ in spans], rows[["new_low", "new_high"]])
        curves = lines_of(drawn(picture, "density", "heterogeneity", term=term))
        np.testing.assert_allclose([x[np.argmax(y)] for x, y in curves], rows["mean"])
        for (x, y), sd in zip(curves, rows["sd"], strict=True):
            height = y - y.min()
            np.testing.assert_allclose(np.sqrt(np.average((x - x.mean()) ** 2, weights=height)), sd, rtol=2e-2)
        assert len(calls(picture, "heterogeneity", "fill_between_y", term=term)) == 2 * len(rows)


# Histories.


@pytest.fixture(scope="module")
def visits():
    data = pd.DataFrame({"id": ["a"] * 3 + ["b"] * 2, "t": [1.0, 2.5, 4.0, 2.0, 3.0]})
    lab = pd.DataFrame({"id": ["a"] * 3 + ["b"] * 2, "t": [0.0, 2.0, 3.0, 0.5, 2.0], "x": [2.0, 4.0, 1.0, 3.0, 5.0]})
    return data, lab


@pytest.mark.parametrize(
    "rule",
    [
        hl.Cumulative("x"),
        hl.Cumulative("x", rule="step"),
        hl.Cumulative("x", origin=-1.0, extend_back=True),
        hl.Cumulative("x", origin=0.75),
        hl.Cumulative("x", future=True),
    ],
)
def test_the_area_that_is_filled_is_the_number(rule, visits):
    data, lab = visits
    if rule.origin == 0.75:
        lab = lab.assign(t=lab["t"].clip(lower=0.5).where(lab["t"] > 0, 0.0))
    found = hl.time_varying(data, {"area": rule}, subject="id", time="t", history=lab)
    picture = found.plot(backend="none")
    for label, rows in found.data.groupby("id"):
        (fill,) = calls(picture, "history", "fill_between_y", panel=label)
        x, top = np.asarray(fill["x"], dtype=float), np.asarray(fill["y_top"], dtype=float)
        np.testing.assert_allclose(np.trapezoid(top, x), rows["area"].iloc[-1], rtol=1e-12)
        x, y = points_of(drawn(picture, "given", "history", panel=f"{label} "))
        assert (x.tolist(), y.tolist()) == (rows["t"].tolist(), rows["area"].tolist())


def test_carried_values_come_from_their_measurements(visits):
    data, lab = visits
    rules = {"before": hl.Lag("x", lag=1.0), "last": hl.LastValue("x")}
    found = hl.time_varying(data, rules, subject="id", time="t", history=lab)
    lines = lines_of(drawn(found.plot("last", backend="none"), "bridged", "history", panel="a"))
    assert [(x.tolist(), y.tolist()) for x, y in lines] == [
        ([0.0, 1.0], [2.0, 2.0]),
        ([2.0, 2.5], [4.0, 4.0]),
        ([3.0, 4.0], [1.0, 1.0]),
    ]
    lines = lines_of(drawn(found.plot("before", backend="none"), "bridged", "history", panel="a"))
    assert [(x.tolist(), y.tolist()) for x, y in lines] == [
        ([0.0, 1.0], [2.0, 2.0]),
        ([0.0, 2.5], [2.0, 2.0]),
        ([3.0, 4.0], [1.0, 1.0]),
    ]
    with pytest.raises(SpecificationError, match="Did you mean 'last'"):
        found.plot("lst")
    with pytest.raises(SpecificationError, match="no measurements in this history"):
        found.plot(subjects=["c"])


# How they look.


@pytest.fixture(scope="module")
def pictures(dental_model, dental_reml, esoph_reml, sleep_reml, clusters, visits):
    alone = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | cluster)", clusters)
    data, lab = visits
    rules = {"area": hl.Cumulative("x"), "before": hl.Lag("x", lag=1.0)}
    times = hl.time_varying(data, rules, subject="id", time="t", history=lab)
    return {
        "data": dental_model.plot_data,
        "data by sex": lambda **o: dental_reml.plot_data(by="sex", **o),
        "clusters": alone.plot_data,
        "groups": hl.TwoLevelModel.from_formula("ncases ~ ncontrols + (1 | agegp)", esoph_reml.design.frame).plot_data,
        "separate lines": esoph_reml.plot_separate_lines,
        "residuals": lambda **o: sleep_reml.plot_residuals(simulations=20, **o),
        "qq": lambda **o: sleep_reml.plot_qq(simulations=20, **o),
        "heterogeneity": dental_reml.heterogeneity().plot,
        "area": times.plot,
        "lag": lambda **o: times.plot("before", **o),
    }


NAMES = [
    "data",
    "data by sex",
    "clusters",
    "groups",
    "separate lines",
    "residuals",
    "qq",
    "heterogeneity",
    "area",
    "lag",
]


@pytest.mark.parametrize("style", ["paper", "lecture", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_and_nothing_overlaps(name, style, pictures):
    with hl.style(style):
        assert not faults(pictures[name]().get_viz("figure"))


@pytest.mark.parametrize("backend", ["plotly", "bokeh"])
@pytest.mark.parametrize("name", NAMES)
def test_other_backends_draw_them(name, backend, pictures):
    pytest.importorskip(backend)
    assert backend in type(pictures[name](backend=backend).get_viz("figure")).__module__


@pytest.mark.parametrize("name", ["data by sex", "clusters", "residuals"])
def test_one_panel_goes_into_given_axes(name, pictures):
    figure, ax = plt.subplots()
    picture = pictures[name](ax=ax, title="Here")
    assert picture.get_viz("figure") is figure and ax.get_title().startswith("Here")
