"""The posterior of a generalised model with several grouping factors as numbers of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import factor_lines
from hierlmm.bayes.tree import effects_names
from hierlmm.design.factors import factors_at
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.generalised_multilevel import ScaledByFactor
from hierlmm.fits.multilevel_posterior import MultilevelPosteriorNumbers
from hierlmm.fits.posterior import flattened
from hierlmm.fits.posterior_generalised import MANY, GeneralisedPosteriorNumbers
from hierlmm.fits.several import GENERALISED_SEVERAL_POSTERIOR, OF_FAMILIES, unanswered
from hierlmm.likelihood.generalised_factors import laplace_log_likelihood
from hierlmm.options import checked


@checked
class GeneralisedMultilevelPosteriorNumbers(ScaledByFactor, MultilevelPosteriorNumbers, GeneralisedPosteriorNumbers):  # type: ignore[misc]
    """The numbers of a generalised posterior with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED_SEVERAL_POSTERIOR
    _unanswered = unanswered(
        "a posterior with several grouping factors", "use what the fit says by factor: print(fit)", OF_FAMILIES
    )
    _scaled = GeneralisedPosteriorNumbers

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
