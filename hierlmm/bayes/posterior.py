"""What a sampler needs of a posterior, and what the two collapsed posteriors share.

A posterior is a log density with its gradient at unconstrained numbers θ that have names, and a way from draws of θ to
draws of everything that has a name in the model. Whoever samples asks for these and not for a class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.collapsed_kernel import FACTOR, FACTOR_AND_BETA, unpack
from hierlmm.bayes.random_theta import RandomTheta, theta_names
from hierlmm.bayes.record import residual_group
from hierlmm.covariance.random import sheared
from hierlmm.design.design import Design, own_effects
from hierlmm.likelihood.crossproducts import CrossProducts
from hierlmm.likelihood.kernel import pattern_squares
from hierlmm.threads import in_threads

Density = Callable[[FloatArray], tuple[float, FloatArray]]


class Posterior(Protocol):
    """A posterior as a sampler sees it."""

    @property
    def design(self) -> Design:
        """What was measured."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is sampled, in order."""

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log density of the unconstrained numbers, and its gradient."""

    def recover(
        self, draws: Any, rng: np.random.Generator, random_effects: str
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """Draws (chain, draw, ...) of the model's variables by name, and further groups of the tree."""


class Natural(NamedTuple):
    """Draws on the natural scale, in the user's units, with what the random effects need.

    ``beta`` (S, p), ``sd`` (S, q), ``corr_factor`` (S, q, q), any F with F F' the correlations, ``sigma`` (S,);
    ``beta_working`` (S, p) is the draw and ``mean_working`` (S, p), ``covariance_working`` (S, p, p) the
    distribution it came from.
    """

    beta: FloatArray
    sd: FloatArray
    corr_factor: FloatArray
    sigma: FloatArray
    beta_working: FloatArray
    mean_working: FloatArray
    covariance_working: FloatArray

    @property
    def corr(self) -> FloatArray:
        """Correlation matrices, (S, q, q), with exactly 1 on the diagonal."""
        found = self.corr_factor @ np.swapaxes(self.corr_factor, 1, 2)
        diagonal = np.arange(found.shape[1])
        found[:, diagonal, diagonal] = 1.0
        return found

    @property
    def D(self) -> FloatArray:
        """Covariance matrices of the random effects, (S, q, q)."""
        half = self.sd[:, :, None] * self.corr_factor
        return half @ np.swapaxes(half, 1, 2)

    def at(self, positions: Any) -> Natural:
        """Some of the draws."""
        return Natural(*(values[positions] for values in self))


