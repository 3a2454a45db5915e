"""Predictive checks whose p-values mean what they say.

The usual posterior predictive p-value compares T(y) with replications from a posterior that has seen y. It is
conservative: the more the fit follows T, the closer to 0.5 it stays. What is calibrated is one posterior draw. If
(θ, y) come from prior and model and θ~ from the posterior given y, then (θ~, y) has the distribution of (θ, y)
(Johnson 2007). For every discrepancy D(y, θ), with y* from the model at θ~,

    p(θ~) = P(D(y*, θ~) ≤ D(y, θ~) | θ~),     z(θ~) = Φ⁻¹(p(θ~)) ~ N(0, 1)

which for fixed true parameters holds in large samples (sampled posterior p-value, Gosselin 2011). One draw is noisy,
so z is averaged over K draws. Their spread is known from the draws themselves, by the law of total variance: with
``ρ = Var(z | y)``, ``Var(z̄) = 1 - ρ + ρ/K``, and

    ``p = 2 Φ(-|z̄| / sqrt(1 - ρ + ρ/K))``

ρ, the share of the statistic's variation that the posterior follows, is reported as ``absorbed``. Where it is large,
1 - ρ is not known well enough, and one draw (K = 1) is used, which needs no ρ.

What is shown beside T(y) is what p compares it with: ``T(y) + D(y*, θ~) - D(y, θ~)``, in the place that it has on
average over the draws (or at the one), and as narrow as ``Φ(sqrt(1 - ρ + ρ/K) Φ⁻¹(u))`` makes its quantiles. So twice
the share beyond T(y) is p, at every level; of plain replications, wider by what the fit follows, it is not.

At the level of the same subjects θ includes b, and y* are new rows of them; otherwise y* are new subjects.
D(y, θ) = T(y), but at ``"mixed"``, where the replications depend on y, D(y, θ) = T(y) - mean T(y_rep) over some
replications, of y and of every y* alike.

The PIT values of the rows at θ~, u_ij = P(y_rep,ij ≤ y_ij | θ~), are uniform, but dependent within subjects, so that
bands for independent values do not hold. The band ±q s(t) for the curve ``F(t) - t``, F the share of values up to t,
s(t) its SD over simulated data sets and q a quantile of ``max_t |F(t) - t| / s(t)`` over them, contains the whole curve
of each draw with the stated probability. Their test is Neyman's smooth one, of all draws: with the Legendre polynomials
h_1, ..., h_4 on (0, 1), which stand for place, width, skewness and tails, and S their covariance over simulated data,

    ``c(θ~) = S^(-1/2) Σ_ij h(u_ij),    W = Cov(c(θ~) | y),    Var(c̄) = I - W + W/K,    c̄' Var(c̄)⁻¹ c̄ ~ χ²``

of the components whose W_kk, the share that the posterior absorbs, is at most 0.7: as a rule skewness and tails, since
every fit follows place and width. Where all are absorbed, one draw is used.

References
----------
Gosselin, F. (2011). A new calibrated Bayesian internal goodness-of-fit method: sampled posterior p-values as simple and
general p-values that allow double use of the data. PLoS ONE 6(3), e14770.

Johnson, V. E. (2007). Bayesian model assessment using pivotal quantities. Bayesian Analysis 2, 719-733.

Rayner, J. C. W., Best, D. J. (1990). Smooth tests of goodness of fit: an overview. International Statistical Review 58,
9-17 (components of which estimated parameters leave nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import chdtrc, eval_legendre, ndtr, ndtri

from hierlmm.arrays import BoolArray, FloatArray, IntArray, Rng
from hierlmm.bayes.family_replications import replicator_of
from hierlmm.bayes.replications import LEVELS
from hierlmm.diagnostics.statistics import Asked, Statistic, chosen, chosen_of_groups, column_of
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import check_counts, checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import probability_text, sayer, table_lines

SAY = sayer(__file__)
SEE = "docs, page 'Posterior fits', section 'Predictive checks'"
REFERENCES = {"subject": 200, "new_subject": 200, "mixed": 100}
"""Data sets simulated at each draw, unless these are too many values; at ``"mixed"`` each is replicated again."""
BUDGET = 60_000_000
"""Values simulated for one check."""
QUANTILES = 2000
"""Values by which a distribution is kept."""
MIXED = 3
"""Row-by-row replications of each data set."""
CURVES = 200
"""Data sets simulated at each draw for the PIT values."""
FOLLOWED = 0.7
"""Absorbed share beyond which one draw is used."""
COMPONENTS = 4
"""Polynomials of the test of PIT values: place, width, skewness, tails."""
LEAST = 0.1
"""What is left of a component's variance at least, as far as a few hundred draws tell."""
PIT_DRAWS = 600
"""Posterior draws of that test, unless these are too many values (`BUDGET` / 10)."""
GRID = np.linspace(0.02, 0.98, 49)


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck(Result):
    """Data beside what the model would produce.

    Attributes
    ----------
    level : {"subject", "new_subject", "mixed"}
        What was replicated.
    table : DataFrame by statistic, or by group and statistic
        ``observed``; ``mean``, ``lower`` and ``upper`` of ``compared``; ``absorbed``, the share of the statistic's
        variation that the fit follows; ``p``, two-sided and calibrated; ``verdict`` in words.
    compared : DataFrame
        2000 quantiles of the distribution that p compares each statistic with: p is twice the share beyond
        ``observed``. Narrower than that of replications by what the fit follows; at ``"mixed"``, where these depend on
        the data, about what the data would be.
    replicated : DataFrame
        The statistics of the replications, one row each.
    pit : DataFrame
        By ``t``: ``difference``, the share of the rows' PIT values up to t less t, averaged over the draws, and
        ``lower``, ``upper``, the simultaneous band for the curve of one draw.
    pit_p : float
        p-value of a smooth test of the PIT values, of all draws.
    ci : float
        Probability of the intervals and the band.
    draws : int
        Number of posterior draws.
    verdict : str
        All tests together (Holm).
    """

    level: str
    table: pd.DataFrame
    compared: pd.DataFrame
    replicated: pd.DataFrame
    pit: pd.DataFrame
    pit_p: float
    ci: float
    draws: int
    verdict: str

    def _page(self) -> Page:
        title = SAY("ppc.title", what=SAY(f"ppc.{self.level}"), draws=self.draws)
        shown = self.table.drop(columns="verdict").reset_index()
        lines = table_lines(shown, list(map(str, self.table.index.names)))
        words = ["", *self.table["verdict"]]
        printed = [f"{line}  {word}".rstrip() for line, word in zip(lines, words, strict=True)]
        table = Table(self.table, printed, f"Statistics of the data and of {SAY(f'ppc.{self.level}')}", index=True)
        return Page(title, ["", table, "", Paragraph(self.verdict), "", Paragraph(SAY("ppc.how", followed=FOLLOWED))])


