"""The three variances that go by the name of "the variance of the random effects' estimate".

With ``C_i = D - D Z_i'V_i⁻¹Z_i D``, the slope ``S_i = D Z_i'V_i⁻¹X_i`` of the conditional mean in β, and
``A = Cov(β̂) = (X'V⁻¹X)⁻¹``:

    conditional        Var(b_i | y, β, θ)     = C_i
    prediction_error   Var(b̂_i - b_i | θ)     = C_i + S_i A S_i'              = D - D Z'K Z D
    var_of_blup        Var(b̂_i | θ)           = D - C_i - S_i A S_i'          = D Z'K Z D,   K = V⁻¹ - V⁻¹X A X'V⁻¹

so that ``var_of_blup + prediction_error = D`` (Henderson 1975, Biometrics 31, 423-447; Laird & Ware 1982).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.likelihood.conditional import ConditionalEffects

__all__ = ["BlupVariances", "blup_variances", "blup_variances_dataset", "blup_variances_frame"]

FloatArray = NDArray[np.float64]


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
    D : (q, q)
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
