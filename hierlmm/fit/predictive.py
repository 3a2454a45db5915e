"""Predictive checks of a posterior as verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

from hierlmm import plots
from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import as_verb
from hierlmm.fits.posterior import PosteriorNumbers, Replication
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.diagnostics.predictive_checks import PredictiveCheck


@checked
class PredictiveVerbs(PosteriorNumbers):
    """What a posterior predicts, beside the data."""

    def ppc(
        self,
        level: Replication = "new_subject",
        statistics: str | Sequence[str] | Mapping[str, Callable[[FloatArray], float]] | None = None,
        *,
        by: str | None = None,
        draws: int = 100,
        ci: float = 0.95,
        seed: int | None = 0,
    ) -> PredictiveCheck:
        """Compare statistics of the data, and the PIT values of its rows, with what the model would produce.

        The p-values are calibrated: under the model they are below 0.05 in 5 % of data sets
        (`hierlmm.diagnostics.predictive_checks` says how).

        Parameters
        ----------
        level : {"new_subject", "subject", "mixed"}
            Replications of new subjects with the same covariates, of the same subjects, or of every row given the
            subject's other rows.
        statistics : str, sequence of str, or mapping of str to function, optional
            ``"sd_within"``, ``"sd_between"``, ``"sd_slope"``, ``"lag1"``, ``"skewness"``, ``"maximum"``; of counts and
            categories ``"mean"``, ``"sd"``, ``"zeros"``, ``"dispersion"``, ``"one_value"``, ``"share(...)"``
            (`hierlmm.diagnostics.statistics` defines them). All that the data have by default; or functions of one
            data set, an array in the order of ``model.data``, by name: ``{"range": np.ptp}``.
        by : str, optional
            ``"subject"`` or another column of the data: the statistics of the rows of each of its values, at most 12,
            evenly chosen. PIT values remain those of all rows.
        draws : int
            Posterior draws, evenly spaced; up to 200 data sets are simulated at each.
        ci : float
            Probability of the intervals, and of the band of the PIT values.
        seed : int, optional

        Returns
        -------
        PredictiveCheck

        Raises
        ------
        NotAvailableError
            At level ``"subject"``, if the fit kept no draws of the random effects.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> check = model.fit(seed=1, progressbar=False).ppc(draws=20)
        >>> list(check.table.index)
        ['sd_within', 'sd_between', 'sd_slope', 'lag1', 'skewness', 'maximum']
        """
        from hierlmm.diagnostics.predictive_checks import ppc

        return ppc(self, level, statistics, by, draws, ci, seed)

    plot_ppc = as_verb(plots.plot_ppc, "kind", "level", "by")

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
        PosteriorFit or GeneralisedPosterior

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
