"""What an effect plot cannot show: what is not in the model, and covariates that do not stand still.

To hold a covariate v while x changes, v must be free to stand still. It is not where it is a function of x (refused),
and within subjects not where its deviations are those of x times a constant (said). A factor whose levels follow
each other along x is a function of x as well: its curves could be compared nowhere.

Curves rest on the form of the model alone, are extrapolated, where the covariate lies outside the range that the data
have (in its group, where there are groups), or outside the boundary knots of a spline. And where a basis such as
``I(years > 3)`` jumps, the mean has two values, which no line joins. Halving finds the place: the change of a
continuous function across an interval goes to zero with its width, that of a jump does not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first
from hierlmm.design.formula import variables_of
from hierlmm.design.questions import occasion_of
from hierlmm.design.splines import SplineBasis
from hierlmm.effects.grid import Grid, no_covariate
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError, warn
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.options import choose
from hierlmm.text import sayer, show

SAY = sayer(__file__)
SEE = "docs, page 'Effect plots'"
LEVELS = ("population", "marginal")
LOG = re.compile(r"(?:np\.)?log(10|2)?\((.+)\)", re.DOTALL)
FEW_VALUES = 5
"""A numeric ``by`` variable with at most so many values is shown at all of them, others at their quartiles."""
MANY_VALUES = 25
"""From so many values on a course that turns a few times is a function; of fewer values only one that never turns."""
ROUNDING = 1e-9
STEP = re.compile(r"[<>%]|[!=]=|//|\bnp\.|\bint\(")
"""What an expression needs to jump; the rest of the formula language is continuous."""
HALVINGS = 45


def check_level(fit: Fit, level: str) -> None:
    """Refuse levels that are no mean."""
    if level in ("subject", "new_subject"):
        if not fit.has_random_effects:
            received = f"level={level!r} of a fit by {fit.estimator} without random effects"
            reason = "it describes the mean over subjects and has no subject's own line"
            remedy = "use level='population' (or 'marginal', the same curve), or fit_reml()"
            raise NotAvailableError(received, reason, remedy, SEE)
        reason = "an effect plot is about the mean; a subject's own curve also depends on its random effects"
        remedy = "use level='population', fit.plot_trajectories(show='subject'), or fit.predict(rows, level=...)"
        raise NotAvailableError(f"level={level!r}", reason, remedy, SEE)
    choose("level", level, LEVELS)


def scope_of(simultaneous: bool | str) -> str | None:
    """What a simultaneous band holds for: each curve, all curves, or None."""
    if isinstance(simultaneous, str):
        choose("simultaneous", simultaneous, ("curve", "all"))
        return simultaneous
    return "curve" if simultaneous else None


def check_variable(grid: Grid, variable: str | None, fit: Fit) -> str:
    """The covariate along which curves run: a number of the fixed effects, of level 1 if none is named."""
    numbers = [v for v in grid.points if v not in grid.factors]
    remedy = f"use one of {shorten(map(repr, numbers))}" if numbers else "use fit.marginal_means(...)"
    if variable is None:
        if not numbers:
            received = "effects() of a model without numeric covariates"
            raise SpecificationError(received, "a curve runs along a number", remedy, SEE)
        preferred = [occasion_of(fit.design), *fit.design.level1_variables(), *numbers]
        return next(v for v in preferred if v in numbers)
    if variable not in grid.points:
        there = variable in fit.design.frame.columns
        flat = "it is not among the fixed effects, so the curve would be flat"
        reason = flat if there else no_covariate(variable, grid.points)
        raise SpecificationError(f"effects({variable!r})", reason, remedy, SEE)
    if variable in grid.factors:
        reason = f"{variable!r} is a factor in this model, and a curve runs along a number"
        remedy = f"use fit.marginal_means({variable!r}).plot(), or by={variable!r} with a number along the axis"
        raise SpecificationError(f"effects({variable!r})", reason, remedy, SEE)
    if fit.design.frame[variable].nunique() < 2:
        same = f"{variable!r} has the same value, {show(float(fit.design.frame[variable].iloc[0]))}, in all rows"
        reason = f"{same}: the data say nothing about a curve along it"
        raise SpecificationError(f"effects({variable!r})", reason, remedy, SEE)
    return variable


def check_by(grid: Grid, groups: tuple[str, ...], variable: str) -> None:
    """Refuse what cannot tell curves apart."""
    others = [repr(v) for v in grid.points if v != variable]
    for name in groups:
        if name == variable:
            received = f"by={name!r} beside effects({variable!r})"
            raise SpecificationError(received, "it is what the curves run along", "leave it out of by=", SEE)
        if name not in grid.points:
            reason = no_covariate(name, grid.points)
            remedy = f"use {shorten(others)}" if others else "leave by= out: the fixed effects have no other covariate"
            raise SpecificationError(f"by={name!r}", reason, remedy, SEE)
    if len(groups) > 2:
        reason = "one variable is told apart by colour and one by panel, and there is no third way"
        remedy = "leave one to at={...}: several values there make panels (a slider with plotly)"
        raise SpecificationError(f"by={list(groups)!r}", reason, remedy, SEE)


def variable_values(fit: Fit, variable: str, asked: Any, n: int) -> list[float]:
    """Grid points: n over the range of the data, or those asked for."""
    if asked is None:
        if n < 2:
            raise SpecificationError(f"n={n!r}", "a curve needs two points at least", "use n=101", SEE)
        column = fit.design.frame[variable]
        even = np.linspace(float(column.min()), float(column.max()), n)
        return np.union1d(even, jumps_along(fit.design, variable, even)).tolist()
    single = isinstance(asked, (str, bytes)) or not isinstance(asked, Iterable)
    values: list[Any] = [asked] if single else list(asked)
    if len(set(values)) < 2:
        reason = "the curve runs along this variable, and needs two points at least"
        remedy = f"leave it out, give several values, or use fit.marginal_means(at={{{variable!r}: ...}}) for one point"
        raise SpecificationError(f"at={{{variable!r}: {asked!r}}}", reason, remedy, SEE)
    try:
        return sorted(set(values))
    except TypeError:
        return values  # not numbers: refused with the others


def typical_values(column: pd.Series) -> list[float]:
    """All values of a number that has few, or else its quartiles, rounded to three digits where they stay apart."""
    distinct = np.unique(column.to_numpy(dtype=np.float64))
    if len(distinct) <= FEW_VALUES:
        return distinct.tolist()
    quartiles = np.quantile(column.to_numpy(dtype=np.float64), [0.25, 0.5, 0.75])
    rounded = [float(f"{v:.3g}") for v in quartiles]
    return list(dict.fromkeys(rounded if len(set(rounded)) == 3 else quartiles.tolist()))


def check_companions(fit: Fit, variable: str, grid: Grid) -> list[str]:
    """Refuse covariates that are functions of the variable; say which move with it within subjects."""
    frame, groups = fit.design.frame, _groupings(fit.design)
    x = frame[variable].to_numpy(dtype=np.float64)
    notes = []
    between = [index for index in groups.values() if _constant_within(frame[variable], index)]
    for name in grid.points:
        if name == variable or frame[name].nunique() < 2:
            continue
        factor, column, own = name in grid.factors, frame[name], x
        if both := [index for index in between if _constant_within(column, index)]:
            # One row for each subject: its own repetitions agree whatever the two have to do with each other.
            first = np.unique(both[0], return_index=True)[1]
            column, own = column.iloc[first], x[first]
        if _is_function(own, column, factor):
            received = f"effects({variable!r}) with {name!r} among the fixed effects"
            held = f"cannot be held while {variable!r} changes"
            reason = f"{name!r} is a function of {variable!r} in these data, and {held}"
            forms = f"{variable} + I({variable} ** 2), I({variable} > 3), ns({variable}, 3)"
            remedy = f"write the function in the formula, so that it follows: {forms}"
            raise SpecificationError(received, reason, remedy, SEE)
        if factor:
            continue
        values = frame[name].to_numpy(dtype=np.float64)
        within = [who for who, index in groups.items() if _moves_along(x, values, index)]
        notes += [SAY("curve.moves", name=name, variable=variable, within=who) for who in within[:1]]
    return notes


def _groupings(design: Design) -> dict[str, IntArray]:
    """Rows of subjects; of several factors those of each, the coarsest first."""
    if not design.has_several_factors:
        return {"subjects": design.subject_index}
    own = {term.columns.group: term.group.index for term in design.random}
    return {f"groups of {name}": own[name] for name in reversed(finest_first(design))}


def _constant_within(column: pd.Series, index: IntArray) -> bool:
    """Whether a column has one value for each subject."""
    codes = np.asarray(pd.factorize(column)[0])
    return bool(np.all(codes == codes[np.unique(index, return_index=True)[1]][index]))


def _is_function(x: FloatArray, column: pd.Series, factor: bool) -> bool:
    """Whether rows with equal x agree, and along x the values form few blocks or a smooth course."""
    codes = np.asarray(pd.factorize(column)[0])
    _, start, at, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    if not np.all(codes == codes[start][at]):
        return False
    if np.mean(counts[at] > 1) > 0.5:
        return True
    if factor:
        return bool(np.count_nonzero(np.diff(codes[start])) <= len(np.unique(codes)) - 1)
    values = column.to_numpy(dtype=np.float64)[start]
    # n values in random order go up and down by n/3 of their range in all: few values need a stricter sign.
    allowed = 4.0 if len(values) >= MANY_VALUES else 1.0 + 1e-9
    return len(values) >= 5 and float(np.abs(np.diff(values)).sum()) <= allowed * float(np.ptp(values))


def _moves_along(x: FloatArray, values: FloatArray, index: IntArray) -> bool:
    """Whether deviations within subjects are the variable's times a constant."""
    counts = np.bincount(index)
    dx, dv = (v - (np.bincount(index, v) / counts)[index] for v in (x, values))
    sx, sv = float(dx @ dx), float(dv @ dv)
    if sx <= 0.0 or sv <= 1e-12 * float(np.ptp(values)) ** 2:
        return False
    return float(dx @ dv) ** 2 >= 0.999**2 * sx * sv


