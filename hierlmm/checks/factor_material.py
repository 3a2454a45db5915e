"""What checks look at with several grouping factors: rows around the lines of all their groups, and each factor's own.

At the fit's covariance parameters fitted values and random effects are linear in the response (Henderson's equations,
`diagnostics.factor_residuals`), so that simulated responses go through the same estimation as the data. With K the
inverse of the equations times σ⁻², W = [X Z] and A = WKW', the rows g of a group are left out by

    δ = (I − A_gg)⁻¹ r_g,      β̂ − β̂_(g) = K_β W_g'δ,      Cov(β̂_(g)) = σ² (K_ββ + K_β W_g' (I − A_gg)⁻¹ W_g K_β')

(δ are the coefficients of an indicator for each of these rows.)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_solve

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.checks.material import Material, Simulated, scaled
from hierlmm.design.factors import ALL, finest_first, own_part
from hierlmm.design.formula import MULTILEVEL
from hierlmm.diagnostics.factor_residuals import FactorResiduals
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import zero_terms
from hierlmm.groups import first_rows, rows_of_groups
from hierlmm.likelihood.deletion import UNKNOWN

MOST_ROWS = 20_000
"""Rows of which as many responses are simulated as there are simulations."""
KNOWN = 1e-8
"""Share of a variance below which an effect is not told by the data."""


class FactorMaterial(Material):
    """A fit with several grouping factors, and what was simulated under it; see `Material`."""

    variant, many = "_groups", "groups"

    def __init__(self, fit: Fit, simulations: int, seed: int | None, others: Any, time: str | None) -> None:
        if others is not None or time is not None:
            received = "check(data=...)" if others is not None else "check(time=...)"
            reason = "covariates of subjects and the order of their rows belong to models with one kind of subject"
            remedy = "leave it out; put a covariate into the model to see whether it matters"
            raise NotAvailableError(f"{received} of a fit with several grouping factors", reason, remedy, MULTILEVEL)
        super().__init__(fit, simulations, seed)

    @cached_property
    def rows(self) -> IntArray:
        """All rows."""
        return np.arange(self.fit.n_obs)

    @property
    def order(self) -> list[str]:
        """Nothing rests on the order of the rows."""
        return []

    @property
    def size(self) -> str:
        """Rows and groups in words."""
        groups = ", ".join(f"{J:,} {name}" for name, J in finest_first(self.fit.design).items())
        return f"{self.fit.n_obs:,} rows, groups: {groups}"

    def name_of_row(self, row: int) -> str:
        """A row in words."""
        return f"row {self.fit.design.frame.index[row]}"

    @property
    def too_much(self) -> str:
        """See `Material`."""
        return f"there are more than {MOST_ROWS:,} rows" if self.fit.n_obs > MOST_ROWS else ""

    @cached_property
    def linear(self) -> FactorResiduals:
        """Residuals and random effects as functions of the response."""
        return FactorResiduals(self.fit)

    @cached_property
    def inverse(self) -> FloatArray:
        """K: the covariance of all coefficients over σ², X by its orthonormal basis."""
        roots, factor = self.linear.solver
        return np.asarray(roots @ cho_solve(factor, roots.T))

    @cached_property
    def drawn(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coefficients, fitted values and residuals of the data, and of simulated responses: (..., S + 1)."""
        rng, own = np.random.default_rng(self.seed), self.linear
        Y = np.column_stack([self.fit.design.y, own.draw(self.simulations, rng)])
        found = own.coefficients(Y)
        fitted = own.fitted(found, ALL)
        return found, fitted, Y - fitted

    @cached_property
    def simulated(self) -> Simulated:
        """Rows around the lines of all their groups, and random effects of all factors."""
        _, fitted, rest = self.drawn
        residual = scaled(rest, self.linear.sd**2)
        # New groups move and stretch fitted values, few of them a lot: curves are compared where those of the data lie.
        spread = fitted.std(axis=0)
        fitted = fitted[:, 0].mean() + (fitted - fitted.mean(axis=0)) * (
            spread[0] / np.where(spread > 0.0, spread, 1.0)
        )
        effects = {f"{t} | {f}": b for f, own in self.groups.items() for t, b in own.effects.items()}
        nothing = np.empty((0, 0))
        return Simulated(
            residual, residual, residual, fitted, nothing, nothing, nothing, nothing, effects=effects, evened=effects
        )

    @property
    def factors(self) -> list[str]:
        """Names of the grouping factors."""
        return [own.columns.group for own in self.fit.design.random]

    @cached_property
    def groups(self) -> dict[str, GroupMaterial]:
        """The groups of every factor."""
        return {own.columns.group: GroupMaterial(self, k) for k, own in enumerate(self.fit.design.random)}


