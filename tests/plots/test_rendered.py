"""Every picture in three styles and three backends: no text is cut or meets another, marks lie inside their axes."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from boxes import faults, faults_elsewhere
from matplotlib import pyplot as plt
from samples import DENTAL, SLEEP

import hierlmm as hl
from hierlmm.drawing import results
from hierlmm.drawing.theme import theme
from hierlmm.inference.bootstrap_test import BootstrapTest
from hierlmm.inference.savage_dickey import SavageDickey
from hierlmm.missingness.tipping import TippingPoint
from hierlmm.plots.frequencies import Look, draw_bars, draw_rootogram

STYLES = ("paper", "lecture", "dark")
SLOW = [pytest.param("paper", marks=pytest.mark.slow), "lecture", "dark"]  # a paper's letters are the smallest


@pytest.fixture(scope="session")
def studies():
    """A planned study and a calibration, as far as their pictures look at them."""
    rng = np.random.default_rng(3)
    sizes = pd.MultiIndex.from_product([[20, 50, 100], ["time", "sex[T.Male]:time"]], names=["n_subjects", "coef"])
    table = pd.DataFrame({"power": np.linspace(0.2, 0.95, 6), "width": np.linspace(0.8, 0.3, 6)}, index=sizes)
    table = table.assign(width_mcse=0.01, power_lower=table["power"] - 0.05, power_upper=table["power"] + 0.04)
    power = SimpleNamespace(coefs=["time", "sex[T.Male]:time"], table=table, estimator="REML", simulations=200)
    truth = pd.DataFrame(rng.normal(size=(60, 3)), columns=["Intercept", "sd(Intercept)", "corr(Intercept, time)"])
    estimate = truth + 0.3 * rng.normal(size=truth.shape)
    calibration = SimpleNamespace(truth=truth, estimate=estimate, lower=estimate - 0.6, upper=estimate + 0.6)
    calibration.estimator = "NUTS"
    return power, calibration


def _savage_dickey():
    """A Bayes factor as far as its picture looks at it."""
    x = np.linspace(2.0, 18.0, 101)
    curves = pd.DataFrame({"value": x, "prior": 0.02, "posterior": 0.25 * np.exp(-0.5 * ((x - 10.5) / 1.6) ** 2)})
    heights = pd.DataFrame({"log_prior_density": [np.log(0.02)], "log_posterior_density": [np.log(0.074)]})
    return SavageDickey("days = 8", 1.31, 0.01, 0.1, heights, curves, 8.0)


def _tipping():
    """A tipping point as far as its picture looks at it."""
    delta = np.linspace(0.0, -12.0, 7)
    estimate = 4.4 + 0.35 * delta
    table = pd.DataFrame({"estimate": estimate, "lower": estimate - 2.9, "upper": estimate + 2.9})
    table.index = pd.Index(delta, name="delta")
    return TippingPoint(table, -4.3, "week 12", "new drug", "placebo", "FEV1", "imputation", 0.95, 9.0)


def _patterns():
    """Missing visits of dental, thinned at random."""
    data = hl.load_dataset("dental").sample(frac=0.8, random_state=1)
    return hl.missing_patterns(data, response="distance", subject="subject", time="age", by="sex")


@pytest.fixture(scope="session")
def drawings(three, dental, dental_reml, sleep_reml, sleepstudy, studies):
    """Name -> a function of the shared arguments that draws."""
    power, calibration = studies
    both = hl.compare(dental_reml, hl.TwoLevelModel.from_formula(DENTAL, dental).fit_ml())
    slope = hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 + time | subject)", dental).fit_reml()
    by_sex = hl.TwoLevelModel.from_formula(DENTAL, dental, group="sex").fit_reml()
    names = ["random intercept and slope, as planned", "without the slope of sex"]
    two = hl.compare_implied(dental_reml, slope, labels=names, times=[0, 2, 4, 6])
    implied, serial = dental_reml.implied_marginal(), hl.autocorrelation(dental_reml)
    variogram = hl.semivariogram(dental_reml)
    steps = hl.gls_steps(hl.TwoLevelModel.from_formula(SLEEP, sleepstudy))
    history = sleepstudy[sleepstudy["subject"] == 308].assign(subject=1)
    slopes, profile = dental_reml.slopes("time", by="sex"), dental_reml.profile()
    ratio = BootstrapTest(3.0, 2, np.random.default_rng(1).chisquare(1, 100), 100, (), "ML", 1, "y ~ 1", "y ~ x")
    rng = np.random.default_rng(8)
    arms = {"arm drug": np.arange(0, 100, 2), "arm placebo": np.arange(1, 100, 2)}
    seizures, pain = rng.negative_binomial(1, 0.2, (51, 100)).astype(float), rng.integers(0, 4, (51, 100))
    levels = ["none", "some", "much", "unbearable"]
    return {
        "rootogram": lambda **figure: draw_rootogram(
            arms, seizures[0], seizures[1:], 0.95, Look("seizures: new subjects", None, figure), "seizures"
        ),
        "bars": lambda **figure: draw_bars(
            arms, levels, pain[0], pain[1:], 0.95, Look("pain: new subjects", None, figure)
        ),
        "forest": three.plot_forest,
        "forest of many": both.plot_forest,
        "posterior": three.plot_posterior,
        "posterior of likelihood": both.plot_posterior,
        "random effects": three.plot_random_effects,
        "random effects by group": by_sex.plot_random_effects,
        "shrinkage by group": by_sex.plot_shrinkage,
        "heterogeneity by group": by_sex.heterogeneity("time").plot,
        "ranks": lambda **figure: hl.plots.plot_ranks(dental_reml, **figure),
        "shrinkage": dental_reml.plot_shrinkage,
        "shrinkage of one": lambda **figure: sleep_reml.plot_shrinkage(terms="days", **figure),
        "trajectories": dental_reml.plot_trajectories,
        "population": lambda **figure: three.plot_trajectories("ML", show="population", **figure),
        "subjects": lambda **figure: sleep_reml.plot_trajectories(subjects=6, **figure),
        "effects": lambda **figure: dental_reml.plot_effects("time", by="sex", data="partial", **figure),
        "effect": lambda **figure: dental_reml.plot_effects("time", **figure),
        "effects of several": lambda **figure: three.plot_effects("days", simultaneous=True, **figure),
        "effects in panels": lambda **figure: both.plot_effects("time", by="sex", data="points", **figure),
        "slopes": slopes.plot,
        "path of models": hl.build_random(hl.TwoLevelModel.from_formula(SLEEP, sleepstudy)).plot,
        "differences of models": hl.compare_models(
            dental_reml,
            slope,
            hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml(),
        ).plot,
        "contrasts along": dental_reml.contrasts("sex", by="time", at={"time": [0, 3, 6]}).plot,
        "contrast": dental_reml.contrasts("sex").plot,
        "slope": lambda **figure: sleep_reml.plot_posterior(parameters="days", **figure),
        "optima": hl.TwoLevelModel.from_formula("distance ~ sex + (0 + age | subject)", dental).fit_reml().plot_optima,
        "heatmap": implied.plot_heatmap,
        "correlation": implied.plot_correlation,
        "variance": implied.plot_variance,
        "heatmaps": two.plot_heatmap,
        "two correlations": two.plot_correlation,
        "autocorrelation": serial.plot,
        "semivariogram": variogram.plot,
        "influence": sleep_reml.influence().plot,
        "checks": sleep_reml.check(simulations=279).plot,
        "checks along levels": dental_reml.check(simulations=279).plot,
        "steps": steps.plot,
        "bootstrap": dental_reml.bootstrap(40, seed=1, progressbar=False).plot,
        "bootstrap of a likelihood ratio": ratio.plot,
        "profile": profile.plot,
        "profile as densities": lambda **figure: profile.plot(["time", "sd(time)"], kind="density", **figure),
        "prediction": lambda **figure: sleep_reml.plot_subject_prediction(history, **figure),
        "savage dickey": _savage_dickey().plot,
        "missing patterns": _patterns().plot,
        "tipping point": _tipping().plot,
        "power": lambda **figure: results.plot_power(power, figure),
        "recovery": lambda **figure: results.plot_recovery(calibration, list(calibration.truth), figure),
    }


@pytest.mark.parametrize("style", SLOW)
def test_nothing_is_cut_or_meets_and_marks_are_inside(style, drawings):
    wrong = {}
    with hl.style(style):
        for name, draw in drawings.items():
            figure = draw(backend="matplotlib").get_viz("figure")
            if found := faults(figure):
                wrong[name] = found
            assert not plt.get_fignums()
    assert not wrong


@pytest.mark.parametrize("backend", ["plotly", "bokeh"])
@pytest.mark.parametrize("style", STYLES)
def test_other_backends_have_the_colours_and_letters_of_the_style(style, backend, drawings):
    pytest.importorskip(backend)
    names = list(drawings) if style == "lecture" else ["forest", "trajectories", "effects", "heatmap"]
    with hl.style(style):
        own, dots = theme(), theme().size * 100 / 72
        wrong = {}
        for name in names:
            figure = drawings[name](backend=backend)
            if found := faults_elsewhere(figure):
                wrong[name] = found
            if backend == "plotly":
                layout = figure.get_viz("figure").layout
                assert (layout.paper_bgcolor, layout.font.color) == (own.paper, own.ink)
                assert layout.font.size == pytest.approx(dots)
            else:
                for plot in np.ravel(figure.viz["plot"].to_numpy()):
                    assert plot.background_fill_color == own.paper
                    assert plot.xaxis[0].axis_label_text_color == own.ink
        assert not wrong


@pytest.mark.parametrize("backend", ["plotly", "bokeh"])
def test_a_page_asks_nothing_of_the_network(backend, dental_reml, tmp_path):
    pytest.importorskip(backend)
    page = dental_reml.plot_shrinkage(backend=backend)._repr_html_()
    dental_reml.plot_shrinkage(backend=backend).savefig(tmp_path / "page.html")
    for text in (html.unescape(page), (tmp_path / "page.html").read_text(encoding="utf-8")):
        assert len(text) > 500_000  # what draws it is in it
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)


@pytest.mark.parametrize("style", STYLES)
def test_numbers_do_not_meet_in_the_corner(style):
    """However low the lowest number beside an axis, however far left the first below: a tenth of a letter apart."""
    with hl.style(style):
        figure, axes = plt.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0], xticklabels=["-0.00"], yticks=[0], yticklabels=["gÄ"])
        figure.canvas.draw()
        below, beside = (axis.majorTicks[0].label1.get_window_extent() for axis in (axes.xaxis, axes.yaxis))
        assert beside.y0 - below.y1 > 0.1 * theme().size * figure.dpi / 72


def test_the_check_sees_what_is_wrong():
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
    left.set_title("a title that runs into its neighbour")
    right.set_title("a title that runs into its neighbour")
    right.plot([0, 1, 5], [0, 1, 2])
    right.set_xlim(0, 2)
    left.set_ylabel("cut")
    left.yaxis.set_label_coords(-0.6, 0.5)
    found = " ".join(faults(figure))
    assert "overlap" in found and "cut: 'cut'" in found and "outside" in found


def test_points_and_lines_are_seen_on_a_dark_ground(dental_reml):
    from matplotlib.colors import to_rgb

    with hl.style("dark"):
        axes = dental_reml.plot_trajectories(by=[]).get_viz("figure").axes[0]
        paper = np.array(to_rgb(axes.get_facecolor()))
        colours = [to_rgb(line.get_color()) for line in axes.lines] + [
            c.get_facecolor()[0][:3] for c in axes.collections
        ]
        assert len(colours) == 3
        for colour in colours:
            assert np.abs(np.asarray(colour) - paper).max() > 0.35


def test_a_style_ends_with_its_with(dental_reml):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with hl.style("lecture", font_size=24):
        assert theme().size == 24
    assert dict(matplotlib.rcParams) == before
    called = hl.style("dark")
    assert theme().dark
    called.undo()
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(hl.SpecificationError, match="no setting of this name"):
        hl.style("paper", fontsize=3)
    with pytest.raises(hl.SpecificationError, match="not one of the choices"):
        hl.style("poster")
