"""Draws held against known moments and against each other."""

from __future__ import annotations

import arviz as az
import numpy as np

from hierlmm.bayes.record import posterior_record
from hierlmm.bayes.tree import matrices
from hierlmm.fit.make import fit_of


def check_moments(draws, mean, covariance):
    """Mean and covariance of S draws within 5 standard errors."""
    S, sd = len(draws), np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 5 / np.sqrt(S)
    expected = covariance / np.outer(sd, sd)
    observed = np.cov(draws, rowvar=False).reshape(expected.shape) / np.outer(sd, sd)
    assert (np.abs(observed - expected) < 5 * np.sqrt((1 + expected**2) / S)).all()


def largest_difference(a, b, name, method="mean"):
    """Largest difference of means (or SDs) of a variable between two fits, in Monte-Carlo standard errors."""
    x, y = (f.draws(name).reshape(*f.draws(name).shape[:2], -1) for f in (a, b))
    keep = np.ptp(x, axis=(0, 1)) > 0
    statistic = np.mean if method == "mean" else np.std
    errors = [np.array([float(az.mcse(v[..., k], method=method)) for k in np.flatnonzero(keep)]) for v in (x, y)]
    difference = (statistic(x, axis=(0, 1)) - statistic(y, axis=(0, 1)))[keep]
    return float(np.abs(difference / np.hypot(*errors)).max())


def posterior_like(fit, shift=0.0, **options):
    """A posterior without sampling: the fit's large-sample draws, moved by ``shift`` standard errors of beta."""
    posterior = fit.to_datatree(**options)["posterior"].to_dataset()
    draws = {name: posterior[name].to_numpy() for name in ("beta", "b", "sd_b", "sigma")}
    draws["corr_b"], draws["D"] = matrices(fit.design, posterior)
    draws["beta"] = draws["beta"] + shift * fit.beta_se.to_numpy()
    attrs = {"estimator": "NUTS", "sampler": "explicit"}
    return fit_of(posterior_record(fit.design, None, draws, None, attrs, log_likelihood=False))
