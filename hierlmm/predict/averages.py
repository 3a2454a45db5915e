"""Means over subjects: ``E g⁻¹(η + e)``, e ~ N(0, v), with v = z'Dz the variance of a row's random part.

Identity: η. Log: exp(η + v/2). Square root: η² + v. Probit: Φ(η / √(1 + v)). Elsewhere the trapezoidal rule in one
dimension, whatever the number of random effects: its error falls as exp(−2πd/(h√v)), h the step and d the distance of
the function's poles from the line (Trefethen & Weideman 2014, SIAM Review 56, 385-458), and where subjects differ much
it needs far fewer nodes than Gauss-Hermite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.families.family import Family

NONE = 1e-4
"""Share of subjects that is none."""
REACH = 8.5
"""Standard deviations on either side; what lies beyond has a probability of 2e-17."""
STEPS = 60
STRIDE = 0.6
"""Largest step on the scale of η, for which there are up to 8 times as many."""


def mean_over_subjects(family: Family, eta: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean of the response over random effects: (...) and (...) -> (...).

    Parameters
    ----------
    family : Family
    eta : (...)
        Linear predictors at b = 0.
    variance : (...)
        z'Dz.

    Raises
    ------
    NotAvailableError
        With the inverse link, where some subjects would have a linear predictor below zero: the mean of 1/η over a
        normal distribution that holds zero does not exist.
    """
    if family.link == "inverse":
        _refuse_zero(eta, variance)
    return averaged_inverse(family.link, family.mean, eta, variance)


def averaged_inverse(
    link: str, inverse: Callable[[FloatArray], FloatArray], eta: FloatArray, variance: FloatArray
) -> FloatArray:
    """Mean of the inverse of a link over ``N(eta, variance)``: (...) and (...) -> (...)."""
    if link == "identity":
        return eta
    if link == "log":
        return np.exp(eta + 0.5 * variance)
    if link == "sqrt":
        return eta**2 + variance
    if link == "probit":
        return ndtr(eta / np.sqrt(1.0 + variance))
    return by_quadrature(inverse, eta, variance)


def _refuse_zero(eta: FloatArray, variance: FloatArray) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = float(np.max(np.nan_to_num(ndtr(-eta / np.sqrt(variance))), initial=0.0))
    if share > NONE:
        received = f"the mean over subjects with the inverse link, {100 * share:.2g} % of whom would be below zero"
        reason = "the mean of 1/η over normally distributed η that may be zero does not exist"
        remedy = "use link='log', or means at b = 0: level='population'"
        raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")


def by_quadrature(function: Callable[[FloatArray], FloatArray], eta: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean of a function of the linear predictor over ``N(eta, variance)``: (...) and (...) -> as the function's."""
    spread = np.sqrt(variance)
    needed = 2.0 * REACH * float(np.max(spread, initial=0.0)) / (STRIDE * STEPS)
    finer = next((k for k in (1, 2, 4) if needed <= k), 8)
    node = np.linspace(-REACH, REACH, finer * STEPS + 1)
    weight = np.exp(-0.5 * node**2)
    terms = (w * function(eta + spread * z) for z, w in zip(node, weight / weight.sum(), strict=True))
    return np.asarray(sum(terms), dtype=np.float64)
