"""Reading formulas: lme4's random-effects terms are split off, the rest is formulaic's Wilkinson grammar.

``y ~ x * z + offset(w) + (1 + x | g)`` becomes a response, an ordered list of fixed terms (each a tuple of
factor expressions, the empty tuple being the intercept), offsets, and one `RandomTerm` per parenthesis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hierlmm.errors import FormulaError, closest

__all__ = [
    "INTERCEPT",
    "ParsedFormula",
    "RandomTerm",
    "Term",
    "factor_name",
    "join_terms",
    "parse_formula",
    "parse_rhs",
    "term_factors",
    "term_name",
    "variables_of",
]

INTERCEPT = "Intercept"
SEE = "docs, page 'Formulas and levels'"

type Term = tuple[str, ...]
"""Factor expressions in formula order; ``()`` is the intercept."""


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One ``(terms | subject)`` of a formula; ``correlated`` is False for ``||``."""

    terms: tuple[Term, ...]
    subject: str
    correlated: bool


@dataclass(frozen=True, slots=True)
class ParsedFormula:
    """A mixed-model formula, taken apart."""

    response: str
    fixed: tuple[Term, ...]
    offsets: tuple[str, ...]
    random: tuple[RandomTerm, ...]


def term_name(term: Term) -> str:
    """Name of a term as formulaic writes it: ``Intercept``, ``time``, ``sex:time``."""
    return ":".join(term) if term else INTERCEPT


def parse_formula(formula: str) -> ParsedFormula:
    """Take a formula apart.

    Parameters
    ----------
    formula : str
        ``"response ~ fixed terms + (random terms | subject)"``; random terms may be absent.

    Raises
    ------
    FormulaError
        If the formula has no response, unbalanced parentheses, or a grouping that is not one column.
    """
    if not isinstance(formula, str):
        raise FormulaError(
            f"a formula of type {type(formula).__name__}", "a formula is text", "write 'y ~ x + (1 | subject)'", SEE
        )
    response, rhs = _split_response(formula)
    rest, random = _extract_random(rhs, formula)
    rest, offsets = _extract_offsets(rest)
    return ParsedFormula(response, parse_rhs(rest, formula), offsets, random)


