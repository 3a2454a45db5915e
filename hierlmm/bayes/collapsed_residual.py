"""The collapsed posterior of a model with a residual structure: β and b integrated out, θ and η sampled.

The rows are whitened by the residual parameters η at every evaluation; given η the density is that of
`collapsed_kernel` on the whitened rows, less ½ log|Σ/σ²|, plus the log prior of η on the unconstrained scale. The
derivative by η is -½ times that of ``log|V/σ²| + ⟨Γ, [X, y]'V⁻¹[X, y]⟩`` (`residual_rows`).

Where a prior allows only a part of a parameter's range, η is that of the narrower range: the sampler meets no wall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed import collapsed_posterior, find_mode, pack, starts
from hierlmm.bayes.collapsed_factors import factor_posterior
from hierlmm.bayes.collapsed_kernel import Packed, density_with_gamma, unpack
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.posterior import Collapsed, Conditional, Density
from hierlmm.bayes.predictive import reported
from hierlmm.bayes.recover import recover_residual
from hierlmm.bayes.residual_priors import log_prior_of_eta, narrowed
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.structured_kernel import compiled_structured, pack_structured
from hierlmm.covariance.parameters import Parameter
from hierlmm.design.design import Design
from hierlmm.likelihood.crossproducts import CrossProducts
from hierlmm.likelihood.residual_messages import refuse_extreme_sigma
from hierlmm.likelihood.residual_rows import ResidualRows, residual_rows

LARGEST_SHIFT = 100.0
"""Log of the average row's SD over σ beyond which the posterior of σ covers too many orders of magnitude to show."""


