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
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.diagnostics.serial_residuals import (
    LinearResiduals,
    Pairs,
    linear_residuals,
    make_pairs,
    positions_of,
)
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.frozen import Sealed
from hierlmm.options import checked, choose

__all__ = ["Autocorrelation", "Semivariogram", "SerialCheck", "autocorrelation", "semivariogram"]

FloatArray = NDArray[np.float64]
Level = Literal["subject", "population"]
Kind = Literal["pearson", "response", "normalized"]
KINDS = ("pearson", "response", "normalized")
SEE = "docs, page 'Residual diagnostics'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SerialCheck(Sealed, ABC):
    """What residuals of one subject have in common by lag, beside what the fitted model expects of them.

    Attributes
    ----------
    table : DataFrame
        By lag: ``lag`` (mean of the bin), ``pairs`` (number of pairs), the observed mean, ``expected`` under the fitted
        model, ``lower`` and ``upper`` (pointwise band), ``lower_all`` and ``upper_all`` (band for all lags together),
        ``outside`` (whether the observed mean leaves the latter).
    p_value : float
        Of the largest deviation among all lags, by simulation under the fitted model.
    mean_square, expected_mean_square : float
        Mean of all squared residuals, and what the model expects of it.
    scale_ratio, scale_p_value : float
        Of a semivariogram: its mean over all pairs, relative to the mean square of the residuals, over what is expected
        of it, and how unusual that is under the fitted model (near 1 where the model was free to fit it); NaN for an
        autocorrelation, and with ``refit``.
    level, kind : str
        Which residuals.
    time : str
        What the lag is measured in.
    ci : float
        Probability of the bands.
    simulations : int
    refit : bool
        Whether the covariance parameters were estimated anew in every simulated data set.
    estimator, response : str
    correlation : str
        The residual correlation of the model, in words.
    serial : bool
        Whether the model has a residual correlation.
    note : str
        What must be known about the band.
    """

    table: pd.DataFrame
    p_value: float
    mean_square: float
    expected_mean_square: float
    scale_ratio: float
    scale_p_value: float
    level: str
    kind: str
    time: str
    ci: float
    simulations: int
    refit: bool
    estimator: str
    response: str
    correlation: str
    serial: bool
    note: str

    name = ""
    column = ""

    @property
    def stands_out(self) -> bool:
        """Whether the observed means leave the model's by more than chance, at 1 - ``ci`` for all lags together."""
        return bool(min(self.p_value, np.nan_to_num(self.scale_p_value, nan=1.0)) <= 1.0 - self.ci)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return _verdict(self)

    @abstractmethod
    def _alike(self) -> FloatArray:
        """+1 where pairs are more alike than expected, -1 where less."""

    def __repr__(self) -> str:
        line = {"subject": "around the subjects' own lines", "population": "around the population line"}[self.level]
        head = f"{self.name} of {self.kind} residuals {line}: {self.response}, {self.estimator} ({self.correlation})"
        shown = self.table.drop(columns=["from", "to"], errors="ignore").rename(columns={"lag": f"lag ({self.time})"})
        body = shown.to_string(index=False, float_format=lambda v: f"{v:.4g}")
        return "\n".join([head, body, *textwrap.wrap(self.verdict, 110), *textwrap.wrap(self.note, 110)])

    def _repr_html_(self) -> str:
        import html

        shown = self.table.drop(columns=["from", "to"], errors="ignore").rename(columns={"lag": f"lag ({self.time})"})
        table = shown.to_html(index=False, float_format=lambda v: f"{v:.4g}", border=0)
        title = f"{self.name} of {self.kind} residuals ({self.level} level): {self.response}, {self.estimator}"
        return (
            f"<p><strong>{html.escape(title)}</strong></p>{table}<p>{html.escape(self.verdict)}</p>"
            f"<p>{html.escape(self.note)}</p>"
        )

    def plot(self, *, backend: str | None = None, figure_kwargs: dict[str, Any] | None = None) -> Any:
        """Draw the observed means, the curve that the fitted model implies, and the bands.

        Parameters
        ----------
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

        Returns
        -------
        arviz_plots.PlotCollection
            Visuals ``expected`` and ``observed``.
        """
        from hierlmm.drawing.serial import plot_serial

        return plot_serial(self, backend=backend, figure_kwargs=figure_kwargs)


