"""The mean of the residuals along the fitted values: a smoother, and where the fitted model expects it.

Around the subjects' own lines residuals and fitted values are correlated even where the model is right: ``r = Σ V⁻¹ (y
- X β̂)`` is what shrinkage left over, so subjects high above the population line have fitted values that are too low and
residuals above zero. A line at zero is the wrong ruler then; the right one is what data simulated under the model show
when they are treated alike.

The smoother is linear in the residuals: at x the fit of a straight line to the nearest share of the rows, weighted by
``(1 - (d/h)³)³`` (Cleveland 1979, J. Amer. Statist. Assoc. 74, 829-836).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.questions import rows_by_subject
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.factor_residuals import simulated_residuals
from hierlmm.diagnostics.normality import LONGEST
from hierlmm.diagnostics.serial_residuals import information, linear_residuals
from hierlmm.drawing.style import evenly
from hierlmm.fits.base import Fit, Level
from hierlmm.predict.factors import MOST_EFFECTS, n_effects

type Kind = Literal["response", "pearson", "normalized"]
GRID = 41
SPAN = 0.6
MOST_ROWS = 6000
"""Of more rows, those of some subjects are taken, evenly spaced."""


def residual_curve(
    fit: Fit, kind: Kind, level: Level, ci: float, simulations: int, span: float = SPAN, seed: int | None = 0
) -> CurveBand | None:
    """Smoothed residuals along the fitted values, with the band of whole curves that the model makes.

    Parameters
    ----------
    fit : Fit
    kind, level : str
        Of the residuals, as for ``fit.residuals``.
    ci : float
    simulations : int
        None are needed for a smoother without its band: 0.
    span : float
        Share of the rows that the smoother looks at in one place.
    seed : int, optional

    Returns
    -------
    CurveBand
        Its limits are NaN without a band; None where all fitted values are equal.
    """
    fitted, residual = (v.to_numpy(dtype=np.float64) for v in (fit.fitted(level), fit.residuals(kind, level)))
    if not np.ptp(fitted) > 1e-9 * max(1.0, float(np.abs(fitted).max())):
        return None
    design = fit.design
    if design.has_several_factors:
        return _of_factors(fit, kind, level, ci, simulations, span, seed)
    every = rows_by_subject(design)
    kept = evenly(len(every), max(2, int(len(every) * min(1.0, MOST_ROWS / len(fitted)))))
    subjects = [every[j] for j in kept]
    order = np.concatenate(subjects)
    low, high = np.quantile(fitted, [0.03, 0.97])
    grid = np.linspace(float(low), float(high), GRID)
    observed = smooth(fitted[order], residual[order], grid, span)
    if simulations == 0 or max(map(len, every)) > LONGEST:
        unknown = np.full(GRID, np.nan)
        return CurveBand(grid, observed, unknown, unknown, np.nan, ci)
    rest = information(fit, [every[j] for j in sorted(set(range(len(every))) - set(kept.tolist()))])
    asked = linear_residuals(fit, subjects, level, kind, rest)
    plain = asked if kind == "response" else linear_residuals(fit, subjects, level, "response", rest)
    mean = (design.offset + design.X @ fit.beta.to_numpy())[order]
    rng = np.random.default_rng(seed)
    noise = [L @ rng.standard_normal((len(L), simulations)) for L in plain.root]
    of_rest = plain.drawn_rest(simulations, rng)
    centred = mean[:, None] + np.concatenate(noise) - plain.residuals(noise, of_rest)
    found = asked.residuals(noise, of_rest)
    # A line is not drawn out beyond the fitted values of a simulated data set.
    inside = [np.clip(grid, x.min(), x.max()) for x in centred.T]
    curves = [smooth(x, r, at, span) for x, r, at in zip(centred.T, found.T, inside, strict=True)]
    return curve_band(grid, observed, np.array(curves).T, ci)


def _of_factors(
    fit: Any, kind: Kind, level: str, ci: float, simulations: int, span: float, seed: int | None
) -> CurveBand:
    """The same with several grouping factors, whose rows are not parted into subjects."""
    fitted, residual = (v.to_numpy(dtype=np.float64) for v in (fit.fitted(level), fit.residuals(kind, level)))
    kept = evenly(len(fitted), MOST_ROWS)
    low, high = np.quantile(fitted, [0.03, 0.97])
    grid = np.linspace(float(low), float(high), GRID)
    observed = smooth(fitted[kept], residual[kept], grid, span)
    if simulations == 0 or n_effects(fit.design) > MOST_EFFECTS:
        unknown = np.full(GRID, np.nan)
        return CurveBand(grid, observed, unknown, unknown, np.nan, ci)
    x, r = (v[kept].T for v in simulated_residuals(fit, level, kind, simulations, np.random.default_rng(seed)))
    curves = [smooth(a, b, np.clip(grid, a.min(), a.max()), span) for a, b in zip(x, r, strict=True)]
    return curve_band(grid, observed, np.array(curves).T, ci)


def smooth(x: FloatArray, y: FloatArray, at: FloatArray, span: float = SPAN) -> FloatArray:
    """Local straight lines through (x, y), evaluated at these places.

    Parameters
    ----------
    x, y : (n,)
    at : (m,)
    span : float
        Share of the points that a line goes through.

    Returns
    -------
    (m,)
    """
    return np.asarray(smoother_weights(x, at, span) @ y)


def smoother_weights(x: FloatArray, at: FloatArray, span: float = SPAN) -> FloatArray:
    """What `smooth` multiplies y by, (m, n)."""
    k = min(len(x), max(2, int(np.ceil(span * len(x)))))
    gap = x[None, :] - at[:, None]
    away = np.abs(gap)
    reach = np.partition(away, k - 1, axis=1)[:, [k - 1]]
    reach = np.maximum(reach, 1e-3 * np.ptp(x)) * (1.0 + 1e-9)
    weight = np.clip(1.0 - (away / reach) ** 3, 0.0, None) ** 3
    weight /= weight.sum(axis=1, keepdims=True)
    centre = (weight * gap).sum(axis=1)
    moment = weight * (gap - centre[:, None])
    spread = (moment * (gap - centre[:, None])).sum(axis=1)
    known = spread > 1e-10 * reach[:, 0] ** 2
    share = np.divide(centre, spread, out=np.zeros_like(centre), where=known)
    return np.asarray(weight - share[:, None] * moment)
