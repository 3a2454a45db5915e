"""The result of a design analysis: power and precision by number of subjects, and in words (see `design_analysis`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from hierlmm.diagnostics.replicate import Failure, probability
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table

LEAST_POWER = 0.3  # a power below says more about the level of the test than about the effect
FURTHEST = 2.0  # an answer beyond so many times the largest size is not given
EXTRAPOLATION = 0.2  # relative error allowed to the noncentrality when the answer is e times the nearest size
SHOWN = ["true", "power", "power_mcse", "width", "bias", "coverage", "type_s", "type_m", "failed"]
DIRECTIONS = {"two-sided": "differs from zero", "greater": "is above zero", "less": "is below zero"}
QUANTILES = {
    "t": "Intervals and tests use t quantiles on between-within degrees of freedom: exact on balanced data only for "
    "studies whose D is not on its boundary, an approximation otherwise.",
    "z": "Intervals and tests use normal quantiles, which overstates power when there are few subjects; quantiles='t' "
    "allows for it.",
    "posterior": "Intervals are equal-tailed posterior intervals; priors are part of the analysis.",
}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class DesignAnalysis(Result):
    """What a planned study can be expected to find.

    Attributes
    ----------
    table : DataFrame
        Index ``n_subjects`` × ``coef``; columns

        ``true``, ``estimate``, ``bias``, ``bias_mcse``
            The assumed value, the mean estimate, their difference and its Monte-Carlo standard error.
        ``sd``, ``se``
            Standard deviation of the estimates, and mean of the standard errors (equal if these are right).
        ``width``, ``width_mcse``
            Expected width of the interval of probability 1 - alpha.
        ``power``, ``power_mcse``, ``power_lower``, ``power_upper``
            Share of studies that reject β = 0 (where the true value is zero, the error rate of the test), its
            Monte-Carlo standard error and 95 % interval (Wilson).
        ``coverage``, ``coverage_mcse``
            Share of intervals that hold the true value.
        ``type_s``, ``type_m``
            Among significant estimates: the share with the wrong sign, and the mean of abs(estimate) / abs(true).
        ``rows``
            Mean number of rows of a study.
        ``failed``, ``n_used``
            Share of simulated studies that could not be fitted, and number of those that could; everything else is
            about the latter, and NaN if they are fewer than two.
    estimator : {"REML", "ML", "NUTS"}
    quantiles : {"t", "z", "posterior"}
        Where intervals come from.
    singular : dict of int to float
        For each size, the share of studies whose D was estimated on the boundary.
    failures : tuple of Failure
    """

    table: pd.DataFrame
    formula: str
    estimator: str
    quantiles: str
    coefs: tuple[str, ...]
    alternative: str
    alpha: float
    dropout: float
    simulations: int
    singular: dict[int, float]
    failures: tuple[Failure, ...]
    seed: int
    seconds: float

    def subjects_needed(self, power: float = 0.8) -> pd.DataFrame:
        """Number of subjects at which a power is reached, from all sizes together.

        The information about β grows in proportion to the number of subjects J, so the power of a test at level alpha
        is about Φ(δ √J - z); δ is estimated by maximum likelihood from the rejections at all sizes with a power of at
        least 0.3 (or `power`, if less). Smaller sizes say more about the level of the test than about the effect.

        Parameters
        ----------
        power : float

        Returns
        -------
        pandas.DataFrame
            By coefficient: ``n_subjects``, and ``lower``, ``upper``, 95 % limits that allow for Monte-Carlo error, for
            sizes that disagree, and for extrapolation. NaN where the sizes do not say: the true value is zero, no size
            reaches a power of 0.3, the answer exceeds twice the largest size, or every study of all sizes used rejects.
            A limit is NaN where there is none.
        """
        rows = {coef: self._needed(coef, probability("power", power)) for coef in self.coefs}
        index = pd.Index(self.coefs, name="coef")
        return pd.DataFrame.from_dict(rows, orient="index", columns=["n_subjects", "lower", "upper"]).set_axis(index)

    def _needed(self, coef: str, power: float) -> list[float]:
        own = self._fitted(coef)
        informative = own[own["power"] >= min(LEAST_POWER, power)]
        unknown = [np.nan] * 3
        if own["true"].iloc[0] == 0 or informative.empty or (informative["power"] == 1.0).all():
            return unknown
        z = float(norm.ppf(1.0 - self.alpha / (2.0 if self.alternative == "two-sided" else 1.0)))
        sizes = informative.index.to_numpy(dtype=float)
        delta, se = _noncentrality(informative, z)
        root = float(norm.ppf(power)) + z
        if not (delta > 0 and root > 0):
            return unknown
        answer = (root / delta) ** 2
        if answer > FURTHEST * sizes.max():
            return unknown
        distance = max(0.0, np.log(answer / sizes.max()), np.log(sizes.min() / answer))
        half = 1.96 * np.hypot(se, EXTRAPOLATION * distance * delta)
        bounds = [d if d > 0 else np.nan for d in (delta, delta + half, delta - half)]
        return [float(np.ceil((root / d) ** 2)) for d in bounds]

    def _own(self, coef: str) -> pd.DataFrame:
        return pd.DataFrame(self.table.xs(coef, level="coef"))

    def _fitted(self, coef: str) -> pd.DataFrame:
        own = self._own(coef)
        return own[own["n_used"] >= 2]

    @cached_property
    def sentences(self) -> list[str]:
        """The result in plain words, a paragraph for each coefficient."""
        needed = self.subjects_needed(0.8)
        return [line for coef in self.coefs for line in self._sentences(coef, needed.T[coef])]

    def _sentences(self, coef: str, needed: pd.Series) -> list[str]:
        own = self._own(coef)
        true = float(own["true"].iloc[0])
        what = "the chance to see an effect that is not there is" if true == 0 else "the chance to see the effect is"
        remedy = "lower dropout or more subjects" if self.dropout else "more subjects or occasions"
        sizes = list(self.singular)
        first = {sizes[f.number // self.simulations]: f.reason for f in reversed(self.failures)}
        lines = [f"{coef}, true value {true:g}"]
        for size, (_, row) in zip(sizes, own.iterrows(), strict=True):
            if row["n_used"] < 2:
                lines.append(f"  with {size} subjects {_failed(row)} (the first because {first[size]}): {remedy}")
                continue
            lines.append(
                f"  with {size} subjects {what} {row['power']:z.2f} ± {row['power_mcse']:z.2f}; the "
                f"{100 * (1 - self.alpha):g} % interval is {row['width']:.3g} wide"
            )
            if true != 0 and row["power"] < 0.5 and np.isfinite(row["type_m"]):
                lines.append(
                    f"    what is significant there is {row['type_m']:z.1f} times the true value on average, and has "
                    f"the wrong sign in {100 * row['type_s']:z.0f} %"
                )
            if row["failed"] > 0:
                lines.append(f"    {_failed(row)} and are left out (the first because {first[size]})")
        if true != 0:
            lines.append(f"  for a chance of 0.80: {self._needed_sentence(coef, needed)}")
        return lines

    def _needed_sentence(self, coef: str, needed: pd.Series) -> str:
        own = self._fitted(coef)
        sizes, power = own.index.to_numpy(dtype=int), own["power"].to_numpy()
        least, largest = sizes.min(), sizes.max()
        if np.isfinite(needed["n_subjects"]):
            far = FURTHEST * largest
            upper = f"{needed['upper']:z.0f}" if needed["upper"] <= far else f"more than {far:z.0f}"
            text = f"about {needed['n_subjects']:z.0f} subjects ({needed['lower']:z.0f} to {upper})"
            if not least <= needed["n_subjects"] <= largest:
                text += f", outside the sizes tried: check with n_subjects={needed['n_subjects']:z.0f}"
            return text
        enough = sizes[power == 1.0]
        if len(enough) and power[0] >= LEAST_POWER:
            return f"{least} subjects, the fewest tried, are already enough"
        if len(enough):
            below = sizes[power < LEAST_POWER].max()
            return f"between {below} and {enough.min()} subjects; try sizes in between"
        if largest < max(self.singular):
            return "the sizes that could be fitted are too small to say; see why larger ones failed"
        larger = f"n_subjects=({2 * largest}, {4 * largest}, {8 * largest})"
        return f"the sizes tried are too small to say; try larger ones, for example {larger}"

    def notes(self) -> list[str]:
        """What must be known to read the numbers."""
        notes = [
            f"To see an effect: a test at level {self.alpha:g} finds that it {DIRECTIONS[self.alternative]}. ± is the "
            "Monte-Carlo standard error.",
            QUANTILES[self.quantiles],
        ]
        if self.dropout:
            notes.append(f"Dropout {self.dropout:g} at every occasion after the first, completely at random.")
        boundary = {size: share for size, share in self.singular.items() if share > 0.05}
        if boundary:
            text = ", ".join(f"{100 * share:z.0f} % with {size} subjects" for size, share in boundary.items())
            words = f"D was estimated on its boundary (singular) in some simulated studies: {text}."
            if self.quantiles == "t":
                words += " There the t test is not exact, and its error rate may differ from the nominal level."
            notes.append(words)
        if self.failures:
            notes.append(
                f"{len(self.failures)} of {self.simulations * len(self.singular)} simulated studies could not be "
                "fitted; power and all else is about those that could."
            )
        return notes

    def _page(self) -> Page:
        how = f"{self.estimator}, {self.simulations} simulated studies for each size; {self.seconds:z.1f} s"
        table = Table(self.table[SHOWN], caption="By number of subjects and coefficient", index=True, number=".3g")
        notes = [Paragraph(f"Note: {note}") for note in self.notes()]
        return Page(f"Design analysis: {self.formula}\n{how}", ["", *self.sentences, table, "", *notes])

    def plot(self, *, backend: str | None = None, figure_kwargs: dict[str, Any] | None = None) -> Any:
        """Draw power and expected interval width against the number of subjects, with 95 % Monte-Carlo bands.

        Sizes of which no study could be fitted are left out.

        Parameters
        ----------
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        figure_kwargs : dict, optional

        Returns
        -------
        arviz_plots.PlotCollection
        """
        from hierlmm.drawing.results import plot_power

        return plot_power(replace(self, table=self.table[self.table["n_used"] >= 2]), backend, figure_kwargs)


def _noncentrality(own: pd.DataFrame, z: float) -> tuple[float, float]:
    """δ and its standard error, enlarged where the sizes disagree more than by chance."""
    root, m = np.sqrt(own.index.to_numpy(dtype=float)), own["n_used"].to_numpy(dtype=float)
    hits = own["power"].to_numpy() * m

    def negative(delta: float) -> float:
        x = delta * root - z
        return -float(np.sum(hits * norm.logcdf(x) + (m - hits) * norm.logsf(x)))

    best = minimize_scalar(negative, bounds=(0.0, 20.0 / root.min()), method="bounded", options={"xatol": 1e-8})
    x = float(best.x) * root - z
    p = np.clip(norm.cdf(x), 1e-12, 1 - 1e-12)
    information = np.sum(m * (norm.pdf(x) * root) ** 2 / (p * (1 - p)))
    excess = float(np.sum((hits - m * p) ** 2 / (m * p * (1 - p) + 0.5))) / max(len(m) - 1, 1)
    return float(best.x), float(np.sqrt(max(1.0, excess) / information))


def _failed(row: pd.Series) -> str:
    """How many simulated studies of a size could not be fitted."""
    if row["n_used"] == 0:
        return "no simulated study could be fitted"
    share = 100 * row["failed"]
    text = f"{share:z.0f}" if share >= 1 else f"{share:.1g}"
    return f"{text} % of the simulated studies could not be fitted"
