"""Hierarchies of groups, compared: ratios of standard deviations, differences of correlations.

Of two groups g and h with covariances D_g and D_h: for every random effect ``s_g / s_h``, and for every correlation
that is a parameter ``r_g - r_h``. Posterior: medians and quantiles of the draws, and the share of draws in which the
first is larger. Likelihood: at the estimates, with the delta method for ``log s_g - log s_h`` and ``r_g - r_h``,

    ratio in  exp(log ŝ_g - log ŝ_h ± z se),        p = 2 Φ(-|log ŝ_g - log ŝ_h| / se),

where both D are inside the parameter space; on its boundary there is no large-sample distribution, and no interval.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.components import COMMON_CORR, zero_terms
from hierlmm.frames import quote, shorten
from hierlmm.interpret.coefficients import need_effects, tails
from hierlmm.interpret.grammar import render
from hierlmm.interpret.heterogeneity import bounded_terms
from hierlmm.options import check_ci, checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import table_lines

SEE = "docs, page 'Different hierarchies by group'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class GroupComparison(Result):
    """Standard deviations and correlations of groups, compared (made by ``fit.compare_groups()``). Frozen.

    Attributes
    ----------
    estimator : str
    group : str
        The factor by which D differs.
    ci : float
        Probability of the intervals.
    notes : tuple of str
        How the numbers were made, and what must be known about them.
    table : DataFrame
        One row for each quantity and pair of groups: ``quantity`` (``sd(time)``, ``corr(Intercept, time)``),
        ``comparison`` (``Male / Female``, ``Male - Female``), ``first`` and ``second`` (its value in either group),
        ``estimate`` (the ratio of standard deviations, or the difference of correlations), ``lower``, ``upper``; and
        ``probability`` that the first is larger (posterior) or ``p`` of no difference (likelihood).
    """

    estimator: str
    group: str
    ci: float
    notes: tuple[str, ...]
    table: pd.DataFrame

    def _page(self) -> Page:
        printed = table_lines(self.table, ["quantity", "comparison"])
        body = Table(self.table, printed, "Ratios of standard deviations, differences of correlations")
        return Page(f"Hierarchies by {self.group}, compared ({self.estimator})", ["", body, "", *self.notes])


def compare_groups(fit: Fit, reference: Any = None, *, ci: float = 0.95) -> GroupComparison:
    """Compare the groups' standard deviations and correlations; see ``fit.compare_groups``."""
    need_effects(fit, "compare_groups")
    check_ci(ci)
    design = fit.design
    if not design.group:
        reason = "one D holds for all subjects, so there are no hierarchies to compare"
        remedy = "fit one for each level of a factor: hl.TwoLevelModel(..., group='sex')"
        raise NotAvailableError("compare_groups of a fit with one D", reason, remedy, SEE)
    pairs = _pairs(design, reference)
    names, of_group = _quantities(design)
    found = (_by_draws if fit.has_draws else _by_likelihood)(fit, pairs, of_group, ci)
    levels = [str(level) for level in design.group_levels]
    rows = [
        {"quantity": name, "comparison": f"{levels[g]} {'/' if name.startswith('sd') else '-'} {levels[h]}"}
        for g, h in pairs
        for name in names
    ]
    return GroupComparison(fit.estimator, design.group, ci, _notes(fit, ci), pd.DataFrame(rows).join(found))


def _pairs(design: Design, reference: Any) -> list[tuple[int, int]]:
    """Positions of the levels compared: every later one with every earlier one, or all with one."""
    levels = list(design.group_levels)
    if reference is None:
        return [(h, g) for g, h in itertools.combinations(range(len(levels)), 2)]
    if reference not in levels:
        reason = f"{design.group!r} has no such level.{closest(str(reference), map(str, levels))}"
        remedy = f"use {shorten(map(quote, levels))}"
        raise SpecificationError(f"reference={quote(reference)}", reason, remedy, SEE)
    at = levels.index(reference)
    return [(g, at) for g in range(len(levels)) if g != at]


