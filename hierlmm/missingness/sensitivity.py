"""Treatment effects by visit if responses are not missing at random: delta-adjusted and reference-based.

By imputation: each completed data set is analysed by generalised least squares with the model's columns X_i and its
covariance V_i at the estimates,

    β̂ = H⁻¹ Σ_i X_i' V_i⁻¹ y_i,     Var(L β̂) = Σ_i w_i' C_i S C_i' w_i,     w_i = V_i⁻¹ X_i H⁻¹ L',

with C_i C_i' = V_i and S the covariance of the whitened residuals C_i⁻¹ (y_i - X_i β̂), which is near the identity and
common to subjects whose V_i differ by weights. Groups with covariances of their own have their own S, and the degrees
of freedom are then Welch's. Where all V_i are one, C_i S C_i' is the covariance of the residuals. The results are
pooled by Rubin's rules. Data completed by the conditional means at the estimates have the estimates as their own β̂ (a
fixed point of EM), so that imputation at random gives the estimate of the model but for its noise.
S is estimated anew from each data set: shifts make responses more variable.

By draws: for a draw of (β, θ) the effect is L β plus the mean shift of the arm's subjects against missing at random,

    shift_k = Σ_i w_i [E(y_ik | y_io, assumption) - E(y_ik | y_io, at random)]

with weights w drawn from a Dirichlet(1, ..., 1) distribution over the arm's subjects (the Bayesian bootstrap), because
who drops out is as uncertain as the rest. Nothing is imputed and nothing re-analysed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.effects.judge import BY_DEFAULT
from hierlmm.effects.means import Intervals, marginal_means
from hierlmm.errors import SpecificationError
from hierlmm.frames import apart
from hierlmm.missingness.impute import drawn, filled
from hierlmm.missingness.planned import SEE, Planned, estimates, parameter_draws, planned_of
from hierlmm.missingness.pool import rubin
from hierlmm.missingness.strategies import Assumption, conditional, strategy_named
from hierlmm.missingness.tables import counted
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import sayer

SAY = sayer(__file__)
Method = Literal["imputation", "draws"]
METHODS = ("imputation", "draws")
DRAWS = 1000
COLUMNS = ("estimate", "se", "df", "lower", "upper", "p", "prob_positive", "at_random", "mcse")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Result):
    """Differences from the reference arm by visit, under an assumption on what follows drop-out. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each visit and arm, a copy: ``estimate`` under the assumption, ``se``, ``df`` and ``p`` (by
        imputation) or ``prob_positive`` (by draws), ``lower``, ``upper``, and ``at_random``, the estimate of the same
        method if responses are missing at random; ``mcse`` is the Monte-Carlo error of ``estimate``.
    assumption : str
    method : {"imputation", "draws"}
    n : int
        Number of imputations, or of draws.
    ci : float
    reference : label
    """

    table: pd.DataFrame
    assumption: str
    method: str
    n: int
    ci: float
    reference: Any
    response: str

    def _page(self) -> Page:
        title = f"{self.response}: differences from {self.reference}, {self.assumption}"
        how = SAY(f"sensitivity.{self.method}", n=self.n, percent=100 * self.ci)
        return Page(title, ["", counted(self.table.reset_index(), title), "", Paragraph(how)])


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is looked at: L β by visit and arm.

    Attributes
    ----------
    planned : Planned
    L : (k, p)
        Rows of the differences from the reference arm.
    visit : (k,)
        Position of the visit of each row.
    arm : (k,)
        Position of its arm, 1 or more.
    """

    planned: Planned
    L: FloatArray
    visit: tuple[int, ...]
    arm: tuple[int, ...]

    @property
    def index(self) -> pd.MultiIndex:
        """Labels of the rows."""
        own = self.planned
        labels = [(own.visits.times[k], own.arms[a]) for k, a in zip(self.visit, self.arm, strict=True)]
        names = apart([own.visits.time, own.treatment], COLUMNS)
        return pd.MultiIndex.from_tuples(labels, names=list(names.values()))

    @cached_property
    def _roots(self) -> FloatArray:
        """C_i of every subject, (J, K, K): lower triangles with C_i C_i' = V_i at the estimates."""
        own = self.planned
        J, K = own.shape
        found = np.empty((J, K, K))
        for V, members in zip(own.covariances(estimates(own.fit), 0), own.kinds, strict=True):
            found[members] = np.linalg.cholesky(V)
        return found

    @cached_property
    def _whiten(self) -> FloatArray:
        """C_i⁻¹ of every subject, (J, K, K)."""
        return np.linalg.inv(self._roots)

    @cached_property
    def _solver(self) -> FloatArray:
        """The map from completed responses to coefficients, (p, J, K): H⁻¹ X_i' V_i⁻¹ with V_i at the estimates."""
        X = self.planned.X
        weighted = np.swapaxes(self._whiten, 1, 2) @ (self._whiten @ X)
        H = np.einsum("jka,jkb->ab", X, weighted)
        return np.einsum("ab,jkb->ajk", np.linalg.pinv(H, hermitian=True), weighted)

    @cached_property
    def _free(self) -> list[float]:
        """Degrees of freedom of S in each stratum: subjects less what the coefficients take up of them."""
        own = self.planned
        rank = max(int(np.linalg.matrix_rank(own.X[:, k])) for k in range(own.shape[1]))
        taken = np.einsum("jka,ajk->j", own.X, self._solver)
        taken = taken * (rank / taken.sum())
        return [float(len(members) - taken[members].sum()) for members in own.strata]

    def analyse(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Effects of completed data (n, J, K) and squared standard errors, (n, k) each; degrees of freedom (k,)."""
        X = self.planned.X
        weights = np.einsum("ra,ajk,jkl->rjl", self.L, self._solver, self._roots, optimize=True)
        own = y - self.planned.offset
        beta = np.einsum("ajk,njk->na", self._solver, own)
        rest = np.einsum("jkl,njl->njk", self._whiten, own - np.einsum("jka,na->njk", X, beta))
        parts = np.empty((len(self._free), len(y), len(self.L)))
        for g, (members, df) in enumerate(zip(self.planned.strata, self._free, strict=True)):
            S = np.einsum("njk,njl->nkl", rest[:, members], rest[:, members]) / df
            products = np.einsum("rjk,rjl->rkl", weights[:, members], weights[:, members])
            parts[g] = np.einsum("rkl,nkl->nr", products, S)
        variance = parts.sum(axis=0)
        shares = (parts / variance).mean(axis=1)
        return beta @ self.L.T, variance, 1.0 / (shares**2 / np.array(self._free)[:, None]).sum(axis=0)

    def arm_means(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Weighted means of values (J, K) over the subjects of an arm, less those of the reference arm, (k,)."""
        own = self.planned
        found = np.empty(len(self.visit))
        for row, (k, a) in enumerate(zip(self.visit, self.arm, strict=True)):
            parts = [np.average(values[own.arm == g, k], weights=weights[own.arm == g]) for g in (a, 0)]
            found[row] = parts[0] - parts[1]
        return found


def analysis_of(planned: Planned) -> Analysis:
    """Differences of the arms from the reference at every visit, as `fit.marginal_means` averages them."""
    labels = list(dict.fromkeys(planned.frame[planned.visit]))
    at = {planned.visit: labels} if planned.visit not in planned.design.levels.categories else None
    plain = Intervals(0.95, "none", simultaneous=False)
    means = marginal_means(planned.fit, planned.treatment, planned.visit, at, "equal", BY_DEFAULT, plain)
    keys = means.keys.reset_index(drop=True)
    rows, visit, arm = [], [], []
    for k, label in enumerate(labels):
        of = {a: keys.index[(keys[planned.visit] == label) & (keys[planned.treatment] == a)][0] for a in planned.arms}
        for number, a in enumerate(planned.arms[1:], 1):
            rows.append(means.L[of[a]] - means.L[of[planned.arms[0]]])
            visit.append(k)
            arm.append(number)
    return Analysis(planned, np.array(rows), tuple(visit), tuple(arm))


@checked
def delta_adjusted(
    fit: Any,
    delta: float | Mapping[Any, float],
    *,
    treatment: str,
    reference: Any = None,
    each_visit: bool = False,
    method: Method | None = None,
    n: int | None = None,
    ci: float = 0.95,
    time: str | None = None,
    data: Any = None,
    seed: int | None = 0,
) -> Sensitivity:
    """Treatment effects if responses after drop-out were higher by delta than missing at random says.

    Parameters
    ----------
    fit : LikelihoodFit or PosteriorFit
        Of a Gaussian model with the arms and the visits, such as an MMRM.
    delta : float or mapping of arm to float
        What is added at every visit after the last measurement: in all arms but the reference, or in those named.
    treatment, reference, each_visit, time, data, seed
        As in `impute`.
    method : {"imputation", "draws"}, optional
        Multiple imputation and Rubin's rules, the default of likelihood fits; or the effect as a function of draws of
        the parameters, the default of a posterior.
    n : int, optional
        Number of imputations (100 by default) or draws (1000).
    ci : float
        Probability of the intervals.

    Returns
    -------
    Sensitivity
    """
    planned = planned_of(fit, treatment, reference, time, data, caller="delta_adjusted")
    return _sensitivity(planned, Assumption("at random", delta, each_visit), method, n, ci, seed)


@checked
def reference_based(
    fit: Any,
    strategy: str,
    *,
    treatment: str,
    reference: Any = None,
    method: Method | None = None,
    n: int | None = None,
    ci: float = 0.95,
    time: str | None = None,
    data: Any = None,
    seed: int | None = 0,
) -> Sensitivity:
    """Treatment effects if those who drop out go on as the reference arm does.

    Parameters
    ----------
    fit, treatment, reference, time, data, seed, method, n, ci
        As in `delta_adjusted`.
    strategy : {"jump to reference", "copy increments", "copy reference"}
        Also ``"j2r"``, ``"cir"``, ``"cr"``: the mean of the reference arm from then on; its increments from where the
        subject's own arm was; or its mean all along.

    Returns
    -------
    Sensitivity
    """
    planned = planned_of(fit, treatment, reference, time, data, caller="reference_based")
    return _sensitivity(planned, Assumption(strategy_named(strategy)), method, n, ci, seed)


def method_of(fit: Any, method: Method | None, n: int | None) -> tuple[str, int]:
    """The method and its number of imputations or draws, with the defaults of the kind of fit."""
    chosen = method or ("draws" if fit.has_draws else "imputation")
    choose("method", chosen, METHODS)
    size = n if n is not None else 100 if chosen == "imputation" else DRAWS
    if size < 2:
        reason = "a standard error is a variance between imputations, or draws: two or more"
        raise SpecificationError(f"n={n}", reason, "use n=100 or more, or leave it out", SEE)
    return chosen, size


def _sensitivity(
    planned: Planned, assumption: Assumption, method: Method | None, n: int | None, ci: float, seed: int | None
) -> Sensitivity:
    chosen, size = method_of(planned.fit, method, n)
    analysis = analysis_of(planned)
    make = by_imputation if chosen == "imputation" else by_draws
    table = make(analysis, assumption, size, ci, seed)
    names = planned.arms[0], planned.visits.response
    return Sensitivity(table, assumption.text, chosen, size, ci, *names)


def by_imputation(analysis: Analysis, assumption: Assumption, n: int, ci: float, seed: int | None) -> pd.DataFrame:
    """Rubin's rules over completed data sets; the same draws without the assumption stand beside."""
    y, at_random = filled(analysis.planned, drawn(analysis.planned, n, seed), assumption, Assumption())
    table = told_by_imputation(analysis, y, ci)
    error = table.pop("mcse")
    return table.assign(at_random=analysis.analyse(at_random)[0].mean(axis=0), mcse=error)


def told_by_imputation(analysis: Analysis, y: FloatArray, ci: float) -> pd.DataFrame:
    """Rubin's rules over completed responses, (n, J, K)."""
    pooled = rubin(*analysis.analyse(y))
    low, high = pooled.interval(ci)
    columns = {"estimate": pooled.estimate, "se": pooled.se, "df": pooled.df, "lower": low, "upper": high}
    return pd.DataFrame(columns | {"p": pooled.p, "mcse": pooled.mcse}, index=analysis.index)


def by_draws(analysis: Analysis, assumption: Assumption, n: int, ci: float, seed: int | None) -> pd.DataFrame:
    """The effect as a function of draws of the parameters and of who drops out."""
    at_random, shift = effect_draws(analysis, assumption, n, seed)
    return told_by_draws(analysis, at_random, at_random + shift, ci)


def effect_draws(analysis: Analysis, assumption: Assumption, n: int, seed: int | None) -> tuple[FloatArray, FloatArray]:
    """Draws of the effects if missing at random, and of their shifts, (n, k) each."""
    planned, rng = analysis.planned, np.random.default_rng(seed)
    at = parameter_draws(planned.fit, n, rng)
    weights = rng.standard_exponential((n, planned.shape[0]))
    shift = np.empty((n, len(analysis.L)))
    moved = assumption.shifts(planned)
    for s in range(n):
        if assumption.strategy != "at random":
            assumed, at_random = conditional(planned, at, s, assumption, Assumption())
            moved = assumed - at_random
        shift[s] = analysis.arm_means(moved, weights[s])
    return at.beta @ analysis.L.T, shift


def told_by_draws(analysis: Analysis, at_random: FloatArray, effect: FloatArray, ci: float) -> pd.DataFrame:
    """Means, SDs and quantiles of draws of the effects."""
    low, high = np.quantile(effect, [0.5 - 0.5 * ci, 0.5 + 0.5 * ci], axis=0)
    columns = {"estimate": effect.mean(axis=0), "se": effect.std(axis=0, ddof=1), "lower": low, "upper": high}
    columns |= {"prob_positive": (effect > 0.0).mean(axis=0), "at_random": at_random.mean(axis=0)}
    columns["mcse"] = columns["se"] / np.sqrt(len(effect))
    return pd.DataFrame(columns, index=analysis.index)


def at_estimates(analysis: Analysis, assumption: Assumption) -> FloatArray:
    """Effects of the data completed by their conditional means at the estimates, (k,): no noise of imputation."""
    y = conditional(analysis.planned, estimates(analysis.planned.fit), 0, assumption)
    return analysis.analyse(y)[0][0]
