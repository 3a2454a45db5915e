"""The rows of a model: complete cases of the columns that it needs, who each belongs to, and what varies by group.

A grouping factor is an index (N,) into its labels; a random term is such a factor with its columns Z (N, q), never
expanded to G*q columns. With several of them, nested or crossed, ``V = Σ_k Z_k D_k Z_k' + Σ`` where rows of the same
group meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.formula import INTERCEPT, SEE, Term, unquoted, variables_of
from hierlmm.design.hierarchy import RandomBlock
from hierlmm.design.levels import Levels, learn_levels
from hierlmm.design.outcome import GAUSSIAN, Outcome
from hierlmm.design.residual import Residual
from hierlmm.design.terms import RandomColumns
from hierlmm.errors import DataError, FormulaError, SpecificationError
from hierlmm.frames import column_names, complete_rows, quote, require_columns, shorten, to_pandas
from hierlmm.frozen import OwnArrays
from hierlmm.groups import first_rows


@dataclass(frozen=True)
class Grouping(OwnArrays):
    """A grouping factor: the position (N,) of every row's group among its labels (G,)."""

    index: IntArray
    labels: pd.Index

    @property
    def sizes(self) -> IntArray:
        """Rows of each group, (G,)."""
        return np.bincount(self.index, minlength=len(self.labels))


@dataclass(frozen=True)
class RandomTerm(OwnArrays):
    """Random effects of one grouping factor: which columns vary, who each row belongs to, and their values Z (N, q)."""

    columns: RandomColumns
    group: Grouping
    Z: FloatArray

    def covariance(self, D: ArrayLike) -> FloatArray:
        """Z D Z' where rows share a group, 0 elsewhere: what the term adds to the covariance of the rows, (N, N)."""
        index = self.group.index
        return np.where(index[:, None] == index, self.Z @ np.asarray(D, dtype=np.float64) @ self.Z.T, 0.0)


