"""NUTS with residual structures and for marginal models: density, quadrature, PyMC, exact conditionals, refusals."""

from __future__ import annotations

import math
import warnings

import arviz as az
import numpy as np
import pytest
from differences import central
from draws import check_moments, largest_difference
from priors_by_definition import as_written, natural, prior_of_beta, prior_of_theta
from scipy import stats
from scipy.special import expit, logsumexp
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    PAIRS,
    VARIANCES,
    WITH_EFFECTS,
    Damped,
    build,
    second_definition,
)
from textbook import dense_fit, marginal_covariance

import hierlmm as hl
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.distributions import ScaledBeta
from hierlmm.bayes.predictive import posterior_predictive_draws
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.residual_priors import narrowed
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.bayes.structured_kernel import compiled_structured
from hierlmm.covariance.parameters import Decay, Parameter
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.marginal import MarginalModel

QUIET = {"progressbar": False}


# --- the density, written down a second time -------------------------------------------------------------------------


def frozen(prior):
    """The prior as a distribution of scipy."""
    match prior:
        case hl.Uniform(lower=a, upper=b):
            return stats.uniform(a, b - a)
        case ScaledBeta(shape=shape, lower=a, upper=b):
            return stats.beta(shape, shape, a, b - a)
        case hl.LogNormal(median=median, spread=spread):
            return stats.lognorm(spread, scale=median)
        case hl.Normal(mean=mean, sd=sd):
            return stats.norm(mean, sd)
        case hl.StudentT(nu=nu, mean=mean, scale=scale):
            return stats.t(nu, mean, scale)
        case hl.HalfNormal(sd=sd):
            return stats.halfnorm(scale=sd)
        case hl.Gamma(shape=shape, rate=rate):
            return stats.gamma(shape, scale=1 / rate)
    raise AssertionError(prior)


def prior_of_eta(parameters, priors, eta):
    """Log density of η: each prior at the parameter's value, plus the logarithm of the derivative."""
    total = 0.0
    for p, prior, e in zip(parameters, priors, eta, strict=True):
        if isinstance(p, Decay):  # exp(-1 / range) at the log range e, in units
            rate = np.exp(-e) / p.unit
            value, log_slope = np.exp(-rate), np.log(rate) - rate
        elif math.isinf(p.lower):
            value, log_slope = p.unit * e, np.log(p.unit)
        elif math.isinf(p.upper):
            value, log_slope = p.lower + p.unit * np.exp(e), np.log(p.unit) + e
        else:
            width = p.upper - p.lower
            value = p.lower + width * expit(e)
            log_slope = np.log(width) + np.log(expit(e)) + np.log(expit(-e))
        assert value == pytest.approx(p.natural(e), rel=1e-12)
        total += frozen(prior).logpdf(value) + log_slope
    return total


def dense_log_posterior(pair, design, priors, posterior, point):
    """log p(y, θ, η), y ~ N(X m, V + X P⁻¹ X'), N × N."""
    m = posterior.n_theta
    theta, eta = point[:m], point[m:]
    scale = posterior.products.scaling.y_scale
    sd, corr, sigma, _ = natural(design, theta, scale)
    residual = second_definition(pair, design, posterior.rows.report(eta))
    sigma = where_ratio_is_one(design, sigma, residual)
    V = marginal_covariance(design, as_written(design, priors, corr * np.outer(sd, sd)), sigma, residual)
    mean, covariance = prior_of_beta(design, priors)
    V = V + design.X @ covariance @ design.X.T
    L = np.linalg.cholesky(V)
    z = np.linalg.solve(L, design.y - design.X @ mean)
    loglik = -0.5 * (z @ z + design.n_obs * np.log(2 * np.pi)) - np.log(np.diag(L)).sum()
    own = prior_of_eta(posterior.rows.parameters, priors.residual, eta)
    return loglik + prior_of_theta(design, priors, theta, scale) + own


def where_ratio_is_one(design, sd, residual):
    """σ from the SD that is sampled: that of the average row where the variance is a function of a number."""
    centred = design.residual_variance is not None and design.residual_variance.centred
    return sd * np.exp(-0.5 * np.log(np.diag(residual)).mean()) if centred else sd


