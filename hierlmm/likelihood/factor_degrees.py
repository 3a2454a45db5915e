"""What Kenward and Roger's method sums up, where rows share groups of several factors.

With W = Λ(I + Λ'AΛ)⁻¹Λ', A = Z'Z, all random effects side by side (T of them), V⁻¹ = I − ZWZ' and

    Z'V⁻¹Z = A − AWA,    Z'V⁻²Z = (I − AW)(A − AWA),    Z'V⁻²X = (I − AW) Z'V⁻¹X,
    X'V⁻³X = X'V⁻²X − (Z'V⁻¹X)'W Z'V⁻¹X,    tr V⁻² = N − 2 tr WA + tr WAWA.

These are dense matrices of T rows and columns.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from types import SimpleNamespace

import numpy as np
from scipy.linalg import block_diag

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.several_factors import FactorProducts, FactorSolution

MOST_EFFECTS = 4000
"""Random effects up to which these matrices are made: 130 MB each."""


def factor_sums(solution: FactorSolution, basis: FloatArray, see: str) -> SimpleNamespace:
    """P, Q, K and the like per unit of σ², as `degrees` sums them over subjects.

    Parameters
    ----------
    solution : FactorSolution
    basis : (m, q, q)
        Matrices of which D̃ is a linear combination; each of one factor.
    see : str
        Where to read more, for a refusal.

    Raises
    ------
    NotAvailableError
        If there are more than `MOST_EFFECTS` random effects.
    """
    data, p = solution.criterion.products, solution.criterion.products.n_fixed
    effects = [J * q for J, q in zip(data.n_groups, data.sizes, strict=True)]
    if sum(effects) > MOST_EFFECTS:
        received = f"Kenward-Roger's method with {sum(effects):,} random effects"
        reason = f"it needs dense matrices of their size, which are made for up to {MOST_EFFECTS:,}"
        raise NotAvailableError(received, reason, "use df='satterthwaite', or df='normal' in samples of this size", see)
    at = _Dense(data, solution.Lambda)
    ends = np.cumsum([0, *effects])
    slices = [slice(*pair) for pair in itertools.pairwise(ends)]
    owners = [next(k for k in range(len(effects)) if np.any(E[data.own(k), data.own(k)])) for E in basis]
    units = [E[data.own(k), data.own(k)] for E, k in zip(basis, owners, strict=True)]
    m = len(basis)

    def times(unit: FloatArray, rows: FloatArray) -> FloatArray:
        """(I ⊗ E) of rows (J q, ...)."""
        return (unit @ rows.reshape(-1, len(unit), rows.shape[1])).reshape(rows.shape)

    found = SimpleNamespace(P=np.empty((m, p, p)), Q=np.empty((m, m, p, p)), K=np.empty((m, m)))
    found.Qs, found.Ks = np.empty((m, p, p)), np.empty(m)
    moved = [times(unit, at.M[slices[k]]) for unit, k in zip(units, owners, strict=True)]
    for s in range(m):
        own = slices[owners[s]]
        found.P[s] = at.M[own].T @ moved[s]
        found.Qs[s] = moved[s].T @ at.M2[own]
        found.Ks[s] = np.sum(times(units[s], at.Omega2[own, own]) * np.eye(effects[owners[s]]))
        for r in range(m):
            other = slices[owners[r]]
            across = at.Omega[other, own]
            found.Q[r, s] = moved[r].T @ (across @ moved[s])
            found.K[r, s] = np.sum(times(units[r], across) * times(units[s], across.T).T)
    found.XX, found.X2X, found.X3X = at.XX, at.X2X, at.X2X - at.M.T @ at.W @ at.M
    found.trace, found.rows = at.trace, data.n_obs
    return found


class _Dense:
    """Z and what follows from it as dense matrices, random effects in the order of the formula."""

    def __init__(self, data: FactorProducts, Lambda: FloatArray) -> None:
        self.data, self.Z = data, data.dense_Z
        self.A = self.Z.T @ self.Z
        half = block_diag(*(np.kron(np.eye(J), data.block(Lambda, k)) for k, J in enumerate(data.n_groups)))
        L = np.linalg.cholesky(np.eye(len(half)) + half.T @ self.A @ half)
        root = np.linalg.solve(L, half.T)
        self.W = root.T @ root
        X = data.XY[:-1].T
        rows = X - self.Z @ (self.W @ (self.Z.T @ X))  # V⁻¹X
        self.M = self.Z.T @ rows
        self.XX, self.X2X = X.T @ rows, rows.T @ rows
        self.keep = np.eye(len(half)) - self.A @ self.W
        self.Omega = self.keep @ self.A
        self.Omega2 = self.keep @ self.Omega
        self.M2 = self.keep @ self.M

    @cached_property
    def trace(self) -> float:
        """Tr V⁻²."""
        explained = self.W @ self.A
        return self.data.n_obs - 2.0 * float(np.trace(explained)) + float(np.sum(explained * explained.T))
