"""Reading formulas: lme4's random-effects terms are split off, the rest is formulaic's Wilkinson grammar.

``y ~ x * z + offset(w) + (1 + x | g)`` becomes a response, an ordered list of fixed terms (each a tuple of
factor expressions, the empty tuple being the intercept), offsets, and one `Bar` per parenthesis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from hierlmm.design.brackets import BLANK, holds_bar, outline, split_top_level
from hierlmm.design.formula_limits import (
    CONTRASTS,
    SEE,
    check_constants,
    check_expansion,
    check_function,
    check_idioms,
    check_syntax,
    check_text,
    formula_error,
    syntax_tree,
)
from hierlmm.errors import FormulaError, closest

INTERCEPT = "Intercept"
MULTILEVEL = "docs, page 'More than two levels'"

type Term = tuple[str, ...]
"""Factor expressions in formula order; ``()`` is the intercept."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One ``(terms | subject)`` of a formula; ``correlated`` is False for ``||``.

    ``group`` is the factor of ``(terms | gr(subject, by = group))``, which brms has for a D of its own in each level.
    ``combined`` are the columns of ``(terms | a:b)``, where groups are the combinations of their values.
    """

    terms: tuple[Term, ...]
    subject: str
    correlated: bool
    group: str | None = None
    combined: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that say which group a row is in."""
        return self.combined or (self.subject,)


@dataclass(frozen=True, slots=True)
class ParsedFormula:
    """A mixed-model formula, taken apart."""

    response: str
    fixed: tuple[Term, ...]
    offsets: tuple[str, ...]
    random: tuple[Bar, ...]

    @property
    def group(self) -> str | None:
        """The factor with a D of its own in each level, or None.

        Raises
        ------
        FormulaError
            If the random-effects terms name different ones.
        """
        groups = list(dict.fromkeys(bar.group for bar in self.random))
        if len(groups) > 1:
            received = f"random effects by {' and by '.join('no group' if g is None else repr(g) for g in groups)}"
            remedy = "write the same gr(subject, by = group) in every parenthesis"
            raise formula_error(received, "all random effects of a subject have one factor by which D differs", remedy)
        return groups[0] if groups else None


def term_name(term: Term) -> str:
    """Name of a term as formulaic writes it: ``Intercept``, ``time``, ``sex:time``."""
    return ":".join(term) if term else INTERCEPT


def parse_formula(formula: str, *, several: bool = False) -> ParsedFormula:
    """Take a formula apart.

    Parameters
    ----------
    formula : str
        ``"response ~ fixed terms + (random terms | subject)"``; random terms may be absent.
    several : bool
        Whether there may be several grouping factors, and groups that are combinations: ``(1 | a:b)``, and
        ``(1 | a / b)`` for ``(1 | a) + (1 | a:b)``.

    Raises
    ------
    FormulaError
        If the formula has no response, unbalanced parentheses, or a grouping that is not one column.
    """
    if not isinstance(formula, str):
        received = f"a formula of type {type(formula).__name__}"
        raise formula_error(received, "a formula is text", "write 'y ~ x + (1 | subject)'")
    check_text(formula)
    response, rhs = _split_response(formula)
    rest, random, offsets = _take_apart(rhs, formula, several)
    for column in [column for bar in random for column in bar.columns]:
        refuse_response_as_subject(response, column)
    factors = list(dict.fromkeys(bar.subject for bar in random))
    # Terms stand in order of degree everywhere, factors as they were written.
    random = tuple(sorted(random, key=lambda bar: (factors.index(bar.subject), len(bar.terms[0]))))
    return ParsedFormula(response, parse_rhs(rest, formula), offsets, random)


