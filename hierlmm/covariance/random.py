"""Structures of D, the covariance of the random effects, through a relative factor Λ.

``D = σ² Λ Λ'``. Λ is linear in the unconstrained parameters λ. Unlike variances and correlations, λ has no bounds and
the criterion is smooth where a variance reaches zero, so a boundary optimum is an ordinary stationary point (Bates,
Mächler, Bolker & Walker 2015, J. Stat. Softw. 67, section 2). Two kinds:

- triangular: ``Λ[row[m], col[m]] = λ[index[m]]``, a Cholesky factor by correlated block;
- spectral: ``Λ = Σ_m λ_m P_m`` with orthogonal projections that add up to I, hence ``D/σ² = Σ_m λ_m² P_m`` with the
  eigenvalues λ_m². The identity is one projection; compound symmetry has two, on the contrasts between the random
  effects, ``P_1 = I - J/q``, and on their mean, ``P_2 = J/q`` with J = 11'. In terms of one variance s² and one
  correlation r, ``λ_1² = (1 - r) s²/σ²`` and ``λ_2² = (1 + (q - 1) r) s²/σ²``: r lies between -1/(q - 1) and 1, and at
  its two limits one λ is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray, IntArray

# Structures in which all random effects share one standard deviation: a fixed eigenbasis, eigenvalues as parameters.
SPECTRAL = ("identity", "compound_symmetry")


@dataclass(frozen=True)
class RandomCovariance:
    """Pattern of the relative factor Λ (q, q), with ``n_parameters`` free values.

    Attributes
    ----------
    row, col, index : (n_entries,)
        Entry ``(row, col)`` of a triangular Λ holds parameter ``index``; empty for a spectral one.
    blocks : tuple of tuple of int
        Random effects that may correlate.
    projections : (m, q, q), optional
        P_m of a spectral Λ.
    parts : tuple of tuple of int
        Random effects with a D of their own: all, or those of each group.
    """

    structure: str
    q: int
    blocks: tuple[tuple[int, ...], ...]
    row: IntArray
    col: IntArray
    index: IntArray
    projections: FloatArray | None = None
    parts: tuple[tuple[int, ...], ...] = ()

    @property
    def n_parameters(self) -> int:
        """Number of free parameters of D, given σ."""
        return int(self.index.max(initial=-1)) + 1 if self.projections is None else len(self.projections)

    @property
    def is_diagonal(self) -> bool:
        """Whether Λ is a sum of projections: each parameter is the square root of an eigenvalue of D/σ²."""
        return self.projections is not None or len(self.row) == self.q

    @cached_property
    def basis(self) -> FloatArray:
        """E_m of ``Λ = Σ λ_m E_m``: (m, q, q)."""
        return np.ascontiguousarray(self.factor(np.eye(self.n_parameters)))

    def factor(self, lam: FloatArray) -> FloatArray:
        """Λ from its parameters: (..., m) -> (..., q, q). What follows the first m, residual parameters, is let be."""
        lam = lam[..., : self.n_parameters]
        if self.projections is not None:
            flat: FloatArray = lam @ self.projections.reshape(len(self.projections), -1)
            return flat.reshape(*lam.shape[:-1], self.q, self.q)
        Lambda = np.zeros((*lam.shape[:-1], self.q, self.q))
        Lambda[..., self.row, self.col] = lam[..., self.index]
        return Lambda

    def pull_back(self, dLambda: FloatArray) -> FloatArray:
        """Gradient with respect to λ from the gradient with respect to Λ."""
        if self.projections is not None:
            return self.projections.reshape(len(self.projections), -1) @ dLambda.ravel()
        return np.bincount(self.index, weights=dLambda[self.row, self.col], minlength=self.n_parameters)

    def parameters(self, D: FloatArray) -> FloatArray:
        """λ of a relative covariance D/σ² that has this structure (used for starting values)."""
        if self.projections is not None:
            ranks = np.trace(self.projections, axis1=1, axis2=2)
            return np.sqrt(np.clip(np.einsum("mij,ij->m", self.projections, D) / ranks, 0.0, None))
        Lambda = np.zeros_like(D)
        for block in self.blocks:
            part = np.ix_(block, block)
            Lambda[part] = np.linalg.cholesky(D[part])
        lam = np.zeros(self.n_parameters)
        lam[self.index] = Lambda[self.row, self.col]
        return lam

    def normalise_signs(self, lam: FloatArray) -> FloatArray:
        """Choose the Λ with a non-negative diagonal among the equivalent ones (columns may change sign)."""
        if self.projections is not None:
            return np.abs(lam)
        Lambda = self.factor(lam)
        signs = np.where(np.diag(Lambda) < 0, -1.0, 1.0)
        result = np.zeros_like(lam)
        result[self.index] = (Lambda * signs)[self.row, self.col]
        return result

    def filled(self, lam: FloatArray, tolerance: float) -> BoolArray:
        """Parameters whose column of Λ (or eigenvalue of D) the boundary does not hold at zero, and all that follow."""
        filled = np.ones(len(lam), dtype=bool)
        m = self.n_parameters
        if self.projections is not None:
            filled[:m] = np.abs(lam[:m]) >= tolerance
            return filled
        columns = np.any(np.abs(self.factor(lam)) >= tolerance, axis=0)
        filled[:m] = False
        filled[self.index[columns[self.col]]] = True
        return filled


def equal_correlations(r: FloatArray, parts: tuple[tuple[int, ...], ...]) -> FloatArray:
    """Cholesky factor of correlations that are equal within each part: (..., parts) -> (..., q, q)."""
    if len(parts) == 1:
        return equal_correlation_factor(r[..., 0], len(parts[0]))
    q = sum(map(len, parts))
    factor = np.zeros((*r.shape[:-1], q, q))
    for g, part in enumerate(parts):
        factor[..., part[0] : part[-1] + 1, part[0] : part[-1] + 1] = equal_correlation_factor(r[..., g], len(part))
    return factor


def lowest_corr(q: int) -> float:
    """Smallest correlation that q > 1 equally correlated random effects can have: -1/(q - 1)."""
    return -1.0 / (q - 1)


def equal_correlation_factor(r: FloatArray, q: int) -> FloatArray:
    """Cholesky factor of a correlation matrix with equal entries r: (...) -> (..., q, q), lower triangular.

    With ``c_j = 1 + j r``, j from 0: ``L[j, j]² = (1 - r) c_j / c_{j-1}``, and below it all entries of the column are
    ``L[i, j] = L[j, j] r / c_j``. At ``r = -1/(q - 1)`` the last diagonal entry is zero.
    """
    j = np.arange(q)
    r = np.asarray(r, dtype=np.float64)[..., None]
    diagonal = np.sqrt(np.concatenate([np.ones_like(r), (1.0 - r) * (1.0 + j[1:] * r) / (1.0 + j[:-1] * r)], axis=-1))
    below = np.zeros_like(diagonal)
    below[..., :-1] = diagonal[..., :-1] * r / (1.0 + j[:-1] * r)
    factor = np.tril(np.ones((q, q)), -1) * below[..., None, :]
    factor[..., j, j] = diagonal
    return factor


def sheared(T: FloatArray, sd: FloatArray, factor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviations (..., q) and a factor of the correlations (..., q, q) of T b, from those of b."""
    if np.array_equal(T, np.eye(len(T))):
        return sd, factor
    half = T @ (sd[..., None] * factor)
    moved = np.linalg.norm(half, axis=-1)
    return moved, half / moved[..., None]


