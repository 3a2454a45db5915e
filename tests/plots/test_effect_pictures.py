"""Pictures of curves: what is drawn, named and saved."""

from __future__ import annotations

import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from boxes import faults, texts
from cirrhosis_trial import HELD

import hierlmm as hl
from hierlmm.errors import FitWarning, SpecificationError


def drawn(collection, visual, **where):
    return collection.get_viz(visual, "effects", where)


def test_what_is_drawn_is_the_table(cirrhosis):
    with pytest.warns(FitWarning, match="extrapolated"):
        curves = cirrhosis.effects(
            "year", by=["sex", "age"], at={"year": np.linspace(0, 16, 33), **HELD, "age": [40, 60]}, simultaneous=True
        )
    collection = curves.plot(data="partial", backend="none")
    table, (key, rows) = curves.table, curves.curves[3]
    assert key == {"sex": "female", "age": 60.0}
    where = {"panel": "age = 60", "line": "sex = female"}
    part = table.iloc[rows]
    line = drawn(collection, "curve", **where)
    seen = ~part["extrapolated"].to_numpy()
    np.testing.assert_allclose(np.asarray(line["y"])[seen], part.loc[seen, "estimate"])
    assert np.isnan(np.asarray(line["y"])[~seen]).all() and (~seen).any()
    dashed = np.asarray(drawn(collection, "extrapolated", **where)["y"])
    np.testing.assert_allclose(dashed[~seen], part.loc[~seen, "estimate"])
    assert np.isfinite(dashed).sum() == (~seen).sum() + 1
    for visual, ending in (("band", ""), ("simultaneous", "_simultaneous")):
        band = drawn(collection, visual, **where)
        np.testing.assert_allclose(band["y_bottom"], part[f"lower{ending}"])
        np.testing.assert_allclose(band["y_top"], part[f"upper{ending}"])
    points = curves.points("partial")
    own = points[(points["age"] == 60) & (points["sex"] == "female")]
    y = np.asarray(drawn(collection, "points", **where)["y"])
    np.testing.assert_allclose(y[np.isfinite(y)], own["y"])


def test_estimators_on_one_picture(dental_reml, dental_like_nuts, gee):
    collection = hl.plot_effects(dental_like_nuts, dental_reml, gee, "time", by="sex", data="points", backend="none")
    colours = set()
    for label, one in (("NUTS", dental_like_nuts), ("REML", dental_reml), ("GEE", gee)):
        where = {"panel": "sex = Male", "line": label}
        table = one.effects("time", by="sex").table
        line = drawn(collection, "curve", **where)
        np.testing.assert_allclose(line["y"], table.loc[table["sex"] == "Male", "estimate"])
        colours.add(line["color"])
    assert len(colours) == 3
    named = hl.plot_effects({"a": dental_reml, "b": gee}, variable="time", by="sex", backend="none")
    assert drawn(named, "curve", panel="sex = Male", line="b")
    same = hl.compare(dental_reml, gee).plot_effects("time", by="sex", backend="none")
    assert drawn(same, "curve", panel="sex = Male", line="GEE")


def test_fits_are_asked_at_the_same_values(pbc, cirrhosis):
    younger = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year * sex + age + (year | subject)", pbc[pbc["age"] < 50]
    ).fit_reml()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        collection = hl.plot_effects(
            cirrhosis, younger, variable="year", by="sex", at={"basepro": 10}, labels=["all", "young"], backend="none"
        )
        expected = younger.effects(
            "year", by="sex", at={"age": pbc["age"].mean(), "year": np.linspace(0, pbc["year"].max(), 101)}
        )
    y = drawn(collection, "curve", panel="sex = male", line="young")["y"]
    dashed = drawn(collection, "extrapolated", panel="sex = male", line="young")["y"]
    table = expected.table
    np.testing.assert_allclose(
        np.where(np.isnan(y), dashed, y), table.loc[table["sex"] == "male", "estimate"], rtol=1e-10
    )


