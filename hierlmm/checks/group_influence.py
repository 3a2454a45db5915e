"""Estimates of a fit with several factors without each group of one of them: fitted again, from the fit's own θ̂."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import MULTILEVEL
from hierlmm.design.rows import Grouping
from hierlmm.design.taken import take_rows
from hierlmm.diagnostics.factor_design import lam_at
from hierlmm.diagnostics.replicate import replicate
from hierlmm.errors import NotAvailableError
from hierlmm.fits.components import component_labels, component_values
from hierlmm.fits.multilevel import MultilevelNumbers
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise_again

MOST_GROUPS = 200
"""Groups of a factor, each of which is one more fit."""


def without_groups(fit: MultilevelNumbers, group: Grouping) -> tuple[FloatArray, FloatArray, pd.DataFrame, FloatArray]:
    """Fit the rows outside each group of a factor.

    Returns
    -------
    beta : (J, p)
    beta_cov : (J, p, p)
    components : DataFrame, (J, m)
        Covariance parameters by name.
    moved : (J,)
        The move of θ in standard errors. All are NaN where the other groups cannot be fitted.

    Raises
    ------
    NotAvailableError
        If it has more than 200 groups.
    """
    design, J = fit.design, len(group.labels)
    if J > MOST_GROUPS:
        received = f"influence({group.labels.name!r}) with {J:,} groups"
        reason, remedy = (
            "the model is fitted again without each of them",
            f"choose a factor with up to {MOST_GROUPS} groups",
        )
        raise NotAvailableError(received, reason, remedy, MULTILEVEL)
    centre, spread = fit.optimum.lam, np.linalg.pinv(fit.large_sample.covariance[:-1, :-1], hermitian=True)

    def without(j: int) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        own = take_rows(design, group.index != j)
        check_design(own)
        criterion = make_criterion(own, reml=fit.reml)
        at = criterion.solution(maximise_again(criterion, lam_at(criterion, fit.solution.D, fit.sigma)).lam)
        step = lam_at(fit.criterion_function, at.D, at.sigma) - centre
        moved = np.sqrt(max(float(step @ spread @ step), 0.0))
        return at.beta, at.beta_cov, component_values(design, at.D, at.sigma), moved

    names, p = component_labels(design), len(design.coef)
    lost = np.full(p, np.nan), np.full((p, p), np.nan), np.full(len(names), np.nan), np.nan
    found, _ = replicate(without, J, cores=None, progressbar=True, label=f"Fits without a group of {group.labels.name}")
    beta, beta_cov, components, moved = map(np.array, zip(*(own or lost for own in found), strict=True))
    return beta, beta_cov, pd.DataFrame(components, columns=names), moved
