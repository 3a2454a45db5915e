"""Marginal means, contrasts and slopes of a fit: a grid, rows ``L`` averaged over it, a judge, a table.

    mean = L β + offset,     contrast = C (L β + offset),     slope = ∂(L β + offset)/∂x

with L and its derivatives from `grid`, the weights C from `weights`, and their uncertainty from `judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import unquoted
from hierlmm.design.questions import occasion_of, unit_of
from hierlmm.effects import averages
from hierlmm.effects import grid as grids
from hierlmm.effects import scale as scales
from hierlmm.effects.judge import Judge, check_multiplicity, judge_of, level_text
from hierlmm.effects.scale import scale_of
from hierlmm.effects.table import Effects
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import Asked
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
    how: Asked,
    intervals: Intervals,
    scale: str = "response",
    level: str = "population",
    *,
    compared: bool = False,
) -> Effects:
    """Means of the response at the levels of factors; see `hierlmm.fits.base.Fit.marginal_means`.

    ``compared``: what contrasts compare, which of an ordinal response are linear predictors and no probabilities.
    """
    response = averages.response_of(fit.design)
    chosen, at = averages.asked_categories(fit.design, "link" if compared else scale, at)
    split, own = (
        tuple(v for v in grids.as_names(names) if chosen is None or v != response) for names in (by, variables)
    )
    both = [v for v in own if v in split]
    if both:
        received, remedy = f"{both[0]!r} both as what is asked for and in by=", "leave it out of one"
        raise SpecificationError(received, "a variable either names the rows or splits them into families", remedy, SEE)
    grid = grids.reference_grid(fit.design, at)
    keys = _keys(grid, (*split, *own))
    found = averages.averages(fit, grid, keys, weights, level, how, chosen)
    if chosen is not None:
        keys, split = averages.with_categories(keys, response, chosen), (*split, response)
    made = _effects(fit, "marginal means", grid, keys, found, weights, intervals)
    return _told(replace(made, by=split), fit, scale, level, categories=chosen is not None)


def slopes(fit: Fit, variable: str, by: Names, at: At, weights: str, how: Asked, intervals: Intervals) -> Effects:
    """Change of the mean per unit of a numeric variable; see `hierlmm.fits.base.Fit.slopes`."""
    groups, variable = grids.as_names(by), grids.plain_name(variable)
    judge, grid = judge_of(fit, how), grids.reference_grid(fit.design, at)
    grids.check_slope(grid, variable)
    several = len(grid.points[variable]) > 1 and variable not in groups
    keys = _keys(grid, (*groups, variable) if several else groups)
    L, offset = grids.average_rows(grid, keys, weights, partial(grids.slope_rows, grid, variable))
    made = _effects(fit, "slopes", grid, keys, (L, offset, judge), weights, intervals)
    return _told(replace(made, row_names=(f"per unit of {variable}",) * len(keys)), fit, "link", per=variable)


def _keys(grid: grids.Grid, keep: tuple[str, ...]) -> pd.DataFrame:
    """Combinations of the variables that name the rows.

    Raises
    ------
    SpecificationError
        If one of them is no covariate.
    """
    for name in keep:
        grids.refuse_unknown(repr(name), name, grid.points, "this model has no covariates")
    return grid.keys(keep)


def _effects(
    fit: Fit,
    kind: str,
    grid: grids.Grid,
    keys: pd.DataFrame,
    found: tuple[FloatArray, FloatArray, Judge],
    weights: str,
    intervals: Intervals,
) -> Effects:
    """A table of rows, in one family, and what was averaged over and held."""
    L, offset, judge = found
    adjust = check_multiplicity(judge, intervals.adjust, intervals.simultaneous, pairwise=False)
    response = unquoted(fit.design.hierarchy.response)
    made = Effects(kind, response, fit.estimator, keys, L, offset, (), judge, intervals.ci, adjust)
    over = [v for v, values in grid.points.items() if v not in keys and len(values) > 1]
    held = [f"{v} = {show(x[0])}{_rates(fit, kind, v, x[0])}" for v, x in grid.points.items() if len(x) == 1]
    said = [f"Averaged over {', '.join(over)} with {weights} weights."] if over else []
    averaged = " ".join([*said, *([f"At {', '.join(held)}."] if held else [])])
    occasion = unquoted(occasion_of(fit.design) or "")
    return replace(made, simultaneous=intervals.simultaneous, averaged=averaged, occasion=occasion)


def _rates(fit: Fit, kind: str, variable: str, value: Any) -> str:
    """How to have rates, after an exposure that stands at its mean."""
    exposed = kind == "marginal means" and variable == fit.design.outcome.exposure
    exposed = exposed and bool(np.isclose(value, fit.design.frame[variable].mean()))
    return f" (the mean of the exposure; at={{{variable!r}: 1}} gives rates)" if exposed else ""


def _told(
    made: Effects,
    fit: Fit,
    asked: str,
    level: str = "population",
    *,
    per: str | None = None,
    categories: bool = False,
) -> Effects:
    """The table with the scale on which it is told, and its comparisons with it."""
    scale = scale_of(fit.design, asked, made.kind, categories=categories)
    if scale is None:
        return replace(made, unit=unit_of(fit.design, per), level=level_text(fit))
    comparison = scale_of(fit.design, asked, "contrasts", made.kind, categories=categories)
    texts = tuple(scales.level_text(fit, own, level, made.kind) for own in (scale, comparison) if own is not None)
    return replace(made, scale=scale, comparison=comparison, level=texts[0], comparison_level=texts[-1])
