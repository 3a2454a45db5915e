"""Posterior densities of the parameters, with the likelihood estimates as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.stats import norm

from hierlmm.design.telling import scale_text
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent, stack_points
from hierlmm.effects import headline
from hierlmm.fits.base import Fit
from hierlmm.fits.named_draws import parameter_draws
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.implied.coefficients import averaged_draws
from hierlmm.implied.meanings import MARKED, has_two_meanings, stacked
from hierlmm.options import checked
from hierlmm.plots.fits import colours_of, pick_side_by_side
from hierlmm.plots.forest import choose_parameters, table_dataset, without_twins

SCALES: dict[Any, tuple[Any, Any]] = {"sd": (np.log, np.exp), "sigma": (np.log, np.exp), "corr": (np.arctanh, np.tanh)}
"""Where the interval of a kind of parameter is symmetric, and the way back."""


@checked
@pictured
def plot_posterior(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    parameters: str | Sequence[str] | None = None,
    ci: float | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the posterior density of every parameter; likelihood estimates are vertical lines in their own panels.

    Under each density stand the equal-tailed interval and the mean, as in the table of a `Comparison`. Without any
    posterior among the fits, the densities are the confidence distributions that the Wald intervals are taken from: the
    interval of every probability holds that share of the area (a standard deviation is normal on its logarithm, a
    correlation on Fisher's z). The title says so; a parameter at the boundary has no interval and no density.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        Posterior fits give densities, likelihood fits give lines.
    labels : sequence of str, optional
        Names of the fits.
    parameters : str or sequence of str, optional
        Names of parameters, or of their kinds ("fixed", "sd", "corr", "sigma", "residual"); all by default.
    ci : float, optional
        Probability of the interval; the comparison's, or 0.95.
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.

    Returns
    -------
    Picture
        Visuals ``face`` and ``dist`` over ``parameter`` × ``estimator``; ``interval_<label>``,
        ``point_estimate_<label>`` and ``estimate_line_<label>`` over ``parameter``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> hl.compare(model.fit(seed=1), model.fit_reml()).plot_posterior()  # doctest: +SKIP
    """
    named, reference, probability = pick_side_by_side(fits, labels, ci)
    table = stacked(named, probability, reference)
    chosen = choose_parameters(without_twins(table) if parameters is None else table, parameters)
    sampled = [label for label, fit in named.items() if fit.has_draws]
    size, colours = each(0.4, 2.5, 0.8, 1.9, least=4.2), colours_of(named)
    point = table_dataset(table, chosen, list(named), ["estimate"])
    panels = Panels(point, "parameter", size, figure, col_wrap, color=("estimator", list(colours.values())))
    _draw_densities(panels, {label: named[label] for label in sampled or named}, table, chosen)
    lines = [label for label in named if label not in sampled] if sampled else []
    styles = panels.draw.get_default_aes("linestyle", 4)[1:]
    for k, label in enumerate(lines):
        # Estimates that coincide (β of REML and ML in balanced data) stay visible through the gaps of the later line.
        data = table_dataset(table, chosen, [label], ["estimate"])
        look = {"linestyle": styles[k % 3], "width": 1.4 + 0.5 * k}
        panels.map("vline", f"estimate_line_{label}", data, **look)
    for parameter in chosen:
        panels.draw.yticks([], [], panels.target(parameter))
    design = next(iter(named.values())).design
    what = "posterior densities, mean" if sampled else "confidence distributions, estimate"
    marks = [Entry(label, colours[label], width=1.6) for label in named if label not in lines]
    marks += [Entry(label, colours[label], style=styles[k % 3], width=1.4 + 0.5 * k) for k, label in enumerate(lines)]
    seen = f"{design.hierarchy.response}: {what} and {percent(probability)} interval{scale_text(design)}"
    message = ""
    if len(chosen) == len(named) == 1:  # the number is what is seen
        row = table[table["parameter"] == chosen[0]].iloc[0]
        found = headline.Found(*(float(row[side]) for side in ("estimate", "lower", "upper")))
        message = headline.parameter(design, chosen[0], str(row["kind"]), found) if np.isfinite(found).all() else ""
    return panels.finish(
        title=message or seen,
        caption=f"{seen} ({next(iter(named))})" if message else "",
        legend=marks if len(named) > 1 else (),
    )


