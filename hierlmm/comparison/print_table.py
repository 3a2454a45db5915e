"""A comparison as a table for print: reference rows of factors, own names and decimals, p values.

A coefficient of a factor is a difference from the factor's reference level. A reader of a printed table sees both: the
factor is a heading, its levels are rows below it, the reference level among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hierlmm.comparison.tables import (
    MISSING,
    Cell,
    footnotes,
    interval_heading,
    plain_gt,
    reference_label,
    sections,
    statistic_rows,
    titles_of,
)
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.plots.forest import choose_parameters

SEE = "docs, page 'Comparing estimators'"
INDENT = "\u2003"
FIT = "Fit"


@dataclass(frozen=True)
class PrintRow:
    """One row: its section, its label, and a cell and a p value for each fit (none of a heading)."""

    section: str
    label: str
    cells: tuple[Cell, ...] = ()
    p: tuple[str, ...] = ()


@dataclass(frozen=True)
class PrintTable:
    """A table for print, whatever it is written as: the arguments of `hierlmm.comparison.tables.plain_gt`."""

    frame: pd.DataFrame
    labels: list[str]
    headings: dict[str, str]
    flags: list[tuple[int, str]]
    notes: list[str]
    title: str

    @property
    def columns(self) -> list[str]:
        """Columns of numbers: position of the fit and what it is, ``0:estimate``."""
        return [name for name in self.frame.columns if name not in ("section", "parameter")]

    def gt(self) -> Any:
        """The table as a ``great_tables.GT``."""
        return plain_gt(self.frame, self.labels, self.headings, self.flags, self.notes, self.title)


def comparison_print(
    comparison: SideBySide,
    rename: Mapping[str, str],
    digits: int | Mapping[str, int] | None,
    parameters: str | Sequence[str] | None,
    p_values: bool,
    title: str | None,
) -> PrintTable:
    """Make a table for print; see `hierlmm.comparison.compare.Comparison.to_gt`."""
    names = _Names(comparison, rename)
    rows = list(print_rows(comparison, names, digits, parameters, p_values))
    records = []
    for row in rows:
        record = {"section": row.section, "parameter": row.label}
        for i in range(len(comparison.labels)):
            cell = row.cells[i] if row.cells else Cell("", "", "")
            record |= {f"{i}:estimate": cell.estimate, f"{i}:se": cell.se, f"{i}:interval": cell.interval}
            record |= {f"{i}:p": row.p[i] if row.p else ""} if p_values else {}
        records.append(record)
    headings = {"estimate": "estimate", "se": "se", "interval": interval_heading(comparison), "p": "p"}
    labels = [names(reference_label(comparison, label), label) for label in comparison.labels]
    flags = [(k, f"{i}:estimate") for k, row in enumerate(rows) for i, cell in enumerate(row.cells) if cell.flag]
    chosen = _chosen(comparison, parameters)
    shown = {name: names.component(name) for name in chosen} if len(chosen) < len(_known(comparison)) else None
    notes = footnotes(comparison, shown, statistics=any(row.section == FIT for row in rows))
    notes += _p_notes(comparison) if p_values else []
    return PrintTable(pd.DataFrame(records), labels, headings, flags, notes, title or names.title)


def print_rows(
    comparison: SideBySide,
    names: _Names,
    digits: int | Mapping[str, int] | None,
    parameters: str | Sequence[str] | None,
    p_values: bool,
) -> Iterator[PrintRow]:
    """Rows from the top to the bottom, those of chosen parameters only."""
    chosen = _chosen(comparison, parameters)
    found = p_by_fit(comparison) if p_values else {}
    for title, rows in sections(comparison, _decimals(comparison, digits)):
        kept = {parameter: cells for parameter, cells in rows if parameter in chosen}
        if title == titles_of(comparison)["fixed"]:
            yield from _fixed_rows(comparison, names, kept, found, names(title))
            continue
        for parameter, cells in kept.items():
            p = (MISSING,) * len(cells) if found else ()
            yield PrintRow(names(title), names.component(parameter), tuple(cells), p)
    if parameters is None or any(item.lower() == FIT.lower() for item in _listed(parameters)):
        for name, values in statistic_rows(comparison):
            yield PrintRow(FIT, names(name), tuple(Cell(v, "", "") for v in values))


def _listed(parameters: str | Sequence[str] | None) -> list[str]:
    return [parameters] if isinstance(parameters, str) else list(parameters or ())


def _known(comparison: SideBySide) -> list[str]:
    return list(comparison.table["parameter"].unique())


def _chosen(comparison: SideBySide, parameters: str | Sequence[str] | None) -> list[str]:
    """Names of the parameters that are asked for, in the order of the table."""
    wanted = [item for item in _listed(parameters) if item.lower() != FIT.lower()]
    if parameters is not None and not wanted:
        return []
    return choose_parameters(comparison.table, wanted or None)


def _decimals(comparison: SideBySide, digits: int | Mapping[str, int] | None) -> Callable[[str], int | None]:
    """Decimals that are asked for, by parameter; None where the table's own are to be used."""
    if digits is None or isinstance(digits, int):
        return lambda parameter: digits
    known = _known(comparison)
    for name in digits:
        if name not in known:
            reason = f"no parameter has this name.{closest(name, known)}"
            raise SpecificationError(f"digits={{{name!r}: ...}}", reason, f"use {', '.join(known)}", SEE)
    return digits.get


