"""Correlations that decay with the distance, with or without a nugget: what AR1, CAR1, Exponential and Gaussian share.

With the off-diagonal share u (1, or ``1 - nugget``) and one decay d_r per step, a serial one has

    R[s, t] = u · Π_{r = s+1..t} d_r,   s < t;     R[t, t] = 1
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import specification_error
from hierlmm.covariance.parameters import Parameter, check_start
from hierlmm.covariance.residual.base import Markov, Observed, ResidualCorrelation, Writer, check_time, lags


@dataclass(frozen=True)
class Decaying(ResidualCorrelation):
    """A decay of one parameter, perhaps times ``1 - nugget``.

    Attributes
    ----------
    start_range : tuple
        Name and bounds of the decay's parameter.
    rule : str
        The decay as text; ``{t}`` is the column of times.
    serial : bool
        Whether the decays of two steps multiply.
    alike : tuple of str
        Other structures in the same times whose decays are all among its own.
    """

    time: str | None = ""
    nugget: bool = False
    start: float | None = None
    start_range: ClassVar[tuple[str, float, float]]
    rule: ClassVar[str]
    serial: ClassVar[bool] = True
    alike: ClassVar[tuple[str, ...]] = ()
    _definitions: ClassVar[tuple[str, ...]] = ("matrix", "decay")

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.time is not None or type(self).time is not None:
            check_time(name, self.time)
        if not isinstance(self.nugget, bool):
            received, remedy = f"{name} with nugget={self.nugget!r}", "write nugget=True or nugget=False"
            raise specification_error(received, "nugget says whether there is one; its share is estimated", remedy)
        check_start(name, self.start_range[0], self.start, *self.start_range[1:])

    @abstractmethod
    def decaying(self, observed: Observed) -> Parameter:
        """The decay's parameter.

        Parameters
        ----------
        observed : Observed
            As for `parameters`.
        """

    @abstractmethod
    def decay(self, gaps: FloatArray, value: float) -> FloatArray:
        """Decay over distances.

        Parameters
        ----------
        gaps : array
            Distances.
        value : float
            The decay's parameter.
        """

    @abstractmethod
    def slope(self, gaps: FloatArray, value: float, decay: FloatArray) -> FloatArray:
        """Derivative of the decay by its parameter.

        Parameters
        ----------
        gaps, value
            As for `decay`.
        decay : array
            What `decay` gives.
        """

    @abstractmethod
    def decay_symbols(self, write: Writer) -> Any:
        """The decay in symbols.

        Parameters
        ----------
        write : Writer
            As for `symbols`.
        """

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """The decay's own and, if asked for, ``nugget``."""
        own = self.decaying(observed)
        return (own, Parameter("nugget", 0.1 if observed.mixed else 0.2, 0.0, 1.0)) if self.nugget else (own,)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """The decay over all lags, times ``1 - nugget`` off the diagonal."""
        R = self.decay(lags(t), values[0])
        return (1.0 - values[1]) * R + values[1] * np.eye(R.shape[-1]) if len(values) > 1 else R

    def contains(self, other: ResidualCorrelation) -> bool:
        """As of every structure, and those that are ``alike``."""
        alike = type(other).__name__ in self.alike and self.time is not None and other.time == self.time
        return super().contains(other) or (alike and (self.has_nugget or not other.has_nugget))

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov | None:
        """The decay of every step."""
        if not self.serial:
            return None
        decay = self.decay(gaps, values[0])
        slope = self.slope(gaps, values[0], decay)
        if len(values) > 1:
            return Markov(1.0 - values[1], decay, np.array([0.0, -1.0]), np.array([slope, np.zeros_like(decay)]))
        return Markov(1.0, decay, np.zeros(1), slope[None])

    def explicit_decay(self, gaps: FloatArray, value: Any, xp: Any) -> Any:
        """Decays in terms of an array module's functions.

        Parameters
        ----------
        gaps, value
            As for `decay`.
        xp : module
            As for `explicit_form`.
        """
        return super().explicit_form(gaps, [value], xp)  # refuses: a structure writes its own

    def explicit_form(self, gaps: FloatArray, values: Sequence[Any], xp: Any) -> tuple[Any, Any]:
        """Share and decays."""
        return 1.0 - values[1] if self.nugget else None, self.explicit_decay(gaps, values[0], xp)

    def formula(self) -> str:
        """As in the docstring."""
        body = self.rule.format(t=self.time)
        return f"(1 - nugget) {body} for s ≠ t" if self.nugget else body

    def symbols(self, write: Writer) -> Any:
        """The decay in symbols, times ``1 - nugget``."""
        body = self.decay_symbols(write)
        return write.measured(body) if self.nugget else body

    def working(self) -> tuple[str, str | None] | None:
        """AR(1) in time, ``alpha ** |t_j - t_k|``, of a serial decay without nugget."""
        return ("ar1", self.time) if self.serial and self.time is not None and not self.nugget else None


def range_of_neighbours(observed: Observed, start: float | None, power: float = 1.0) -> float:
    """Range at which neighbouring residuals have their observed correlation (less, beside random effects)."""
    if start is not None:
        return float(start)
    rho = min(max(observed.neighbour, 0.05), 0.95)
    found = observed.step * (-np.log(rho)) ** (-1.0 / power)
    return float(found * (0.3 if observed.mixed else 1.0))
