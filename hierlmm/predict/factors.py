"""Predictions of a fit with several grouping factors: each factor adds the random effects of a row's group.

    x'β + Σ_k z_k'b_k[group]        over the factors of the level

A group that was not in the data has b ~ N(0, D): its mean 0 is in the estimate, D in an interval. Given θ the errors of
β̂ and of all b̂ have the covariance ``σ² M⁻¹``, M the matrix of Henderson's equations, with b = Hu and D = HH':

    M = [[X'X, X'ZH], [H'Z'X, H'Z'ZH + σ²I]]

How θ̂ enters is said in `predict.likelihood`: BLUPs that move with it, and Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import columns_of, factors_at, new_rows, own_part
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.fits.base import INTERVALS
from hierlmm.fits.several import SEE
from hierlmm.frames import quote, shorten
from hierlmm.likelihood.large_sample import differences
from hierlmm.likelihood.solution import Solution
from hierlmm.options import check_ci, choose
from hierlmm.predict.generalised import random_variance
from hierlmm.predict.lines import interval_table, quantile_note, with_theta
from hierlmm.predict.rows import differing, pieces, refuse_other_types
from hierlmm.results import NotedTable

if TYPE_CHECKING:
    from hierlmm.fits.multilevel import MultilevelNumbers
    from hierlmm.fits.several_numbers import FactorNumbers

MOST_EFFECTS = 1000
"""Random effects of all groups up to which intervals are worked out, by dense matrices of their size."""
LINES = {
    "all": "the line of the row's groups, with the random effects of all factors",
    "population": "the line at b = 0: groups exactly in the middle of all",
}


@dataclass(frozen=True)
class FactorRows:
    """Rows to predict: X (n, p), X1 (n, k), offset (n,), and positions of their groups by factor, -1 for new ones."""

    X: FloatArray
    X1: FloatArray
    offset: FloatArray
    index: pd.Index
    groups: dict[int, IntArray]

    @property
    def new(self) -> BoolArray:
        """Rows with a group that was not in the data, (n,)."""
        return np.any([np.zeros(len(self.X), dtype=bool), *(at < 0 for at in self.groups.values())], axis=0)

    def take(self, part: slice | BoolArray) -> FactorRows:
        """Some of the rows."""
        groups = {k: at[part] for k, at in self.groups.items()}
        return FactorRows(self.X[part], self.X1[part], self.offset[part], self.index[part], groups)


def predict_factors(
    fit: MultilevelNumbers, newdata: Any, level: str, interval: str | None, ci: float, new_groups: str
) -> pd.DataFrame:
    """See `MultilevelFit.predict`."""
    choose("new_groups", new_groups, ("refuse", "allow"))
    if interval is not None:
        choose("interval", interval, INTERVALS)
    check_ci(ci)
    rows = rows_to_predict(fit.design, newdata, level, new_groups)
    estimate = point_estimates(fit, rows)
    if interval is None:
        return told(pd.DataFrame({"estimate": estimate}, index=rows.index), level, None, ci, "")
    variances, shifts = _moments(fit, rows, prediction=interval == "prediction")
    variance, df = with_theta(variances, shifts)
    return told(interval_table(estimate, variance, ci, df, rows.index), level, interval, ci, quantile_note(df))


def point_estimates(fit: FactorNumbers, rows: FactorRows) -> FloatArray:
    """Lines of rows at the estimates, or posterior means, of β and b: (n,)."""
    return lines_of(rows, fit.design, fit.beta.to_numpy(), [b.to_numpy() for b in fit.b.values()])


def lines_of(rows: FactorRows, design: Design, beta: FloatArray, b: Sequence[FloatArray]) -> FloatArray:
    """Linear predictors of rows, (n,), at fixed effects and random effects by factor; new groups have none."""
    found = rows.offset + rows.X @ beta
    for k, at in rows.groups.items():
        own = np.where(at[:, None] >= 0, b[k][at], 0.0)
        found = found + np.einsum("ij,ij->i", rows.X1[:, design.random[k].columns.columns], own)
    return found


def line_in_words(level: str) -> str:
    """What the line at a level is."""
    return LINES.get(level, f"the line of the row's {level}: its random effects, and those of what it is nested in")


def told(table: pd.DataFrame, level: str, interval: str | None, ci: float, quantile: str) -> pd.DataFrame:
    """A table of predictions that says in words what it is."""
    words = line_in_words(level)
    attrs: dict[str, Any] = {"level": level, "scale": "response", "estimate": words}
    if interval is not None:
        about = f"a new measurement on {words}" if interval == "prediction" else words
        attrs |= {"ci": ci, "interval": f"{100 * ci:g} % for {about}", "quantile": quantile}
    noted = NotedTable(table)
    noted.attrs |= attrs
    return noted


def rows_to_predict(design: Design, newdata: Any, level: str, new_groups: str) -> FactorRows:
    """New rows, or the fitted ones, with their groups of the factors of a level.

    Raises
    ------
    DataError
        If a column is absent, a value is missing, or a group is not in the fitted data.
    """
    factors = factors_at(design, level)
    if newdata is None:
        groups = {k: design.random[k].group.index for k in factors}
        return FactorRows(design.X, design.X1, design.offset, design.frame.index, groups)
    new, found = new_rows(design, newdata, factors)
    for k, group in zip(factors, found, strict=True):
        for name in columns_of(design, k):
            refuse_other_types(
                pd.Index(design.frame[name].unique()), name, new.frame[name][group.at < 0].unique(), level
            )
        if new_groups == "refuse" and np.any(group.at < 0):
            unknown = shorten(map(quote, pd.unique(group.labels[group.at < 0])))
            received = f"{design.random[k].columns.group} {unknown} at level={level!r}"
            reason = "not in the fitted data, so that the random effects are unknown"
            remedy = "use new_groups='allow' for such groups drawn at random, or a level without this factor"
            raise DataError(received, reason, remedy, SEE)
        _same_covariates(design, new.frame, k, group.at)
    at = {k: group.at for k, group in zip(factors, found, strict=True)}
    return FactorRows(new.X, new.X1, new.offset, new.frame.index, at)


def _same_covariates(design: Design, frame: pd.DataFrame, k: int, at: IntArray) -> None:
    """Refuse a covariate of known groups that is not what it was: b̂ is their departure from their own expectation."""
    group, (known,) = design.random[k].group, np.nonzero(at >= 0)
    first = np.unique(group.index, return_index=True)[1]
    for variable in design.terms.variables:
        fitted = design.frame[variable].iloc[first]
        if np.any(differing(fitted.iloc[group.index], design.frame[variable])):
            continue  # it varies within groups
        own = fitted.iloc[at[known]]
        if len(other := np.flatnonzero(differing(own, frame[variable].iloc[known]))):
            row, who = int(other[0]), f"{group.labels.name} {quote(group.labels[at[known]][other[0]])}"
            received = f"{variable!r} = {quote(frame[variable].iloc[known].iloc[row])} for {who}"
            was = f"in the fitted data it is {quote(own.iloc[row])}"
            reason = f"{was}, and the random effects of {who} are its departure from what that predicts"
            remedy = f"give {who} its own value, or another label with new_groups='allow', or use a level without it"
            raise DataError(received, reason, remedy, SEE)


def _moments(fit: MultilevelNumbers, rows: FactorRows, *, prediction: bool) -> tuple[FloatArray, FloatArray]:
    """Variances and their derivatives in θ (n, 1 + r), and derivatives of estimates (n, r); (n, 0) at b = 0."""
    equations = Equations(fit.design)
    states, steps = fit.large_sample.neighbours()
    lines, variances = zip(*(equations.at(state, rows) for state in states), strict=True)
    noise = np.array([state.sigma**2 if prediction else 0.0 for state in states])
    found = differences(np.stack(variances) + noise[:, None], steps).T
    shifts = differences(np.stack(lines), steps)[1:].T
    return found, shifts if rows.groups else shifts[:, :0]


def new_groups_variance(design: Design, D: FloatArray, rows: FactorRows) -> FloatArray:
    """Variances z'Dz of the groups of rows that were not in the data, (n,)."""
    variance = np.zeros(len(rows.X))
    for k, at in rows.groups.items():
        own = random_variance(rows.X1[:, design.random[k].columns.columns], D[own_part(design, k)])
        variance += np.where(at < 0, own, 0.0)
    return variance


