"""A report: fits with their data, model, words, pictures and checks in one HTML file, readable without a network."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hierlmm.design.factors import finest_first
from hierlmm.design.formula import unquoted
from hierlmm.errors import FitWarning, HierlmmError
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.pages.code import code_of
from hierlmm.pages.path import checked_path
from hierlmm.pages.sections import SECTIONS, Asked, Piece, warnings_of
from hierlmm.pages.svg import inline_svg
from hierlmm.results import Page

NOT_CONVERGED = "{} did not converge: its numbers may be wrong. Read the warnings before using any of them."

WIDE = 8
"""Columns that a table has room for on paper in the usual size."""
TALL = 7.0
"""Inches of a picture that has a page of paper for itself, or half of one."""
LONG = 45
"""Letters of a cell that has a width of its own."""


@dataclass(frozen=True)
class Shown:
    """A piece as it stands on the page: heading, HTML, what warned while it was made, whether it is closed first."""

    heading: str
    html: Sequence[str]
    notes: tuple[str, ...]
    closed: bool


class _Pages:
    """Makes pieces, numbers pictures, and remembers what could not be shown."""

    def __init__(self, comparison: SideBySide, simulations: int) -> None:
        self.comparison, self.simulations = comparison, simulations
        self.kept: dict[str, dict[str, Any]] = {label: {} for label in comparison.labels}
        self.absent: dict[str, list[str]] = {}
        self.pictures = 0

    def shown(self, section: str, pieces: Sequence[Piece]) -> Iterator[Shown]:
        for piece in pieces:
            for label in self.comparison.labels if piece.each else [self.comparison.reference]:
                fit = self.comparison.fits[label]
                if not piece.applies(fit):
                    continue
                several = piece.each and len(self.comparison.fits) > 1
                heading = ": ".join(filter(None, (piece.heading, label if several else "")))
                name = heading or section
                try:
                    yield self._made(
                        piece, Asked(self.comparison, fit, self.simulations, self.kept[label]), heading, name
                    )
                except Exception as error:  # a library that cannot draw five draws: the rest of the page is as good
                    unexpected = f"unexpected failure, {type(error).__name__}: {error}"
                    why = error.reason if isinstance(error, HierlmmError) else unexpected
                    self.absent.setdefault(" ".join(why.split()).rstrip("."), []).append(name)

    def _made(self, piece: Piece, asked: Asked, heading: str, name: str) -> Shown:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FitWarning)
            made = piece.make(asked)
            many = list(made) if isinstance(made, Iterator) else [made]
            html = [self._html(thing, name) for thing in many]
        told = [str(c.message) for c in caught if issubclass(c.category, FitWarning)]
        for c in caught:
            if not issubclass(c.category, FitWarning):
                warnings.warn_explicit(c.message, c.category, c.filename, c.lineno)
        known = {w for fit in self.comparison.fits.values() for w in warnings_of(fit)}
        notes = tuple(dict.fromkeys(n for n in (" ".join(t.split()) for t in told) if n not in known))
        return Shown(heading, html, notes, piece.closed)

    def _html(self, thing: Any, name: str) -> str:
        if hasattr(thing, "get_viz"):
            self.pictures += 1
            svg = inline_svg(thing, name, self.pictures)
            kind = "picture tall" if thing.get_viz("figure").get_figheight() > TALL else "picture"
            return f'<div class="{kind}" role="group" tabindex="0" aria-label="Picture {self.pictures}">{svg}</div>'
        return _fitted_in(thing.html if isinstance(thing, Page) else thing._repr_html_())


def _fitted_in(text: str) -> str:
    """HTML of a result with tables that scroll where the page is narrow, and numbers to the right."""
    text = re.sub(r"<table>.*?</table>", lambda m: _framed(m[0]), text, flags=re.S)
    text = re.sub(rf"<td>(?=[^<]{{{LONG}}})", '<td class="long">', text)
    return re.sub(r"<td>(?=[-−+\[]{0,2}[\d.]+[^<a-z]*</td>|–</td>)", '<td class="number">', text).replace(
        "<pre>", '<pre tabindex="0">'
    )


def _framed(table: str) -> str:
    """A table in a frame that scrolls; it says how many columns it has, where these are many."""
    columns = max(len(re.findall(r"<t[hd]\b", row)) for row in re.split(r"<tr\b", table))
    kind = "scroll wide" if columns > WIDE else "scroll"
    return f'<div class="{kind}" role="group" tabindex="0">{table}</div>'


def title_of(comparison: SideBySide) -> str:
    """Response, who it was measured on, and the estimators."""
    design = comparison.fits[comparison.reference].design
    of = ", ".join(finest_first(design)) if design.has_several_factors else design.hierarchy.subject
    return f"{unquoted(design.hierarchy.response)} by {of}: {', '.join(comparison.labels)}"


def warned(comparison: SideBySide) -> list[str]:
    """What must be known first: who did not converge, and the warnings of the fits."""
    several = len(comparison.fits) > 1
    first = [NOT_CONVERGED.format(label) for label, fit in comparison.fits.items() if not fit.converged]
    others = [(label, w) for label, fit in comparison.fits.items() for w in warnings_of(fit)]
    return [*first, *(f"{label}: {text}" if several else text for label, text in others)]


def report_html(
    comparison: SideBySide, *, title: str | None = None, source: str | None = None, simulations: int = 499
) -> str:
    """Write a report as HTML; see `write_report`."""
    pages = _Pages(comparison, simulations)
    sections = {name: list(pages.shown(name, pieces)) for name, pieces in SECTIONS.items()}
    loader = jinja2.PackageLoader("hierlmm", "pages")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.jinja").render(
        title=title or title_of(comparison),
        date=datetime.date.today().isoformat(),
        warned=warned(comparison),
        sections={name: pieces for name, pieces in sections.items() if pieces},
        code=code_of(comparison, source),
        absent={reason: ", ".join(dict.fromkeys(names)) for reason, names in pages.absent.items()},
    )


def write_report(comparison: SideBySide, path: Any, **options: Any) -> Path:
    """Write a report to a file.

    Parameters
    ----------
    comparison : SideBySide
        Of one fit or several.
    path : str or path-like
        Name of the file, ending in ``.html``; a file of this name is replaced.
    **options
        ``title``, ``source`` (Python code that reads the table) and ``simulations`` of the checks.

    Raises
    ------
    SpecificationError
        If the name ends in something else, or its folder is not there.
    """
    file = checked_path(path)
    file.write_text(report_html(comparison, **options), encoding="utf-8")
    return file
