"""Named parameters of a residual structure, and the unconstrained numbers that the optimiser and the sampler move.

A parameter between two bounds is ``lower + (upper - lower) / (1 + exp(-η))``, one with a lower bound
``lower + unit exp(η)``, one without bounds is ``unit η``. With the unit taken from the data, |η| is of moderate size
whatever the units of measurement are, and a large one means the end of the range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import specification_error

LARGEST_ETA = 500.0
LARGEST_RATE = 650.0
"""Of a decay per unit of time: ``exp(-LARGEST_RATE)`` is a number that can still be divided by."""


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

    @property
    def moved(self) -> tuple[float, float, float]:
        """Lower and upper bound and unit of the number that η moves, the parameter itself."""
        return self.lower, self.upper, self.unit

    def natural(self, eta: float) -> float:
        """The parameter from η.

        Parameters
        ----------
        eta : float
            The unconstrained parameter.
        """
        if math.isinf(self.lower):
            return self.unit * eta
        if math.isinf(self.upper):
            return self.lower + self.unit * math.exp(min(eta, LARGEST_ETA))
        return self.lower + (self.upper - self.lower) * _expit(eta)

    def slope(self, eta: float) -> float:
        """Derivative of the parameter with respect to η.

        Parameters
        ----------
        eta : float
            The unconstrained parameter.
        """
        if math.isinf(self.lower):
            return self.unit
        if math.isinf(self.upper):
            return self.unit * math.exp(min(eta, LARGEST_ETA))
        p = _expit(eta)
        return (self.upper - self.lower) * p * _expit(-eta)

    def unconstrained(self, value: float) -> float:
        """η of a value inside the bounds.

        Parameters
        ----------
        value : float
            The parameter, between ``lower`` and ``upper``.
        """
        if math.isinf(self.lower):
            return value / self.unit
        if math.isinf(self.upper):
            return math.log((value - self.lower) / self.unit)
        return math.log(value - self.lower) - math.log(self.upper - value)


@dataclass(frozen=True)
class Decay(Parameter):
    """A correlation one unit of time apart, ``exp(-exp(-η) / unit)``: η is the logarithm of the range over ``unit``."""

    @property
    def moved(self) -> tuple[float, float, float]:
        """Bounds and unit of the range."""
        return 0.0, math.inf, self.unit

    def natural(self, eta: float) -> float:
        """The parameter from η."""
        return math.exp(-min(self._rate(eta), LARGEST_RATE))

    def slope(self, eta: float) -> float:
        """Derivative of the parameter with respect to η."""
        rate = self._rate(eta)
        return rate * math.exp(-rate) if rate < LARGEST_RATE else 0.0

    def _rate(self, eta: float) -> float:
        return math.exp(min(-eta, LARGEST_ETA)) / self.unit

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
        received = f"{what} with the starting value {name}={value!r}"
        reason = f"{name} lies between {low} and {high} (bounds excluded)"
        raise specification_error(received, reason, "give a value inside, or leave it out: the data choose one")


def check_parameters(what: str, parameters: Any) -> tuple[Parameter, ...]:
    """Parameters as a structure declares them, refused where the search or a table could not use them.

    Raises
    ------
    SpecificationError
        No tuple of `Parameter`, two of one name (or one named ``sigma``), bounds that hold nothing between them, or a
        start outside of them.
    """
    if not isinstance(parameters, tuple | list) or not all(isinstance(p, Parameter) for p in parameters):
        received = f"{what}, whose `parameters` returns {_short(parameters)}"
        remedy = "write for example return (hl.Parameter('range', start=2.0, lower=0.0),)"
        raise specification_error(received, "it returns a tuple of hl.Parameter, also where there is only one", remedy)
    for parameter in parameters:
        wrong = _why_unusable(parameter)
        if wrong:
            raise specification_error(f"{what} and {parameter!r}", wrong[0], wrong[1])
    names = [p.name for p in parameters]
    refuse_repeated_names(what, names)
    return tuple(parameters)


def refuse_repeated_names(what: str, names: Sequence[str]) -> None:
    """Refuse two residual parameters of one name, and one with the name of the residual SD.

    Raises
    ------
    SpecificationError
    """
    for k, name in enumerate(names):
        if name == "sigma" or name in names[:k]:
            received = f"{what} and a parameter named {name!r}"
            reason = "that is the name of the residual standard deviation" if name == "sigma" else "two have this name"
            raise specification_error(received, reason, "give it another name: tables and priors go by names")


def _why_unusable(p: Parameter) -> tuple[str, str] | None:
    """Reason and remedy, if a parameter cannot be moved or printed."""
    if not isinstance(p.name, str) or not p.name:
        return "a parameter has a name, which tables print", "write hl.Parameter('range', ...)"
    numbers = (p.start, p.lower, p.upper, p.spread, p.shape, p.unit)
    if any(isinstance(v, bool) or not isinstance(v, int | float | np.integer | np.floating) for v in numbers):
        return "start, bounds, spread, shape and unit are numbers", "write for example start=2.0, lower=0.0"
    if not math.isfinite(p.start):
        return "the search begins at start, which is not finite", "give a finite number between the bounds"
    if math.isnan(p.lower) or math.isnan(p.upper) or not p.lower < p.upper or p.lower == math.inf:
        return "there is no number between its bounds", "give a lower bound below the upper one"
    if math.isinf(p.lower) and math.isfinite(p.upper):
        return "an upper bound needs a lower one", "give lower as well, or use the negative of this parameter"
    if not p.lower < p.start < p.upper:
        return "start is not between its bounds, which are excluded", "give a start inside"
    if not all(math.isfinite(v) and v > 0 for v in (p.spread, p.shape, p.unit)):
        return "spread, shape and unit are positive", "leave them out, or give positive numbers"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
