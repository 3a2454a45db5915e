"""Serial residual structures in the explicit PyMC model: each measurement given the subject's earlier ones.

With m_t = (y_t - μ_t)/g_t and the semiseparable form of `hierlmm.likelihood.rows`,

    y_t | y_1..t-1, μ ~ N(μ_t + g_t u f_t, σ² g_t² D_t)

where without a nugget f_t = d_t m_{t-1}, D_t = 1 - d_t²; under compound symmetry, with k earlier rows,
u f_t = ρ Σ m / (1 + (k - 1) ρ), D_t = (1 - ρ)(1 + kρ) / (1 + (k - 1) ρ); and with a nugget the recursion itself,
unrolled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.distribution import Prior, as_pymc_variable
from hierlmm.bayes.distributions import Uniform
from hierlmm.bayes.record import residual_group
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.covariance.bind import BoundCorrelation
from hierlmm.covariance.parameters import Parameter
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.residual_rows import ResidualRows, residual_rows

LONGEST = 60
"""Most rows of a subject for which the recursion with a nugget is unrolled."""


def refuse_dense(design: Design, priors: ResolvedPriors) -> None:
    """Refuse structures and priors that the explicit model does not write out.

    Raises
    ------
    NotAvailableError
    """
    if not design.has_residual_structure:
        return
    see = "docs, page 'Residual structures'"
    remedy = "use sampler='auto', which takes the collapsed route, or a serial structure"
    correlation, variance = design.residual, design.residual_variance
    if correlation is not None and not correlation.explicit:
        reason = "the explicit model is written for AR1, CAR1, Exponential and CompoundSymmetry"
        raise NotAvailableError(f"{correlation} in PyMC", reason, remedy, see)
    if variance is not None and not variance._linear:
        reason = "the explicit model is written for VarIdent, VarPower and VarExp"
        raise NotAvailableError(f"{variance} in PyMC", reason, remedy, see)
    if correlation is not None and correlation.has_nugget and design.rows_per_subject.max() > LONGEST:
        reason = f"a subject has {design.rows_per_subject.max()} rows, and the recursion is written out up to {LONGEST}"
        raise NotAvailableError(f"{correlation} in PyMC", reason, remedy, see)
    parameters = residual_rows(design).parameters
    for parameter, prior in zip(parameters, priors.residual, strict=True):
        if not _fits(parameter, prior):
            reason = "the explicit model does not cut a prior off at the range of its parameter"
            raise NotAvailableError(f"{parameter.name} ~ {prior} in PyMC", reason, remedy, see)


def _fits(parameter: Parameter, prior: Prior) -> bool:
    if np.isinf(parameter.lower):
        return True
    if np.isinf(parameter.upper):
        return parameter.lower == 0.0 and prior.is_positive
    return isinstance(prior, Uniform) and prior.lower >= parameter.lower and prior.upper <= parameter.upper


def conditional_moments(design: Design, priors: ResolvedPriors, mu: Any, sigma: Any) -> tuple[Any, Any]:
    """Declare the residual parameters; mean and SD of every measurement given the earlier ones: (N,), (N,).

    ``sigma`` is the SD that `sd_name` names; where that is the average row's, ``sigma`` itself follows from it.
    """
    import pymc as pm
    import pytensor.tensor as pt

    rows = residual_rows(design)
    priors_of = zip(rows.parameters, priors.residual, strict=True)
    values = [as_pymc_variable(variable_name(p), [prior], None, [p.name]) for p, prior in priors_of]
    k = rows.n_correlation
    order = rows.rows.order
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    ratio, shift = log_ratio(rows, values[k:])
    g = pt.exp(ratio)  # in the order of rows
    if sd_name(design) != "sigma":
        pm.Deterministic("sigma", sigma * pt.exp(-shift))
    if rows.correlation is None:
        return mu, sigma * g[back]
    own, y = mu[order], design.y[order]
    share, D = _recursion(rows, values[:k], (y - own) / g)
    return (own + g * share)[back], (sigma * g * pt.sqrt(D))[back]


def variable_name(parameter: Parameter) -> str:
    """Name of a residual parameter in PyMC."""
    return "residual_" + parameter.name.replace("/", ":")  # PyMC allows no slash


def sd_name(design: Design) -> str:
    """Name of the SD that has the prior: ``sigma``, or that of the average row under a centred variance function."""
    variance = design.residual_variance
    return "sigma_average_row" if variance is not None and variance.centred else "sigma"


def log_ratio(rows: ResidualRows, values: list[Any]) -> tuple[Any, Any]:
    """Log g of each row over the SD that has the prior, and that SD's own; the logarithm is linear in η."""
    import pytensor.tensor as pt

    if rows.variance is None:
        return pt.zeros(rows.n_obs), pt.zeros(())
    zero = np.zeros(len(values))
    total = pt.as_tensor_variable(rows.variance.centred_log_ratio(zero))  # of known weights
    shift = pt.as_tensor_variable(rows.variance.shift(zero))
    weights, centred = rows.variance.derivatives(zero), rows.variance.centred_derivatives(zero)
    for parameter, value, raw, weight in zip(rows.variance.parameters, values, weights, centred, strict=True):
        scaled = value / parameter.unit
        scaled = pt.log(scaled) if np.isfinite(parameter.lower) else scaled
        total, shift = total + weight * scaled, shift + float(np.mean(raw - weight)) * scaled
    return total, shift


