"""The covariance parameters as one labelled list: ``sd(term)``, ``corr(term, term)``, ``sigma``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import Design

__all__ = ["component_frame", "component_labels", "component_values", "correlated_pairs"]

FloatArray = NDArray[np.float64]


def correlated_pairs(design: Design) -> list[tuple[int, int]]:
    """Pairs of random effects (positions in ``term``) whose correlation is a parameter."""
    return [(a, b) for block in design.blocks for i, a in enumerate(block) for b in block[i + 1 :]]


def component_labels(design: Design) -> list[str]:
    """Labels in the order of `component_values`."""
    term = design.term
    sds = [f"sd({t})" for t in term]
    corrs = [f"corr({term[a]}, {term[b]})" for a, b in correlated_pairs(design)]
    return [*sds, *corrs, "sigma"]


def component_values(design: Design, D: FloatArray, sigma: FloatArray | float) -> FloatArray:
    """Standard deviations, correlations and σ from D (..., q, q) and σ (...): (..., n_components)."""
    sd = np.sqrt(np.diagonal(D, axis1=-2, axis2=-1))
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
