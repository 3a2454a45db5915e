"""Is a row there twice: same subject, same covariates, same response."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome, Severity
from hierlmm.design.formula import variables_of
from hierlmm.fits.base import Fit
from hierlmm.frames import quote, shorten

RARE = 0.001
"""Chance that so many rows agree though all were measured, above which nothing is said."""
SHOWN = 5


def duplicates(material: Material) -> Outcome | LeftOut:
    """Whether a subject has rows that agree in all columns of the model, response included.

    Where some rows under the same covariates differ, repeats were measured. If responses are rounded, so that other
    rows agree too, nothing tells copies from repeats that agree by chance; else it is a reason to look. Where all
    repeats agree, that is compared with what other pairs of rows do, see `_chance`; of counts and categories, which
    agree often, it is a reason to look only.
    """
    design = material.fit.design
    frame = design.frame
    response = variables_of(design.hierarchy.response, list(map(str, frame.columns)))
    said = [c for c in frame.columns if c not in response]
    cell: IntArray = np.asarray(frame.groupby(said, sort=False, observed=True, dropna=False).ngroup(), dtype=np.intp)
    copies = _crossed(cell, design.y)
    repeated, agree = _pairs(cell), _pairs(copies)
    if not agree:
        return Outcome({}, size=0.0)
    elsewhere = _pairs(np.unique(design.y, return_inverse=True)[1]) - agree
    if agree < repeated and (elsewhere or not design.is_gaussian):
        who = "of the same groups" if material.variant else "of a subject"
        return LeftOut(f"rows {who} under the same covariates are repeats, of which some agree by chance")
    if design.is_gaussian and _chance(material.fit, elsewhere, agree) ** agree > RARE:
        return Outcome({}, size=0.0)
    several = np.flatnonzero(np.bincount(copies) > 1)
    groups = [np.flatnonzero(copies == k) for k in several[: SHOWN + 1]]
    who, subjects = design.hierarchy.subject, design.subjects[design.subject_index]
    labels = [
        f"rows {' and '.join(map(str, frame.index[own]))} ({who} {quote(subjects[own[0]])})" for own in groups
    ] + [""] * (len(several) - len(groups))
    slots = {"which": shorten(labels, SHOWN)}
    size = float(len(copies) - len(np.unique(copies)))
    severity: Severity = "act" if design.is_gaussian and agree == repeated else "look"
    return Outcome(slots, severity=severity, size=size)


def _chance(fit: Fit, elsewhere: int, agree: int) -> float:
    """Chance that two repeats agree: as often as a subject's rows under other covariates, or as any two rows.

    The latter more often by as much as residuals vary less than all rows do.
    """
    design = fit.design
    index, others = design.subject_index, _pairs(design.subject_index) - agree
    if not others and elsewhere:
        return 1.0  # nothing tells a subject's rows apart, and responses are rounded
    any_two = (elsewhere + 1.0) / (_pairs(0 * index) - agree + 1.0)
    level = "all" if design.has_several_factors else "subject" if fit.has_random_effects else "population"
    of_fit: Any = fit
    r = of_fit.residuals("response", level).to_numpy()
    spread = float(np.std(r - (np.bincount(index, r) / design.rows_per_subject)[index]))
    own = (_pairs(_crossed(index, design.y)) - agree) / max(others, 1)
    return min(max(any_two * float(np.std(design.y)) / max(spread, 1e-300), own), 1.0)


def _crossed(codes: IntArray, y: FloatArray) -> IntArray:
    """Codes of pairs of a code and a value."""
    value = np.unique(y, return_inverse=True)[1]
    return np.asarray(np.unique(codes * (value.max() + 1) + value, return_inverse=True)[1])


def _pairs(codes: IntArray) -> int:
    """Pairs of rows with the same code."""
    size = np.bincount(codes).astype(np.int64)
    return int(np.sum(size * (size - 1) // 2))
