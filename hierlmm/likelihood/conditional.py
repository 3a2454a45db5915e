"""Random effects given the data: conditional means and covariances.

    b_i | y, β, θ ~ N(K_i0 - K_i β, M_i),    M_i = σ² Λ (I + Λ'A_iΛ)⁻¹ Λ',    A_i = R_i'R_i

with ``K_i = Λ Λ' R_i' T_i⁻¹ C_i,x``: at β = β̂ the mean is the BLUP (Henderson 1950; Robinson 1991, Stat. Sci. 6) and
M_i is lme4's ``condVar``. Everything here is vectorised over subjects.

The three variances that go by the name of "the variance of the random effects' estimate".

With ``C_i = D - D Z_i'V_i⁻¹Z_i D``, the slope ``S_i = D Z_i'V_i⁻¹X_i`` of the conditional mean in β, and
``A = Cov(β̂) = (X'V⁻¹X)⁻¹``:

    conditional        Var(b_i | y, β, θ)     = C_i
    prediction_error   Var(b̂_i - b_i | θ)     = C_i + S_i A S_i'              = D - D Z'K Z D
    var_of_blup        Var(b̂_i | θ)           = D - C_i - S_i A S_i'          = D Z'K Z D,   K = V⁻¹ - V⁻¹X A X'V⁻¹

so that ``var_of_blup + prediction_error = D`` (Henderson 1975, Biometrics 31, 423-447; Laird & Ware 1982).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design, own_covariances, own_effects
from hierlmm.likelihood.crossproducts import CrossProducts


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
    back = np.linalg.inv(scaling.Bz)
    user = back @ weights
    slope_working, origin = user[:, :, :p], user[:, :, p] * scaling.y_scale
    # β = y_scale Bx⁻¹ β̃ + shift, so K β̃ y_scale = K Bx (β - shift).
    slope = slope_working @ scaling.Bx
    origin = origin + slope @ scaling.shift
    half = back @ (Lambda @ np.linalg.inv(np.swapaxes(np.linalg.cholesky(inner), 1, 2)))
    covariance = sigma**2 * half @ np.swapaxes(half, 1, 2)
    return ConditionalEffects(origin, slope, covariance)


def of_subjects(design: Design, effects: ConditionalEffects) -> ConditionalEffects:
    """The same for the random effects that a subject has, where D differs by group."""
    if not design.group:
        return effects
    slope = np.moveaxis(own_effects(design, np.moveaxis(effects.slope, 2, 0)), 0, 2)
    return ConditionalEffects(own_effects(design, effects.origin), slope, own_covariances(design, effects.covariance))


class BlupVariances(NamedTuple):
    """Covariance matrices by subject, each (J, q, q), in the user's units."""

    var_of_blup: FloatArray
    conditional: FloatArray
    prediction_error: FloatArray


def blup_variances(effects: ConditionalEffects, D: FloatArray, beta_cov: FloatArray) -> BlupVariances:
    """Compute the three.

    Parameters
    ----------
    effects : ConditionalEffects
        Of b given y at θ; only ``slope`` and ``covariance`` are used.
    D : (q, q), or (J, q, q) by subject
    beta_cov : (p, p)
        Covariance of β̂ given θ.

    Notes
    -----
    ``var_of_blup`` is a difference: relative to D it is exact to rounding, about 1e-16.
    """
    from_beta = effects.slope @ beta_cov @ np.swapaxes(effects.slope, 1, 2)
    error = effects.covariance + from_beta
    return BlupVariances(D - error, effects.covariance.copy(), error)


def blup_variances_frame(b: pd.DataFrame, variances: BlupVariances) -> pd.DataFrame:
    """BLUPs and the diagonals of the three matrices, by (subject, term)."""
    names = [b.index.name or "subject", "term"]
    index: pd.MultiIndex = pd.MultiIndex.from_product([list(b.index), list(b.columns)], names=names)
    columns = {"blup": b.to_numpy().ravel()}
    # A difference may end a rounding error below zero.
    columns |= {
        name: np.clip(np.einsum("jkk->jk", value), 0.0, None).ravel() for name, value in variances._asdict().items()
    }
    return pd.DataFrame(columns, index=index)


def blup_variances_dataset(b: pd.DataFrame, variances: BlupVariances) -> Any:
    """BLUPs and the three matrices, as a Dataset (subject, term, term_bis)."""
    import xarray as xr

    matrices = {name: (("subject", "term", "term_bis"), value) for name, value in variances._asdict().items()}
    term = list(b.columns)
    coords = {"subject": b.index.to_numpy(), "term": term, "term_bis": term}
    return xr.Dataset({"blup": (("subject", "term"), b.to_numpy()), **matrices}, coords=coords)
