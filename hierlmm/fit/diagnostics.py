"""Diagnostics of a posterior: pictures, each with its verdict in words, and the sensitivity to prior and likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.diagnostics.loo import Unit
from hierlmm.fit.chains import ChainVerbs, figure_of, selection_of
from hierlmm.options import checked
from hierlmm.plots.chosen import Choice

if TYPE_CHECKING:
    from hierlmm.diagnostics.psense import PowerScaling


@checked
class DiagnosticVerbs(ChainVerbs):
    """Pictures of ArviZ with the right variables, sizes and labels, and whether anything is wrong in the title."""

    @property
    def labeller(self) -> Any:
        """Labels for ArviZ, as the tables write them: ``az.plot_trace(fit.datatree, labeller=fit.labeller)``."""
        from hierlmm.bayes.labels import Labeller

        return Labeller()

    def for_arviz(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
    ) -> Any:
        """A smaller tree for any function of ArviZ: the parameters under the names that tables use.

        ``az.plot_rank_dist(fit.for_arviz(), labeller=fit.labeller)`` draws a panel for each parameter, where
        ``az.plot_rank_dist(fit.datatree)`` would need one for every random effect.

        Parameters
        ----------
        parameters, choose, max_panels, seed
            As for `plot_trace`.

        Returns
        -------
        DataTree
            ``posterior`` (and ``prior``, if the fit was extended by it) with one variable ``draws`` (chain, draw,
            parameter); ``log_likelihood`` by subject, random effects integrated out; all other groups of the fit's own
            tree as they are.
        """
        from hierlmm.plots.chosen import tree_for_arviz

        return tree_for_arviz(self, selection_of(parameters, choose, max_panels, seed))

    def psense(self, unit: Unit = "subject") -> PowerScaling:
        """How much the posterior changes when the prior, or the likelihood, counts a little more or less.

        Both are raised to powers near 1 and the draws reweighted, without refitting (Kallioinen et al. 2024). A
        parameter that is sensitive to its prior and to the data may have a prior that contradicts the data; one that is
        sensitive to its prior alone is determined by it.

        Parameters
        ----------
        unit : {"subject", "observation"}
            Of the likelihood that is scaled. ``"subject"``: random effects integrated out, the likelihood of the
            parameters that have a prior. ``"observation"``: given the random effects, which makes standard deviations
            look more sensitive than they are. The prior is that of fixed effects, D, residual parameters and σ.

        Returns
        -------
        PowerScaling
            ``table`` (``prior``, ``likelihood``, ``diagnosis`` by parameter) and ``verdict``.

        Raises
        ------
        NotAvailableError
            If the priors of the fit are not known.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> fit = model.fit(seed=1, progressbar=False)
        >>> list(fit.psense().table.columns)
        ['prior', 'likelihood', 'shift', 'diagnosis']
        """
        from hierlmm.diagnostics.psense import psense

        return psense(self, unit)

    def plot_energy(
        self,
        *,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Energy of the draws and of their steps, with E-BFMI of every chain.

        Where steps change the energy less than the draws spread, the sampler moves too slowly through the tails
        (Betancourt 2016).

        Parameters
        ----------
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture

        Raises
        ------
        NotAvailableError
            If the fit has no statistics of a sampler.
        """
        from hierlmm.plots.diagnostics import plot_energy

        return plot_energy(self, figure_of(figsize, title, backend, figure_kwargs))

    def plot_pair(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        subject: Any = None,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Pairs of draws, with divergences marked.

        By default the standard deviations, correlations, residual parameters and σ, and the random effects of one
        subject: where draws of b fan out as their standard deviation grows, and divergences gather at its tip, the
        sampler may miss the region near zero (the funnel). At most eight parameters, those with the largest R-hat.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
            ``"sigma"``).
        subject : label, optional
            Whose random effects are drawn; by default those of the subject who has the fewest rows.
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture
            Visuals ``scatter`` and ``divergence`` over pairs of ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_pair

        return plot_pair(self, parameters, subject, figure_of(figsize, title, backend, figure_kwargs))

    def plot_prior_posterior(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        draws: int = 2000,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Densities of prior and posterior, with what the data leave of the prior's SD in the title.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
            ``"sigma"``, ``"b"``); all but the random effects by default.
        choose : {"worst", "extremes", "random"}
            Which are drawn where there are more than ``max_panels``: with the largest R-hat, farthest from zero in
            posterior SDs, or at random; the title says it. Of more than 1,000 random effects 1,000 are looked at.
        max_panels : int
            Most parameters to draw.
        seed : int, optional
            Of a choice at random.
        draws : int
            Number of draws from the prior.
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture
            Visual ``dist`` over ``parameter`` × ``group``.

        Raises
        ------
        NotAvailableError
            If the priors of the fit are not known.
        """
        from hierlmm.plots.diagnostics import plot_prior_posterior

        return plot_prior_posterior(
            self,
            selection_of(parameters, choose, max_panels, seed),
            figure_of(figsize, title, backend, figure_kwargs),
            draws,
        )

    def plot_psense(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 8,
        seed: int | None = 0,
        unit: Unit = "subject",
        kind: Literal["densities", "quantities"] = "densities",
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Posteriors with the prior, or the likelihood, counting less and more (0.8 and 1.25 times).

        See `psense` for the numbers. Where a density moves with the prior, the prior matters.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
            ``"sigma"``, ``"b"``); all but the random effects by default, those most sensitive to the prior.
        choose : {"worst", "extremes", "random"}
            Which are drawn where there are more than ``max_panels``: with the largest R-hat, farthest from zero in
            posterior SDs, or at random; the title says it. Of more than 1,000 random effects 1,000 are looked at.
        max_panels : int
            Most parameters to draw.
        seed : int, optional
            Of a choice at random.
        unit : {"subject", "observation"}
            Of the likelihood: random effects integrated out, or given.
        kind : {"densities", "quantities"}
            The posteriors, or their means and SDs as the weight changes.
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture
            Visual ``dist`` over ``parameter`` × ``component_group``.

        Raises
        ------
        NotAvailableError
            If the priors of the fit are not known.
        """
        from hierlmm.plots.diagnostics import plot_psense

        selection, figure = (
            selection_of(parameters, choose, max_panels, seed),
            figure_of(figsize, title, backend, figure_kwargs),
        )
        return plot_psense(self, selection, figure, unit, kind)

    def plot_khat(
        self,
        unit: Unit = "subject",
        *,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Pareto k of every unit left out, the largest named, with whether `loo` can be relied on in the title.

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out; see `loo`.
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture
            Visual ``khat`` over the units.
        """
        from hierlmm.plots.diagnostics import plot_khat

        return plot_khat(self, figure_of(figsize, title, backend, figure_kwargs), unit)

    def plot_loo_pit(
        self,
        unit: Unit = "subject",
        *,
        statistic: str = "mean",
        kind: Literal["pit", "interval"] = "pit",
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Is every subject where the others say it should be? Leave-one-out PIT, with a test in the title.

        One number T of each subject's rows is compared with the same number of a new subject that has the covariates of
        this one, given the data of all other subjects:

            ``PIT_i = P(T(y_i*) ≤ T(y_i) | y_-i)``

        with ``y_i* ~ N(X_i β, Z_i D Z_i' + Σ_i)``, and β, D, Σ from the posterior without subject i (importance
        sampling with the subject's marginal likelihood). It is uniform where the model is true, for any T that is a
        function of the data (Gelfand, Dey & Chang 1992). Drawn is its distribution function less that of a uniform
        distribution: above zero left and below it right where subjects spread more widely than the model expects, the
        other way round where less. A check with draws given the subjects' own random effects is not uniform (docs,
        page "Posterior fits").

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out: a subject, or a row given the other rows of its subject.
        statistic : str
            What T is: ``"mean"`` or ``"sd"`` of the subject's rows, or a random effect's term (``"days"``): that
            coefficient of the subject's own least-squares regression. Of subjects only.
        kind : {"pit", "interval"}
            The PIT, or T of every subject over the interval that all others predict for it.
        seed : int, optional
            Of the simulated subjects, and of the choice of 1,000 where there are more.
        figsize : (width, height), optional
            Inches.
        title : str, optional
            In place of the one with the verdict.
        backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
            ArviZ's default otherwise.
        figure_kwargs : mapping, optional
            Passed to ArviZ.

        Returns
        -------
        Picture
            Visuals ``ecdf_lines`` and ``suspicious_points``.
        """
        from hierlmm.plots.diagnostics import plot_loo_pit

        return plot_loo_pit(self, figure_of(figsize, title, backend, figure_kwargs), unit, statistic, seed, kind)
