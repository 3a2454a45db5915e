"""Priors: their densities against scipy, their scales against the formulas of the documentation, bad ones refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from hierlmm.bayes.distributions import (
    LKJ,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    LogNormal,
    Normal,
    ScaledBeta,
    StudentT,
    Uniform,
)
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.errors import NotAvailableError, SpecificationError


def folded_t(nu, scale):
    return lambda x: stats.t(nu, scale=scale).logpdf(x) + np.log(2)


CASES = [
    (Normal(1.0, 2.0), stats.norm(1.0, 2.0).logpdf),
    (StudentT(5.0, 1.0, 2.0), stats.t(5.0, 1.0, 2.0).logpdf),
    (Uniform(0.5, 4.0), stats.uniform(0.5, 3.5).logpdf),
    (ScaledBeta(3.0, -2.0, 4.0), stats.beta(3.0, 3.0, loc=-2.0, scale=6.0).logpdf),
    (ScaledBeta(0.7, 0.0, 3.0), stats.beta(0.7, 0.7, scale=3.0).logpdf),
    (LogNormal(2.0, 0.6), stats.lognorm(0.6, scale=2.0).logpdf),
    (HalfNormal(2.0), stats.halfnorm(scale=2.0).logpdf),
    (HalfStudentT(5.0, 2.0), folded_t(5.0, 2.0)),
    (HalfCauchy(2.0), stats.halfcauchy(scale=2.0).logpdf),
    (Exponential(mean=3.0), stats.expon(scale=3.0).logpdf),
    (Gamma(2.0, 0.5), stats.gamma(2.0, scale=2.0).logpdf),
]


def design(formula, data):
    return design_from_formula(parse_formula(formula), data)


@pytest.mark.parametrize(("prior", "logpdf"), CASES, ids=lambda v: str(v) if not callable(v) else "")
def test_density(prior, logpdf):
    x = np.array([0.7, 1.3, 2.9])
    np.testing.assert_allclose(prior.logpdf(x), logpdf(x), rtol=1e-12)
    if prior.is_positive:
        assert prior.logpdf(-1.0) == -np.inf


@pytest.mark.parametrize("prior", [case[0] for case in CASES], ids=str)
def test_draws_follow_the_density(prior):
    """Kolmogorov-Smirnov of draws against the integral of exp(logpdf) between knots."""
    n = 40_000  # enough to tell a t with 5 degrees of freedom from a normal
    draws = np.sort(prior.sample(np.random.default_rng(7), n))
    low, high = prior.support
    assert low <= draws[0] and draws[-1] <= high
    knots = np.unique([low, *draws[:: n // 100], draws[-1], high])
    pieces = [integrate.quad(lambda x: np.exp(prior.logpdf(x)), a, b, limit=200)[0] for a, b in pairwise(knots)]
    assert sum(pieces) == pytest.approx(1.0, abs=1e-6)
    distance = np.abs(np.cumsum(pieces) - np.searchsorted(draws, knots[1:]) / n).max()
    assert stats.kstwobign.sf(np.sqrt(n) * distance) > 1e-4


def test_numbers_are_readable():
    assert str(Normal(24.023148, 7.28749)) == "Normal(24.02, 7.287)"
    assert str(HalfStudentT(4, 56.1721)) == "HalfStudentT(4, 56.17)"
    assert str(Exponential(mean=2)) == "Exponential(mean=2)"
    assert str(LKJ(2)) == "LKJ(2)"


def test_lkj_is_normalised():
    total, _ = integrate.quad(lambda r: np.exp(LKJ(3.0).logpdf([[1, r], [r, 1]])), -1, 1)
    assert total == pytest.approx(1.0, abs=1e-9)
    L = LKJ(1.0).sample_cholesky(np.random.default_rng(2), 3, 40_000)
    R = L @ np.swapaxes(L, 1, 2)
    weight = np.exp(LKJ(2.0).logpdf(R) - LKJ(1.0).logpdf(R))
    assert abs(weight.mean() - 1) < 4 * weight.std() / np.sqrt(len(weight))


@pytest.mark.parametrize("pair", [(1, 0), (2, 0), (2, 1)])
def test_lkj_draws_have_the_marginal_of_the_paper(pair):
    q, eta = 3, 2.0
    L = LKJ(eta).sample_cholesky(np.random.default_rng(3), q, 4000)
    R = L @ np.swapaxes(L, 1, 2)
    np.testing.assert_allclose(R[:, range(q), range(q)], 1.0)
    a = eta - 1 + q / 2
    assert stats.kstest((R[(slice(None), *pair)] + 1) / 2, stats.beta(a, a).cdf).pvalue > 1e-4


def test_default_scales(dental, dental_design):
    priors = resolve_priors(None, dental_design)
    y, X = dental["distance"].to_numpy(), dental_design.X
    assert priors.beta[0].mean == pytest.approx(y.mean())
    assert priors.beta[0].sd == pytest.approx(2.5 * y.std())
    centred = X.copy()
    centred[:, 3] = X[:, 1] * (dental["time"] - dental["time"].mean())  # sex is that at the average time
    for k in (1, 2, 3):
        assert priors.beta[k].mean == 0
        assert priors.beta[k].sd == pytest.approx(2.5 * y.std() / centred[:, k].std())
    assert priors.sd_b[0].sd == pytest.approx(2.5 * y.std())
    assert priors.sd_b[1].sd == pytest.approx(2.5 * y.std() / dental["time"].std(ddof=0))
    assert priors.corr_b == LKJ(2.0)
    assert priors.sigma.nu == 4
    assert priors.sigma.scale == pytest.approx(y.std())
    assert priors.source == "default"


def test_bambi_scales_are_those_bambi_prints(sleepstudy):
    priors = resolve_priors("bambi", design("reaction ~ days + (days || subject)", sleepstudy))
    found = [priors.beta[0].mean, priors.beta[0].sd, priors.beta[1].sd, priors.sd_b[0].sd, priors.sd_b[1].sd]
    np.testing.assert_allclose(found, [298.5079, 261.0092, 48.8915, 261.0092, 48.8915], atol=5e-5)
    assert priors.sigma.scale == pytest.approx(56.1721, abs=5e-5)


def test_without_an_intercept_coefficients_deviate_from_zero(dental):
    far = dental.assign(distance=dental["distance"] + 1000)
    priors = resolve_priors(None, design("distance ~ 0 + sex + (1 | subject)", far))
    assert all(p.sd > 1000 for p in priors.beta)
    assert priors.sd_b[0].sd == pytest.approx(2.5 * dental["distance"].std(ddof=0))
    only_random = resolve_priors(None, design("distance ~ 0 + (1 | subject)", far))
    assert only_random.sd_b[0].sd > 1000


def test_offset_is_taken_off_the_response(dental):
    moved = dental.assign(distance=dental["distance"] + 50 * dental["time"], shift=50 * dental["time"])
    with_offset = resolve_priors(None, design("distance ~ sex + offset(shift) + (1 | subject)", moved))
    plain = resolve_priors(None, design("distance ~ sex + (1 | subject)", dental))
    assert with_offset.beta[0].sd == pytest.approx(plain.beta[0].sd)


def test_normal_prior_of_uncentred_coefficients(dental, dental_design):
    priors = resolve_priors(None, dental_design)
    m0, P0 = priors.beta_normal()
    joint = stats.multivariate_normal(m0, np.linalg.inv(P0))
    rng = np.random.default_rng(4)
    for _ in range(3):
        beta = rng.normal(size=4) * [20, 5, 2, 2]
        centred = beta.copy()
        centred[0] += dental_design.X[:, 1:].mean(axis=0) @ beta[1:]
        centred[1] += dental["time"].mean() * beta[3]  # sex at the average time
        separate = sum(float(p.logpdf(v)) for p, v in zip(priors.beta, centred, strict=True))
        assert joint.logpdf(beta) == pytest.approx(separate, rel=1e-9)


def test_not_normal_has_no_normal_form(dental_design):
    priors = resolve_priors(Priors(beta=StudentT(4, 0, 2)), dental_design)
    assert not priors.beta_is_normal
    with pytest.raises(NotAvailableError, match="StudentT"):
        priors.beta_normal()


def test_what_the_user_chose_replaces_the_default(dental_design):
    chosen = Priors(beta={"time": Normal(0, 1)}, sd_b={"time": Gamma(2, 4)}, corr_b=LKJ(1), intercept=Normal(20, 3))
    priors = resolve_priors(chosen, dental_design)
    default = resolve_priors(None, dental_design)
    assert priors.beta == (Normal(20, 3), default.beta[1], Normal(0, 1), default.beta[3])
    assert priors.sd_b == (default.sd_b[0], Gamma(2, 4))
    assert priors.corr_b == LKJ(1)
    assert priors.sigma == default.sigma
    text = str(priors)
    assert "as chosen" in text
    assert "sd(time)" in text
    assert "Gamma(2, 4)" in text


def test_one_prior_for_all(dental_design):
    priors = resolve_priors(Priors(beta=Normal(0, 3), sd_b=HalfNormal(9)), dental_design)
    assert priors.beta[1:] == (Normal(0, 3),) * 3
    assert priors.beta[0] != Normal(0, 3)
    assert priors.sd_b == (HalfNormal(9),) * 2


def test_identity_shares_the_widest_scale(dental):
    data = design_from_formula(parse_formula("distance ~ time + (time | subject)"), dental, covariance="identity")
    priors = resolve_priors(None, data)
    assert priors.common_sd
    assert priors.corr_b is None
    assert priors.sd_b[0] == priors.sd_b[1]
    assert priors.sd_b[0].sd == pytest.approx(2.5 * dental["distance"].std(ddof=0))
    with pytest.raises(SpecificationError, match="one standard deviation"):
        resolve_priors(Priors(sd_b={"time": HalfNormal(1)}), data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(0, -1), "must be positive"),
        (lambda: Normal(0, "wide"), "where a number is needed"),
        (lambda: HalfNormal(float("inf")), "finite"),
        (lambda: Uniform(2, 1), "not below"),
        (lambda: Priors(sd_b=Normal(0, 5)), r"use HalfNormal\(sd\)"),
        (lambda: Priors(sigma=Uniform(-1, 1)), r"use Uniform\(0, upper\)"),
        (lambda: Priors(beta=3.0), "not a prior"),
        (lambda: Priors(beta={"time": 3.0}), "time"),
        (lambda: Priors(corr_b=Normal(0, 1)), "LKJ"),
        (lambda: Priors(beta=LKJ(2)), "not a prior of one number"),
        (lambda: Priors(sigma={"sigma": HalfNormal(1)}), "one prior"),
    ],
)
def test_bad_priors_are_refused(make, message):
    with pytest.raises(SpecificationError, match=message) as caught:
        make()
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (Priors(beta={"tme": Normal(0, 1)}), "Did you mean 'time'"),
        (Priors(beta={"Intercept": Normal(0, 1)}), r"Priors\(intercept="),
        (Priors(sd_b={"Intercpt": HalfNormal(1)}), "Did you mean 'Intercept'"),
        ("bamby", "Did you mean 'bambi'"),
        (3, "not a set of priors"),
    ],
)
def test_names_are_checked_against_the_model(dental_design, priors, message):
    with pytest.raises(SpecificationError, match=message):
        resolve_priors(priors, dental_design)


def test_priors_for_what_the_model_lacks(dental):
    with pytest.raises(SpecificationError, match="not correlated"):
        resolve_priors(Priors(corr_b=LKJ(2)), design("distance ~ time + (1 | subject)", dental))
    with pytest.raises(SpecificationError, match="no fixed intercept"):
        resolve_priors(Priors(intercept=Normal(0, 1)), design("distance ~ 0 + sex + (1 | subject)", dental))


@pytest.mark.parametrize("priors", [None, "bambi"])
@pytest.mark.parametrize("value", [3.0, 0.1, 1e8 / 3])
def test_a_constant_response_gives_no_scale(sleepstudy, priors, value):
    constant = sleepstudy.assign(reaction=value)
    with pytest.raises(SpecificationError, match="a constant needs no model"):
        resolve_priors(priors, design("reaction ~ days + (days | subject)", constant))
