"""Links that do not keep means inside their range (identity, inverse, log of a probability): what has a maximum finds
it, what has none says so, and compiled code raises nothing on the way."""

import sys

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.compiled import compiled_callback
from hierlmm.families.family import OF_ROW
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised import fixed_start
from hierlmm.likelihood.generalised_criterion import generalised_criterion

G = np.repeat(np.arange(30), 10)
X = np.tile(np.linspace(-1.5, 1.5, 10), 30)


def study(family, intercept, slope, sd, psi, *, seed, low, high):
    rng = np.random.default_rng(seed)
    b, c = rng.normal(size=(2, 30))[:, G] * sd
    eta = np.clip(intercept + slope * X + b + 0.3 * c * X, low, high)
    mu = eta if family.name == "ordinal" else family.mean(eta)
    return pd.DataFrame({"g": G, "x": X, "y": family.draw(rng, mu, np.asarray(psi), np.ones(300))})


def fit_of(family, data, formula="y ~ x + (1 | g)", **options):
    return hl.TwoLevelModel.from_formula(formula, data, family=family).fit_ml(**options)


def test_modes_of_other_parameters_may_be_out_of_range_at_these():
    """Inverse link, random effects near its end: the search took modes along to where they had no density."""
    family = hl.families.Gamma(link="inverse")
    data = study(family, 1.0, 0.2, 0.4, np.log([2.0]), seed=0, low=0.02, high=1e3)
    # R: glmmTMB(y ~ x + (1 | g), d, family = Gamma("inverse"))
    fit = fit_of(family, data)
    assert fit.converged
    assert fit.loglik == pytest.approx(-367.5432, abs=1e-4)
    np.testing.assert_allclose(fit.beta, [0.9111, 0.1176], atol=1e-4)


@pytest.mark.parametrize(
    ("family", "truth", "low", "high"),
    [
        (hl.families.Poisson(link="identity"), (1.5, 0.3, 0.6), 0.02, 1e3),
        (hl.families.Bernoulli(link="identity"), (0.3, 0.1, 0.15), 0.02, 0.98),
        (hl.families.Bernoulli(link="log"), (-0.7, 0.2, 0.3), -6.0, -0.02),
    ],
    ids=str,
)
def test_a_likelihood_that_rises_up_to_the_edge_says_so(family, truth, low, high):
    data = study(family, *truth, [], seed=3, low=low, high=high)
    with pytest.warns(hl.FitWarning, match="No maximum: the likelihood rises up to parameters"):
        fit = fit_of(family, data)
    assert not fit.converged
    assert np.isfinite(fit.loglik)
    assert fit.optimum.n_evaluations < 3000
    # The slope at the edge is that of a likelihood that goes on rising, and one step further there is none.
    criterion, at = fit.criterion_function, fit.optimum.lam
    gradient = criterion.both(at)[1]
    assert np.abs(gradient).max() > 1.0
    assert criterion(at - 1e-2 * gradient / np.abs(gradient).max()) == np.inf


def test_a_spike_of_the_approximation_is_no_optimum():
    """With the identity link l of gamma responses is not concave; where H is nearly singular Laplace has a spike."""
    rng, family = np.random.default_rng(2), hl.families.Gamma(link="identity")
    b, c = rng.normal(size=30)[G] * 0.7, rng.normal(size=30)[G] * 0.7 * 0.2
    eta = np.clip(4.0 + 0.5 * X + b + c * X, 0.1, 50.0)
    data = pd.DataFrame({"g": G, "x": X, "y": family.draw(rng, eta, np.log([3.0]), 1.0)})
    laplace = fit_of(family, data, "y ~ x + (x | g)")
    better = fit_of(family, data, "y ~ x + (x | g)", n_quadrature=3)
    assert laplace.converged and better.converged
    assert laplace.loglik == pytest.approx(better.loglik, abs=0.5)
    assert laplace.optima["above the best"].min() < -1.0
    assert any("Elsewhere the approximated likelihood is higher" in told for told in laplace.warnings)
    assert not any("Elsewhere" in told for told in better.warnings)


def _divides(y, n, eta, psi, order, d):
    d[0] = y / eta


def test_a_division_by_zero_is_infinite_and_no_exception_lost_in_c(monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    row = [np.ones(1), np.ones(1), np.zeros(1), np.zeros(0)]
    assert rowwise(compiled_callback(OF_ROW, _divides, keep=False), *row, 3)[0, 0] == np.inf
    assert not lost


def test_an_evaluation_does_not_depend_on_the_one_before():
    family = hl.families.Gamma(link="inverse")
    data = study(family, 1.0, 0.2, 0.4, np.log([2.0]), seed=0, low=0.02, high=1e3)
    design = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, family=family).design
    going_on = generalised_criterion(design)
    beta, psi = fixed_start(going_on.rows)
    for size in (0.01, 0.05, 0.1, 0.3, 1.0):
        at = np.concatenate([[size], beta, psi])
        assert going_on(at) == pytest.approx(generalised_criterion(design)(at), rel=1e-12)
