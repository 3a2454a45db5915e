"""The message of a picture of one number, as its title: what is larger and by how much, as far as its interval says so.

An interval that includes zero leaves the direction open, and so does the sentence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT, unquoted
from hierlmm.design.questions import levels_of, unit_of
from hierlmm.effects.judge import estimates
from hierlmm.text import number, sayer, span

SAY = sayer(__file__)
DIGITS = 3


class Found(NamedTuple):
    """An estimate and its interval."""

    estimate: float
    lower: float
    upper: float

    @property
    def known(self) -> bool:
        """Whether the interval says which sign it has."""
        return self.lower > 0.0 or self.upper < 0.0

    @property
    def size(self) -> Found:
        """Its absolute value, where the sign is known."""
        return Found(-self.estimate, -self.upper, -self.lower) if self.upper < 0.0 else self

    def slots(self, unit: str) -> dict[str, str]:
        """Number, unit and interval as they are written."""
        ends = span(self.lower, self.upper, DIGITS)
        places = len(ends.split(" ")[0].partition(".")[2])
        written = {"value": f"{self.estimate:z.{places}f}" if "e" not in ends else number(self.estimate), "span": ends}
        return {name: text.replace("-", "−") for name, text in written.items()} | {"unit": f" {unit}" if unit else ""}


def difference(found: Found, of: str, response: str, unit: str, pair: tuple[str, str]) -> str:
    """How two means or two slopes (``of``) differ, the first less the second.

    Parameters
    ----------
    found : Found
    of : {"marginal means", "slopes"}
    response : str
    unit : str
        Unit of the numbers, or empty.
    pair : (str, str)
        What is compared.
    """
    table = "slopes" if of == "slopes" else "means"
    more, less = pair if found.estimate > 0.0 else pair[::-1]
    slots = {"response": response, "more": more, "less": less, "first": pair[0], "second": pair[1]}
    if found.known:
        return SAY(f"headline.{table}", **slots, **found.size.slots(unit))
    return SAY(f"headline.{table}_open", **slots, **found.slots(unit))


def slope(found: Found, response: str, x: str, unit: str) -> str:
    """Which way a mean changes along x, and how fast."""
    which = "slope_open" if not found.known else "rise" if found.estimate > 0.0 else "fall"
    numbers = (found.size if found.known else found).slots(unit or f"per unit of {x}")
    return SAY(f"headline.{which}", response=response, x=x, **numbers)


def scaled(found: Found, name: str, ratio: bool, pair: tuple[str, str] | None, label: str) -> str:
    """One number of a fit with a family; a ratio of two rows is told with the larger first.

    Parameters
    ----------
    found : Found
    name : str
        What it is: ``odds ratio``, ``probability of yes``.
    ratio : bool
    pair : (str, str) or None
        What is compared.
    label : str
        What the row is.
    """
    if not ratio or pair is None:
        return SAY("headline.plain", name=f"{label}: {name}" if label else name, **found.slots(""))
    if found.lower <= 1.0 <= found.upper:
        return SAY("headline.ratio_open", name=name, first=pair[0], second=pair[1], **found.slots(""))
    if found.estimate < 1.0:
        found, pair = Found(1.0 / found.estimate, 1.0 / found.upper, 1.0 / found.lower), pair[::-1]
    return SAY("headline.ratio", name=name, more=pair[0], less=pair[1], **found.slots(""))


def parameter(design: Design, name: str, kind: str, found: Found) -> str:
    """What one parameter says, where it can be read by itself; else its name and its number.

    Parameters
    ----------
    design : Design
    name, kind : str
        As in the table of a `Comparison`.
    found : Found
    """
    response, link = unquoted(design.hierarchy.response), design.family.link
    if kind == "fixed" and link == "identity" and (said := _coefficient(design, name, found)):
        return said
    unit = ""
    if link != "identity":
        unit = f"on the {link} scale" if kind in ("fixed", "marginal", "sd") else ""
    elif kind in ("sd", "sigma"):
        term = name[len("sd(") : -1] if kind == "sd" else INTERCEPT
        unit = unit_of(design, None if term == INTERCEPT else term)
    elif kind == "fixed" and name == INTERCEPT:
        unit = unit_of(design)
    return SAY("headline.plain", name=f"{response}: {name}", **found.slots(unit))


def _coefficient(design: Design, name: str, found: Found) -> str:
    """The sentence on a slope, a difference of levels, or a difference of slopes that is the same everywhere."""
    columns = {c.name: c.parts for c in design.fixed_columns}
    own = columns[name]
    if not own or any(set(own) < set(parts) for parts in columns.values()):
        return ""  # it holds only where the other variables are zero
    response = unquoted(design.hierarchy.response)
    numbers = [unquoted(f) for f, _ in own if _is_number(design, unquoted(f))]
    pairs = [pair for f, column in own if (pair := _against_reference(design, f, column))]
    if len(numbers) > 1 or len(pairs) > 1 or len(numbers) + len(pairs) != len(own):
        return ""
    unit = unit_of(design, numbers[0] if numbers else None)
    if pairs:
        return difference(found, "slopes" if numbers else "marginal means", response, unit, pairs[0])
    return slope(found, response, numbers[0], unit)


def _is_number(design: Design, name: str) -> bool:
    """Whether a factor expression is a column of numbers; asked without the rows, which a saved fit may lack."""
    dtypes = design.terms.dtypes
    return name in dtypes and name not in design.levels.categories and str(dtypes[name]) != "bool"


def _against_reference(design: Design, factor: str, column: str) -> tuple[str, str] | None:
    """The two levels that a column of a treatment coding compares."""
    plain = unquoted(factor)
    if plain not in design.levels.categories:
        return None
    known = levels_of(design, plain)
    used = {name for c in design.fixed_columns for f, name in c.parts if f == factor}
    texts = {f"{plain}[T.{level}]": str(level) for level in known}
    rest = [text for name, text in texts.items() if name not in used]
    return (texts[column], rest[0]) if column in texts and len(rest) == 1 else None


def curves(made: Any) -> str:
    """How the slopes of two straight curves differ; empty where curves are others, or the model holds them parallel."""
    lines = made.curves
    (by,) = made.by if len(made.by) == 1 else ("",)
    if (
        not made.fit.design.is_gaussian
        or len(lines) != 2
        or by not in made.grid.factors
        or made.panels
        or made.transform is not None
    ):
        return ""
    x = np.array(made.grid.points[made.variable], dtype=np.float64)
    slopes = []
    for _, rows in lines:
        L, offset = made.L[rows], made.offset[rows]
        slope = (L[-1] - L[0]) / (x[-1] - x[0])
        straight = L[0] + np.outer(x - x[0], slope)
        if np.ptp(offset) > 0.0 or not np.allclose(L, straight, rtol=0.0, atol=1e-8 * np.abs(L).max()):
            return ""
        slopes.append(slope)
    d = slopes[1] - slopes[0]
    if np.all(np.abs(d) <= 1e-10 * np.abs(slopes).max()):
        return ""
    e = estimates(made.judge, d[None, :], np.zeros(1), made.ci)
    design = made.fit.design
    found = Found(float(e.estimate[0]), float(e.lower[0]), float(e.upper[0]))
    pair = (str(lines[1][0][by]), str(lines[0][0][by]))
    unit = unit_of(design, made.variable)
    return difference(found, "slopes", unquoted(design.hierarchy.response), unit, pair)
