"""Names of the kinds of arrays in annotations, by what they hold, and of the source of random numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
"""Positions: rows, subjects, coefficients."""
BoolArray = NDArray[np.bool_]
Rng = np.random.Generator


def as_rows(stack: FloatArray) -> FloatArray:
    """All but the last dimension as one, also where the last is empty: (..., k) -> (S, k)."""
    return stack.reshape(math.prod(stack.shape[:-1]), stack.shape[-1])