def by_c_function(posterior, z):
    """Value and gradient of the compiled density in whitened coordinates."""
    import ctypes

    gradient, value = np.empty(len(z)), np.empty(1)
    pointer = ctypes.POINTER(ctypes.c_double)
    packed = posterior.packed
    arguments = [a.ctypes.data_as(pointer) for a in (np.ascontiguousarray(z), gradient, value)]
    status = compiled_structured().ctypes(len(z), *arguments, ctypes.c_void_p(packed.ctypes.data))
    assert status == 0
    return value[0], gradient


def check_density(pair, design, priors, n=2):
    posterior = residual_posterior(design, priors, signed=False)
    rng = np.random.default_rng(1)
    evaluate = posterior.evaluator()
    for scale in (0.3, 0.8)[:n]:
        point = posterior.mode + rng.normal(scale=scale, size=len(posterior.mode))
        value, gradient = posterior.log_density(point)
        if pair[0] == "Damped" and value == -np.inf:  # not every pair of its parameters makes a covariance matrix
            with pytest.raises(np.linalg.LinAlgError):
                dense_log_posterior(pair, design, priors, posterior, point)
            continue
        assert value == pytest.approx(dense_log_posterior(pair, design, priors, posterior, point), rel=1e-9)
        np.testing.assert_allclose(
            gradient, central(lambda p: posterior.log_density(p)[0], point), rtol=1e-5, atol=1e-5
        )
        if posterior.packed is not None:
            z = np.linalg.solve(posterior.root, point - posterior.mode)
            compiled, python = by_c_function(posterior, z), evaluate(z)
            assert compiled[0] == pytest.approx(python[0], rel=1e-10)
            np.testing.assert_allclose(compiled[1], python[1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(posterior.log_density(posterior.mode)[1], 0.0, atol=1e-2)
    return posterior


@IN_NO_ORDER
@pytest.mark.parametrize(("pair", "q"), WITH_EFFECTS)
def test_density_and_gradient_are_those_of_the_definition(thirty, pair, q):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    posterior = check_density(pair, design, resolve_priors(None, design), n=1 if q else 2)
    own = {"Damped"}
    assert (posterior.packed is None) == (pair[0] in own or pair[1] == "VarConstPower")


CHOSEN = [
    (("AR1", "equal"), {"rho": hl.Uniform(0, 1)}, True),
    (("AR1", "equal"), {"rho": ScaledBeta(3.0, -1, 1)}, True),
    (("AR1", "equal"), {"rho": hl.Normal(0.2, 0.3)}, False),
    (("AR1", "equal"), {"rho": hl.HalfNormal(0.5)}, False),
    (("AR1, nugget", "equal"), {"nugget": ScaledBeta(2.0, 0, 1)}, True),
    (("CompoundSymmetry", "equal"), {"rho": hl.Uniform(-0.3, 0.2)}, True),
    (("Exponential", "equal"), {"range": hl.Gamma(2, 1)}, False),
    (("Exponential", "equal"), {"range": hl.LogNormal(0.7, 0.4)}, True),
    (("Exponential", "equal"), {"range": hl.Uniform(0, 3)}, True),
    (("Exponential", "equal"), {"range": hl.Uniform(0.1, 3)}, True),
    (("CAR1", "equal"), {"phi": hl.Uniform(0.1, 0.7)}, False),
    (("CAR1", "equal"), {"phi": ScaledBeta(2.0, 0, 1)}, False),
    (("independent", "VarIdent"), {"ratio(b/a)": hl.LogNormal(1, 0.3), "ratio(c/a)": hl.HalfNormal(2)}, False),
    (("independent", "VarIdent"), {"ratio(b/a)": hl.Uniform(0.5, 3)}, False),
    (("independent", "VarPower"), {"power": hl.Normal(0.5, 0.1)}, True),
    (("independent", "VarExp"), {"rate": hl.StudentT(4, 0, 1)}, False),
]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda c: f"{c[0][0]} {c[0][1]} {next(iter(c[1].values()))}")
def test_density_with_chosen_priors(thirty, case):
    pair, chosen, compiled = case
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1).design
    posterior = check_density(pair, design, resolve_priors(hl.Priors(residual=chosen), design), n=1)
    assert (posterior.packed is not None) == compiled


