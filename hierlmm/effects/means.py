"""Marginal means and slopes of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierlmm.effects.adjust import check_adjustment
from hierlmm.effects.grid import Grid, as_names, average_rows, plain_name, reference_grid, slope_rows
from hierlmm.effects.judge import PosteriorDraws, judge_of, level_text
from hierlmm.effects.table import Effects
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.options import check_ci
from hierlmm.text import show

__all__ = ["check_multiplicity", "marginal_means", "slopes"]

SEE = "docs, page 'Contrasts'"


def marginal_means(
    fit: Fit,
    variables: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    weights: str = "equal",
    df: str | None = None,
    ci: float = 0.95,
    adjust: str = "none",
    simultaneous: bool = False,
) -> Effects:
    """Means of the response at the levels of factors; see `hierlmm.fits.base.Fit.marginal_means`."""
    split, own = as_names(by), as_names(variables)
    _disjoint(split, own)
    judge = judge_of(fit, df)
    grid = reference_grid(fit.design, at)
    X, offset = grid.rows(grid.frame)
    keys, L, shift = average_rows(grid, (*split, *own), weights, X, offset)
    return Effects(
        "marginal means",
        fit.design.hierarchy.response,
        fit.estimator,
        keys,
        L,
        shift,
        split,
        judge,
        check_ci(ci),
        check_multiplicity(judge, adjust, simultaneous, pairwise=False),
        simultaneous=simultaneous,
        level=level_text(fit),
        averaged=averaging_text(grid, (*split, *own), weights),
    )


def slopes(
    fit: Fit,
    variable: str,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    weights: str = "equal",
    df: str | None = None,
    ci: float = 0.95,
    adjust: str = "none",
    simultaneous: bool = False,
) -> Effects:
    """Change of the mean per unit of a numeric variable; see `hierlmm.fits.base.Fit.slopes`."""
    groups, variable = as_names(by), plain_name(variable)
    judge = judge_of(fit, df)
    grid = reference_grid(fit.design, at)
    X, offset = slope_rows(grid, variable)
    several = len(grid.points[variable]) > 1 and variable not in groups
    keep = (*groups, variable) if several else groups
    keys, L, shift = average_rows(grid, keep, weights, X, offset)
    return Effects(
        "slopes",
        fit.design.hierarchy.response,
        fit.estimator,
        keys,
        L,
        shift,
        (),
        judge,
        check_ci(ci),
        check_multiplicity(judge, adjust, simultaneous, pairwise=False),
        simultaneous=simultaneous,
        level=level_text(fit),
        averaged=averaging_text(grid, keep, weights),
        row_names=(f"per unit of {variable}",) * len(keys),
    )


def _disjoint(by: tuple[str, ...], variables: tuple[str, ...]) -> None:
    both = [v for v in variables if v in by]
    if both:
        raise SpecificationError(
            f"{both[0]!r} both as what is asked for and in by=",
            "a variable either names the rows or splits them into families",
            "leave it out of one",
            SEE,
        )


def check_multiplicity(judge: Any, adjust: str | None, simultaneous: bool, *, pairwise: bool) -> str:
    """The correction, after checking that it and ``simultaneous`` suit the kind of fit."""
    if isinstance(judge, PosteriorDraws):
        if adjust not in (None, "none"):
            raise NotAvailableError(
                f"adjust={adjust!r} for a posterior",
                "posterior probabilities are no p-values, and no correction is defined for them",
                "leave adjust out; simultaneous=True gives intervals that hold together",
                SEE,
            )
        return "none"
    if simultaneous:
        raise NotAvailableError(
            "simultaneous=True for a fit that is no posterior",
            "it asks for intervals from draws",
            "use adjust='mvt', which gives simultaneous intervals and p-values",
            SEE,
        )
    return check_adjustment("none" if adjust is None else adjust, pairwise=pairwise)


def averaging_text(grid: Grid, keep: tuple[str, ...], weights: str) -> str:
    """What was averaged over and what was held, in words."""
    averaged = [v for v, values in grid.points.items() if v not in keep and len(values) > 1]
    held = [f"{v} = {show(values[0])}" for v, values in grid.points.items() if len(values) == 1]
    parts = []
    if averaged:
        parts.append(f"Averaged over {', '.join(averaged)} with {weights} weights.")
    if held:
        parts.append(f"At {', '.join(held)}.")
    return " ".join(parts)
