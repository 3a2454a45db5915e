"""The covariance of all planned occasions, for models in which it is the same for all subjects, or all of a group."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hierlmm.frames import occasions_in_use

MOST = 50
"""Distinct times above which a structure in time has no planned occasions."""


def covariance_by_occasion(fit: Any) -> pd.DataFrame | None:
    """Σ over the occasions of the residual correlation, of one group below the other.

    None where V is no function of the occasion and the group: random effects, weights, a variance that depends on
    more, or times that every subject has of its own.
    """
    design, structure = fit.design, fit.residual_estimate
    spec, variance, group = design.residual, design.residual_variance, design.residual_group
    if fit.has_random_effects or spec is None or spec.time is None:
        return None
    keys = [spec.time] if group is None else [group, spec.time]
    cells = design.frame[list(dict.fromkeys([*keys, *design.residual_columns]))].drop_duplicates()
    fitted = variance is not None and variance.variable is None
    many = not spec.by_occasion and cells[spec.time].nunique() > MOST
    if fitted or many or cells.duplicated(keys).any():
        return None
    ordered = cells.set_index(spec.time, drop=False)
    levels = [None] if structure.correlation is None else [level.label for level in structure.correlation.levels]
    found = {}
    for level in levels:
        own = ordered if group is None else ordered[ordered[group] == level]
        own = own.loc[occasions_in_use(own[spec.time])[0]]
        index = pd.Index(own[spec.time].tolist(), name=spec.time)
        found[level] = pd.DataFrame(fit.sigma**2 * structure.covariance(own), index=index, columns=index)
    return found[None] if group is None else pd.concat(found, names=[group])
