"""Pictures of predictive checks and of priors, by what they draw."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.diagnostics.predictive_checks import pit_check
from hierlmm.errors import SpecificationError
from hierlmm.plots.ppc import SUITED, _groups, replications

LEVELS = ("subject", "new_subject", "mixed")


@pytest.mark.parametrize("kind", SUITED["measurements"])
@pytest.mark.parametrize("level", LEVELS)
def test_every_kind_at_every_level(sleep_like_nuts, kind, level):
    collection = sleep_like_nuts.plot_ppc(kind, level, draws=12, backend="none")
    assert type(collection).__name__ == "Picture"


def lines(collection, panel):
    axes = collection.get_viz("figure").axes[panel]
    found = [np.array(line.get_data()) for line in axes.get_lines()]
    return [own[:, : np.flatnonzero(np.isfinite(own[0])).max() + 2] for own in found]  # panels are padded with NaN


def test_shares_and_densities_are_those_of_the_rows(dental_like_nuts):
    design = dental_like_nuts.design
    female = design.frame["sex"].to_numpy() == "Female"
    replicated, observed = lines(dental_like_nuts.plot_ppc("ecdf", by="sex", draws=7), 0)
    np.testing.assert_allclose(observed[0][1:88:2], np.sort(design.y[female]))
    y = replications(dental_like_nuts, "new_subject", 7, 0)
    gaps = np.flatnonzero(np.isnan(replicated[0]))
    assert len(gaps) == 7
    np.testing.assert_allclose(replicated[0][: gaps[0]][1::2], np.sort(y[0, female]))
    _, observed = lines(dental_like_nuts.plot_ppc("density", draws=3), 0)
    assert np.trapezoid(observed[1], observed[0]) == pytest.approx(1.0, abs=0.02)
    assert observed[1][[0, -1]].max() < 0.02 * observed[1].max()  # the curve ends at zero, not at the data


def test_intervals_are_quantiles_of_the_replications(dental_like_nuts):
    design = dental_like_nuts.design
    collection = dental_like_nuts.plot_ppc("interval", "mixed", draws=200, ci=0.8)
    figure = collection.get_viz("figure")
    assert len(figure.axes) == 12
    outer = lines(collection, 0)[0]
    own = design.subject_index == 0
    low, high = np.quantile(replications(dental_like_nuts, "mixed", 200, 0)[:, own], [0.1, 0.9], axis=0)
    np.testing.assert_allclose(outer[1][0::3], low)
    np.testing.assert_allclose(outer[1][1::3], high)
    np.testing.assert_allclose(outer[0][0::3], design.frame["time"].to_numpy()[own])


def test_the_pit_curve_and_its_band_are_those_of_the_check(dental_like_nuts):
    check = dental_like_nuts.ppc("mixed", draws=50)
    collection = dental_like_nuts.plot_ppc("pit", "mixed", draws=50)
    curves = lines(collection, 0)[-1][1]
    gaps = np.flatnonzero(np.isnan(curves))
    assert len(gaps) == 20
    (found,) = pit_check(dental_like_nuts, "mixed", [np.arange(dental_like_nuts.n_obs)], 50, 0.95, 0)
    np.testing.assert_allclose(curves[: gaps[0]], found.curves[0])
    np.testing.assert_allclose(found.curves.mean(axis=0), check.pit["difference"])
    (axes,) = collection.get_viz("figure").axes
    assert f"p = {check.pit_p:.3f}" in axes.get_title()
    upper = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    assert upper == pytest.approx(check.pit["upper"].max())


def test_a_histogram_for_every_statistic(dental_like_nuts):
    check = dental_like_nuts.ppc(draws=20)
    collection = dental_like_nuts.plot_ppc("statistic", draws=20)
    axes = collection.get_viz("figure").axes
    assert [ax.get_title().split("\n")[0] for ax in axes] == list(check.table.index)
    for ax, value in zip(axes, check.table["observed"], strict=True):
        steps, mark = (np.array(line.get_data()) for line in ax.get_lines())
        assert np.trapezoid(steps[1], steps[0]) == pytest.approx(1.0)
        np.testing.assert_allclose(mark[0], value)


@pytest.mark.parametrize("level", LEVELS)
def test_what_lies_beyond_the_line_is_half_of_p(sleep_like_nuts, level):
    """Also at the mixed level, where replications depend on the data, and where the fit follows a statistic."""
    check = sleep_like_nuts.ppc(level, draws=60)
    observed, p = check.table["observed"], check.table["p"]
    below = (check.compared < observed).mean()
    assert (2.0 * np.minimum(below, 1.0 - below) - p).abs().max() < 0.1
    outside = ~observed.between(check.table["lower"], check.table["upper"])
    clear = (p - 0.05).abs() > 0.02
    assert (outside == (p < 0.05))[clear].all()
    assert outside["lag1"]
    axes = sleep_like_nuts.plot_ppc("statistic", level, draws=60).get_viz("figure").axes
    for ax, name, rho in zip(axes, observed.index, check.table["absorbed"], strict=True):
        steps, _ = (np.array(line.get_data()) for line in ax.get_lines())
        area = np.trapezoid(np.where(steps[0] < observed[name], steps[1], 0.0), steps[0])
        assert min(area, 1.0 - area) == pytest.approx(p[name] / 2, abs=0.08)
        assert ("one draw" in ax.get_title()) == (rho > 0.7)


def test_intervals_by_a_factor_are_of_means_along_time(dental_like_nuts):
    design, y = dental_like_nuts.design, replications(dental_like_nuts, "new_subject", 200, 0)
    collection = dental_like_nuts.plot_ppc("interval", by="sex", draws=200, ci=0.8)
    assert [ax.get_title() for ax in collection.get_viz("figure").axes] == ["sex Female", "sex Male"]
    own = np.flatnonzero(design.frame["sex"].to_numpy() == "Male")
    time = design.frame["time"].to_numpy()[own]
    means = np.column_stack([y[:, own[time == t]].mean(axis=1) for t in np.unique(time)])
    low, high = np.quantile(means, [0.1, 0.9], axis=0)
    outer = lines(collection, 1)[0]
    np.testing.assert_allclose(outer[:, 0::3], [np.unique(time), low])
    np.testing.assert_allclose(outer[:, 1::3], [np.unique(time), high])
    points = collection.get_viz("figure").axes[1].collections[0].get_offsets()
    np.testing.assert_allclose(points[:4, 1], [design.y[own[time == t]].mean() for t in np.unique(time)])
    assert collection.caption.startswith("Means of the rows at each time")


def test_statistics_in_groups_are_intervals(dental_like_nuts):
    check = dental_like_nuts.ppc(by="sex", draws=20)
    collection = dental_like_nuts.plot_ppc("statistic", by="sex", draws=20)
    axes = collection.get_viz("figure").axes
    assert [ax.get_title() for ax in axes] == list(dict.fromkeys(check.table.index.get_level_values(1)))
    for k, ax in enumerate(axes):
        own = check.table.xs(ax.get_title(), level="statistic")
        outer, inner = lines(collection, k)[:2]
        np.testing.assert_allclose(outer[0][0::3], own["lower"])
        assert (inner[0][0] > outer[0][0]) and (inner[0][1] < outer[0][1])
        np.testing.assert_allclose(ax.collections[0].get_offsets()[:2], np.column_stack([own["observed"], [0, -1]]))
        assert [label.get_text() for label in ax.get_yticklabels()] == ["Female", "Male"]


def test_what_cannot_be_drawn_is_refused(dental_like_nuts):
    for given, message in (
        ({"kind": "rootogram"}, "kind='rootogram'"),
        ({"kind": "pit", "by": "subject"}, "no group has 10 rows"),
        ({"by": "sx"}, "no such column"),
    ):
        with pytest.raises(SpecificationError, match=message):
            dental_like_nuts.plot_ppc(**given)


def test_data_sets_from_the_priors_are_drawn_as_trajectories(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)
    collection = model.plot_prior_predictive(draws=4, seed=1)
    axes = collection.get_viz("figure").axes
    assert len(axes) == 4
    (line,) = (np.array(line.get_data()) for line in axes[0].get_lines())
    assert np.isnan(line[0]).sum() == 27
    y = model.prior_predictive(200, seed=1)["prior_predictive"]["distance"].to_numpy()[0, 0]
    np.testing.assert_allclose(line[1][:4], y[model.design.subject_index == 0])
    assert len({ax.get_ylim() for ax in axes}) == 1


def test_figures_in_other_backends(sleep_like_nuts, sleepstudy):
    model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", sleepstudy)
    for backend in ("bokeh", "plotly"):
        pytest.importorskip(backend)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kind, by in [*((kind, None) for kind in SUITED["measurements"]), ("statistic", "subject")]:
                collection = sleep_like_nuts.plot_ppc(kind, by=by, draws=5, backend=backend)
                assert backend in type(collection.get_viz("figure")).__module__
            collection = model.plot_prior_predictive(draws=3, backend=backend)
            assert backend in type(collection.get_viz("figure")).__module__


def test_panels_of_a_number_have_short_names_that_differ(dental_like_nuts):
    frame = dental_like_nuts.design.frame
    for step, first in ((1.0, "dose 0.3333"), (1e-9, "dose 0.3333333333333333")):
        dose = (np.arange(len(frame)) % 3) * step + 1.0 / 3.0
        model = hl.TwoLevelModel.from_formula("distance ~ dose + (1 | subject)", frame.assign(dose=dose))
        assert next(iter(_groups(model.design, "dose"))) == first
        assert len(_groups(model.design, "dose")) == 3
