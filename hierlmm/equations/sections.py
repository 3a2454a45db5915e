"""Equations in sections with headings and a sentence each: as text, LaTeX and HTML."""

from __future__ import annotations

import html
import textwrap
from abc import ABC, abstractmethod
from dataclasses import dataclass

from hierlmm.equations import notation as m
from hierlmm.equations.notation import Equation, Markup


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the model: its heading, its equations, and a sentence on what lives there."""

    title: str
    equations: tuple[Equation, ...]
    note: Markup


class Written(ABC):
    """The notations of whatever has sections."""

    @property
    @abstractmethod
    def sections(self) -> tuple[Section, ...]:
        """The parts in order."""

    @property
    @abstractmethod
    def _source(self) -> str | None:
        """Where the estimates come from, if there are any."""

    @property
    def text(self) -> str:
        """All parts as Unicode text; long equations wrap."""
        parts = [] if self._source is None else [f"Estimates: {self._source}"]
        for section in self.sections:
            lines = [equation.wrapped(m.WIDTH - 2) for equation in section.equations]
            lines.append(textwrap.fill(section.note.text, m.WIDTH - 2))
            parts.append(section.title + "\n" + textwrap.indent("\n".join(lines), "  "))
        return "\n\n".join(parts)

    @property
    def latex(self) -> str:
        r"""All parts as one ``aligned`` block, for ``$$ ... $$`` or ``\[ ... \]``."""
        rows = [[rf"& \textbf{{{m.latex_text(s.title)}}}", *(e.aligned() for e in s.equations)] for s in self.sections]
        body = " \\\\[1ex]\n".join(" \\\\\n".join(section) for section in rows)
        return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"

    @property
    def html(self) -> str:
        """All parts as HTML that needs no MathJax."""
        parts = [] if self._source is None else [f"<div>Estimates: {html.escape(self._source)}</div>"]
        for section in self.sections:
            lines = "".join(f'<div style="padding-left:1.5em">{e.html}</div>' for e in section.equations)
            note = f'<div style="padding-left:1.5em;opacity:0.7"><em>{section.note.html}</em></div>'
            title = f'<div style="margin-top:0.5em"><strong>{html.escape(section.title)}</strong></div>'
            parts.append(title + lines + note)
        return f'<div style="line-height:1.7">{"".join(parts)}</div>'

    def __repr__(self) -> str:
        return self.text

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"

    def _repr_html_(self) -> str:
        source = html.escape(self.latex, quote=False)
        return f"{self.html}<details><summary>LaTeX</summary><pre>{source}</pre></details>"
