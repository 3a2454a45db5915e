"""What must be true of a design before anything is fitted to it."""

from __future__ import annotations

import numpy as np

from hierlmm.design import Design
from hierlmm.errors import DataError

__all__ = ["check_design"]

SEE = "docs, page 'Errors'"


def check_design(design: Design) -> None:
    """Refuse designs whose parameters are not determined by the data.

    Raises
    ------
    DataError
        Constant response, fewer than two subjects, one row per subject, as many random effects as rows, fewer
        subjects than random effects, or no residual degrees of freedom.
    """
    _check_response(design)
    _check_subjects(design)
    p = len(design.coef)
    if design.n_obs <= p:
        raise DataError(
            f"{design.n_obs} rows and {p} fixed effects",
            "nothing is left to estimate the residual variance from",
            "use a smaller model or more data",
            SEE,
        )


def _check_response(design: Design) -> None:
    y = design.y - design.offset
    if np.ptp(y) <= 1e-14 * max(1.0, float(np.abs(y).max())):
        raise DataError(
            f"a response {design.hierarchy.response!r} that is {y[0]:g} in every row",
            "without variation there is no variance to divide between the levels",
            "check the column, and whether a filter left one value only",
            SEE,
        )


def _check_subjects(design: Design) -> None:
    subject, J, q = design.hierarchy.subject, design.n_subjects, len(design.term)
    if J < 2:
        raise DataError(
            f"{J} {subject}",
            "variation between subjects cannot be seen in one subject",
            f"check that {subject!r} is the grouping column; for one subject use ordinary regression",
            SEE,
        )
    if design.rows_per_subject.max() == 1:
        what = "a random slope" if q > 1 else "the random effect"
        raise DataError(
            f"one row for each of the {J} values of {subject!r}",
            f"{what} cannot be told apart from the residual when no {subject} is measured twice",
            f"check that {subject!r} is the grouping column and that the data are in long format (hl.to_long), "
            "or use ordinary regression",
            SEE,
        )
    if q > J:
        raise DataError(
            f"{J} subjects and {q} random effects",
            f"a {q} × {q} covariance between subjects cannot be estimated from {J} of them",
            "let fewer coefficients vary: random=['Intercept']",
            SEE,
        )
    for block in design.blocks:
        if len(block) * J >= design.n_obs:
            names = ", ".join(design.term[m] for m in block)
            raise DataError(
                f"{len(block)} random effects ({names}) for each of {J} subjects, and {design.n_obs} rows",
                "there are as many random effects as rows, so they cannot be told apart from the residual",
                "let fewer coefficients vary, or use covariance='diagonal' with one slope only",
                SEE,
            )
