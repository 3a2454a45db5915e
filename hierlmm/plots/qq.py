"""Normal quantiles of the residuals (level 1) and of the random effects (level 2), with bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from hierlmm.diagnostics.curve_band import CurveBand
from hierlmm.diagnostics.normality import RESIDUALS, normality
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import NOTHING, crowd, percent
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked
from hierlmm.plots.fits import one_named, refuse_without_effects

SEE = "docs, page 'Residual diagnostics'"


@checked
@pictured
def plot_qq(
    fits: Fit | SideBySide,
    *,
    level: int | Sequence[int] | None = None,
    ci: float = 0.95,
    simulations: int = 400,
    seed: int | None = 0,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the quantiles of residuals and random effects against those of the normal distribution.

    Level 1: the residuals around the subjects' lines with the fitted correlation taken out. Level 2: a panel for each
    random effect that varies, of every factor where there are several. Every number is divided by the SD that the model
    gives it, which differs between subjects with few and with many rows, and all of a panel by their root mean square.
    The band holds a share ``ci`` of whole curves, simulated under the fitted model with the correlations that such
    numbers have; a panel says that points leave it only where the whole curve is unusual at this level.

    Random effects look more normal than they are (shrinkage pulls them towards the normal distribution that was
    assumed), so what stands out here is a strong sign and what does not is a weak one.

    Parameters
    ----------
    fits : Fit or Comparison
        A fit by any estimator (a posterior at its means, GEE at its working covariance); of a `Comparison` the
        reference.
    level : int or sequence of int, optional
        1, 2, or both, which is the default where there are random effects.
    ci : float
        Share of whole curves in the band.
    simulations : int
        Data sets behind the band.
    seed : int, optional
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``points`` and ``standing_out`` over ``part``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> sleep = hl.load_dataset("sleepstudy")
    >>> fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", sleep).fit_reml()
    >>> picture = fit.plot_qq(simulations=50, backend="none")
    """
    name, fit = one_named(fits)
    levels = _levels(fit, level)
    found = normality(fit, levels, ci, simulations, seed)
    if not found.bands:
        reason = "all variances of the random effects are estimated as zero"
        raise SpecificationError(f"plot_qq(level={level!r})", reason, "look at level=1, or at a simpler model", SEE)
    points = {part: np.vstack([band.x, band.observed]) for part, band in found.bands.items()}
    panels = Panels(points, "part", each(0.7, 3.1, 1.0, 2.9), figure, col_wrap, name="quantiles")
    out = {part: band.outside for part, band in found.bands.items()}
    for part, band in found.bands.items():
        panels.band(part, band.x, band.lower, band.upper, alpha=0.18, color=theme().ink)
        ends = band.x[[0, -1]]
        panels.line(part, ends, ends, color=theme().grey, width=1.0)
    size = {"size": 18, "alpha": max(0.35, crowd(max(part.shape[1] for part in points.values())))}
    inside = {part: p[:, ~out[part]] if not out[part].all() else NOTHING for part, p in points.items()}
    beyond = {part: p[:, out[part]] if out[part].any() else NOTHING for part, p in points.items()}
    panels.map("scatter_xy", "points", inside, color=theme().data, **size)
    panels.map("scatter_xy", "standing_out", beyond, color=theme().palette[1], **{**size, "alpha": 0.9})
    some = f" {found.shown:,} of {found.total:,} subjects." if found.shown < found.total else ""
    return panels.finish(
        {part: f"{_name(part)}\n{_seen(band)}" for part, band in found.bands.items()},
        title=f"Normal quantiles ({name})",
        caption=f"Band: {percent(ci)} of whole curves under the fitted model.{some}",
        xlabel="normal quantile",
        ylabel="observed",
    )


def _levels(fit: Fit, level: int | Sequence[int] | None) -> tuple[int, ...]:
    if level is None:
        return (1, 2) if fit.has_random_effects else (1,)
    asked = (level,) if isinstance(level, int) else tuple(level)
    if not asked or not set(asked) <= {1, 2}:
        reason = "level 1 are the residuals, level 2 the random effects"
        raise SpecificationError(f"level={level!r}", reason, "use 1, 2 or [1, 2]", SEE)
    if 2 in asked:
        refuse_without_effects(fit, f"plot_qq(level={level!r})")
    return asked


def _name(part: str) -> str:
    return "level 1: residuals" if part == RESIDUALS else part if " | " in part else f"level 2: {part}"


def _seen(band: CurveBand) -> str:
    p = f"p = {band.p_value:.2g}" if band.p_value >= 0.001 else "p < 0.001"
    return f"{'leaves' if band.stands_out else 'inside'} the band, {p}"
