"""What every fit answers, whatever made it.

A subclass supplies point estimates (``beta``, ``sigma``, ``D``, ``b``) and their uncertainty; everything that follows
from these by arithmetic (fitted values, residuals, the subjects' own regressions, the marginal covariance) is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design, level2_prediction
from hierlmm.design.formula import MULTILEVEL
from hierlmm.design.questions import rows_by_subject, rows_of_subject
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.capabilities import LME4, Lack, other_name, refused, said_by_help
from hierlmm.fits.occasions import covariance_by_occasion
from hierlmm.likelihood.wald import FixedDegrees, Wald, errors_name, method_name
from hierlmm.options import checked, choose
from hierlmm.results import Page, Result, Table

Level = Literal["subject", "population"]
INTERVALS = ("confidence", "credible", "prediction")


def sd_of(D: pd.DataFrame) -> pd.Series:
    """Standard deviations of random effects with the covariance D."""
    return pd.Series(np.sqrt(np.diag(D)), index=D.index, name="sd_b")


def check_level(design: Design, level: str, levels: tuple[str, ...]) -> None:
    """Refuse an unknown level of a line; one that a fit with several grouping factors has is told by its name here.

    Raises
    ------
    SpecificationError
    """
    subject = design.hierarchy.subject
    if level not in levels and level in ("all", subject) and "subject" in levels:
        new = ", level='new_subject' for others" if "new_subject" in levels else ""
        reason = (
            f"with one grouping factor the groups of {subject} are the subjects of the fit (and fit.b is one table)"
        )
        raise SpecificationError(f"level={level!r}", reason, f"use level='subject' for known groups{new}", MULTILEVEL)
    choose("level", level, levels)


def corr_of(D: pd.DataFrame) -> pd.DataFrame:
    """Correlations of random effects with the covariance D; NaN where a standard deviation is zero."""
    sd = sd_of(D).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = D.to_numpy() / np.outer(sd, sd)
    corr[np.diag_indices_from(corr)] = 1.0
    return pd.DataFrame(np.clip(corr, -1.0, 1.0), index=D.index, columns=D.columns)


@checked
class Fit(Result):
    """A fitted model: its numbers (frozen: nothing on it changes after it was made)."""

    design: Design
    estimator: str
    warnings: tuple[str, ...]
    lacks: ClassVar[Mapping[str, Lack]] = MappingProxyType({})
    """Names that this kind of fit has nothing for, and why (`hierlmm.fits.capabilities`)."""
    has_draws: ClassVar[bool] = False
    """Whether it is a posterior."""
    has_likelihood: ClassVar[bool] = False
    """Whether it is the maximum of a likelihood."""
    has_working_correlation: ClassVar[bool] = False
    """Whether it solves estimating equations with a working correlation of a subject's rows."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        said_by_help(cls)

    def __getattribute__(self, name: str) -> Any:
        lacks = type(self).lacks
        if name in LME4:
            raise other_name(type(self).__name__, name)
        if name not in lacks:
            return super().__getattribute__(name)
        return refused(self, name, self._refusal(name))

    def require(self, *names: str) -> None:
        """Refuse what this kind of fit has nothing for.

        Parameters
        ----------
        *names : str
            Names of properties and methods.
        """
        for name in names:
            if name in type(self).lacks:
                self._absent(name)

    def _absent(self, name: str) -> NoReturn:
        raise self._refusal(name)

    def _refusal(self, name: str) -> NotAvailableError:
        return type(self).lacks[name].refusal(name, self.estimator, **self._named_in_refusals)

    @property
    def _named_in_refusals(self) -> dict[str, str]:
        """What remedies name by the fit that is asked."""
        return {}

    def _page(self) -> Page:
        """The fixed effects; kinds of fits say more."""
        return Page(f"Fit by {self.estimator}", [Table(self.frame, self.frame.to_string().splitlines(), index=True)])

    @property
    def frame(self) -> pd.DataFrame:
        """The fixed effects, as `summary` gives them."""
        return self.summary()

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
    def D(self) -> pd.DataFrame:
        """Covariance of the random effects, ``term`` × ``term``."""
        self._absent("D")

    @property
    def b(self) -> pd.DataFrame:
        """Random effects, ``subject`` × ``term``: BLUPs or posterior means."""
        self._absent("b")

    @property
    def b_sd(self) -> pd.DataFrame:
        """Uncertainty of the random effects, ``subject`` × ``term``."""
        self._absent("b_sd")

    @property
    @abstractmethod
    def converged(self) -> bool:
        """Whether the algorithm reached what it was looking for."""

    @abstractmethod
    def summary(self, ci: float = 0.95) -> pd.DataFrame:
        """Fixed effects with uncertainty and interval."""

    def variance_components(self, ci: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of the random effects and the residual SD.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        """
        self._absent("variance_components")

    @abstractmethod
    def to_datatree(self) -> Any:
        """Draws in the contract's names and dimensions, for any ArviZ function."""

    # What some kinds of fits have nothing for; `lacks` says which.

    @property
    def criterion(self) -> float:
        """−2 log-likelihood at its maximum."""
        self._absent("criterion")

    @property
    def loglik(self) -> float:
        """Log-likelihood."""
        self._absent("loglik")

    @property
    def n_parameters(self) -> int:
        """Parameters counted by AIC and BIC."""
        self._absent("n_parameters")

    @property
    def aic(self) -> float:
        """AIC of a likelihood fit."""
        self._absent("aic")

    @property
    def bic(self) -> float:
        """BIC of a likelihood fit."""
        self._absent("bic")

    @property
    def is_singular(self) -> bool:
        """Whether the estimate of D has no full rank."""
        self._absent("is_singular")

    def information_criteria(self) -> pd.DataFrame:
        """AIC and BIC of a likelihood fit."""
        self._absent("information_criteria")

    def subject_loglik(self) -> pd.Series:
        """Log-likelihood of each subject at the maximum."""
        self._absent("subject_loglik")

    def loo(self, unit: Literal["subject", "observation"] = "subject") -> Any:
        """Leave-one-out cross-validation without refitting, of a posterior.

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out at a time.

        Raises
        ------
        NotAvailableError
            If the fit is no posterior.
        """
        self._absent("loo")

    def blup_variances(self, covariances: bool = False) -> Any:
        """Variance of the BLUPs, conditional variance and prediction-error variance, of a likelihood fit.

        Parameters
        ----------
        covariances : bool
            The whole matrices of each subject instead of their diagonals.

        Raises
        ------
        NotAvailableError
            If the fit is by no likelihood, or has no random effects.
        """
        self._absent("blup_variances")

    @property
    def beta_se(self) -> pd.Series:
        """Standard errors (or posterior SDs) of the fixed effects, Series by ``coef``."""
        return pd.Series(np.sqrt(np.diag(self.beta_cov)), index=self.beta.index, name="se")

    @property
    def sd_b(self) -> pd.Series:
        """Standard deviations of the random effects, Series by ``term``."""
        return sd_of(self.D)

    @property
    def corr_b(self) -> pd.DataFrame:
        """Correlations of the random effects; undefined (NaN) where a standard deviation is zero."""
        return corr_of(self.D)

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.design.n_obs_in_all

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.design.n_subjects_in_all

    @property
    def has_random_effects(self) -> bool:
        """Whether the fit has random effects (GEE has none, whatever its model has)."""
        return len(self.design.term) > 0

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Each subject's own level-1 regression, ``subject`` × level-1 coefficient (lme4's ``coef()``)."""
        design = self.design
        values = level2_prediction(design, self.beta.to_numpy())
        values[:, design.own_level1] += self.b.to_numpy()  # every random effect has a level-1 column of its own
        return pd.DataFrame(values, index=design.subjects, columns=list(design.level1))

    def fitted(self, level: Level = "subject") -> pd.Series:
        """Fitted values of the rows used, with the subjects' effects or at b = 0 (``"population"``).

        Parameters
        ----------
        level : {"subject", "population"}
            Given the random effects, or at b = 0.
        """
        check_level(self.design, level, ("subject", "population"))
        design = self.design
        values = design.offset + design.X @ self.beta.to_numpy()
        if level == "subject" and self.has_random_effects:
            values = values + np.einsum("ij,ij->i", design.own_Z, self.b.to_numpy()[design.subject_index])
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
            taken out as well: ``L⁻¹ r_i`` with ``Σ_i = L L'`` at the subject level (as in nlme) and ``V_i = L L'`` at
            the population level. With independent residuals, ``"normalized"`` equals ``"pearson"`` for subjects.
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
    def _time(self) -> str | None:
        """Column of the times of the residual correlation; of a working correlation its own."""
        return None if self.design.residual is None else self.design.residual.time

    @property
    def _D_values(self) -> FloatArray:
        """D as an array, (0, 0) without random effects."""
        return self.D.to_numpy() if self.has_random_effects else np.empty((0, 0))

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
        if not self.has_random_effects:
            return self._by_residual(residual, kind)
        design, D, structure = self.design, self._D_values, self.residual_estimate
        if kind == "pearson":
            ratio = 1.0 if structure is None else structure.sd_ratio(design.frame, design.variance_fitted)
            variance = np.einsum("ij,jk,ik->i", design.Z, D, design.Z) + (self.sigma * ratio) ** 2
            return residual / np.sqrt(variance)
        result = np.empty_like(residual)
        for rows in rows_by_subject(design):
            V = design.Z[rows] @ D @ design.Z[rows].T + self._residual_covariance(rows)
            result[rows] = np.linalg.solve(np.linalg.cholesky(V), residual[rows])
        return result

    def _residual_covariance(self, rows: IntArray) -> FloatArray:
        """Σ_i of the fitted rows of one subject, (n, n)."""
        structure, fitted = self.residual_estimate, self.design.variance_fitted
        if structure is None:
            return self.sigma**2 * np.eye(len(rows))
        own = None if fitted is None else fitted[rows]
        return self.sigma**2 * structure.covariance(self.design.frame.iloc[rows], own)

    def marginal_covariance(self, subject: Any = None) -> pd.DataFrame:
        """Implied marginal covariance ``V_i = Z_i D Z_i' + Σ_i``: of all occasions, or of one subject's rows.

        Without a subject, a marginal model whose correlation names its occasions (``Unstructured("visit")``) has one
        matrix of all of them, by their labels; with a ``group`` one for each of its levels, one below the other:
        ``fit.marginal_covariance().loc["Male"]``. `implied_marginal` has correlations and intervals beside it.

        Parameters
        ----------
        subject : optional
            Label of the subject whose rows are asked for. Where V depends on more than occasion and group (random
            effects, weights, times that differ between subjects), the default is the first in the order of the labels,
            ``fit.design.subjects[0]``.
        """
        if subject is None and (found := covariance_by_occasion(self)) is not None:
            return found
        design = self.design
        rows = rows_of_subject(design, 0 if subject is None else design.position(subject))
        V = self._residual_covariance(rows)
        if self.has_random_effects:
            V = design.Z[rows] @ self._D_values @ design.Z[rows].T + V
        index = design.frame.index[rows]
        return pd.DataFrame(V, index=index, columns=index)

    @property
    def icc(self) -> float:
        """Share of the intercept variance in the total at the origin of the level-1 covariates, D₀₀ / (D₀₀ + σ²).

        With random slopes the share changes with the covariates; this is its value where they are zero.
        """
        if self.design.group:
            reason = f"D is its own for each {self.design.group!r}, so there is one for each of them"
            remedy = "use fit.intraclass_correlation(), which has one for each"
            raise SpecificationError("icc of a model with different hierarchies by group", reason, remedy)
        if "Intercept" not in self.D.index:
            reason = "the intra-class correlation compares the intercept variance with the total"
            remedy = "add a random intercept, or read the correlations off fit.marginal_covariance()"
            raise SpecificationError("icc of a model without a random intercept", reason, remedy)
        k = self.design.term.index("Intercept")
        variance = float(self.D.to_numpy()[k, k])
        return variance / (variance + self.sigma**2)

    def _wald(self, df: str | None = None, se: str | None = None) -> Wald:
        """What linear functions of β are judged by: normal quantiles, unless the estimator has degrees of freedom.

        Raises
        ------
        NotAvailableError
            If it has none, or one kind of standard errors only, and others are asked for.
        """
        if errors_name(se) != "model":
            received = f"se={se!r} for a fit by {self.estimator}"
            reason = "these are standard errors of a likelihood fit with a normal response"
            remedy = "use model.fit_gee()"
            if self.has_working_correlation:
                remedy = "choose them when fitting: model.fit_gee(se='robust')"
            elif self.design.has_several_factors:
                remedy = "leave se out, or use fit.bootstrap()" if self.has_likelihood else "leave se out"
            raise NotAvailableError(received, reason, remedy, "docs, page 'GEE'")
        name = "normal" if df is None else method_name(df)
        if name != "normal":
            received = f"df={df!r} for a fit by {self.estimator}"
            reason = "its covariance of the fixed effects comes without degrees of freedom"
            reml = ", or use a fit by REML" if self.design.is_gaussian else ""
            remedy = f"leave df out (normal quantiles){reml}"
            raise NotAvailableError(received, reason, remedy, "docs, page 'Contrasts'")
        return Wald(name, self.beta.to_numpy(), self.beta_cov.to_numpy(), FixedDegrees(np.inf))
