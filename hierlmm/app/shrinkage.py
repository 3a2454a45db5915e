"""Room (c), shrinkage: move one child's measurements, and see what no, complete and partial pooling make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.app.chart import Chart, limits
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Choice, Heights
from hierlmm.arrays import FloatArray
from hierlmm.datasets.catalogue import load_dataset
from hierlmm.fit.likelihood import LikelihoodFit
from hierlmm.model import TwoLevelModel
from hierlmm.plots.shrinkage import PARTIAL, POOLED, SEPARATE, pooled_coefficients, separate_coefficients

FORMULA = "distance ~ time + (1 + time | subject)"
AGES = (8, 10, 12, 14)
RANGE = (12.0, 36.0)
"""How far a point can be moved, in millimetres."""
SETTINGS = (
    Choice("child", "Child", {str(k): f"child {k}" for k in range(1, 28)}, "15"),
    Heights("points", len(AGES), *RANGE),
)


@dataclass(frozen=True, eq=False)
class Found:
    """The child's measurements and three pairs of coefficients: of all subjects × term by kind, and of the fit."""

    child: int
    y: FloatArray
    moved: bool
    fit: LikelihoodFit
    kinds: dict[str, pd.DataFrame]

    @property
    def own(self) -> pd.DataFrame:
        """Coefficients of the child, kind × term."""
        return pd.DataFrame({kind: frame.loc[self.child] for kind, frame in self.kinds.items()}).T


@cache
def _model() -> TwoLevelModel:
    """The model of the data as they are."""
    return TwoLevelModel.from_formula(FORMULA, load_dataset("dental"))


def numbers(*, child: str, points: tuple[float, ...]) -> Found:
    """Fit the data in which the child's measurements are where they were moved to."""
    model, label = _model(), int(child)
    y, rows = model.design.y.copy(), model.design.subject_index == model.design.subjects.get_loc(label)
    if points:
        y[rows] = points
    fit = model.with_design(model.design.with_response(y)).fit_reml()
    kinds = {SEPARATE: separate_coefficients(fit), PARTIAL: fit.subject_coef, POOLED: pooled_coefficients(fit)}
    return Found(label, y[rows], bool(points), fit, kinds)


def show(found: Found) -> str:
    """The child with three lines, all children on the plane of coefficients, and the numbers."""
    fit = found.fit
    own: Any = found.own.rename(columns={"Intercept": "at age 8 (mm)", "time": "growth (mm a year)"})
    gone = 1.0 - (own.loc[PARTIAL] - own.loc[POOLED]) / (own.loc[SEPARATE] - own.loc[POOLED]).replace(0.0, np.nan)
    frame = pd.concat([own, gone.to_frame("share of the way to the pooled fit").T])
    sd, sigma = fit.sd_b, fit.sigma
    said = say("shrinkage.fit", intercept=sd["Intercept"], slope=sd["time"], sigma=sigma)
    singular = paragraph(say("shrinkage.singular"), "verdict") if fit.is_singular else ""
    pictures = charts([_child(found), _plane(found)])
    return pictures + table(frame, say("shrinkage.table", child=found.child), ".3f") + paragraph(said) + singular


def _child(found: Found) -> str:
    t = np.array(AGES, dtype=float)
    chart = Chart(
        f"Child {found.child}: move the points", (7.5, 14.5), RANGE, "age (years)", "distance (mm)", (460, 360)
    )
    looks = {POOLED: "ink dashed", SEPARATE: "c4", PARTIAL: "c0 bold"}
    for kind, look in looks.items():
        a, b = found.own.loc[kind]
        chart.line(t, a + b * (t - t[0]), look, kind)
    names = [f"distance at age {age}, millimetres" for age in AGES]
    chart.handles(t, found.y, names)
    return chart.svg()


def _plane(found: Found) -> str:
    separate, partial, pooled = (found.kinds[kind].to_numpy() for kind in (SEPARATE, PARTIAL, POOLED))
    x, y = limits(separate[:, 0]), limits(separate[:, 1])
    chart = Chart(
        "All children: from separate fits to partial pooling", x, y, "at age 8 (mm)", "growth (mm a year)", (460, 360)
    )
    here = found.kinds[SEPARATE].index.get_loc(found.child)
    for a, b in zip(separate, partial, strict=True):
        chart.line((a[0], b[0]), (a[1], b[1]), "data thin")
    chart.dots(separate[:, 0], separate[:, 1], "c4 small", SEPARATE, radius=2.5)
    chart.dots(partial[:, 0], partial[:, 1], "c0", PARTIAL, radius=3)
    chart.dots(pooled[:1, 0], pooled[:1, 1], "ink", POOLED, radius=6)
    a, b = separate[here], partial[here]
    chart.line((a[0], b[0]), (a[1], b[1]), "c1 bold", f"child {found.child}")
    chart.dots((b[0],), (b[1],), "c1", radius=6)
    return chart.svg()


def _slots(values: Mapping[str, Any]) -> dict[str, Any]:
    label, points = int(values["child"]), list(values["points"])
    moved = f'data.loc[data["subject"] == {label}, "distance"] = {points}\n' if points else ""
    return {"child": label, "moved": moved, "formula": FORMULA}


ROOM = Room("shrinkage", SETTINGS, numbers, show, _slots)
