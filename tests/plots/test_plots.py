"""Every plot, of every kind of fit and in every backend; what they return, and what they take."""

from __future__ import annotations

import html
import inspect
import re

import pytest
from matplotlib import pyplot as plt

import hierlmm as hl
from hierlmm import plots
from hierlmm.drawing.letters import break_text
from hierlmm.errors import ArgumentError, HierlmmError, MissingPackageError, SpecificationError

# A new subject's prediction needs a history besides the fit: test_predict.py draws it in every backend.
# Need a history, a likelihood with several maxima, draws, or a model.
OF_THEIR_OWN = ("plot_optima", "plot_subject_prediction", "plot_ppc", "plot_prior_predictive")
OF_RANDOM_EFFECTS = (
    "plot_conditional_vs_marginal",
    "plot_random_effects",
    "plot_ranks",
    "plot_separate_lines",
    "plot_shrinkage",
)  # GEE and marginal models have none
PLOTS = [getattr(plots, name) for name in plots.__all__ if name not in OF_THEIR_OWN]
SHARED = ["ax", "figsize", "title", "backend", "figure_kwargs"]


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("kind", ["likelihood", "posterior", "comparison"])
def test_every_plot_takes_every_fit(plot, kind, sleep_reml, sleep_like_nuts, three):
    picture = plot({"likelihood": sleep_reml, "posterior": sleep_like_nuts, "comparison": three}[kind], backend="none")
    assert type(picture).__name__ == "Picture"


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("kind", ["gee", "marginal", "marginal gee"])
def test_every_plot_takes_fits_without_random_effects(plot, kind, gee, marginal):
    """What they have not is refused in four parts."""
    fit = {"gee": gee, "marginal": marginal.fit_reml(), "marginal gee": marginal.fit_gee()}[kind]
    if plot.__name__ in OF_RANDOM_EFFECTS:
        with pytest.raises(HierlmmError, match=r"(?s)Received: .*(random effects|rank_subjects|plot_s).*To do: "):
            plot(fit, backend="none")
    else:
        assert type(plot(fit, backend="none")).__name__ == "Picture"


def test_several_estimators_have_a_legend(three):
    for plot in (three.plot_forest, three.plot_posterior, three.plot_random_effects):
        (legend,) = plot(backend="matplotlib").get_viz("figure").legends
        assert [t.get_text() for t in legend.get_texts()] == ["NUTS", "REML", "ML"]
    (legend,) = three.plot_trajectories(backend="matplotlib").get_viz("figure").legends
    words = ["data", "subject lines", "population line, averaged over subjects"]
    assert [t.get_text() for t in legend.get_texts()] == words
    (legend,) = three.plot_shrinkage(backend="matplotlib").get_viz("figure").legends
    assert [t.get_text() for t in legend.get_texts()] == ["separate fits", "partial pooling", "pooled fit"]
    assert [h.get_marker() for h in legend.legend_handles] == ["o", "o", "D"]


def test_an_estimator_has_one_colour(three, sleep_ml):
    def colours(picture):
        (legend,) = picture.get_viz("figure").legends
        return {t.get_text(): h.get_color() for t, h in zip(legend.get_texts(), legend.legend_handles, strict=True)}

    forest = colours(three.plot_forest())
    assert len(set(forest.values())) == 3
    assert colours(three.plot_posterior()) == colours(three.plot_random_effects()) == forest
    assert colours(sleep_ml.plot_trajectories())["subject lines"] == forest["ML"]
    assert colours(three.plot_trajectories("REML"))["subject lines"] == forest["REML"]


def test_figures_are_saved(three, tmp_path):
    three.plot_forest(figsize=(9, 4)).savefig(tmp_path / "forest.png")
    three.plot_shrinkage("REML").savefig(tmp_path / "shrinkage.pdf", bbox_inches="tight")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"forest.png", "shrinkage.pdf"} and min(sizes.values()) > 3000


def test_a_notebook_shows_the_picture_once(sleep_reml):
    plt.close("all")
    picture = sleep_reml.plot_forest(figsize=(5, 3))
    content, size = picture._repr_png_()
    assert content.startswith(b"\x89PNG") and size == {"width": 500, "height": 300}
    assert picture._repr_html_() is None and not plt.get_fignums()
    assert "object at 0x" not in repr(picture)


