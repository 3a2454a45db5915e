"""Caterpillar plot: every subject's random effects under every estimator, sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.design.design import Design
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.ranks import chosen_rows, draw_sorted, sorted_label, sorted_size
from hierlmm.drawing.style import percent, segments, stack_points
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import constant_terms, zero_terms
from hierlmm.fits.side_by_side import SideBySide, known_label
from hierlmm.options import checked
from hierlmm.plots.fits import choose_terms, colours_of, legend_of, pick_side_by_side, refuse_without_effects, unit_of


@checked
@pictured
def plot_random_effects(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    terms: str | Sequence[str] | None = None,
    ci: float | None = None,
    reference: str | None = None,
    sort_by: str | None = None,
    max_subjects: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw every subject's random effects with intervals, a panel for each term, sorted by the estimate.

    A posterior shows its mean and equal-tailed interval, which carries the uncertainty of all parameters. A likelihood
    fit shows the BLUP with ± z conditional standard deviations (``b`` and ``b_sd``), which takes β and θ as known
    and is therefore a little shorter. Where the variance is estimated as zero, all effects are zero, and the panel says
    so.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        What to draw; fits without random effects are left out.
    labels : sequence of str, optional
        Names of the fits.
    terms : str or sequence of str, optional
        Which random effects; all by default.
    ci : float, optional
        Probability of the intervals; the comparison's, or 0.95.
    reference : str, optional
        Fit that decides the order of the subjects; the comparison's reference, or the first.
    sort_by : str, optional
        Term that decides the order in all panels; by default every panel has its own order.
    max_subjects : int, optional
        Draw that many subjects: a third of them the lowest, a third the highest, the others evenly spaced between them.
        By default as many as can be read, 60 for one fit and fewer for several; the axis says how many.

    Returns
    -------
    Picture
        Visuals ``interval`` and ``point_estimate`` over ``term`` × ``estimator``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = model.fit_reml().plot_random_effects()  # doctest: +SKIP
    """
    every, own, probability = pick_side_by_side(fits, labels, ci)
    named = {label: fit for label, fit in every.items() if fit.has_random_effects}
    if not named:
        raise SpecificationError("no fit with random effects", "there is nothing to draw", "pass a mixed-model fit")
    if reference is None:
        reference = own if own in named else next(iter(named))
    for fit in named.values():
        refuse_without_effects(fit, "plot_random_effects")
    base = named[known_label("reference", reference, list(named))]
    chosen = choose_terms(base.design, terms)
    if sort_by is not None:
        known_label("sort_by", sort_by, list(base.design.own_term))
    zero = {label: _by_panel(base.design, zero_terms(fit), fit.design) for label, fit in named.items()}
    decide = base.b.assign(**dict.fromkeys(constant_terms(base), 0.0))
    panels_of = {panel: (term, who) for term in chosen for panel, who in _panels_of(base.design, term).items()}
    orders = {
        panel: decide.loc[who, sort_by or term].sort_values(kind="stable").index
        for panel, (term, who) in panels_of.items()
    }
    most = max(20, 60 // len(named)) if max_subjects is None else max_subjects
    drawn = {panel: chosen_rows(len(order), most) for panel, order in orders.items()}
    orders = {panel: order[drawn[panel][0]] for panel, order in orders.items()}
    intervals = {label: _of_panels(fit, probability, panels_of, zero[label]) for label, fit in named.items()}
    lines, points = _geometry(intervals, orders)
    J = max(len(order) for order in orders.values())
    shown = sum(len(orders[panel]) for panel, (term, _) in panels_of.items() if term == chosen[0])
    size, n = sorted_size(3.5, J, 0.15 + 0.06 * len(named)), len(base.design.group_levels) or len(chosen)
    colours = colours_of(named)
    panels = Panels(points, "term", size, figure, n, color=("estimator", list(colours.values())))
    draw_sorted(panels, lines, points, J, size=18 if len(named) < 3 else 12)
    for term, order in orders.items():
        panels.rule(term, x=0.0, linestyle=panels.dashes)
        panels.name_rows(term, range(len(order)), order)
        for row in drawn[term][1]:
            panels.rule(term, y=row - 0.5, width=0.6)
        if all(term in units for label, units in zero.items() if term in intervals[label]):
            panels.limit(term, (-zero[reference][term], zero[reference][term]))
    only = f" ({reference})" if len(named) == 1 else ""
    some = any(between for _, between in drawn.values())
    return panels.finish(
        {panel: panel + _no_variation(panel, zero) for panel in panels_of},
        caption="The lowest, the highest, and between the grey lines evenly spaced ones" if some else "",
        title=f"Random effects{only} with {percent(probability)} intervals",
        xlabel={panel: f"b ({unit_of(base.design, term)})" for panel, (term, _) in panels_of.items()},
        ylabel=sorted_label(base.design.hierarchy.subject, shown, base.n_subjects),
        legend=legend_of(colours, marker="circle", width=1.3, size=16),
    )


def _panels_of(design: Design, term: str) -> dict[str, pd.Index]:
    """Panels of a random effect with their subjects: one, or one for each group where D differs by group."""
    names = design.term[design.own_term.index(term) :: design.n_own]
    return {name: design.subjects[design.subject_group == g] for g, name in enumerate(names)}


def _of_panels(
    fit: Fit, ci: float, panels: Mapping[str, tuple[str, pd.Index]], zero: Mapping[str, float]
) -> dict[str, pd.DataFrame]:
    """Estimates and intervals by panel; of those without variation the estimate, without what rounding left of it."""
    by_term = effect_intervals(fit, ci)
    found = {panel: by_term[term].loc[who] for panel, (term, who) in panels.items()}
    return {panel: own * 0.0 if panel in zero else own for panel, own in found.items()}


def _by_panel(design: Design, zero: dict[str, float], own: Design) -> dict[str, float]:
    """Random effects without variation, by the panels of a design: a fit with one D has none in any of the groups."""
    if own.group == design.group:
        return zero
    panels = {term: _panels_of(design, term) for term in design.own_term if term in zero}
    return {panel: zero[term] for term, those in panels.items() for panel in those}


def _no_variation(term: str, zero: Mapping[str, Mapping[str, float]]) -> str:
    """Note for the title of a panel, where estimators put a variance at zero."""
    labels = [label for label, units in zero.items() if term in units]
    if not labels:
        return ""
    return "\n(no variation)" if len(labels) == len(zero) else f"\n(no variation by {' and '.join(labels)})"


def effect_intervals(fit: Fit, ci: float) -> dict[str, pd.DataFrame]:
    """Estimate and interval of every subject's effects: term -> DataFrame (subject; estimate, lower, upper).

    Quantiles of the draws where a posterior holds them, ± z standard deviations otherwise.
    """
    if not 0.0 < ci < 1.0:
        raise SpecificationError(
            f"ci={ci!r}", "the probability of an interval lies between 0 and 1", "use ci=0.95 for 95 %"
        )
    b, sd = fit.b, fit.b_sd
    z = float(norm.ppf(0.5 + ci / 2.0))
    lower, upper = b - z * sd, b + z * sd
    if fit.has_draws and "b" in (posterior := fit.to_datatree()["posterior"]).data_vars:
        draws = posterior["b"].transpose("chain", "draw", "subject", "term").to_numpy()
        bounds = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=(0, 1))
        lower, upper = (pd.DataFrame(side, index=b.index, columns=b.columns) for side in bounds)
    return {t: pd.DataFrame({"estimate": b[t], "lower": lower[t], "upper": upper[t]}) for t in b.columns}


def _geometry(intervals: Mapping[str, dict[str, pd.DataFrame]], orders: Mapping[str, pd.Index]) -> tuple[Any, Any]:
    """Segments and points, Datasets ``estimator`` × ``term`` × ``plot_axis`` × ``point``."""
    n = len(intervals)
    reach = 0.0 if n == 1 else min(0.32, 0.1 + 0.06 * n)
    lines, points = {}, {}
    for (label, by_term), shift in zip(intervals.items(), np.linspace(reach, -reach, n), strict=True):
        for term, order in orders.items():
            rows = by_term[term].loc[order]
            y = np.arange(len(order), dtype=np.float64) + float(shift)
            lines[label, term] = segments(rows["lower"].to_numpy(), rows["upper"].to_numpy(), y)
            points[label, term] = np.vstack([rows["estimate"].to_numpy(), y])
    dims = ("estimator", "term")
    return stack_points(lines, dims, "effects"), stack_points(points, dims, "effects")