def level_is(column: pd.Series, value: Any) -> BoolArray:
    """Which rows have this level of a factor."""
    return np.asarray(column.to_numpy(dtype=object) == value, dtype=bool)


def extrapolated(
    fit: Fit, grid: Grid, variable: str, keys: pd.DataFrame, held: Mapping[str, Any]
) -> tuple[BoolArray, list[str]]:
    """Which grid points lie beyond the data of their group or beyond boundary knots, and what to warn of."""
    frame = fit.design.frame
    column, x = frame[variable].to_numpy(dtype=np.float64), keys[variable].to_numpy(dtype=np.float64)
    slack = ROUNDING * float(np.ptp(column))
    outside = (x < column.min() - slack) | (x > column.max() + slack)
    sentences = []
    if outside.any():
        ends = {"low": x.min(), "high": x.max(), "least": column.min(), "largest": column.max()}
        sentences.append(SAY("curve.outside", variable=variable, **{k: show(v) for k, v in ends.items()}))
    knots = _beyond_knots(fit, variable, x)
    if (knots & ~outside).any():
        sentences.append(f"{variable} beyond the boundary knots of its spline")
    beyond = outside | knots
    own = [v for v in keys.columns if v != variable and v in grid.factors]
    fixed = np.ones(len(frame), dtype=bool)
    held = {v: x for v, x in held.items() if v in grid.factors}
    for v in held:
        fixed &= level_is(frame[v], held[v])
    for combination, rows in _groups(keys, own):
        seen = fixed.copy()
        for v, value in combination.items():
            seen &= level_is(frame[v], value)
        if not seen.any():
            beyond[rows] = True
            levels = ", ".join(f"{v} = {show(w)}" for v, w in {**combination, **held}.items())
            sentences.append(f"no row of the data has {levels}")
            continue
        low, high = column[seen].min() - slack, column[seen].max() + slack
        beyond[rows] |= (x[rows] < low) | (x[rows] > high)
    for v, values in grid.points.items():
        if v == variable or v in grid.factors:
            continue
        known = frame[v].to_numpy(dtype=np.float64)
        room = ROUNDING * float(np.ptp(known))
        far = [w for w in values if w < known.min() - room or w > known.max() + room]
        if far:
            ends = {"least": show(known.min()), "largest": show(known.max())}
            sentences.append(SAY("curve.far", variable=v, values=", ".join(map(show, far)), **ends))
            beyond |= np.isin(keys[v], far) if v in keys else True
    return beyond, sentences