def _quantities(design: Design) -> tuple[list[str], Any]:
    """Names of what is compared, and a function from D (..., q·G, q·G) to log SDs and correlations (..., G, m)."""
    q, n, pairs = design.n_own, _n_sd(design), _correlated(design)
    term = ("all random effects",) if design.covariance in SPECTRAL else design.own_term
    corr = [f"corr({term[a]}, {term[b]})" for a, b in pairs] if len(term) == q else [COMMON_CORR] * len(pairs)
    names = [*(f"sd({t})" for t in term), *corr]

    def values(D: FloatArray) -> FloatArray:
        groups = []
        for part in design.terms.by_subject.parts:
            own = D[..., part[0] : part[0] + q, part[0] : part[0] + q]
            sd = np.sqrt(np.diagonal(own, axis1=-2, axis2=-1))
            with np.errstate(divide="ignore", invalid="ignore"):
                corr = [(own[..., a, b] / (sd[..., a] * sd[..., b]))[..., None] for a, b in pairs]
                groups.append(np.concatenate([np.log(sd[..., :n]), *corr], axis=-1))
        return np.stack(groups, axis=-2)

    return names, values


def _correlated(design: Design) -> list[tuple[int, int]]:
    """Pairs of a subject's random effects that correlate."""
    blocks = [block for block in design.blocks if max(block) < design.n_own]
    pairs = [pair for block in blocks for pair in itertools.combinations(block, 2)]
    return pairs[:1] if design.covariance in SPECTRAL else pairs  # one in common


def _n_sd(design: Design) -> int:
    """Number of standard deviations of a group."""
    return 1 if design.covariance in SPECTRAL else design.n_own


def _told(values: FloatArray, q: int) -> FloatArray:
    """Logarithms of SDs as SDs, or of their ratios as ratios; what follows the first q is let be."""
    return np.where(np.arange(values.shape[-1]) < q, np.exp(values), values)


def _by_draws(fit: Any, pairs: list[tuple[int, int]], of_group: Any, ci: float) -> pd.DataFrame:
    D, q = fit.draws("D"), _n_sd(fit.design)
    groups = of_group(D.reshape(-1, *D.shape[2:]))
    parts = []
    for g, h in pairs:
        difference = groups[:, g] - groups[:, h]
        medians = [np.median(_told(values, q), axis=0) for values in (groups[:, g], groups[:, h], difference)]
        lower, upper = _told(np.quantile(difference, tails(ci), axis=0), q)
        columns = dict(zip(("first", "second", "estimate"), medians, strict=True))
        columns |= {"lower": lower, "upper": upper, "probability": np.mean(difference > 0.0, axis=0)}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _by_likelihood(fit: Any, pairs: list[tuple[int, int]], of_group: Any, ci: float) -> pd.DataFrame:
    q, z = _n_sd(fit.design), float(norm.ppf(0.5 + ci / 2.0))
    groups = of_group(fit.D.to_numpy())
    held = _unknown(fit)

    def differences(D: FloatArray) -> FloatArray:
        values = of_group(D)
        return np.concatenate([values[g] - values[h] for g, h in pairs])

    with np.errstate(divide="ignore", invalid="ignore"):
        if fit.design.is_gaussian:
            se = fit.large_sample.standard_errors(lambda D, _: differences(D))[1]
        else:
            covariance = fit.record.delta(lambda p: differences(fit.record.at(p).D))[1]
            se = np.sqrt(np.diag(covariance))
        parts = []
        for k, (g, h) in enumerate(pairs):
            m = groups.shape[1]
            estimate, own = groups[g] - groups[h], se[k * m : (k + 1) * m]
            own = np.where(held[g] | held[h], np.nan, own)
            columns = {"first": _told(groups[g], q), "second": _told(groups[h], q), "estimate": _told(estimate, q)}
            columns |= {"lower": _told(estimate - z * own, q), "upper": _told(estimate + z * own, q)}
            parts.append(pd.DataFrame(columns | {"p": 2.0 * norm.sf(np.abs(estimate) / own)}))
    return pd.concat(parts, ignore_index=True)


def _unknown(fit: Any) -> BoolArray:
    """What has no large-sample distribution, since its part of D has no full rank: (G, m) as the quantities."""
    design, without = fit.design, {*bounded_terms(fit), *zero_terms(fit)}
    held = np.array([name in without for name in design.term]).reshape(-1, design.n_own)
    pairs = [held[:, a] | held[:, b] for a, b in _correlated(design)]
    return np.column_stack([held[:, :1] if design.covariance in SPECTRAL else held, *pairs])


def _notes(fit: Fit, ci: float) -> tuple[str, ...]:
    kind = "posterior" if fit.has_draws else "likelihood"
    notes = [render(f"groups.{kind}", ci=f"{100 * ci:g}")]
    if _correlated(fit.design):
        notes.append(render("groups.origin"))
    if not fit.has_draws and np.any(held := _unknown(fit)):
        levels = [str(level) for level, own in zip(fit.design.group_levels, held, strict=True) if np.any(own)]
        notes.append(render("groups.boundary", levels=shorten(levels)))
    return tuple(notes)
