"""The parametric bootstrap of a likelihood ratio: its distribution under the smaller model, by simulation.

    T = (criterion of the smaller model) − (criterion of the larger one),      p = (1 + #{T* ≥ T}) / (n + 1)

T* from both models fitted to data drawn from the smaller one at its estimates (Davison & Hinkley 1997, section 4.2).
No χ² is assumed, so that p means what it says at a boundary (a variance of zero) and in small samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.diagnostics.replicate import Failure, whole
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import DataError, SpecificationError
from hierlmm.inference.bootstrap import failures_said
from hierlmm.inference.nesting import same_fixed
from hierlmm.inference.refits import SEE, require_likelihood, simulated_criteria
from hierlmm.inference.rows import refuse_other_rows
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer, table_text

SAY = sayer(__file__)
TIE = 1e-7
"""Difference of two likelihood ratios that is rounding: at a boundary many are zero."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class BootstrapTest(Result):
    """A likelihood ratio with its distribution under the smaller model, simulated.

    Attributes
    ----------
    statistic : float
        T of the data.
    df : int
        Parameters that the smaller model lacks.
    draws : (m,)
        T* of the simulated data sets that could be fitted.
    p : float
        ``(1 + #{T* >= T}) / (m + 1)``.
    mcse : float
        Monte-Carlo standard error of p.
    n : int
        Simulated data sets.
    failures : tuple of Failure
        Those that could not be fitted, and why.
    estimator : {"REML", "ML"}
    seed : int
    smaller, larger : str
        Formulas.
    """

    statistic: float
    df: int
    draws: FloatArray
    n: int
    failures: tuple[Failure, ...]
    estimator: str
    seed: int
    smaller: str
    larger: str

    @property
    def p(self) -> float:
        """``(1 + #{T* >= T}) / (m + 1)`` of the m data sets that could be fitted."""
        return float(1 + np.sum(self.draws >= self.statistic - TIE)) / (len(self.draws) + 1)

    @property
    def mcse(self) -> float:
        """Monte-Carlo standard error of p."""
        return float(np.sqrt(self.p * (1.0 - self.p) / len(self.draws)))

    @property
    def table(self) -> pd.DataFrame:
        """One row: chi2, df, p, mcse, and the number of data sets behind p."""
        row = {"chi2": self.statistic, "df": self.df, "p": self.p, "mcse": self.mcse, "n": len(self.draws)}
        return pd.DataFrame([row], index=["bootstrap"])

    def _page(self) -> Page:
        shown = {"n": len(self.draws), "smaller": self.smaller, "larger": self.larger, "estimator": self.estimator}
        parts: list[Any] = ["", Table(self.table, table_text(self.table, 5).splitlines(), index=True), ""]
        parts.append(Paragraph(SAY("bootstrap_test.how", p=self.p, mcse=self.mcse, **shown)))
        zeros = float(np.mean(self.draws <= TIE))
        if zeros > 0.01:
            parts.append(Paragraph(SAY("bootstrap_test.boundary", share=100.0 * zeros)))
        if self.failures:
            parts.append(Paragraph(failures_said(self.failures, self.n)))
        return Page("Likelihood-ratio test by parametric bootstrap", parts)

    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw the simulated distribution, the value of the data, and the χ² that a table would use.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.bootstrap import plot_bootstrap_test

        return plot_bootstrap_test(self, figure)


def bootstrap_lrt(
    smaller: Any,
    larger: Any,
    n: int = 1000,
    *,
    seed: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
) -> BootstrapTest:
    """Test a fit against a larger one by data simulated from it.

    Parameters
    ----------
    smaller, larger : fits
        By the same estimator of the same rows, the first inside the second. That it is inside, is for the caller to
        know.
    n : int
        Number of simulated data sets.
    seed : int, optional
        The same p every time.
    cores : int, optional
        Threads; by default as many as there are processors.
    progressbar : bool
        Show progress, in a terminal or notebook.

    Returns
    -------
    BootstrapTest

    Raises
    ------
    SpecificationError
        If the fits are not by the same estimator, of one response, or by REML with different fixed effects.
    DataError
        If the fits are not of the same rows, or no simulated data set could be fitted.
    """
    whole("n", n, 1)
    for fit in (smaller, larger):
        require_likelihood(fit, "a bootstrap test")
    _same(smaller, larger)
    statistic = max(smaller.criterion - larger.criterion, 0.0)
    found = simulated_criteria(
        smaller, [smaller, larger], n, seed=seed, cores=cores, progressbar=progressbar, nested=True
    )
    draws = found.criteria[:, 0] - found.criteria[:, 1]
    draws = np.maximum(draws[np.isfinite(draws)], 0.0)
    if not len(draws):
        reason = f"none of {n} could be fitted (the first: {found.failures[0].reason})"
        raise DataError("data simulated from the smaller model", reason, "simplify the models", SEE)
    df = larger.n_parameters - smaller.n_parameters
    formulas = (fit.design.hierarchy.formula for fit in (smaller, larger))
    return BootstrapTest(statistic, df, draws, n, tuple(found.failures), smaller.estimator, found.seed, *formulas)


def _same(smaller: Any, larger: Any) -> None:
    received, a, b = "two fits for a bootstrap test", smaller.design, larger.design
    refuse_other_rows(("the smaller model", "the larger model"), a, b)
    if smaller.estimator != larger.estimator:
        reason = f"one is by {smaller.estimator} and the other by {larger.estimator}"
        raise SpecificationError(received, reason, "fit both by the same estimator", SEE)
    if smaller.estimator == "REML" and not same_fixed(a, b):
        reason = "restricted likelihoods of different fixed effects are of different data"
        raise SpecificationError(received, reason, "fit both by ML: model.fit_ml()", SEE)
