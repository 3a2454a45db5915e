"""Linear hypotheses in text: ``"sex[T.Male]:time = 0"``, ``"2*a - b = 0.5"``, ``"a > 0, b > 0"``.

A hypothesis is two or more linear expressions of coefficient names joined by ``=``, ``<`` or ``>``; several are
separated by commas or given as a list. Names hold brackets, colons, spaces and commas, so the text is read by the
longest coefficient name that fits, and only then as numbers and signs. The factors of an interaction may stand in any
order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula_limits import check_text
from hierlmm.errors import SpecificationError, closest
from hierlmm.frames import shorten

NUMBER = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?")
SIGNS = {"<=": "<", ">=": ">", "==": "=", "≤": "<", "≥": ">", "−": "-", "·": "*"}
MAX_PERMUTED = 4
SEE = "docs, page 'Contrasts', section 'Hypotheses'"


class Token(NamedTuple):
    """A piece of a hypothesis: kind "name", "number" or "sign", and where it stands."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Hypothesis:
    """``weights'β (sign) value``; the sign is "=", "<" or ">"."""

    text: str
    weights: FloatArray
    sign: str
    value: float


def coefficient_names(design: Design) -> dict[str, int]:
    """Every spelling of every coefficient: factors in any order, column names in backticks or not."""
    names = {name: i for i, name in enumerate(design.coef)}
    odd = [str(c) for c in design.frame.columns if not str(c).isidentifier()]
    for i, column in enumerate(design.fixed_columns):
        parts = [part for _, part in column.parts]
        if 1 < len(parts) <= MAX_PERMUTED:
            for order in itertools.permutations(parts):
                names.setdefault(":".join(order), i)
    for spelled, i in list(names.items()):
        names.setdefault(_in_backticks(spelled, odd), i)
    return names


def _in_backticks(name: str, odd: Sequence[str]) -> str:
    """A name of a coefficient with the columns that start one of its parts as a formula spells them."""
    for column in sorted(odd, key=len, reverse=True):
        name = re.sub(rf"(?<![^:])({re.escape(column)})(?=[:\[]|$)", r"`\1`", name)
    return name


def parse_hypotheses(hypotheses: str | Sequence[str], design: Design) -> list[Hypothesis]:
    """Read hypotheses on the coefficients of a design.

    Raises
    ------
    SpecificationError
        If a name is unknown, the text is no hypothesis, or it is not linear.
    """
    names = coefficient_names(design)
    texts = [hypotheses] if isinstance(hypotheses, str) else list(hypotheses)
    found: list[Hypothesis] = []
    for text in texts:
        if not isinstance(text, str):
            received = f"a hypothesis of type {type(text).__name__}"
            raise SpecificationError(received, "a hypothesis is text", "write 'time = 0'", SEE)
        check_text(text)
        for tokens in _split(_tokens(text, names)):
            found += _Reader(text, tokens, names, len(design.coef)).read()
    if not found:
        raise SpecificationError("no hypothesis", "there is nothing to test", "write for example 'time = 0'", SEE)
    return found


def _tokens(text: str, names: dict[str, int]) -> list[Token]:
    longest_first = sorted(names, key=len, reverse=True)
    tokens, i = [], 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        name = next((n for n in longest_first if text.startswith(n, i) and _ends(text, i, n)), None)
        if name is not None:
            tokens.append(Token("name", name, i))
            i += len(name)
        elif text[i : i + 2] in SIGNS:
            tokens.append(Token("sign", SIGNS[text[i : i + 2]], i))
            i += 2
        elif text[i] in "+-*/()=<>,≤≥−·":
            tokens.append(Token("sign", SIGNS.get(text[i], text[i]), i))
            i += 1
        elif (number := NUMBER.match(text, i)) and not _continues(text, number.end()):
            tokens.append(Token("number", number.group(), i))
            i = number.end()
        else:
            _refuse_name(text, i, names)
    return tokens


def _continues(text: str, end: int) -> bool:
    return end < len(text) and (text[end].isalnum() or text[end] in "_.[:")


def _ends(text: str, start: int, name: str) -> bool:
    """Whether a name ends where it stands, so that ``time`` is not read in ``time2`` or ``time:sex``."""
    before = text[start - 1] if start else " "
    return not _continues(text, start + len(name)) and not (before.isalnum() or before in "_.]:")