@checked
class Semivariogram(SerialCheck):
    """Semivariogram of residuals, made by `semivariogram`; see `SerialCheck` for what it holds."""

    name, column = "Semivariogram", "semivariance"

    def _alike(self) -> FloatArray:
        observed, expected, pairs = (self.table[c].to_numpy() for c in ("semivariance", "expected", "pairs"))
        scale = 1.0 if self.refit else (observed @ pairs) / (expected @ pairs)
        return np.sign(scale * expected - observed)


@checked
class Autocorrelation(SerialCheck):
    """Autocorrelation of residuals, made by `autocorrelation`; see `SerialCheck` for what it holds."""

    name, column = "Autocorrelation", "autocorrelation"

    def _alike(self) -> FloatArray:
        return np.sign((self.table["autocorrelation"] - self.table["expected"]).to_numpy())


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
    return _check(fit, Semivariogram, level, kind, time, bins, max_lag, ci, simulations, refit, seed)  # type: ignore[return-value]


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
    return _check(fit, Autocorrelation, level, kind, time, None, max_lag, ci, simulations, refit, seed)  # type: ignore[return-value]


# --- statistics ---------------------------------------------------------------------------------------------------


def _semivariance(pairs: Pairs, r: FloatArray) -> FloatArray:
    return pairs.mean(0.5 * (r[pairs.first] - r[pairs.second]) ** 2)


def _autocorrelation(pairs: Pairs, r: FloatArray) -> FloatArray:
    return pairs.mean(r[pairs.first] * r[pairs.second]) / float(np.mean(r * r))


def _expected(pairs: Pairs, S: list[FloatArray], kind: type[SerialCheck]) -> tuple[FloatArray, float]:
    """Expected mean by lag (for the autocorrelation the ratio of expectations), and expected mean square."""
    diagonal = np.concatenate([np.diag(s) for s in S])
    sizes = np.array([len(s) for s in S])
    start = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.concatenate([s.ravel() for s in S])
    block = np.concatenate([[0], np.cumsum(sizes**2)])
    owner = np.searchsorted(start, pairs.first, side="right") - 1
    at = block[owner] + (pairs.first - start[owner]) * sizes[owner] + (pairs.second - start[owner])
    square = float(np.mean(diagonal))
    if kind is Autocorrelation:
        return pairs.mean(flat[at]) / square, square
    return pairs.mean(0.5 * (diagonal[pairs.first] + diagonal[pairs.second]) - flat[at]), square


def _check(
    fit: Fit,
    result: type[SerialCheck],
    level: str | None,
    kind: str,
    time: str | None,
    bins: Any,
    max_lag: float | None,
    ci: float,
    simulations: int,
    refit: bool,
    seed: int | None,
) -> SerialCheck:
    level = _request(fit, level, kind, ci, simulations, refit, max_lag)
    acf = result is Autocorrelation
    position, name, count_rows = positions_of(fit, time, by_order=acf)
    if acf and not count_rows and np.any(position != np.round(position)):
        raise DataError(
            f"time={time!r} with values that are no whole numbers",
            "an autocorrelation by lag needs occasions that are counted",
            "leave time out to count rows, or use hl.semivariogram(fit), whose lags are in continuous time",
            SEE,
        )
    if acf and max_lag is None:
        longest = int(fit.design.rows_per_subject.max())
        max_lag = max(1, min(longest - 1, int(10.0 * math.log10(longest)))) if count_rows else None
    pairs = make_pairs(fit, position, count_rows=count_rows, bins=bins, max_lag=max_lag, time=name)
    statistic = _autocorrelation if acf else _semivariance
    linear = linear_residuals(fit, pairs.subjects, level, kind)
    y = fit.design.y - fit.design.offset
    r = linear.residuals([y[rows][:, None] for rows in pairs.subjects])[:, 0]
    observed = statistic(pairs, r)
    expected, square = _expected(pairs, linear.S, result)
    rng = np.random.default_rng(seed)
    scale, ratio, ratio_p, failed = 1.0, math.nan, math.nan, 0
    if refit:
        deviations, failed = _refitted(fit, pairs, linear, level, kind, result, statistic, simulations, rng)
    else:
        columns = linear.simulated(simulations, rng)
        found = np.array([statistic(pairs, c) for c in columns.T])
        if not acf:
            all_of = np.vstack([observed, found])
            level_of = (all_of @ pairs.count) / (expected @ pairs.count)
            squares = np.append(np.mean(r * r), np.mean(columns**2, axis=0)) / square
            ratios = level_of / squares
            found, scale, ratio = found / level_of[1:, None], float(level_of[0]), float(ratios[0])
            ratio_p = min(1.0, 2.0 * min(float(np.mean(ratios >= ratio)), float(np.mean(ratios <= ratio))))
        deviations = found - expected
    table, p_value = _bands(pairs, result.column, observed, expected, deviations, scale, ci)
    structure = getattr(fit.design, "residual", None)
    serial = fit.estimator != "GEE" and structure is not None
    return result(
        table,
        p_value,
        float(np.mean(r * r)),
        square,
        ratio,
        ratio_p,
        level,
        kind,
        name,
        ci,
        len(deviations),
        refit,
        fit.estimator,
        fit.design.hierarchy.response,
        _correlation_words(fit),
        serial,
        _note(fit, ci, len(deviations), refit, failed),
    )


