"""Working columns that are chosen before all rows were seen, and what becomes of cross-products in others.

Rows stream once, so they are centred and scaled by what is known of some subjects (`first_coordinates`). Cross-products
are sums, and linear: afterwards they are those of the columns that all rows would have given (`final_coordinates`),
because ``Σ C_i'C_i + S_w = [X̃, ỹ]'[X̃, ỹ]`` and ``Σ R_i'R_i = Z̃'Z̃`` are known.

With the first columns ``X = X₀ M₀``, ``y = c₀ + s₀ y₀`` and others ``X = X₁ M₁``, ``y = c₁ + s₁ y₁``, and ``X e = 1``,

    [X₁, y₁] = [X₀, y₀] W,    W = [[M₀ M₁⁻¹, (c₀ - c₁)/s₁ M₀ e], [0, s₀/s₁]],    Z₁ = Z₀ B₀ B₁⁻¹
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.design.terms import RandomColumns
from hierlmm.errors import DataError
from hierlmm.likelihood.crossproducts import Scaling

TINY = 1e-9
DEPENDENT = 1e-7
"""Share of its own norm below which a column depends on those before it: half the digits of its square are left."""


@dataclass(frozen=True)
class Coordinates:
    """``X = X₀ M``, ``y = c + s y₀`` with ``c = X shift``, ``Z = Z₀ B``."""

    M: FloatArray
    shift: FloatArray
    scale: float
    B: FloatArray

    def working(self, X: FloatArray, y: FloatArray, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Z₀ (q, n) and [X₀, y₀] (P, n) of rows."""
        p = X.shape[1]
        XY = np.empty((p + 1, len(y)))
        XY[:p] = np.linalg.solve(self.M.T, X.T)
        XY[p] = (y - X @ self.shift) / self.scale
        return np.ascontiguousarray(np.linalg.solve(self.B.T, Z.T)), XY

    def to(self, other: Coordinates) -> tuple[FloatArray, FloatArray]:
        """W (P, P) and the factor of Z (q, q) that lead to other coordinates."""
        p = len(self.M)
        W = np.zeros((p + 1, p + 1))
        W[:p, :p] = np.linalg.solve(other.M.T, self.M.T).T
        W[:p, p] = self.M @ (self.shift - other.shift) / other.scale
        W[p, p] = self.scale / other.scale
        return W, np.linalg.solve(other.B.T, self.B.T).T

    def scaling(self) -> Scaling:
        """The same as cross-products keep it."""
        log_det = float(np.linalg.slogdet(self.M)[1])
        return Scaling(self.M, self.B, self.shift, self.scale, log_det)


def first_coordinates(design: Design) -> Coordinates:
    """Coordinates in which the rows of a design are nearly orthonormal.

    A column that depends on others in these rows, which all rows may tell apart, is only scaled.
    """
    n, p = design.X.shape
    y = design.y - design.offset
    shift, M = np.zeros(p), np.eye(p)
    if design.constant is not None:
        shift = float(y.mean()) * design.constant
    left = y - design.X @ shift
    basis = np.empty((n, 0))
    for j in range(p):
        column = design.X[:, j].copy()
        size = float(np.sqrt(column @ column)) or 1.0
        share = np.zeros(j)
        for _ in range(2):
            own = basis.T @ column
            share += own
            column -= basis @ own
        norm = float(np.sqrt(column @ column))
        if norm <= TINY * size:
            share[:], column, norm = 0.0, np.zeros(n), size
        M[:j, j], M[j, j] = share / np.sqrt(n), norm / np.sqrt(n)
        basis = np.column_stack([basis, column / norm])
    scale = float(np.sqrt(np.mean(left**2))) or 1.0
    return Coordinates(M, shift, scale, _first_of_random(design))


def _first_of_random(design: Design) -> FloatArray:
    """Upper triangular B, within blocks that may correlate."""
    if not design.random:
        return np.empty((0, 0))
    own = design.random[0]
    squares = own.Z.T @ own.Z / len(own.Z)
    return _triangular(squares + np.diag(1e-12 * np.diag(squares)), own.columns)


