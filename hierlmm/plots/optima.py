"""Plot of a criterion with several minima: its values on the way from the best one to each of the others."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.theme import theme
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.generalised import GeneralisedNumbers
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked
from hierlmm.plots.fits import one_fit

POINTS = 241
BEYOND = 0.4
"""How far past either optimum the line goes, as a share of the way between them."""


@checked
@pictured
def plot_optima(
    fit: Fit | SideBySide,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the criterion on the straight line through the best optimum and each of the others.

    With one random effect and nothing else the axis is its standard deviation, β and σ at their best for each value.
    Elsewhere it is the share of the way in the relative covariance parameters: what lies between two optima in many
    dimensions may be passed at a lower height than on the straight line.

    Parameters
    ----------
    fit : LikelihoodEstimates or Comparison
        A fit by REML or ML with more than one row in ``fit.optima``; of a comparison, its reference.

    Returns
    -------
    Picture

    Raises
    ------
    NotAvailableError
        If the search found one optimum only, or the fit maximises no likelihood.
    """
    chosen = one_fit(fit)
    if not isinstance(chosen, (LikelihoodEstimates, GeneralisedNumbers)):
        received, reason = f"plot_optima of a fit by {chosen.estimator}", "it maximises no criterion"
        raise NotAvailableError(received, reason, "fit the model by fit_reml() or fit_ml()", "docs, page 'Estimators'")
    fit, others = chosen, chosen.optimum.others
    if not others:
        received = "plot_optima of a fit with one optimum"
        remedy = "nothing: fit.optima lists what the search found, and fit.optimum.search where it looked"
        raise NotAvailableError(received, "there is nothing between optima to draw", remedy, "docs, page 'Estimators'")
    best = fit.optimum
    single = len(best.lam) == 1
    lines, ends = {}, {}
    for k, other in enumerate(others):
        label = f"1 ({best.value:.2f}) and {k + 2} ({other.value:.2f})"
        step = other.lam - best.lam
        share = np.linspace(*_reach(fit, step), POINTS)
        points = [best.lam + s * step for s in share]
        x = share if not single else [_sd(fit, point) for point in points]
        values = np.array([fit.criterion_function(point) for point in points])
        lines[label] = np.vstack([x, np.where(np.isfinite(values), values, np.nan)])
        sides = [_sd(fit, best.lam), _sd(fit, other.lam)] if single else [0.0, 1.0]
        ends[label] = np.array([sides, [best.value, other.value]])
    colour = theme().colour_of(fit.estimator)
    panels = Panels(lines, "optimum", each(0.8, 4.2, 1.0, 2.8), figure, name="criterion")
    panels.map("line_xy", "line", lines, color=colour, width=1.5)
    for label, (x, y) in ends.items():
        panels.scatter(label, x, y, size=40, color=theme().beside(colour))
    kind = "REML criterion" if fit.criterion_function.reml else "Deviance"
    return panels.finish(
        {label: label for label in lines},
        title=f"{fit.design.hierarchy.response}: {kind} between its optima",
        xlabel=f"sd({fit.design.term[0]})" if single and fit.design.term else "share of the way",
        ylabel=f"{kind} (−2 log L)",
    )


def _reach(fit: LikelihoodEstimates | GeneralisedNumbers, step: np.ndarray) -> tuple[float, float]:
    """From where to where the line goes: a little beyond both optima, and no further than a scale of Λ reaches zero.

    Beyond that λ and -λ are the same D, and the line would show its own mirror image.
    """
    structure = fit.criterion_function.structure
    scales = structure.index[structure.row == structure.col] if structure.projections is None else ...
    own = fit.optimum.lam[: structure.n_parameters][scales]
    by = step[: structure.n_parameters][scales]
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = -own / by
    return (
        float(max([-BEYOND, *zero[zero <= 0.0]])),
        float(min([1.0 + BEYOND, *zero[(zero >= 1.0) & np.isfinite(zero)]])),
    )


def _sd(fit: Any, lam: np.ndarray) -> float:
    """Standard deviation of the first random effect at λ, β and σ at their best."""
    return float(np.abs(fit.criterion_function.solution(lam).root[0, 0]))