def _refuse_name(text: str, start: int, names: dict[str, int]) -> None:
    word = re.match(r"[^\s+\-*/=<>,]+", text[start:])
    unknown = word.group() if word else text[start]
    spellings = list(names)
    coefs = [n for k, n in enumerate(spellings) if names[n] not in [names[m] for m in spellings[:k]]]
    received = f"{unknown!r} in the hypothesis {text!r}"
    reason = f"it is no coefficient of this model.{closest(unknown, spellings)}"
    raise SpecificationError(received, reason, f"use the names in fit.beta.index: {shorten(map(repr, coefs))}", SEE)


def _split(tokens: list[Token]) -> list[list[Token]]:
    """The hypotheses between commas."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.text == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


class _Reader:
    """Recursive descent over the tokens of one hypothesis; an expression is its weights (p) and then its constant."""

    def __init__(self, text: str, tokens: list[Token], names: dict[str, int], p: int) -> None:
        self.text, self.tokens, self.names, self.p = text, tokens, names, p
        self.position = 0

    def read(self) -> list[Hypothesis]:
        """One hypothesis for each comparison sign."""
        sides, signs = [self._sum()], []
        while self._peek() in ("=", "<", ">"):
            signs.append(self._take().text)
            sides.append(self._sum())
        if self.position < len(self.tokens):
            self._fail(f"{self.tokens[self.position].text!r} cannot stand there")
        if not signs:
            self._fail("it compares nothing")
        first, last = self.tokens[0], self.tokens[-1]
        whole = " ".join(self.text[first.at : last.at + len(last.text)].split())
        made = []
        for left, sign, right in zip(sides, signs, sides[1:], strict=False):
            weights = left[:-1] - right[:-1]
            if not np.any(np.abs(weights) > 1e-14):
                self._fail("no coefficient is left in it")
            text = f"{self._words(left)} {sign} {self._words(right)}" if len(signs) > 1 else whole
            made.append(Hypothesis(text, weights, sign, float(right[-1] - left[-1])))
        return made

    def _words(self, side: FloatArray) -> str:
        coef, constant = list(self.names), side[-1]
        parts = [f"{w:g}*{coef[i]}" if w != 1.0 else coef[i] for i, w in enumerate(side[:-1]) if w != 0.0]
        return " + ".join(parts + ([f"{constant:g}"] if constant != 0.0 or not parts else []))

    def _fail(self, reason: str) -> None:
        received = f"the hypothesis {self.text!r}"
        both = "write linear expressions of coefficients on both sides of '=', '<' or '>'"
        raise SpecificationError(received, reason, f"{both}, as in 'a = 0', '2*a - b = 0.5'", SEE)

    def _peek(self) -> str:
        if self.position >= len(self.tokens):
            return ""
        token = self.tokens[self.position]
        return token.text if token.kind == "sign" else token.kind

    def _take(self) -> Token:
        if self.position >= len(self.tokens):
            self._fail("it ends too early")
        self.position += 1
        return self.tokens[self.position - 1]

    def _sign(self) -> float:
        return 1.0 if self._take().text == "+" else -1.0

    def _sum(self) -> FloatArray:
        total = self._product()
        while self._peek() in ("+", "-"):
            total = total + self._sign() * self._product()
        return total

    def _product(self) -> FloatArray:
        total = self._signed()
        while self._peek() in ("*", "/"):
            sign, other = self._take().text, self._signed()
            if np.any(other[:-1]):
                if sign == "/" or np.any(total[:-1]):
                    self._fail("it is not linear: coefficients are multiplied or divided by each other")
                total, other = other, total
            if sign == "/" and other[-1] == 0.0:
                self._fail("it divides by zero")
            total = (1.0 / other[-1] if sign == "/" else other[-1]) * total
        return total

    def _signed(self) -> FloatArray:
        factor = 1.0
        while self._peek() in ("+", "-"):
            factor *= self._sign()
        token, value = self._take(), np.zeros(self.p + 1)
        if token.kind == "number":
            value[-1] = float(token.text)
        elif token.kind == "name":
            value[self.names[token.text]] = 1.0
        elif token.text == "(":
            value = self._sum()
            if self._peek() != ")":
                self._fail("a parenthesis is not closed")
            self._take()
        else:
            self._fail(f"{token.text!r} cannot stand there")
        return factor * value
