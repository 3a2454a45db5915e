"""Predictive checks as pictures: the data beside replications of the same subjects, of new ones, or row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.family_replications import replicator_of
from hierlmm.bayes.replications import LEVELS
from hierlmm.design.design import Design
from hierlmm.design.questions import occasion_of
from hierlmm.diagnostics.predictive_checks import FOLLOWED, StatisticsCheck, check_statistics, pit_check
from hierlmm.diagnostics.statistics import column_of, row_groups
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import evenly, join_with_gaps, percent, segments
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked, choose
from hierlmm.plots.frequencies import Look, category_names, draw_bars, draw_rootogram
from hierlmm.plots.lines import axis_along, rows_axis
from hierlmm.text import p_text

SEE = "docs, page 'Posterior fits', section 'Predictive checks'"
KINDS = {"density": 50, "ecdf": 50, "rootogram": 400, "bars": 400, "pit": 100, "interval": 400, "statistic": 100}
"""Posterior draws of each kind of picture, unless asked otherwise."""
SUITED = {
    "measurements": ("density", "ecdf", "pit", "interval", "statistic"),
    "counts": ("rootogram", "ecdf", "pit", "interval", "statistic"),
    "yes and no": ("bars", "pit", "interval", "statistic"),
    "categories": ("bars", "pit", "statistic"),
}
"""Kinds of response, and the pictures that suit them, the first by default."""
WHAT = {"subject": "new rows of the same subjects", "new_subject": "new subjects"}
WHAT["mixed"] = "rows given the subject's others"
TIMES, CLASSES = 12, 10
"""Most times whose means are drawn one by one, and the classes of more."""
LINES = 20
"""Most curves of PIT values, each of one draw."""
FEW = 10
"""Fewest rows whose PIT values make a curve."""
SIZE = each(0.7, 3.1, 0.9, 2.3, 4.6)


@checked
@pictured
def plot_ppc(
    fit: PosteriorNumbers,
    kind: str | None = None,
    level: str = "new_subject",
    by: str | None = None,
    *,
    statistics: str | Sequence[str] | Mapping[str, Callable[[FloatArray], float]] | None = None,
    draws: int | None = None,
    ci: float = 0.95,
    seed: int | None = 0,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the data beside what the posterior predicts.

    Parameters
    ----------
    fit : PosteriorFit
    kind : {"density", "ecdf", "rootogram", "bars", "pit", "interval", "statistic"}, optional
        ``"density"`` and ``"ecdf"``: distribution of the response, black, and of replications. ``"rootogram"``: of
        counts, square roots of how often each was observed, as bars that hang from what is expected, and where bars
        end with probability ``ci`` under the model. ``"bars"``: shares of yes and no, or of ordered categories, and of
        replications. By default that which suits the response. ``"pit"``: the share of
        PIT values up to t less t, a line for each of 20 posterior draws, with a simultaneous band that allows for the
        dependence of a subject's rows: under the model a line stays inside with probability ``ci``. The p-value is
        calibrated. ``"interval"``: 50 % and ``ci`` intervals of every row of some subjects along time, or by a factor
        of the mean of its rows at each time (of more than 12 times in 10 classes). ``"statistic"``: test statistics
        with calibrated p-values (`hierlmm.fit.posterior.PosteriorFit.ppc`) and the distribution that p is the tail of
        (``compared`` there), in groups as intervals.
    level : {"new_subject", "subject", "mixed"}
        Replications of new subjects with the same covariates, of the same subjects, or of every row given the
        subject's other rows.
    by : str, optional
        ``"subject"`` or another column of the data that has labels: a panel for each (a row for each in the panels of
        ``"statistic"``), at most 12, evenly chosen.
    statistics : str, sequence of str, or mapping of str to function, optional
        As for ``fit.ppc``.
    draws : int, optional
        Posterior draws: 100 for ``"pit"`` and ``"statistic"``, 50 for curves, 400 for the others by default.
    ci : float
        Probability of the intervals and the band.
    seed : int, optional
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``replications`` (or ``compared``, ``expected``) and ``observed``; or ``pit``; or ``interval``,
        ``inner`` and ``observed``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
    >>> picture = model.fit().plot_ppc("pit")  # doctest: +SKIP
    """
    kind = _suited(fit.design, kind)
    choose("level", level, LEVELS, SEE)
    draws = KINDS[kind] if draws is None else draws
    look = Look(f"{fit.design.hierarchy.response}: {WHAT[level]}", col_wrap, figure)
    if kind == "statistic":
        check = check_statistics(fit, level, statistics, by, draws, ci, seed)
        return _draw_statistics(check, look) if by is None else _draw_grouped_statistics(check, ci, look)
    if kind == "interval":
        y = replications(fit, level, draws, seed)
        return _draw_intervals(fit.design, by, _points(fit.design, by, y), ci, look)
    groups = _groups(fit.design, by)
    if kind == "pit":
        return _draw_pit(fit, level, groups, (draws, ci, seed), look)
    y = replications(fit, level, draws, seed)
    if kind == "rootogram":
        return draw_rootogram(groups, fit.design.y, y, ci, look, fit.design.hierarchy.response)
    if kind == "bars":
        return draw_bars(groups, category_names(fit.design), fit.design.y, y, ci, look)
    return _draw_curves(fit, kind, groups, y, look)