def test_a_prior_on_a_part_of_the_range_narrows_the_parameter():
    rho = Parameter("rho", -0.5, -1.0, 1.0)
    assert narrowed(rho, hl.Normal(0, 5)) is rho
    assert narrowed(rho, hl.Uniform(-3, 3)) is rho
    part = narrowed(rho, hl.Uniform(0.0, 4.0))
    assert (part.lower, part.upper, part.start) == (0.0, 1.0, 0.5)
    distance = narrowed(Parameter("range", 1.0, 0.0, unit=2.0), hl.Uniform(3, 5))
    assert (distance.lower, distance.upper, distance.start) == (3.0, 5.0, 4.0)
    assert narrowed(Parameter("power", 0.0), hl.HalfNormal(1)).lower == 0.0


def test_draws_of_a_narrowed_parameter_are_on_the_scale_of_the_whole_range(thirty):
    """A wall at 0: nothing diverges, everything is above it, and η says the same as the table."""
    model = build(thirty, hl.AR1("occasion"), None, 0)
    priors = resolve_priors(hl.Priors(residual={"rho": hl.Uniform(0, 1)}), model.design)
    fit = fit_of(sample_collapsed(model.design, priors, draws=500, seed=1, **QUIET))
    rho = fit.draws("residual_correlation")[..., 0]
    assert rho.min() > 0
    assert fit.convergence().divergences == 0
    own = residual_rows(model.design).parameters[0]
    np.testing.assert_allclose([own.natural(e) for e in fit.residual_draws()[0, :, 0]], rho[0], rtol=1e-10)
    # The posterior under Uniform(-1, 1), cut off at 0, is the posterior under Uniform(0, 1).
    whole = fit_of(sample_collapsed(model.design, resolve_priors(None, model.design), draws=4000, seed=2, **QUIET))
    part = whole.draws("residual_correlation").ravel()
    part = part[part > 0]
    error = np.hypot(az.mcse(rho, method="mean"), part.std() / np.sqrt(len(part) / 4))
    assert abs(rho.mean() - part.mean()) < 4 * error


def test_flat_priors_give_the_restricted_likelihood(thirty):
    """Differences of log p(y | θ, η) between points are those of REML when the prior of β is flat."""
    pair = ("AR1, nugget", "VarIdent")
    model = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1)
    design = model.design
    flat = hl.Priors(intercept=hl.Normal(0, 1e5), beta=hl.Normal(0, 1e5))
    priors = resolve_priors(flat, design)
    posterior = residual_posterior(design, priors, signed=False)
    rng, found = np.random.default_rng(0), []
    for _ in range(4):
        point = posterior.mode + rng.normal(scale=0.5, size=len(posterior.mode))
        theta, eta = point[: posterior.n_theta], point[posterior.n_theta :]
        scale = posterior.products.scaling.y_scale
        sd, _, sigma, _ = natural(design, theta, scale)
        residual = second_definition(pair, design, posterior.rows.report(eta))
        reml = dense_fit(design, np.diag(sd**2), sigma, True, residual)[0]
        prior = prior_of_theta(design, priors, theta, scale)
        prior += prior_of_eta(posterior.rows.parameters, priors.residual, eta)
        found.append(posterior.log_density(point)[0] - prior + 0.5 * reml)
    np.testing.assert_allclose(found, found[0], atol=1e-5)


# --- the sampler against quadrature ----------------------------------------------------------------------------------

TAILS = (0.05, 0.5, 0.95)