def _recursion(rows: ResidualRows, values: list[Any], m: Any) -> tuple[Any, Any]:
    """U f and D of every row, in the order of rows."""
    import pytensor.tensor as pt

    correlation, start = rows.correlation, rows.start
    assert correlation is not None
    u, decay = _explicit_form(correlation, values)
    place = np.arange(rows.n_obs) - np.repeat(start[:-1], np.diff(start))
    first = place == 0
    if decay is None:
        total = pt.cumsum(m)
        before = pt.concatenate([pt.zeros(1), total[:-1]])
        own = before - before[np.repeat(start[:-1], np.diff(start))]
        k = place.astype(np.float64)
        denominator = pt.switch(first, 1.0, 1.0 + (k - 1.0) * u)
        D = pt.switch(first, 1.0, (1.0 - u) * (1.0 + k * u) / denominator)
        return pt.switch(first, 0.0, u * own / denominator), D
    if u is None:
        previous = np.maximum(np.arange(rows.n_obs) - 1, 0)
        return pt.switch(first, 0.0, decay * m[previous]), pt.switch(first, 1.0, 1.0 - decay**2)
    return _unrolled(rows, u, decay, m)


def _explicit_form(correlation: BoundCorrelation, values: list[Any]) -> tuple[Any, Any]:
    """Share and decays of every row; None as in `ResidualCorrelation.explicit_form`."""
    import pytensor.tensor as pt

    u: Any = 0.0
    decay: Any = 0.0
    for level in correlation.levels:
        share, own = level.spec.explicit_form(correlation.gaps, values[level.own], pt)
        u = None if share is None else u + pt.where(level.rows, share, 0.0)
        decay = None if own is None else decay + pt.where(level.rows, own, 0.0)
    return u, decay


def _unrolled(rows: ResidualRows, u: Any, decay: Any, m: Any) -> tuple[Any, Any]:
    """The recursion with a nugget, over places, for all subjects at once."""
    import pytensor.tensor as pt

    start, n = rows.start, np.diff(rows.start)
    J, longest = len(n), int(n.max())
    places = np.minimum(start[:-1][:, None] + np.arange(longest), rows.n_obs - 1)
    S, f, z, u = pt.zeros(J), pt.zeros(J), m[places[:, 0]], u[places[:, 0]]
    D, w = pt.ones(J), pt.ones(J)
    shares, variances = [pt.zeros(J)], [pt.ones(J)]
    for t in range(1, longest):
        d = decay[places[:, t]]
        S = d**2 * (S + D * w**2)
        f = d * (f + w * z)
        D = 1.0 - u**2 * S
        w = (1.0 - u * S) / D
        z = m[places[:, t]] - u * f
        shares.append(u * f)
        variances.append(D)
    subject = np.repeat(np.arange(J), n)
    place = np.arange(rows.n_obs) - start[subject]
    return pt.stack(shares)[place, subject], pt.stack(variances)[place, subject]


def residual_draws(design: Design, raw: Mapping[str, FloatArray]) -> tuple[dict[str, FloatArray], Any]:
    """Posterior variables of the residual structure from draws of the free ones, and their group of the tree."""
    rows = residual_rows(design)
    natural = np.stack([raw[variable_name(p)] for p in rows.parameters], axis=-1)
    eta = np.stack([np.vectorize(p.unconstrained)(natural[..., j]) for j, p in enumerate(rows.parameters)], axis=-1)
    k = rows.n_correlation
    found = {"residual_correlation": natural[..., :k], "residual_variance": natural[..., k:]}
    group = residual_group([p.name for p in rows.parameters], eta)
    return {name: values for name, values in found.items() if values.shape[-1]}, group


def sigma_draws(design: Design, raw: Mapping[str, FloatArray]) -> FloatArray:
    """Draws of σ from those of the average row's SD."""
    rows = residual_rows(design)
    eta = residual_draws(design, raw)[1]["unconstrained"].to_numpy()
    shift = np.array([rows.shift(e) for e in as_rows(eta)]).reshape(eta.shape[:-1])
    return raw[sd_name(design)] * np.exp(-shift)