def kind_of_response(design: Design) -> str:
    """One of `SUITED`."""
    name = {"ordinal": "categories", "bernoulli": "yes and no"}.get(design.family.name)
    return name or ("counts" if design.family.discrete else "measurements")


def _suited(design: Design, kind: str | None) -> str:
    """The kind of picture, the first that suits the response by default; others are refused."""
    what = kind_of_response(design)
    if kind is None:
        return SUITED[what][0]
    choose("kind", kind, tuple(KINDS), SEE)
    if kind not in SUITED[what]:
        reason = f"it is not for {what}, which the response {design.hierarchy.response!r} has"
        raise SpecificationError(f"kind={kind!r}", reason, f"use {', '.join(map(repr, SUITED[what]))}", SEE)
    return kind


def replications(fit: PosteriorNumbers, level: str, draws: int, seed: int | None) -> FloatArray:
    """Replicated responses, (draws, N)."""
    rng, replicator = np.random.default_rng(seed), replicator_of(fit.design)
    states = fit.parameter_draws(fit.evenly_kept(draws), b=level == "subject")
    return np.vstack([replicator.replicate(state, level, rng) for state in states])


def _groups(design: Design, by: str | None) -> dict[str, IntArray]:
    """Rows of each panel, by its name."""
    if by is None:
        return {"": np.arange(design.n_obs)}
    column = column_of(design, by)
    groups = row_groups(design, by)
    short = [f"{label:.4g}" if isinstance(label, float) else str(label) for label in groups]
    names = short if len(set(short)) == len(groups) else list(map(str, groups))
    return {f"{column} {name}": rows for name, rows in zip(names, groups.values(), strict=True)}


def _draw_curves(fit: PosteriorNumbers, kind: str, groups: Mapping[str, IntArray], y: FloatArray, look: Look) -> Any:
    """Densities or cumulative shares of the response and of its replications."""
    curve = _density if kind == "density" else _ecdf
    observed = {name: curve(fit.design.y[rows]) for name, rows in groups.items()}
    replicated = {name: join_with_gaps([curve(own[rows]) for own in y]) for name, rows in groups.items()}
    panels = Panels(observed, "panel", SIZE, name="ppc", figure=look.figure, col_wrap=look.col_wrap)
    panels.map("line_xy", "replications", replicated, color=theme().colour_of("NUTS"), width=0.6, alpha=0.35)
    panels.map("line_xy", "observed", observed, color=theme().ink, width=2)
    said = f"Thick: data. Thin: {len(y)} replications."
    ylabel = "density" if kind == "density" else "share up to here"
    return panels.finish(title=look.title, caption=said, xlabel=fit.design.hierarchy.response, ylabel=ylabel)


def _density(values: FloatArray) -> FloatArray:
    """Kernel density of ArviZ, (2, n)."""
    from arviz_stats.base import array_stats

    if len(np.unique(values)) < 2:
        return np.full((2, 1), np.nan)
    room = 0.25 * np.ptp(values)
    limits = (values.min() - room, values.max() + room)
    grid, density, _ = array_stats.kde(values, custom_lims=limits, bound_correction=False)
    return np.vstack([grid, density])


