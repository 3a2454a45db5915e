"""Fits by REML and ML: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.beside import BesideGEE
from hierlmm.fit.inference import ProfileVerbs
from hierlmm.fit.variance_tests import VarianceTestVerbs
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.fits.marginal import MarginalNumbers, refuse_subject
from hierlmm.fits.text import likelihood_page
from hierlmm.options import checked
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page


@checked
class LikelihoodFit(ProfileVerbs, VarianceTestVerbs, BesideGEE, LikelihoodNumbers):
    """A two-level model fitted by restricted (REML) or full (ML) maximum likelihood.

    Attributes
    ----------
    design : Design
        The data and matrices that were fitted.
    criterion_function : Criterion or ResidualCriterion
        The criterion as a function of the relative covariance parameters λ, followed by those of the residual structure
        (callable, with ``.evaluate`` for the gradient): look at it around ``optimum.lam``, or profile it.
    optimum : Optimum
        Where it is smallest, with the gradient norm.
    warnings : tuple of str
        What must be known before the fit is used, in plain words.

    Notes
    -----
    Standard errors of β are those given θ, the square roots of the diagonal of ``(X'V⁻¹X)⁻¹``, as lme4 and nlme print
    them. Conditional variances of the random effects condition on β and θ (lme4's ``condVar``).
    """

    def _page(self) -> Page:
        return likelihood_page(self)

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "subject",
        interval: Interval | None = None,
        ci: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the response.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level : {"subject", "population", "new_subject", "marginal"}
            The line of a subject in the data, with its BLUPs; the line at b = 0; the line of one subject yet to be
            seen, drawn from N(0, D); or the mean over subjects.
        interval : {"confidence", "prediction"}, optional
            For that line, or for a new measurement of it (at ``"marginal"``: of a subject drawn at random), which adds
            the residual variance. The uncertainty of β and b is their joint one given θ; that of θ enters through
            Student's t with Satterthwaite's degrees of freedom. ``"credible"``, the word of posterior fits, means
            ``"confidence"`` here, so that one script serves every fit.
        ci : float
            Probability of the interval.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. ``.attrs`` says in words
            what the interval contains.

        Raises
        ------
        DataError
            If a column is absent, a factor level is new, a value is missing, or a subject is not in the fitted data
            (level ``"subject"``).
        """
        from hierlmm.predict.likelihood import predict_rows

        return predict_rows(self, newdata, level, interval, ci)

    def predict_subject(
        self,
        history: Any,
        times: Any = None,
        *,
        newdata: Any = None,
        interval: Interval | None = None,
        ci: float = 0.95,
        retrospective: bool = False,
        time: str | None = None,
    ) -> pd.DataFrame:
        """Predict a subject that was not in the data from its first measurements, without refitting.

        Exactly what a refit with the new subject's measurements would predict at the same θ: β and b are both updated.
        Each new subject is predicted from its own measurements only.

        Parameters
        ----------
        history : table
            Measurements so far: the response and the covariates; the subject column tells several new subjects apart.
        times : sequence of numbers, optional
            Values of the time at which to predict; covariates that are constant are carried along.
        newdata : table, optional
            In place of ``times``: rows to predict, where there are several level-1 variables.
        interval, ci
            As for `predict`: for the subject's line, or for a new measurement of it.
        retrospective : bool
            Whether measurements later than a prediction time may be used.
        time : str, optional
            The column that is the time, where there are several level-1 variables. By default that of the residual
            structure (``hl.CAR1("time")``), or the one numeric level-1 variable.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, ``se``, ``lower``, ``upper`` as `predict` gives them; with ``times``, the subject and the time
            stand before them.
        """
        from hierlmm.predict.dynamic import predict_new_subject

        return predict_new_subject(
            self, history, times, newdata=newdata, interval=interval, ci=ci, retrospective=retrospective, time=time
        )

    plot_optima = as_verb(plots.plot_optima)


@checked
class MarginalFit(MarginalNumbers, LikelihoodFit):
    """A marginal model fitted by restricted (REML) or full (ML) maximum likelihood, as nlme's ``gls`` does.

    It has β, the correlation and the variance of the rows of a subject, and no random effects: what a subject has of
    its own is not part of the model. ``D``, ``b`` and what follows from them raise `NotAvailableError`.
    """

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "population",
        interval: Interval | None = None,
        ci: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the mean response; see `LikelihoodFit.predict`. There is no level ``"subject"``."""
        refuse_subject(level)
        return super().predict(newdata, level, interval, ci)
