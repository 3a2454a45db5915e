"""The part of GEE that is statsmodels': its solver, at a given α, and the three covariances of β̂.

    Σ_i D_i' V_i(α)⁻¹ (y_i - μ_i) = 0

Imported only when a GEE is fitted.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from statsmodels.genmod.cov_struct import CovStruct
from statsmodels.genmod.families import Family
from statsmodels.genmod.families.links import Link
from statsmodels.genmod.generalized_estimating_equations import GEE
from statsmodels.tools.sm_exceptions import IterationLimitWarning

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.families import links
from hierlmm.gee.correlation import Independent, WorkingMoments
from hierlmm.gee.problem import Problem


class OwnLink(Link):
    """A link of ours as statsmodels asks for it."""

    def __init__(self, link: links.Link) -> None:
        self.own = link

    def inverse(self, z: FloatArray) -> FloatArray:
        """Mean at a linear predictor."""
        return self.own.inverse(z)

    def inverse_deriv(self, z: FloatArray) -> FloatArray:
        """Its derivative."""
        return self.own.slope(z)


class OwnFamily(Family):
    """A family of ours as statsmodels asks for it: the link, and the variance of one trial."""

    safe_links = (Link,)

    def __init__(self, problem: Problem) -> None:
        super().__init__(OwnLink(problem.family.function), problem.variance, check_link=False)


class MomentStructure(CovStruct):
    """A `WorkingMoments` as statsmodels asks for it."""

    def __init__(self, moments: WorkingMoments, root: FloatArray) -> None:
        super().__init__()
        self.moments, self.root = moments, root
        self.roots = np.split(root, moments.rows.start[1:-1])
        self.dep_params = moments.parameter

    def residual(self) -> FloatArray:
        """Pearson's residuals at the current coefficients, (N,)."""
        fitted = np.concatenate([mean for mean, _ in self.model.cached_means])
        deviation = np.concatenate(self.model.endog_li) - fitted
        return deviation * self.root / np.sqrt(self.model.family.variance(fitted))

    def update(self, params: FloatArray) -> None:
        """Estimate the working correlation from the residuals at the current coefficients."""
        residual = self.residual()
        if np.all(np.isfinite(residual)):
            self.moments.update(residual)
        self.dep_params = self.moments.parameter

    def covariance_matrix(self, endog_expval: FloatArray, index: int) -> tuple[FloatArray, bool]:
        """Working correlation of one subject."""
        return self.moments.subject_matrix(index), True

    def covariance_matrix_solve(
        self, expval: FloatArray, index: int, stdev: FloatArray, rhs: tuple[FloatArray, ...]
    ) -> list[FloatArray]:
        """``(A_i^½ R_i A_i^½)⁻¹`` times each right-hand side."""
        weight = self.roots[index] / stdev
        found = []
        for values in rhs:
            own = weight if values.ndim == 1 else weight[:, None]
            found.append(own * self.moments.solve(index, own * values))
        return found


def solve(
    problem: Problem,
    subject: IntArray,
    moments: WorkingMoments,
    *,
    bias_reduced: bool,
    tolerance: float,
    max_iterations: int,
) -> tuple[Any, FloatArray]:
    """Run statsmodels' GEE from the first solution; rows sorted by subject. Returns its results and the residuals."""
    structure = MomentStructure(moments, problem.root)
    model = GEE(
        problem.y,
        problem.columns,
        groups=subject,
        offset=problem.offset,
        family=OwnFamily(problem),
        cov_struct=structure,
        update_dep=not isinstance(moments, Independent),
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", IterationLimitWarning)  # ``converged`` says so, and the fit in our words
        result = model.fit(
            maxiter=max_iterations,
            ctol=tolerance,
            start_params=np.zeros(problem.columns.shape[1]),
            scale=1.0,  # φ is ours
            cov_type="bias_reduced" if bias_reduced else "robust",
        )
        return result, structure.residual()