class Quadrature:
    """Posterior of ``y = Xβ + e``, ``V_i = σ² R(ρ)`` with n rows for each subject, over a grid of (ρ, log σ).

    Given (ρ, σ): H = X'V⁻¹X + P, β | y ~ N(H⁻¹h, H⁻¹), and log p(y | ρ, σ) follows from them.
    """

    def __init__(self, design, priors, matrix, low, points=(300, 200)):
        J, n = design.n_subjects, design.n_obs // design.n_subjects
        order = np.argsort(design.subject_index, kind="stable")
        X, y = design.X[order].reshape(J, n, -1), design.y[order].reshape(J, n)
        m, S = prior_of_beta(design, priors)
        P = np.linalg.inv(S)
        # Midpoints, fine where a bounded density may be steep: u is uniform, ρ its smooth image on (low, 1).
        u = (np.arange(points[0]) + 0.5) / points[0]
        self.rho = low + (1 - low) * u * u * (3 - 2 * u)
        step = (1 - low) * 6 * u * (1 - u)
        self.sigma = np.exp(np.linspace(np.log(0.8), np.log(25.0), points[1]))
        value = np.empty(points)
        p = X.shape[2]
        self.mean, self.var = np.empty((*points, p)), np.empty((*points, p))
        for a, rho in enumerate(self.rho):
            W = np.linalg.inv(matrix(n, rho))
            A, c = np.einsum("jsa,st,jtb->ab", X, W, X), np.einsum("jsa,st,jt->a", X, W, y)
            s, log_det = np.einsum("js,st,jt->", y, W, y), -J * np.linalg.slogdet(W)[1]
            for b, sigma in enumerate(self.sigma):
                H, h = A / sigma**2 + P, c / sigma**2 + P @ m
                inverse = np.linalg.inv(H)
                self.mean[a, b], self.var[a, b] = inverse @ h, np.diag(inverse)
                value[a, b] = -0.5 * (
                    2 * J * n * np.log(sigma) + log_det + np.linalg.slogdet(H)[1] + s / sigma**2 - h @ inverse @ h
                )
        value += np.log(step)[:, None] + np.log(self.sigma) + priors.sigma.logpdf(self.sigma)
        value += frozen(priors.residual[0]).logpdf(self.rho)[:, None]
        self.weight = np.exp(value - logsumexp(value))
        assert max(self.weight[:, 0].sum(), self.weight[:, -1].sum()) < 1e-9

    def table(self):
        """Rows ρ, σ, β; columns mean, SD, 5, 50, 95 % quantile."""
        out = [self._marginal(self.rho, self.weight.sum(axis=1)), self._marginal(self.sigma, self.weight.sum(axis=0))]
        for k in range(self.mean.shape[2]):
            w, mean, sd = self.weight.ravel(), self.mean[..., k].ravel(), np.sqrt(self.var[..., k].ravel())
            centre = w @ mean
            spread = np.sqrt(w @ (sd**2 + (mean - centre) ** 2))
            grid = centre + spread * np.linspace(-6, 6, 400)
            keep = w > 1e-10
            cumulative = [w[keep] @ stats.norm.cdf(x, mean[keep], sd[keep]) for x in grid]
            out.append(np.array([centre, spread, *np.interp(TAILS, cumulative, grid)]))
        return np.array(out)

    @staticmethod
    def _marginal(x, w):
        mean = w @ x
        ends = np.concatenate([[x[0] - (x[1] - x[0]) / 2], (x[1:] + x[:-1]) / 2, [x[-1] + (x[-1] - x[-2]) / 2]])
        quantiles = np.interp(TAILS, np.concatenate([[0], np.cumsum(w)]), ends)
        return np.array([mean, np.sqrt(w @ (x - mean) ** 2), *quantiles])


def equal(n, rho):
    return np.where(np.eye(n, dtype=bool), 1.0, rho)


def autoregressive(n, rho):
    return rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


@pytest.mark.parametrize(
    ("structure", "matrix", "low"),
    [(hl.CompoundSymmetry(), equal, -1 / 3), (hl.AR1(), autoregressive, -1.0)],
    ids=["CompoundSymmetry", "AR1"],
)
def test_sampler_agrees_with_quadrature(dental, structure, matrix, low):
    males = dental[dental["sex"] == "Male"].query("subject in @some", local_dict={"some": males_of(dental)})
    model = MarginalModel("distance ~ time", correlation=structure, subject="subject", data=males)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = model.fit(draws=3000, seed=4, **QUIET)
    assert fit.datatree.attrs["route"] == "compiled"
    table = Quadrature(model.design, model.priors, matrix, low).table()
    draws = [fit.draws("residual_correlation")[..., 0], fit.draws("sigma"), *np.moveaxis(fit.draws("beta"), 2, 0)]
    for x, exact in zip(draws, table, strict=True):
        found = np.array([x.mean(), x.std(), *np.quantile(x, TAILS)])
        error = [az.mcse(x, method="mean"), az.mcse(x, method="sd")]
        error += [az.mcse(x, method="quantile", prob=a) for a in TAILS]
        assert np.abs((found - exact) / np.array(error, dtype=float)).max() < 4


def males_of(dental, n=8):
    return list(dict.fromkeys(dental.loc[dental["sex"] == "Male", "subject"]))[:n]


# --- the sampler against PyMC ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def range_and_intercept(thirty):
    return build(thirty, hl.Exponential("t"), None, 1, "y ~ t")


