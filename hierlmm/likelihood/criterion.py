"""REML and ML as functions of the relative covariance parameters λ, with exact gradients.

With β and σ profiled out (Q as in `kernel`, in working columns, n = N - p for REML and N for ML, p(·) the REML part)

    rss = Q_yy - Q_yx Q_xx⁻¹ Q_xy,   σ̂² = rss / n,
    criterion(λ) = n (log 2π σ̂² + 1) + Σ log|T_i| + [log|Q_xx|]      (-2 log-likelihood)

and with Γ = γγ'/σ̂² + [Q_xx⁻¹], γ = (-β̂, 1), its differential is ⟨Γ, dQ⟩ + d Σ log|T_i| (envelope theorem: β̂ and σ̂ are
stationary). Leaving the bracketed terms in is REML, which is the marginal likelihood of λ and σ under a flat prior on β
(Harville 1974, Biometrika 61, 383-385).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.random import RandomCovariance
from hierlmm.errors import DataError
from hierlmm.likelihood.crossproducts import CrossProducts
from hierlmm.likelihood.kernel import PatternSums, pattern_sums
from hierlmm.likelihood.residual_rows import INDEPENDENT, ResidualPart
from hierlmm.likelihood.solution import Evaluation, GivenResiduals, NormalEquations
from hierlmm.options import as_point, refuse_missing

LOG_2PI = float(np.log(2.0 * np.pi))


class ExactFitError(DataError):
    """[X, y]'V⁻¹[X, y] is singular in floating point."""


@dataclass(frozen=True)
class Criterion(GivenResiduals):
    """The REML or ML criterion of one data set and one structure of D."""

    products: CrossProducts
    structure: RandomCovariance
    reml: bool
    rows: ResidualPart = INDEPENDENT
    whitens: ClassVar[bool] = False

    @property
    def data(self) -> CrossProducts:
        """The cross-products."""
        return self.products

    def split(self, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
        """λ, and no η."""
        return lam, lam[:0]

    def given(self, lam: FloatArray) -> Criterion:
        """The criterion in λ at the residual parameters of ``lam``: itself, without a residual structure."""
        return self

    def normal_equations(self, Lambda: FloatArray) -> NormalEquations:
        """Solve for β given Λ (in working columns)."""
        return self._solve(self._sums(Lambda))

    def __call__(self, lam: FloatArray) -> float:
        """Criterion at λ, in the user's units.

        Parameters
        ----------
        lam : (m,)
            Relative covariance parameters, as in ``fit.optimum.lam``.
        """
        lam = as_point(lam, self.structure.n_parameters)
        return self._finite(self._value(self.normal_equations(self.structure.factor(lam))), lam)

    def evaluate(self, lam: FloatArray) -> Evaluation:
        """Criterion and gradients at λ, in one pass over the patterns.

        Parameters
        ----------
        lam : (m,)
            As for a call.
        """
        lam = as_point(lam, self.structure.n_parameters)
        found = self.evaluate_at(self.structure.factor(lam))[0]
        self._finite(found.value, lam)
        return found

    def _finite(self, value: float, lam: FloatArray) -> float:
        if math.isnan(value):
            refuse_missing(lam)
        return value

    def evaluate_at(self, Lambda: FloatArray) -> tuple[Evaluation, FloatArray]:
        """Criterion and gradients at Λ, and Γ."""
        ne, Gamma, gradient_B = self._derivatives(Lambda, None)
        gradient = self.structure.pull_back(2.0 * gradient_B @ Lambda)
        return Evaluation(self._value(ne), gradient, gradient_B), Gamma

    def joint(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Criterion and gradient with σ not profiled out; parameters are (λ, log σ̃), σ̃ in working units of y.

        ``n log 2π + n log σ̃² + rss/σ̃² + ...``: used for the large-sample distribution of (λ, log σ).
        """
        value, gradient, _ = self.joint_at(parameters[:-1], float(parameters[-1]))
        return value, gradient

    def joint_at(self, lam: FloatArray, log_sigma: float) -> tuple[float, FloatArray, FloatArray]:
        """As `joint`, and Γ."""
        Lambda = self.structure.factor(lam)
        precision = math.exp(-2.0 * log_sigma)
        ne, Gamma, gradient_B = self._derivatives(Lambda, precision)
        n = self.degrees
        value = n * (LOG_2PI + 2.0 * log_sigma) + ne.rss * precision + self._constant(ne)
        d_log_sigma = 2.0 * n - 2.0 * ne.rss * precision
        return value, np.append(self.structure.pull_back(2.0 * gradient_B @ Lambda), d_log_sigma), Gamma

    def _derivatives(
        self, Lambda: FloatArray, precision: float | None
    ) -> tuple[NormalEquations, FloatArray, FloatArray]:
        """β̂, Γ and the gradient in B = ΛΛ', Σ E'E − u Γ u', at 1/σ² (its best value where it is None)."""
        sums = self._sums(Lambda)
        ne = self._solve(sums)
        Gamma = self.gamma(ne, self.degrees / ne.rss if precision is None else precision)
        q = len(sums.EE)
        return ne, Gamma, sums.EE - (sums.U.reshape(q * q, Gamma.size) @ Gamma.ravel()).reshape(q, q)

    def gamma(self, ne: NormalEquations, precision: float) -> FloatArray:
        """Γ = γγ'/σ² + [Q_xx⁻¹], γ = (-β̂, 1), at 1/σ² = ``precision``: (P, P)."""
        p = len(ne.beta)
        gamma = np.empty(p + 1)
        gamma[:p], gamma[p] = -ne.beta, 1.0
        Gamma = (precision * gamma)[:, None] * gamma
        if self.reml:
            Gamma[:p, :p] += ne.Qxx_inverse
        return Gamma

    def _sums(self, Lambda: FloatArray) -> PatternSums:
        cp = self.products
        return pattern_sums(cp.R, cp.C, cp.weight, np.ascontiguousarray(Lambda))

    def _solve(self, sums: PatternSums) -> NormalEquations:
        """Generalised least squares through one Cholesky factorisation of [X, y]'V⁻¹[X, y]."""
        p = self.products.n_fixed
        try:
            L = np.linalg.cholesky(self.products.S_w + sums.G)
        except np.linalg.LinAlgError as error:
            received = "a response that the model reproduces to rounding, or numbers too large to square"
            reason = "no residual variance is left to estimate"
            remedy = "check for a response computed from a covariate, and the units of the columns"
            raise ExactFitError(received, reason, remedy, "docs, page 'Errors'") from error
        inverse = np.linalg.inv(L[:p, :p])
        beta = L[p, :p] @ inverse
        log_det = 2.0 * float(np.log(L.diagonal()[:p]).sum())
        return NormalEquations(beta, float(L[p, p]) ** 2, inverse.T @ inverse, log_det, sums.log_det_T)

    def _value(self, ne: NormalEquations) -> float:
        n = self.degrees
        return n * (LOG_2PI + math.log(ne.rss / n) + 1.0) + self._constant(ne)

    def _constant(self, ne: NormalEquations) -> float:
        """Log-determinants, and what scaling y and X took away."""
        return ne.log_det_T + self.products.log_det + self._scale_terms + (ne.log_det_Qxx if self.reml else 0.0)

    @cached_property
    def _scale_terms(self) -> float:
        scaling = self.products.scaling
        terms = 2.0 * self.degrees * float(np.log(scaling.y_scale))
        return terms + (2.0 * scaling.log_det_x if self.reml else 0.0)
