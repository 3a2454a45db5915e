"""Population-averaged coefficients of draws are those of each draw, as of a fit by maximum likelihood."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import hierlmm as hl
from hierlmm.implied.coefficients import average_coefficients, marginal_coefficients


@pytest.fixture(scope="module")
def logistic():
    rng = np.random.default_rng(4)
    subject, time = np.repeat(np.arange(60), 5), np.tile(np.arange(5.0), 60)
    yes = (rng.random(300) < expit(-1.0 + 0.6 * time + 1.5 * rng.normal(size=60)[subject])).astype(int)
    data = pd.DataFrame({"subject": subject, "time": time, "yes": yes})
    return hl.TwoLevelModel.from_formula("yes ~ time + (1 | subject)", data, family="bernoulli").fit_ml()


def as_draws(fit, n, spread):
    """Draws around the estimates, as a posterior hands them out."""
    rng = np.random.default_rng(1)
    beta = fit.beta.to_numpy() + spread * rng.normal(size=(2, n, 2)) * fit.beta_se.to_numpy()
    D = fit.D.to_numpy() * np.exp(spread * 0.3 * rng.normal(size=(2, n, 1, 1)))
    kept = {"beta": beta, "D": D}
    return SimpleNamespace(design=fit.design, has_draws=True, draws=kept.__getitem__), kept


def test_a_posterior_that_is_a_point_has_the_coefficients_of_the_estimate(logistic):
    posterior, _ = as_draws(logistic, 50, 0.0)
    ours, theirs = (marginal_coefficients(f).table for f in (posterior, logistic))
    np.testing.assert_allclose(ours[["estimate", "conditional", "ratio"]], theirs[["estimate", "conditional", "ratio"]])
    np.testing.assert_allclose(ours["se"], 0.0, atol=1e-12)


def test_mean_spread_and_interval_are_those_of_the_draws(logistic):
    posterior, kept = as_draws(logistic, 100, 1.0)
    found = marginal_coefficients(posterior, 0.8)
    beta, D = kept["beta"].reshape(-1, 2), kept["D"].reshape(-1, 1, 1)
    each = np.stack(
        [average_coefficients(logistic.family, logistic.design, b, V) for b, V in zip(beta, D, strict=True)]
    )
    np.testing.assert_allclose(found.table["estimate"], each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.table[["lower", "upper"]].T, np.quantile(each, [0.1, 0.9], axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diag(found.cov)), found.table["se"], rtol=1e-12)
    assert "p" not in found.table and "about the mean over all of them" in " ".join(repr(found).split())
