"""What every room of the app is, and the pieces of which rooms make their pages."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hierlmm.app.settings import Setting, read_all
from hierlmm.results import Table
from hierlmm.text import fill, templates


@dataclass(frozen=True)
class Room:
    """Numbers from settings, and a page of them.

    Attributes
    ----------
    name : str
        In the address, in ids, and the table of its texts in ``sentences.toml``.
    settings : tuple of Setting
    numbers : callable
        Settings by name -> what was worked out; needs no browser.
    show : callable
        What was worked out -> HTML.
    code_slots : callable
        Settings by name -> what stands in the slots of the code.
    """

    name: str
    settings: tuple[Setting, ...]
    numbers: Callable[..., Any]
    show: Callable[[Any], str]
    code_slots: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    @property
    def texts(self) -> Mapping[str, Any]:
        """``title``, ``lead``, ``questions``, ``answers`` and ``code``."""
        return templates(__file__)[self.name]

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Possible values of all settings."""
        return read_all(self.settings, given)

    def code(self, values: Mapping[str, Any]) -> str:
        """Python that gives the numbers of the picture."""
        return fill(self.texts["code"], **self.code_slots(values)).strip() + "\n"


def say(name: str, /, **slots: Any) -> str:
    """A sentence of a room, ``say("hierarchy.parabola", slot=...)``."""
    room, _, key = name.partition(".")
    return fill(templates(__file__)[room]["say"][key], **slots)


def named(values: Mapping[str, Any]) -> str:
    """Which settings a page belongs to, for whoever waits for it: ``sd=2;link=logit;``."""
    return "".join(f"{k}={v:g};" if isinstance(v, float) else f"{k}={v};" for k, v in values.items())


def paragraph(text: str, kind: str = "") -> str:
    """A sentence as HTML."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def table(frame: pd.DataFrame, caption: str, number: str = ".4g") -> str:
    """A table as HTML, whose names are escaped."""
    return f'<div class="scroll">{Table(frame, caption=caption, index=True, number=number).html()}</div>'


def charts(pictures: Sequence[str]) -> str:
    """Pictures beside each other where there is room."""
    return f'<div class="charts">{"".join(pictures)}</div>'
