"""Tables of counts and numbers in print."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.results import Table
from hierlmm.text import PROBABILITIES, align, number, probability_text, show


def counted(frame: pd.DataFrame, caption: str) -> Table:
    """A table whose whole numbers are printed as such, whose labels stand to the left."""
    left = [k for k, name in enumerate(frame.columns) if not pd.api.types.is_numeric_dtype(frame[name])]
    columns = [_column(str(name), frame[name]) for name in frame.columns]
    cells = [list(map(str, frame.columns)), *(list(row) for row in zip(*columns, strict=True))]
    return Table(frame, align(cells, left), caption)


def _column(name: str, values: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(values):
        return [show(v) for v in values]
    array = values.to_numpy(dtype=float)
    if name in PROBABILITIES:
        return [probability_text(v) for v in array]
    if name == "df":
        return ["" if np.isnan(v) else f"{v:.0f}" for v in array]
    return ["" if np.isnan(v) else number(v) for v in array]
