"""What a time-varying covariate is at time t, given its history H(t) = {(s_k, x_k): s_k <= t}.

With k the subject's last measurement at or before t::

    CurrentValue          x_k            if s_k = t
    LastValue             x_k
    Lag                   LastValue, or the line between neighbours, at t - lag; only measurements up to t are used
    Interpolate           x_k + (x_{k+1} - x_k) (t - s_k) / (s_{k+1} - s_k)        (the one rule that needs the future)
    Cumulative            integral of x from s_1, or from an origin, to t, by trapezoids or by steps
    TimeSince             t - s, where s is the last (or first) measurement that meets a condition

A rule is data: what to do, not the doing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, dataclass_transform

import numpy as np

from hierlmm.errors import SpecificationError
from hierlmm.options import checked_with_constructor, renamed
from hierlmm.timevarying.history import SEE, one_of

specification_error = partial(SpecificationError, see=SEE)


@dataclass_transform(frozen_default=True)
def _rule[C: type](kind: C) -> C:
    """Make a rule of a class: frozen, made of checked arguments, with a variable that is not called ``x``."""
    frozen: Any = dataclass(frozen=True)(kind)
    return renamed(x="variable")(checked_with_constructor(frozen))


@_rule
class CurrentValue:
    """The value measured at the row's own time; missing where nothing was measured then.

    Parameters
    ----------
    variable : str
        Column of the history; numbers or labels.
    """

    variable: str

    def describe(self) -> str:
        """Return the rule in words."""
        return f"value of {self.variable!r} measured at the row's own time"


@_rule
class LastValue:
    """The last value measured up to the row's time, carried forward.

    Parameters
    ----------
    variable : str
        Column of the history; numbers or labels.
    within : float, optional
        Carry no value that is older than this (in the unit of time); such rows are missing.
    strict : bool
        Take only measurements before the row's time, not at it: the value at the previous measurement.
    """

    variable: str
    within: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.within is not None:
            _check_number(self.within, f"LastValue(within={self.within!r})", positive=True)

    def describe(self) -> str:
        """Return the rule in words."""
        limit = "" if self.within is None else f", no older than {self.within:g}"
        when = "before" if self.strict else "up to"
        return f"last value of {self.variable!r} {when} the row's time, carried forward{limit}"


@renamed(by="lag")
@_rule
class Lag:
    """The value at an earlier time, ``lag`` before the row's own.

    Parameters
    ----------
    variable : str
        Column of the history.
    lag : float
        How much earlier, in the unit of time; positive.
    how : {"last", "linear"}
        Where nothing was measured at t - lag: carry the last value before it forward, or take the line between the
        neighbouring measurements if the later one is not after t (otherwise the earlier one is carried forward).
    """

    variable: str
    lag: float
    how: Literal["last", "linear"] = "last"

    def __post_init__(self) -> None:
        _check_number(self.lag, f"Lag(lag={self.lag!r})", positive=True)
        one_of(f"Lag(how={self.how!r})", self.how, ("last", "linear"))

    def describe(self) -> str:
        """Return the rule in words."""
        how = "carried forward" if self.how == "last" else "on the line between measurements up to the row's time"
        return f"value of {self.variable!r} at {self.lag:g} before the row's time, {how}"


@_rule
class Interpolate:
    """The value on the line between the measurements before and after the row's time.

    After the subject's last measurement the last value is carried forward, and counted as carried.

    Parameters
    ----------
    variable : str
        Column of the history; numbers.
    future : bool
        Allow the next measurement after the row's time to be used. Without it, rows that need it are refused.
    """

    variable: str
    future: bool = False

    def describe(self) -> str:
        """Return the rule in words."""
        return f"value of {self.variable!r} on the line between its measurements"


@_rule
class Cumulative:
    """The area under the covariate up to the row's time, in units of x times units of time.

    Parameters
    ----------
    variable : str
        Column of the history; numbers.
    rule : {"trapezoid", "step"}
        Lines between measurements, or each value held until the next.
    origin : float, optional
        Where the area begins. By default at the subject's first measurement, where it is zero.
    extend_back : bool
        With an `origin` before a subject's first measurement: take the first value back to the origin. Without it such
        subjects are refused.
    average : bool
        Divide by the time elapsed: the mean of x so far (at the beginning, x itself). An area grows with time by
        itself and is hard to tell from it; the mean so far does not.
    future : bool
        Close the last stretch, from the last measurement to the row's time, on the line to the next measurement. By
        default the last value is carried over it.
    """

    variable: str
    rule: Literal["trapezoid", "step"] = "trapezoid"
    origin: float | None = None
    extend_back: bool = False
    average: bool = False
    future: bool = False

    def __post_init__(self) -> None:
        one_of(f"Cumulative(rule={self.rule!r})", self.rule, ("trapezoid", "step"))
        if self.origin is not None:
            _check_number(self.origin, f"Cumulative(origin={self.origin!r})")
        if self.future and self.rule == "step":
            received, remedy = "Cumulative(rule='step', future=True)", "leave future out, or use rule='trapezoid'"
            raise specification_error(received, "steps hold the last value and never need the next one", remedy)
        if self.extend_back and self.origin is None:
            received = "Cumulative(extend_back=True) without an origin"
            reason = "the area begins at the first measurement, so there is nothing to extend back to"
            raise specification_error(received, reason, "give the origin, for example origin=0")

    def describe(self) -> str:
        """Return the rule in words."""
        start = "each subject's first measurement" if self.origin is None else f"{self.origin:g}"
        what = "mean so far" if self.average else "area under"
        by = "trapezoids" if self.rule == "trapezoid" else "steps"
        return f"{what} {'of ' if self.average else ''}{self.variable!r} from {start} to the row's time, by {by}"


@_rule
class TimeSince:
    """Time since the last (or first) measurement, or since the last (or first) one that meets a condition.

    Parameters
    ----------
    variable : str
        Column of the history.
    when : value or callable, optional
        The value that counts, or a function from measurements (a pandas Series) to true and false for each of them,
        for example ``lambda x: x > 12``. It is called once for every measurement, with the subject's measurements up
        to that one in the order of time, and its last answer counts: ``lambda x: x > x.mean()`` compares with the mean
        so far, ``lambda x: x.diff() > 0`` with the measurement before. By default every measurement counts.
    which : {"last", "first"}
    """

    variable: str
    when: Any | Callable[[Any], Any] = None
    which: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        one_of(f"TimeSince(which={self.which!r})", self.which, ("last", "first"))

    def describe(self) -> str:
        """Return the rule in words."""
        condition = "" if self.when is None else f" equal to {self.when!r}"
        condition = " that meets the condition" if callable(self.when) else condition
        return f"time since the {self.which} measurement of {self.variable!r}{condition}"


Rule = CurrentValue | LastValue | Lag | Interpolate | Cumulative | TimeSince


def _check_number(value: Any, received: str, *, positive: bool = False) -> None:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not np.isfinite(value):
        raise specification_error(received, "it must be a finite number", "give it in the unit of the time column")
    if positive and value <= 0:
        reason = "it must be positive; zero or less would be the present or the future"
        raise specification_error(received, reason, "give a positive length in the unit of the time column")
