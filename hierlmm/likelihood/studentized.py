"""The studentised range: the largest difference of k standard normals, divided by an independent √(χ²_d / d).

With S(w) the probability that k standard normals range over more than w,

    S(w) = k ∫ φ(z) { Φ(-z)^(k-1) - (Φ(z + w) - Φ(z))^(k-1) } dz        (z the smallest of them)
    P(Q > q) = ∫ S(q eˣ) g(x) dx,       g the density of x = log √(χ²_d / d).

The sums over equal steps are as good as exact for such integrands, smooth and falling fast at both ends. The braces are
written without cancellation, so that small probabilities keep their relative accuracy; S is tabulated once for a k.
What this says is scipy's `studentized_range` to 1e-9 of its size, some thousand times faster.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr

from hierlmm.arrays import FloatArray

WIDEST = 75.0
"""Where S is zero for all purposes."""
KNOTS = 3001
STEP = 0.04


def range_sf(q: FloatArray, k: int, df: FloatArray) -> FloatArray:
    """P(Q > q) of the range of k, one by one; degrees of freedom may be infinite."""
    pairs = np.broadcast_arrays(np.asarray(q, dtype=np.float64), df)
    found = [_sf(float(v), k, float(d)) for v, d in zip(*map(np.ravel, pairs), strict=True)]
    return np.reshape(found, pairs[0].shape)


def range_quantile(probability: float, k: int, df: float) -> float:
    """The q with P(Q <= q) = probability."""
    high = 4.0
    while _sf(high, k, df) > 1.0 - probability:
        high *= 2.0
    return float(brentq(lambda q: _sf(q, k, df) - (1.0 - probability), 0.0, high, xtol=1e-11, rtol=1e-12))


def _sf(q: float, k: int, df: float) -> float:
    if math.isnan(q) or math.isnan(df):
        return math.nan
    log_tail = _log_tail(k)
    if math.isinf(df):
        return math.exp(log_tail(q)) if q < WIDEST else 0.0
    # The integrand is largest between x = 0 and where S and the density balance, and falls as exp(df x) before that.
    step = min(STEP, 0.25 / math.sqrt(2.0 * df))
    peak = 0.5 * math.log(df / (df + 0.5 * q * q))
    x = np.arange(peak - max(40.0 / df, 9.0 / math.sqrt(df)), min(9.0 / math.sqrt(df), 4.0), step)
    log_density = _log_peak(df) - df * (0.5 * np.expm1(2.0 * x) - x)
    w = q * np.exp(x)
    log_s = np.where(w < WIDEST, log_tail(np.minimum(w, WIDEST)), -np.inf)
    return min(1.0, float(step * np.exp(log_s + log_density).sum()))


def _log_peak(df: float) -> float:
    """Log density at x = 0; by Stirling's series where a difference of large numbers would lose digits."""
    a = 0.5 * df
    if a > 50.0:
        return 0.5 * math.log(2.0 * a / math.pi) - 1.0 / (12.0 * a) + 1.0 / (360.0 * a**3)
    return math.log(2.0) + a * math.log(a) - a - float(gammaln(a))


@lru_cache(maxsize=32)
def _log_tail(k: int) -> CubicSpline:
    """Log S(w) as a function on [0, WIDEST]."""
    w = np.linspace(0.0, WIDEST, KNOTS)
    z = np.arange(-WIDEST - 9.0, 9.0, 0.1)
    values = np.empty(KNOTS)
    log_phi, log_above = -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi), log_ndtr(-z)
    for i, width in enumerate(w):
        with np.errstate(divide="ignore"):
            inside = np.log1p(-np.exp(log_ndtr(-z - width) - log_above))
            brace = np.log(-np.expm1((k - 1) * inside))
        values[i] = np.logaddexp.reduce(log_phi + (k - 1) * log_above + brace)
    return CubicSpline(w, values + math.log(0.1 * k))
