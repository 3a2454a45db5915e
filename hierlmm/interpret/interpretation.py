"""Sentences with the numbers behind them, as a frozen object that prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from hierlmm.errors import SpecificationError, closest
from hierlmm.interpret.grammar import Sentence
from hierlmm.options import checked
from hierlmm.results import Items, Page, Result
from hierlmm.text import wrap

__all__ = ["Interpretation"]


@checked
@dataclass(frozen=True, repr=False)
class Interpretation(Result):
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
        return repr(self)

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
            reason = f"these sentences have no such section.{closest(str(name), titles)}"
            remedy = f"use one of {', '.join(map(repr, titles))}"
            raise SpecificationError(f"section {name!r}", reason, remedy, "docs, page 'In words'")
        return tuple(s for s in self.sentences if s.section == name)

    def _sections(self) -> Iterable[tuple[str, tuple[Sentence, ...]]]:
        return [(name, self.section(name)) for name in dict.fromkeys(s.section for s in self.sentences)]

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers, as in `facts`."""
        return self.facts

    def _page(self) -> Page:
        parts: list[str | Items] = []
        for section, own in self._sections():
            texts = [s.text for s in own]
            printed = [section, *wrap(texts, initial_indent="- ", subsequent_indent="  ")]
            parts += ["", Items(section, texts, printed)]
        return Page(self.title, parts)
