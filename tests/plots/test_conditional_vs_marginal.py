"""The picture of the two meanings: its curves are the means that they say they are."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.plots import plot_conditional_vs_marginal


@pytest.fixture(scope="module")
def clinic():
    rng = np.random.default_rng(4)
    subject, time = np.repeat(np.arange(40), 5), np.tile(np.arange(5.0), 40)
    group, dose = np.where(subject % 2, "new", "old"), rng.normal(size=200)
    eta = -1.5 + 0.9 * time + 0.9 * (group == "new") + 1.5 * rng.normal(size=40)[subject]
    well = np.where(rng.random(200) < expit(eta), "yes", "no")
    return pd.DataFrame({"subject": subject, "time": time, "group": group, "dose": dose, "well": well})


@pytest.fixture(scope="module")
def both(clinic):
    formula = "well ~ time + group + dose + (1 | subject)"
    return hl.TwoLevelModel.from_formula(formula, clinic, family="bernoulli").compare("ml", "gee")


def lines(picture, layer, panel=""):
    data = picture.viz[layer]["curves"].sel(panel=panel).item().get_data()
    return np.vstack(data)


def test_each_curve_is_the_mean_that_it_says(both, clinic):
    picture = both.plot_conditional_vs_marginal("time", by="group")
    ml, gee, dose = both.fits["ML"], both.fits["GEE"], clinic["dose"].mean()
    for panel, one in (("group = new", 0.0), ("group = old", 1.0)):
        new = np.array([1.0, 0.0, one, dose])
        x, middle = lines(picture, "average_subject", panel)
        new = np.repeat(new[None], len(x), axis=0)
        new[:, 1] = x
        order = ["Intercept", "time", "group[T.old]", "dose"]
        eta = new @ ml.beta[order].to_numpy()
        np.testing.assert_allclose(middle, expit(eta), rtol=1e-12)
        rows = pd.DataFrame({"time": x, "group": panel[-3:], "dose": dose})
        average = lines(picture, "average", panel)[1]
        np.testing.assert_allclose(average, ml.predict(rows, level="marginal")["estimate"], rtol=1e-9)
        np.testing.assert_allclose(lines(picture, "gee", panel)[1], gee.predict(rows)["estimate"], rtol=1e-12)
        gaps = np.isnan(lines(picture, "subjects", panel)[1])
        assert gaps.sum() == 20 and not np.isnan(average).any()
        assert average[-1] - average[0] < middle[-1] - middle[0]  # attenuation
        own = ml.b["Intercept"].iloc[1 if panel[-3:] == "new" else 0]
        np.testing.assert_allclose(lines(picture, "subjects", panel)[1][: len(x)], expit(eta + own), rtol=1e-12)


def test_the_words_say_what_is_seen(both):
    picture = both.plot_conditional_vs_marginal(title="Two meanings", max_subjects=10)
    assert picture.title == "Two meanings"
    assert picture.caption.startswith("At group = new, dose = ") and "10 of 40 subjects" in picture.caption
    ax = picture.viz["plot"].item()
    assert ax.get_ylabel() == "probability of well = 'yes'" and ax.get_xlabel() == "time"
    texts = [t.get_text() for t in picture.get_viz("figure").legends[0].get_texts()]
    assert texts == ["subjects", "average subject (b = 0)", "average of subjects (ML)", "GEE"]


def test_colours_belong_to_estimators(both):
    picture = both.plot_conditional_vs_marginal()
    layers = ("average", "gee", "average_subject")
    colours = {layer: picture.viz[layer]["curves"].item().get_color() for layer in layers}
    assert colours["average"] == "#009E73" and colours["gee"] == "#CC79A7"
    assert matplotlib.colors.to_hex(colours["average_subject"]) == matplotlib.colors.to_hex(
        matplotlib.rcParams["text.color"]
    )


@pytest.mark.parametrize("backend", ["none", "plotly", "bokeh"])
def test_every_backend(both, backend):
    pytest.importorskip("plotly" if backend == "plotly" else "bokeh" if backend == "bokeh" else "numpy")
    assert both.plot_conditional_vs_marginal("dose", by="group", backend=backend).backend == backend


def test_on_given_axes_and_of_a_fit_alone(both):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    picture = both.fits["ML"].plot_conditional_vs_marginal("time", at={"group": "old"}, ax=ax)
    assert "gee" not in picture.viz.children and "gee" not in picture.viz
    assert len(ax.lines) == 3
    plt.close("all")


def test_with_the_identity_link_the_two_are_one(sleep_reml):
    picture = plot_conditional_vs_marginal(sleep_reml)
    np.testing.assert_allclose(lines(picture, "average")[1], lines(picture, "average_subject")[1], rtol=1e-12)
    assert "the average subject is the average of subjects" in picture.caption


def test_what_cannot_be_drawn_is_refused(both, clinic):
    with pytest.raises(NotAvailableError, match="no random effects"):
        plot_conditional_vs_marginal(both.fits["GEE"])
    with pytest.raises(SpecificationError, match="number of the fixed effects"):
        both.plot_conditional_vs_marginal("group")
    with pytest.raises(SpecificationError, match="levels of a factor"):
        both.plot_conditional_vs_marginal("time", by="dose")
    rating = clinic.assign(rating=np.tile([1, 2, 3, 2, 3], 40))
    ordinal = hl.TwoLevelModel.from_formula("rating ~ time + (1 | subject)", rating, family="ordinal").fit_ml()
    with pytest.raises(NotAvailableError, match="categories have no mean"):
        ordinal.plot_conditional_vs_marginal()
