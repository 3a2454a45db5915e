"""What may stand in a formula, and how large it may be: refused before time or memory is spent on it.

Arithmetic, comparisons and functions that work row by row may stand in an expression. Nothing else may, so that
evaluating it is safe, and gives a row the same value in any table.

A formula may come from a stranger, over the web or in a file. Reading it must cost little whatever it says, and what it
asks for (``hashed(g, levels=10**9)``, fourteen terms to the sixteenth power) is counted before it is made.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np

from hierlmm.errors import FormulaError, closest

LIMITS = "docs, page 'Formulas and levels', section 'Limits'"
CHARACTERS = 20_000
DEPTH = 50
OPERATORS = 200
PRODUCTS = 2_000
GENERATED = 1_000
COLUMNS = 500
CELLS = 250_000_000
MAKERS = {"hashed": "levels", "bs": "df", "ns": "df", "cr": "df", "cs": "df", "cc": "df", "poly": "degree"}
"""Functions that make as many columns as one of their arguments says, the second if it is not named."""
SEE = "docs, page 'Formulas and levels'"
formula_error = partial(FormulaError, see=SEE)
BEFOREHAND = "make the column beforehand (data['z'] = ...) and use its name"
SYNTAX = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.Tuple, ast.List, ast.Dict),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Attribute),
)
CONTRASTS = frozenset({"Treatment", "Poly", "Sum", "Helmert", "Diff"})  # C(x, Sum), as patsy writes it
BUILTINS = frozenset({"abs", "float", "int"})
FACTORS_IN_R = re.compile(r"(?<![\w.])(?:as\.)?(?:factor|ordered)\(")
CURVES = frozenset({"ns", "bs", "poly"})  # hierlmm.design.splines, which stand in for formulaic's
NUMPY = frozenset({"around", "clip", "e", "isin", "pi", "round", "where"})  # besides the elementwise functions


def _refusal(
    formula: str, reason: str, remedy: str = "write a shorter formula, or make columns beforehand"
) -> FormulaError:
    shown = formula if len(formula) <= 200 else f"{formula[:120]} ... ({len(formula):,} characters)"
    return FormulaError(repr(shown), reason, remedy, LIMITS)


def check_text(formula: str) -> None:
    """Refuse a formula that is too long, too deeply nested, or holds an expression of too many operators."""
    if len(formula) > CHARACTERS:
        raise _refusal(formula, f"it has {len(formula):,} characters; the limit is {CHARACTERS:,}")
    depth, operators, quote = 0, 0, ""
    for character in formula:
        if quote or character in "`'\"":
            quote = ("" if character == quote else quote) if quote else character
        elif character in "([{":
            depth += 1
            if depth > DEPTH:
                raise _refusal(formula, f"its brackets are nested more than {DEPTH} deep, which is the limit")
        elif character in ")]}":
            depth = max(depth - 1, 0)
            operators = operators if depth else 0
        elif depth and character in "+-*/~<>=!%&|^@":
            operators += 1
            if operators > OPERATORS:
                raise _refusal(formula, f"an expression has more than {OPERATORS} operators, which is the limit")


def check_expansion(rhs: str, tree: Any) -> None:
    """Count the terms that a right-hand side multiplies out to, from formulaic's syntax tree.

    Raises
    ------
    FormulaError
        If there are more than 2,000, or a power has as many products to form.
    """
    sizes: dict[int, int] = {}
    stack = [(tree, False)]
    while stack:
        node, ready = stack.pop()
        arguments = list(getattr(node, "args", ()))
        if not ready:
            stack += [(node, True), *((argument, False) for argument in arguments)]
            continue
        sizes[id(node)] = size = _size(node, [sizes[id(argument)] for argument in arguments])
        if size > PRODUCTS:
            many = f"{'more than ' if size >= 10**15 else ''}{min(size, 10**15):,} terms (products of its terms)"
            reason = f"multiplied out it has {many}; the limit is {PRODUCTS:,}"
            raise _refusal(rhs, reason, "name the interactions that you want: a + b + a:b")


def _size(node: Any, own: list[int]) -> int:
    symbol = getattr(getattr(node, "operator", None), "symbol", "")
    if len(own) < 2:
        return own[0] if own else 1
    left, right = own
    if symbol in ("**", "^"):
        text = str(node.args[1]).strip()
        if not text.isdecimal():
            return left  # formulaic refuses it
        power = int(text[:6])
        return left**power if power * math.log10(max(left, 2)) < 15 else 10**15
    sizes = {"+": left + right, "-": left, ":": left * right, "*": left + right + left * right, "/": left + right}
    return sizes.get(symbol, left * right)


def check_constants(tree: ast.AST, expression: str, names: Collection[str]) -> None:
    """Refuse numbers that Python could not hold, repeated lists, and functions that would make too many columns.

    Parameters
    ----------
    tree : ast.AST
        The expression, made of allowed syntax only.
    names : collection of str
        Modules and functions; other names are columns.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            if any(isinstance(s, (ast.List, ast.Tuple, ast.Dict)) or _is_text(s) for s in (node.left, node.right)):
                raise _refusal(expression, "a list or a text stands in arithmetic", "write the list out")
            power = isinstance(node.op, (ast.Pow, ast.LShift)) and not _holds_column(node, names)
            if power and not math.isfinite(_value(node)):
                raise _refusal(expression, "a number in it is beyond the largest floating-point number, 1.8e308")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
            counted = MAKERS[node.func.id]
            asked = dict(zip(("", counted), node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg}
            for name in (counted, "degree"):
                if name not in asked or _holds_column(asked[name], names):
                    continue  # refused by the function itself, which wants a number
                value = _value(asked[name])
                if not value <= GENERATED:
                    many = f"{value:,.0f}" if math.isfinite(value) else "an unknown number of"
                    reason = f"{node.func.id} would make {many} columns; the limit of one function is {GENERATED:,}"
                    raise _refusal(expression, reason, f"write a smaller number for {name}")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))


