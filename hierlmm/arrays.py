"""Names of the kinds of arrays in annotations, by what they hold, and of the source of random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
"""Positions: rows, subjects, coefficients."""
BoolArray = NDArray[np.bool_]
Rng = np.random.Generator
