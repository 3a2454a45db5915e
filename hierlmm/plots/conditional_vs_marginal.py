"""Two meanings on one picture: curves of subjects, of the subject in the middle, and of the mean over subjects.

    subject i        g⁻¹(x'β + z'b_i)         average subject      g⁻¹(x'β), b = 0
    average          E_b g⁻¹(x'β + z'b)       GEE                  g⁻¹(x'β_GEE)

On a curved scale the mean of the curves is no curve of a subject; GEE estimates it directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.questions import numbers_at_level1, occasion_of
from hierlmm.design.telling import mean_name
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import crowd, evenly, join_with_gaps, stack_points, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.effects.grid import Grid, plain_name, reference_grid
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide, same_question
from hierlmm.options import checked
from hierlmm.plots.fits import colours_of, pick_fits, refuse_without_effects
from hierlmm.predict.means import means_of_rows
from hierlmm.predict.rows import Rows
from hierlmm.text import show

POINTS = 101
SEE = "docs, page 'GEE', section 'Two meanings of a coefficient'"


@checked
@pictured
def plot_conditional_vs_marginal(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    variable: str | None = None,
    by: str | None = None,
    at: Mapping[str, Any] | None = None,
    max_subjects: int = 60,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw curves of subjects, of the average subject (b = 0) and of the mean over subjects, and that of GEE.

    Where the scale is curved, the average of the subjects' curves is not the curve of the average subject: it is
    flatter where curves saturate (logit, probit), and higher where they bend upwards (log). The average is what GEE
    estimates.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        A fit with random effects, or one together with one by GEE.
    variable : str, optional
        Covariate on the horizontal axis, a number; by default the first one of level 1.
    by : str, optional
        A factor whose levels have panels; a subject is drawn where it has rows.
    at : mapping, optional
        Variable -> the value at which it is held; by default numbers at their mean, factors at their reference level.
    max_subjects : int
        Draw at most that many subjects, evenly spaced; the average is that of N(0, D).
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the covariate and of the mean otherwise.
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``subjects``, ``average_subject``, ``average`` and ``gee`` over ``panel``.

    Raises
    ------
    NotAvailableError
        Without a fit that has random effects, and for an ordinal response, whose categories have no mean.

    Examples
    --------
    >>> import hierlmm as hl
    >>> sleep = hl.load_dataset("sleepstudy")
    >>> slow = sleep.assign(slow=sleep["reaction"] > 300)
    >>> model = hl.TwoLevelModel.from_formula("slow ~ days + (1 | subject)", slow, family="bernoulli")
    >>> picture = model.compare("ml", "gee").plot_conditional_vs_marginal()  # doctest: +SKIP
    """
    named = pick_fits(fits, None)
    name, fit, gee = _chosen(named)
    grid, variable, held = _grid(fit.design, variable, by, at)
    levels = {"": None} if by is None else {f"{by} = {show(v)}": v for v in grid.points[plain_name(by)]}
    drawn = evenly(fit.n_subjects, max_subjects)
    parts = _geometry(fit, None if gee is None else named[gee], grid, variable, by, levels, drawn)
    looks = _looks(colours_of(named), name, gee, len(drawn) / len(levels))
    size = each(0.7, 5.4, 1.0, 3.6) if len(levels) == 1 else each(0.7, 3.5, 1.3, 3.0)
    first = stack_points(parts["average"], "panel", "curves")
    panels = Panels(first, "panel", size, figure, col_wrap, sharex=True, sharey=True)
    for layer, data in parts.items():
        look = looks[layer][1]
        dashed = {"linestyle": panels.dashes} if layer == "gee" else {}
        panels.map("line_xy", layer, data, **look, **dashed)
    entries = [
        Entry(text, line="dashed" if layer == "gee" else "solid", **_of_legend(look))
        for layer, (text, look) in looks.items()
        if layer in parts
    ]
    response = fit.design.hierarchy.response
    return panels.finish(
        {panel: panel for panel in levels},
        title=f"{response} along {variable}, of subjects and on average ({name})",
        caption=_caption(fit, held, len(drawn)),
        xlabel=with_unit(variable, fit.design.units) if xlabel is None else xlabel,
        ylabel=mean_name(fit.design) if ylabel is None else ylabel,
        legend=entries,
    )


def _chosen(named: Mapping[str, Fit]) -> tuple[str, Fit, str | None]:
    """The first fit with random effects, its label, and the label of the first by GEE."""
    same_question(named, next(iter(named)))
    own = [label for label, fit in named.items() if fit.has_random_effects]
    if not own:
        refuse_without_effects(next(iter(named.values())), "curves of subjects")
    fit = named[own[0]]
    refuse_without_effects(fit, "curves of subjects")
    if fit.design.family.name == "ordinal":
        reason = "its categories have no mean, of which curves could be drawn"
        remedy = "draw their probabilities: fit.plot_effects(), and with level='marginal' the shares of all subjects"
        raise NotAvailableError("plot_conditional_vs_marginal of an ordinal response", reason, remedy, SEE)
    return own[0], fit, next((label for label, f in named.items() if f.has_working_correlation), None)


