"""Arrays of a frozen result that cannot be written to."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

__all__ = ["ReadOnlyArrays"]


class ReadOnlyArrays:
    """Copies the arrays named in ``ARRAYS`` and makes the copies read-only, after pickling too."""

    ARRAYS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in self.ARRAYS:
            values = np.array(getattr(self, name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()
