"""Kenward and Roger's covariance and degrees of freedom with a residual structure, whatever its parameters are.

With ``V_i = Z_i D Z_i' + Σ_i(η, σ)``, subscripts of V for derivatives by parameters θ, P_a and Q_ab as in `degrees`,
and W the large-sample covariance of θ̂ (the inverse of the observed REML information, as in SAS and in R's mmrm),

    Φ_A = Φ + 2 Φ { Σ_ab W_ab (Q_ab - P_a Φ P_b - ¼ R_ab) } Φ,      R_ab = X'V⁻¹V_abV⁻¹X     (1997, equation 5)

"kenward-roger-linear" leaves R out: Harville and Jeske (1992), first order in SAS. Then nothing depends on how V is
parametrised. R does, and "kenward-roger" has it for the parameters that SAS names: the entries of D; a variance for
every group of rows with a variance of its own (else that of the average row and the parameters of the function); the
correlations, decays and ranges that tables show; with a nugget the variances of serial and measurement error. Where
the matrices V form a linear space they are linear in its coordinates (compound symmetry, Toeplitz and unstructured
with one variance, unstructured with a variance for every occasion): R is zero and both are one.

The sums run over θ = (entries of D, η, log σ̃), and ``S = Σ_ab W_ab V_ab`` is one sum of second differences of Σ along
the principal directions of W. With ω the parameters of SAS and ``h_i = Σ_ab W_ab ∂²ω_i/∂θ_a∂θ_b``, their S is
``S - Σ_a V_a (J⁻¹h)_a``, J the derivative of ω by θ. Whether V is linear shows in S: it lies in the span of the V_a.

References
----------
Harville, D. A. and Jeske, D. R. (1992). Mean squared error of estimation or prediction under a general linear model.
J. Am. Stat. Assoc. 87, 724-731.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.degrees import SEE, KenwardRogerDegrees, basis_of_D
from hierlmm.likelihood.large_sample import LargeSample
from hierlmm.likelihood.residual_matrices import cells_of, residual_covariance, residual_derivatives, told_parameters
from hierlmm.likelihood.residual_rows import ResidualRows

type Function = Callable[[FloatArray], FloatArray]
NUMBERS = 2_000_000
"""Numbers in one working array."""
MOST_ROWS = 3000
"""Rows of a subject whose dense covariance, with its derivatives, is still formed."""
SAME = 1e-4
"""Difference of the covariances of β̂ on two ways, in units of its errors, that may be rounding."""
STEP = 0.01
"""Step of the second differences, in η and log σ̃, both of size one."""
LINEAR = 1e-8
"""Squared share of S outside the span of the V_a that is rounding error."""
SECOND = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}
"""Second difference of fourth order: the weight of each multiple of the step."""
FIRST = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
"""First difference of fourth order."""


def structured_kenward_roger(large: LargeSample, rows: ResidualRows) -> KenwardRogerDegrees:
    """Evaluate the adjustment at the REML estimates.

    Parameters
    ----------
    large : LargeSample
        Of a REML fit.
    rows : ResidualRows
        Its working rows.

    Notes
    -----
    Costs O(J m n² (n + p)) for m parameters and n rows of a subject, in chunks of subjects, with dense V_i.

    Raises
    ------
    NotAvailableError
        If a subject has too many rows for that, or a user's structure is not the same on both of its ways.
    """
    n = int(np.diff(rows.start).max())
    if n > MOST_ROWS:
        received, remedy = f"df='kenward-roger' and a subject with {n} rows", "use df='satterthwaite'"
        raise NotAvailableError(
            received, f"it takes the n x n covariance of a subject, n up to {MOST_ROWS}", remedy, SEE
        )
    V = _Covariance.at(large, rows)
    W, sums = V.W, _Sums(V)
    for part in V.parts():
        sums.add(part)
    Phi = np.linalg.inv(sums.XX)
    _check(rows.scaling.beta_cov(Phi), large.solution(large.centre).beta_cov)
    middle = np.einsum("ab,abcd->cd", W, sums.Q - np.einsum("acd,bde->abce", sums.P @ Phi, sums.P))
    second = _second(V, sums)
    covariance = rows.scaling.beta_cov
    adjusted, change = (Phi @ (A + A.T) @ Phi for A in (middle, -0.25 * second))
    slopes = np.array([covariance(own) for own in Phi @ sums.P @ Phi])
    return KenwardRogerDegrees(covariance(Phi), covariance(Phi + adjusted + change), slopes, W, covariance(change))


def _check(ours: FloatArray, fitted: FloatArray) -> None:
    """Refuse a structure whose dense matrices are not what was fitted.

    Raises
    ------
    NotAvailableError
    """
    unit = np.sqrt(np.diag(fitted))
    if not np.abs((ours - fitted) / np.outer(unit, unit)).max() < SAME:
        received, remedy = "df='kenward-roger' with this residual structure", "use df='satterthwaite'"
        reason = "its covariance written out by subject is not the one that was fitted"
        raise NotAvailableError(received, reason, remedy, SEE)


class _Part(NamedTuple):
    """Subjects with equally many rows, whitened by V: ``X* = L⁻¹X`` (J, n, p), ``A_a = L⁻¹V_aL⁻ᵀ`` (m, J, n, n)."""

    places: IntArray
    root: FloatArray
    X: FloatArray
    A: FloatArray


@dataclass(frozen=True, eq=False)
class _Covariance:
    """V of every subject in working units, with its derivatives by θ.

    Attributes
    ----------
    rows : ResidualRows
    basis : (d, q, q)
        What D̃ is a linear combination of.
    D : (q, q)
        In working columns.
    eta : (k + 1,)
        Residual parameters, then log σ̃.
    W : (d + k + 1, d + k + 1)
        Large-sample covariance of (entries of D, η, log σ̃).
    """

    rows: ResidualRows
    basis: FloatArray
    D: FloatArray
    eta: FloatArray
    W: FloatArray

    @classmethod
    def at(cls, large: LargeSample, rows: ResidualRows) -> _Covariance:
        """The covariance at the optimum."""
        structure = large.criterion.structure
        m, q, sd = structure.n_parameters, structure.q, float(np.exp(large.centre[-1]))
        eta = large.criterion.split(large.centre[:-1])[1]
        basis, Lambda = basis_of_D(structure, rows.scaling.Bz), structure.factor(large.centre[:-1])
        half = structure.basis @ Lambda.T if m else np.zeros((0, q, q))
        by_lambda = np.concatenate([half + np.swapaxes(half, 1, 2), 2.0 * (Lambda @ Lambda.T)[None]]) * sd**2
        J = np.zeros((len(basis) + len(eta) + 1, m + len(eta) + 1))
        J[len(basis) :, m:] = np.eye(len(eta) + 1)
        if len(basis):
            flat = basis.reshape(len(basis), -1).T
            found = np.linalg.lstsq(flat, by_lambda.reshape(m + 1, -1).T, rcond=None)[0]
            J[: len(basis), :m], J[: len(basis), -1] = found[:, :-1], found[:, -1]
        D = sd**2 * Lambda @ Lambda.T
        return cls(rows, basis, D, np.append(eta, large.centre[-1]), J @ large.covariance @ J.T)

    def parts(self) -> Iterator[_Part]:
        """Subjects by their number of rows, in chunks."""
        start, m = self.rows.start, len(self.W)
        counts = np.diff(start)
        for n in np.unique(counts):
            members = np.flatnonzero(counts == n)
            step = max(1, NUMBERS // int(m * n * n))
            for first in range(0, len(members), step):
                places = start[members[first : first + step]][:, None] + np.arange(n)
                yield self._part(places)

    def _part(self, places: IntArray) -> _Part:
        M, q, p = self.rows.M, self.rows.q, self.rows.n_fixed
        Z, X = (np.moveaxis(M[own][:, places], 0, -1) for own in (slice(q), slice(q, q + p)))
        slopes = np.empty((len(self.W), *places.shape, places.shape[1]))
        slopes[: len(self.basis)] = np.einsum("jsa,kab,jtb->kjst", Z, self.basis, Z, optimize=True)
        Sigma = residual_covariance(self.rows, self.eta, places)
        slopes[len(self.basis) :] = residual_derivatives(self.rows, self.eta, places, Sigma)
        root = np.linalg.inv(np.linalg.cholesky(Sigma + Z @ self.D @ np.swapaxes(Z, 1, 2)))
        return _Part(places, root, root @ X, root @ slopes @ np.swapaxes(root, 1, 2))


class _Sums:
    """Sums over subjects: X'V⁻¹X, P, Q and ``K_ab = tr(V⁻¹V_aV⁻¹V_b)``."""

    def __init__(self, V: _Covariance) -> None:
        m, p = len(V.W), V.rows.n_fixed
        self.XX, self.P, self.Q, self.K = (
            np.zeros((p, p)),
            np.zeros((m, p, p)),
            np.zeros((m, m, p, p)),
            np.zeros((m, m)),
        )

    def add(self, part: _Part) -> None:
        """Add subjects."""
        m, p = len(self.P), len(self.XX)
        X, AX = part.X.reshape(-1, p), part.A @ part.X  # (m, J, n, p)
        flat = np.moveaxis(AX, 0, 2).reshape(-1, m * p)
        self.XX += X.T @ X
        self.P -= np.moveaxis((X.T @ flat).reshape(p, m, p), 1, 0)
        self.Q += np.swapaxes((flat.T @ flat).reshape(m, p, m, p), 1, 2)
        A = part.A.reshape(m, -1)
        self.K += A @ A.T


