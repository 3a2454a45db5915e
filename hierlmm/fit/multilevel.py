"""Fits of models with several grouping factors: the numbers of `hierlmm.fits.multilevel` and what they can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fit.factor_verbs import FactorVerbs
from hierlmm.fit.likelihood import LikelihoodFit
from hierlmm.fits.multilevel import MultilevelNumbers, of_factor
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.checks.influence import Influence

FACTOR = """factor : str
    The grouping factor whose random effects are drawn."""


@checked
class MultilevelFit(FactorVerbs, MultilevelNumbers, LikelihoodFit):  # type: ignore[misc]  # by factor, not one table
    """A model with several grouping factors, nested or crossed, fitted by REML or ML.

    What a two-level fit has by subject is here by factor: ``fit.D["batch"]``, ``fit.sd_b["batch"]``,
    ``fit.corr_b["batch"]``, ``fit.b["batch"]``, ``fit.b_sd["batch"]``, ``fit.b_cov["batch"]``. What is not made for
    several factors yet is refused, with what to use instead.
    """

    plot_random_effects = as_verb(plots.plot_random_effects, chosen=of_factor, choice=FACTOR)

    def predict(
        self,
        newdata: Any = None,
        level: str = "all",
        interval: Literal["confidence", "credible", "prediction"] | None = None,
        ci: float = 0.95,
        *,
        new_groups: Literal["refuse", "allow"] = "refuse",
    ) -> pd.DataFrame:
        """Predict the response.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. Columns of the factors that the level uses have to be there.
        level : str
            ``"all"``: with the random effects of all factors; ``"population"``: with none; or a factor: with its own,
            and those of the factors that it is nested in. At level ``"batch"`` a cask is exactly in the middle of its
            batch.
        interval : {"confidence", "prediction"}, optional
            For that line, or for a new measurement on it, which adds the residual variance; ``"credible"`` means
            ``"confidence"``. The uncertainty of β and b is their joint one given θ; that of θ enters through
            Student's t with Satterthwaite's degrees of freedom.
        ci : float
            Probability of the interval.
        new_groups : {"refuse", "allow"}
            What to do with groups that were not in the data: refuse them, or take them as drawn at random. Their random
            effects are then 0 in the estimate, their mean, and intervals hold their variance.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. ``.attrs`` says in words
            what the interval is for.

        Raises
        ------
        DataError
            If a column is absent, a factor level is new, a value is missing, or a group is not in the fitted data.
        NotAvailableError
            If an interval is asked for beside more than 1,000 random effects.
        """
        from hierlmm.predict.factors import predict_factors

        return predict_factors(self, newdata, level, interval, ci, new_groups)

    def influence(self, factor: str | None = None) -> Influence:
        """What the fit would be without each group of a factor in turn, fitted again without it.

        Parameters
        ----------
        factor : str
            Which factor's groups, up to 200 of them: ``fit.influence("batch")``.

        Returns
        -------
        Influence
            ``table`` (Cook's distance, the largest DFBETAS, the move of the covariance parameters), ``beta``,
            ``dfbetas`` and ``components`` by group, and ``plot()``.

        Raises
        ------
        DataError
            If there is no such factor.
        NotAvailableError
            If it has more than 200 groups.
        """
        from hierlmm.checks.influence import influence

        return influence(self, factor=factor)
