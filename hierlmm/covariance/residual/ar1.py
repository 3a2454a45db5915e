"""First-order autoregression by order: ``e_t = ρ e_{t-1} + noise`` for rows one step apart.

    R[s, t] = ρ^|s - t|,   -1 < ρ < 1;     with a nugget (1 - nugget) ρ^|s - t| off the diagonal

One decay ``ρ^gap`` for each row, so that whitening is O(n_i). Positions are whole numbers: ρ may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual.base import Observed, Writer
from hierlmm.covariance.residual.decaying import Decaying
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class AR1(Decaying):
    """First-order autoregression by order: ``R[s, t] = ρ^|s - t|``, ``-1 < ρ < 1``.

    ```
    1    ρ    ρ²   ρ³
    ρ    1    ρ    ρ²
    ρ²   ρ    1    ρ
    ρ³   ρ²   ρ    1
    ```

    Parameters
    ----------
    time : str, optional
        Column of whole numbers that count the occasions (a missed occasion leaves a lag of 2), or of their labels (text
        or categories), which are counted in their order over all subjects. Left out: the order of the rows within a
        subject. For times that are no whole numbers use `Exponential` or `CAR1`.
    nugget : bool
        Multiply all correlations by ``1 - nugget``: a share of the residual variance that is measurement error.
    start : float, optional
        Where the search for ρ begins.
    """

    time: str | None = None
    integer: ClassVar[bool] = True
    start_range: ClassVar[tuple[str, float, float]] = ("rho", -1.0, 1.0)
    rule: ClassVar[str] = "rho^|s - t|"
    kernel: ClassVar[str] = "power"
    explicit: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0
    alike: ClassVar[tuple[str, ...]] = ("CAR1", "Exponential")
    _working_hint: ClassVar[str] = " (a working AR(1) needs a column of times)"

    def decaying(self, observed: Observed) -> Parameter:
        """``rho``."""
        start = observed.neighbour * (0.5 if observed.mixed else 1.0) if self.start is None else self.start
        return Parameter("rho", start, -1.0, 1.0)

    def decay(self, gaps: FloatArray, value: float) -> FloatArray:
        """``ρ^gap``."""
        return np.power(value, gaps)

    def slope(self, gaps: FloatArray, value: float, decay: FloatArray) -> FloatArray:
        """``gap ρ^(gap - 1)``."""
        return np.where(gaps > 0, gaps * np.power(value, np.maximum(gaps - 1.0, 0.0)), 0.0)

    def explicit_decay(self, gaps: FloatArray, value: Any, xp: Any) -> Any:
        """``ρ^gap``; ρ may be negative, and the gaps are whole numbers."""
        odd = np.where(gaps % 2 == 1, 1.0, 0.0)
        size = xp.exp(gaps * xp.log(xp.abs(value) + 1e-300))
        return xp.where(value < 0.0, size * (1.0 - 2.0 * odd), size)

    def decay_symbols(self, write: Writer) -> Any:
        """As in the docstring."""
        return write.raised(write.base("rho"), write.lag())

    def notes(self, gaps: FloatArray) -> list[str]:
        """Where all distances have a common divisor, ρ is a correlation that nobody saw."""
        seen = np.unique(gaps[gaps > 0])
        if self.time is None or not seen.size or seen[-1] >= 2**53:
            return []
        step = int(np.gcd.reduce(seen.astype(np.int64)))
        if step < 2:
            return []
        sign = ", and its sign, which an even distance cannot show, is that of where the search or the chains began"
        return [
            f"All distances in {self.time} are multiples of {step}, so rho, the correlation at a distance of 1, was "
            f"never observed{sign * (step % 2 == 0)}. To go on: count the occasions (a column 1, 2, 3, ...), or use "
            f"Exponential({self.time!r})."
        ]
