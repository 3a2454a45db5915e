"""A band that holds a share of whole curves, by simulation, and how unusual the observed curve is among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray

LOOK = 0.01
"""A p-value from which on what was seen is worth a look, whatever else was looked at."""
EVEN = 1.0 + 1e-9
"""For p-values that are equal to a limit but for rounding: 10 × 1/200."""


@dataclass(frozen=True, eq=False)
class CurveBand:
    """An observed curve and the band of those that the model makes.

    Attributes
    ----------
    x, observed, lower, upper : (n,)
    p_value : float
        Of the largest deviation, among all places.
    ci : float
        Share of whole curves in the band, under the model.
    """

    x: FloatArray
    observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    p_value: float
    ci: float

    @property
    def stands_out(self) -> bool:
        """Whether the curve leaves the band."""
        return self.p_value <= 1.0 - self.ci

    @property
    def by_chance(self) -> bool:
        """Whether it leaves the band no further than now and then under the model: checks call that fine."""
        return self.stands_out and self.p_value > LOOK * EVEN

    @property
    def outside(self) -> BoolArray:
        """Where the curve leaves the band."""
        return ((self.observed < self.lower) | (self.observed > self.upper)) & self.stands_out


def curve_band(x: FloatArray, observed: FloatArray, simulated: FloatArray, ci: float) -> CurveBand:
    """Put a band around the mean curve, at each place as wide as the curves vary there, upwards and downwards.

    Parameters
    ----------
    x, observed : (n,)
    simulated : (n, simulations)
    ci : float
    """
    # The data are one more draw: with them in the pool all draws are exchangeable under the model.
    pool = np.column_stack([observed, simulated]).T
    centre = pool.mean(axis=0)
    gap = pool - centre
    up, down = (np.sqrt(_mean_square(np.maximum(sign * gap, 0.0))) for sign in (1.0, -1.0))
    p_value, reach = largest_deviation(np.maximum(_ratio(gap, up), _ratio(-gap, down)), ci)
    return CurveBand(x, observed, centre - reach * down, centre + reach * up, p_value, ci)


def largest_deviation(curves: FloatArray, ci: float) -> tuple[float, float]:
    """How unusual the first of exchangeable curves is by its largest deviation, and where a share ``ci`` of them stays.

    Parameters
    ----------
    curves : (simulations + 1, n)
        Deviations in units that can be compared along the curve.
    ci : float
    """
    largest = np.max(np.abs(curves), axis=1)
    p_value = float(np.mean(largest >= largest[0] * (1.0 - 1e-12)))
    return p_value, float(np.quantile(largest, ci, method="higher"))


def _mean_square(part: FloatArray) -> FloatArray:
    """Mean square of what is above zero."""
    count = np.maximum((part > 0.0).sum(axis=0), 1)
    return np.asarray((part**2).sum(axis=0) / count)


def _ratio(gap: FloatArray, sd: FloatArray) -> FloatArray:
    return np.divide(gap, sd, out=np.zeros_like(gap), where=sd > 0.0)
