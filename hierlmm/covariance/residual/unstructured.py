"""A correlation for every pair of occasions, alone and with a variance for every occasion.

    R = L L',     L from canonical partial correlations c_ij in (-1, 1)     (`hierlmm.covariance.partial`)

A subject has the rows and columns of R of its own occasions. With `VarIdent` of the occasions ``Σ_i = σ² G_i R_i G_i``
is any covariance matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.partial import factor_of_partials, partials_of_correlation, products_before
from hierlmm.covariance.residual.base import (
    Observed,
    ResidualCorrelation,
    Writer,
    check_time,
    lags,
    select_occasions,
)
from hierlmm.covariance.variance import VarIdent
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class Unstructured(ResidualCorrelation):
    """A correlation of its own for every pair of occasions, and one variance for all of them (nlme's ``corSymm``).

    This is not the unstructured covariance of a repeated-measures analysis (``UN`` in SAS, ``us`` in R's mmrm), which
    has a variance for every occasion as well: that is `UnstructuredHeterogeneous`, or this and `VarIdent` of the same
    column.

    The parameters that move freely are canonical partial correlations, each between -1 and 1; tables show correlations.

    Parameters
    ----------
    time : str
        Column of the occasions, labels that all subjects share. A subject may miss some.
    """

    time: str = ""
    by_occasion: ClassVar[bool] = True
    stationary: ClassVar[bool] = False
    _off_diagonal: ClassVar[bool] = True
    correlations: ClassVar[bool] = True
    kernel: ClassVar[str] = "unstructured"
    free: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0

    def __post_init__(self) -> None:
        check_time("Unstructured", self.time)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Canonical partial correlations; the default prior on them is LKJ(1), uniform over correlation matrices."""
        labels = observed.labels
        m = len(labels)
        starts = partials_of_correlation(observed.correlation) if len(observed.correlation) else np.zeros((m, m))
        return tuple(
            Parameter(f"partial({labels[j]}, {labels[i]})", float(starts[i, j]), -1.0, 1.0, shape=1 + (m - 2 - j) / 2)
            for i, j in _pairs(m)
        )

    def other_starts(self, observed: Observed) -> tuple[FloatArray, ...]:
        """Autoregressive, equal and weak correlations: with missing rows there can be several maxima."""
        m = len(observed.labels)
        rho = float(np.clip(observed.neighbour * (0.5 if observed.mixed else 1.0), -0.9 / max(m - 1, 1), 0.9))
        lag = lags(np.arange(float(m)))
        shapes = (rho**lag, np.where(lag > 0, rho, 1.0), np.where(lag > 0, 0.1 * rho, 1.0))
        return tuple(partials_of_correlation(R)[np.tril_indices(m, -1)] for R in shapes)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Rows and columns of the correlation matrix at the occasions present."""
        L = factor_of_partials(_below(values))
        return select_occasions(L @ L.T, t)

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact: with ``R = L L'``, ``dR = dL L' + L dL'``."""
        P = _below(values)
        L, before = factor_of_partials(P), products_before(np.sqrt(1.0 - P**2))
        k, m = len(values), len(L)
        rows, cols = np.tril_indices(m, -1)
        # L[i, j] = c Π_{m<j} √(1 - c_m²): its own c is a factor, entries to its right carry √(1 - c²).
        dL = np.where(np.arange(m) > cols[:, None], L[rows] * (-values / (1.0 - values**2))[:, None], 0.0)
        dL[np.arange(k), cols] = before[rows, cols]
        half = np.zeros((k, m, m))
        half[np.arange(k), rows] = dL @ L.T
        return select_occasions(half + np.swapaxes(half, 1, 2), t)

    def report(self, observed: Observed, values: FloatArray) -> dict[str, float]:
        """Correlations by pair of occasions."""
        L, labels = factor_of_partials(_below(values)), observed.labels
        R = L @ L.T
        return {f"rho({labels[j]}, {labels[i]})": float(R[i, j]) for i, j in _pairs(len(labels))}

    def _table(self, values: Sequence[float], labels: Sequence[str]) -> tuple[list[str], FloatArray]:
        """By occasion."""
        R = _below(np.array(values))
        return list(labels), R + R.T + np.eye(len(R))

    def formula(self) -> str:
        """As in the docstring."""
        return "rho_st, one for each pair of occasions"

    def symbols(self, write: Writer) -> Any:
        """ρ(occasions)."""
        return write.letter("ρ") + "(" + (write.position("j") + ", " + write.position("k")) + ")"

    def words(self) -> str:
        """A correlation for each pair."""
        return f"correlated, with a correlation for each pair of values of {self.time}"

    def _variance_words(self) -> str:
        """One variance; elsewhere unstructured means variances, too."""
        return f"one for all occasions; the UN of SAS has one for each, UnstructuredHeterogeneous({self.time!r})"

    def working(self) -> tuple[str, str]:
        """Unstructured."""
        return "unstructured", self.time


def _pairs(m: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(m) for j in range(i)]


def _below(values: FloatArray) -> FloatArray:
    """Numbers below the diagonal, row by row: (m(m-1)/2,) -> (m, m)."""
    m = round((1 + np.sqrt(1 + 8 * len(values))) / 2)
    P = np.zeros((m, m))
    P[np.tril_indices(m, -1)] = values
    return P


@checked_constructor
@dataclass(frozen=True)
class UnstructuredHeterogeneous:
    """A variance for every occasion and a correlation for every pair of them: any covariance matrix at all.

    This is the unstructured covariance of a repeated-measures analysis, ``UN`` in SAS and ``us`` in R's mmrm. It is one
    name for two structures, `Unstructured` and `VarIdent` of the same column, and the model has these two: it takes
    the place of ``correlation`` and ``variance`` together (in a two-level model of ``residual`` and
    ``residual_variance``).

    Parameters
    ----------
    time : str
        Column of the occasions, labels that all subjects share. A subject may miss some.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.MarginalModel(
    ...     "distance ~ sex * time",
    ...     correlation=hl.UnstructuredHeterogeneous("age"),
    ...     subject="subject",
    ...     data=hl.load_dataset("dental"),
    ... )
    >>> model.correlation, model.variance
    (Unstructured(time='age'), VarIdent(variable='age'))
    """

    time: str = ""

    def __post_init__(self) -> None:
        check_time("UnstructuredHeterogeneous", self.time)

    @property
    def correlation(self) -> Unstructured:
        """A correlation for every pair of occasions."""
        return Unstructured(self.time)

    @property
    def variance(self) -> VarIdent:
        """A variance for every occasion."""
        return VarIdent(self.time)
