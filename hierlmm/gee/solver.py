"""The part of GEE that is statsmodels': its solver, at a given α, and the three covariances of β̂.

    Σ_i X_i' R_i(α)⁻¹ (y_i - X_i β) = 0

Imported only when a GEE is fitted.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from statsmodels.genmod.cov_struct import CovStruct
from statsmodels.genmod.generalized_estimating_equations import GEE
from statsmodels.tools.sm_exceptions import IterationLimitWarning

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.gee.correlation import Independent, WorkingMoments


class MomentStructure(CovStruct):
    """A `WorkingMoments` as statsmodels asks for it (identity link and constant variance, so no other weights)."""

    def __init__(self, moments: WorkingMoments) -> None:
        super().__init__()
        self.moments = moments
        self.dep_params = moments.parameter

    def update(self, params: FloatArray) -> None:
        """Estimate the working correlation from the residuals at the current coefficients."""
        fitted = np.concatenate([mean for mean, _ in self.model.cached_means])
        self.moments.update(np.concatenate(self.model.endog_li) - fitted)
        self.dep_params = self.moments.parameter

    def covariance_matrix(self, endog_expval: FloatArray, index: int) -> tuple[FloatArray, bool]:
        """Working correlation of one subject."""
        return self.moments.subject_matrix(index), True

    def covariance_matrix_solve(
        self, expval: FloatArray, index: int, stdev: FloatArray, rhs: tuple[FloatArray, ...]
    ) -> list[FloatArray]:
        """``R_i⁻¹`` times each right-hand side."""
        return [self.moments.solve(index, values) for values in rhs]


def solve(
    y: FloatArray,
    X: FloatArray,
    subject: IntArray,
    moments: WorkingMoments,
    *,
    ddof: int,
    bias_reduced: bool,
    tolerance: float,
    max_iterations: int,
) -> Any:
    """Run statsmodels' GEE from zero coefficients; rows sorted by subject. Returns its results."""
    model = GEE(
        y, X, groups=subject, cov_struct=MomentStructure(moments), update_dep=not isinstance(moments, Independent)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IterationLimitWarning)  # ``converged`` says so, and the fit in our words
        return model.fit(
            maxiter=max_iterations,
            ctol=tolerance,
            start_params=np.zeros(X.shape[1]),
            ddof_scale=ddof,
            cov_type="bias_reduced" if bias_reduced else "robust",
        )
