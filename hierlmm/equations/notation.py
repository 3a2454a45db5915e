"""Mathematics written three times over: as Unicode text, as LaTeX and as HTML.

`Markup` is one piece in the three notations and adds up like a string, so that whoever builds an equation builds it
once. `Equation` is a left side and the pieces of a right side, between which a long line may break.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 92
SUBSCRIPTS = str.maketrans("0123456789ijk", "₀₁₂₃₄₅₆₇₈₉ᵢⱼₖ")
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
GREEK = {"β": r"\beta", "σ": r"\sigma", "ρ": r"\rho", "φ": r"\phi", "Σ": r"\Sigma"}
GREEK |= {"μ": r"\mu", "η": r"\eta", "τ": r"\tau"}
# The escapes hold inside \mathrm; \text would need none of them in MathJax and all of them in KaTeX.
LATEX_ESCAPES = {c: f"\\{c}" for c in "_%#&${} "}
LATEX_ESCAPES |= {"\\": r"\backslash{}", "~": r"\sim{}", "^": r"\wedge{}", '"': "''"}


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of mathematics in three notations; ``+`` puts pieces (or plain strings) together."""

    text: str
    latex: str
    html: str

    def __add__(self, other: Markup | str) -> Markup:
        right = _plain(other)
        return Markup(self.text + right.text, self.latex + right.latex, self.html + right.html)

    def __radd__(self, other: str) -> Markup:
        return _plain(other) + self

    def stripped(self) -> Markup:
        """Return the piece without blanks at its ends."""
        return Markup(self.text.strip(), self.latex.strip(), self.html.strip())

    def __str__(self) -> str:
        return self.text


def _plain(value: Markup | str) -> Markup:
    return value if isinstance(value, Markup) else Markup(value, value, html.escape(value, quote=False))


EQUALS = Markup("=", "=", "=")
SIMILAR = Markup("~", r"\sim", "~")
DOT = Markup("·", r"\,", "·")
MINUS = Markup("−", "-", "−")
LESS = Markup(" − ", " - ", " − ")
BLANK = Markup(" ", r"\,", " ")
TRANSPOSED = Markup("ᵀ", r"^{\top}", "<sup>T</sup>")
SHOWN_MATRIX = 4
"""Rows of the largest matrix that is written out."""


def symbol(letter: str, subscript: str = "", *, power: int | None = None) -> Markup:
    """Return a letter with a subscript of digits, commas and i, j, k, or letters; perhaps raised to a power."""
    latex, hypertext, text = GREEK.get(letter, letter), letter, letter
    if re.search("[^0-9ijk,]", subscript):  # there is no Unicode subscript b
        text += (_superscript(power) if power else "") + "_" + subscript
    else:
        text += subscript.translate(SUBSCRIPTS) + (_superscript(power) if power else "")
    if subscript:
        latex, hypertext = f"{latex}_{{{subscript}}}", f"{hypertext}<sub>{subscript}</sub>"
    if power:
        latex, hypertext = f"{latex}^{{{power}}}", f"{hypertext}<sup>{power}</sup>"
    return Markup(text, latex, hypertext)


def name_symbol(name: str, subscript: str = "", *, power: int | None = None) -> Markup:
    """Return a name from the data as an upright symbol, in parentheses where a subscript would not cover all of it."""
    plain = name.replace("`", "")
    if _is_compound(plain):
        plain = f"({plain})"
    return code(plain) + symbol("", subscript, power=power)


def _is_compound(name: str) -> bool:
    """Whether a blank or an operator stands outside all brackets."""
    depth = 0
    for char in name:
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in " +-*/%:^~<>=":
            return True
    return False


def code(name: str) -> Markup:
    """Return a name from the data as it is, without backticks, escaped where the notation needs it."""
    plain = name.replace("`", "")
    latex = "".join(LATEX_ESCAPES.get(c, c) for c in plain)
    return Markup(plain, rf"\mathrm{{{latex}}}", html.escape(plain, quote=False))


def latex_text(text: str) -> str:
    """Return words for the text mode of LaTeX."""
    return "".join(c if c == " " else LATEX_ESCAPES.get(c, c) for c in text)


def words(text: str) -> Markup:
    """Return words inside an equation: upright in LaTeX, with their blanks."""
    return Markup(text, rf"\text{{{text}}}", html.escape(text, quote=False))


