"""Posteriors of generalised models with several grouping factors: their numbers, and what they can be asked."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.generalised_verbs import CategoriesByFactor
from hierlmm.fit.multilevel import FACTOR
from hierlmm.fit.multilevel_posterior import FactorLoo
from hierlmm.fit.posterior_generalised import GeneralisedPosterior
from hierlmm.fits.capabilities import said_by_help
from hierlmm.fits.generalised import Scale
from hierlmm.fits.generalised_factor_draws import GeneralisedMultilevelPosteriorNumbers
from hierlmm.fits.multilevel_posterior import of_factor_draws
from hierlmm.options import checked


@checked
class GeneralisedMultilevelPosterior(  # type: ignore[misc]
    CategoriesByFactor, GeneralisedMultilevelPosteriorNumbers, FactorLoo, GeneralisedPosterior
):
    """Posterior draws of a generalised model with several grouping factors, nested or crossed.

    What a two-level fit has by subject is here by factor, as in `MultilevelPosterior`: ``fit.D["item"]``,
    ``fit.b["item"]``, ``fit.b_sd["item"]``, on the scale of the link.

    Attributes
    ----------
    design : Design
    datatree : xarray.DataTree
        Group ``posterior`` with ``beta`` (coef), ``sd_b`` (term), ``corr_b`` (pair of terms), the dispersion by name
        and the random effects of every factor, ``b_item`` (item, item_term); ``sample_stats``, ``observed_data``,
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
        scale: Scale = "response",
        trials: Any = None,
        seed: int | None = 0,
        *,
        new_groups: Literal["refuse", "allow"] = "refuse",
    ) -> pd.DataFrame:
        """Posterior mean of the mean of the response, or of its link, and an equal-tailed interval.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. Columns of the factors that the level uses have to be there.
        level : str
            ``"all"``: with the random effects of all factors; ``"population"``: with none; or a factor: with its own,
            and those of the factors that it is nested in.
        interval : {"credible", "prediction"}, optional
            For that mean, or for a new response (simulated). ``"confidence"`` means ``"credible"`` here.
        ci : float
            Probability of the interval.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or their link.
        trials : number or array, optional
            Trials of the new rows of a binomial response; by default the column of the model's trials where the new
            data have it, as for the fitted rows, else 1.
        seed : int, optional
            Of what is simulated: effects of new groups, responses.
        new_groups : {"refuse", "allow"}
            What to do with groups that were not in the data: refuse them, or take them as drawn at random from N(0, D),
            draw by draw. The estimate is then the mean over such groups, given the random effects of known ones (on
            the scale of the link the linear predictor's, at b = 0).

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows.
        """
        from hierlmm.predict.generalised_factor_draws import predict_generalised_factor_draws

        return predict_generalised_factor_draws(self, newdata, level, interval, ci, scale, trials, new_groups, seed)


said_by_help(GeneralisedMultilevelPosterior)
