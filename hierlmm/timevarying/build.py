"""Columns of time-varying covariates for the rows of the outcome, and where every value came from: counts and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.drawing.figure import as_verb
from hierlmm.drawing.histories import plot_time_varying
from hierlmm.frames import MISSING_CHOICES, column_names, quote, require_columns, shorten, to_pandas
from hierlmm.options import checked
from hierlmm.results import Items, Page, Paragraph, Result
from hierlmm.text import fill, templates
from hierlmm.timevarying.evaluate import Answer, evaluate
from hierlmm.timevarying.history import TIES, History, data_error, make_history, one_of, subject_codes, time_values
from hierlmm.timevarying.rules import Cumulative, Rule, TimeSince, specification_error

SOURCES = {
    "observed": "observed",
    "carried": "carried",
    "interpolated": "interpolated",
    "no_history_yet": "no history yet",
    "too_old": "too old",
    "not_measured": "not measured then",
    "subject_absent": "subject without history",
}
"""Columns of the report and categories, in the order of the codes of `hierlmm.timevarying.evaluate`."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class TimeVarying(Result):
    """A table with time-varying covariates, and where their values came from.

    Attributes
    ----------
    data : pandas.DataFrame
        The outcome table with the new columns; its rows in their order, its index kept.
    report : pandas.DataFrame
        One row per new column. ``rule`` in words; numbers of rows whose value was ``observed`` (measured at the time
        wanted), ``carried`` forward, ``interpolated``, and how many of these used a measurement after the row's time
        (``from_future``); numbers of rows without a value because the subject has ``no_history_yet``, the last value
        is ``too_old``, nothing was measured then (``not_measured``), or the subject is not in the history at all
        (``subject_absent``); ``largest_gap``, the longest stretch of time without a measurement that a value bridges;
        measurements ``ignored`` because they are missing, or ``merged`` with others of the same time. The area of
        `Cumulative` is "observed" where it ends at a measurement, "carried" where its last stretch holds the last
        value.
    source : pandas.DataFrame
        The same for each row and new column: a category such as ``"carried"``.
    sentences : tuple of str
        The report in words.
    rules : mapping of str to rule
        The new columns.
    measured : dict of str to DataFrame
        The measurements of each covariate that were used, of the subjects in the data: subject, time, value.
    subject, time : str
        Columns of ``data``.
    """

    data: pd.DataFrame
    report: pd.DataFrame
    source: pd.DataFrame
    sentences: tuple[str, ...]
    rules: Mapping[str, Rule]
    measured: dict[str, pd.DataFrame]
    subject: str
    time: str

    plot = as_verb(plot_time_varying, "variable", name="plot")

    @property
    def frame(self) -> pd.DataFrame:
        """The report."""
        return self.report

    def _page(self) -> Page:
        head, *others = self.sentences
        printed = [line for s in others for line in Paragraph(s, 100, "  ", "    ").lines()]
        return Page(head, [Items("", others, printed)])


