"""The working rows of a model with a residual structure: whitened at given residual parameters, and back.

η = (correlation, variance function), unconstrained. Whitening scales every row by 1/g(δ) and decorrelates it within
its subject; after that the model has independent residuals, and the QR decomposition, the sums and the normal equations
of the plain model serve unchanged. `ResidualRows.pull_back` turns the derivative with respect to the whitened rows into
one with respect to η.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundCorrelation, BoundVariance
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.positions import Rows
from hierlmm.design.bound import bind_residual, structured_rows
from hierlmm.design.design import Design
from hierlmm.errors import DataError
from hierlmm.likelihood.crossproducts import CrossProducts, Scaling, working_columns
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.likelihood.rows import (
    SMALLEST_PIVOT,
    dense_pull_back,
    dense_whiten,
    row_adjoints,
    serial_colour,
    serial_pull_back,
    serial_whiten,
)

LARGEST_LOG_RATIO = 200.0


@dataclass(frozen=True, eq=False)
class Whitened:
    """Rows whitened at one η.

    Attributes
    ----------
    M : (q + P, N)
        Whitened rows of Z̃, X̃ and ỹ.
    work : (q + P, N)
        Their QR decomposition by subject: orthonormal columns, and [X̃, ỹ] outside the span of Z̃.
    products : CrossProducts
    scaled : (q + P, N)
        Rows before decorrelation.
    tape : array
        What the decorrelation keeps for its way back.
    """

    M: FloatArray
    work: FloatArray
    products: CrossProducts
    scaled: FloatArray
    tape: FloatArray


@dataclass(frozen=True, eq=False)
class ResidualPart:
    """A residual structure, bound to rows; with neither part the residuals are independent, with equal variance.

    Attributes
    ----------
    correlation : BoundCorrelation or None
    variance : BoundVariance or None
    """

    correlation: BoundCorrelation | None
    variance: BoundVariance | None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters of the correlation, then of the variance function."""
        own = self.correlation.parameters if self.correlation else ()
        return own + (self.variance.parameters if self.variance else ())

    @property
    def n_correlation(self) -> int:
        """Number of parameters of the correlation."""
        return len(self.correlation.parameters) if self.correlation else 0

    def report(self, eta: FloatArray) -> dict[str, float]:
        """What tables show of the residual structure, by name."""
        k = self.n_correlation
        found = self.correlation.report(eta[:k]) if self.correlation else {}
        return found | (self.variance.report(eta[k:]) if self.variance else {})

    def shift(self, eta: FloatArray) -> float:
        """Log of the whitened rows' SD over σ: 0, or that of the average row under a centred variance function."""
        return 0.0 if self.variance is None else self.variance.shift(eta[self.n_correlation :])

    def at(self, eta: FloatArray) -> ResidualEstimate | None:
        """The residual structure at η; None if there is none."""
        return None


INDEPENDENT = ResidualPart(None, None)