class Conditional(NamedTuple):
    """What follows from draws of θ.

    ``natural`` has S draws; ``b`` (s, J, q) draws of the subjects' own effects, or ``summary`` their mean and SD
    (with several grouping factors draws by variable, and mean and SD of all effects);
    ``eta`` (S, k) the unconstrained residual parameters, named by ``parameters``, and ``reported`` what tables show of
    them, (S, r) by posterior variable.
    """

    natural: Natural
    b: Any
    summary: tuple[FloatArray, FloatArray] | None
    eta: FloatArray
    reported: dict[str, FloatArray]
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Collapsed(ABC):
    """A posterior with β and b integrated out, packed for the compiled density.

    Attributes
    ----------
    design : Design
    products : CrossProducts
    buffer : (n,)
        Numbers that `collapsed_kernel` reads.
    mode : (m,)
        Posterior mode of θ. A signed standard deviation is in units of its scale.
    root : (m, m)
        S, the square root of the inverse curvature at the mode.
    modes : (M, m)
        All modes found whose density counts beside that of the highest, which is the first.
    uncentering : (q, q)
        ``ResolvedPriors.random_uncentering``: θ is of the random effects at average covariates.
    """

    design: Design
    products: CrossProducts
    buffer: FloatArray
    mode: FloatArray
    root: FloatArray
    modes: FloatArray
    uncentering: FloatArray

    @property
    def signed(self) -> IntArray:
        """Positions of the standard deviations that θ holds as signed numbers."""
        return np.flatnonzero(unpack(self.buffer).sd_prior[:, -1])

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters of the random effects and σ."""
        return int(self.buffer[1])

    @property
    def form(self) -> float:
        """What θ holds: see `collapsed_kernel`."""
        return float(self.buffer[8])

    def given_beta(self, theta: FloatArray) -> FloatArray | None:
        """β in working units where θ holds it, (S, p)."""
        p = self.products.n_fixed
        return theta[:, self.n_theta - 1 - p : self.n_theta - 1] if self.form == FACTOR_AND_BETA else None

    @property
    def names(self) -> tuple[str, ...]:
        """Scale and parameter of each number that is sampled."""
        term = self.design.term
        if self.form >= FACTOR:
            given = [f"working {c}" for c in self.design.coef] if self.form == FACTOR_AND_BETA else []
            return (*(f"factor of D[{a}, {k}]" for a in term for k in range(len(term))), *given, "log sigma")
        return (*theta_names(self.design, list(self.signed), self._random), "log sigma")

    def own(
        self, b: FloatArray | None, summary: tuple[FloatArray, FloatArray] | None
    ) -> tuple[FloatArray | None, tuple[FloatArray, FloatArray] | None]:
        """Of draws of b, or their mean and SD, what each subject has: see `hierlmm.design.groups`."""
        if summary is not None:
            summary = own_effects(self.design, summary[0]), own_effects(self.design, summary[1])
        return None if b is None else own_effects(self.design, b), summary

    @property
    def _random(self) -> RandomTheta:
        packed = unpack(self.buffer)
        parts = packed.sd_index, packed.cpc_index, packed.alpha, packed.sd_prior
        return RandomTheta(self.n_theta - 1, self.form, *parts, 0.0, self.uncentering)

    def natural(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Standard deviations (S, q), a factor of the correlations (S, q, q) and σ (S,) of draws of θ (S, m)."""
        q = len(self.design.term)
        sigma = np.exp(theta[:, self.n_theta - 1]) * self.products.scaling.y_scale
        if self.form >= FACTOR:
            half = theta[:, : q * q].reshape(len(theta), q, q)
            sd = np.linalg.norm(half, axis=-1)
            return *sheared(self.uncentering, sd, half / np.where(sd > 0.0, sd, 1.0)[..., None]), sigma
        return *self._random.natural(theta), sigma

    def relative(
        self, sd: FloatArray, factor: FloatArray, sigma: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Λ (S, q, q) in working columns, V = B_z⁻¹ Λ times the scale of y, and σ in working units."""
        scaling = self.products.scaling
        half = sd[:, :, None] * factor / sigma[:, None, None]
        return np.ascontiguousarray(scaling.Bz @ half), half * scaling.y_scale, sigma / scaling.y_scale

    def recover(
        self, draws: FloatArray, rng: np.random.Generator, random_effects: str
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """See `Posterior.recover`; draws (chain, draw, m) are of θ."""
        design, head = self.design, draws.shape[:2]
        found = self.conditional(draws.reshape(-1, draws.shape[-1]), rng, random_effects)
        natural = found.natural
        groups: dict[str, Any] = {}
        kept = {"sd_b": natural.sd, "corr_b": natural.corr, "D": natural.D} if design.term else {}
        kept = ({"beta": natural.beta} if design.coef else {}) | kept | {"sigma": natural.sigma}
        if found.b is not None:
            kept |= found.b if isinstance(found.b, dict) else {"b": found.b}
        elif found.summary is not None:
            groups["random_effects"] = self._summaries(found.summary)
        if design.has_residual_structure:
            groups["residual"] = residual_group(found.parameters, found.eta.reshape(*head, -1))
        kept |= found.reported
        return {name: values.reshape(*head, *values.shape[1:]) for name, values in kept.items()}, groups

    def _summaries(self, summary: Any) -> Any:
        """Mean and SD of the random effects, as a group of the tree."""
        import xarray as xr

        coords = {"subject": self.design.subjects.to_numpy(), "term": np.array(self.design.own_term, dtype=str)}
        of_b = dict(zip(("mean", "sd"), ((("subject", "term"), part) for part in summary), strict=True))
        return xr.Dataset(of_b, coords=coords)

    def squares(self, Lambda: FloatArray) -> FloatArray:
        """G of `PatternSums` at every Λ: (S, q, q) -> (S, P, P)."""
        products, P = self.products, self.products.n_fixed + 1
        found = np.empty((len(Lambda), P, P))

        in_threads(len(Lambda), lambda lo, hi: pattern_squares(products.R, products.C, Lambda, lo, hi, found))
        return found

    @abstractmethod
    def conditional(
        self, theta: FloatArray, rng: np.random.Generator, random_effects: str, few: Any = slice(None)
    ) -> Conditional:
        """Draw β given each θ (S, m), and b given both.

        Parameters
        ----------
        theta : (S, m)
        rng : numpy.random.Generator
        random_effects : {"draws", "summary", "none"}
            Draws of b, its mean and SD over all draws, or nothing.
        few : array of int or slice
            For which of the draws b is wanted.
        """

    @abstractmethod
    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Normalised log density and its gradient."""

    @abstractmethod
    def compiled(self) -> tuple[Any, FloatArray] | None:
        """C function in whitened coordinates and the numbers that it reads; None where there is only Python."""

    @abstractmethod
    def evaluator(self) -> Density:
        """A log density with gradient in whitened coordinates, with work space of its own (one for each chain)."""
