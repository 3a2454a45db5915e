"""Tipping point: how far from missing at random the responses after drop-out have to be before a conclusion changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.tipping import draw_tipping
from hierlmm.errors import SpecificationError
from hierlmm.frames import quote, shorten
from hierlmm.missingness.impute import completed
from hierlmm.missingness.planned import SEE, Planned, estimates, planned_of
from hierlmm.missingness.sensitivity import (
    Analysis,
    Method,
    analysis_of,
    effect_draws,
    method_of,
    told_by_draws,
    told_by_imputation,
)
from hierlmm.missingness.strategies import Assumption
from hierlmm.missingness.tables import counted
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import number, sayer, show

SAY = sayer(__file__)
STEPS, REACH = 13, 2.0
"""Number of deltas by default, and how far they go, in SDs of the response at the visit."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class TippingPoint(Result):
    """The effect at one visit over a range of deltas. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each ``delta``, a copy: ``estimate``, ``se``, ``lower``, ``upper``, ``p`` or ``prob_positive``.
    tipping : float
        The delta at which an end of the interval reaches zero; NaN if it does not within the range.
    visit, arm, reference : label
    method : {"imputation", "draws"}
    ci : float
    others : tuple
        Arms that were not looked at.
    holds_zero : bool
        Whether the interval holds zero if responses are missing at random.
    """

    table: pd.DataFrame
    tipping: float
    visit: Any
    arm: Any
    reference: Any
    response: str
    method: str
    ci: float
    sd: float
    others: tuple[Any, ...] = ()
    holds_zero: bool = False

    @checked
    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw the effect and its interval against delta, with the tipping point.

        Returns
        -------
        Picture
        """
        return draw_tipping(self, figure)

    @property
    def verdict(self) -> str:
        """Where it tips, in words."""
        slots = {"arm": self.arm, "reference": self.reference, "visit": show(self.visit), "response": self.response}
        slots |= {"percent": f"{100 * self.ci:g}"}
        if np.isnan(self.tipping):
            low, high = self.table.index.min(), self.table.index.max()
            where = "holds" if self.holds_zero else "stays off"
            return SAY("tipping.never", low=number(low), high=number(high), where=where, **slots)
        size = abs(self.tipping) / self.sd
        direction = "lower" if self.tipping < 0.0 else "higher"
        said = "tipping.away" if self.holds_zero else "tipping.at"
        return SAY(said, size=number(abs(self.tipping)), sds=f"{size:.2f}", direction=direction, **slots)

    def _page(self) -> Page:
        rest = SAY("tipping.others", arm=self.arm, others=shorten(map(quote, self.others)), visit=show(self.visit))
        title = f"{self.response}: {self.arm} - {self.reference} at {show(self.visit)}, by what is added after drop-out"
        return Page(
            title,
            [
                "",
                counted(self.table.reset_index(), title),
                "",
                Paragraph(self.verdict),
                *([Paragraph(rest)] if self.others else []),
            ],
        )


@checked
def tipping_point(
    fit: Any,
    deltas: Sequence[float] | None = None,
    *,
    treatment: str,
    arm: Any = None,
    reference: Any = None,
    visit: Any = None,
    each_visit: bool = False,
    method: Method | None = None,
    n: int | None = None,
    ci: float = 0.95,
    time: str | None = None,
    data: Any = None,
    seed: int | None = 0,
) -> TippingPoint:
    """Find the delta at which the interval of a treatment effect reaches zero.

    The same imputations, or draws, serve all deltas.

    Parameters
    ----------
    fit, treatment, reference, each_visit, method, n, ci, time, data, seed
        As in `delta_adjusted`.
    deltas : sequence of float, optional
        What is added to the responses of the arm after drop-out; by default from nothing to two SDs of the response
        against the effect.
    arm : label, optional
        The arm whose responses are shifted and which is compared; by default the first that is not the reference.
    visit : label, optional
        By default the last one.

    Returns
    -------
    TippingPoint
    """
    planned = planned_of(fit, treatment, reference, time, data, caller="tipping_point")
    chosen, size = method_of(fit, method, n)
    analysis = _of_one(analysis_of(planned), arm, visit)
    at, own = analysis.visit[0], planned.arms[analysis.arm[0]]
    sd = _sd(planned, analysis.arm[0], at)
    unit = Assumption(delta={own: 1.0}, each_visit=each_visit)
    make = _imputed if chosen == "imputation" else _drawn
    found = make(analysis, unit, size, ci, seed)
    at_random = found(0.0).iloc[0]
    grid = (
        np.linspace(0.0, (-REACH if at_random["estimate"] >= 0.0 else REACH) * sd, STEPS)
        if deltas is None
        else _checked(deltas)
    )
    table = pd.concat([found(float(d)) for d in grid])
    table.index = pd.Index(grid, name="delta")
    names = planned.visits.times[at], own, planned.arms[0], planned.visits.response
    others = tuple(a for a in planned.arms[1:] if a != own)
    holds = bool(at_random["lower"] <= 0.0 <= at_random["upper"])
    return TippingPoint(table, _tips(table, found), *names, chosen, ci, sd, others, holds)


def _sd(planned: Planned, arm: int, visit: int) -> float:
    """SD of the response of an arm at a visit: the root of the mean variance of its subjects."""
    variances = [V[visit, visit] for V in planned.covariances(estimates(planned.fit), 0)]
    sizes = [np.sum(planned.arm[members] == arm) for members in planned.kinds]
    return float(np.sqrt(np.average(variances, weights=sizes)))


def _checked(deltas: Sequence[float]) -> FloatArray:
    grid = np.array(sorted(float(d) for d in deltas))
    if len(grid) < 2 or not np.isfinite(grid).all() or np.any(np.diff(grid) == 0.0):
        reason = "a range of deltas is two or more different numbers"
        raise SpecificationError(f"deltas={list(deltas)!r}", reason, "for example deltas=[0, -1, -2, -4]", SEE)
    return grid


def _of_one(analysis: Analysis, arm: Any, visit: Any) -> Analysis:
    """The row of one arm and visit."""
    own = analysis.planned
    arms, times = own.arms[1:], list(own.visits.times)
    for name, given, known in (("arm", arm, list(arms)), ("visit", visit, times)):
        if given is not None and given not in known:
            remedy = f"use one of {', '.join(map(repr, known))}"
            raise SpecificationError(f"{name}={given!r}", f"there is no such {name} to compare", remedy, SEE)
    number_of = 1 if arm is None else own.arms.index(arm)
    at = len(times) - 1 if visit is None else times.index(visit)
    rows = zip(analysis.visit, analysis.arm, strict=True)
    row = next(r for r, (k, a) in enumerate(rows) if (k, a) == (at, number_of))
    return Analysis(own, analysis.L[[row]], (at,), (number_of,))


def _imputed(analysis: Analysis, unit: Assumption, n: int, ci: float, seed: int | None) -> Any:
    y = completed(analysis.planned, Assumption(), n, seed)
    step = unit.shifts(analysis.planned)

    def found(delta: float) -> pd.DataFrame:
        table = told_by_imputation(analysis, y + delta * step, ci)
        return table[["estimate", "se", "lower", "upper", "p"]]

    return found


def _drawn(analysis: Analysis, unit: Assumption, n: int, ci: float, seed: int | None) -> Any:
    at_random, step = effect_draws(analysis, unit, n, seed)

    def found(delta: float) -> pd.DataFrame:
        table = told_by_draws(analysis, at_random, at_random + delta * step, ci)
        return table[["estimate", "se", "lower", "upper", "prob_positive"]]

    return found


def _tips(table: pd.DataFrame, found: Any) -> float:
    """The delta nearest to zero at which an end of the interval is zero, between neighbours of the table."""
    grid, best = table.index.to_numpy(dtype=float), float("nan")
    for end in ("lower", "upper"):
        values = table[end].to_numpy(dtype=float)
        for k in np.flatnonzero(np.sign(values[1:]) * np.sign(values[:-1]) <= 0.0):
            root = brentq(lambda d, end=end: float(found(d)[end].iloc[0]), grid[k], grid[k + 1], xtol=_close(grid))
            if not abs(root) > abs(best):
                best = float(root)
    return best


def _close(grid: FloatArray) -> float:
    """How exactly the tipping point is found."""
    return 1e-4 * float(np.ptp(grid))
