"""Gaussian decay in time: a process with derivatives of all orders.

    R[s, t] = exp(-(|t_s - t_t| / range)²),     ∂R/∂range = 2 lag² / range³ · R

Its decays do not multiply from row to row: rows are whitened by Cholesky factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual.base import Observed, Writer, lags
from hierlmm.covariance.residual.decaying import Decaying, range_of_neighbours
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class Gaussian(Decaying):
    """Gaussian decay in time: ``R[s, t] = exp(-(|t_s - t_t| / range)²)``, a smooth process (nlme's ``corGaus``).

    Parameters
    ----------
    time : str
        Column of the times, in any unit; ``range`` has the same unit.
    nugget : bool
        Multiply all correlations by ``1 - nugget``.
    start : float, optional
        Where the search for the range begins.
    """

    time: str = ""
    start_range: ClassVar[tuple[str, float, float]] = ("range", 0.0, np.inf)
    rule: ClassVar[str] = "exp(-(|{t}_s - {t}_t| / range)²)"
    serial: ClassVar[bool] = False
    kernel: ClassVar[str] = "gaussian"
    independent_at: ClassVar[float | None] = 0.0

    def decaying(self, observed: Observed) -> Parameter:
        """``range``."""
        return Parameter("range", range_of_neighbours(observed, self.start, 2.0), 0.0, spread=1.5, unit=observed.step)

    def decay(self, gaps: FloatArray, value: float) -> FloatArray:
        """``exp(-(gap / range)²)``."""
        return np.exp(-((gaps / value) ** 2))

    def slope(self, gaps: FloatArray, value: float, decay: FloatArray) -> FloatArray:
        """``2 gap² / range³`` times the decay."""
        return decay * 2.0 * (gaps / value) ** 2 / value

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        lag = lags(t)
        R = self.decay(lag, values[0])
        slope = self.slope(lag, values[0], R)
        return np.array([(1.0 - values[1]) * slope, np.eye(R.shape[-1]) - R]) if self.nugget else slope[None]

    def decay_symbols(self, write: Writer) -> Any:
        """As in the docstring."""
        return write.exponential(write.raised("(" + (write.lag() + " / " + write.parameter("range")) + ")", "2"))
