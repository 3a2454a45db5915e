"""Pictures of a sampler's chains, each with its verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked
from hierlmm.plots.chosen import Choice


@checked
class ChainVerbs(PosteriorNumbers):
    """Pictures of ArviZ with the right variables, sizes and labels, and whether anything is wrong in the title."""

    def plot_trace(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Draws in their order, a line for each chain, with R-hat in the title.

        Chains that agree lie on top of each other, without trends; divergences are ticks below.

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
            Visuals ``trace`` and ``divergence`` over ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_trace

        return plot_trace(
            self, selection_of(parameters, choose, max_panels, seed), figure_of(figsize, title, backend, figure_kwargs)
        )

    def plot_rank(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Ranks of each chain's draws among all draws, with R-hat in the title.

        Drawn is the distribution of the ranks less a uniform one: lines that stay near zero, and a large p-value of
        ArviZ's test, mean that the chains agree (Säilynoja, Bürkner & Vehtari 2022).

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
            Visual ``ecdf_lines`` over ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_rank

        return plot_rank(
            self, selection_of(parameters, choose, max_panels, seed), figure_of(figsize, title, backend, figure_kwargs)
        )

    def plot_autocorr(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Correlation of draws that are so many steps apart, with effective sample sizes in the title.

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
            Visual ``lines`` over ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_autocorr

        return plot_autocorr(
            self, selection_of(parameters, choose, max_panels, seed), figure_of(figsize, title, backend, figure_kwargs)
        )

    def plot_ess(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        kind: Literal["local", "quantile"] = "local",
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Effective sample size along the distribution of each parameter, with the least of all in the title.

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
        kind : {"local", "quantile"}
            Of the probability of small intervals, or of quantiles.
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
            Visuals ``ess`` and ``min_ess`` (400) over ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_ess

        return plot_ess(
            self,
            selection_of(parameters, choose, max_panels, seed),
            figure_of(figsize, title, backend, figure_kwargs),
            kind,
        )

    def plot_mcse(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Monte-Carlo standard error of every quantile, with that of the means in the title.

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
            Visual ``mcse`` over ``parameter``.

        Raises
        ------
        NotAvailableError
            If random effects are asked for, and the fit kept no draws of them.
        """
        from hierlmm.plots.diagnostics import plot_mcse

        return plot_mcse(
            self, selection_of(parameters, choose, max_panels, seed), figure_of(figsize, title, backend, figure_kwargs)
        )

    def plot_diagnostics(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 6,
        seed: int | None = 0,
        figsize: Sequence[float] | None = None,
        title: str | None = None,
        backend: str | None = None,
        figure_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """One page: trace, ranks, autocorrelation and effective sample size, a row for each parameter.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
            ``"sigma"``, ``"b"``); of all, random effects included, by default.
        choose : {"worst", "extremes", "random"}
            Which are drawn where there are more than ``max_panels``: with the largest R-hat, farthest from zero in
            posterior SDs, or at random; the title says it. Of more than 1,000 random effects 1,000 are looked at.
        max_panels : int
            Most parameters to draw.
        seed : int, optional
            Of a choice at random.
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
        """
        from hierlmm.plots.diagnostics import plot_diagnostics

        return plot_diagnostics(
            self, selection_of(parameters, choose, max_panels, seed), figure_of(figsize, title, backend, figure_kwargs)
        )


def selection_of(parameters: str | Sequence[str] | None, choose: str, max_panels: int, seed: int | None) -> Any:
    """Arguments of `hierlmm.plots.chosen.choose_draws`."""
    return {"parameters": parameters, "how": choose, "most": max_panels, "seed": seed}


def figure_of(
    figsize: Sequence[float] | None, title: str | None, backend: str | None, figure_kwargs: Mapping[str, Any] | None
) -> Any:
    """Arguments of the figure."""
    return {"figsize": figsize, "title": title, "backend": backend, "figure_kwargs": figure_kwargs}