@pytest.fixture(scope="module")
def fitted(range_and_intercept):
    """A random intercept beside exponential decay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return range_and_intercept.fit(draws=1000, seed=3, **QUIET)


@pytest.fixture(scope="module")
def marginal(thirty):
    """Autoregression with a nugget, and an SD for each group."""
    return build(thirty, hl.AR1("occasion", nugget=True), hl.VarIdent("group"), 0, "y ~ t")


@pytest.fixture(scope="module")
def fitted_marginal(marginal):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return marginal.fit(draws=1000, seed=3, **QUIET)


SERIAL = [
    p
    for p in [*PAIRS, ("AR1", "VarPower"), ("CompoundSymmetry", "VarExp")]
    if p[0].split(",")[0] in ("AR1", "CAR1", "Exponential", "CompoundSymmetry") or p[1] in ("VarPower", "VarExp")
    if p[0] not in ("Toeplitz", "Unstructured")
]


@IN_NO_ORDER
@pytest.mark.parametrize("pair", SERIAL, ids=" + ".join)
@pytest.mark.parametrize("sign", [1, -1])
def test_each_measurement_given_the_earlier_ones(thirty, pair, sign, monkeypatch):
    """What PyMC is given, at fixed parameters: the product of its normal densities is the dense one."""
    import pymc as pm
    import pytensor.tensor as pt

    from hierlmm.bayes import explicit_residual

    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 0).design
    parameters = residual_rows(design).parameters
    eta = sign * np.linspace(0.6, 0.9, len(parameters))
    values = {p.name: p.natural(e) for p, e in zip(parameters, eta, strict=True)}
    monkeypatch.setattr(explicit_residual, "as_pymc_variable", lambda name, *_: pt.constant(values[_[2][0]]))
    mu, sigma = design.X @ [50.0, 1.0, 2.0, 0.5], 3.0
    with pm.Model():
        found = explicit_residual.conditional_moments(
            design, resolve_priors(None, design), pt.constant(mu), pt.constant(sigma)
        )
    mean, sd = (np.asarray(pt.as_tensor(f).eval(mode="FAST_COMPILE")) for f in found)
    residual = second_definition(pair, design, residual_rows(design).report(eta))
    V = where_ratio_is_one(design, sigma, residual) ** 2 * residual
    assert stats.norm(mean, sd).logpdf(design.y).sum() == pytest.approx(
        stats.multivariate_normal(mu, V).logpdf(design.y), rel=1e-9
    )


def test_collapsed_and_explicit_have_one_posterior(range_and_intercept, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        explicit = range_and_intercept.fit(draws=1000, seed=5, sampler="explicit", **QUIET)
    for name in ("beta", "sigma", "residual_correlation", "sd_b", "b"):
        assert largest_difference(fitted, explicit, name) < 4.5, name
        if name != "b":
            assert largest_difference(fitted, explicit, name, "sd") < 4.5, name
    assert list(fitted.variance_components().index) == list(explicit.variance_components().index)
    assert fitted.residual_draws().shape == explicit.residual_draws().shape
    assert largest_difference_of_eta(fitted, explicit) < 4.5


def largest_difference_of_eta(a, b):
    x, y = a.residual_draws(), b.residual_draws()
    errors = [np.array([float(az.mcse(v[..., k], method="mean")) for k in range(v.shape[2])]) for v in (x, y)]
    return float(np.abs((x.mean(axis=(0, 1)) - y.mean(axis=(0, 1))) / np.hypot(*errors)).max())


# --- what follows from draws of (θ, η) -------------------------------------------------------------------------------

RECOVERY = [("AR1, nugget", "VarIdent", 2), ("Unstructured", "VarIdent", 1), ("Exponential", "VarExp", 1)]


@pytest.mark.parametrize("case", RECOVERY, ids=lambda c: f"{c[0]} + {c[1]}, q = {c[2]}")
def test_beta_and_b_have_the_exact_conditional_distribution(thirty, case):
    """One (θ, η) many times: the draws are those of the dense conditional, and the summary is its mean and SD."""
    pair, q = case[:2], case[2]
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    priors = resolve_priors(None, design)
    posterior = residual_posterior(design, priors, signed=False)
    point = posterior.mode + np.random.default_rng(2).normal(scale=0.3, size=len(posterior.mode))
    S = 3000
    found = posterior.conditional(np.tile(point, (S, 1)), np.random.default_rng(3), "draws")
    sd, corr, sigma, _ = natural(design, point[: posterior.n_theta], posterior.products.scaling.y_scale)
    D = as_written(design, priors, corr * np.outer(sd, sd))
    residual = second_definition(pair, design, posterior.rows.report(point[posterior.n_theta :]))
    sigma = where_ratio_is_one(design, sigma, residual)
    Vinv = np.linalg.inv(marginal_covariance(design, D, sigma, residual))
    m, prior = prior_of_beta(design, priors)
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.X.T @ Vinv @ design.X)
    beta = covariance @ (np.linalg.solve(prior, m) + design.X.T @ Vinv @ design.y)
    check_moments(found.natural.beta, beta, covariance)
    few = posterior.conditional(np.tile(point, (3, 1)), np.random.default_rng(3), "summary")
    for j in (0, 7, 13, 29):
        rows = design.subject_index == j
        gain = D @ design.Z[rows].T @ Vinv[np.ix_(rows, rows)]
        mean, K = gain @ (design.y[rows] - design.X[rows] @ beta), gain @ design.X[rows]
        variance = D - gain @ design.Z[rows] @ D + K @ covariance @ K.T
        check_moments(found.b[:, j], mean, variance)
        np.testing.assert_allclose(few.summary[0][j], mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(few.summary[1][j], np.sqrt(np.diag(variance)), rtol=1e-7)
    shown = np.concatenate([part[0] for part in found.reported.values()])
    np.testing.assert_allclose(shown, list(posterior.rows.report(found.eta[0]).values()))


def test_summary_of_random_effects_is_that_of_the_draws(range_and_intercept, fitted):
    summary = fit_of(
        sample_collapsed(
            range_and_intercept.design,
            range_and_intercept.priors,
            draws=1000,
            seed=3,
            random_effects="summary",
            **QUIET,
        )
    )
    draws = fitted.draws("b")[..., 0]
    error = [float(az.mcse(draws[..., j], method="mean")) for j in range(draws.shape[2])]
    assert np.abs((summary.b.to_numpy()[:, 0] - draws.mean(axis=(0, 1))) / error).max() < 4.5
    np.testing.assert_allclose(summary.b_sd.to_numpy()[:, 0], draws.std(axis=(0, 1)), rtol=0.12)
    np.testing.assert_array_equal(summary.draws("sigma"), fitted.draws("sigma"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        none = fit_of(
            sample_collapsed(
                range_and_intercept.design,
                range_and_intercept.priors,
                draws=50,
                chains=2,
                random_effects="none",
                seed=3,
                **QUIET,
            )
        )
    assert "b" not in none.datatree["posterior"]
    with pytest.raises(NotAvailableError, match="random effects"):
        _ = none.b


@pytest.mark.parametrize("pair", [("AR1, nugget", "VarIdent"), ("Toeplitz", "VarPower")], ids=" + ".join)
def test_replicates_have_the_covariance_of_the_model(thirty, pair):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1).design
    rows = residual_rows(design)
    eta = np.array([p.unconstrained(p.start) for p in rows.parameters]) + 0.4
    S, sd, sigma, rng = 4000, 1.3, 0.8, np.random.default_rng(0)
    beta, b = np.tile([50.0, 1.0, 2.0, 0.5], (S, 1)), sd * rng.standard_normal((S, design.n_subjects, 1))
    y = posterior_predictive_draws(design, beta, b, np.full(S, sigma), rng, np.tile(eta, (S, 1)))
    V = marginal_covariance(design, np.array([[sd**2]]), sigma, second_definition(pair, design, rows.report(eta)))
    for j in (0, 5, 13):
        own = np.flatnonzero(design.subject_index == j)
        check_moments(y[:, own], design.X[own] @ beta[0], V[np.ix_(own, own)])


def test_predictive_draws_of_fits(fitted, fitted_marginal):
    for fit in (fitted, fitted_marginal):
        replicated = fit.posterior_predictive(draws=100, seed=1)["posterior_predictive"]["y"]
        assert replicated.shape == (4, 100, fit.n_obs)
        spread = float(replicated.mean()), float(replicated.std())
        assert spread[0] == pytest.approx(fit.design.y.mean(), abs=1.0)
        assert spread[1] == pytest.approx(fit.design.y.std(), rel=0.15)
        prior = fit.prior_predictive(draws=200, seed=1)
        values = prior["prior"]["residual_correlation"].to_numpy()
        assert values.shape == (1, 200, len(fit.residual_estimate.correlation_parameters))
        for k, p in enumerate(residual_rows(fit.design).parameters[: values.shape[2]]):
            assert ((values[..., k] > p.lower) & (values[..., k] < p.upper)).all()
        assert prior["prior_predictive"]["y"].shape == (1, 200, fit.n_obs)


def test_prior_draws_follow_the_priors(thirty):
    chosen = hl.Priors(residual={"rho": hl.Normal(0.8, 0.4), "ratio(b/a)": hl.Gamma(2, 1)})
    model = build(thirty, hl.AR1("occasion"), hl.VarIdent("group"), 0)
    from hierlmm.bayes.predictive import prior_draws

    made = prior_draws(model.design, resolve_priors(chosen, model.design), 4000, np.random.default_rng(0))
    rho = stats.truncnorm((-1 - 0.8) / 0.4, (1 - 0.8) / 0.4, 0.8, 0.4)
    assert stats.kstest(made["residual_correlation"][:, 0], rho.cdf).pvalue > 1e-3
    assert stats.kstest(made["residual_variance"][:, 0], stats.gamma(2).cdf).pvalue > 1e-3
    default = resolve_priors(None, model.design).residual[2]
    assert stats.kstest(made["residual_variance"][:, 1], frozen(default).cdf).pvalue > 1e-3


def test_log_likelihood_of_subjects_is_that_of_dense_normals(fitted, fitted_marginal):
    for fit, pair in ((fitted, ("Exponential", "equal")), (fitted_marginal, ("AR1, nugget", "VarIdent"))):
        design = fit.design
        values = fit.log_likelihood("subject")["log_likelihood"]["y"].to_numpy()
        for chain, draw in ((0, 0), (3, 777)):
            D = fit.draws("D")[chain, draw] if design.term else np.empty((0, 0))
            report = fit.residual_at(fit.residual_draws()[chain, draw]).parameters
            sigma = float(fit.draws("sigma")[chain, draw])
            V = marginal_covariance(design, D, sigma, second_definition(pair, design, report))
            mean = design.X @ fit.draws("beta")[chain, draw]
            for j in (0, 13, 29):
                own = np.flatnonzero(design.subject_index == j)
                expected = stats.multivariate_normal(mean[own], V[np.ix_(own, own)]).logpdf(design.y[own])
                assert values[chain, draw, j] == pytest.approx(expected, rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = fitted.loo()
    assert result.elpd < fitted.log_likelihood("subject")["log_likelihood"]["y"].to_numpy().sum(axis=2).max()


def test_leaving_one_measurement_out_needs_independent_rows(thirty, fitted):
    with pytest.raises(NotAvailableError, match="correlated given all parameters"):
        fitted.loo("observation")
    model = build(thirty, None, hl.VarIdent("group"), 0, "y ~ t")
    fit = fit_of(sample_collapsed(model.design, model.priors, draws=400, seed=1, **QUIET))
    values = fit.log_likelihood("observation")["log_likelihood"]["y"].to_numpy()
    by_subject = fit.log_likelihood("subject")["log_likelihood"]["y"].to_numpy()
    totals = np.stack([values[..., model.design.subject_index == j].sum(axis=-1) for j in range(30)], axis=-1)
    np.testing.assert_allclose(totals, by_subject, rtol=1e-10)


# --- families of one's own, seeds, prints ----------------------------------------------------------------------------


def test_a_structure_of_ones_own_is_sampled(thirty):
    model = build(thirty, Damped("t"), None, 0, "y ~ t")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = model.fit(draws=200, tune=200, chains=2, seed=1, **QUIET)
        ml = model.fit_ml()
    assert fit.datatree.attrs["route"] == "python"
    assert list(fit.variance_components().index) == ["rho", "power", "sigma"]
    assert fit.sigma == pytest.approx(ml.sigma, rel=0.3)
    assert np.abs((fit.beta - ml.beta) / ml.beta_se).max() < 0.5
    with pytest.raises(NotAvailableError, match="Damped"):
        model.fit(sampler="explicit", **QUIET)


def test_seeds(range_and_intercept, fitted):
    design, priors = range_and_intercept.design, range_and_intercept.priors
    again = fit_of(sample_collapsed(design, priors, draws=1000, seed=3, **QUIET))
    other = fit_of(sample_collapsed(design, priors, draws=1000, seed=4, **QUIET))
    for name in ("beta", "b", "sigma", "residual_correlation"):
        np.testing.assert_array_equal(again.draws(name), fitted.draws(name))
        assert not np.array_equal(other.draws(name), fitted.draws(name))


def test_prints(fitted, fitted_marginal):
    text = repr(fitted)
    assert "Exponential" in text and "range" in text and "LogNormal" in text
    text = repr(fitted_marginal)
    assert "Marginal model, posterior by NUTS" in text
    for name in ("rho", "nugget", "ratio(b/a)", "ratio(c/a)"):
        assert name in text and name in fitted_marginal._repr_html_()
    components = fitted_marginal.variance_components()
    assert list(components.index) == ["rho", "nugget", "ratio(b/a)", "ratio(c/a)", "sigma"]
    assert (components["lower"] < components["estimate"]).all() and (components["estimate"] < components["upper"]).all()
    with pytest.raises(NotAvailableError, match="marginal model"):
        _ = fitted_marginal.b


def test_residual_estimate_is_the_structure_at_the_mean_of_eta(fitted_marginal):
    mean = fitted_marginal.residual_draws().mean(axis=(0, 1))
    found = fitted_marginal.residual_estimate
    np.testing.assert_allclose(found.eta, mean)
    subject = fitted_marginal.design.subjects[2]
    rows = np.flatnonzero(fitted_marginal.design.subject_index == 2)
    pair = ("AR1, nugget", "VarIdent")
    sigma = second_definition(pair, fitted_marginal.design, found.parameters)[np.ix_(rows, rows)]
    V = fitted_marginal.marginal_covariance(subject)
    ratio = np.asarray(V) / sigma
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        ({"roh": hl.Uniform(0, 1)}, "Did you mean 'rho'"),
        ({"rho": hl.Uniform(2, 3)}, "no mass between -1 and 1"),
        ({"rho": 0.5}, "not a prior of one number"),
        ({"rho": hl.LKJ(2)}, "not a prior of one number"),
        (hl.Uniform(0, 1), "different ranges"),
    ],
)
def test_bad_priors(dental, residual, message):
    with pytest.raises(SpecificationError, match=message):
        MarginalModel(
            "distance ~ time",
            correlation=hl.AR1(),
            subject="subject",
            data=dental,
            priors=hl.Priors(residual=residual),
        )


def test_priors_of_a_structure_that_the_model_lacks(dental):
    with pytest.raises(SpecificationError, match="no residual parameter of this name"):
        MarginalModel(
            "distance ~ time", subject="subject", data=dental, priors=hl.Priors(residual={"rho": hl.Normal()})
        )


def test_refusals(dental):
    def fit(sampler="auto", priors=None, **structure):
        model = MarginalModel("distance ~ time", subject="subject", data=dental, priors=priors, **structure)
        model.fit(sampler=sampler, draws=10, tune=10, chains=1, **QUIET)

    for variance in (hl.VarPower(), hl.VarExp()):
        with pytest.raises(NotAvailableError, match="fitted value is itself a parameter"):
            fit(variance=variance)
    for correlation in (hl.Unstructured("age"), hl.Toeplitz(), hl.Gaussian("age")):
        with pytest.raises(NotAvailableError, match="written for AR1"):
            fit("explicit", correlation=correlation)
    for prior in (hl.Normal(0, 1), hl.HalfNormal(1), hl.Uniform(-2, 2)):
        with pytest.raises(NotAvailableError, match="cut a prior off"):
            fit("explicit", hl.Priors(residual={"rho": prior}), correlation=hl.AR1())


def test_what_belongs_to_a_maximum_is_refused_with_a_reason(fitted, fitted_marginal):
    for fit in (fitted, fitted_marginal):
        for name in ("criterion", "aic", "bic", "n_parameters", "is_singular"):
            with pytest.raises(NotAvailableError, match=f"{name} of a fit by NUTS"):
                getattr(fit, name)
        for call in (fit.information_criteria, fit.subject_loglik):
            with pytest.raises(NotAvailableError, match="maximum of a likelihood"):
                call()


def test_effects_of_a_marginal_posterior_are_refused_with_advice_that_can_be_followed(fitted_marginal):
    for call in (fitted_marginal.plot_random_effects, fitted_marginal.plot_shrinkage):
        with pytest.raises(NotAvailableError, match="of a marginal model") as refused:
            call()
        assert "random_effects=" not in str(refused.value)
    with pytest.raises(NotAvailableError) as refused:
        fitted_marginal.draws("b")
    assert "random_effects=" not in str(refused.value)
