"""Residuals and random effects of several factors as linear functions of the response, and of responses drawn anew.

At the fit's θ̂ Henderson's equations (`predict.factors`) give β̂ and all b̂ of any response. With A the matrix that makes
fitted values of responses, r = (I - A) y has

    Cov(r) = σ² (I - A),      Cov(b̂) = D - Cov(b̂ - b)

so that every residual and every random effect is divided by its own SD.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.stats import norm

from hierlmm.arrays import FloatArray, Rng
from hierlmm.design.factors import ALL, own_part
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.replicate import drawn_of_factors
from hierlmm.fits.components import zero_terms
from hierlmm.fits.multilevel import MultilevelNumbers
from hierlmm.predict.factors import Equations, rows_to_predict


class FactorResiduals:
    """What the responses of a fit's rows become at its θ̂.

    Raises
    ------
    NotAvailableError
        If there are too many random effects for dense equations.
    """

    def __init__(self, fit: MultilevelNumbers) -> None:
        self.fit, self.design, self.equations = fit, fit.design, Equations(fit.design)
        self.state = fit.solution

    @cached_property
    def W(self) -> FloatArray:
        """[Q Z] of the rows, random effects times the roots of their D: (N, p + T)."""
        rows = rows_to_predict(self.design, None, ALL, "refuse")
        return self.equations.scaled(self.equations.columns(rows), self.state)

    @cached_property
    def root(self) -> Any:
        """Factor of Henderson's matrix."""
        M = self.W.T @ self.W
        p = self.equations.starts[0]
        M[np.diag_indices_from(M)] += np.where(np.arange(len(M)) < p, 0.0, self.state.sigma**2)
        return cho_factor(M, lower=True)

    def coefficients(self, Y: FloatArray) -> FloatArray:
        """Coefficients of the columns of W for responses (N, S): (p + T, S)."""
        return np.asarray(cho_solve(self.root, self.W.T @ (Y - self.design.offset[:, None])))

    def fitted(self, Y: FloatArray, level: str) -> FloatArray:
        """Fitted values (N, S) with all random effects, or with none."""
        u = self.coefficients(Y)
        if level == "population":
            u[self.equations.starts[0] :] = 0.0
        return self.design.offset[:, None] + self.W @ u

    @cached_property
    def sd(self) -> FloatArray:
        """SD of every residual over samples, (N,)."""
        half = solve_triangular(self.root[0], self.W.T, lower=True)
        return self.state.sigma * np.sqrt(np.maximum(1.0 - np.einsum("tn,tn->n", half, half), 0.0))

    def effects(self, Y: FloatArray, k: int) -> FloatArray:
        """Random effects of factor k for responses (N, S): (J, q, S)."""
        lo, hi = self.equations.starts[k : k + 2]
        H = self.state.root[own_part(self.design, k)]
        return np.einsum("ab,jbs->jas", H, self.coefficients(Y)[lo:hi].reshape(-1, len(H), Y.shape[1]))

    def draw(self, n: int, rng: Rng) -> FloatArray:
        """Responses drawn from the fitted model, (N, n)."""
        at, design = self.state, self.design
        roots = [at.root[own_part(design, k)] for k in range(len(design.random))]
        return np.column_stack([drawn_of_factors(design, at.beta, roots, at.sigma, rng)[0] for _ in range(n)])


def factor_normality(
    fit: MultilevelNumbers, levels: tuple[int, ...], ci: float, simulations: int, rng: Rng, name: str
) -> dict[str, CurveBand]:
    """Quantiles of the residuals and of the random effects of every factor, beside normal ones."""
    own = FactorResiduals(fit)
    Y = np.column_stack([fit.design.y, own.draw(simulations, rng)])
    asked: dict[str, FloatArray] = {}
    if 1 in levels:
        asked[name] = (Y - own.fitted(Y, "all"))[own.sd > 1e-8 * own.sd.max()]
        asked[name] /= own.sd[own.sd > 1e-8 * own.sd.max(), None]
    zero, spread = zero_terms(fit), fit.blup_variances()
    for k, term in enumerate(fit.design.random) if 2 in levels else ():
        factor, b = term.columns.group, own.effects(Y, k)
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
    fitted = own.fitted(Y, level)
    outside = range(len(fit.design.random)) if level == "population" else ()
    ratio = np.ones(len(Y)) if kind == "response" else np.sqrt(fit._variance_of(outside))
    return fitted, (Y - fitted) / ratio[:, None]
