"""Dynamic prediction as a picture: a new subject's line and bands, updated measurement by measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.questions import time_of
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, percent, stack_points, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.frames import column_names, quote, require_columns, to_pandas
from hierlmm.options import checked
from hierlmm.plots.fits import one_fit
from hierlmm.predict.ask import predict, predict_subject
from hierlmm.predict.history import courses_of

STEPS = 60
SEE = "docs, page 'Predictions'"


@checked
@pictured
def plot_subject_prediction(
    fit: Fit | SideBySide,
    history: Any,
    times: Sequence[float] | None = None,
    *,
    after: int | Sequence[int] | None = None,
    ci: float = 0.95,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw a new subject's predicted line as its measurements come in.

    One panel for each number of measurements used: filled points were used, hollow ones came later. The dark band is
    for the subject's line, the light band, from the last measurement used on, for a new measurement.

    Parameters
    ----------
    fit : Fit or Comparison
        A fit with random effects; of a `Comparison` the reference.
    history : table
        Measurements of one subject that was not in the data, as for ``fit.predict_subject``.
    times : sequence of numbers, optional
        Where to evaluate; by default from the first measurement to the end of the fitted data.
    after : int or sequence of int, optional
        Numbers of measurements to use, a panel each (0: what is expected of any new subject); by default 1, 2, 3.
    ci : float
        Probability of the bands.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the variable and of the response otherwise.
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``line``, ``used`` and ``later`` over ``panel``.

    Raises
    ------
    SpecificationError
        If the model has no single numeric level-1 variable, the history has several subjects, or ``after`` asks for
        more measurements than there are.
    """
    fit = one_fit(fit)
    design = fit.design
    time = time_of(design)
    if time is None:
        received = f"a model with level-1 variables {', '.join(map(repr, design.level1_variables())) or 'none'}"
        reason = "the picture needs one numeric level-1 variable on its horizontal axis"
        raise SpecificationError(received, reason, "use fit.predict_subject(history, newdata=...)", SEE)
    past = _one_subject(fit, history, time)
    x, y = past[time].to_numpy(dtype=np.float64), past[design.hierarchy.response].to_numpy(dtype=np.float64)
    end = max(float(design.frame[time].max()), float(x[-1]))
    grid = np.linspace(x[0], end, STEPS) if times is None else np.unique(np.asarray(times, dtype=np.float64))
    numbers = {_title(k): k for k in _counts(after, len(past))}
    lines, bands, used, later = {}, {}, {}, {}
    for panel, k in numbers.items():
        line = _line(fit, past.iloc[:k], past, grid, "confidence", ci)
        ahead = grid[grid > x[k - 1]] if k else grid
        new = _line(fit, past.iloc[:k], past, ahead, "prediction", ci) if len(ahead) else line.iloc[:0]
        lines[panel] = np.vstack([grid, line["estimate"]])
        bands[panel] = (grid, line, ahead, new)
        used[panel] = np.vstack([x[:k], y[:k]]) if k else NOTHING
        later[panel] = np.vstack([x[k:], y[k:]]) if k < len(x) else NOTHING
    own, colour = theme(), theme().colour_of(fit.estimator)
    stacked, size = stack_points(lines, "panel", "prediction"), each(0.7, 3.3, 0.8, 2.9)
    panels = Panels(stacked, "panel", size, figure, col_wrap, sharex=True, sharey=True)
    for panel, (at, line, ahead, new) in bands.items():
        for where, table, alpha in ((ahead, new, 0.15), (at, line, 0.3)):
            if len(where) > 1:
                panels.band(panel, where, table["lower"], table["upper"], alpha=alpha, color=colour)
    panels.map("line_xy", "line", lines, color=colour, width=2.0)
    panels.map("scatter_xy", "later", later, facecolor=own.paper, edgecolor=own.data, size=28)
    panels.map("scatter_xy", "used", used, color=own.data, size=28)
    marks = [
        Entry("line of the subject", colour),
        Entry("measured, used", own.data, line="", marker="circle", size=28),
        Entry("measured later", own.data, line="", marker="circle", size=28, hollow=True),
    ]
    return panels.finish(
        {panel: panel for panel in numbers},
        title=f"A new subject, measurement by measurement ({fit.estimator})",
        caption=f"{percent(ci)} bands, dark: of the subject's line, light: of a new measurement",
        xlabel=with_unit(time, design.units) if xlabel is None else xlabel,
        ylabel=with_unit(design.hierarchy.response, design.units) if ylabel is None else ylabel,
        legend=marks,
    )


def _one_subject(fit: Fit, history: Any, time: str) -> pd.DataFrame:
    """The history in the order of time, with its response as the model sees it."""
    subject = fit.design.hierarchy.subject
    require_columns([time], column_names(history), "history without the column")
    frame = to_pandas(history)
    labels = list(pd.unique(frame[subject])) if subject in frame.columns else []
    if len(labels) > 1:
        reason = "the picture shows one subject, updated measurement by measurement"
        remedy = f"choose one, for example history[history[{subject!r}] == {quote(labels[0])}]"
        raise SpecificationError(f"a history of {len(labels)} subjects", reason, remedy, SEE)
    frame = frame.sort_values(time, kind="stable")
    (course,) = courses_of(fit.design, frame, [float(frame[time].iloc[-1])], None, retrospective=False).subjects
    return frame.assign(**{fit.design.hierarchy.response: course.y})


def _counts(after: int | Sequence[int] | None, n: int) -> list[int]:
    if after is None:
        return list(range(1, min(n, 3) + 1))
    counts = [int(k) for k in np.atleast_1d(np.asarray(after))]
    if not counts or min(counts) < 0 or max(counts) > n:
        received = f"after={after!r}"
        raise SpecificationError(received, f"the history has {n} measurements", f"use numbers from 0 to {n}", SEE)
    return counts


def _title(k: int) -> str:
    return {0: "before any measurement", 1: "after 1 measurement"}.get(k, f"after {k} measurements")


def _line(fit: Any, used: pd.DataFrame, past: pd.DataFrame, grid: FloatArray, interval: str, ci: float) -> pd.DataFrame:
    if len(used):
        return predict_subject(fit, used, grid, interval=interval, ci=ci, retrospective=True)
    time = time_of(fit.design)
    table = past.iloc[np.zeros(len(grid), dtype=int)].reset_index(drop=True).assign(**{str(time): grid})
    return predict(fit, table, "new_subject", interval, ci)
