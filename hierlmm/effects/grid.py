"""The reference grid: the rows of a design at which a model is asked for means.

Factors stand at their levels, numbers at their mean over the rows of the data (or where ``at`` says). A marginal mean
is ``w'(X_g β + offset_g)``: the rows of the grid that agree in the factors asked for, averaged with equal weights (as
if the study had been balanced) or in proportion to how often the combinations of the other factors occur.

Source: Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the linear model: an
alternative to least squares means. Am. Stat. 34, 216-221; conventions as in R's emmeans.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.design.formula import categorical_arguments, variables_of
from hierlmm.design.questions import is_label, levels_of
from hierlmm.errors import FitWarning, SpecificationError, closest
from hierlmm.frames import quote, shorten

__all__ = ["WEIGHTS", "Grid", "as_names", "average_rows", "plain_name", "reference_grid", "slope_rows"]

FloatArray = NDArray[np.float64]
WEIGHTS = ("equal", "proportional")
MAX_ROWS = 200_000
STEP = 1e-3
"""Step of a slope, as a share of the variable's range."""
SEE = "docs, page 'Contrasts'"


@dataclass(frozen=True)
class Grid:
    """Every combination of the values at which a model is asked.

    Attributes
    ----------
    design : Design
    frame : DataFrame
        One row per combination, the first variable changing slowest.
    points : dict
        Variable -> its values.
    factors : frozenset of str
        Variables whose values are labels.
    hidden : DataFrame
        One row: columns that a new row needs and the fixed effects do not look at.
    """

    design: Design
    frame: pd.DataFrame
    points: dict[str, tuple[Any, ...]]
    factors: frozenset[str]
    hidden: dict[str, Any]

    def rows(self, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """X and offset of rows with the grid's columns: (n, p), (n,)."""
        full = frame.assign(**self.hidden) if self.hidden else frame
        if full.shape[1] == 0:
            full = pd.DataFrame(index=frame.index).assign(**{self.design.hierarchy.subject: 0})
        new = self.design.new(full, need_subject=False)
        return new.X, new.offset


def as_names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of variables from one name, several, or None."""
    if names is None:
        return ()
    return tuple(dict.fromkeys(plain_name(n) for n in ([names] if isinstance(names, str) else names)))


def plain_name(name: Any) -> str:
    """The name of a column, also as a formula spells it: ```my time``` is ``my time``."""
    found = re.fullmatch(r"`([^`]+)`", str(name))
    return found[1] if found else str(name)


def reference_grid(design: Design, at: Mapping[str, Any] | None = None) -> Grid:
    """Combine the values of all covariates of the fixed effects.

    Parameters
    ----------
    design : Design
    at : mapping, optional
        Variable -> value or values, in place of all levels (factors) or the mean (numbers).

    Raises
    ------
    SpecificationError
        If ``at`` names no covariate, a level does not exist, or the grid has more than 200,000 rows.
    """
    frame = design.frame
    columns = list(frame.columns)
    expressions = list(
        dict.fromkeys([f for c in design.fixed_columns for f in c.term] + list(design.hierarchy.offsets))
    )
    variables = list(dict.fromkeys(v for e in expressions for v in variables_of(e, columns)))
    labels = {name for e in expressions for name in categorical_arguments(e)}
    factors = frozenset(v for v in variables if v in labels or is_label(design, v))
    wanted = {plain_name(name): values for name, values in (at or {}).items()}
    for name in wanted:
        if name not in variables:
            raise SpecificationError(
                f"at={{{name!r}: ...}}",
                f"the fixed effects have no covariate of this name.{closest(name, variables)}",
                f"use {shorten(map(repr, variables))}" if variables else "leave it out: there is no covariate",
                SEE,
            )
    values = {v: _values(design, v, v in factors, wanted.get(v)) for v in variables}
    if math.prod(len(v) for v in values.values()) > MAX_ROWS:
        sizes = ", ".join(f"{v}: {len(x)}" for v, x in values.items() if len(x) > 1)
        raise SpecificationError(
            f"a grid of {math.prod(len(v) for v in values.values())} combinations ({sizes})",
            f"more than {MAX_ROWS} rows would have to be averaged",
            "fix some factors by at={...}",
            SEE,
        )
    hidden = {v: _typical(design, v) for v in design.level1_variables() if v not in variables}
    combinations = list(itertools.product(*values.values()))
    made = {v: [c[i] for c in combinations] for i, v in enumerate(values)}
    return Grid(design, pd.DataFrame(made, index=range(len(combinations))), values, factors, hidden)


def _typical(design: Design, name: str) -> Any:
    return levels_of(design, name)[0] if is_label(design, name) else float(design.frame[name].mean())


def _values(design: Design, name: str, factor: bool, asked: Any) -> tuple[Any, ...]:
    if asked is None:
        return tuple(levels_of(design, name)) if factor else (float(design.frame[name].mean()),)
    single = isinstance(asked, (str, bytes)) or not isinstance(asked, Iterable)
    values = [asked] if single else list(asked)
    if not all(isinstance(value, Hashable) for value in values):
        raise SpecificationError(
            f"at={{{name!r}: {asked!r}}}", "each value is one number or label", f"use at={{{name!r}: [1, 2]}}", SEE
        )
    given = tuple(dict.fromkeys(values))
    if not given:
        raise SpecificationError(f"at={{{name!r}: []}}", "no value is left", "give at least one value", SEE)
    if factor:
        known = levels_of(design, name)
        for value in given:
            if value not in known:
                raise SpecificationError(
                    f"at={{{name!r}: {value!r}}}",
                    f"{name!r} has no such level.{closest(str(value), map(str, known))}",
                    f"use {shorten(map(quote, known))}",
                    SEE,
                )
        return given
    for value in given:
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not math.isfinite(float(value)):
            raise SpecificationError(
                f"at={{{name!r}: {value!r}}}", f"{name!r} is a number in this model", "give finite numbers", SEE
            )
    return tuple(float(v) for v in given)


def average_rows(
    grid: Grid, keep: tuple[str, ...], weights: str, X: FloatArray, offset: FloatArray
) -> tuple[pd.DataFrame, FloatArray, FloatArray]:
    """Average rows of the grid over everything that is not kept.

    Returns
    -------
    keys : DataFrame
        Combinations of the kept variables, the first changing slowest.
    L : (k, p)
    offset : (k,)

    Raises
    ------
    SpecificationError
        If a kept variable is not in the grid, or no row has a positive weight.
    """
    for name in keep:
        if name not in grid.points:
            raise SpecificationError(
                f"{name!r}",
                f"the fixed effects have no covariate of this name.{closest(name, grid.points)}",
                f"use {shorten(map(repr, grid.points))}" if grid.points else "this model has no covariates",
                SEE,
            )
    if weights not in WEIGHTS:
        raise SpecificationError(f"weights={weights!r}", "this is not one of the choices", f"use one of {WEIGHTS}", SEE)
    size = _frequencies(grid, keep) if weights == "proportional" else np.ones(len(grid.frame))
    combinations = list(itertools.product(*(grid.points[v] for v in keep)))
    keys = pd.DataFrame({v: [c[i] for c in combinations] for i, v in enumerate(keep)}, index=range(len(combinations)))
    position = {c: i for i, c in enumerate(combinations)}
    # A frame without columns has no tuples to iterate over.
    own = list(zip(*(grid.frame[v] for v in keep), strict=True)) if keep else [()] * len(grid.frame)
    cell = np.array([position[c] for c in own], dtype=np.intp)
    total = np.bincount(cell, weights=size, minlength=len(combinations))
    if np.any(total <= 0.0):
        raise SpecificationError(
            "weights='proportional'",
            "the combinations of levels chosen by at= do not occur in the data",
            "use weights='equal', or other levels",
            SEE,
        )
    share = size / total[cell]
    L = np.zeros((len(combinations), X.shape[1]))
    np.add.at(L, cell, share[:, None] * X)
    return keys, L, np.bincount(cell, weights=share * offset, minlength=len(combinations))


def _frequencies(grid: Grid, keep: tuple[str, ...]) -> FloatArray:
    """Rows of the data with each combination of the factors that are averaged over."""
    averaged = [v for v in grid.points if v in grid.factors and v not in keep]
    if not averaged:
        return np.ones(len(grid.frame))
    counts = grid.design.frame.groupby(averaged, observed=True).size()
    index = pd.MultiIndex.from_frame(grid.frame[averaged].astype(object))
    table = {key if isinstance(key, tuple) else (key,): float(n) for key, n in counts.items()}
    return np.array([table.get(tuple(key), 0.0) for key in index])


# Weights of f at multiples of the step: exact for polynomials of degree 4.
CENTRAL = {-2: 1.0 / 12.0, -1: -8.0 / 12.0, 1: 8.0 / 12.0, 2: -1.0 / 12.0}
FORWARD = {0: -25.0 / 12.0, 1: 4.0, 2: -3.0, 3: 4.0 / 3.0, 4: -0.25}


def slope_rows(grid: Grid, variable: str) -> tuple[FloatArray, FloatArray]:
    """Derivative of every row of the grid by one numeric variable: X' (n, p), offset' (n,).

    Differences of fourth order, exact where the row is a polynomial of degree 4 or less in the variable; one-sided at
    the ends of the data, where a spline may end.

    Raises
    ------
    SpecificationError
        If the variable is a factor or unknown, or the row has a jump or a kink there.
    """
    if variable not in grid.points or variable in grid.factors:
        numbers = [v for v in grid.points if v not in grid.factors]
        is_factor = variable in grid.factors
        raise SpecificationError(
            f"slopes({variable!r})",
            f"{variable!r} is a factor, and a slope is a change per unit of a number"
            if is_factor
            else f"the fixed effects have no covariate of this name.{closest(variable, grid.points)}",
            f"use fit.contrasts({variable!r})"
            if is_factor
            else f"use one of {shorten(map(repr, numbers))}"
            if numbers
            else "use fit.marginal_means(...): the fixed effects have no number to take a slope of",
            SEE,
        )
    column = grid.design.frame[variable].to_numpy(dtype=np.float64)
    low, high = float(column.min()), float(column.max())
    step = STEP * ((high - low) or 1.0)
    x = grid.frame[variable].to_numpy(dtype=np.float64)
    inside = (x >= low) & (x <= high)
    side = np.where(inside & (x - 2.0 * step < low), 1, np.where(inside & (x + 2.0 * step > high), -1, 0))
    grid.rows(grid.frame)  # what is to be said about these rows (a spline beyond its knots) is said once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        slopes, halves = (_differences(grid, variable, side, h) for h in (step, 0.5 * step))
        _refuse_kinks(grid, variable, side, step, slopes, halves)
    # Differences of equal numbers leave rounding, of which a test would be made: 1e-16 of them over the step.
    size = np.max([np.abs(_moved(grid, variable, k * step * np.where(side == 0, 1, side))) for k in (0, 1, 2)], axis=0)
    slopes = np.where(np.abs(slopes) <= 1e-13 / step * size, 0.0, slopes)
    return slopes[:, :-1], slopes[:, -1]


def _moved(grid: Grid, variable: str, shift: FloatArray) -> FloatArray:
    """X and offset with the variable moved: (n, p + 1)."""
    X, offset = grid.rows(grid.frame.assign(**{variable: grid.frame[variable].to_numpy(dtype=np.float64) + shift}))
    return np.column_stack([X, offset])


def _differences(grid: Grid, variable: str, side: NDArray[Any], step: float) -> FloatArray:
    one = np.where(side == 0, 1, side)
    central, total = side == 0, np.zeros((len(side), len(grid.design.coef) + 1))
    for k in range(5):
        own = (-2, -1, 1, 2, 0)[k]
        position = np.where(central, own, k * one).astype(float)
        weight = np.where(central, CENTRAL.get(own, 0.0), FORWARD[k] * one)
        total += (weight / step)[:, None] * _moved(grid, variable, position * step)
    return total


def _refuse_kinks(
    grid: Grid, variable: str, side: NDArray[Any], step: float, slopes: FloatArray, halves: FloatArray
) -> None:
    """Refuse where the difference depends on the step (a jump), or on the side (a kink)."""
    scale = np.abs(slopes).max(axis=0) + np.abs(_moved(grid, variable, np.zeros(len(side)))).max(axis=0)
    jump = np.abs(slopes - halves) > 1e-2 * np.abs(slopes) + 1e-6 * scale
    gaps = []
    for h in (step, 0.5 * step):
        shift = np.where(side == 0, h, 0.0)
        ahead, here, back = (_moved(grid, variable, s * shift) for s in (1.0, 0.0, -1.0))
        gaps.append(np.abs(ahead - 2.0 * here + back) / h)
    kink = (gaps[1] > 0.75 * gaps[0]) & (gaps[1] > 1e-6 * scale)
    bad = np.flatnonzero(np.any(jump | kink, axis=1))
    if bad.size:
        raise SpecificationError(
            f"slopes({variable!r}) at {variable} = {grid.frame[variable].iloc[bad[0]]:g}",
            "a term has a jump or a kink there, so it has no slope",
            f"ask elsewhere: at={{{variable!r}: ...}}; or test its coefficient by fit.hypothesis(...)",
            SEE,
        )
