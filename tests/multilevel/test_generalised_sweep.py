"""Every public name of a generalised fit with several factors is right, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaln
from settled import FUNCTIONS, call_with, public, refused, reports

import hierlmm as hl

close = np.testing.assert_allclose
FACTORS = ["school", "school:class", "rater"]


@pytest.fixture(scope="module")
def fit(count_model: hl.MultilevelModel) -> hl.GeneralisedMultilevelFit:
    return count_model.fit_ml()


class Definition:
    """The linear predictor, modes and curvature by matrices of all rows, from β and D of the fit."""

    def __init__(self, fit: Any) -> None:
        design = fit.design
        self.design, self.beta, self.D = design, fit.beta.to_numpy(), {k: D.to_numpy() for k, D in fit.D.items()}
        self.Z, at, self.own = [], 0, {}
        for term in design.random:
            q, J = len(term.columns.names), len(term.group.labels)
            Z = np.zeros((design.n_obs, J, q))
            Z[np.arange(design.n_obs), term.group.index] = term.Z
            self.Z.append(Z.reshape(design.n_obs, -1))
            self.own[term.columns.group] = (slice(at, at + J * q), q)
            at += J * q
        self.A = np.concatenate(self.Z, axis=1)
        inverse = np.zeros((at, at))
        for name, (own, q) in self.own.items():
            inverse[own, own] = np.kron(np.eye((own.stop - own.start) // q), np.linalg.inv(self.D[name]))
        self.fixed, y = design.offset + design.X @ self.beta, design.y
        b = np.zeros(at)
        for _ in range(50):
            mu = np.exp(self.fixed + self.A @ b)
            H = (self.A * mu[:, None]).T @ self.A + inverse
            b = b + np.linalg.solve(H, self.A.T @ (y - mu) - inverse @ b)
        self.b, self.C, self.mu = b, np.linalg.inv(H), np.exp(self.fixed + self.A @ b)
        joint = float(np.sum(y * np.log(self.mu) - self.mu - gammaln(y + 1.0)) - 0.5 * b @ inverse @ b)
        log_det = np.linalg.slogdet(H)[1] - np.linalg.slogdet(inverse)[1]
        self.loglik = joint - 0.5 * log_det

    def eta(self, *names: str) -> np.ndarray:
        return self.fixed + sum((self.A[:, self.own[n][0]] @ self.b[self.own[n][0]] for n in names), 0.0 * self.fixed)

    def by(self, name: str) -> np.ndarray:
        own, q = self.own[name]
        return self.b[own].reshape(-1, q)

    def spread(self, name: str) -> np.ndarray:
        own, q = self.own[name]
        J = (own.stop - own.start) // q
        return self.C[own, own].reshape(J, q, J, q)[np.arange(J), :, np.arange(J)]


@pytest.fixture(scope="module")
def dense(fit: Any) -> Definition:
    return Definition(fit)


def by_factor(values: Any, expected: Callable[[str], np.ndarray]) -> None:
    assert list(values) == FACTORS
    for name, value in values.items():
        wanted = expected(name)
        close(value, wanted, atol=1e-6 * max(np.abs(wanted).max(), 1e-6))


def corr(D: np.ndarray) -> np.ndarray:
    return D / np.sqrt(np.outer(np.diag(D), np.diag(D)))


def linear(effects: Any, L: np.ndarray, fit: Any) -> None:
    close(effects.table["estimate"], L @ fit.beta, rtol=1e-7)
    close(effects.table["se"], np.sqrt(np.einsum("ij,jk,ik->i", L, fit.beta_cov, L)), rtol=1e-7)


def pearson(d: Definition, eta: np.ndarray) -> np.ndarray:
    return (d.design.y - np.exp(eta)) / np.sqrt(np.exp(eta))


def components(fit: Any, d: Definition) -> None:
    """Wald's, on the logarithm; the standard errors of logs are those of differences of the criterion's gradient."""
    table = fit.variance_components()
    sds = [v for D in d.D.values() for v in np.sqrt(np.diag(D))]
    close(table["estimate"], [*sds, corr(d.D["school"])[0, 1]], rtol=1e-7)
    inside = table["se"].notna()
    assert inside.any()
    half = np.log(table["upper"] / table["estimate"])[inside][:1]
    close(half, 1.959964 * (table["se"] / table["estimate"])[inside][:1], rtol=1e-5)


def marginal_means(fit: Any, d: Definition) -> None:
    """At b = 0, and over the random effects of all factors: exp(η + ½ z'Dz) with a log link."""
    at = fit.marginal_means("kind", at={"x": 0.5}).table["estimate"]
    L = np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 1.0]])
    offset = float(np.log(d.design.frame["hours"].mean()))
    close(np.log(at), L @ d.beta + offset, atol=1e-8)
    z = np.array([1.0, 0.5])
    variance = z @ d.D["school"] @ z + d.D["school:class"][0, 0] + d.D["rater"][0, 0]
    over = fit.marginal_means("kind", at={"x": 0.5}, level="marginal").table["estimate"]
    close(np.log(over), L @ d.beta + offset + 0.5 * variance, atol=1e-6)


