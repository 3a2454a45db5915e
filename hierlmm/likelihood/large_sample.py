"""Large-sample distribution of the covariance parameters, on the unconstrained scale.

At the optimum, (λ, log σ) is approximately normal with covariance 2 H⁻¹, H the Hessian of the criterion; with a
residual structure its unconstrained parameters η stand between λ and log σ. Standard
deviations, correlations and σ follow through the logarithm and Fisher's z, as in nlme's ``intervals()``. At a boundary
optimum the directions without variance (empty columns of Λ) are held at zero: a normal distribution on λ, squared,
would put all its draws away from the estimate. The distribution is then that of the others given the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.descent import central_differences, hessian
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE
from hierlmm.likelihood.solution import AnyCriterion, Solution

STEP = 1e-4
FLAT = 1e-9
UNKNOWN = 1e-6
"""Curvature of the criterion in a residual parameter below which nothing is known of it (an SE above 1000)."""


@dataclass(frozen=True)
class LargeSample:
    """Normal approximation for (λ, log σ̃), σ̃ the SD of the whitened rows in working units of y.

    Attributes
    ----------
    centre : (m + 1,)
    covariance : (m + 1, m + 1)
        Zero in directions in which the criterion is flat, or which the boundary holds.
    flat : (m + 1, r)
        The directions of residual parameters in which the criterion is flat, as columns.
    """

    criterion: AnyCriterion
    centre: FloatArray
    covariance: FloatArray
    flat: FloatArray

    def solution(self, parameters: FloatArray) -> Solution:
        """What follows from (λ, η, log σ̃)."""
        return self.criterion.solution(parameters[:-1], float(np.exp(parameters[-1])))

    def split(self, parameters: FloatArray) -> tuple[FloatArray, float]:
        """D and σ in the user's units, from (λ, η, log σ̃)."""
        at = self.solution(parameters)
        return at.D, at.sigma

    def neighbours(self) -> tuple[list[Solution], FloatArray]:
        """Solutions at the optimum and a step to both sides along each principal direction of Cov(θ̂), and the steps.

        Along direction t the parameters move by ``step · √λ_t v_t``, so that ``Cov(θ̂) = Σ_t (√λ_t v_t)(√λ_t v_t)'``
        and a delta-method variance is the sum of squared derivatives (`differences`).

        Returns
        -------
        solutions : list of Solution
            The optimum, then pairs (above, below).
        steps : (r,)
            Distance between the members of each pair, in units of one standard deviation along the direction.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        free = values > 0.0
        directions = (vectors[:, free] * np.sqrt(values[free])).T
        # A poorly determined direction has a long standard deviation; the step stays small in θ itself.
        steps = STEP / np.maximum(1.0, np.abs(directions).max(axis=1, initial=0.0))
        moves = [sign * step * own for step, own in zip(steps, directions, strict=True) for sign in (1.0, -1.0)]
        return [self.solution(self.centre), *(self.solution(self.centre + move) for move in moves)], 2.0 * steps

    def sample(self, size: int, rng: np.random.Generator) -> FloatArray:
        """Draw (λ, η, log σ̃): (size, m + 1)."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return self.centre + rng.standard_normal((size, len(self.centre))) @ root.T

    def on_logs(self, sample: FloatArray) -> FloatArray:
        """The draws of `sample` with SDs on the scale of their logarithm, as the delta method has them.

        A row of Λ is the SD of its coefficient, relative to σ, times a direction, which has the correlations. What a
        draw moves along the row moves log SD, and what it moves across the row the direction: the same to first order.
        An SD that is less than two standard errors from zero keeps its normal distribution: that of its logarithm is
        so wide there that it says nothing.
        """
        structure = self.criterion.structure
        n = structure.n_parameters
        drawn, found = sample[:, :n] - self.centre[:n], sample.copy()
        for k in np.unique(structure.row):
            own = structure.index[structure.row == k]
            row = self.centre[own]
            size = float(np.linalg.norm(row))
            if 4.0 * row @ self.covariance[np.ix_(own, own)] @ row < size**4:
                along = drawn[:, own] @ row / size**2
                across = row + drawn[:, own] - along[:, None] * row
                longer = size * np.exp(along) / np.linalg.norm(across, axis=1)
                found[:, own] = longer[:, None] * across
        return found

    def split_draws(self, sample: FloatArray) -> tuple[FloatArray, FloatArray]:
        """D and σ of draws of (λ, η, log σ̃): (size, q, q), (size,)."""
        scaling = self.criterion.scaling
        structure = self.criterion.structure
        Lambda = structure.factor(sample[:, :-1])
        whitened = np.exp(sample[:, -1]) * scaling.y_scale
        half = np.linalg.solve(scaling.Bz, Lambda) * whitened[:, None, None]
        shift = np.array([self.criterion.solution(own).shift for own in sample[:, :-1]])
        return half @ np.swapaxes(half, 1, 2), whitened * np.exp(-shift)

    def standard_errors(self, function: Callable[[FloatArray, float], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Delta method for a vector function of (D, σ): its value and standard errors (NaN on the boundary)."""
        return self.standard_errors_of(lambda parameters: function(*self.split(parameters)))

    def standard_errors_of(self, function: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Delta method for a vector function of (λ, η, log σ̃): its value and standard errors.

        NaN where the function moves along a direction in which the criterion is flat: nothing is known there.
        """
        value, jacobian = function(self.centre), central_differences(function, self.centre).T
        with np.errstate(invalid="ignore"):
            variance = np.einsum("ij,jk,ik->i", jacobian, self.covariance, jacobian)
            lost = np.any(np.abs(jacobian @ self.flat) > 1e-6 * np.abs(jacobian).max(axis=1, keepdims=True), axis=1)
            return value, np.sqrt(np.where(np.isfinite(value) & ~lost, variance, np.nan))


def large_sample(criterion: AnyCriterion, lam: FloatArray, sigma: float, *, held: bool = True) -> LargeSample:
    """Approximate the distribution of (λ, log σ̃) around the optimum.

    Parameters
    ----------
    criterion : Criterion
    lam : (m,)
    sigma : float
        SD of the whitened rows, in the user's units.
    """
    centre = np.append(lam, np.log(sigma / criterion.scaling.y_scale))
    free = np.append(criterion.structure.filled(lam, SINGULAR_TOLERANCE) | (not held), True)
    first = criterion.structure.n_parameters
    H = hessian(criterion.joint, centre)
    unknown = np.zeros(len(centre), dtype=bool)
    unknown[first:-1] = np.diag(H)[first:-1] < UNKNOWN
    inner = free & ~unknown
    # Unit curvature in every parameter, so that flat directions do not depend on units.
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diag(H)[inner]), 1e-300))
    values, vectors = np.linalg.eigh(H[np.ix_(inner, inner)] * scale[:, None] * scale)
    flat = values <= FLAT * np.max(np.abs(values), initial=0.0)
    inverse = np.where(flat, 0.0, 2.0 / np.where(flat, 1.0, values))
    covariance = np.zeros((len(centre), len(centre)))
    covariance[np.ix_(inner, inner)] = ((vectors * inverse) @ vectors.T) * scale[:, None] * scale
    directions = np.zeros((len(centre), int(flat.sum())))
    directions[inner] = vectors[:, flat] * scale[:, None]
    directions /= np.maximum(np.linalg.norm(directions, axis=0), 1e-300)
    directions = directions[:, np.any(np.abs(directions[first:-1]) > 1e-3, axis=0)]
    directions = np.column_stack([directions, np.eye(len(centre))[:, unknown]])
    return LargeSample(criterion, centre, covariance, directions)


def differences(stack: FloatArray, steps: FloatArray) -> FloatArray:
    """First entry, then derivatives: (1 + 2r, ...) at the solutions of `LargeSample.neighbours` -> (1 + r, ...)."""
    slopes = (stack[1::2] - stack[2::2]) / steps.reshape(-1, *[1] * (stack.ndim - 1))
    return np.concatenate([stack[:1], slopes])
