"""Special functions for compiled code: derivatives of log Γ, and of the logarithm of the normal distribution function.

Polygamma functions: the recurrence up to an argument of 10 and the asymptotic series beyond (Abramowitz & Stegun 1964,
6.3.5, 6.3.18, 6.4.6, 6.4.12 to 6.4.14), to about 1e-14 relative. Mills' ratio far in the tail: the continued fraction
of Laplace (ibid., 26.2.14), so that nothing is lost where the distribution function underflows.
"""

from __future__ import annotations

import math

from hierlmm.compiled import compiled

LARGE = 10.0
TAIL = -6.0
HALF_LOG_2PI = 0.9189385332046727


@compiled(error_model="numpy")
def digamma(x: float) -> float:
    """Derivative of log Γ at x > 0."""
    shift = 0.0
    while x < LARGE:
        shift -= 1.0 / x
        x += 1.0
    t = 1.0 / (x * x)
    series = t * (1 / 12 - t * (1 / 120 - t * (1 / 252 - t * (1 / 240 - t * (1 / 132 - t * (691 / 32760 - t / 12))))))
    return shift + math.log(x) - 0.5 / x - series


@compiled(error_model="numpy")
def trigamma(x: float) -> float:
    """Second derivative of log Γ at x > 0."""
    shift = 0.0
    while x < LARGE:
        shift += 1.0 / (x * x)
        x += 1.0
    t = 1.0 / (x * x)
    series = t * (1 / 6 - t * (1 / 30 - t * (1 / 42 - t * (1 / 30 - t * (5 / 66 - t * (691 / 2730 - t * 7 / 6))))))
    return shift + (1.0 + 0.5 / x + series) / x


@compiled(error_model="numpy")
def tetragamma(x: float) -> float:
    """Third derivative of log Γ at x > 0."""
    shift = 0.0
    while x < LARGE:
        shift -= 2.0 / (x * x * x)
        x += 1.0
    t = 1.0 / (x * x)
    series = t * (1 / 2 - t * (1 / 6 - t * (1 / 6 - t * (3 / 10 - t * (5 / 6 - t * (691 / 210 - t * 35 / 2))))))
    return shift - t * (1.0 + 1.0 / x + series)


@compiled(error_model="numpy")
def log_normal_cdf(x: float) -> tuple[float, float, float, float]:
    """``log Φ(x)`` and its first three derivatives.

    With ``r = φ/Φ``: r, ``-r (x + r)`` and ``r ((x + r)(x + 2 r) - 1)``.
    """
    if x > TAIL:
        lower = 0.5 * math.erfc(-x / math.sqrt(2.0))
        value = math.log1p(-0.5 * math.erfc(x / math.sqrt(2.0))) if x > 0.0 else math.log(lower)
        r = math.exp(-0.5 * x * x - HALF_LOG_2PI) / lower
        s = x + r
    else:
        s = 0.0  # x + r = 1 / (|x| + 2 / (|x| + 3 / ...))
        for k in range(60, 0, -1):
            s = k / (-x + s)
        r = s - x
        value = -0.5 * x * x - HALF_LOG_2PI - math.log(r)
    return value, r, -r * s, r * (s * (s + r) - 1.0)
