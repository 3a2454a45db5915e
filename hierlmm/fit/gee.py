"""Fits by GEE: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NoReturn

import pandas as pd

from hierlmm.fit.verbs import Verbs
from hierlmm.fits.capabilities import GENERALISED_GEE, Lack
from hierlmm.fits.gee import GEENumbers, MarginalLevel, OnScale
from hierlmm.fits.gee_text import gee_page
from hierlmm.gee.estimate import Scale
from hierlmm.gee.record import GEERecord, StandardError
from hierlmm.options import checked, choose
from hierlmm.results import Page


@checked
class GEEFit(Verbs, GEENumbers):
    """A marginal model fitted by generalised estimating equations (made by ``model.fit_gee()``).

    GEE estimates the mean over subjects. It has a working correlation of the rows of a subject, but no random effects,
    no variance between subjects and no likelihood; asking for these raises a `NotAvailableError` that says so.

    Attributes
    ----------
    design : Design
        The data and matrices that were fitted; of the model's random effects nothing is used.
    estimate : GEEEstimate
        The solution, with the working correlation of every subject.
    time : str or None
        What the working correlation took as time.
    se : {"robust", "naive", "bias_reduced"}
        Which covariance ``beta_se``, ``beta_cov``, ``summary()`` and ``predict()`` use unless told otherwise;
        `with_se` gives the same fit with another.
    warnings : tuple of str
        What must be known before the fit is used, in plain words.
    """

    def _page(self) -> Page:
        return gee_page(self)

    def predict(
        self,
        newdata: Any = None,
        level: MarginalLevel = "population",
        interval: Literal["confidence", "credible"] | None = None,
        ci: float = 0.95,
        se: StandardError | None = None,
        scale: OnScale = "response",
        trials: Any = None,
    ) -> pd.DataFrame:
        """Predict the marginal mean.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. No subject is needed.
        level : {"population", "marginal"}
            Two words for the same line: the mean over subjects.
        interval : {"confidence"}, optional
            For the mean; normal, from the covariance ``se``. ``"credible"``, the word of posterior fits, means the same
            here.
        ci : float
            Probability of the interval.
        se : {"robust", "naive", "bias_reduced"}, optional
            The fit's own default if left out.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or their link; intervals are made on the scale of the
            link.
        trials : number or array, optional
            Trials of the new rows of a binomial response; by default the column of the model's trials where the new
            data have it, as for the fitted rows, else 1. ``trials=1`` predicts probabilities.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. ``.attrs`` says in words
            what the interval contains.

        Raises
        ------
        NotAvailableError
            At ``level="subject"`` or ``"new_subject"``, and for ``interval="prediction"``: GEE has no distribution of
            subjects or measurements.
        """
        from hierlmm.predict.generalised import tell_scale, trials_of
        from hierlmm.predict.lines import linear_prediction

        choose("scale", scale, ("response", "link"))
        self._choose_level(level)
        if interval == "prediction":
            self._lacks(
                "a prediction interval",
                "it assumes no distribution of the measurements, only their mean",
                f"use interval='confidence' for the mean, or {self.with_subjects}().predict(level='new_subject')",
            )
        if interval is not None:
            choose("interval", interval, ("confidence", "credible"))
        contains = f"the uncertainty of the coefficients ({(se or self.se).replace('_', '-')} covariance)"
        cov, (n, counted) = self.covariance(se).to_numpy(), trials_of(self, newdata, trials)
        linear = scale == "link" or self.design.is_gaussian
        table = linear_prediction(
            self.design,
            self.estimate.beta,
            cov,
            newdata,
            level,
            interval,
            ci,
            contains=contains,
            back=None if linear else lambda eta: self.family.mean(eta) * n,
        )
        return tell_scale(table, self, scale, counted)

    def predict_subject(self, history: Any, times: Any = None, **options: Any) -> NoReturn:
        """Not available: GEE has no distribution of subjects, so a history says nothing about a subject's future.

        Parameters
        ----------
        history, times, **options
            Of the fits that have it.
        """
        raise AssertionError("refused by the table of what GEE lacks")

    def compare_marginal(
        self, correlation: Any = None, *, time: Any = None, scale: Scale = "n-p", ci: float = 0.95, **gee: Any
    ) -> NoReturn:
        """Not available: it compares a mixed model with GEE, and this is the GEE.

        Parameters
        ----------
        correlation, time, scale, ci, **gee
            Of the fits that have it.
        """
        raise AssertionError("refused by the table of what GEE lacks")


class GeneralisedGEEFit(GEEFit):
    """A marginal model with another family than the Gaussian, or another link than the identity, fitted by GEE."""

    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED_GEE


def gee_fit(record: GEERecord) -> GEEFit:
    """Make the fit; standard errors that do not exist are refused now."""
    kind = GEEFit if record.design.is_gaussian else GeneralisedGEEFit
    fit = kind(record.design, record.estimate, record.time, record.se, record.warnings)
    fit.covariance()
    return fit