@pytest.mark.parametrize("backend", ["plotly", "bokeh"])
def test_a_page_asks_nothing_of_the_network(sleep_reml, backend, tmp_path):
    pytest.importorskip(backend)
    picture = sleep_reml.plot_forest(backend=backend)
    assert picture._repr_png_() is None
    picture.savefig(tmp_path / "forest.html")
    for page in (picture._repr_html_(), (tmp_path / "forest.html").read_text("utf-8")):
        assert "sd(days)" in page.replace("&#x27;", "'")
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']?(http|//)", html.unescape(page))


def test_a_picture_is_drawn_into_given_axes(sleep_reml):
    figure, (left, right) = plt.subplots(1, 2)
    picture = sleep_reml.plot_shrinkage(ax=left, title="Shrinkage of sleep")
    sleep_reml.plot_trajectories(ax=right)
    assert picture.get_viz("figure") is figure and plt.fignum_exists(figure.number)
    assert left.get_title() == "Shrinkage of sleep" and left.get_legend() and left.collections
    assert len(right.lines) == 2
    assert picture._repr_png_() is None  # the notebook shows the open figure by itself


def test_what_cannot_be_honoured_is_refused(sleep_reml):
    _, ax = plt.subplots()
    with pytest.raises(SpecificationError, match="6 panels"):
        sleep_reml.plot_forest(ax=ax)
    with pytest.raises(SpecificationError, match="axes are of matplotlib"):
        sleep_reml.plot_trajectories(ax=ax, backend="none")
    with pytest.raises(SpecificationError, match="leave figsize out"):
        sleep_reml.plot_trajectories(ax=ax, figsize=(3, 3))
    with pytest.raises(ArgumentError, match="not an Axes"):
        sleep_reml.plot_trajectories(ax="left")
    with pytest.raises(SpecificationError, match="width and a height"):
        sleep_reml.plot_trajectories(figsize=(3,))
    with pytest.raises(ArgumentError, match="no argument of this name"):
        sleep_reml.plot_trajectories(figszie=(3, 3))
    with pytest.raises(SpecificationError, match="cannot make such a figure"):
        sleep_reml.plot_forest(figure_kwargs={"figsizes": (3, 3)})


def test_titles_and_sizes_are_taken(sleep_reml):
    figure = sleep_reml.plot_forest(title="Sleep", figsize=(8, 5)).get_viz("figure")
    assert figure.get_suptitle() == "Sleep" and figure.get_size_inches().tolist() == [8, 5]
    assert sleep_reml.plot_forest(title="").get_viz("figure").get_suptitle() == ""


@pytest.mark.parametrize("owner", [hl.LikelihoodFit, hl.PosteriorFit, hl.Comparison])
def test_verbs_have_their_own_signature_and_words(owner):
    verbs = [name for name in dir(owner) if name in plots.__all__]  # diagnostics of draws have the options of ArviZ
    assert len(verbs) >= 6
    for name in verbs:
        signature, doc = inspect.signature(getattr(owner, name)), inspect.getdoc(getattr(owner, name))
        kinds = {p.kind for p in signature.parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds, name
        names = list(signature.parameters)
        assert names[0] == "self" and names[-5:] == SHARED, name
        parameters = doc.split("Parameters\n----------\n")[1].split("\n\n")[0]
        told = {n for line in parameters.splitlines() if line[0] != " " for n in line.split(" : ")[0].split(", ")}
        assert told == set(names[1:]), name


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
    assert break_text("sex[T.Male]:time", 26, len) == "sex[T.Male]:time"
    broken = break_text("corr(bs(t, df=4)[1], bs(t, df=4)[2])", 26, len)
    assert "\n" in broken and all(len(line) <= 26 for line in broken.splitlines())
    inside = break_text("treatment_allocation[T.drug]: visit[T.week 12]", 16, len)
    assert inside.splitlines() == ["treatment_", "allocation", "[T.drug]:", "visit[T.week 12]"]
