"""What is said of generalised fits: separation of categories, overdispersion, a scale that vanishes."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hierlmm as hl
from hierlmm.bayes.family_misfit import misfit
from hierlmm.likelihood.estimate import singular_message
from hierlmm.likelihood.generalised_checks import separating_direction, without_residuals

SUBJECTS, ROWS = 20, 5
G = np.repeat(np.arange(SUBJECTS), ROWS)


def fit(y, family, x, g=G, **options):
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, family=family, **options).fit_ml()


def told(own, start):
    return [message for message in own.warnings if message.startswith(start)]


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_categories_that_are_told_apart(link):
    x = np.random.default_rng(0).normal(size=len(G))
    own = fit(np.digitize(x, [-0.5, 0.5]), hl.families.Ordinal(link=link), x)
    (message,) = told(own, "Separation")
    assert "'x'" in message
    assert np.all(np.isnan(own.beta_se))


def test_categories_that_overlap_are_not():
    x = np.random.default_rng(0).normal(size=len(G))
    y = np.digitize(x, [-0.5, 0.5])
    data = pd.DataFrame({"y": y, "x": x, "g": G})
    design = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, family="ordinal").design
    direction = separating_direction(design)
    assert direction[1] > 0.0
    middle, high = np.flatnonzero(y == 1), np.flatnonzero(y == 2)
    data.loc[middle[np.argmax(x[middle])], "y"] = 2
    data.loc[high[np.argmin(x[high])], "y"] = 1
    design = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, family="ordinal").design
    assert separating_direction(design) is None


def test_separation_of_yes_and_no_with_the_complementary_log_log():
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=len(G))
        assert told(fit((x > 0).astype(int), hl.families.Bernoulli(link="cloglog"), x), "Separation")


def rare(seed, subjects=60, rows=20, mean=0.02):
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(subjects), rows), 2.0 * rng.normal(size=subjects * rows)
    eta = np.log(mean) + x + 0.5 * rng.normal(size=subjects)[g]
    return rng, g, x, np.exp(eta)


def test_rare_counts_are_not_overdispersed():
    for seed in (12, 20, 37):  # a χ² distribution called these overdispersed
        rng, g, x, mu = rare(seed)
        assert not told(fit(rng.poisson(mu), "poisson", x, g), "Overdispersion")


def test_overdispersed_counts_are():
    for seed in range(3):
        rng, g, x, mu = rare(seed, rows=10, mean=1.0)
        (message,) = told(fit(rng.poisson(mu * rng.gamma(1.0, 1.0, len(mu))), "poisson", x, g), "Overdispersion")
        assert "Standard errors are too small" in message


def test_a_scale_that_vanishes():
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=40), rng.normal(size=8)[G[:40]]
    assert "on a line exactly" in told(fit(1 + 2 * x + b, "student_t", x, G[:40]), "No maximum")[0]
    rounded = pd.DataFrame({"y": np.round(x + b + 0.3 * rng.standard_t(3, 40)), "g": G[:40]})
    design = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", rounded, family="student_t").design
    assert "equal to another" in without_residuals(design, 1e-3)
    assert without_residuals(design, 0.3) is None


def test_one_random_effect_is_not_dependent_on_itself():
    x = np.random.default_rng(1).normal(size=len(G))
    record = fit(np.random.default_rng(3).poisson(2.0, len(G)), "poisson", x).record
    small = replace(record.optimum, lam=np.array([2e-3, *record.optimum.lam[1:]]))
    assert "no variation in Intercept" in singular_message(record.design, record.criterion, small)


def test_a_posterior_says_what_a_likelihood_says_of_the_family():
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(30), 5)
    mean = np.exp(1.0 + 0.4 * rng.normal(size=30)[who])
    cases = {"poisson": rng.poisson(mean), "wide": rng.poisson(mean * rng.gamma(0.5, 2.0, 150))}
    for name, y in cases.items():
        data = pd.DataFrame({"who": who, "y": y})
        design = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | who)", data, family="poisson").design
        eta = np.log(mean).reshape(30, 5)[:, 0] - 1.0
        draws = {"beta": np.ones((2, 3, 1)), "b": np.broadcast_to(eta[:, None], (2, 3, 30, 1))}
        found = " ".join(misfit(design, draws, {}))
        for part in ("Posterior standard deviations are too small", "More zeros"):
            assert (part in found) == (name == "wide")
        kept = xr.Dataset({"mean": (("subject", "term"), eta[:, None])})  # random_effects="summary"
        assert " ".join(misfit(design, {"beta": draws["beta"]}, {"random_effects": kept})) == found
        assert misfit(design, {"beta": draws["beta"]}, {}) == ()


def test_a_variance_that_random_effects_share_costs_one_degree_of_freedom():
    rng = np.random.default_rng(2)
    who, x = np.repeat(np.arange(30), 5), rng.normal(size=150)
    data = pd.DataFrame({"who": who, "x": x, "y": rng.poisson(np.exp(1.0) * rng.gamma(0.5, 2.0, 150))})
    model = hl.TwoLevelModel.from_formula("y ~ x + (x | who)", data, family="poisson", covariance="identity")
    draws = {"beta": np.broadcast_to([1.0, 0.0], (1, 2, 2)), "b": np.zeros((1, 2, 30, 2))}
    assert f"on {150 - 2 - 1} degrees of freedom" in misfit(model.design, draws, {})[0]
