"""What the priors hold possible: simulated data sets as trajectories, before any fit."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.bayes.predictive import prior_draws, subject_lines
from hierlmm.design.questions import occasion_of, rows_by_subject
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import evenly, join_with_gaps, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.options import check_counts, checked
from hierlmm.plots.frequencies import Look, category_names, draw_bars
from hierlmm.plots.lines import axis_along, rows_axis
from hierlmm.text import percentage

SURE = 0.01
"""Probability below which, and its complement above which, a yes or no is as good as certain."""
LEAST = 1e-300
"""Below it there is no logarithm."""
MANY = 200
"""Data sets from the prior that the shares and the scale are taken from."""


@checked
@pictured
def plot_prior_predictive(
    model: Any,
    *,
    draws: int = 12,
    max_subjects: int = 30,
    seed: int | None = 0,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw simulated data sets from the priors, a panel each, as the trajectories of their subjects.

    The grey band is the range of the response in the data. All panels have one scale, which shows 98 % of what the
    priors hold possible: lines that leave the panel, or a band too narrow to be seen, say that the priors believe in
    subjects that nobody has met. With a log link logarithms are drawn (of counts plus one), of yes and no the
    probabilities, and of ordered categories shares: bars of the data, intervals of the simulated data sets.

    Parameters
    ----------
    model : TwoLevelModel or MarginalModel
    draws : int
        Number of simulated data sets.
    max_subjects : int
        Draw at most that many subjects of each, evenly spaced.
    seed : int, optional
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visual ``trajectories``.
    """
    check_counts(draws=draws)
    design = model.design
    drawn = prior_draws(design, model.priors, max(MANY, draws), np.random.default_rng(seed))
    y, of, response = drawn["y"], "values", design.hierarchy.response
    if design.family.name == "ordinal":
        look = Look(f"{response} as the priors expect it", col_wrap, figure)
        said = "Bars: data. Intervals of 50 and {ci} of data sets from the priors, around their mean."
        return draw_bars({"": np.arange(design.n_obs)}, category_names(design), design.y, y, 0.95, look, said)
    if design.family.name == "bernoulli":  # zeros and ones make no trajectory
        y, of = design.family.mean(subject_lines(design, drawn["beta"], drawn["b"])), "probabilities"
        response = f"probability of {response}"
    observed = design.y
    if design.family.link == "log" and of == "values":  # as the prior has it: of any size
        y, observed = (np.log10(np.maximum(v + design.family.discrete, LEAST)) for v in (y, observed))
        response = f"log10 of {'1 + ' * design.family.discrete}{response}"
    time = occasion_of(design)
    axis = rows_axis(design) if time is None else axis_along(design, time)
    rows = rows_by_subject(design, axis.position)
    shown = [rows[k] for k in evenly(len(rows), max_subjects)]
    places = [axis.position[own] for own in shown]
    lines = {
        f"prior draw {k + 1}": join_with_gaps([np.vstack([p, y[k, r]]) for p, r in zip(places, shown, strict=True)])
        for k in range(draws)
    }
    panels = Panels(lines, "panel", each(0.8, 2.3, 1.1, 1.8), figure, col_wrap, name="prior", sharex=True, sharey=True)
    low, high = float(observed.min()), float(observed.max())
    ends = np.array([min(p.min() for p in places), max(p.max() for p in places)])
    limits = np.quantile(y, [0.01, 0.99])
    limits = [min(limits[0], low), max(limits[1], high)]
    for name in lines:
        if of == "values":
            panels.band(name, ends, [low, low], [high, high], alpha=0.35, color=theme().grey)
        panels.limit(name, y=limits)
    axis.mark(panels, lines)
    panels.map("line_xy", "trajectories", lines, color=theme().colour_of("NUTS"), width=0.8, alpha=0.6)
    length = high - low
    beyond = float(np.mean((y < low - length) | (y > high + length)))
    said = f"Band: the data. {percentage(beyond)} of the {of} lie further outside it than it is wide."
    if of == "probabilities":
        sure = percentage(float(np.mean((y < SURE) | (y > 1.0 - SURE))))
        said = f"{sure} of them lie below {SURE:g} or above {1.0 - SURE:g}."
    return panels.finish(
        title=f"{response} as the priors expect it",
        caption=said,
        xlabel=axis.label,
        ylabel=with_unit(response, design.units),
    )
