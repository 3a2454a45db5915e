"""The covariance parameters as one labelled list: ``sd(term)``, ``corr(term, term)``, ``sigma``.

Where groups have residual parameters of their own, ``sigma[group]`` of each of them, the first of which is ``sigma``.
A compound-symmetric D has one standard deviation and one correlation: ``sd(all random effects)``,
``corr(all random effects)``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.composed import in_group
from hierlmm.covariance.random import compound_symmetry_corr
from hierlmm.covariance.variance import sorted_levels
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.generalised_criterion import GeneralisedSolution
from hierlmm.results import NotedTable

__all__ = [
    "COMMON_CORR",
    "COMMON_SD",
    "FactorComponents",
    "component_frame",
    "component_labels",
    "component_values",
    "constant_terms",
    "corr_label",
    "correlated_pairs",
    "family_components",
    "group_sigma_draws",
    "group_sigmas",
    "sd_label",
    "zero_terms",
]


COMMON_SD, COMMON_CORR = "sd(all random effects)", "corr(all random effects)"


def correlated_pairs(design: Design) -> list[tuple[int, int]]:
    """Pairs of random effects (positions in ``term``) whose correlation is a parameter of its own."""
    if design.covariance == "compound_symmetry":
        return []
    return [(a, b) for block in design.blocks for i, a in enumerate(block) for b in block[i + 1 :]]


def sd_label(design: Design, k: int) -> str:
    """Under which label the standard deviation of a random effect is reported: its own, or one that it shares."""
    return _of_all(design, k, COMMON_SD) if design.covariance == "compound_symmetry" else f"sd({design.term[k]})"


def corr_label(design: Design, a: int, b: int) -> str:
    """Under which label the correlation of two random effects is reported: its own, or one that all share."""
    if design.covariance == "compound_symmetry":
        return _of_all(design, a, COMMON_CORR)
    return f"corr({design.term[a]}, {design.term[b]})"


def _of_all(design: Design, k: int, label: str) -> str:
    """A label of all random effects, of the group of one of them where D differs by group."""
    return f"{label[:-1]}[{design.group_levels[k // design.n_own]}])" if design.group else label


def component_labels(design: Design) -> list[str]:
    """Labels in the order of `component_values`."""
    term = design.term
    if design.covariance == "compound_symmetry":
        firsts = [part[0] for part in design.terms.by_subject.parts]
        return [*(sd_label(design, k) for k in firsts), *(corr_label(design, k, k) for k in firsts), "sigma"]
    sds = [f"sd({t})" for t in term]
    corrs = [f"corr({term[a]}, {term[b]})" for a, b in correlated_pairs(design)]
    return [*sds, *corrs, "sigma"]


def component_values(design: Design, D: FloatArray, sigma: FloatArray | float) -> FloatArray:
    """Standard deviations, correlations and σ from D (..., q, q) and σ (...): (..., n_components)."""
    sd = np.sqrt(np.diagonal(D, axis1=-2, axis2=-1))
    if design.covariance == "compound_symmetry":
        groups = [slice(part[0], part[-1] + 1) for part in design.terms.by_subject.parts]
        common = [compound_symmetry_corr(D[..., own, own]) for own in groups]
        sds = [sd[..., own.start] for own in groups]
        return np.stack([*sds, *common, np.broadcast_to(sigma, sd.shape[:-1])], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = [D[..., a, b] / (sd[..., a] * sd[..., b]) for a, b in correlated_pairs(design)]
    parts = [sd, *(np.clip(c, -1.0, 1.0)[..., None] for c in corr), np.asarray(sigma)[..., None]]
    return np.concatenate(parts, axis=-1)


def family_components(design: Design, at: GeneralisedSolution) -> dict[str, float]:
    """Standard deviations, correlations and dispersion of a generalised model by name, at a solution."""
    labels, values = component_labels(design)[:-1], component_values(design, at.D, 0.0)
    return dict(zip(labels, values[:-1], strict=True)) | design.family.natural(at.psi)


def group_sigmas(levels: Sequence[Any], ratios: Sequence[Any], sigma: Any) -> dict[str, Any]:
    """σ of every group with residual parameters of its own, by label.

    Parameters
    ----------
    levels : sequence
        The groups, in order.
    ratios : sequence
        Parameters of the variance function, numbers or arrays of draws: the first are ratios to the first group.
    sigma : float or array
        Of the first group.
    """
    others = [sigma * ratio for _, ratio in zip(levels[1:], ratios, strict=False)]
    return {in_group("sigma", level): own for level, own in zip(levels, [sigma, *others], strict=True)}


def group_sigma_draws(design: Design, posterior: Any) -> dict[str, FloatArray]:
    """Draws (chain, draw) of `group_sigmas`; none where the rows that name the groups are elsewhere."""
    if design.residual_group is None or "residual_variance" not in posterior:
        return {}
    try:
        levels = sorted_levels("group", design.frame[design.residual_group])
    except NotAvailableError:
        return {}
    ratios = posterior["residual_variance"].transpose("residual_variance_parameter", "chain", "draw").to_numpy()
    return group_sigmas(levels, ratios, posterior["sigma"].transpose("chain", "draw").to_numpy())


def component_frame(
    labels: list[str], estimate: FloatArray, se: FloatArray, lower: FloatArray, upper: FloatArray
) -> pd.DataFrame:
    """Table of covariance parameters, columns estimate, se, lower, upper."""
    index = pd.Index(labels, name="component")
    return pd.DataFrame({"estimate": estimate, "se": se, "lower": lower, "upper": upper}, index=index)


class FactorComponents(NotedTable):
    """Covariance parameters of several factors, whose correlations name their factor once in print."""

    @property
    def _told(self) -> NotedTable:
        short = [re.sub(r"^corr\((.+) \| (.+), (.+) \| \2\)$", r"corr(\1, \3 | \2)", str(k)) for k in self.index]
        return NotedTable(self.set_axis(pd.Index(short, name=self.index.name)))

    def __repr__(self) -> str:
        return repr(self._told)

    def _repr_html_(self) -> str:
        return self._told._repr_html_()


def constant_terms(fit: Any) -> set[str]:
    """Names of a subject's random effects whose estimated variance is zero, in every group where D differs by group."""
    zero, design = zero_terms(fit), fit.design
    return {name for r, name in enumerate(design.own_term) if all(t in zero for t in design.term[r :: design.n_own])}


def zero_terms(fit: Any) -> dict[str, float]:
    """Random effects whose estimated variance is zero but for rounding: term -> SD that would match the residual's.

    The optimiser leaves 1e-15 of the response's unit there, which an axis would blow up to the width of the figure.
    """
    if fit.has_draws or not fit.has_random_effects:
        return {}
    design = fit.design
    size = float(fit.sigma) if design.is_gaussian else design.family.scale(design.y)
    unit = size / np.sqrt(np.mean(design.Z**2, axis=0))
    sd = np.sqrt(np.diag(fit._D_values))
    return {t: float(u) for t, u, s in zip(design.term, unit, sd, strict=True) if s <= 1e-6 * u}
