"""Replications of the data at one draw of the parameters: of the same subjects, of new subjects, and row by row.

    subject       y_rep,i ~ N(X_i β + Z_i b_i, Σ_i)               new rows of the same subjects, b_i a posterior draw
    new_subject   b_rep,i ~ N(0, D),  y_rep,i | b_rep,i as above  new subjects with the same covariates
    mixed         y_rep,ij ~ p(y_ij | y_i,-j, β, D, σ, η)         every row given the subject's other rows

The last one redraws b_i from its conditional distribution without row j. With V_i = Z_i D Z_i' + Σ_i, K = V_i⁻¹ and
r_i = y_i - X_i β it is normal, b_i integrated out and the correlation of the residuals included:

    y_ij | y_i,-j ~ N(y_ij - [K r_i]_j / K_jj,  1 / K_jj)

V_i is never formed: the rows are whitened by Σ_i = σ² L L', F = L⁻¹ Z H / σ with D = H H', and
K = L⁻ᵀ (I - F (I + F'F)⁻¹ F') L⁻¹ / σ².

Parameters come from the posterior given all rows. Redrawing b from N(0, D) is what Marshall and Spiegelhalter (2007),
Green et al. (2009) and the Stan User's Guide call mixed replication, and is ``new_subject`` here; ``mixed`` stands
between the two: it keeps what the other rows say of the subject, as leave-one-out does (their "ghosting" of a unit).

References
----------
Green, M. J., Medley, G. F., Browne, W. J. (2009). Use of posterior predictive assessments to evaluate model fit in
multilevel logistic regression. Veterinary Research 40, 30.

Marshall, E. C., Spiegelhalter, D. J. (2007). Identifying outliers in Bayesian hierarchical models: a simulation-based
approach. Bayesian Analysis 2, 409-444.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.predictive import new_effects, subject_lines
from hierlmm.design.design import Design
from hierlmm.groups import group_order, group_starts
from hierlmm.likelihood.residual_rows import residual_rows, whiten_columns

LEVELS = ("subject", "new_subject", "mixed")


class Draw(NamedTuple):
    """One draw of the parameters.

    Attributes
    ----------
    beta : (p,)
    root : (q, q)
        H with D = H H'.
    sigma : float
    eta : (k,)
        Unconstrained residual parameters; of another family its dispersion parameters ψ (and σ is 1).
    b : (J, q), optional
        Random effects, where they are known.
    """

    beta: FloatArray
    root: FloatArray
    sigma: float
    eta: FloatArray
    b: FloatArray | None = None


class Replicator:
    """What all draws share: the rows of a design, sorted by subject, and its residual structure."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.residual = residual_rows(design) if design.has_residual_structure else None
        self._order = group_order(design.subject_index)
        self._start = group_starts(design.subject_index, design.n_subjects)

    def replicate(self, draw: Draw, level: str, rng: Rng, n: int = 1, y: FloatArray | None = None) -> FloatArray:
        """Replicated responses (n, N); at level ``"mixed"`` of each data set ``y`` (n, N), the data by default."""
        design = self.design
        if level == "mixed":
            mean, sd = self.law(draw, level, design.y[None] if y is None else y)
            return mean + sd * rng.standard_normal((max(n, len(mean)), design.n_obs))
        if level == "subject" and design.term:
            assert draw.b is not None
            b = draw.b
        else:
            b = new_effects(design, draw.root, rng, n)
        noise = rng.standard_normal((n, design.n_obs))
        if self.residual is not None:
            noise = self.residual.colour(draw.eta, noise)
        return subject_lines(design, draw.beta, b) + draw.sigma * noise

    def again(self, draw: Draw, y: FloatArray, rng: Rng, times: int) -> FloatArray:
        """Every row given its subject's others, several times for each data set y (n, N): (times, n, N).

        The noise is the same for all of them: what it adds to their ranks is small.
        """
        mean, sd = self.law(draw, "mixed", y)
        return np.array([mean + sd * rng.standard_normal(mean.shape[1]) for _ in range(times)])

    def pit(self, draw: Draw, level: str, y: FloatArray, rng: Rng) -> FloatArray:
        """PIT values of the rows of data sets y (n, N) at a level, (n, N)."""
        mean, sd = self.law(draw, level, y)
        return ndtr((y - mean) / sd)

    def cost(self, level: str) -> int:
        """Work for a row; the unit of other replicators."""
        return 1

    def law(self, draw: Draw, level: str, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean (1 or n, N) and SD (N,) of every row at a level; at ``"mixed"`` given the data sets y (n, N)."""
        design = self.design
        ratio = self._ratio(draw)
        fixed = design.X @ draw.beta + design.offset
        if level == "mixed":
            return self._left_out(draw, y, y - fixed, ratio)
        if level == "subject" and design.term:
            assert draw.b is not None
            return subject_lines(design, draw.beta, draw.b)[None], draw.sigma * ratio
        spread = design.Z @ draw.root
        return fixed[None], np.sqrt((draw.sigma * ratio) ** 2 + np.einsum("nk,nk->n", spread, spread))

    def _ratio(self, draw: Draw) -> FloatArray:
        """Residual SD of every row over σ."""
        ratio = np.ones(self.design.n_obs)
        if self.residual is not None and self.residual.variance is not None:
            own = draw.eta[self.residual.n_correlation :]
            ratio[self.residual.rows.order] = np.exp(self.residual.variance.log_ratio(own))
        return ratio

    def _left_out(self, draw: Draw, y: FloatArray, r: FloatArray, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and SD of each row given the subject's others, from the rows of V⁻¹ r and the diagonal of V⁻¹."""
        index = self.design.subject_index
        F = self.design.Z @ draw.root / draw.sigma
        estimate = None if self.residual is None else self.residual.at(draw.eta)
        if estimate is None or self.design.residual is None:
            F = F / ratio[:, None]
            inner, u = self._inner(F), (r / ratio).T
            gain = np.einsum("nk,nkl->nl", F, inner[index])
            diagonal = 1.0 - np.einsum("nk,nk->n", gain, F)
            product = u.T - np.einsum("nk,nkm->mn", gain, self._sum(F[:, :, None] * u[:, None])[index])
            return y - ratio * product / diagonal, draw.sigma * ratio / np.sqrt(diagonal)
        E = np.zeros((len(index), int(np.diff(self._start).max())))
        place = self._places()
        E[np.arange(len(index)), place] = 1.0
        q, n = F.shape[1], E.shape[1]
        white, _ = whiten_columns(estimate, np.column_stack([F, E, r.T]))
        F, E, u = white[:, :q], white[:, q : q + n], white[:, q + n :]
        inner = self._inner(F)
        FE = self._sum(F[:, :, None] * E[:, None])
        solved = np.einsum("jkl,jln->jkn", inner, FE)
        diagonal = self._sum(E * E) - np.einsum("jkn,jkn->jn", FE, solved)
        product = self._sum(E[:, :, None] * u[:, None])
        product -= np.einsum("jkn,jkm->jnm", solved, self._sum(F[:, :, None] * u[:, None]))
        own = diagonal[index, place]
        return y - (product[index, place] / own[:, None]).T, draw.sigma / np.sqrt(own)

    def _inner(self, F: FloatArray) -> FloatArray:
        """(I + F_i'F_i)⁻¹ of every subject, (J, q, q)."""
        return np.linalg.inv(np.eye(F.shape[1]) + self._sum(F[:, :, None] * F[:, None]))

    def _sum(self, values: FloatArray) -> FloatArray:
        """Sums over the rows of every subject: (N, ...) -> (J, ...)."""
        return np.add.reduceat(values[self._order], self._start[:-1], axis=0)

    def _places(self) -> IntArray:
        """Place of every row among those of its subject, (N,)."""
        place = np.empty(len(self._order), dtype=np.intp)
        place[self._order] = np.arange(len(self._order)) - np.repeat(self._start[:-1], np.diff(self._start))
        return place
