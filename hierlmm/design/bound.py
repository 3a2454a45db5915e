"""The residual structure of a design, bound to its rows."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundCorrelation, BoundVariance, Groups, bind_correlation, bind_variance
from hierlmm.covariance.declared import group_places
from hierlmm.covariance.positions import Rows, make_rows
from hierlmm.covariance.variance import sorted_levels
from hierlmm.design.design import Design
from hierlmm.groups import first_rows


def structured_rows(design: Design) -> Rows:
    """The rows of a design by subject and position, as its residual correlation has them.

    Raises
    ------
    DataError
        Positions that the structure cannot use.
    """
    spec = design.residual
    column = None if spec is None or spec.time is None else design.frame[spec.time]
    return make_rows(spec, column, design.subject_index, design.subjects)


def distance_notes(design: Design) -> list[str]:
    """What must be known of the parameters of the residual correlation at the distances of these rows."""
    return [] if design.residual is None else design.residual.notes(structured_rows(design).gaps)


def bind_residual(
    design: Design, rows: Rows, residual: FloatArray
) -> tuple[BoundCorrelation | None, BoundVariance | None]:
    """Correlation and variance function with the parameters that the data give them.

    Parameters
    ----------
    design : Design
    rows : Rows
        `structured_rows` of it.
    residual : (N,)
        Of an ordinary regression, in the order of ``rows``, for starting values.

    Raises
    ------
    DataError
        Data that the structures cannot use.
    """
    correlation = variance = None
    if design.residual_variance is not None:
        variance = bind_variance(design.residual_variance, design.variance_covariate, rows)
    if design.residual is not None:
        others = len(design.coef) + 1 + design.n_random_parameters + (len(variance.parameters) if variance else 0)
        mixed = bool(design.term)
        groups = _groups(design)
        correlation = bind_correlation(design.residual, rows, residual, groups, mixed=mixed, n_parameters=others)
    return correlation, variance


def _groups(design: Design) -> Groups:
    """Groups of subjects with residual parameters of their own."""
    name = design.residual_group
    if name is None:
        return Groups(None, (None,), np.zeros(design.n_subjects, dtype=np.intp))
    first = first_rows(design.subject_index, design.n_subjects)
    levels = tuple(sorted_levels("group", design.frame[name]))
    return Groups(name, levels, group_places(design.frame[name].iloc[first], levels).astype(np.intp))
