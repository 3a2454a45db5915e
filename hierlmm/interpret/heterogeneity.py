"""How much subjects differ in a coefficient: reference range, share above a value, a new subject.

With β_ki ~ N(m, s²), m = l_k(w)'β and s² = D_kk, a share γ of the subjects with level-2 covariates w has
coefficients in ``m ± z_γ s``, and ``Φ((m - c)/s)`` of them lie above c. Both are functions of the parameters.

Posterior: of every draw; mean and quantiles. Likelihood: at the estimates, with intervals from the large-sample
distribution m ~ N(m̂, se²), log s ~ N(log ŝ, Var log ŝ), β̂ and θ̂ being asymptotically independent (of a model with a
family, on the scale of the link, jointly normal: m̂ and se are then those given s): s stays positive and the share
between 0 and 1. Quantiles of ``m ± z s`` and ``(m - c)/s`` are found from their distribution functions,

    P(m + a s <= x) = E_s Φ((x - a s - m̂)/se),        P((m - c)/s <= x) = E_s Φ((x s + c - m̂)/se).

The predictive interval of one new subject answers another question, and is wider: it carries the uncertainty of m and
s. It holds quantiles of the mixture of N(m, s²) over draws, or over the large-sample distribution. Nothing is
simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.design.telling import scale_text
from hierlmm.drawing.figure import as_verb
from hierlmm.drawing.heterogeneity import plot_heterogeneity
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import sd_label, zero_terms
from hierlmm.fits.covariance_table import on_boundary
from hierlmm.interpret import coefficients
from hierlmm.interpret.grammar import render
from hierlmm.interpret.kinds import Kind, kind_of
from hierlmm.likelihood.quantiles import mixture_quantile
from hierlmm.likelihood.wald import BY_DEFAULT, Asked
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import listed, probability_text, table_lines

SEE = "docs, page 'In words'"
SHARE = ("share", "share_lower", "share_upper")
NODES = 2000
"""Points of equal probability that stand for the distribution of log s."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Heterogeneity(Result):
    """How much subjects differ in their level-1 coefficients (made by ``fit.heterogeneity()``). Frozen.

    Attributes
    ----------
    estimator : str
    ci, coverage, above : float
        Probability of the intervals; share of subjects in the range; the value that ``share`` counts from.
    notes : tuple of str
        How the numbers were made, and what must be known about them.
    scale : str
        `` (logit scale)`` where coefficients are on that of a link, else empty.
    table : DataFrame
        One row for each coefficient and group of subjects, a copy. ``term``, ``group``; ``mean`` of the coefficients
        and ``sd`` between subjects; ``low`` and ``high``, the range that holds the share ``coverage`` of the subjects;
        ``share`` of the subjects above ``above``; each with the ends of its interval (``..._lower``, ``..._upper``);
        ``new_low``, ``new_high``: predictive interval of one new subject, of probability ``coverage``. In the
        coefficient's unit, the share between 0 and 1.
    factor : str
        Whose groups differ, of several grouping factors; empty where subjects do.
    """

    estimator: str
    ci: float
    coverage: float
    above: float
    notes: tuple[str, ...]
    scale: str
    table: pd.DataFrame
    factor: str = ""

    plot = as_verb(plot_heterogeneity, name="plot")

    def _page(self) -> Page:
        table = self.table
        shown = table[["term", "group", "mean", "sd", "low", "high", *SHARE, "new_low", "new_high"]]
        shown = shown.drop(columns="group") if (table["group"] == "").all() else shown
        printed = table_lines(shown, [c for c in ("term", "group") if c in shown])
        shares = dict.fromkeys(SHARE, probability_text)
        who = f"groups of {self.factor}" if self.factor else "subjects"
        body = Table(shown, printed, f"Range and share of the {who}", formatters=shares)
        return Page(f"How much {who} differ ({self.estimator})", ["", body, "", *self.notes])