def _grid(
    design: Design, variable: str | None, by: str | None, at: Mapping[str, Any] | None
) -> tuple[Grid, str, dict[str, Any]]:
    """The reference grid with one value of all that is neither on the axis nor in the panels, and these values."""
    grid = reference_grid(design, at)
    numbers = [v for v in grid.points if v not in grid.factors]
    first = [v for v in (occasion_of(design), *numbers_at_level1(design)) if v in numbers] or numbers
    wanted = plain_name(variable) if variable is not None else first[0] if first else None
    if wanted not in numbers:
        known = ", ".join(map(repr, numbers)) or "none"
        reason = f"curves run along a number of the fixed effects.{closest(str(wanted), numbers)}"
        received = "a model without a numeric covariate" if wanted is None else f"variable={variable!r}"
        remedy = f"use one of {known}" if numbers else "use fit.marginal_means(...) by each fit, and their .plot()"
        raise SpecificationError(received, reason, remedy, SEE)
    panels = None if by is None else plain_name(by)
    if panels is not None and panels not in grid.factors:
        known = ", ".join(map(repr, sorted(grid.factors))) or "none"
        reason = f"panels are the levels of a factor of the fixed effects.{closest(panels, list(grid.factors))}"
        raise SpecificationError(f"by={by!r}", reason, f"use one of {known}, or leave by out", SEE)
    held = {v: values[0] for v, values in grid.points.items() if v not in (wanted, panels)}
    return grid, wanted, held


def _geometry(
    fit: Fit,
    gee: Fit | None,
    grid: Grid,
    variable: str,
    by: str | None,
    levels: Mapping[str, Any],
    drawn: IntArray,
) -> dict[str, dict[str, FloatArray]]:
    """Curves of each layer by panel, (2, n) with gaps."""
    design, family, panels = fit.design, fit.design.family, None if by is None else plain_name(by)
    seen = design.frame[variable].to_numpy(dtype=np.float64)
    x = np.linspace(seen.min(), seen.max(), POINTS)
    held = {v: values[0] for v, values in grid.points.items() if v not in (variable, panels)}
    parts: dict[str, dict[str, FloatArray]] = {layer: {} for layer in ("subjects", "average_subject", "average")}
    if gee is not None:
        parts["gee"] = {}
    for panel, level in levels.items():
        given = {**held, **({} if panels is None else {panels: level})}
        rows = grid.new(pd.DataFrame({variable: x}).assign(**given))
        there = drawn if panels is None else _with_level(design, panels, level, drawn)
        asked = Rows(rows.X, rows.Z, rows.offset, np.full(len(x), -1, dtype=np.intp), rows.frame)
        every = replace(asked.take(np.tile(np.arange(len(x)), len(there))), subject=np.repeat(there, len(x)))
        own = means_of_rows(fit, every, "subject").reshape(len(there), len(x))
        parts["subjects"][panel] = join_with_gaps([np.vstack([x, curve]) for curve in own])
        parts["average_subject"][panel] = np.vstack([x, means_of_rows(fit, asked, "population")])
        parts["average"][panel] = np.vstack([x, means_of_rows(fit, asked, "marginal")])
        if gee is not None:
            parts["gee"][panel] = np.vstack(
                [x, family.mean(rows.offset + rows.X @ gee.beta[fit.beta.index].to_numpy())]
            )
    return parts


def _with_level(design: Design, factor: str, level: Any, drawn: IntArray) -> IntArray:
    """Those subjects that have rows at a level of a factor."""
    there = np.unique(design.subject_index[(design.frame[factor] == level).to_numpy()])
    return drawn[np.isin(drawn, there)]


def _looks(colours: Mapping[str, str], name: str, gee: str | None, n: float) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name and look of each layer: subjects light, the average subject in ink, averages in their estimator's colour."""
    own = theme()
    looks = {
        "subjects": ("subjects", {"color": own.grey, "width": 0.9, "alpha": min(0.6, crowd(3 * n))}),
        "average_subject": ("average subject (b = 0)", {"color": own.ink, "width": 2.4}),
        "average": (f"average of subjects ({name})", {"color": colours[name], "width": 3.2}),
    }
    return looks | ({} if gee is None else {"gee": (gee, {"color": colours[gee], "width": 2.4})})


def _of_legend(look: Mapping[str, Any]) -> dict[str, Any]:
    return {"color": look["color"], "width": look["width"], "alpha": max(0.6, look.get("alpha", 1.0))}


def _caption(fit: Fit, held: Mapping[str, Any], drawn: int) -> str:
    """What is held at which value, and how many subjects are drawn."""
    values = ", ".join(f"{v} = {x:.4g}" if isinstance(x, float) else f"{v} = {show(x)}" for v, x in held.items())
    text = [f"At {values}."] if held else []
    if drawn < fit.n_subjects:
        text.append(f"{drawn} of {fit.n_subjects} subjects.")
    if fit.design.family.link == "identity":
        text.append("With the identity link the average subject is the average of subjects.")
    return " ".join(text)
