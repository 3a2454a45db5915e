"""From a design to the solution of its estimating equations, as a record that a fit is made of.

    Σ_i D_i' V_i(α)⁻¹ (y_i - μ_i) = 0

The mathematics is in `hierlmm.gee.estimate`; here the rows get their times, and the arguments their checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, warn
from hierlmm.families.family import Family
from hierlmm.gee.estimate import GEEEstimate, Scale, describe_estimate, estimate_gee
from hierlmm.options import checked, choose

StandardError = Literal["robust", "naive", "bias_reduced"]
SEE = "docs, page 'GEE'"
REFUSED = {
    "ordinal": (
        "a category has no mean, of which the equations are",
        "use fit_ml() of a TwoLevelModel, or code two categories as 0 and 1",
    ),
    "student_t": (
        "the equations know a mean and a variance, and heavy tails are in neither",
        "use family='gaussian' for the mean, whose robust standard errors need no distribution, or fit_ml() of a "
        "TwoLevelModel",
    ),
}
"""Family -> why it has no GEE, and what to do."""


@dataclass(frozen=True)
class GEERecord:
    """The solution, what was taken as time, the standard errors asked for, and what must be known."""

    design: Design
    estimate: GEEEstimate
    time: str | None
    se: StandardError
    warnings: tuple[str, ...]


@checked
def fit_gee(
    design: Design,
    /,
    correlation: str = "exchangeable",
    *,
    time: Any = None,
    scale: Scale = "n-p",
    ar_pairs: Literal["all", "adjacent"] = "all",
    se: StandardError = "robust",
    max_iterations: int = 200,
    shape: float | None = None,
) -> GEERecord:
    """Solve the estimating equations of a design; the arguments are those of ``TwoLevelModel.fit_gee``.

    Of the design only ``y``, ``X``, ``offset``, ``coef``, ``subject_index``, ``subjects``, ``frame``, the weights
    and the outcome are used.
    """
    choose("se", se, get_args(StandardError))
    check_family(design.family, shape)
    if not design.coef:
        received, reason = "GEE of a model without fixed effects", "its estimating equations are those of coefficients"
        remedy = "add a mean to the model ('y ~ 1 + ...'), or use fit_reml(), fit_ml() or fit()"
        raise NotAvailableError(received, reason, remedy, SEE)
    times, name = _times(design, time)
    options: dict[str, Any] = {"ar_pairs": ar_pairs, "max_iterations": max_iterations, "shape": shape}
    estimate = estimate_gee(design, times, correlation=correlation, scale=scale, **options)
    messages = describe_estimate(estimate, design)
    if not estimate.converged:
        warn(messages[0])
    return GEERecord(design, estimate, name, se, messages)


def check_family(family: Family, shape: float | None = None) -> None:
    """Refuse families that are no mean with a variance, and a shape where there is none.

    Raises
    ------
    NotAvailableError, SpecificationError
    """
    if family.name in REFUSED or "statsmodels" not in family.elsewhere:
        unknown = (
            "its variance as a function of the mean is not among those that this estimator knows",
            "use fit_ml() of a TwoLevelModel",
        )
        reason, remedy = REFUSED.get(family.name, unknown)
        raise NotAvailableError(f"GEE of family={family.name!r}", reason, remedy, SEE)
    if shape is None:
        return
    if family.name != "negative_binomial":
        reason = f"the variance of a {family.title} response has no shape that GEE would need to know"
        raise SpecificationError(f"shape={shape!r}", reason, "leave it out; it is of family='negative_binomial'", SEE)
    if not 0.0 < shape < np.inf:
        reason = "the shape of a negative binomial is positive; its limit at infinity is Poisson"
        raise SpecificationError(f"shape={shape!r}", reason, "use a positive number, or family='poisson'", SEE)


def _times(design: Design, time: Any) -> tuple[NDArray[np.generic] | None, str | None]:
    """Values of the rows' times and their name, from the name of a column or from one value for each row."""
    if time is None:
        return None, None
    frame = design.frame
    if isinstance(time, str):
        if time not in frame.columns:
            reason = f"the model keeps only the columns it uses ({', '.join(map(str, frame.columns))})"
            raise DataError(f"time={time!r}", reason, f"use one of these, or pass the values: time=data[{time!r}]", SEE)
        values, name = frame[time], time
    else:
        array = np.asarray(time)
        if array.ndim != 1:
            received = f"time of type {type(time).__name__} with {array.ndim} dimensions"
            remedy = "use the name of a column, or one column of values: time=data['week']"
            raise DataError(received, "every row needs one time", remedy, SEE)
        values = time if isinstance(time, pd.Series) else pd.Series(array)
        name = str(values.name) if values.name is not None else "time"
        if len(values) != len(frame):
            known = isinstance(time, pd.Series) and time.index.is_unique and frame.index.isin(time.index).all()
            if not known:
                remedy = "pass a column of the data that was fitted, as a pandas Series with its index"
                raise DataError(f"{len(values)} times for {len(frame)} rows", "every row needs one time", remedy, SEE)
            values = values.loc[frame.index]
        elif isinstance(time, pd.Series) and not time.index.equals(frame.index):
            received = "times whose index is not that of the rows"
            remedy = "pass a column of the data that was fitted, or an array in the order of its rows"
            raise DataError(received, "it is not known which time belongs to which row", remedy, SEE)
    if values.isna().any():
        received = f"{int(values.isna().sum())} missing values of {name!r}"
        reason = "rows without a time have no place in the working correlation"
        raise DataError(received, reason, "drop or complete these rows before making the model", SEE)
    if isinstance(values.dtype, pd.CategoricalDtype):
        labels = values.cat.categories
        if not pd.api.types.is_numeric_dtype(labels):
            return np.asarray(values.astype(str)), name
        return np.asarray(values.astype(labels.dtype)), name
    return values.to_numpy(), name
