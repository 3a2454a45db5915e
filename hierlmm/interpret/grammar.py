"""From templates to sentences: the words stand in ``sentences.toml``, the numbers come from the code.

A template is text with ``{slots}``. What stands in ``<...>`` is left out where one of its slots is empty. A name that
stands for a table has variants, each under a flag; the first holds whose flag is set, or ``else``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hierlmm.text import fill, templates


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


def render(name: str, flags: Collection[str] = (), /, **slots: Any) -> str:
    """The text of a template, ``table.key`` or the name of a table of variants."""
    table, _, key = name.partition(".")
    template = templates(__file__)[table]
    if isinstance(template, dict):
        template = template[key or next(flag for flag in template if flag in flags or flag == "else")]
    return fill(template, **slots)


def sentence(section: str, text: str, facts: Mapping[str, float]) -> Sentence:
    """A sentence with the numbers that it states."""
    numbers = MappingProxyType({name: float(value) for name, value in facts.items()})
    return Sentence(section, text[:1].upper() + text[1:], numbers)
