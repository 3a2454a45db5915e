"""The collapsed posterior against dense matrices, quadrature, REML and the explicit sampler."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
from differences import relative_central
from draws import check_moments
from priors_by_definition import as_written, natural, prior_of_beta, prior_of_theta
from samples import random_design
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr
from textbook import dense_fit, marginal_covariance

from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.distributions import (
    LKJ,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    Normal,
)
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.recover import draw_random_effects, recover_beta, summarise_random_effects
from hierlmm.bayes.sample import sample_explicit
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.covariance.random import random_covariance
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.criterion import Criterion

# --- the density, written down a second time -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def irregular():
    """Fourteen subjects with one to six rows at times of their own; covariates far from zero; an offset."""
    rng = np.random.default_rng(11)
    counts = np.array([1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6])
    subject = np.repeat(np.arange(14), counts)
    n = len(subject)
    frame = pd.DataFrame({"subject": subject, "t": rng.normal(8, 2, n), "u": rng.normal(-3, 0.5, n)})
    frame["group"] = np.array(["a", "b", "c"])[subject % 3]
    frame["w"] = rng.normal(size=14)[subject]
    frame["start"] = rng.normal(100, 5, n)
    b = rng.normal(size=(14, 2)) @ np.array([[6.0, 0.0], [1.0, 1.5]])
    frame["y"] = 40 + 3 * frame["t"] + b[subject, 0] + b[subject, 1] * frame["t"] + rng.normal(0, 4, n)
    return frame


POSITIVE = (HalfNormal(3.0), HalfStudentT(4.0, 2.0), HalfCauchy(1.5), Exponential(2.0), Gamma(2.5, 0.4))
CASES = {
    "intercept": ("y ~ 1 + (1 | subject)", None, None),
    "p = 6": ("y ~ group * t + (1 | subject)", None, None),
    "slope": ("y ~ group + t + (1 + t | subject)", None, None),
    "three effects": ("y ~ t + u + w + (1 + t + u | subject)", None, None),
    "diagonal": ("y ~ t + u + (1 + t + u || subject)", None, None),
    "identity": ("y ~ t + (1 + t | subject)", "identity", None),
    "blocks": ("y ~ t + u + (1 + t | subject) + (0 + u | subject)", None, None),
    "no intercept": ("y ~ 0 + group + t + (1 + t | subject)", None, None),
    "nothing fixed": ("y ~ 0 + (1 + t | subject)", None, None),
    "offset": ("y ~ t + offset(start) + (1 + t | subject)", None, None),
    "slope alone": ("y ~ t + (0 + t | subject)", None, None),
    "bambi": ("y ~ t + (1 + t | subject)", None, "bambi"),
    "chosen": (
        "y ~ t + (1 + t | subject)",
        None,
        Priors(
            intercept=Normal(70, 9), beta={"t": Normal(1, 0.5)}, sd_b={"t": Gamma(3, 2)}, sigma=Exponential(5),
            corr_b=LKJ(0.7),
        ),
    ),
    **{
        f"{prior}": ("y ~ t + (1 + t | subject)", None, Priors(sd_b=prior, sigma=POSITIVE[k - 1], corr_b=LKJ(1.0)))
        for k, prior in enumerate(POSITIVE)
    },
}  # fmt: skip


def make(frame, case):
    formula, covariance, priors = CASES[case]
    design = design_from_formula(parse_formula(formula), frame, covariance=covariance)
    return design, resolve_priors(priors, design)


def dense_log_posterior(design, priors, theta, y_scale):
    """log p(y, θ) with y ~ N(X m, V + X P⁻¹ X'), N × N."""
    sd, corr, sigma, _ = natural(design, theta, y_scale)
    V = marginal_covariance(design, as_written(design, priors, corr * np.outer(sd, sd)), sigma)
    mean = design.offset.copy()
    if design.coef:
        m, covariance = prior_of_beta(design, priors)
        mean += design.X @ m
        V = V + design.X @ covariance @ design.X.T
    L = np.linalg.cholesky(V)
    z = np.linalg.solve(L, design.y - mean)
    loglik = -0.5 * (z @ z + design.n_obs * np.log(2 * np.pi)) - np.log(np.diag(L)).sum()
    return loglik + prior_of_theta(design, priors, theta, y_scale)


def random_points(posterior, n, seed=0):
    """Points around the mode, and wild ones: standard deviations over orders of magnitude, |correlation| up to 0.99."""
    rng = np.random.default_rng(seed)
    near = posterior.mode + rng.normal(scale=0.5, size=(n, len(posterior.mode)))
    far = posterior.mode + rng.normal(scale=1.5, size=(n, len(posterior.mode)))
    return np.vstack([near, far])


@pytest.mark.parametrize("case", CASES)
def test_signed_standard_deviations_have_the_same_posterior(irregular, case):
    # u and -u share the density of sd = |u| s, so p(u) = p(log sd) s / (2 sd); a sign changes a row of correlations.
    design, priors = make(irregular, case)
    plain = collapsed_posterior(design, priors, signed=False)
    posterior = collapsed_posterior(design, priors, signed=True)
    posterior = replace(posterior, uncentering=np.eye(len(design.term)))  # where the priors are stated
    packed = unpack(posterior.buffer)
    n_sd = len(packed.sd_prior)
    for theta in random_points(posterior, 4):
        sd, factor, _ = posterior.natural(theta[None])
        logs = theta.copy()
        first = [int(np.flatnonzero(packed.sd_index == k)[0]) for k in range(n_sd)]
        logs[:n_sd] = np.log(sd[0][first])
        logs[n_sd:-1] = z_of_factor(factor[0], packed.cpc_index, n_sd, len(theta))
        expected = plain.log_density(logs)[0] - np.sum(np.log(2.0 * np.abs(theta[:n_sd])))
        value, exact = posterior.log_density(theta)
        assert value == pytest.approx(expected, rel=1e-10, abs=1e-8)
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6 * np.abs(exact).max())


