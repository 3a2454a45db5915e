"""What every result is: a frozen record with a table, notes, one text and one page for notebooks.

A result says what it shows as a `Page`, once: a title, then lines, paragraphs and tables in their order. `Page.text` is
what is printed, `Page.html` what a notebook shows: a fragment in the colours and fonts of where it stands (so it is
dark where the notebook is), with captions and the scope of every heading for readers who listen.
"""

from __future__ import annotations

import html
import re
import textwrap
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from hierlmm.frozen import Sealed
from hierlmm.options import checked
from hierlmm.text import noted_cells, wrap


@dataclass(frozen=True)
class Paragraph:
    """Text that print breaks into lines of ``width`` (0: not printed), and a notebook does not."""

    content: str
    width: int = 100
    first: str = ""
    rest: str = ""
    hyphens: bool = True

    def lines(self) -> list[str]:
        """The lines in print."""
        options = {"initial_indent": self.first, "subsequent_indent": self.rest, "break_on_hyphens": self.hyphens}
        return textwrap.wrap(self.content, self.width, **options) if self.width else []  # type: ignore[arg-type]

    def html(self) -> str:
        """The paragraph as it is."""
        return f"<p>{html.escape(self.content)}</p>"


@dataclass(frozen=True)
class Printed:
    """Lines in print that a notebook does not show: a table beside them says the same."""

    content: Sequence[str]

    def lines(self) -> list[str]:
        """The lines."""
        return list(self.content)

    def html(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Items:
    """A heading, and sentences as a list."""

    heading: str
    sentences: Sequence[str]
    printed: Sequence[str] = ()
    """The lines in print."""

    def lines(self) -> list[str]:
        """The lines in print."""
        return list(self.printed)

    def html(self) -> str:
        """A list."""
        head = f"<p><em>{html.escape(self.heading)}</em></p>" if self.heading else ""
        return f"{head}<ul>{''.join(f'<li>{html.escape(s)}</li>' for s in self.sentences)}</ul>"


@dataclass(frozen=True)
class Table:
    """A table: its lines in print, and the frame that a notebook shows."""

    frame: pd.DataFrame
    printed: Sequence[str] = ()
    caption: str = ""
    index: bool = False
    formatters: Mapping[Any, Callable[[Any], str]] = field(default_factory=dict)
    number: str = ".4g"
    max_rows: int | None = None

    def lines(self) -> list[str]:
        """The lines in print."""
        return list(self.printed)

    def html(self) -> str:
        """The table with its caption, and the scope of its headings."""
        text = self.frame.to_html(
            index=self.index,
            float_format=lambda v: format(v, self.number),
            formatters=dict(self.formatters),
            na_rep="",
            border=0,
            index_names=False,
            max_rows=self.max_rows,
        )
        head, body = text.split("<tbody>")
        if self.index and self.frame.index.name:  # over its own column, not in a row of empty headings
            head = head.replace("<th></th>", f"<th>{html.escape(str(self.frame.index.name))}</th>", 1)
        head = re.sub(r"<th\b", '<th scope="col"', head).replace('<th scope="col"></th>', "<td></td>")  # heads nothing
        body = re.sub(r"<th\b", '<th scope="row"', body)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return re.sub(r"<table[^>]*>", lambda _: f"<table>{caption}", head, count=1) + "<tbody>" + body


type Part = str | Paragraph | Printed | Items | Table


@dataclass(frozen=True)
class Page:
    """A title, then lines, paragraphs, lists and tables; an empty line parts what belongs together in print."""

    title: str
    parts: Iterable[Part]

    @property
    def text(self) -> str:
        """What is printed."""
        lines = [self.title] if self.title else []
        for part in self.parts:
            lines += [part] if isinstance(part, str) else part.lines()
        return "\n".join(lines)

    @property
    def html(self) -> str:
        """What a notebook shows; neighbouring lines are one paragraph."""
        title = "<br>".join(html.escape(line) for line in self.title.splitlines())
        pieces, lines = [f"<p><strong>{title}</strong></p>"] if title else [], []
        for part in (*self.parts, ""):
            if isinstance(part, str) and part:
                indent = len(part) - len(part.lstrip())
                lines.append("&emsp;" * (indent // 2) + html.escape(part.lstrip()))
                continue
            if lines:
                pieces.append(f"<p>{'<br>'.join(lines)}</p>")
                lines = []
            if not isinstance(part, str):
                pieces.append(part.html())
        return f'<div class="hierlmm" style="color: inherit; background: transparent">{"".join(pieces)}</div>'


@checked
class Result(Sealed):
    """Base of all results, which are frozen dataclasses: they have a ``table`` and say what they show in `_page`."""

    _told: ClassVar[tuple[str, str] | None] = None
    """Text and HTML of a result that was loaded without what its page is made of."""

    @abstractmethod
    def _page(self) -> Page:
        """Title, lines, paragraphs and tables of the result."""

    @property
    def frame(self) -> pd.DataFrame:
        """The main table: a copy, as `table` is."""
        return self.table

    def to_frame(self) -> pd.DataFrame:
        """Return the main table, a copy that may be changed."""
        return self.frame

    def __repr__(self) -> str:
        return self._told[0] if self._told else self._page().text

    def _repr_html_(self) -> str:
        return self._told[1] if self._told else self._page().html


class NotedTable(pd.DataFrame):
    """A `pandas.DataFrame` that says under itself what its ``attrs`` say of it: how it was made, and notes.

    What pandas makes of it (a selection, a copy) is a plain frame with the same ``attrs``.
    """

    _TOLD: ClassVar[Mapping[str, str]] = {
        "type": "Tests of type {}.",
        "description": "By {}.",
        "estimate": "Estimate: {}.",
        "interval": "Interval: {}.",
        "scale": "Scale: {}.",
        "trials": "Trials: {}.",
    }

    @property
    def _notes(self) -> list[str]:
        told = [text.format(self.attrs[key]) for key, text in self._TOLD.items() if key in self.attrs]
        return [*told, *(f"Note: {note}" for note in self.attrs.get("notes", ()))]

    def __repr__(self) -> str:
        rows = {f"{which}_rows": pd.get_option(f"display.{which}_rows") for which in ("max", "min")}
        lines = [line.rstrip() for line in noted_cells(self).to_string(**rows).splitlines()]
        return "\n".join([*lines, *([""] if self._notes else []), *wrap(self._notes)])

    def _repr_html_(self) -> str:
        table = Table(noted_cells(self), index=True, max_rows=pd.get_option("display.max_rows"))
        return Page("", [table, *map(Paragraph, self._notes)]).html
