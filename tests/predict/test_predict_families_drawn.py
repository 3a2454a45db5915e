"""Predictions and pictures of posteriors with a family are averages over their draws."""

from __future__ import annotations

import numpy as np
import pytest
from family_posteriors import (
    CATEGORIES,
    NAMES,
    data_of,
    inverse,
    lines,
    over_subjects,
    posterior_of,
    thresholds,
)
from scipy import stats
from scipy.special import expit

import hierlmm as hl
from hierlmm.fit.generalised import GeneralisedFit
from hierlmm.fit.posterior import PosteriorFit
from hierlmm.plots.lines import population_line, subject_lines, x_axis
from hierlmm.predict.averages import mean_over_subjects

WITH_MEANS = [name for name in NAMES if name != "ordinal"]


def own_lines(fit):
    """Linear predictors of the rows with the subjects' effects, by draw: (400, 70)."""
    b = np.concatenate(fit.draws("b"))[:, :, 0]
    return np.concatenate(fit.draws("beta")) @ fit.design.X.T + b[:, np.repeat(np.arange(14), 5)]


def sd(fit):
    return np.concatenate(fit.draws("sd_b"))[:, 0]


@pytest.mark.parametrize("name", WITH_MEANS)
def test_draws_of_means(name):
    fit, rows = posterior_of(name), data_of(name).head(3)
    drawn = fit.predict(kind="draws")
    assert drawn.dims == ("chain", "draw", "obs") and drawn.name == "mean"
    n = fit.design.trials
    np.testing.assert_allclose(drawn.to_numpy().reshape(400, -1), inverse(name)(own_lines(fit)) * n, rtol=1e-10)
    np.testing.assert_allclose(drawn.mean(("chain", "draw")), fit.predict()["estimate"], rtol=1e-10)
    np.testing.assert_allclose(fit.fitted(), fit.predict()["estimate"], rtol=1e-10)
    middle = np.concatenate(fit.draws("beta")) @ fit.design.X[:3].T
    over = fit.predict(rows, level="marginal", kind="draws").to_numpy().reshape(400, -1)
    np.testing.assert_allclose(over, over_subjects(inverse(name), middle, sd(fit)) * n[:3], rtol=1e-6)
    linear = fit.predict(rows, level="population", kind="draws", scale="link")
    assert linear.name == "line"
    np.testing.assert_allclose(linear.to_numpy().reshape(400, -1), middle, rtol=1e-10)


@pytest.mark.parametrize("level", ["new_subject", "marginal"])
def test_rows_of_one_new_subject_are_drawn_together(level):
    fit = posterior_of("poisson")
    rows = data_of("poisson").iloc[[0, 1, 5, 6]].assign(subject=["p", "p", "q", "q"], x=1.0, h="u")
    asked = {"scale": "link"} if level == "new_subject" else {"interval": "prediction"}
    drawn = fit.predict(rows, level=level, kind="draws", seed=4, **asked).to_numpy().reshape(400, 4)
    if level == "marginal":
        assert np.all(drawn == np.round(drawn))
        return
    b = drawn - np.column_stack([lines(fit, 1.0, g)[:, 0] for g in "aabb"])
    np.testing.assert_allclose(b[:, 0], b[:, 1], atol=1e-12)
    assert np.abs(b[:, 0] - b[:, 2]).min() > 0
    assert np.std(b[:, 0] / sd(fit)) == pytest.approx(1.0, abs=0.15)


