"""What fits of generalised models can be asked, by maximum likelihood and as posteriors."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hierlmm.errors import NotAvailableError
from hierlmm.fit.verbs import Verbs
from hierlmm.options import checked
from hierlmm.predict.rows import PredictionLevel

if TYPE_CHECKING:
    from hierlmm.implied.coefficients import MarginalCoefficients


@checked
class GeneralisedVerbs(Verbs):
    """The verbs of every fit, categories of an ordinal response, and coefficients of the mean over subjects."""

    def probabilities(self, newdata: Any = None, level: PredictionLevel = "subject") -> pd.DataFrame:
        """Probabilities of the categories of an ordinal response; of a posterior their means over draws.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level : {"subject", "population", "new_subject", "marginal"}
            Of a subject in the data, at its conditional mode or from the draws of its effects; at b = 0, which is also
            the middle of subjects yet to be seen; or the share of all subjects, averaged over their random effects.

        Returns
        -------
        pandas.DataFrame
            A column for each category, lowest first; rows sum to one. With intervals, averaged over factors:
            ``fit.marginal_means()``.
        """
        from hierlmm.predict.generalised import category_probabilities
        from hierlmm.predict.posterior_generalised import category_means

        self._refuse_without_categories("probabilities of categories")
        return (category_means if self.has_draws else category_probabilities)(self, newdata, level)

    @property
    def thresholds(self) -> pd.Series:
        """Thresholds between neighbouring categories of an ordinal response; the first is 0, the intercept moves it."""
        self._refuse_without_categories("thresholds")
        fit: Any = self
        labels = list(map(str, self.design.rows.categories))
        index = [f"{below}|{above}" for below, above in pairwise(labels)]
        return pd.Series([0.0, *fit.dispersion], index=index, name="threshold")

    def _refuse_without_categories(self, what: str) -> None:
        family = self.design.family
        if family.name != "ordinal":
            reason = f"a {family.title} response has no ordered categories"
            remedy = "use fit.predict() for means and fit.dispersion for its dispersion, or family='ordinal'"
            raise NotAvailableError(what, reason, remedy, "docs, page 'Families'")

    def marginal_coefficients(self, *, ci: float = 0.95) -> MarginalCoefficients:
        """Population-averaged coefficients, with random effects integrated out: what GEE estimates.

        Parameters
        ----------
        ci : float
            Probability of the intervals, Wald's or of a posterior equal-tailed.

        Returns
        -------
        MarginalCoefficients
            ``.table`` with the conditional coefficients beside them.
        """
        from hierlmm.implied.coefficients import marginal_coefficients

        return marginal_coefficients(self, ci)


@checked
class CategoriesByFactor(GeneralisedVerbs):
    """Probabilities of categories where there are several grouping factors."""

    def probabilities(
        self, newdata: Any = None, level: str = "all", *, new_groups: Literal["refuse", "allow"] = "refuse"
    ) -> pd.DataFrame:
        """Probabilities of the categories of an ordinal response; of a posterior their means over draws.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default.
        level, new_groups
            As for `predict`; of new groups the mean over their random effects.

        Returns
        -------
        pandas.DataFrame
            A column for each category, lowest first; rows sum to one.
        """
        from hierlmm.predict.generalised_factor_draws import category_means_of_factors
        from hierlmm.predict.generalised_factors import category_probabilities_of_factors

        self._refuse_without_categories("probabilities of categories")
        found = category_means_of_factors if self.has_draws else category_probabilities_of_factors
        return found(self, newdata, level, new_groups)
