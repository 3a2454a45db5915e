r"""Serial correlation that a fitted model left in its residuals: semivariogram and autocorrelation by lag.

With residuals r of a subject, positions t, and pairs of rows at lag ``u = |t_j - t_k|``, the semivariogram and the
autocorrelation are

    γ̂(u) = mean of ½ (r_j - r_k)²,    ρ̂(u) = (mean of r_j r_k) / (mean of all r²)

What a model expects of them is not the textbook curve ``σ²(1 - ρ(u))``: estimated residuals are shrunken and correlated
even where the errors are not. But at given covariance parameters every residual is a linear function of the data,

    r_i = M_i (y_i - X_i β̂),    Cov(r_i) = S_i = M_i (V_i - X_i (X'V⁻¹X)⁻¹ X_i') M_i'

with ``M_i = T_i`` around the population line and ``M_i = T_i Σ_i V_i⁻¹`` around the subjects' lines (there
``y_i - X_i β̂ - Z_i b̂_i = Σ_i V_i⁻¹ (y_i - X_i β̂)``), T_i dividing by the SDs (Pearson) or by a Cholesky factor
(normalized). Hence, exactly,

    E ½ (r_j - r_k)² = ½ (S_jj + S_kk - 2 S_jk)

The band is simulated: data from the fitted model, the same residuals, the same means by lag. The overall level of a
semivariogram (its mean over all pairs) was as a rule fitted to the data, so that level and shape are judged apart. For
the shape, all simulated semivariograms are set to the level of the observed one; for the level, its ratio to the mean
square of the residuals is compared with that of the simulated ones.

For all lags together the statistic is the largest deviation from the expected curve in units of its simulated SD (Besag
& Diggle 1977, Appl. Statist. 26, 327-333), so that words are only said about lags that stand out of all of them.

References
----------
Diggle, P. J., Heagerty, P., Liang, K.-Y., Zeger, S. L. (2002). Analysis of Longitudinal Data, chapters 3 and 5.
Verbeke, G., Lesaffre, E., Brant, L. J. (1998). The detection of residual serial correlation in linear mixed models.
Statistics in Medicine 17, 1391-1402.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import unquoted
from hierlmm.design.questions import time_variable
from hierlmm.diagnostics.curve_band import largest_deviation
from hierlmm.diagnostics.replicate import likelihood_of
from hierlmm.diagnostics.serial_residuals import SEE, LinearResiduals, Pairs, linear_residuals, make_pairs, positions_of
from hierlmm.diagnostics.serial_result import Autocorrelation, Semivariogram, SerialCheck
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import quote, shorten
from hierlmm.options import checked, choose
from hierlmm.text import sayer

__all__ = ["Autocorrelation", "Semivariogram", "SerialCheck", "autocorrelation", "semivariogram"]

Level = Literal["subject", "population"]
Kind = Literal["pearson", "response", "normalized"]
KINDS = ("pearson", "response", "normalized")
SAY = sayer(__file__)


@checked
def semivariogram(
    fit: Fit,
    *,
    level: Level | None = None,
    kind: Kind = "pearson",
    time: str | None = None,
    bins: int | Sequence[float] | None = None,
    max_lag: float | None = None,
    ci: float = 0.95,
    simulations: int = 500,
    refit: bool = False,
    seed: int | None = 0,
) -> Semivariogram:
    """Semivariogram of the residuals within subjects, with the curve that the fitted model implies.

    Parameters
    ----------
    fit : Fit
        Any estimator's. A posterior is looked at at the posterior means of its covariance parameters; GEE at its
        working covariance.
    level : {"subject", "population"}, optional
        Residuals around the subjects' own lines (the default where there are random effects), or around the population
        line: there the semivariogram shows all of V_i, that is the random effects as well.
    kind : {"pearson", "response", "normalized"}
        Divided by their SD, in units of the response, or with the fitted correlation taken out.
    time : str, optional
        Column that measures the lag. By default that of the residual correlation, else the level-1 variable, else the
        order of the rows within a subject.
    bins : int or sequence of float, optional
        Number of bins with about equal numbers of pairs, or their edges. By default every lag has its own bin where
        there are at most 20 distinct ones, and there are 12 bins otherwise.
    max_lag : float, optional
        Leave out pairs further apart.
    ci : float
        Probability of the bands.
    simulations : int
        Data sets simulated under the fitted model.
    refit : bool
        Estimate the covariance parameters anew in each of them (likelihood fits; slower). Otherwise they stay at their
        estimates, and only the coefficients and the level are fitted anew; since the shape was fitted to these data as
        well, p-values of models with a rich covariance are then somewhat too large.
    seed : int, optional

    Returns
    -------
    Semivariogram

    Raises
    ------
    SpecificationError, DataError, NotAvailableError
        If the lag is not measured in numbers, no subject has two rows, or there are far too many pairs.

    Examples
    --------
    Random intercepts leave the slopes of the subjects in the residuals, so that neighbours are alike:

    >>> import hierlmm as hl
    >>> sleep = hl.load_dataset("sleepstudy")
    >>> fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleep).fit_reml()
    >>> found = hl.semivariogram(fit)
    >>> found.table.loc[0, ["lag", "pairs", "semivariance", "expected"]].astype(float).round(3).tolist()
    [1.0, 162.0, 0.505, 1.0]
    """
    request = _Request(level, kind, time, bins, max_lag, ci, simulations, refit, seed)
    return Semivariogram(**_checked(fit, request, acf=False))


@checked
def autocorrelation(
    fit: Fit,
    *,
    level: Level | None = None,
    kind: Kind = "normalized",
    time: str | None = None,
    max_lag: int | None = None,
    ci: float = 0.95,
    simulations: int = 500,
    refit: bool = False,
    seed: int | None = 0,
) -> Autocorrelation:
    """Autocorrelation of the residuals within subjects, by lag, as nlme's ``ACF``.

    Lags count rows in the order of time, unless ``time`` names a column of whole numbers. Lag 0 (which is 1) is left
    out. With ``kind="normalized"`` nothing should be left where the fitted correlation is right, apart from what the
    estimation of coefficients and random effects puts there: ``expected`` says how much that is.

    Parameters
    ----------
    fit, level, kind, ci, simulations, refit, seed
        As for `semivariogram`.
    time : str, optional
        Column of whole numbers that count the occasions, so that a missed occasion leaves a lag of 2.
    max_lag : int, optional
        Largest lag; as in nlme ``10 log10(n)`` for the longest series of n rows, if left out.

    Returns
    -------
    Autocorrelation
    """
    request = _Request(level, kind, time, None, max_lag, ci, simulations, refit, seed)
    return Autocorrelation(**_checked(fit, request, acf=True))


# --- What is asked for ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """What was asked for, as in `semivariogram`."""

    level: str | None
    kind: str
    time: str | None
    bins: Any
    max_lag: float | None
    ci: float
    simulations: int
    refit: bool
    seed: int | None


def _level(fit: Any, ask: _Request) -> str:
    """The level of the residuals; refuses what cannot be answered."""
    if not isinstance(fit, Fit):
        received = f"a {type(fit).__name__}"
        raise SpecificationError(received, "this looks at the residuals of a fit", "pass a fit: model.fit_reml()", SEE)
    level = ("subject" if fit.has_random_effects else "population") if ask.level is None else ask.level
    choose("level", level, ("subject", "population"))
    choose("kind", ask.kind, KINDS)
    if level == "subject" and not fit.has_random_effects:
        received, reason = "level='subject' of a fit without random effects", "it has no subject's own line"
        raise NotAvailableError(received, reason, "use level='population', or fit a hierarchy, hl.TwoLevelModel", SEE)
    least = math.ceil(1.0 / (1.0 - ask.ci))
    if ask.simulations < least:
        reason = f"a {100 * ask.ci:g} % band needs at least {least} simulated data sets"
        raise SpecificationError(f"simulations={ask.simulations!r}", reason, "use simulations=500", SEE)
    if ask.max_lag is not None and not ask.max_lag > 0:
        raise SpecificationError(f"max_lag={ask.max_lag!r}", "a lag is positive", "use a larger max_lag", SEE)
    if ask.refit and not fit.has_likelihood:
        received = f"refit=True of a fit by {fit.estimator}"
        reason = "refitting every simulated data set is done for REML and ML only"
        raise NotAvailableError(received, reason, "leave refit out, or use model.fit_reml()", SEE)
    return level


def _pairs(fit: Fit, ask: _Request, *, acf: bool) -> tuple[Pairs, str]:
    """Pairs of rows by lag, and what the lag is measured in."""
    position, name, count_rows = positions_of(fit, ask.time, by_order=acf)
    max_lag = ask.max_lag
    if acf and not count_rows and np.any(position != np.round(position)):
        received = f"time={ask.time!r} with values that are no whole numbers"
        remedy = "leave time out to count rows, or use hl.semivariogram(fit), whose lags are in continuous time"
        raise DataError(received, "an autocorrelation by lag needs occasions that are counted", remedy, SEE)
    if acf and max_lag is None and count_rows:
        longest = int(fit.design.rows_per_subject.max())
        max_lag = max(1, min(longest - 1, int(10.0 * math.log10(longest))))
    return make_pairs(fit, position, count_rows=count_rows, bins=ask.bins, max_lag=max_lag, time=name), name


# --- Statistics and their bands ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statistic:
    """Means by lag of residuals, and what is expected of them: semivariances, or autocorrelations (``acf``)."""

    pairs: Pairs
    acf: bool

    def of(self, r: FloatArray) -> FloatArray:
        """From residuals r (N,) in the order of the pairs."""
        first, second = r[self.pairs.first], r[self.pairs.second]
        if self.acf:
            return self.pairs.mean(first * second) / float(np.mean(r * r))
        return self.pairs.mean(0.5 * (first - second) ** 2)

    def expected(self, S: list[FloatArray]) -> tuple[FloatArray, float]:
        """Expected mean by lag (for the autocorrelation the ratio of expectations), and expected mean square."""
        pairs = self.pairs
        diagonal = np.concatenate([np.diag(s) for s in S])
        sizes = np.array([len(s) for s in S])
        start = np.concatenate([[0], np.cumsum(sizes)])
        flat = np.concatenate([s.ravel() for s in S])
        block = np.concatenate([[0], np.cumsum(sizes**2)])
        owner = np.searchsorted(start, pairs.first, side="right") - 1
        at = block[owner] + (pairs.first - start[owner]) * sizes[owner] + (pairs.second - start[owner])
        square = float(np.mean(diagonal))
        if self.acf:
            return pairs.mean(flat[at]) / square, square
        return pairs.mean(0.5 * (diagonal[pairs.first] + diagonal[pairs.second]) - flat[at]), square


class _Simulated(NamedTuple):
    """Deviations of simulated statistics from their curve (simulations, lags).

    Of a semivariogram also ``scale``, the observed level over the expected one, ``ratio``, the same relative to the
    mean square of the residuals, and how unusual that is. ``failed``: data sets that could not be fitted anew.
    """

    deviations: FloatArray
    scale: float = 1.0
    ratio: float = math.nan
    ratio_p: float = math.nan
    failed: int = 0


def _checked(fit: Fit, ask: _Request, *, acf: bool) -> dict[str, Any]:
    """The fields of the result."""
    level = _level(fit, ask)
    pairs, name = _pairs(fit, ask, acf=acf)
    statistic = _Statistic(pairs, acf)
    linear = linear_residuals(fit, pairs.subjects, level, ask.kind)
    r = _residuals(linear, pairs, fit.design.y - fit.design.offset)
    expected, square = statistic.expected(linear.S)
    if ask.refit:
        found = _refitted(fit, statistic, linear, level, ask)
    else:
        found = _simulated(statistic, linear, r, (expected, square), ask)
    table, p_value = _bands(statistic, statistic.of(r), expected, found, ask.ci)
    n, gee = len(found.deviations), fit.has_working_correlation
    structure = None if gee else fit.design.residual
    shown: Any = fit
    residual = "independent residuals" if structure is None else f"residual correlation {spec_text(structure)}"
    return {
        "table": table,
        "p_value": p_value,
        "mean_square": float(np.mean(r * r)),
        "expected_mean_square": square,
        "scale_ratio": found.ratio,
        "scale_p_value": found.ratio_p,
        "level": level,
        "kind": ask.kind,
        "time": name,
        "ci": ask.ci,
        "simulations": n,
        "refit": ask.refit,
        "estimator": fit.estimator,
        "response": unquoted(fit.design.hierarchy.response),
        "correlation": f"working correlation {shown.correlation}" if gee else residual,
        "serial": structure is not None,
        "note": " ".join([*_rows_note(fit, ask, name, acf=acf), _note(fit, ask, n, found.failed)]),
    }


def _residuals(linear: LinearResiduals, pairs: Pairs, y: FloatArray) -> FloatArray:
    return linear.residuals([y[rows][:, None] for rows in pairs.subjects])[:, 0]


def _simulated(
    statistic: _Statistic, linear: LinearResiduals, r: FloatArray, expected: tuple[FloatArray, float], ask: _Request
) -> _Simulated:
    """Data sets at the estimates, the coefficients fitted anew; semivariograms are set to the observed level."""
    curve, square = expected
    columns = linear.simulated(ask.simulations, np.random.default_rng(ask.seed))
    found = np.array([statistic.of(c) for c in columns.T])
    if statistic.acf:
        return _Simulated(found - curve)
    count = statistic.pairs.count
    level_of = (np.vstack([statistic.of(r), found]) @ count) / (curve @ count)
    ratios = level_of / (np.append(np.mean(r * r), np.mean(columns**2, axis=0)) / square)
    ratio = float(ratios[0])
    p = min(1.0, 2.0 * min(float(np.mean(ratios >= ratio)), float(np.mean(ratios <= ratio))))
    return _Simulated(found / level_of[1:, None] - curve, float(level_of[0]), ratio, p)


def _refitted(fit: Any, statistic: _Statistic, linear: LinearResiduals, level: str, ask: _Request) -> _Simulated:
    """Simulated data sets that are each fitted anew, against the curves of their own fits."""
    design, pairs, rng = fit.design, statistic.pairs, np.random.default_rng(ask.seed)
    order = np.concatenate(pairs.subjects)
    mean = design.offset + design.X @ fit.beta.to_numpy()
    found, failed = [], 0
    for _ in range(ask.simulations):
        y = mean.copy()
        y[order] += np.concatenate([L @ rng.standard_normal(len(L)) for L in linear.root])
        new = likelihood_of(design.with_response(y), reml=fit.reml)
        if not new.optimum.converged:
            failed += 1
            continue
        own = linear_residuals(new, pairs.subjects, level, ask.kind)
        r = _residuals(own, pairs, y - design.offset)
        found.append(statistic.of(r) - statistic.expected(own.S)[0])
    if len(found) < 0.9 * ask.simulations:
        received = f"refit=True: {failed} of {ask.simulations} simulated data sets could not be fitted"
        reason = "the band would rest on the others, which are no random sample"
        raise NotAvailableError(received, reason, "leave refit out, or simplify the model", SEE)
    return _Simulated(np.array(found), failed=failed)


def _bands(
    statistic: _Statistic, observed: FloatArray, expected: FloatArray, found: _Simulated, ci: float
) -> tuple[pd.DataFrame, float]:
    """Table by lag and p-value of the largest deviation; the bands stand at ``scale`` times the expected level."""
    pairs, scale, deviations = statistic.pairs, found.scale, found.deviations
    tail = 0.5 * (1.0 - ci)
    lower, upper = scale * (expected + np.quantile(deviations, [tail, 1.0 - tail], axis=0))
    # The data are one more draw: with them in the pool all draws are exchangeable under the model.
    pool = np.vstack([observed / scale - expected, deviations])
    centre, sd = pool.mean(axis=0), pool.std(axis=0)
    sd = np.where(sd > 1e-12 * np.max(np.abs(expected), initial=0.0), sd, np.inf)
    p_value, width = largest_deviation((pool - centre) / sd, ci)
    reach = width * np.where(np.isfinite(sd), sd, 0.0)
    low, high = scale * (expected + centre - reach), scale * (expected + centre + reach)
    if not statistic.acf:
        low = np.maximum(low, 0.0)
    outside = ((observed < low) | (observed > high)) & np.isfinite(sd) & (p_value <= 1.0 - ci)
    column = Autocorrelation.column if statistic.acf else Semivariogram.column
    table = pd.DataFrame({"lag": pairs.lag, "from": pairs.low, "to": pairs.high, "pairs": pairs.count.astype(int)})
    bands = {"lower": lower, "upper": upper, "lower_all": low, "upper_all": high, "outside": outside}
    return table.assign(**{column: observed, "expected": expected}, **bands), p_value


def _rows_note(fit: Fit, ask: _Request, name: str, *, acf: bool) -> list[str]:
    """Say that rows were counted for want of a time, where a model has variables that could be it."""
    variables = fit.design.level1_variables()
    if name != "rows" or ask.time is not None or not variables or time_variable(fit.design) is not None:
        return []
    numbers = [v for v in variables if pd.api.types.is_numeric_dtype(fit.design.frame[v].dtype)]
    how = "time='visit', with a column of whole numbers that count the occasions"
    how = how if acf or not numbers else f"time={quote(numbers[0])}"
    return [SAY("serial.rows", variables=shorten(map(quote, variables)), how=how)]


def _note(fit: Fit, ask: _Request, n: int, failed: int) -> str:
    held = "posterior means" if fit.estimator in ("NUTS", "Bambi") else "estimates"
    how = SAY("serial.anew", failed=failed or "") if ask.refit else SAY("serial.held", at=held)
    return SAY("serial.band", percent=100 * ask.ci, n=n, how=how)