def _ecdf(values: FloatArray) -> FloatArray:
    """Steps of the cumulative share, (2, 2n)."""
    x = np.sort(values)
    share = np.arange(len(x) + 1) / len(x)
    return np.vstack([np.repeat(x, 2), np.column_stack([share[:-1], share[1:]]).ravel()])


def _draw_pit(
    fit: PosteriorNumbers,
    level: str,
    groups: Mapping[str, IntArray],
    asked: tuple[int, float, int | None],
    look: Look,
) -> Any:
    groups = {name: rows for name, rows in groups.items() if len(rows) >= FEW}
    if not groups:
        reason = f"no group has {FEW} rows, and fewer values make no curve"
        raise SpecificationError("kind='pit' by groups", reason, "leave by out, or name a factor with few levels", SEE)
    draws, ci, seed = asked
    checks = dict(zip(groups, pit_check(fit, level, list(groups.values()), draws, ci, seed), strict=True))
    some = evenly(len(next(iter(checks.values())).curves), LINES, "draws")
    lines = {
        name: join_with_gaps([np.vstack([own.frame.index, own.curves[k]]) for k in some])
        for name, own in checks.items()
    }
    panels = Panels(lines, "panel", SIZE, name="pit", figure=look.figure, col_wrap=look.col_wrap)
    for name, own in checks.items():
        panels.band(
            name, own.frame.index.to_numpy(), own.frame["lower"], own.frame["upper"], alpha=0.2, color=theme().ink
        )
        panels.rule(name, y=0.0)
    panels.map("line_xy", "pit", lines, color=theme().colour_of("NUTS"), width=0.7, alpha=0.5)
    titles = {name: f"{name}\n{p_text(own.p)}".lstrip() for name, own in checks.items()}
    said = f"A line for each of {len(some)} draws, which stays inside with probability {percent(ci)} under the model."
    return panels.finish(titles, title=look.title, caption=said, xlabel="PIT value t", ylabel="share up to t, less t")


class Points(NamedTuple):
    """Where the points of a panel lie (n,), what was observed there (n,), and what was replicated (S, n)."""

    x: FloatArray
    y: FloatArray
    replicated: FloatArray


def by_subject(design: Design, by: str | None) -> bool:
    """Whether the panels of intervals are subjects."""
    return by in (None, "subject", design.hierarchy.subject)


def _points(design: Design, by: str | None, y: FloatArray) -> dict[str, Points]:
    """The rows of each subject, or the means of each group's rows along time."""
    name = occasion_of(design)
    time = None if name is None else axis_along(design, name).position
    if by_subject(design, by):
        return {
            own: Points(np.arange(1.0, len(rows) + 1) if time is None else time[rows], design.y[rows], y[:, rows])
            for own, rows in _groups(design, "subject").items()
        }
    if time is None:
        reason = "means of groups are drawn along time, which this model has not"
        remedy = "use by='subject', or kind='statistic'"
        raise SpecificationError(f"by={by!r} with kind='interval'", reason, remedy, SEE)
    found = {}
    for own, rows in _groups(design, by).items():
        times, place = np.unique(time[rows], return_inverse=True)
        if len(times) > TIMES:
            edges = np.quantile(time[rows], np.linspace(0, 1, CLASSES + 1)[1:-1])
            place = np.unique(np.searchsorted(edges, time[rows]), return_inverse=True)[1]
        share = np.equal.outer(place, np.arange(place.max() + 1)) / np.bincount(place)
        found[own] = Points(time[rows] @ share, design.y[rows] @ share, y[:, rows] @ share)
    return found