@dataclass(frozen=True, eq=False)
class ResidualRows(ResidualPart):
    """Working rows with their residual structure.

    Attributes
    ----------
    M : (q + P, N)
        Rows of Z̃, X̃ and ỹ, sorted by subject and position.
    q : int
    rows : Rows
        Their order, and where each subject starts.
    scaling : Scaling
    """

    M: FloatArray
    q: int
    rows: Rows
    scaling: Scaling

    @property
    def start(self) -> NDArray[np.int64]:
        """IntArray of subject j are ``start[j]:start[j+1]``."""
        return self.rows.start

    @property
    def n_fixed(self) -> int:
        """Number of fixed effects, p."""
        return len(self.M) - self.q - 1

    @property
    def n_obs(self) -> int:
        """Number of rows, N."""
        return self.M.shape[1]

    def at(self, eta: FloatArray) -> ResidualEstimate | None:
        """The residual structure at η; None if there is none."""
        if self.correlation is None and self.variance is None:
            return None
        return ResidualEstimate(self.rows, self.correlation, self.variance, eta)

    def whiten(self, eta: FloatArray) -> Whitened | None:
        """Whiten at η; None where the residual covariance is not positive definite in floating point."""
        return self._whiten(eta) if self.parameters else self._whitened

    @cached_property
    def _whitened(self) -> Whitened | None:
        """Whitened once for all, where known weights are the whole structure or there is none."""
        return self._whiten(np.empty(0))

    def _whiten(self, eta: FloatArray) -> Whitened | None:
        k, log_det = self.n_correlation, 0.0
        scaled = self.M
        if self.variance is not None:
            log_ratio = self.variance.centred_log_ratio(eta[k:])
            if not np.abs(log_ratio).max() < LARGEST_LOG_RATIO:
                return None
            log_det += 2.0 * float(log_ratio.sum())
            scaled = self.M * np.exp(-log_ratio)
        M, tape = scaled.copy(), np.empty(0)
        if self.correlation is not None:
            found = _decorrelate(self.correlation, M, self.start, eta[:k])
            if found is None:
                return None
            log_det, tape = log_det + found[0], found[1]
        work = M.copy()
        R, C, S_w = within_subject_qr(work[: self.q], work[self.q :], self.start, RANK_TOLERANCE)
        if not np.all(np.isfinite(S_w)):
            return None
        last = [np.ascontiguousarray(np.moveaxis(A, 0, -1)) for A in (R, C)]
        J = len(self.start) - 1
        products = CrossProducts(
            last[0], last[1], np.ones(J), np.arange(J), S_w, R, C, self.n_obs, self.n_fixed, self.scaling, log_det
        )
        return Whitened(M, work, products, scaled, tape)

    def without(self, subject: int) -> ResidualRows:
        """All other subjects, with the same parameters."""
        start, n = self.start, np.diff(self.start)
        kept = np.ones(self.n_obs, dtype=bool)
        kept[start[subject] : start[subject + 1]] = False
        sizes = np.delete(n, subject)
        rows = Rows(self.rows.order[kept], np.concatenate([[0], np.cumsum(sizes)]), self.rows.t[kept], self.rows.labels)
        correlation = None if self.correlation is None else self.correlation.without(subject, rows, kept)
        variance = None if self.variance is None else replace(self.variance, v=self.variance.v[kept])
        M = np.ascontiguousarray(self.M[:, kept])
        return ResidualRows(correlation, variance, M, self.q, rows, self.scaling)

    def colour(self, eta: FloatArray, noise: FloatArray) -> FloatArray:
        """Give independent standard normal rows (..., N) the covariance Σ/σ² at η (..., k); rows as in the data."""
        flat, k = noise.reshape(-1, self.n_obs), self.n_correlation
        etas = np.broadcast_to(eta, (*noise.shape[:-1], eta.shape[-1])).reshape(len(flat), -1)
        out = np.empty_like(flat)
        for s, (own, row) in enumerate(zip(etas, flat, strict=True)):
            M = row[self.rows.order][None].copy()
            if self.correlation is not None:
                _correlate(self.correlation, M, self.start, own[:k])
            if self.variance is not None:
                M *= np.exp(self.variance.log_ratio(own[k:]))
            out[s, self.rows.order] = M[0]
        return out.reshape(noise.shape)

    def pull_back(self, eta: FloatArray, at: Whitened, Lambda: FloatArray, Gamma: FloatArray) -> FloatArray:
        """Derivative of ``log|V/σ²| + ⟨Γ, [X, y]'V⁻¹[X, y]⟩`` with respect to η, given Λ and Γ (in working units)."""
        k = self.n_correlation
        factors = (at.products.subject_R, at.products.subject_C, np.ascontiguousarray(Lambda))
        adjoint = row_adjoints(at.work, self.start, *factors, np.ascontiguousarray(Gamma))
        gradient = np.empty(len(eta))
        if self.correlation is not None:
            gradient[:k] = _pull_back_correlation(self.correlation, adjoint, at, self.start, eta[:k])
        if self.variance is not None:
            by_log_ratio = 2.0 - np.einsum("at,at->t", adjoint, at.scaled)
            gradient[k:] = self.variance.centred_derivatives(eta[k:]) @ by_log_ratio
        return gradient


def residual_names(rows: ResidualRows) -> dict[str, list[str]]:
    """Names of what is reported, by posterior variable: of the correlation and of the variance function."""
    start = np.array([p.unconstrained(p.start) for p in rows.parameters])
    k = rows.n_correlation
    return {
        "residual_correlation": list(rows.correlation.report(start[:k])) if rows.correlation else [],
        "residual_variance": list(rows.variance.report(start[k:])) if rows.variance else [],
    }


def residual_rows(design: Design) -> ResidualRows:
    """Sort, centre and scale the columns of a design, and bind its residual structure.

    Raises
    ------
    DataError
        Positions or a variance covariate that the structure cannot use.
    """
    rows = structured_rows(design)
    Z, XY, scaling = working_columns(design, rows.order)
    # X̃ is orthonormal, so the ordinary residuals are one projection away.
    correlation, variance = bind_residual(design, rows, XY[-1] - (XY[:-1] @ XY[-1]) @ XY[:-1])
    return ResidualRows(correlation, variance, np.concatenate([Z, XY]), len(Z), rows, scaling)