def _holds_column(node: ast.AST, names: Collection[str]) -> bool:
    return any(isinstance(n, ast.Name) and n.id not in names for n in ast.walk(node))


def _value(node: ast.AST) -> float:
    """Value of arithmetic on numbers, in floating point; NaN of anything else, and 0 of None."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, (int, float)):
            return float(node.value) if abs(node.value) < 1e308 else math.inf
        return 0.0 if node.value is None else math.nan
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        with np.errstate(all="ignore"):
            return float(ARITHMETIC[type(node.op)](np.float64(_value(node.left)), np.float64(_value(node.right))))
    return math.nan


ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: lambda a, b: np.abs(a) ** b,
    ast.LShift: lambda a, b: a * np.float64(2.0) ** b,
}


def check_columns(counts: dict[str, int], n_rows: int) -> None:
    """Refuse terms that together have more columns than the rows could ever determine, or memory could hold.

    Parameters
    ----------
    counts : dict
        Term -> its columns, at least.
    n_rows : int
    """
    columns, most = sum(counts.values()), max(COLUMNS, min(n_rows, CELLS // max(n_rows, 1)))
    if columns > most:
        largest = max(counts, key=lambda term: counts[term])
        most_of = f"{counts[largest]:,} of them from {largest!r}"
        received = f"terms of at least {columns:,} columns, {most_of}, and {n_rows:,} rows"
        remedy = "merge levels, or leave the interaction of labels with many levels out"
        raise FormulaError(received, f"a model of so many rows can have {most:,} columns at most", remedy, LIMITS)


def check_idioms(expression: str) -> None:
    """Refuse R's ways to make a factor, with the one that is used here."""
    text = re.sub(r"`[^`]+`|'[^']*'|\"[^\"]*\"", "", expression)
    if found := FACTORS_IN_R.search(text):
        reason = f"{found[0]}) is R's way to make a factor; here text is one as it is"
        remedy = f"write C(...) where numbers are labels: {FACTORS_IN_R.sub('C(', expression)}"
        raise formula_error(repr(expression), reason, remedy)


def check_syntax(tree: ast.Expression, expression: str) -> set[str]:
    """Refuse Python that is not a formula, and return the modules in use (``np``, ``contr``)."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            reason = "inside a function '^' is Python's exclusive or, not a power as in R"
            raise formula_error(repr(expression), reason, f"write ** for a power: {expression.replace('^', '**')}")
        if not isinstance(node, SYNTAX):
            reason = f"Python code of this kind ({type(node).__name__}) cannot stand in a formula"
            remedy = f"use arithmetic, comparisons and functions of columns, or {BEFOREHAND}"
            raise formula_error(repr(expression), reason, remedy)
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
    remedy = f"use center(x), scale(x) or poly(x, 2), which remember what they saw, or {BEFOREHAND}"
    raise formula_error(repr(expression), reason, remedy)


def check_function(name: str, expression: str, columns: Collection[str]) -> None:
    """Refuse a function that the formula language does not have."""
    from formulaic.transforms import TRANSFORMS

    known = (frozenset(TRANSFORMS) | BUILTINS | CURVES) - {"np", "contr", "lag", "Q"}
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


def syntax_tree(expression: str) -> tuple[ast.Expression, dict[str, str]]:
    """Parse a factor expression; column names in backticks are replaced by identifiers (returned with their names)."""
    names: dict[str, str] = {}

    def replace_name(match: re.Match[str]) -> str:
        identifier = f"_column_{len(names)}_"
        names[identifier] = match.group(1)
        return identifier

    return ast.parse(re.sub(r"`([^`]+)`", replace_name, expression), mode="eval"), names
