"""A family on arrays: the log density of every row, and whether the derivatives that a family states are right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.errors import SpecificationError
from hierlmm.families.family import SEE, Family, of_row

STEP = 1e-5
AGREES = 1e-5
ROWS = 12
NAMES = ("log density", "first derivative", "second derivative", "third derivative")


@compiled(error_model="numpy")
def rowwise(derivatives: Any, y: FloatArray, n: FloatArray, eta: FloatArray, psi: FloatArray, order: int) -> FloatArray:
    """Log density of every row and its derivatives, (N, 4 + 3m), as `hierlmm.families.family` lays them out."""
    found = np.zeros((len(y), 4 + 3 * len(psi)))
    for r in range(len(y)):
        derivatives(y[r], n[r], eta[r], psi, order, found[r])
    return found


def check_derivatives(family: Family, y: FloatArray, n: FloatArray) -> None:
    """Try a family on the data: its function of a row must compile, have a density, and derivatives as differences say.

    Raises
    ------
    SpecificationError
        With the first that is wrong. A wrong derivative would give a wrong fit that looks like any other, and compiled
        code could not pass an exception on.
    """
    psi, means = family.first_psi(y, n), family.first_mean(y, n)
    with np.errstate(all="ignore"):  # inside the range, where a response at its end is not its own mean
        eta = np.nan_to_num(family.function.link(0.5 * (means + np.mean(means))))
    try:
        density = rowwise(family.derivatives, y, n, eta, psi, 3)[:, 0]
    except NumbaError as error:
        received = f"{type(family).__name__}, whose function of a row cannot be compiled"
        remedy = "use numbers, arrays, loops and the module math in it, as numba does, and no other functions"
        raise SpecificationError(received, _first_line(error), remedy, SEE) from error
    bad = np.flatnonzero(np.isnan(density) | (density == np.inf))
    if bad.size or not np.any(np.isfinite(density)):
        _refuse_density(family, y, n, eta, psi, int(bad[0]) if bad.size else 0)
    finite = np.flatnonzero(np.isfinite(density))
    few = finite[np.unique(np.linspace(0, len(finite) - 1, ROWS).astype(int))]
    _compare(family, y[few], n[few], eta[few], psi)


def _refuse_density(family: Family, y: FloatArray, n: FloatArray, eta: FloatArray, psi: FloatArray, row: int) -> None:
    """Refuse a function of a row that raises or gives no number in this row, with what it raises."""
    where = f"at y = {y[row]:g} and a mean of {float(family.mean(eta[row])):g}"
    d, received = np.zeros(4 + 3 * len(psi)), f"{type(family).__name__}, whose function of a row fails {where}"
    try:
        of_row(family)(y[row], n[row], eta[row], psi, 3, d)
        reason = f"its log density there is {d[0]:g}, and responses that were observed have one"
    except Exception as error:  # whatever a user's code may raise
        reason = f"it raised {type(error).__name__}: {error}"
    raise SpecificationError(
        received, reason, "correct it, or its first_mean and first_psi, where the search begins", SEE
    )


def _compare(family: Family, y: FloatArray, n: FloatArray, eta: FloatArray, psi: FloatArray) -> None:
    """Compare stated derivatives with differences."""

    def at(eta: FloatArray, psi: FloatArray) -> FloatArray:
        return rowwise(family.derivatives, y, n, eta, psi, 3)

    here = at(eta, psi)
    moves = [(here[:, 1:4], at(eta + STEP, psi), at(eta - STEP, psi), [f"{name} in η" for name in NAMES[1:]])]
    for k, unit in enumerate(STEP * np.eye(len(psi))):
        stated = here[:, 4 + 3 * k : 7 + 3 * k]
        own = [f"derivative by {family.dispersion[k]} of the {name}" for name in NAMES[:3]]
        moves.append((stated, at(eta, psi + unit), at(eta, psi - unit), own))
    for stated, above, below, names in moves:
        found = (above - below)[:, :3] / (2.0 * STEP)
        wrong = np.isnan(stated) | (np.abs(stated - found) > AGREES * (1.0 + np.abs(found)))
        if np.any(wrong):
            row, column = np.argwhere(wrong)[0]
            received = f"{type(family).__name__}, whose {names[column]} is {stated[row, column]:.6g} at y = {y[row]:g}"
            reason = f"differences of what it is the derivative of give {found[row, column]:.6g}"
            raise SpecificationError(received, reason, "correct its function of a row", SEE)


def _first_line(error: Exception) -> str:
    """What numba says first that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Failed in", "During", "- "))]
    return (told or lines or [type(error).__name__])[0].rstrip(".")
