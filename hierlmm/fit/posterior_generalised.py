"""Posteriors of generalised models: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from typing import Any, Literal

from hierlmm.fit.diagnostics import DiagnosticVerbs
from hierlmm.fit.generalised_verbs import GeneralisedVerbs
from hierlmm.fit.predictive import PredictiveVerbs
from hierlmm.fits.posterior_generalised import GeneralisedPosteriorNumbers
from hierlmm.fits.posterior_print import posterior_page
from hierlmm.options import checked, choose
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page


@checked
class GeneralisedPosterior(GeneralisedPosteriorNumbers, GeneralisedVerbs, DiagnosticVerbs, PredictiveVerbs):
    """Posterior draws of a generalised two-level model.

    Attributes
    ----------
    design : Design
    datatree : xarray.DataTree
        Group ``posterior`` with ``beta`` (coef), ``sd_b`` (term), ``corr_b`` (pair of terms), ``b`` (subject, term),
        the dispersion by name and ``subject_coef`` (subject, level1), all on the scale of the link; ``sample_stats``,
        ``observed_data``, ``constant_data``, ``log_prior`` and, where small, ``log_likelihood``, for ArviZ's functions.
    priors : ResolvedPriors or None
    estimator : str
        ``"NUTS"``.
    warnings : tuple of str
        What looks wrong about convergence, and what to do.
    """

    def _page(self) -> Page:
        return posterior_page(self)

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "subject",
        interval: Interval | None = None,
        ci: float = 0.95,
        scale: Literal["response", "link"] = "response",
        trials: Any = None,
        seed: int | None = 0,
        *,
        kind: Literal["summary", "draws"] = "summary",
    ) -> Any:
        """Posterior mean of the mean of the response, or of its link, and an equal-tailed interval.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level : {"subject", "population", "new_subject", "marginal"}
            The mean of a subject in the data; that at b = 0, of a subject in the middle; that of one subject yet to be
            seen (its estimate is that of the middle, its interval holds such subjects); or the mean over subjects,
            which on a curved scale is not that of the average subject.
        interval : {"credible", "prediction"}, optional
            For that mean, or for a new response (simulated; the estimate is then the mean of these). ``"confidence"``
            means ``"credible"`` here.
        ci : float
            Probability of the interval.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or their link.
        trials : number or array, optional
            Trials of the new rows of a binomial response; by default the column of the model's trials where the new
            data have it, as for the fitted rows, else 1. ``trials=1`` predicts probabilities.
        seed : int, optional
            Of what is simulated.
        kind : {"summary", "draws"}
            ``"draws"``: the draws behind the table, joint over rows, where they fit into memory.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. For draws an
            ``xarray.DataArray`` (chain, draw, obs).
        """
        from hierlmm.predict.posterior_generalised import drawn_predictions, predict_draws

        choose("scale", scale, ("response", "link"))
        choose("kind", kind, ("summary", "draws"))
        if kind == "draws":
            return drawn_predictions(self, newdata, level, interval, scale, trials, seed)
        return predict_draws(self, newdata, level, interval, ci, scale, trials, seed)
