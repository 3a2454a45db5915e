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
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula import categorical_arguments, variables_of
from hierlmm.design.questions import is_label, levels_of
from hierlmm.errors import FitWarning, SpecificationError, closest
from hierlmm.frames import quote, shorten
from hierlmm.options import choose

type Rows = Callable[[pd.DataFrame], tuple[FloatArray, FloatArray]]
type Moved = Callable[[FloatArray], FloatArray]
WEIGHTS = ("equal", "proportional")
MAX_ROWS = 200_000
NUMBERS = 4_000_000
"""Numbers of the rows that are averaged at a time."""
STEP = 1e-3
"""Step of a slope, as a share of the variable's range."""
SEE = "docs, page 'Contrasts'"


@dataclass(frozen=True)
class Grid:
    """Every combination of the values at which a model is asked.

    Attributes
    ----------
    design : Design
    points : dict
        Variable -> its values.
    factors : frozenset of str
        Variables whose values are labels.
    hidden : dict
        Columns that a new row needs and the fixed effects do not look at, with a value for them.
    """

    design: Design
    points: dict[str, tuple[Any, ...]]
    factors: frozenset[str]
    hidden: dict[str, Any]

    def rows(self, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """X and offset of rows with the grid's columns: (n, p), (n,)."""
        new = self.new(frame)
        return new.X, new.offset

    def new(self, frame: pd.DataFrame) -> Any:
        """The design's matrices of rows with the grid's columns, of no subject."""
        full = frame.assign(**self.hidden) if self.hidden else frame
        if full.shape[1] == 0:
            full = pd.DataFrame(index=frame.index).assign(**{self.design.hierarchy.subject: 0})
        return self.design.new(full, need_subject=False)

    def keys(self, keep: Sequence[str]) -> pd.DataFrame:
        """Combinations of some variables, the first changing slowest."""
        combinations = list(itertools.product(*(self.points[v] for v in keep)))
        made = {v: [c[i] for c in combinations] for i, v in enumerate(keep)}
        return pd.DataFrame(made, index=range(len(combinations)))


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
    expressions = dict.fromkeys([f for c in design.fixed_columns for f in c.term] + list(design.hierarchy.offsets))
    variables = list(dict.fromkeys(v for e in expressions for v in variables_of(e, columns)))
    labels = {name for e in expressions for name in categorical_arguments(e)}
    factors = frozenset(v for v in variables if v in labels or is_label(design, v))
    wanted = {plain_name(name): values for name, values in (at or {}).items()}
    for name in wanted:
        refuse_unknown(f"at={{{name!r}: ...}}", name, variables, "leave it out: there is no covariate")
    values: dict[str, tuple[Any, ...]] = {}
    for v in variables:
        known = levels_of(design, v) if v in factors else None
        asked = wanted.get(v)
        values[v] = tuple((known or [float(frame[v].mean())]) if asked is None else check_values(v, asked, known))
    if math.prod(len(v) for v in values.values()) > MAX_ROWS:
        sizes = ", ".join(f"{v}: {len(x)}" for v, x in values.items() if len(x) > 1)
        received = f"a grid of {math.prod(len(v) for v in values.values())} combinations ({sizes})"
        reason = f"more than {MAX_ROWS} rows would have to be averaged"
        raise SpecificationError(received, reason, "fix some factors by at={...}", SEE)
    others = [v for v in design.level1_variables() if v not in variables]
    hidden = {v: levels_of(design, v)[0] if is_label(design, v) else float(frame[v].mean()) for v in others}
    return Grid(design, values, factors, hidden)


def check_values(variable: str, asked: Any, levels: Sequence[Any] | None, see: str = SEE) -> list[Any]:
    """The values that ``at`` gives a variable: levels of a factor, or (``levels`` is None) finite numbers.

    Raises
    ------
    SpecificationError
        If there is none, or one of them cannot be.
    """
    single = isinstance(asked, (str, bytes)) or not isinstance(asked, Iterable)
    values = [asked] if single else list(asked)
    if not all(isinstance(value, Hashable) for value in values):
        remedy = f"use at={{{variable!r}: [1, 2]}}"
        raise SpecificationError(f"at={{{variable!r}: {asked!r}}}", "each value is one number or label", remedy, see)
    given = list(dict.fromkeys(values))
    if not given:
        raise SpecificationError(f"at={{{variable!r}: []}}", "no value is left", "give at least one value", see)
    for value in given:
        if levels is None:
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            allowed = number and math.isfinite(float(value))
            reason, remedy = f"{variable!r} is a number in this model", "give finite numbers"
        else:
            allowed = value in levels
            reason = f"{variable!r} has no such level.{closest(str(value), map(str, levels))}"
            remedy = f"use {shorten(map(quote, levels))}"
        if not allowed:
            raise SpecificationError(f"at={{{variable!r}: {quote(value)}}}", reason, remedy, see)
    return given if levels is not None else [float(v) for v in given]


def refuse_unknown(received: str, name: str, known: Collection[str], otherwise: str) -> None:
    """Refuse a name that no covariate of the fixed effects has; ``otherwise``: what to do where there is none."""
    if name not in known:
        remedy = f"use {shorten(map(repr, known))}" if known else otherwise
        raise SpecificationError(received, no_covariate(name, known), remedy, SEE)


def no_covariate(name: str, known: Collection[str]) -> str:
    """Why a name that no covariate of the fixed effects has cannot be used."""
    return f"the fixed effects have no covariate of this name.{closest(name, known)}"


def average_rows(
    grid: Grid, keys: pd.DataFrame, weights: str, rows: Rows | None = None, width: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Rows of the design at ``keys``, averaged over everything in the grid that is no key.

    Parameters
    ----------
    grid : Grid
    keys : DataFrame
    weights : {"equal", "proportional"}
        "proportional": by the number of rows of the data, of those with levels that the grid has, as in emmeans.
    rows : callable, optional
        Frame -> what is averaged, (n, p) and (n,): X and offset unless it says otherwise.
    width : int
        Numbers of a row, where they are many.

    Returns
    -------
    L : (k, p)
    offset : (k,)

    Raises
    ------
    SpecificationError
        If no combination occurs in the data.
    """
    choose("weights", weights, WEIGHTS, SEE)
    rows, base = rows or grid.rows, keys.reset_index(drop=True)
    rest = grid.keys([v for v in grid.points if v not in base])
    share = _frequencies(grid, rest) if weights == "proportional" else np.ones(len(rest))
    if not share.sum() > 0.0:
        reason = "the combinations of levels chosen by at= do not occur in the data"
        raise SpecificationError("weights='proportional'", reason, "use weights='equal', or other levels", SEE)
    share = share / share.sum()
    n, step = len(base), max(1, min(MAX_ROWS, NUMBERS // width) // len(base))
    L, offset = np.zeros((n, 1)), np.zeros(n)
    for start in range(0, len(rest), step):
        part = np.arange(start, min(start + step, len(rest)))
        pieces = base.iloc[np.tile(np.arange(n), len(part))], rest.iloc[np.repeat(part, n)]
        X, shift = rows(pd.concat([piece.reset_index(drop=True) for piece in pieces], axis=1))
        for k, own in enumerate(share[part]):
            L = L + own * X[k * n : (k + 1) * n]
            offset += own * shift[k * n : (k + 1) * n]
    return L, offset


def _frequencies(grid: Grid, rest: pd.DataFrame) -> FloatArray:
    """Rows of the data with each combination of the factors, and with levels of the others that are in the grid."""
    names, frame = [v for v in rest if v in grid.factors], grid.design.frame
    if not names:
        return np.ones(len(rest))
    held = np.all([frame[v].isin(grid.points[v]) for v in grid.factors], axis=0)
    counts = Counter(frame.loc[held, names].itertuples(index=False, name=None))
    return np.array([float(counts[key]) for key in rest[names].itertuples(index=False, name=None)])


# Weights of f at multiples of the step: exact for polynomials of degree 4.
CENTRAL = {-2: 1.0 / 12.0, -1: -8.0 / 12.0, 1: 8.0 / 12.0, 2: -1.0 / 12.0}
FORWARD = (-25.0 / 12.0, 4.0, -3.0, 4.0 / 3.0, -0.25)


def check_slope(grid: Grid, variable: str) -> None:
    """Refuse a slope of what is no number of the fixed effects."""
    if variable in grid.points and variable not in grid.factors:
        return
    numbers = [v for v in grid.points if v not in grid.factors]
    reason = no_covariate(variable, grid.points)
    remedy = "use fit.marginal_means(...): the fixed effects have no number to take a slope of"
    remedy = f"use one of {shorten(map(repr, numbers))}" if numbers else remedy
    if variable in grid.factors:
        reason = f"{variable!r} is a factor, and a slope is a change per unit of a number"
        remedy = f"use fit.contrasts({variable!r})"
    raise SpecificationError(f"slopes({variable!r})", reason, remedy, SEE)


def slope_rows(grid: Grid, variable: str, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Derivative of rows of the grid by one numeric variable: X' (n, p), offset' (n,).

    Differences of fourth order, exact where the row is a polynomial of degree 4 or less in the variable; one-sided at
    the ends of the data, where a spline may end.

    Raises
    ------
    SpecificationError
        If the row has a jump or a kink there.
    """
    column = grid.design.frame[variable].to_numpy(dtype=np.float64)
    low, high = float(column.min()), float(column.max())
    step = STEP * ((high - low) or 1.0)
    x = frame[variable].to_numpy(dtype=np.float64)
    inside = (x >= low) & (x <= high)
    side = np.where(inside & (x - 2.0 * step < low), 1, np.where(inside & (x + 2.0 * step > high), -1, 0))

    def moved(shift: FloatArray) -> FloatArray:
        """X and offset with the variable moved: (n, p + 1)."""
        return np.column_stack(grid.rows(frame.assign(**{variable: x + shift})))

    grid.rows(frame)  # what is to be said about these rows (a spline beyond its knots) is said once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        slopes, halves = (_differences(moved, side, h) for h in (step, 0.5 * step))
        _refuse_kinks(moved, x, variable, side, step, slopes, halves)
        # Differences of equal numbers leave rounding, of which a test would be made: 1e-16 of them over the step.
        size = np.max([np.abs(moved(k * step * np.where(side == 0, 1, side))) for k in (0, 1, 2)], axis=0)
    slopes = np.where(np.abs(slopes) <= 1e-13 / step * size, 0.0, slopes)
    return slopes[:, :-1], slopes[:, -1]


def _differences(moved: Moved, side: NDArray[Any], step: float) -> FloatArray:
    one, central = np.where(side == 0, 1, side), side == 0
    parts = []
    for k, own in enumerate((-2, -1, 1, 2, 0)):
        position = np.where(central, own, k * one).astype(float)
        weight = np.where(central, CENTRAL.get(own, 0.0), FORWARD[k] * one)
        parts.append((weight / step)[:, None] * moved(position * step))
    return np.sum(parts, axis=0)


def _refuse_kinks(
    moved: Moved, x: FloatArray, variable: str, side: NDArray[Any], step: float, slopes: FloatArray, halves: FloatArray
) -> None:
    """Refuse where the difference depends on the step (a jump), or on the side (a kink)."""
    scale = np.abs(slopes).max(axis=0) + np.abs(moved(np.zeros(len(side)))).max(axis=0)
    jump = np.abs(slopes - halves) > 1e-2 * np.abs(slopes) + 1e-6 * scale
    gaps = []
    for h in (step, 0.5 * step):
        shift = np.where(side == 0, h, 0.0)
        ahead, here, back = (moved(s * shift) for s in (1.0, 0.0, -1.0))
        gaps.append(np.abs(ahead - 2.0 * here + back) / h)
    kink = (gaps[1] > 0.75 * gaps[0]) & (gaps[1] > 1e-6 * scale)
    bad = np.flatnonzero(np.any(jump | kink, axis=1))
    if bad.size:
        received = f"slopes({variable!r}) at {variable} = {x[bad[0]]:g}"
        remedy = f"ask elsewhere: at={{{variable!r}: ...}}; or test its coefficient by fit.hypothesis(...)"
        raise SpecificationError(received, "a term has a jump or a kink there, so it has no slope", remedy, SEE)