def z_of_factor(factor, cpc_index, n_sd, m):
    """Fisher's z of the partial correlations of a factor whose rows may have changed sign."""
    R = factor @ factor.T
    L = np.linalg.cholesky(R)
    z = np.zeros(m - n_sd - 1)
    for i in range(len(L)):
        rest = 1.0
        for j in range(i):
            k = int(cpc_index[i, j])
            if k >= 0:
                c = L[i, j] / rest
                z[k - n_sd] = np.arctanh(c)
                rest *= np.sqrt(1.0 - c**2)
    return z


def test_standard_deviations_that_may_be_zero_are_signed(dental_design, sleepstudy):
    # dental's slopes hardly differ between children, sleepstudy's do.
    slopes = collapsed_posterior(dental_design, resolve_priors(None, dental_design))
    assert list(unpack(slopes.buffer).sd_prior[:, 5] > 0) == [False, True]
    design = design_from_formula(parse_formula("reaction ~ days + (days | subject)"), sleepstudy)
    clear = collapsed_posterior(design, resolve_priors(None, design))
    assert not np.any(unpack(clear.buffer).sd_prior[:, 5])


@pytest.mark.parametrize("case", CASES)
def test_density_equals_a_dense_normal(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    for theta in random_points(posterior, 4):
        expected = dense_log_posterior(design, priors, theta, posterior.products.scaling.y_scale)
        assert posterior.log_density(theta)[0] == pytest.approx(expected, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_gradient_equals_finite_differences(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    for theta in random_points(posterior, 4, seed=1):
        exact = posterior.log_density(theta)[1]
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("structure", ["unstructured", "diagonal", "identity"])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 6), (2, 4), (3, 3), (3, 6)])
def test_density_and_gradient_on_random_designs(q, p, balanced, structure):
    """The balanced ones have one pattern with compressed rows."""
    design = random_design(q * 10 + p, q, p, 40, 4, structure, balanced)
    priors = resolve_priors(None, design)
    posterior = collapsed_posterior(design, priors, signed=False)
    assert posterior.products.n_patterns == (1 if balanced else posterior.products.n_patterns)
    for theta in random_points(posterior, 2, seed=2):
        value, exact = posterior.log_density(theta)
        expected = dense_log_posterior(design, priors, theta, posterior.products.scaling.y_scale)
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-8)
        numeric = relative_central(lambda x: posterior.log_density(x)[0], theta)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("case", ["p = 6", "slope", "three effects", "identity", "no intercept", "offset"])
def test_mode_is_stationary_and_the_root_whitens(irregular, case):
    posterior = collapsed_posterior(*make(irregular, case), signed=False)
    assert np.abs(posterior.log_density(posterior.mode)[1]).max() < 1e-3
    hessian = np.array(
        [
            (posterior.log_density(posterior.mode + e)[1] - posterior.log_density(posterior.mode - e)[1]) / 2e-5
            for e in 1e-5 * np.eye(len(posterior.mode))
        ]
    )
    if np.linalg.eigvalsh(-hessian).min() > 0.05:
        np.testing.assert_allclose(-posterior.root.T @ hessian @ posterior.root, np.eye(len(posterior.mode)), atol=1e-4)


