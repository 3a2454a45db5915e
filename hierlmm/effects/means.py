"""Marginal means, contrasts and slopes of a fit: a grid, rows ``L`` averaged over it, a judge, a table.

    mean = L β + offset,     contrast = C (L β + offset),     slope = ∂(L β + offset)/∂x

with L and its derivatives from `grid`, the weights C from `weights`, and their uncertainty from `judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from hierlmm.design.questions import unit_of
from hierlmm.effects import grid as grids
from hierlmm.effects import scale as scales
from hierlmm.effects.judge import Judge, check_multiplicity, judge_of, level_text
from hierlmm.effects.scale import rows_and_judge, scale_of
from hierlmm.effects.table import Effects
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.text import show

SEE = "docs, page 'Contrasts'"


type Names = str | Sequence[str] | None
type At = Mapping[str, Any] | None


class Intervals(NamedTuple):
    """What was asked of the intervals."""

    ci: float
    adjust: str
    simultaneous: bool


def marginal_means(
    fit: Fit,
    variables: Names,
    by: Names,
    at: At,
    weights: str,
    df: str | None,
    intervals: Intervals,
    scale: str = "response",
    level: str = "population",
) -> Effects:
    """Means of the response at the levels of factors; see `hierlmm.fits.base.Fit.marginal_means`."""
    split, own = grids.as_names(by), grids.as_names(variables)
    both = [v for v in own if v in split]
    if both:
        received, remedy = f"{both[0]!r} both as what is asked for and in by=", "leave it out of one"
        raise SpecificationError(received, "a variable either names the rows or splits them into families", remedy, SEE)
    grid = grids.reference_grid(fit.design, at)
    rows, judge = rows_and_judge(fit, grid, level, df)
    keep = (*split, *own)
    return _effects(
        fit, judge, "marginal means", grid, keep, weights, intervals, by=split, rows=rows, told=(scale, level)
    )


def slopes(fit: Fit, variable: str, by: Names, at: At, weights: str, df: str | None, intervals: Intervals) -> Effects:
    """Change of the mean per unit of a numeric variable; see `hierlmm.fits.base.Fit.slopes`."""
    groups, variable = grids.as_names(by), grids.plain_name(variable)
    judge, grid = judge_of(fit, df), grids.reference_grid(fit.design, at)
    grids.check_slope(grid, variable)
    several = len(grid.points[variable]) > 1 and variable not in groups
    keep = (*groups, variable) if several else groups
    rows = partial(grids.slope_rows, grid, variable)
    return _effects(fit, judge, "slopes", grid, keep, weights, intervals, rows=rows, per=variable)


def _effects(
    fit: Fit,
    judge: Judge,
    kind: str,
    grid: grids.Grid,
    keep: tuple[str, ...],
    weights: str,
    intervals: Intervals,
    *,
    by: tuple[str, ...] = (),
    rows: grids.Rows | None = None,
    per: str | None = None,
    told: tuple[str, str] = ("link", "population"),
) -> Effects:
    for name in keep:
        grids.refuse_unknown(repr(name), name, grid.points, "this model has no covariates")
    keys = grid.keys(keep)
    L, offset = grids.average_rows(grid, keys, weights, rows)
    adjust = check_multiplicity(judge, intervals.adjust, intervals.simultaneous, pairwise=False)
    made = Effects(kind, fit.design.hierarchy.response, fit.estimator, keys, L, offset, by, judge, intervals.ci, adjust)
    over = [v for v, values in grid.points.items() if v not in keep and len(values) > 1]
    held = [f"{v} = {show(values[0])}" for v, values in grid.points.items() if len(values) == 1]
    said = [f"Averaged over {', '.join(over)} with {weights} weights."] if over else []
    averaged = " ".join([*said, *([f"At {', '.join(held)}."] if held else [])])
    units = (f"per unit of {per}",) * len(keys) if per else ()
    together = intervals.simultaneous
    made = replace(made, simultaneous=together, averaged=averaged, row_names=units)
    scale = scale_of(fit.design, told[0], kind)
    if scale is None:
        return replace(made, unit=unit_of(fit.design, per), level=level_text(fit))
    comparison = scale_of(fit.design, told[0], "contrasts", kind)
    texts = tuple(scales.level_text(fit, own, told[1], kind) for own in (scale, comparison) if own is not None)
    return replace(made, scale=scale, comparison=comparison, level=texts[0], comparison_level=texts[-1])