def curves(fit: Any, d: Definition) -> None:
    """Means along x over the random effects of all factors, at kind = q and mean hours."""
    table = fit.effects("x", at={"kind": "q"}, level="marginal").table
    x, offset = table["x"].to_numpy(), float(np.log(d.design.frame["hours"].mean()))
    z = np.column_stack([np.ones(len(x)), x])
    variance = np.einsum("ij,jk,ik->i", z, d.D["school"], z) + d.D["school:class"][0, 0] + d.D["rater"][0, 0]
    line = np.column_stack([z, np.ones(len(x))]) @ d.beta + offset + 0.5 * variance
    close(np.log(table["estimate"]), line, atol=1e-6)


def predictions(fit: Any, d: Definition) -> None:
    eta = d.eta(*FACTORS)
    found = fit.predict(interval="confidence", scale="link")
    close(found["estimate"], eta, atol=1e-7)
    around = np.einsum("ij,jk,ik->i", d.A, d.C, d.A)
    assert np.all(found["se"] ** 2 > around * (1.0 + 1e-9))
    middle = fit.predict(interval="confidence", scale="link", level="population")
    close(middle["se"] ** 2, np.einsum("ij,jk,ik->i", d.design.X, fit.beta_cov, d.design.X), rtol=1e-6)
    response = fit.predict(interval="confidence")
    close(response[["estimate", "lower", "upper"]], np.exp(found[["estimate", "lower", "upper"]]), rtol=1e-9)
    refused(lambda: fit.predict(interval="prediction"))
    rows = d.design.frame.head(4).assign(rater=99)
    alone = fit.predict(rows, level="all", new_groups="allow", scale="link")["estimate"]
    close(alone, d.eta("school", "school:class")[:4], atol=1e-7)
    wide, known = (fit.predict(r, interval="confidence", new_groups="allow", scale="link") for r in (rows, rows[:0]))
    assert len(known) == 0 and np.all(wide["se"] ** 2 > d.D["rater"][0, 0])


