"""Posteriors of models with several grouping factors: their numbers, and what they can be asked."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.factor_verbs import FactorVerbs
from hierlmm.fit.multilevel import FACTOR
from hierlmm.fit.posterior import PosteriorFit
from hierlmm.fits.capabilities import said_by_help
from hierlmm.fits.multilevel_posterior import MultilevelPosteriorNumbers, of_factor_draws
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked


@checked
class FactorLoo(PosteriorNumbers):
    """Leaving out rows, or groups of a factor."""

    def loo(self, unit: str = "observation") -> Any:
        """Leave-one-out cross-validation without refitting; see `hierlmm.diagnostics.loo.loo`.

        Parameters
        ----------
        unit : str
            What is left out: ``"observation"``, one measurement of known groups; or a factor, ``"batch"``, nested or
            crossed: all rows of one of its groups, which are predicted as those of a new group, from what the other
            rows say of all other groups. Densities are those given all other rows, random effects integrated out.
            Of another family than the Gaussian rows only, given their random effects.

        Returns
        -------
        LooResult
            ``elpd``, ``se``, ``p``, ``pareto_k`` by unit, and a verdict in words.

        Raises
        ------
        NotAvailableError
            If there is no such factor, or groups share so many random effects that it would take hours.
        """
        from hierlmm.diagnostics.loo import loo

        return loo(self, unit)

    def log_likelihood(self, unit: str = "observation") -> Any:
        """Pointwise log-likelihood as a new tree with group ``log_likelihood``.

        Parameters
        ----------
        unit : str
            ``"observation"``: rows given the random effects; a factor: its groups, each given all other rows, as for
            `loo`.
        """
        from hierlmm.diagnostics.loo import log_likelihood_tree

        return log_likelihood_tree(self, unit)


@checked
class MultilevelPosterior(FactorVerbs, MultilevelPosteriorNumbers, FactorLoo, PosteriorFit):  # type: ignore[misc]
    """Posterior draws of a model with several grouping factors, nested or crossed.

    What a two-level fit has by subject is here by factor: ``fit.D["batch"]``, ``fit.sd_b["batch"]``,
    ``fit.b["batch"]``, ``fit.b_sd["batch"]``. What is not made for several factors yet is refused, with what to use
    instead.

    Attributes
    ----------
    design : Design
    datatree : xarray.DataTree
        Group ``posterior`` with ``beta`` (coef), ``sd_b`` (term), ``corr_b`` (pair of terms), ``sigma`` and the random
        effects of every factor, ``b_batch`` (batch, batch_term); ``sample_stats``, ``observed_data``,
        ``constant_data``, ``log_prior`` and, where small, ``log_likelihood``, for ArviZ's functions.
    priors : ResolvedPriors or None
    estimator : str
        ``"NUTS"``.
    warnings : tuple of str
        What looks wrong about convergence, and what to do.
    """

    plot_random_effects = as_verb(plots.plot_random_effects, chosen=of_factor_draws, choice=FACTOR)

    def predict(  # type: ignore[override]
        self,
        newdata: Any = None,
        level: str = "all",
        interval: Literal["confidence", "credible", "prediction"] | None = None,
        ci: float = 0.95,
        seed: int | None = 0,
        *,
        new_groups: Literal["refuse", "allow"] = "refuse",
    ) -> pd.DataFrame:
        """Posterior mean of the expected response, and an equal-tailed interval.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. Columns of the factors that the level uses have to be there.
        level : str
            ``"all"``: with the random effects of all factors; ``"population"``: with none; or a factor: with its own,
            and those of the factors that it is nested in.
        interval : {"credible", "prediction"}, optional
            For that line, or for a new measurement on it, which adds the residual error. ``"confidence"`` means
            ``"credible"``.
        ci : float
            Probability of the interval.
        seed : int, optional
            Of what is simulated: effects of new groups, residuals.
        new_groups : {"refuse", "allow"}
            What to do with groups that were not in the data: refuse them, or draw their random effects from N(0, D),
            of which the mean is 0.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. ``.attrs`` says in words
            what the interval is for.

        Raises
        ------
        DataError
            If a column is absent, a factor level is new, a value is missing, or a group is not in the fitted data.
        """
        from hierlmm.predict.factor_draws import predict_factor_draws

        return predict_factor_draws(self, newdata, level, interval, ci, new_groups, seed)


said_by_help(MultilevelPosterior)
