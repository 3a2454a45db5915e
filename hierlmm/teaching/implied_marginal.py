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

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.design import Design
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.frozen import Sealed
from hierlmm.options import checked
from hierlmm.teaching.implied_covariance import (
    check_request,
    covariance_at,
    covariance_draws,
    describe_covariance,
    empirical_moments,
    is_posterior,
    make_grid,
    relevant_columns,
)

__all__ = ["ImpliedComparison", "ImpliedMarginal", "compare_implied", "implied_by_model", "implied_marginal"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Implied marginal model'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ImpliedMarginal(Sealed):
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
        table = pd.DataFrame(
            {
                self.time: times[a],
                f"{self.time}_bis": times[b],
                "lag": self.x[b] - self.x[a],
                "correlation": self.correlation.to_numpy()[a, b],
            }
        )
        for name, band in (("lower", self.correlation_lower), ("upper", self.correlation_upper)):
            table[name] = np.nan if band is None else band.to_numpy()[a, b]
        return table

    def __repr__(self) -> str:
        where = "".join(f", {k} = {_show(v)}" for k, v in self.at.items())
        lines = [
            f"Marginal covariance of one subject's {self.response} implied by {self.label} ({self.estimator}){where}"
        ]
        shown = self.correlation if len(self.x) <= 12 else self.correlation.iloc[_some(len(self.x)), _some(len(self.x))]
        lines.append(
            "Correlation" + ("" if len(shown) == len(self.x) else f" (at {len(shown)} of {len(self.x)} times)")
        )
        lines.append(shown.to_string(float_format=lambda v: f"{v:z.3f}"))
        table = self.variance.loc[shown.index].dropna(axis=1, how="all")
        lines.append("Variance")
        lines.append(table.to_string(float_format=lambda v: f"{v:.4g}"))
        return "\n".join([*lines, *textwrap.wrap(self.note, 110)])

    def _repr_html_(self) -> str:
        import html

        where = "".join(f", {k} = {_show(v)}" for k, v in self.at.items())
        title = (
            f"Marginal covariance of one subject's {self.response} implied by {self.label} ({self.estimator}){where}"
        )
        table = self.variance.dropna(axis=1, how="all")
        return (
            f"<p><strong>{html.escape(title)}</strong></p><p>Correlation</p>"
            f"{self.correlation.to_html(float_format=lambda v: f'{v:z.3f}', border=0)}<p>Variance</p>"
            f"{table.to_html(float_format=lambda v: f'{v:.4g}', border=0)}<p>{html.escape(self.note)}</p>"
        )

    def plot_heatmap(self, **options: Any) -> Any:
        """Draw the correlation (or V) as a heat map; see `hierlmm.plots.implied.plot_heatmap`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_heatmap`.
        """
        from hierlmm.plots.implied import plot_heatmap

        return plot_heatmap({self.label: self}, **options)

    def plot_correlation(self, **options: Any) -> Any:
        """Draw the correlation against the lag; see `hierlmm.plots.implied.plot_correlation`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_correlation`.
        """
        from hierlmm.plots.implied import plot_correlation

        return plot_correlation({self.label: self}, **options)

    def plot_variance(self, **options: Any) -> Any:
        """Draw the variance against time; see `hierlmm.plots.implied.plot_variance`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_variance`.
        """
        from hierlmm.plots.implied import plot_variance

        return plot_variance({self.label: self}, **options)


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ImpliedComparison:
    """What several fits imply for the same times, made by `compare_implied`.

    Attributes
    ----------
    implied : dict
        Label -> `ImpliedMarginal`.
    """

    implied: dict[str, ImpliedMarginal]

    @property
    def variance(self) -> pd.DataFrame:
        """Variance by time, a column for each fit."""
        return pd.DataFrame({k: v.variance["variance"] for k, v in self.implied.items()})

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation by pair of times, a column for each fit."""
        first = next(iter(self.implied.values()))
        keys = list(first.pairs().columns[:3])
        return first.pairs()[keys].assign(**{k: v.pairs()["correlation"] for k, v in self.implied.items()})

    def __repr__(self) -> str:
        first = next(iter(self.implied.values()))
        start = self.correlation
        start = start[start[first.time] == first.V.index[0]].iloc[:, 1:]
        return "\n".join(
            [
                f"Marginal covariance of one subject's {first.response}, as {len(self.implied)} fits imply it",
                "Variance",
                self.variance.to_string(float_format=lambda v: f"{v:.4g}"),
                f"Correlation with {first.time} = {_show(first.V.index[0])}",
                start.to_string(index=False, float_format=lambda v: f"{v:z.3f}"),
            ]
        )

    def plot_heatmap(self, **options: Any) -> Any:
        """Draw the correlations (or V) side by side; see `hierlmm.plots.implied.plot_heatmap`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_heatmap`.
        """
        from hierlmm.plots.implied import plot_heatmap

        return plot_heatmap(self.implied, **options)

    def plot_correlation(self, **options: Any) -> Any:
        """Draw the correlations against the lag in one picture; see `hierlmm.plots.implied.plot_correlation`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_correlation`.
        """
        from hierlmm.plots.implied import plot_correlation

        return plot_correlation(self.implied, **options)

    def plot_variance(self, **options: Any) -> Any:
        """Draw the variances against time in one picture; see `hierlmm.plots.implied.plot_variance`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.implied.plot_variance`.
        """
        from hierlmm.plots.implied import plot_variance

        return plot_variance(self.implied, **options)


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
    check_request(fit, at, ci, draws)
    grid = make_grid(fit, times, dict(at or {}), time)
    V = covariance_at(fit, grid)
    sampled, note = covariance_draws(fit, grid, ci, draws, seed)
    sd = np.sqrt(np.diag(V))
    R = V / np.outer(sd, sd)
    low = high = R_low = R_high = None
    if sampled is not None:
        tail = 0.5 * (1.0 - ci)
        quantiles = [tail, 1.0 - tail]
        sds = np.sqrt(np.einsum("sjj->sj", sampled))
        correlations = sampled / (sds[:, :, None] * sds[:, None, :])
        low, high = np.quantile(sampled, quantiles, axis=0)
        R_low, R_high = np.quantile(correlations, quantiles, axis=0)
        if is_posterior(fit):
            V, R = sampled.mean(axis=0), correlations.mean(axis=0)
        sampled.flags.writeable = False
    R[np.diag_indices_from(R)] = 1.0

    def frame(values: FloatArray | None) -> pd.DataFrame | None:
        return None if values is None else pd.DataFrame(values, index=grid.index, columns=grid.index)

    between = np.full(len(V), np.nan)
    if fit.estimator != "GEE":
        between = np.einsum("ia,ab,ib->i", grid.Z, fit._D_values, grid.Z) if grid.Z.shape[1] else np.zeros(len(V))
    variance = pd.DataFrame(
        {
            "variance": np.diag(V),
            "lower": np.nan if low is None else np.diag(low),
            "upper": np.nan if high is None else np.diag(high),
            "between": between,
            "within": np.diag(V) - between,
        },
        index=grid.index,
    )
    found, found_correlation = empirical_moments(fit, grid)
    return ImpliedMarginal(
        label=describe_covariance(fit) if label is None else str(label),
        estimator=fit.estimator,
        response=fit.design.hierarchy.response,
        time=grid.name,
        at=grid.at,
        ci=ci,
        x=grid.x,
        V=frame(V),  # type: ignore[arg-type]
        correlation=frame(R),  # type: ignore[arg-type]
        V_lower=frame(low),
        V_upper=frame(high),
        correlation_lower=frame(R_low),
        correlation_upper=frame(R_high),
        variance=variance,
        draws=sampled,
        empirical=found,
        empirical_correlation=found_correlation,
        note=note,
    )


def implied_by_model(design: Design, fit: Any, times: Any = None, **options: Any) -> ImpliedMarginal:
    """`implied_marginal` of a fit that must be one of this design's model.

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
            raise SpecificationError(
                f"a fit of {fit.design.hierarchy.formula} ({describe_covariance(fit)})",
                f"this is the model {design.hierarchy.formula}, with another formula, covariance or other rows",
                "use fit.implied_marginal(times), or a fit of this model",
                SEE,
            )
    return implied_marginal(fit, times, **options)


@checked
def compare_implied(
    *fits: Any,
    times: Any = None,
    at: Any = None,
    time: str | None = None,
    labels: Sequence[str] | None = None,
    ci: float = 0.95,
    draws: int | None = None,
    seed: int | None = 0,
) -> ImpliedComparison:
    """Set the marginal covariances that several fits imply side by side, at the same times.

    Parameters
    ----------
    *fits : Fit or ImpliedMarginal
        Of the same response: for example a random intercept, a random slope, a serial and an unstructured model.
    times, at, time, ci, draws, seed
        As for `implied_marginal`; times and time variable are those of the first fit by default. A value in ``at`` goes
        to the fits whose V depends on it.
    labels : sequence of str, optional
        The covariance models in words otherwise.

    Returns
    -------
    ImpliedComparison

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> fits = [
    ...     hl.TwoLevelModel.from_formula(f"distance ~ sex * time + ({bar} | subject)", dental).fit_reml()
    ...     for bar in ("1", "1 + time")
    ... ]
    >>> found = hl.compare_implied(*fits, labels=["intercept", "slope"], draws=0)
    >>> found.variance.round(2).to_dict("list")
    {'intercept': [5.22, 5.22, 5.22, 5.22], 'slope': [4.95, 4.96, 5.24, 5.77]}
    """
    if not fits:
        raise SpecificationError("no fits", "there is nothing to compare", "pass two or more fits", SEE)
    if labels is not None and (len(labels) != len(fits) or len(set(labels)) != len(labels)):
        raise SpecificationError(
            f"labels={list(labels)!r} for {len(fits)} fits",
            "every fit needs a name of its own",
            "give one for each",
            SEE,
        )
    given = dict(at or {})
    used: set[str] = set()
    first: Any = next((f for f in fits if isinstance(f, ImpliedMarginal)), None)
    found: list[ImpliedMarginal] = []
    for fit in fits:
        if isinstance(fit, ImpliedMarginal):
            found.append(fit)
            continue
        axis = time if time is not None or first is None else first.time
        where = times if times is not None or first is None else list(first.V.index)
        if isinstance(fit, Fit):
            own = {k: v for k, v in given.items() if k in relevant_columns(fit)}
            used |= set(own)
        else:
            own = given
        one = implied_marginal(fit, where, at=own, time=axis, ci=ci, draws=draws, seed=seed)
        first = one if first is None else first
        found.append(one)
    unknown = [k for k in given if k not in used]
    if unknown:
        raise SpecificationError(
            f"at={{{unknown[0]!r}: ...}}", "the covariance of none of these fits depends on it", "leave it out", SEE
        )
    for one in found[1:]:
        if one.time != found[0].time or one.response != found[0].response or not one.V.index.equals(found[0].V.index):
            raise SpecificationError(
                f"{one.label!r} at other times, or of another response, than {found[0].label!r}",
                "covariances are compared entry by entry",
                "evaluate all of them at the same times",
                SEE,
            )
    return ImpliedComparison(dict(zip(_names(found, labels), found, strict=True)))


def _names(found: list[ImpliedMarginal], labels: Sequence[str] | None) -> list[str]:
    if labels is not None:
        return [str(v) for v in labels]
    names = [one.label for one in found]
    if len(set(names)) < len(names):
        names = [f"{one.label}, {one.estimator}" if names.count(one.label) > 1 else one.label for one in found]
    return [f"{n} ({names[: i + 1].count(n)})" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _show(value: Any) -> str:
    if isinstance(value, list):
        return shorten(_show(v) for v in value)
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _some(n: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, n - 1, 8).round().astype(np.intp))