def parse_rhs(rhs: str, formula: str | None = None) -> tuple[Term, ...]:
    """Expand the right-hand side of a formula (``sex * time``) into terms ordered by degree.

    An intercept is included unless removed by ``0 +`` or ``- 1``.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError
    from formulaic.formula import SimpleFormula

    try:
        parsed = Formula(rhs.strip() or "1")
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise FormulaError(
            repr(formula or rhs), f"the formula cannot be read: {str(error).splitlines()[0]}", "check its spelling", SEE
        ) from error
    if not isinstance(parsed, SimpleFormula):
        raise FormulaError(
            repr(formula or rhs),
            "a '~' or a '|' stands where only terms can stand",
            "put random effects in parentheses, as in '(1 + time | subject)'",
            SEE,
        )
    return tuple(term_factors(term) for term in parsed)


def term_factors(term: Any) -> Term:
    """Factor expressions of a formulaic term, the literal 1 left out and odd column names in backticks."""
    names = (factor_name(f) for f in term.factors)
    return tuple(name for name in names if name != "1")


def factor_name(factor: Any) -> str:
    """Spelling of a formulaic factor that can stand in a formula again."""
    name = str(factor.expr)
    method = getattr(factor, "factor", factor).eval_method  # an evaluated factor wraps the parsed one
    if method.value == "lookup" and not name.isidentifier() and name != "1":
        return f"`{name}`"
    if method.value == "python" and not _is_call(name):
        return f"{{{name}}}"
    return name


def _is_call(expression: str) -> bool:
    try:
        return isinstance(ast.parse(expression, mode="eval").body, ast.Call)
    except SyntaxError:  # quoted column names inside a call
        return "(" in expression and expression.endswith(")")


def variables_of(expression: str, columns: Collection[str]) -> tuple[str, ...]:
    """Columns that a factor expression uses.

    Raises
    ------
    FormulaError
        If the expression names something that is neither a column nor a known function.
    """
    if expression in columns:
        return (expression,)
    if expression.strip("`") in columns:
        return (expression.strip("`"),)
    if expression.startswith("{") and expression.endswith("}"):
        expression = expression[1:-1]
    quoted = re.findall(r"`([^`]+)`", expression)
    try:
        tree = ast.parse(re.sub(r"`[^`]+`", "0", expression), mode="eval")
    except SyntaxError as error:
        raise FormulaError(
            repr(expression), "this is neither a column nor an expression", f"use the columns {sorted(columns)}", SEE
        ) from error
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    known = _known_functions()
    for name in names:
        if name in columns or name in known:
            continue
        kind = "function" if name in called else "column"
        raise FormulaError(
            repr(expression),
            f"there is no {kind} named {name!r}.{closest(name, known if kind == 'function' else columns)}",
            "use a function of the list in the documentation"
            if kind == "function"
            else "use one of the columns: " + ", ".join(sorted(map(str, columns))),
            SEE,
        )
    found = [n for n in [*quoted, *names] if n in columns and n not in called]
    return tuple(dict.fromkeys(found))


def _known_functions() -> frozenset[str]:
    from formulaic.transforms import TRANSFORMS

    return frozenset(TRANSFORMS) | {"np", "True", "False", "None", "abs", "min", "max", "float", "int"}


def _split_response(formula: str) -> tuple[str, str]:
    left, tilde, right = formula.partition("~")
    if not tilde or not left.strip() or not right.strip():
        raise FormulaError(
            repr(formula),
            "a formula needs a response, a '~' and terms",
            "write it as 'response ~ terms', for example 'distance ~ time'",
            SEE,
        )
    return left.strip(), right.strip()


def _extract_random(rhs: str, formula: str) -> tuple[str, tuple[RandomTerm, ...]]:
    """Cut every top-level parenthesis that holds a top-level '|' out of the right-hand side."""
    pieces: list[str] = []
    random: list[RandomTerm] = []
    for sign, piece in _split_top_level(rhs, formula):
        inner = _random_content(piece, formula)
        if inner is None:
            pieces.append(f"{sign} {piece}")
        elif sign == "-":
            raise FormulaError(
                repr(formula), "a random-effects term is subtracted", "leave the term out, or add it with '+'", SEE
            )
        else:
            random.append(_parse_random(inner, formula))
    return " ".join(pieces).removeprefix("+").strip(), tuple(random)


def _split_top_level(text: str, formula: str) -> list[tuple[str, str]]:
    """Split ``a + b - (c | d)`` at the plus and minus signs outside parentheses, brackets and quotes."""
    parts: list[tuple[str, str]] = []
    depth, start, sign = 0, 0, "+"
    quote = ""
    for position, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "`'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                break
        elif char in "+-" and depth == 0:
            if text[start:position].strip():
                parts.append((sign, text[start:position].strip()))
            start, sign = position + 1, char
    if depth != 0 or quote:
        raise FormulaError(repr(formula), "its parentheses or quotes do not match", "close what is open", SEE)
    if text[start:].strip():
        parts.append((sign, text[start:].strip()))
    return parts


def _random_content(piece: str, formula: str) -> str | None:
    if "|" not in piece:
        return None
    if not (piece.startswith("(") and piece.endswith(")")):
        raise FormulaError(
            repr(formula),
            f"the random effects {piece!r} are not in parentheses of their own",
            "write '... + (1 + time | subject)'",
            SEE,
        )
    return piece[1:-1]


def _parse_random(inner: str, formula: str) -> RandomTerm:
    left, bar, subject = inner.partition("||") if "||" in inner else inner.partition("|")
    subject = subject.strip().strip("`")
    if not subject or "|" in subject or not left.strip():
        raise FormulaError(
            repr(formula), f"the random-effects term '({inner})' is incomplete", "write '(1 + time | subject)'", SEE
        )
    if re.search(r"[/:+*]", subject):
        raise FormulaError(
            f"({inner})",
            f"the grouping {subject!r} is not one column: nested or crossed groups make more than two levels",
            "group by one column (data['unit'] = data['a'].astype(str) + ':' + data['b'].astype(str) makes one), "
            "or fit crossed and nested factors with lme4 or Bambi",
            "docs, page 'Limitations'",
        )
    terms = parse_rhs(left, formula)
    if not terms:
        raise FormulaError(
            f"({inner})", "it contains no random effect", "write '(1 | subject)' for a random intercept", SEE
        )
    return RandomTerm(terms, subject, correlated=bar == "|")


def _extract_offsets(rhs: str) -> tuple[str, tuple[str, ...]]:
    pieces: list[str] = []
    offsets: list[str] = []
    for sign, piece in _split_top_level(rhs, rhs):
        match = re.fullmatch(r"offset\((.*)\)", piece, flags=re.DOTALL)
        if match and sign == "+":
            offsets.append(match.group(1).strip())
        else:
            pieces.append(f"{sign} {piece}")
    return " ".join(pieces).removeprefix("+").strip(), tuple(offsets)


def join_terms(terms: Sequence[Term]) -> str:
    """Write terms as the right-hand side of a formula that has exactly these terms: ``1 + sex + sex:time``."""
    names = ["1" if not term else term_name(term) for term in terms]
    return " + ".join(names if () in terms else ["0", *names])