def ppc(
    fit: PosteriorNumbers,
    level: str = "new_subject",
    statistics: Asked = None,
    by: str | None = None,
    draws: int = 100,
    ci: float = 0.95,
    seed: int | None = 0,
) -> PredictiveCheck:
    """Compare the data with replications; see `hierlmm.fit.posterior.PosteriorFit.ppc`."""
    found = check_statistics(fit, level, statistics, by, draws, ci, seed)
    (pit,) = pit_check(fit, level, [np.arange(fit.n_obs)], draws, ci, seed)
    used = len(fit.evenly_kept(draws))
    return PredictiveCheck(level, *found, pit.frame, pit.p, ci, used, _verdict(found.table, pit.p))


class StatisticsCheck(NamedTuple):
    """The parts of a `PredictiveCheck` that are of statistics."""

    table: pd.DataFrame
    compared: pd.DataFrame
    replicated: pd.DataFrame


def check_statistics(
    fit: PosteriorNumbers, level: str, statistics: Asked, by: str | None, draws: int, ci: float, seed: int | None
) -> StatisticsCheck:
    """Compare statistics of the data with those of replications."""
    choose("level", level, LEVELS, SEE)
    check_counts(draws=draws)
    known: Mapping[Any, Statistic]
    if by is None:
        known = chosen(fit.design, statistics)
        index = pd.Index(list(known), name="statistic")
    else:
        known = chosen_of_groups(fit.design, statistics, by)
        index = pd.MultiIndex.from_tuples(known, names=[column_of(fit.design, by), "statistic"])
    z, replicated, differences = simulated_statistics(fit, level, known, draws, np.random.default_rng(seed))
    observed = np.array([float(own(fit.design.y[None])[0]) for own in known.values()])
    score, absorbed = combined(z)
    p = 2.0 * ndtr(-np.abs(score))
    compared = observed + reference(differences, absorbed)
    tails = np.quantile(compared, [(1 - ci) / 2, (1 + ci) / 2], axis=0)
    columns = {"observed": observed, "mean": compared.mean(axis=0), "lower": tails[0], "upper": tails[1]}
    table = pd.DataFrame(columns, index=index).assign(absorbed=absorbed, p=p)
    table["verdict"] = [_in_words(*row) for row in zip(p, absorbed, score > 0.0, strict=True)]
    keep = np.linspace(0, len(replicated) - 1, min(QUANTILES, len(replicated))).astype(int)
    expected, kept = (pd.DataFrame(own, columns=table.index) for own in (compared, replicated[keep]))
    return StatisticsCheck(table, expected, kept)


