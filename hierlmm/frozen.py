"""Frozen objects: no attribute can be set, tables are handed out as copies, arrays cannot be written to."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, NoReturn

import numpy as np
import pandas as pd


class Frozen:
    """Refuses to set or delete an attribute of whatever name, in every subclass.

    A frozen dataclass alone refuses its own fields, and any other name only where a subclass is a dataclass as well.
    What is computed once (``cached_property``) goes to ``__dict__`` directly.
    """

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


class Sealed(Frozen):
    """Hands out copies of its tables and Series, and read-only views of its arrays; what is private stays as it is.

    For frozen dataclasses, which stop nobody from writing *into* what they hold.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_"):
            return value
        if isinstance(value, (pd.DataFrame, pd.Series)):
            return value.copy()
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        return value


class OwnArrays:
    """Makes the arrays among the fields of a frozen dataclass read-only, without copying them, after pickling too."""

    def __post_init__(self) -> None:
        for name, values in list(vars(self).items()):
            if isinstance(values, np.ndarray):
                if values.base is not None and values.flags.writeable:  # a view of what another may still write to
                    values = values.copy()
                values.flags.writeable = False
                object.__setattr__(self, name, values)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # copies and pickles of an array are writable again
        self.__post_init__()
