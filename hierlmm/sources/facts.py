"""What must be known of all rows before terms are learnt: counts, and subjects in whom everything occurs that does.

Terms are learnt from the rows of some subjects. What is true of them is true of all rows, because with subjects drawn
at random come witnesses: for every level of a factor a subject that has it, for every number the subjects with its
smallest and largest value, for every covariate a subject in whom it varies, if there is one, and the subject with most
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hierlmm.design.formula import categorical_arguments
from hierlmm.design.residual import INDEPENDENT, Residual
from hierlmm.design.rows import Said, columns_in_use
from hierlmm.errors import DataError
from hierlmm.frames import refuse_missing, tell_dropped
from hierlmm.sources.engine import LARGE, Engine, as_frame, literal, quoted

SAMPLE = 400
"""Subjects drawn at random."""
MOST_LEVELS = 5_000
SEED = "hierlmm"


@dataclass(frozen=True)
class Facts:
    """All rows in numbers.

    Attributes
    ----------
    rows : Engine
        Complete rows of the columns in use.
    n_obs, n_subjects, n_dropped : int
    drawn, witnesses : list
        Subjects that the terms are learnt from: drawn at random, and those that were needed besides.
    """

    rows: Engine
    n_obs: int
    n_subjects: int
    n_dropped: int
    drawn: list[Any]
    witnesses: list[Any]


def look_through(engine: Engine, said: Said, residual: Residual, missing: str) -> Facts:
    """Ask an engine what must be known of all rows.

    Raises
    ------
    DataError, FormulaError, SpecificationError
        As for a table in memory, with its counts.
    """
    _, covariates = columns_in_use(list(engine.types), said, residual)
    rows, n_obs, n_dropped = complete_rows_of(engine, said, missing, residual)
    asked = [*covariates, *([said.group] if said.group else [])]
    n_subjects, found = _subjects(rows, said.subject, list(dict.fromkeys(asked)))
    labels = {name for factor in said.factors for name in categorical_arguments(factor)}
    for name in dict.fromkeys(asked):
        if not rows.is_number(name) or name in labels:
            found += _with_levels(rows, said.subject, name)
    drawn = _drawn(rows, said.subject)
    witnesses = [label for label in dict.fromkeys(found) if label is not None and label not in set(drawn)]
    return Facts(rows, n_obs, n_subjects, n_dropped, drawn, witnesses)


def complete_rows_of(
    engine: Engine, said: Said, missing: str, residual: Residual = INDEPENDENT
) -> tuple[Engine, int, int]:
    """Complete rows of the columns in use, how many they are, and how many were left out.

    Raises
    ------
    DataError, FormulaError, SpecificationError
        If columns are absent, or values are missing and may not be.
    """
    columns, _ = columns_in_use(list(engine.types), said, residual)
    rows = engine.select(columns, "")
    n_obs, n_dropped = _complete(rows, columns, said.subject, missing)
    if n_dropped:
        rows = rows.select(columns, f"NOT ({' OR '.join(map(rows.missing, columns))})")
    return rows, n_obs, n_dropped


def _complete(rows: Engine, columns: Sequence[str], subject: str, missing: str) -> tuple[int, int]:
    """Complete rows and others; refuses or tells of missing values."""
    conditions = [rows.missing(name) for name in columns]
    anything = " OR ".join(conditions)
    counted = [f"count(*) FILTER (WHERE {own}) AS {quoted(f'm{k}')}" for k, own in enumerate(conditions)]
    question = f"SELECT count(*) AS n, count(*) FILTER (WHERE {anything}) AS gone, {', '.join(counted)} FROM {{rows}}"
    answer = rows.ask(question).to_pylist()[0]
    n, gone = int(answer["n"]), int(answer["gone"])
    if n == 0:
        raise DataError("a table without rows", "there is nothing to fit", "check the filters applied to the data")
    if gone:
        counts = {name: int(answer[f"m{k}"]) for k, name in enumerate(columns) if answer[f"m{k}"]}
        refuse_missing(counts, gone, n, missing)
        own = quoted(subject)
        kept = f"count(DISTINCT {own}) FILTER (WHERE NOT ({anything})) AS kept"
        before = rows.ask(f"SELECT count(DISTINCT {own}) AS n, {kept} FROM {{rows}}").to_pylist()[0]
        lost: list[str] = []
        if before["kept"] < before["n"]:
            lost = [f"{before['n'] - before['kept']} of {before['n']} subjects ({subject!r})"]
        tell_dropped(counts, gone, n, lost)
    return n - gone, gone


def _by_subject(subject: str, covariates: Sequence[str]) -> str:
    ends = [
        f"min({quoted(name)}) AS lo{k}, max({quoted(name)}) AS hi{k}, "
        f"min({quoted(name)}) <> max({quoted(name)}) AS v{k}"
        for k, name in enumerate(covariates)
    ]
    parts = ", ".join([f"{quoted(subject)} AS subject", "count(*) AS n", *ends])
    return f"SELECT {parts} FROM {{rows}} GROUP BY {quoted(subject)}"


def _subjects(rows: Engine, subject: str, covariates: Sequence[str]) -> tuple[int, list[Any]]:
    """How many subjects there are, and witnesses of what they have."""
    found = ["max_by(subject, n) AS most"]
    for k, name in enumerate(covariates):
        found.append(f"min(subject) FILTER (WHERE v{k}) AS varies{k}")
        if rows.is_number(name):
            found += [f"min_by(subject, lo{k}) AS least{k}", f"max_by(subject, hi{k}) AS greatest{k}"]
    question = f"SELECT count(*) AS j, {', '.join(found)} FROM ({_by_subject(subject, covariates)}) AS s"
    answer = rows.ask(question).to_pylist()[0]
    return int(answer.pop("j")), list(answer.values())


def _with_levels(rows: Engine, subject: str, name: str) -> list[Any]:
    """A subject for every level of a factor."""
    own = quoted(name)
    question = f"SELECT {own} AS level, min({quoted(subject)}) AS subject FROM {{rows}} GROUP BY {own}"
    answer = rows.ask(f"{question} LIMIT {MOST_LEVELS + 1}")
    if answer.num_rows > MOST_LEVELS:
        received = f"a factor {name!r} with more than {MOST_LEVELS:,} levels"
        reason = "each of them would be a column of X"
        raise DataError(received, reason, "use fewer levels, or make it a number", LARGE)
    return answer["subject"].to_pylist()


def _drawn(rows: Engine, subject: str) -> list[Any]:
    """Subjects drawn at random: those whose labels a hash function puts first, whatever the order of the rows."""
    own = quoted(subject)
    key = f"{rows.hash}(concat(CAST({own} AS {rows.text}), '{SEED}'))"
    question = f"SELECT {own} AS subject FROM (SELECT DISTINCT {own} FROM {{rows}}) AS s ORDER BY {key} LIMIT {SAMPLE}"
    return list(rows.ask(question)["subject"].to_pylist())


def rows_of(facts: Facts, subject: str) -> pd.DataFrame:
    """All rows of the subjects that terms are learnt from, with the levels that the table declares."""
    labels = ", ".join(map(literal, [*facts.drawn, *facts.witnesses]))
    table = facts.rows.ask(f"SELECT * FROM {{rows}} WHERE {quoted(subject)} IN ({labels})")
    return as_frame(table, facts.rows.categories)
