"""Replications of a response that is not Gaussian, at one draw of the parameters: `Replicator`'s, by simulation.

    subject       y_rep,ij ~ family(η_ij), η_i = X_i β + Z_i b_i       new rows of the same subjects, b_i a draw
    new_subject   b_rep,i ~ N(0, D), y_rep,i given it as above         new subjects with the same covariates
    mixed         y_rep,ij ~ p(y_ij | y_i,-j, β, D, ψ)                 every row given the subject's other rows

For the last one b_i is drawn from its distribution given the other rows (`left_out_kernel`). PIT values are ranks among
replications, ties and the width of a step at random: uniform under the model, of counts and categories as well
(randomised PIT; Czado, Gneiting & Held 2009), and nothing of a family is asked but its draws.

References
----------
Czado, C., Gneiting, T., Held, L. (2009). Predictive model assessment for count data. Biometrics 65, 1254-1261.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray, Rng
from hierlmm.bayes.left_out_kernel import left_out_lines
from hierlmm.bayes.predictive import family_responses, new_effects, subject_lines
from hierlmm.bayes.replications import Draw, Replicator
from hierlmm.design.design import Design
from hierlmm.groups import group_order, group_starts

POOL = 16
"""Points from which the random effects given the other rows are drawn."""
RANKED = {"subject": 100, "new_subject": 100, "mixed": 15}
"""Replications among which a row is ranked."""
COST = {"subject": 20, "new_subject": 20, "mixed": 120}
"""Work for a row, in units of a Gaussian one."""


class FamilyReplicator:
    """What all draws share: the rows of a design, sorted by subject."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self._order = group_order(design.subject_index)
        self._start = group_starts(design.subject_index, design.n_subjects).astype(np.int64)

    def cost(self, level: str) -> int:
        """Work for a row, in units of a Gaussian one."""
        return COST[level]

    def replicate(self, draw: Draw, level: str, rng: Rng, n: int = 1, y: FloatArray | None = None) -> FloatArray:
        """Replicated responses (n, N); at level ``"mixed"`` of each data set ``y`` (n, N), the data by default."""
        design = self.design
        if level == "mixed":
            return self.again(draw, np.tile(design.y, (n, 1)) if y is None else y, rng, 1)[0]
        if level == "subject":
            assert draw.b is not None
            eta = np.broadcast_to(subject_lines(design, draw.beta, draw.b), (n, design.n_obs))
        else:
            eta = subject_lines(design, draw.beta, new_effects(design, draw.root, rng, n))
        return self._responses(draw, eta, rng)

    def again(self, draw: Draw, y: FloatArray, rng: Rng, times: int) -> FloatArray:
        """Every row given its subject's others, several times for each data set y (n, N): (times, n, N)."""
        design, order = self.design, self._order
        given = (design.X @ draw.beta + design.offset)[order]
        trials, a = design.trials[order], np.ascontiguousarray(design.Z[order] @ draw.root)
        found, psi = np.empty((times, *y.shape)), np.ascontiguousarray(draw.eta)
        for k, own in enumerate(y):
            numbers = rng.random((times, design.n_obs)), int(rng.integers(2**31))
            rows = own[order], trials, given, a, psi
            eta = np.empty((times, design.n_obs))
            eta[:, order] = left_out_lines(design.family.derivatives.address, self._start, *rows, POOL, *numbers)
            found[:, k] = self._responses(draw, eta, rng)
        return found

    def pit(self, draw: Draw, level: str, y: FloatArray, rng: Rng) -> FloatArray:
        """PIT values of the rows of data sets y (n, N) at a level, (n, N)."""
        n = RANKED[level]
        if level == "mixed":
            replicated = self.again(draw, y, rng, n)
            counts = [((own < y).astype(int), (own == y).astype(int)) for own in replicated]
            below, ties = (sum(parts) for parts in zip(*counts, strict=True))
        else:
            replicated = self.replicate(draw, level, rng, n)
            below = np.array([(replicated < own).sum(axis=0) for own in y])
            ties = np.array([(replicated == own).sum(axis=0) for own in y])
        return (below + rng.random(y.shape) * (ties + 1)) / (n + 1)

    def _responses(self, draw: Draw, eta: FloatArray, rng: Rng) -> FloatArray:
        return family_responses(self.design, eta, np.broadcast_to(draw.eta, (len(eta), len(draw.eta))), rng)


def replicator_of(design: Design) -> Replicator | FamilyReplicator:
    """What replicates data of a design."""
    return Replicator(design) if design.is_gaussian else FamilyReplicator(design)
