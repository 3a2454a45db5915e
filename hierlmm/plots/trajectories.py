"""Trajectories: data, every subject's fitted line, and the population line, in panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.design.design import Design
from hierlmm.design.questions import first_row_of_subjects, rows_by_subject
from hierlmm.design.telling import YES_OR_NO, mean_name
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, crowd, evenly, join_with_gaps, off_the_edges, stack_points, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.frames import quote, shorten
from hierlmm.options import checked, renamed
from hierlmm.plots.fits import one_named, refuse_without_effects
from hierlmm.plots.lines import Axis, population_line, subject_lines, x_axis
from hierlmm.plots.rows import evenly_by_group

LAYERS = ("points", "lines", "subject", "population")
SHOWS = {
    "all": ("points", "subject", "population"),
    "data": ("points", "lines"),
    "subject": ("points", "subject"),
    "population": ("points", "lines", "population"),
}


@renamed(x="variable")
@checked
@pictured
def plot_trajectories(
    fits: Fit | SideBySide,
    *,
    variable: str | None = None,
    by: str | Sequence[str] | None = None,
    show: str | Sequence[str] = "all",
    subjects: int | Sequence[Any] | None = None,
    max_subjects: int = 200,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the data, the subjects' fitted lines and the population line against a level-1 variable.

    A subject's line goes through its fitted values: its level-2 values are its own, and variables that vary within it
    (offsets and other level-1 covariates) are interpolated along x between its rows. Where a category varies, or x is
    used as one, the line joins the rows. The population line (b = 0) of a panel is the average of these lines at b = 0
    over the panel's subjects, so it is *the* line where they share their covariates; a subject's own covariate is held
    at its first and last row beyond them, unless it is the same function of x in all subjects.

    Of a model with a family, lines are means of the response, and the population line that of a subject in the middle
    (b = 0), not the mean over subjects; of a posterior they are averages over its draws, or where only means of the
    random effects were kept, at the posterior means. Zeros and ones are moved inwards a little, so that many are seen.

    Parameters
    ----------
    fits : Fit or Comparison
        A fit by any estimator; of a `Comparison` the reference.
    variable : str, optional
        Variable on the horizontal axis: that of the residual structure, visits with an order in time, the first
        variable of level 1 (numbers before labels), or without any the order of the rows.
    by : str or sequence of str, optional
        Level-2 variables that make the panels; by default the first categorical one. ``by=[]`` makes one panel.
    show : str or sequence of str
        ``"all"``: points, subject lines and population line (``"population"`` for fits without random effects).
        ``"data"``: points joined by thin lines. ``"subject"``: points and subject lines. ``"population"``: points
        joined by thin lines, and the population line. Or any of the layers ``"points"``, ``"lines"``, ``"subject"``,
        ``"population"``.
    subjects : int or sequence, optional
        A panel for each of these subjects instead (a number: that many, evenly spaced in the order of their labels).
    max_subjects : int
        Draw at most that many subjects, evenly spaced within each panel; the population line is that of all.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the variable and of the response otherwise.
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals named as the layers, over ``panel``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    >>> collection = fit.plot_trajectories(show="population", xlabel="Years since age 8")  # doctest: +SKIP
    """
    name, fit = one_named(fits)
    layers = _layers("population" if show == "all" and not fit.has_random_effects else show)
    if "subject" in layers:
        refuse_without_effects(fit, f"show={show!r} (lines of subjects)")
    if fit.design.family.name == "ordinal":
        reason, remedy = "a category has no mean to draw a line of", "use fit.plot_effects(), which draws probabilities"
        raise NotAvailableError("plot_trajectories of an ordinal response", reason, remedy, "docs, page 'Families'")
    axis = x_axis(fit.design, variable)
    members, drawn, titles = _panels(fit.design, by, subjects, max_subjects)
    parts = _geometry(fit, axis, layers, members, drawn)
    per_panel = len(drawn) / max(1, len(members))
    looks = _looks(layers, theme().colour_of(fit.estimator), per_panel, one_each=subjects is not None)
    first = stack_points(next(iter(parts.values())), "panel", "trajectories")
    size: Any
    size, wrap = (each(0.7, 3.5, 1.0, 3.1), None) if subjects is None else (each(0.7, 2.0, 1.0, 1.8), 6)
    size = each(0.7, 5.4, 1.0, 3.6) if len(members) == 1 else size
    panels = Panels(first, "panel", size, figure, col_wrap or wrap, sharex=True, sharey=True)
    for layer, data in parts.items():
        panels.map("scatter_xy" if layer == "points" else "line_xy", layer, data, **looks[layer])
    axis.mark(panels, members)
    some = f", {len(drawn)} of {fit.n_subjects:,} subjects" if subjects is None and len(drawn) < fit.n_subjects else ""
    who = f" ({name})" if layers != SHOWS["data"] else ""
    response = fit.design.hierarchy.response
    if fit.design.family.name in YES_OR_NO:
        response = mean_name(fit.design)
    what = response if fit.design.is_gaussian else response[:1].upper() + response[1:]
    return panels.finish(
        titles,
        title=f"{what} along {axis.variable or axis.label}{some}{who}",
        xlabel=axis.label if xlabel is None else xlabel,
        ylabel=with_unit(response, fit.design.units) if ylabel is None else ylabel,
        legend=_legend_entries(layers, looks, "" if subjects is not None else _averaged(fit.design)),
    )


