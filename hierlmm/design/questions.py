"""What is asked of a design in many places: which rows are a subject's, which column is time, which holds labels.

And whether the order of the rows is that of the occasions, for a residual correlation that counts rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import categorical_arguments, unquoted
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.frames import is_number, occasions_in_use, quote, shorten
from hierlmm.groups import first_rows, group_order, rows_of_groups
from hierlmm.text import count, fill, singular, templates

SEE = "docs, page 'Predictions'"


def refuse_without_likelihood(design: Design, what: str) -> None:
    """Refuse what needs a likelihood for a marginal model of another response, which is a mean and a variance only.

    Raises
    ------
    NotAvailableError
    """
    if not design.is_gaussian and not design.term:
        received = f"{what} of a marginal model of a {design.family.title} response"
        reason = "means, variances and a correlation of such responses make no distribution, so there is no likelihood"
        remedy = "use fit_gee(), which needs none; or hl.TwoLevelModel, whose rows are independent given random effects"
        raise NotAvailableError(received, reason, remedy, "docs, page 'GEE'")


def rows_by_subject(design: Design, within: NDArray[Any] | None = None) -> list[IntArray]:
    """Rows of every subject: as they stand, or in the order of the values ``within`` (N,)."""
    return rows_of_groups(design.subject_index, design.n_subjects, within)


def rows_of_subject(design: Design, subject: int) -> IntArray:
    """Rows of the subject at one position, as they stand."""
    return np.flatnonzero(design.subject_index == subject)


def first_row_of_subjects(design: Design) -> IntArray:
    """First row of every subject, (J,): there a covariate that is constant within subjects is read off."""
    return first_rows(design.subject_index, design.n_subjects)


def is_label(design: Design, variable: str) -> bool:
    """Whether a column of the data holds labels (or truth values), not numbers."""
    return variable in design.levels.categories or not is_number(design.frame[variable])


def levels_of(design: Design, variable: str) -> list[Any]:
    """Levels of a column in the order of its coding; its distinct values, sorted, if the model has it as a number."""
    if variable in design.levels.categories:
        return list(design.levels.categories[variable])
    return sorted(pd.unique(design.frame[variable]).tolist())


def unit_of(design: Design, per: str | None = None) -> str:
    """Unit of the response, or of its change per unit of a column: ``mm``, ``mm per year``; empty if not known."""
    own = design.units.get(unquoted(design.hierarchy.response), "")
    if not own or per is None:
        return own
    other = design.units.get(unquoted(per))
    return f"{own} per {singular(other)}" if other else f"{own} per unit of {unquoted(per)}"


def numbers_at_level1(design: Design) -> list[str]:
    """Numeric variables that vary within subjects: each of them could be the time."""
    return [v for v in design.level1_variables() if not is_label(design, v)]


def time_variable(design: Design) -> str | None:
    """The level-1 variable, where there is one and it is a number."""
    level1 = design.level1_variables()
    return level1[0] if len(level1) == 1 and not is_label(design, level1[0]) else None


def has_codes(design: Design, variable: str | None) -> bool:
    """Whether the formula takes the numbers of a column for names, ``C(k)``."""
    return any(variable in categorical_arguments(factor) for column in design.fixed_columns for factor in column.term)


def time_of(design: Design, time: str | None = None) -> str | None:
    """The time: the column named, else that of the residual structure, else the one numeric level-1 variable.

    Raises
    ------
    SpecificationError
        If the column named is no number that the model has at level 1 or in its residual structure.
    """
    structure = None if design.residual is None else design.residual.time
    own = [structure] if structure is not None and not is_label(design, structure) else []
    if time is None:
        return own[0] if own else time_variable(design)
    choices = list(dict.fromkeys([*own, *numbers_at_level1(design)]))
    if time not in choices:
        reason = "it is no numeric variable of level 1 of this model, and not the time of its residual structure"
        remedy = f"use one of {', '.join(map(repr, choices))}" if choices else "leave it out: this model has no time"
        raise SpecificationError(f"time={time!r}", reason, remedy, SEE)
    return time


def occasion_of(design: Design) -> str | None:
    """The column along which pictures put the rows of a subject; None where none is known.

    That of the residual structure; or labels of level 1 that have an order in time and are different in all rows of a
    subject (visits, beside which numbers are covariates); or the one numeric level-1 variable.
    """
    if design.residual is not None and design.residual.time is not None:
        return design.residual.time
    visits = (v for v in design.level1_variables() if is_label(design, v) and _are_occasions(design, v))
    return next(visits, time_variable(design))


def _are_occasions(design: Design, variable: str) -> bool:
    column = design.frame[variable]
    numbers = isinstance(column.dtype, pd.CategoricalDtype) and is_number(column.cat.categories)
    codes = column.cat.codes.to_numpy(dtype=np.float64) if numbers else _in_time(column)
    return codes is not None and not pd.DataFrame({"subject": design.subject_index, "at": codes}).duplicated().any()


def row_order_messages(design: Design) -> list[str]:
    """Say where the order of the rows is not, or may not be, that of the occasions."""
    spec = design.residual
    if spec is None or not spec.counts_rows:
        return []
    name, n = type(spec).__name__, design.n_dropped
    # Neighbours of rows that were dropped for missing values move together.
    slots = {"name": name, "rows": count(n, "row"), "were": "was" if n == 1 else "were"}
    dropped = [fill(templates(__file__)["row_order"]["dropped"], **slots)] if n else []
    return dropped + _disordered_rows(design, name)


def _in_time(column: pd.Series) -> FloatArray | None:
    """A column as numbers in the order of time, (N,): itself, or places of labels with an order; else None."""
    if is_number(column):
        return column.to_numpy(dtype=np.float64)
    labels = column.astype(object).unique()
    if not all(isinstance(label, str) for label in labels):
        return None
    levels, known = occasions_in_use(column)
    if not known:
        return None  # the order of the alphabet is none in time
    return column.astype(object).map({label: k for k, label in enumerate(levels)}).to_numpy(dtype=np.float64)


def _disordered_rows(design: Design, name: str) -> list[str]:
    """Subjects whose rows are in the order of no variable that could be the time.

    A time has one value for each row of a subject. Rows from last to first are as good as from first to last.
    """
    order = group_order(design.subject_index)
    index = design.subject_index[order]
    same = index[1:] == index[:-1]
    times: dict[str, IntArray] = {}
    for variable in dict.fromkeys([*design.level1_variables(), *design.residual_columns]):
        codes = _in_time(design.frame[variable])
        if codes is None:
            continue
        values = codes[order]
        steps = np.diff(values)
        up, down = (np.bincount(index[1:], same & s, design.n_subjects) > 0 for s in (steps > 0, steps < 0))
        turning = np.flatnonzero(up & down)
        if turning.size == 0 and np.any(up | down):
            return []
        if turning.size and not np.any(np.diff(values[np.lexsort((values, index))])[same] == 0.0):
            times[variable] = turning
    if not times:
        return []
    variable, turning = next(iter(times.items()))
    subject = quote(design.subjects[turning[0]])
    shown = design.frame[variable].to_numpy()[rows_of_subject(design, turning[0])]
    texts = [f"{v:g}" if is_number(design.frame[variable]) else str(v) for v in shown]
    slots = {"name": name, "n": len(turning), "of": design.n_subjects, "column": design.hierarchy.subject}
    slots |= {"subject": subject, "variable": variable, "shown": shorten(texts, 6)}
    one, several = (variable, "it", "it is"), (f"any of {', '.join(times)}", "time", "they are")
    slots |= dict(zip(("what", "it", "it_is"), one if len(times) == 1 else several, strict=True))
    return [fill(templates(__file__)["row_order"]["disordered"], **slots)]
