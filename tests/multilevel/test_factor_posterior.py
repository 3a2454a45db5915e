"""NUTS with several grouping factors: density, gradient and exact draws against matrices of all rows; PyMC."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from pymc_density import evaluate
from scipy.stats import beta as beta_distribution
from scipy.stats import multivariate_normal, norm

import hierlmm as hl
from hierlmm.bayes.collapsed_factors import factor_posterior
from hierlmm.design.factors import own_part
from hierlmm.errors import SpecificationError
from hierlmm.likelihood import several_factors

close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 130
    columns = {name: rng.integers(0, k, n) for name, k in (("s", 7), ("c", 3), ("r", 5), ("w", 4))}
    frame = pd.DataFrame(columns).assign(x=rng.normal(3, 1, n), start=rng.normal(5, 1, n))
    frame["y"] = frame["x"] + rng.normal(size=7)[frame["s"]] + rng.normal(size=5)[frame["r"]] * frame["x"]
    frame["y"] += rng.normal(size=n) + frame["start"]
    return frame


@pytest.fixture(scope="module")
def crossed(rows: pd.DataFrame) -> hl.MultilevelModel:
    """Chain of two, a rest with a correlated slope and with uncorrelated ones, an offset."""
    formula = "y ~ x + offset(start) + (1 | s / c) + (1 + x | r) + (1 + x || w)"
    return hl.MultilevelModel.from_formula(formula, rows)


@pytest.fixture(params=["compiled", "with a library"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two ways to the sums: the rest is small, or large."""
    if request.param != "compiled":
        monkeypatch.setattr(several_factors, "SMALL_REST", -1)
    return request.param