def _looks(layers: Sequence[str], colour: str, n: float, one_each: bool) -> dict[str, dict[str, Any]]:
    """How each layer of n subjects is drawn; subjects' lines are bold where each has a panel of its own."""
    own, faint = theme(), "population" in layers and "lines" in layers
    return {
        "lines": {"color": own.grey, "width": 0.8, "alpha": min(0.6 if faint else 0.9, crowd(n) + 0.2)},
        "points": {"color": own.data, "size": 12 if n < 60 else 7, "alpha": crowd(3 * n)},
        "subject": {"color": colour, "width": 2.0 if one_each else 1.0, "alpha": 1.0 if one_each else crowd(2 * n)},
        "population": {"color": own.ink, "width": 1.4 if one_each else 2.8},
    }


def _layers(show: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(show, str) and show in SHOWS:
        return SHOWS[show]
    wanted = (show,) if isinstance(show, str) else tuple(show)
    for layer in wanted:
        if layer not in LAYERS:
            reason = f"this is neither a style nor a layer.{closest(layer, [*SHOWS, *LAYERS])}"
            remedy = f"use a style ({', '.join(SHOWS)}) or layers ({', '.join(LAYERS)})"
            raise SpecificationError(f"show={layer!r}", reason, remedy)
    if not wanted:
        raise SpecificationError("show=[]", "there is nothing to draw", f"use a style ({', '.join(SHOWS)})")
    # Bottom to top: thin lines, points, subject lines, population line.
    return tuple(layer for layer in ("lines", "points", "subject", "population") if layer in wanted)


def _panels(
    design: Design, by: str | Sequence[str] | None, subjects: int | Sequence[Any] | None, max_subjects: int
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, str]]:
    """Positions of the subjects in each panel, the subjects that are drawn, and the panels' titles."""
    J = design.n_subjects
    if subjects is not None:
        chosen = _chosen_subjects(design, subjects)
        panels = {str(design.subjects[j]): np.array([j]) for j in chosen}
        return panels, chosen, {key: f"{design.hierarchy.subject} {key}" for key in panels}
    factors = _factors(design, by)
    if not factors:
        return {"": np.arange(J)}, evenly(J, max_subjects), {"": ""}
    keys = design.frame[factors].iloc[first_row_of_subjects(design)].reset_index(drop=True)
    grouped = keys.groupby(factors, sort=True, observed=True)
    groups, drawn = grouped.indices, evenly_by_group(np.asarray(grouped.ngroup(), dtype=np.intp), max_subjects)
    panels, titles = {}, {}
    for values, members in groups.items():
        values = values if isinstance(values, tuple) else (values,)
        title = ", ".join(f"{f}: {v}" for f, v in zip(factors, values, strict=True))
        panels[title], titles[title] = np.asarray(members), title
    if len(panels) > 24:
        remedy = "use a variable with few values, or pd.cut() it into classes before the fit"
        raise SpecificationError(f"by={factors!r} with {len(panels)} values", "so many panels cannot be read", remedy)
    return panels, drawn, titles


