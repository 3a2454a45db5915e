"""Regressions of every group alone beside the lines of the mixed model, which draws them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design, own_columns
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.labels import label_ends
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, crowd, evenly, join_with_gaps, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked
from hierlmm.plots.fits import one_named, refuse_without_effects
from hierlmm.plots.lines import Axis, averaged_line, fitted_by, rows_along, x_axis
from hierlmm.plots.rows import apart
from hierlmm.plots.shrinkage import separate_coefficients

ALONE, TOGETHER = "each alone", "mixed model"
COLOURED = 6
MOST_LINES = 200
MOST_LOOKED_AT = 2000
"""Of more groups than these, evenly spaced ones are taken."""


@checked
@pictured
def plot_separate_lines(
    fits: Fit | SideBySide,
    *,
    variable: str | None = None,
    coloured: int = COLOURED,
    max_subjects: int = MOST_LINES,
    xlabel: str | None = None,
    ylabel: str | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the least-squares line of every group beside its line by the mixed model, both over the data.

    Bold, in both panels, is the line that all share: complete pooling (least squares on all rows) on the left, the
    population line on the right, both averaged over the groups' covariates. Groups with few or close measurements
    have lines of any slope on their own, and near the population line in the mixed model: that is what it is for.

    Parameters
    ----------
    fits : Fit or Comparison
        A fit with random effects by any estimator; of a `Comparison` the reference.
    variable : str, optional
        Variable on the horizontal axis; by default that of `plot_trajectories`.
    coloured : int
        At most that many groups have colours and names (up to 6): those whose own lines are farthest from the mixed
        model's, where there are more.
    max_subjects : int
        Draw at most that many groups: besides those with colours, evenly spaced ones.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the variable and of the response otherwise.

    Returns
    -------
    Picture
        Visuals ``points_…`` and ``lines_…`` by group (``points`` and ``lines`` of those without colours), and
        ``shared``, over ``model``.

    Raises
    ------
    SpecificationError
        If the model has no variable of level 1.

    Examples
    --------
    >>> import hierlmm as hl
    >>> esoph = hl.load_dataset("esoph")
    >>> fit = hl.TwoLevelModel.from_formula("ncases ~ ncontrols + (ncontrols | agegp)", esoph).fit_reml()
    >>> picture = fit.plot_separate_lines(backend="none")
    """
    name, fit = one_named(fits)
    refuse_without_effects(fit, "plot_separate_lines")
    design = fit.design
    axis = x_axis(design, variable)
    if axis.variable is None:
        reason, remedy = "lines need a variable of level 1 to run along", "draw fit.plot_data() or fit.plot_shrinkage()"
        raise SpecificationError(f"plot_separate_lines of {design.hierarchy.formula}", reason, remedy)
    lines = _lines(fit, axis)
    chosen, others = _chosen(lines, min(max(0, coloured), COLOURED), max_subjects)
    panels = Panels(
        dict.fromkeys((ALONE, TOGETHER), NOTHING),
        "model",
        each(0.9, 3.9, 1.1, 3.7),
        figure,
        name="lines",
        sharex=True,
        sharey=True,
    )
    colours = {str(design.subjects[j]): theme().palette[k] for k, j in enumerate(chosen)}
    moved = _draw_points(panels, design, axis, chosen, others)
    _draw_lines(panels, lines, chosen, others, colours, design)
    everyone, coefficients = np.arange(design.n_subjects), {ALONE: _pooled(design), TOGETHER: fit.beta.to_numpy()}
    shared = {panel: averaged_line(design, axis, everyone, beta) for panel, beta in coefficients.items()}
    panels.map("line_xy", "shared", shared, color=theme().ink, width=3.0)
    axis.mark(panels, (ALONE, TOGETHER))
    panels.limit(ALONE, y=_limits(design.y, lines, shared))
    labelled = [
        label_ends(panels, panel, {str(design.subjects[j]): _end(lines[panel][j]) for j in chosen}, colours)
        for panel in (ALONE, TOGETHER)
    ]
    return panels.finish(
        {ALONE: "a regression for each alone\n(bold: one for all)", TOGETHER: f"{name}\n(bold: population line)"},
        title=f"{design.hierarchy.response} along {axis.variable}, {_count(chosen, others, design)}",
        caption=_caption(lines, moved),
        xlabel=axis.label if xlabel is None else xlabel,
        ylabel=with_unit(design.hierarchy.response, design.units) if ylabel is None else ylabel,
        legend=() if all(labelled) else [Entry(label, colour) for label, colour in colours.items()],
    )


@dataclass(frozen=True, eq=False)
class _Lines:
    """Lines (2, n) by panel and position of the subject; those that a subject's rows do not determine are absent."""

    alone: dict[int, FloatArray]
    together: dict[int, FloatArray]

    def __getitem__(self, panel: str) -> dict[int, FloatArray]:
        return self.alone if panel == ALONE else self.together


