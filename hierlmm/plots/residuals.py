"""Residuals against fitted values, with a smoother and where the fitted model expects it."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import numpy as np

from hierlmm.design.factors import ALL, POPULATION, factors_at
from hierlmm.design.questions import unit_of
from hierlmm.diagnostics.curve_band import CurveBand
from hierlmm.diagnostics.residual_curve import MOST_ROWS, residual_curve
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.style import crowd, percent, with_unit
from hierlmm.drawing.theme import theme
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked, choose
from hierlmm.plots.fits import one_named
from hierlmm.plots.rows import Groups, row_groups

KINDS = ("pearson", "response", "normalized")
LEVELS = ("subject", POPULATION)
AROUND = {"subject": "the subjects' own lines", POPULATION: "the population line", ALL: "the lines of all groups"}
MOST_POINTS = 5000


@checked
@pictured
def plot_residuals(
    fits: Fit | SideBySide,
    *,
    kind: Literal["pearson", "response", "normalized"] = "pearson",
    level: str | None = None,
    by: str | None = None,
    ci: float = 0.95,
    simulations: int = 199,
    max_points: int | None = None,
    seed: int | None = 0,
    **figure: Unpack[Figure],
) -> Any:
    """Draw residuals against fitted values, a smoother through them, and where the fitted model expects it.

    Around the subjects' own lines residuals rise with the fitted values even where the model is right, because
    shrinkage leaves a part of every subject's difference in its residuals. So the smoother is not to be compared with
    zero but with the band: it holds that share of the smoothers of data sets simulated under the fitted model, each
    with its own coefficients and its own predictions of the random effects.

    Parameters
    ----------
    fits : Fit or Comparison
        A fit by any estimator (a posterior at its means, GEE at its working covariance); of a `Comparison` the
        reference.
    kind : {"pearson", "response", "normalized"}
        As for ``fit.residuals``.
    level : {"subject", "population"}, optional
        Around the subjects' own lines (the default where there are random effects), or around the population line. With
        several factors as for ``fit.residuals``: ``"all"``, the default, ``"population"``, or a factor.
    by : str, optional
        Column whose values have colours.
    ci : float
        Share of whole curves in the band.
    simulations : int
        Data sets behind the band; 0 for none. There is none for subjects with more than 2,000 rows.
    max_points : int, optional
        Draw at most that many points, drawn at random; the title says so. By default more than 5,000 points of one
        colour are hexagons, dark where many lie (matplotlib), and others a sample of 5,000. Line and band are made of
        up to 6,000 rows, those of evenly spaced subjects.
    seed : int, optional

    Returns
    -------
    Picture
        Visuals ``points`` (``points_…`` by label where ``by`` is given; hexagons are none), ``expected`` and
        ``smoother``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> sleep = hl.load_dataset("sleepstudy")
    >>> fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", sleep).fit_reml()
    >>> picture = fit.plot_residuals(backend="none")
    """
    name, fit = one_named(fits)
    choose("kind", kind, KINDS)
    line: Any = _line(fit, level)
    fitted, residual = (v.to_numpy(dtype=np.float64) for v in (fit.fitted(line), fit.residuals(kind, line)))
    curve = residual_curve(fit, kind, line, ci, simulations, seed=seed)
    panels = Panels({"": np.vstack([fitted, residual])}, "panel", (6.4, 4.3), figure, name="residuals")
    groups = row_groups(fit.design, by)
    cells = max_points is None and len(fitted) > MOST_POINTS and by is None and panels.backend == "matplotlib"
    rows = _some(len(fitted), max_points or MOST_POINTS, seed)
    points = np.vstack([fitted, residual])
    if cells:
        panels.cells("", *points)
    else:
        _draw_points(panels, points, rows, groups, by)
    panels.rule("", y=0.0)
    if curve is not None:
        if np.isfinite(curve.lower).all():
            panels.band("", curve.x, curve.lower, curve.upper, alpha=0.2, color=theme().ink)
            middle = {"": np.vstack([curve.x, 0.5 * (curve.lower + curve.upper)])}
            panels.map("line_xy", "expected", middle, color=theme().ink, width=1.0, linestyle=panels.dashes)
        ink = theme().ink if by else theme().palette[0]
        panels.map("line_xy", "smoother", {"": np.vstack([curve.x, curve.observed])}, color=ink, width=2.2)
    response = fit.design.hierarchy.response
    coloured = f" Colours: {by}." if by else ""
    some = f", {len(rows):,} of {len(fitted):,} points" if len(rows) < len(fitted) and not cells else ""
    all_of = f" Hexagons: how many of {len(fitted):,} points, darker on a logarithmic scale." if cells else ""
    around = AROUND.get(line, f"the lines of {line}")
    caption = f"{kind.capitalize()} residuals around {around}.{all_of} {_band_text(curve, len(fitted))}{coloured}"
    return panels.finish(
        {"": ""},
        title=f"{_seen(curve)} ({name}){some}",
        caption=caption,
        xlabel=f"fitted {with_unit(response, fit.design.units)}",
        ylabel="residual" + (f" ({unit_of(fit.design) or response})" if kind == "response" else " (in SDs)"),
        legend=_legend(groups, by),
    )


def _line(fit: Fit, level: str | None) -> str:
    """The level of the line around which residuals are, by default the finest."""
    if fit.design.has_several_factors:
        factors_at(fit.design, level or ALL)
        return level or ALL
    line = level or ("subject" if fit.has_random_effects else POPULATION)
    choose("level", line, LEVELS)
    return line


def _draw_points(panels: Panels, points: np.ndarray, rows: np.ndarray, groups: Groups, by: str | None) -> None:
    """Draw these rows, in colours where there are groups."""
    look: dict[str, Any] = {"size": 16, "alpha": crowd(len(rows))}
    for k, label in enumerate(groups.labels):
        own = rows[groups.codes[rows] == k]
        colour = theme().palette[k] if by else theme().data
        panels.map("scatter_xy", f"points_{label}" if by else "points", {"": points[:, own]}, color=colour, **look)


def _some(n: int, most: int, seed: int | None) -> np.ndarray:
    """Rows that are drawn."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, max(1, most), replace=False))