def compound_symmetry_corr(D: FloatArray) -> FloatArray:
    """Common correlation of a compound-symmetric D (..., q, q), from its mean entries: (...)."""
    q = D.shape[-1]
    trace = np.trace(D, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (D.sum(axis=(-2, -1)) - trace) / ((q - 1) * trace)


def random_covariance(
    structure: str, blocks: tuple[tuple[int, ...], ...], parts: tuple[tuple[int, ...], ...] = ()
) -> RandomCovariance:
    """Build the pattern of Λ.

    Parameters
    ----------
    structure : {"unstructured", "diagonal", "identity", "compound_symmetry", "blocks"}
    blocks : tuple of tuple of int
        Positions of the random effects that correlate; singletons for a diagonal or identity D.
    parts : tuple of tuple of int
        Positions of those of each group, where D differs by group.
    """
    q = sum(len(b) for b in blocks)
    parts = parts or (tuple(range(q)),)
    if structure in SPECTRAL:
        none, projections = np.zeros(0, dtype=np.intp), list[FloatArray]()
        for part in parts:
            unit, mean = np.zeros((q, q)), np.zeros((q, q))
            unit[part, part], mean[np.ix_(part, part)] = 1.0, 1.0 / len(part)
            projections += [unit] if structure == "identity" else [unit - mean, mean]
        return RandomCovariance(structure, q, blocks, none, none, none, np.stack(projections), parts)
    entries = [(r, c) for block in blocks for i, c in enumerate(block) for r in block[i:]]
    row, col = np.array(entries, dtype=np.intp).reshape(-1, 2).T
    return RandomCovariance(structure, q, blocks, row, col, np.arange(len(entries)), None, parts)