@dataclass(frozen=True, eq=False)
class ResidualPosterior(Collapsed):
    """The posterior of (θ, η), θ as without a structure, η the unconstrained residual parameters of ``rows``.

    Attributes
    ----------
    rows : ResidualRows
        Their parameters range over what the priors allow; ``products`` are of the rows whitened at the mode.
    residual : tuple of (Parameter, Prior or None)
    """

    rows: ResidualRows
    residual: tuple[tuple[Parameter, Prior | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Scale and parameter of each number that is sampled; residual parameters are unconstrained."""
        return (*super().names, *(p.name for p in self.rows.parameters))

    def unconstrained(self, eta: FloatArray) -> FloatArray:
        """η of the design's own parameters, from η of the narrowed ones: (..., k)."""
        out, own = eta.copy(), residual_rows(self.design).parameters
        for k, (wide, narrow) in enumerate(zip(own, self.rows.parameters, strict=True)):
            if narrow != wide:
                low, high = np.nextafter(wide.lower, np.inf), np.nextafter(wide.upper, -np.inf)
                natural = [min(max(narrow.natural(float(e)), low), high) for e in eta[..., k].ravel()]
                out[..., k] = np.reshape([wide.unconstrained(v) for v in natural], eta[..., k].shape)
        return out

    def evaluator(self) -> Density:
        """See `Collapsed.evaluator`."""
        density = _density(self.rows, self.residual, self.buffer.copy())
        mode, root = self.mode, self.root

        def evaluate(z: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = density(mode + root @ z)
            return value, root.T @ gradient

        return evaluate

    @cached_property
    def packed(self) -> FloatArray | None:
        """Numbers for the compiled density, or None where the structure takes the Python route."""
        return pack_structured(self.rows, self.residual, self.buffer, self.mode, self.root)

    def compiled(self) -> tuple[Any, FloatArray] | None:
        """See `Collapsed.compiled`."""
        return None if self.packed is None else (compiled_structured(), self.packed)

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Normalised log density log p(y, θ, η) and its gradient."""
        return _density(self.rows, self.residual, self.buffer.copy())(theta)

    def conditional(
        self, theta: FloatArray, rng: np.random.Generator, random_effects: str, few: Any = slice(None)
    ) -> Conditional:
        """See `Collapsed.conditional`; draws (S, m) are of (θ, η)."""
        eta = theta[:, self.n_theta :]
        natural, b, summary = recover_residual(self, self.rows, theta, rng, random_effects)
        names = tuple(p.name for p in self.rows.parameters)
        b = None if b is None else b[few]
        return Conditional(natural, *self.own(b, summary), self.unconstrained(eta), reported(self.rows, eta), names)


def posterior_of(design: Design, priors: ResolvedPriors) -> Collapsed:
    """The collapsed posterior of any model: on its cross-products, or on its rows where the residuals need them."""
    if design.has_several_factors:
        return factor_posterior(design, priors)
    structured = design.has_residual_structure or not design.term
    return residual_posterior(design, priors) if structured else collapsed_posterior(design, priors)


def residual_posterior(design: Design, priors: ResolvedPriors, *, signed: bool | None = None) -> ResidualPosterior:
    """Pack the model, and find the mode of (θ, η) and the curvature there.

    Parameters
    ----------
    design, priors
        The model.
    signed : bool, optional
        As in `collapsed_posterior`.
    """
    rows = _narrowed_rows(residual_rows(design), priors.residual)
    residual = tuple(zip(rows.parameters, priors.residual, strict=True))
    eta = np.array([p.unconstrained(p.start) for p in rows.parameters])
    whitened = rows.whiten(eta)
    assert whitened is not None
    buffer = pack(design, whitened.products, priors)
    density = _density(rows, residual, buffer)

    def negative(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density(theta)
        return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros_like(theta))

    candidates = [np.concatenate([base, eta + shift]) for base in starts(buffer) for shift in _shifts(rows)]
    mode, root, modes = find_mode(buffer, negative, np.array(candidates), signed)
    refuse_extreme_sigma(design, rows.shift(mode[int(buffer[1]) :]), LARGEST_SHIFT)
    at_mode = rows.whiten(mode[int(buffer[1]) :])
    assert at_mode is not None
    _put(unpack(buffer), at_mode.products)
    uncentering = priors.random_uncentering
    return ResidualPosterior(design, at_mode.products, buffer, mode, root, modes, uncentering, rows, residual)


def _narrowed_rows(rows: ResidualRows, priors: tuple[Prior, ...]) -> ResidualRows:
    """The rows with parameters that range over what their priors allow."""
    found = tuple(narrowed(p, prior) for p, prior in zip(rows.parameters, priors, strict=True))
    k = rows.n_correlation
    correlation, variance = rows.correlation, rows.variance
    return replace(
        rows,
        correlation=None if correlation is None else replace(correlation, parameters=found[:k]),
        variance=None if variance is None else replace(variance, parameters=found[k:]),
    )


def _shifts(rows: ResidualRows) -> list[FloatArray]:
    """The start itself, and beside random effects a weaker and a stronger correlation."""
    k = len(rows.parameters)
    if not rows.q or not rows.n_correlation:
        return [np.zeros(k)]
    unit = np.zeros(k)
    unit[0] = 1.0
    return [np.zeros(k), -2.0 * unit, 1.5 * unit]


def _put(packed: Packed, products: CrossProducts) -> None:
    """Put other whitened rows into the packed vector."""
    packed.S_w[:], packed.R[:], packed.C[:] = products.S_w, products.R, products.C


def _density(rows: ResidualRows, residual: tuple[tuple[Parameter, Prior | None], ...], buffer: FloatArray) -> Density:
    """Log density of (θ, η) and gradient; uses the buffer as work space."""
    m, q, P = int(buffer[1]), int(buffer[2]), int(buffer[3])
    packed, gradient, Gamma, Lambda = unpack(buffer), np.empty(m), np.empty((P, P)), np.empty((q, q))

    def density(x: FloatArray) -> tuple[float, FloatArray]:
        theta, eta = np.ascontiguousarray(x[:m]), x[m:]
        whitened = rows.whiten(eta)
        if whitened is None:
            return -np.inf, np.zeros(len(x))
        _put(packed, whitened.products)
        value = density_with_gamma(theta, gradient, buffer, Gamma, Lambda)
        prior, slope = log_prior_of_eta(residual, eta)
        by_eta = -0.5 * rows.pull_back(eta, whitened, Lambda, Gamma * np.exp(-2.0 * theta[-1])) + slope
        total = value - 0.5 * whitened.products.log_det + prior
        found = np.concatenate([gradient, by_eta])
        if not np.isfinite(total) or not np.all(np.isfinite(found)):
            return -np.inf, np.zeros(len(x))
        return float(total), found

    return density
