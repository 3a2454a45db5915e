"""Every public name of a generalised posterior with several factors is right, by its draws, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln
from settled import FUNCTIONS, call_with, public, refused

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.likelihood.generalised_factors import laplace_log_likelihood

close = np.testing.assert_allclose
FACTORS = ["school", "school:class", "rater"]
OWN = {"school": slice(0, 2), "school:class": slice(2, 3), "rater": slice(3, 4)}


@pytest.fixture(scope="module")
def fit(count_model: hl.MultilevelModel) -> hl.GeneralisedMultilevelPosterior:
    return count_model.fit(seed=1, progressbar=False)


def flat(fit: Any, name: str) -> np.ndarray:
    values = fit.datatree["posterior"][name].to_numpy()
    return values.reshape(-1, *values.shape[2:])


def covariance(fit: Any) -> np.ndarray:
    sd, D = flat(fit, "sd_b"), np.zeros((4000, 4, 4))
    D[:, range(4), range(4)] = sd**2
    D[:, 0, 1] = D[:, 1, 0] = flat(fit, "corr_b")[:, 0] * sd[:, 0] * sd[:, 1]
    return D


def by_factor(values: Any, expected: Callable[[str], Any]) -> None:
    assert list(values) == FACTORS
    for name, value in values.items():
        close(value, expected(name), rtol=1e-9, atol=1e-12)


def lines(fit: Any, *factors: str) -> np.ndarray:
    """Linear predictors at every draw, (S, N)."""
    found = fit.design.offset + flat(fit, "beta") @ fit.design.X.T
    for term in fit.design.random:
        if term.columns.group in factors:
            b = flat(fit, f"b_{term.columns.group}")[:, term.group.index]
            found = found + np.einsum("sij,ij->si", b, term.Z)
    return found


def some(fit: Any, *factors: str) -> np.ndarray:
    """At 500 of the draws, over which means of rows are averaged."""
    return lines(fit, *factors)[np.linspace(0, 3999, 500).astype(int)]


def is_loglik(fit: Any) -> None:
    """Highest at the estimates of maximum likelihood, where it is theirs."""
    highest = maximise_generalised(fit.design)
    at = highest.solution
    close(laplace_log_likelihood(fit.design, at.beta, at.D, at.psi), -0.5 * highest.optimum.value, rtol=1e-9)
    assert -0.5 * highest.optimum.value - 3.0 < fit.loglik < -0.5 * highest.optimum.value


def is_prediction(fit: Any) -> None:
    table = fit.predict(interval="credible")
    mean = np.exp(lines(fit, *FACTORS))
    close(table["estimate"], mean.mean(axis=0))
    close(table["lower"], np.quantile(mean, 0.025, axis=0))
    close(fit.predict(level="school", scale="link")["estimate"], lines(fit, "school").mean(axis=0))
    new = fit.design.frame[["x", "kind", "hours"]].head(2).assign(school=[0, 99], **{"class": 0}, rater=[0, 1])
    with pytest.raises(DataError, match="school 99"):
        fit.predict(new)
    known = fit.predict(new, level="school", interval="credible", scale="link", new_groups="allow")
    Z = np.array([1.0, new["x"].iloc[1]])
    D = covariance(fit).mean(axis=0)[:2, :2]
    assert known["se"].iloc[1] ** 2 == pytest.approx(Z @ D @ Z + lines(fit).var(axis=0)[1], rel=0.2)
    close(known["estimate"].iloc[1], fit.predict(new, level="population", scale="link")["estimate"].iloc[1])
    counts = fit.predict(interval="prediction")
    assert np.all(counts[["lower", "upper"]] % 1 == 0)
    close(counts["se"] ** 2, mean.mean(axis=0) + mean.var(axis=0), rtol=0.2)


def is_loo(fit: Any) -> None:
    with pytest.warns(hl.FitWarning, match="Pareto k"):
        found = fit.loo()
    assert found.n == 160
    assert "Poisson distribution" in found.verdict and "random effects of its groups" in found.verdict
    with pytest.raises(NotAvailableError, match="no formula"):
        fit.loo("school")


def means_of_kind(fit: Any) -> np.ndarray:
    """Linear predictors of both kinds at x = 0 and mean hours, (S, 2)."""
    beta = flat(fit, "beta")
    return beta[:, [0]] + beta[:, [2]] * [0.0, 1.0] + np.log(fit.design.frame["hours"].mean())


CHECKS: dict[str, Callable[[Any], None]] = {
    "D": lambda fit: by_factor(fit.D, lambda n: covariance(fit).mean(axis=0)[OWN[n], OWN[n]]),
    "sd_b": lambda fit: by_factor(fit.sd_b, lambda n: flat(fit, "sd_b").mean(axis=0)[OWN[n]]),
    "corr_b": lambda fit: close(fit.corr_b["school"].iloc[0, 1], flat(fit, "corr_b").mean()),
    "b": lambda fit: by_factor(fit.b, lambda n: flat(fit, f"b_{n}").mean(axis=0)),
    "b_sd": lambda fit: by_factor(fit.b_sd, lambda n: flat(fit, f"b_{n}").std(axis=0, ddof=1)),
    "beta": lambda fit: close(fit.beta, flat(fit, "beta").mean(axis=0)),
    "beta_cov": lambda fit: close(fit.beta_cov, np.cov(flat(fit, "beta").T)),
    "beta_se": lambda fit: close(fit.beta_se, flat(fit, "beta").std(axis=0, ddof=1)),
    "sigma": lambda fit: refused(lambda: fit.sigma),
    "dispersion": lambda fit: close(len(fit.dispersion), 0),
    "family": lambda fit: close(fit.family.name == "poisson", True),
    "psi_draws": lambda fit: close(fit.psi_draws().shape, [4, 1000, 0]),
    "pareto_k": lambda fit: close(fit.pareto_k is None, True),
    "probabilities": lambda fit: refused(fit.probabilities),
    "thresholds": lambda fit: refused(lambda: fit.thresholds),
    "summary": lambda fit: close(fit.summary()["lower"], np.quantile(flat(fit, "beta"), 0.025, axis=0)),
    "frame": lambda fit: close(fit.frame["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "to_frame": lambda fit: close(fit.to_frame()["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "variance_components": lambda fit: close(
        fit.variance_components()["estimate"], [*flat(fit, "sd_b").mean(axis=0), flat(fit, "corr_b").mean()]
    ),
    "fitted": lambda fit: [
        close(fit.fitted(level), np.exp(some(fit, *names)).mean(axis=0))
        for level, names in (("all", FACTORS), ("population", []), ("school:class", ["school", "school:class"]))
    ],
    "residuals": lambda fit: [
        close(fit.residuals(), fit.design.y - np.exp(some(fit, *FACTORS)).mean(axis=0)),
        close(fit.residuals("pearson"), fit.residuals() / np.sqrt(fit.fitted())),
    ],
    "line_draws": lambda fit: close(fit.line_draws("rater", 4000)[0], lines(fit, "rater")),
    "loglik": is_loglik,
    "predict": is_prediction,
    "loo": is_loo,
    "log_likelihood": lambda fit: close(
        fit.log_likelihood()["log_likelihood"]["n"].to_numpy().reshape(4000, -1)[:9],
        (fit.design.y * lines(fit, *FACTORS) - np.exp(lines(fit, *FACTORS)) - gammaln(fit.design.y + 1))[:9],
    ),
    "draws": lambda fit: close(fit.draws("D").reshape(-1, 4, 4), covariance(fit), atol=1e-12),
    "evenly_kept": lambda fit: close(fit.evenly_kept(2), [0, 3999]),
    "draw_shape": lambda fit: close(fit.draw_shape, [4, 1000]),
    "hypothesis": lambda fit: close(fit.hypothesis("2*x = 0").table["estimate"], 2 * flat(fit, "beta")[:, 1].mean()),
    "slopes": lambda fit: close(fit.slopes("x").table["estimate"], flat(fit, "beta")[:, 1].mean()),
    "contrasts": lambda fit: close(
        fit.contrasts("kind", scale="link").table["estimate"], -flat(fit, "beta")[:, 2].mean()
    ),
    "marginal_means": lambda fit: [
        close(
            fit.marginal_means("kind", at={"x": 0.0}).table["estimate"],
            np.exp(means_of_kind(fit)).mean(axis=0),
        ),
        close(
            fit.marginal_means("kind", at={"x": 0.0}, level="marginal").table["estimate"],
            np.exp(means_of_kind(fit) + 0.5 * covariance(fit)[:, [0, 2, 3], [0, 2, 3]].sum(axis=1)[:, None]).mean(
                axis=0
            ),
            rtol=1e-6,
        ),
    ],
    "marginal_coefficients": lambda fit: close(
        fit.marginal_coefficients().table["estimate"].iloc[2], flat(fit, "beta")[:, 2].mean(), atol=0.05
    ),
    "convergence": lambda fit: close(fit.convergence().ok, True),
    "converged": lambda fit: close(fit.converged, True),
    "warnings": lambda fit: close(len(fit.warnings), 0),
    "n_groups": lambda fit: close(fit.n_groups, [24, 8, 5]),
    "n_obs": lambda fit: close(fit.n_obs, 160),
    "estimator": lambda fit: close(fit.estimator == "NUTS", True),
    "residual_estimate": lambda fit: close(fit.residual_estimate is None, True),
    "residual_draws": lambda fit: close(fit.residual_draws().shape, [4, 1000, 0]),
    "sample_stats": lambda fit: close(fit.sample_stats["diverging"].shape, [4, 1000]),
    "to_datatree": lambda fit: close(
        fit.to_datatree()["constant_data"]["rater_index"], fit.design.random[2].group.index
    ),
    "datatree": lambda fit: close(fit.datatree["posterior"]["b_school"].sizes["school_term"], 2),
    "priors": lambda fit: close(len(fit.priors.sd_b), 4),
    "design": lambda fit: close(fit.design.Z.shape, (160, 4)),
    "labeller": lambda fit: close(
        fit.labeller.make_label_flat("sd_b", {"term": "x | school"}, {}) == "sd(x | school)", True
    ),
    "need_effects": lambda fit: fit.need_effects("b", draws=True),
    "lacks": lambda fit: fit.require("D"),
    "require": lambda fit: refused(lambda: fit.require("psense")),
    "has_draws": lambda fit: close(fit.has_draws, True),
    "has_likelihood": lambda fit: close(fit.has_likelihood, False),
    "has_random_effects": lambda fit: close(fit.has_random_effects, True),
    "has_working_correlation": lambda fit: close(fit.has_working_correlation, False),
    "anova": lambda fit: refused(fit.anova),
    "residual_at": lambda fit: close(len(fit.residual_at(np.empty(0)).parameters), 0),
    "save": lambda fit: refused(lambda: fit.save("fit.nc", data=False)),  # with rows: below
    "plot_random_effects": lambda fit: is_picture_of_b(fit),
}
PICTURES = ("trace", "rank", "autocorr", "ess", "mcse", "energy", "pair", "diagnostics", "forest", "posterior")


def is_picture_of_b(fit: Any) -> None:
    drawn = fit.plot_random_effects("school", terms="x", backend="none")
    points = drawn.viz["point_estimate"]["effects"].sel(term="x").to_numpy().ravel()[0]["x"]
    close(points, np.sort(flat(fit, "b_school").mean(axis=0)[:, 1]))


def test_every_name_of_the_posterior_is_settled(fit):
    names = public(hl.GeneralisedMultilevelPosterior, *vars(fit))
    drawn = {f"plot_{name}" for name in PICTURES}
    assert set(names) == set(CHECKS) | drawn | (set(fit.lacks) & set(names))
    assert not set(CHECKS) & set(fit.lacks)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_what_a_posterior_has_is_right(name, fit):
    CHECKS[name](fit)


@pytest.mark.parametrize("name", sorted(hl.GeneralisedMultilevelPosterior.lacks))
def test_what_a_posterior_has_not_is_refused(name, fit):
    if hasattr(hl.GeneralisedMultilevelPosterior, name):
        refused(lambda: getattr(fit, name)())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_refuse_what_they_are_not_made_for(name, fit):
    if name not in type(fit)._answered_by:
        refused(lambda: call_with(FUNCTIONS[name], fit))


def test_pictures(fit):
    """Those of draws are the ones of every posterior (`test_posterior_sweep.py`)."""
    for name in ("trace", "forest"):
        assert getattr(fit, f"plot_{name}")(backend="none") is not None


def test_prints(fit):
    text = str(fit)
    assert "Generalised multilevel model, posterior by NUTS (joint)" in text
    assert "Number of obs: 160, groups: school:class, 24; school, 8; rater, 5" in text
    assert "NaN" not in fit._repr_html_()


def test_a_file_gives_the_same_posterior(fit, tmp_path):
    loaded = hl.load_fit(fit.save(tmp_path / "fit.nc"))
    assert type(loaded) is hl.GeneralisedMultilevelPosterior
    for name in FACTORS:
        pd.testing.assert_frame_equal(loaded.b[name], fit.b[name])
    assert str(loaded) == str(fit)


def test_effects_are_kept_as_means(count_model, fit, monkeypatch):
    with pytest.warns(hl.FitWarning):  # few draws
        few = count_model.fit(draws=200, tune=300, seed=1, progressbar=False, random_effects="summary", chains=2)
    for name in FACTORS:
        close(few.b[name], fit.b[name], atol=0.3)
        close(few.b_sd[name], fit.b_sd[name], rtol=0.4)
    refused(lambda: few.draws("b_school"))
    refused(few.loo)
    refused(few.predict)