def test_pictures_that_cannot_be(dental_reml, sleep_reml, cirrhosis, pbc):
    with pytest.raises(SpecificationError, match="one response"):
        hl.plot_effects(dental_reml, sleep_reml, backend="none")
    with pytest.raises(SpecificationError, match="so many colours"):
        cirrhosis.plot_effects("year", by="age", at={"age": range(40, 50)}, backend="none")
    with pytest.raises(SpecificationError, match="so many panels"):
        cirrhosis.plot_effects("year", by="sex", at={"age": range(40, 70)}, backend="none")
    with pytest.raises(SpecificationError, match="made already"):
        hl.plot_effects(cirrhosis.effects("year", n=3), by="sex", backend="none")
    with pytest.raises(SpecificationError, match="not one of the choices"):
        cirrhosis.plot_effects("year", data="residuals", backend="none")


def test_a_table_of_effects_is_drawn_as_one(dental_reml):
    assert hl.plot_effects(dental_reml.marginal_means("sex"), backend="none").get_viz("point_estimate")


def test_page_has_room_for_its_words(cirrhosis):
    collection = cirrhosis.plot_effects(
        "year", by="sex", at=HELD, data="partial", simultaneous=True, backend="matplotlib"
    )
    figure = collection.get_viz("figure")
    figure.canvas.draw()
    assert not faults(figure)
    (caption,) = (words for words, _ in texts(figure) if words.startswith("At "))
    text = caption.replace("\n", " ")
    assert "At age = 49, basepro = 10.6." in text and "simultaneous" in text and "partial residuals" in text
    low, high = figure.axes[0].get_ylim()
    assert low < cirrhosis.design.y.min() + 2.0 and high > 4.0


def test_sliders_combine(cirrhosis):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    at = {"age": [40, 50, 60], "basepro": [10, 12], "year": [0, 3, 9]}
    collection = cirrhosis.plot_effects("year", by="sex", at=at, data="points", simultaneous=True, backend="plotly")
    figure = collection.get_viz("figure")
    first, second = figure.layout.sliders
    assert [s.label for s in first.steps] == ["40", "50", "60"] and [s.label for s in second.steps] == ["10", "12"]
    table = cirrhosis.effects("year", by="sex", at=at).table
    for a, age in enumerate(at["age"]):
        for b, basepro in enumerate(at["basepro"]):
            (visible, traces), (shown, _) = first.steps[a].args, second.steps[b].args
            seen = [
                figure.data[i]
                for i, v, o in zip(traces, visible["visible"], shown["opacity"], strict=True)
                if v and o > 0 and figure.data[i].mode == "lines" and figure.data[i].line.width > 2
            ]
            own = table[(table["age"] == age) & (table["basepro"] == basepro)]
            np.testing.assert_allclose(np.concatenate([t.y for t in seen]), own["estimate"])
            fills = [
                f for i, f in zip(traces, shown["fillcolor"], strict=True) if figure.data[i].fill and f[-3:] != " 0)"
            ]
            assert len(fills) == 3 * 4  # two bands of two curves, at three ages
    active = [first.steps[first.active].label, second.steps[second.active].label]
    now = [t for t in figure.data if t.visible and t.opacity != 0.0 and t.mode == "lines" and (t.line.width or 0) > 2]
    assert active == ["50", "12"] and len(now) == 2


