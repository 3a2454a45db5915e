"""Sentences with the numbers behind them, as a frozen object that prints."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType

import pandas as pd

from hierlmm.errors import SpecificationError, closest
from hierlmm.options import checked
from hierlmm.text import number

__all__ = ["Interpretation", "Sentence", "apart", "percentage", "probability"]

WIDTH = 100


@dataclass(frozen=True)
class Sentence:
    """One statement.

    Attributes
    ----------
    section : str
    text : str
    facts : mapping of str to float
        Every number that the text states, unrounded.
    """

    section: str
    text: str
    facts: MappingProxyType[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        return self.text


@checked
@dataclass(frozen=True, repr=False)
class Interpretation:
    """A fit in plain words (made by ``fit.interpret()``). Frozen.

    Attributes
    ----------
    title : str
    sentences : tuple of Sentence
        Each with its section and its numbers; ``str(sentence)`` is the text.
    """

    title: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """All sentences, by section."""
        lines = [self.title]
        for section, own in self._sections():
            lines += ["", section]
            lines += [textwrap.fill(s.text, WIDTH, initial_indent="- ", subsequent_indent="  ") for s in own]
        return "\n".join(lines)

    @property
    def facts(self) -> pd.DataFrame:
        """The numbers, one in a row: ``section``, ``sentence`` (its position), ``fact``, ``value``."""
        rows = [(s.section, i, name, value) for i, s in enumerate(self.sentences) for name, value in s.facts.items()]
        return pd.DataFrame(rows, columns=["section", "sentence", "fact", "value"])

    def section(self, name: str) -> tuple[Sentence, ...]:
        """Sentences of one section, by its title.

        Parameters
        ----------
        name : str
            The title.

        Raises
        ------
        SpecificationError
            If there is no such section.
        """
        titles = list(dict.fromkeys(s.section for s in self.sentences))
        if name not in titles:
            raise SpecificationError(
                f"section {name!r}",
                f"these sentences have no such section.{closest(str(name), titles)}",
                f"use one of {', '.join(map(repr, titles))}",
                "docs, page 'In words'",
            )
        return tuple(s for s in self.sentences if s.section == name)

    def _sections(self) -> Iterable[tuple[str, tuple[Sentence, ...]]]:
        return [(name, self.section(name)) for name in dict.fromkeys(s.section for s in self.sentences)]

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        parts = [f"<p><strong>{html.escape(self.title)}</strong></p>"]
        for section, own in self._sections():
            items = "".join(f"<li>{html.escape(s.text)}</li>" for s in own)
            parts.append(f"<p><em>{html.escape(section)}</em></p><ul>{items}</ul>")
        return f"<div>{''.join(parts)}</div>"


def apart(value: float, limit: float) -> str:
    """A number with digits enough to tell it from a limit: ``1.00004`` beside 1, ``-0.99998`` beside -1."""
    for digits in range(4, 16):
        text = number(value) if digits == 4 else f"{value:.{digits}g}"
        if value == limit or float(text) != limit:
            return text
    return number(value)


def percentage(share: float) -> str:
    """A share as ``99.6 %``; near 0 and 1 a bound, as an estimate of exactly all would claim too much."""
    if share > 0.9995:
        return "more than 99.9 %"
    return "less than 0.1 %" if share < 0.0005 else f"{100 * share:z.1f} %"


def probability(p: float) -> str:
    """A probability as ``0.982``; near 0 and 1 a bound."""
    return "more than 0.999" if p > 0.9995 else "less than 0.001" if p < 0.0005 else f"{p:z.3f}"