def simulated_statistics(
    fit: PosteriorNumbers, level: str, known: Mapping[Any, Statistic], draws: int, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Z of the data at every draw (S, K), statistics of the replications (n, K), and D(y*) - D(y) (S, M, K)."""
    design, replicator = fit.design, replicator_of(fit.design)
    states = list(fit.parameter_draws(fit.evenly_kept(draws), b=level == "subject"))
    M = max(20, min(REFERENCES[level], BUDGET // (replicator.cost(level) * design.n_obs * len(states))))
    z, replicated = np.empty((len(states), len(known))), []
    differences = np.empty((len(states), M, len(known)))
    for s, state in enumerate(states):
        y = np.vstack([design.y[None], replicator.replicate(state, _source(level), rng, M)])
        values = _statistics(known, y)
        if level == "mixed":
            again = [_statistics(known, own) for own in replicator.again(state, y, rng, MIXED)]
            replicated += [own[:1] for own in again]
            values = values - np.mean(again, axis=0)
        else:
            replicated.append(values[1:])
        z[s], differences[s] = _scores(values, rng), values[1:] - values[0]
    return z, np.vstack(replicated), differences


class PITCheck(NamedTuple):
    """Curves of the draws (S, T); their mean and the band of one draw by t; the p-value of the smooth test."""

    curves: FloatArray
    frame: pd.DataFrame
    p: float


def pit_check(
    fit: PosteriorNumbers, level: str, groups: Sequence[IntArray], draws: int, ci: float, seed: int | None
) -> list[PITCheck]:
    """Check the PIT values of each group of rows."""
    rng, replicator, y = np.random.default_rng(seed), replicator_of(fit.design), fit.design.y[None]
    states = list(fit.parameter_draws(fit.evenly_kept(draws), b=level == "subject"))
    M = max(20, min(CURVES, BUDGET // (replicator.cost(level) * fit.n_obs * len(states))))
    curves: list[list[FloatArray]] = [[] for _ in groups]
    null: list[list[FloatArray]] = [[] for _ in groups]
    for state in states:
        u = replicator.pit(state, level, np.vstack([y, replicator.replicate(state, _source(level), rng, M)]), rng)
        for rows, curve, own in zip(groups, curves, null, strict=True):
            curve.append(pit_curves(u[:, rows]))
            own.append(components(u[1:, rows]))
    dear = max(10, replicator.cost(level))
    many = fit.evenly_kept(max(draws, min(PIT_DRAWS, BUDGET // (dear * fit.n_obs))))
    at = (replicator.pit(state, level, y, rng) for state in fit.parameter_draws(many, b=level == "subject"))
    found = np.stack([[components(u[:, rows])[0] for rows in groups] for u in at], axis=1)
    return [
        PITCheck(np.array(curve)[:, 0], curve_band(np.array(curve), ci), smooth_p(c, np.vstack(own)))
        for curve, c, own in zip(curves, found, null, strict=True)
    ]


def curve_band(curves: FloatArray, ci: float) -> pd.DataFrame:
    """``difference``, ``lower``, ``upper`` by t of curves (S, 1 + M, T): the data's first, then M simulated ones."""
    sd = np.sqrt(np.mean(curves[:, 1:] ** 2, axis=(0, 1)))  # their mean is zero
    largest = np.abs(curves[:, 1:] / np.where(sd > 0.0, sd, 1.0)).max(axis=2)
    half = np.quantile(largest, ci) * sd
    columns = {"difference": curves[:, 0].mean(axis=0), "lower": -half, "upper": half}
    return pd.DataFrame(columns, index=pd.Index(GRID, name="t"))


def components(u: FloatArray) -> FloatArray:
    """Legendre components of PIT values (n, N), orthonormal if these are independent and uniform: (n, 4)."""
    order = np.arange(1, COMPONENTS + 1)
    sums = [eval_legendre(k, 2.0 * u - 1.0).sum(axis=-1) for k in order]
    return np.stack(sums, axis=-1) * np.sqrt((2.0 * order + 1.0) / u.shape[-1])


def smooth_p(found: FloatArray, null: FloatArray | None = None) -> float:
    """p-value of the components of the draws (K, 4), given those of simulated data sets; independent without."""
    z = found
    if null is not None:
        z = np.linalg.solve(np.linalg.cholesky(null.T @ null / len(null)), found.T).T  # their mean is zero
    K = len(z)
    absorbed = np.cov(z.T) if K > 1 else np.zeros((COMPONENTS, COMPONENTS))
    left = np.diag(absorbed) <= FOLLOWED
    if not left.any():
        return float(chdtrc(COMPONENTS, np.sum(z[0] ** 2)))
    variance, axes = np.linalg.eigh((np.eye(COMPONENTS) - absorbed * (1.0 - 1.0 / K))[np.ix_(left, left)])
    squares = (z.mean(axis=0)[left] @ axes) ** 2 / np.maximum(variance, LEAST)
    return float(chdtrc(left.sum(), squares.sum()))


def _source(level: str) -> str:
    """Where the data sets come from that the data are compared with."""
    return "subject" if level == "subject" else "new_subject"


def _statistics(known: Mapping[Any, Statistic], y: FloatArray) -> FloatArray:
    return np.column_stack([own(y) for own in known.values()]) if known else np.empty((len(y), 0))


def _scores(values: FloatArray, rng: Rng) -> FloatArray:
    """Z of the first row's ranks among all rows, ties and the width of a step at random."""
    below = (values[1:] < values[0]).sum(axis=0)
    ties = (values[1:] == values[0]).sum(axis=0)
    return ndtri((below + rng.random(len(below)) * (ties + 1)) / len(values))


def pit_curves(u: FloatArray) -> FloatArray:
    """Share of PIT values (n, N) up to t, less t, on the grid: (n, T)."""
    width = len(GRID) + 1
    cell = np.searchsorted(GRID, u) + width * np.arange(len(u))[:, None]
    counts = np.bincount(cell.ravel(), minlength=width * len(u)).reshape(len(u), width)
    return np.cumsum(counts, axis=1)[:, :-1] / u.shape[1] - GRID


def combined(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard normal scores and absorbed shares from z of the draws (K, statistics)."""
    K = len(z)
    absorbed = np.clip(z.var(axis=0, ddof=1), 0.0, 1.0) if K > 1 else np.zeros(z.shape[1])
    mean = z.mean(axis=0) / np.sqrt(1.0 - absorbed + absorbed / K)
    return np.where(absorbed > FOLLOWED, z[0], mean), absorbed


def reference(differences: FloatArray, absorbed: FloatArray) -> FloatArray:
    """Quantiles (2000, statistics) of the D(y*) - D(y) that p looks at; ``differences`` by draw and data set."""
    S, _, K = differences.shape
    u, found = (np.arange(QUANTILES) + 0.5) / QUANTILES, np.empty((QUANTILES, K))
    for k, rho in enumerate(absorbed):
        own = differences[:1, :, k] if rho > FOLLOWED else differences[..., k]
        narrower = 1.0 if rho > FOLLOWED else np.sqrt(1.0 - rho + rho / S)
        place = own.mean(axis=1, keepdims=True)
        found[:, k] = place.mean() + np.quantile(own - place, ndtr(narrower * ndtri(u)))
    return found


def _in_words(p: float, absorbed: float, upper: bool) -> str:
    if p >= 0.05:
        return SAY("ppc.absorbed" if absorbed > FOLLOWED else "ppc.fits")
    return SAY(f"ppc.{'large' if upper else 'small'}{'_once' if absorbed > FOLLOWED else ''}")


def _verdict(table: pd.DataFrame, pit_p: float) -> str:
    p = np.append(table["p"].to_numpy(), pit_p)
    flagged = _holm(p)
    if not flagged.any():
        return SAY("ppc.good", p=p[:-1].min(initial=1.0), k=len(table), pit=pit_p)
    named = [
        SAY("ppc.row", name=_name(name, str(table.index.names[0])), direction=row["verdict"], p=_p(row["p"]))
        for (name, row), bad in zip(table.iterrows(), flagged[:-1], strict=True)
        if bad
    ]
    named += [SAY("ppc.pit", p=_p(pit_p))] if flagged[-1] else []
    return SAY("ppc.bad", named="; ".join(named), k=len(p))


def _name(key: Any, column: str) -> str:
    """A statistic, and of which group."""
    return key if isinstance(key, str) else f"{key[1]} of {column} {key[0]}"


def _p(p: float) -> str:
    text = probability_text(p)
    return text if text.startswith("<") else f"= {text}"


def _holm(p: FloatArray, alpha: float = 0.05) -> BoolArray:
    """Which tests are significant together, by Holm's step-down procedure."""
    order = np.argsort(p)
    passed = np.cumprod(p[order] <= alpha / np.arange(len(p), 0, -1)).astype(bool)
    found = np.zeros(len(p), dtype=bool)
    found[order] = passed
    return found
