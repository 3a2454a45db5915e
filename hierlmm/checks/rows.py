"""Is a row there twice: same subject, same covariates, same response."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome
from hierlmm.design.formula import variables_of
from hierlmm.fits.base import Fit
from hierlmm.frames import quote, shorten

RARE = 0.001
"""Chance that so many rows agree though all were measured, above which nothing is said."""
SHOWN = 5


def duplicates(material: Material) -> Outcome | LeftOut:
    """Whether a subject has rows that agree in all columns of the model, response included.

    Repeats under the same covariates may agree by chance where responses are rounded. That M such pairs agree so often
    is compared with what other pairs of rows do, see `_chance`. Where some repeats differ, that is a reason to look
    only, and none if responses are rounded as coarsely as repeats vary. Counts and categories agree often: there the
    check looks where no repeat differs.
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
    if not design.is_gaussian and agree < repeated:
        return LeftOut("rows of a subject with the same covariates are repeats, and such responses agree by chance")
    if design.is_gaussian and agree < repeated and _coarse(cell, design.y):
        return LeftOut("repeats under the same covariates differ by little more than responses are rounded by")
    if design.is_gaussian and binom.sf(agree - 1, repeated, _chance(material.fit, cell, repeated, agree)) > RARE:
        return Outcome({}, size=0.0)
    several = np.flatnonzero(np.bincount(copies) > 1)
    groups = [np.flatnonzero(copies == k) for k in several[: SHOWN + 1]]
    who, subjects = design.hierarchy.subject, design.subjects[design.subject_index]
    labels = [
        f"rows {' and '.join(map(str, frame.index[own]))} ({who} {quote(subjects[own[0]])})" for own in groups
    ] + [""] * (len(several) - len(groups))
    slots = {"which": shorten(labels, SHOWN)}
    size = float(len(copies) - len(np.unique(copies)))
    return Outcome(slots, severity="act" if design.is_gaussian and agree == repeated else "look", size=size)


def _coarse(cell: IntArray, y: FloatArray) -> bool:
    """Whether repeats that differ have SDs, in the middle, of less than twice the smallest step between values."""
    n = np.bincount(cell)
    within = np.sqrt(
        np.maximum(np.bincount(cell, (y - (np.bincount(cell, y) / n)[cell]) ** 2), 0.0) / np.maximum(n - 1, 1)
    )
    gaps = np.diff(np.unique(y))
    step = float(gaps[gaps > 1e-9 * np.ptp(y)].min(initial=np.inf))  # smaller ones are rounding errors
    differ = within > 0.5 * step
    return not differ.any() or bool(np.median(within[differ]) < 2.0 * step)


def _chance(fit: Fit, cell: IntArray, repeated: int, agree: int) -> float:
    """Chance that two repeats agree: as often as a subject's rows under other covariates, or as any two rows.

    The latter more often by as much as repeats that differ vary less than all rows do; where none differs, residuals.
    """
    design = fit.design
    index, y = design.subject_index, design.y - design.y.mean()
    any_two = (_pairs(np.unique(y, return_inverse=True)[1]) - agree + 1.0) / (_pairs(0 * index) - repeated + 1.0)
    others = _pairs(index) - repeated
    if not others and any_two * len(y) ** 2 > 2.0:
        return 1.0  # nothing tells a subject's rows apart, and responses are rounded
    if repeated > agree:
        squares = np.bincount(cell) * np.bincount(cell, y**2) - np.bincount(cell, y) ** 2
        variance = 0.5 * float(squares.sum()) / (repeated - agree)
    else:
        r = fit.residuals("response", "subject" if fit.has_random_effects else "population").to_numpy()
        variance = float(np.var(r - (np.bincount(index, r) / design.rows_per_subject)[index]))
    c = any_two * float(np.std(y)) / max(np.sqrt(variance), 1e-300)
    own = (_pairs(_crossed(index, design.y)) - agree) / max(others, 1)
    # Repeats that agree vary by nothing, which the variance of the others leaves out.
    return min(max(c / np.sqrt(1.0 - min(c, 0.9)), own), 1.0)


def _crossed(codes: IntArray, y: FloatArray) -> IntArray:
    """Codes of pairs of a code and a value."""
    value = np.unique(y, return_inverse=True)[1]
    return np.asarray(np.unique(codes * (value.max() + 1) + value, return_inverse=True)[1])


def _pairs(codes: IntArray) -> int:
    """Pairs of rows with the same code."""
    size = np.bincount(codes).astype(np.int64)
    return int(np.sum(size * (size - 1) // 2))
