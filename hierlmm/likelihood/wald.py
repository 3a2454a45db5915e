"""Tests of linear functions of the fixed effects: ``L β = v`` against a t or an F distribution.

One row l gives ``t = (l'β̂ - v) / √(l'Φ l)`` with the degrees of freedom that a method finds for it; r rows give

    F = s (Lβ̂ - v)' (L Φ L')⁻¹ (Lβ̂ - v) / r      on r and d degrees of freedom.

Φ is the covariance of β̂ given θ, or adjusted for θ being estimated (Kenward-Roger); the scale s is 1 but for
Kenward-Roger. With normal quantiles d is infinite. The methods stand in `satterthwaite` and `kenward_roger`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.errors import SpecificationError

RANK_TOLERANCE = 1e-9
PART = 0.01
"""Share of a variance that may be missing from it: the standard error is too small by half of that."""
METHODS = ("satterthwaite", "kenward-roger", "kenward-roger-linear", "residual", "normal")
SYNONYMS = {"inf": "normal", "asymptotic": "normal", "z": "normal", "kr": "kenward-roger"}
ERRORS = ("model", "empirical", "empirical-jackknife", "empirical-bias-reduced")
"""Where standard errors come from: the covariance of the model, or the subjects' scores."""
ERRORS_SYNONYMS = {
    "sandwich": "empirical",
    "cr0": "empirical",
    "cr2": "empirical-bias-reduced",
    "cr3": "empirical-jackknife",
}
"""The names of R's clubSandwich."""
SEE = "docs, page 'Contrasts'"


def df_advised(reml: bool) -> str:
    """The best method for a fit by REML or ML: Kenward and Roger's corrects estimates by REML alone."""
    return "kenward-roger" if reml else "satterthwaite"


