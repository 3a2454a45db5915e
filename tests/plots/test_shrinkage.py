"""Separate, partially pooled and pooled fits: the data drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from boxes import texts
from drawn_by_none import calls, drawn, lines_of

from hierlmm import plots
from hierlmm.errors import SpecificationError
from hierlmm.model import TwoLevelModel
from hierlmm.plots.shrinkage import pooled_coefficients, separate_coefficients


def test_separate_and_pooled_fits_are_least_squares(sleep_reml, sleepstudy, dental_reml, dental):
    separate = separate_coefficients(sleep_reml)
    own = sleepstudy[sleepstudy["subject"] == 308]
    slope, intercept = np.polyfit(own["days"], own["reaction"], 1)
    np.testing.assert_allclose(separate.loc[308, ["Intercept", "days"]], [intercept, slope])
    pooled = pooled_coefficients(dental_reml)
    for sex, subjects in dental.groupby("sex", observed=True)["subject"]:
        rows = dental[dental["sex"] == sex]
        slope, intercept = np.polyfit(rows["time"], rows["distance"], 1)
        np.testing.assert_allclose(pooled.loc[subjects.unique()], [[intercept, slope]] * subjects.nunique())


def test_separate_fits_hold_fixed_slopes_at_the_fit(sleepstudy):
    fit = TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_reml()
    rest = sleepstudy["reaction"] - fit.beta["days"] * sleepstudy["days"]
    expected = rest.groupby(sleepstudy["subject"]).mean()
    np.testing.assert_allclose(separate_coefficients(fit)["Intercept"], expected)


def test_subjects_with_too_few_rows_have_no_separate_fit(sleepstudy):
    short = sleepstudy[(sleepstudy["subject"] != 308) | (sleepstudy["days"] == 0)]
    fit = TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", short).fit_reml()
    assert separate_coefficients(fit).isna().any(axis=1).sum() == 1
    collection = plots.plot_shrinkage(fit, backend="none")
    assert len(lines_of(drawn(collection, "shift", "shrinkage", panel=""))) == 17


def test_shrinkage_goes_from_separate_to_partial(sleep_reml):
    collection = plots.plot_shrinkage(sleep_reml, backend="none")
    moves = lines_of(drawn(collection, "shift", "shrinkage", panel=""))
    separate, partial = separate_coefficients(sleep_reml), sleep_reml.subject_coef
    assert len(moves) == 18
    for (x, y), subject in zip(moves, separate.index, strict=True):
        assert list(x) == [separate.loc[subject, "Intercept"], partial.loc[subject, "Intercept"]]
        assert list(y) == [separate.loc[subject, "days"], partial.loc[subject, "days"]]
    pooled = drawn(collection, "points_pooled fit", "shrinkage", panel="", estimate="pooled fit")
    assert np.asarray(pooled["x"]).item() == pytest.approx(sleep_reml.beta["Intercept"])


def test_ellipse_holds_its_share_of_subjects(sleep_reml):
    collection = plots.plot_shrinkage(sleep_reml, coverage=0.9, backend="none")
    ((x, y),) = lines_of(drawn(collection, "ellipse", "shrinkage", panel=""))
    deviation = np.vstack([x - sleep_reml.beta["Intercept"], y - sleep_reml.beta["days"]])
    distance = np.einsum("in,ij,jn->n", deviation, np.linalg.inv(sleep_reml.D), deviation)
    np.testing.assert_allclose(distance, 4.60517, rtol=1e-5)


def test_shrinkage_of_one_term_is_sorted(sleep_reml):
    collection = plots.plot_shrinkage(sleep_reml, terms="days", backend="none")
    point = drawn(collection, "points_partial pooling", "shrinkage", panel="", estimate="partial pooling")
    assert np.all(np.diff(np.asarray(point["x"])) >= 0)
    order = sleep_reml.subject_coef["days"].sort_values().index
    assert calls(collection, "shrinkage", "yticks", panel="")[0]["labels"] == [str(s) for s in order]
    with pytest.raises(SpecificationError, match="one or two"):
        plots.plot_shrinkage(sleep_reml, terms=[], backend="none")


def test_separate_fits_far_away_do_not_set_the_scale():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "t": rng.uniform(0, 6, 150)})
    data["y"] = 20 + rng.normal(0, 2, 30)[data["id"]] + (0.7 + rng.normal(0, 0.3, 30)[data["id"]]) * data["t"]
    data["y"] += rng.normal(size=150)
    close = pd.DataFrame({"id": [30, 30, 31, 31], "t": [1, 1.05, 4, 4.04], "y": [24, 22.8, 24, 22.5]})
    fit = TwoLevelModel.from_formula("y ~ t + (1 + t | id)", pd.concat([data, close])).fit_reml()
    separate, partial = separate_coefficients(fit), fit.subject_coef
    assert separate["t"].min() < -20
    for terms in (["Intercept", "t"], "t"):
        figure = plots.plot_shrinkage(fit, terms=terms, backend="matplotlib").get_viz("figure")
        axes = figure.axes[0]
        low, high = axes.get_ylim() if len(terms) == 2 else axes.get_xlim()
        assert -5 < low < partial["t"].min() and partial["t"].max() < high < 5
        assert "2 of 32 separate fits lie outside" in " ".join(words for words, _ in texts(figure))
    collection = plots.plot_shrinkage(fit, backend="none")
    moves = lines_of(drawn(collection, "shift", "shrinkage", panel=""))
    limits = calls(collection, "shrinkage", "ylim", panel="")[0]["lims"]
    limits_x = calls(collection, "shrinkage", "xlim", panel="")[0]["lims"]
    assert len(moves) == 32
    for (x, y), subject in list(zip(moves, separate.index, strict=True))[-2:]:
        assert (x[1], y[1]) == tuple(partial.loc[subject, ["Intercept", "t"]])
        # From the border, in the direction of the separate fit.
        assert np.isclose([x[0], y[0]] * 2, [*np.ravel([limits_x, limits])[[0, 2, 1, 3]]]).any()
        way = separate.loc[subject, ["Intercept", "t"]].to_numpy() - [x[1], y[1]]
        np.testing.assert_allclose((x[0] - x[1]) * way[1], (y[0] - y[1]) * way[0])


def test_one_pooled_fit_for_many_level2_predictions_is_said(between, dental_reml):
    """With a number of level 2 every subject has a prediction of its own."""
    fit = TwoLevelModel.from_formula("distance ~ iq * time + (1 + time | subject)", between).fit_reml()
    for coverage, what in ((0.5, "pooled fit and ellipse"), (None, "pooled fit")):
        picture = plots.plot_shrinkage(fit, coverage=coverage, backend="none")
        assert f"{what}: average of 27 level-2 predictions" in picture.caption
    said = plots.plot_shrinkage(dental_reml, backend="none").caption
    assert "average" not in said
    left = "Female | Male" if dental_reml.beta["sex[T.Male]"] > 0 else "Male | Female"
    assert said.endswith(f"sex: pooled fits from the left are those of {left}")
