"""The shape of a formula: its brackets, quotes and backticks, and what stands outside of them."""

from __future__ import annotations

import re

from hierlmm.errors import FormulaError

BLANK = "\0"
UNMATCHED = "its parentheses or quotes do not match"
SEE = "docs, page 'Formulas and levels'"


def outline(text: str, formula: str) -> str:
    """The text with everything inside brackets, quotes and backticks blanked out, character by character."""
    shape: list[str] = []
    stack: list[str] = []
    quote = ""
    for char in text:
        outside = not stack and not quote
        if quote:
            quote = "" if char == quote else quote
        elif char in "`'\"":
            quote = char
        elif char in "([{":
            stack.append({"(": ")", "[": "]", "{": "}"}[char])
        elif char in ")]}" and (not stack or stack.pop() != char):
            raise FormulaError(repr(formula), UNMATCHED, "close what is open", SEE)
        shape.append(char if outside or not (stack or quote) else BLANK)
    if stack or quote:
        raise FormulaError(repr(formula), UNMATCHED, "close what is open", SEE)
    return "".join(shape)


def split_top_level(text: str, formula: str) -> list[tuple[str, str]]:
    """Split ``a + b - (c | d)`` at the plus and minus signs outside brackets and quotes."""
    parts: list[tuple[str, str]] = []
    start, sign = 0, "+"
    for match in [*re.finditer(r"[+-]", outline(text, formula)), None]:
        end = match.start() if match else len(text)
        if text[start:end].strip():
            parts.append((sign, text[start:end].strip()))
            sign = "+"
        if match:
            start, sign = match.end(), "+" if match.group() == sign else "-"
    return parts


def holds_bar(text: str, formula: str) -> bool:
    """Whether a '|' stands outside quotes and function calls, in parentheses or not."""
    shape = outline(text, formula)
    groups = re.finditer(rf"(?<![\w.])\(({BLANK}*)\)", shape)
    return "|" in shape or any(holds_bar(text[g.start(1) : g.end(1)], formula) for g in groups)
