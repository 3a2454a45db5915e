"""Fits of generalised models with several grouping factors, by Laplace's method, and what they can be asked."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.generalised import GeneralisedFit
from hierlmm.fit.generalised_verbs import CategoriesByFactor
from hierlmm.fit.multilevel import FACTOR
from hierlmm.fits.generalised import Scale
from hierlmm.fits.generalised_multilevel import GeneralisedMultilevelNumbers
from hierlmm.fits.multilevel import of_factor
from hierlmm.options import checked


@checked
class GeneralisedMultilevelFit(CategoriesByFactor, GeneralisedMultilevelNumbers, GeneralisedFit):  # type: ignore[misc]  # as MultilevelFit
    """A generalised model with several grouping factors, nested or crossed, fitted by maximum likelihood.

    What a two-level fit has by subject is here by factor, as in `MultilevelFit`: ``fit.b["item"]``.

    Notes
    -----
    The random effects of all groups together are integrated out by Laplace's method. Quadrature, by which a two-level
    fit is made more exact or judged, has too many dimensions here. Where groups have few rows of yes-or-no or rare
    events, variances come out too small. Standard errors are from the observed information of all parameters jointly.
    """

    plot_random_effects = as_verb(plots.plot_random_effects, chosen=of_factor, choice=FACTOR)

    def predict(
        self,
        newdata: Any = None,
        level: str = "all",
        interval: Literal["confidence", "credible", "prediction"] | None = None,
        ci: float = 0.95,
        scale: Scale = "response",
        trials: Any = None,
        *,
        new_groups: Literal["refuse", "allow"] = "refuse",
    ) -> pd.DataFrame:
        """Predict the mean of the response, or the linear predictor.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. Columns of the factors that the level uses have to be there.
        level : str
            ``"all"``: with the random effects of all factors; ``"population"``: with none; or a factor: with its own,
            and those of the factors that it is nested in.
        interval : {"confidence", "credible"}, optional
            For that mean (``"credible"`` means ``"confidence"``). Intervals of new responses are not there yet.
        ci : float
            Probability of the interval.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or their link.
        trials : number or array, optional
            Trials of the new rows of a binomial response; by default the column of the model's trials where the new
            data have it, as for the fitted rows, else 1.
        new_groups : {"refuse", "allow"}
            What to do with groups that were not in the data: refuse them, or take them as drawn at random. The
            estimate is then the mean over their random effects, given those of known groups (on the scale of the link
            the linear predictor's, at b = 0); intervals hold their variance, and ``se`` is the standard deviation.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se`` (delta method), ``lower``, ``upper``; index of the rows.
        """
        from hierlmm.predict.generalised_factors import predict_generalised_factors

        return predict_generalised_factors(self, newdata, level, interval, ci, scale, trials, new_groups)