def _triangular(squares: FloatArray, own: RandomColumns) -> FloatArray:
    """Upper triangular F with F'F = Z'Z/N within correlated blocks, diagonal elsewhere."""
    q = len(squares)
    if own.covariance in SPECTRAL:
        return np.eye(q) * (float(np.sqrt(np.trace(squares) / q)) or 1.0)
    F = np.zeros((q, q))
    for block in own.blocks:
        at = np.ix_(block, block)
        F[at] = _cholesky(squares[at], tuple(own.names[m] for m in block), "random effects")
    return F


def _cholesky(squares: FloatArray, names: tuple[str, ...], what: str) -> FloatArray:
    """Upper triangular factor.

    Raises
    ------
    DataError
        If a column is a linear combination of those before it (it is named).
    """
    F = np.zeros_like(squares)
    for j in range(len(F)):
        own = squares[j, j]
        for i in range(j):
            F[i, j] = (squares[i, j] - F[:i, i] @ F[:i, j]) / F[i, i]
        left = own - F[:j, j] @ F[:j, j]
        if left <= DEPENDENT**2 * own:
            received = f"{what} {', '.join(names)}"
            reason = f"the column {names[j]!r} is constant or a linear combination of the columns before"
            remedy = "take the term out, merge levels that never occur together, or recode"
            raise DataError(received, reason, remedy, "docs, page 'Errors', section 'Rank deficiency'")
        F[j, j] = np.sqrt(left)
    return F


def final_coordinates(
    first: Coordinates, G: FloatArray, squares: FloatArray, n: int, design: Design, constant: FloatArray | None
) -> Coordinates:
    """Coordinates that all rows give: those of `hierlmm.likelihood.crossproducts.working_columns`.

    Parameters
    ----------
    first : Coordinates
    G : (P, P)
        [X₀, y₀]'[X₀, y₀] of all rows.
    squares : (q, q)
        Z₀'Z₀ of all rows.
    n : int
        Number of rows.
    design : Design
    constant : (p,), optional
        e with ``X e = 1``.

    Raises
    ------
    DataError
        If columns are linearly dependent.
    """
    p = len(first.M)
    names = design.coef
    M, shift, variance = first.M, np.zeros(p), G[p, p] / n
    if constant is not None:
        e0 = first.M @ constant
        means = e0 @ G[:p] / n  # of X₀, and of y₀
        B = _centring(constant, first.M.T @ means[:p], np.sqrt(np.einsum("ij,ik,kj->j", first.M, G[:p, :p], first.M)))
        M = _orthonormal(first.M, B, G[:p, :p], names)
        shift = first.shift + first.scale * means[p] * constant
        variance -= means[p] ** 2
    else:
        M = _orthonormal(first.M, np.eye(p), G[:p, :p], names)
    scale = first.scale * float(np.sqrt(max(variance, 0.0))) or 1.0
    own = design.random[0].columns if design.random else None
    random = np.empty((0, 0)) if own is None else _triangular(squares / n, own) @ first.B
    return Coordinates(M, shift, scale, random)


def _centring(e: FloatArray, means: FloatArray, norms: FloatArray) -> FloatArray:
    """B with ``X = X_c B``: see `hierlmm.design.constant`."""
    k = int(np.argmax(np.abs(e) * norms))
    centres = means.copy()
    centres[k] = 0.0
    A = np.eye(len(e))
    A[:, k] = -e / e[k]
    A[k, k] = 1.0 / e[k]
    shear = np.eye(len(e))
    shear[k] += centres
    return shear @ A


def _orthonormal(M: FloatArray, B: FloatArray, G: FloatArray, names: tuple[str, ...]) -> FloatArray:
    """M₁ with ``X = X₁ M₁``, X₁ orthonormal: the columns ``X₀ M B⁻¹`` times the inverse of their factor."""
    T = np.linalg.solve(B.T, M.T).T
    return _cholesky(T.T @ G @ T, names, "fixed effects") @ B
