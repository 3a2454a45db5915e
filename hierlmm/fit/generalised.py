"""Maximum-likelihood fits of generalised models: the numbers of `hierlmm.fits` and what they can be asked."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd

from hierlmm.errors import NotAvailableError
from hierlmm.fit.verbs import Verbs
from hierlmm.fits.generalised import GeneralisedNumbers, Scale
from hierlmm.fits.generalised_text import generalised_page
from hierlmm.options import checked, choose
from hierlmm.predict.rows import Interval, PredictionLevel
from hierlmm.results import Page

if TYPE_CHECKING:
    from hierlmm.implied.coefficients import MarginalCoefficients


@checked
class GeneralisedFit(Verbs, GeneralisedNumbers):
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
            Trials of the new rows of a binomial response; 1 by default, so that probabilities are predicted. For the
            fitted rows those of the data.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se`` (delta method), ``lower``, ``upper``; index of the rows.
        """
        from hierlmm.predict.generalised import predict_generalised

        choose("scale", scale, ("response", "link"))
        return predict_generalised(self, newdata, level, interval, ci, scale, trials)

    def probabilities(self, newdata: Any = None, level: PredictionLevel = "subject") -> pd.DataFrame:
        """Probabilities of the categories of an ordinal response.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level : {"subject", "population", "new_subject", "marginal"}
            Of a subject in the data, at its conditional mode; at b = 0, which is also the middle of subjects yet to be
            seen; or the share of all subjects, averaged over their random effects.

        Returns
        -------
        pandas.DataFrame
            A column for each category, lowest first; rows sum to one.
        """
        from hierlmm.predict.generalised import category_probabilities

        self._refuse_without_categories("probabilities of categories")
        return category_probabilities(self, newdata, level)

    @property
    def thresholds(self) -> pd.Series:
        """Thresholds between neighbouring categories of an ordinal response; the first is 0, the intercept moves it."""
        self._refuse_without_categories("thresholds")
        labels = list(map(str, self.design.rows.categories))
        index = [f"{below}|{above}" for below, above in pairwise(labels)]
        return pd.Series([0.0, *self.dispersion], index=index, name="threshold")

    def _refuse_without_categories(self, what: str) -> None:
        if self.family.name != "ordinal":
            reason = f"a {self.family.title} response has no ordered categories"
            remedy = "use fit.predict() for means and fit.dispersion for its dispersion, or family='ordinal'"
            raise NotAvailableError(what, reason, remedy, "docs, page 'Families'")

    def marginal_coefficients(self, *, ci: float = 0.95) -> MarginalCoefficients:
        """Population-averaged coefficients, with random effects integrated out: what GEE estimates.

        Parameters
        ----------
        ci : float
            Probability of the (Wald) intervals.

        Returns
        -------
        MarginalCoefficients
            ``.table`` with the conditional coefficients beside them.
        """
        from hierlmm.implied.coefficients import marginal_coefficients

        return marginal_coefficients(self, ci)
