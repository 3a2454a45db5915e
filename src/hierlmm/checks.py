"""What must be true of a design before anything is fitted to it."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from hierlmm.design import Design
from hierlmm.errors import DataError

__all__ = ["check_design"]

SEE = "docs, page 'Errors'"


def check_design(design: Design) -> None:
    """Refuse designs whose parameters are not determined by the data.

    Raises
    ------
    DataError
        Constant response, as many random effects as rows, fewer subjects than random effects, as many level-2
        coefficients as subjects, no residual degrees of freedom, or linearly dependent columns of X or Z.
    """
    _check_response(design)
    _check_subjects(design)
    _check_level2(design)
    p = len(design.coef)
    if design.n_obs <= p:
        raise DataError(
            f"{design.n_obs} rows and {p} fixed effects",
            "nothing is left to estimate the residual variance from",
            "use a smaller model or more data",
            SEE,
        )
    _check_rank(design)


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
    J, q = design.n_subjects, len(design.term)
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


def _check_level2(design: Design) -> None:
    """A coefficient that level 2 explains without remainder has no variance (a subject's label as a covariate)."""
    subject, J = design.hierarchy.subject, design.n_subjects
    for column in dict.fromkeys(design.term_level1.tolist()):
        own = np.flatnonzero(design.coef_level1 == column)
        if len(own) >= J:
            raise DataError(
                f"{len(own)} fixed coefficients for {design.level1[column]!r} ({design.coef[own[0]]}, ..., "
                f"{design.coef[own[-1]]}) and {J} subjects",
                f"level 2 explains {design.level1[column]!r} exactly in every {subject}, and nothing is left to vary",
                f"use fewer level-2 terms (is {subject!r} itself among them?), or let this coefficient not vary",
                SEE,
            )


def _check_rank(design: Design) -> None:
    """Name the columns of X, and of each correlated block of Z, that follow from the others."""
    from hierlmm.likelihood.crossproducts import dependent_columns

    centres = np.zeros(len(design.coef))
    if design.intercept is not None:
        centres = design.X.mean(axis=0)
        centres[design.intercept] = 0.0
    if not _clearly_independent(design.X, centres):
        dependent = dependent_columns(design.X, centres)
        if dependent:
            names = [design.coef[c] for c in dependent]
            spline = any(re.match(r"c[rsc]\(", name) for name in names)
            raise DataError(
                f"a fixed-effects design of {len(design.coef)} columns and rank {len(design.coef) - len(dependent)}",
                f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} constant or a linear combination "
                "of the columns before, so the coefficient is not determined",
                "the spline and the intercept share the constant: write for example cs(x, df=3, constraints='center')"
                if spline
                else "take the term out, merge levels that never occur together, or recode",
                "docs, page 'Errors', section 'Rank deficiency'",
            )
    for block in design.blocks:
        columns, zero = design.Z[:, block], np.zeros(len(block))
        if not _clearly_independent(columns, zero):
            dependent = dependent_columns(columns, zero)
            if dependent:
                raise DataError(
                    f"random effects {', '.join(design.term[m] for m in block)}",
                    f"{', '.join(repr(design.term[block[m]]) for m in dependent)} follows from the columns before, so "
                    "the variances cannot be told apart",
                    "leave out the redundant random effect",
                    "docs, page 'Errors', section 'Rank deficiency'",
                )


def _clearly_independent(columns: NDArray[np.float64], centres: NDArray[np.float64]) -> bool:
    """A cheap sufficient condition: the correlation matrix of the columns is far from singular."""
    centred = columns - centres
    gram = centred.T @ centred
    norms = np.sqrt(np.diag(gram))
    raw = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    if np.any(norms <= 1e-4 * raw):
        return False
    return columns.shape[1] == 0 or bool(np.linalg.eigvalsh(gram / np.outer(norms, norms))[0] > 1e-6)
