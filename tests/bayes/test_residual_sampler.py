"""The sampler of residual structures against quadrature, PyMC and itself."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pytest
from draws import largest_difference
from priors_by_definition import prior_of_beta
from residual_by_definition import frozen, where_ratio_is_one
from scipy import stats
from scipy.special import logsumexp
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    PAIRS,
    VARIANCES,
    Damped,
    build,
    second_definition,
)

import hierlmm as hl
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.sample_collapsed import sample_collapsed
from hierlmm.errors import FitWarning, NotAvailableError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.marginal import MarginalModel

QUIET = {"progressbar": False}


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


# --- a family of one's own, and seeds --------------------------------------------------------------------------------


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