def _superscript(power: int) -> str:
    return str(power).translate(SUPERSCRIPTS)


def rounded(value: float) -> str:
    """Write a size with two decimals, and at least two significant digits."""
    size = abs(value)
    if not math.isfinite(size):
        return "undefined"
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{size:.0f}"
    return f"{size:.2f}" if size >= 0.1 else f"{size:.{1 - math.floor(math.log10(size))}f}"


def integer(value: int) -> Markup:
    """Return an exact whole number."""
    return _plain(str(value))


def number(value: float) -> Markup:
    """Return the size of a number (its sign belongs to the sum it stands in)."""
    size = abs(value)
    if math.isfinite(size) and size and not 1e-4 <= size < 1e6:
        mantissa, exponent = f"{size:.1e}".split("e")
        power = int(exponent)
        return Markup(
            f"{mantissa}·10{_superscript(power)}",
            rf"{mantissa} \cdot 10^{{{power}}}",
            f"{mantissa}·10<sup>{str(power).replace('-', '−')}</sup>",
        )
    written = rounded(value)
    return Markup(written, rf"\mathrm{{{written}}}" if written == "undefined" else written, written)


def signed(value: float, written: Markup) -> Markup:
    """Put a minus sign before a written size if the value is negative."""
    return MINUS + written if value < 0 and written.text.strip("0.") else written


def two_decimals(value: float) -> Markup:
    """Return a correlation with its sign."""
    return signed(value, _plain(f"{abs(value):.2f}") if math.isfinite(value) else number(value))


def times(*factors: Markup | None) -> Markup:
    """Multiply; None is a factor of 1, which is not written."""
    present = [f for f in factors if f is not None]
    return join(present, DOT) if present else integer(1)


def parenthesise(inner: Markup) -> Markup:
    """Put parentheses around a piece."""
    return "(" + inner + ")"


def function(name: str, *arguments: Markup) -> Markup:
    """Return ``Var(y)`` and the like."""
    return Markup(name, rf"\mathrm{{{name}}}", name) + parenthesise(join(arguments, ", "))


def normal(variance: Markup) -> Markup:
    """Return a normal distribution around zero."""
    return "N(0, " + variance + ")"


def raised(base: Markup, exponent: Markup | str) -> Markup:
    """Return a power whose exponent is an expression: ``ρ^|j − k|``."""
    exponent = _plain(exponent)
    text = exponent.text
    bare = text.replace(".", "", 1).isdigit() or text.isidentifier() or text[:1] == text[-1:] == "|"
    power = _superscript(int(text)) if text.isdigit() else f"^{text}" if bare else f"^({text})"
    return Markup(f"{base.text}{power}", f"{base.latex}^{{{exponent.latex}}}", f"{base.html}<sup>{exponent.html}</sup>")


def fraction(above: Markup, below: Markup) -> Markup:
    """Return a quotient."""
    line = above + " / (" + below + ")"
    return Markup(line.text, rf"\frac{{{above.latex}}}{{{below.latex}}}", line.html)


def half(piece: Markup) -> Markup:
    """Return one half of a piece."""
    return Markup(f"{piece.text} / 2", rf"\frac{{1}}{{2}} {piece.latex}", f"{piece.html} / 2")


def join(pieces: Iterable[Markup], separator: Markup | str) -> Markup:
    """Join pieces with a separator."""
    result, between = Markup("", "", ""), Markup("", "", "")
    for piece in pieces:
        result, between = result + between + piece, _plain(separator)
    return result


def enumerate_words(pieces: Sequence[Markup | str], limit: int = 6) -> Markup:
    """Return ``a, b and c``, cutting long lists in the middle."""
    items = [_plain(p) for p in pieces]
    if len(items) > limit:
        items = [*items[: limit - 2], _plain("…"), items[-1]]
    if len(items) < 2:
        return join(items, "")
    return join(items[:-1], ", ") + words(" and ") + items[-1]