class Conditional:
    """Everything given θ, by matrices of all rows: y ~ N(Xβ + Zb, σ²I), β ~ N(m0, P0⁻¹), b ~ N(0, diag of D)."""

    def __init__(self, model: hl.MultilevelModel, posterior: object, theta: np.ndarray) -> None:
        design, priors = model.design, model.priors
        (sd,), (factor,), (self.sigma,) = posterior.natural(theta[None])
        self.sd, self.corr = sd, factor @ factor.T
        D = self.corr * np.outer(sd, sd)
        Z, blocks = [], []
        for k, term in enumerate(design.random):
            J, q = len(term.group.labels), term.Z.shape[1]
            own = np.zeros((design.n_obs, J, q))
            own[np.arange(design.n_obs), term.group.index] = term.Z
            Z.append(own.reshape(design.n_obs, -1))
            blocks.append(np.kron(np.eye(J), D[own_part(design, k)]))
        self.Z, self.X, self.y = np.hstack(Z), design.X, design.y - design.offset
        self.B = np.zeros((self.Z.shape[1],) * 2)
        at = 0
        for block in blocks:
            self.B[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        self.V = self.Z @ self.B @ self.Z.T + self.sigma**2 * np.eye(len(self.y))
        self.m0, self.P0 = priors.beta_normal()

    def log_marginal(self) -> float:
        V = self.V + self.X @ np.linalg.solve(self.P0, self.X.T)
        return float(multivariate_normal(self.X @ self.m0, V).logpdf(self.y))

    def of_beta(self) -> tuple[np.ndarray, np.ndarray]:
        W = np.linalg.inv(self.V)
        C = np.linalg.inv(self.X.T @ W @ self.X + self.P0)
        return C @ (self.X.T @ W @ self.y + self.P0 @ self.m0), C

    def of_b(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gain = self.B @ self.Z.T @ np.linalg.inv(self.V)
        return gain @ (self.y - self.X @ beta), self.B - gain @ self.Z @ self.B


class Deviates:
    """Stands for a generator of random numbers: gives the normal deviates that it was made with, one set a call."""

    def __init__(self, *given: np.ndarray) -> None:
        self.given = list(given)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.array(np.broadcast_to(self.given.pop(0), shape))


def near_the_mode(posterior, seed: int) -> np.ndarray:
    return posterior.mode + posterior.root @ np.random.default_rng(seed).normal(size=len(posterior.mode))


def test_density_and_gradient(crossed, way):
    posterior = factor_posterior(crossed.design, crossed.priors)
    offsets = []
    for seed in range(2):
        theta = near_the_mode(posterior, seed)
        value, gradient = posterior.log_density(theta)
        dense = Conditional(crossed, posterior, theta)
        prior = crossed.priors.logpdf(dense.m0, dense.sd, dense.corr, dense.sigma, crossed.design.blocks)
        offsets.append(value - dense.log_marginal() - prior - log_jacobian(posterior, theta, crossed))
        steps = 1e-5 * np.eye(len(theta))
        slopes = [(posterior.log_density(theta + e)[0] - posterior.log_density(theta - e)[0]) / 2e-5 for e in steps]
        close(gradient, slopes, rtol=1e-6, atol=1e-6 * np.abs(gradient).max())
    # What is left is the log prior of β at its mean, at any θ.
    of_beta = sum(p.logpdf(v) for p, v in zip(crossed.priors.beta, crossed.priors.centering @ dense.m0, strict=True))
    close(offsets, -of_beta, rtol=1e-9)


def log_jacobian(posterior, theta: np.ndarray, model: hl.MultilevelModel) -> float:
    """Log|∂(sd, corr, σ)/∂θ| by differences; the signed numbers have half the density on each side."""

    def natural(t: np.ndarray) -> np.ndarray:
        (sd,), (factor,), (sigma,) = posterior.natural(t[None])
        (block,) = [b for b in model.design.blocks if len(b) > 1]
        return np.array([*sd, (factor @ factor.T)[block[1], block[0]], sigma])

    h = 1e-6
    J = np.array([(natural(theta + e) - natural(theta - e)) / (2 * h) for e in h * np.eye(len(theta))])
    return float(np.linalg.slogdet(J)[1] - len(posterior.signed) * np.log(2.0))


def test_draws_given_theta_are_exact(crossed, way):
    posterior = factor_posterior(crossed.design, crossed.priors)
    theta = near_the_mode(posterior, 3)
    dense = Conditional(crossed, posterior, theta)
    p, T = dense.X.shape[1], dense.Z.shape[1]
    many = np.repeat(theta[None], p + T + 1, axis=0)
    of_beta = np.vstack([np.zeros(p), np.eye(p), np.zeros((T, p))])
    of_b = np.vstack([np.zeros((1 + p, T)), np.eye(T)])
    found = posterior.conditional(many, Deviates(of_beta, of_b), "draws")
    mean, covariance = dense.of_beta()
    beta = found.natural.beta
    close(beta[0], mean, rtol=1e-8)
    root = beta[1 : 1 + p] - beta[0]
    close(root.T @ root, covariance, rtol=1e-7, atol=1e-12)
    b = np.hstack([values.reshape(len(many), -1) for values in found.b.values()])
    given, spread = dense.of_b(beta[0])
    close(b[0], given, atol=1e-8 * np.abs(given).max())
    close(b[1 : 1 + p] - b[0], [dense.of_b(own)[0] - given for own in beta[1 : 1 + p]], atol=1e-7)
    root = b[1 + p :] - b[0]
    close(root.T @ root, spread, atol=1e-8 * np.abs(spread).max())
    assert list(found.b) == [f"b_{own.columns.group}" for own in crossed.design.random]


def test_means_of_the_effects_are_averaged_over_beta(crossed, way):
    posterior = factor_posterior(crossed.design, crossed.priors)
    theta = np.array([near_the_mode(posterior, seed) for seed in (4, 5)])
    found = posterior.conditional(theta, np.random.default_rng(0), "summary").summary
    mean, square = 0.0, 0.0
    for own in theta:
        dense = Conditional(crossed, posterior, own)
        beta, C = dense.of_beta()
        m, S = dense.of_b(beta)
        gain = dense.B @ dense.Z.T @ np.linalg.solve(dense.V, dense.X)
        mean, square = mean + m / 2, square + (m**2 + np.diag(S + gain @ C @ gain.T)) / 2
    close(np.concatenate([own.ravel() for own, _ in found]), mean, atol=1e-8)
    close(np.concatenate([own.ravel() for _, own in found]), np.sqrt(square - mean**2), rtol=1e-6)


def test_density_of_the_pymc_model(crossed):
    design, priors = crossed.design, crossed.priors
    model = crossed.to_pymc()
    value, at = evaluate(model, 1, design)
    line, total = design.offset + design.X @ at["beta"], 0.0
    D = priors.random_centering @ at["D"] @ priors.random_centering.T
    for k, term in enumerate(design.random):
        name = term.columns.group
        block = own_part(design, k)
        b, root = at[f"b_{name}"], np.linalg.cholesky(D[block])
        line = line + np.einsum("ij,ij->i", term.Z, b[term.group.index])
        close(b @ priors.random_centering[block].T, at[f"z_{name}"] @ root.T, rtol=1e-7, atol=1e-9)
        total += norm.logpdf(at[f"z_{name}"]).sum()
        assert model.named_vars_to_dims[f"b_{name}"] == (name, f"{name}_term")
    total += norm.logpdf(design.y, line, at["sigma"]).sum()
    total += sum(p.logpdf(v) for p, v in zip(priors.beta, priors.centering @ at["beta"], strict=True))
    total += sum(p.logpdf(v) for p, v in zip(priors.sd_b, np.sqrt(np.diag(D)), strict=True))
    total += beta_distribution(2, 2).logpdf(at["corr_b_partial"]).sum() + priors.sigma.logpdf(at["sigma"])
    assert value == pytest.approx(total, rel=1e-10)


def test_priors_by_factor(rows):
    formula, wide, narrow = "y ~ x + (1 | s) + (1 + x || r)", hl.HalfNormal(9), hl.HalfStudentT(4, 1)
    priors = hl.Priors(sd_b={"r": wide, "x | r": narrow})
    resolved = hl.MultilevelModel.from_formula(formula, rows, priors=priors).priors
    assert resolved.sd_b[1:] == (wide, narrow)
    assert resolved.sd_b[0] == hl.MultilevelModel.from_formula(formula, rows).priors.sd_b[0]
    assert list(resolved.table.index) == [
        "Intercept (at average covariates)",
        "x",
        "sd(Intercept | s)",
        "sd(Intercept | r)",
        "sd(x | r)",
        "sigma",
    ]
    with pytest.raises(SpecificationError, match="no random effect or factor of this name"):
        hl.MultilevelModel.from_formula(formula, rows, priors=hl.Priors(sd_b={"q": wide}))


def test_a_prior_of_a_random_intercept_is_at_the_averages_of_its_own_factor(crossed):
    priors = crossed.priors
    own = [name for name, value in zip(priors.term, priors.random_center, strict=True) if value]
    assert own == ["x | r"]
    T = priors.random_uncentering - np.eye(len(priors.term))
    place = priors.term.index("Intercept | r"), priors.term.index("x | r")
    assert np.argwhere(T).tolist() == [list(place)]
    assert T[place] == pytest.approx(-crossed.design.frame["x"].mean())


def test_explicit_hierarchy_is_centred_where_groups_are_well_determined(pastes):
    """Casks are; batches, whose mean is blurred by what three casks have of their own, are not."""
    from hierlmm.bayes.explicit_factors import build_factor_model, determined_factors, factor_draws_of_model

    model = hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes)
    assert determined_factors(model.design) == ("batch:cask",)
    half = build_factor_model(model.design, model.priors, ("batch:cask",))
    value, at = evaluate(half, 2)
    prior = norm.logpdf(at["z_batch"]).sum() + norm.logpdf(at["b_batch:cask"], scale=at["sd_b"][1]).sum()
    prior += sum(p.logpdf(v) for p, v in zip(model.priors.sd_b, at["sd_b"], strict=True))
    prior += model.priors.beta[0].logpdf(at["beta"][0]) + model.priors.sigma.logpdf(at["sigma"])
    assert value == pytest.approx(prior + norm.logpdf(model.design.y, at["mu"], at["sigma"]).sum(), rel=1e-10)
    raw = {name: np.asarray(v)[None, None] for name, v in at.items() if name != "b_batch"}
    found = factor_draws_of_model(model.design, model.priors, raw)
    close(found["b_batch"][0, 0], at["b_batch"])
    close(found["b_batch:cask"][0, 0], at["b_batch:cask"])


def test_route_by_cost(crossed, monkeypatch):
    from hierlmm.bayes import route

    settings = {"chains": 4, "draws": 1000, "tune": 1000}
    monkeypatch.setattr(route.os, "cpu_count", lambda: 2)
    assert route._route_of_factors(crossed.design, crossed.priors, "auto", settings)[0] == "collapsed"
    monkeypatch.setattr(route, "evaluation_seconds", lambda design: 2.0)
    chosen, why = route._route_of_factors(crossed.design, crossed.priors, "auto", settings)
    assert chosen == "explicit"
    assert why == "one evaluation of the collapsed density takes 2 s, all of them would take about 11.1 hours"
    assert route._route_of_factors(crossed.design, crossed.priors, "collapsed", settings)[0] == "collapsed"
    own = hl.Priors(beta=hl.StudentT(3, 0, 1)).resolve(crossed.design)
    assert route._route_of_factors(crossed.design, own, "auto", settings) == (
        "explicit",
        "a fixed effect has a prior that is not normal",
    )
    with pytest.raises(SpecificationError, match="not normal"):
        route._route_of_factors(crossed.design, own, "collapsed", settings)


@pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")
def test_factors_may_have_the_names_of_dimensions(pastes):
    """And names with spaces; few draws do, of which nothing is asked but their places."""
    rows = pastes.rename(columns={"batch": "chain", "cask": "my cask"})
    fit = hl.MultilevelModel.from_formula("strength ~ 1 + (1 | chain / `my cask`)", rows).fit(
        50, 100, 2, seed=1, progressbar=False
    )
    assert len(fit.b["chain"]) == 10 and fit.draws("b_chain:my cask").shape == (2, 50, 30, 1)
    assert fit.loo("chain").elpd_i.index.tolist() == list("ABCDEFGHIJ")
    assert fit.log_likelihood("chain")["log_likelihood"]["strength"].dims[:2] == ("chain", "draw")
