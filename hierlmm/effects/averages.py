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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.effects.grid import Grid, average_rows, check_values, plain_name
from hierlmm.effects.judge import Judge, PosteriorDraws, RowDraws, judge_of
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.posterior import flattened
from hierlmm.likelihood.descent import central_differences
from hierlmm.likelihood.wald import Asked, FixedDegrees
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
    how: Asked,
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
    how : Asked
    categories : sequence, optional
        Categories of an ordinal response, for each of which a row is made: those of the first key, then of the next.

    Raises
    ------
    NotAvailableError
        If the mean over subjects of ordered categories is asked for, other than as probabilities.
    """
    choose("level", level, LEVELS)
    judge, family = judge_of(fit, how), fit.design.family
    over = level == "marginal" and fit.has_random_effects and family.link != "identity"
    if categories is None and not over:
        L, offset = average_rows(grid, keys, weights)
        return L, offset, judge
    if categories is None and family.name == "ordinal":
        reason = "averaging over subjects moves every threshold by another amount, so no one number is the mean's"
        remedy = "use level='population', or fit.marginal_means(..., level='marginal').contrasts() for probabilities"
        raise NotAvailableError("level='marginal' of an ordinal response", reason, remedy, SEE)
    made = _Rows(fit, judge, over, categories, len(keys))
    table, _ = average_rows(grid, keys, weights, lambda frame: made.of(grid.new(frame)), made.lines * made.width)
    return made.judged(table)


def category_rows(fit: Fit, L: FloatArray, how: Asked) -> tuple[FloatArray, FloatArray, Judge]:
    """The same for the probabilities of all categories at linear predictors ``L β``, b = 0."""
    made = _Rows(fit, judge_of(fit, how), False, fit.design.rows.categories, len(L))
    return made.judged(made.of(Lines(L, np.zeros(len(L)), np.zeros((len(L), 0))))[0])


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


class Lines(NamedTuple):
    """Rows of a design: X, offset and Z."""

    X: FloatArray
    offset: FloatArray
    Z: FloatArray


class _Rows:
    """Rows that are no linear functions of β, side by side for all thresholds, and how they are judged.

    Of an estimate a row is its Jacobian in (λ, β̃, ψ), its parts along flat directions, and its value; of a posterior
    its draws, evenly spaced ones where all would not fit into memory.
    """

    def __init__(self, fit: Any, judge: Judge, over: bool, categories: Sequence[Any] | None, n: int) -> None:
        self.fit, self.design, self.judge, self.over = fit, fit.design, judge, over
        known = fit.design.rows.categories
        self.chosen = None if categories is None else [known.index(c) for c in categories]
        self.lines = 1 if categories is None else len(known) - 1
        if isinstance(judge, PosteriorDraws):
            keep = fit.evenly_kept(min(len(judge.beta), max(FEWEST, NUMBERS // (n * self.lines))))
            self.draws = judge.beta[keep], flattened(fit.psi_draws())[keep][:, None]
            self.D = flattened(fit.draws("D"))[keep] if over else np.empty((len(keep), 0, 0))
            self.width = len(keep)
        else:
            self.width = fit.record.covariance.shape[0] + fit.record.flat.shape[1] + 1

    def of(self, new: Any) -> tuple[FloatArray, FloatArray]:
        """Numbers of each row, (n, lines × width), and offsets of zero."""
        if isinstance(self.judge, PosteriorDraws):
            beta, psi = self.draws
            drawn = np.moveaxis(self._lines(new, beta, self.D, psi), 0, -1)
            return drawn.reshape(len(new.X), -1), np.zeros(len(new.X))
        record = self.fit.record
        centre = record.optimum.lam

        def values(parameters: FloatArray) -> FloatArray:
            at = record.at(parameters)
            return self._lines(new, at.beta, at.D, at.psi).ravel()

        J = central_differences(values, centre).T
        lost = J @ record.flat
        lost[np.abs(lost) <= SAME * np.abs(J).max(axis=1, initial=1e-300, keepdims=True)] = 0.0
        return np.column_stack([J, lost, values(centre)]).reshape(len(new.X), -1), np.zeros(len(new.X))

    def _lines(self, new: Any, beta: FloatArray, D: FloatArray, psi: FloatArray) -> FloatArray:
        """What is linear in the grid, at one β, D and ψ or at draws: (..., n), of thresholds (..., n, K - 1)."""
        family = self.design.family
        eta = beta @ new.X.T + new.offset
        variance = random_variance(new.Z, D) if self.over else np.zeros(1)
        if self.chosen is None:
            return marginal_line(family, eta, variance)
        line = family.thresholds(psi) - eta[..., None]
        if not self.over:
            return np.asarray(line)
        below = averaged_inverse(family.link, family.function.inverse, line, variance[..., None])
        return np.asarray(family.function.link(np.clip(below, np.finfo(float).tiny, 1.0 - SURE)))

    def judged(self, table: FloatArray) -> tuple[FloatArray, FloatArray, Judge]:
        """Averaged rows as L, offset and judge; those of thresholds as probabilities of categories."""
        table = table.reshape(len(table), self.lines, self.width)
        if isinstance(self.judge, PosteriorDraws):
            if self.chosen is not None:
                table = self._between(table.swapaxes(1, 2)).swapaxes(1, 2)
            L = table.reshape(-1, self.width)
            return L, np.zeros(len(L)), RowDraws(self.draws[0])
        L, offset = table[..., :-1], table[..., -1]
        if self.chosen is not None:
            moved = (self.design.family.function.slope(offset)[..., None] * L).swapaxes(1, 2)
            ends = np.zeros((*moved.shape[:-1], 1))
            L = np.diff(np.concatenate([ends, moved, ends], axis=-1), axis=-1)[..., self.chosen].swapaxes(1, 2)
            offset = self._between(offset)
        covariance = self.fit.record.covariance
        k, r = len(covariance), self.width - 1 - len(covariance)
        cov = np.full((k + r, k + r), np.nan)
        cov[:k, :k], cov[:k, k:], cov[k:, :k] = covariance, 0.0, 0.0
        judge = replace(self.judge, beta=np.zeros(k + r), cov=cov, degrees=FixedDegrees(np.inf))
        return L.reshape(-1, k + r), offset.ravel(), judge

    def _between(self, line: FloatArray) -> FloatArray:
        """Probabilities of the categories that are asked for, from lines of the thresholds (..., K - 1)."""
        family = self.design.family
        return np.asarray(family.between(family.function.inverse(line))[..., self.chosen])