def _lines(fit: Fit, axis: Axis) -> _Lines:
    """The mixed model's lines of subjects, and these moved by how far the coefficients of each alone are off."""
    design = fit.design
    new, at, lines = rows_along(design, axis, evenly(design.n_subjects, MOST_LOOKED_AT))
    together = fitted_by(fit, new, at)
    names = [design.level1[k] for k in design.own_level1]
    own = separate_coefficients(fit).to_numpy() - fit.subject_coef[names].to_numpy()
    alone = together + np.einsum("ij,ij->i", own_columns(design, new.Z), own[at])
    known = ({j: line for j, line in lines(y).items() if np.isfinite(line[1]).any()} for y in (alone, together))
    return _Lines(*known)


def _pooled(design: Design) -> FloatArray:
    """Least squares on all rows alike."""
    return np.linalg.lstsq(design.X, design.y - design.offset)[0] if design.coef else np.empty(0)


def _chosen(lines: _Lines, coloured: int, most: int) -> tuple[list[int], list[int]]:
    """Subjects with colours, in their order, and those without that are drawn as well."""
    every = list(lines.together)
    moves = {j: _distance(lines.alone[j], lines.together[j]) for j in every if j in lines.alone}
    if len(every) <= coloured:
        return every, []
    chosen = sorted(sorted(moves, key=lambda j: -moves[j])[:coloured])
    left = [j for j in every if j not in chosen]
    return chosen, [left[k] for k in evenly(len(left), max(1, most - len(chosen)))]


def _distance(a: FloatArray, b: FloatArray) -> float:
    known = np.isfinite(a[1]) & np.isfinite(b[1])
    return float(np.sqrt(np.mean((a[1, known] - b[1, known]) ** 2)))


def _draw_points(panels: Panels, design: Design, axis: Axis, chosen: list[int], others: list[int]) -> bool:
    """The data behind the lines; returns whether coinciding points were moved."""
    x, y, index = axis.position, np.asarray(design.y, dtype=np.float64), design.subject_index
    moved = len(np.unique(np.column_stack([x, y]), axis=0)) < 0.9 * len(y)
    y = y + apart(y) if moved else y
    look: dict[str, Any] = {"size": 12, "alpha": max(0.25, crowd(len(y)))}
    at = np.isin(index, others)
    if at.any():
        part = np.vstack([x[at], y[at]])
        panels.map("scatter_xy", "points", {ALONE: part, TOGETHER: part}, color=theme().grey, **look)
    for k, j in enumerate(chosen):
        part = np.vstack([x[index == j], y[index == j]])
        both = {ALONE: part, TOGETHER: part}
        panels.map("scatter_xy", f"points_{design.subjects[j]}", both, color=theme().palette[k], **look)
    return moved


def _draw_lines(
    panels: Panels, lines: _Lines, chosen: list[int], others: list[int], colours: Mapping[str, str], design: Design
) -> None:
    if others:
        parts = {
            panel: join_with_gaps([lines[panel][j] for j in others if j in lines[panel]]) for panel in panels.names
        }
        alpha = float(np.clip((20.0 / len(others)) ** 0.5, 0.2, 0.7))
        panels.map("line_xy", "lines", parts, color=theme().grey, width=0.9, alpha=alpha)
    for j in chosen:
        label = str(design.subjects[j])
        parts = {panel: lines[panel].get(j, NOTHING) for panel in panels.names}
        panels.map("line_xy", f"lines_{label}", parts, color=colours[label], width=1.9)


def _end(line: FloatArray) -> float:
    known = line[:, np.isfinite(line[1])]
    return float(known[1, np.argmax(known[0])])


def _limits(y: FloatArray, lines: _Lines, shared: Mapping[str, FloatArray]) -> tuple[float, float]:
    """Of the data and the mixed model's lines; lines of groups alone may leave them."""
    values = np.concatenate([y, *(line[1] for line in lines.together.values()), *(v[1] for v in shared.values())])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _count(chosen: list[int], others: list[int], design: Design) -> str:
    n, total, what = len(chosen) + len(others), design.n_subjects, design.hierarchy.subject
    return f"{f'{n:,} of {total:,}' if n < total else f'{total:,}'} subjects ({what})"


def _caption(lines: _Lines, moved: bool) -> str:
    lacking = len(lines.together) - len(lines.alone)
    parts = ["Points were moved up and down a little, to be told apart."] if moved else []
    if lacking:
        parts.append(f"{lacking:,} have too few measurements for a line of their own.")
    if len(lines.together) > COLOURED:
        parts.append("In colour: those whose own line is farthest from the mixed model's.")
    return " ".join(parts)
