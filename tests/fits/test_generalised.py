"""What a generalised fit answers: predictions, averages, residuals, checks, and what it refuses."""

import math
import re
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hierlmm as hl
from hierlmm.families.family import Family
from hierlmm.families.rows import rowwise


def clustered(seed=4, subjects=40, rows=8):
    """Rows of subjects with a random intercept, as several responses."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(subjects), rows)
    x, f = rng.normal(size=len(g)), rng.choice(list("abc"), len(g))
    eta = 0.3 + 0.7 * rng.normal(size=subjects)[g] + (0.5 + 0.4 * rng.normal(size=subjects)[g]) * x
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "f": f,
            "years": rng.uniform(0.5, 2.0, len(g)),
            "yes": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "wins": rng.binomial(6, 1 / (1 + np.exp(-eta))),
            "n": 6,
            "count": rng.poisson(np.exp(eta)),
            "over": rng.poisson(np.exp(eta) * rng.gamma(1.0, 1.0, len(g))),
            "t": eta + rng.uniform(-1.7, 1.7, len(g)),
        }
    )


@pytest.fixture(scope="module")
def data():
    return clustered()


@pytest.fixture(scope="module")
def poisson(data):
    return hl.TwoLevelModel.from_formula("count ~ x + (x | g)", data, family="poisson").fit_ml()


@pytest.fixture(scope="module")
def probit(data):
    family = hl.families.Bernoulli(link="probit")
    return hl.TwoLevelModel.from_formula("yes ~ x + (1 | g)", data, family=family).fit_ml(n_quadrature=15)


def test_levels_of_prediction(poisson, data):
    design, D = poisson.design, poisson.D.to_numpy()
    eta = design.X @ poisson.beta.to_numpy()
    variance = np.einsum("ia,ab,ib->i", design.Z, D, design.Z)
    own = eta + np.einsum("ij,ij->i", design.Z, poisson.b.to_numpy()[design.subject_index])
    for level, expected in {
        "population": eta,
        "new_subject": eta,
        "subject": own,
        "marginal": eta + variance / 2,
    }.items():
        found = poisson.predict(level=level)["estimate"]
        np.testing.assert_allclose(found, np.exp(expected), rtol=1e-12)
        np.testing.assert_allclose(
            poisson.predict(level=level, scale="link")["estimate"], expected, rtol=1e-10, atol=1e-12
        )
        again = poisson.predict(data.head(4), level=level)["estimate"]
        np.testing.assert_allclose(again, found.head(4), rtol=1e-12)


def test_interval_of_the_population_line(poisson):
    design = poisson.design
    se = np.sqrt(np.einsum("ia,ab,ib->i", design.X, poisson.beta_cov, design.X))
    found = poisson.predict(level="population", interval="confidence")
    np.testing.assert_allclose(found["upper"] / found["estimate"], np.exp(1.959964 * se), rtol=1e-5)
    np.testing.assert_allclose(found["se"], found["estimate"] * se, rtol=1e-5)
    wide = poisson.predict(level="new_subject", interval="confidence")
    extra = np.einsum("ia,ab,ib->i", design.Z, poisson.D, design.Z)
    np.testing.assert_allclose(wide["upper"] / wide["estimate"], np.exp(1.959964 * np.sqrt(se**2 + extra)), rtol=1e-5)


def test_interval_of_a_response_holds_as_many_as_it_says(poisson, data):
    interval = poisson.predict(level="new_subject", interval="prediction", ci=0.9)
    others = clustered(seed=5)
    again = poisson.predict(others, level="new_subject", interval="prediction", ci=0.9)
    inside = (others["count"] >= again["lower"]) & (others["count"] <= again["upper"])
    # Discrete: at least what was asked. A subject's rows hang together: 40 subjects, at worst one row's worth each.
    assert inside.mean() > 0.9 - 3 * np.sqrt(0.09 / 40)
    assert (interval["lower"] == interval["lower"].round()).all()


def test_averaged_coefficients_of_probit_are_attenuated_exactly(probit):
    found = probit.marginal_coefficients().table
    expected = probit.beta / np.sqrt(1 + probit.D.iloc[0, 0])
    np.testing.assert_allclose(found["estimate"], expected, rtol=1e-10)
    # Delta method on β / √(1 + D), from the covariance of both.
    record = probit.record
    _, cov = record.delta(lambda at: record.at(at).beta / np.sqrt(1 + record.at(at).D[0, 0]))
    np.testing.assert_allclose(found["se"], np.sqrt(np.diag(cov)), rtol=1e-5)
    assert "closer to zero" in str(probit.marginal_coefficients())


@pytest.mark.parametrize("link", ["logit", "cloglog"])
def test_means_over_subjects_are_integrals(data, link):
    fit = hl.TwoLevelModel.from_formula("yes ~ x + (1 | g)", data, family=hl.families.Bernoulli(link=link)).fit_ml()
    found = fit.predict(data.head(3), level="marginal")["estimate"].to_numpy()
    eta = fit.predict(data.head(3), level="population", scale="link")["estimate"].to_numpy()
    b = np.linspace(-12, 12, 20_001)
    sd = float(fit.sd_b.iloc[0])
    expected = [np.sum(fit.family.mean(e + sd * b) * stats.norm.pdf(b)) * (b[1] - b[0]) for e in eta]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_residuals(poisson, data):
    mu = poisson.fitted().to_numpy()
    y = data["count"].to_numpy()
    np.testing.assert_allclose(poisson.residuals("pearson"), (y - mu) / np.sqrt(mu), rtol=1e-12)
    saturated = stats.poisson.logpmf(y, np.maximum(y, 1e-300))
    expected = np.sign(y - mu) * np.sqrt(2 * (saturated - stats.poisson.logpmf(y, mu)))
    np.testing.assert_allclose(poisson.residuals("deviance"), expected, rtol=1e-9, atol=1e-9)


def test_trials(data):
    both = [
        hl.TwoLevelModel.from_formula("wins ~ x + (1 | g)", data, family="binomial", trials="n").fit_ml(),
        hl.TwoLevelModel.from_formula("p(wins, n) ~ x + (1 | g)", data, family="binomial").fit_ml(),
    ]
    assert both[0].loglik == both[1].loglik
    fit = both[0]
    np.testing.assert_allclose(fit.predict()["estimate"], fit.fitted(), rtol=1e-12)
    np.testing.assert_allclose(fit.predict(data)["estimate"], fit.fitted(), rtol=1e-12)
    np.testing.assert_allclose(6 * fit.predict(data, trials=1)["estimate"], fit.fitted(), rtol=1e-12)
    np.testing.assert_allclose(fit.predict(data, trials=6)["estimate"], fit.fitted(), rtol=1e-12)


def test_exposure_is_an_offset(data):
    one = hl.TwoLevelModel.from_formula("count ~ x + (1 | g)", data, family="poisson", exposure="years").fit_ml()
    two = hl.TwoLevelModel.from_formula("count ~ x + offset(log(years)) + (1 | g)", data, family="poisson").fit_ml()
    assert one.loglik == pytest.approx(two.loglik, abs=1e-10)
    levels = hl.TwoLevelModel(
        "count ~ x", subject="g", data=data, random="Intercept", family="poisson", exposure="years"
    )
    assert levels.fit_ml().loglik == pytest.approx(two.loglik, abs=1e-10)


def test_draws_have_the_estimates_spread(poisson):
    tree = poisson.to_datatree(draws=2000)
    beta = tree["posterior"]["beta"].to_numpy().reshape(-1, 2)
    se = poisson.beta_se.to_numpy()
    assert np.all(np.abs(beta.mean(axis=0) - poisson.beta) < 5 * se / np.sqrt(len(beta)))
    assert np.all(np.abs(beta.std(axis=0) / se - 1) < 5 / np.sqrt(2 * len(beta)))


def test_the_print_names_family_and_success(data):
    data = data.assign(ill=np.where(data["yes"] == 1, "yes", "no"))
    fit = hl.TwoLevelModel.from_formula("ill ~ x + (1 | g)", data, family="bernoulli").fit_ml()
    assert "Family: Bernoulli (logit link); success: ill = 'yes'" in str(fit)
    assert "Laplace approximation" in str(fit)
    assert fit.summary()["p"].between(0, 1).all()


def test_a_separated_column_is_named_and_has_no_standard_error(data):
    data = data.assign(yes=np.where(data["f"] == "c", 1, data["yes"]))
    fit = hl.TwoLevelModel.from_formula("yes ~ x + f + (1 | g)", data, family="bernoulli").fit_ml()
    assert any(w.startswith("Separation: 'f[T.c]'") for w in fit.warnings)
    summary = fit.summary()
    assert np.isnan(summary.loc["f[T.c]", "se"])
    assert summary.drop(index="f[T.c]").notna().all(axis=None)


def test_overdispersion_and_zeros_are_told(data, poisson):
    fit = hl.TwoLevelModel.from_formula("over ~ x + (x | g)", data, family="poisson").fit_ml()
    assert any("Overdispersion" in w for w in fit.warnings)
    assert any("More zeros" in w for w in fit.warnings)
    assert not poisson.warnings
    other = hl.TwoLevelModel.from_formula("over ~ x + (x | g)", data, family="negative_binomial").fit_ml()
    assert not other.warnings
    assert other.aic < fit.aic


def test_a_dispersion_at_the_end_of_its_range_is_told(data):
    fit = hl.TwoLevelModel.from_formula("t ~ x + (1 | g)", data, family="student_t").fit_ml()
    assert any("degrees of freedom nu" in w for w in fit.warnings)
    assert np.isnan(fit.variance_components().loc["nu", "se"])
    gaussian = hl.TwoLevelModel.from_formula("t ~ x + (1 | g)", data).fit_ml()
    assert fit.loglik == pytest.approx(gaussian.loglik, abs=1e-4)
    np.testing.assert_allclose(fit.beta_se, gaussian.beta_se, rtol=0.02)


def test_no_variance_is_a_boundary_and_said(data):
    # Every subject has the same counts: less variation between subjects than chance makes.
    data = data.assign(flat=np.tile([0, 1, 2, 3, 4, 1, 2, 3], 40))
    fit = hl.TwoLevelModel.from_formula("flat ~ 1 + (1 | g)", data, family="poisson").fit_ml()
    assert fit.converged
    assert fit.is_singular
    assert fit.sd_b.iloc[0] == 0
    assert any("no variation in Intercept" in w for w in fit.warnings)
    assert fit.beta["Intercept"] == pytest.approx(np.log(2.0), abs=1e-9)
    assert fit.beta_se["Intercept"] == pytest.approx(1 / np.sqrt(640), rel=1e-6)
    assert fit.loglik == pytest.approx(stats.poisson.logpmf(data["flat"], 2.0).sum(), abs=1e-9)


@dataclass(frozen=True)
class Geometric(Family):
    """Failures before a success."""

    name: ClassVar[str] = "geometric"
    links: ClassVar[tuple] = ("log",)

    @staticmethod
    def density(y, n, mu, psi, order, d):
        d[0] = y * math.log(mu) - (y + 1) * math.log1p(mu)
        d[1] = y / mu - (y + 1) / (1 + mu)
        d[2] = -y / mu**2 + (y + 1) / (1 + mu) ** 2
        d[3] = 2 * y / mu**3 - 2 * (y + 1) / (1 + mu) ** 3


@dataclass(frozen=True)
class Wrong(Geometric):
    """Its second derivative has the wrong sign."""

    name: ClassVar[str] = "wrong"

    @staticmethod
    def density(y, n, mu, psi, order, d):
        d[0] = y * math.log(mu) - (y + 1) * math.log1p(mu)
        d[1] = y / mu - (y + 1) / (1 + mu)
        d[2] = -(-y / mu**2 + (y + 1) / (1 + mu) ** 2)
        d[3] = 2 * y / mu**3 - 2 * (y + 1) / (1 + mu) ** 3


def test_a_family_of_ones_own(data):
    own = hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family=Geometric()).fit_ml()
    free = hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family="negative_binomial").fit_ml()
    function = free.criterion_function
    # A geometric response is negative binomial with shape 1.
    at = np.append(own.optimum.lam, 0.0)
    assert function(at) == pytest.approx(own.criterion, abs=1e-8)
    assert np.abs(function.both(at)[1][:-1]).max() < 1e-6
    with pytest.raises(hl.SpecificationError, match="second derivative in η"):
        hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family=Wrong())


def _raises(y, n, mu, psi, order, d):
    if mu > 0.5:
        raise ValueError("too large a mean")


def _no_number(y, n, mu, psi, order, d):
    d[0] = math.sqrt(-mu)


def _without_a_slope(y, n, mu, psi, order, d):
    d[0] = -mu
    d[1] = math.sqrt(-mu)


def _not_compiled(y, n, mu, psi, order, d):
    d[0] = stats.poisson.logpmf(y, mu)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_raises, "it raised ValueError: too large a mean"),
        (_no_number, "its log density there is nan"),
        (_without_a_slope, "first derivative in η is nan"),
        (_not_compiled, "cannot be compiled"),
    ],
)
def test_a_density_that_fails_is_told_before_anything_is_fitted(data, function, words):
    kind = dataclass(frozen=True)(type("Failing", (Family,), {"density": staticmethod(function), "links": ("log",)}))
    with pytest.raises(hl.SpecificationError, match=words) as raised:
        hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family=kind())
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in str(raised.value)


@dataclass(frozen=True)
class Fussy(Geometric):
    """It raises where the search may come along, and nothing is heard of it."""

    name: ClassVar[str] = "fussy"

    @staticmethod
    def density(y, n, mu, psi, order, d):
        if mu > 1e4:
            raise ValueError("too large a mean")
        d[0] = y * math.log(mu) - (y + 1) * math.log1p(mu)
        d[1] = y / mu - (y + 1) / (1 + mu)
        d[2] = -y / mu**2 + (y + 1) / (1 + mu) ** 2
        d[3] = 2 * y / mu**3 - 2 * (y + 1) / (1 + mu) ** 3


def test_what_a_density_raises_later_is_no_density(data, monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    rows = [np.ones(1), np.ones(1), np.log([2e4]), np.zeros(0)]
    assert np.isnan(rowwise(Fussy().derivatives, *rows, 3)).all()
    assert not lost
    fussy, plain = (
        hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family=family).fit_ml()
        for family in (Fussy(), Geometric())
    )
    assert fussy.loglik == pytest.approx(plain.loglik, abs=1e-9)


@pytest.mark.parametrize("rate", [2.0, 3.0])
def test_a_density_of_a_user_is_compiled_anew(rate):
    """One text with another constant in it has the same place, and must not have the same machine code."""
    text = (
        f"def density(y, n, mu, psi, order, d):\n    d[0] = -{rate} * mu\n    d[1] = -{rate}\n    d[2] = d[3] = 0.0\n"
    )
    names = {}
    exec(compile(text, "a_cell.py", "exec"), names)
    kind = dataclass(frozen=True)(type("OfACell", (Family,), {"density": staticmethod(names["density"])}))
    found = rowwise(kind().derivatives, np.ones(1), np.ones(1), np.ones(1), np.zeros(0), 3)
    assert found[0, 0] == -rate


@dataclass(frozen=True)
class Silent(Family):
    """It has no density."""

    name: ClassVar[str] = "silent"


def test_a_family_without_a_density_is_refused(data):
    with pytest.raises(hl.NotAvailableError, match="density"):
        hl.TwoLevelModel.from_formula("over ~ x + (1 | g)", data, family=Silent())


@pytest.mark.parametrize(
    ("formula", "options", "words"),
    [
        ("count ~ x + (1 | g)", {"family": "poison"}, "there is no such family"),
        ("wins ~ x + (1 | g)", {"family": "binomial"}, "without the number of trials"),
        ("count ~ x + (1 | g)", {"family": "poisson", "trials": "n"}, "counts no trials"),
        ("p(wins, n) ~ x + (1 | g)", {"family": "binomial", "trials": "n"}, "said twice"),
        ("yes ~ x + (1 | g)", {"family": "bernoulli", "exposure": "years"}, "needs a log link"),
        ("t ~ x + (1 | g)", {"family": "poisson"}, "negative values"),
        ("count ~ x + (1 | g)", {"family": "poisson", "exposure": "x"}, "not positive"),
        ("count ~ x + (1 | g)", {"family": "poisson", "residual": hl.AR1()}, "its own distribution"),
        ("count ~ x + (1 | g)", {"family": "poisson", "exposure": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_fit_together_is_refused(data, formula, options, words):
    with pytest.raises(hl.HierlmmError, match=words):
        hl.TwoLevelModel.from_formula(formula, data, **options)


def test_what_there_is_not_is_refused(data, poisson):
    model = hl.TwoLevelModel.from_formula("count ~ x + (1 | g)", data, family="poisson")
    with pytest.raises(hl.NotAvailableError, match="REML"):
        model.fit_reml()
    with pytest.raises(hl.SpecificationError, match="n_quadrature=0"):
        model.fit_ml(n_quadrature=0)
    with pytest.raises(hl.SpecificationError, match="integrated out exactly"):
        hl.TwoLevelModel.from_formula("t ~ x + (1 | g)", data).fit_ml(n_quadrature=5)
    for name in ("icc", "loo", "implied_marginal"):
        with pytest.raises(hl.NotAvailableError):
            getattr(poisson, name)()


def test_answers_do_not_depend_on_what_was_asked_before(data):
    model = hl.TwoLevelModel.from_formula("yes ~ x + (x | g)", data, family="bernoulli")
    one, two = model.fit_ml(), model.fit_ml()
    two.criterion_function(two.optimum.lam + 0.3)
    two.predict(interval="confidence")
    assert np.array_equal(one.beta_cov, two.beta_cov)
    assert np.array_equal(one.b, two.b)
    assert np.array_equal(one.b_sd, two.b_sd)
    assert np.array_equal(one.subject_loglik(), two.subject_loglik())


def test_the_way_between_optima_is_drawn(poisson):
    with pytest.raises(hl.NotAvailableError, match="one optimum"):
        poisson.plot_optima()
    best = poisson.optimum
    other = replace(best, lam=0.8 * best.lam, value=poisson.criterion_function(0.8 * best.lam))
    record = replace(poisson.record, optimum=replace(best, others=(other,)))
    assert type(type(poisson)(record).plot_optima(backend="none")).__name__ == "Picture"


@pytest.mark.parametrize("name", ["icc", "intraclass_correlation", "r_squared", "marginal_covariance"])
def test_the_way_out_of_what_a_family_lacks_can_be_gone(poisson, name):
    with pytest.raises(hl.NotAvailableError) as caught:
        getattr(poisson, name)()
    calls = re.findall(r"fit\.(\w+)\(('\w+')?\)", caught.value.remedy)
    assert calls
    for method, argument in calls:
        assert len(getattr(poisson, method)(*([argument.strip("'")] if argument else [])))
