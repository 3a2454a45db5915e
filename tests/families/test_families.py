"""Families: log densities against scipy, derivatives against differences, for every family and link."""

import numpy as np
import pandas as pd
import pytest
from family_cases import CASES
from scipy import stats
from scipy.special import digamma, log_ndtr, polygamma

from hierlmm import families
from hierlmm.errors import DataError, SpecificationError
from hierlmm.families import special
from hierlmm.families.names import FAMILIES, family_of
from hierlmm.families.rows import rowwise

TRIALS = 5.0


def example(name, link, size=40):
    """Responses, trials, linear predictors and ψ inside their ranges."""
    rng = np.random.default_rng(len(name) + 10 * len(link))
    eta = np.clip(rng.normal(size=size), -1.5, 1.5)
    if link in ("inverse", "sqrt") or (link == "identity" and name in ("poisson", "negative_binomial", "gamma")):
        eta = np.abs(eta) + 0.2
    if name in ("bernoulli", "binomial"):
        eta = {"identity": rng.uniform(0.1, 0.9, size), "log": -np.abs(eta) - 0.1}.get(link, eta)
    y = {
        "gaussian": rng.normal(size=size),
        "poisson": rng.poisson(3.0, size),
        "negative_binomial": rng.poisson(3.0, size),
        "bernoulli": rng.integers(2, size=size),
        "binomial": rng.integers(6, size=size),
        "gamma": rng.gamma(2.0, size=size),
        "beta": rng.beta(2.0, 2.0, size),
        "ordinal": rng.integers(4, size=size),
        "student_t": rng.normal(size=size) * 3.0,
    }[name].astype(float)
    m = 2 if name == "ordinal" else len(FAMILIES[name]().dispersion)
    return y, np.full(size, TRIALS if name == "binomial" else 1.0), eta, 0.7 * rng.normal(size=m)


def scipy_density(family, y, n, eta, psi):
    """The log density by scipy."""
    own = np.exp(psi)
    mu = None if family.name == "ordinal" else family.mean(eta)
    match family.name:
        case "gaussian":
            return stats.norm(mu, own[0]).logpdf(y)
        case "poisson":
            return stats.poisson(mu).logpmf(y)
        case "negative_binomial":
            return stats.nbinom(own[0], own[0] / (own[0] + mu)).logpmf(y)
        case "bernoulli" | "binomial":
            return stats.binom(n, mu).logpmf(y)
        case "gamma":
            return stats.gamma(own[0], scale=mu / own[0]).logpdf(y)
        case "beta":
            return stats.beta(mu * own[0], (1.0 - mu) * own[0]).logpdf(y)
        case "student_t":
            return stats.t(own[1], eta, own[0]).logpdf(y)
    inner = np.concatenate([[0.0], np.cumsum(own)])
    below = np.concatenate([[-np.inf], inner, [np.inf]])
    F = {"logit": stats.logistic.cdf, "probit": stats.norm.cdf, "cloglog": lambda x: -np.expm1(-np.exp(x))}[family.link]
    k = y.astype(int)
    return np.log(F(below[k + 1] - eta) - F(below[k] - eta))


@pytest.mark.parametrize(("name", "link"), CASES)
def test_density_is_scipys(name, link):
    family = FAMILIES[name](link=link)
    y, n, eta, psi = example(name, link)
    found = rowwise(family.derivatives, y, n, eta, psi, 3)[:, 0] + family.constant(y, n)
    with np.errstate(divide="ignore"):
        expected = scipy_density(family, y, n, eta, psi)
    seen = expected > -15.0  # beyond, differences of distribution functions have no digits left
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-7, atol=1e-9)
    assert seen.sum() > 15


@pytest.mark.parametrize(("name", "link"), CASES)
def test_derivatives_are_those_of_the_density(name, link):
    family = FAMILIES[name](link=link)
    y, n, eta, psi = example(name, link)
    h = 1e-5

    def at(eta, psi, order=3):
        return rowwise(family.derivatives, y, n, eta, psi, order)

    here = at(eta, psi)
    differences = (at(eta + h, psi) - at(eta - h, psi))[:, :3] / (2 * h)
    np.testing.assert_allclose(here[:, 1:4], differences, rtol=1e-6, atol=1e-6)
    for k, step in enumerate(h * np.eye(len(psi))):
        differences = (at(eta, psi + step) - at(eta, psi - step))[:, :3] / (2 * h)
        np.testing.assert_allclose(here[:, 4 + 3 * k : 7 + 3 * k], differences, rtol=1e-6, atol=1e-6)
    # What a lower order asks for is the same.
    np.testing.assert_array_equal(at(eta, psi, 2)[:, :3], here[:, :3])
    np.testing.assert_allclose(at(eta, psi, 1)[:, :2], here[:, :2], rtol=1e-14)
    np.testing.assert_allclose(at(eta, psi, 1)[:, 4::3], here[:, 4::3], rtol=1e-13)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_draws_have_the_mean_and_the_variance(name, link):
    if name == "ordinal":
        family, eta, psi = FAMILIES[name](link=link), np.full(40_000, 0.4), np.array([0.2, -0.3])
        drawn = family.draw(np.random.default_rng(1), eta, psi)
        expected = family.probabilities(np.array(0.4), psi)
        share = np.bincount(drawn.astype(int), minlength=4) / len(drawn)
        assert np.all(np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(drawn)))
        return
    family = FAMILIES[name](link=link)
    _, n, eta, _ = example(name, link, 3)
    psi = np.log([1.3, 12.0])[: len(family.dispersion)]
    mu = family.mean(eta)
    drawn = family.draw(np.random.default_rng(1), np.repeat(mu[:, None], 40_000, 1), psi, n[:1])
    variance = family.variance(mu, psi, n)
    assert np.all(np.abs(drawn.mean(axis=1) - n * mu) < 5 * np.sqrt(variance / 40_000))
    kurtosis = stats.kurtosis(drawn, axis=1, fisher=False)
    assert np.all(np.abs(drawn.var(axis=1) / variance - 1) < 5 * np.sqrt(kurtosis / 40_000))


