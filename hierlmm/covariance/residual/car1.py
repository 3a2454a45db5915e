"""Continuous-time first-order autoregression, by the correlation one unit of time apart.

    R[s, t] = φ^|t_s - t_t|,   0 < φ < 1,     φ = exp(-1 / range)

The model of `Exponential` in another parameter. What the optimiser moves is the logarithm of the range (`Decay`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import data_error
from hierlmm.covariance.parameters import Decay, Parameter
from hierlmm.covariance.residual.base import Observed, Writer
from hierlmm.covariance.residual.decaying import Decaying, range_of_neighbours
from hierlmm.options import checked_constructor

SHORTEST, LONGEST = 1 / 300, 1e7
"""Ranges, in units of time, between which the correlation one unit apart is neither 0 nor 1 in floating point."""


@checked_constructor
@dataclass(frozen=True)
class CAR1(Decaying):
    """Continuous-time first-order autoregression: ``R[s, t] = φ^|t_s - t_t|``, ``0 < φ < 1``.

    φ is the correlation one unit of time apart; ``φ = exp(-1 / range)`` of `Exponential`.

    Parameters
    ----------
    time : str
        Column of the times.
    nugget : bool
        Multiply all correlations by ``1 - nugget``.
    start : float, optional
        Where the search for φ begins.
    """

    time: str = ""
    start_range: ClassVar[tuple[str, float, float]] = ("phi", 0.0, 1.0)
    rule: ClassVar[str] = "phi^|{t}_s - {t}_t|"
    kernel: ClassVar[str] = "decay"
    explicit: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0
    alike: ClassVar[tuple[str, ...]] = ("Exponential",)

    def decaying(self, observed: Observed) -> Parameter:
        """``phi``."""
        distance = range_of_neighbours(observed, None)
        if not SHORTEST < distance < LONGEST:
            raise data_error(
                f"CAR1({self.time!r}) and neighbouring times {observed.step:.3g} apart",
                f"phi is the correlation one unit of time apart, here {'0' if distance < 1 else '1'} to many digits",
                f"measure time in units of about that distance, or use Exponential({self.time!r})",
            )
        start = float(np.exp(-1.0 / distance)) if self.start is None else float(self.start)
        return Decay("phi", start, 0.0, 1.0, unit=observed.step)

    def decay(self, gaps: FloatArray, value: float) -> FloatArray:
        """``φ^gap``."""
        return np.power(value, gaps)

    def slope(self, gaps: FloatArray, value: float, decay: FloatArray) -> FloatArray:
        """``gap φ^(gap - 1)``."""
        return gaps * np.power(value, np.maximum(gaps - 1.0, 0.0)) if value == 0.0 else decay * gaps / value

    def explicit_decay(self, gaps: FloatArray, value: Any, xp: Any) -> Any:
        """``exp(gap log φ)``."""
        return xp.exp(gaps * xp.log(value))

    def decay_symbols(self, write: Writer) -> Any:
        """As in the docstring."""
        return write.raised(write.base("phi"), write.lag())
