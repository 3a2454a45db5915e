"""Every public name of a generalised posterior with several factors is right, by its draws, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import by_draws
import numpy as np
import pandas as pd
import pytest
from by_draws import FACTORS, are_settled, close, covariance, flat, lines
from scipy.special import gammaln
from settled import FUNCTIONS, call_with, refused

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.likelihood.generalised_factors import laplace_log_likelihood


@pytest.fixture(scope="module")
def fit(count_posterior: hl.GeneralisedMultilevelPosterior) -> hl.GeneralisedMultilevelPosterior:
    return count_posterior


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


def are_curves(fit: Any) -> None:
    """At kind = q, all random effects zero, and mean hours."""
    own = flat(fit, "beta") @ np.array([[1.0, 1.0], [-1.0, 2.0], [1.0, 1.0]])
    own += np.log(fit.design.frame["hours"].mean())
    table = fit.effects("x", at={"x": [-1.0, 2.0], "kind": "q"}, scale="link").table
    close(table[["estimate", "lower"]].T, [own.mean(axis=0), np.quantile(own, 0.025, axis=0)])


CHECKS: dict[str, Callable[[Any], None]] = by_draws.CHECKS | {
    "effects": are_curves,
    "plot_effects": lambda fit: close(fit.plot_effects("x", by="kind", data="points", backend="none") is None, False),
    "loglik": is_loglik,
    "predict": is_prediction,
    "loo": is_loo,
    "sigma": lambda fit: refused(lambda: fit.sigma),
    "dispersion": lambda fit: close(len(fit.dispersion), 0),
    "family": lambda fit: close(fit.family.name == "poisson", True),
    "psi_draws": lambda fit: close(fit.psi_draws().shape, [4, 1000, 0]),
    "pareto_k": lambda fit: close(fit.pareto_k is None, True),
    "probabilities": lambda fit: refused(fit.probabilities),
    "thresholds": lambda fit: refused(lambda: fit.thresholds),
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
    "log_likelihood": lambda fit: close(
        fit.log_likelihood()["log_likelihood"]["n"].to_numpy().reshape(4000, -1)[:9],
        (fit.design.y * lines(fit, *FACTORS) - np.exp(lines(fit, *FACTORS)) - gammaln(fit.design.y + 1))[:9],
    ),
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
}


def test_every_name_of_the_posterior_is_settled(fit):
    are_settled(fit, CHECKS)


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