class GroupMaterial(Material):
    """The groups of one factor, to be looked at as subjects are elsewhere.

    Parameters
    ----------
    whole : FactorMaterial
    k : int
        Position of the factor.
    """

    variant, many = "_groups", "groups"

    def __init__(self, whole: FactorMaterial, k: int) -> None:
        super().__init__(whole.fit, whole.simulations, whole.seed)
        self.whole, self.k, self.term = whole, k, whole.fit.design.random[k]

    @property
    def who(self) -> str:
        """The factor."""
        return self.term.columns.group

    @property
    def subjects(self) -> pd.Index:
        """Labels of the groups."""
        return self.term.group.labels

    @cached_property
    def by_subject(self) -> pd.DataFrame:
        """Covariates of the model that are constant within the groups."""
        design = self.fit.design
        names = dict.fromkeys([*design.level1_variables(), *design.level2_variables()])
        frame, index = design.frame, self.term.group.index
        constant = [v for v in names if v in frame and frame[v].groupby(index).nunique(dropna=False).max() <= 1]
        first = first_rows(index, len(self.subjects))
        return frame[constant].iloc[first].set_axis(self.subjects)

    @cached_property
    def sizes(self) -> IntArray:
        """Dimension of what the data say of the effects of every group, of which ``distance`` is made; at least 1."""
        return np.maximum(self._spread[1].sum(axis=1), 1)

    @cached_property
    def effects(self) -> dict[str, FloatArray]:
        """Random effects over their SDs, (J, S + 1); 0 of groups of which the data say nothing."""
        zero, found = zero_terms(self.fit), {}
        b, variance = self._b, np.einsum("jqq->jq", self._variance)
        for r, name in enumerate(self.term.columns.names):
            if f"{name} | {self.who}" not in zero:
                known = variance[:, r] > KNOWN * variance[:, r].max()
                sd = np.sqrt(np.where(known, variance[:, r], 1.0))[:, None]
                found[name] = np.where(known[:, None], b[:, r] / sd, 0.0)
        return found

    @cached_property
    def simulated(self) -> Simulated:
        """Distances of the groups' effects from zero, and the coefficients without each group."""
        axes, known = self._spread
        along = np.einsum("jqa,jqs->jas", axes, self._b)
        distance = np.sum(np.where(known[:, :, None], along, 0.0) ** 2, axis=1)
        nothing = np.empty((0, 0))
        parts = nothing, nothing, nothing, nothing, distance, *self._deleted
        return Simulated(*parts, effects=self.effects, evened=self.effects)

    @cached_property
    def _b(self) -> FloatArray:
        return self.whole.linear.effects(self.whole.drawn[0], self.k)

    @cached_property
    def _variance(self) -> FloatArray:
        """Covariances of the estimated random effects, (J, q, q)."""
        linear, (J, q) = self.whole.linear, self._b.shape[:2]
        lo, hi = linear.equations.starts[self.k : self.k + 2]
        error = np.einsum("jajb->jab", self.whole.inverse[lo:hi, lo:hi].reshape(J, q, J, q)) * linear.state.sigma**2
        return np.asarray(linear.state.D[own_part(self.fit.design, self.k)] - error)

    @cached_property
    def _spread(self) -> tuple[FloatArray, Any]:
        """Axes along which estimated effects have variance one (J, q, q), and which of them the data say (J, q)."""
        zero = zero_terms(self.fit)
        vary = np.array([f"{name} | {self.who}" not in zero for name in self.term.columns.names])
        values, vectors = np.linalg.eigh(np.where(np.outer(vary, vary), self._variance, 0.0))
        known = values > KNOWN * max(values.max(), np.finfo(np.float64).tiny)
        return vectors / np.sqrt(np.where(known, values, 1.0))[:, None, :], known

    @cached_property
    def _deleted(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Cook's distances (J, S + 1), and of the data DFBETAS and standard errors without the group over the fit's."""
        equations, K, rest = self.whole.linear.equations, self.whole.inverse, self.whole.drawn[2]
        p, J, s2 = len(self.fit.design.coef), len(self.subjects), self.whole.linear.state.sigma**2
        cook, dfbetas = np.full((J, rest.shape[1]), np.nan), np.full((J, p), np.nan)
        harder = np.full((J, p), np.nan)
        if p == 0:
            return cook, dfbetas, harder
        of_user = np.linalg.inv(equations.basis[1])
        se = np.sqrt(np.einsum("ab,bc,ac->a", of_user, K[:p, :p] * s2, of_user))
        for j, rows in enumerate(rows_of_groups(self.term.group.index, J)):
            W = equations.rows[rows].toarray()
            gain = K @ W.T
            values, vectors = np.linalg.eigh(np.eye(len(rows)) - W @ gain)
            if values[0] < UNKNOWN:  # the other rows do not determine all coefficients
                harder[j] = np.where(
                    np.abs(of_user @ gain[:p] @ vectors[:, 0]) > KNOWN * se / np.sqrt(s2), np.inf, np.nan
                )
                continue
            root = gain[:p] @ vectors / np.sqrt(values)
            change = root @ (vectors.T @ rest[rows] / np.sqrt(values)[:, None])
            cook[j] = np.einsum("as,as->s", change, np.linalg.solve(K[:p, :p] * s2, change)) / p
            dfbetas[j] = of_user @ change[:, 0] / se
            harder[j] = np.sqrt(1.0 + s2 * np.sum((of_user @ root) ** 2, axis=1) / se**2)
        return cook, dfbetas, harder
