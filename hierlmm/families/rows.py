"""A family on arrays: the log density of every row, and whether the derivatives that a family states are right."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.errors import SpecificationError
from hierlmm.families.family import SEE, Family

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
    """Compare the derivatives of a family with differences, in a few rows.

    Raises
    ------
    SpecificationError
        With the first that differs. A wrong derivative would give a wrong fit that looks like any other.
    """
    few = np.unique(np.linspace(0, len(y) - 1, ROWS).astype(int))
    y, n, psi = y[few], n[few], family.first_psi(y, n)
    with np.errstate(all="ignore"):
        eta = np.nan_to_num(family.function.link(family.first_mean(y, n)))

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
        wrong = np.abs(stated - found) > AGREES * (1.0 + np.abs(found))
        if np.any(wrong):
            row, column = np.argwhere(wrong)[0]
            received = f"{type(family).__name__}, whose {names[column]} is {stated[row, column]:.6g} at y = {y[row]:g}"
            reason = f"differences of what it is the derivative of give {found[row, column]:.6g}"
            raise SpecificationError(received, reason, "correct its function of a row", SEE)