# --- the bridge to REML ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["p = 6", "slope", "three effects", "blocks", "no intercept", "offset"])
def test_flat_prior_limit_is_the_reml_criterion(irregular, case):
    """log p(y | θ) - ½ log|P₀| + ½ p log 2π -> -½ REML criterion, at any D and σ, as the priors of β widen."""
    design, _ = make(irregular, case)
    p = len(design.coef)
    error = []
    for widening in (1e2, 1e3, 1e6):
        wide = Priors(
            intercept=None if design.intercept is None else Normal(60.0, 100.0 * widening),
            beta={c: Normal(0.0, 100.0 * widening) for c in design.coef if c != "Intercept"},
        ).resolve(design)
        posterior = collapsed_posterior(design, wide, signed=False)
        scaling = posterior.products.scaling
        theta = np.random.default_rng(3).normal(scale=0.4, size=len(posterior.mode))
        sd, corr, sigma, _ = natural(design, theta, scaling.y_scale)
        loglik = posterior.log_density(theta)[0] - prior_of_theta(design, wide, theta, scaling.y_scale)
        log_det_precision = np.linalg.slogdet(wide.beta_normal()[1])[1]
        flat = loglik - 0.5 * log_det_precision + 0.5 * p * np.log(2 * np.pi)
        D = as_written(design, wide, corr * np.outer(sd, sd))
        reml = dense_fit(design, D, sigma, reml=True)[0]
        error.append(abs(flat + 0.5 * reml))
    assert error[1] == pytest.approx(error[0] / 100, rel=0.02)  # the limit is approached as the prior precision
    assert error[2] < 1e-8 * abs(reml)

    # And the same number from the function that fit_reml() minimises, with σ not profiled out.
    structure = random_covariance(design.covariance, design.blocks)
    criterion = Criterion(posterior.products, structure, reml=True)
    lam = structure.parameters(scaling.Bz @ D @ scaling.Bz.T / sigma**2)
    assert criterion.joint(np.append(lam, theta[-1]))[0] == pytest.approx(-2 * flat, rel=1e-9)


# --- quadrature ------------------------------------------------------------------------------------------------------


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


# --- β and b after θ -------------------------------------------------------------------------------------------------


def dense_recovery(design, priors, D, sigma):
    """β | y, θ and b | y, θ (mean, covariance), and the gain and residual that make b | y, β, θ."""
    Vinv = np.linalg.inv(marginal_covariance(design, D, sigma))
    m, S = prior_of_beta(design, priors)
    y = design.y - design.offset
    covariance = np.linalg.inv(np.linalg.inv(S) + design.X.T @ Vinv @ design.X)
    beta = covariance @ (np.linalg.solve(S, m) + design.X.T @ Vinv @ y)
    J, q = design.n_subjects, len(design.term)
    mean, var, gain = np.empty((J, q)), np.empty((J, q, q)), []
    for j in range(J):
        rows = design.subject_index == j
        G = D @ design.Z[rows].T @ Vinv[np.ix_(rows, rows)]
        gain.append(G)
        mean[j] = G @ (y[rows] - design.X[rows] @ beta)
        K = G @ design.X[rows]
        var[j] = D - G @ design.Z[rows] @ D + K @ covariance @ K.T
    return beta, covariance, mean, var, gain


RECOVERY = ["intercept", "slope", "three effects", "identity", "blocks", "no intercept", "offset", "chosen"]


