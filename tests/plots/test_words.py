"""What titles, labels and captions say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from samples import DENTAL

import hierlmm as hl


def test_axes_have_the_units_that_the_data_set_knows(dental_reml, dental):
    assert dental.attrs["units"] == {"age": "years", "time": "years", "distance": "mm"}
    for picture in (dental_reml.plot_trajectories(by=[]), dental_reml.plot_effects("time")):
        axes = picture.get_viz("figure").axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (years)", "distance (mm)")
    plain = dental.copy()
    plain.attrs = {}
    fit = hl.TwoLevelModel.from_formula(DENTAL, plain).fit_reml()
    assert fit.plot_effects("time").get_viz("figure").axes[0].get_xlabel() == "time"
    assert fit.plot_effects("time", xlabel="Years").get_viz("figure").axes[0].get_xlabel() == "Years"


def test_the_title_of_one_effect_is_its_message(dental_reml):
    contrast = dental_reml.contrasts("sex")
    row = contrast.table.iloc[0]
    title = f"distance is higher by {-row['estimate']:.2f} mm for Male than for Female, "
    assert contrast.plot(backend="none").title == title + f"{-row['upper']:.2f} to {-row['lower']:.2f}"
    assert contrast.plot(backend="none", title="Mine").title == "Mine"
    slopes = dental_reml.slopes("time", by="sex").contrasts().plot(backend="none")
    assert slopes.title == "distance rises by 0.305 mm per year more for Male than for Female, 0.027 to 0.582"
    assert dental_reml.plot_effects("time", by="sex", backend="none").title == slopes.title
    assert slopes.caption.startswith("Contrasts of distance (REML), 95 % intervals.")


def test_titles_leave_open_what_the_interval_leaves_open(dental_reml, dental):
    wide = dental_reml.contrasts("sex", at={"time": [0]}, ci=0.99).plot(backend="none").title
    assert wide.startswith("Whether distance is higher for Female or for Male is open: Female minus Male −1.4")
    means = dental_reml.plot_posterior(parameters="sd(time)", backend="none").title
    assert means == "distance: sd(time) 0.180 mm per year, 0.059 to 0.555"
    # A coefficient that holds at time 0 only is a number, and no sentence.
    assert dental_reml.plot_posterior(parameters="time", backend="none").title.startswith("distance: time 0.48")
    apart = hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 | subject)", dental).fit_reml()
    assert apart.plot_posterior(parameters="time", backend="none").title.startswith(
        "distance rises by 0.660 mm per year"
    )
    assert apart.plot_effects("time", by="sex", backend="none").title == "Mean of distance along time by sex (REML)"
    plain = dental.copy()
    plain.attrs = {}
    falling = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", plain.assign(time=-plain["time"]))
    title = falling.fit_reml().plot_posterior(parameters="time", backend="none").title
    assert title.startswith("distance falls by 0.660 per unit of time, ")


def test_effects_along_a_number_are_one_panel(dental_reml):
    contrasts = dental_reml.contrasts("sex", by="time", at={"time": [0, 2, 6]})
    (axes,) = contrasts.plot().get_viz("figure").axes
    assert axes.get_xlabel() == "time"
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_offsets(), contrasts.table[["time", "estimate"]].to_numpy(dtype=float))


@pytest.mark.parametrize("n", [100, 1500])
def test_many_points_are_a_sample_and_the_caption_says_so(n):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 4), "t": np.tile(np.arange(4.0), n)})
    frame["y"] = rng.normal(size=n)[frame["id"]] + rng.normal(size=4 * n)
    picture = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml().plot_effects("t", data="points")
    points = picture.get_viz("figure").axes[0].collections
    assert max(len(c.get_offsets()) for c in points) == min(4 * n, 3000)
    assert ("Points: 3000 of 6000 measurements" in picture.caption) == (n == 1500)


def test_shrinkage_of_many_subjects_is_a_sample(dental_reml):
    picture = dental_reml.plot_shrinkage(max_subjects=10, backend="none")
    assert "10 of 27 subjects" in picture.caption
    assert "subjects of" not in dental_reml.plot_shrinkage(backend="none").caption
