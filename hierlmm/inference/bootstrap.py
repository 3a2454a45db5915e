"""Bootstraps of a fit: its estimates made again of data drawn from the model, or of subjects drawn from the data.

    parametric   y* from the fitted model (`refits`): uncertainty if the model is right
    subject      J subjects drawn with replacement, with all their rows: right whatever the distribution of a subject's
                 rows, if subjects are independent and many (with few, as few distinct ones are in a data set)

From draws t* of an estimate t, with quantiles q of t* and F their distribution (Davison & Hinkley 1997, chapter 5):

    percentile   q(α/2) to q(1 - α/2)
    basic        2 g(t) - g(q(1 - α/2)) to 2 g(t) - g(q(α/2)), g the artanh of a correlation, the logarithm of σ; SDs of
                 random effects, which can be zero, as they are, and held at 0
    bca          percentiles at Φ(z₀ + (z₀ + z)/(1 - a (z₀ + z))), Φ(z₀) = F(t), a = Σ d³ / (6 (Σ d²)^(3/2)),
                 d = mean - value of the fits without one subject (or group of subjects)

All stay inside the parameter space: draws are estimates, and g has the range for its domain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.factors import finest_first
from hierlmm.diagnostics.replicate import EXPECTED, Failure, replicate, streams, whole
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.components import family_components
from hierlmm.fits.covariance_table import CovarianceParameters, component_vector, covariance_parameters
from hierlmm.inference.profile import names_of
from hierlmm.inference.refits import SEE, Refitter, require_likelihood, simulator
from hierlmm.options import check_ci, checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer, table_text

SAY = sayer(__file__)
METHODS = ("percentile", "basic", "bca")
KINDS = ("parametric", "subject")
MOST_GROUPS = 200
"""Fits without a group of subjects, behind the acceleration of BCa intervals."""
FEW_SUBJECTS = 20
FEW = 500


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap(Result):
    """Estimates of data sets drawn from a fitted model, or of subjects drawn from the data.

    Attributes
    ----------
    kind : {"parametric", "subject"}
    estimator : {"REML", "ML"}
    n : int
        Data sets that were drawn.
    seed : int
        With it they are drawn again.
    draws : pandas.DataFrame
        Estimates (data set × parameter) of those that could be fitted.
    estimate : pandas.Series
        Of the data.
    singular : int
        Data sets in which D has no full rank.
    n_subjects : int
        With several grouping factors: units that share no group.
    failures : tuple of Failure
        Data sets that could not be fitted, and why.
    """

    kind: str
    estimator: str
    n: int
    seed: int
    draws: pd.DataFrame
    estimate: pd.Series
    singular: int
    n_subjects: int
    failures: tuple[Failure, ...]
    _ranges: CovarianceParameters
    _left_out: FloatArray | None = None
    _own: tuple[str, ...] = ()
    _factors: str = ""

    @property
    def parameters(self) -> list[str]:
        """Names of the coefficients, the components, and of what the statistic returned."""
        return [str(name) for name in self.estimate.index]

    def table(self, ci: float = 0.95, method: Literal["percentile", "basic", "bca"] = "percentile") -> pd.DataFrame:
        """Estimate, bias, standard error, and the ends of an interval, by parameter.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"percentile", "basic", "bca"}
            Quantiles of the draws; these mirrored at the estimate (on artanh of correlations and the logarithm of
            sigma; standard deviations end at 0); or quantiles corrected for bias and acceleration, of a subject
            bootstrap.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, ``bias`` (mean of the draws less it), ``se`` (their SD), ``lower``, ``upper``.

        Raises
        ------
        NotAvailableError
            For BCa intervals of a parametric bootstrap.
        """
        check_ci(ci)
        choose("method", method, METHODS)
        if method == "bca" and self._left_out is None:
            received, reason = (
                "method='bca' of a parametric bootstrap",
                "its acceleration is made of fits without a subject",
            )
            raise NotAvailableError(received, reason, "use fit.bootstrap(kind='subject'), or method='basic'", SEE)
        ends = {"percentile": self._percentile, "basic": self._basic, "bca": self._bca}[method](ci)
        bias, se = self.draws.mean() - self.estimate, self.draws.std()
        columns = {"estimate": self.estimate, "bias": bias, "se": se, "lower": ends[0], "upper": ends[1]}
        return pd.DataFrame(columns, index=self.estimate.index)

    @property
    def frame(self) -> pd.DataFrame:
        """The table of 95 % percentile intervals."""
        return self.table()

    def _quantiles(self, at: Sequence[FloatArray]) -> list[FloatArray]:
        """Quantiles of the draws, at a probability for each parameter."""
        columns = [own[np.isfinite(own)] for own in self.draws.to_numpy().T]
        return [
            np.array(
                [
                    np.quantile(own, p) if len(own) and np.isfinite(p) else np.nan
                    for own, p in zip(columns, side, strict=True)
                ]
            )
            for side in at
        ]

    def _percentile(self, ci: float) -> list[FloatArray]:
        k = len(self.estimate)
        return self._quantiles([np.full(k, 0.5 - ci / 2.0), np.full(k, 0.5 + ci / 2.0)])

    def _basic(self, ci: float) -> list[FloatArray]:
        own, (low, high) = self._ranges, self._percentile(ci)
        # Mirrored on a logarithm, draws near zero would have an upper end without bound.
        as_they_are = np.array([name.startswith("sd(") for name in own.labels])
        free = replace(own, lower=np.where(as_they_are, -np.inf, own.lower), upper=own.upper)
        with np.errstate(invalid="ignore"):
            centre = free.to_unbounded(self.estimate.to_numpy())
            ends = [free.to_natural(2.0 * centre - free.to_unbounded(q)) for q in (high, low)]
        return [np.clip(end, own.lower, own.upper) for end in ends]

    def _bca(self, ci: float) -> list[FloatArray]:
        assert self._left_out is not None
        estimate, draws = self.estimate.to_numpy(), self.draws.to_numpy()
        below = np.nanmean(np.where(np.isnan(draws), np.nan, (draws < estimate) + 0.5 * (draws == estimate)), axis=0)
        d = np.nanmean(self._left_out, axis=0) - self._left_out
        size = np.nansum(d**2, axis=0) ** 1.5
        with np.errstate(divide="ignore", invalid="ignore"):
            z0, a = norm.ppf(below), np.where(size > 0.0, np.nansum(d**3, axis=0) / (6.0 * size), 0.0)
            shifted = [z0 + norm.ppf(p) for p in (0.5 - ci / 2.0, 0.5 + ci / 2.0)]
            return self._quantiles([norm.cdf(z0 + s / (1.0 - a * s)) for s in shifted])

    def _page(self) -> Page:
        table, m = self.table(), len(self.draws)
        shown = Table(table, table_text(table, 5).splitlines(), "Bootstrap, 95 % percentile intervals", index=True)
        how = {"m": m, "estimator": self.estimator, "subjects": self.n_subjects, "factors": self._factors}
        drawn = f"bootstrap.{self.kind}{'_factors' if self._factors else ''}"
        parts: list[Any] = ["", shown, "", Paragraph(SAY(drawn, **how))]
        if self.singular > 0.05 * m:
            parts.append(Paragraph(SAY("bootstrap.singular", share=100.0 * self.singular / m)))
        undefined = (~np.isfinite(self.draws)).sum()
        for name, k in undefined[undefined > 0].items():
            key = "undefined_statistic" if name in self._own else "undefined"
            parts.append(Paragraph(SAY(f"bootstrap.{key}", name=name, k=int(k), m=m)))
        if self.kind == "subject" and self.n_subjects < FEW_SUBJECTS:
            parts.append(Paragraph(SAY("bootstrap.few_subjects", subjects=self.n_subjects)))
        if m < FEW:
            parts.append(Paragraph(SAY("bootstrap.few", m=m)))
        if self.failures:
            parts.append(Paragraph(failures_said(self.failures, self.n)))
        return Page(f"{self.kind.capitalize()} bootstrap ({self.estimator} fit), 95 % percentile intervals", parts)

    @pictured
    def plot(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        ci: float = 0.95,
        method: Literal["percentile", "basic", "bca"] = "percentile",
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw a histogram of the draws of each parameter, with the estimate and the interval.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Which; all of them by default.
        ci : float
            Probability of the interval.
        method : {"percentile", "basic", "bca"}
            As for `table`.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.bootstrap import plot_bootstrap

        return plot_bootstrap(self, names_of(parameters, self.parameters), ci, method, figure)


def failures_said(failures: Sequence[Failure], total: int) -> str:
    """The sentence on data sets that could not be fitted."""
    first = failures[0]
    return SAY("bootstrap.failures", failed=len(failures), total=total, number=first.number, reason=first.reason)


class Quantities(NamedTuple):
    """What is followed: names, ranges, the function of a fit that gives the values, and the names of the statistic."""

    ranges: CovarianceParameters
    of: Callable[[Any], FloatArray]
    own: tuple[str, ...] = ()


def quantities(fit: Any, statistic: Callable[[Any], Any] | None = None) -> Quantities:
    """Coefficients and components of a fit, and what a function of a fit returns."""
    design = fit.design
    if design.is_gaussian:
        found = covariance_parameters(fit)
        labels, lower, upper = found.labels, found.lower, found.upper

        def components(own: Any) -> FloatArray:
            return component_vector(design, own.solution)
    else:
        wald = fit._components
        labels, lower, upper = wald.labels, wald.lower, wald.upper

        def components(own: Any) -> FloatArray:
            return np.array(list(family_components(design, own.solution).values()))

    more = named_values(statistic(fit)) if statistic else {}
    names, free = [*map(str, design.coef), *labels, *more], len(design.coef)
    if taken := [name for name in more if name in names[: len(names) - len(more)]]:
        received, reason = (
            f"a statistic named {taken[0]!r}",
            "a parameter of the fit has this name, and is followed too",
        )
        raise SpecificationError(received, reason, "return a dictionary with another name for it", SEE)

    def values(own: Any) -> FloatArray:
        found = [own.solution.beta, components(own)]
        if statistic:
            try:
                extra = named_values(statistic(own))
            except EXPECTED:  # the data set could be fitted, and the statistic has no value there
                extra = {}
            found.append(np.array([extra.get(name, np.nan) for name in more]))
        return np.concatenate(found)

    ends = [
        np.concatenate([np.full(free, sign * np.inf), own, np.full(len(more), sign * np.inf)])
        for sign, own in ((-1.0, lower), (1.0, upper))
    ]
    return Quantities(CovarianceParameters(names, ends[0], ends[1], values), values, tuple(more))


def named_values(value: Any) -> dict[str, float]:
    """What a statistic returned, by name.

    Raises
    ------
    SpecificationError
        If it is neither a number, numbers with names nor an array.
    """
    try:
        if isinstance(value, pd.Series | Mapping):
            return {str(name): float(number) for name, number in value.items()}
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        received, reason = f"a statistic that returns a {type(value).__name__}", "it returns numbers"
        remedy = "return a number, an array, a dictionary or a Series of numbers"
        raise SpecificationError(received, reason, remedy, SEE) from error
    if array.ndim == 0:
        return {"statistic": float(array)}
    return {f"statistic[{k}]": float(v) for k, v in enumerate(array.ravel())}


def bootstrap_fit(
    fit: Any,
    n: int = 1000,
    kind: str = "parametric",
    statistic: Callable[[Any], Any] | None = None,
    *,
    seed: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
) -> Bootstrap:
    """Bootstrap a fit; see `hierlmm.LikelihoodFit.bootstrap`."""
    whole("n", n, 2)
    choose("kind", kind, KINDS)
    require_likelihood(fit, "a bootstrap")
    several = fit.design.has_several_factors
    if several and kind == "subject":
        reason = "rows share groups of several factors, so that no subjects can be drawn with all their rows"
        raise NotAvailableError(f"kind={kind!r} with several grouping factors", reason, "use kind='parametric'", SEE)
    followed, refitter, J = quantities(fit, statistic), Refitter(fit), fit.design.n_subjects
    draw = simulator(fit) if kind == "parametric" else None
    used, own = streams(seed, n)

    def work(k: int) -> tuple[FloatArray, bool]:
        rng = np.random.default_rng(own[k])
        found = refitter.to_subjects(rng.integers(0, J, J)) if draw is None else refitter.to_response(draw(rng))
        if not found.converged:
            raise DataError("a data set", "the refit did not converge", "simplify the model", SEE)
        return followed.of(found), bool(found.is_singular)

    shown: Any = {"cores": cores, "progressbar": progressbar}
    results, failures = replicate(work, n, label=f"{kind.capitalize()} bootstrap", **shown)
    kept = [result for result in results if result is not None]
    if len(kept) < 2:
        reason = f"{len(failures)} of {n} data sets could not be fitted (the first: {failures[0].reason})"
        raise DataError(f"a {kind} bootstrap", reason, "simplify the model", SEE)
    left_out = None if draw is not None else _without_groups(followed, refitter, J, shown)
    names = followed.ranges.labels
    draws = pd.DataFrame([values for values, _ in kept], columns=names)
    estimate = pd.Series(followed.of(fit), index=names, name="estimate")
    singular = sum(flag for _, flag in kept)
    many = (used, draws, estimate, singular, J, tuple(failures), followed.ranges, left_out, followed.own)
    return Bootstrap(kind, fit.estimator, n, *many, " and ".join(finest_first(fit.design)) if several else "")


def _without_groups(followed: Quantities, refitter: Refitter, J: int, shown: Any) -> FloatArray:
    """Values without each of the subjects; with many of these, without each of `MOST_GROUPS` groups."""
    groups = np.arange(J) % min(J, MOST_GROUPS)

    def work(k: int) -> FloatArray:
        rest: IntArray = np.flatnonzero(groups != k)
        return followed.of(refitter.to_subjects(rest))

    results, _ = replicate(work, int(groups.max()) + 1, label="Without each subject", **shown)
    nothing = np.full(len(followed.ranges.labels), np.nan)
    return np.array([nothing if row is None else row for row in results])