def heterogeneity(
    fit: Fit,
    term: str | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    ci: float = 0.95,
    coverage: float = 0.95,
    above: float = 0.0,
    how: Asked = BY_DEFAULT,
    factor: str | None = None,
) -> Heterogeneity:
    """Describe the distribution of the subjects' coefficients; see `hierlmm.fits.base.Fit.heterogeneity`."""
    if not 0.0 < coverage < 1.0:
        reason, remedy = "it is a probability between 0 and 1", "use coverage=0.95"
        raise SpecificationError(f"coverage={coverage!r}", reason, remedy, SEE)
    if isinstance(above, bool) or not isinstance(above, (int, float, np.number)) or not np.isfinite(above):
        raise SpecificationError(f"above={above!r}", "a share needs a finite value to count from", "use above=0", SEE)
    coefficients.need_effects(fit, "heterogeneity")
    kind = kind_of(fit, factor)
    design = kind.design
    positions = [int(k) for k in design.own_level1]
    if term is not None:
        k = coefficients.position_of(design, term, what="heterogeneity")
        if k not in positions:
            reason = (
                f"this coefficient does not vary between {kind.who} beyond what level 2 explains: the model gives it"
            )
            names = ", ".join(map(repr, design.own_term))
            remedy = f"add it to the random effects, or use one of {names}; for group means of it use fit.slopes(...)"
            raise SpecificationError(f"term={term!r}", f"{reason} no SD", remedy, SEE)
        positions = [k]
    at = {v if v in design.frame.columns else coefficients.unticked(str(v)): x for v, x in (at or {}).items()}
    coefficients.check_at(design, positions, {v: x for v, x in at.items() if v != design.group})
    parts = [_of_coefficient(fit, kind, k, at, ci, coverage, above, how) for k in positions]
    table = pd.concat(parts, ignore_index=True)
    numbers = fit.estimator, ci, float(coverage), float(above)
    notes = _notes(fit, kind, table, ci, coverage, above)
    return Heterogeneity(*numbers, notes, scale_text(design), table, kind.factor)


def _of_coefficient(
    fit: Fit, kind: Kind, k: int, at: Mapping[str, Any], ci: float, coverage: float, above: float, how: Asked
) -> pd.DataFrame:
    design = kind.design
    own = {v: x for v, x in at.items() if v in coefficients.level2_variables(design, k)}
    keys, L, mean, level = coefficients.rows_by_group(design, k, own, at.get(design.group))
    groups = [coefficients.group_text(dict(row), mean) for row in keys.to_dict("records")]
    first = list(design.own_level1).index(k)
    compute = _by_draws if fit.has_draws else _by_likelihood
    found = []
    for g in np.unique(level):
        rows = np.flatnonzero(level == g)
        columns = compute(fit, kind.places(first)[g], L[rows], ci, coverage, above, how)
        names = [groups[row] for row in rows]
        found.append(pd.DataFrame({"term": design.level1[k], "group": names, **columns}, index=rows))
    return pd.concat(found).sort_index()


def _by_draws(
    fit: Any, r: int, L: FloatArray, ci: float, coverage: float, above: float, how: Asked
) -> dict[str, FloatArray]:
    beta = fit.draws("beta")
    m = beta.reshape(-1, beta.shape[-1]) @ L.T
    s = np.abs(fit.draws("sd_b")[..., r].reshape(-1, 1))
    z = float(norm.ppf(0.5 + coverage / 2.0))
    share = above_share(m, s, above)
    columns: dict[str, FloatArray] = {}
    for name, values in {"mean": m, "sd": s + 0.0 * m, "low": m - z * s, "high": m + z * s, "share": share}.items():
        lower, upper = np.quantile(values, coefficients.tails(ci), axis=0)
        columns |= {name: values.mean(axis=0), f"{name}_lower": lower, f"{name}_upper": upper}
    for name, p in zip(("new_low", "new_high"), coefficients.tails(coverage), strict=True):
        columns[name] = np.array([mixture_quantile(m[:, g], s[:, 0], p) for g in range(len(L))])
    return columns


