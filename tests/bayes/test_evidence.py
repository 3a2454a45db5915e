"""The marginal likelihood against brute-force quadrature, closed forms and averages over draws from the prior."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import kv, logsumexp

import hierlmm as hl
from hierlmm.bayes.evidence import log_marginal_likelihood
from hierlmm.errors import NotAvailableError


def normal_logpdf(y, mean, V):
    """Log densities of y (N,) under covariances V (S, N, N)."""
    L = np.linalg.cholesky(V)
    z = np.linalg.solve(L, np.broadcast_to((y - mean)[:, None], (len(V), len(y), 1)))[..., 0]
    log_det = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return -0.5 * (z**2).sum(axis=1) - log_det - 0.5 * len(y) * np.log(2 * np.pi)


def small_data(seed, sizes):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(1.0, 2.0, len(g))
    y = 3.0 + 0.5 * x + rng.normal(size=len(sizes))[g] + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": g})


def test_random_intercepts_by_brute_force():
    data = small_data(3, [2, 4, 1, 3, 3])
    priors = hl.Priors(
        intercept=hl.Normal(2.0, 3.0), beta=hl.Normal(0.3, 1.5), sd_b=hl.HalfStudentT(3, 1.2), sigma=hl.HalfNormal(2.0)
    )
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, priors=priors)
    # The intercept's prior is at the mean of x.
    X = np.column_stack([np.ones(len(data)), data["x"] - data["x"].mean()])
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)
    fixed = X @ np.diag([9.0, 2.25]) @ X.T
    u, v = np.linspace(-14.0, 5.0, 381), np.linspace(-3.0, 3.0, 201)
    sd, sigma = (np.exp(a).ravel() for a in np.meshgrid(u, v, indexing="ij"))
    V = fixed + sd[:, None, None] ** 2 * same + sigma[:, None, None] ** 2 * np.eye(len(data))
    log = normal_logpdf(data["y"].to_numpy(), X @ [2.0, 0.3], V)
    log += np.log(2.0) + stats.t(3, scale=1.2).logpdf(sd) + np.log(sd)
    log += stats.halfnorm(scale=2.0).logpdf(sigma) + np.log(sigma)
    exact = logsumexp(log) + np.log((u[1] - u[0]) * (v[1] - v[0]))
    found = log_marginal_likelihood(model.design, model.priors)
    assert found.method == "quadrature"
    assert found.value == pytest.approx(exact, abs=1e-6)
    assert found.error < 1e-6
    # Nothing depends on the unit of the response beyond its density.
    wider = hl.Priors(
        intercept=hl.Normal(200.0, 300.0),
        beta=hl.Normal(30, 150),
        sd_b=hl.HalfStudentT(3, 120),
        sigma=hl.HalfNormal(200),
    )
    scaled = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data.assign(y=100 * data["y"]), priors=wider)
    again = log_marginal_likelihood(scaled.design, scaled.priors)
    assert again.value == pytest.approx(found.value - len(data) * np.log(100.0), abs=1e-8)


def test_three_measurements_in_closed_form():
    """With mean zero and σ ~ HalfNormal(s), the mixture of normals is a Bessel function of r = |y|."""
    data = pd.DataFrame({"y": [1.3, -0.4, 0.8], "g": [1, 1, 2]})
    priors = hl.Priors(intercept=hl.Normal(0.0, 1e-4), sigma=hl.HalfNormal(0.7))
    model = hl.MarginalModel("y ~ 1", subject="g", data=data, priors=priors)
    S, s = float(np.sum(data["y"] ** 2)), 0.7
    # ∫ σ⁻ᴺ exp(-a/σ² - b σ²) dσ = (b/a)^((N-1)/4) K_((N-1)/2)(2 √(ab)), with a = S/2, b = 1/(2 s²), N = 3
    integral = np.sqrt(1.0 / (S * s**2)) * kv(1.0, np.sqrt(S) / s)
    exact = np.log(2.0 / (np.sqrt(2.0 * np.pi) * s)) - 1.5 * np.log(2.0 * np.pi) + np.log(integral)
    found = log_marginal_likelihood(model.design, model.priors).value
    assert found == pytest.approx(exact, abs=2e-7)  # the mean is zero but for 1e-4


def test_correlated_slopes_against_draws_from_the_prior(monkeypatch):
    """With three random effects, so that the constant of LKJ counts: an average over fifty thousand draws."""
    monkeypatch.setattr("hierlmm.bayes.evidence.MOST", 2**15)  # a quarter of the usual work
    data = small_data(8, [4, 4, 4]).assign(w=np.tile([0.0, 1.0, -1.0, 1.0], 3))
    priors = hl.Priors(
        intercept=hl.Normal(3.0, 1.0),
        beta=hl.Normal(0.0, 1.0),
        sd_b=hl.HalfNormal(0.7),
        corr_b=hl.LKJ(1.5),
        sigma=hl.HalfStudentT(4, 1.0),
    )
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 + x + w | g)", data, priors=priors)
    rng, S = np.random.default_rng(4), 50_000
    sd = np.abs(rng.normal(size=(S, 3))) * 0.7
    sigma = np.abs(rng.standard_t(4, S))
    # LKJ(η) of three: correlations with the first are 2 Beta(η + ½, η + ½) - 1, the partial one 2 Beta(η, η) - 1.
    c = 2.0 * rng.beta([2.0, 2.0, 1.5], [2.0, 2.0, 1.5], (S, 3)) - 1.0
    L = np.zeros((S, 3, 3))
    L[:, 0, 0] = 1.0
    L[:, 1, 0], L[:, 1, 1] = c[:, 0], np.sqrt(1 - c[:, 0] ** 2)
    L[:, 2, 0] = c[:, 1]
    L[:, 2, 1] = c[:, 2] * np.sqrt(1 - c[:, 1] ** 2)
    L[:, 2, 2] = np.sqrt((1 - c[:, 1] ** 2) * (1 - c[:, 2] ** 2))
    half = sd[:, :, None] * L
    # Correlations have their prior where sd(Intercept) has it: chosen priors are those of the formula.
    Z = np.column_stack([np.ones(12), data["x"], data["w"]])
    X = np.column_stack([np.ones(12), data["x"] - data["x"].mean()])
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)
    ZD = Z @ half
    V = (ZD @ np.swapaxes(ZD, 1, 2)) * same + X @ X.T + sigma[:, None, None] ** 2 * np.eye(12)
    log = normal_logpdf(data["y"].to_numpy(), X @ [3.0, 0.0], V)
    average = logsumexp(log) - np.log(S)
    mcse = np.std(np.exp(log - average)) / np.sqrt(S)
    found = log_marginal_likelihood(model.design, model.priors)
    assert found.method == "importance sampling"
    assert found.pareto_k < 0.7
    assert abs(found.value - average) < 4.0 * np.hypot(mcse, found.error)
    assert np.hypot(mcse, found.error) < 0.03


def test_a_prior_that_a_parameter_cannot_reach_is_normalised():
    """HalfNormal on an autocorrelation, which ends at 1; with the dense covariance on a grid."""
    rng = np.random.default_rng(5)
    y = 0.5 * rng.normal(size=8).cumsum()
    data = pd.DataFrame({"y": y, "t": np.tile(np.arange(4), 2), "g": np.repeat([0, 1], 4)})
    own = {"intercept": hl.Normal(0.0, 1.0), "sigma": hl.HalfNormal(1.0), "residual": {"rho": hl.HalfNormal(0.8)}}
    model = hl.MarginalModel("y ~ 1", correlation=hl.AR1("t"), subject="g", data=data, priors=hl.Priors(**own))
    rho, v = (np.arange(200) + 0.5) / 200, np.linspace(-4.0, 3.0, 141)
    R = rho[:, None, None] ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    blocks = np.zeros((200, 8, 8))
    blocks[:, :4, :4] = blocks[:, 4:, 4:] = R
    V = np.exp(2 * v)[:, None, None, None] * blocks + 1.0
    log = normal_logpdf(data["y"].to_numpy(), np.zeros(8), V.reshape(-1, 8, 8)).reshape(141, 200)
    log += (stats.halfnorm(scale=1.0).logpdf(np.exp(v)) + v)[:, None]
    log += stats.halfnorm(scale=0.8).logpdf(rho) - stats.halfnorm(scale=0.8).logcdf(1.0)
    exact = logsumexp(log) + np.log((v[1] - v[0]) / 200)
    assert log_marginal_likelihood(model.design, model.priors).value == pytest.approx(exact, abs=2e-4)  # midpoint rule


def test_random_intercepts_by_group_on_a_grid(dental):
    """A standard deviation of its own for girls and boys: three parameters, each V = σ² I + s² 11' inverted by hand."""
    data = dental.sort_values(["subject", "time"])
    own = {"intercept": hl.Normal(24, 5), "beta": hl.Normal(0, 2), "sd_b": hl.HalfNormal(3), "sigma": hl.HalfNormal(2)}
    formula = "distance ~ sex + time + (1 | subject)"
    model = hl.TwoLevelModel.from_formula(formula, data, group="sex", priors=hl.Priors(**own))
    male = (data["sex"] == "Male").to_numpy()
    X = np.column_stack([np.ones(108), male - male.mean(), data["time"] - data["time"].mean()])
    rows = np.column_stack([X, data["distance"]]).reshape(27, 4, 4)
    total = np.einsum("jna,jnb->ab", rows, rows)
    sums, boys = rows.sum(axis=1), male.reshape(27, 4)[:, 0]
    girls_in, boys_in = (sums[own].T @ sums[own] for own in (~boys, boys))
    u, v = np.linspace(-9.0, 3.0, 49), np.linspace(-0.4, 1.4, 33)
    a, b, s = (np.exp(g).ravel() for g in np.meshgrid(u, u, v, indexing="ij"))
    Q = total / s[:, None, None] ** 2
    for inside, sd in ((girls_in, a), (boys_in, b)):
        Q = Q - (sd**2 / (s**2 * (s**2 + 4.0 * sd**2)))[:, None, None] * inside
    P0, m0 = np.diag([1 / 25, 1 / 4, 1 / 4]), np.array([24.0, 0.0, 0.0])
    H, h = Q[:, :3, :3] + P0, Q[:, :3, 3] + P0 @ m0
    fitted = np.sum(h * np.linalg.solve(H, h[..., None])[..., 0], axis=1)
    log_det = 216.0 * np.log(s) + 11 * np.log1p(4 * a**2 / s**2) + 16 * np.log1p(4 * b**2 / s**2)
    log_det += np.linalg.slogdet(H)[1] - np.log(np.linalg.det(P0))
    log = -0.5 * (108 * np.log(2 * np.pi) + log_det + Q[:, 3, 3] + m0 @ P0 @ m0 - fitted)
    for value, scale in ((a, 3.0), (b, 3.0), (s, 2.0)):
        log += stats.halfnorm(scale=scale).logpdf(value) + np.log(value)
    exact = logsumexp(log) + 2 * np.log(u[1] - u[0]) + np.log(v[1] - v[0])
    assert log_marginal_likelihood(model.design, model.priors).value == pytest.approx(exact, abs=1e-3)


def test_what_has_no_closed_form_is_refused(patients, dental):
    counts = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson")
    heavy = hl.TwoLevelModel.from_formula(
        "distance ~ time + (1 | subject)", dental, priors=hl.Priors(beta=hl.StudentT(3, 0, 1))
    )
    for model in (counts, heavy):
        with pytest.raises(NotAvailableError, match="loo"):
            log_marginal_likelihood(model.design, model.priors)