def _groups(keys: pd.DataFrame, names: list[str]) -> list[tuple[dict[str, Any], IntArray]]:
    if not names:
        return [({}, np.arange(len(keys)))]
    found = keys.groupby(names, observed=True, sort=False).indices
    pairs = [(k if isinstance(k, tuple) else (k,), np.asarray(rows, dtype=np.intp)) for k, rows in found.items()]
    return [(dict(zip(names, k, strict=True)), rows) for k, rows in pairs]


def _beyond_knots(fit: Fit, variable: str, x: FloatArray) -> BoolArray:
    """Where a spline in the variable itself is extrapolated."""
    beyond = np.zeros(len(x), dtype=bool)
    for recipe in fit.design.factors.recipes:
        for call, state in recipe.transform_state.items():
            if not re.match(rf"\w+\(\s*{re.escape(variable)}\s*[,)]", str(call)) or not isinstance(state, dict):
                continue
            if isinstance(basis := state.get("basis"), SplineBasis):
                beyond |= basis.beyond(x)
            elif "lower_bound" in state and "upper_bound" in state:
                beyond |= (x < state["lower_bound"]) | (x > state["upper_bound"])
    return beyond


def warn_of(sentences: list[str], caught: list[Any]) -> None:
    """One warning for everything that is extrapolated; what else was said is passed on."""
    if sentences:
        warn(SAY("curve.extrapolated", where="; ".join(sentences)))
    for message in sorted({str(w.message) for w in caught if issubclass(w.category, FitWarning)}):
        if not (sentences and "extrapolated" in message):
            warn(message)
    for w in caught:
        if not issubclass(w.category, FitWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def jumps_along(design: Design, variable: str, grid: FloatArray) -> FloatArray:
    """Last point before and first point after each jump between points of a grid: (2, jumps).

    Of several jumps between two neighbouring points of the grid one is found.
    """
    known = list(design.frame.columns)
    terms = [*(column.term for column in design.fixed_columns), *design.hierarchy.level1_terms]
    factors = {f for term in terms for f in term}
    if not any(STEP.search(f) and f not in known and variable in variables_of(f, known) for f in factors):
        return np.empty((2, 0))

    def columns(x: FloatArray) -> FloatArray:
        frame = design.frame.iloc[np.zeros(len(x), dtype=int)].reset_index(drop=True).assign(**{variable: x})
        new = design.new(frame, need_subject=False)
        return np.hstack([new.X1, new.X])

    grid = np.unique(grid)
    left, right = grid[:-1], grid[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = columns(grid)
        spread = np.maximum(np.ptp(values, axis=0), 1e-300)
        low, high = values[:-1] / spread, values[1:] / spread
        for _ in range(HALVINGS):
            middle = 0.5 * (left + right)
            at = columns(middle) / spread
            later = np.abs(high - at).max(axis=1) > np.abs(at - low).max(axis=1)
            left, low = np.where(later, middle, left), np.where(later[:, None], at, low)
            right, high = np.where(later, right, middle), np.where(later[:, None], high, at)
    found = np.abs(high - low).max(axis=1) > 1e-3
    return np.vstack([left[found], right[found]])


def nearest(column: pd.Series, values: tuple[Any, ...], factor: bool) -> tuple[NDArray[Any], BoolArray]:
    """The value on the grid that each row belongs to, and whether it belongs to one."""
    if factor:
        return column.to_numpy(dtype=object), np.any([level_is(column, v) for v in values], axis=0)
    points = np.array(values, dtype=np.float64)
    distance = np.abs(column.to_numpy(dtype=np.float64)[:, None] - points)
    return points[np.argmin(distance, axis=1)], np.ones(len(column), dtype=bool)


def check_log(fit: Fit) -> None:
    """Refuse to undo a logarithm that the response is not."""
    response = fit.design.hierarchy.response
    if not fit.design.is_gaussian:
        reason = f"the curves of a {fit.design.family.title} response are on its own scale as they are"
        raise SpecificationError(f"transform='exp' with {fit.design.family}", reason, "leave transform out", SEE)
    if LOG.fullmatch(response) is None:
        received = f"transform='exp' with the response {response!r}"
        reason = "it undoes a logarithm, and the response is not written as one"
        own = "for a column that holds logarithms, transform estimate, lower and upper of .table"
        remedy = f"leave transform out, or write the logarithm in the formula: log(y) ~ ...; {own}"
        raise SpecificationError(received, reason, remedy, SEE)
