"""What a fit says of each grouping factor: one small mapping, by the names of the factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast, overload

import numpy as np
import pandas as pd

from hierlmm.design.factors import unknown_factor
from hierlmm.frozen import Frozen

MOST_ROWS = 10


class ByFactor[T](Frozen, Mapping[str, T]):
    """One value for each grouping factor of a model, by its name: ``fit.b["batch"]``. Nothing in it changes.

    Parameters
    ----------
    name : str
        What the values are, as in ``fit.b``.
    values : mapping
        Name of the factor -> table, Series or array, in the order of the formula.
    """

    _name: str
    _values: dict[str, Any]

    def __init__(self, name: str, values: Mapping[str, T]) -> None:
        self.__dict__.update(_name=name, _values=dict(values))

    def __getitem__(self, factor: str) -> T:
        if factor not in self:
            raise unknown_factor(factor, list(self._values))
        value: Any = self._values[factor]
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
            return value
        return cast(T, value.copy() if isinstance(value, (pd.DataFrame, pd.Series)) else value)

    def __contains__(self, factor: object) -> bool:
        return isinstance(factor, str) and factor in self._values

    @overload
    def get(self, factor: str, default: None = None) -> T | None: ...
    @overload
    def get[S](self, factor: str, default: S) -> T | S: ...
    def get(self, factor: str, default: Any = None) -> Any:
        """The value of a factor, or ``default`` where there is none of this name.

        Parameters
        ----------
        factor : str
        default : optional
            None if left out.
        """
        return default if factor not in self._values else self[factor]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "\n\n".join(f"{self._name}[{name!r}]\n{_shown(value)}" for name, value in self._values.items())


def _shown(value: Any) -> str:
    """A value as text: of many groups the first and last, of arrays of draws their shape."""
    if isinstance(value, pd.Series):  # without the line about its name and type, which says nothing of a factor
        text = value.to_string(max_rows=MOST_ROWS, name=False)
    elif isinstance(value, pd.DataFrame):
        text = value.to_string(max_rows=MOST_ROWS)
    else:
        return "array of " + " × ".join(map(str, np.shape(value)))
    return text + (f"\n({len(value)} rows)" if len(value) > MOST_ROWS else "")
