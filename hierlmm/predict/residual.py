"""Level-1 errors of rows that were not fitted: the one place where predictions meet the residual structure.

With independent errors of equal variance, Σ = σ²I, a new error is independent of all others, and a subject's line is
also the best prediction of its next measurement. With serial correlation it is not: the errors of measurements nearby
say something about the next one, E(y* | y) = x*'β + z*'b̂ + Σ_{*,h} Σ_hh⁻¹ (y - Xβ - Zb̂). `residual_covariance` between
the rows of a history and further rows carries that into `hierlmm.predict.dynamic`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.positions import SAME_TIME, labelled
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.frames import is_number, quote
from hierlmm.predict.rows import SEE

Structures = ResidualEstimate | Sequence[ResidualEstimate] | None
"""One residual structure at its estimates, one for each draw, or the fit's own."""


def draws_of_structure(fit: Any) -> list[ResidualEstimate] | None:
    """The residual structure of a posterior at every draw, (S,); None for independent errors of equal variance."""
    if not fit.design.has_residual_structure:
        return None
    eta = fit.residual_draws()
    return [fit.residual_at(own) for own in as_rows(eta)]


def correlated(fit: Any) -> bool:
    """Whether errors of one subject are correlated, so that measurements lean on the residuals nearby."""
    return fit.design.residual is not None


def residual_variance(
    fit: Any, frame: pd.DataFrame, *, sigma: Any = None, structure: Structures = None, fitted: FloatArray | None = None
) -> FloatArray:
    """Variance of the level-1 error of each row.

    Parameters
    ----------
    fit : Fit
    frame : DataFrame
        The rows' columns (n rows).
    sigma : float or (S,), optional
        σ at which to evaluate, the fit's own otherwise; one or many (draws).
    structure : ResidualEstimate or sequence of them (S,), optional
        The residual structure at which to evaluate, the fit's own otherwise.
    fitted : (n,), optional
        Expected values of the rows, for a variance that depends on them.

    Returns
    -------
    (..., n)
    """
    structure = fit.residual_estimate if structure is None else structure
    variance = np.asarray(fit.sigma if sigma is None else sigma, dtype=np.float64)[..., None] ** 2
    if structure is None:
        return np.broadcast_to(variance, (*variance.shape[:-1], len(frame)))
    return variance * _each(structure, lambda own: own.sd_ratio(frame, fitted)) ** 2


def residual_covariance(
    fit: Any, frame: pd.DataFrame, other: pd.DataFrame | None = None, *, sigma: Any = None, structure: Structures = None
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
    DataError
        If the rows lack the column of the structure, or have positions there that it cannot use.
    """
    structure = fit.residual_estimate if structure is None else structure
    _check_variance(fit)
    _check_positions(fit, frame, structure)
    variance = np.asarray(fit.sigma if sigma is None else sigma, dtype=np.float64)[..., None, None] ** 2
    h = len(frame)
    if other is None:
        return variance * (np.eye(h) if structure is None else _each(structure, lambda own: own.covariance(frame)))
    spec = fit.design.residual
    if structure is None or spec is None:
        return np.zeros((*variance.shape[:-2], len(other), h))
    if spec.counts_rows:
        reason = "it counts the rows of a subject in their order, and the place of new rows among them is not said"
        remedy = "name the time in the structure, as in hl.AR1('visit'), or predict lines (interval='confidence')"
        raise NotAvailableError(f"new measurements under residual={spec_text(spec)}", reason, remedy, SEE)
    _check_positions(fit, other, None)
    both = pd.concat([frame, other])
    ties = set() if spec.ties else set(frame[spec.time]) & set(other[spec.time])
    if ties:
        received = f"a new measurement at {spec.time} = {quote(min(ties))}, which was measured"
        reason = "the residual process has one value there: the model says it would be the same number again"
        raise NotAvailableError(received, reason, "predict other times, or the line (interval='confidence')", SEE)
    return variance * _each(structure, lambda own: own.covariance(both)[h:, :h])


def _check_variance(fit: Any) -> None:
    """Refuse what needs the residual variance of a history where that depends on the fitted values."""
    spec = fit.design.residual_variance
    if spec is not None and spec.variable is None:
        raise NotAvailableError(
            f"a prediction from a subject's measurements under {spec_text(spec)}",
            "the residual variance of these measurements depends on their fitted values, which change with the "
            "prediction itself",
            f"refit with the variance as a function of a column, hl.{type(spec).__name__}('...'), or predict without "
            "a history: fit.predict(newdata, level='new_subject', interval='prediction')",
            SEE,
        )


def _check_positions(fit: Any, frame: pd.DataFrame, structure: Structures) -> None:
    """Refuse rows of one subject without positions, or with positions that the residual correlation cannot use.

    A history, whose rows are correlated with one another, comes with its ``structure``; rows that are predicted one by
    one come without, and may repeat a position.
    """
    spec = fit.design.residual
    if spec is None or spec.time is None:
        return
    name = spec.time
    if name not in frame.columns:
        received = f"rows without the column {name!r}"
        reason = f"the residual correlation of the model, {spec_text(spec)}, depends on it"
        raise DataError(received, reason, f"add the column {name!r}, to the history and to the rows to predict", SEE)
    column = frame[name]
    again = np.array(column.duplicated())
    if not labelled(spec, fit.design.frame[name]):
        values = _numbers(column, spec)
        if spec.integer and np.any(values != np.round(values)):
            raise DataError(
                f"{name} = {values[values != np.round(values)][0]:g} under residual={spec_text(spec)}",
                "its positions are whole numbers that count the occasions, and it says nothing of times between these",
                f"predict whole numbers of {name!r}, or refit with a structure in continuous time, "
                f"hl.Exponential({name!r})",
                SEE,
            )
        if structure is not None:
            bound = (structure if isinstance(structure, ResidualEstimate) else structure[0]).correlation
            order = np.argsort(values, kind="stable")
            again[order[1:]] = np.diff(values[order]) <= (SAME_TIME * bound.observed.step if bound else 0.0)
    if structure is not None and not spec.ties and again.any():
        remedy = "average the replicates, or correct the column"
        if spec.nugget is not None:
            remedy += f"; a model that allows them has {type(spec).__name__}(..., nugget=True)"
        received = f"two measurements of one subject at {name} = {quote(column[again].iloc[0])}"
        reason = "their residuals would be correlated perfectly, and the model says they are the same number"
        raise DataError(received, reason, remedy, SEE)


def _numbers(column: pd.Series, spec: Any) -> FloatArray:
    """The column as finite numbers."""
    column = column.infer_objects()
    real = is_number(column)
    values = column.to_numpy(dtype=np.float64) if real else np.full(1, np.nan)
    if not np.all(np.isfinite(values)):
        received = f"a column {column.name!r} of type {column.dtype}" + (" with infinite values" if real else "")
        reason = f"the positions of residual={spec_text(spec)} are finite numbers"
        raise DataError(received, reason, f"use the same numbers for {column.name!r} as in the fitted data", SEE)
    return values


def _each(
    structure: ResidualEstimate | Sequence[ResidualEstimate], function: Callable[[ResidualEstimate], FloatArray]
) -> FloatArray:
    """Evaluate at one structure, or at each of several: (..., ) or (S, ...)."""
    if isinstance(structure, ResidualEstimate):
        return function(structure)
    return np.stack([function(own) for own in structure])
