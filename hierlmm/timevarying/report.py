"""The report of time-varying covariates: counts of where every value came from, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.timevarying.evaluate import (
    ABSENT,
    CARRIED,
    INTERPOLATED,
    NOT_THEN,
    NOT_YET,
    OBSERVED,
    TOO_OLD,
    Answer,
)
from hierlmm.timevarying.history import History
from hierlmm.timevarying.rules import Cumulative, Rule, TimeSince

__all__ = ["counts", "sentences", "sources"]

SOURCES = {
    OBSERVED: "observed",
    CARRIED: "carried",
    INTERPOLATED: "interpolated",
    NOT_YET: "no history yet",
    TOO_OLD: "too old",
    NOT_THEN: "not measured then",
    ABSENT: "subject without history",
}


def sources(answers: Mapping[str, Answer], index: pd.Index) -> pd.DataFrame:
    """Where the value of each row and column came from."""
    kinds = pd.CategoricalDtype(list(SOURCES.values()))
    return pd.DataFrame({n: pd.Categorical.from_codes(a.source, dtype=kinds) for n, a in answers.items()}, index=index)


def counts(
    columns: Mapping[str, Rule], answers: Mapping[str, Answer], histories: Mapping[str, History]
) -> pd.DataFrame:
    """One row for each new column; see `hierlmm.timevarying.build.TimeVarying`."""
    rows = {n: _counts(columns[n], answer, histories[columns[n].variable]) for n, answer in answers.items()}
    table = pd.DataFrame(rows).T.rename_axis("column")
    return table.astype({c: "float64" if c == "largest_gap" else "int64" for c in table.columns if c != "rule"})


def _counts(rule: Rule, answer: Answer, history: History) -> dict[str, Any]:
    found = np.bincount(answer.source, minlength=len(SOURCES))
    return {
        "rule": rule.describe(),
        "observed": found[OBSERVED],
        "carried": found[CARRIED],
        "interpolated": found[INTERPOLATED],
        "from_future": int(answer.future.sum()),
        "no_history_yet": found[NOT_YET],
        "too_old": found[TOO_OLD],
        "not_measured": found[NOT_THEN],
        "subject_absent": found[ABSENT],
        "largest_gap": float(np.max(answer.gap, initial=0.0)),
        "ignored": history.n_missing,
        "merged": history.n_tied,
    }


def sentences(report: pd.DataFrame, columns: Mapping[str, Rule], time: str) -> list[str]:
    """The report in words, and whether anything was taken from a row's future."""
    found = [_sentence(n, pd.Series(report.loc[n]), rule, time) for n, rule in columns.items()]
    if int(report["from_future"].sum()) == 0:
        judged = [repr(n) for n, r in columns.items() if isinstance(r, TimeSince) and callable(r.when)]
        found.append(
            f"No rule was given anything measured after its row's time; the condition of {', '.join(judged)} saw a "
            "subject's own measurements up to the one it judges."
            if judged
            else "No value depends on anything measured after its row's time."
        )
    return found


def _sentence(name: str, found: pd.Series, rule: Rule, time: str) -> str:
    """One column of the report in words."""
    words = {
        "observed": "measured at the time wanted in {} rows",
        "carried": "carried forward in {}",
        "interpolated": "interpolated in {}",
    }
    if isinstance(rule, Cumulative):
        words = {
            "observed": "ends at a measurement in {} rows",
            "carried": "the last stretch holds the last value in {}",
            "interpolated": "the last stretch is interpolated in {}",
        }
    if isinstance(rule, TimeSince):
        words = {"observed": "zero in {} rows", "carried": "positive in {}"}
    parts = [text.format(found[key]) for key, text in words.items() if found[key] or key == "observed"]
    gap = found["largest_gap"]
    if gap > 0:
        parts.append(f"longest {'time' if isinstance(rule, TimeSince) else 'gap bridged'} {gap:.4g} ({time!r})")
    text = f"{name}: {found['rule']}; {', '.join(parts)}."
    none = "no measurement yet meets the condition" if isinstance(rule, TimeSince) and rule.when is not None else ""
    reasons = {
        "no_history_yet": none or "no measurement comes before",
        "too_old": "the last value is too old",
        "not_measured": "nothing was measured then",
        "subject_absent": "the subject has no measurement at all",
    }
    gone = [f"{found[key]} ({why})" for key, why in reasons.items() if found[key]]
    if gone:
        text += f" Missing in {', '.join(gone)}."
    if found["ignored"]:
        text += f" {found['ignored']} measurements with a missing value were left out."
    if found["merged"]:
        text += f" {found['merged']} measurements at a time that occurs before were merged."
    if found["from_future"]:
        text += f" {found['from_future']} VALUES USE A MEASUREMENT AFTER THEIR ROW'S TIME."
    return text
