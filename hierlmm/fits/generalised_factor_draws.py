"""The posterior of a generalised model with several grouping factors as numbers of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import factor_lines
from hierlmm.bayes.tree import effects_names
from hierlmm.design.factors import factors_at
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.generalised import Scale
from hierlmm.fits.multilevel_posterior import MultilevelPosteriorNumbers
from hierlmm.fits.posterior import flattened
from hierlmm.fits.posterior_generalised import MANY, GeneralisedPosteriorNumbers
from hierlmm.fits.several import GENERALISED_SEVERAL_POSTERIOR
from hierlmm.likelihood.generalised_factors import laplace_log_likelihood
from hierlmm.options import checked


@checked
class GeneralisedMultilevelPosteriorNumbers(MultilevelPosteriorNumbers, GeneralisedPosteriorNumbers):  # type: ignore[misc]
    """The numbers of a generalised posterior with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED_SEVERAL_POSTERIOR

    @property
    def loglik(self) -> float:
        """Marginal log-likelihood at the posterior means of beta, D and dispersion, by Laplace's method.

        Comparable with the log-likelihood of `MultilevelModel.fit_ml`, which is its maximum.
        """
        psi = flattened(self.psi_draws()).mean(axis=0)
        return laplace_log_likelihood(self.design, self.beta.to_numpy(), self._D_values, psi)

    def line_draws(self, level: str = "all", most: int = MANY) -> tuple[FloatArray, FloatArray]:  # type: ignore[override]
        """Linear predictors of the rows used at evenly spaced draws, (S, N), and ψ there, (S, m).

        Parameters
        ----------
        level : str
            As for `fitted`.
        most : int
            Number of draws.
        """
        keep, factors = self.evenly_kept(most), factors_at(self.design, level)
        if factors:
            self.need_effects(f"fitted(level={level!r})", draws=True)
        names = [effects_names(self.design)[k] for k in factors]
        effects = {name: flattened(self.draws(name))[keep] for name in names}
        lines = factor_lines(self.design, flattened(self.draws("beta"))[keep], effects, factors)
        return lines, flattened(self.psi_draws())[keep]

    def fitted(self, level: str = "all", scale: Scale = "response") -> pd.Series:
        """Posterior means of the fitted values of the rows used, with the random effects of some factors.

        Parameters
        ----------
        level : str
            ``"all"``: of all factors; ``"population"``: of none; or a factor: its own, and those of the factors that
            it is nested in.
        scale : {"response", "link"}
            Means of the response (of a binomial one its number of successes), averaged over draws; or linear
            predictors.
        """
        return GeneralisedPosteriorNumbers.fitted(self, level, scale)  # type: ignore[arg-type]

    def residuals(  # type: ignore[override]
        self, kind: Literal["response", "pearson", "deviance"] = "response", level: str = "all"
    ) -> pd.Series:
        """Residuals of the rows used, around `fitted`.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance"}
            In units of the response; divided by the SD of the row given its mean; or the signed root of what the row
            adds to twice the log-likelihood ratio against a fit of the row alone.
        level : str
            As for `fitted`.
        """
        return GeneralisedPosteriorNumbers.residuals(self, kind, level)  # type: ignore[arg-type]