def _factors(design: Design, by: str | Sequence[str] | None) -> list[str]:
    level2 = design.level2_variables()
    if by is None:
        return [v for v in level2 if not pd.api.types.is_numeric_dtype(design.frame[v].dtype)][:1]
    wanted = [by] if isinstance(by, str) else list(by)
    for name in wanted:
        if name not in level2:
            known = ", ".join(map(repr, level2)) or "none: this model has no level-2 variable"
            reason = f"it is not a level-2 variable of this model.{closest(name, level2)}"
            remedy = f"use one of its level-2 variables ({known}), or by=[] for one panel"
            raise SpecificationError(f"by={name!r}", reason, remedy)
    return wanted


def _chosen_subjects(design: Design, subjects: int | Sequence[Any]) -> np.ndarray:
    if isinstance(subjects, (int, np.integer)):
        if subjects < 1:
            raise SpecificationError(f"subjects={subjects!r}", "there is nothing to draw", "use a number of 1 or more")
        return evenly(design.n_subjects, int(subjects))
    chosen = design.subjects.get_indexer(pd.Index(list(subjects)))
    if len(chosen) == 0 or np.any(chosen < 0):
        unknown = [s for s, j in zip(subjects, chosen, strict=True) if j < 0]
        received = f"subjects {shorten(map(quote, unknown))}" if unknown else "subjects=[]"
        reason = "they are not in the fitted data" if unknown else "there is nothing to draw"
        remedy = f"use labels such as {shorten(map(quote, design.subjects), 4)}, or a number"
        raise SpecificationError(received, reason, remedy)
    return np.asarray(chosen)


def _geometry(
    fit: Fit, axis: Axis, layers: Sequence[str], panels: dict[str, np.ndarray], drawn: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Points and lines of each layer by panel, arrays (2, n) with gaps."""
    design = fit.design
    y = off_the_edges(design.y / design.trials, design.family.name)
    data = [np.vstack([axis.position[rows], y[rows]]) for rows in rows_by_subject(design, axis.position)]
    fitted = subject_lines(fit, axis, drawn) if "subject" in layers else {}
    known = set(drawn.tolist())
    parts: dict[str, dict[str, np.ndarray]] = {layer: {} for layer in layers}
    for panel, members in panels.items():
        shown = [int(j) for j in members if j in known]
        own = [data[j] for j in shown]
        if "lines" in layers:
            parts["lines"][panel] = join_with_gaps(own)
        if "points" in layers:
            parts["points"][panel] = np.hstack(own) if own else NOTHING
        if "subject" in layers:
            parts["subject"][panel] = join_with_gaps([fitted[j] for j in shown])
        if "population" in layers:
            parts["population"][panel] = population_line(fit, axis, members)
    return parts


def _averaged(design: Design) -> str:
    """What the population line is in a panel of many subjects."""
    return ", averaged over subjects" if design.is_gaussian else ": a subject in the middle (b = 0)"


def _legend_entries(layers: Sequence[str], looks: Mapping[str, Mapping[str, Any]], averaged: str) -> list[Entry]:
    """The kinds of marks, where there is more than one."""
    population = f"population line{averaged}"
    names = {"lines": "data", "points": "data", "subject": "subject lines", "population": population}
    entries = []
    for layer in layers:
        if layer == "points" and "lines" in layers:
            continue  # points and thin lines are one kind of mark
        look = looks[layer]
        mark: dict[str, Any] = {"line": "", "size": 20} if layer == "points" else {"width": look["width"]}
        marker = "circle" if layer in ("points", "lines") and "points" in layers else ""
        alpha = max(0.6, look.get("alpha", 1.0))
        entries.append(Entry(names[layer], look["color"], marker=marker, alpha=alpha, **{"size": 16, **mark}))
    return entries if len(entries) > 1 else []
