"""What subjects are like, and the fit in words: doors to rooms that are imported when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import Asked
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.implied.marginal import ImpliedMarginal
    from hierlmm.interpret.groups import GroupComparison
    from hierlmm.interpret.heterogeneity import Heterogeneity
    from hierlmm.interpret.interpret import Interpretation
    from hierlmm.interpret.ranking import Ranking
    from hierlmm.interpret.subjects import SubjectComparison


@checked
class SubjectVerbs(Fit):
    """Differences between subjects, the implied marginal model, and sentences."""

    def heterogeneity(
        self,
        term: str | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        ci: float = 0.95,
        coverage: float = 0.95,
        above: float = 0.0,
        df: str | None = None,
        se: str | None = None,
    ) -> Heterogeneity:
        """How much subjects differ: the range of their coefficients, the share above a value, a new subject.

        Parameters
        ----------
        term : str, optional
            Level-1 coefficient that varies between subjects; all of them by default.
        at : mapping, optional
            Level-2 covariate -> value or values. By default factors stand at all levels, numbers at their mean over
            subjects.
        ci : float
            Probability of the intervals of the estimates.
        coverage : float
            Share of the subjects in the range, and probability of the predictive interval.
        above : float
            Value that the share of subjects is counted from.
        df, se
            For the interval of the mean, as for `marginal_means`.

        Returns
        -------
        Heterogeneity
            ``.table`` and a text and HTML view.

        Raises
        ------
        NotAvailableError
            If the fit has no random effects (GEE, marginal models).
        """
        from hierlmm.interpret.heterogeneity import heterogeneity

        return heterogeneity(self, term, at, ci=ci, coverage=coverage, above=above, how=Asked(df, se))

    def compare_subjects(self, a: Any, b: Any, term: str | None = None, *, ci: float = 0.95) -> SubjectComparison:
        """Probability that subject A's coefficient is larger than B's (level 2's part and the random effect together).

        Parameters
        ----------
        a, b
            Labels of two subjects in the data.
        term : str, optional
            Level-1 coefficient; may be left out where one varies beside the intercept.
        ci : float
            Probability of the interval of the difference.

        Returns
        -------
        SubjectComparison
            ``probability``, ``mcse``, ``estimate``, ``lower``, ``upper``; a text and HTML view.

        Raises
        ------
        NotAvailableError
            If the fit has no random effects, or gives both subjects the same coefficient.
        """
        from hierlmm.interpret.subjects import compare_subjects

        return compare_subjects(self, a, b, term, ci=ci)

    def compare_groups(self, reference: Any = None, *, ci: float = 0.95) -> GroupComparison:
        """Compare the groups of a model with ``group=``: ratios of standard deviations, differences of correlations.

        Parameters
        ----------
        reference : optional
            Level that all others are compared with; by default every pair is compared.
        ci : float
            Probability of the intervals.

        Returns
        -------
        GroupComparison
            ``.table``, with the probability that the first group's is larger (posterior) or p (likelihood); a text and
            HTML view.

        Raises
        ------
        NotAvailableError
            If the fit has one D for all, or no random effects.
        """
        from hierlmm.interpret.groups import compare_groups

        return compare_groups(self, reference, ci=ci)

    def rank_subjects(
        self,
        term: str | None = None,
        *,
        top: int | None = None,
        largest_first: bool = True,
        ci: float = 0.95,
        draws: int = 4000,
        seed: int | None = 0,
    ) -> Ranking:
        """Rank the subjects by a coefficient, with the uncertainty of every rank.

        Parameters
        ----------
        term : str, optional
            Level-1 coefficient; may be left out where one varies beside the intercept.
        top : int, optional
            Ranks that count as the top; a tenth of the subjects by default.
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
        """
        from hierlmm.interpret.ranking import rank_subjects

        return rank_subjects(self, term, top=top, largest_first=largest_first, ci=ci, draws=draws, seed=seed)

    def interpret(
        self, *, ci: float = 0.95, df: str | None = None, se: str | None = None, units: Any = None
    ) -> Interpretation:
        """The fit in plain words, warnings first, with the numbers behind every sentence.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        df, se
            For means, slopes and differences of a likelihood fit, as for `marginal_means`.
        units : mapping, optional
            Column -> unit: ``{"distance": "mm", "time": "year"}``.

        Returns
        -------
        Interpretation
            ``.sentences``, ``.facts``, ``.text``; a text and HTML view.
        """
        from hierlmm.interpret.interpret import interpret

        return interpret(self, ci=ci, how=Asked(df, se), units=units)

    def implied_marginal(self, times: Any = None, **options: Any) -> ImpliedMarginal:
        """Covariance, correlations and variances of one subject's measurements at chosen times, with bands and plots.

        Parameters
        ----------
        times : sequence, optional
            Values of the time variable; by default those in the data, or 25 equally spaced ones.
        **options
            ``at``, ``time``, ``ci``, ``draws``, ``seed``, ``label``, as for
            `hierlmm.implied.marginal.implied_marginal`.

        Returns
        -------
        ImpliedMarginal
            ``.V``, ``.correlation``, ``.variance``; ``.plot_heatmap()``, ``.plot_correlation()``, ``.plot_variance()``.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula(
        ...     "distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental")
        ... )
        >>> model.fit_reml().implied_marginal([0, 3, 6]).variance["variance"].round(2).tolist()
        [4.95, 5.07, 5.77]
        """
        from hierlmm.implied.marginal import implied_marginal

        return implied_marginal(self, times, **options)