def _request(
    fit: Any, level: str | None, kind: str, ci: float, simulations: int, refit: bool, max_lag: float | None
) -> str:
    if not isinstance(fit, Fit):
        raise SpecificationError(
            f"a {type(fit).__name__}", "this looks at the residuals of a fit", "pass a fit: model.fit_reml()", SEE
        )
    level = ("subject" if fit.has_random_effects else "population") if level is None else level
    choose("level", level, ("subject", "population"))
    choose("kind", kind, KINDS)
    if level == "subject" and not fit.has_random_effects:
        raise NotAvailableError(
            "level='subject' of a fit without random effects",
            "it has no subject's own line",
            "use level='population', or fit a hierarchy, hl.TwoLevelModel",
            SEE,
        )
    if not 0.0 < ci < 1.0:
        raise SpecificationError(
            f"ci={ci!r}", "the probability of a band lies between 0 and 1", "use ci=0.95 for 95 %", SEE
        )
    if simulations < math.ceil(1.0 / (1.0 - ci)) or simulations != int(simulations):
        raise SpecificationError(
            f"simulations={simulations!r}",
            f"a {100 * ci:g} % band needs at least {math.ceil(1.0 / (1.0 - ci))} simulated data sets",
            "use simulations=500",
            SEE,
        )
    if max_lag is not None and not max_lag > 0:
        raise SpecificationError(f"max_lag={max_lag!r}", "a lag is positive", "use a larger max_lag", SEE)
    if refit and not hasattr(fit, "criterion_function"):
        raise NotAvailableError(
            f"refit=True of a fit by {fit.estimator}",
            "refitting every simulated data set is done for REML and ML only",
            "leave refit out, or use model.fit_reml()",
            SEE,
        )
    return level


def _refitted(
    fit: Any,
    pairs: Pairs,
    linear: LinearResiduals,
    level: str,
    kind: str,
    result: type[SerialCheck],
    statistic: Callable[[Pairs, FloatArray], FloatArray],
    simulations: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, int]:
    """Deviations from the curve of their own fit, of simulated data sets that are each fitted anew."""
    from hierlmm.likelihood.estimate import maximise_design

    design = fit.design
    order = np.concatenate(pairs.subjects)
    mean = design.offset + design.X @ fit.beta.to_numpy()
    found, failed = [], 0
    for _ in range(simulations):
        y = mean.copy()
        y[order] += np.concatenate([L @ rng.standard_normal(len(L)) for L in linear.root])
        again = maximise_design(design.with_response(y), reml=fit.reml)
        if not again.optimum.converged:
            failed += 1
            continue
        new = type(fit)(again.design, again.criterion, again.optimum, ())
        own = linear_residuals(new, pairs.subjects, level, kind)
        shifted = y - design.offset
        r = own.residuals([shifted[rows][:, None] for rows in pairs.subjects])[:, 0]
        found.append(statistic(pairs, r) - _expected(pairs, own.S, result)[0])
    if len(found) < 0.9 * simulations:
        raise NotAvailableError(
            f"refit=True: {failed} of {simulations} simulated data sets could not be fitted",
            "the band would rest on the others, which are no random sample",
            "leave refit out, or simplify the model",
            SEE,
        )
    return np.array(found), failed


