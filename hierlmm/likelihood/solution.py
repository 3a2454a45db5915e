"""What follows from one θ = (λ, η, σ): β, its covariance, D, σ, the residual structure, the subjects' effects.

At given residual parameters η the rows are whitened; with Λ(λ) and Q of these rows (`kernel`), all in working columns,

    β̂ = Q_xx⁻¹ Q_xy,   Cov(β̂) = σ̃² Q_xx⁻¹,   D = σ̃² ΛΛ',   σ̃ = σ times exp(shift),   at its best σ̃² = rss / n,

σ̃ being the SD of the whitened rows: σ, or with a centred variance function the residual SD of the average row.
Everything that a fit, a prediction or a degree of freedom needs of θ is read off here, and worked out when it is asked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.random import RandomCovariance
from hierlmm.likelihood.conditional import ConditionalEffects, conditional_effects
from hierlmm.likelihood.crossproducts import CrossProducts, Scaling
from hierlmm.likelihood.residual_rows import ResidualPart, ResidualRows


class NormalEquations(NamedTuple):
    """Generalised least squares at one λ, in working columns with σ = 1."""

    beta: FloatArray
    rss: float
    Qxx_inverse: FloatArray
    log_det_Qxx: float
    log_det_T: float


class Evaluation(NamedTuple):
    """Criterion, its gradient in λ, and its gradient in B = ΛΛ'."""

    value: float
    gradient: FloatArray
    gradient_B: FloatArray


class AnyCriterion(ABC):
    """A criterion, −2 log-likelihood, in ψ = (λ, η): what searches, fits and predictions ask of it.

    Without a residual structure η is empty, and nothing else is different.

    Attributes
    ----------
    structure : RandomCovariance
        The structure of D.
    reml : bool
        Whether it is of the restricted likelihood.
    rows : ResidualPart
        The residual structure, bound to the rows.
    whitens : bool
        Whether the rows are whitened anew at every ψ.
    """

    structure: RandomCovariance
    reml: bool
    rows: ResidualPart
    whitens: ClassVar[bool]

    @property
    @abstractmethod
    def data(self) -> CrossProducts | ResidualRows:
        """What the criterion is evaluated on."""

    @property
    def is_small(self) -> bool:
        """Whether an evaluation takes so little that the space can be searched, and Hessians made by differences."""
        return True

    @property
    def n_obs(self) -> int:
        """Number of rows, N."""
        return self.data.n_obs

    @property
    def degrees(self) -> int:
        """N - p for REML, N for ML."""
        return self.data.n_obs - (self.data.n_fixed if self.reml else 0)

    @property
    def scaling(self) -> Scaling:
        """How the working columns relate to the user's."""
        return self.data.scaling

    @abstractmethod
    def split(self, lam: FloatArray, /) -> tuple[FloatArray, FloatArray]:
        """λ and η; what is beyond the end of a range is held there."""

    @abstractmethod
    def given(self, lam: FloatArray, /) -> GivenResiduals:
        """The criterion in λ at the residual parameters of ψ."""

    def solution(self, lam: FloatArray, working_sd: float | None = None) -> Solution:
        """What follows from ψ, and from σ̃ in working units of y (its best value, unless it is given)."""
        return Solution(self, lam, working_sd)

    @abstractmethod
    def __call__(self, lam: FloatArray, /) -> float:
        """Value at ψ, in the user's units."""

    @abstractmethod
    def evaluate(self, lam: FloatArray, /) -> Evaluation:
        """Value and gradients at ψ."""

    @abstractmethod
    def joint(self, parameters: FloatArray, /) -> tuple[float, FloatArray]:
        """Value and gradient at (λ, η, log σ̃), σ̃ in working units of y."""


class GivenResiduals(AnyCriterion):
    """A criterion in λ alone: of rows that are whitened already, or need no whitening."""

    products: CrossProducts

    @abstractmethod
    def normal_equations(self, Lambda: FloatArray) -> NormalEquations:
        """Solve for β given Λ (in working columns)."""


@dataclass(frozen=True, eq=False)
class Solution:
    """β, D, σ, the residual structure and the random effects at one θ, in the user's units.

    Attributes
    ----------
    criterion : Criterion or ResidualCriterion
    lam : (m,)
        ψ = (λ, η).
    given_sd : float, optional
        σ̃ in working units of y; its best value where it is None.
    """

    criterion: AnyCriterion
    lam: FloatArray
    given_sd: float | None = None

    @cached_property
    def given(self) -> GivenResiduals:
        """The criterion in λ at the residual parameters: on whitened rows."""
        return self.criterion.given(self.lam)

    @property
    def products(self) -> CrossProducts:
        """Cross-products of the whitened rows."""
        return self.given.products

    @cached_property
    def Lambda(self) -> FloatArray:
        """Relative factor Λ in working columns: (q, q)."""
        return self.criterion.structure.factor(self.lam)

    @cached_property
    def equations(self) -> NormalEquations:
        """Generalised least squares, in working columns."""
        return self.given.normal_equations(self.Lambda)

    @cached_property
    def working_sd(self) -> float:
        """σ̃, in working units of y."""
        if self.given_sd is not None:
            return self.given_sd
        return math.sqrt(self.equations.rss / self.criterion.degrees)

    @cached_property
    def whitened_sd(self) -> float:
        """σ̃, the SD of the whitened rows."""
        return self.working_sd * self.criterion.scaling.y_scale

    @cached_property
    def shift(self) -> float:
        """Log of σ̃ over σ."""
        return self.criterion.rows.shift(self.criterion.split(self.lam)[1])

    @cached_property
    def sigma(self) -> float:
        """Residual SD, where the ratio of a variance function is 1."""
        return self.whitened_sd * float(np.exp(-self.shift))

    @cached_property
    def beta(self) -> FloatArray:
        """Fixed effects: (p,)."""
        return self.criterion.scaling.beta(self.equations.beta)

    @cached_property
    def beta_cov(self) -> FloatArray:
        """Their covariance given θ, (X'V⁻¹X)⁻¹: (p, p)."""
        return self.criterion.scaling.beta_cov(self.equations.Qxx_inverse * self.working_sd**2)

    @cached_property
    def root(self) -> FloatArray:
        """H with D = H H': (q, q)."""
        return self.criterion.scaling.factor(self.Lambda) * self.whitened_sd

    @cached_property
    def D(self) -> FloatArray:
        """Covariance of the random effects: (q, q)."""
        return self.root @ self.root.T

    @cached_property
    def residual(self) -> ResidualEstimate | None:
        """The residual structure; None for independent residuals of equal variance."""
        return self.criterion.rows.at(self.criterion.split(self.lam)[1])

    @property
    def residual_parameters(self) -> dict[str, float]:
        """What tables show of it, by name."""
        return {} if self.residual is None else self.residual.parameters

    @cached_property
    def effects(self) -> ConditionalEffects:
        """Distribution of the subjects' random effects given y, as a function of β."""
        return conditional_effects(self.products, self.Lambda, self.whitened_sd)

    @cached_property
    def b(self) -> FloatArray:
        """Their conditional means at β̂ (BLUPs): (J, q)."""
        return self.effects.mean(self.beta)

    @property
    def b_cov(self) -> FloatArray:
        """Conditional covariances of the random effects given y and β: (J, q, q)."""
        return self.effects.covariance
