"""What the groups of a factor are like, where there are several: doors to rooms that are imported when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hierlmm.fits.several_numbers import FactorNumbers
from hierlmm.likelihood.wald import Asked
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.implied.sharing import SharedGroups
    from hierlmm.interpret.heterogeneity import Heterogeneity
    from hierlmm.interpret.ranking import Ranking


@checked
class FactorVerbs(FactorNumbers):
    """What is asked about subjects elsewhere, about the groups of a factor."""

    def heterogeneity(
        self,
        factor: str | None = None,
        term: str | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        ci: float = 0.95,
        coverage: float = 0.95,
        above: float = 0.0,
        df: str | None = None,
        se: str | None = None,
    ) -> Heterogeneity:
        """How much the groups of a factor differ: the range of their coefficients, the share above a value, a new one.

        The random effects of all other factors are 0: of a cask in a batch, the spread is that of casks of one batch.

        Parameters
        ----------
        factor : str
            Whose groups: ``fit.heterogeneity("batch")``.
        term : str, optional
            Coefficient that varies between them; all of them by default.
        at : mapping, optional
            Covariate that is constant within groups -> value or values. By default factors stand at all levels, numbers
            at their mean over groups.
        ci : float
            Probability of the intervals of the estimates.
        coverage : float
            Share of the groups in the range, and probability of the predictive interval.
        above : float
            Value that the share of groups is counted from.
        df, se
            For the interval of the mean, as for `marginal_means`.

        Returns
        -------
        Heterogeneity
            ``.table``, ``.plot()``; a text and HTML view.

        Raises
        ------
        DataError
            If there is no such factor.
        """
        from hierlmm.interpret.heterogeneity import heterogeneity

        how = Asked(df, se)
        return heterogeneity(self, term, at, ci=ci, coverage=coverage, above=above, how=how, factor=factor)

    def rank_subjects(
        self,
        factor: str | None = None,
        term: str | None = None,
        *,
        top: int | None = None,
        largest_first: bool = True,
        ci: float = 0.95,
        draws: int = 4000,
        seed: int | None = 0,
    ) -> Ranking:
        """Rank the groups of a factor by a coefficient, with the uncertainty of every rank.

        A group's coefficient holds its own random effect and those of the factors that it is nested in, as predictions
        at its level do: of a cask, that of its batch.

        Parameters
        ----------
        factor : str
            Whose groups: ``fit.rank_subjects("batch")``.
        term : str, optional
            Coefficient that varies between them; may be left out where one varies beside the intercept.
        top : int, optional
            Ranks that count as the top; a tenth of the groups by default.
        largest_first : bool
            Whether rank 1 is the largest coefficient.
        ci : float
            Probability of the intervals of the ranks.
        draws, seed : int
            Joint draws of a likelihood fit; a posterior uses its own.

        Returns
        -------
        Ranking
            ``.table``, ``.plot()``; a text and HTML view.

        Raises
        ------
        DataError
            If there is no such factor.
        """
        from hierlmm.interpret.ranking import rank_subjects

        options: Any = {"top": top, "largest_first": largest_first, "ci": ci, "draws": draws, "seed": seed}
        return rank_subjects(self, term, factor=factor, **options)

    def implied_marginal(
        self,
        at: Mapping[str, Any] | None = None,
        *,
        rows: Any = None,
        ci: float = 0.95,
        draws: int = 1000,
        seed: int | None = 0,
    ) -> SharedGroups:
        """Covariance and correlation of two rows by the groups that they share: who shares what.

        Parameters
        ----------
        at : mapping, optional
            Where slopes are random: their columns -> the value in both rows, or ``[first, second]``. By default the
            mean of a number and the first level of a factor.
        rows : label or sequence of labels, optional
            Rows by the index of the data for the picture and for ``.V``; by default up to 30 of the first groups.
        ci : float
            Probability of the intervals of the correlations.
        draws : int
            Draws of the covariance parameters behind the intervals; 0 leaves them out. Of a posterior it is all draws
            or, with 0, no intervals.
        seed : int, optional
            Of the draws.

        Returns
        -------
        SharedGroups
            ``.pairs``, ``.variance``; ``.V`` and ``.correlation`` of chosen rows; ``.plot_heatmap()``. Of a posterior
            these are means of the draws.

        Raises
        ------
        SpecificationError, DataError
            If ``at`` names no column of a random slope, or there is no such row.
        """
        from hierlmm.implied.sharing import shared_groups

        return shared_groups(self, at, rows, ci, draws, seed)
