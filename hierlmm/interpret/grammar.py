"""From templates to sentences: the words stand in ``sentences.toml``, the numbers come from the code.

A template is text with ``{slots}``. What stands in ``<...>`` is left out where one of its slots is empty. A name that
stands for a table has variants, each under a flag; the first holds whose flag is set, or ``else``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["Sentence", "render", "sentence"]

SLOT = re.compile(r"\{(\w+)\}")
OPTIONAL = re.compile(r"<([^<>]*)>")


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


@cache
def _templates() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8"))


def render(name: str, flags: Collection[str] = (), /, **slots: Any) -> str:
    """The text of a template, ``table.key`` or the name of a table of variants."""
    table, _, key = name.partition(".")
    template = _templates()[table]
    if isinstance(template, dict):
        template = template[key or next(flag for flag in template if flag in flags or flag == "else")]

    def whole(piece: re.Match[str]) -> str:
        return piece[1] if all(slots[slot] not in ("", None) for slot in SLOT.findall(piece[1])) else ""

    return SLOT.sub(lambda found: str(slots[found[1]]), OPTIONAL.sub(whole, template))


def sentence(section: str, text: str, facts: Mapping[str, float]) -> Sentence:
    """A sentence with the numbers that it states."""
    numbers = MappingProxyType({name: float(value) for name, value in facts.items()})
    return Sentence(section, text[:1].upper() + text[1:], numbers)