def test_special_functions_are_scipys():
    x = np.geomspace(1e-3, 1e6, 300)
    np.testing.assert_allclose([special.digamma(v) for v in x], digamma(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose([special.trigamma(v) for v in x], polygamma(1, x), rtol=1e-13)
    np.testing.assert_allclose([special.tetragamma(v) for v in x], polygamma(2, x), rtol=1e-13)
    x = np.array([-200.0, -40.0, -6.01, -5.99, -1.0, 0.0, 3.0, 30.0])
    np.testing.assert_allclose([special.log_normal_cdf(v)[0] for v in x], log_ndtr(x), rtol=1e-12)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_far_tails_stay_finite(link):
    family = families.Bernoulli(link=link)
    eta = np.array([-600.0, -40.0, 5.0]) if link == "cloglog" else np.array([-600.0, -40.0, 40.0, 600.0])
    for y in (0.0, 1.0):
        found = rowwise(family.derivatives, np.full(len(eta), y), np.ones(len(eta)), eta, np.zeros(0), 3)
        assert np.all(np.isfinite(found))
        assert np.all(found[:, 2] <= 0)


def test_negative_binomial_goes_to_poisson():
    y, eta = np.array([0.0, 3.0, 20.0]), np.array([0.1, 1.0, 2.5])
    poisson = rowwise(families.Poisson().derivatives, y, np.ones(3), eta, np.zeros(0), 3)[:, :4]
    for psi in (np.log(1e5) + 0.01, 20.0, 30.0):
        found = rowwise(families.NegativeBinomial().derivatives, y, np.ones(3), eta, np.array([psi]), 3)
        np.testing.assert_allclose(found[:, :4], poisson, rtol=40 * np.exp(-psi) * 20, atol=1e-9)
        assert np.all(np.abs(found[:, 4]) < 400 * np.exp(-psi) + 1e-9)


def test_given_degrees_of_freedom_are_those():
    y, n, eta, psi = example("student_t", "identity")
    nu = 4.5
    free = rowwise(families.StudentT().derivatives, y, n, eta, np.array([psi[0], np.log(nu)]), 3)
    given = rowwise(families.StudentT(nu=nu).derivatives, y, n, eta, psi[:1], 3)
    np.testing.assert_allclose(given, free[:, :7], rtol=1e-12)
    with pytest.raises(SpecificationError, match="nu=-1"):
        families.StudentT(nu=-1.0)


def test_names_and_links():
    assert family_of("poisson") == families.Poisson()
    assert family_of(families.Gamma).link == "log"
    assert str(families.Bernoulli(link="probit")) == "Bernoulli (probit link)"
    with pytest.raises(SpecificationError, match="there is no such family"):
        family_of("poison")
    with pytest.raises(SpecificationError, match="link='probit'"):
        families.Poisson(link="probit")


@pytest.mark.parametrize(
    ("family", "y", "n", "words"),
    [
        ("poisson", [0, 1, -1], 1, "negative values"),
        ("poisson", [0, 1, 0.5], 1, "fractions"),
        ("poisson", [0, 0, 0], 1, "only zeros"),
        ("negative_binomial", [0, 0, 0], 1, "only zeros"),
        ("bernoulli", [0, 1, 2], 1, "other than 0 and 1"),
        ("bernoulli", [1, 1, 1], 1, "only successes"),
        ("binomial", [1, 2, 6], 5, "more successes than trials"),
        ("binomial", [1, 2, 1.5], 5, "fractions"),
        ("binomial", [0, 0, 0], 0, "no trial"),
        ("gamma", [1, 0, 2], 1, "not positive"),
        ("beta", [0.2, 1.0, 0.3], 1, "outside"),
    ],
)
def test_a_response_that_a_family_cannot_have_is_refused(family, y, n, words):
    with pytest.raises(DataError, match=words):
        family_of(family).check(np.array(y, dtype=float), np.full(3, float(n)), "y")


def test_the_second_level_is_a_success():
    y, note = families.Bernoulli().response(pd.Series(["no", "yes", "no"]), "ill")
    assert y.tolist() == [0.0, 1.0, 0.0]
    assert note == "success: ill = 'yes'"
    with pytest.raises(DataError, match="3 levels"):
        families.Bernoulli().response(pd.Series(["a", "b", "c"]), "ill")


def test_categories_need_an_order():
    rating = pd.Series(pd.Categorical(["low", "high", "mid"], categories=["low", "mid", "high"], ordered=True))
    y, note = families.Ordinal().response(rating, "rating")
    assert y.tolist() == [0.0, 2.0, 1.0]
    assert note == "categories: low < mid < high"
    with pytest.raises(DataError, match="no order"):
        families.Ordinal().response(pd.Series(["low", "high", "mid"]), "rating")
    with pytest.raises(DataError, match="2 categories"):
        families.Ordinal().response(pd.Series([1, 2, 1]), "rating")
