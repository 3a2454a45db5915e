"""The maximum-likelihood fit of a generalised two-level model: β, ψ, D and b at the optimum, frozen.

Standard errors are from the observed information of (θ, β, ψ) jointly, as glmmTMB's and glmer's ``use.hessian = TRUE``:
in a generalised model β̂ and θ̂ are correlated, and what holds "given θ" is too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.families.family import Family
from hierlmm.fits.base import Level
from hierlmm.fits.capabilities import GENERALISED, Lack
from hierlmm.fits.components import family_components
from hierlmm.fits.covariance_table import CovarianceParameters, WaldComponents, on_boundary, quantile
from hierlmm.fits.point import PointEstimates
from hierlmm.likelihood.generalised import GeneralisedEstimate
from hierlmm.likelihood.generalised_criterion import GeneralisedCriterion, GeneralisedSolution
from hierlmm.likelihood.maximise import Optimum
from hierlmm.options import checked, choose

Scale = Literal["response", "link"]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class GeneralisedNumbers(PointEstimates):
    """The numbers of a generalised two-level model fitted by maximum likelihood.

    Its attributes are described where users meet them: `hierlmm.fit.generalised.GeneralisedFit`.
    """

    record: GeneralisedEstimate
    warnings: tuple[str, ...] = ()
    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED
    has_likelihood: ClassVar[bool] = True

    @property
    def design(self) -> Any:  # type: ignore[override]
        """The data and matrices that were fitted."""
        return self.record.design

    @property
    def estimator(self) -> str:  # type: ignore[override]
        """``"ML"``, with how the random effects were integrated out."""
        return "ML"

    @property
    def family(self) -> Family:
        """Distribution of the response."""
        return self.record.design.family

    @property
    def n_quadrature(self) -> int:
        """Points of adaptive Gauss-Hermite quadrature in each dimension; 1 is Laplace's method."""
        return self.criterion_function.points

    @property
    def method(self) -> str:
        """How the random effects were integrated out, in words."""
        if self.n_quadrature == 1:
            return "Laplace approximation"
        return f"adaptive Gauss-Hermite quadrature, {self.n_quadrature} points"

    @property
    def optimum(self) -> Optimum:
        """Where the criterion is smallest."""
        return self.record.optimum

    @property
    def criterion_function(self) -> GeneralisedCriterion:
        """−2 log-likelihood as a function of (λ, β̃, ψ), with gradient."""
        return self.record.criterion

    @property
    def solution(self) -> GeneralisedSolution:
        """What follows from the optimum, as arrays."""
        return self.record.solution

    @cached_property
    def beta_cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, from the observed information jointly with θ and ψ."""
        m, p = self.criterion_function.structure.n_parameters, len(self.design.coef)
        J = np.zeros((p, len(self.optimum.lam)))
        J[:, m : m + p] = np.linalg.inv(self.criterion_function.scaling.Bx)
        return pd.DataFrame(self.record.transformed(J), self.beta.index, self.beta.index)

    @property
    def sigma(self) -> float:
        """Residual SD or scale of a family that has one."""
        if "sigma" not in self.family.dispersion:
            has = f"the dispersion is in fit.dispersion ({', '.join(self.dispersion.index)})"
            reason = f"a {self.family.title} response has no residual standard deviation"
            remedy = has if len(self.dispersion) else "its variance follows from its mean: fit.residuals('pearson')"
            raise NotAvailableError("sigma", reason, remedy, "docs, page 'Families'")
        return float(self.dispersion["sigma"])

    @cached_property
    def dispersion(self) -> pd.Series:
        """Dispersion parameters of the family by name; empty where it has none."""
        return pd.Series(self.family.natural(self.solution.psi), dtype=float, name="dispersion")

    @property
    def converged(self) -> bool:
        """Gradient norm below 1e-6 or a millionth of a standard error, positive curvature, and every mode found."""
        return self.record.converged

    @property
    def gradient_norm(self) -> float:
        """Largest absolute derivative of the criterion in (λ, β̃, ψ)."""
        return self.optimum.gradient_norm

    @property
    def is_singular(self) -> bool:
        """Whether D has no full rank."""
        return self.optimum.n_boundary > 0

    @property
    def criterion(self) -> float:
        """−2 log-likelihood, with all constants."""
        return float(self.optimum.value)

    @property
    def loglik(self) -> float:
        """Log-likelihood, with all constants: Laplace's or the quadrature's approximation of it."""
        return -0.5 * self.criterion

    @property
    def n_parameters(self) -> int:
        """Parameters counted by AIC and BIC: β, D and the dispersion."""
        return len(self.optimum.lam)

    @property
    def aic(self) -> float:
        """Criterion + 2 · number of parameters."""
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Criterion + log(N) · number of parameters (lme4's convention)."""
        return self.criterion + float(np.log(self.n_obs)) * self.n_parameters

    def information_criteria(self) -> pd.DataFrame:
        """AIC and BIC, with the penalty of each parameter."""
        rows = {"AIC": (self.aic, "2"), "BIC (log N)": (self.bic, f"log {self.n_obs}")}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "penalty per parameter"])

    def subject_loglik(self) -> pd.Series:
        """Marginal log-likelihood of every subject, random effects integrated out; sums to ``loglik``."""
        return pd.Series(self.solution.subject_loglik, index=self.design.subjects, name="loglik")

    @cached_property
    def optima(self) -> pd.DataFrame:
        """All minima of the criterion that the search found, the one reported first."""
        rows = []
        for optimum in (self.optimum, *self.optimum.others):
            at = self.record.at(optimum.lam)
            row = {"criterion": optimum.value, "above the best": optimum.value - self.criterion}
            rows.append(row | family_components(self.design, at) | dict(zip(self.design.coef, at.beta, strict=True)))
        return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="optimum"))

    def summary(self, ci: float = 0.95) -> pd.DataFrame:
        """Fixed effects on the scale of the link: estimate, se, lower, upper, z = estimate / se, and p.

        Parameters
        ----------
        ci : float
            Probability of the (Wald) interval.
        """
        half, beta, se = quantile(ci), self.beta, self.beta_se
        z = beta / se
        columns = {"estimate": beta, "se": se, "lower": beta - half * se, "upper": beta + half * se}
        return pd.DataFrame({**columns, "z": z, "p": 2.0 * norm.sf(np.abs(z))})

    @cached_property
    def _components(self) -> WaldComponents:
        """Standard deviations, correlations and dispersion, on the line and as they are."""
        labels = list(family_components(self.design, self.solution))
        correlation = np.array([label.startswith("corr") for label in labels], dtype=bool)
        lower, upper = np.where(correlation, -1.0, 0.0), np.where(correlation, 1.0, np.inf)

        def values(parameters: FloatArray) -> FloatArray:
            return np.array(list(family_components(self.design, self.record.at(parameters)).values()))

        found = CovarianceParameters(labels, lower, upper, values)
        with np.errstate(divide="ignore", invalid="ignore"):
            centre, spread = self._delta(lambda at: found.to_unbounded(values(at)))
            estimate, se = self._delta(values)
        undefined = ~np.isfinite(spread) | on_boundary(self, found.labels)
        spread, se = (np.where(undefined, np.nan, own) for own in (spread, se))
        return WaldComponents(found.labels, lower, upper, centre, spread, estimate, se)

    def _delta(self, function: Any) -> tuple[FloatArray, FloatArray]:
        """Value and standard errors of a vector function of (λ, β̃, ψ), by the delta method."""
        value, covariance = self.record.delta(function)
        return value, np.sqrt(np.diag(covariance))

    def variance_components(self, ci: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of the random effects, and dispersion: estimate, se, lower, upper.

        Parameters
        ----------
        ci : float
            Probability of the Wald intervals, on the log scale (Fisher's z for correlations); NaN at a boundary.
        """
        return self._components.table(ci)

    def _line(self, level: Any) -> pd.Series:
        """Linear predictors of the rows used."""
        return super().fitted(level)

    def fitted(self, level: Level = "subject", scale: Scale = "response") -> pd.Series:
        """Fitted values of the rows used, with the subjects' effects or at b = 0 (``"population"``).

        Parameters
        ----------
        level : {"subject", "population"}
            Given the random effects, or at b = 0.
        scale : {"response", "link"}
            Means of the response (of a binomial one its number of successes), or linear predictors.
        """
        choose("scale", scale, ("response", "link"))
        eta = self._line(level)
        if scale == "link":
            return eta
        return pd.Series(self.family.mean(eta.to_numpy()) * self.design.trials, index=eta.index, name="fitted")

    def residuals(  # type: ignore[override]  # of a distribution, not of a normal error
        self, kind: Literal["response", "pearson", "deviance"] = "response", level: Level = "subject"
    ) -> pd.Series:
        """Residuals of the rows used.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance"}
            In units of the response; divided by the SD of the row given its mean; or the signed root of what the row
            adds to twice the log-likelihood ratio against a fit of the row alone.
        level : {"subject", "population"}
            Around the subject's own mean, or around that at b = 0.
        """
        choose("kind", kind, ("response", "pearson", "deviance"))
        design, family, psi = self.design, self.family, self.solution.psi
        eta = self._line(level).to_numpy()
        mu = family.mean(eta)
        residual = design.y - mu * design.trials
        if kind == "pearson":
            residual = residual / np.sqrt(family.variance(mu, psi, design.trials))
        elif kind == "deviance":
            residual = np.sign(residual) * np.sqrt(family.deviance(design.y, mu, psi, design.trials))
        return pd.Series(residual, index=design.frame.index, name=f"{kind} residual")

    def to_datatree(self, draws: int = 1000, chains: int = 4, seed: int | None = 0) -> Any:
        """Draws from the large-sample distribution, so that the fit enters any ArviZ function.

        (λ, β, ψ) from the normal distribution with the inverse observed information, b from the normal approximation
        of its conditional distribution at the estimates. The tree marks itself: ``attrs["approximation"]``.

        Parameters
        ----------
        draws, chains : int
            Draws of each chain, and number of chains.
        seed : int, optional
            The same draws every time by default; None varies them.

        Returns
        -------
        xarray.DataTree
            Group ``posterior`` with ``beta``, ``b``, ``sd_b``, ``corr_b`` (by pair of terms) and the dispersion.
        """
        from hierlmm.fits.generalised_draws import generalised_tree

        return generalised_tree(self, draws, chains, seed)
