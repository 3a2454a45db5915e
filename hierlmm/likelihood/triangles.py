"""Small triangular matrices in compiled code: Cholesky factors and their inverses, written out.

Only the lower triangle of what is factorised, and of what is returned, has a meaning.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled


@compiled(error_model="numpy")
def cholesky(A: FloatArray, smallest: float = 0.0) -> bool:
    """Replace A by its Cholesky factor; False where a squared pivot is not above ``smallest``."""
    for i in range(len(A)):
        for j in range(i + 1):
            value = A[i, j]
            for k in range(j):
                value -= A[i, k] * A[j, k]
            if j < i:
                A[i, j] = value / A[j, j]
            elif value > smallest:
                A[i, i] = np.sqrt(value)
            else:
                return False
    return True


@compiled(error_model="numpy")
def invert_triangle(L: FloatArray) -> None:
    """Replace a lower triangle by its inverse."""
    for i in range(len(L)):
        L[i, i] = 1.0 / L[i, i]
        for j in range(i):
            total = 0.0
            for k in range(j, i):
                total -= L[i, k] * L[k, j]
            L[i, j] = total * L[i, i]