def _fixed_rows(
    comparison: SideBySide,
    names: _Names,
    rows: Mapping[str, list[Cell]],
    found: Mapping[str, pd.Series],
    section: str,
) -> Iterator[PrintRow]:
    """Coefficients, those of a factor under its name and beside its reference level."""
    columns = {column.name: column for column in names.design.fixed_columns}
    last: tuple[str, ...] | None = None
    nothing = tuple(Cell(MISSING, MISSING, MISSING) for _ in comparison.labels)
    for parameter, cells in rows.items():
        p = tuple(_p_text(found[label], parameter) for label in comparison.labels) if found else ()
        column = columns.get(parameter)
        levels = {} if column is None or parameter in names.given else names.levels_of(column.parts)
        if column is None or not levels:
            last = None
            yield PrintRow(section, names.coefficient(parameter, column), tuple(cells), p)
            continue
        heading = tuple(column.term)
        if heading != last:
            last = heading
            yield PrintRow(section, names.product(column.term))
            reference = names.reference(column.term)
            if reference is not None:
                empty = (MISSING,) * len(cells) if found else ()
                yield PrintRow(section, f"{INDENT}{names(reference)} (reference)", nothing, empty)
        label = " × ".join(names(levels.get(factor, factor)) for factor, _ in column.parts)
        yield PrintRow(section, INDENT + label, tuple(cells), p)


class _Names:
    """What things are called in print: the user's names, or those of the model."""

    def __init__(self, comparison: SideBySide, given: Mapping[str, str]) -> None:
        self.given, self.design = given, comparison.fits[comparison.reference].design
        self.title = f"Comparison of estimators\n{self.design.hierarchy.formula}"
        levels = [str(v) for values in self.design.levels.categories.values() for v in values]
        factors = [factor for term in self.design.fixed_columns for factor in term.term]
        known = [*comparison.table["parameter"], *factors, *self.design.term, *levels, *comparison.labels]
        known += [*titles_of(comparison).values(), FIT, *map(str, comparison.statistics.index)]
        for name in given:
            if name not in known:
                reason = f"nothing in the table has this name.{closest(name, known)}"
                remedy = "use names of parameters, variables, levels, fits or headings"
                raise SpecificationError(f"rename={{{name!r}: ...}}", reason, remedy, SEE)

    def __call__(self, text: Any, name: Any = None) -> str:
        """A text, in which this name (by default all of it) has its name for print."""
        text, name = str(text), str(text if name is None else name)
        return text.replace(name, self.given.get(name, name), 1)

    def product(self, factors: Sequence[str]) -> str:
        """A product of factors in the order of the term."""
        return " × ".join(self(factor) for factor in factors)

    def coefficient(self, parameter: str, column: Any) -> str:
        """A coefficient without levels of factors."""
        if parameter in self.given or column is None or len(column.parts) < 2:
            return self(parameter)
        return " × ".join(self(name) for _, name in column.parts)

    def component(self, parameter: str) -> str:
        """A covariance parameter, with the names of its terms: ``sd(time)``."""
        if parameter in self.given or "(" not in parameter:
            return self(parameter)
        kind, inner = parameter[:-1].split("(", 1)
        return f"{kind}({', '.join(self(term) for term in re.split(r', (?![^\(\[]*[\)\]])', inner))})"

    def levels_of(self, parts: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Factor -> the level that its column stands for, of those in treatment coding."""
        return {factor: found[1] for factor, name in parts if (found := self._treatment(name)) is not None}

    def reference(self, term: Sequence[str]) -> Any:
        """The level that a factor alone is measured against; None where there is none, as in a product."""
        own = [column for column in self.design.fixed_columns if tuple(column.term) == tuple(term)]
        read = [self._treatment(column.name) for column in own]
        if len(term) != 1 or any(part is None for part in read):
            return None
        shown = {part[1] for part in read if part is not None}
        variable = next(part[0] for part in read if part is not None)
        left = [v for v in self.design.levels.categories.get(variable, ()) if str(v) not in shown]
        return left[0] if len(left) == 1 else None

    def _treatment(self, name: str) -> tuple[str, str] | None:
        """Variable and level of a column ``sex[T.Male]`` (or ``sex[Male]``); None of any other."""
        found = re.fullmatch(r"(?:C\()?`?([^`\[\](),]+)`?(?:, [^\[]*)?\)?\[(?:T\.)?(.*)\]", name)
        if found is None or found[2] not in map(str, self.design.levels.categories.get(found[1], ())):
            return None
        return found[1], found[2]


def p_by_fit(comparison: SideBySide) -> dict[str, pd.Series]:
    """P values of the fixed effects by fit: t tests with Satterthwaite's degrees of freedom, normal ones of GEE."""
    found = {}
    for label, fit in comparison.fits.items():
        if fit.has_draws:
            found[label] = pd.Series(dtype=float)
        else:
            options = {"df": "satterthwaite"} if _has_t_tests(fit) else {}
            found[label] = fit.summary(comparison.ci, **options)["p"]
    return found


def _has_t_tests(fit: Fit) -> bool:
    """Whether its tests have degrees of freedom: a likelihood of normal responses."""
    return fit.has_likelihood and fit.design.is_gaussian


def _p_text(values: pd.Series, parameter: str) -> str:
    p = values.get(parameter)
    if p is None or pd.isna(p):
        return MISSING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _p_notes(comparison: SideBySide) -> list[str]:
    fits = comparison.fits.items()
    tests = {
        "t tests with Satterthwaite's degrees of freedom": [label for label, f in fits if _has_t_tests(f)],
        "normal tests with the standard errors shown": [
            label for label, f in fits if not (_has_t_tests(f) or f.has_draws)
        ],
        "none of a posterior, which has probabilities of hypotheses instead (fit.hypothesis)": [
            label for label, f in fits if f.has_draws
        ],
    }
    return ["p: " + "; ".join(f"{words} ({', '.join(of)})" for words, of in tests.items() if of) + "."]
