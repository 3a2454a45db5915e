"""Level-1 errors of rows that were not fitted: the one place where predictions meet the residual structure.

With independent errors of equal variance, Σ = σ²I, a new error is independent of all others, and a subject's line is
also the best prediction of its next measurement. With serial correlation it is not: the errors of measurements nearby
say something about the next one, E(y* | y) = x*'β + z*'b̂ + Σ_{*,h} Σ_hh⁻¹ (y - Xβ - Zb̂), and the covariance between
``new`` and ``history`` rows below carries that into `hierlmm.predict.dynamic`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["residual_covariance", "residual_variance"]

FloatArray = NDArray[np.float64]


def residual_variance(fit: Any, frame: pd.DataFrame, sigma: Any = None) -> FloatArray:
    """Variance of the level-1 error of each row.

    Parameters
    ----------
    fit : Fit
    frame : DataFrame
        The rows' columns (n rows).
    sigma : float or (S,), optional
        σ at which to evaluate, the fit's own otherwise; one or many (draws).

    Returns
    -------
    (..., n)
    """
    scale = np.asarray(fit.sigma if sigma is None else sigma, dtype=np.float64)
    return np.broadcast_to(scale[..., None] ** 2, (*scale.shape, len(frame)))


def residual_covariance(
    fit: Any, frame: pd.DataFrame, other: pd.DataFrame | None = None, sigma: Any = None
) -> FloatArray:
    """Covariance of the level-1 errors of one subject's rows, or between them and further rows of the same subject.

    Parameters
    ----------
    fit : Fit
    frame : DataFrame
        n rows of one subject.
    other : DataFrame, optional
        m further measurements of the same subject (other errors, even at the same time).
    sigma : float or (S,), optional
        As for `residual_variance`.

    Returns
    -------
    (..., n, n), or (..., m, n) with ``other``
    """
    variance = residual_variance(fit, frame, sigma)
    if other is not None:
        return np.zeros((*variance.shape[:-1], len(other), len(frame)))
    return variance[..., None] * np.eye(len(frame))
