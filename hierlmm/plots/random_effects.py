"""Caterpillar plot: every subject's random effects under every estimator, sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.drawing.style import (
    GREY,
    LABELLED,
    PALETTE,
    backend_module,
    canvas,
    finish,
    percent,
    resolve_backend,
    segments,
    stack_points,
)
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide, known_label
from hierlmm.options import checked
from hierlmm.plots.fits import is_posterior, pick_side_by_side, unit_of, zero_terms

__all__ = ["effect_intervals", "plot_random_effects"]


@checked
def plot_random_effects(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    terms: str | Sequence[str] | None = None,
    ci: float | None = None,
    reference: str | None = None,
    sort_by: str | None = None,
    max_subjects: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
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
        Draw that many subjects, evenly spaced in the order (the extremes included); all by default.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``interval`` and ``point_estimate`` over ``term`` × ``estimator``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = model.fit_reml().plot_random_effects()  # doctest: +SKIP
    """
    from arviz_plots import visuals

    name = resolve_backend(backend)
    every, base_label, probability = pick_side_by_side(fits, labels, ci)
    named = {label: fit for label, fit in every.items() if fit.has_random_effects}
    if not named:
        raise SpecificationError("no fit with random effects", "there is nothing to draw", "pass a mixed-model fit")
    if reference is None:
        reference = base_label if base_label in named else next(iter(named))
    base = named[known_label("reference", reference, list(named))]
    chosen = _terms(base, terms)
    if sort_by is not None:
        known_label("sort_by", sort_by, list(base.design.term))
    zero = {label: zero_terms(fit) for label, fit in named.items()}
    decide = base.b.assign(**dict.fromkeys(zero[reference], 0.0))
    orders = {term: _order(decide[sort_by or term], max_subjects) for term in chosen}
    intervals = {label: effect_intervals(fit, probability) for label, fit in named.items()}
    for label, units in zero.items():
        for term in units:
            # The estimate, without what rounding left of it.
            intervals[label][term] = intervals[label][term] * 0.0
    lines, points = _geometry(intervals, orders)
    J = max(len(order) for order in orders.values())
    collection = canvas(
        points,
        "term",
        backend=name,
        size=(0.9 + 3.5 * len(chosen), 1.3 + min(10.0, max(2.2, J * (0.12 + 0.06 * len(named))))),
        col_wrap=len(chosen),
        figure_kwargs=figure_kwargs,
        aes={"color": ["estimator"]},
        color=list(np.resize(PALETTE, len(named))),
    )
    small = J > LABELLED
    collection.map(visuals.line_xy, "interval", data=lines, width=0.8 if small else 1.3, alpha=0.75)
    collection.map(visuals.scatter_xy, "point_estimate", data=points, size=6 if small else 16 if len(named) < 3 else 9)
    draw = backend_module(name)
    for term in chosen:
        target = collection.get_target("effects", {"term": term})
        draw.vline(0.0, target, color=GREY, linestyle=draw.get_default_aes("linestyle", 2)[1], width=1)
        ticks = [] if small else list(range(len(orders[term])))
        draw.yticks(ticks, [] if small else [str(s) for s in orders[term]], target, size=_font(J, name))
        draw.ylim((-0.8, len(orders[term]) - 0.2), target)
        if all(term in units for label, units in zero.items() if term in intervals[label]):
            draw.xlim((-zero[reference][term], zero[reference][term]), target)
    subject = base.design.hierarchy.subject
    total = base.n_subjects
    shown = f"{J} of {total}" if total > J else f"{total}"
    only = f" ({reference})" if len(named) == 1 else ""
    return finish(
        collection,
        "term",
        {term: term + _no_variation(term, zero) for term in chosen},
        title=f"Random effects{only} with {percent(probability)} intervals",
        xlabel={term: f"b ({unit_of(base.design, term)})" for term in chosen},
        ylabel=f"{subject} ({shown}, sorted)",
        legend="estimator" if len(named) > 1 else None,
    )


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
    if is_posterior(fit) and "b" in (posterior := fit.to_datatree()["posterior"]).data_vars:
        draws = posterior["b"].transpose("chain", "draw", "subject", "term").to_numpy()
        bounds = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=(0, 1))
        lower, upper = (pd.DataFrame(side, index=b.index, columns=b.columns) for side in bounds)
    return {t: pd.DataFrame({"estimate": b[t], "lower": lower[t], "upper": upper[t]}) for t in b.columns}


def _order(estimates: pd.Series, max_subjects: int | None) -> pd.Index:
    order = estimates.sort_values(kind="stable").index
    if max_subjects is None or max_subjects >= len(order):
        return order
    if max_subjects < 1:
        raise SpecificationError(
            f"max_subjects={max_subjects!r}", "at least one subject must be drawn", "use a number of 1 or more"
        )
    return order[np.unique(np.linspace(0, len(order) - 1, max_subjects).round().astype(int))]


def _geometry(intervals: Mapping[str, dict[str, pd.DataFrame]], orders: Mapping[str, pd.Index]) -> tuple[Any, Any]:
    """Segments and points, Datasets ``term`` × ``estimator`` × ``plot_axis`` × ``point``."""
    import xarray as xr

    n = len(intervals)
    reach = 0.0 if n == 1 else min(0.32, 0.1 + 0.06 * n)
    shifts = np.linspace(reach, -reach, n)
    lines, points = [], []
    for (label, by_term), shift in zip(intervals.items(), shifts, strict=True):
        own_lines, own_points = {}, {}
        for term, order in orders.items():
            rows = by_term[term].loc[order]
            y = np.arange(len(order), dtype=np.float64) + float(shift)
            own_lines[term] = segments(rows["lower"].to_numpy(), rows["upper"].to_numpy(), y)
            own_points[term] = np.vstack([rows["estimate"].to_numpy(), y])
        lines.append(stack_points(own_lines, "term", "effects").expand_dims(estimator=[label]))
        points.append(stack_points(own_points, "term", "effects").expand_dims(estimator=[label]))
    return xr.concat(lines, "estimator"), xr.concat(points, "estimator")


def _terms(fit: Fit, terms: str | Sequence[str] | None) -> list[str]:
    known = list(fit.design.term)
    if terms is None:
        return known
    wanted = [terms] if isinstance(terms, str) else list(terms)
    for term in wanted:
        if term not in known:
            raise SpecificationError(
                f"terms={term!r}",
                f"no random effect has this name.{closest(term, known)}",
                f"use {', '.join(map(repr, known))}",
            )
    return wanted


def _font(n_subjects: int, backend: str) -> Any:
    size = 10 if n_subjects <= 20 else 8.5 if n_subjects <= 35 else 6.5
    return f"{size}pt" if backend == "bokeh" else size