def _draw_densities(panels: Panels, fits: Mapping[str, Fit], table: pd.DataFrame, parameters: list[str]) -> None:
    """Densities of these fits, and below each its interval and its mean."""
    curves = {(label, name): curve for label, fit in fits.items() for name, curve in _densities(fit, parameters)}
    density = stack_points(curves, ("estimator", "parameter"), panels.name)
    face = density.rename(plot_axis="kwarg").pad(kwarg=(0, 1), constant_values=0.0)
    panels.map("fill_between_y", "face", face.assign_coords(kwarg=["x", "y_top", "y_bottom"]), alpha=0.2)
    panels.map("line_xy", "dist", density, width=1.6)
    height = (
        density[panels.name].sel(plot_axis="y").max(["point", "estimator"]).fillna(1.0)
    )  # none at a boundary: the point stays
    for k, label in enumerate(fits):
        interval, point = (table_dataset(table, parameters, [label], c) for c in (["lower", "upper"], ["estimate"]))
        depth = -0.08 * (k + 1) * height
        panels.map("line_x", f"interval_{label}", interval, width=2.5, y=depth)
        panels.map("scatter_x", f"point_estimate_{label}", point, size=26, edgecolor=panels.theme.paper, y=depth)


def _densities(fit: Fit, parameters: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Density of every parameter, (2, 512); NaN where there is none."""
    if not fit.has_draws:
        yield from _confidence_densities(fit, parameters)
        return
    from arviz_stats.base import array_stats

    draws = parameter_draws(fit)
    if any(name.endswith(MARKED) for name in parameters) and has_two_meanings(fit.design):
        own = averaged_draws(fit)
        draws |= {f"{name}{MARKED}": own[:, k] for k, name in enumerate(fit.design.coef)}
    for name in parameters:
        values = draws.get(name)
        known = values is not None and bool(np.isfinite(values).all())
        if values is None or not known or np.ptp(values) <= 1e-9 * np.abs(values).max():
            yield name, np.full((2, 512), np.nan)
        else:
            yield name, np.vstack(array_stats.kde(values.ravel())[:2])


def _confidence_densities(fit: Fit, parameters: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Densities whose central areas are the fit's own intervals, of every probability."""
    # Every interval is a smooth function of its normal quantile: a dozen of them determine it.
    z = np.linspace(0.1, 3.2, 12)
    tables = [stacked({"": fit}, float(2.0 * norm.cdf(v) - 1.0)).set_index("parameter") for v in z]
    known, grid = np.concatenate([-z[::-1], z]), np.linspace(-3.2, 3.2, 257)
    for name in parameters:
        low, high = (np.array([t[side].get(name, np.nan) for t in tables], dtype=float) for side in ("lower", "upper"))
        kind = tables[0]["kind"].get(name)
        to, back = SCALES.get(kind, (np.positive, np.positive))
        with np.errstate(divide="ignore", invalid="ignore"):
            quantiles = to(np.concatenate([low[::-1], high]))
        # The interval of a correlation that the data say nothing about is all that is possible, and no density is seen.
        everything = kind == "corr" and high[6] - low[6] > 1.98
        if everything or not np.isfinite(quantiles).all() or np.ptp(quantiles) <= 1e-9 * np.abs(quantiles).max():
            yield name, np.full((2, len(grid)), np.nan)
            continue
        x = back(CubicSpline(known, quantiles)(grid))
        yield name, np.vstack([x, norm.pdf(grid) / np.gradient(x, grid)])
