"""Posteriors: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from hierlmm.fit.beside import BesideGEE
from hierlmm.fit.diagnostics import DiagnosticVerbs
from hierlmm.fit.evidence import EvidenceVerbs
from hierlmm.fit.predictive import PredictiveVerbs
from hierlmm.fits.marginal import MarginalPosteriorNumbers, refuse_subject
from hierlmm.fits.posterior_print import posterior_page
from hierlmm.options import checked, choose
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page


@checked
class PosteriorFit(BesideGEE, DiagnosticVerbs, EvidenceVerbs, PredictiveVerbs):
    """Posterior draws of a two-level model.

    Attributes
    ----------
    design : Design
    datatree : xarray.DataTree
        Group ``posterior`` with ``beta`` (coef), ``sd_b`` (term), ``corr_b`` (pair of terms), ``b`` (subject, term),
        ``sigma``, ``icc`` and ``subject_coef`` (subject, level1); ``sample_stats``,
        ``observed_data``, ``constant_data``, ``log_prior`` and, where small, ``log_likelihood``, for ArviZ's functions.
    priors : ResolvedPriors or None
    estimator : str
        ``"NUTS"`` or ``"Bambi"``.
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
        seed: int | None = 0,
        *,
        kind: Literal["summary", "draws"] = "summary",
    ) -> Any:
        """Posterior mean of the expected response, and an equal-tailed interval.

        Parameters
        ----------
        newdata : table, optional
            New rows; the rows of the fit by default.
        level : {"subject", "population", "new_subject", "marginal"}
            With the subject's own random effects; at b = 0; for one subject not yet seen, whose random effects are
            drawn from N(0, D) (the estimate is that of the population, the interval is wider); or the mean over
            subjects.
        interval : {"credible", "prediction"}, optional
            For that line, or for a new measurement of it (residual error added; at ``"marginal"`` of a subject drawn
            at random). ``"confidence"``, the word of likelihood fits, means ``"credible"`` here, so that one script
            serves every fit.
        ci : float
            Probability of the interval.
        seed : int, optional
            Of the simulated random effects and residuals.
        kind : {"summary", "draws"}
            ``"draws"``: the draws behind the table, joint over rows, where they fit into memory.

        Returns
        -------
        DataFrame
            ``estimate`` and, with an interval, ``se``, ``lower`` and ``upper``; the index of ``newdata``; ``.attrs``
            says in words what the interval contains. For draws an ``xarray.DataArray`` (chain, draw, obs).

        Raises
        ------
        DataError
            If a subject was not in the fitted data (level ``"subject"``), or columns are absent.
        """
        from hierlmm.predict.posterior import predict_rows, prediction_draws

        choose("kind", kind, ("summary", "draws"))
        if kind == "draws":
            return prediction_draws(self, newdata, level, interval, seed)
        return predict_rows(self, newdata, level, interval, ci, seed)

    def predict_subject(
        self,
        history: Any,
        times: Any = None,
        *,
        newdata: Any = None,
        interval: Interval | None = None,
        ci: float = 0.95,
        retrospective: bool = False,
        reweight: bool = True,
        time: str | None = None,
    ) -> pd.DataFrame:
        """Predict a subject that was not in the data from its first measurements, without refitting.

        Given each draw of β, D and σ the new subject's line is normal, and the draws are weighted by what they say of
        its measurements, as a refit would (Pareto-smoothed importance sampling). Nothing is simulated: the intervals
        are quantiles of the mixture over the draws.

        Parameters
        ----------
        history, times, newdata, interval, ci, retrospective, time
            As for `LikelihoodFit.predict_subject`.
        reweight : bool
            Whether the new subject's measurements may change the posterior of β, D and σ.

        Returns
        -------
        DataFrame
            As from `LikelihoodFit.predict_subject`; ``.attrs`` has ``pareto_k`` and ``ess`` of the weights, by subject.

        Warns
        -----
        FitWarning
            If Pareto k is above 0.7: the weights cannot be relied on.
        """
        from hierlmm.predict.dynamic import predict_new_subject_draws

        return predict_new_subject_draws(
            self,
            history,
            times,
            newdata=newdata,
            interval=interval,
            ci=ci,
            retrospective=retrospective,
            reweight=reweight,
            time=time,
        )


@checked
class MarginalPosterior(MarginalPosteriorNumbers, PosteriorFit):
    """Posterior draws of a marginal model: β, residual parameters and σ, without random effects."""

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "population",
        interval: Interval | None = None,
        ci: float = 0.95,
        seed: int | None = 0,
        *,
        kind: Literal["summary", "draws"] = "summary",
    ) -> Any:
        """Predict the mean response; see `PosteriorFit.predict`. There is no level ``"subject"``."""
        refuse_subject(level)
        return super().predict(newdata, level, interval, ci, seed, kind=kind)
