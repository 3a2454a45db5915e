"""A model said level by level, for nested factors: a regression of the rows, and what explains its intercept above."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd

from hierlmm.design.factors import in_natural_order, lies_in, starts_anew
from hierlmm.design.formula import MULTILEVEL, parse_formula, parse_rhs, quoted, variables_of
from hierlmm.design.rows import group_by
from hierlmm.errors import FormulaError, SpecificationError, warn
from hierlmm.frames import column_names, quote, require_columns, shorten, to_pandas

specification_error = partial(SpecificationError, see=MULTILEVEL)


def formula_of_levels(response: str, levels: Mapping[str, str], data: Any) -> str:
    """The formula of a response equation and a right-hand side for each level, the finest first.

    Parameters
    ----------
    response : str
        ``"strength ~ x"``.
    levels : mapping
        Column -> what explains the intercept between its groups, in the groups of the next level.
    data : table

    Raises
    ------
    FormulaError, SpecificationError, DataError
        If a right-hand side has no constant, or what varies within the groups of its level, or a coarser level stands
        before a finer one.

    Warns
    -----
    FitWarning
        If labels look like those of levels with the coarsest first.
    """
    if parse_formula(response, several=True).random:
        remedy = "name its factor in levels; slopes and crossed factors take hl.MultilevelModel.from_formula"
        raise FormulaError(repr(response), "a parenthesis says once more what levels say", remedy, MULTILEVEL)
    if not levels:
        remedy = 'name the grouping factors, the finest first: levels={"cask": "1", "batch": "1"}'
        raise specification_error("levels={}", "there is nothing that varies between groups", remedy)
    require_columns(list(levels), column_names(data), "level")
    parts, names = [response], list(levels)
    _check_order(to_pandas(data, names).dropna(), names)
    for k, (name, rhs) in enumerate(levels.items()):
        if not isinstance(rhs, str):
            reason = "a level is explained by a right-hand side, which is text"
            remedy = (
                f'write {{{name!r}: "1"}}, or "1 + x" with what explains the intercept; random slopes take a formula: '
                f'hl.MultilevelModel.from_formula("... + (1 + x | {name})", data)'
            )
            raise specification_error(f"levels={{{name!r}: {rhs!r}}}", reason, remedy)
        if not rhs.strip() or () not in (terms := parse_rhs(rhs, rhs)):
            reason = "without a constant there is no intercept that could vary between groups"
            remedy = f'write "1" for the constant alone, or leave {name!r} out of levels'
            raise specification_error(f"levels={{{name!r}: {rhs!r}}}", reason, remedy)
        variables = [v for term in terms for factor in term for v in variables_of(factor, column_names(data))]
        _refuse_finer(data, list(dict.fromkeys(variables)), names[k:], name)
        parts += [rhs] if any(terms) else []
    nested = " / ".join(quoted(name) for name in reversed(names))
    return f"{' + '.join(parts)} + (1 | {nested})"


def _refuse_finer(data: Any, variables: list[str], columns: list[str], level: str) -> None:
    """Refuse what is not constant within the groups of its level."""
    frame = to_pandas(data, list(dict.fromkeys([*columns, *variables])))
    for variable in variables:
        values = frame.groupby(columns, observed=True, sort=False)[variable].nunique()
        if (values > 1).any():
            group = values.index[int((values > 1).to_numpy().argmax())]
            label = ":".join(map(str, reversed(group))) if isinstance(group, tuple) else group
            reason = (
                f"it varies within {level} {shorten([quote(label)])}, so that it explains no difference between them"
            )
            remedy = "put it into the response equation, or at the level within whose groups it is constant"
            raise specification_error(f"{variable!r} at the level of {level!r}", reason, remedy)


def _check_order(frame: pd.DataFrame, names: list[str]) -> None:
    """Refuse a coarser level before a finer one, and say where labels look so: those of the second start anew.

    Labels that all occur together are those of either order; then the level with more labels is taken for the coarser.
    """
    for k, (first, second) in enumerate(pairwise(names)):
        one, other = group_by(frame[first]), group_by(frame[second])
        swapped = list(names)
        swapped[k : k + 2] = second, first
        order = f"name levels the finest first: {{{', '.join(f'{quote(name)}: ...' for name in swapped)}}}"
        if lies_in(other, one) and not lies_in(one, other):
            reason = f"each {second} lies in one {first}, so that {first} is the coarser level of the two"
            raise specification_error(f"{first!r} before {second!r} in levels", reason, order)
        if starts_anew(other, one) is None or lies_in(one, other):
            continue
        above = len(frame[names[k + 1 :]].drop_duplicates())
        if len(one.labels) > above or starts_anew(one, other) is None:
            labels = shorten(map(str, in_natural_order(other.labels)), 4)
            warn(
                f"The labels of {second} ({labels}) start anew in every {first}, as if each {second} lay in a {first}; "
                f"as stated, each {first} lies in a {second}. If {first} is the coarser level, {order}; "
                "labels that no two groups share leave no doubt."
            )