@checked
def time_varying(
    data: Any,
    columns: Mapping[str, Rule],
    *,
    subject: str,
    time: str,
    history: Any = None,
    history_subject: str | None = None,
    history_time: str | None = None,
    missing: str = "raise",
    ties: str = "raise",
) -> TimeVarying:
    """Give every row the value of a covariate that its history up to the row's time implies.

    No value depends on a measurement after the row's own time, unless a rule says ``future=True``.

    Parameters
    ----------
    data : DataFrame
        The outcome table, one row per measurement of the outcome: pandas, or anything narwhals reads. Not changed.
    columns : mapping of str to rule
        New column names, and what they are: `CurrentValue`, `LastValue`, `Lag`, `Interpolate`, `Cumulative` or
        `TimeSince`.
    subject, time : str
        Columns of `data`: who, and when (a number).
    history : DataFrame, optional
        The measurements of the covariates, at times of their own and in any order of rows. By default `data` itself.
    history_subject, history_time : str, optional
        The columns of `history`, if they have other names. The unit and origin of time must be the same.
    missing : {"raise", "drop"}
        Missing measurements of a covariate are refused, or left out and counted: earlier ones then stand in for them.
    ties : {"raise", "mean", "last"}
        Several measurements of one subject at one time are refused, averaged, or the last row is taken.

    Returns
    -------
    TimeVarying
        ``.data`` is the table for a model; printing it says what was observed, carried and interpolated.

    Raises
    ------
    DataError
        If subjects, times or measurements are missing, measured twice, infinite or not numeric where numbers are
        needed; if the two tables have no subject in common; if a rule needs the future and may not use it; if an
        origin lies before a first measurement or after a row.
    SpecificationError
        If a name is taken, or a rule or option does not exist.

    Notes
    -----
    Rows before a subject's first measurement, and of subjects without measurements, get a missing value, counted in
    the report; models refuse missing values unless told otherwise. Times that differ by no more than rounding error
    (16 units in the last place of the largest time) are the same time.

    Examples
    --------
    >>> import pandas as pd
    >>> from hierlmm import Cumulative, LastValue
    >>> visits = pd.DataFrame({"id": [1, 1, 2], "year": [1.0, 3.0, 1.0]})
    >>> lab = pd.DataFrame({"id": [1, 1, 2], "year": [0.0, 2.0, 2.0], "x": [10.0, 14.0, 9.0]})
    >>> rules = {"x": LastValue("x"), "area": Cumulative("x")}
    >>> time_varying(visits, rules, subject="id", time="year", history=lab).data
       id  year     x  area
    0   1   1.0  10.0  10.0
    1   1   3.0  14.0  38.0
    2   2   1.0   NaN   NaN
    """
    _check_options(columns, missing, ties)
    rows = to_pandas(data)
    require_columns([subject], column_names(rows), "subject")
    require_columns([time], column_names(rows), "time")
    for name in columns:
        if name in rows:
            received = f"a new column {name!r}"
            raise specification_error(received, "the data already have a column of this name", "choose another name")
    who, labels = subject_codes(rows[subject], "the data")
    at = time_values(rows[time], "the data")
    own = (subject if history_subject is None else history_subject, time if history_time is None else history_time)
    from_table = rows if history is None else history
    histories, n_subjects_shared = _histories(from_table, columns, labels, *own, missing, ties)
    answers = {n: evaluate(rule, histories[rule.variable], who, at, labels) for n, rule in columns.items()}
    made = {name: pd.Series(answer.column).set_axis(rows.index) for name, answer in answers.items()}
    report = counts(columns, answers, histories)
    head = (
        f"{len(columns)} time-varying covariate{'s' if len(columns) > 1 else ''} for {len(rows)} rows of {len(labels)} "
        f"subject{'' if len(labels) == 1 else 's'} ({subject!r}), from measurements in "
        f"{'the same table' if history is None else 'a table of their own'}"
    )
    if n_subjects_shared < len(labels):
        head += f", which has {n_subjects_shared} of these subjects"
    words = (f"{head}.", *sentences(report, columns, time))
    measured = {
        name: pd.DataFrame({subject: labels[own.codes], time: own.times, name: own.measured.to_numpy()})
        for name, own in histories.items()
    }
    source = sources(answers, rows.index)
    return TimeVarying(rows.assign(**made), report, source, words, dict(columns), measured, subject, time)


def _check_options(columns: Mapping[str, Rule], missing: str, ties: str) -> None:
    if not isinstance(columns, Mapping) or not columns:
        remedy = 'pass a dictionary such as {"x_before": hl.Lag("x", lag=1)}'
        raise specification_error(f"columns={columns!r}", "it must say which columns to make, and how", remedy)
    for name, rule in columns.items():
        if not isinstance(name, str) or not isinstance(rule, Rule):
            kinds = "CurrentValue, LastValue, Lag, Interpolate, Cumulative or TimeSince"
            remedy = f'use {kinds}, as in {{"x_1": hl.Lag("x", 1)}}'
            raise specification_error(f"the column {name!r}: {rule!r}", "it is not a name with a rule", remedy)
    for option, value, allowed in (("missing", missing, MISSING_CHOICES), ("ties", ties, TIES)):
        one_of(f"{option}={value!r}", value, allowed)


