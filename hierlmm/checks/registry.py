"""The checks of a page, in the order in which they are made; the names are those of their sentences."""

from __future__ import annotations

from hierlmm.checks import columns, estimate, residuals, rows, subjects
from hierlmm.checks.outcome import Check

PLAIN: dict[str, Check] = {
    "convergence": estimate.convergence,
    "boundary": estimate.boundary,
    "notes": estimate.notes,
    "priors": estimate.priors,
    "collinearity": columns.collinearity,
    "scaling": columns.scaling,
    "duplicates": rows.duplicates,
}
"""Checks that need nothing simulated."""

SIMULATED: dict[str, Check] = {
    "leverage": subjects.leverage,
    "mean": residuals.mean,
    "spread": residuals.spread,
    "residual_normality": residuals.residual_normality,
    "effect_normality": residuals.effect_normality,
    "level2": subjects.level2,
    "effect_spread": subjects.effect_spread,
    "serial": residuals.serial,
    "ranks": residuals.ranks,
    "dispersion": residuals.dispersion,
    "outlying_rows": subjects.outlying_rows,
    "outlying_subjects": subjects.outlying_subjects,
    "influential_subjects": subjects.influential_subjects,
}
"""Checks that compare the data with data simulated under the fit."""

CHECKS = PLAIN | SIMULATED
