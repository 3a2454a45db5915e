"""What is averaged over a grid: rows of the design, means over subjects, or probabilities of ordered categories.

A mean at b = 0 is a row of the design, averaged: linear in β. The mean over subjects is not. With ``m(θ)`` that mean on
the scale of the link, θ = (λ, β̃, ψ), the rows of its Jacobian and its value at θ̂ take the places of the rows of the
design and of the offset, and the covariance of θ̂ that of β̂; of a posterior every draw has its own m, and the draws of
each row stand in the row (`hierlmm.effects.judge.RowDraws`). Whatever is linear in means (averages, contrasts, bands)
follows as before.

Ordered categories have a line for each threshold, ``g(P(y ≤ k)) = τ_k − x'β`` at b = 0, or over subjects
``g(E_b F(τ_k − x'β − z'b))``. They are averaged over the grid like other lines, and the differences of what they go
back to are the probabilities of the categories: so they lie between 0 and 1, and add up to one. R's emmeans averages
the probabilities themselves (``mode = "prob"``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.effects.grid import Grid, average_rows, check_values, plain_name
from hierlmm.effects.judge import Judge, RowDraws, judge_of
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.posterior import flattened
from hierlmm.likelihood.descent import central_differences
from hierlmm.likelihood.wald import FixedDegrees, Wald
from hierlmm.options import choose
from hierlmm.predict.averages import averaged_inverse
from hierlmm.predict.generalised import marginal_line, random_variance

SEE = "docs, page 'Families', section 'Means, ratios and curves'"
LEVELS = ("population", "marginal")
SAME = 1e-6
"""Size of a Jacobian along a flat direction, relative, that is rounding."""
NUMBERS = 40_000_000
"""Numbers that the draws of all rows take together."""
FEWEST = 500
"""Draws that are used in any case."""
SURE = 1e-15


def averages(
    fit: Fit,
    grid: Grid,
    keys: pd.DataFrame,
    weights: str,
    level: str,
    df: str | None,
    categories: Sequence[Any] | None = None,
) -> tuple[FloatArray, FloatArray, Judge]:
    """Rows ``L``, their offsets, and who judges them, at ``keys`` averaged over everything else in the grid.

    Parameters
    ----------
    fit : Fit
    grid : Grid
    keys : pandas.DataFrame
    weights : {"equal", "proportional"}
    level : {"population", "marginal"}
    df : str, optional
    categories : sequence, optional
        Categories of an ordinal response, for each of which a row is made: those of the first key, then of the next.

    Raises
    ------
    NotAvailableError
        If the mean over subjects of ordered categories is asked for, other than as probabilities.
    """
    choose("level", level, LEVELS)
    judge, family = judge_of(fit, df), fit.design.family
    over = level == "marginal" and fit.has_random_effects and family.link != "identity"
    if categories is None and not over:
        L, offset = average_rows(grid, keys, weights)
        return L, offset, judge
    if categories is None and family.name == "ordinal":
        reason = "averaging over subjects moves every threshold by another amount, so no one number is the mean's"
        remedy = "use level='population', or fit.marginal_means(..., level='marginal').contrasts() for probabilities"
        raise NotAvailableError("level='marginal' of an ordinal response", reason, remedy, SEE)
    known = fit.design.rows.categories
    chosen = None if categories is None else [known.index(c) for c in categories]
    found = _of_estimate if isinstance(judge, Wald) else _of_draws
    return found(fit, judge, grid, keys, weights, over, chosen)


def asked_categories(
    design: Design, scale: str, at: Mapping[str, Any] | None
) -> tuple[list[Any] | None, dict[str, Any]]:
    """Categories of an ordinal response whose probabilities are asked for (None: no probabilities), and the rest of at.

    ``at`` may name some of them under the name of the response.
    """
    rest = {plain_name(name): value for name, value in (at or {}).items()}
    if scale != "response" or design.family.name != "ordinal":
        return None, rest
    name, known = response_of(design), list(design.rows.categories)
    return (check_values(name, rest.pop(name), known) if name in rest else known), rest


def response_of(design: Design) -> str:
    """Name of the response, which is that of the column of its categories."""
    return unquoted(design.hierarchy.response)


def with_categories(keys: pd.DataFrame, name: str, categories: Sequence[Any]) -> pd.DataFrame:
    """Keys repeated for each category, which changes fastest."""
    n = len(categories)
    repeated = keys.iloc[np.repeat(np.arange(len(keys)), n)].reset_index(drop=True)
    return repeated.assign(**{name: list(categories) * len(keys)})


def curves_of_categories(
    keys: pd.DataFrame, name: str, categories: Sequence[Any], length: int
) -> tuple[pd.DataFrame, IntArray]:
    """The same for curves of so many points, which stay together, and where the rows stood."""
    made, n = with_categories(keys, name, categories), len(categories)
    order = np.arange(len(made)).reshape(-1, length, n).swapaxes(1, 2).ravel()
    return made.iloc[order].reset_index(drop=True), order


def _of_estimate(
    fit: Any, judge: Any, grid: Grid, keys: pd.DataFrame, weights: str, over: bool, chosen: list[int] | None
) -> tuple[FloatArray, FloatArray, Judge]:
    """Jacobians, their parts along flat directions, and values, of a generalised fit by maximum likelihood."""
    record, design = fit.record, fit.design
    centre, k, r = record.optimum.lam, record.covariance.shape[0], record.flat.shape[1]

    def rows(frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        new = grid.new(frame)

        def values(parameters: FloatArray) -> FloatArray:
            at = record.at(parameters)
            return _lines(design, new, at.beta, at.D, at.psi, over, chosen is not None).ravel()

        J = central_differences(values, centre).T
        lost = J @ record.flat
        lost[np.abs(lost) <= SAME * np.abs(J).max(axis=1, initial=1e-300, keepdims=True)] = 0.0
        return np.column_stack([J, lost, values(centre)]).reshape(len(frame), -1), np.zeros(len(frame))

    width = (k + r + 1) * _thresholds(design, chosen)
    table = average_rows(grid, keys, weights, rows, width)[0].reshape(-1, k + r + 1)
    L, offset = table[:, :-1], table[:, -1]
    if chosen is not None:
        line = offset.reshape(len(keys), -1)
        moved = (design.family.function.slope(line)[..., None] * L.reshape(*line.shape, -1)).swapaxes(1, 2)
        ends = np.zeros((*moved.shape[:-1], 1))
        L = np.diff(np.concatenate([ends, moved, ends], axis=-1), axis=-1)[..., chosen].swapaxes(1, 2)
        L = L.reshape(-1, k + r)
        offset = _between(design, line)[:, chosen].ravel()
    cov = np.full((k + r, k + r), np.nan)
    cov[:k, :k], cov[:k, k:], cov[k:, :k] = record.covariance, 0.0, 0.0
    return L, offset, replace(judge, beta=np.zeros(k + r), cov=cov, degrees=FixedDegrees(np.inf))


def _of_draws(
    fit: Any, judge: Any, grid: Grid, keys: pd.DataFrame, weights: str, over: bool, chosen: list[int] | None
) -> tuple[FloatArray, FloatArray, Judge]:
    """Draws of every row, evenly spaced ones where all would not fit into memory."""
    design, several = fit.design, _thresholds(fit.design, chosen)
    keep = fit.evenly_kept(min(len(judge.beta), max(FEWEST, NUMBERS // (len(keys) * several))))
    beta, psi = judge.beta[keep], flattened(fit.psi_draws())[keep][:, None]
    D = flattened(fit.draws("D"))[keep] if over else np.empty((len(keep), 0, 0))

    def rows(frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        lines = _lines(design, grid.new(frame), beta, D, psi, over, chosen is not None)
        return np.moveaxis(lines, 0, -1).reshape(len(frame), -1), np.zeros(len(frame))

    table = average_rows(grid, keys, weights, rows, several * len(keep))[0]
    if chosen is not None:
        line = table.reshape(len(keys), several, -1).swapaxes(1, 2)
        table = _between(design, line)[..., chosen].swapaxes(1, 2)
    L = table.reshape(-1, len(keep))
    return L, np.zeros(len(L)), RowDraws(beta)


def _thresholds(design: Design, chosen: list[int] | None) -> int:
    return 1 if chosen is None else len(design.rows.categories) - 1


def _between(design: Design, line: FloatArray) -> FloatArray:
    """Probability of each category from the lines of the thresholds."""
    family: Any = design.family
    return np.asarray(family.between(family.function.inverse(line)))


def _lines(
    design: Design, new: Any, beta: FloatArray, D: FloatArray, psi: FloatArray, over: bool, by_threshold: bool
) -> FloatArray:
    """What is linear in the grid, at one β, D and ψ or at draws of them: (..., n), of thresholds (..., n, K - 1).

    ``over``: averaged over random effects, on the scale of the link.
    """
    family: Any = design.family
    eta = beta @ new.X.T + new.offset
    variance = random_variance(new.Z, D) if over else np.zeros(1)
    if not by_threshold:
        return marginal_line(family, eta, variance)
    line = family.thresholds(psi) - eta[..., None]
    if not over:
        return np.asarray(line)
    below = averaged_inverse(family.link, family.function.inverse, line, variance[..., None])
    return np.asarray(family.function.link(np.clip(below, np.finfo(float).tiny, 1.0 - SURE)))