CHECKS: dict[str, Callable[[Any, Definition], None]] = {
    "D": lambda fit, d: by_factor(fit.D, lambda n: d.D[n]),
    "sd_b": lambda fit, d: by_factor(fit.sd_b, lambda n: np.sqrt(np.diag(d.D[n]))),
    "corr_b": lambda fit, d: by_factor(fit.corr_b, lambda n: corr(d.D[n])),
    "b": lambda fit, d: by_factor(fit.b, d.by),
    "b_cov": lambda fit, d: by_factor(fit.b_cov, d.spread),
    "b_sd": lambda fit, d: by_factor(fit.b_sd, lambda n: np.sqrt(np.einsum("jkk->jk", d.spread(n)))),
    "criterion": lambda fit, d: close(fit.criterion, -2.0 * d.loglik, rtol=1e-10),
    "loglik": lambda fit, d: close(fit.loglik, d.loglik, rtol=1e-10),
    "aic": lambda fit, d: close(fit.aic, -2.0 * d.loglik + 2.0 * 8, rtol=1e-10),
    "bic": lambda fit, d: close(fit.bic, -2.0 * d.loglik + np.log(160) * 8, rtol=1e-10),
    "information_criteria": lambda fit, d: close(fit.information_criteria()["value"], [fit.aic, fit.bic]),
    "optima": lambda fit, d: close(fit.optima["criterion"].iloc[0], -2.0 * d.loglik, rtol=1e-10),
    "optimum": lambda fit, d: close(fit.optimum.value, -2.0 * d.loglik, rtol=1e-10),
    "criterion_function": lambda fit, d: close(fit.criterion_function(fit.optimum.lam), -2.0 * d.loglik, rtol=1e-10),
    "solution": lambda fit, d: close(fit.solution.line(d.design), d.eta(*FACTORS), atol=1e-7),
    "record": lambda fit, d: close(fit.record.at(fit.optimum.lam).beta, d.beta),
    "beta": lambda fit, d: close(fit.beta, d.beta),
    "beta_cov": lambda fit, d: close(np.sqrt(np.diag(fit.beta_cov)), fit.beta_se),
    "beta_se": lambda fit, d: close(fit.beta_se, fit.summary()["se"]),
    "summary": lambda fit, d: close(fit.summary()["z"], fit.beta / fit.beta_se),
    "frame": lambda fit, d: close(fit.frame["estimate"], d.beta),
    "to_frame": lambda fit, d: close(fit.to_frame()["estimate"], d.beta),
    "n_groups": lambda fit, d: close(fit.n_groups, [len(d.by(n)) for n in ("school:class", "school", "rater")]),
    "n_obs": lambda fit, d: close(fit.n_obs, 160),
    "n_parameters": lambda fit, d: close(fit.n_parameters, 3 + 3 + 1 + 1),
    "n_quadrature": lambda fit, d: close(fit.n_quadrature, 1),
    "method": lambda fit, d: close(fit.method == "Laplace approximation", True),
    "estimator": lambda fit, d: close(fit.estimator == "ML", True),
    "family": lambda fit, d: close(fit.family.name == "poisson", True),
    "dispersion": lambda fit, d: close(len(fit.dispersion), 0),
    "converged": lambda fit, d: close(fit.converged, True),
    "gradient_norm": lambda fit, d: close(fit.gradient_norm, 0.0, atol=1e-6),
    "is_singular": lambda fit, d: close(fit.is_singular, any(np.linalg.det(D) < 1e-9 for D in d.D.values())),
    "warnings": lambda fit, d: close(len(fit.warnings), int(fit.is_singular)),
    "fitted": lambda fit, d: [
        close(fit.fitted(), np.exp(d.eta(*FACTORS)), rtol=1e-7),
        close(fit.fitted("population", "link"), d.fixed, rtol=1e-9),
        close(fit.fitted("school:class", "link"), d.eta("school", "school:class"), atol=1e-7),
        close(fit.fitted("rater", "link"), d.eta("rater"), atol=1e-7),
    ],
    "residuals": lambda fit, d: [
        close(fit.residuals(), d.design.y - d.mu, atol=1e-6),
        close(fit.residuals("pearson"), pearson(d, d.eta(*FACTORS)), atol=1e-6),
        close(fit.residuals("pearson", "school"), pearson(d, d.eta("school")), atol=1e-6),
        close(np.sign(fit.residuals("deviance")), np.sign(d.design.y - d.mu)),
    ],
    "predict": predictions,
    "variance_components": components,
    "hypothesis": lambda fit, d: linear(fit.hypothesis("2*x - kind[T.q] = 0"), np.array([[0, 2.0, -1]]), fit),
    "slopes": lambda fit, d: linear(fit.slopes("x"), np.array([[0, 1.0, 0]]), fit),
    "contrasts": lambda fit, d: linear(fit.contrasts("kind", scale="link"), np.array([[0, 0.0, -1]]), fit),
    "marginal_means": marginal_means,
    "effects": curves,
    "plot_effects": lambda fit, _: fit.plot_effects("x", backend="none"),
    "anova": lambda fit, d: close(fit.anova().loc["x", "chi2"], (d.beta[1] / fit.beta_se["x"]) ** 2, rtol=1e-6),
    "marginal_coefficients": lambda fit, d: close(
        fit.marginal_coefficients().table["estimate"].iloc[2], d.beta[2], atol=0.05
    ),
    "probabilities": lambda fit, _: refused(fit.probabilities),
    "thresholds": lambda fit, _: refused(lambda: fit.thresholds),
    "sigma": lambda fit, _: refused(lambda: fit.sigma),
    "residual_estimate": lambda fit, d: close(fit.residual_estimate is None, True),
    "plot_forest": lambda fit, _: fit.plot_forest(backend="none"),
    "plot_optima": lambda fit, _: refused(fit.plot_optima),
    "plot_random_effects": lambda fit, d: close(
        fit.plot_random_effects("rater", backend="none").viz["point_estimate"]["effects"].to_numpy().ravel()[0]["x"],
        np.sort(d.by("rater")[:, 0]),
        atol=1e-6,
    ),
    "report": lambda fit, _: reports(fit),
    "save": lambda fit, _: refused(lambda: fit.save("fit.nc", data=False)),
    "design": lambda fit, d: close(fit.design.Z.shape, (160, 4)),
    "lacks": lambda fit, _: fit.require("D"),
    "require": lambda fit, _: refused(lambda: fit.require("profile")),
    "bootstrap": lambda fit, _: refused(lambda: fit.bootstrap(2, kind="subject")),
    "has_draws": lambda fit, d: close(fit.has_draws, False),
    "has_likelihood": lambda fit, d: close(fit.has_likelihood, True),
    "has_random_effects": lambda fit, d: close(fit.has_random_effects, True),
    "has_working_correlation": lambda fit, d: close(fit.has_working_correlation, False),
}


def test_every_name_of_the_fit_is_settled(fit):
    names = public(hl.GeneralisedMultilevelFit, *vars(fit))
    assert set(names) == set(CHECKS) | (set(fit.lacks) & set(names))
    assert not set(CHECKS) & set(fit.lacks)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_what_a_fit_has_is_right(name, fit, dense):
    CHECKS[name](fit, dense)


@pytest.mark.parametrize("name", sorted(hl.GeneralisedMultilevelFit.lacks))
def test_what_a_fit_has_not_is_refused(name, fit):
    if hasattr(hl.GeneralisedMultilevelFit, name):
        refused(lambda: getattr(fit, name)())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_refuse_what_they_are_not_made_for(name, fit):
    if name not in type(fit)._answered_by:
        refused(lambda: call_with(FUNCTIONS[name], fit))


def test_what_a_model_has_not_is_refused(count_model):
    for name in ("fit_reml", "fit_gee", "equations", "prior_predictive"):
        refused(getattr(count_model, name))
    refused(lambda: count_model.compare("ml", "reml"))
    refused(lambda: count_model.to_bambi)
    refused(lambda: count_model.implied_marginal(None))
    refused(lambda: count_model.subject)
    assert "Family: Poisson (log link)" in repr(count_model) and "<pre>" in count_model._repr_html_()
