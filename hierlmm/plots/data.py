"""The data as they are: every subject's measurements, before a fit or with the population line of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.design.questions import (
    first_row_of_subjects,
    is_label,
    levels_of,
    rows_by_subject,
)
from hierlmm.design.telling import mean_name
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.labels import label_ends
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import LABELLED, NOTHING, crowd, evenly, join_with_gaps, segments, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked
from hierlmm.plots.fits import one_named
from hierlmm.plots.lines import Axis, axis_along, default_axis, population_line
from hierlmm.plots.rows import COLOURS, PANELS, Groups, apart, check_column, evenly_by_group, row_groups

SEE = "docs, page 'Data'"
LEVELS = ("bernoulli", "ordinal")
"""Families whose responses are a few levels with names."""
CLASSES = 6
"""Parts of a variable with many values, in which shares are counted."""
LETTERS = 13
"""Letters that an inch of an axis has room for."""
WIDTH = 0.28
"""How far points of a cluster are moved to either side of its place."""


@checked
@pictured
def plot_data(
    what: Fit | SideBySide | Design,
    *,
    by: str | None = None,
    facet: str | None = None,
    variable: str | None = None,
    lines: bool | None = None,
    population: bool | None = None,
    jitter: bool | None = None,
    max_subjects: int = 200,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the measurements of every subject, joined by a line; of a fit with its population line.

    Successes are drawn as shares of their trials. Yes and no and ordered categories are points at their levels, moved a
    little and not joined; the shares of yes and no along the variable are a line, where no population line is drawn.

    Without a variable of level 1 that is a number, every subject (cluster) has a place on the axis and a colour, its
    points beside each other and its mean as a dash; the dashed line is the mean of all.

    Parameters
    ----------
    what : Design, Fit or Comparison
        Of a model its design; of a fit the data with its population line; of a `Comparison` the reference.
    by : str, optional
        Column whose values have colours: a factor, or a number, which has three classes if it has more than 5 values.
        By default the subjects, where they are at most 7 and not joined by lines.
    facet : str, optional
        Column whose values have panels; without ``by`` the first factor of level 2.
    variable : str, optional
        Column on the horizontal axis; by default the time of the residual structure,
        visits with an order in time, or the first number of level 1.
    lines : bool, optional
        Join the measurements of a subject; by default where it has at most one at each place.
    population : bool, optional
        Draw the population line of a fit (by default), one for each group of level-2 values that has a colour or panel.
    jitter : bool, optional
        Move points up and down by up to a quarter of the distance of two values; by default where many coincide.
    max_subjects : int
        Draw at most that many subjects, evenly spaced within each group; the title says so.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the variable and of the response otherwise.
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``lines_…`` and ``points_…`` by label of ``by``, and ``population_…``, over ``panel``.

    Raises
    ------
    SpecificationError
        If a column does not exist, or there are more than 7 colours or 24 panels.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", hl.load_dataset("dental"))
    >>> before = model.plot_data(facet="sex", backend="none")
    >>> after = model.fit_reml().plot_data(by="sex", backend="none")
    """
    name, fit = ("", None) if isinstance(what, Design) else one_named(what)
    design = what if isinstance(what, Design) else fit.design  # type: ignore[union-attr]
    drawn = _drawn(design, by, facet, max_subjects)
    axis = _axis(design, variable, drawn)
    scene = _scene(design, axis, by, facet, lines, drawn)
    y, moved = _heights(design, scene, jitter)
    first = dict.fromkeys(scene.facets.labels, NOTHING)
    one = len(first) == 1
    size = each(0.7, _width(scene), 1.0, 3.8) if one else each(0.7, 3.5, 1.0, 3.1)
    panels = Panels(first, "panel", size, figure, col_wrap, name="data", sharex=True, sharey=True)
    _draw_data(panels, scene, y)
    means = _draw_means(panels, scene, fit, population)
    ends = _last_heights(scene, means) if one else {}
    labelled = scene.by is not None and label_ends(panels, scene.facets.labels[0], ends, scene.colours)
    ticks, texts = axis.ticks()
    levels = _levels(design)
    for panel in first if levels else ():
        panels.draw.yticks(list(range(len(levels))), levels, panels.target(panel))
        panels.limit(panel, y=(-0.5, len(levels) - 0.5))
    written = sum(len(str(text)) + 1 for text in texts) if scene.clusters else 0
    if len(ticks) > LABELLED or written > LETTERS * _width(scene):  # names that nobody could read
        ticks, texts = [], []
    for panel in first if ticks or axis.categories is not None else ():
        panels.draw.xticks(ticks, texts, panels.target(panel))
    response = with_unit(design.hierarchy.response, design.units)
    response += f" / {design.outcome.trials}" if design.family.has_trials and design.outcome.trials else ""
    return panels.finish(
        {panel: f"{scene.facet}: {panel}" if scene.facet else "" for panel in first},
        title=_title(scene, name if means else ""),
        caption=_caption(scene, moved, means),
        xlabel=axis.label if xlabel is None else xlabel,
        ylabel=response if ylabel is None else ylabel,
        legend=() if labelled else _legend(scene, means),
    )


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is drawn where: rows of the subjects that are drawn, with their places, colours and panels."""

    design: Design
    axis: Axis
    clusters: bool
    by: str | None
    facet: str | None
    groups: Groups
    facets: Groups
    colours: Mapping[str, str]
    subjects: IntArray
    rows: list[IntArray]
    lines: bool

    def where(self, group: str, panel: str) -> BoolArray:
        """Rows of a colour in a panel."""
        return np.asarray(
            (self.groups.codes == self.groups.labels.index(group))
            & (self.facets.codes == self.facets.labels.index(panel))
        )


def _drawn(design: Design, by: str | None, facet: str | None, most: int) -> IntArray:
    """The subjects that are drawn, some of every group that has a colour or a panel."""
    if most >= design.n_subjects:
        return evenly(design.n_subjects, most)
    first = first_row_of_subjects(design)
    colours = row_groups(design, by).codes[first]
    facet = _factor(design) if by is None and facet is None else facet
    panels = row_groups(design, facet, name="facet", most=PANELS).codes[first]
    return evenly_by_group(panels * (colours.max() + 1) + colours, most)


def _axis(design: Design, variable: str | None, drawn: IntArray) -> Axis:
    """The horizontal axis: a column, or a place for every subject that is drawn."""
    variable = default_axis(design) if variable is None else variable
    subject = design.hierarchy.subject
    if variable is None or variable == subject:
        place = np.full(design.n_subjects, np.nan)
        place[drawn] = np.arange(len(drawn))
        return Axis(None, subject, place[design.subject_index], tuple(design.subjects[drawn]))
    check_column(design, variable, "variable")
    return axis_along(design, variable)


def _scene(
    design: Design, axis: Axis, by: str | None, facet: str | None, lines: bool | None, drawn: IntArray
) -> _Scene:
    subject, clusters = design.hierarchy.subject, axis.variable is None
    every = rows_by_subject(design, axis.position)
    rows = [every[j] for j in drawn]
    levels = design.family.name in LEVELS
    joined = lines if lines is not None else not (clusters or levels) and _at_most_one(axis.position, every)
    few = not (joined or clusters or levels) and design.n_subjects <= COLOURS
    if by is None and facet is None:
        by, facet = (subject, None) if few else (None, None if clusters else _factor(design))
    groups = row_groups(design, by)
    colours = dict(zip(groups.labels, theme().palette, strict=False))
    if by is None:
        colours = {"": theme().data}
    facets = row_groups(design, facet, name="facet", most=PANELS)
    return _Scene(design, axis, clusters, by, facet, groups, facets, colours, drawn, rows, joined)


def _at_most_one(x: FloatArray, rows: list[IntArray]) -> bool:
    """Whether subjects have one row at each place, but for one in twenty."""
    distinct = sum(len(np.unique(x[own])) for own in rows)
    return distinct >= 0.95 * len(x) and any(len(own) > 1 for own in rows)


def _factor(design: Design) -> str | None:
    level2 = [v for v in design.level2_variables() if is_label(design, v) and v != design.hierarchy.subject]
    return next((v for v in level2 if len(levels_of(design, v)) <= PANELS), None)


def _heights(design: Design, scene: _Scene, jitter: bool | None) -> tuple[FloatArray, bool]:
    """Where points are drawn, and whether they were moved."""
    y = np.asarray(design.y / design.trials, dtype=np.float64)
    if jitter is None and design.family.name in LEVELS:
        jitter = True
    if jitter is None:
        places = np.column_stack([scene.axis.position, y])
        jitter = not scene.lines and not scene.clusters and len(np.unique(places, axis=0)) < 0.9 * len(y)
    return (y + apart(y), True) if jitter else (y, False)


def _draw_data(panels: Panels, scene: _Scene, y: FloatArray) -> None:
    """Lines below all points: thin grey ones, or in the colours of the groups."""
    x, own = scene.axis.position, theme()
    if scene.clusters:
        x = x + np.random.default_rng(0).uniform(-WIDTH, WIDTH, len(x))
    elif scene.design.family.name in LEVELS and not scene.lines and len(np.unique(x)) <= 2 * CLASSES:
        x = x + 0.6 * apart(x, seed=1)
    drawn = np.zeros(len(x), dtype=bool)
    drawn[np.concatenate(scene.rows)] = True
    n_lines = len(scene.rows) / len(scene.facets.labels)
    thin = {"width": 0.9, "alpha": float(np.clip(0.85 * (40.0 / max(n_lines, 1.0)) ** 0.5, 0.2, 0.85))}
    points = {"size": 14, "alpha": crowd(drawn.sum() / len(scene.facets.labels))}
    for group in scene.groups.labels:
        where = {panel: scene.where(group, panel) for panel in scene.facets.labels}
        colour = scene.colours[group]
        if scene.lines:
            parts = {
                panel: join_with_gaps(
                    [np.vstack([x[r[own_]], y[r[own_]]]) for r in scene.rows if (own_ := at[r]).any()]
                )
                for panel, at in where.items()
            }
            line = own.grey if scene.by is None else colour
            panels.map("line_xy", f"lines_{group}".rstrip("_"), parts, color=line, **thin)
    for group in scene.groups.labels:
        where = {panel: scene.where(group, panel) & drawn for panel in scene.facets.labels}
        if scene.clusters and scene.by is None:
            _draw_clusters(panels, scene, x, y, where)
            continue
        parts = {panel: np.vstack([x[at], y[at]]) if at.any() else NOTHING for panel, at in where.items()}
        panels.map("scatter_xy", f"points_{group}".rstrip("_"), parts, color=scene.colours[group], **points)


def _draw_clusters(panels: Panels, scene: _Scene, x: FloatArray, y: FloatArray, where: Mapping[str, BoolArray]) -> None:
    """Points in the colour of their cluster; colours come again, never beside each other."""
    place, palette = scene.axis.position, theme().palette[:6]
    for k, colour in enumerate(palette):
        mine = place % len(palette) == k
        parts = {
            panel: np.vstack([x[at & mine], y[at & mine]]) if (at & mine).any() else NOTHING
            for panel, at in where.items()
        }
        panels.map("scatter_xy", f"points_{k}", parts, color=colour, size=22, alpha=0.75)


def _draw_means(panels: Panels, scene: _Scene, fit: Fit | None, population: bool | None) -> dict[str, Any]:
    """Population lines of a fit by colour and panel, or the means of clusters; what was drawn."""
    if scene.clusters:
        return _cluster_means(panels, scene, fit)
    known, family = scene.axis.variable in scene.design.level1_variables(), scene.design.family.name
    wanted = fit is not None and known and family != "ordinal" if population is None else population
    if not wanted:
        if family == "bernoulli":
            _draw_shares(panels, scene)
        return {}
    if fit is None or not known:
        received = "population=True " + ("without a fit" if fit is None else f"along {scene.axis.label!r}")
        reason = "a population line is that of a fit, along a variable of level 1 of its model"
        raise SpecificationError(received, reason, "leave population out, or call fit.plot_data()", SEE)
    index = scene.design.subject_index
    found: dict[str, Any] = {}
    level2 = scene.by is None or _constant(scene.groups, scene.design)
    for group in scene.groups.labels if level2 else [""]:
        lines = {}
        for panel in scene.facets.labels:
            at = scene.where(group, panel) if level2 else scene.facets.codes == scene.facets.labels.index(panel)
            subjects = np.unique(index[at])
            lines[panel] = population_line(fit, scene.axis, subjects) if len(subjects) else NOTHING
        colour = theme().ink if scene.by is None or not level2 else scene.colours[group]
        panels.map("line_xy", f"population_{group}".rstrip("_"), lines, color=colour, width=3.2)
        found[group] = lines
    return found


def _draw_shares(panels: Panels, scene: _Scene) -> None:
    """How often the answer is yes along the axis: at each of a few values, or in classes with equally many rows."""
    x, y = scene.axis.position, scene.design.y
    few = len(np.unique(x)) <= 2 * CLASSES
    edges = np.unique(x) if few else np.unique(np.quantile(x, np.linspace(0.0, 1.0, CLASSES + 1)[:-1]))
    classes = np.searchsorted(edges, x, side="right")
    for group in scene.groups.labels:
        lines = {}
        for panel in scene.facets.labels:
            rows = pd.DataFrame({"x": x, "y": y})[scene.where(group, panel)]
            means = rows.groupby(classes[scene.where(group, panel)]).mean()
            lines[panel] = means.to_numpy().T if len(means) else NOTHING
        colour = theme().ink if scene.by is None else scene.colours[group]
        panels.map("line_xy", f"shares_{group}".rstrip("_"), lines, color=colour, width=2.4)


def _levels(design: Design) -> list[str]:
    """Names of the levels of a response that has some."""
    if design.family.name == "ordinal":
        return [str(level) for level in design.rows.categories]
    if design.family.name != "bernoulli":
        return []
    column = design.frame.get(unquoted(design.hierarchy.response))
    if column is None or not design.rows.note:
        return ["0", "1"]
    return [str(column[design.y == value].iloc[0]) if (design.y == value).any() else "" for value in (0, 1)]


def _constant(groups: Groups, design: Design) -> bool:
    """Whether all rows of a subject are of one group."""
    pairs = np.unique(np.column_stack([design.subject_index, groups.codes]), axis=0)
    return len(pairs) == design.n_subjects


def _cluster_means(panels: Panels, scene: _Scene, fit: Fit | None) -> dict[str, Any]:
    """A dash at the mean of every cluster (with a fit at its own line), a dashed line at the mean of all."""
    design, index = scene.design, scene.design.subject_index
    fitted = fit is not None and fit.has_random_effects
    if design.family.name == "ordinal":  # categories have no mean
        return {}
    own = np.asarray(fit.fitted("subject") if fitted and fit is not None else design.y, dtype=np.float64)
    own = own / design.trials
    heights = np.bincount(index, own, design.n_subjects) / np.bincount(index, minlength=design.n_subjects)
    centre = float(np.mean((design.y if fit is None else fit.fitted("population")) / design.trials))
    kept = scene.subjects
    place = np.arange(len(kept), dtype=np.float64)
    dash = segments(place - 1.3 * WIDTH, place + 1.3 * WIDTH, heights[kept])
    panels.map("line_xy", "means", dict.fromkeys(scene.facets.labels, dash), color=theme().ink, width=2.0)
    for panel in scene.facets.labels:
        panels.rule(panel, y=centre, linestyle=panels.dashes)
    return {"": {}} if fit is not None else {}


def _last_heights(scene: _Scene, means: Mapping[str, Any]) -> dict[str, float]:
    """Height of each population line at its right end, in a picture of one panel."""
    panel = scene.facets.labels[0]
    found = {}
    for group, lines in means.items():
        line = lines.get(panel, NOTHING)
        known = line[:, np.isfinite(line[1])]
        if known.shape[1]:
            found[group] = float(known[1, np.argmax(known[0])])
    return found if set(found) == set(scene.groups.labels) else {}


def _width(scene: _Scene) -> float:
    """Inches of a single panel."""
    return float(np.clip(0.42 * len(scene.subjects), 5.4, 9.0)) if scene.clusters else 5.6


def _title(scene: _Scene, fitted_by: str) -> str:
    design, n = scene.design, len(scene.subjects)
    subject, total = design.hierarchy.subject, design.n_subjects
    what = design.hierarchy.response + (
        f" by {subject}" if scene.clusters else f" along {scene.axis.variable or scene.axis.label}"
    )
    count = f"{n:,} of {total:,}" if n < total else f"{total:,}"
    return f"{what}, {count} subjects" + (f" ({fitted_by})" if fitted_by else "")


def _caption(scene: _Scene, moved: bool, means: Mapping[str, Any]) -> str:
    parts = [f"Colours: {scene.by}."] if scene.by is not None else []
    if len(scene.subjects) < scene.design.n_subjects:
        where = "within each group" if scene.by or scene.facet else "in their order"
        parts.append(f"Those drawn are evenly spaced {where}.")
    family = scene.design.family.name
    if family == "bernoulli" and not scene.clusters and not means:
        parts.append(f"Line: share of {mean_name(scene.design).removeprefix('probability of ')}.")
    if scene.clusters and family != "ordinal":
        who = "fitted value" if means else "mean"
        parts.append(f"Dash: {who} of each; dashed: mean of all. Points of one lie beside each other.")
    elif means and scene.by is None:
        parts.append("Bold: population line.")
    elif means:
        parts.append("Bold: population lines.")
    if moved:
        way = "" if family in LEVELS else " up and down"
        parts.append(f"Points were moved{way} a little, to be told apart.")
    return " ".join(parts)


def _legend(scene: _Scene, means: Mapping[str, Any]) -> list[Entry]:
    if scene.by is None:
        return []
    style = "solid" if scene.lines or means else ""
    return [Entry(group, scene.colours[group], line=style, marker="circle", width=2.0) for group in scene.groups.labels]
