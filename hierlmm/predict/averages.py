"""Means over subjects: ``E g⁻¹(η + e)``, e ~ N(0, v), with v = z'Dz the variance of a row's random part.

Identity: η. Log: exp(η + v/2). Square root: η² + v. Probit: Φ(η / √(1 + v)). Elsewhere Gauss-Hermite quadrature in one
dimension, whatever the number of random effects.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from hierlmm.arrays import FloatArray
from hierlmm.families.family import Family

POINTS = 61


def mean_over_subjects(family: Family, eta: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean of the response over random effects: (...) and (...) -> (...).

    Parameters
    ----------
    family : Family
    eta : (...)
        Linear predictors at b = 0.
    variance : (...)
        z'Dz.
    """
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


def by_quadrature(function: Callable[[FloatArray], FloatArray], eta: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean of a function of the linear predictor over ``N(eta, variance)``: (...) and (...) -> as the function's."""
    node, weight = np.polynomial.hermite.hermgauss(POINTS)
    spread = np.sqrt(2.0 * variance)
    terms = (w * function(eta + spread * z) for z, w in zip(node, weight, strict=True))
    return np.asarray(sum(terms), dtype=np.float64) / np.sqrt(np.pi)
