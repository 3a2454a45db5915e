"""The same design for other subjects, or for some of its rows: its columns stay what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import units_of
from hierlmm.design.questions import rows_by_subject
from hierlmm.design.rows import Grouping


def take_subjects(design: Design, chosen: IntArray) -> Design:
    """The design of chosen subjects, one after the other; a subject that is chosen twice counts as two.

    Parameters
    ----------
    design : Design
    chosen : (K,)
        Positions in ``design.subjects``.

    Returns
    -------
    Design
        Its subjects are labelled 1, 2, ..., K.
    """
    parts = rows_by_subject(design)
    taken = [parts[j] for j in chosen]
    at = np.concatenate(taken)
    labels = pd.Index(np.arange(1, len(chosen) + 1), name=design.subjects.name)
    group = Grouping(np.repeat(np.arange(len(chosen)), [len(rows) for rows in taken]), labels)
    own = design.rows
    frame = own.frame.iloc[at].reset_index(drop=True)
    frame[design.hierarchy.subject] = labels.to_numpy()[group.index]
    arrays = {name: getattr(own, name)[at] for name in ("y", "offset", "X", "X1", "trials")}
    rows = replace(own, frame=frame, subject=group, W=own.W[chosen], kept=None, **arrays)
    columns = tuple(replace(c, who=c.who[chosen]) if c.by else c for c in design.terms.random)
    random = tuple(replace(t, columns=c, group=group, Z=t.Z[at]) for t, c in zip(design.random, columns, strict=True))
    terms, fitted = replace(design.terms, random=columns), design.variance_fitted
    fitted = None if fitted is None else fitted[at]
    return replace(design, terms=terms, rows=rows, random=random, variance_fitted=fitted)


def take_rows(design: Design, kept: BoolArray) -> Design:
    """The design of some rows (N,) of one with several grouping factors; groups without rows are gone.

    Parameters
    ----------
    design : Design
    kept : (N,)

    Returns
    -------
    Design
    """
    own, groups = design.rows, []
    for term in design.random:
        present, index = np.unique(term.group.index[kept], return_inverse=True)
        groups.append(Grouping(index.astype(np.intp), term.group.labels[present]))
    unit, first = units_of(groups), own.subject.index[kept]
    W = own.W[first[np.unique(unit.index, return_index=True)[1]]]
    arrays = {name: getattr(own, name)[kept] for name in ("y", "offset", "X", "X1", "trials")}
    rows = replace(own, frame=own.frame[kept], subject=unit, W=W, kept=None, **arrays)
    random = tuple(replace(t, group=group, Z=t.Z[kept]) for t, group in zip(design.random, groups, strict=True))
    return replace(design, rows=rows, random=random)
