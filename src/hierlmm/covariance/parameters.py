"""Named parameters of a residual structure, and the unconstrained numbers that the optimiser and the sampler move.

A parameter between two bounds is ``lower + (upper - lower) / (1 + exp(-η))``, one with a lower bound
``lower + unit exp(η)``, one without bounds is ``unit η``. With the unit taken from the data, |η| is of moderate size
whatever the units of measurement are, and a large one means the end of the range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import SpecificationError

__all__ = ["Decay", "Parameter", "check_start", "natural_slopes", "natural_values", "unconstrained_values"]

FloatArray = NDArray[np.float64]
LARGEST_ETA = 500.0


@dataclass(frozen=True)
class Parameter:
    """One parameter of a residual correlation or variance function.

    Attributes
    ----------
    name : str
        As tables print it.
    start : float
        Where the search begins, inside the bounds.
    lower, upper : float
        Open bounds. An upper bound needs a lower one.
    spread : float
        Standard deviation of the default prior on the scale of η, around the start (parameters without an upper bound).
    shape : float
        Default prior of a parameter between two bounds: a Beta(shape, shape) distribution over its range; 1 is uniform.
    unit : float
        Scale of a parameter without an upper bound.
    """

    name: str
    start: float
    lower: float = -math.inf
    upper: float = math.inf
    spread: float = 1.0
    shape: float = 1.0
    unit: float = 1.0

    def natural(self, eta: float) -> float:
        """The parameter from η."""
        if math.isinf(self.lower):
            return self.unit * eta
        if math.isinf(self.upper):
            return self.lower + self.unit * math.exp(min(eta, LARGEST_ETA))
        return self.lower + (self.upper - self.lower) * _expit(eta)

    def slope(self, eta: float) -> float:
        """Derivative of the parameter with respect to η."""
        if math.isinf(self.lower):
            return self.unit
        if math.isinf(self.upper):
            return self.unit * math.exp(min(eta, LARGEST_ETA))
        p = _expit(eta)
        return (self.upper - self.lower) * p * _expit(-eta)

    def unconstrained(self, value: float) -> float:
        """η of a value inside the bounds."""
        if math.isinf(self.lower):
            return value / self.unit
        if math.isinf(self.upper):
            return math.log((value - self.lower) / self.unit)
        return math.log(value - self.lower) - math.log(self.upper - value)


@dataclass(frozen=True)
class Decay(Parameter):
    """A correlation one unit of time apart, ``exp(-exp(-η) / unit)``: η is the logarithm of the range over ``unit``."""

    def natural(self, eta: float) -> float:
        """The parameter from η."""
        return math.exp(-math.exp(min(-eta, LARGEST_ETA)) / self.unit)

    def slope(self, eta: float) -> float:
        """Derivative of the parameter with respect to η."""
        rate = math.exp(min(-eta, LARGEST_ETA)) / self.unit
        return rate * math.exp(-rate)

    def unconstrained(self, value: float) -> float:
        """η of a value inside the bounds."""
        return -math.log(-math.log(value) * self.unit)


def _expit(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    z = math.exp(x)
    return z / (1.0 + z)


def natural_values(parameters: tuple[Parameter, ...], eta: FloatArray) -> FloatArray:
    """Parameters from η: (k,) -> (k,)."""
    return np.array([p.natural(float(e)) for p, e in zip(parameters, eta, strict=True)])


def natural_slopes(parameters: tuple[Parameter, ...], eta: FloatArray) -> FloatArray:
    """Derivative of each parameter with respect to its own η: (k,) -> (k,)."""
    return np.array([p.slope(float(e)) for p, e in zip(parameters, eta, strict=True)])


def unconstrained_values(parameters: tuple[Parameter, ...], values: FloatArray) -> FloatArray:
    """η of parameters: (k,) -> (k,)."""
    return np.array([p.unconstrained(float(v)) for p, v in zip(parameters, values, strict=True)])


def check_start(what: str, name: str, value: float | None, lower: float, upper: float) -> None:
    """Refuse a starting value that is not a number inside the bounds.

    Raises
    ------
    SpecificationError
    """
    if value is None:
        return
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not lower < float(value) < upper:
        low = f"{lower:.4g}" if math.isfinite(lower) else "-∞"
        high = f"{upper:.4g}" if math.isfinite(upper) else "∞"
        raise SpecificationError(
            f"{what} with the starting value {name}={value!r}",
            f"{name} lies between {low} and {high} (bounds excluded)",
            "give a value inside, or leave it out: the data choose one",
            "docs, page 'Residual structures'",
        )