class Degrees(Protocol):
    """A method for degrees of freedom."""

    def of_rows(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row of L alone: (k, p) -> (k,)."""

    def of_all(self, L: FloatArray) -> tuple[float, float]:
        """Scale of F and its denominator degrees of freedom for all rows of L together, (r, p) of full rank."""


@dataclass(frozen=True)
class FixedDegrees:
    """The same degrees of freedom for every function of β: infinite (normal quantiles), or N - p."""

    value: float

    def of_rows(self, L: FloatArray) -> FloatArray:
        """As `Degrees.of_rows`."""
        return np.full(len(L), self.value)

    def of_all(self, L: FloatArray) -> tuple[float, float]:
        """As `Degrees.of_all`."""
        return 1.0, self.value


class Asked(NamedTuple):
    """How linear functions of β are to be judged: degrees of freedom and standard errors by name, None by default."""

    df: str | None = None
    se: str | None = None


BY_DEFAULT = Asked()


class JointTest(NamedTuple):
    """An F test: its value, the degrees of freedom, the p-value."""

    F: float
    df1: int
    df2: float
    p: float


@dataclass(frozen=True)
class Wald:
    """What linear functions of β are judged by.

    Attributes
    ----------
    method : str
        Of the degrees of freedom, one of `METHODS`.
    beta : (p,)
    cov : (p, p)
        Φ, adjusted by Kenward and Roger's method, or empirical.
    degrees : Degrees
    notes : tuple of str
        What must be known about the method on these data.
    se : str
        Where the standard errors come from, one of `ERRORS`.
    lost : (k, p)
        Directions of which nothing is known: ``l'β̂`` has no standard error where ``(lost @ l)²`` is more than `PART` of
        its variance by ``model``.
    model : (p, p)
        Covariance of ``beta`` under the model, in units of σ.
    """

    method: str
    beta: FloatArray
    cov: FloatArray
    degrees: Degrees
    notes: tuple[str, ...] = ()
    se: str = "model"
    lost: FloatArray | None = None
    model: FloatArray | None = None

    @property
    def description(self) -> str:
        """The method in words."""
        degrees = {
            "satterthwaite": "Student's t and F with Satterthwaite's degrees of freedom",
            "kenward-roger": "Student's t and F with Kenward and Roger's covariance and degrees of freedom",
            "kenward-roger-linear": "Student's t and F with Kenward and Roger's degrees of freedom and their "
            "covariance without second derivatives",
            "residual": "Student's t and F with N - p degrees of freedom",
            "normal": "normal quantiles (infinite degrees of freedom)",
        }[self.method]
        errors = {
            "model": "",
            "empirical": ", by empirical (sandwich) standard errors without a correction for few subjects",
            "empirical-jackknife": ", by empirical (sandwich) standard errors of the jackknife's kind",
            "empirical-bias-reduced": ", by empirical (sandwich) standard errors with bias reduction",
        }[self.se]
        return degrees + errors

    def rows(self, L: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Estimate, standard error and degrees of freedom of each row: (k, p) -> three (k,)."""
        se = np.sqrt(np.maximum(np.einsum("ka,ab,kb->k", L, self._known, L), 0.0))
        lost = self._lost(L)
        se[lost] = np.nan
        df = np.where(lost, np.nan, np.inf)
        known = se > 0.0
        if known.any():
            df[known] = self.degrees.of_rows(L[known])
        return L @ self.beta, se, df

    @property
    def _known(self) -> FloatArray:
        """The covariance, with zeros where nothing is known."""
        return np.where(np.isnan(self.cov), 0.0, self.cov)

    def _lost(self, L: FloatArray) -> BoolArray:
        """Which rows have a part in coefficients or directions of which nothing is known."""
        if self.lost is None or self.model is None:
            return np.asarray(np.any(L[:, np.isnan(np.diag(self.cov))] != 0.0, axis=1))
        size = np.einsum("ka,ab,kb->k", L, self.model, L)
        return np.asarray(np.any(PART * size[:, None] < (L @ self.lost.T) ** 2, axis=1))

    def joint(self, L: FloatArray, value: FloatArray | float = 0.0) -> JointTest:
        """F test of ``L β = value``, all rows together; rows that follow from the others count once.

        Raises
        ------
        SpecificationError
            If the rows contradict each other.
        """
        v = np.broadcast_to(np.asarray(value, dtype=np.float64), (len(L),))
        L, v = independent_rows(L, v)
        if self._lost(L).any():
            return JointTest(np.nan, len(L), np.nan, np.nan)
        difference = L @ self.beta - v
        scale, df2 = self.degrees.of_all(L)
        F = scale * float(difference @ np.linalg.solve(L @ self._known @ L.T, difference)) / len(L)
        p = chi2.sf(F * len(L), len(L)) if np.isinf(df2) else f_distribution.sf(F, len(L), df2)
        return JointTest(F, len(L), df2, float(p))


def independent_rows(L: FloatArray, value: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows that span all others, the first ones where there is a choice.

    Raises
    ------
    SpecificationError
        If a row that depends on the others demands another value than they imply, or all rows are zero.
    """
    kept: list[int] = []
    for i, row in enumerate(L):
        size = float(np.linalg.norm(row))
        basis = L[kept]
        weights = np.linalg.lstsq(basis.T, row, rcond=None)[0] if kept else np.empty(0)
        if np.linalg.norm(row - weights @ basis) > RANK_TOLERANCE * max(size, 1e-300):
            kept.append(i)
            continue
        implied = float(weights @ value[kept]) if kept else 0.0
        if abs(implied - value[i]) > 1e-8 * max(1.0, abs(value[i]), abs(implied)):
            received = f"{len(L)} hypotheses of which number {i + 1} contradicts the others"
            reason = f"they imply {implied:.6g} where it says {value[i]:.6g}, so no coefficients fulfil all"
            raise SpecificationError(received, reason, "leave one of them out", SEE)
    if not kept:
        received, remedy = "a hypothesis in which no coefficient is left", "check the signs and names"
        raise SpecificationError(received, "all coefficients cancel, so there is nothing to test", remedy, SEE)
    return L[kept], value[kept]


def method_name(df: str) -> str:
    """The method that a user's word stands for.

    Raises
    ------
    SpecificationError
        If it is none.
    """
    name = str(df).lower().replace("_", "-")
    name = SYNONYMS.get(name, name)
    if name not in METHODS:
        remedy = f"use one of {', '.join(map(repr, METHODS))} ('inf' means 'normal')"
        raise SpecificationError(f"df={df!r}", "this is no method for degrees of freedom", remedy, SEE)
    return name


def errors_name(se: str | None) -> str:
    """The kind of standard errors that a user's word stands for.

    Raises
    ------
    SpecificationError
        If it is none.
    """
    name = "model" if se is None else str(se).lower().replace("_", "-")
    name = ERRORS_SYNONYMS.get(name, name)
    if name not in ERRORS:
        remedy = f"use one of {', '.join(map(repr, ERRORS))}"
        raise SpecificationError(f"se={se!r}", "this is no kind of standard errors", remedy, SEE)
    return name


def two_sided(t: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided p-values."""
    return np.asarray(2.0 * t_distribution.sf(np.abs(t), df))