def _seen(curve: CurveBand | None) -> str:
    """What the smoother says, in the title."""
    if curve is None or np.isnan(curve.p_value):
        return "Residuals against fitted values"
    if not curve.stands_out:
        return "Residuals go along the fitted values as the model expects"
    if not curve.outside.any():
        return f"The mean of the residuals leaves {_left(curve)}"
    edges = np.flatnonzero(np.diff(np.r_[False, curve.outside, False]))
    start, stop = max(zip(edges[::2], edges[1::2] - 1, strict=True), key=lambda ends: ends[1] - ends[0])
    x = curve.x[[start, stop]]
    where = f"at {x[0]:.3g}" if start == stop else f"from {x[0]:.3g} to {x[1]:.3g}"
    return f"The residuals leave {_left(curve, f' {where.replace("-", "−")}')}"


def _left(curve: CurveBand, where: str = "") -> str:
    """What they leave: with a p-value that a right model has now and then, no more than the band."""
    if not curve.by_chance:
        return f"what the model expects{where}"
    return f"the band{where}, as {percent(1.0 - curve.ci)} do by chance (p = {curve.p_value:.2g})"


def _band_text(curve: CurveBand | None, n: int) -> str:
    if curve is None:
        return "All fitted values are equal."
    if np.isnan(curve.p_value):
        return "Line: local straight lines. Shrinkage lets it rise where the model is right."
    p = f"p = {curve.p_value:.2g}" if curve.p_value >= 0.001 else "p < 0.001"
    p += " (fit.check() has one p for fitted values and covariates together)" if curve.by_chance else ""
    some = f" (both of {MOST_ROWS:,} rows)" if n > MOST_ROWS else ""
    return f"Line: local straight lines; band: {percent(curve.ci)} of such lines under the fitted model{some}, {p}."


def _legend(groups: Groups, by: str | None) -> list[Entry]:
    colours = theme().palette
    if by is None:
        return []
    return [Entry(label, colours[k], line="", marker="circle", alpha=0.9) for k, label in enumerate(groups.labels)]
