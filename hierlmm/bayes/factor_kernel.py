"""The collapsed log posterior of several grouping factors, compiled: `collapsed_kernel` with other sums.

The density is that of `collapsed_kernel`; what the data say at one Λ comes from `forest_sums`. Rows, products and the
order of elimination stand at the end of the packed vector, whole numbers by their bits. Where the rest is too large for
that, the sums themselves stand there, put in by Python before each call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes import collapsed_kernel
from hierlmm.bayes.collapsed_kernel import SIGNATURE, Packed
from hierlmm.compiled import compiled, compiled_callback, cut, with_names
from hierlmm.likelihood.forest_sums import factor_sums
from hierlmm.likelihood.kernel import PatternSums
from hierlmm.likelihood.several_factors import FactorProducts

LARGEST = 1e100


def room_for_sums(data: FactorProducts) -> FloatArray:
    """Place for the sums, where Python finds them."""
    q, P = data.at[-1], len(data.XY)
    return np.zeros(1 + P * P + q * q + q * q * P * P)


@compiled(inline="always")
def _from_rows(packed: Packed, Lambda: FloatArray) -> PatternSums:
    """`collapsed_kernel.sums_at` of several factors; none where Λ is no number that could be squared."""
    P, q = len(packed.S_w), len(Lambda)
    if not np.all(np.abs(Lambda) < LARGEST):
        return PatternSums(np.eye(P), np.nan, np.zeros((q, q)), np.zeros((q, q, P, P)))
    return factor_sums(packed.others, P, Lambda)[0]


@compiled(inline="always")
def _given(packed: Packed, Lambda: FloatArray) -> PatternSums:
    """`collapsed_kernel.sums_at` where the sums are in the packed vector."""
    P, q = len(packed.S_w), len(Lambda)
    G, rest = cut(packed.others[1:], P, P)
    EE, rest = cut(rest, q, q)
    return PatternSums(G, packed.others[0], EE, rest.reshape((q, q, P, P)))


_density_of_rows = compiled(inline="always")(
    with_names(collapsed_kernel._density.py_func, "factors", sums_at=_from_rows)
)
_density_of_sums = compiled(inline="always")(with_names(collapsed_kernel._density.py_func, "sums", sums_at=_given))


@compiled()
def density_of_sums(
    theta: FloatArray, gradient: FloatArray, buffer: FloatArray, Gamma: FloatArray, Lambda: FloatArray
) -> float:
    """The density as Python calls it, with the sums at the end of the buffer."""
    return _density_of_sums(theta, gradient, buffer, Gamma, Lambda)


@cache
def compiled_factors() -> Any:
    """Compile the density of several factors to a C function (cached on disk) that needs no Python lock."""
    own = with_names(collapsed_kernel._callback, "factors", _density=_density_of_rows)
    return compiled_callback(SIGNATURE, own)
