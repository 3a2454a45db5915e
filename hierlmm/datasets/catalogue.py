"""What every data set is: what was measured, in which units, by whom, and a formula to start from.

The catalogue is data, not code: one entry of ``catalogue.toml`` for each name that
:func:`~hierlmm.datasets.load_dataset` knows. Facts that no source states (a unit, say) are said to be unknown.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from hierlmm.errors import UnknownDatasetError
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Part, Result, Table

__all__ = ["DatasetColumn", "DatasetDescription", "Reading", "catalogue", "describe_dataset", "list_datasets"]

STATUS = {
    "published": "Published data, shipped with the package; cite the source.",
    "simulated": "Simulated, shipped with the package under its licence.",
    "not shipped": "Not shipped: the data set belongs to the R package JM (GPL). Export it once and set HIERLMM_DATA.",
}


@dataclass(frozen=True)
class DatasetColumn:
    """One column of a data set: its name, its meaning, and its unit or levels (the reference level first)."""

    name: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True)
class Reading:
    """How the file of a data set becomes its data frame; see the head of ``catalogue.toml``."""

    rename: dict[str, str] = field(default_factory=dict)
    recode: dict[str, list[tuple[Any, str]]] = field(default_factory=dict)
    levels: dict[str, list[str]] = field(default_factory=dict)
    ordered: tuple[str, ...] = ()
    quotient: dict[str, tuple[str, float]] = field(default_factory=dict)
    export: str = ""
    as_in_r: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class DatasetDescription(Result):
    """What a data set holds and where it comes from; prints as a page of text and renders in a notebook.

    Attributes
    ----------
    name : str
        The name that :func:`load_dataset` takes.
    title : str
        One line.
    about : str
        What was measured, on whom, when.
    columns : tuple of DatasetColumn
        In the order of the data frame.
    rows, subjects : int
        Numbers of rows and of subjects (for nested or crossed data: levels of the column ``subject``).
    subject, response : str
        Names of the grouping column and of the response.
    formula : str
        A formula to start from, not the only sensible one.
    source : str
        Publication of the data.
    status : str
        Whether the data ship with the package, and on which terms.
    ships : bool
        False if the file must be supplied through the environment variable ``HIERLMM_DATA``.
    notes : tuple of str
        What a careful analyst should know before fitting.
    codings : tuple of str
        Alternative codings that ``load_dataset(name, coding=...)`` accepts.
    """

    name: str
    title: str
    about: str
    columns: tuple[DatasetColumn, ...]
    rows: int
    subjects: int
    subject: str
    response: str
    formula: str
    source: str
    status: str = STATUS["published"]
    ships: bool = True
    notes: tuple[str, ...] = ()
    codings: tuple[str, ...] = ()
    reading: Reading = field(default=Reading(), compare=False)

    @property
    def frame(self) -> pd.DataFrame:
        """The columns with their meaning, and unit or levels."""
        return pd.DataFrame([(c.name, c.meaning, c.unit) for c in self.columns], columns=["column", "meaning", "unit"])

    def _page(self) -> Page:
        """A formula is to be copied: it stays on one line."""
        width = max(len(c.name) for c in self.columns)
        printed = [
            line
            for c in self.columns
            for line in Paragraph(
                c.meaning + (f" [{c.unit}]" if c.unit else ""), 100, f"  {c.name:<{width}}  ", " " * (width + 4)
            ).lines()
        ]
        frame = self.frame.rename(columns={"unit": "unit or levels"})
        below = [("Source", self.source), ("Status", self.status)]
        below += [("Codings", ", ".join(f"coding={c!r}" for c in self.codings))] if self.codings else []
        below += [("Note", note) for note in self.notes]
        parts: list[Part] = [
            f"{self.rows} rows, {self.subjects} subjects (column {self.subject!r}), response {self.response!r}",
            "",
            Paragraph(self.about),
            "",
            Table(frame, printed, caption=f"Columns of {self.name}"),
            "",
            f"{'Formula:':<9}{self.formula}",
            *(Paragraph(f"{head + ':':<9}{text}", rest=" " * 9) for head, text in below),
        ]
        return Page(f"{self.name}: {self.title}", parts)


@cache
def catalogue() -> dict[str, DatasetDescription]:
    """Every description, by name."""
    text = (files("hierlmm.datasets") / "catalogue.toml").read_text(encoding="utf-8")
    return {name: _description(name, entry) for name, entry in tomllib.loads(text).items()}


def _description(name: str, entry: dict[str, Any]) -> DatasetDescription:
    status = entry.pop("status", "published")
    reading = Reading(**{key: entry.pop(key) for key in Reading.__annotations__ if key in entry})
    entry |= {key: tuple(entry[key]) for key in ("notes", "codings") if key in entry}
    entry["columns"] = tuple(DatasetColumn(*column) for column in entry["columns"])
    return DatasetDescription(name, status=STATUS[status], ships=status != "not shipped", reading=reading, **entry)


@checked
def describe_dataset(name: str) -> DatasetDescription:
    """Describe a data set: what was measured, columns and units, source, status, and a formula to start from.

    Parameters
    ----------
    name : str
        A name from :func:`list_datasets`.

    Returns
    -------
    DatasetDescription
        Prints as text and renders in a notebook.

    Raises
    ------
    UnknownDatasetError
        If no data set has this name; close matches are suggested.

    Examples
    --------
    >>> describe_dataset("dental").formula
    'distance ~ sex * time + (1 + time | subject)'
    """
    known = catalogue()
    if isinstance(name, str) and name in known:
        return known[name]
    near = get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UnknownDatasetError(
        received=f"the data set name {name!r}",
        reason="No data set has this name.",
        remedy=f"{hint}The names are: {', '.join(known)}.",
        see="hierlmm.list_datasets()",
    )


def list_datasets() -> pd.DataFrame:
    """List the data sets.

    Returns
    -------
    pandas.DataFrame
        One row per data set: ``name``, ``rows``, ``subjects``, ``subject`` (name of the grouping column), ``response``,
        ``ships`` (False: the file must be supplied through ``HIERLMM_DATA``) and ``title``.
    """
    fields = ["name", "rows", "subjects", "subject", "response", "ships", "title"]
    return pd.DataFrame([{f: getattr(d, f) for f in fields} for d in catalogue().values()], columns=fields)