def n_effects(design: Design) -> int:
    """Random effects of all groups of all factors."""
    return sum(len(own.columns.names) * len(own.group.labels) for own in design.random)


class Equations:
    """Henderson's equations of all rows; X by an orthonormal basis, random effects factor by factor.

    Raises
    ------
    NotAvailableError
        If there are more than `MOST_EFFECTS` random effects.
    """

    def __init__(
        self,
        design: Design,
        what: str = "intervals of predictions",
        remedy: str = "leave interval out; fit.b_sd has errors of single effects",
    ) -> None:
        self.design = design
        self.sizes = [len(own.columns.names) for own in design.random]
        lengths = [size * len(own.group.labels) for size, own in zip(self.sizes, design.random, strict=True)]
        self.starts = np.cumsum([design.X.shape[1], *lengths]).tolist()
        if (many := n_effects(design)) > MOST_EFFECTS:
            reason = f"they need dense matrices of that size, which are made for up to {MOST_EFFECTS:,}"
            raise NotAvailableError(f"{what} with {many:,} random effects", reason, remedy, SEE)

    @cached_property
    def basis(self) -> tuple[FloatArray, FloatArray]:
        """Q and R of X = QR."""
        Q, R = np.linalg.qr(self.design.X)
        return Q, R

    @cached_property
    def rows(self) -> Any:
        """[Q Z] of the fitted rows, sparse."""
        from scipy.sparse import csr_array, hstack

        own = [csr_array(self.effects(k, own.group.index, own.Z)) for k, own in enumerate(self.design.random)]
        return hstack([csr_array(self.basis[0]), *own], format="csr")

    @cached_property
    def products(self) -> tuple[FloatArray, FloatArray]:
        """[Q Z]'[Q Z] and [Q Z]'y."""
        W = self.rows
        return (W.T @ W).toarray(), W.T @ (self.design.y - self.design.offset)

    def effects(self, k: int, at: IntArray, Z: FloatArray) -> Any:
        """Sparse Z of one factor, (n, J q): rows of new groups have none."""
        from scipy.sparse import coo_array

        size, (known,) = self.sizes[k], np.nonzero(at >= 0)
        columns = (at[known, None] * size + np.arange(size)).ravel()
        shape = (len(at), self.starts[k + 1] - self.starts[k])
        return coo_array((Z[known].ravel(), (np.repeat(known, size), columns)), shape=shape)

    def factor(self, state: Solution) -> Any:
        """Cholesky factor of M at one θ."""
        M = self.scaled(self.scaled(self.products[0], state).T, state)
        M[np.diag_indices_from(M)] += np.where(np.arange(len(M)) < self.starts[0], 0.0, state.sigma**2)
        return cho_factor(M, lower=True)

    def at(self, state: Solution, rows: FactorRows) -> tuple[FloatArray, FloatArray]:
        """Estimates of rows at one θ, and variances of their errors given it: (n,), (n,)."""
        L = self.factor(state)
        u = cho_solve(L, self.scaled(self.products[1][None], state)[0])
        line, variance = rows.offset.copy(), np.zeros(len(rows.X))
        for part in pieces(len(rows.X), 2.0 * len(u)):
            own = self.scaled(self.columns(rows.take(part)), state)
            line[part] += own @ u
            error = solve_triangular(L[0], own.T, lower=True)
            variance[part] = state.sigma**2 * np.einsum("ij,ij->j", error, error)
        return line, variance + new_groups_variance(self.design, state.D, rows)

    def columns(self, rows: FactorRows) -> FloatArray:
        """[Q Z] of rows to predict, dense."""
        found = np.zeros((len(rows.X), self.starts[-1]))
        found[:, : self.starts[0]] = np.linalg.solve(self.basis[1].T, rows.X.T).T
        for k, at in rows.groups.items():
            Z = rows.X1[:, self.design.random[k].columns.columns]
            found[:, self.starts[k] : self.starts[k + 1]] = self.effects(k, at, Z).toarray()
        return found

    def scaled(self, columns: FloatArray, state: Any) -> FloatArray:
        """Columns of all random effects times I ⊗ H of their factor."""
        found = columns.copy()
        for k, (lo, hi) in enumerate(pairwise(self.starts)):
            H = state.root[own_part(self.design, k)]
            found[:, lo:hi] = (columns[:, lo:hi].reshape(len(columns), -1, len(H)) @ H).reshape(len(columns), -1)
        return found