def refuse_response_as_subject(response: str, subject: str) -> None:
    """Refuse a grouping by the response.

    Raises
    ------
    FormulaError
        If the subject column is the response, or stands in its expression.
    """
    used = {unquoted(response)}
    with suppress(SyntaxError):
        tree, names = syntax_tree(response[1:-1] if response.startswith("{") else response)
        used |= {names.get(node.id, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if subject in used:
        received = f"{subject!r} as the response and as the grouping"
        remedy = "name the column that says who was measured, as in 'y ~ time + (1 | subject)'"
        raise formula_error(received, "rows that are grouped by the response do not vary within a group", remedy)


def parse_rhs(rhs: str, formula: str | None = None) -> tuple[Term, ...]:
    """Expand the right-hand side of a formula (``sex * time``) into terms ordered by degree.

    An intercept is included unless removed by ``0 +`` or ``- 1``.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError
    from formulaic.formula import SimpleFormula
    from formulaic.parser import DefaultFormulaParser

    whole = repr(formula or rhs)
    number = re.search(r"`([\d.]+)`", rhs)
    if number:
        reason = f"the column name {number.group(1)!r} is reserved: in a formula it is a number"
        remedy = f"rename the column, for example data.rename(columns={{{number.group(1)!r}: 'x{number.group(1)}'}})"
        raise formula_error(whole, reason, remedy)
    check_text(rhs)
    check_idioms(rhs)
    try:
        check_expansion(rhs, DefaultFormulaParser().get_ast(rhs.strip() or "1", context={}))
        parsed = Formula(rhs.strip() or "1")
    except FormulaError:
        raise
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise FormulaError(whole, *_syntax_advice(str(error).splitlines()[0]), SEE) from error
    if not isinstance(parsed, SimpleFormula):
        reason = "a '~' or a '|' stands where only terms can stand"
        raise formula_error(whole, reason, "put random effects in parentheses, as in '(1 + time | subject)'")
    terms = tuple(term_factors(term) for term in parsed)
    for name in [name for term in terms for name in term if re.fullmatch(r"[\d.]+", name)]:
        reason = f"the number {name} scales a term"
        raise formula_error(whole, reason, f"write I({name} * x), or leave the number out: the coefficient takes it up")
    return terms


def _syntax_advice(problem: str) -> tuple[str, str]:
    """Reason and remedy for what formulaic says about a formula that it cannot parse."""
    if problem.startswith("The `.` operator"):
        return "'.' (all other columns) does not say what the model is", "name the columns: 'y ~ a + b + (1 | subject)'"
    reason = f"the formula cannot be read: {re.sub(chr(27) + r'[^m]*m', '', problem)}"
    remedy = "use columns, the operators + - : * / ** and functions of columns such as log(x) or I(x + z)"
    odd = "; a column whose name is not a plain word goes into backticks: `body weight`"
    return reason, remedy + (odd if "Unknown operator" in problem else "")


def term_factors(term: Any) -> Term:
    """Factor expressions of a formulaic term, the literal 1 left out and odd column names in backticks."""
    names = (factor_name(f) for f in term.factors)
    return tuple(name for name in names if name != "1")


def factor_name(factor: Any) -> str:
    """Spelling of a formulaic factor that can stand in a formula again."""
    name = str(factor.expr)
    method = getattr(factor, "factor", factor).eval_method  # an evaluated factor wraps the parsed one
    if method.value == "lookup":
        return quoted(name)
    if method.value == "python" and not _is_call(name):
        return f"{{{name}}}"
    return name


def quoted(column: str) -> str:
    """Spelling of a column name in a formula: in backticks unless it is an identifier."""
    return column if column.isidentifier() else f"`{column}`"


def unquoted(expression: str) -> str:
    """The factor expression as formulaic names its columns: without backticks or braces around the whole."""
    if re.fullmatch(r"`[^`]+`", expression) or re.fullmatch(r"\{.*\}", expression, flags=re.DOTALL):
        return expression[1:-1]
    return expression


def _is_call(expression: str) -> bool:
    try:
        return isinstance(syntax_tree(expression)[0].body, ast.Call)
    except SyntaxError:
        return False


def variables_of(expression: str, columns: Collection[str]) -> tuple[str, ...]:
    """Columns that a factor expression uses, after checking that it can do nothing but compute on them.

    Arithmetic, comparisons, the functions of the formula language and elementwise numpy functions may stand in an
    expression. Nothing else may, so that evaluating it is safe, and gives a row the same value in any table.

    Raises
    ------
    FormulaError
        If the expression names something that is neither a column nor a known function, or holds other Python code.
    """
    for name in (expression, unquoted(expression)):
        if name in columns:
            return (name,)
    try:
        tree, names = syntax_tree(expression[1:-1] if expression.startswith("{") else expression)
    except SyntaxError as error:
        remedy = f"use the columns {', '.join(sorted(map(str, columns)))}; put a name with blanks or signs in backticks"
        raise formula_error(repr(expression), "this is neither a column nor an expression", remedy) from error
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    modules = check_syntax(tree, expression)
    check_constants(tree, expression, modules | called | CONTRASTS)
    found: list[str] = []
    for node in sorted((n for n in ast.walk(tree) if isinstance(n, ast.Name)), key=lambda n: (n.lineno, n.col_offset)):
        if node.id in modules:
            continue
        name = names.get(node.id, node.id)
        if node.id in called:
            check_function(name, expression, columns)
        elif name in columns:
            found.append(name)
        elif name not in CONTRASTS:
            remedy = "use one of the columns: " + ", ".join(sorted(map(str, columns)))
            raise formula_error(repr(expression), f"there is no column named {name!r}.{closest(name, columns)}", remedy)
    return tuple(dict.fromkeys(found))


def categorical_arguments(expression: str) -> tuple[str, ...]:
    """Columns whose values are labels in the expression: ``g`` in ``C(g)``."""
    if "(" not in expression:
        return ()
    tree, names = syntax_tree(expression[1:-1] if expression.startswith("{") else expression)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [c.args[0] for c in calls if c.args and isinstance(c.func, ast.Name) and c.func.id in ("C", "hashed")]
    return tuple(names.get(arg.id, arg.id) for arg in found if isinstance(arg, ast.Name))


def is_truth_value(expression: str) -> bool:
    """Whether the expression is a comparison, as ``I(x > 24)`` and ``np.greater(x, 24)`` are."""
    try:
        node: ast.expr = syntax_tree(expression[1:-1] if expression.startswith("{") else expression)[0].body
    except SyntaxError:
        return False
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "I" and node.args:
        node = node.args[0]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        function = getattr(np, node.func.attr, None)
        return function is np.isin or any(kind.endswith("d->?") for kind in getattr(function, "types", ()))
    return isinstance(node, ast.Compare)


def _split_response(formula: str) -> tuple[str, str]:
    tilde = outline(formula, formula).find("~")
    left, right = formula[:tilde].strip(), formula[tilde + 1 :].strip()
    if tilde < 0 or not left or not right:
        reason = "a formula needs a response, a '~' and terms"
        raise formula_error(repr(formula), reason, "write it as 'response ~ terms', for example 'distance ~ time'")
    return _parse_response(left, formula), right


def _parse_response(text: str, formula: str) -> str:
    """One column or expression: ``y``, ``log(y)``, ``I(a + b)``."""
    single = not re.search(r"[-+*/:^|%]", outline(text, formula))
    terms = parse_rhs(f"0 + {text}", formula) if single else ()
    if len(terms) != 1 or len(terms[0]) != 1:
        remedy = f"write arithmetic as 'I({text}) ~ ...', and fit several responses one by one"
        raise formula_error(repr(formula), f"its response {text!r} is not one column or function of columns", remedy)
    return terms[0][0]


def _take_apart(rhs: str, formula: str, several: bool) -> tuple[str, tuple[Bar, ...], tuple[str, ...]]:
    """The fixed terms of a right-hand side, its random terms (parentheses that hold a top-level '|'), its offsets."""
    pieces: list[str] = []
    random: list[Bar] = []
    offsets: list[str] = []
    for sign, piece in split_top_level(rhs, formula):
        inner = _random_content(piece, formula)
        if inner is not None:
            if sign == "-":
                reason = "a random-effects term is subtracted"
                raise formula_error(repr(formula), reason, "leave the term out, or add it with '+'")
            random += _parse_random(inner, formula, several)
        elif re.fullmatch(rf"offset\s*\({BLANK}+\)", outline(piece, formula)):
            inner = piece[piece.index("(") + 1 : -1].strip()
            if sign == "-":
                remedy = f"write '+ offset(-({inner}))'"
                raise formula_error(f"- {piece}", "an offset is added, with coefficient 1", remedy)
            offsets.append(inner)
        else:
            pieces.append(f"{sign} {piece}")
    return " ".join(pieces).removeprefix("+").strip(), tuple(random), tuple(offsets)


def _random_content(piece: str, formula: str) -> str | None:
    """What stands inside ``(1 + x | g)``, or None if the piece is no random-effects term."""
    if re.fullmatch(rf"\({BLANK}*\)", outline(piece, formula)):
        inner = piece[1:-1].strip()
        if "|" in outline(inner, formula):
            return inner
        return _random_content(inner, formula)
    if holds_bar(piece, formula):
        reason = f"the random effects {piece!r} are not in parentheses of their own"
        raise formula_error(repr(formula), reason, "write '... + (1 + time | subject)'")
    return None


def _parse_random(inner: str, formula: str, several: bool) -> list[Bar]:
    match = re.fullmatch(r"([^|]*)(\|\|?)([^|]*)", outline(inner, formula))
    left, subject = (inner[: match.end(1)].strip(), inner[match.start(3) :].strip()) if match else ("", "")
    if not match or not subject or not left:
        reason = f"the random-effects term '({inner})' is incomplete"
        raise formula_error(repr(formula), reason, "write '(1 + time | subject)'")
    by = re.fullmatch(r"gr\(([^,]*),\s*by\s*=([^,]*)\)", subject)
    group = unquoted(by.group(2).strip()) if by else None
    subject = by.group(1).strip() if by else subject
    if re.search(r"[+*()^%]" if several else r"[/:+*()^%]", outline(subject, formula)):
        _refuse_grouping(inner, subject, several)
    terms = parse_rhs(left, formula)
    if not terms:
        received = f"({inner})"
        raise formula_error(received, "it contains no random effect", "write '(1 | subject)' for a random intercept")
    correlated, bars = match.group(2) == "|", list[Bar]()
    columns: tuple[str, ...] = ()
    for part in _split(subject, "/", formula) if several else [subject]:  # a/b is a, and a:b
        names = tuple(unquoted(name) for name in _split(part, ":", formula)) if several else (unquoted(part),)
        if not all(names) or len({*columns, *names}) < len(columns) + len(names):
            _refuse_grouping(inner, subject, several)
        columns += names
        bars.append(Bar(terms, ":".join(columns), correlated, group, columns if len(columns) > 1 else ()))
    return bars


def _split(text: str, sign: str, formula: str) -> list[str]:
    """The parts of a text between signs that stand outside brackets and backticks."""
    shape, parts, start = outline(text, formula), list[str](), 0
    for end in [*(k for k, char in enumerate(shape) if char == sign), len(text)]:
        parts.append(text[start:end].strip())
        start = end + 1
    return parts


def _refuse_grouping(inner: str, subject: str, several: bool) -> NoReturn:
    """Refuse a grouping that is no column, or that is several and asks for another front door."""
    if several:
        reason = f"the grouping {subject!r} is not a column, nor columns joined by ':' or '/', each of them once"
        each = "a parenthesis for each factor, (1 | a) + (1 | b)"
        remedy = f"write {each}; (1 | a:b) for combinations of a and b; (1 | a / b) for b nested in a"
        raise FormulaError(f"({inner})", reason, remedy, MULTILEVEL)
    reason = f"the grouping {subject!r} is not one column: nested or crossed groups make more than two levels"
    remedy = "group by one column, or use hl.MultilevelModel.from_formula(formula, data)"
    raise FormulaError(f"({inner})", reason, remedy, MULTILEVEL)


def join_terms(terms: Sequence[Term]) -> str:
    """Write terms as the right-hand side of a formula that has exactly these terms: ``1 + sex + sex:time``."""
    names = ["1" if not term else term_name(term) for term in terms]
    return " + ".join(names if () in terms else ["0", *names])