def test_categories():
    fit, rows = posterior_of("ordinal"), data_of("ordinal").head(4)
    with pytest.raises(hl.NotAvailableError, match=r"(?s)a prediction interval of an ordinal.*fit\.probabilities\("):
        fit.predict(rows, interval="prediction")
    assert set(np.unique(fit.predict(rows, interval="prediction", kind="draws"))) <= set(range(len(fit.thresholds) + 1))
    cut = thresholds(fit)[:, None]

    def by_hand(eta):
        return np.diff(expit(cut - eta[..., None]), axis=-1, prepend=0.0, append=1.0)

    found = fit.probabilities(rows)
    assert list(found.columns) == CATEGORIES
    np.testing.assert_allclose(found, by_hand(own_lines(fit)[:, :4]).mean(axis=0), rtol=1e-10)
    middle = np.concatenate(fit.draws("beta")) @ fit.design.X[:4].T
    for level in ("population", "new_subject"):
        np.testing.assert_allclose(fit.probabilities(rows, level), by_hand(middle).mean(axis=0), rtol=1e-10)
    shares = fit.probabilities(rows, level="marginal")
    np.testing.assert_allclose(shares, over_subjects(by_hand, middle, sd(fit)).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert list(fit.thresholds.index) == ["none|some", "some|much"]
    assert fit.thresholds.iloc[1] == pytest.approx(thresholds(fit)[:, 1].mean())
    with pytest.raises(hl.NotAvailableError, match=r"fit\.probabilities"):
        fit.predict()
    with pytest.raises(hl.NotAvailableError, match=r"fit\.probabilities"):
        fit.predict(level="marginal", scale="link")
    with pytest.raises(hl.NotAvailableError, match=r"fit\.probabilities"):
        fit.fitted()


def test_deviance_residuals():
    fit = posterior_of("poisson")
    y, mean = fit.design.y, fit.fitted().to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        own = 2 * (np.where(y > 0, y * np.log(y / mean), 0.0) - (y - mean))
    np.testing.assert_allclose(fit.residuals("deviance"), np.sign(y - mean) * np.sqrt(own), rtol=1e-7)


@pytest.mark.parametrize("name", ["bernoulli", "gamma"])
def test_pictures_show_averages_over_draws(name):
    fit = posterior_of(name)
    axis = x_axis(fit.design, None)
    x, y = subject_lines(fit, axis, [3])[3]
    for row in np.flatnonzero(fit.design.subject_index == 3):
        at = np.flatnonzero(np.isclose(x, axis.position[row]))[0]
        assert y[at] == pytest.approx(fit.fitted().iloc[row], rel=1e-9)
    group = np.arange(0, 14, 2)
    x, y = population_line(fit, axis, group)
    one = lines(fit, x[0], "a")  # the line at b = 0 averages the courses of h over subjects, on the scale of the link
    assert inverse(name)(one.min(axis=1)).mean() <= y[0] <= inverse(name)(one.max(axis=1)).mean()
    picture = fit.plot_conditional_vs_marginal("x", at={"g": "b", "h": "v"}, max_subjects=4)
    x, average = picture.viz["average"]["curves"].sel(panel="").item().get_data()
    eta = lines(fit, x[-1], "b")[:, 1]
    assert average[-1] == pytest.approx(over_subjects(inverse(name), eta, sd(fit)).mean(), rel=1e-6)
    middle = picture.viz["average_subject"]["curves"].sel(panel="").item().get_data()[1]
    assert middle[-1] == pytest.approx(inverse(name)(eta).mean(), rel=1e-9)
    own = picture.viz["subjects"]["curves"].sel(panel="").item().get_data()[1]
    effect = np.concatenate(fit.draws("b"))[:, 0, 0]
    assert own[len(x) - 1] == pytest.approx(inverse(name)(eta + effect).mean(), rel=1e-9)
    assert fit.plot_trajectories().backend == "matplotlib"


def test_pictures_of_a_posterior_that_kept_means_of_its_subjects():
    fit = posterior_of("bernoulli", random_effects="summary")
    axis = x_axis(fit.design, None)
    x, y = subject_lines(fit, axis, [3])[3]
    row = 17
    at = np.flatnonzero(np.isclose(x, axis.position[row]))[0]
    assert y[at] == pytest.approx(expit(fit.design.X[row] @ fit.beta + fit.b.iloc[3, 0]), rel=1e-9)
    assert fit.plot_conditional_vs_marginal("x").backend == "matplotlib"
    with pytest.raises(hl.NotAvailableError, match="random_effects='draws'"):
        fit.rank_subjects()


def test_what_other_fits_answer_is_answered_or_refused_with_its_reason():
    fit = posterior_of("poisson")
    names = {n for kind in (PosteriorFit, GeneralisedFit) for n in dir(kind) if not n.startswith("_")} - {"extend"}
    for name in sorted(names):
        try:
            found = getattr(fit, name)
        except hl.HierlmmError as refusal:
            assert refusal.reason and refusal.remedy, name
            continue
        if name in fit.lacks:
            with pytest.raises(hl.NotAvailableError, match="To do"):
                found()
    with pytest.raises(hl.NotAvailableError, match=r"hl\.compare\(fit, model\.fit_gee\(\)\)"):
        fit.compare_marginal  # noqa: B018


@pytest.mark.parametrize(("link", "sd", "near"), [("logit", 0.5, 1e-11), ("logit", 9.0, 1e-7), ("cloglog", 5.0, 1e-7)])
def test_means_over_very_different_subjects(link, sd, near):
    family = hl.families.Bernoulli(link=link)
    eta = np.linspace(-6.0, 6.0, 7)
    found = mean_over_subjects(family, eta, np.full(7, sd**2))
    node = np.linspace(-9.0, 9.0, 40_001)
    weight = stats.norm.pdf(node) * (node[1] - node[0])
    np.testing.assert_allclose(found, [weight @ family.mean(at + sd * node) for at in eta], rtol=near)
