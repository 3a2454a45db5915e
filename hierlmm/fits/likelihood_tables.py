"""The tables of a REML or ML fit, and its draws for ArviZ."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import pandas as pd

from hierlmm.errors import SpecificationError
from hierlmm.fits.components import FactorComponents
from hierlmm.fits.covariance_table import WaldComponents, profile_components, quantile, wald_components
from hierlmm.fits.degrees import (
    fit_empirical,
    fit_kenward_roger,
    fit_satterthwaite,
    likelihood_wald,
    summary_with_degrees,
)
from hierlmm.fits.draws import large_sample_tree
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.fits.profile_table import profile_summary
from hierlmm.likelihood.degrees import KenwardRogerDegrees, SatterthwaiteDegrees
from hierlmm.likelihood.empirical import EmpiricalDegrees
from hierlmm.likelihood.wald import Wald
from hierlmm.options import checked, choose


@checked
class LikelihoodNumbers(LikelihoodEstimates):
    """Estimates of a likelihood fit with intervals, degrees of freedom and draws."""

    def summary(
        self,
        ci: float = 0.95,
        df: str | None = None,
        se: str | None = None,
        *,
        method: Literal["wald", "profile"] = "wald",
    ) -> pd.DataFrame:
        """Fixed effects: estimate, se, lower, upper (Wald, normal quantiles) and t = estimate / se.

        Parameters
        ----------
        ci : float
            Probability of the interval.
        df : {"satterthwaite", "kenward-roger", "kenward-roger-linear", "residual", "normal"}, optional
            Use Student's t with degrees of freedom by this method, and add the columns ``df`` and ``p``. Kenward-Roger
            (REML only) also adjusts ``se``, "kenward-roger-linear" without second derivatives of the covariance;
            "residual" is N - p; "inf" is another word for "normal".
        se : {"model", "empirical", "empirical-jackknife", "empirical-bias-reduced"}, optional
            Standard errors of the model, or from the subjects' scores (sandwich), which are right in large samples
            whatever the covariance of a subject's rows; with Satterthwaite's degrees of freedom by default. Also
            called "CR0" or "sandwich", "CR3" and "CR2". NaN of what a subject determines alone.
        method : {"wald", "profile"}
            Wald intervals, or profile-likelihood intervals: all values that cost less than half the χ²₁ quantile in
            log-likelihood, by ML (a fit by REML is made again for them). They take no ``df`` and no ``se``.

        Raises
        ------
        SpecificationError
            If profile intervals are asked for with ``df`` or ``se``.
        """
        choose("method", method, ("wald", "profile"))
        if method == "profile":
            for name, value in (("df", df), ("se", se)):
                if value is not None:
                    received = f"{name}={value!r} with method='profile'"
                    reason = "profile intervals rest on no distribution of t"
                    raise SpecificationError(received, reason, "leave one of them out", "docs, page 'Intervals'")
            return profile_summary(self, ci)
        if df is not None or se is not None:
            return summary_with_degrees(self._wald(df, se), self.beta.index, ci)
        beta, own = self.beta, self.beta_se
        half = quantile(ci) * own
        columns = {"estimate": beta, "se": own, "lower": beta - half, "upper": beta + half, "t": beta / own}
        return pd.DataFrame(columns)

    @cached_property
    def _satterthwaite(self) -> SatterthwaiteDegrees:
        return fit_satterthwaite(self)

    @cached_property
    def _kenward_roger(self) -> KenwardRogerDegrees:
        return fit_kenward_roger(self)

    @cached_property
    def _empirical_known(self) -> dict[str, EmpiricalDegrees]:
        return {}

    def _empirical(self, kind: str) -> EmpiricalDegrees:
        if kind not in self._empirical_known:
            self._empirical_known[kind] = fit_empirical(self, kind)
        return self._empirical_known[kind]

    def _wald(self, df: str | None = None, se: str | None = None) -> Wald:
        return likelihood_wald(self, df, se)

    def variance_components(self, ci: float = 0.95, method: Literal["wald", "profile"] = "wald") -> pd.DataFrame:
        """Standard deviations, correlations, residual parameters and σ: estimate, se, lower, upper.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"wald", "profile"}
            Wald intervals on the log scale (Fisher's z for correlations, on their admissible interval), so they stay
            inside the parameter space; at a boundary optimum, or where the data say nothing, no such interval exists
            and it is NaN. Or profile-likelihood intervals: all values that cost less than half the χ²₁ quantile in
            log-likelihood; a limit at the end of a parameter's range (an SD of 0) is that end.
        """
        choose("method", method, ("wald", "profile"))
        table = self._components.table(ci) if method == "wald" else profile_components(self, ci)
        return FactorComponents(table) if self.design.has_several_factors else table

    @cached_property
    def _components(self) -> WaldComponents:
        return wald_components(self)

    def to_datatree(self, draws: int = 1000, chains: int = 4, seed: int | None = 0) -> Any:
        """Draws from the large-sample distribution, so that a likelihood fit enters any ArviZ function.

        β from its sampling distribution, (D, σ) from the normal approximation on the unconstrained scale, b from its
        conditional distribution given the draw of β (so its spread includes the uncertainty of β). The tree marks
        itself: ``attrs["approximation"]``. There are no chains in the sense of MCMC; R-hat is 1 by construction.

        Parameters
        ----------
        draws, chains : int
            Draws of each chain, and number of chains.
        seed : int, optional
            The same draws every time by default; None varies them.

        Returns
        -------
        xarray.DataTree
            Group ``posterior`` with ``beta``, ``b``, ``sd_b``, ``corr_b`` (by pair of terms), ``sigma``.
        """
        return large_sample_tree(self, draws, chains, seed)
