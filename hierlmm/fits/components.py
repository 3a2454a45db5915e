"""The covariance parameters as one labelled list: ``sd(term)``, ``corr(term, term)``, ``sigma``.

A compound-symmetric D has one standard deviation and one correlation: ``sd(all random effects)``,
``corr(all random effects)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.random import compound_symmetry_corr
from hierlmm.design.design import Design

__all__ = [
    "COMMON_CORR",
    "COMMON_SD",
    "component_frame",
    "component_labels",
    "component_values",
    "correlated_pairs",
    "zero_terms",
]


COMMON_SD, COMMON_CORR = "sd(all random effects)", "corr(all random effects)"


def correlated_pairs(design: Design) -> list[tuple[int, int]]:
    """Pairs of random effects (positions in ``term``) whose correlation is a parameter of its own."""
    if design.covariance == "compound_symmetry":
        return []
    return [(a, b) for block in design.blocks for i, a in enumerate(block) for b in block[i + 1 :]]


def component_labels(design: Design) -> list[str]:
    """Labels in the order of `component_values`."""
    term = design.term
    if design.covariance == "compound_symmetry":
        return [COMMON_SD, COMMON_CORR, "sigma"]
    sds = [f"sd({t})" for t in term]
    corrs = [f"corr({term[a]}, {term[b]})" for a, b in correlated_pairs(design)]
    return [*sds, *corrs, "sigma"]


def component_values(design: Design, D: FloatArray, sigma: FloatArray | float) -> FloatArray:
    """Standard deviations, correlations and σ from D (..., q, q) and σ (...): (..., n_components)."""
    sd = np.sqrt(np.diagonal(D, axis1=-2, axis2=-1))
    if design.covariance == "compound_symmetry":
        return np.stack([sd[..., 0], compound_symmetry_corr(D), np.broadcast_to(sigma, sd.shape[:-1])], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = [D[..., a, b] / (sd[..., a] * sd[..., b]) for a, b in correlated_pairs(design)]
    parts = [sd, *(np.clip(c, -1.0, 1.0)[..., None] for c in corr), np.asarray(sigma)[..., None]]
    return np.concatenate(parts, axis=-1)


def component_frame(
    labels: list[str], estimate: FloatArray, se: FloatArray, lower: FloatArray, upper: FloatArray
) -> pd.DataFrame:
    """Table of covariance parameters, columns estimate, se, lower, upper."""
    index = pd.Index(labels, name="component")
    return pd.DataFrame({"estimate": estimate, "se": se, "lower": lower, "upper": upper}, index=index)


def zero_terms(fit: Any) -> dict[str, float]:
    """Random effects whose estimated variance is zero but for rounding: term -> SD that would match the residual's.

    The optimiser leaves 1e-15 of the response's unit there, which an axis would blow up to the width of the figure.
    """
    if fit.has_draws or not fit.has_random_effects:
        return {}
    design = fit.design
    size = float(fit.sigma) if design.is_gaussian else design.family.scale(design.y)
    unit = size / np.sqrt(np.mean(design.Z**2, axis=0))
    return {t: float(u) for t, u, s in zip(fit.design.term, unit, fit.sd_b, strict=True) if s <= 1e-6 * u}