def whiten_columns(residual: ResidualEstimate, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Whiten any columns (N, c) of the fitted rows by an estimated residual structure, in the order of the data.

    Returns
    -------
    (N, c)
        ``L_i⁻¹ G_i⁻¹`` times the rows of each subject.
    (J,)
        ``log|Σ_i / σ²|``.
    """
    rows, k = residual.rows, residual.n_correlation
    M = np.ascontiguousarray(columns[rows.order].T)
    subject = np.repeat(np.arange(len(rows.start) - 1), np.diff(rows.start))
    log_det = np.zeros(len(rows.start) - 1)
    if residual.variance is not None:
        log_ratio = residual.variance.log_ratio(residual.eta[k:])
        M *= np.exp(-log_ratio)
        log_det += 2.0 * np.bincount(subject, weights=log_ratio)
    if residual.correlation is not None:
        found = _decorrelate(residual.correlation, M, rows.start, residual.eta[:k])
        if found is None:
            received = "a residual correlation that is not positive definite in floating point"
            reason = "its parameters are at the edge of their range"
            raise DataError(received, reason, "use a simpler residual structure", "docs, page 'Residual structures'")
        if residual.correlation.is_serial:
            log_det += np.bincount(subject, weights=np.log(found[1][1]))
        else:
            place = np.arange(len(subject)) - rows.start[subject]
            n = np.diff(rows.start)[subject]
            diagonal = found[1][residual.correlation.offset[subject] + place * (n + 1)]
            log_det -= 2.0 * np.bincount(subject, weights=np.log(diagonal))
    result = np.empty_like(columns, dtype=np.float64)
    result[rows.order] = M.T
    return result, log_det


def _decorrelate(
    correlation: BoundCorrelation, M: FloatArray, start: NDArray[np.int64], eta: FloatArray
) -> tuple[float, FloatArray] | None:
    """Whiten M in place; Σ log|R_i| and what the way back needs, or None."""
    values = correlation.values(eta)
    if correlation.is_serial:
        form = correlation.serial(values)
        tape = np.empty((3 + len(M), M.shape[1]))
        log_det = serial_whiten(M, start, form.u, form.decay, tape)
        return (log_det, tape) if np.isfinite(log_det) else None
    W = np.empty(correlation.packed_size)
    log_det = 0.0
    for group in correlation.groups:
        try:
            with np.errstate(all="ignore"):  # what is not finite is found below
                L = np.linalg.cholesky(correlation.matrices(group, values))
        except np.linalg.LinAlgError:
            return None
        pivots = np.diagonal(L, axis1=1, axis2=2)
        if not pivots.min() ** 2 > SMALLEST_PIVOT:
            return None
        log_det += 2.0 * float(group.count @ np.log(pivots).sum(axis=1))
        K, n = group.t.shape
        W[group.offset[0] : group.offset[0] + K * n * n] = np.tril(np.linalg.inv(L)).ravel()
    if not np.isfinite(log_det):
        return None
    dense_whiten(M, start, correlation.offset, W)
    return log_det, W


def _correlate(correlation: BoundCorrelation, M: FloatArray, start: NDArray[np.int64], eta: FloatArray) -> None:
    """Give independent rows of M the correlation, in place."""
    values = correlation.values(eta)
    if correlation.is_serial:
        form = correlation.serial(values)
        serial_colour(M, start, form.u, form.decay)
        return
    L = np.empty(correlation.packed_size)
    for group in correlation.groups:
        K, n = group.t.shape
        factor = np.linalg.cholesky(correlation.matrices(group, values))
        L[group.offset[0] : group.offset[0] + K * n * n] = factor.ravel()
    dense_whiten(M, start, correlation.offset, L)  # a product with a lower triangle, whatever it stands for


def _pull_back_correlation(
    correlation: BoundCorrelation, adjoint: FloatArray, at: Whitened, start: NDArray[np.int64], eta: FloatArray
) -> FloatArray:
    """Derivative by η of the correlation; the adjoint becomes that of the rows before decorrelation."""
    values, slopes = correlation.values(eta), correlation.slopes(eta)
    if correlation.is_serial:
        form = correlation.serial(values)
        u_adjoint, d_adjoint = serial_pull_back(adjoint, at.M, start, form.u, form.decay, at.tape)
        return slopes * (form.du @ u_adjoint + form.d_decay @ d_adjoint)
    W = at.tape
    sums = np.zeros_like(W)
    dense_pull_back(adjoint, at.M, start, correlation.offset, W, sums)
    gradient = np.zeros(len(eta))
    for group in correlation.groups:
        K, n = group.t.shape
        part = slice(int(group.offset[0]), int(group.offset[0]) + K * n * n)
        inverse, G = W[part].reshape(K, n, n), sums[part].reshape(K, n, n)
        inner = group.count[:, None, None] * np.eye(n) - 0.25 * (G + np.swapaxes(G, 1, 2))
        by_R = np.swapaxes(inverse, 1, 2) @ inner @ inverse
        level = correlation.levels[group.level]
        gradient[level.own] += np.einsum("kst,jkst->j", by_R, level.spec.derivatives(group.t, values[level.own]))
    return slopes * gradient
