"""Room (f), your data: a table that is read in memory, three of its columns, trajectories and fits.

The columns become ``subject``, ``time`` and ``y`` before anything is fitted, so that their own names are text and never
part of a formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.app.chart import Chart, limits
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Choice
from hierlmm.datasets.catalogue import load_dataset
from hierlmm.errors import DataError, HierlmmError
from hierlmm.frames import quote
from hierlmm.model import TwoLevelModel
from hierlmm.report.read import Source, read_bytes

SEE = "docs, page 'Teaching app', section 'Your data'"
MOST_BYTES = 10_000_000
MOST_ROWS, MOST_COLUMNS = 100_000, 200
DRAWN = 60
LONGEST = 30
"""Characters of a column's name that a picture has room for."""
ROLES = ("subject", "time", "outcome")
SLOPES, INTERCEPTS = "slopes", "intercepts"
FORMULAS = {SLOPES: "y ~ time + (1 + time | subject)", INTERCEPTS: "y ~ time + (1 | subject)"}
SETTINGS = (
    Choice(
        "example",
        "Example, until you open a file",
        {name: name for name in ("dental", "sleepstudy", "active", "pbc")},
        "sleepstudy",
    ),
    Choice("random", "Subjects differ in", {SLOPES: "intercept and slope", INTERCEPTS: "intercept only"}, SLOPES),
)


@dataclass(frozen=True, eq=False)
class Found:
    """The three columns under their roles' names, what they are called, and the fits by REML and GEE."""

    names: dict[str, str]
    data: pd.DataFrame
    dropped: int
    fits: dict[str, Any]


def read_table(name: str, content: bytes, size: int | None = None) -> Source:
    """Read what was sent, if it is a table of a size that can be looked at.

    Parameters
    ----------
    name : str
        Of the file.
    content : bytes
    size : int, optional
        Of the file, where it was too large to be sent.

    Raises
    ------
    DataError
    """
    received = f"the file {name}"
    if max(len(content), size or 0) > MOST_BYTES:
        much = max(len(content), size or 0) / 1e6
        reason = f"it has {much:.1f} MB, and the app looks at tables of up to {MOST_BYTES / 1e6:.0f} MB"
        remedy = "take some of its subjects, or fit it by hierlmm fit or in Python"
        raise DataError(received, reason, remedy, SEE)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        remedy = "open it in the program that made it, and save it as CSV (UTF-8)"
        raise DataError(received, "it is not text in UTF-8, as a CSV file is", remedy, SEE) from error
    rows, columns = content.count(b"\n"), max(content.split(b"\n", 1)[0].count(s) for s in (b",", b";", b"\t"))
    if rows > MOST_ROWS or columns >= MOST_COLUMNS:
        reason = f"it has {rows:,} lines and {columns + 1:,} columns; the app looks at {MOST_ROWS:,} and {MOST_COLUMNS}"
        remedy = "keep the columns that are needed, and some of the subjects"
        raise DataError(received, reason, remedy, SEE)
    try:
        return read_bytes(name, content)
    except DataError as error:
        raise DataError(received, error.reason, error.remedy, SEE) from error


def guess_columns(frame: pd.DataFrame) -> dict[str, str]:
    """Column by role: the subject has repeated labels; time and outcome are numbers that vary within subjects."""
    columns = [str(c) for c in frame.columns]
    repeated = [c for c in columns if 1 < frame[c].nunique() < len(frame)]
    known = [c for c in repeated if c.lower() in ("subject", "id", "patient", "person", "child")]
    subject = (known or repeated or columns)[0]
    numeric = [c for c in columns if c != subject and pd.api.types.is_numeric_dtype(frame[c].dtype)]
    distinct = frame.groupby(subject)[numeric].nunique()
    varying = [c for c in numeric if distinct[c].max() > 1]
    numeric = varying or numeric or columns
    timely = [
        c for c in numeric if c.lower() in ("time", "day", "days", "week", "month", "year", "years", "visit", "age")
    ]
    time = (timely or numeric)[0]
    outcome = max([c for c in numeric if c != time] or [time], key=lambda c: frame[c].nunique())
    return {"subject": subject, "time": time, "outcome": outcome}


def chosen_columns(frame: pd.DataFrame, given: Mapping[str, Any]) -> dict[str, str]:
    """Column by role: as given where there is such a column, else as guessed."""
    columns = {str(c) for c in frame.columns}
    return {role: str(given[role]) if given.get(role) in columns else own for role, own in guess_columns(frame).items()}


