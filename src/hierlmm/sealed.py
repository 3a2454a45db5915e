"""Results whose tables are handed out as copies, so that writing to an answer does not change it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Sealed"]


class Sealed:
    """Hands out copies of its tables and Series, and read-only views of its arrays.

    For frozen dataclasses, which stop nobody from writing *into* what they hold.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if isinstance(value, (pd.DataFrame, pd.Series)):
            return value.copy()
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        return value
