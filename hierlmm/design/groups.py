"""The factor by which the covariance of the random effects differs: its levels, and which one each subject has.

``b_i ~ N(0, D_g)`` for a subject of level g. In a design these are q·G random effects, of which a subject has the q of
its level: ``Z_i`` holds zeros in the columns of all others, and D is block diagonal, ``diag(D_1, ..., D_G)``. So every
likelihood, prior and prediction that knows D by blocks knows D by group. What a fit calls b is the subject's own q.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import IntArray
from hierlmm.design.rows import Prepared
from hierlmm.design.terms import SEE_GROUPS
from hierlmm.errors import DataError
from hierlmm.frames import quote, shorten
from hierlmm.groups import first_rows


def levels_of_group(group: str, rows: Prepared) -> tuple[tuple[Any, ...], IntArray]:
    """Levels of the factor in the order of its coding, and the position of each subject's level among them, (J,).

    Raises
    ------
    DataError
        If it varies within a subject, or has one level only.
    """
    column, subject = rows.frame[group], rows.subject
    labelled = isinstance(column.dtype, pd.CategoricalDtype)
    levels = column.cat.remove_unused_categories().cat.categories if labelled else pd.Index(pd.unique(column))
    if not labelled:
        levels = pd.Index(sorted(levels, key=lambda v: (str(type(v)), v)))
    at = levels.get_indexer(pd.Index(column.to_numpy(object) if labelled else column.to_numpy()))
    own = at[first_rows(subject.index, len(subject.labels))]
    changed = np.flatnonzero(at != own[subject.index])
    if changed.size:
        culprit = subject.index[changed[0]]
        its = rows.frame.index[subject.index == culprit]
        name = subject.labels.name
        reason = f"it varies within {name} {quote(subject.labels[culprit])} (rows {shorten(its)}), which has one D"
        remedy = f"name a column that is constant within every {name}"
        raise DataError(f"group={group!r}", reason, remedy, SEE_GROUPS)
    if len(levels) < 2:
        reason = f"{group!r} is {quote(levels[0])} in every row, so that there is one D"
        raise DataError(f"group={group!r}", reason, "leave group out, or check the filters applied", SEE_GROUPS)
    return tuple(levels.tolist()), own.astype(np.intp)
