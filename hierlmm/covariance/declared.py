"""What the classes of structures share: derivatives by differences, groups, and statements with what they describe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import quote

__all__ = [
    "data_error",
    "difference",
    "group_places",
    "keep_together",
    "naming_group",
    "refuse_fields",
    "specification_error",
]

SEE = "docs, page 'Residual structures'"
data_error, specification_error = partial(DataError, see=SEE), partial(SpecificationError, see=SEE)


@contextmanager
def naming_group(column: str | None, level: Any) -> Iterator[None]:
    """A refusal of the data of one group says of which; without groups (no column) it is left as it is.

    Raises
    ------
    DataError
    """
    try:
        yield
    except DataError as error:
        if column is None:
            raise
        received = f"{error.received}, in {column} {quote(level)}"
        raise data_error(received, error.reason, error.remedy) from None


def difference(function: Callable[[FloatArray], FloatArray], at: FloatArray, j: int, step: float) -> FloatArray:
    """Derivative by entry j, a central difference of fourth order."""

    def moved(by: float) -> FloatArray:
        shifted = at.copy()
        shifted[j] += by * step
        return function(shifted)

    return (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * step)


def keep_together(cls: type, base: type, definitions: Sequence[str], statements: Sequence[str]) -> None:
    """Take back what a class inherits and says of a definition that it, or a class nearer to it, has replaced.

    Only what a class had defined can be replaced: what a mixin says, or a base that leaves the definition open, is said
    of every one.
    """
    order = cls.__mro__

    def place(name: str) -> int:
        return next((k for k, c in enumerate(order) if name in vars(c)), len(order))

    def defines(c: type, name: str) -> bool:
        return c is not base and name in vars(c) and not getattr(vars(c)[name], "__isabstractmethod__", False)

    for name in statements:
        said = place(name)
        for definition in definitions:
            replaced = order[place(definition) + 1 : said]
            if place(definition) < said and any(defines(c, definition) for c in (*replaced, *order[said].__mro__)):
                setattr(cls, name, vars(base)[name])


def refuse_fields(cls: type, *reserved: str) -> None:
    """Refuse fields of a user's class that would hide a method, or an attribute named here.

    Raises
    ------
    SpecificationError
    """
    fields = getattr(cls, "__dataclass_fields__", {})  # of the classes above
    for name, annotation in inspect.get_annotations(cls).items():
        above = next((vars(c)[name] for c in cls.__mro__[1:] if name in vars(c)), None)
        hidden = isinstance(above, FunctionType) or (isinstance(above, property) and name not in vars(cls))
        if (name in reserved or (hidden and name not in fields)) and "ClassVar" not in str(annotation):
            received = f"{cls.__name__} with a field {name!r}"
            reason = "every structure has something else of that name, which the field would hide"
            raise specification_error(received, reason, f"give the field another name, for example own_{name}")


def group_places(column: pd.Series, levels: Sequence[Any]) -> FloatArray:
    """Place of each row's group among the levels.

    Raises
    ------
    DataError
        If a group was not in the fitted data.
    """
    unknown = [v for v in column.unique() if v not in levels]
    if unknown:
        received = f"{column.name} {quote(unknown[0])}"
        reason = "this group was not in the fitted data, so its residual parameters are unknown"
        raise data_error(received, reason, f"use one of {', '.join(map(quote, levels))}")
    return column.map({label: g for g, label in enumerate(levels)}).to_numpy(dtype=np.float64)
