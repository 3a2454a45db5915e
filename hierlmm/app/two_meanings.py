"""Room (e), two meanings: curves of subjects, of the subject in the middle, and of the mean over subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.app.chart import Chart
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Choice, Number
from hierlmm.arrays import FloatArray
from hierlmm.families.names import family_named
from hierlmm.predict.averages import mean_over_subjects

X = np.linspace(-5.0, 5.0, 81)
SUBJECTS = 25
SETTINGS = (
    Number("sd", "sd(b), how much subjects differ", 0.0, 5.0, 0.1, 2.0),
    Number("intercept", "Intercept", -3.0, 3.0, 0.25, 0.0),
    Number("slope", "Slope, for one subject", 0.2, 3.0, 0.1, 1.0),
    Choice("link", "Link", {"logit": "logit", "probit": "probit", "cloglog": "complementary log-log"}, "logit"),
)


@dataclass(frozen=True, eq=False)
class Found:
    """Curves over `X`: ``subjects`` (25, n), the ``conditional`` one at b = 0 and the ``marginal`` mean over b.

    ``conditional_slope`` and ``marginal_slope`` are those on the scale of the link, the second between x = -1 and 1.
    """

    sd: float
    link: str
    subjects: FloatArray
    conditional: FloatArray
    marginal: FloatArray
    conditional_slope: float
    marginal_slope: float


def numbers(*, sd: float, intercept: float, slope: float, link: str) -> Found:
    """Evaluate the curves."""
    family = family_named("bernoulli", link)
    eta = intercept + slope * X
    levels = sd * np.random.default_rng(3).standard_normal(SUBJECTS)
    ends = mean_over_subjects(family, intercept + slope * np.array([-1.0, 1.0]), np.full(2, sd**2))
    first, last = family.function.link(ends)
    return Found(
        sd=sd,
        link=link,
        subjects=family.mean(eta + levels[:, None]),
        conditional=family.mean(eta),
        marginal=mean_over_subjects(family, eta, np.full(len(X), sd**2)),
        conditional_slope=slope,
        marginal_slope=float(last - first) / 2.0,
    )


def show(found: Found) -> str:
    """The curves, and both slopes."""
    chart = Chart("Probability along x", (X[0], X[-1]), (0.0, 1.0), "x", "probability", (720, 400))
    for curve in found.subjects:
        chart.line(X, curve, "data thin", "subjects")
    chart.line(X, found.conditional, "ink bold", "the subject in the middle, b = 0 (conditional)")
    chart.line(X, found.marginal, "c1 bold", "mean over subjects (population-averaged)")
    slopes = {"for one subject (conditional)": found.conditional_slope, "for the mean (marginal)": found.marginal_slope}
    rows = {name: {"slope": value, "odds ratio": float(np.exp(value))} for name, value in slopes.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if found.link != "logit":
        frame = frame[["slope"]]
    said = [say("two_meanings.ratio", ratio=found.marginal_slope / found.conditional_slope, sd=found.sd)]
    if found.link == "logit":
        said.append(say("two_meanings.rule", rule=1.0 / np.sqrt(1.0 + 0.346 * found.sd**2)))
    return charts([chart.svg()]) + table(frame, say("two_meanings.slopes")) + paragraph(" ".join(said), "verdict")


ROOM = Room("two_meanings", SETTINGS, numbers, show)
