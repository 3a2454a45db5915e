"""Means, ratios, probabilities and curves of posteriors with a family are those of their draws, by plain numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from family_posteriors import CATEGORIES, LOG, NAMES, inverse, lines, over_subjects, posterior_of, summary, thresholds
from scipy.special import expit, logit

import hierlmm as hl

COLUMNS = ["estimate", "se", "lower", "upper"]
WITH_MEANS = [name for name in NAMES if name != "ordinal"]
X = 1.2


def link(name):
    return np.log if name in LOG else np.asarray if name == "student_t" else logit


def sd(fit):
    return np.concatenate(fit.draws("sd_b"))[:, 0]


def mean_lines(fit, name, level):
    """Means of g = a, b on the scale of the link, averaged over h: (400, 2)."""
    eta = [lines(fit, X, g) for g in "ab"]
    if level == "marginal":
        eta = [link(name)(over_subjects(inverse(name), own, sd(fit))) for own in eta]
    return np.column_stack([own.mean(axis=1) for own in eta])


@pytest.mark.parametrize("level", ["population", "marginal"])
@pytest.mark.parametrize("name", WITH_MEANS)
def test_means_and_comparisons(name, level):
    fit = posterior_of(name)
    line = mean_lines(fit, name, level)
    means = fit.marginal_means("g", at={"x": X}, level=level)
    np.testing.assert_allclose(means.table[COLUMNS], summary(inverse(name)(line)), rtol=1e-6)
    np.testing.assert_allclose(means.draws, inverse(name)(line), rtol=1e-6)
    linear = fit.marginal_means("g", at={"x": X}, level=level, scale="link", ci=0.8)
    np.testing.assert_allclose(linear.table[COLUMNS], summary(line, 0.8), rtol=1e-6, atol=1e-8)
    d = line[:, :1] - line[:, 1:]
    found = fit.contrasts("g", at={"x": X}, level=level, rope=(0.8, 1.3)).table.iloc[0]
    told = d if name == "student_t" else np.exp(d)
    expected = summary(told)[0]
    if name != "student_t":
        expected[0] = np.median(told)
    np.testing.assert_allclose(found[COLUMNS].astype(float), expected, rtol=1e-6)
    assert found["prob_positive"] == np.mean(d > 0)
    assert found["prob_rope"] == np.mean((told > 0.8) & (told < 1.3))
    again = means.contrasts().table
    pd.testing.assert_frame_equal(again, fit.contrasts("g", at={"x": X}, level=level).table)


@pytest.mark.parametrize("level", ["population", "marginal"])
def test_ordered_categories_have_probabilities(level):
    fit = posterior_of("ordinal")
    eta, cut = np.stack([lines(fit, X, g) for g in "ab"], axis=1), thresholds(fit)
    line = cut[:, None, None] - eta[..., None]  # draws, g, h, thresholds
    if level == "marginal":
        line = logit(over_subjects(expit, line, sd(fit)))
    below = expit(line.mean(axis=2))
    p = np.diff(below, axis=-1, prepend=0.0, append=1.0)
    means = fit.marginal_means("g", at={"x": X}, level=level)
    np.testing.assert_allclose(means.table[COLUMNS], summary(p.reshape(400, -1)), rtol=1e-6)
    assert list(means.table["y"]) == CATEGORIES * 2
    assert "draw by draw" in repr(means)
    np.testing.assert_allclose(means.contrasts().draws, p[:, 0] - p[:, 1], atol=1e-7)
    together = fit.marginal_means("g", at={"x": X, "y": "much"}, level=level, simultaneous=True)
    inside = np.all((together.draws >= together.table["lower"].to_numpy()), axis=1)
    assert len(together) == 2 and inside.mean() > 0.9
    made = fit.effects("x", by="g", at={"x": [0.5, X]}, level=level)
    assert made.title == "Probabilities of the categories of y along x by g (NUTS)"
    assert made.plot().viz["figure"].item()._suptitle.get_text() == made.title
    curves = made.table
    for key, rows in made.curves:
        part = curves.iloc[rows]
        assert (part[list(key)] == list(key.values())).all(axis=None) and list(part["x"]) == [0.5, X]
    own = curves[(curves["x"] == X) & (curves["g"] == "b")]
    np.testing.assert_allclose(own[COLUMNS], summary(p[:, 1]), rtol=1e-6)
    if level == "population":
        odds = np.exp(eta.mean(axis=2)[:, 0] - eta.mean(axis=2)[:, 1])
        found = fit.contrasts("g").table.iloc[0]
        np.testing.assert_allclose(found[["estimate", "lower"]].astype(float), np.quantile(odds, [0.5, 0.025]))


@pytest.mark.parametrize("name", WITH_MEANS)
def test_means_are_predictions(name):
    fit = posterior_of(name)
    at = {"x": 0.7, "g": "b", "h": "v"}
    row = pd.DataFrame({v: [value] for v, value in at.items()})
    for level in ("population", "marginal"):
        for scale in ("response", "link"):
            ours = fit.marginal_means(at=at, level=level, scale=scale).table.iloc[0]
            theirs = fit.predict(row, level=level, interval="credible", scale=scale).iloc[0]
            np.testing.assert_allclose(ours[COLUMNS].astype(float), theirs[COLUMNS], rtol=1e-9)


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "student_t"])
def test_curves_are_means_with_bands_that_hold_together(name):
    fit = posterior_of(name)
    some = {"x": list(np.linspace(0.1, 1.9, 7))}
    curves = fit.effects("x", by="g", at=some, level="marginal", simultaneous=True)
    means = fit.marginal_means("x", by="g", at=some, level="marginal").table
    np.testing.assert_allclose(curves.table[COLUMNS], means[COLUMNS], rtol=1e-12)
    draws = fit.marginal_means("x", by="g", at=some, level="marginal").draws[:, :7]
    low, high = (curves.table[f"{side}_simultaneous"].to_numpy()[:7] for side in ("lower", "upper"))
    inside = np.all((draws >= low) & (draws <= high), axis=1)
    assert abs(inside.mean() - 0.95) <= 2 / 400
    assert "estimates are posterior means" in repr(curves) or name == "student_t"
    picture = fit.plot_effects("x", by="g", level="marginal")
    assert picture.viz["figure"].item().axes[0].get_ylabel() in ("y", "probability of y")


def test_intervals_of_ratios_hold_together():
    fit = posterior_of("binomial")
    effects = fit.contrasts("h", simultaneous=True)
    table, draws = effects.table, effects.draws
    inside = np.all((draws >= table["lower"].to_numpy()) & (draws <= table["upper"].to_numpy()), axis=1)
    assert abs(inside.mean() - 0.95) <= 2 / 400
    np.testing.assert_allclose(table["estimate"], np.median(draws, axis=0))
    assert (table["lower"] > 0).all()


def test_a_ratio_and_its_reciprocal_say_the_same():
    fit = posterior_of("gamma")
    one, other = (fit.contrasts("g", {"c": {p: 1, q: -1}}) for p, q in ("ab", "ba"))
    assert one.table["estimate"].iloc[0] == pytest.approx(1 / other.table["estimate"].iloc[0], rel=1e-3)
    assert "posterior medians" in repr(one) and "probability of a ratio above 1" in repr(one)
    near = fit.contrasts("g", rope=1.5)
    d = np.log(near.draws[:, 0])
    assert near.table["prob_rope"].iloc[0] == np.mean(np.abs(d) < np.log(1.5))


@pytest.mark.parametrize("name", ["negative_binomial", "beta", "ordinal"])
def test_slopes_and_hypotheses_are_on_the_scale_of_the_link(name):
    fit = posterior_of(name)
    beta = pd.DataFrame(np.concatenate(fit.draws("beta")), columns=fit.design.coef)
    slope = fit.slopes("x").table.iloc[0]
    np.testing.assert_allclose(slope[COLUMNS].astype(float), summary(beta[["x"]].to_numpy())[0], rtol=1e-6)
    test = fit.hypothesis(["x > 0", "h[T.v] > h[T.w]"])
    holds = [beta["x"] > 0, beta["h[T.v]"] > beta["h[T.w]"]]
    np.testing.assert_allclose(test.table["prob"], [own.mean() for own in holds])
    assert test.probability == np.mean(holds[0] & holds[1])
    assert "scale of the link" in repr(test)
    assert "scale of the link" in repr(fit.slopes("x"))


def test_what_there_is_not_is_refused():
    fit = posterior_of("poisson")
    for call, words in [
        (lambda: fit.anova(), "no F test"),
        (lambda: fit.contrasts("g", adjust="holm"), "no p-values"),
        (lambda: fit.contrasts("g", rope=0.9), "the region is empty"),
        (lambda: fit.marginal_means("g", df="normal"), "quantiles of draws"),
        (lambda: posterior_of("ordinal").contrasts("g", level="marginal"), "every threshold"),
    ]:
        with pytest.raises(hl.HierlmmError, match=words):
            call()


def test_many_rows_take_some_of_the_draws(monkeypatch):
    from hierlmm.effects import averages

    monkeypatch.setattr(averages, "NUMBERS", 200)
    monkeypatch.setattr(averages, "FEWEST", 50)
    found = posterior_of("poisson").marginal_means("g", level="marginal")
    assert found.draws.shape == (100, 2)
    assert "(100 draws)" in repr(found)
