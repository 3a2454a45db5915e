"""Exponential decay in time, by its range: an Ornstein-Uhlenbeck process.

    R[s, t] = exp(-|t_s - t_t| / range);     with a nugget (1 - nugget) times that off the diagonal

Decays of neighbouring distances multiply, so that whitening is O(n_i).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual.base import Observed, Writer
from hierlmm.covariance.residual.decaying import Decaying, range_of_neighbours
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class Exponential(Decaying):
    """Exponential decay in time: ``R[s, t] = exp(-|t_s - t_t| / range)``, ``range > 0``.

    The continuous-time autoregression of nlme's ``corExp``; `CAR1` is the same model by ``phi = exp(-1 / range)``.

    Parameters
    ----------
    time : str
        Column of the times, in any unit; ``range`` has the same unit.
    nugget : bool
        Multiply all correlations by ``1 - nugget``: a share of the residual variance that is measurement error.
    start : float, optional
        Where the search for the range begins.
    """

    time: str = ""
    start_range: ClassVar[tuple[str, float, float]] = ("range", 0.0, np.inf)
    rule: ClassVar[str] = "exp(-|{t}_s - {t}_t| / range)"
    kernel: ClassVar[str] = "decay"
    explicit: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0
    alike: ClassVar[tuple[str, ...]] = ("CAR1",)

    def decaying(self, observed: Observed) -> Parameter:
        """``range``."""
        return Parameter("range", range_of_neighbours(observed, self.start), 0.0, spread=1.5, unit=observed.step)

    def decay(self, gaps: FloatArray, value: float) -> FloatArray:
        """``exp(-gap / range)``."""
        return np.exp(-gaps / value)

    def slope(self, gaps: FloatArray, value: float, decay: FloatArray) -> FloatArray:
        """``exp(-gap / range) gap / range²``."""
        return decay * gaps / value**2

    def explicit_decay(self, gaps: FloatArray, value: Any, xp: Any) -> Any:
        """``exp(-gap / range)``."""
        return xp.exp(-gaps / value)

    def decay_symbols(self, write: Writer) -> Any:
        """As in the docstring."""
        return write.exponential(write.lag() + " / " + write.parameter("range"))
