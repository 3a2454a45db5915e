"""Pictures of diagnostics: what is drawn, which parameters, what the titles say, and the numbers behind them."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn_by_none import drawn, title_of
from draws import posterior_like
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

import hierlmm as hl
from hierlmm.bayes.labels import Labeller
from hierlmm.plots.verdicts import contraction

PARAMETERS = ["Intercept", "days", "sd(Intercept)", "sd(days)", "corr(Intercept, days)", "sigma"]
ALL = ["trace", "rank", "autocorr", "ess", "mcse", "energy", "pair", "prior_posterior", "psense", "khat", "loo_pit"]
ALL += ["diagnostics"]
FEW = {"pair": {"parameters": ["sd", "b[308, days]"]}, "diagnostics": {"max_panels": 2}}
FEW |= {name: {"parameters": ["sd"]} for name in ("trace", "rank", "autocorr", "ess", "mcse", "psense")}
FEW["prior_posterior"] = {"parameters": ["sd"], "draws": 100}


def draw(fit, name, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return getattr(fit, f"plot_{name}")(**options)


@pytest.fixture(scope="module")
def many():
    """1,500 subjects without sampling."""
    frame = hl.simulate(
        beta={"Intercept": 10.0, "time": 2.0},
        D=[[4.0, 0.3], [0.3, 0.25]],
        sigma=1.0,
        random=["Intercept", "time"],
        n_subjects=1500,
        times=np.arange(4.0),
        seed=1,
    )
    fit = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", frame).fit_reml()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)  # few draws
        return posterior_like(fit, draws=60, chains=2)


def disagreeing(fit, subject, term, by):
    """The same posterior with the last chain of one random effect moved."""
    posterior = fit.datatree["posterior"].to_dataset()
    b = posterior["b"].copy(deep=True)
    b.loc[{"chain": posterior["chain"][-1], "subject": subject, "term": term}] += by
    tree = fit.datatree.copy()
    tree["posterior"] = xr.DataTree(posterior.assign(b=b))
    return replace(fit, datatree=tree)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_tables(sleep_nuts):
    flat = Labeller().make_label_flat
    assert flat("beta", {"coef": "days"}, {}) == "days"
    assert flat("sd_b", {"term": "Intercept"}, {}) == "sd(Intercept)"
    assert flat("corr_b", {"pair": "Intercept, days"}, {}) == "corr(Intercept, days)"
    assert flat("b", {"subject": 308, "term": "days"}, {}) == "b[308, days]"
    assert flat("residual_correlation", {"residual_correlation_parameter": "rho"}, {}) == "rho"
    assert flat("sd_b", {"term": "days", "chain": 2}, {}) == "sd(days): chain 2"
    assert flat("sigma", {}, {}) == "sigma"
    collection = az.plot_trace(
        sleep_nuts.datatree, var_names=["beta", "sd_b", "corr_b", "sigma"], labeller=sleep_nuts.labeller
    )
    assert [ax.get_title() for ax in collection.get_viz("figure").axes if ax.get_title()] == PARAMETERS


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_traces_are_the_draws_of_every_parameter(sleep_nuts):
    collection = sleep_nuts.plot_trace(backend="none")
    assert collection.data["parameter"].to_numpy().tolist() == PARAMETERS
    for chain in range(4):
        line = drawn(collection, "trace", "draws", parameter="sd(days)", chain=chain)
        np.testing.assert_array_equal(line["y"], sleep_nuts.draws("sd_b")[chain, :, 1])
    corr = drawn(collection, "trace", "draws", parameter="corr(Intercept, days)", chain=0)
    np.testing.assert_allclose(corr["y"], sleep_nuts.draws("corr_b")[0, :, 0, 1])


def test_ranks_autocorrelation_and_sizes_are_those_of_arviz(sleep_nuts):
    tree = sleep_nuts.datatree
    ranks = sleep_nuts.plot_rank("sigma", backend="none")
    own = az.plot_rank(tree, var_names=["sigma"], backend="none")
    ours = drawn(ranks, "ecdf_lines", "draws", parameter="sigma", chain=2)
    np.testing.assert_allclose(ours["y"], drawn(own, "ecdf_lines", "sigma", chain=2)["y"])
    lines = sleep_nuts.plot_autocorr("sigma", backend="none")
    acf = drawn(lines, "lines", "draws", parameter="sigma", chain=0)["y"]
    x = sleep_nuts.draws("sigma")[0] - sleep_nuts.draws("sigma")[0].mean()
    assert acf[1] == pytest.approx(np.sum(x[1:] * x[:-1]) / np.sum(x * x), abs=1e-10)
    sizes = sleep_nuts.plot_ess("sigma", kind="quantile", backend="none")
    points = drawn(sizes, "ess", "draws", parameter="sigma")
    expected = [float(az.ess(tree, var_names="sigma", method="quantile", prob=p)["sigma"]) for p in points["x"]]
    np.testing.assert_allclose(points["y"], expected)
    errors = drawn(sleep_nuts.plot_mcse("sigma", backend="none"), "mcse", "draws", parameter="sigma")
    at = len(errors["x"]) // 2
    expected = float(az.mcse(tree, var_names="sigma", method="quantile", prob=errors["x"][at])["sigma"])
    assert errors["y"][at] == pytest.approx(expected)


def test_pairs_show_the_funnel_and_mark_divergences(sleep_nuts):
    tree = sleep_nuts.datatree.copy()
    sample_stats = tree["sample_stats"].to_dataset()
    diverging = np.zeros((4, sample_stats.sizes["draw"]), dtype=bool)
    diverging[1, [3, 7]] = True
    tree["sample_stats"] = xr.DataTree(sample_stats.assign(diverging=(("chain", "draw"), diverging)))
    fit = replace(sleep_nuts, datatree=tree)
    collection = fit.plot_pair(["sd(days)", "b[335, days]"])
    figure = collection.get_viz("figure")
    (panel,) = [ax for ax in figure.axes if ax.get_xlabel() == "sd(days)" and ax.get_ylabel() == "b[335, days]"]
    points = np.vstack([c.get_offsets() for c in panel.collections])
    sd, b = fit.draws("sd_b")[..., 1], fit.draws("b")[:, :, list(fit.design.subjects).index(335), 1]
    np.testing.assert_allclose(points[:4000], np.column_stack([sd.ravel(), b.ravel()]))
    np.testing.assert_allclose(points[4000:], np.column_stack([sd[1, [3, 7]], b[1, [3, 7]]]))
    assert "2 of 4,000 draws diverged (marked)" in title_of(collection)
    default = sleep_nuts.plot_pair(backend="none").data["parameter"].to_numpy().tolist()
    assert default == [*PARAMETERS[2:], "b[308, Intercept]", "b[308, days]"]
    assert "no divergences" in title_of(sleep_nuts.plot_pair(["sd"]))


def test_prior_and_posterior_are_drawn_over_each_other(sleep_nuts):
    collection = sleep_nuts.plot_prior_posterior(["sigma", "sd(days)"], backend="none", draws=4000)
    for name, values in {"sigma": sleep_nuts.draws("sigma"), "sd(days)": sleep_nuts.draws("sd_b")[..., 1]}.items():
        curve = drawn(collection, "dist", "draws", parameter=name, group="posterior")
        mean = np.sum(curve["x"] * curve["y"]) / np.sum(curve["y"])
        assert mean == pytest.approx(values.mean(), abs=0.1 * values.std())
        prior = drawn(collection, "dist", "draws", parameter=name, group="prior")
        assert np.ptp(prior["x"]) > 3 * np.ptp(curve["x"])
    share = (
        sleep_nuts.draws("corr_b")[..., 0, 1].std() / sleep_nuts.prior_predictive(2000, seed=0)["prior"]["corr_b"].std()
    )
    said = title_of(sleep_nuts.plot_prior_posterior())
    assert f"the data leave {100 * float(share):.0f} % of the prior's SD" in said
    assert "corr(Intercept, days)" in said


def test_most_of_a_prior_is_said_to_be_kept_only_where_it_is():
    one, half = pd.Series({"sigma": 1.0, "time": 1.0}), pd.Series({"sigma": 0.14, "time": 0.1})
    assert contraction(one, half) == "the data leave 14 % of the prior's SD at most (sigma)"
    assert contraction(one, 6 * half) == "the data leave 84 % of the prior's SD for sigma, so there they say little"


def test_energy_and_pareto_k_are_those_of_the_fit(sleep_nuts):
    energy = sleep_nuts.plot_energy(backend="none")
    points = drawn(energy, "bfmi_points", "bfmi")
    expected = az.bfmi(sleep_nuts.datatree)["energy"].to_numpy()
    np.testing.assert_allclose(points["x"], expected)
    assert f"E-BFMI at least {sleep_nuts.convergence().min_bfmi:.2f}" in title_of(sleep_nuts.plot_energy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        found = sleep_nuts.loo()
    collection = draw(sleep_nuts, "khat")
    axes = collection.get_viz("figure").axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 1], found.pareto_k)
    assert sorted(t.get_text() for t in axes.texts) == sorted(str(k) for k in found.unreliable.index)
    assert f"{found.pareto_k.max():.2f}" in title_of(collection)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("backend", ["matplotlib", "bokeh", "plotly"])
def test_every_backend(sleep_nuts, name, backend):
    for package in {"plotly": ("plotly", "webcolors"), "bokeh": ("bokeh",)}.get(backend, ()):
        pytest.importorskip(package)
    collection = draw(sleep_nuts, name, backend=backend, **FEW.get(name, {}))
    assert backend in type(collection.get_viz("figure")).__module__


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [10, 20])
def test_titles_stay_inside_and_clear_of_the_panels(sleep_nuts, name, size):
    with plt.rc_context({"font.size": size}):
        figure = draw(sleep_nuts, name, **FEW.get(name, {})).get_viz("figure")
        FigureCanvasAgg(figure).draw()
        title, page = figure._suptitle.get_window_extent(), figure.bbox
        assert title.x0 >= page.x0 - 1 and title.x1 <= page.x1 + 1 and title.y1 <= page.y1 + 1
        for ax in figure.axes:
            assert not title.overlaps(ax.get_window_extent())
            assert not title.overlaps(ax.title.get_window_extent()) or not ax.get_title()
        for legend in figure.legends:
            assert not legend.get_window_extent().overlaps(title)


def test_a_title_and_a_size_of_ones_own(sleep_nuts):
    collection = sleep_nuts.plot_trace("sigma", title="Chains", figsize=(5, 3))
    assert title_of(collection) == "Chains"
    np.testing.assert_allclose(collection.get_viz("figure").get_size_inches(), (5, 3))


ONE = {name: {"parameters": "sigma"} for name in ("trace", "rank", "autocorr", "ess", "mcse")} | {
    "khat": {},
    "loo_pit": {},
}
ONE["prior_posterior"] = {"parameters": "sigma", "draws": 100}


@pytest.mark.parametrize("name", ALL)
def test_one_panel_is_drawn_into_axes_that_are_there(sleep_nuts, name):
    figure, (ax, other) = plt.subplots(1, 2)
    if name not in ONE:
        with pytest.raises(hl.SpecificationError, match="axes hold one panel"):
            draw(sleep_nuts, name, ax=ax, **FEW.get(name, {}))
        return
    before = plt.get_fignums()
    collection = draw(sleep_nuts, name, ax=ax, title="A title", **ONE[name])
    assert ax.get_title().startswith("A title") and ax.has_data() and not other.has_data()
    assert collection.get_viz("figure") is figure and figure.axes == [ax, other]
    assert plt.get_fignums() == before
    assert not figure.legends and (ax.get_legend() is not None) == (name == "prior_posterior")
    plt.close(figure)


def test_methods_have_the_signature_and_the_docstring_of_their_picture():
    for name in ALL:
        verb = getattr(hl.PosteriorFit, f"plot_{name}")
        known = inspect.signature(verb).parameters
        assert {"ax", "figsize", "title", "backend", "figure_kwargs"} <= set(known)
        assert not any(p.kind is p.VAR_KEYWORD for p in known.values())
        explained = verb.__doc__.partition("Parameters\n----------\n")[2].partition("\n\nReturns\n")[0]
        assert re.findall(r"^(\w+) : ", explained, flags=re.MULTILINE) == sorted(
            set(known) - {"self"}, key=lambda own: explained.index(f"{own} : ")
        )
    chosen = inspect.signature(hl.PosteriorFit.plot_psense).parameters
    assert chosen["max_panels"].default == 8 and chosen["choose"].default == "worst"
    assert "those most sensitive to the prior, by default" in hl.PosteriorFit.plot_psense.__doc__


# --- which parameters ------------------------------------------------------------------------------------------------


def test_parameters_are_named_or_of_a_kind(sleep_nuts):
    def names(*args, **options):
        return sleep_nuts.plot_trace(*args, backend="none", **options).data["parameter"].to_numpy().tolist()

    assert names("sd") == ["sd(Intercept)", "sd(days)"]
    assert names(["sigma", "fixed"]) == ["Intercept", "days", "sigma"]
    assert names(["sigma", "b[308, days]"]) == ["sigma", "b[308, days]"]
    assert len(names("b")) == 12
    assert names("b", choose="random", seed=1) != names("b", choose="random", seed=2)
    extremes = names("b", choose="extremes", max_panels=3)
    b = sleep_nuts.draws("b")
    score = np.abs(b.mean(axis=(0, 1)) / b.std(axis=(0, 1)))
    flat = [f"b[{s}, {t}]" for s in sleep_nuts.design.subjects for t in ("Intercept", "days")]
    assert extremes == [flat[k] for k in sorted(np.argsort(-score.ravel())[:3])]
    assert "12 of 36 parameters and random effects, with the largest R-hat" in title_of(sleep_nuts.plot_trace("b"))


def test_the_worst_are_found_and_named(sleep_nuts):
    fit = disagreeing(sleep_nuts, 351, "days", 30.0)
    assert "b[" not in title_of(fit.plot_diagnostics())  # drawn exactly given the others, they mix as these do
    fit.datatree.attrs["sampler"] = "explicit"
    collection = fit.plot_diagnostics(max_panels=2)
    assert "b[351, days]" in collection.data["parameter"].to_numpy()
    assert "b[351, days], above 1.01: the chains do not agree yet" in title_of(collection)
    assert "2 of 42 parameters and random effects" in title_of(collection)
    assert "the chains agree" in title_of(sleep_nuts.plot_trace())


def test_a_verdict_is_about_all_that_were_looked_at(sleep_nuts):
    """Not only about those that are drawn, which have the largest R-hat and not the fewest effective draws."""
    found = sleep_nuts.convergence()
    fewest = min(found.min_ess_bulk, found.min_ess_tail)
    for name in ("ess", "diagnostics"):
        said = [title_of(getattr(sleep_nuts, f"plot_{name}")(max_panels=most)).replace("\n", " ") for most in (1, 6)]
        assert all(f"effective sample size at least {fewest:,.0f} (" in text for text in said)


def test_long_names_stay_in_their_panels():
    data = hl.load_dataset("dental").rename(columns={"sex": "sex of the child / registry", "distance": "a width (mm)"})
    model = hl.TwoLevelModel.from_formula("`a width (mm)` ~ `sex of the child / registry` * time + (1 | subject)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = model.fit(draws=100, tune=100, chains=2, seed=1, progressbar=False)
    picture = fit.plot_trace("fixed")
    assert title_of(picture).startswith("a width (mm): draws in their order")
    figure = picture.get_viz("figure")
    figure.draw_without_rendering()
    shown = [axes.title.get_window_extent() for axes in figure.axes]
    assert any("\n" in axes.title.get_text() for axes in figure.axes)
    assert all(box.x0 >= 0 for box in shown)
    assert not any(a.overlaps(b) for k, a in enumerate(shown) for b in shown[:k])


def test_a_lecture_has_fewer_panels_in_a_row_and_numbers_below_each_column(sleep_nuts):
    with hl.style("lecture"):
        figure = sleep_nuts.plot_trace([*PARAMETERS, "b[308, days]"]).get_viz("figure")
    assert figure.get_size_inches()[0] <= 16
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 3
    panels = [axes for axes in figure.axes if axes.axison]
    below = [axes.xaxis.get_tick_params()["labelbottom"] for axes in panels]
    assert below == [False] * 4 + [True] * 3  # of two full rows and one panel below
    assert [bool(axes.get_xlabel()) for axes in panels] == below


def test_large_letters_of_plotly_do_not_get_a_smaller_figure(sleep_nuts):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    plain = sleep_nuts.plot_trace(["sd", "sigma"], backend="plotly").get_viz("figure").layout
    with hl.style("lecture"):
        large = sleep_nuts.plot_trace(["sd", "sigma"], backend="plotly").get_viz("figure").layout
    assert large.width > plain.width and large.height > plain.height


def test_a_name_stands_above_its_point_inside_the_frame(sleep_nuts):
    figure = draw(sleep_nuts, "khat").get_viz("figure")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert axes.texts
    for text in axes.texts:
        name, point = text.get_window_extent(), axes.transData.transform(text.get_position())
        assert name.y0 > point[1] + 2
        assert name.y1 < axes.get_window_extent().y1


def test_many_subjects_are_looked_at_in_part_and_the_title_says_so(many):
    collection = draw(many, "trace", parameters="b", max_panels=3)
    assert len(collection.data["parameter"]) == 3
    said = "3 of 3,000 parameters and random effects, with the largest R-hat among 1,000 random effects at random"
    assert said in title_of(collection)
    far = disagreeing(many, many.design.subjects[1204], "time", 100.0)
    extreme = draw(far, "trace", parameters="b", choose="extremes", max_panels=1, backend="none")
    assert len(extreme.data["parameter"]) == 1
    assert "1,000 of 1,500 subjects, at random" in title_of(many.plot_loo_pit())


def test_strange_choices_are_refused_in_four_parts(sleep_nuts):
    with pytest.raises(hl.SpecificationError, match="Did you mean 'days'"):
        sleep_nuts.plot_trace("day")
    with pytest.raises(hl.SpecificationError, match=r"b\[308, Intercept\]"):
        sleep_nuts.plot_rank("b[1, days]")
    for nothing in ("residual", []):
        with pytest.raises(hl.SpecificationError, match="this fit has no such parameter"):
            sleep_nuts.plot_trace(nothing)
    with pytest.raises(hl.SpecificationError, match="choose='best'"):
        sleep_nuts.plot_trace(choose="best")
    with pytest.raises(hl.SpecificationError, match="max_panels=0"):
        sleep_nuts.plot_trace(max_panels=0)
    with pytest.raises(hl.SpecificationError, match="statistic='median'"):
        sleep_nuts.plot_loo_pit(statistic="median")


def test_what_a_fit_has_not_is_refused_in_four_parts(sleep_reml, gee, sleep_like_nuts, sleep_nuts):
    for fit in (sleep_reml, gee):
        for name in ALL:
            with pytest.raises(hl.NotAvailableError, match=r"model\.fit\(\)"):
                getattr(fit, f"plot_{name}")()
    with pytest.raises(hl.NotAvailableError, match="statistics"):
        sleep_like_nuts.plot_energy()
    for ask in (sleep_like_nuts.psense, sleep_like_nuts.plot_psense, sleep_like_nuts.plot_prior_posterior):
        with pytest.raises(hl.NotAvailableError, match="priors"):
            ask()
    tree = sleep_nuts.datatree.copy()
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().drop_vars(["b", "subject_coef"]))
    without = replace(sleep_nuts, datatree=tree)
    with pytest.raises(hl.NotAvailableError, match="random_effects='draws'"):
        without.plot_trace("b")
    assert without.plot_pair(backend="none").data["parameter"].to_numpy().tolist() == PARAMETERS[2:]
    assert without.plot_diagnostics(max_panels=1, backend="none") is not None