def _draw_intervals(design: Design, by: str | None, groups: Mapping[str, Points], ci: float, look: Look) -> Any:
    tails = [(1 - ci) / 2, 0.25, 0.75, (1 + ci) / 2]
    points, outer, inner, outside = {}, {}, {}, {}
    for name, own in groups.items():
        low, q1, q3, high = np.quantile(own.replicated, tails, axis=0)
        outer[name], inner[name] = (segments(a, b, own.x)[::-1] for a, b in ((low, high), (q1, q3)))
        out = (own.y < low) | (own.y > high)
        points[name] = np.vstack([own.x, own.y])
        outside[name] = points[name][:, out] if out.any() else np.full((2, 1), np.nan)
    panels = Panels(
        points,
        "panel",
        each(0.7, 2.3, 0.9, 1.9),
        name="interval",
        sharex=True,
        sharey=True,
        figure=look.figure,
        col_wrap=look.col_wrap,
    )
    panels.map("line_xy", "interval", outer, color=theme().colour_of("NUTS"), width=1.2, alpha=0.8)
    panels.map("line_xy", "inner", inner, color=theme().colour_of("NUTS"), width=3.5, alpha=0.45)
    panels.map("scatter_xy", "observed", points, color=theme().ink, size=14)
    panels.map("scatter_xy", "outside", outside, color=theme().beside(theme().colour_of("NUTS")), size=34)
    said = f"Intervals of 50 and {percent(ci)}; large points lie outside."
    if not by_subject(design, by):
        said = f"Means of the rows at each time. {said}"
    elif len(groups) < design.n_subjects:
        said = f"{len(groups)} of {design.n_subjects} subjects. {said}"
    occasion = occasion_of(design)
    axis = rows_axis(design) if occasion is None else axis_along(design, occasion)
    axis.mark(panels, groups)
    return panels.finish(title=look.title, caption=said, xlabel=axis.label, ylabel=design.hierarchy.response)


def _draw_statistics(check: StatisticsCheck, look: Look) -> Any:
    """A histogram of what p compares every statistic with, and a line where the data are."""
    steps = {}
    for name in check.table.index:
        counts, edges = np.histogram(check.compared[name], bins=20, density=True)
        steps[name] = np.vstack([np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(counts, 2), [0.0]])])
    panels = Panels(steps, "statistic", SIZE, name="ppc", figure=look.figure, col_wrap=look.col_wrap)
    for name, (x, height) in steps.items():
        panels.band(name, x, np.zeros_like(x), height, alpha=0.35, color=theme().colour_of("NUTS"))
    panels.map("line_xy", "compared", steps, color=theme().colour_of("NUTS"), width=0.8)
    table = check.table
    marks = {
        name: np.array([[table.loc[name, "observed"]] * 2, [0.0, 1.05 * steps[name][1].max()]]) for name in table.index
    }
    panels.map("line_xy", "observed", marks, color=theme().ink, width=2)
    once = {name: " (of one draw)" if table.loc[name, "absorbed"] > FOLLOWED else "" for name in table.index}
    titles = {name: f"{name}\n{p_text(table.loc[name, 'p'])}{once[name]}" for name in table.index}
    said = "Line: data. Area: what p compares them with; p is twice the share beyond the line."
    return panels.finish(titles, title=look.title, caption=said, ylabel="density")


def _draw_grouped_statistics(check: StatisticsCheck, ci: float, look: Look) -> Any:
    """A panel for every statistic: a row for each group, with intervals of ``compared`` and where the data are."""
    table = check.table
    names = list(dict.fromkeys(table.index.get_level_values("statistic")))
    parts = {name: table.xs(name, level="statistic") for name in names}
    outer, inner, points, rare = {}, {}, {}, {}
    for name, own in parts.items():
        at = -np.arange(len(own), dtype=np.float64)
        q1, q3 = np.quantile(check.compared[[(group, name) for group in own.index]], [0.25, 0.75], axis=0)
        outer[name], inner[name] = segments(own["lower"].to_numpy(), own["upper"].to_numpy(), at), segments(q1, q3, at)
        points[name] = np.vstack([own["observed"], at])
        small = own["p"].to_numpy() < 0.05
        rare[name] = points[name][:, small] if small.any() else np.full((2, 1), np.nan)
    size = each(0.7, 3.1, 0.9, 1.1 + 0.25 * max(map(len, parts.values())), 4.6)
    panels = Panels(points, "statistic", size, name="ppc", figure=look.figure, col_wrap=look.col_wrap)
    color = theme().colour_of("NUTS")
    panels.map("line_xy", "interval", outer, color=color, width=1.2, alpha=0.8)
    panels.map("line_xy", "inner", inner, color=color, width=3.5, alpha=0.45)
    panels.map("scatter_xy", "observed", points, color=theme().ink, size=14)
    panels.map("scatter_xy", "rare", rare, color=theme().beside(color), size=34)
    for name, own in parts.items():
        panels.name_rows(name, points[name][1], own.index)
    said = f"Intervals of 50 and {percent(ci)} of what p compares the data with; points: data, large where p < 0.05."
    return panels.finish(title=look.title, caption=said, ylabel=str(table.index.names[0]))
