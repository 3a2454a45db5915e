"""Prediction intervals cover what they promise, in studies with known parameters."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import hierlmm as hl
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import maximise_design

D_TRUE = np.array([[1.0, 0.1], [0.1, 0.25]])
TIMES = np.arange(7.0)
BETA = np.array([10.0, 1.0])


def _study(n_subjects, seed):
    data = hl.simulate(
        beta={"Intercept": 10.0, "time": 1.0},
        D=D_TRUE,
        sigma=1.0,
        random=["Intercept", "time"],
        n_subjects=n_subjects,
        times=np.arange(4.0),
        seed=0,
    )
    design = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data).design
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(D_TRUE)
    while True:
        b = rng.standard_normal((n_subjects, 2)) @ root.T
        line = design.X @ BETA + np.einsum("ij,ij->i", design.Z, b[design.subject_index])
        yield design.with_response(line + rng.standard_normal(design.n_obs)), rng


def _coverage(table, mean, sd):
    return norm.cdf((table["upper"] - mean) / sd) - norm.cdf((table["lower"] - mean) / sd)


def _future(rng, h):
    """A new subject's first h measurements, and the true mean and variance of the line given them."""
    x = np.column_stack([np.ones(7), TIMES])
    b = np.linalg.cholesky(D_TRUE) @ rng.standard_normal(2)
    y = x[:h] @ (BETA + b) + rng.standard_normal(h)
    gain = x @ D_TRUE @ x[:h].T @ np.linalg.inv(x[:h] @ D_TRUE @ x[:h].T + np.eye(h))
    variance = np.einsum("ia,ab,ib->i", x, D_TRUE, x) - np.einsum("ij,ij->i", gain, x @ D_TRUE @ x[:h].T)
    return pd.DataFrame({"time": TIMES[:h], "y": y}), x @ BETA + gain @ (y - x[:h] @ BETA), variance


# One study's exact coverage varies as its standard error does: 2 z φ(z) / √(2 · 14) = 0.043, and a little for the mean.
SD_OF_COVERAGE = 0.05


def test_reml_intervals_for_new_subjects_cover_with_15_subjects():
    """Coverage is computed exactly for each simulated study, so 100 of them give a Monte-Carlo error below 0.7 %."""
    x = np.column_stack([np.ones(7), TIMES])
    sd = np.sqrt(np.einsum("ia,ab,ib->i", x, D_TRUE, x) + 1.0)
    new = pd.DataFrame({"time": TIMES})
    fresh, dynamic, plug_in = [], [], []
    for (design, rng), _ in zip(_study(15, 1), range(100), strict=False):
        fit = fit_of(maximise_design(design, reml=True))
        table = fit.predict(new, "new_subject", "prediction")
        fresh.append(_coverage(table, x @ BETA, sd))
        normal = norm.ppf(0.975) * table["se"]
        plug_in.append(_coverage({"lower": table.estimate - normal, "upper": table.estimate + normal}, x @ BETA, sd))
        history, mean, variance = _future(rng, 2)
        table = fit.predict_subject(history, TIMES[2:], interval="prediction")
        dynamic.append(_coverage(table, mean[2:], np.sqrt(variance[2:] + 1.0)))
    for covered in (np.array(fresh), np.array(dynamic)):
        assert np.all(np.abs(covered.mean(axis=0) - 0.95) < 0.02 + 2 * SD_OF_COVERAGE / np.sqrt(len(covered)))
    # With normal quantiles they would be short: the test can tell.
    assert np.mean(plug_in) < np.mean(fresh) - 0.008


@pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")  # short chains, a hard history: all count
def test_nuts_intervals_for_new_subjects_cover():
    x = np.column_stack([np.ones(7), TIMES])
    sd = np.sqrt(np.einsum("ia,ab,ib->i", x, D_TRUE, x) + 1.0)
    fresh, dynamic = [], []
    for (design, rng), seed in zip(_study(15, 2), range(25), strict=False):
        data = design.frame.assign(y=design.y)
        model = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data)
        fit = model.fit(draws=1000, tune=500, chains=2, seed=seed, progressbar=False, random_effects="none")
        fresh.append(_coverage(fit.predict(pd.DataFrame({"time": TIMES}), "new_subject", "prediction"), x @ BETA, sd))
        history, mean, variance = _future(rng, 2)
        table = fit.predict_subject(history, TIMES[2:], interval="prediction")
        dynamic.append(_coverage(table, mean[2:], np.sqrt(variance[2:] + 1.0)))
    for covered in (np.array(fresh), np.array(dynamic)):
        assert np.all(np.abs(covered.mean(axis=0) - 0.95) < 0.02 + 2 * SD_OF_COVERAGE / np.sqrt(len(covered)))
