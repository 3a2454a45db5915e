"""What must be said of a residual correlation that counts rows: whether their order is that of the occasions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.design.questions import rows_of_subject
from hierlmm.frames import is_number, quote, shorten
from hierlmm.groups import group_order

__all__ = ["row_order_messages"]

FloatArray = NDArray[np.float64]
READ = "Read: docs, page 'Residual structures', section 'The order of the rows'."


def row_order_messages(design: Design) -> list[str]:
    """Say where the order of the rows is not, or may not be, that of the occasions."""
    spec = design.residual
    if spec is None or not spec.counts_rows:
        return []
    return _dropped_rows(design, type(spec).__name__) + _disordered_rows(design, type(spec).__name__)


def _dropped_rows(design: Design, name: str) -> list[str]:
    """Rows were dropped for missing values: their neighbours move together."""
    if not design.n_dropped:
        return []
    return [
        f"{name} without a column takes the order of the rows for occasions, and {design.n_dropped} rows with missing "
        "values were dropped: the rows before and after such a row count as neighbours, although an occasion lies "
        f"between them. To go on: number the occasions before rows are dropped, and write {name}('occasion')."
    ]


def _disordered_rows(design: Design, name: str) -> list[str]:
    """Subjects whose rows are in the order of no variable that could be the time.

    A time has one value for each row of a subject. Rows from last to first are as good as from first to last.
    """
    order = group_order(design.subject_index)
    index = design.subject_index[order]
    same = index[1:] == index[:-1]
    times: dict[str, NDArray[np.intp]] = {}
    for variable in dict.fromkeys([*design.level1_variables(), *design.residual_columns]):
        if not is_number(design.frame[variable]):
            continue
        values = design.frame[variable].to_numpy(dtype=np.float64)[order]
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
    one = len(times) == 1
    what = variable if one else f"any of {', '.join(times)}"
    return [
        f"{name} without a column takes the order of the rows for occasions, and in {len(turning)} of "
        f"{design.n_subjects} subjects they are not in the order of {what} ({design.hierarchy.subject} {subject}: "
        f"{variable} {shorten([f'{v:g}' for v in shown], 6)}): rows far apart in time would count as neighbours. "
        f"To go on: sort the data by {'it' if one else 'time'} first, or write {name}('occasion') with a column that "
        f"numbers the occasions, which is right in any order (also where {'it is' if one else 'they are'} not the "
        f"time). {READ}"
    ]
