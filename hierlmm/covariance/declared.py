"""What the classes of structures share: derivatives by differences, and statements that go with what they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hierlmm.arrays import FloatArray
from hierlmm.errors import DataError, SpecificationError

__all__ = ["data_error", "difference", "keep_together", "specification_error"]

SEE = "docs, page 'Residual structures'"
data_error, specification_error = partial(DataError, see=SEE), partial(SpecificationError, see=SEE)


def difference(function: Callable[[FloatArray], FloatArray], at: FloatArray, j: int, step: float) -> FloatArray:
    """Derivative by entry j, a central difference of fourth order."""

    def moved(by: float) -> FloatArray:
        shifted = at.copy()
        shifted[j] += by * step
        return function(shifted)

    return (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * step)


def keep_together(cls: type, base: type, definitions: Sequence[str], statements: Sequence[str]) -> None:
    """Take back what a class inherits and says of a definition that it, or a class nearer to it, has replaced."""

    def place(name: str) -> int:
        return next(k for k, c in enumerate(cls.__mro__) if name in vars(c))

    nearest = min(map(place, definitions))
    for name in statements:
        if place(name) > nearest:
            setattr(cls, name, vars(base)[name])