def _second(V: _Covariance, sums: _Sums) -> FloatArray:
    """``Σ_ab W_ab R_ab`` for the parameters of SAS: (p, p)."""
    d = len(V.basis)
    directions = _directions(V.W[d:, d:])
    total, inner, size = np.zeros_like(sums.XX), np.zeros(len(V.W)), 0.0
    for part in V.parts():
        S = _second_difference(partial(residual_covariance, V.rows, places=part.places), V.eta, directions)
        S = part.root @ S @ np.swapaxes(part.root, 1, 2)
        total += np.einsum("jsa,jst,jtb->ab", part.X, S, part.X, optimize=True)
        inner += part.A.reshape(len(inner), -1) @ S.ravel()
        size += float(np.sum(S * S))
    in_span = np.linalg.lstsq(sums.K, inner, rcond=1e-12)[0]
    if size - float(inner @ in_span) <= LINEAR * size:
        return np.zeros_like(total)
    told = partial(told_parameters, V.rows, cells=cells_of(V.rows, V.eta))
    h = _second_difference(told, V.eta, directions)
    J = np.array([_difference(told, V.eta, step, FIRST) / STEP for step in STEP * np.eye(len(V.eta))]).T
    return total + np.einsum("a,abc->bc", np.linalg.lstsq(J, h, rcond=1e-12)[0], sums.P[d:])


def _directions(W: FloatArray) -> FloatArray:
    """Rows s_t with ``W = Σ_t s_t s_t'``."""
    values, vectors = np.linalg.eigh(W)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T[values > 0.0]


def _difference(function: Function, at: FloatArray, step: FloatArray, weights: dict[int, float]) -> FloatArray:
    return np.sum([w * function(at + k * step) for k, w in weights.items()], axis=0)


def _second_difference(function: Function, at: FloatArray, directions: FloatArray) -> FloatArray:
    """Sum of the second derivatives along all directions, of each the step of which moves no parameter far."""
    steps = STEP / np.abs(directions).max(axis=1, initial=1e-300)
    return np.sum(
        [_difference(function, at, h * s, SECOND) / h**2 for h, s in zip(steps, directions, strict=True)], axis=0
    )
