"""Approximate likelihoods against the likelihood itself: dense integration over the random effects by numpy alone."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import poisson, t

import hierlmm as hl
from hierlmm.families.links import carried


def integrated(logpdf, eta, g, sd, width=12.0, points=4001):
    """Log-likelihood with a random intercept: the trapezoidal rule over b, subject by subject."""
    b = sd * np.linspace(-width, width, points)
    prior = -0.5 * (b / sd) ** 2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi) + np.log(b[1] - b[0])
    rows = logpdf(eta[:, None] + b)
    return sum(logsumexp(prior + rows[g == j].sum(axis=0)) for j in np.unique(g))


def rare(seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(500), 5)
    x = rng.normal(size=2500)
    y = rng.binomial(1, expit(np.log(0.01 / 0.99) + 0.5 * x + 0.7 * rng.normal(size=500)[g]))
    return hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", pd.DataFrame({"g": g, "x": x, "y": y}), family="bernoulli")


@pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")
def test_a_false_optimum_of_laplace_is_told_from_the_likelihoods_own():
    model = rare(0)
    fit, fine = model.fit_ml(), model.fit_ml(n_quadrature=25)
    assert fit.loglik == pytest.approx(fine.loglik, abs=1e-6)
    assert fit.beta.to_numpy() == pytest.approx(fine.beta.to_numpy(), abs=1e-5)
    assert any("which the likelihood by quadrature has not" in note for note in fit.warnings)
    assert len(fit.optima) == 2
    assert fit.optima["above the best"].iloc[1] < -10.0


def test_where_laplace_has_only_a_false_optimum_it_says_so():
    model = rare(1)
    with pytest.warns(hl.FitWarning, match="Laplace's method fails here"):
        fit = model.fit_ml()
    design = model.design
    eta = design.X @ fit.beta.to_numpy()
    sign = np.where(design.y == 1, 1.0, -1.0)[:, None]
    there = integrated(lambda e: -np.log1p(np.exp(-sign * e)), eta, design.subject_index, float(fit.sd_b.iloc[0]))
    assert fit.record.departure.loglik == pytest.approx(there - fit.loglik, abs=1.0)
    assert there < fit.loglik - 20.0


@pytest.fixture(scope="module")
def disagreeing():
    """Rows with heavy tails: a subject whose first row is near the population, the others far from it."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), 5)
    x = rng.normal(size=100)
    y = rng.normal(size=20)[g] + x + 0.1 * rng.standard_t(1, 100)
    return hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", pd.DataFrame({"y": y, "x": x, "g": g}), family="student_t")


def test_the_highest_of_several_modes(disagreeing):
    fit = disagreeing.fit_ml(n_quadrature=51)
    design, own = disagreeing.design, fit.dispersion
    eta = design.X @ fit.beta.to_numpy()

    def logpdf(e):
        return t.logpdf((design.y[:, None] - e) / own["sigma"], own["nu"]) - np.log(own["sigma"])

    exact = integrated(logpdf, eta, design.subject_index, float(fit.sd_b.iloc[0]), width=6.0, points=8001)
    assert fit.loglik == pytest.approx(exact, abs=0.02)
    rows = design.subject_index == 19
    far = np.median(design.y[rows] - eta[rows])
    assert fit.b.to_numpy()[19, 0] == pytest.approx(far, abs=0.1)
    assert abs(far) > 1.0


def test_quadrature_says_where_its_points_are_too_few(disagreeing):
    notes = disagreeing.fit_ml(n_quadrature=15).warnings
    assert any("15 points of quadrature are not exact here" in note for note in notes)


@pytest.mark.parametrize("points", [1, 25])
def test_all_or_none(points):
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), 5)
    y = (rng.normal(size=20)[g] > 0).astype(int)
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", pd.DataFrame({"g": g, "y": y}), family="bernoulli")
    with pytest.warns(hl.FitWarning, match="Every g has only successes or only failures"):
        model.fit_ml(n_quadrature=points)


@pytest.fixture(scope="module")
def folded():
    rng = np.random.default_rng(1)
    x, g = np.tile(np.linspace(-2.0, 2.0, 5), 40), np.repeat(np.arange(40), 5)
    y = rng.poisson((0.2 + 0.3 * x + rng.normal(size=40)[g]) ** 2)
    family = hl.families.Poisson(link="sqrt")
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", pd.DataFrame({"g": g, "x": x, "y": y}), family=family)
    fit = model.fit_ml(n_quadrature=51)
    assert any("the mean rises again" in note for note in fit.warnings)
    return fit


def test_a_root_that_folds(folded):
    design = folded.design
    eta, y = design.X @ folded.beta.to_numpy(), design.y[:, None]
    exact = integrated(lambda e: poisson.logpmf(y, e**2), eta, design.subject_index, float(folded.sd_b.iloc[0]))
    assert folded.loglik == pytest.approx(exact, abs=1.0)  # it was off by 7.4
    new = folded.predict(pd.DataFrame({"g": ["n"], "x": [-2.0]}), level="new_subject", interval="confidence")
    assert new["lower"].item() == 0.0
    assert new["estimate"].item() < new["upper"].item()


def test_intervals_through_links_that_are_not_monotone():
    lower, upper = np.array([-1.0, 0.5, -2.0]), np.array([2.0, 3.0, -1.0])
    assert carried(np.square, lower, upper).T.tolist() == [[0.0, 4.0], [0.25, 9.0], [1.0, 4.0]]
    inverse = carried(np.reciprocal, lower, upper).T
    assert np.isnan(inverse[0]).all()
    assert inverse[1:] == pytest.approx(np.array([[1 / 3, 2.0], [-1.0, -0.5]]))


def test_no_mean_of_a_reciprocal_across_zero():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(25), 5)
    y = rng.gamma(4.0, np.exp(1.0 + rng.normal(size=25)[g]) / 4.0)
    family = hl.families.Gamma(link="inverse")
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", pd.DataFrame({"g": g, "y": y}), family=family)
    fit = model.fit_ml()
    assert any("With the inverse link" in note for note in fit.warnings)
    with pytest.raises(hl.HierlmmError, match="does not exist"):
        fit.predict(level="marginal")
