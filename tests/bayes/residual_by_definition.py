"""The posterior of a residual structure, written down a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from priors_by_definition import as_written, natural, prior_of_beta, prior_of_theta
from scipy import stats
from scipy.special import expit
from structures_by_definition import second_definition
from textbook import marginal_covariance

import hierlmm as hl
from hierlmm.bayes.distributions import ScaledBeta
from hierlmm.covariance.parameters import Decay


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
