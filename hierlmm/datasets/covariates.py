"""The covariates of simulated data, and the columns that the names of coefficients stand for.

A covariate belongs to subjects (level 2) or to rows (level 1). A coefficient's name is a product of columns: its
level-1 part says on which of the subject's own coefficients it acts, its level-2 part what multiplies it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.errors import SpecificationError, closest

refuse = partial(SpecificationError, see="the documentation of hierlmm.simulate")

Array = np.ndarray
Covariate = Sequence[Any] | Callable[[np.random.Generator, int], Any]


@dataclass(frozen=True)
class Column:
    """A covariate: numbers, or codes into labels of which the first is the reference."""

    data: Array
    labels: list[str] | None = None

    def rows(self, take: Array) -> Any:
        """Return the column of a data frame, for these units."""
        if self.labels is None:
            return self.data[take]
        return pd.Categorical.from_codes(self.data[take], categories=pd.Index(self.labels))


type Columns = Mapping[str, Column]


def draw_covariates(
    rng: np.random.Generator, spec: Mapping[str, Covariate], unit: Array, argument: str
) -> dict[str, Column]:
    """Draw or allocate every covariate for the units 0, 1, ... (subjects, or positions within a subject)."""
    columns: dict[str, Column] = {}
    block = 1  # units per step: factors are crossed like the digits of a number
    # A stream for each, so that adding a covariate leaves the earlier ones as they were.
    for (name, how), own in zip(spec.items(), rng.spawn(len(spec)), strict=True):
        if callable(how):
            columns[name] = _from_function(how(own, len(unit)), len(unit), f"{argument}[{name!r}]")
        elif _is_distribution(how):
            columns[name] = Column(_from_distribution(own, tuple(how), len(unit), f"{argument}[{name!r}]"))
        else:
            labels, numeric = _levels(how, f"{argument}[{name!r}]")
            if argument == "level2" and len(labels) > len(unit):
                received = f"level2[{name!r}] with {len(labels)} levels and n_subjects={len(unit)}"
                raise refuse(received, "Some levels would have no subject.", "Use more subjects or fewer levels.")
            codes = unit // block % len(labels)
            if argument == "level2" and len(np.unique(codes)) < len(labels):
                # Too few subjects for a full crossing: allocate this factor evenly on its own.
                codes = own.permutation(np.arange(len(unit)) % len(labels))
            else:
                block *= len(labels)
            columns[name] = Column(np.asarray(labels, dtype=float)[codes]) if numeric else Column(codes, labels)
    return columns


def n_combinations(spec: Mapping[str, Covariate], argument: str) -> int:
    """Number of units after which the lists that go to them in turn begin again."""
    lists = {name: how for name, how in spec.items() if not (callable(how) or _is_distribution(how))}
    return math.prod(len(_levels(how, f"{argument}[{name!r}]")[0]) for name, how in lists.items())


def _is_distribution(how: Any) -> bool:
    # ("low", "high") is two labels; ("normal", 0, 1) is a distribution.
    return isinstance(how, tuple) and len(how) == 3 and [isinstance(v, str) for v in how] == [True, False, False]


def _from_distribution(rng: np.random.Generator, how: tuple[Any, ...], n: int, where: str) -> Array:
    kind, first, second = how
    a, b = finite(first, where), finite(second, where)
    if kind == "normal" and b >= 0:
        return rng.normal(a, b, n)
    if kind == "uniform" and a <= b:
        return rng.uniform(a, b, n)
    remedy = "Use ('normal', mean, sd) with sd >= 0, ('uniform', low, high) with low <= high, or a function f(rng, n)."
    raise refuse(f"{where}={how!r}", "It is not a distribution that can be drawn from.", remedy)


def _from_function(values: Any, n: int, where: str) -> Column:
    drawn = np.asarray(values)
    if drawn.shape != (n,):
        received = f"{where}, a function that returned an array of shape {drawn.shape}"
        reason = f"{n} values are needed, shape ({n},)."
        raise refuse(received, reason, "Return one value for each, for example lambda rng, n: rng.poisson(3, n).")
    if drawn.dtype.kind in "biuf":
        numbers = drawn.astype(float)
        if not np.isfinite(numbers).all():
            raise refuse(f"{where}, a function", "It returned values that are not finite.", "Return finite numbers.")
        return Column(numbers)
    labels, codes = np.unique(drawn.astype(str), return_inverse=True)
    return Column(codes, [str(v) for v in labels])


def _levels(how: Any, where: str) -> tuple[list[Any], bool]:
    """Return the levels of a list and whether they are numbers."""
    levels = list(how) if isinstance(how, Sequence | np.ndarray) and not isinstance(how, str) else []
    text = all(isinstance(v, str) for v in levels)
    numeric = all(isinstance(v, int | float | np.integer | np.floating) for v in levels)
    if not levels or not (text or numeric) or len(set(levels)) < len(levels):
        reason = "It describes no covariate: a list must hold different labels, or different numbers."
        remedy = "Use a list of labels, a list of numbers, ('normal', mean, sd), ('uniform', low, high), or f(rng, n)."
        raise refuse(f"{where}={how!r}", reason, remedy)
    return levels, numeric


DUMMY = re.compile(r"(?P<factor>.+)\[(?:T\.)?(?P<level>.+)\]")
POWER = re.compile(r"I\(\s*(?P<name>[^*()]+?)\s*\*\*\s*(?P<power>\d+)\s*\)")


def split(
    name: str, within: Columns, between: Columns, elsewhere: Columns | None = None
) -> tuple[str, Array | float, Array | float]:
    """Split a product into its level-1 part (its name and column) and its level-2 part (a column)."""
    level1_names: list[str] = []
    x: Array | float = 1.0
    w: Array | float = 1.0
    for factor in re.split(r":(?![^\[]*\])", name):  # a level may contain a colon
        text = factor.strip()
        if text in ("Intercept", "1"):
            continue
        if (column := _column(text, within, name)) is not None:
            level1_names.append(text)
            x = x * column
        elif (column := _column(text, between, name)) is not None:
            w = w * column
        elif elsewhere and _column(text, elsewhere, name) is not None:
            why = "it does not vary within a subject, so it has no coefficient there."
            remedy = "Let random name level-1 coefficients only: 'Intercept', the time, a level1 covariate."
            raise refuse(f"the random coefficient {name!r}", f"{text!r} is a level-2 covariate: {why}", remedy)
        else:
            known = ["Intercept", *within, *between, *(elsewhere or {})]
            reason = f"{text!r} is neither 'Intercept' nor a covariate.{closest(text, known)}"
            others = f"The columns are {', '.join(known[1:])}; describe others in level2 or level1."
            how = "A categorical covariate is written like 'sex[T.Male]', a product with ':'."
            raise refuse(f"the coefficient {name!r}", reason, f"{others} {how}")
    return ":".join(level1_names) or "Intercept", x, w


def _column(text: str, columns: Columns, whole: str) -> Array | None:
    """Return the numbers that one factor of a product stands for, or None if it is not among these columns."""
    if text in columns:
        column = columns[text]
        if column.labels is None:
            return column.data
        received = f"the coefficient {whole!r}"
        reason = f"{text!r} is categorical: it has one coefficient for each level but the first."
        raise refuse(received, reason, f"Name them: {', '.join(f'{text}[T.{v}]' for v in column.labels[1:])}.")
    if (match := POWER.fullmatch(text)) and match["name"] in columns and columns[match["name"]].labels is None:
        return columns[match["name"]].data ** int(match["power"])
    if not (match := DUMMY.fullmatch(text)) or match["factor"] not in columns:
        return None
    column, level = columns[match["factor"]], match["level"]
    if column.labels is None:
        remedy = f"Name it {match['factor']!r}, or describe it by a list of labels (text)."
        raise refuse(f"the coefficient {whole!r}", f"{match['factor']!r} is numeric and has no levels.", remedy)
    if level not in column.labels[1:]:
        why = "is the reference level" if level in column.labels else "is not one of its levels"
        levels = f"the levels of {match['factor']!r} are {', '.join(column.labels)}, the first being the reference."
        remedy = f"Name one of {', '.join(f'{match["factor"]}[T.{v}]' for v in column.labels[1:])}."
        raise refuse(f"the coefficient {whole!r}", f"{level!r} {why}; {levels}", remedy)
    return (column.data == column.labels.index(level)).astype(float)


def finite(value: Any, what: str) -> float:
    """Return the value as a float, or refuse it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise refuse(f"{what}={value!r}", "It is not a finite number.", "Give a finite number.")
    return number


def whole(value: Any, what: str, *, least: int) -> int:
    """Return the value as a whole number, or refuse it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        received = f"{what}={value!r}"
        raise refuse(received, f"It must be a whole number, at least {least}.", f"Try {what}={max(least, 10)}.")
    return int(value)