def _bands(
    pairs: Pairs,
    column: str,
    observed: FloatArray,
    expected: FloatArray,
    deviations: FloatArray,
    scale: float,
    ci: float,
) -> tuple[pd.DataFrame, float]:
    """Table by lag and p-value of the largest deviation; the bands stand at ``scale`` times the expected level."""
    tail = 0.5 * (1.0 - ci)
    lower, upper = scale * (expected + np.quantile(deviations, [tail, 1.0 - tail], axis=0))
    # The data are one more draw: with them in the pool all draws are exchangeable under the model.
    pool = np.vstack([observed / scale - expected, deviations])
    centre, sd = pool.mean(axis=0), pool.std(axis=0)
    sd = np.where(sd > 1e-12 * np.max(np.abs(expected), initial=0.0), sd, np.inf)
    largest = np.max(np.abs(pool - centre) / sd, axis=1)
    p_value = float(np.mean(largest >= largest[0] * (1.0 - 1e-12)))
    reach = float(np.quantile(largest, ci, method="higher")) * np.where(np.isfinite(sd), sd, 0.0)
    low, high = scale * (expected + centre - reach), scale * (expected + centre + reach)
    if column == Semivariogram.column:
        low = np.maximum(low, 0.0)
    outside = ((observed < low) | (observed > high)) & np.isfinite(sd) & (p_value <= 1.0 - ci)
    table = pd.DataFrame(
        {
            "lag": pairs.lag,
            "from": pairs.low,
            "to": pairs.high,
            "pairs": pairs.count.astype(int),
            column: observed,
            "expected": expected,
            "lower": lower,
            "upper": upper,
            "lower_all": low,
            "upper_all": high,
            "outside": outside,
        }
    )
    return table, p_value


# --- words --------------------------------------------------------------------------------------------------------


def _correlation_words(fit: Any) -> str:
    if fit.estimator == "GEE":
        return f"working correlation {fit.correlation}"
    structure = fit.design.residual
    return "independent residuals" if structure is None else f"residual correlation {spec_text(structure)}"


def _note(fit: Any, ci: float, n: int, refit: bool, failed: int) -> str:
    words = f"Bands: {100 * ci:g} %, {n} data sets simulated under the fitted model"
    if refit:
        words += ", each fitted anew"
        return words + (f" ({failed} did not converge and are left out)." if failed else ".")
    at = {"NUTS": "posterior means", "Bambi": "posterior means"}.get(fit.estimator, "estimates")
    return words + f", the shape of the covariance held at its {at}."


def _p(value: float) -> str:
    return f"p = {value:.3g}" if value >= 0.001 else "p < 0.001"


def _verdict(check: SerialCheck) -> str:
    return " ".join(part for part in (_scale_words(check), _lag_words(check)) if part)


def _scale_words(check: SerialCheck) -> str:
    """On the level of a semivariogram, where the model could not fit it."""
    if not check.scale_p_value <= 1.0 - check.ci:
        return ""
    more = check.scale_ratio < 1.0
    words = (
        f"Pairs at all lags are {'more' if more else 'less'} alike than the fitted model says: relative to the mean "
        f"square their semivariance is {check.scale_ratio:.3g} times what is expected ({_p(check.scale_p_value)})."
    )
    return words if more else words + " Negative correlation within subjects, or unequal variances, can look like this."


def _lag_words(check: SerialCheck) -> str:
    """On single lags, where they stand out of all of them."""
    p, table = _p(check.p_value), check.table
    said = bool(_scale_words(check))
    if len(table) == 1 and not math.isnan(check.scale_ratio):
        return "" if said else "There is one lag only, and its level is what the fitted model expects."
    if not table["outside"].any():
        if said:
            return f"Beyond that no lag stands out ({p} for all lags together)."
        return (
            f"No lag stands out ({p} for all lags together): what these residuals have in common by lag is what the "
            "fitted model expects. That is no proof that nothing is there."
        )
    sign = check._alike()
    parts: list[str] = []
    for value, word in ((1.0, "more"), (-1.0, "less")):
        chosen = table[table["outside"] & (sign == value)]
        if not len(chosen):
            continue
        worst = chosen.iloc[int(np.argmax(np.abs(chosen[check.column] - chosen["expected"])))]
        lags = shorten([f"{v:.3g}" for v in chosen["lag"]])
        parts.append(
            f"{'pairs' if parts else 'Pairs'} at lag {lags} ({check.time}) are {word} alike than the fitted model says "
            f"({check.column} {worst[check.column]:.3g} at lag {worst['lag']:.3g}, {worst['expected']:.3g} expected)"
        )
    words = "; ".join(parts) + f"; {p} for all lags together."
    early = bool(table["outside"].iloc[0] and sign[0] > 0)
    if early and not check.serial and check.estimator != "GEE":
        words += (
            " A serial correlation (residual=hl.Exponential(...) or hl.AR1()) is a candidate; so are random slopes and "
            "a mean that bends, which look alike here. Fit them and compare."
        )
    elif check.serial:
        words += " The residual correlation of the model does not have the right shape."
    return words
