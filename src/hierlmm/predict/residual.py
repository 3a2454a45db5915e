"""Level-1 errors of rows that were not fitted: the one place where predictions meet the residual structure.

With independent errors of equal variance, Σ = σ²I, a new error is independent of all others, and a subject's line is
also the best prediction of its next measurement. With serial correlation it is not: the errors of measurements nearby
say something about the next one, E(y* | y) = x*'β + z*'b̂ + Σ_{*,h} Σ_hh⁻¹ (y - Xβ - Zb̂). `residual_covariance` between
the rows of a history and further rows carries that into `hierlmm.predict.dynamic`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.errors import NotAvailableError
from hierlmm.predict.rows import SEE

__all__ = ["correlated", "residual_covariance", "residual_variance", "structure_of"]

FloatArray = NDArray[np.float64]


def structure_of(fit: Any) -> ResidualEstimate | None:
    """The fit's residual structure at its estimates, None for independent errors of equal variance.

    Raises
    ------
    NotAvailableError
        If the model has a structure and the fit does not say what it estimated.
    """
    structure = fit.residual_estimate
    if structure is None and fit.design.has_residual_structure:
        raise NotAvailableError(
            f"a prediction by {fit.estimator} with a residual structure",
            "this fit holds no estimate of the structure that can be evaluated for new rows",
            "predict without an interval, or use fit_reml()",
            SEE,
        )
    return structure


def correlated(fit: Any) -> bool:
    """Whether errors of one subject are correlated, so that measurements lean on the residuals nearby."""
    return fit.design.residual is not None


def residual_variance(
    fit: Any,
    frame: pd.DataFrame,
    *,
    sigma: Any = None,
    structure: ResidualEstimate | None = None,
    fitted: FloatArray | None = None,
) -> FloatArray:
    """Variance of the level-1 error of each row.

    Parameters
    ----------
    fit : Fit
    frame : DataFrame
        The rows' columns (n rows).
    sigma : float or (S,), optional
        σ at which to evaluate, the fit's own otherwise; one or many (draws).
    structure : ResidualEstimate, optional
        The residual structure at which to evaluate, the fit's own otherwise.
    fitted : (n,), optional
        Expected values of the rows, for a variance that depends on them.

    Returns
    -------
    (..., n)
    """
    structure = structure_of(fit) if structure is None else structure
    variance = np.asarray(fit.sigma if sigma is None else sigma, dtype=np.float64)[..., None] ** 2
    if structure is None:
        return np.broadcast_to(variance, (*variance.shape[:-1], len(frame)))
    return variance * structure.sd_ratio(frame, fitted) ** 2


def residual_covariance(
    fit: Any,
    frame: pd.DataFrame,
    other: pd.DataFrame | None = None,
    *,
    sigma: Any = None,
    structure: ResidualEstimate | None = None,
) -> FloatArray:
    """Covariance of the level-1 errors of one subject's rows, or between them and further rows of the same subject.

    Parameters
    ----------
    fit : Fit
    frame : DataFrame
        n rows of one subject.
    other : DataFrame, optional
        m further measurements of the same subject.
    sigma, structure
        As for `residual_variance`.

    Returns
    -------
    (..., n, n), or (..., m, n) with ``other``

    Raises
    ------
    NotAvailableError
        If the place of further rows among the others is not known, or a measurement would repeat an error.
    """
    structure = structure_of(fit) if structure is None else structure
    variance = np.asarray(fit.sigma if sigma is None else sigma, dtype=np.float64)[..., None, None] ** 2
    if other is None:
        return variance * (np.eye(len(frame)) if structure is None else structure.covariance(frame))
    if structure is None or structure.correlation is None:
        return np.zeros((*variance.shape[:-2], len(other), len(frame)))
    spec = structure.correlation.spec
    if spec.time is None and not spec.ties:
        raise NotAvailableError(
            f"new measurements under residual={spec!r}",
            "it counts the rows of a subject in their order, and the place of new rows among them is not said",
            "name the time in the structure, as in hl.AR1('visit'), or predict lines (interval='confidence')",
            SEE,
        )
    both = pd.concat([frame, other])
    correlations = structure.correlations(both)[len(frame) :, : len(frame)]
    if not spec.ties and np.any(correlations > 1.0 - 1e-12):
        raise NotAvailableError(
            f"a new measurement at a {spec.time} that was measured",
            "the residual process has one value there: the model says it would be the same number again",
            "predict other times, or the line (interval='confidence')",
            SEE,
        )
    ratio = structure.sd_ratio(both)
    return variance * (correlations * ratio[len(frame) :, None] * ratio[: len(frame)])
