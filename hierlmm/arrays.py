"""Names of the kinds of arrays that signatures speak of, and of the source of random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flags", "FloatArray", "Places", "Rng"]

FloatArray = NDArray[np.float64]
Places = NDArray[np.intp]
"""Positions in an array: rows, subjects, coefficients."""
Flags = NDArray[np.bool_]
Rng = np.random.Generator
