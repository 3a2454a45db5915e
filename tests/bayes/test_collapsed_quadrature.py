"""Samplers of the one-way layout against quadrature."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr

from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.distributions import (
    HalfNormal,
    HalfStudentT,
    Normal,
)
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.fit.make import fit_of

TAILS = (0.05, 0.5, 0.95)


def root(function, value, lower, upper):
    return brentq(lambda x: float(function(x)) - value, lower, upper, xtol=1e-11)


class OneWay:
    """Posterior of y_ij = β + b_i + e_ij, balanced, by quadrature over (log sd, log σ).

    With n rows for each of J subjects, V + s₀² 11' has the eigenvalues σ² (J(n - 1) times), d = σ² + n sd²
    (J - 1 times) and e = d + N s₀² (once), so that with SSW, SSB the sums of squares within and between subjects

        log p(y | θ) = -½ [N log 2π + J(n-1) log σ² + (J-1) log d + log e + SSW/σ² + SSB/d + N (ȳ - m₀)²/e].
    """

    def __init__(self, y, priors, points, sigma=(15.0, 500.0)):
        self.J, self.n = y.shape
        self.N, self.mean, self.by_subject = y.size, y.mean(), y.mean(axis=1)
        self.within = np.sum((y - self.by_subject[:, None]) ** 2)
        self.between = self.n * np.sum((self.by_subject - self.mean) ** 2)
        self.priors, self.m0, self.s0 = priors, priors.beta[0].mean, priors.beta[0].sd
        self.x = np.linspace(np.log(1e-7), np.log(1e6), points[0])
        self.z = np.linspace(*np.log(sigma), points[1])
        X, Z = np.meshgrid(self.x, self.z, indexing="ij")
        log_density = self.log_density(X, Z)
        self.weight = np.exp(log_density - logsumexp(log_density))
        # Neither end of the grid carries mass: the trapezoid rule is then exact to rounding once it is fine enough.
        assert max(self.weight[-1].sum(), self.weight[:, 0].sum(), self.weight[:, -1].sum()) < 1e-12
        assert self.weight[0].sum() < 1e-8
        self.sd, self.sigma = np.exp(X), np.exp(Z)
        d = self.sigma**2 + self.n * self.sd**2
        precision = 1 / self.s0**2 + self.N / d
        self.beta = (self.m0 / self.s0**2 + self.N * self.mean / d) / precision, 1 / precision
        shrink = self.n * self.sd**2 / d
        b_var = self.sd**2 * self.sigma**2 / d + shrink**2 / precision
        self.b = [(shrink * (m - self.beta[0]), b_var) for m in self.by_subject]

    def log_density(self, x, z):
        sd, sigma = np.exp(x), np.exp(z)
        d = sigma**2 + self.n * sd**2
        e = d + self.N * self.s0**2
        value = self.N * np.log(2 * np.pi) + self.J * (self.n - 1) * 2 * z + (self.J - 1) * np.log(d) + np.log(e)
        value += self.within / sigma**2 + self.between / d + self.N * (self.mean - self.m0) ** 2 / e
        return -0.5 * value + self.priors.sd_b[0].logpdf(sd) + x + self.priors.sigma.logpdf(sigma) + z

    def parameter(self, values, grid, axis):
        """Mean, SD and 5, 50, 95 % quantiles of exp(grid)."""
        mean = np.sum(self.weight * values)
        sd = np.sqrt(np.sum(self.weight * (values - mean) ** 2))
        density = self.weight.sum(axis=axis) / (grid[1] - grid[0])
        cumulative = make_interp_spline(grid, density, k=5).antiderivative()
        total = cumulative(grid[-1])
        quantiles = [np.exp(root(cumulative, a * total, grid[0], grid[-1])) for a in TAILS]
        return np.array([mean, sd, *quantiles])

    def mixture(self, mean, variance):
        """The same for a quantity that is normal given (sd, σ)."""
        m = np.sum(self.weight * mean)
        sd = np.sqrt(np.sum(self.weight * (variance + (mean - m) ** 2)))
        keep = self.weight > 1e-13
        w, centre, scale = self.weight[keep], mean[keep], np.sqrt(variance[keep])
        ends = m - 15 * sd, m + 15 * sd
        quantiles = [root(lambda x: np.sum(w * ndtr((x - centre) / scale)), a * w.sum(), *ends) for a in TAILS]
        return np.array([m, sd, *quantiles])

    def table(self):
        """Rows sd_b, σ, β, first and fifth b; columns mean, SD, 5, 50, 95 % quantile."""
        return np.array(
            [
                self.parameter(self.sd, self.x, 1),
                self.parameter(self.sigma, self.z, 0),
                self.mixture(*self.beta),
                self.mixture(*self.b[0]),
                self.mixture(*self.b[4]),
            ]
        )


QUADRATURE_PRIORS = Priors(intercept=Normal(1480, 40), sd_b=HalfStudentT(3, 40), sigma=HalfNormal(60))


@pytest.fixture(scope="module")
def dyestuff_design():
    from hierlmm.datasets import load_dataset

    return design_from_formula(parse_formula("`yield` ~ 1 + (1 | batch)"), load_dataset("dyestuff"))


@pytest.fixture(scope="module")
def one_way(dyestuff_design):
    y = dyestuff_design.y[np.argsort(dyestuff_design.subject_index, kind="stable")].reshape(6, 5)
    priors = resolve_priors(QUADRATURE_PRIORS, dyestuff_design)
    coarse, fine = (OneWay(y, priors, points) for points in ((700, 100), (1400, 200)))
    np.testing.assert_allclose(fine.table(), coarse.table(), rtol=1e-7)
    return fine


def against_quadrature(fit, table):
    """Differences from quadrature in Monte-Carlo standard errors, quantities × (mean, SD, quantiles)."""
    draws = [fit.draws("sd_b")[..., 0], fit.draws("sigma"), fit.draws("beta")[..., 0]]
    draws += [fit.draws("b")[..., 0, 0], fit.draws("b")[..., 4, 0]]
    out = []
    for x, exact in zip(draws, table, strict=True):
        found = [x.mean(), x.std(), *np.quantile(x, TAILS)]
        error = [az.mcse(x, method="mean"), az.mcse(x, method="sd")]
        error += [az.mcse(x, method="quantile", prob=a) for a in TAILS]
        out.append((np.array(found) - exact) / np.array(error, dtype=float))
    return np.array(out)


def test_density_equals_the_one_way_layout_in_closed_form(dyestuff_design, one_way):
    posterior = collapsed_posterior(dyestuff_design, resolve_priors(QUADRATURE_PRIORS, dyestuff_design), signed=False)
    y_scale = posterior.products.scaling.y_scale
    for x, z in ((-8.0, 3.0), (1.0, 4.0), (3.7, 3.9), (6.0, 5.0), (12.0, 4.0)):
        theta = np.array([x, z - np.log(y_scale)])
        assert posterior.log_density(theta)[0] == pytest.approx(float(one_way.log_density(x, z)), rel=1e-11)


def test_collapsed_sampler_agrees_with_quadrature(dyestuff_design, one_way):
    priors = resolve_priors(QUADRATURE_PRIORS, dyestuff_design)
    fit = fit_of(sample_collapsed(dyestuff_design, priors, draws=4000, seed=5, progressbar=False))
    assert np.abs(against_quadrature(fit, one_way.table())).max() < 4
    # The summary of b is not subject to the noise of drawing b: only that of θ is left.
    summary = fit_of(
        sample_collapsed(dyestuff_design, priors, draws=4000, seed=5, progressbar=False, random_effects="summary")
    )
    np.testing.assert_allclose(summary.b.iloc[[0, 4], 0], one_way.table()[3:, 0], atol=0.5)
    np.testing.assert_allclose(summary.b_sd.iloc[[0, 4], 0], one_way.table()[3:, 1], rtol=0.03)


def test_collapsed_sampler_agrees_with_quadrature_at_the_boundary():
    """Constructed data (Box & Tiao 1973) whose between-batch variance is estimated as zero; default priors."""
    from hierlmm.datasets import load_dataset

    design = design_from_formula(parse_formula("`yield` ~ 1 + (1 | batch)"), load_dataset("dyestuff2"))
    priors = resolve_priors(None, design)
    exact = OneWay(design.y.reshape(6, 5), priors, (1400, 200), sigma=(0.8, 40.0)).table()
    fit = fit_of(sample_collapsed(design, priors, draws=4000, seed=7, progressbar=False))
    assert np.abs(against_quadrature(fit, exact)).max() < 4


def test_explicit_sampler_agrees_with_quadrature(dyestuff_design, one_way):
    priors = resolve_priors(QUADRATURE_PRIORS, dyestuff_design)
    fit = fit_of(sample_explicit(dyestuff_design, priors, draws=2000, seed=6, progressbar=False, target_accept=0.95))
    assert np.abs(against_quadrature(fit, one_way.table())).max() < 4