def test_saved_page_needs_no_network(cirrhosis, tmp_path):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    cirrhosis.plot_effects("year", at={"age": [40, 60], "sex": "male"}, backend="plotly", n=5).savefig(
        tmp_path / "page.html"
    )
    found = []

    class Addresses(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(v for k, v in attrs if k in ("src", "href", "data") and v)

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Plotly.newPlot" in page
    Addresses().feed(page)
    assert not found


@pytest.mark.parametrize("name", ["estimate", "se", "lower", "extrapolated", "y", "t"])
def test_covariates_named_like_a_column_of_curves(name, dental):
    data = dental.rename(columns={"time": name})
    fit = hl.TwoLevelModel.from_formula(f"distance ~ sex * {name} + (1 | subject)", data).fit_reml()
    curves = fit.effects(name, by="sex", at={name: [0, 3, 6]})
    expected = f"at {name}" if name in ("estimate", "se", "lower", "extrapolated") else name
    assert curves.table.columns[:2].tolist() == ["sex", expected] and curves.table.columns.is_unique
    assert curves.table[expected].tolist() == [0, 3, 6] * 2 and curves.table["estimate"].between(20, 30).all()
    points = curves.points("partial")
    assert points.columns.tolist() == ["sex", "at y" if name == "y" else name, "y"]
    assert repr(curves).count("Female") == 3 and "<table" in curves._repr_html_()
    assert len(fit.effects(name, at={name: [0, 6]}).curves) == 1
    axes = curves.plot(data="points", backend="matplotlib").get_viz("figure").axes[0]
    assert axes.get_xlabel() == name
    np.testing.assert_allclose(axes.lines[0].get_xdata()[:3], [0, 3, 6])
    assert np.nanmin(np.asarray(axes.collections[0].get_offsets())[:, 1]) > 15


def test_the_legend_is_not_cut_off_and_names_have_no_backticks(dental):
    arms = ["placebo control", "low dose arm", "high dose arm", "standard of care"]
    arm = {s: arms[k % 4] for k, s in enumerate(dental["subject"].unique())}
    data = dental.assign(arm=pd.Categorical([arm[s] for s in dental["subject"]], arms))
    data = data.rename(columns={"time": "my time", "distance": "my distance"})
    fit = hl.TwoLevelModel.from_formula("`my distance` ~ arm * `my time` + (1 | subject)", data).fit_reml()
    figure = fit.plot_effects("`my time`", by="arm", backend="matplotlib").get_viz("figure")
    assert not faults(figure)
    named = [words.replace("\n", " ") for words, _ in texts(figure)]
    assert all(f"arm = {arm}" in named for arm in arms)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("my time", "my distance")
    fit = hl.TwoLevelModel.from_formula("log(`my distance`) ~ `my time` + (1 | subject)", data).fit_reml()
    assert fit.effects("my time", transform="exp").ylabel == "my distance"


def test_one_curve_without_by_is_one_line(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    collection = fit.plot_effects("time")
    axes = collection.get_viz("figure").axes[0]
    (line,) = axes.lines
    table = fit.effects("time").table
    np.testing.assert_allclose(line.get_xdata(), table["time"])
    np.testing.assert_allclose(line.get_ydata(), table["estimate"])
    assert len(axes.collections) == 1  # the band


def test_lines_break_where_the_mean_jumps():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"years": np.tile(np.arange(7.0), 12), "id": np.repeat(np.arange(12), 7)})
    data["y"] = data["years"] + 3.0 * (data["years"] > 3) + rng.normal(size=12)[data["id"]] + rng.normal(size=84)
    fit = hl.TwoLevelModel.from_formula("y ~ years * I(years > 3) + (1 | id)", data).fit_reml()
    effects = fit.plot_effects("years").get_viz("figure").axes[0].lines[0]
    lines = fit.plot_trajectories().get_viz("figure").axes[0].lines
    before, after = fit.predict(pd.DataFrame({"years": [3.0, 3.0 + 1e-9]}), level="population")["estimate"]
    for line in (effects, lines[1]):
        x, y = line.get_xdata(), line.get_ydata()
        (gap,) = np.flatnonzero(np.isnan(x[:-1]) & np.isfinite(x[1:]) & (np.arange(len(x) - 1) > 0))
        np.testing.assert_allclose([x[gap - 1], x[gap + 1]], 3.0, atol=1e-9)
        np.testing.assert_allclose([y[gap - 1], y[gap + 1]], [before, after], atol=1e-6)
    smooth = hl.TwoLevelModel.from_formula("y ~ ns(years, 3) + (1 | id)", data).fit_reml()
    assert smooth.effects("years").jumps.shape == (2, 0) and len(smooth.effects("years", n=11).table) == 11
