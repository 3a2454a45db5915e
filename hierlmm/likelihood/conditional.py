"""Random effects given the data: conditional means and covariances.

    b_i | y, β, θ ~ N(K_i0 - K_i β, M_i),    M_i = σ² Λ (I + Λ'A_iΛ)⁻¹ Λ',    A_i = R_i'R_i

with ``K_i = Λ Λ' R_i' T_i⁻¹ C_i,x``: at β = β̂ the mean is the BLUP (Henderson 1950; Robinson 1991, Stat. Sci. 6) and
M_i is lme4's ``condVar``. Everything here is vectorised over subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.crossproducts import CrossProducts

__all__ = ["ConditionalEffects", "conditional_effects"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ConditionalEffects:
    """Distribution of b given y, β and θ, in the user's units.

    Attributes
    ----------
    origin : (J, q)
        Conditional mean at β = 0.
    slope : (J, q, p)
        K_i: the mean at β is ``origin - slope @ β``.
    covariance : (J, q, q)
        M_i.
    """

    origin: FloatArray
    slope: FloatArray
    covariance: FloatArray

    def mean(self, beta: FloatArray) -> FloatArray:
        """Conditional means at β: (p,) -> (J, q)."""
        return self.origin - self.slope @ beta


def conditional_effects(products: CrossProducts, Lambda: FloatArray, sigma: float) -> ConditionalEffects:
    """Condition the random effects on the data.

    Parameters
    ----------
    products : CrossProducts
    Lambda : (q, q)
        Relative factor in working columns.
    sigma : float
        Residual SD in the user's units.
    """
    scaling, p = products.scaling, products.n_fixed
    R, C = products.subject_R, products.subject_C
    q = R.shape[1]
    F = R @ Lambda
    inner = np.eye(q) + np.swapaxes(F, 1, 2) @ F
    # Λ (I + F'F)⁻¹ F' = Λ F' T⁻¹ (push-through identity), and (I + F'F) serves for M_i as well.
    weights = Lambda @ np.linalg.solve(inner, np.swapaxes(F, 1, 2) @ C)
    user = _back_random(scaling.Bz, weights)
    slope_working, origin = user[:, :, :p], user[:, :, p] * scaling.y_scale
    # β = y_scale Bx⁻¹ β̃ + shift, so K β̃ y_scale = K Bx (β - shift).
    slope = slope_working @ scaling.Bx
    origin = origin + slope @ scaling.shift
    half = _back_random(scaling.Bz, Lambda @ np.linalg.inv(np.swapaxes(np.linalg.cholesky(inner), 1, 2)))
    covariance = sigma**2 * half @ np.swapaxes(half, 1, 2)
    return ConditionalEffects(origin, slope, covariance)


def _back_random(Bz: FloatArray, values: FloatArray) -> FloatArray:
    """Apply Bz⁻¹ to the random-effects dimension of a stack of matrices."""
    return np.linalg.inv(Bz) @ values
