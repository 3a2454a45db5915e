"""Profile likelihood of a linear function of the fixed effects, c = l'β.

In working columns l'β = c is a'β̃ = |a| v with ``a = Bx⁻ᵀ l`` and ``v = (c - l'shift) / (y_scale |a|)``. With u = a/|a|
and N an orthonormal basis of what is orthogonal to it, β̃ = u v + N γ: the model with l'β held at c is that of the
columns X̃N with the response ỹ - X̃u v, a linear map of the columns [X̃, ỹ] which cross-products take as well as rows.

    deviance(c) = min over θ of the ML criterion of these columns,      ζ(c) = sign(c - ĉ) √(deviance(c) - deviance(ĉ))

ζ is the signed root of the likelihood-ratio statistic: close to standard normal at the true c, linear in c where Wald's
interval is right, and an interval holds the values with |ζ| at most a normal quantile (Bates et al. 2015, section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from hierlmm.arrays import FloatArray
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.maximise import maximise_again
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.solution import AnyCriterion

FARTHEST = 60
"""Doublings of the step in which an end is sought."""
EXACT = 1e-10


@dataclass(frozen=True, eq=False)
class HeldBeta:
    """A linear function of β, and the ML criterion with it held at a value.

    Attributes
    ----------
    criterion : Criterion or ResidualCriterion
        By ML.
    lam : (m,)
        Its optimum.
    along : (p,)
        l of the function l'β.
    """

    criterion: AnyCriterion
    lam: FloatArray
    along: FloatArray

    def __post_init__(self) -> None:
        if self.criterion.reml:
            raise ValueError("restricted likelihoods with a coefficient held at two values are of different data")

    @cached_property
    def estimate(self) -> float:
        """The value at the optimum, ĉ."""
        return float(self.along @ self.criterion.solution(self.lam).beta)

    @cached_property
    def se(self) -> float:
        """Its standard error given θ."""
        return math.sqrt(float(self.along @ self.criterion.solution(self.lam).beta_cov @ self.along))

    @cached_property
    def _lowest(self) -> float:
        return float(self.criterion(self.lam))

    @cached_property
    def _basis(self) -> tuple[float, FloatArray, FloatArray]:
        """|a|, u and N."""
        a = np.linalg.solve(self.criterion.scaling.Bx.T, self.along)
        size = float(np.linalg.norm(a))
        Q = np.linalg.qr(np.column_stack([a / size, np.eye(len(a))]))[0]
        return size, a / size, Q[:, 1 : len(a)]

    def held(self, value: float) -> AnyCriterion:
        """The criterion with l'β = value."""
        size, u, N = self._basis
        scaling = self.criterion.scaling
        v = (value - float(self.along @ scaling.shift)) / (scaling.y_scale * size)
        T = np.zeros((len(u) + 1, len(u)))
        T[:-1, :-1], T[:-1, -1], T[-1, -1] = N, -u * v, 1.0
        if isinstance(self.criterion, Criterion):
            old = self.criterion.products
            products = replace(
                old,
                C=np.ascontiguousarray(np.einsum("qpk,pr->qrk", old.C, T)),
                S_w=T.T @ old.S_w @ T,
                subject_C=old.subject_C @ T,
                n_fixed=old.n_fixed - 1,
            )
            return replace(self.criterion, products=products)
        if isinstance(self.criterion, ResidualCriterion):
            rows = self.criterion.rows
            M = np.concatenate([rows.M[: rows.q], T.T @ rows.M[rows.q :]])
            return replace(self.criterion, rows=replace(rows, M=M))
        received = "the profile likelihood of a coefficient of such a model"
        raise NotAvailableError(received, "it is not made for this likelihood", "use method='wald'")

    def zeta(self, value: float) -> float:
        """Signed root of the rise of −2 log-likelihood, ζ."""
        if value == self.estimate:
            return 0.0
        rise = maximise_again(self.held(value), self.lam).value - self._lowest
        return math.copysign(math.sqrt(max(rise, 0.0)), value - self.estimate)

    def end(self, z: float) -> float:
        """The value at which ζ first reaches z; infinite where it never does."""
        step = z * self.se
        inner, outer = self.estimate, self.estimate + step

        def beyond(value: float) -> float:
            return (self.zeta(value) - z) * math.copysign(1.0, z)

        for _ in range(FARTHEST):
            if beyond(outer) >= 0.0:
                return float(brentq(beyond, inner, outer, xtol=EXACT * self.se, rtol=1e-10))
            inner, outer = outer, outer + 0.5 * step
            step *= 1.5
        return math.copysign(math.inf, z)

    def curve(self, most: float, n: int) -> tuple[FloatArray, FloatArray]:
        """Values on a grid over |ζ| ≤ most, and ζ there: (2n + 1,) each."""
        sides: list[FloatArray] = []
        for sign in (-1.0, 1.0):
            end = self.end(sign * most)
            far = end if math.isfinite(end) else self.estimate + sign * 3.0 * most * self.se
            sides.append(np.linspace(self.estimate, far, n + 1))
        values = np.concatenate([sides[0][:0:-1], sides[1]])
        zeta: Callable[[float], float] = self.zeta
        return values, np.array([zeta(float(v)) for v in values])
