"""Quantiles of mixtures of normal distributions, from their distribution function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

__all__ = ["mixture_quantile"]

FloatArray = NDArray[np.float64]


def mixture_quantile(m: FloatArray, s: FloatArray, p: float) -> float:
    """Quantile of the mixture, with equal weights, of N(m, s²); NaN where a component is not known."""
    if not (np.isfinite(m).all() and np.isfinite(s).all()):
        return np.nan
    s = np.maximum(s, 1e-10 * (np.abs(m).max() + s.max() + 1e-300))
    q = float(norm.ppf(p))
    # The quantile lies between the smallest and the largest of the components' own.
    low, high = float((m + q * s).min()), float((m + q * s).max())
    if high - low <= 1e-14 * max(abs(low), abs(high)):
        return low
    return float(brentq(lambda x: norm.cdf((x - m) / s).mean() - p, low, high, xtol=1e-13, rtol=1e-12))
