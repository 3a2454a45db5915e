"""Priors of the residual parameters, and their densities on the unconstrained scale on which the sampler moves.

With value(η) as in `hierlmm.covariance.parameters` the density of η is ``p(value(η)) |d value / dη|``. Three families
have a closed form in three numbers (kind, a, b): a Beta(a, a) share of the range, a normal η, and a uniform correlation
one unit of time apart, of which η is the logarithm of the range. Python and compiled code evaluate the same function.
A prior that is None adds nothing: somebody else has it.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import LogNormal, Normal, ScaledBeta, Uniform
from hierlmm.compiled import compiled
from hierlmm.covariance.declared import difference
from hierlmm.covariance.parameters import Decay, Parameter

BETA, NORMAL, DECAYS, NOTHING = 0.0, 1.0, 2.0, 3.0


def residual_prior(parameter: Parameter) -> Prior:
    """Default prior of a residual parameter: symmetric over a bounded range, else around its starting value."""
    if math.isinf(parameter.lower):
        return Normal(parameter.start, parameter.spread)
    if math.isinf(parameter.upper):
        return LogNormal(parameter.start, parameter.spread)
    if parameter.shape == 1.0:
        return Uniform(parameter.lower, parameter.upper)
    return ScaledBeta(parameter.shape, parameter.lower, parameter.upper)


def narrowed(parameter: Parameter, prior: Prior) -> Parameter:
    """The parameter on the part of its range where the prior has mass; itself where that is all of it."""
    low, high = prior.support
    lower, upper = max(low, parameter.lower), min(high, parameter.upper)
    if (lower, upper) == (parameter.lower, parameter.upper):
        return parameter
    start = parameter.start
    if not lower < start < upper:
        start = 0.5 * (lower + upper) if math.isfinite(upper) else lower + parameter.unit
    return Parameter(parameter.name, start, lower, upper, unit=parameter.unit)


def closed_form(parameter: Parameter, prior: Prior | None) -> tuple[float, float, float] | None:
    """Kind, a and b of a prior on the parameter's own range; None for other families, and on a part of it."""
    if prior is None:
        return NOTHING, 0.0, 0.0
    if isinstance(parameter, Decay):
        return (DECAYS, parameter.unit, 0.0) if prior == Uniform(0.0, 1.0) else None
    match prior:
        case Uniform(lower=lower, upper=upper) if (lower, upper) == (parameter.lower, parameter.upper):
            return BETA, 1.0, 0.0
        case ScaledBeta(shape=shape, lower=lower, upper=upper) if (lower, upper) == (parameter.lower, parameter.upper):
            return BETA, shape, math.lgamma(2.0 * shape) - 2.0 * math.lgamma(shape)
        case LogNormal(median=median, spread=spread) if parameter.lower == 0.0 and np.isinf(parameter.upper):
            return NORMAL, float(np.log(median / parameter.unit)), spread
        case Normal(mean=mean, sd=sd) if np.isinf(parameter.lower):
            return NORMAL, mean / parameter.unit, sd / parameter.unit
        case _:
            return None


@compiled()
def log_prior_of_one(kind: float, a: float, b: float, eta: float) -> tuple[float, float]:
    """Log density of η in closed form, and its derivative."""
    if kind == 3.0:
        return 0.0, 0.0
    if kind == 2.0:
        log_rate = -eta - np.log(a)
        return log_rate - np.exp(log_rate), np.exp(log_rate) - 1.0
    if kind == 0.0:
        size = abs(eta)
        # p^a (1 - p)^a at p = 1/(1 + exp(-η)), without cancellation in its tails.
        return b - a * (size + 2.0 * np.log1p(np.exp(-size))), -a * np.tanh(0.5 * eta)
    z = (eta - a) / b
    return -(0.5 * z * z + np.log(b) + 0.9189385332046727), -z / b


def log_prior_of_eta(residual: tuple[tuple[Parameter, Prior | None], ...], eta: FloatArray) -> tuple[float, FloatArray]:
    """Log prior density of η (Jacobian included) and its derivatives, by differences where it has no closed form."""
    value, slope = 0.0, np.zeros(len(eta))
    for k, (parameter, prior) in enumerate(residual):
        if prior is None:
            continue
        form = closed_form(parameter, prior)
        if form is not None:
            own, slope[k] = log_prior_of_one(*form, float(eta[k]))
        else:
            density = partial(_density, parameter, prior)
            at = eta[k : k + 1]
            own, slope[k] = density(at)[0], difference(density, at, 0, 1e-3)[0]
        value += own
    return value, slope


def _density(parameter: Parameter, prior: Prior, eta: FloatArray) -> FloatArray:
    """Log density of η: (1,) -> (1,)."""
    at = float(eta[0])
    return np.array([float(prior.logpdf(parameter.natural(at))) + np.log(parameter.slope(at))])
