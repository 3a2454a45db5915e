"""The checks of a page, in the order in which they are made; the names are those of their sentences.

With several grouping factors what is asked of subjects is asked of the groups of each: ``outlying(batch)``.
"""

from __future__ import annotations

from functools import partial

from hierlmm.checks import columns, estimate, residuals, rows, subjects
from hierlmm.checks.factor_material import FactorMaterial
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import Check, LeftOut, Outcome

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

OF_GROUPS: dict[str, Check] = {
    "leverage": subjects.leverage,
    "level2": subjects.level2,
    "effect_spread": subjects.effect_spread,
    "outlying": subjects.outlying_subjects,
    "influential": subjects.influential_subjects,
}
"""Checks of the groups of every factor, where there are several."""

OF_ONE_KIND = {
    "serial": "rows of groups of several factors have no one order",
    "ranks": "new subjects are drawn for models with one kind of subject",
}
"""What is left out there, and why."""


def checks_of(material: Material) -> tuple[dict[str, Check], dict[str, Check]]:
    """Checks of a fit that need nothing simulated, and those that do, by name."""
    if not isinstance(material, FactorMaterial):
        return PLAIN, SIMULATED
    rows = ("mean", "spread", "residual_normality", "effect_normality", "outlying_rows")
    found: dict[str, Check] = {name: SIMULATED[name] for name in rows}
    for factor in material.factors:
        found |= {f"{name}({factor})": partial(_of_groups, look, factor) for name, look in OF_GROUPS.items()}
    return PLAIN, found | {name: partial(_left_out, reason) for name, reason in OF_ONE_KIND.items()}


def _of_groups(look: Check, factor: str, material: Material) -> Outcome | LeftOut:
    assert isinstance(material, FactorMaterial)
    return look(material.groups[factor])


def _left_out(reason: str, material: Material) -> LeftOut:
    return LeftOut(reason)
