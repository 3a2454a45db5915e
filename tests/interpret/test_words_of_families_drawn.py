"""Sentences, ranges, comparisons and ranks of posteriors with a family, against their draws."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from family_posteriors import CATEGORIES, LOG, NAMES, inverse, posterior_of, thresholds
from scipy.special import expit
from scipy.stats import norm

import hierlmm as hl


@cache
def said(name):
    return posterior_of(name).interpret()


def told(name):
    return " ".join(said(name).text.replace("\n  ", " ").split())


def coefficients(fit):
    return pd.DataFrame(np.concatenate(fit.draws("beta")), columns=fit.design.coef)


def facts_of(name, words):
    """The numbers of the first sentence with these words."""
    return next(s.facts for s in said(name).sentences if words in s.text)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "student_t"])
def test_ratios_are_medians_and_quantiles_of_draws(name):
    fit = posterior_of(name)
    beta = coefficients(fit)
    facts = facts_of(name, "per unit of x")
    ratio = np.exp(beta["x"])
    assert facts["estimate"] == pytest.approx(np.median(ratio), rel=1e-9)
    assert facts["lower"] == pytest.approx(np.exp(np.quantile(beta["x"], 0.025)), rel=1e-9)
    assert facts["probability"] == np.mean(ratio > 1)
    group = facts_of(name, "g = b over g = a")
    assert group["estimate"] == pytest.approx(1 / fit.contrasts("g").table["estimate"].iloc[0], rel=2e-2)
    assert group["estimate"] == pytest.approx(np.median(np.exp(beta["g[T.b]"])), rel=1e-9)
    words = "The mean of y is multiplied by" if name in LOG else "are multiplied by"
    words = "The odds of a higher y are multiplied by" if name == "ordinal" else words
    assert f"{words} {np.median(ratio):.4g} per unit of x" in told(name)
    assert "of ratios medians" in told(name)
    if name == "ordinal":
        assert "fit.probabilities(level='marginal')" in told(name)
        assert "marginal_coefficients" not in told(name)


@pytest.mark.parametrize("name", ["poisson", "bernoulli", "student_t"])
def test_levels_are_posterior_means_of_the_response(name):
    fit = posterior_of(name)
    level = inverse(name)(coefficients(fit)["Intercept"].to_numpy())
    facts = facts_of(name, "with g = a is" if name != "student_t" else "over subjects with g = a")
    assert facts["estimate"] == pytest.approx(level.mean(), rel=1e-9)
    assert facts["upper"] == pytest.approx(np.quantile(level, 0.975), rel=1e-2)
    row = {"x": 0.0, "h": "u", "g": "a"}
    assert facts["estimate"] == pytest.approx(fit.marginal_means(at=row).table["estimate"].iloc[0], rel=1e-9)


def test_categories_have_probabilities():
    beta, cut = coefficients(posterior_of("ordinal")), thresholds(posterior_of("ordinal"))
    p = np.diff(expit(cut - (beta["Intercept"] + beta["g[T.b]"]).to_numpy()[:, None]), prepend=0.0, append=1.0)
    facts = facts_of("ordinal", "the probabilities of y for a subject in the middle (b = 0) with g = b are: none ")
    for k, category in enumerate(CATEGORIES):
        assert facts[f"estimate, {category}"] == pytest.approx(p[:, k].mean(), rel=1e-9)
        assert facts[f"upper, {category}"] == pytest.approx(np.quantile(p[:, k], 0.975), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_ranges_of_subjects(name):
    fit = posterior_of(name)
    m, s = coefficients(fit)["Intercept"].to_numpy(), np.concatenate(fit.draws("sd_b"))[:, 0]
    row = fit.heterogeneity(above=0.3).table.set_index("group").loc["g = a"]
    for column, draws in {
        "mean": m,
        "sd": s,
        "high": m + norm.ppf(0.975) * s,
        "share": norm.cdf((m - 0.3) / s),
    }.items():
        assert row[column] == pytest.approx(draws.mean(), rel=1e-9)
        ends = row[[f"{column}_lower", f"{column}_upper"]].astype(float)
        np.testing.assert_allclose(ends, np.quantile(draws, [0.025, 0.975]), rtol=1e-9)
    assert norm.cdf((row["new_low"] - m) / s).mean() == pytest.approx(0.025, abs=1e-6)
    assert fit.heterogeneity().plot().backend == "matplotlib"


@pytest.mark.parametrize("name", ["gamma", "ordinal"])
def test_subjects_are_compared_and_ranked_by_their_draws(name):
    fit = posterior_of(name)
    beta = coefficients(fit)
    group = (np.arange(14) % 2)[None] * beta["g[T.b]"].to_numpy()[:, None]
    own = beta["Intercept"].to_numpy()[:, None] + group + np.concatenate(fit.draws("b"))[:, :, 0]
    pair = fit.compare_subjects("s02", "s05")
    assert pair.probability == np.mean(own[:, 2] > own[:, 5])
    assert pair.upper == pytest.approx(np.quantile(own[:, 2] - own[:, 5], 0.975), rel=1e-9)
    assert f"Coefficients are on the {fit.family.link} scale" in repr(pair)
    ranking = fit.rank_subjects()
    ranks = 1 + np.sum(own[:, :, None] < own[:, None, :], axis=2)
    by_subject = ranking.table.sort_index()
    np.testing.assert_allclose(by_subject["expected_rank"], ranks.mean(axis=0))
    np.testing.assert_allclose(by_subject["prob_top"], (ranks == 1).mean(axis=0))
    assert f"Coefficients are on the {fit.family.link} scale" in repr(ranking)


def test_units_are_checked():
    with pytest.raises(hl.SpecificationError, match="words for columns"):
        posterior_of("poisson").interpret(units={"z": "year"})
