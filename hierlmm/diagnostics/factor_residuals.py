"""Residuals and random effects of several factors as linear functions of the response, and of responses drawn anew.

At the fit's θ̂ Henderson's equations (`predict.factors`) give β̂ and all b̂ of any response. With A the matrix that makes
fitted values of responses, r = (I - A) y has

    Cov(r) = σ² (I - A),      Cov(b̂) = D - Cov(b̂ - b)

so that every residual and every random effect is divided by its own SD.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import cho_solve
from scipy.stats import norm

from hierlmm.arrays import FloatArray, Rng
from hierlmm.design.factors import ALL, factors_at, own_part
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.factor_design import lam_at
from hierlmm.diagnostics.replicate import drawn_of_factors
from hierlmm.fits.components import zero_terms
from hierlmm.fits.multilevel import MultilevelNumbers
from hierlmm.likelihood.several_factors import factor_criterion
from hierlmm.likelihood.solution import Solution
from hierlmm.predict.factors import Equations, rows_to_predict


class FactorResiduals:
    """What the responses of a fit's rows become at its θ̂.

    Raises
    ------
    NotAvailableError
        If there are too many random effects for dense equations.
    """

    def __init__(self, fit: Any) -> None:
        remedy = "look at fit.residuals(), fit.b and fit.blup_variances()"
        self.equations = Equations(fit.design, "residuals of simulated responses", remedy)
        self.design, self.state = fit.design, _state(fit)

    @cached_property
    def solver(self) -> tuple[FloatArray, Any]:
        """The roots of all D as one block diagonal matrix, and the factor of Henderson's matrix."""
        return self.equations.scaled(np.eye(self.equations.starts[-1]), self.state), self.equations.factor(self.state)

    def coefficients(self, Y: FloatArray) -> FloatArray:
        """β̂, by the basis of X, and all b̂ of responses (N, S): (p + T, S)."""
        roots, factor = self.solver
        W, R = self.equations.rows, Y - self.design.offset[:, None]
        return np.asarray(roots @ cho_solve(factor, roots.T @ (W.T @ R)))

    def fitted(self, found: FloatArray, level: str) -> FloatArray:
        """Fitted values (N, S) of coefficients, with the random effects of some factors."""
        starts, inside, kept = self.equations.starts, factors_at(self.design, level), found.copy()
        for k, (lo, hi) in enumerate(pairwise(starts)):
            if k not in inside:
                kept[lo:hi] = 0.0
        return np.asarray(self.design.offset[:, None] + self.equations.rows @ kept)

    @cached_property
    def sd(self) -> FloatArray:
        """SD of every residual over samples, (N,)."""
        rows = rows_to_predict(self.design, None, ALL, "refuse")
        return np.sqrt(np.maximum(self.state.sigma**2 - self.equations.at(self.state, rows)[1], 0.0))

    def effects(self, found: FloatArray, k: int) -> FloatArray:
        """Random effects of factor k among coefficients: (J, q, S)."""
        lo, hi = self.equations.starts[k : k + 2]
        return found[lo:hi].reshape(-1, self.equations.sizes[k], found.shape[1])

    def draw(self, n: int, rng: Rng) -> FloatArray:
        """Responses drawn from the fitted model, (N, n)."""
        at, design = self.state, self.design
        roots = [at.root[own_part(design, k)] for k in range(len(design.random))]
        return np.column_stack([drawn_of_factors(design, at.beta, roots, at.sigma, rng)[0] for _ in range(n)])


def _state(fit: Any) -> Solution:
    """The fit's covariance parameters, of a posterior their means, and β̂ at these."""
    if not fit.has_draws:
        return fit.solution
    criterion = factor_criterion(fit.design, reml=True)
    return criterion.solution(lam_at(criterion, fit._D_values, fit.sigma), fit.sigma / criterion.scaling.y_scale)


def factor_normality(
    fit: MultilevelNumbers, levels: tuple[int, ...], ci: float, simulations: int, rng: Rng, name: str
) -> dict[str, CurveBand]:
    """Quantiles of the residuals and of the random effects of every factor, beside normal ones."""
    own = FactorResiduals(fit)
    Y = np.column_stack([fit.design.y, own.draw(simulations, rng)])
    found, asked = own.coefficients(Y), dict[str, FloatArray]()
    if 1 in levels:
        known = own.sd > 1e-8 * own.sd.max()  # a row that the model fits exactly has no residual
        asked[name] = (Y - own.fitted(found, ALL))[known] / own.sd[known, None]
    zero, spread = zero_terms(fit), fit.blup_variances()
    for k, term in enumerate(fit.design.random) if 2 in levels else ():
        factor, b = term.columns.group, own.effects(found, k)
        variance = spread[factor]["var_of_blup"].to_numpy().reshape(b.shape[:2])
        for r, effect in enumerate(term.columns.names):
            if f"{effect} | {factor}" not in zero:
                asked[f"{effect} | {factor}"] = b[:, r] / np.sqrt(np.maximum(variance[:, r], 1e-300))[:, None]
    return {part: _band(values, ci) for part, values in asked.items()}


def _band(values: FloatArray, ci: float) -> CurveBand:
    """Of standardised numbers (n, 1 + S), those of the data first."""
    values = np.sort(values / np.sqrt(np.mean(values**2, axis=0)), axis=0)
    expected = np.asarray(norm.ppf((np.arange(len(values)) + 0.5) / len(values)))
    return curve_band(expected, values[:, 0], values[:, 1:], ci)


def simulated_residuals(fit: Any, level: str, kind: str, n: int, rng: Rng) -> tuple[FloatArray, FloatArray]:
    """Fitted values and residuals (N, n) of responses drawn from a fit, each treated as the data were."""
    own = FactorResiduals(fit)
    Y = own.draw(n, rng)
    fitted = own.fitted(own.coefficients(Y), level)
    ratio = 1.0 if kind == "response" else np.sqrt(fit._variance_beyond(level))[:, None]
    return fitted, (Y - fitted) / ratio