def _histories(
    table: Any, columns: Mapping[str, Rule], labels: pd.Index, subject: str, time: str, missing: str, ties: str
) -> tuple[dict[str, History], int]:
    """The history of every covariate asked for, by its name in the table, and the number of subjects in both tables."""
    names = list(dict.fromkeys(rule.variable for rule in columns.values()))
    present = column_names(table)
    require_columns([subject], present, "subject of the history")
    require_columns([time], present, "time of the history")
    require_columns(names, present, "covariate")
    measured = to_pandas(table, list(dict.fromkeys([subject, time, *names])))
    own_codes, own_labels = subject_codes(measured[subject], "the history")
    if labels.dtype == own_labels.dtype:
        position = labels.get_indexer(own_labels)
    else:  # by value: 1 and 1.0 are equal, 1 and "1" are not
        position = labels.astype(object).get_indexer(own_labels.astype(object))
    shared = int((position >= 0).sum())
    if shared == 0 and len(labels) and len(own_labels):
        theirs, ours = (shorten(map(quote, found), 3) for found in (own_labels, labels))
        remedy = f"write the labels in the same way in both tables (types: {own_labels.dtype} and {labels.dtype})"
        raise data_error(f"a history of subjects {theirs}, and data of {ours}", "no subject is in both", remedy)
    codes = position.astype(np.int64)[own_codes]
    times = time_values(measured[time], "the history")
    return ({n: make_history(codes, times, measured[n], labels, missing=missing, ties=ties) for n in names}, shared)


def sources(answers: Mapping[str, Answer], index: pd.Index) -> pd.DataFrame:
    """Where the value of each row and column came from."""
    kinds = pd.CategoricalDtype(list(SOURCES.values()))
    return pd.DataFrame({n: pd.Categorical.from_codes(a.source, dtype=kinds) for n, a in answers.items()}, index=index)


def counts(rules: Mapping[str, Rule], answers: Mapping[str, Answer], histories: Mapping[str, History]) -> pd.DataFrame:
    """One row for each new column; see `hierlmm.timevarying.build.TimeVarying`."""
    rows = {n: _counts(rules[n], answer, histories[rules[n].variable]) for n, answer in answers.items()}
    table = pd.DataFrame(rows).T.rename_axis("column")
    return table.astype({c: "float64" if c == "largest_gap" else "int64" for c in table.columns if c != "rule"})


def _counts(rule: Rule, answer: Answer, history: History) -> dict[str, Any]:
    found = dict(zip(SOURCES, np.bincount(answer.source, minlength=len(SOURCES)), strict=True))
    known = {name: found.pop(name) for name in ("observed", "carried", "interpolated")}
    used = {"rule": rule.describe(), **known, "from_future": int(answer.future.sum())}
    gap = float(np.max(answer.gap, initial=0.0))
    return {**used, **found, "largest_gap": gap, "ignored": history.n_missing, "merged": history.n_tied}


def sentences(report: pd.DataFrame, columns: Mapping[str, Rule], time: str) -> list[str]:
    """The report in words, and whether anything was taken from a row's future."""
    found = [_sentence(n, pd.Series(report.loc[n]), rule, time) for n, rule in columns.items()]
    if int(report["from_future"].sum()) == 0:
        judged = [repr(n) for n, r in columns.items() if isinstance(r, TimeSince) and callable(r.when)]
        name = "condition" if judged else "no_future"
        found.append(fill(templates(__file__)["report"][name], names=", ".join(judged)))
    return found


def _sentence(name: str, found: pd.Series, rule: Rule, time: str) -> str:
    """One column of the report in words."""
    words = templates(__file__)["report"]
    kind = "since" if isinstance(rule, TimeSince) else "area" if isinstance(rule, Cumulative) else "value"
    parts = [fill(text, n=found[key]) for key, text in words[kind].items() if found[key] or key == "observed"]
    gap, reasons = found["largest_gap"], dict(words["missing"])
    if gap > 0:
        parts.append(f"longest {'time' if kind == 'since' else 'gap bridged'} {gap:.4g} ({time!r})")
    if isinstance(rule, TimeSince) and rule.when is not None:
        reasons["no_history_yet"] = words["no_such"]
    gone = [f"{found[key]} ({why})" for key, why in reasons.items() if found[key]]
    more = [f" Missing in {', '.join(gone)}."] if gone else []
    more += [fill(text, n=found[key]) for key, text in words["more"].items() if found[key]]
    return f"{name}: {found['rule']}; {', '.join(parts)}.{''.join(more)}"