def _by_likelihood(
    fit: Any, r: int, L: FloatArray, ci: float, coverage: float, above: float, how: Asked
) -> dict[str, FloatArray]:
    average = coefficients.judged(fit, L, ci, how)
    m, se = average.estimate, average.se
    zc = float(norm.ppf(0.5 + coverage / 2.0))
    zero = fit.design.term[r] in zero_terms(fit)
    s = 0.0 if zero else float(np.sqrt(fit._D_values[r, r]))
    se_log, together = np.nan, np.zeros(len(m))
    if not zero and fit.design.term[r] not in bounded_terms(fit):
        se_log, together = _log_sd(fit, r, L)
    u = norm.ppf((np.arange(NODES) + 0.5) / NODES)
    values = s * np.exp(se_log * u)
    given = m + np.multiply.outer(u, together), np.sqrt(np.maximum(se**2 - together**2, 0.0))  # mean and se given s
    sides = tuple(zip(("lower", "upper"), coefficients.tails(ci), strict=True))
    z, k = float(norm.ppf(coefficients.tails(ci)[1])), len(m)
    spread = [np.full(NODES, own) for own in given[1]]
    columns = {"mean": m, "mean_lower": average.lower, "mean_upper": average.upper, "sd": np.full(k, s)}
    columns |= {f"sd_{side}": np.full(k, s * np.exp(sign * z * se_log)) for side, sign in (("lower", -1), ("upper", 1))}
    for name, sign in (("low", -1.0), ("high", 1.0)):
        columns[name] = m + sign * zc * s
        for side, p in sides:
            ends = [mixture_quantile(given[0][:, g] + sign * zc * values, spread[g], p) for g in range(k)]
            columns[f"{name}_{side}"] = np.array(ends)
    columns["share"] = above_share(m, np.full(k, s), above)
    for side, p in sides:
        ends = [mixture_quantile((given[0][:, g] - above) / values, given[1][g] / values, p) for g in range(k)]
        columns[f"share_{side}"] = np.asarray(norm.cdf(ends))
    for name, p in zip(("new_low", "new_high"), coefficients.tails(coverage), strict=True):
        spread = [np.sqrt(given[1][g] ** 2 + values**2) for g in range(k)]
        columns[name] = np.array([mixture_quantile(given[0][:, g], spread[g], p) for g in range(k)])
    return columns


def above_share(m: FloatArray, s: FloatArray, above: float) -> FloatArray:
    """Share of N(m, s²) above a value; with s = 0 all or nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (m - above) / s
    return np.where(s > 0.0, norm.cdf(u), (m > above).astype(np.float64))


def _log_sd(fit: Any, r: int, L: FloatArray) -> tuple[float, FloatArray]:
    """Standard error of log sd_b, and covariances of ``L β`` with it over that standard error; NaN if there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if fit.design.is_gaussian:
            se = fit.large_sample.standard_errors(lambda D, sigma: np.atleast_1d(0.5 * np.log(D[r, r])))[1]
            return float(se[0]), np.zeros(len(L))

        def values(parameters: FloatArray) -> FloatArray:
            at = fit.record.at(parameters)
            return np.append(L @ at.beta, 0.5 * np.log(at.D[r, r]))

        last = fit.record.delta(values)[1][-1]
        return float(np.sqrt(last[-1])), last[:-1] / np.sqrt(last[-1])


def bounded_terms(fit: Any) -> tuple[str, ...]:
    """Random effects whose part of D is singular: their SDs have no large-sample distribution."""
    if fit.has_draws or not fit.is_singular:
        return ()
    term = fit.design.term
    labels = [sd_label(fit.design, k) for k in range(len(term))]
    return tuple(t for t, held in zip(term, on_boundary(fit, labels), strict=True) if held)


def _notes(fit: Fit, kind: Kind, table: pd.DataFrame, ci: float, coverage: float, above: float) -> tuple[str, ...]:
    method = "posterior" if fit.has_draws else "large-sample distribution of mean and log sd"
    z, percent = f"{norm.ppf(0.5 + coverage / 2.0):z.2f}", f"{100 * coverage:g}"
    shown = {"coverage": percent, "z": z, "above": f"{above:g}", "ci": f"{100 * ci:g}", "kind": method}
    notes = [render("heterogeneity.range", one=kind.one, **shown)]
    notes.append(render("heterogeneity.new", coverage=percent, one=kind.one))
    design, terms, zero = kind.design, list(dict.fromkeys(table["term"])), zero_terms(fit)
    where = f"for each {design.group}" if design.group else "in all groups"
    if kind.factor:
        others = [own.columns.group for own in fit.design.random if own.columns.group != kind.factor]
        notes.append(render("heterogeneity.factor", factor=kind.factor, others=listed(others)))
    else:
        notes.append(render("heterogeneity.normal", where=where))
    if not design.is_gaussian:
        notes.append(coefficients.link_note(design))
    if "(the mean)" in " ".join(table["group"]):
        notes.append(render("heterogeneity.means", one=kind.one))
    spread = [fit.design.term[at] for t in terms for at in kind.places(design.own_term.index(t))]
    notes += [
        render("heterogeneity.zero_groups" if kind.factor else "heterogeneity.zero", term=t)
        for t in spread
        if t in zero
    ]
    free = [t for t in terms if not np.any(design.coef_level1 == design.level1.index(t))]
    notes += [render("heterogeneity.deviations", term=t) for t in free]
    bounded = [t for t in spread if t in bounded_terms(fit) and t not in zero]
    if bounded:
        notes.append(render("heterogeneity.bounded", terms=", ".join(bounded), one=kind.one))
    return tuple(notes)
