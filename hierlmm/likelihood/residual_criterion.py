"""REML and ML with a residual structure: a function of ψ = (λ, η), with exact gradients.

At given η the rows are whitened and the plain criterion in λ applies; whitening adds ``log|Σ/σ²|``. The derivative by η
follows from that by the whitened rows, at the same Γ that the derivative by λ uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.covariance.parameters import unconstrained_values
from hierlmm.covariance.random import RandomCovariance
from hierlmm.errors import DataError
from hierlmm.likelihood.criterion import Criterion, ExactFitError
from hierlmm.likelihood.residual_rows import ResidualRows, Whitened
from hierlmm.likelihood.solution import AnyCriterion, Evaluation
from hierlmm.options import as_point, refuse_missing

T = TypeVar("T")
EDGE = 18.0
"""Largest size of an unconstrained residual parameter with bounds: there it is at the end of its range."""
FEW_ROWS = 20_000
FEW_ROWS_SIMPLE = 1_000
MOST_GROUPS = 6


@dataclass(frozen=True, eq=False)
class ResidualCriterion(AnyCriterion):
    """The REML or ML criterion of one data set, one structure of D and one of the residuals."""

    rows: ResidualRows
    structure: RandomCovariance
    reml: bool
    whitens: ClassVar[bool] = True

    @property
    def data(self) -> ResidualRows:
        """The rows."""
        return self.rows

    @cached_property
    def starts(self) -> tuple[FloatArray, ...]:
        """Values of η to begin at, the structure's own choice first.

        Beside it weaker and stronger correlations, more nugget, and (where random effects can take the variance of one
        group over) unequal variances: such models often have several maxima.
        """
        rows, mixed = self.rows, self.structure.q > 0
        first = np.array([p.unconstrained(p.start) for p in rows.parameters])
        found, k = [first], rows.n_correlation
        if rows.correlation is not None:
            parameters = rows.correlation.parameters
            each = [level.spec.other_starts(level.observed) for level in rows.correlation.levels]
            own = [np.concatenate(values) for values in zip(*each, strict=True)]
            found += [np.concatenate([unconstrained_values(parameters, values), first[k:]]) for values in own]
        if k and len(found) == 1:
            found += [_moved(first, {0: shift}) for shift in ((-2.0, 1.5) if mixed else (-4.0, -2.0, -1.0, 1.0, 2.0))]
            if k == 2:
                found += [_moved(first, {0: shift, 1: 2.5}) for shift in (0.0, 1.5)]
        if rows.variance is not None and rows.variance.parameters and mixed:
            others = range(k, len(first))
            found += [_moved(first, dict.fromkeys(others, 6.0))]
            found += [_moved(first, {m: -2.0}) for m in others][:MOST_GROUPS]
        return tuple(found)

    @property
    def many_maxima(self) -> bool:
        """Whether to search from every start and not from the best only: several parameters compete, or few data."""
        several = self.structure.q > 1 or len(self.rows.parameters) > 1
        return self.rows.n_obs <= (FEW_ROWS if several else FEW_ROWS_SIMPLE)

    @cached_property
    def n_parameters(self) -> int:
        """Length of ψ."""
        return self.structure.n_parameters + len(self.rows.parameters)

    def split(self, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """λ and η; an η beyond ±`EDGE` is held there (the end of its range, to rounding)."""
        m = self.structure.n_parameters
        return psi[:m], np.where(self._bounded, np.clip(psi[m:], -EDGE, EDGE), psi[m:])

    @cached_property
    def _bounded(self) -> BoolArray:
        return np.array([np.isfinite(p.lower) for p in self.rows.parameters], dtype=bool)

    def _held(self, psi: FloatArray) -> BoolArray:
        """Which η are beyond ±`EDGE`, where the criterion is constant."""
        return self._bounded & (np.abs(psi[self.structure.n_parameters :]) > EDGE)

    def given(self, psi: FloatArray) -> Criterion:
        """The criterion in λ at the residual parameters of ψ."""
        plain = self.plain_at(self.split(psi)[1])
        if plain is None:
            received = "a residual covariance that is not positive definite in floating point"
            reason = "the residual parameters are at the edge of their range"
            remedy = "use another starting value or a simpler residual structure"
            raise DataError(received, reason, remedy, "docs, page 'Residual structures'")
        return plain

    def plain_at(self, eta: FloatArray) -> Criterion | None:
        """The criterion in λ at η; None where the residual covariance is not positive definite in floating point."""
        whitened = self.rows.whiten(eta)
        return None if whitened is None else self._plain(whitened)

    def __call__(self, psi: FloatArray) -> float:
        """Criterion at ψ, in the user's units; infinite where the residual covariance is not positive definite.

        Parameters
        ----------
        psi : (m,)
            Relative covariance parameters and those of the residual structure, as in ``fit.optimum.lam``.
        """
        psi = as_point(psi, self.n_parameters)
        lam, eta = self.split(psi)
        found = self._whitened(eta, lambda plain: plain(lam))
        if found is None:
            refuse_missing(psi)
            return np.inf
        return found[1]

    def evaluate(self, psi: FloatArray) -> Evaluation:
        """Criterion and gradients at ψ.

        Parameters
        ----------
        psi : (m,)
            As for a call.
        """
        psi = as_point(psi, self.n_parameters)
        lam, eta = self.split(psi)
        Lambda = self.structure.factor(lam)
        at = self._whitened(eta, lambda plain: plain.evaluate_at(Lambda))
        if at is None:
            refuse_missing(psi)
            return Evaluation(np.inf, np.zeros(len(psi)), np.zeros((self.structure.q, self.structure.q)))
        found, Gamma = at[1]
        if math.isnan(found.value):
            refuse_missing(psi)
        by_eta = self._by_eta(psi, at[0], Lambda, Gamma)
        return Evaluation(found.value, np.concatenate([found.gradient, by_eta]), found.gradient_B)

    def joint(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Criterion and gradient with σ not profiled out; parameters are (λ, η, log σ̃), σ̃ in working units of y."""
        lam, eta = self.split(parameters[:-1])
        at = self._whitened(eta, lambda plain: plain.joint_at(lam, float(parameters[-1])))
        if at is None:
            return np.inf, np.zeros(len(parameters))
        value, gradient, Gamma = at[1]
        by_eta = self._by_eta(parameters[:-1], at[0], self.structure.factor(lam), Gamma)
        return value, np.concatenate([gradient[:-1], by_eta, gradient[-1:]])

    def _whitened(self, eta: FloatArray, ask: Callable[[Criterion], T]) -> tuple[Whitened, T] | None:
        """The rows whitened at η, and the answer of their criterion; None where neither exists in floating point.

        Far out in η the weights of rows differ by more than floating point holds.
        """
        whitened = self.rows.whiten(eta)
        try:
            return None if whitened is None else (whitened, ask(self._plain(whitened)))
        except ExactFitError:
            return None

    def _by_eta(self, psi: FloatArray, at: Whitened, Lambda: FloatArray, Gamma: FloatArray) -> FloatArray:
        """Gradient in η: zero beyond the end of a range."""
        return np.where(self._held(psi), 0.0, self.rows.pull_back(self.split(psi)[1], at, Lambda, Gamma))

    def _plain(self, whitened: Whitened) -> Criterion:
        return Criterion(whitened.products, self.structure, self.reml)


def _moved(eta: FloatArray, shifts: dict[int, float]) -> FloatArray:
    moved = eta.copy()
    for k, shift in shifts.items():
        moved[k] += shift
    return moved
