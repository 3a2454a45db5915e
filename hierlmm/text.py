"""Numbers, tables and paragraphs as text: what every print shares."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray

PROBABILITIES = ("p", "prob_positive", "prob_rope", "prob", "share", "share_lower", "share_upper")
"""Columns that hold probabilities or shares."""
LEAST_DIGITS = 3
SLOT = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
OPTIONAL = re.compile(r"<([^<>]*)>")
NAMED = {*PROBABILITIES, "df", "df1", "df2", "t", "F"}
"""Columns whose numbers are written alike in every table."""
STATISTICS = {"t", "t value", "z", "z value", "p", "df"}
"""Columns that are not in units of the response, and say nothing about the size of their row."""


def show(value: Any) -> str:
    """A value of a covariate as text."""
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


def probability_text(value: float) -> str:
    """Four decimals of a probability or a share, which read as 0 or 1 only if it is."""
    if np.isnan(value):
        return ""
    if 0.0 < value < 1e-4:
        return "<0.0001"
    return ">0.9999" if 0.9999 < value < 1.0 else f"{value:.4f}"


def number(value: float) -> str:
    """A number with four digits: ``21.21``, ``-0.003046``, ``12340``."""
    if value == 0.0:
        return "0"
    text = f"{value:.4g}"
    return f"{value:z.0f}" if "e" in text and 1e4 <= abs(value) < 1e9 else text


def span(low: float, high: float, digits: int = 4) -> str:
    """``19.90 to 22.52``: as many decimals at both ends, so many digits of the larger, no end rounded to zero."""
    sizes = [abs(v) for v in (low, high) if np.isfinite(v) and v != 0.0]
    if len(sizes) < 2 or not (np.isfinite(low) and np.isfinite(high)):
        return f"{number(low)} to {number(high)}"
    most, least = (int(np.floor(np.log10(s))) for s in (max(sizes), min(sizes)))
    places = max(digits - 1 - most, 1 - least, 0)
    if places > 8 or most >= 9:
        return f"{number(low)} to {number(high)}"
    ends = [f"{v:z.{places}f}" for v in (low, high)]
    while "." in ends[0] and all(end[-1] in "0." for end in ends):
        ends = [end[:-1] for end in ends]
    return f"{ends[0]} to {ends[1]}"


def apart(value: float, limit: float) -> str:
    """A number with digits enough to tell it from a limit: ``1.00004`` beside 1, ``-0.99998`` beside -1."""
    for digits in range(4, 16):
        text = number(value) if digits == 4 else f"{value:.{digits}g}"
        if value == limit or float(text) != limit:
            return text
    return number(value)


def count(n: int, noun: str) -> str:
    """A number of things: ``1 row``, ``2 rows``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """Things one after the other: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def singular(unit: str) -> str:
    """A unit of time as it stands after "per": ``year`` of ``years``; others as they are."""
    return unit[:-1] if unit in ("years", "months", "weeks", "days", "hours", "minutes", "seconds") else unit


def percentage(share: float) -> str:
    """A share as ``99.6 %``; near 0 and 1 a bound, as an estimate of exactly all would claim too much."""
    if share > 0.9995:
        return "more than 99.9 %"
    return "less than 0.1 %" if share < 0.0005 else f"{100 * share:z.1f} %"


def probability(p: float) -> str:
    """A probability as ``0.982``; near 0 and 1 a bound."""
    return "more than 0.999" if p > 0.9995 else "less than 0.001" if p < 0.0005 else f"{p:z.3f}"


def p_text(p: float) -> str:
    """A p-value with its sign: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:z.3f}"


def wrap(lines: Iterable[str], width: int = 100, **options: Any) -> list[str]:
    """Break each paragraph into lines of at most ``width`` characters, with the options of `textwrap.wrap`.

    No line begins with a per cent sign.
    """
    joined = (text.replace(" %", "\N{NO-BREAK SPACE}%") for text in lines)
    broken = (line for text in joined for line in textwrap.wrap(text, width, **options))
    return [line.replace("\N{NO-BREAK SPACE}%", " %") for line in broken]


