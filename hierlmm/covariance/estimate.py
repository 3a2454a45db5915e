"""Residual covariance of any rows, at estimated residual parameters.

    Σ_i = σ² G_i R_i G_i,     G_i = diag(g(δ)),     R_i[j, k] = Corr(e_ij, e_ik)

with the structures and parameters of a fit, for rows that were fitted and for rows that were not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundCorrelation, BoundVariance
from hierlmm.covariance.composed import group_of
from hierlmm.covariance.declared import data_error, group_places
from hierlmm.covariance.positions import Rows


@dataclass(frozen=True, eq=False)
class ResidualEstimate:
    """The residual structure at η = (correlation, variance function).

    Attributes
    ----------
    rows : Rows
        Order of the fitted rows.
    correlation : BoundCorrelation or None
    variance : BoundVariance or None
    eta : (k,)
        Unconstrained residual parameters.
    """

    rows: Rows
    correlation: BoundCorrelation | None
    variance: BoundVariance | None
    eta: FloatArray

    @property
    def n_correlation(self) -> int:
        """Number of parameters of the correlation."""
        return len(self.correlation.parameters) if self.correlation else 0

    @property
    def correlation_parameters(self) -> dict[str, float]:
        """What tables show of the correlation, by name."""
        return self.correlation.report(self.eta[: self.n_correlation]) if self.correlation else {}

    @property
    def variance_parameters(self) -> dict[str, float]:
        """Parameters of the variance function, by name."""
        return self.variance.report(self.eta[self.n_correlation :]) if self.variance else {}

    @property
    def parameters(self) -> dict[str, float]:
        """All of them."""
        return self.correlation_parameters | self.variance_parameters

    def sd_ratio(self, frame: pd.DataFrame, fitted: FloatArray | None = None) -> FloatArray:
        """Residual SD over σ of each row, (n,).

        Parameters
        ----------
        frame : DataFrame
            Rows with the variance function's column.
        fitted : (n,), optional
            Fitted values, for a variance that depends on them.

        Raises
        ------
        DataError
            If the column is absent.
        """
        if self.variance is None:
            return np.ones(len(frame))
        spec = self.variance.spec
        if spec.variable is None and fitted is None:
            received = "a residual variance that depends on the fitted value, and rows without fitted values"
            raise data_error(received, "it cannot be evaluated", "predict these rows through the fit")
        for name in spec.columns:
            _column(frame, name, "residual variance")
        v = spec.apply(spec.read(frame, fitted), self.variance.state)
        return np.exp(spec.log_ratio(v, self.variance.values(self.eta[self.n_correlation :])))

    def level(self, frame: pd.DataFrame) -> int:
        """Which level of the correlation the rows of one subject belong to: that of their group.

        Raises
        ------
        DataError
            If the column of the groups is absent, or the group was not in the fitted data.
        """
        group = None if self.variance is None else group_of(self.variance.spec)
        if group is None or self.correlation is None or not len(frame):
            return 0
        column = _column(frame, group, "residual correlation")
        return int(group_places(column.iloc[:1], [level.label for level in self.correlation.levels])[0])

    def correlations(self, frame: pd.DataFrame) -> FloatArray:
        """Correlation matrix of the residuals of one subject's rows, in their order: (n, n)."""
        if self.correlation is None:
            return np.eye(len(frame))
        spec = self.correlation.spec
        if spec.time is None:
            t = np.arange(len(frame), dtype=np.float64)
        else:
            t = self._positions(_column(frame, spec.time, "residual correlation"))
        return self.at(t, self.level(frame))

    def at(self, t: FloatArray, level: int = 0) -> FloatArray:
        """Correlation matrix of a subject's level at positions (codes of occasions in a structure by occasion)."""
        if self.correlation is None:
            return np.eye(len(t))
        values, own = self.correlation.values(self.eta[: self.n_correlation]), self.correlation.levels[level]
        return own.spec.matrix(np.asarray(t, dtype=np.float64), values[own.own])

    def covariance(self, frame: pd.DataFrame, fitted: FloatArray | None = None) -> FloatArray:
        """Σ_i / σ² of one subject's rows: (n, n)."""
        g = self.sd_ratio(frame, fitted)
        return self.correlations(frame) * g[:, None] * g

    def _positions(self, column: pd.Series) -> FloatArray:
        assert self.correlation is not None
        if not (labels := self.correlation.rows.labels):
            return column.to_numpy(dtype=np.float64)
        text = [f"{v:g}" if isinstance(v, float) else str(v) for v in column]
        unknown = [v for v in text if v not in labels]
        if unknown:
            received = f"{column.name} {unknown[0]!r}"
            reason = "this occasion was not in the fitted data, so its correlations are unknown"
            raise data_error(received, reason, f"use one of {', '.join(labels)}, or a structure in continuous time")
        return np.array([labels.index(v) for v in text], dtype=np.float64)

    def __repr__(self) -> str:
        parts = [repr(bound.spec) for bound in (self.correlation, self.variance) if bound is not None]
        values = ", ".join(f"{name} = {value:.6g}" for name, value in self.parameters.items())
        return f"ResidualEstimate({' and '.join(parts)}: {values})"


def _column(frame: pd.DataFrame, name: str, what: str) -> pd.Series:
    if name not in frame.columns:
        received = f"rows without the column {name!r}"
        raise data_error(received, f"the {what} of the model depends on it", "add the column")
    return frame[name]
