"""Which visits are missing, in which subjects, and which rows a model dropped and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.design.design import Design
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.patterns import draw_patterns
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import apart, column_names, require_columns, to_pandas
from hierlmm.missingness.tables import counted
from hierlmm.missingness.visits import SEE, Visits, visits_of
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import count, sayer

SAY = sayer(__file__)
SHOWN = 10
SEEN, GONE = "x", "."
KINDS = ("complete", "monotone", "intermittent", "nothing measured")
VISIT_COLUMNS = ("group", "measured", "share", "dropped_out", "mean")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class MissingPatterns(Result):
    """Patterns of measured and missing visits. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each pattern, a copy: ``pattern`` (``x`` measured, ``.`` missing, in the order of the visits),
        ``kind`` (complete; monotone: nothing after the first gap; intermittent; nothing measured), ``subjects``, their
        ``share``, and their number in each group (a group called ``share`` is ``at share``).
    visits : DataFrame
        One row for each visit: ``measured`` and its ``share`` of all subjects, ``dropped_out`` (measured before, never
        again), ``mean``; by group, if there is one.
    response, time : str
    n_subjects : int
    n_dropped : int
        Rows that the model dropped because of missing values.
    """

    table: pd.DataFrame
    visits: pd.DataFrame
    response: str
    time: str
    n_subjects: int
    n_dropped: int

    @checked
    @pictured
    def plot(self, *, max_patterns: int = 16, **figure: Unpack[Figure]) -> Any:
        """Draw the patterns, the most frequent first: visits from left to right, filled where they were measured.

        Parameters
        ----------
        max_patterns : int
            Most patterns that are drawn.

        Returns
        -------
        Picture
        """
        return draw_patterns(self, max_patterns, figure)

    def subjects_of(self, kind: str) -> int:
        """Number of subjects of a kind of pattern: ``"complete"``, ``"monotone"``, ``"intermittent"``, ...

        Parameters
        ----------
        kind : str
        """
        return int(self.table.loc[self.table["kind"] == kind, "subjects"].sum())

    def _page(self) -> Page:
        planned = self.n_subjects * len(self.table["pattern"].iloc[0])
        found = int((self.table["subjects"] * self.table["pattern"].str.count(SEEN)).sum())
        said = SAY(
            "patterns.count",
            missing=planned - found,
            planned=planned,
            percent=100.0 * (planned - found) / planned,
            complete=self.subjects_of("complete"),
            monotone=self.subjects_of("monotone"),
            intermittent=self.subjects_of("intermittent"),
        )
        notes = [SAY("patterns.nothing", n=n)] if (n := self.subjects_of("nothing measured")) else []
        notes += [SAY("patterns.dropped", rows=count(self.n_dropped, "row"))] if self.n_dropped else []
        table = counted(self.table, f"Patterns of {self.response}")
        by_visit = counted(self.visits.reset_index(), f"By {self.time}")
        visits = len(self.table["pattern"].iloc[0])
        title = f"Missing data of {self.response}: {self.n_subjects:,} subjects, {visits} visits ({self.time})"
        return Page(title, ["", table, "", by_visit, "", Paragraph(said), *map(Paragraph, notes)])


@checked
def missing_patterns(
    data: Any,
    *,
    response: str | None = None,
    subject: str | None = None,
    time: str | None = None,
    by: str | None = None,
) -> MissingPatterns:
    """Which visits were measured and which are missing, as patterns with their frequencies.

    A visit is missing where a subject has no row for it, or no response in the row.

    Parameters
    ----------
    data : TwoLevelModel, MarginalModel, fit or table
        A model, whose rows are the complete ones; or a long table, with ``response``, ``subject`` and ``time`` named.
    response, subject : str, optional
        Columns of a table.
    time : str, optional
        Column of the visits; of a model by default the time of its residual structure, or its one level-1 variable.
    by : str, optional
        Column that is constant within subjects: counts for each of its values, too.

    Returns
    -------
    MissingPatterns

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental").iloc[:-2]
    >>> found = hl.missing_patterns(dental, response="distance", subject="subject", time="age")
    >>> found.table["pattern"].tolist()
    ['xxxx', 'xx..']
    """
    return patterns_of(visits_of(data, response, subject, time, by))


def patterns_of(visits: Visits) -> MissingPatterns:
    """The patterns of a table of visits."""
    seen = np.isfinite(visits.y)
    words = pd.Series(["".join(np.where(row, SEEN, GONE)) for row in seen], index=visits.subjects)
    counts = words.value_counts()
    table = pd.DataFrame({"pattern": counts.index, "subjects": counts.to_numpy()})
    table.insert(1, "kind", [_kind(word) for word in table["pattern"]])
    table["rank"] = table["kind"].map(KINDS.index)
    table = table.sort_values(["rank", "subjects", "pattern"], ascending=[True, False, False], ignore_index=True)
    table = table.drop(columns="rank").assign(share=table["subjects"] / len(words))
    groups = [] if visits.group is None else list(pd.unique(visits.group.dropna()))
    names = apart(map(str, groups), table.columns)
    for value in groups:
        own = words[visits.group == value].value_counts().reindex(table["pattern"], fill_value=0)
        table[names[str(value)]] = own.to_numpy()
    out = visits.last[:, None] == np.arange(seen.shape[1]) - 1
    out[:, 0] = False
    members = {v: (visits.group == v).to_numpy() for v in groups} or {"all": np.ones(len(words), dtype=bool)}
    rows, label = [], apart([visits.time], VISIT_COLUMNS)[visits.time]
    for value, own in members.items():
        for k, time in enumerate(visits.times):
            measured = visits.y[own, k][seen[own, k]]
            row = {"group": value, label: time, "measured": len(measured), "share": len(measured) / own.sum()}
            row["dropped_out"] = int(out[own, k].sum())
            rows.append(row | {"mean": measured.mean() if len(measured) else np.nan})
    by_visit = pd.DataFrame(rows).set_index(["group", label])
    by_visit = by_visit if groups else by_visit.droplevel("group")
    return MissingPatterns(table, by_visit, visits.response, visits.time, len(words), visits.n_dropped)


def _kind(pattern: str) -> str:
    """What a pattern is called."""
    if SEEN not in pattern:
        return "nothing measured"
    if GONE not in pattern:
        return "complete"
    return "monotone" if GONE + SEEN not in pattern else "intermittent"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class DroppedRows(Result):
    """Rows of a table that a model left out, and why. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each row that is left out, with its index, a copy: the subject, ``missing`` (the columns without
        value) and the values of all columns in use (a column called ``missing`` is ``at missing``).
    columns : DataFrame
        By column: rows without a value, and rows that are left out for this column alone.
    subjects : DataFrame
        By subject that loses rows: how many, and how many are left.
    n_rows : int
        Rows of the table.
    subject : str
        Column of ``table`` that holds the subjects.
    """

    table: pd.DataFrame
    columns: pd.DataFrame
    subjects: pd.DataFrame
    n_rows: int
    subject: str

    def _page(self) -> Page:
        lost = int((self.subjects["left"] == 0).sum())
        title = f"{len(self.table)} of {self.n_rows} rows have missing values and are left out"
        if self.table.empty:
            return Page("No row has missing values", [])
        said = SAY("patterns.lost", subjects=count(len(self.subjects), "subject"), lost=lost)
        shown, more = self.table.reset_index().head(SHOWN), len(self.table) - SHOWN
        caption = f"The first {SHOWN} of {len(self.table)} rows" if more > 0 else "The rows"
        first = counted(shown[["index", self.subject, "missing"]], caption)
        rest = [Paragraph(f"... and {count(more, 'more row')}: see table.")] if more > 0 else []
        table = counted(self.columns.reset_index(), "By column")
        return Page(title, ["", table, "", Paragraph(said), "", first, *rest])


@checked
def dropped_rows(model: Any, data: Any) -> DroppedRows:
    """Which rows of a table ``missing="drop"`` leaves out of a model, and for which columns.

    Parameters
    ----------
    model : TwoLevelModel, MarginalModel or fit
        It says which columns are in use.
    data : table
        What the model was made of.

    Returns
    -------
    DroppedRows

    Raises
    ------
    DataError
        If it is another table: its complete rows are not as many as the model's.
    """
    design = getattr(model, "design", None)
    if not isinstance(design, Design):
        received, reason = f"a {type(model).__name__} as model", "rows are left out of models"
        raise SpecificationError(received, reason, "give the model first and then its data", SEE)
    columns, subject = [str(c) for c in design.frame.columns], design.hierarchy.subject
    require_columns(columns, column_names(data), "model")
    frame = to_pandas(data, columns)
    absent = frame.isna()
    gone = absent.any(axis=1)
    if int((~gone).sum()) != design.n_obs:
        received = f"a table with {int((~gone).sum())} complete rows, for a model of {design.n_obs}"
        raise DataError(received, "the model was made of other rows", "give the data of the model", SEE)
    names = apart(columns, ("index", "missing"))
    table = frame.loc[gone].rename(columns=names).rename_axis(index="index")
    who = table.pop(names[subject])
    table.insert(0, who.name, who)
    table.insert(1, "missing", [", ".join(absent.columns[row]) for row in absent[gone].to_numpy()])
    alone = absent.sum(axis=1) == 1
    by_column = pd.DataFrame({"missing": absent.sum(), "alone": absent[alone].sum()}).rename_axis(index="column")
    by_column = by_column[by_column["missing"] > 0]
    per = pd.DataFrame({"dropped": gone.groupby(frame[subject]).sum(), "left": (~gone).groupby(frame[subject]).sum()})
    per = per[per["dropped"] > 0].astype(int).rename_axis(index=apart([subject], per.columns)[subject])
    return DroppedRows(table, by_column, per, len(frame), names[subject])
