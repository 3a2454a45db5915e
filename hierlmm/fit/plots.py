"""Pictures of a fit: doors to `hierlmm.plots`, which is imported when it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierlmm.fits.base import Fit
from hierlmm.options import checked, renamed


@checked
class PlotVerbs(Fit):
    """Plots; each takes the options of the function of the same name in `hierlmm.plots`."""

    @renamed(focal="variable")
    def plot_effects(
        self,
        variable: str | None = None,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Curves of the mean along a covariate, with bands; see `hierlmm.plots.plot_effects`.

        Parameters
        ----------
        variable, by, at
            As for `effects`.
        **options
            As for `hierlmm.plots.plot_effects`.
        """
        from hierlmm.plots import plot_effects

        return plot_effects(self, variable=variable, by=by, at=at, **options)

    def plot_trajectories(self, **options: Any) -> Any:
        """Data, subject lines and population line; see `hierlmm.plots.plot_trajectories`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_trajectories`.
        """
        from hierlmm.plots import plot_trajectories

        return plot_trajectories(self, **options)

    def plot_subject_prediction(self, history: Any, times: Any = None, **options: Any) -> Any:
        """Predict a new subject, measurement by measurement; see `hierlmm.plots.plot_subject_prediction`.

        Parameters
        ----------
        history, times
            As for ``predict_subject``.
        **options
            As for `hierlmm.plots.plot_subject_prediction`.
        """
        from hierlmm.plots import plot_subject_prediction

        return plot_subject_prediction(self, history, times, **options)

    def plot_random_effects(self, **options: Any) -> Any:
        """Random effects with intervals, sorted; see `hierlmm.plots.plot_random_effects`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_random_effects`.
        """
        from hierlmm.plots import plot_random_effects

        return plot_random_effects(self, **options)

    def plot_shrinkage(self, **options: Any) -> Any:
        """Separate, pooled and partially pooled regressions; see `hierlmm.plots.plot_shrinkage`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_shrinkage`.
        """
        from hierlmm.plots import plot_shrinkage

        return plot_shrinkage(self, **options)

    def plot_forest(self, **options: Any) -> Any:
        """Estimates with intervals; see `hierlmm.plots.plot_forest`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_forest`.
        """
        from hierlmm.plots import plot_forest

        return plot_forest(self, **options)

    def plot_posterior(self, **options: Any) -> Any:
        """Densities of the parameters; see `hierlmm.plots.plot_posterior`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_posterior`.
        """
        from hierlmm.plots import plot_posterior

        return plot_posterior(self, **options)
