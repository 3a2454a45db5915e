"""Tables and pictures of effects, names of covariates in them, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from effect_fits import AT, additive, fitted

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.text import table_lines


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.marginal_means("sexx"), "Did you mean 'sex'"),
        (lambda f: f.marginal_means("sex", at={"tme": 1}), "Did you mean 'time'"),
        (lambda f: f.marginal_means("sex", at={"sex": "Mal"}), "Did you mean 'Male'"),
        (lambda f: f.marginal_means("sex", at={"time": ["a"]}), "is a number"),
        (lambda f: f.marginal_means("sex", at={"time": np.inf}), "is a number"),
        (lambda f: f.marginal_means("sex", at={"time": []}), "no value is left"),
        (lambda f: f.marginal_means("sex", by="sex"), "both as what is asked"),
        (lambda f: f.marginal_means("sex", weights="cells"), "not one of the choices"),
        (lambda f: f.marginal_means("sex", ci=95), "between 0 and 1"),
        (lambda f: f.marginal_means("sex", adjust="tukey"), "another family"),
        (lambda f: f.marginal_means("time", at={"time": range(200_001)}), "more than 200000 rows"),
        (lambda f: f.contrasts("time"), "nothing to compare"),
        (lambda f: f.contrasts("sex", "all"), "not one of the choices"),
        (lambda f: f.contrasts("sex", reference="Male"), "only comparisons with a control"),
        (lambda f: f.contrasts("sex", "trt.vs.ctrl", reference="Mail"), "Did you mean 'Male'"),
        (lambda f: f.contrasts("sex", {"a": [1, -1, 0]}), "there are 2 rows"),
        (lambda f: f.contrasts("sex", {"a": [0, 0]}), "all zero"),
        (lambda f: f.contrasts("sex", {}), "no contrast is named"),
        (lambda f: f.contrasts("sex", "consecutive", adjust="tukey"), "another family"),
        (lambda f: f.contrasts("sex", adjust="scheffe"), "not one of the choices"),
        (lambda f: f.contrasts("sex", adjust="dunnet"), "Did you mean 'dunnett'"),
        (lambda f: f.contrasts("sex").contrasts(), "contrasts of contrasts"),
        (lambda f: f.slopes("sex"), "is a factor"),
        (lambda f: f.slopes("tme"), "Did you mean 'time'"),
        (lambda f: f.contrasts("sex", simultaneous=True), "no posterior"),
        (lambda f: f.contrasts("sex", rope=1), "no posterior"),
        (lambda f: f.contrasts("sex").draws, "draws of a fit by REML"),
    ],
)
def test_what_cannot_be_had_is_refused(call, message):
    with pytest.raises((SpecificationError, NotAvailableError), match=message):
        call(fitted("dental_reml"))


def test_weights_that_are_no_contrast_are_said():
    assert "no comparisons" in repr(fitted("petri_reml").contrasts("group", {"mean of A and B": [0, 0.5, 0.5]}))


def test_effects_are_frozen():
    fit = fitted("rat_pups_reml")
    effects, test = fit.contrasts("treatment", by="sex"), fit.hypothesis("lsize = 0, Intercept = 8")
    for made in (effects, test):
        before, answer = made.table, made.table
        answer.loc[:, "estimate"] = 0.0
        pd.testing.assert_frame_equal(made.table, before)
        with pytest.raises(ValueError, match="read-only"):
            made.L[...] = 0.0
        again = pickle.loads(pickle.dumps(made))
        pd.testing.assert_frame_equal(again.table, before)
        with pytest.raises(AttributeError):
            made.L = None
        with pytest.raises(ValueError, match="read-only"):
            again.L[...] = 0.0


def test_tables_say_how_they_were_made():
    fit = fitted("rat_pups_reml")
    text = repr(fit.contrasts("treatment", by="sex", adjust="holm", df="kenward-roger"))
    for words in ("Kenward and Roger", "Holm's method", "Bonferroni's method", "within each sex", "lsize = 13.3292"):
        assert words in text
    assert "population line" in text and "marginal mean" in text
    proportional = repr(fit.marginal_means("treatment", weights="proportional"))
    assert "Averaged over sex with proportional weights" in proportional
    page = fit.contrasts("treatment")._repr_html_()
    assert "<table" in page and "Tukey" in page
    html = hl.TwoLevelModel.from_formula(
        "y ~ g + (1 | dish)",
        hl.load_dataset("petri").assign(g=lambda d: d["group"].cat.rename_categories({"A": "<b>A</b>"})),
    )
    assert "<b>A" not in html.fit_reml().contrasts("g")._repr_html_()
    assert "<table" in fit.hypothesis("lsize = 0")._repr_html_()


@pytest.mark.parametrize("backend", ["none", "matplotlib", "bokeh", "plotly"])
def test_plots(backend):
    import matplotlib.pyplot as plt

    fit = fitted("rat_pups_reml")
    effects = fit.contrasts("treatment", by="sex")
    collection = effects.plot(backend=backend)
    assert list(collection.viz["plot"].coords["family"].to_numpy()) == ["sex = Male", "sex = Female"]
    fit.marginal_means("treatment").plot(backend=backend)
    if backend == "matplotlib":
        ax = collection.get_target("effects", {"family": "sex = Male"})
        assert [t.get_text() for t in ax.get_yticklabels()] == ["Control - Low", "Control - High", "Low - High"]
        drawn = np.asarray(ax.collections[-1].get_offsets())
        np.testing.assert_allclose(drawn[:, 0], effects.table["estimate"].iloc[:3])
        np.testing.assert_allclose(drawn[:, 1], [3, 2, 1])
        segments = np.column_stack(ax.lines[0].get_data())
        np.testing.assert_allclose(segments[[0, 1]][:, 0], effects.table[["lower", "upper"]].iloc[0])
        plt.close("all")


NAMES = ("t", "se", "estimate", "contrast", "slope")


@pytest.mark.parametrize("name", NAMES)
def test_covariates_named_like_a_result_stand_aside(dental, name):
    """Numbers are those of the same model with a plain name, in every table that can hold the covariate."""
    fit, plain = (
        hl.TwoLevelModel.from_formula(f"distance ~ sex * {v} + (1 | subject)", dental.rename(columns={"time": v}))
        for v in (name, "time")
    )
    fit, plain = fit.fit_reml(), plain.fit_reml()
    for ask in (
        lambda f, v: f.contrasts("sex", by=v, at={v: [0, 3, 6]}),
        lambda f, v: f.slopes(v, by="sex"),
        lambda f, v: f.slopes(v, at={v: [0, 1]}),
        lambda f, v: f.marginal_means(["sex", v], at={v: [0, 1]}),
        lambda f, v: f.contrasts(["sex", v], at={v: [0, 1]}),
    ):
        ours, theirs = ask(fit, name), ask(plain, "time")
        assert ours.table.columns.is_unique and ours.by == tuple(name if v == "time" else v for v in theirs.by)
        shown = {f"at {name}": "time"} if f"at {name}" in ours.table else {name: "time"}
        columns = ours.table.rename(columns=shown) if "time" in theirs.table else ours.table
        columns = columns.replace(f"per unit of {name}", "per unit of time")
        pd.testing.assert_frame_equal(columns, theirs.table)
        assert len(repr(ours).splitlines()) == len(repr(theirs).splitlines())
        assert "<table" in ours._repr_html_()
        ours.plot(backend="none")
    titles = fit.contrasts("sex", by=name, at={name: [0, 6]}).plot(backend="none").viz["plot"].coords["family"]
    assert titles.to_numpy().tolist() == [f"{name} = 0", f"{name} = 6"]


def test_a_factor_named_contrast_keeps_its_levels(dental):
    data = dental.rename(columns={"sex": "contrast"})
    fit = hl.TwoLevelModel.from_formula("distance ~ contrast * time + (1 | subject)", data).fit_reml()
    table = fit.contrasts("time", by="contrast", at=AT).table
    assert table["at contrast"].tolist() == ["Female", "Male"] and table["contrast"].tolist() == ["0 - 6"] * 2


def test_predictions_of_new_subjects_keep_a_time_called_estimate(dental):
    data = dental.rename(columns={"time": "estimate"})
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * estimate + (1 | subject)", data).fit_reml()
    found = fit.predict_subject(data[data["subject"] == data["subject"].iloc[0]].drop(columns="subject"), [7, 8])
    assert found.columns.tolist() == ["at estimate", "estimate"] and found["at estimate"].tolist() == [7, 8]
    assert found["estimate"].min() > 15


def test_names_in_backticks_are_the_names_in_them(dental):
    data = dental.rename(columns={"time": "my time"})
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * `my time` + (1 | subject)", data).fit_reml()
    for ask in (
        lambda v: fit.marginal_means("sex", by=v, at={v: [0, 1]}),
        lambda v: fit.marginal_means(v, at={v: [0, 1]}),
        lambda v: fit.contrasts("sex", by=v, at={v: [0, 1]}),
        lambda v: fit.slopes(v, by="sex"),
        lambda v: fit.effects(v, by="sex", at={v: [0, 1]}),
    ):
        pd.testing.assert_frame_equal(ask("`my time`").table, ask("my time").table)
    for text in ("sex[T.Male]:`my time` = 0", "`my time`:sex[T.Male] = 0", "2 * `my time` - 1 = 0"):
        np.testing.assert_array_equal(fit.hypothesis(text).L, fit.hypothesis(text.replace("`", "")).L)


def test_plots_say_what_is_drawn():
    fit = additive()
    tukey = "95 % intervals (Tukey's method)"
    for effects, xlabel, title in (
        (fit.contrasts("time", at={"time": [0, 3, 6]}), "difference of distance (mm)", tukey),
        (fit.contrasts("sex"), "difference of distance (mm)", "95 % intervals"),
        (fit.slopes("time"), "change of distance (mm per year)", "95 % intervals"),
        (fit.slopes("time", by="sex").contrasts(), "difference of slopes of distance (mm per year)", "95 % intervals"),
        (fit.marginal_means("sex"), "distance (mm)", "95 % intervals"),
    ):
        assert (effects.axis_label, effects.intervals_text) == (xlabel, title)
        picture = effects.plot(backend="matplotlib")
        axes = picture.get_viz("figure").axes[0]
        assert axes.get_xlabel().replace("\n", " ") == xlabel
        assert title in (picture.caption if len(effects) == 1 else axes.figure._suptitle.get_text().replace("\n", " "))
    ranks = fit.rank_subjects(top=4).plot(backend="matplotlib").get_viz("figure").axes[0]
    assert "dashed: the first 4" in ranks.get_xlabel()


def test_numbers_of_a_table_as_text():
    table = pd.DataFrame(
        {
            "sex": ["F", "M"],
            "estimate": [12.34567, -0.5],
            "df": [np.inf, 24.96],
            "p": [1e-5, 0.05],
            "prob_positive": [1e-5, np.nan],
        }
    )
    assert [line.split() for line in table_lines(table, ["sex"])] == [
        ["sex", "estimate", "df", "p", "prob_positive"],
        ["F", "12.346", "inf", "<0.0001", "<0.0001"],
        ["M", "-0.500", "25.0", "0.0500"],
    ]
