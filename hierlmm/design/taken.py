"""The same design for other subjects: some of its own, each as often as it was drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from hierlmm.arrays import IntArray
from hierlmm.design.design import Design
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
    rows = replace(own, frame=frame, subject=group, W=own.W[chosen], **arrays)
    random = tuple(replace(term, group=group, Z=term.Z[at]) for term in design.random)
    fitted = design.variance_fitted
    return replace(design, rows=rows, random=random, variance_fitted=None if fitted is None else fitted[at])
