"""Maximum-likelihood fits of generalised models: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.generalised_verbs import GeneralisedVerbs
from hierlmm.fit.inference import BootstrapVerbs
from hierlmm.fit.variance_tests import VarianceTestVerbs
from hierlmm.fits.generalised import GeneralisedNumbers, Scale
from hierlmm.fits.generalised_text import generalised_page
from hierlmm.options import checked, choose
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page


@checked
class GeneralisedFit(BootstrapVerbs, VarianceTestVerbs, GeneralisedVerbs, GeneralisedNumbers):
    """A generalised two-level model fitted by maximum likelihood.

    Attributes
    ----------
    record : GeneralisedEstimate
        Design, criterion and optimum.
    warnings : tuple of str
        What must be known before the fit is used, in plain words.

    Notes
    -----
    Random effects are integrated out by Laplace's method, or by adaptive Gauss-Hermite quadrature
    (``fit_ml(n_quadrature=25)``). Standard errors are from the observed information of all parameters jointly.
    """

    def _page(self) -> Page:
        return generalised_page(self)

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "subject",
        interval: Interval | None = None,
        ci: float = 0.95,
        scale: Scale = "response",
        trials: Any = None,
    ) -> pd.DataFrame:
        """Predict the mean of the response, or the linear predictor.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level : {"subject", "population", "new_subject", "marginal"}
            The mean of a subject in the data, at its conditional mode; that at b = 0, of a subject in the middle; that
            of one subject yet to be seen (its estimate is the median over subjects, its interval holds such subjects);
            or the mean over subjects, which on a curved scale is not that of the average subject.
        interval : {"confidence", "prediction"}, optional
            For that mean, or for a new response (from simulated responses).
        ci : float
            Probability of the interval.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or their link.
        trials : number or array, optional
            Trials of the new rows of a binomial response; by default the column of the model's trials where the new
            data have it, as for the fitted rows, else 1. ``trials=1`` predicts probabilities.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se`` (delta method), ``lower``, ``upper``; index of the rows.
        """
        from hierlmm.predict.generalised import predict_generalised

        choose("scale", scale, ("response", "link"))
        return predict_generalised(self, newdata, level, interval, ci, scale, trials)

    plot_optima = as_verb(plots.plot_optima)
