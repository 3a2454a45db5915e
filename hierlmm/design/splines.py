"""Bases of curves in one variable, in the parametrisation of R: ``ns``, ``bs`` (package splines) and ``poly`` (stats).

With boundary knots a < b, interior knots k_1 < ... < k_m and degree d, ``bs`` has the B-splines B_1, ..., B_{m+d+1} of
the knots a (d + 1 times), k_1, ..., k_m, b (d + 1 times). They sum to one, so that the first is left out beside an
intercept.

``ns`` has the cubic splines with f''(a) = f''(b) = 0, straight lines beyond. With C' the (2, m + 3) matrix of second
derivatives of the B-splines B at a and b, and the Householder decomposition C = Q [R; 0], its columns are B Q without
the first two: orthonormal combinations of B-splines. A diagonal D over the columns depends on this choice.

``poly`` has the orthogonal polynomials P_1, ..., P_d of the fitted rows, of unit length, by three-term recurrence.

A basis is learnt once from the fitted rows (knots at quantiles, boundary knots at the range) and then frozen.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.errors import DataError, FormulaError

SEE = "docs, page 'Formulas and levels', section 'Splines and polynomials'"
data_error = partial(DataError, see=SEE)
formula_error = partial(FormulaError, see=SEE)
CUBIC = 3
ROUNDING = 1e-9  # of the range: a value so little beyond a boundary knot is a rounded boundary knot


@dataclass(frozen=True, slots=True)
class SplineBasis:
    """A spline basis with its knots: what a fit keeps, so that new rows get the same columns.

    Attributes
    ----------
    kind : {"ns", "bs"}
        Natural cubic splines, or B-splines.
    degree : int
        Degree of the polynomials between knots; 3 for ``ns``.
    knots : tuple of float
        Interior knots, increasing.
    boundary : (float, float)
        Boundary knots.
    intercept : bool
        Whether the constant is in the span of the columns.
    seen : (float, float)
        Smallest and largest value that the basis was learnt from.
    """

    kind: Literal["ns", "bs"]
    degree: int
    knots: tuple[float, ...]
    boundary: tuple[float, float]
    intercept: bool
    seen: tuple[float, float]

    @property
    def df(self) -> int:
        """Number of columns."""
        full = len(self.knots) + self.degree + 1 - (not self.intercept)
        return full - 2 if self.kind == "ns" else full

    def evaluate(self, x: ArrayLike) -> FloatArray:
        """Columns of the basis at ``x``, shape (n, df).

        Beyond the boundary knots ``ns`` goes on as a straight line, ``bs`` as the polynomial of its outermost piece.
        """
        x = np.asarray(x, dtype=np.float64)
        columns = _natural(self, x) if self.kind == "ns" else _b_splines(self)(x)
        return np.ascontiguousarray(columns if self.kind == "ns" or self.intercept else columns[:, 1:])

    def beyond(self, x: ArrayLike) -> BoolArray:
        """Which values lie where the curve is extrapolated: beyond the boundary knots and, for ``ns``, beyond the data.

        A natural spline with boundary knots inside the data is a straight line in its tails because it was asked to be.
        """
        x = np.asarray(x, dtype=np.float64)
        low, high = self.boundary
        if self.kind == "ns":
            low, high = min(low, self.seen[0]), max(high, self.seen[1])
        return outside(x, low, high)


@dataclass(frozen=True, slots=True)
class PolynomialBasis:
    """Orthogonal polynomials: the recurrence coefficients that the fitted rows gave (``poly``'s ``coefs`` in R).

    Attributes
    ----------
    alpha : tuple of float
        ``sum(x P_k^2) / sum(P_k^2)`` for k = 0, ..., d - 1, where P_k is monic.
    norm2 : tuple of float
        ``sum(P_k^2)`` for k = 0, ..., d.
    """

    alpha: tuple[float, ...]
    norm2: tuple[float, ...]

    def evaluate(self, x: ArrayLike) -> FloatArray:
        """P_1, ..., P_d at ``x``, of unit length over the fitted rows; shape (n, d)."""
        x = np.asarray(x, dtype=np.float64)
        step = np.sqrt(np.divide(self.norm2[1:], self.norm2[:-1]))
        columns = [np.full_like(x, self.norm2[0] ** -0.5)]
        for k, alpha in enumerate(self.alpha):
            following = (x - alpha) * columns[k]
            if k:
                following -= step[k - 1] * columns[k - 1]
            columns.append(following / step[k])
        return np.column_stack(columns[1:])


def learn_spline(
    x: ArrayLike,
    kind: Literal["ns", "bs"] = "ns",
    *,
    df: int | None = None,
    knots: float | Sequence[float] | None = None,
    degree: int = CUBIC,
    intercept: bool = False,
    boundary_knots: Sequence[float] | None = None,
    name: str = "",
) -> SplineBasis:
    """Choose the knots of a spline as R's ``ns`` and ``bs`` do.

    Parameters
    ----------
    x : (n,)
        The fitted rows.
    kind : {"ns", "bs"}
    df : int, optional
        Number of columns; the interior knots are then equally spaced quantiles (type 7) of the values within the
        boundary knots.
    knots : float or sequence of float, optional
        Interior knots, instead of ``df``. With neither there are none.
    degree : int
        Of the pieces of ``bs``.
    intercept : bool
        Keep the constant in the span of the columns.
    boundary_knots : (float, float), optional
        The range of ``x`` by default.
    name : str
        The call, for messages.

    Raises
    ------
    FormulaError
        If the arguments cannot be used (numbers of the wrong kind, too few columns, both ``df`` and ``knots``).
    DataError
        If ``x`` holds one value, or so few distinct ones that knots coincide.
    """
    name = name or kind
    x = np.asarray(x, dtype=np.float64)
    _check_finite(x, name)
    degree = CUBIC if kind == "ns" else whole(degree, "degree", name, least=1)
    intercept = switch(intercept, name)
    least = 1 + intercept if kind == "ns" else degree + intercept
    boundary = _boundary(x, boundary_knots, name)
    if df is not None and knots is not None:
        reason = "df and knots both say how many columns there are"
        raise formula_error(name, reason, "give one of them: knots=[...] or df=...")
    if df is not None:
        n_knots = whole(df, "df", name, least=least) - least
        inside = x[(x >= boundary[0]) & (x <= boundary[1])]
        interior = np.quantile(inside, np.arange(1, n_knots + 1) / (n_knots + 1)) if n_knots else np.empty(0)
        remedy = f"use a smaller df ({len(np.unique(x))} distinct values are there), or place them by knots=[...]"
    else:
        interior = np.sort(_numbers([] if knots is None else knots, "knots", name))
        remedy = "place the interior knots between the boundary knots, and each of them once"
    gaps = np.diff([boundary[0], *interior, boundary[1]])
    if np.any(gaps <= ROUNDING * (boundary[1] - boundary[0])):  # quantiles between equal values may differ by rounding
        received = f"{name} with interior knots at {listed(interior)} and boundary knots at {listed(boundary)}"
        reason = "knots coincide or leave the boundary, so that columns would be zero or equal"
        raise data_error(received, reason, remedy)
    return SplineBasis(kind, degree, tuple(map(float, interior)), boundary, intercept, (float(x.min()), float(x.max())))


def learn_poly(x: ArrayLike, degree: int = 1, *, name: str = "poly") -> PolynomialBasis:
    """Orthogonalise 1, x, ..., x^degree over the rows, as R's ``poly`` does.

    Raises
    ------
    FormulaError
        If ``degree`` is not a positive whole number.
    DataError
        If there are no more than ``degree`` distinct values.
    """
    degree = whole(degree, "degree", name, least=1)
    x = np.asarray(x, dtype=np.float64)
    _check_finite(x, name)
    distinct = len(np.unique(x))
    if degree >= distinct:
        received = f"{name} of {distinct} distinct values"
        reason = f"a polynomial of degree {degree} needs more than {degree} of them"
        raise data_error(received, reason, f"use a degree below {distinct}, or a factor: C({variable_of(name)})")
    centred = x - x.mean()
    q = [np.full_like(x, len(x) ** -0.5)]  # orthonormal from the start: powers of x would lose digits
    alpha, norm2 = [float(x.mean())], [float(len(x))]
    for k in range(1, degree + 1):
        following = centred * q[k - 1]
        for _ in range(2):  # once more: rounding is orthogonalised away
            for earlier in q:
                following = following - (earlier @ following) * earlier
        size = float(np.sqrt(following @ following))
        q.append(following / size)
        norm2.append(norm2[-1] * size**2)
        if k < degree:
            alpha.append(alpha[0] + float((centred * q[k]) @ q[k]))
    return PolynomialBasis(tuple(alpha), tuple(norm2))


def _b_splines(basis: SplineBasis) -> Any:
    """All B-splines of the knots, as one vector-valued function (scipy's BSpline)."""
    from scipy.interpolate import BSpline

    ends = basis.degree + 1
    knots = np.concatenate([np.repeat(basis.boundary[0], ends), basis.knots, np.repeat(basis.boundary[1], ends)])
    return BSpline(knots, np.eye(len(basis.knots) + ends), basis.degree)


def _natural(basis: SplineBasis, x: FloatArray) -> FloatArray:
    """The B-splines, straight beyond the boundary, without the two combinations that are bent there."""
    function = _b_splines(basis)
    ends = np.array(basis.boundary)
    clipped = np.clip(x, *basis.boundary)
    slope = np.where((x < ends[0])[:, None], function(ends[0], 1), function(ends[1], 1))
    columns = function(clipped) + (x - clipped)[:, None] * slope
    constraints = function(ends, 2).T  # (number of B-splines, 2)
    if not basis.intercept:
        columns, constraints = columns[:, 1:], constraints[1:]
    for k in range(2):
        v = constraints[:, k].copy()
        v[:k] = 0.0
        # The sign that R's qr() chooses (LINPACK): the pivot grows, so that nothing cancels.
        v[k] += np.copysign(np.sqrt(v @ v), v[k])
        scaled = v * (2.0 / (v @ v))
        constraints = constraints - np.outer(scaled, v @ constraints)
        columns = columns - np.outer(columns @ v, scaled)
    return columns[:, 2:]


def outside(x: FloatArray, low: float, high: float) -> BoolArray:
    """Which values lie beyond a range, and not by rounding alone."""
    slack = ROUNDING * (high - low)
    return (x < low - slack) | (x > high + slack)


def variable_of(call: str) -> str:
    """First argument of a call: ``year`` of ``ns(year, 2)``."""
    quoted = re.match(r"\w+\(`([^`]+)`[,)]", call)
    if quoted:
        return quoted[1]
    try:
        node = ast.parse(call.replace("`", ""), mode="eval").body
    except SyntaxError:
        return "x"
    return ast.unparse(node.args[0]) if isinstance(node, ast.Call) and node.args else "x"


def _check_finite(x: FloatArray, name: str) -> None:
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        received = f"{name} with {bad} infinite or undefined values of {variable_of(name)}"
        reason = "knots and norms cannot be computed from them"
        raise data_error(received, reason, "correct or drop these rows, or use another transformation")


def _boundary(x: FloatArray, given: Any, name: str) -> tuple[float, float]:
    if given is None:
        low, high = float(x.min()), float(x.max())
        if low == high:
            remedy = "take the term out, or check whether a filter left one value only"
            raise data_error(f"{name} of one value ({low:.6g})", "a curve needs a range", remedy)
        return low, high
    ends = np.unique(_numbers(given, "boundary_knots", name))
    if len(ends) != 2 or not np.any((x >= ends[0]) & (x <= ends[1])):
        example = f"boundary_knots=[{x.min():.6g}, {x.max():.6g}]"
        remedy = f"give the ends of the range, for example {example}, or leave it out"
        received = f"{name}: boundary_knots={given!r}"
        raise formula_error(received, "these are not two numbers with data between them", remedy)
    return float(ends[0]), float(ends[1])


def _numbers(given: Any, what: str, name: str) -> FloatArray:
    """Knots as an array of finite floats."""
    try:
        numbers = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.full((1, 1), np.nan)
    if numbers.ndim != 1 or not np.all(np.isfinite(numbers)):
        raise formula_error(f"{name}: {what}={given!r}", "these are not numbers", f"write {what}=[2, 5]")
    return numbers


def whole(given: Any, what: str, name: str, *, least: int) -> int:
    """An argument that is a whole number, or a refusal."""
    number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not number or given != int(given) or given < least:
        received = f"{name}: {what}={given!r}" if np.ndim(given) == 0 else f"{name}: {what} that is no number"
        raise formula_error(received, f"{what} is a whole number, here at least {least}", f"use {what}={least} or more")
    return int(given)


def switch(given: Any, name: str, what: str = "intercept") -> bool:
    """An argument that is True or False, or a refusal."""
    if given is not True and given is not False:
        raise formula_error(f"{name}: {what}={given!r}", f"{what} is True or False", f"write {what}=True")
    return bool(given)


def listed(values: Sequence[float] | FloatArray) -> str:
    """Numbers for a message, cut if there are many."""
    numbers = [f"{v:.6g}" for v in values]
    numbers = [*numbers[:6], "..."] if len(numbers) > 8 else numbers
    return " and ".join(numbers) if len(numbers) < 3 else ", ".join(numbers)
