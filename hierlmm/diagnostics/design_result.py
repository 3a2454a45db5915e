"""The result of a design analysis: power and precision by number of subjects, and in words (see `design_analysis`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from hierlmm.diagnostics.replicate import Failure, probability
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.families.family import Family
from hierlmm.families.gaussian import Gaussian
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer

LEAST_POWER = 0.3  # a power below says more about the level of the test than about the effect
FURTHEST = 2.0  # an answer beyond so many times the largest size is not given
EXTRAPOLATION = 0.2  # relative error allowed to the noncentrality when the answer is e times the nearest size
SHOWN = ["true", "power", "power_mcse", "width", "bias", "coverage", "type_s", "type_m", "failed"]
SAY = sayer(__file__)


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
    family : Family
        Distribution of the response; coefficients are on the scale of its link.
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
    family: Family = field(default_factory=Gaussian)

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
        what = SAY("planning.no_effect" if true == 0 else "planning.effect")
        remedy = "lower dropout or more subjects" if self.dropout else "more subjects or occasions"
        sizes = list(self.singular)
        first = {sizes[f.number // self.simulations]: f.reason for f in reversed(self.failures)}
        lines = [f"{coef}, true value {true:g}"]
        for size, (_, row) in zip(sizes, own.iterrows(), strict=True):
            failed = {"failed": _failed(row), "first": first.get(size)}
            if row["n_used"] < 2:
                lines.append(SAY("planning.unfitted", size=size, remedy=remedy, **failed))
                continue
            slots = {"power": row["power"], "mcse": row["power_mcse"], "width": row["width"]}
            lines.append(SAY("planning.power", size=size, what=what, percent=100 * (1 - self.alpha), **slots))
            if true != 0 and row["power"] < 0.5 and np.isfinite(row["type_m"]):
                lines.append(SAY("planning.exaggeration", m=row["type_m"], s=100 * row["type_s"]))
            if row["failed"] > 0:
                lines.append(SAY("planning.left_out", **failed))
        if true != 0:
            lines.append(f"  for a chance of 0.80: {self._needed_sentence(coef, needed)}")
        return lines

    def _needed_sentence(self, coef: str, needed: pd.Series) -> str:
        own = self._fitted(coef)
        sizes, power = own.index.to_numpy(dtype=int), own["power"].to_numpy()
        least, largest = sizes.min(), sizes.max()
        n, lower, upper = needed[["n_subjects", "lower", "upper"]]
        if np.isfinite(n):
            far = FURTHEST * largest
            most = f"{upper:z.0f}" if upper <= far else f"more than {far:z.0f}"
            return SAY("needed.about", n=n, lower=lower, upper=most, check="" if least <= n <= largest else f"{n:z.0f}")
        enough = sizes[power == 1.0]
        if len(enough) and power[0] >= LEAST_POWER:
            return SAY("needed.enough", n=least)
        if len(enough):
            return SAY("needed.between", low=sizes[power < LEAST_POWER].max(), high=enough.min())
        if largest < max(self.singular):
            return SAY("needed.failed")
        return SAY("needed.larger", a=2 * largest, b=4 * largest, c=8 * largest)

    def notes(self) -> list[str]:
        """What must be known to read the numbers."""
        direction = SAY(f"planning_notes.{self.alternative}")
        notes = [SAY("planning_notes.test", alpha=self.alpha, direction=direction)]
        gaussian = self.family.name == "gaussian"
        if not gaussian:
            notes.append(SAY("planning_notes.family", link=self.family.link))
        notes.append(
            SAY(f"planning_notes.{self.quantiles}" if gaussian else f"planning_notes.{self.quantiles}_of_family")
        )
        if self.dropout:
            notes.append(SAY("planning_notes.dropout", dropout=self.dropout))
        boundary = [f"{100 * v:z.0f} % with {size} subjects" for size, v in self.singular.items() if v > 0.05]
        if boundary:
            t = SAY("planning_notes.inexact") if self.quantiles == "t" and gaussian else ""
            notes.append(SAY("planning_notes.boundary", shares=", ".join(boundary), t=t))
        if self.failures:
            total = self.simulations * len(self.singular)
            notes.append(SAY("planning_notes.failures", n=len(self.failures), total=total))
        return notes

    def _page(self) -> Page:
        of = "" if self.family.name == "gaussian" else f" (Laplace approximation), {self.family.title} response"
        how = f"{self.estimator}{of}, {self.simulations} simulated studies for each size; {self.seconds:z.1f} s"
        table = Table(self.table[SHOWN], caption="By number of subjects and coefficient", index=True, number=".3g")
        notes = [Paragraph(f"Note: {note}") for note in self.notes()]
        return Page(f"Design analysis: {self.formula}\n{how}", ["", *self.sentences, table, "", *notes])

    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw power and expected interval width against the number of subjects, with 95 % Monte-Carlo bands.

        Sizes of which no study could be fitted are left out.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.results import plot_power

        return plot_power(replace(self, table=self.table[self.table["n_used"] >= 2]), figure)


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
