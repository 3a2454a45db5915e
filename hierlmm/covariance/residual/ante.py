"""First-order ante-dependence: neighbouring occasions have correlations of their own, further ones their products.

    R[s, t] = Π_{s ≤ k < t} ρ_k,     ρ_k = Corr(e_k, e_{k+1}) in (-1, 1),     ∂R[s, t]/∂ρ_k = R[s, k] R[k + 1, t]

Given an occasion, those before and after it are independent (Gabriel 1962, Ann. Math. Statist. 33, 201-212). Every ρ is
free: R is a correlation matrix at any of them, and that of AR(1) where all are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual.base import Observed, ResidualCorrelation, Writer, check_time, select_occasions
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class AnteDependence(ResidualCorrelation):
    """A correlation for each pair of neighbouring occasions, whose products are those of occasions further apart.

    ```
    1      ρ1     ρ1ρ2   ρ1ρ2ρ3
    ρ1     1      ρ2     ρ2ρ3
    ρ1ρ2   ρ2     1      ρ3
    ρ1ρ2ρ3 ρ2ρ3   ρ3     1
    ```

    AR(1) for occasions that are not evenly spaced, or that do not resemble each other. With `VarIdent` of the same
    column it is SAS's ``ANTE(1)`` and mmrm's ``adh``.

    Parameters
    ----------
    time : str
        Column of the occasions in their order, labels that all subjects share. A subject may miss some.
    """

    time: str = ""
    by_occasion: ClassVar[bool] = True
    stationary: ClassVar[bool] = False
    _off_diagonal: ClassVar[bool] = True
    _pairs_words: ClassVar[str] = "for every pair of neighbouring occasions"
    _in_order: ClassVar[bool] = True
    kernel: ClassVar[str] = "ante"
    independent_at: ClassVar[float | None] = 0.0

    def __post_init__(self) -> None:
        check_time("AnteDependence", self.time)

    def _own_pairs(self, m: int) -> tuple[IntArray, IntArray]:
        """Neighbours."""
        return np.arange(1, m), np.arange(m - 1)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Correlations of neighbouring occasions."""
        labels = observed.labels
        starts = np.diagonal(observed.correlation, -1) if len(observed.correlation) else np.zeros(len(labels))
        pairs = pairwise(labels)
        return tuple(Parameter(f"rho({a}, {b})", float(r), -1.0, 1.0) for (a, b), r in zip(pairs, starts, strict=False))

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Products between the occasions present."""
        upper = _products(values)
        return select_occasions(upper + np.triu(upper, 1).T, t)

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact: the product without one factor."""
        upper, k = _products(values), np.arange(len(values))
        by_rho = np.einsum("sk,kt->kst", upper[:, k], upper[k + 1])  # zero unless s ≤ k < t
        return select_occasions(by_rho + np.swapaxes(by_rho, 1, 2), t)

    def _table(self, values: Sequence[float], labels: Sequence[str]) -> tuple[list[str], FloatArray]:
        """By occasion."""
        upper = _products(np.array(values))
        return list(labels), upper + np.triu(upper, 1).T

    def formula(self) -> str:
        """As in the opening."""
        return "product of rho_k over s ≤ k < t, one for each pair of neighbouring occasions"

    def symbols(self, write: Writer) -> Any:
        """No short form."""
        return None

    def contains(self, other: ResidualCorrelation) -> bool:
        """As of every structure, and decays along the same column, whose correlations multiply from row to row."""
        decays = type(other).__name__ in ("AR1", "CAR1", "Exponential") and not other.has_nugget
        return super().contains(other) or (decays and other.time == self.time)

    def words(self) -> str:
        """Through what lies between."""
        return (
            f"correlated, with a correlation for each two neighbouring values of {self.time}, and their products beyond"
        )


def _products(rho: FloatArray) -> FloatArray:
    """``Π_{s ≤ k < t} ρ_k`` above the diagonal, 1 on it: (m - 1,) -> (m, m)."""
    m = len(rho) + 1
    table = np.eye(m)
    for s in range(m - 1):
        table[s, s + 1 :] = np.cumprod(rho[s:])
    return table