def matrix(rows: Sequence[Sequence[Markup]]) -> Markup:
    """Return a square matrix: brackets over several lines in text, ``pmatrix`` in LaTeX, a small table in HTML."""
    widths = [max(len(row[c].text) for row in rows) for c in range(len(rows[0]))]
    lines = ["   ".join(cell.text.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    last = len(rows) - 1
    edges = ["⎡⎤" if r == 0 else "⎣⎦" if r == last else "⎢⎥" for r in range(len(rows))]
    text = "\n".join(f"{e[0]} {line} {e[1]}" for e, line in zip(edges, lines, strict=True))
    latex = r" \\ ".join(" & ".join(cell.latex for cell in row) for row in rows)
    cells = ["".join(f'<td style="text-align:left">{cell.html}</td>' for cell in row) for row in rows]
    table = "".join(f'<tr style="background:none">{row}</tr>' for row in cells)
    style = (
        "display:inline-table;vertical-align:middle;border-style:solid;border-color:currentColor;"
        "border-width:0 1px;border-radius:6px;margin:2px 0"
    )
    return Markup(text, rf"\begin{{pmatrix}} {latex} \end{{pmatrix}}", f'<table style="{style}">{table}</table>')


@dataclass(frozen=True, slots=True)
class Addend:
    """One addend of a sum: its sign, and its pieces, between which a line may break if it must."""

    pieces: tuple[Markup, ...]
    negative: bool = False

    @classmethod
    def of(cls, body: Markup, *, negative: bool = False) -> Addend:
        """Return an addend in one piece."""
        return cls((body,), negative)


def add_up(addends: Sequence[Addend]) -> tuple[tuple[Markup, ...], ...]:
    """Put the signs between the addends; every group of pieces begins with its sign."""
    groups: list[tuple[Markup, ...]] = []
    for position, addend in enumerate(addends):
        sign = MINUS if addend.negative else Markup("", "", "")
        if position:
            sign = " " + (MINUS if addend.negative else _plain("+")) + " "
        groups.append((sign + addend.pieces[0], *addend.pieces[1:]))
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Equation:
    """One line of mathematics.

    Attributes
    ----------
    left, relation : Markup
        What stands before ``=`` or ``~``, and the sign itself.
    groups : tuple of tuple of Markup
        The right side. Lines break between groups, and inside a group only if it is longer than a line.
    """

    left: Markup
    relation: Markup
    groups: tuple[tuple[Markup, ...], ...]

    @property
    def right(self) -> Markup:
        """The right side in one piece."""
        return join([piece for group in self.groups for piece in group], "")

    @property
    def text(self) -> str:
        """Unicode text, unbroken (a matrix takes several lines)."""
        return self.wrapped(10**6)

    @property
    def latex(self) -> str:
        """LaTeX for one line, without alignment or delimiters."""
        return f"{self.left.latex} {self.relation.latex} {self.right.latex}"

    @property
    def html(self) -> str:
        """HTML with ``<sub>`` and ``<sup>``, names escaped."""
        return f"{self.left.html} {self.relation.html} {self.right.html}"

    def __str__(self) -> str:
        return self.text

    def wrapped(self, width: int = WIDTH) -> str:
        """Text in lines of at most ``width`` characters, as far as the pieces allow, aligned after the sign."""
        head = f"{self.left.text} {self.relation.text} "
        lines = "\n".join(join(line, "").stripped().text for line in self._lines(width - len(head)))
        lines = re.sub(r"\n, (where|with|sd) ", r",\n\1 ", lines)  # the comma before a clause ends a line
        return head + lines.replace("\n", "\n" + " " * len(head))

    def aligned(self, width: int = WIDTH) -> str:
        """LaTeX for a row (or several) of an ``aligned`` block."""
        lines = [join(line, "").stripped().latex for line in self._lines(width - len(self.left.text) - 3)]
        return f"{self.left.latex} &{self.relation.latex} " + " \\\\\n&\\quad ".join(lines)

    def _lines(self, width: int) -> list[list[Markup]]:
        lines: list[list[Markup]] = [[]]
        used = 0
        for group in self.groups:
            whole = "\n" in group[0].text or sum(len(piece.text) for piece in group) <= width
            for unit in [group] if whole else [(piece,) for piece in group]:
                size = sum(len(piece.text) for piece in unit)
                if lines[-1] and used + size > width and "\n" not in unit[0].text:
                    lines.append([])
                    used = 0
                lines[-1].extend(unit)
                used += size
        return lines
