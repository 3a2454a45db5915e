"""Every plot, of every kind of fit and in every backend; in matplotlib nothing is clipped or overlaps."""

from __future__ import annotations

import pytest

from hierlmm import plots
from hierlmm.drawing.style import wrap_title
from hierlmm.errors import HierlmmError, MissingPackageError, SpecificationError

# A new subject's prediction needs a history besides the fit: test_predict.py draws it in every backend.
OF_THEIR_OWN = ("plot_optima", "plot_subject_prediction")  # need a history, or a likelihood with several maxima
OF_RANDOM_EFFECTS = ("plot_random_effects", "plot_ranks", "plot_shrinkage")  # GEE and marginal models have none
PLOTS = [getattr(plots, name) for name in plots.__all__ if name not in OF_THEIR_OWN]


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("kind", ["likelihood", "posterior", "comparison"])
def test_every_plot_takes_every_fit(plot, kind, sleep_reml, sleep_like_nuts, three):
    collection = plot(
        {"likelihood": sleep_reml, "posterior": sleep_like_nuts, "comparison": three}[kind], backend="none"
    )
    assert type(collection).__name__ == "PlotCollection"


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("kind", ["gee", "marginal", "marginal gee"])
def test_every_plot_takes_fits_without_random_effects(plot, kind, gee, marginal):
    """What they have not is refused in four parts."""
    fit = {"gee": gee, "marginal": marginal.fit_reml(), "marginal gee": marginal.fit_gee()}[kind]
    if plot.__name__ in OF_RANDOM_EFFECTS:
        with pytest.raises(
            HierlmmError, match=r"(?s)Received: .*(random effects|rank_subjects|plot_shrinkage).*To do: "
        ):
            plot(fit, backend="none")
    else:
        assert type(plot(fit, backend="none")).__name__ == "PlotCollection"


def visible_ticks(ax):
    low, high = sorted(ax.get_ylim())
    return [t for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high]


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_clipped_or_overlaps(plot, three, dental_reml):
    for fits in (three, dental_reml):
        figure = plot(fits, backend="matplotlib").get_viz("figure")
        figure.canvas.draw()
        page = figure.bbox
        texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label, *visible_ticks(ax))]
        boxes = [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
        legends = [legend.get_window_extent() for legend in figure.legends]
        titles = [t.get_window_extent() for t in [figure._suptitle] if t is not None and t.get_text()]
        for box in boxes + legends + titles:
            assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, box
            assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, box
        panels = [ax.get_window_extent() for ax in figure.axes]
        panel_titles = [ax.title.get_window_extent() for ax in figure.axes if ax.title.get_text()]
        for outer in legends + titles:
            assert not any(outer.overlaps(box) for box in panels + panel_titles)
        for i, box in enumerate(panel_titles):
            assert not any(box.overlaps(other) for other in panel_titles[i + 1 :])


def test_several_estimators_have_a_legend(three):
    for plot in (three.plot_forest, three.plot_posterior, three.plot_random_effects):
        (legend,) = plot(backend="matplotlib").get_viz("figure").legends
        assert [t.get_text() for t in legend.get_texts()] == ["NUTS", "REML", "ML"]
    (legend,) = three.plot_trajectories(backend="matplotlib").get_viz("figure").legends
    assert [t.get_text() for t in legend.get_texts()] == ["subject lines", "population line, averaged over subjects"]
    (legend,) = three.plot_shrinkage(backend="matplotlib").get_viz("figure").legends
    assert [t.get_text() for t in legend.get_texts()] == ["separate fits", "partial pooling", "pooled fit"]


def test_figures_are_saved(three, tmp_path):
    three.plot_forest(figure_kwargs={"figsize": (9, 4)}).savefig(tmp_path / "forest.png")
    three.plot_shrinkage("REML").savefig(tmp_path / "shrinkage.pdf", bbox_inches="tight")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"forest.png", "shrinkage.pdf"} and min(sizes.values()) > 3000


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
    assert wrap_title("sex[T.Male]:time") == "sex[T.Male]:time"
    broken = wrap_title("corr(bs(t, df=4)[1], bs(t, df=4)[2])")
    assert "\n" in broken and all(len(line) <= 26 for line in broken.splitlines())
