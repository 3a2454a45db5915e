"""Structures of D, the covariance of the random effects, through its relative Cholesky factor.

``D = σ² Λ Λ'``. Λ is linear in the unconstrained parameters λ: ``Λ[row[m], col[m]] = λ[index[m]]``. Unlike variances
and correlations, λ has no bounds and the criterion is smooth where a variance reaches zero, so a boundary optimum is an
ordinary stationary point (Bates, Mächler, Bolker & Walker 2015, J. Stat. Softw. 67, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomCovariance", "random_covariance"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class RandomCovariance:
    """Pattern of the relative Cholesky factor Λ (q, q), lower triangular, with ``n_parameters`` free values.

    Attributes
    ----------
    row, col, index : (n_entries,)
        Entry ``(row, col)`` of Λ holds parameter ``index``.
    blocks : tuple of tuple of int
        Random effects that may correlate.
    """

    structure: str
    q: int
    blocks: tuple[tuple[int, ...], ...]
    row: IntArray
    col: IntArray
    index: IntArray

    @property
    def n_parameters(self) -> int:
        """Number of free parameters of D, given σ."""
        return int(self.index.max()) + 1

    def factor(self, lam: FloatArray) -> FloatArray:
        """Λ from its parameters: (m,) -> (q, q)."""
        Lambda = np.zeros((self.q, self.q))
        Lambda[self.row, self.col] = lam[self.index]
        return Lambda

    def pull_back(self, dLambda: FloatArray) -> FloatArray:
        """Gradient with respect to λ from the gradient with respect to Λ."""
        return np.bincount(self.index, weights=dLambda[self.row, self.col], minlength=self.n_parameters)

    def parameters(self, D: FloatArray) -> FloatArray:
        """λ of a relative covariance D/σ² that has this structure (used for starting values)."""
        Lambda = np.zeros_like(D)
        for block in self.blocks:
            part = np.ix_(block, block)
            Lambda[part] = np.linalg.cholesky(D[part])
        lam = np.zeros(self.n_parameters)
        lam[self.index] = Lambda[self.row, self.col]
        return lam

    def normalise_signs(self, lam: FloatArray) -> FloatArray:
        """Choose the Λ with a non-negative diagonal among the equivalent ones (columns may change sign)."""
        Lambda = self.factor(lam)
        signs = np.where(np.diag(Lambda) < 0, -1.0, 1.0)
        result = np.zeros_like(lam)
        result[self.index] = (Lambda * signs)[self.row, self.col]
        return result


def random_covariance(structure: str, blocks: tuple[tuple[int, ...], ...]) -> RandomCovariance:
    """Build the pattern of Λ.

    Parameters
    ----------
    structure : {"unstructured", "diagonal", "identity", "blocks"}
    blocks : tuple of tuple of int
        Positions of the random effects that correlate; singletons for a diagonal or identity D.
    """
    q = sum(len(b) for b in blocks)
    if structure == "identity":
        diagonal = np.arange(q)
        return RandomCovariance(structure, q, blocks, diagonal, diagonal, np.zeros(q, dtype=np.intp))
    entries = [(r, c) for block in blocks for i, c in enumerate(block) for r in block[i:]]
    row, col = np.array(entries, dtype=np.intp).T
    return RandomCovariance(structure, q, blocks, row, col, np.arange(len(entries)))
