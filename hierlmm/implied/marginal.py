"""What a fit says about the measurements of one subject: ``V = Z D Z' + Σ`` at chosen times.

A random intercept implies equal correlations at all lags; a random slope a variance that changes with time and
correlations that depend on where one stands; a serial residual correlations that fade. All of them, and marginal models
and GEE beside them, are statements about the same matrix V: its diagonal is the variance function, and
``V_jk / √(V_jj V_kk)`` the correlation.

Bands are equal-tailed quantiles of V over draws of the covariance parameters: of the posterior, or, for REML and ML, of
the normal approximation on the unconstrained scale (an approximation, and none at all for directions that a boundary
optimum holds at zero).

The empirical variance at a time is the mean of ``r² + x'Cov(β̂)x`` over the rows there, r being residuals around the
population line: unbiased for V_jj if V is right, since ``Var(r) = V_jj - x'Cov(β̂)x`` for generalised least squares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.drawing import implied
from hierlmm.drawing.figure import as_verb
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.implied.covariance import covariance_at, covariance_draws, describe_covariance
from hierlmm.implied.grid import MOST_TIMES, SEE, Grid, check_request, make_grid
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table


def _pictured_by(pictures: ImpliedPictures) -> Mapping[str, ImpliedMarginal]:
    return pictures._pictured()


SHOWN = 12
"""Times of which every correlation is printed; of more, eight."""


@checked
class ImpliedPictures(Result):
    """Pictures of the marginal covariances that one or several fits imply."""

    @abstractmethod
    def _pictured(self) -> Mapping[str, ImpliedMarginal]:
        """Label -> what is drawn."""

    plot_heatmap = as_verb(implied.plot_heatmap, chosen=_pictured_by)
    plot_correlation = as_verb(implied.plot_correlation, chosen=_pictured_by)
    plot_variance = as_verb(implied.plot_variance, chosen=_pictured_by)


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ImpliedMarginal(ImpliedPictures):
    """The covariance of one subject's measurements at chosen times, as a fit implies it.

    Attributes
    ----------
    label : str
        The covariance model in words.
    estimator, response, time : str
    at : dict
        Values of the other columns that V depends on.
    ci : float
        Probability of the bands.
    x : (n,)
        Times as numbers (occasions without numbers: 0, 1, ...).
    V, correlation : DataFrame, time × time
        At the estimates; of a posterior the posterior means.
    V_lower, V_upper, correlation_lower, correlation_upper : DataFrame or None
        Pointwise bands; None where the fit has no distribution of its covariance parameters (GEE).
    variance : DataFrame by time
        ``variance``, with ``lower`` and ``upper``, and its parts ``between`` (Z D Z') and ``within`` (Σ) subjects, NaN
        for GEE, which does not divide it.
    draws : (S, n, n) or None
        Draws of V, read-only.
    empirical : DataFrame or None
        ``time``, ``n`` and ``variance``: what the residuals around the population line have at the times in the data.
    empirical_correlation : DataFrame or None
        ``time``, ``time_bis``, ``lag``, ``n`` and ``correlation`` of the pairs of times in the data.
    note : str
        What the bands are.
    """

    label: str
    estimator: str
    response: str
    time: str
    at: dict[str, Any]
    ci: float
    x: FloatArray
    V: pd.DataFrame
    correlation: pd.DataFrame
    V_lower: pd.DataFrame | None
    V_upper: pd.DataFrame | None
    correlation_lower: pd.DataFrame | None
    correlation_upper: pd.DataFrame | None
    variance: pd.DataFrame
    draws: FloatArray | None
    empirical: pd.DataFrame | None
    empirical_correlation: pd.DataFrame | None
    note: str

    _whose = "one subject's"

    @property
    def _where(self) -> str:
        """Where the pictures stand, for their titles."""
        return "".join(f", {k} = {value_text(v)}" for k, v in self.at.items() if not isinstance(v, list))

    @property
    def stationary(self) -> bool:
        """Whether pairs of times at the same lag have the same correlation (False where no lag occurs twice)."""
        pairs = self.pairs()
        by_lag = pairs.groupby(np.round(pairs["lag"], 9))["correlation"]
        return bool((by_lag.size() > 1).any() and (by_lag.max() - by_lag.min()).max() < 1e-8)

    def pairs(self) -> pd.DataFrame:
        """Every pair of times, the earlier first: both times, ``lag``, ``correlation``, ``lower``, ``upper``."""
        a, b = np.triu_indices(len(self.x), 1)
        times = self.V.index
        found = {self.time: times[a], f"{self.time}_bis": times[b], "lag": self.x[b] - self.x[a]}
        table = pd.DataFrame({**found, "correlation": self.correlation.to_numpy()[a, b]})
        for name, band in (("lower", self.correlation_lower), ("upper", self.correlation_upper)):
            table[name] = np.nan if band is None else band.to_numpy()[a, b]
        return table

    @property
    def table(self) -> pd.DataFrame:
        """`variance`."""
        return self.variance

    def _pictured(self) -> Mapping[str, ImpliedMarginal]:
        return {self.label: self}

    def _page(self) -> Page:
        where = "".join(f", {k} = {value_text(v)}" for k, v in self.at.items())
        who = f"implied by {self.label} ({self.estimator}){where}"
        n = len(self.x)
        some = np.arange(n) if n <= SHOWN else np.unique(np.linspace(0, n - 1, 8).round().astype(np.intp))
        shown = self.correlation.iloc[some, some].to_string(float_format=lambda v: f"{v:z.3f}")
        heading = "Correlation" + ("" if n <= SHOWN else f" (at {len(some)} of {n} times)")
        variance = self.variance.dropna(axis=1, how="all")
        few = self.variance.iloc[some].dropna(axis=1, how="all").to_string(float_format=lambda v: f"{v:.4g}")
        tables = [
            Table(self.correlation, [heading, shown], "Correlation", index=True, number="z.3f"),
            Table(variance, ["Variance", few], "Variance", index=True),
        ]
        return Page(f"Marginal covariance of one subject's {self.response} {who}", [*tables, Paragraph(self.note, 110)])


@checked
def implied_marginal(
    fit: Fit,
    times: Any = None,
    *,
    at: Any = None,
    time: str | None = None,
    ci: float = 0.95,
    draws: int | None = None,
    seed: int | None = 0,
    label: str | None = None,
) -> ImpliedMarginal:
    """Evaluate ``V = Z D Z' + Σ`` of one subject at chosen times, with bands.

    Parameters
    ----------
    fit : Fit
    times : sequence, optional
        Values of the time variable. By default those in the data, or 25 equally spaced ones where there are more.
    at : mapping, optional
        Other columns that V depends on (a group with its own residual variance, another covariate with a random slope)
        -> one value, or one for each time. Columns that are constant in the data, or functions of time that are known
        at these times, need not be given.
    time : str, optional
        The time variable; by default the level-1 variable, else the one of the residual structure, else the rows.
    ci : float
        Probability of the bands.
    draws : int, optional
        Draws behind the bands; 1000 for REML and ML, and at most 2000 of a posterior's. 0 leaves the bands out.
    seed : int, optional
        Of the draws for REML and ML.
    label : str, optional
        Name in plots; the covariance model in words otherwise.

    Returns
    -------
    ImpliedMarginal

    Raises
    ------
    SpecificationError, DataError, NotAvailableError
        If a value that V depends on is not given, or V does not exist at these times.
    """
    check_request(fit, at, draws)
    grid = make_grid(fit, times, dict(at or {}), time)
    V = covariance_at(fit, grid)
    R = _correlation(V)
    sampled, note = covariance_draws(fit, grid, ci, draws, seed)
    bands: list[Any] = [None] * 4
    if sampled is not None:
        correlations = _correlation(sampled)
        tail = 0.5 * (1.0 - ci)
        bands = [b for values in (sampled, correlations) for b in np.quantile(values, [tail, 1.0 - tail], axis=0)]
        if fit.has_draws:
            V, R = sampled.mean(axis=0), correlations.mean(axis=0)
    R[np.diag_indices_from(R)] = 1.0
    by_time = [None if v is None else pd.DataFrame(v, index=grid.index, columns=grid.index) for v in (V, R, *bands)]
    found, found_correlation = empirical_moments(fit, grid)
    return ImpliedMarginal(
        label=describe_covariance(fit) if label is None else str(label),
        estimator=fit.estimator,
        response=unquoted(fit.design.hierarchy.response),
        time=grid.name,
        at=grid.at,
        ci=ci,
        x=grid.x,
        **dict(zip(MATRICES, by_time, strict=True)),  # type: ignore[arg-type]
        variance=_variance(fit, grid, V, *bands[:2]),
        draws=sampled,
        empirical=found,
        empirical_correlation=found_correlation,
        note=note,
    )


MATRICES = ("V", "correlation", "V_lower", "V_upper", "correlation_lower", "correlation_upper")


def _correlation(V: FloatArray) -> FloatArray:
    """Correlations of covariances (..., n, n)."""
    sd = np.sqrt(np.einsum("...jj->...j", V))
    return V / (sd[..., :, None] * sd[..., None, :])


def _variance(fit: Fit, grid: Grid, V: FloatArray, low: FloatArray | None, high: FloatArray | None) -> pd.DataFrame:
    """The diagonal of V, its band and its parts."""
    between = np.full(len(V), np.nan)
    if not fit.has_working_correlation:
        between = np.einsum("ia,ab,ib->i", grid.Z, fit._D_values, grid.Z) if grid.Z.shape[1] else np.zeros(len(V))
    ends = {name: np.nan if v is None else np.diag(v) for name, v in (("lower", low), ("upper", high))}
    parts = {"variance": np.diag(V), **ends, "between": between, "within": np.diag(V) - between}
    return pd.DataFrame(parts, index=grid.index)


def refuse_other_model(design: Design, fit: Any) -> None:
    """Refuse a fit that is not one of this design's model.

    Raises
    ------
    SpecificationError
        If it is a fit of another model.
    """
    if isinstance(fit, Fit):
        own, other = (
            (d.hierarchy.formula, d.coef, d.term, d.covariance, d.residual, d.residual_variance, d.n_obs)
            for d in (design, fit.design)
        )
        if own != other:
            received = f"a fit of {fit.design.hierarchy.formula} ({describe_covariance(fit)})"
            reason = f"this is the model {design.hierarchy.formula}, with another formula, covariance or other rows"
            raise SpecificationError(received, reason, "use fit.implied_marginal(times), or a fit of this model", SEE)


def value_text(value: Any) -> str:
    """A value of ``at``, or a time, as text."""
    if isinstance(value, list):
        return shorten(value_text(v) for v in value)
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


FEWEST = 3
"""Rows or pairs behind an empirical variance or correlation."""


def empirical_moments(fit: Any, grid: Grid) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Empirical variances by time and correlations by pair of times, of residuals around the population line."""
    design: Design = fit.design
    rows = np.flatnonzero(grid.keep)
    if not len(rows):
        return None, None
    r = design.y[rows] - fit.fitted("population").to_numpy()[rows]
    X = design.X[rows]
    C = fit.covariance("naive").to_numpy() if fit.has_working_correlation else fit.beta_cov.to_numpy()
    square = r**2 + np.einsum("ia,ab,ib->i", X, C, X)
    t = grid.column[rows]
    distinct, code = np.unique(t, return_inverse=True)
    few = len(distinct) <= MOST_TIMES
    if not few:
        cuts = np.unique(np.quantile(t, np.linspace(0.0, 1.0, 11)[1:-1]))
        code = np.searchsorted(cuts, t, side="left")
    table = pd.DataFrame({"t": t, "v": square}).groupby(code).agg(t=("t", "mean"), n=("v", "size"), v=("v", "mean"))
    table = table[table["n"] >= FEWEST].reset_index(drop=True)
    table.columns = pd.Index([grid.name, "n", "variance"])
    pairs = few and len(distinct) <= 12
    correlation = _empirical_correlation(design, grid, (r, X, C), code, distinct) if pairs else None
    return (table if len(table) else None), correlation


def _empirical_correlation(
    design: Design,
    grid: Grid,
    residuals: tuple[FloatArray, FloatArray, FloatArray],
    code: IntArray,
    distinct: FloatArray,
) -> pd.DataFrame | None:
    """Correlations of pairs of times, where no subject has a time twice."""
    (r, X, C), owner = residuals, design.subject_index[grid.keep]
    if pd.DataFrame({"s": owner, "t": code}).duplicated().any():
        return None
    shape = (design.n_subjects, len(distinct))
    seen, value, half = np.zeros(shape), np.zeros(shape), np.zeros((*shape, X.shape[1]))
    seen[owner, code], value[owner, code], half[owner, code] = 1.0, r, X
    n = seen.T @ seen
    total = value.T @ value + np.einsum("jsa,ab,jtb->st", half, C, half, optimize=True)
    with np.errstate(invalid="ignore"):
        cov = total / n
    sd = np.sqrt(np.diag(cov))
    found = [
        (distinct[i], distinct[j], distinct[j] - distinct[i], int(n[i, j]), cov[i, j] / (sd[i] * sd[j]))
        for i in range(len(distinct))
        for j in range(i + 1, len(distinct))
        if n[i, j] >= FEWEST
    ]
    if not found:
        return None
    return pd.DataFrame(found, columns=[grid.name, f"{grid.name}_bis", "lag", "n", "correlation"])
