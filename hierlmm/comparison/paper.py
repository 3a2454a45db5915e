"""A table for print as Markdown and as a Word document, from the cells of `hierlmm.comparison.print_table`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hierlmm.comparison.print_table import PrintTable
from hierlmm.errors import MissingPackageError, SpecificationError

SEE = "docs, page 'Comparing estimators'"
type Line = tuple[str, list[str]]
"""Name of a section and no cells, or a row's label and its cells."""


def lines_of(table: PrintTable) -> Iterator[Line]:
    """Sections and rows from the top to the bottom."""
    for section, rows in table.frame.groupby("section", sort=False):
        yield str(section), []
        for _, row in rows.iterrows():
            yield str(row["parameter"]), [str(row[name]) for name in table.columns]


def heads_of(table: PrintTable) -> list[tuple[str, str]]:
    """Fit and heading over every column."""
    split = [name.split(":", 1) for name in table.columns]
    return [(table.labels[int(k)], table.headings[name]) for k, name in split]


def as_markdown(table: PrintTable) -> str:
    """A pipe table with its title above and its notes below."""
    heads = [f"{label}: {heading}" for label, heading in heads_of(table)]
    lines = [f"**{_md(table.title.replace(chr(10), ': '))}**", "", _row(["", *heads])]
    lines.append(f"|:--|{'--:|' * len(heads)}")
    for label, cells in lines_of(table):
        lines.append(_row([label, *cells]) if cells else f"| **{_md(label)}** |{' |' * len(heads)}")
    return "\n".join([*lines, *(f"\n{_md(note)}" for note in table.notes)]) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(_md(cell) for cell in cells)} |"


def _md(text: str) -> str:
    """Text without a meaning in Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in text)


def write_docx(table: PrintTable, path: Any) -> Path:
    """Write the table to a Word document of its own.

    Raises
    ------
    MissingPackageError
        If python-docx is not installed.
    SpecificationError
        If the name does not end in ``.docx``.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() != ".docx":
        remedy = f"use a name like {file.stem or 'table'}.docx"
        raise SpecificationError(f"to_docx({str(path)!r})", "this writes a Word document", remedy, SEE)
    try:
        from docx import Document
        from docx.enum.text import WD_ALIGN_PARAGRAPH
        from docx.shared import Pt
    except ImportError as error:
        received, reason = "a request for a Word document", "the package python-docx is not installed"
        remedy = 'pip install "hierlmm[word]"; to_markdown() and to_latex() need no package'
        raise MissingPackageError(received, reason, remedy, "docs, page 'Installation'") from error
    document, heads = Document(), heads_of(table)
    document.core_properties.title = document.core_properties.author = ""
    document.add_paragraph(table.title, style="Caption")
    grid = document.add_table(rows=2, cols=1 + len(heads), style="Light List")

    def write(cell: Any, text: str, bold: bool = False, right: bool = True) -> None:
        paragraph = cell.paragraphs[0]
        run = paragraph.add_run(text)
        run.bold, run.font.size = bold, Pt(8)
        paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT if right else WD_ALIGN_PARAGRAPH.LEFT

    over = [label for label, _ in heads]
    for label in dict.fromkeys(over):
        first, last = 1 + over.index(label), len(over) - over[::-1].index(label)
        write(grid.cell(0, first).merge(grid.cell(0, last)), label, bold=True)
    for k, (_, heading) in enumerate(heads, start=1):
        write(grid.cell(1, k), heading, bold=True)
    for label, cells in lines_of(table):
        row = grid.add_row().cells
        write(row[0], label, bold=not cells, right=False)
        for cell, text in zip(row[1:], cells, strict=False):
            write(cell, text)
    for note in table.notes:
        document.add_paragraph().add_run(note).font.size = Pt(8)
    document.save(str(file))
    return file
