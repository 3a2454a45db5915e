"""A fit beside one by GEE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierlmm.fit.verbs import Verbs
from hierlmm.fits.gee import GEENumbers
from hierlmm.gee.estimate import Scale
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.fit.gee import GEEFit


@checked
class BesideGEE(Verbs):
    """The verbs of fits that have a likelihood, of the data or as a posterior."""

    def compare_marginal(
        self,
        correlation: str | GEEFit | None = None,
        *,
        time: Any = None,
        scale: Scale = "n-p",
        ci: float = 0.95,
        **gee: Any,
    ) -> Any:
        """Set this fit against GEE: estimates; the fit's own, naive, robust and bias-reduced se.

        Parameters
        ----------
        correlation : str or GEEFit, optional
            As in ``TwoLevelModel.fit_gee``: exchangeable by default; for a marginal model its own, where GEE has it. Or
            a GEE fit that there is already, of the same rows and coefficients.
        time, scale, **gee
            As in ``TwoLevelModel.fit_gee``.
        ci : float
            Probability of the intervals.

        Returns
        -------
        MarginalComparison
            ``.table``, a text and HTML view, ``.plot_forest()``.
        """
        from hierlmm.comparison.against_gee import beside_gee, counterpart
        from hierlmm.fit.gee import gee_fit
        from hierlmm.gee.record import fit_gee

        if isinstance(correlation, GEENumbers):
            return beside_gee(self, correlation, ci, time=time, scale=scale, **gee)
        correlation, time = counterpart(self, correlation, time)
        return beside_gee(self, gee_fit(fit_gee(self.design, correlation, time=time, scale=scale, **gee)), ci)
