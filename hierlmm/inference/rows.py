"""Whether two models are about the same rows: response, trials and columns of groups, row by row.

Models may group the same rows by other columns; a column that both use has to have the same groups in both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.arrays import IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import lies_in
from hierlmm.design.formula import unquoted
from hierlmm.design.rows import Grouping
from hierlmm.errors import DataError, SpecificationError
from hierlmm.inference.maximum import SEE

TOLERANCE = 1e-10
"""Values of the response that are closer, relative to the largest, are equal."""


def other_question(a: Design, b: Design) -> tuple[str, str] | None:
    """Why likelihoods of two designs are not of the same numbers, and what to do; None where they are."""
    ours, theirs = (unquoted(d.hierarchy.response) for d in (a, b))
    if ours != theirs:
        remedy = "fit both to the response on one scale"
        return (
            f"the responses are {ours} and {theirs}: densities of transformed responses are in other units, so that "
            "their logarithms differ by a constant that has nothing to do with the fit"
        ), remedy
    if (type(a.family), a.family.link) != (type(b.family), b.family.link):
        reason = f"the families are {a.family} and {b.family}, and no test of one within the other is known here"
        return reason, "compare their AIC: hl.compare_models(m1, m2)"
    return None


def other_rows(a: Design, b: Design) -> tuple[str, str] | None:
    """In words, what first tells the rows of two designs apart, and what to do; None where they are the same."""
    if a.rows is b.rows:
        return None
    again = "fit both to the same rows (missing='drop' drops other rows where the covariates differ)"
    if a.n_obs != b.n_obs:
        return f"{a.n_obs} rows, and {b.n_obs} rows", again
    if not same(a.y, b.y):
        if same(np.sort(a.y), np.sort(b.y)):
            return "the rows are not in the same order", "sort the data in one way before fitting"
        return f"other values of {a.hierarchy.response!r}", again
    if other_kept(a, b):
        return f"missing='drop' dropped {a.n_dropped} rows, and {b.n_dropped} others", again
    ours, theirs = groupings(a), groupings(b)
    for name in ours:
        if name in theirs and not same_groups(ours[name], theirs[name]):
            return f"other subjects in the rows, by {name}", f"fit both to a table with one column {name!r}"
    if not same(a.trials, b.trials):
        return "other numbers of trials", "use one column of trials"
    return None


def refuse_other_rows(labels: tuple[str, str], a: Design, b: Design) -> None:
    """Refuse two models that are not about the same rows, or not about the same response.

    Raises
    ------
    SpecificationError, DataError
    """
    pair = " and ".join(labels)
    if (problem := other_question(a, b)) is not None:
        raise SpecificationError(f"{pair} in one comparison", *problem, SEE)
    if (problem := other_rows(a, b)) is not None:
        reason = f"they are not about the same rows ({problem[0]}), so that their likelihoods are of different data"
        raise DataError(f"{pair} in one comparison", reason, problem[1], SEE)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal to rounding."""
    size, spread = (float(x) for x in (np.abs(a).max(initial=0.0), np.ptp(a) if len(a) else 0.0))
    return bool(np.all(np.abs(a - b) <= TOLERANCE * spread + 4.0 * np.finfo(float).eps * size))


def other_kept(a: Design, b: Design) -> bool:
    """Whether two designs both dropped rows with missing values, and not the same ones.

    Told by labels that are unique; where they differ, by places in the table, if both had one of the same length (one
    may have had its index reset), else by the values of the columns that both have.
    """
    if not (a.n_dropped and b.n_dropped):
        return False
    indices = a.frame.index, b.frame.index
    unique = all(index.is_unique for index in indices)
    if unique and len(indices[0].symmetric_difference(indices[1])) == 0:
        return False
    one, two = a.rows.kept, b.rows.kept
    if one is not None and two is not None and a.n_obs + a.n_dropped == b.n_obs + b.n_dropped:
        return not np.array_equal(one, two)
    if unique and len(indices[0].intersection(indices[1])):
        return True
    shared = [c for c in a.frame.columns if c in b.frame.columns]
    ours, theirs = (np.sort(pd.util.hash_pandas_object(d.frame[shared].astype(str))) for d in (a, b))
    return not np.array_equal(ours, theirs)


def same_subjects(a: Design, b: Design) -> bool:
    """Whether two models of the same rows have the same independent subjects, by whatever name."""
    return a.rows is b.rows or same_groups(a.rows.subject, b.rows.subject)


def same_groups(a: Grouping, b: Grouping) -> bool:
    """Whether two factors divide the rows into the same groups."""
    return lies_in(a, b) and lies_in(b, a)


def groupings(design: Design) -> dict[str, Grouping]:
    """What the rows are grouped by: each of several factors, or subjects."""
    if design.has_several_factors:
        return {own.columns.group: own.group for own in design.random}
    return {design.hierarchy.subject: design.rows.subject}


def as_they_come(index: IntArray) -> np.ndarray:
    """Positions of the groups, sorted by name, in the order in which they come in the rows: (J,)."""
    groups, first = np.unique(index, return_index=True)
    return groups[np.argsort(first)]
