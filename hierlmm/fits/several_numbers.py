"""What every fit with several grouping factors says, whatever estimated it: by factor what is by subject elsewhere.

y = Xβ + Σ_k Z_k b_k + e,      b_kj ~ N(0, D_k) for every group j of factor k,      e ~ N(0, σ²I)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.factors import factors_at, finest_first, own_part
from hierlmm.design.formula import INTERCEPT
from hierlmm.design.rows import RandomTerm
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.fits.base import Fit, corr_of, sd_of
from hierlmm.fits.by_factor import ByFactor
from hierlmm.fits.several import SEE
from hierlmm.frames import quote, shorten
from hierlmm.likelihood.wald import df_advised
from hierlmm.options import checked, choose

MOST_SHOWN = 20
"""Rows of which the marginal covariance is given where none are named."""


@checked
class FactorNumbers(Fit):
    """The numbers of a fit with several grouping factors that follow from D, b, β and σ."""

    @property
    @abstractmethod
    def _D_values(self) -> FloatArray:
        """D of all factors, block diagonal, (q, q)."""

    @abstractmethod
    def _effects(self, k: int) -> FloatArray:
        """Random effects of factor k, (J, q)."""

    @property
    def _named_in_refusals(self) -> dict[str, str]:
        first = self.design.random[0].columns.group
        return {"factor": quote(first), "df": df_advised(self.estimator == "REML")}

    def _of_factors[T](self, name: str, value: Callable[[int, RandomTerm], T]) -> ByFactor[T]:
        own = enumerate(self.design.random)
        return ByFactor(name, {term.columns.group: value(k, term) for k, term in own})

    @cached_property
    def D(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Covariance of the random effects by factor, ``fit.D["batch"]``: ``term`` × ``term``."""
        return self._of_factors("D", lambda k, term: square(term, self._D_values[own_part(self.design, k)]))

    @property
    def sd_b(self) -> ByFactor[pd.Series]:  # type: ignore[override]
        """Standard deviations of the random effects by factor: Series by ``term``."""
        return ByFactor("sd_b", {name: sd_of(D) for name, D in self.D.items()})

    @property
    def corr_b(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Correlations of the random effects by factor; undefined (NaN) where a standard deviation is zero."""
        return ByFactor("corr_b", {name: corr_of(D) for name, D in self.D.items()})

    @cached_property
    def b(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Random effects by factor, ``fit.b["batch"]``: ``group`` × ``term``, means or modes given y and estimates."""
        return self._of_factors("b", lambda k, term: by_group(term, self._effects(k)))

    @property
    def n_groups(self) -> pd.Series:
        """Number of groups of every factor, the finest first."""
        return pd.Series(finest_first(self.design), name="n_groups").rename_axis("factor")

    def fitted(self, level: str = "all") -> pd.Series:
        """Fitted values of the rows used, with the random effects of some factors.

        Parameters
        ----------
        level : str
            ``"all"``: of all factors; ``"population"``: of none; or a factor: its own, and those of the factors that
            it is nested in.
        """
        design, beta = self.design, self.beta.to_numpy()
        values = design.offset + design.X @ beta
        for k in factors_at(design, level):
            term = design.random[k]
            values = values + np.einsum("ij,ij->i", term.Z, self._effects(k)[term.group.index])
        return pd.Series(values, index=design.frame.index, name="fitted")

    def residuals(
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: str = "all"
    ) -> pd.Series:
        """Residuals of the rows used.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            In units of the response; or divided by the SD of what is left in the row: σ at level ``"all"`` (lme4's
            scaled residuals), with the variances of the factors that the level leaves out elsewhere. ``"normalized"``
            takes correlations out too, and is there for level ``"all"``, where nothing is correlated.
        level : str
            As for `fitted`.
        """
        choose("kind", kind, ("response", "pearson", "normalized"))
        residual = self.design.y - self.fitted(level).to_numpy()
        if kind == "normalized" and len(factors_at(self.design, level)) < len(self.design.random):
            received = f"residuals(kind='normalized', level={level!r})"
            reason = "rows that share groups of several factors have no one factor of their covariance to divide by"
            raise NotAvailableError(received, reason, "use kind='pearson', or level='all'", SEE)
        if kind != "response":
            residual = residual / np.sqrt(self._variance_beyond(level))
        return pd.Series(residual, index=self.design.frame.index, name=f"{kind} residual")

    def _variance_beyond(self, level: str) -> FloatArray:
        """Variance of each row around its line at a level, (N,): of the factors left out, and the residual's."""
        variance, inside = np.full(self.n_obs, self.sigma**2), factors_at(self.design, level)
        for k, term in enumerate(self.design.random):
            if k not in inside:
                variance += np.einsum("ij,jk,ik->i", term.Z, self.D[term.columns.group].to_numpy(), term.Z)
        return variance

    def marginal_covariance(self, rows: Any = None) -> pd.DataFrame:
        """Marginal covariance of chosen rows: σ² of each, and of any two what the groups that they share contribute.

        Parameters
        ----------
        rows : label or sequence of labels, optional
            Rows by the index of the data; by default the first 20.
        """
        return self._covariance_of(self._positions(rows))

    def _covariance_of(self, at: IntArray) -> pd.DataFrame:
        """Marginal covariance of the rows at some positions."""
        V = self.sigma**2 * np.eye(len(at))
        for term in self.design.random:
            Z, index = term.Z[at], term.group.index[at]
            own = Z @ self.D[term.columns.group].to_numpy() @ Z.T
            V += np.where(index[:, None] == index, own, 0.0)
        labels = self.design.frame.index[at]
        return pd.DataFrame(V, index=labels, columns=labels)

    def _positions(self, rows: Any) -> IntArray:
        index = self.design.frame.index
        if rows is None:
            return np.arange(min(len(index), MOST_SHOWN))
        if not index.is_unique:
            reason = "labels stand for several rows of the data"
            raise DataError("rows of data with a repeated index", reason, "fit data.reset_index(drop=True)", SEE)
        wanted = pd.Index(rows if pd.api.types.is_list_like(rows) else [rows])
        at = index.get_indexer(wanted)
        if np.any(at < 0):
            received = f"rows {shorten(map(quote, wanted[at < 0]))}"
            remedy = f"use labels of the index of the data, such as {quote(index[0])}"
            raise DataError(received, "no row that was fitted has such a label", remedy, SEE)
        return at.astype(np.intp)

    @property
    def icc(self) -> pd.Series:  # type: ignore[override]
        """Share of the intercept variance of each factor in the total at the origin of the covariates.

        Rows that share groups of several factors (a cask, and so its batch) correlate by the sum of their shares.
        """
        variances = {}
        for name, D in self.D.items():
            if INTERCEPT not in D.index:
                reason = f"the random effects of {name!r} have no intercept, whose variance could be compared"
                remedy = "read fit.marginal_covariance(rows), or add a random intercept"
                raise NotAvailableError("icc", reason, remedy, SEE)
            variances[name] = D.loc[INTERCEPT, INTERCEPT]
        found = pd.Series(variances, name="icc").rename_axis("factor")
        return found / (found.sum() + self.sigma**2)


@checked
class ModesByFactor(FactorNumbers):
    """The same at the maximum of a likelihood, where b has a conditional distribution given y and the estimates."""

    @abstractmethod
    def _covariances(self, k: int) -> FloatArray:
        """Conditional covariances of the random effects of factor k, (J, q, q)."""

    @cached_property
    def b_sd(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Conditional standard deviations of b by factor given y and the estimates (lme4's condVar)."""

        def own(k: int, term: RandomTerm) -> pd.DataFrame:
            # An effect without variance has 0, which rounding may leave below.
            variance = np.einsum("jkk->jk", self._covariances(k))
            return by_group(term, np.sqrt(np.maximum(variance, 0.0)))

        return self._of_factors("b_sd", own)

    @cached_property
    def b_cov(self) -> ByFactor[FloatArray]:
        """Conditional covariances of b by factor given y and the estimates: (J, q, q), groups as in ``b``."""
        return self._of_factors("b_cov", lambda k, _: self._covariances(k))


def terms_of(term: RandomTerm) -> pd.Index:
    """Names of a factor's random effects."""
    return pd.Index(term.columns.names, name="term")


def square(term: RandomTerm, values: FloatArray) -> pd.DataFrame:
    """A matrix of a factor's random effects, ``term`` × ``term``."""
    return pd.DataFrame(values, index=terms_of(term), columns=terms_of(term))


def by_group(term: RandomTerm, values: FloatArray) -> pd.DataFrame:
    """Values of every group of a factor, ``group`` × ``term``."""
    return pd.DataFrame(values, index=term.group.labels, columns=terms_of(term))