def align(cells: Sequence[Sequence[str]], left: Collection[int] = (), gap: str = "  ") -> list[str]:
    """Lines of a table: columns in ``left`` to the left, the others to the right, no spaces at the ends of lines."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        gap.join(
            v.ljust(w) if i in left else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def table_lines(table: pd.DataFrame, keys: Collection[str]) -> list[str]:
    """Align a table: keys to the left, numbers to the right, with decimals that suit their size."""
    columns = [[show(v) for v in table[c]] if c in keys else _numbers(str(c), table[c]) for c in table.columns]
    cells = [list(map(str, table.columns)), *(list(row) for row in zip(*columns, strict=True))]
    return align(cells, [i for i, c in enumerate(table.columns) if c in keys])


def _numbers(name: str, values: pd.Series) -> list[str]:
    array = values.to_numpy(dtype=np.float64)
    if name in PROBABILITIES:
        return [probability_text(v) for v in array]
    if name in ("df", "df1", "df2"):
        return ["inf" if np.isinf(v) else "" if np.isnan(v) else f"{v:z.1f}" for v in array]
    if name in ("t", "F"):
        return ["" if np.isnan(v) else f"{v:z.3f}" for v in array]
    finite = np.abs(array[np.isfinite(array) & (array != 0.0)])
    size = int(np.floor(np.log10(finite.max()))) if finite.size else 0
    decimals = int(np.clip(4 - size, 0, 8))
    return ["" if np.isnan(v) else f"{v:z.{decimals}f}" for v in array]


def noted_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table of results as text: probabilities, df, t and F as everywhere, other numbers to five digits.

    What stands before the estimates says what the rows are.
    """
    names = list(map(str, table.columns))
    first = names.index("estimate") if "estimate" in names else 0
    cells, numbers = table.astype(object), table.set_axis(range(len(names)), axis=1).iloc[:, first:]
    cells.columns = pd.RangeIndex(len(names))
    for place in range(len(names)):
        cells[place] = [show(v) for v in cells[place]]
    numbers = numbers.select_dtypes("float")
    places = [int(str(i)) for i in numbers.columns]
    texts = _cells(numbers.set_axis([names[i] for i in places], axis=1), 5)
    for k, i in enumerate(places):
        cells[i] = _numbers(names[i], numbers[i]) if names[i] in NAMED else texts.iloc[:, k].to_numpy()
    return cells.set_axis(table.columns, axis=1)


def table_text(frame: pd.DataFrame, digits: int) -> str:
    """Align a numeric table, each column to about ``digits`` significant digits of its largest entry.

    A row of which this would leave fewer than three digits (a slope beside an intercept in calendar years) gets digits
    of its own; decimal points stay below each other.
    """
    cells = _cells(frame, digits)
    cells.index.name = None
    cells.columns.name = None
    return "\n".join(line.rstrip() for line in cells.to_string().splitlines())


def _cells(frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    values = frame.to_numpy(dtype=float)
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    decimals = np.clip(digits - 1 - _magnitude(sizes.max(axis=0, initial=0.0)), 0, 8)
    places = np.tile(decimals, (len(frame), 1))
    in_units = np.array([str(c) not in STATISTICS for c in frame.columns])
    if in_units.any() and len(frame):
        size = sizes[:, in_units].max(axis=1)
        small = (size > 0) & (decimals[in_units].min() + _magnitude(size) + 1 < LEAST_DIGITS)
        # A bound that happens to be close to zero needs no more than two places beyond those of its row.
        most = digits + 1 - _magnitude(size)
        own = np.minimum(digits - 2 - _magnitude(sizes), most[:, None])
        places = np.where(small[:, None] & in_units, np.maximum(own, places), places)
    columns = []
    for c in range(len(frame.columns)):
        texts = [_number(v, int(n)) for v, n in zip(values[:, c], places[:, c], strict=True)]
        tails = [len(text) - text.find(".") if "." in text else 0 for text in texts]
        columns.append([text + " " * (max(tails, default=0) - tail) for text, tail in zip(texts, tails, strict=True)])
    cells = pd.DataFrame(dict(enumerate(columns)), index=frame.index, dtype=object)
    return cells.set_axis(frame.columns, axis=1)


def _magnitude(values: FloatArray) -> IntArray:
    """Power of ten of each value; 0 of what has none."""
    usable = np.isfinite(values) & (values > 0)
    return np.floor(np.log10(np.where(usable, values, 1.0))).astype(np.intp)


def _number(value: float, places: int) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value:z.{places}f}" if places <= 8 or value == 0 else f"{value:.3e}"


@cache
def templates(module: str) -> dict[str, Any]:
    """The templates in ``sentences.toml`` beside a module (its ``__file__``)."""
    return tomllib.loads(Path(module).with_name("sentences.toml").read_text(encoding="utf-8"))


def fill(template: str, **slots: Any) -> str:
    """A template with its ``{slots}`` filled in; what stands in ``<...>`` is left out where one of them is empty.

    A slot may say how its number is written, ``{share:z.2f}``.
    """

    def whole(piece: re.Match[str]) -> str:
        return piece[1] if all(slots[slot] not in ("", None) for slot, _ in SLOT.findall(piece[1])) else ""

    return SLOT.sub(lambda found: format(slots[found[1]], found[2] or ""), OPTIONAL.sub(whole, template))


def sayer(module: str) -> Callable[..., str]:
    """What fills in the templates beside a module: ``say("table.key", slot=...)``."""

    def say(name: str, /, **slots: Any) -> str:
        table, _, key = name.partition(".")
        return fill(templates(module)[table][key], **slots)

    return say
