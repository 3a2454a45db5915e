"""What every fit answers, whatever made it.

A subclass supplies point estimates (``beta``, ``sigma``, ``D``, ``b``) and their uncertainty; everything that follows
from these by arithmetic (fitted values, residuals, the subjects' own regressions, the marginal covariance) is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design import Design, level2_prediction
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.frames import quote

__all__ = ["INTERVALS", "Fit", "Level", "choose"]

FloatArray = NDArray[np.float64]
Level = Literal["subject", "population"]
INTERVALS = ("confidence", "credible", "prediction")


class Fit(ABC):
    """A fitted two-level model (frozen: nothing on it changes after it was made)."""

    design: Design
    estimator: str
    warnings: tuple[str, ...]

    @property
    @abstractmethod
    def beta(self) -> pd.Series:
        """Fixed effects, Series by ``coef``."""

    @property
    @abstractmethod
    def beta_cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, ``coef`` × ``coef``."""

    @property
    @abstractmethod
    def sigma(self) -> float:
        """Residual standard deviation, in units of the response."""

    @property
    @abstractmethod
    def D(self) -> pd.DataFrame:
        """Covariance of the random effects, ``term`` × ``term``."""

    @property
    @abstractmethod
    def b(self) -> pd.DataFrame:
        """Random effects, ``subject`` × ``term``: BLUPs or posterior means."""

    @property
    @abstractmethod
    def b_sd(self) -> pd.DataFrame:
        """Uncertainty of the random effects, ``subject`` × ``term``."""

    @property
    @abstractmethod
    def converged(self) -> bool:
        """Whether the algorithm reached what it was looking for."""

    @abstractmethod
    def summary(self, ci: float = 0.95) -> pd.DataFrame:
        """Fixed effects with uncertainty and interval."""

    @abstractmethod
    def variance_components(self, ci: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of the random effects and the residual SD."""

    @abstractmethod
    def to_datatree(self) -> Any:
        """Draws in the contract's names and dimensions, for any ArviZ function."""

    @property
    def beta_se(self) -> pd.Series:
        """Standard errors (or posterior SDs) of the fixed effects, Series by ``coef``."""
        return pd.Series(np.sqrt(np.diag(self.beta_cov)), index=self.beta.index, name="se")

    @property
    def sd_b(self) -> pd.Series:
        """Standard deviations of the random effects, Series by ``term``."""
        return pd.Series(np.sqrt(np.diag(self.D)), index=self.D.index, name="sd_b")

    @property
    def corr_b(self) -> pd.DataFrame:
        """Correlations of the random effects; undefined (NaN) where a standard deviation is zero."""
        sd = self.sd_b.to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            corr = self.D.to_numpy() / np.outer(sd, sd)
        corr[np.diag_indices_from(corr)] = 1.0
        return pd.DataFrame(np.clip(corr, -1.0, 1.0), index=self.D.index, columns=self.D.columns)

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.design.n_obs

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.design.n_subjects

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Each subject's own level-1 regression, ``subject`` × level-1 coefficient (lme4's ``coef()``)."""
        design = self.design
        values = level2_prediction(design, self.beta.to_numpy())
        values[:, design.term_level1] += self.b.to_numpy()  # every random effect has a level-1 column of its own
        return pd.DataFrame(values, index=design.subjects, columns=list(design.level1))

    def fitted(self, level: Level = "subject") -> pd.Series:
        """Fitted values of the rows used, with the subjects' effects or at b = 0 (``"population"``)."""
        choose("level", level, ("subject", "population"))
        design = self.design
        values = design.offset + design.X @ self.beta.to_numpy()
        if level == "subject" and design.term:
            values = values + np.einsum("ij,ij->i", design.Z, self.b.to_numpy()[design.subject_index])
        return pd.Series(values, index=design.frame.index, name="fitted")

    def residuals(
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: Level = "subject"
    ) -> pd.Series:
        """Residuals of the rows used.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            In units of the response; divided by the row's residual SD (σ, lme4's scaled residuals, times its variance
            function; at the population level by each row's marginal SD); or, ``"normalized"``, with the correlation
            taken out as well: ``L⁻¹ r_i`` with ``Σ_i = L L'`` at the subject level (as in nlme) and ``V_i = L L'`` at the
            population level. With independent residuals, ``"normalized"`` equals ``"pearson"`` at the subject level.
        level : {"subject", "population"}
            Around the subject's own line, or around the population line.
        """
        choose("kind", kind, ("response", "pearson", "normalized"))
        residual = self.design.y - self.fitted(level).to_numpy()
        if kind != "response":
            residual = self._by_residual(residual, kind) if level == "subject" else self._by_marginal(residual, kind)
        return pd.Series(residual, index=self.design.frame.index, name=f"{kind} residual")

    @property
    def residual_estimate(self) -> ResidualEstimate | None:
        """Estimated structure of the level-1 residuals; None where they are independent with equal variance."""
        return None

    @property
    def _D_values(self) -> FloatArray:
        """D as an array, (0, 0) without random effects."""
        return self.D.to_numpy()

    def _by_residual(self, residual: FloatArray, kind: str) -> FloatArray:
        """Divide residuals by their SD, or by a factor of Σ_i."""
        structure = self.residual_estimate
        if structure is None:
            return residual / self.sigma
        if kind == "pearson":
            return residual / (self.sigma * structure.sd_ratio(self.design.frame, self.design.variance_fitted))
        from hierlmm.likelihood.residual_rows import whiten_columns

        return whiten_columns(structure, residual[:, None])[0][:, 0] / self.sigma

    def _by_marginal(self, residual: FloatArray, kind: str) -> FloatArray:
        """Divide residuals by their marginal SD, or by a factor of V_i."""
        if not self.design.term:
            return self._by_residual(residual, kind)
        design, D, structure = self.design, self._D_values, self.residual_estimate
        if kind == "pearson":
            ratio = 1.0 if structure is None else structure.sd_ratio(design.frame, design.variance_fitted)
            variance = np.einsum("ij,jk,ik->i", design.Z, D, design.Z) + (self.sigma * ratio) ** 2
            return residual / np.sqrt(variance)
        result = np.empty_like(residual)
        order = np.argsort(design.subject_index, kind="stable")
        for rows in np.split(order, np.cumsum(design.rows_per_subject)[:-1]):
            V = design.Z[rows] @ D @ design.Z[rows].T + self._residual_covariance(rows)
            result[rows] = np.linalg.solve(np.linalg.cholesky(V), residual[rows])
        return result

    def _residual_covariance(self, rows: NDArray[np.intp]) -> FloatArray:
        """Σ_i of the fitted rows of one subject, (n, n)."""
        structure, fitted = self.residual_estimate, self.design.variance_fitted
        if structure is None:
            return self.sigma**2 * np.eye(len(rows))
        own = None if fitted is None else fitted[rows]
        return self.sigma**2 * structure.covariance(self.design.frame.iloc[rows], own)

    def marginal_covariance(self, subject: Any = None) -> pd.DataFrame:
        """Implied marginal covariance ``V_i = Z_i D Z_i' + Σ_i`` of one subject (the first by default)."""
        design = self.design
        label = design.subjects[0] if subject is None else subject
        if label not in design.subjects:
            raise DataError(
                f"subject {quote(label)}",
                "it is not in the fitted data",
                "use a label of fit.b.index",
            )
        rows = np.flatnonzero(design.subject_index == design.subjects.get_loc(label))
        V = design.Z[rows] @ self._D_values @ design.Z[rows].T + self._residual_covariance(rows)
        index = design.frame.index[rows]
        return pd.DataFrame(V, index=index, columns=index)

    def compare_marginal(
        self, correlation: str = "exchangeable", *, time: Any = None, scale: str = "n-p", ci: float = 0.95, **gee: Any
    ) -> Any:
        """Set this fit of the mixed model against GEE: estimates; mixed, naive, robust and bias-reduced se.

        Parameters
        ----------
        correlation, time, scale, **gee
            As in ``TwoLevelModel.fit_gee``.
        ci : float
            Probability of the intervals.

        Returns
        -------
        MarginalComparison
            ``.table``, a text and HTML view, ``.plot_forest()``.
        """
        from hierlmm.against_gee import compare_marginal

        return compare_marginal(self, correlation, time=time, scale=scale, ci=ci, **gee)

    def loo(self, unit: Literal["subject", "observation"] = "subject") -> Any:
        """Leave-one-out cross-validation without refitting, for a posterior.

        Raises
        ------
        NotAvailableError
            If the fit is no posterior.
        """
        raise NotAvailableError(
            f"loo of a fit by {self.estimator}",
            "it reweights draws from a posterior, and this fit has none",
            "use model.fit().loo(); to compare likelihood fits use their AIC (by ML where fixed effects differ)",
            "docs, page 'Posterior fits'",
        )

    def blup_variances(self, covariances: bool = False) -> Any:
        """Variance of the BLUPs, conditional variance and prediction-error variance, of a likelihood fit.

        Raises
        ------
        NotAvailableError
            If the fit is by another estimator.
        """
        raise NotAvailableError(
            f"blup_variances of a fit by {self.estimator}",
            "the three variances differ in what a likelihood fit takes as known (β, θ); a posterior of b has one variance, "
            "which includes the uncertainty of both",
            "use fit.b_sd ** 2, or model.fit_reml().blup_variances()",
            "docs, page 'Teaching'",
        )

    @property
    def icc(self) -> float:
        """Share of the intercept variance in the total at the origin of the level-1 covariates, D₀₀ / (D₀₀ + σ²).

        With random slopes the share changes with the covariates; this is its value where they are zero.
        """
        if "Intercept" not in self.D.index:
            raise SpecificationError(
                "icc of a model without a random intercept",
                "the intra-class correlation compares the intercept variance with the total",
                "add a random intercept, or read the correlations off fit.marginal_covariance()",
            )
        k = self.design.term.index("Intercept")
        variance = float(self.D.to_numpy()[k, k])
        return variance / (variance + self.sigma**2)

    # Plots: thin doors to hierlmm.plots, which knows fits; imported when called.

    def plot_trajectories(self, **options: Any) -> Any:
        """Data, subject lines and population line; see `hierlmm.plots.plot_trajectories`."""
        from hierlmm.plots import plot_trajectories

        return plot_trajectories(self, **options)

    def plot_random_effects(self, **options: Any) -> Any:
        """Random effects with intervals, sorted; see `hierlmm.plots.plot_random_effects`."""
        from hierlmm.plots import plot_random_effects

        return plot_random_effects(self, **options)

    def plot_shrinkage(self, **options: Any) -> Any:
        """Separate, pooled and partially pooled regressions; see `hierlmm.plots.plot_shrinkage`."""
        from hierlmm.plots import plot_shrinkage

        return plot_shrinkage(self, **options)

    def plot_forest(self, **options: Any) -> Any:
        """Estimates with intervals; see `hierlmm.plots.plot_forest`."""
        from hierlmm.plots import plot_forest

        return plot_forest(self, **options)

    def plot_posterior(self, **options: Any) -> Any:
        """Densities of the parameters; see `hierlmm.plots.plot_posterior`."""
        from hierlmm.plots import plot_posterior

        return plot_posterior(self, **options)


def choose(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a `SpecificationError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise SpecificationError(
            f"{name}={value!r}", "this is not one of the choices", f"use one of {', '.join(map(repr, allowed))}"
        )
