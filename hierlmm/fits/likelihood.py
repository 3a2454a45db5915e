"""The REML or ML fit of a two-level model: β, D, σ and b at the optimum, and what the likelihood says, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import D_of_subjects, Design
from hierlmm.fits.base import corr_of, sd_of
from hierlmm.fits.capabilities import LIKELIHOOD, Lack
from hierlmm.fits.point import PointEstimates
from hierlmm.likelihood.by_subject import subject_loglik
from hierlmm.likelihood.large_sample import LargeSample, large_sample
from hierlmm.likelihood.maximise import Optimum
from hierlmm.likelihood.solution import AnyCriterion, Solution
from hierlmm.options import checked


@checked
@dataclass(frozen=True, eq=False, repr=False)
class LikelihoodEstimates(PointEstimates):
    """The numbers of a model fitted by restricted (REML) or full (ML) maximum likelihood.

    Its attributes are described where users meet them: `hierlmm.fit.likelihood.LikelihoodFit`.
    """

    design: Design
    criterion_function: AnyCriterion
    optimum: Optimum
    warnings: tuple[str, ...] = ()
    lacks: ClassVar[Mapping[str, Lack]] = LIKELIHOOD
    has_likelihood: ClassVar[bool] = True

    @property
    def reml(self) -> bool:
        """Whether the fit is by REML (else ML)."""
        return self.criterion_function.reml

    @property
    def estimator(self) -> str:  # type: ignore[override]
        """``"REML"`` or ``"ML"``."""
        return "REML" if self.reml else "ML"

    @cached_property
    def solution(self) -> Solution:
        """β, D, σ and the random effects at the optimum, as arrays."""
        return self.criterion_function.solution(self.optimum.lam)

    @property
    def residual_estimate(self) -> ResidualEstimate | None:
        """The residual structure at its estimates: parameters, and the covariance of any rows; None without one."""
        return self.solution.residual

    @cached_property
    def beta_cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects given θ, ``coef`` × ``coef``."""
        index = self.beta.index
        return pd.DataFrame(self.solution.beta_cov, index=index, columns=index)

    @property
    def sigma(self) -> float:
        """Residual standard deviation, in units of the response: where the ratio of a variance function is 1."""
        return self.solution.sigma

    def blup_variances(self, covariances: bool = False) -> Any:
        """Variances of the random effects' estimates: three that are often confused, each for its own question.

        ``var_of_blup``, Var(b̂_i) = D Z_i'K Z_i D: how much the BLUPs vary from sample to sample. It is below D (they
        are shrunken), and the less a subject was seen the smaller it is: no measure of uncertainty. For checks of the
        BLUPs against what the model expects of them.

        ``conditional``, Var(b_i | y, β, θ): uncertainty about b_i with β known (lme4's condVar, ``b_sd`` squared). For
        plots of the random effects, and wherever β̂ enters on its own.

        ``prediction_error``, Var(b̂_i - b_i) = D - D Z_i'K Z_i D: uncertainty about b_i that includes that of β̂ (what
        a flat prior on β gives, at fixed θ). For intervals of b_i. All three take θ as known.

        Parameters
        ----------
        covariances : bool
            Return the (term, term) matrices instead of their diagonals.

        Returns
        -------
        DataFrame by (subject, term), or xarray.Dataset (subject, term, term_bis)
            ``blup``, ``var_of_blup``, ``conditional``, ``prediction_error``.

        Raises
        ------
        NotAvailableError
            If the model has no random effects.

        References
        ----------
        Henderson, C. R. (1975). Best linear unbiased estimation and prediction under a selection model. Biometrics 31,
        423-447.
        """
        from hierlmm.likelihood.conditional import (
            blup_variances,
            blup_variances_dataset,
            blup_variances_frame,
            of_subjects,
        )

        effects = of_subjects(self.design, self.solution.effects)
        found = blup_variances(effects, D_of_subjects(self.design, self.D.to_numpy()), self.beta_cov.to_numpy())
        return blup_variances_dataset(self.b, found) if covariances else blup_variances_frame(self.b, found)

    @property
    def loglik(self) -> float:
        """Log-likelihood at the optimum; the restricted one for REML."""
        return -0.5 * self.criterion

    @property
    def criterion(self) -> float:
        """−2 log-likelihood: lme4's "REML criterion at convergence", or the deviance of an ML fit."""
        return float(self.optimum.value)

    @cached_property
    def optima(self) -> pd.DataFrame:
        """All minima of the criterion that the global search found, the one reported first.

        Returns
        -------
        pandas.DataFrame
            ``criterion``, how far it is ``above the best``, then the covariance parameters and β at each of them.

        Notes
        -----
        For one or two variances, independent residuals and up to 400 design patterns the search tries to prove that
        nothing is lower than the first row; ``fit.optimum.search.exhaustive`` and the print say whether it did.
        Elsewhere it covers scales and shapes evenly and goes on until the expected share of the space in basins not yet
        seen (Boender & Rinnooy Kan 1987, Math. Program. 37, 59-80) is below 0.1 %. Of more than 400 subjects of their
        own patterns it looks at 400, those with the largest residuals among them; with a residual structure, at a
        fixed number of points.
        """
        rows = []
        for optimum in (self.optimum, *self.optimum.others):
            fit = replace(self, optimum=optimum)
            row = {"criterion": fit.criterion, "above the best": fit.criterion - self.criterion}
            term = self.design.term
            D = pd.DataFrame(fit._D_values, index=term, columns=term)
            row |= {f"sd({name})": value for name, value in sd_of(D).items()}
            for block in self.design.blocks:
                pairs, corr = [(a, b) for b in block for a in block if a < b], corr_of(D).to_numpy()
                row |= {f"corr({term[a]}, {term[b]})": corr[a, b] for a, b in pairs}
            rows.append(row | fit.solution.residual_parameters | {"sigma": fit.sigma} | dict(fit.beta.items()))
        return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="optimum"))

    @property
    def gradient_norm(self) -> float:
        """Largest absolute derivative of the criterion in the scaled covariance parameters."""
        return self.optimum.gradient_norm

    @property
    def converged(self) -> bool:
        """Gradient norm below 1e-6, and no descent off the boundary."""
        return self.optimum.converged

    @property
    def is_singular(self) -> bool:
        """Whether D has no full rank: a variance of zero, or random effects that are perfectly correlated."""
        return self.optimum.n_boundary > 0

    @property
    def n_parameters(self) -> int:
        """Parameters counted by AIC and BIC: β, D, residual structure and σ (lme4 counts β under REML as well)."""
        return len(self.design.coef) + len(self.optimum.lam) + 1

    @property
    def aic(self) -> float:
        """Criterion + 2 · number of parameters (lme4 and nlme agree)."""
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Criterion + log(N) · number of parameters, lme4's convention; see `information_criteria` for nlme's."""
        return self.criterion + float(np.log(self.n_obs)) * self.n_parameters

    def information_criteria(self) -> pd.DataFrame:
        """AIC, and BIC in the conventions of lme4 (log N) and nlme (log(N − p) under REML)."""
        n_nlme = self.n_obs - (len(self.design.coef) if self.reml else 0)
        rows = {
            "AIC": (self.aic, "2"),
            "BIC (lme4: log N)": (self.bic, f"log {self.n_obs}"),
            f"BIC (nlme: log {'(N - p)' if self.reml else 'N'})": (
                self.criterion + float(np.log(n_nlme)) * self.n_parameters,
                f"log {n_nlme}",
            ),
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "penalty per parameter"])

    @cached_property
    def large_sample(self) -> LargeSample:
        """Normal approximation for the covariance parameters on the unconstrained scale."""
        return large_sample(self.criterion_function, self.optimum.lam, self.solution.whitened_sd)

    def subject_loglik(self) -> pd.Series:
        """Marginal log-likelihood of every subject at β̂ and θ̂, random effects integrated out; ML: sums to loglik."""
        beta, sigma = self.beta.to_numpy()[None], np.array([self.sigma])
        residuals = None if self.residual_estimate is None else [self.residual_estimate]
        values = subject_loglik(self.design, beta, self.solution.root[None], sigma, residuals)
        return pd.Series(values[0], index=self.design.subjects, name="loglik")
