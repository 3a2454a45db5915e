"""What may stand in an expression of a formula: arithmetic, comparisons, and functions that work row by row.

Nothing else may, so that evaluating it is safe, and gives a row the same value in any table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from functools import partial

import numpy as np

from hierlmm.errors import FormulaError, closest

__all__ = ["CONTRASTS", "check_function", "check_syntax", "syntax_tree"]

SEE = "docs, page 'Formulas and levels'"
formula_error = partial(FormulaError, see=SEE)

SYNTAX = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.Tuple, ast.List, ast.Dict),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Attribute),
)
CONTRASTS = frozenset({"Treatment", "Poly", "Sum", "Helmert", "Diff"})  # C(x, Sum), as patsy writes it
BUILTINS = frozenset({"abs", "float", "int"})
CURVES = frozenset({"ns", "bs", "poly"})  # hierlmm.design.splines, which stand in for formulaic's
NUMPY = frozenset({"around", "clip", "e", "isin", "pi", "round", "where"})  # besides the elementwise functions


def check_syntax(tree: ast.Expression, expression: str) -> set[str]:
    """Refuse Python that is not a formula, and return the modules in use (``np``, ``contr``)."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, SYNTAX):
            raise formula_error(
                repr(expression),
                f"Python code of this kind ({type(node).__name__}) cannot stand in a formula",
                "use arithmetic, comparisons and functions of columns, or make the column beforehand "
                "(data['z'] = ...) and use its name",
            )
        if isinstance(node, ast.Attribute):
            modules.add(_check_attribute(node, expression))
    return modules


def _check_attribute(node: ast.Attribute, expression: str) -> str:
    """Allow ``np.<elementwise function>`` and ``contr.<contrast>``; return the module's name."""
    module = node.value.id if isinstance(node.value, ast.Name) else ""
    if module == "np" and (isinstance(getattr(np, node.attr, None), np.ufunc) or node.attr in NUMPY):
        return module
    if module == "contr" and not node.attr.startswith("_"):
        return module
    if module == "np" and hasattr(np, node.attr):
        reason = f"np.{node.attr} does not work row by row, so new rows would get other values than the same rows here"
    else:
        reason = f"attributes ({node.attr!r}) cannot stand in a formula, apart from numpy functions such as np.log"
    raise formula_error(
        repr(expression),
        reason,
        "use center(x), scale(x) or poly(x, 2), which remember what they saw, or make the column beforehand "
        "(data['z'] = ...) and use its name",
    )


def check_function(name: str, expression: str, columns: Collection[str]) -> None:
    """Refuse a function that the formula language does not have."""
    known = _known_functions()
    if name in known and name not in columns:
        return
    remedy = f"use one of {', '.join(sorted(known))}, or a numpy function such as np.sqrt"
    reason = f"there is no function named {name!r}.{closest(name, known)}"
    if name in columns and name in known:
        reason = f"a column is named {name!r} too and hides the function"
        remedy = f"rename the column {name!r}, or use the numpy function (np.{name})"
    elif name == "lag":
        reason = "it shifts the rows of the whole table, from one subject into the next"
        remedy = "make the column beforehand: data['previous'] = data.groupby('subject')['x'].shift()"
    elif name == "Q":
        reason, remedy = "this is how patsy quotes a name", "put the column name in backticks: `my column`"
    elif name == "offset":
        reason = "an offset is not a term that can be multiplied or vary between subjects"
        remedy = "add it at the top of the formula (level 1): 'y ~ x + offset(w) + (1 | subject)'"
    elif hasattr(np, name):
        remedy = f"use np.{name}"
    raise formula_error(repr(expression), reason, remedy)


def _known_functions() -> frozenset[str]:
    from formulaic.transforms import TRANSFORMS

    return (frozenset(TRANSFORMS) | BUILTINS | CURVES) - {"np", "contr", "lag", "Q"}


def syntax_tree(expression: str) -> tuple[ast.Expression, dict[str, str]]:
    """Parse a factor expression; column names in backticks are replaced by identifiers (returned with their names)."""
    names: dict[str, str] = {}

    def replace_name(match: re.Match[str]) -> str:
        identifier = f"_column_{len(names)}_"
        names[identifier] = match.group(1)
        return identifier

    return ast.parse(re.sub(r"`([^`]+)`", replace_name, expression), mode="eval"), names
