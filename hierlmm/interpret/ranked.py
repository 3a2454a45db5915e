"""Joint draws of the coefficients that are ranked: of a posterior, or of (θ, β, b) around a likelihood's maximum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.factor_draws import drawn_effects
from hierlmm.bayes.tree import effects_names
from hierlmm.groups import first_rows
from hierlmm.interpret.coefficients import random_effect, subject_rows
from hierlmm.interpret.kinds import Kind
from hierlmm.interpret.theta import sampled_states
from hierlmm.likelihood.conditional import of_subjects
from hierlmm.likelihood.several_factors import FactorSolution
from hierlmm.likelihood.solution import Solution

CHUNK = 2_000_000
THETAS = 500
"""Draws of θ of a likelihood fit; each costs one pass over the subjects."""


class RankedEffect:
    """One coefficient of all subjects, or of all groups of a factor: ``rows`` (J, p) times β, and random effects."""

    def __init__(self, fit: Any, kind: Kind, k: int) -> None:
        self.fit, self.kind, self.rows, self.J = fit, kind, subject_rows(kind.design, k), kind.design.n_subjects
        effect, self.term = random_effect(kind.design, k), kind.design.level1[k]
        assert effect is not None  # what does not vary has no ranks
        self.effect = effect
        self.step = max(1, CHUNK // self.J)

    @cached_property
    def places(self) -> list[tuple[int, int, IntArray]]:
        """With several factors: which, of which effect, and the group of it that each group lies in (J,)."""
        design, found = self.fit.design, []
        first = first_rows(self.kind.design.subject_index, self.J)
        for m, own in enumerate(design.random):
            names = list(own.columns.names)
            if own.columns.group in (self.kind.factor, *self.kind.above) and self.term in names:
                found.append((m, names.index(self.term), own.group.index[first]))
        return found

    @property
    def estimate(self) -> FloatArray:
        """Random effects at the estimates, (J,)."""
        b = self.fit.b
        if not self.kind.factor:
            return np.asarray(b.to_numpy()[:, self.effect])
        tables = list(b.values())
        return np.sum([tables[m].to_numpy()[at, r] for m, r, at in self.places], axis=0)

    def drawn(self) -> Iterator[FloatArray]:
        """Draws of a posterior, (chunk, J), all chains one after the other."""
        beta = self.fit.draws("beta")
        if self.kind.factor:
            names = effects_names(self.fit.design)
            parts = [(self.fit.draws(names[m]), r, at) for m, r, at in self.places]
        else:
            parts = [(self.fit.draws("b"), self.effect, np.arange(self.J))]
        for c in range(len(beta)):
            for start in range(0, beta.shape[1], self.step):
                rows = slice(start, start + self.step)
                yield beta[c, rows] @ self.rows.T + np.sum([b[c, rows][:, at, r] for b, r, at in parts], axis=0)

    def sampled(self, size: int, seed: int | None) -> Iterator[FloatArray]:
        """Draws of θ around the estimate, and of β and b given θ, (chunk, J)."""
        rng, repeat = np.random.default_rng(seed), min(-(-size // THETAS), self.step)
        done = 0
        for state in sampled_states(self.fit, -(-size // repeat), rng):
            n = min(repeat, size - done)
            values, vectors = np.linalg.eigh(state.beta_cov)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            yield self._of_factor(state, root, n, rng) if self.kind.factor else self._of_subjects(state, root, n, rng)
            done += n

    def _of_subjects(self, state: Solution, root: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        effects, r = of_subjects(self.fit.design, state.effects), self.effect
        slope, sd = self.rows - effects.slope[:, r], np.sqrt(np.maximum(effects.covariance[:, r, r], 0.0))
        beta = state.beta + rng.standard_normal((n, len(root))) @ root.T
        return effects.origin[:, r] + beta @ slope.T + sd * rng.standard_normal((n, len(sd)))

    def _of_factor(self, state: Solution, root: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        assert isinstance(state, FactorSolution)
        beta = state.beta + rng.standard_normal((n, len(root))) @ root.T
        data, scaling = state.criterion.products, state.criterion.scaling
        gamma = np.column_stack([-((beta - scaling.shift) @ scaling.Bx.T) / scaling.y_scale, np.ones(n)])
        sigma = np.full(n, state.whitened_sd / scaling.y_scale)
        b = drawn_effects(data, np.repeat(state.Lambda[None], n, axis=0), gamma, sigma, rng)
        return beta @ self.rows.T + np.sum([b[m][:, at, r] for m, r, at in self.places], axis=0)