@pytest.mark.parametrize("case", RECOVERY)
def test_draws_of_beta_and_b_have_the_exact_conditional_distribution(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    theta = random_points(posterior, 1, seed=4)[0]
    sd, corr, sigma, _ = natural(design, theta, posterior.products.scaling.y_scale)
    D = as_written(design, priors, corr * np.outer(sd, sd))
    sd = np.sqrt(np.diag(D))
    corr = D / np.outer(sd, sd)
    S, rng = 40_000, np.random.default_rng(9)
    found = recover_beta(posterior, np.tile(theta, (S, 1)), rng)
    np.testing.assert_allclose(found.sd[0], sd, rtol=1e-12)
    np.testing.assert_allclose(found.corr[0], corr, atol=1e-12)
    np.testing.assert_allclose(found.D[-1], corr * np.outer(sd, sd), rtol=1e-10, atol=1e-12)
    assert found.sigma[0] == pytest.approx(sigma, rel=1e-12)
    b = draw_random_effects(posterior, found, rng)
    mean_beta, cov_beta, mean, var, gain = dense_recovery(design, priors, found.D[0], sigma)
    check_moments(found.beta, mean_beta, cov_beta)
    for j in range(design.n_subjects):
        check_moments(b[:, j], mean[j], var[j])
    # Jointly: Cov(b_i, β) = -K_i Cov(β), and given β the draws of b have mean G_i (y_i - X_i β).
    for j in (0, design.n_subjects - 1):
        rows = design.subject_index == j
        residual = (design.y - design.offset)[rows] - found.beta @ design.X[rows].T
        centred = b[:, j] - residual @ gain[j].T
        check_moments(centred, np.zeros(len(sd)), found.D[0] - gain[j] @ design.Z[rows] @ found.D[0])
        scaled = centred / centred.std(axis=0)
        moves = (found.beta - mean_beta) / np.sqrt(np.diag(cov_beta))
        assert np.abs(scaled.T @ moves / S).max() < 5 / np.sqrt(S)
        # One draw tells nothing of the next: (β, b) adds no dependence to that of θ, and b needs no R-hat of its own.
        for values in (scaled, moves):
            assert np.abs(values[1:].T @ values[:-1] / S).max() < 5 / np.sqrt(S)


@pytest.mark.parametrize("case", RECOVERY)
def test_rao_blackwell_summary_equals_the_average_of_dense_conditionals(irregular, case):
    design, priors = make(irregular, case)
    posterior = collapsed_posterior(design, priors, signed=False)
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.4, size=(25, len(posterior.mode)))
    found = recover_beta(posterior, theta, np.random.default_rng(2))
    means, variances = [], []
    for D, sigma in zip(found.D, found.sigma, strict=True):
        _, _, mean, var, _ = dense_recovery(design, priors, D, sigma)
        means.append(mean)
        variances.append(np.einsum("jkk->jk", var))
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sd**2, np.mean(variances, axis=0) + np.var(means, axis=0), rtol=1e-8)


@pytest.mark.parametrize("formula", ["y ~ x + (1 + x | g)", "y ~ x * w + (1 + x | g)", "y ~ w + (1 | g)"])
def test_rao_blackwell_summary_of_balanced_data_is_exact(formula):
    """Where subjects share a design pattern their moments come from shared forms (and pieces of a few alone)."""
    rng = np.random.default_rng(12)
    counts = np.array([4] * 11 + [3] * 2)
    frame = pd.DataFrame({"g": np.repeat(np.arange(13), counts)})
    frame["x"] = np.concatenate([np.arange(float(n)) for n in counts])
    frame["w"] = rng.normal(size=13)[frame["g"]]
    frame["y"] = 5.0 + rng.normal(size=13)[frame["g"]] * (1 + frame["x"]) + rng.normal(size=len(frame))
    design = design_from_formula(parse_formula(formula), frame)
    priors = resolve_priors(None, design)
    posterior = collapsed_posterior(design, priors, signed=False)
    assert np.bincount(posterior.products.pattern).tolist() in ([11, 2], [2, 11])
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.4, size=(25, len(posterior.mode)))
    found = recover_beta(posterior, theta, np.random.default_rng(2))
    each = [dense_recovery(design, priors, D, sigma)[2:4] for D, sigma in zip(found.D, found.sigma, strict=True)]
    means, variances = np.array([m for m, _ in each]), np.array([np.einsum("jkk->jk", v) for _, v in each])
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sd**2, variances.mean(axis=0) + means.var(axis=0), rtol=1e-8)


def test_nothing_fixed_is_recovered_too(irregular):
    design, priors = make(irregular, "nothing fixed")
    posterior = collapsed_posterior(design, priors, signed=False)
    found = recover_beta(posterior, np.tile(posterior.mode, (20_000, 1)), np.random.default_rng(3))
    assert found.beta.shape == (20_000, 0)
    b = draw_random_effects(posterior, found, np.random.default_rng(4))
    *_, blup, covariance = dense_fit(design, found.D[0], found.sigma[0], reml=False)
    for j in range(design.n_subjects):
        check_moments(b[:, j], blup[j], covariance[j])
    mean, sd = summarise_random_effects(posterior, found)
    np.testing.assert_allclose(mean, blup, rtol=1e-8)
    np.testing.assert_allclose(sd, np.sqrt(np.einsum("jkk->jk", covariance)), rtol=1e-8)


# --- the fit, and the routes to it -----------------------------------------------------------------------------------


def test_numpy_and_the_compiled_loop_draw_the_same_random_effects(irregular, monkeypatch):
    from hierlmm.bayes import recover

    design, priors = make(irregular, "slope")
    posterior = collapsed_posterior(design, priors)
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.3, size=(40, len(posterior.mode)))
    natural = recover_beta(posterior, theta, np.random.default_rng(2))
    few = draw_random_effects(posterior, natural, np.random.default_rng(3))
    monkeypatch.setattr(recover, "FEW", 0)
    many = draw_random_effects(posterior, natural, np.random.default_rng(3))
    np.testing.assert_allclose(few, many, rtol=1e-9, atol=1e-9 * np.abs(many).max())
