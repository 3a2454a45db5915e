"""Profile-likelihood intervals of the fixed effects of a fit, by ML; the covariance parameters' are in another file.

A restricted likelihood does not compare values of β: with a coefficient held at two values it is of two sets of
contrasts. A fit by REML is made again by ML for them, as lme4's ``confint`` does.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.fits.covariance_table import quantile
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise
from hierlmm.likelihood.profile_beta import HeldBeta
from hierlmm.likelihood.wald import df_advised
from hierlmm.results import NotedTable

REFITTED = "intervals of fixed effects are by ML, which this fit by REML was made again for"


class FixedProfiles:
    """Profile likelihoods of the fixed effects of a fit."""

    def __init__(self, fit: LikelihoodEstimates) -> None:
        if fit.design.has_several_factors:
            reason = "a coefficient is held by taking cross-products apart subject by subject"
            wald = f"fit.summary(df={df_advised(fit.reml)!r})"
            remedy = f"use {wald}; fit.variance_components(method='profile') has the variances"
            received = "profile intervals of fixed effects with several grouping factors"
            raise NotAvailableError(received, reason, remedy, MULTILEVEL)
        variance = fit.design.residual_variance
        if variance is not None and variance.variable is None:
            received = f"profile intervals of fixed effects with a residual variance {variance}"
            reason = "it depends on the fitted values, which every value of a coefficient would change"
            remedy = "let the variance depend on a column of the data, or use fit.bootstrap()"
            raise NotAvailableError(received, reason, remedy, "docs, page 'Intervals'")
        self.fit = fit

    @cached_property
    def held(self) -> list[HeldBeta]:
        """Each coefficient, with the criterion at which it may be held."""
        fit = self.fit
        criterion, lam = fit.criterion_function, fit.optimum.lam
        if fit.reml:
            criterion = make_criterion(fit.design, reml=False)
            lam = maximise(criterion).lam
        return [HeldBeta(criterion, lam, own) for own in np.eye(len(fit.design.coef))]

    def ends(self, k: int, z: float) -> tuple[float, float]:
        """Where ζ of a coefficient is −z and z."""
        own = self.held[k]
        return own.end(-z), own.end(z)

    def curve(self, k: int, most: float, n: int) -> tuple[FloatArray, FloatArray]:
        """Values of a coefficient and ζ there."""
        return self.held[k].curve(most, n)


def profile_summary(fit: LikelihoodEstimates, ci: float) -> pd.DataFrame:
    """Fixed effects with profile intervals: estimate, se, lower, upper, t."""
    z, profiles = quantile(ci), FixedProfiles(fit)
    limits = np.array([profiles.ends(k, z) for k in range(len(fit.beta))]).reshape(-1, 2)
    beta, se = fit.beta, fit.beta_se
    columns = {"estimate": beta, "se": se, "lower": limits[:, 0], "upper": limits[:, 1], "t": beta / se}
    table = NotedTable(columns)
    table.attrs = {"description": "profile likelihood", "notes": [REFITTED] if fit.reml else []}
    return table
