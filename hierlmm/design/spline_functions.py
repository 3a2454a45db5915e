"""``ns``, ``bs`` and ``poly`` as functions of the formula language: bases learnt once, kept with formulaic's state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design import splines
from hierlmm.errors import closest

ARGUMENTS = {
    "ns": ("df", "knots", "intercept", "boundary_knots"),
    "bs": ("df", "knots", "degree", "intercept", "boundary_knots"),
    "poly": ("degree", "raw"),
}
"""Arguments after the variable, in their order."""


def formula_functions(extrapolated: dict[str, str]) -> dict[str, Callable[..., Any]]:
    """``ns``, ``bs`` and ``poly`` for formulaic, which keeps their bases with the rest of its state.

    Its own ``cr`` and ``cs`` are passed through, and watched for values beyond their boundary knots.

    Parameters
    ----------
    extrapolated : dict
        Filled with a sentence for every spline that is evaluated beyond its boundary knots.
    """
    from formulaic.utils.stateful_transforms import stateful_transform

    functions = {kind: _curve(kind, extrapolated) for kind in ARGUMENTS}
    functions |= {kind: _watched(kind, extrapolated) for kind in ("cr", "cs")}
    return {name: stateful_transform(function) for name, function in functions.items()}


def _curve(kind: str, extrapolated: dict[str, str]) -> Callable[..., Any]:
    """``ns``, ``bs`` or ``poly``: the basis is learnt by the first call with a state, and evaluated by all."""

    def curve(x: Any, *values: Any, _state: Any = None, _spec: Any = None, **named: Any) -> Any:
        from formulaic.materializers.types import FactorValues

        arguments = _by_name(kind, values, named)
        name = _call_of(_state, _spec, kind, x)
        numbers = _as_numbers(x, name)
        columns = (_polynomial if kind == "poly" else _spline)(kind, numbers, name, _state, arguments, extrapolated)
        names = tuple(str(k) for k in range(1, columns.shape[1] + 1))
        return FactorValues(columns, kind="numerical", spans_intercept=False, column_names=names)

    return curve


def _spline(kind: Any, x: FloatArray, name: str, state: Any, arguments: Any, notes: dict[str, str]) -> FloatArray:
    if "basis" not in state:
        state["basis"] = splines.learn_spline(x, kind, name=name, **arguments)
    basis: splines.SplineBasis = state["basis"]
    _note(x[basis.beyond(x)], basis.boundary, name, kind, notes)
    return basis.evaluate(x)


def _polynomial(kind: str, x: FloatArray, name: str, state: Any, arguments: Any, _: dict[str, str]) -> FloatArray:
    degree = arguments.get("degree", 1)
    if splines.switch(arguments.get("raw", False), name, "raw"):
        return np.column_stack([x**k for k in range(1, splines.whole(degree, "degree", name, least=1) + 1)])
    if "basis" not in state:
        state["basis"] = splines.learn_poly(x, degree, name=name)
    basis: splines.PolynomialBasis = state["basis"]
    return basis.evaluate(x)


def _watched(kind: Literal["cr", "cs"], extrapolated: dict[str, str]) -> Callable[..., Any]:
    """The cubic splines of formulaic, with a note where they are extrapolated."""

    def cubic(x: Any, *args: Any, _state: Any = None, _spec: Any = None, **arguments: Any) -> Any:
        from formulaic.transforms import TRANSFORMS

        result = TRANSFORMS[kind](x, *args, _state=_state, _spec=_spec, **arguments)
        if arguments.get("extrapolation", "extend") == "extend":
            values, boundary = np.asarray(x, dtype=np.float64), (_state["lower_bound"], _state["upper_bound"])
            beyond = values[splines.outside(values, *boundary)]
            _note(beyond, boundary, _call_of(_state, _spec, kind, x), kind, extrapolated)
        return result

    return cubic


def _by_name(kind: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, as Python binds them."""
    known = ARGUMENTS[kind]
    for name in named:
        if name not in known:
            received = f"{kind}(..., {name}=...)"
            remedy = f"the variable comes first, without a name; further arguments are {', '.join(known)}"
            raise splines.formula_error(received, f"{kind} has no argument of this name.{closest(name, known)}", remedy)
    if len(values) > len(known):
        raise TypeError(f"{kind}() takes {len(known) + 1} arguments but {len(values) + 1} were given")
    placed = dict(zip(known, values, strict=False))
    twice = [name for name in named if name in placed]
    if twice:
        raise TypeError(f"{kind}() got multiple values for argument {twice[0]!r}")
    return placed | dict(named)


def _note(beyond: FloatArray, boundary: tuple[float, float], name: str, kind: str, notes: dict[str, str]) -> None:
    """Say what to know about values beyond the boundary knots."""
    beyond = beyond[np.isfinite(beyond)]
    if not beyond.size:
        return
    low, high = beyond.min(), beyond.max()
    values = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    notes[name] = (
        f"{name} is extrapolated in {beyond.size} row{'s' if beyond.size > 1 else ''}: {splines.variable_of(name)} is "
        f"{values}, its boundary knots are {splines.listed(boundary)}. Beyond them the curve goes on as "
        f"{'the polynomial of its last piece' if kind == 'bs' else 'a straight line'}, and no data speak for it there."
    )


def _call_of(state: Mapping[str, Any], spec: Any, kind: str, data: Any) -> str:
    """The call in the formula that a state belongs to: ``ns(year, 2)``."""
    call = next((call for call, own in spec.transform_state.items() if own is state), kind)
    column = getattr(data, "name", None)
    if isinstance(column, str) and not column.isidentifier():  # formulaic's stand-in for a name in backticks
        call = call.replace(f"({re.sub(r'\W', '_', column)}", f"(`{column}`", 1)
    return call


def _as_numbers(data: Any, name: str) -> FloatArray:
    """The variable as (n,) floats; labels are refused, also those that look like numbers."""
    import pandas as pd

    values = getattr(data, "__wrapped__", data)  # formulaic wraps what its functions return
    dtype = getattr(values, "dtype", None)
    shape = np.shape(values)
    if dtype is None or not pd.api.types.is_numeric_dtype(dtype) or len(shape) != 1:
        what = f"{shape[1]} columns" if len(shape) == 2 else f"{dtype} values"
        reason = f"its variable holds {what}, not numbers on one axis"
        raise splines.formula_error(name, reason, "use one numeric column")
    return np.asarray(values, dtype=np.float64)
