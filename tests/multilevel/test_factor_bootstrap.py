"""Data drawn from a fit with several factors, and its refits: the bootstrap and what uses it."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import NotAvailableError
from hierlmm.inference.refits import Refitter, simulator

build = hl.MultilevelModel.from_formula
close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def found(nested):
    return nested.bootstrap(120, seed=1, progressbar=False, cores=1)


def test_drawn_responses_have_the_moments_of_the_model(fit, dense):
    draw, rng, n = simulator(fit), np.random.default_rng(5), 3000
    rows = slice(0, 12)
    y = np.array([draw(rng)[rows] for _ in range(n)])
    mean, V = (dense.X @ dense.beta)[rows], dense.V[rows, rows]
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / n)  # of a covariance of normal variables
    assert np.all(np.abs(np.cov(y.T) - V) < 5.0 * error)
    assert np.all(np.abs(y.mean(axis=0) - mean) < 5.0 * np.sqrt(np.diag(V) / n))


@pytest.mark.parametrize("formula", ["(1 | batch / cask)", "(1 | batch) + (1 | cask)"])
def test_a_refit_is_the_fit_of_the_new_response(formula, pastes):
    """From every start, one with a variance of zero among them (the casks a, b, c have nothing in common)."""
    fit = build(f"strength ~ 1 + {formula}", pastes).fit_reml()
    refitter, draw, rng = Refitter(fit), simulator(fit), np.random.default_rng(2)
    for _ in range(3):
        y = draw(rng)
        again = refitter.to_response(y)
        new = build(f"strength ~ 1 + {formula}", pastes.assign(strength=y)).fit_reml()
        assert again.criterion == pytest.approx(new.criterion, abs=1e-7)
        close(again.beta, new.beta, rtol=1e-6)
        for name in new.D:
            close(again.D[name], new.D[name], rtol=1e-3, atol=1e-6)


def test_estimates_vary_as_their_standard_errors_say(nested, found):
    """In this balanced design: β̂ is the mean of all, and σ̂² has 30 degrees of freedom, unless others are at zero."""
    table = found.table()
    errors = {"Intercept": nested.beta_se.iloc[0], "sigma": nested.sigma / np.sqrt(60.0)}
    errors["sd(Intercept | batch:cask)"] = nested.variance_components().loc["sd(Intercept | batch:cask)", "se"]
    for name, expected in errors.items():
        assert table.loc[name, "se"] == pytest.approx(expected, rel=4.0 / np.sqrt(2 * 120)), name
    assert abs(table.loc["Intercept", "bias"]) < 4.0 * nested.beta_se.iloc[0] / np.sqrt(120)
    assert found.singular > 0 and not found.failures
    assert table.loc["sd(Intercept | batch)", "lower"] == 0.0


def test_a_bootstrap_says_what_was_drawn_and_is_the_same_again(nested, found):
    said = " ".join(repr(found).split())
    assert "for new groups of batch:cask and batch with the covariates of those in the data" in said
    assert nested.bootstrap(5, seed=1, progressbar=False).draws.equals(found.draws.iloc[:5])
    with pytest.raises(NotAvailableError, match="no subjects can be drawn"):
        nested.bootstrap(5, kind="subject")
    ratio = nested.bootstrap(3, statistic=lambda fit: fit.icc["batch"], seed=1, progressbar=False)
    assert np.isfinite(ratio.draws["statistic"]).all()


def test_shares_and_tests_by_simulation(nested, pastes):
    shares = nested.intraclass_correlation(method="bootstrap", n=30, seed=1).table
    assert (shares["lower"] <= shares["estimate"]).all() and (shares["estimate"] <= shares["upper"]).all()
    one = build("strength ~ 1 + (1 | batch:cask)", pastes).fit_reml()
    tests = hl.anova(one, nested, test="bootstrap", n=60, seed=1)
    assert "with many groups" in " ".join(repr(tests).split())
    row = tests.table.iloc[1]
    assert row["p_bootstrap"] == pytest.approx(row["p_mixture"], abs=4.0 * np.sqrt(0.21 * 0.79 / 60))
