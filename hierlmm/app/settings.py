"""What can be set in a room: a number on a slider, a choice, heights of points; read from a browser or an address.

Whatever is read becomes a possible value: a number is moved to the nearest step inside its range, what cannot be
understood to the default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A slider.

    Attributes
    ----------
    name, label : str
    low, high, step, default : float
        Whole numbers where all of them are.
    """

    name: str
    label: str
    low: float
    high: float
    step: float
    default: float

    def read(self, given: Any) -> float:
        """The nearest possible value."""
        try:
            value = float(given)
        except (TypeError, ValueError):
            return self.default
        if math.isnan(value):
            return self.default
        value = min(max(value, self.low), self.high)
        value = min(self.low + round((value - self.low) / self.step) * self.step, self.high)
        whole = all(isinstance(v, int) for v in (self.low, self.step, self.default))
        return round(value) if whole else round(value, 10) + 0.0  # no negative zero


@dataclass(frozen=True)
class Choice:
    """One of several.

    Attributes
    ----------
    name, label : str
    options : mapping
        Value -> what it is called.
    default : str
    """

    name: str
    label: str
    options: Mapping[str, str]
    default: str

    def read(self, given: Any) -> str:
        """The value, or the default where there is no such option."""
        return given if isinstance(given, str) and given in self.options else self.default


@dataclass(frozen=True)
class Heights:
    """Heights of points that can be moved; none: where the data have them.

    Attributes
    ----------
    name : str
    n : int
        How many.
    low, high : float
    """

    name: str
    n: int
    low: float
    high: float
    default: tuple[float, ...] = ()

    def read(self, given: Any) -> tuple[float, ...]:
        """The heights, inside the range; none unless there are exactly ``n`` numbers."""
        parts = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else ()
        try:
            values = [float(v) for v in parts]
        except (TypeError, ValueError):
            return ()
        if len(values) != self.n or any(math.isnan(v) for v in values):
            return ()
        return tuple(round(min(max(v, self.low), self.high), 2) for v in values)


type Setting = Number | Choice | Heights


def read_all(settings: Sequence[Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all settings by name.

    Parameters
    ----------
    settings : sequence of Setting
    given : mapping
        Name -> what the browser or the address says; what is not there has its default.

    Returns
    -------
    dict
    """
    return {one.name: one.read(given[one.name]) if one.name in given else one.default for one in settings}