def fit_table(frame: pd.DataFrame, names: Mapping[str, str], random: str) -> Found:
    """Fit the three columns by REML and GEE.

    Parameters
    ----------
    frame : DataFrame
    names : mapping
        Column by role.
    random : str
        A key of `FORMULAS`.

    Raises
    ------
    HierlmmError
        If they cannot be fitted.
    """
    columns = [names[role] for role in ROLES]
    if len(set(columns)) < len(ROLES):
        received, reason = (
            f"one column for two roles ({', '.join(map(quote, columns))})",
            "each role has its own column",
        )
        raise DataError(received, reason, "choose three different columns", SEE)
    every = frame[columns].set_axis(["subject", "time", "y"], axis=1)
    for name in ("time", "y"):
        if not pd.api.types.is_numeric_dtype(every[name].dtype) or pd.api.types.is_bool_dtype(every[name].dtype):
            received, reason = f"the column {quote(columns[1 if name == 'time' else 2])}", "it does not hold numbers"
            raise DataError(received, reason, "choose a column of numbers as time and as outcome", SEE)
    data = every.dropna().reset_index(drop=True)
    model = TwoLevelModel.from_formula(FORMULAS[random], data)
    fits = {"REML": model.fit_reml(), "GEE": model.fit_gee("exchangeable")}
    return Found(dict(names), data, len(every) - len(data), fits)


def numbers(*, example: str, random: str, **columns: str) -> Found:
    """The fits of an example, whose columns are guessed where they are not given."""
    frame = load_dataset(example)
    return fit_table(frame, chosen_columns(frame, columns), random)


def show(found: Found) -> str:
    """Trajectories with the subjects' lines, and the fits."""
    reml, names = found.fits["REML"], found.names
    names = {role: name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for role, name in names.items()}
    said = say(
        "own_data.used", rows=len(found.data), subjects=reml.n_subjects, dropped=found.dropped or "", drawn=_few(found)
    )
    estimates = {name: fit.summary()[["estimate", "se", "lower", "upper"]] for name, fit in found.fits.items()}
    frame = pd.concat(estimates)
    rename = {"Intercept": "intercept", "time": f"slope of {names['time']}"}
    frame.index = pd.Index([f"{name}: {rename[str(coef)]}" for name, coef in frame.index])
    sd = {f"sd of {rename[str(term)]}": value for term, value in reml.sd_b.items()}
    spread = pd.DataFrame({"REML": {**sd, "σ": reml.sigma}})
    notes = "".join(paragraph(note) for note in reml.warnings)
    pictures = charts([_trajectories(found, names), _lines(found, names)])
    tables = table(frame, say("own_data.mean")) + table(spread, say("own_data.spread"))
    return pictures + paragraph(said) + tables + notes


def _few(found: Found) -> str:
    return str(DRAWN) if found.data["subject"].nunique() > DRAWN else ""


def _subjects(found: Found) -> list[Any]:
    every = found.data["subject"].unique()
    return list(every[np.unique(np.linspace(0, len(every) - 1, DRAWN).round().astype(int))])


def _trajectories(found: Found, names: Mapping[str, str]) -> str:
    data = found.data
    chart = Chart(
        f"{names['outcome']}: trajectories", limits(data["time"]), limits(data["y"]), names["time"], names["outcome"]
    )
    for _, rows in data[data["subject"].isin(_subjects(found))].sort_values("time").groupby("subject", sort=False):
        chart.line(rows["time"], rows["y"], "data thin", "subjects")
    return chart.svg()


def _lines(found: Found, names: Mapping[str, str]) -> str:
    """Lines by REML, each over the times of its subject."""
    data, reml = found.data, found.fits["REML"]
    title = f"{names['outcome']}: lines of the mixed model"
    chart = Chart(title, limits(data["time"]), limits(data["y"]), names["time"], names["outcome"])
    spans = data.groupby("subject")["time"].agg(["min", "max"])
    for label in _subjects(found):
        a, b = reml.subject_coef.loc[label, ["Intercept", "time"]]
        ends = spans.loc[label].to_numpy()
        chart.line(ends, a + b * ends, "c0 thin", "subjects")
    ends = np.array([data["time"].min(), data["time"].max()])
    for name, kind in (("REML", "ink bold"), ("GEE", "c3 dashed")):
        beta = found.fits[name].beta
        chart.line(ends, beta["Intercept"] + beta["time"] * ends, kind, f"population, {name}")
    return chart.svg()


def refusal(error: HierlmmError, names: Mapping[str, str] | None = None) -> str:
    """A refusal in its four parts, as HTML; with what the columns were called."""
    parts = {"Received": error.received, "Why not": error.reason, "To do": error.remedy, "Read": error.see}
    lines = [f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in parts.items()]
    called = "" if names is None else paragraph(say("own_data.names", **names))
    return f'<div class="refusal" role="alert"><dl>{"".join(lines)}</dl>{called}</div>'


def _slots(values: Mapping[str, Any]) -> dict[str, Any]:
    file = values.get("file")
    source = f"read_data({file!r}).frame" if file else f"hl.load_dataset({values['example']!r})"
    names = values.get("columns") or guess_columns(load_dataset(values["example"]))
    columns = [names[role] for role in ROLES]
    reader = "from hierlmm.report.read import read_data\n" if file else ""
    return {"source": source, "columns": columns, "formula": FORMULAS[values["random"]], "reader": reader}


ROOM = Room("own_data", SETTINGS, numbers, show, _slots)