@dataclass(frozen=True)
class Rows(OwnArrays):
    """Rows of the data as arrays, in their order.

    Attributes
    ----------
    frame : pandas.DataFrame
        The columns that the model needs.
    subject : Grouping
        Who each row belongs to.
    y, offset : (N,)
    X : (N, p)
    X1 : (N, k)
    W : (J, p)
        Level-2 values: the multiplier of each fixed coefficient in its subject's level-1 coefficient.
    n_dropped : int
        Rows with missing values, left out.
    trials : (N,)
        Trials of a binomial response, else 1.
    note : str
        What the print says of the response: which level is a success.
    categories : tuple
        Labels of the categories of an ordinal response, lowest first.
    kept : (N,), optional
        Places in the table that the model was given, where rows were left out.
    """

    frame: pd.DataFrame
    subject: Grouping
    y: FloatArray
    offset: FloatArray
    X: FloatArray
    X1: FloatArray
    W: FloatArray
    n_dropped: int
    trials: FloatArray
    note: str = ""
    categories: tuple[Any, ...] = ()
    kept: IntArray | None = None

    @property
    def n_obs(self) -> int:
        """Number of rows, N."""
        return len(self.y)

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns, where the table knew them (``data.attrs["units"]``)."""
        return dict(self.frame.attrs.get("units", {}))


class Said(NamedTuple):
    """What a model asks of the data."""

    response: str
    subject: str
    fixed: tuple[Term, ...]
    blocks: tuple[RandomBlock, ...]
    offsets: tuple[str, ...]
    level1: tuple[Term, ...] = ()
    outcome: Outcome = GAUSSIAN
    group: str | None = None
    groupings: tuple[str, ...] = ()

    @property
    def grouping_columns(self) -> tuple[str, ...]:
        """Columns that say who a row belongs to: that of the subjects, or those of several factors."""
        return self.groupings or (self.subject,)

    @property
    def factors(self) -> list[str]:
        """Factor expressions of all terms."""
        random = [t for b in self.blocks for t in b.terms]
        return list(dict.fromkeys(f for t in (*self.fixed, *self.level1, *random) for f in t))


@dataclass(frozen=True)
class Prepared:
    """Complete rows of the columns a model needs, and who each row belongs to."""

    frame: pd.DataFrame
    subject: Grouping
    levels: Levels
    n_dropped: int
    kept: IntArray | None


class ReadRows(NamedTuple):
    """Complete rows of the columns in use, which of these are covariates, how many rows were left out, which stayed."""

    frame: pd.DataFrame
    covariates: list[str]
    n_dropped: int
    kept: IntArray | None


def prepare(data: Any, said: Said, residual: Residual, missing: str) -> Prepared:
    """Read what a model needs off a table.

    Raises
    ------
    DataError, FormulaError, SpecificationError
        If columns are absent, reserved, on both sides, without rows or replication, or hold what no term can use.
    """
    read = read_rows(data, said, residual, missing)
    subject = group_by(read.frame[said.subject])
    if residual.group is not None:
        _check_groups(residual.group, read.frame, subject)
    slopes = any(t for b in said.blocks for t in b.terms)
    _check_replication(subject, slopes=slopes, marginal=not said.blocks, gaussian=said.outcome.is_gaussian)
    return with_levels(data, said, read, subject)


def read_rows(data: Any, said: Said, residual: Residual, missing: str) -> ReadRows:
    """Complete rows of what a model needs.

    Raises
    ------
    DataError, FormulaError, SpecificationError
        If columns are absent, reserved or on both sides, or no rows are there.
    """
    columns, covariates = columns_in_use(column_names(data), said, residual)
    frame = to_pandas(data, columns)
    if len(frame) == 0:
        raise DataError("a table without rows", "there is nothing to fit", "check the filters applied to the data")
    every = frame
    frame, n_dropped = complete_rows(frame, missing, said.grouping_columns)
    kept = np.flatnonzero(every.notna().all(axis=1)) if n_dropped else None
    return ReadRows(frame, covariates, n_dropped, kept)


def columns_in_use(present: Sequence[str], said: Said, residual: Residual) -> tuple[list[str], list[str]]:
    """Columns of a table that a model needs, and which of them are covariates.

    Raises
    ------
    DataError, FormulaError, SpecificationError
        If columns are absent, reserved or on both sides.
    """
    require_columns(said.grouping_columns, present, "grouping factor" if said.groupings else "subject")
    require_columns(list(residual.columns), present, "residual structure")
    require_columns([said.group] if said.group else [], present, "group")
    for role in ("trials", "exposure"):
        require_columns([c for c in [getattr(said.outcome, role)] if c], present, role)
    if said.response.isidentifier() or said.response.startswith("`"):
        require_columns([unquoted(said.response)], present, "response")
    expressions = dict.fromkeys([*said.factors, *said.offsets])
    covariates = list(dict.fromkeys(v for e in expressions for v in variables_of(e, present)))
    responses = list(variables_of(said.response, present))
    _check_names(covariates, responses, residual)
    by = [said.group] if said.group else []
    columns = [*responses, *said.grouping_columns, *covariates, *by, *residual.columns, *said.outcome.columns]
    return list(dict.fromkeys(columns)), covariates


def with_levels(data: Any, said: Said, read: ReadRows, subject: Grouping) -> Prepared:
    """Rows with the levels of their factors, and the units that the table knew."""
    _refuse_numbers_as_text(read.frame, said.factors)
    levels = learn_levels(read.frame, read.covariates, said.factors)
    applied = levels.apply(read.frame)
    units = getattr(data, "attrs", {}).get("units")
    applied.attrs = {"units": dict(units)} if isinstance(units, Mapping) else {}
    return Prepared(applied, subject, levels, read.n_dropped, read.kept)


def _check_groups(name: str, frame: pd.DataFrame, subject: Grouping) -> None:
    """Refuse groups with residual parameters of their own that subjects change, or that are one, or too small.

    Raises
    ------
    DataError
    """
    see, who = "docs, page 'Residual structures'", subject.labels.name
    column, received = frame[name], f"groups by {name!r}"
    first = first_rows(subject.index, len(subject.labels))
    changed = np.flatnonzero(column.to_numpy() != column.to_numpy()[first][subject.index])
    if changed.size:
        own = np.flatnonzero(subject.index == subject.index[changed[0]])
        where = f"{who} {quote(subject.labels[subject.index[changed[0]]])} (rows {shorten(frame.index[own])})"
        reason = f"it varies within {where}, and the parameters of a subject are those of its one group"
        remedy = (
            f"use a factor of level 2; for SDs that differ between rows use the variance function VarIdent({name!r})"
        )
        raise DataError(received, reason, remedy, see)
    count = column.iloc[first].value_counts()
    count = count[count > 0]
    if len(count) < 2:
        reason = "parameters of their own need two groups or more"
        raise DataError(
            f"{received}, which has one value, {quote(count.index[0])}", reason, "leave the groups out", see
        )
    if count.min() < 2:
        small = f"{received} with one {who} in {quote(count.index[int(np.argmin(count.to_numpy()))])}"
        reason = "how much subjects of a group vary around their mean cannot be seen in one of them"
        raise DataError(small, reason, "merge small groups, or leave them out of the data", see)


def _check_names(covariates: Sequence[str], responses: Sequence[str], residual: Residual) -> None:
    if INTERCEPT in covariates:
        received = f"a column named {INTERCEPT!r} in the formula"
        raise DataError(received, "the name is reserved for the constant", "rename the column", SEE)
    overlap = [v for v in covariates if v in responses]
    if overlap:
        received = f"{overlap[0]!r} on both sides of the formula"
        remedy = "remove it from the right-hand side; for the previous measurement make a lagged column"
        raise FormulaError(received, "a response cannot explain itself", remedy, SEE)
    if any(c in responses for c in residual.columns):
        received = f"the response {responses[0]!r} in a residual structure"
        reason = "the covariance of the response cannot depend on the response"
        remedy = "name another column; a variance that grows with the level is VarPower() of the fitted value"
        raise SpecificationError(received, reason, remedy, "docs, page 'Residual structures'")


def _refuse_numbers_as_text(frame: pd.DataFrame, factors: Iterable[str]) -> None:
    """Refuse fractions that are text ("12.5"): each of them would be a level. Whole numbers may be labels."""
    for name in dict.fromkeys(unquoted(factor) for factor in factors):
        if name not in frame.columns or pd.api.types.infer_dtype(frame[name]) != "string":
            continue
        text = frame[name].astype(str)
        numbers = text.str.replace(",", ".", regex=False)
        if not text.str.contains(r"[.,]").any() or pd.to_numeric(numbers, errors="coerce").isna().any():
            continue
        comma = ".str.replace(',', '.')" if text.str.contains(",", regex=False).any() else ""
        received = f"a column {name!r} of text that is numbers, such as {quote(text.iloc[0])}"
        reason = f"each of its {text.nunique()} values would be the level of a factor, with a coefficient of its own"
        remedy = (
            f"make it a number: data[{name!r}] = pd.to_numeric(data[{name!r}]{comma}); or write C({name}) for labels"
        )
        raise DataError(received, reason, remedy, SEE)


def known_groups(
    labels: pd.Index, fitted: pd.DataFrame, frame: pd.DataFrame, columns: Sequence[str]
) -> tuple[pd.Index, IntArray]:
    """Labels of the groups of new rows, and their positions among those that were fitted, -1 for a new group."""
    if len(columns) == 1:
        own = pd.Index(frame[columns[0]].to_numpy())
        return own, labels.get_indexer(own)
    seen, texts = np.ones(len(frame), dtype=bool), []
    for name in columns:  # a value of another type than that of the fitted data is another value, as with one column
        given, known = pd.Index(frame[name].to_numpy()), group_by(fitted[name]).labels
        at = known.get_indexer(given)
        seen &= at >= 0
        texts.append(np.where(at >= 0, known.astype(str).to_numpy()[at], given.astype(str)))
    joined = pd.Index([":".join(values) for values in zip(*texts, strict=True)], dtype=object)
    return joined, np.where(seen, labels.get_indexer(joined), -1)


def group_by(column: pd.Series) -> Grouping:
    """Number the groups in the order of their labels (of their categories, where there are any).

    Raises
    ------
    DataError
        If the labels are of several types, or of one that cannot be a label.
    """
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    kind = pd.api.types.infer_dtype(column.cat.categories.to_series() if categorical else column, skipna=True)
    if kind not in ("string", "integer", "floating", "boolean", "datetime64", "datetime", "empty"):
        types = sorted({type(v).__name__ for v in column})
        reason = "labels are text, numbers or time stamps of one type (1 and '1' could mean one subject or two)"
        remedy = f"make them text: data[{column.name!r}] = data[{column.name!r}].astype(str)"
        raise DataError(f"a subject column {column.name!r} with labels of type {', '.join(types)}", reason, remedy, SEE)
    codes, labels = pd.factorize(column, sort=True)
    return Grouping(codes.astype(np.intp), pd.Index(np.asarray(labels) if categorical else labels, name=column.name))


def _check_replication(groups: Grouping, *, slopes: bool, marginal: bool, gaussian: bool) -> None:
    """Refuse data without two subjects, or without two rows in any subject (before levels are read off them).

    Counts of one row a subject are allowed: their random effect is overdispersion.
    """
    J, subject = len(groups.labels), groups.labels.name
    if J < 2:
        reason = "variation between subjects cannot be seen in one subject"
        remedy = f"check that {subject!r} is the grouping column; for one subject use ordinary regression"
        raise DataError(f"{J} {subject}", reason, remedy, "docs, page 'Errors'")
    if len(groups.index) == J and gaussian:
        what = "a random slope" if slopes else "the random effect"
        reason = f"{what} cannot be told apart from the residual when no {subject} is measured twice"
        reason = f"no {subject} is measured twice, so no two rows are correlated" if marginal else reason
        long = "that the data are in long format (hl.to_long)"
        remedy = f"check that {subject!r} is the grouping column and {long}, or use ordinary regression"
        raise DataError(f"one row for each of the {J} values of {subject!r}", reason, remedy, "docs, page 'Errors'")
