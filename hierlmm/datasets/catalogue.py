"""What every data set is: what was measured, in which units, by whom, and a formula to start from.

The catalogue is data, not code: one entry of ``catalogue.toml`` for each name that
:func:`~hierlmm.datasets.load_dataset` knows. Facts that no source states (a unit, say) are said to be unknown.

The files under ``data/`` keep the columns of their sources. The catalogue says what is renamed, which columns are
categorical and in which order their levels come (the first is the reference level of treatment coding). Columns come in
the order in which they are described there. Nothing else is changed: no row dropped, no missing value filled.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import pandas as pd

from hierlmm.errors import DataError, SpecificationError, UnknownDatasetError
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Part, Result, Table

STATUS = {
    "published": "Published data, shipped with the package; cite the source.",
    "simulated": "Simulated, shipped with the package under its licence.",
    "not shipped": "Not shipped: the data set belongs to the R package JM (GPL). Export it once and set HIERLMM_DATA.",
}
ENVIRONMENT_VARIABLE = "HIERLMM_DATA"


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
        texts = [(f"  {c.name:<{width}}  ", c.meaning + (f" [{c.unit}]" if c.unit else "")) for c in self.columns]
        printed = [line for first, text in texts for line in Paragraph(text, 100, first, " " * (width + 4)).lines()]
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
    received, reason = f"the data set name {name!r}", "No data set has this name."
    raise UnknownDatasetError(received, reason, f"{hint}The names are: {', '.join(known)}.", "hierlmm.list_datasets()")


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


@checked
def load_dataset(name: str, *, coding: str | None = None) -> pd.DataFrame:
    """Load a data set in long format: one row per measurement.

    Parameters
    ----------
    name : str
        A name from :func:`list_datasets`; :func:`describe_dataset` says what its columns mean.
    coding : str, optional
        For a data set that exists in several codings. ``"esoph"`` is the corrected data (``"corrected"``, the default);
        ``coding="1980s"`` is the data as R shipped them before version 4.0.4, in which ``ncontrols`` holds
        cases + controls.

    Returns
    -------
    pandas.DataFrame
        A new data frame at every call, shape (rows, columns) as described. Categorical columns have their reference
        level first; missing values are kept as NaN. ``.attrs["units"]`` has the units of columns, for
        the axes of plots.

    Raises
    ------
    UnknownDatasetError
        If no data set has this name, or if it does not ship with the package (``"aids"``, ``"prothro"``) and its file
        is not in the folder named by the environment variable ``HIERLMM_DATA``.
    DataError
        If the file found there does not have the expected columns and values.
    SpecificationError
        If the data set has no such coding.

    Examples
    --------
    >>> dental = load_dataset("dental")
    >>> list(dental.columns)
    ['subject', 'sex', 'age', 'time', 'distance']
    """
    description = describe_dataset(name)
    if coding is not None and coding not in description.codings:
        known = [d.name for d in catalogue().values() if d.codings]
        received = f"coding={coding!r} for the data set {name!r}"
        reason = f"{name!r} exists in one coding only (several exist for {', '.join(map(repr, known))})."
        if description.codings:
            reason = f"{name!r} exists in the codings {', '.join(map(repr, description.codings))}."
        remedy = "Use one of these codings, or leave coding out."
        raise SpecificationError(received, reason, remedy, f"hierlmm.describe_dataset({name!r})")
    if description.ships:
        stem = name if coding in (None, *description.codings[:1]) else f"{name}_{coding}"
        with (files("hierlmm.datasets") / "data" / f"{stem}.csv").open("rb") as source:
            return _prepare(description, _read_csv(source))
    path = _external_file(description)
    try:
        raw = _read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _unusable(description, path, f"It cannot be read as CSV: {error}") from error
    raw = _as_exported(description, raw)
    _check_external(description, path, raw)
    return _prepare(description, raw)


def _read_csv(source: Path | IO[bytes]) -> pd.DataFrame:
    # Only an empty field is missing: the words of the data ("NA", "None") are never guessed at, except R's own NA.
    return pd.read_csv(source, keep_default_na=False, na_values=["", "NA"])


UNIT = re.compile(r"[A-Za-z]+(/[A-Za-z]+)?")
"""Of the third entry of a column, what is a unit and no list of levels."""


def _prepare(description: DatasetDescription, raw: pd.DataFrame) -> pd.DataFrame:
    """Rename, recode, order the levels, order the columns as described."""
    reading = description.reading
    data = raw.rename(columns=reading.rename)
    for column, codes in reading.recode.items():
        data[column] = data[column].map(dict(codes))
    for column, levels in reading.levels.items():
        data[column] = pd.Categorical(data[column], categories=levels, ordered=column in reading.ordered)
    for column, (of, divisor) in reading.quotient.items():
        data[column] = data[of] / divisor
    data = data[[c.name for c in description.columns]]
    numbers = data.select_dtypes("number").columns
    data.attrs["units"] = {c.name: c.unit for c in description.columns if c.name in numbers and UNIT.fullmatch(c.unit)}
    return data


def _external_file(description: DatasetDescription) -> Path:
    """Find the file of a data set that does not ship, or say where to get it."""
    name, folder = description.name, os.environ.get(ENVIRONMENT_VARIABLE, "")
    path = Path(folder).expanduser() / f"{name}.csv"
    if folder and path.is_file():
        return path
    if not folder:
        why = f"The environment variable {ENVIRONMENT_VARIABLE} is not set."
    elif not path.parent.is_dir():
        why = f"{ENVIRONMENT_VARIABLE} is {folder!r}, which is not a folder."
    else:
        why = f"{ENVIRONMENT_VARIABLE} is {folder!r}, and there is no file {name}.csv in it."
    reason = f"This data set belongs to the R package JM and does not ship with hierlmm. {why}"
    export = f'Export it in R, after install.packages("JM"): {description.reading.export}'
    remedy = f"{export}; then set {ENVIRONMENT_VARIABLE} to the folder that holds the file."
    see = f"hierlmm.describe_dataset({name!r}); https://cran.r-project.org/package=JM"
    raise UnknownDatasetError(f"load_dataset({name!r})", reason, remedy, see)


def _as_exported(description: DatasetDescription, raw: pd.DataFrame) -> pd.DataFrame:
    """Accept the column names as R has them (CD4, prevOI, Time), beside the lower-case ones."""
    raw = raw.rename(columns={old: new for old, new in description.reading.as_in_r.items() if new not in raw.columns})
    lower = {c: str(c).lower() for c in raw.columns}
    return raw.rename(columns=lower) if len(set(lower.values())) == len(lower) else raw


def _check_external(description: DatasetDescription, path: Path, raw: pd.DataFrame) -> None:
    """Refuse a file that is not the data set: columns, types, levels."""
    reading = description.reading
    original = {new: old for old, new in reading.rename.items()}
    needed = [original.get(c.name, c.name) for c in description.columns]
    absent = [c for c in needed if c not in raw.columns]
    if absent:
        why = f"Columns are missing: {', '.join(absent)}. It has: {', '.join(map(str, raw))}."
        raise _unusable(description, path, why)
    for column in needed:
        levels = reading.levels.get(column)
        if levels is None and not pd.api.types.is_numeric_dtype(raw[column]):
            raise _unusable(description, path, f"The column {column!r} is not numeric.")
        strange = [str(v) for v in raw[column].dropna().unique() if levels is not None and v not in levels]
        if levels is not None and strange:
            why = f"The column {column!r} holds {', '.join(map(repr, strange[:5]))}; expected: {', '.join(levels)}."
            raise _unusable(description, path, why)


def _unusable(description: DatasetDescription, path: Path, why: str) -> DataError:
    received = f"the file {path} for the data set {description.name!r}"
    remedy = f"Export the data set again in R: {description.reading.export}."
    return DataError(received, why, remedy, f"hierlmm.describe_dataset({description.name!r})")
