"""Posteriors: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import pandas as pd

from hierlmm.fit.beside import BesideGEE
from hierlmm.fit.diagnostics import DiagnosticVerbs
from hierlmm.fit.predictive import PredictiveVerbs
from hierlmm.fits.marginal import MarginalPosteriorNumbers, refuse_subject
from hierlmm.fits.posterior_print import posterior_page
from hierlmm.options import checked, choose
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page

if TYPE_CHECKING:
    from hierlmm.diagnostics.loo import LooResult


@checked
class PosteriorFit(BesideGEE, DiagnosticVerbs, PredictiveVerbs):
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

    def extend(self, *groups: str, draws: int | None = None, seed: int | None = 0) -> Self:
        """The same posterior with further groups in its tree, as a new fit.

        Parameters
        ----------
        *groups : str
            ``"prior"`` and ``"prior_predictive"`` (always together), ``"posterior_predictive"`` (new rows of the same
            subjects), ``"mu"`` (the expected response of every row, beside the parameters, for ``az.bayesian_r2``),
            ``"log_likelihood"`` (row by row, given b), ``"log_likelihood_subject"`` (subject by subject, b integrated
            out). By default priors, if they are known, and predictions.
        draws : int, optional
            Number of draws from the prior (500 by default), and of each chain for predictions (all by default).
        seed : int, optional
            Of what is simulated.

        Returns
        -------
        PosteriorFit

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> fit = model.fit(seed=1, progressbar=False).extend("prior")
        >>> sorted(fit.datatree["prior"].data_vars)
        ['b', 'beta', 'corr_b', 'icc', 'sd_b', 'sigma']
        """
        from hierlmm.diagnostics.groups import extend

        return extend(self, groups, draws, seed)

    def log_likelihood(self, unit: Literal["subject", "observation"] = "observation") -> Any:
        """Pointwise log-likelihood as a new tree with group ``log_likelihood``.

        Parameters
        ----------
        unit : {"subject", "observation"}
            ``"observation"``: conditional, given b, ``y`` (obs). ``"subject"``: marginal, b integrated out, ``y``
            (subject), which is what leaving out a whole subject needs.
        """
        from hierlmm.diagnostics.loo import log_likelihood_tree

        return log_likelihood_tree(self, unit)

    def loo(self, unit: Literal["subject", "observation"] = "subject") -> LooResult:
        """Leave-one-out cross-validation without refitting; see `hierlmm.diagnostics.loo.loo`.

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out: a subject (how well is a new subject predicted?) or a measurement (how well is a further
            measurement of a known subject predicted?).

        Returns
        -------
        LooResult
            ``elpd``, ``se``, ``p``, ``pareto_k`` by unit, and a verdict in words.
        """
        from hierlmm.diagnostics.loo import loo

        return loo(self, unit)


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
