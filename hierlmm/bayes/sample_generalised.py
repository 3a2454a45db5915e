"""NUTS on generalised models: exact on parameters and random effects together, or with these integrated by Laplace.

``sampler="laplace"`` samples φ alone, on the density that Laplace's method gives, and draws b from the normal
approximation of its conditional distribution. How far that is from the posterior is said by Pareto k of the weights
that would correct the draws of φ: the likelihood by quadrature over Laplace's, smoothed (Vehtari et al. 2024, J. Mach.
Learn. Res. 25 (72)). Beyond 0.7 the approximation is too far away, and a note says so.

What is sampled is whitened, nearly standard normal. Trajectories are those of a standard normal density, which are
known, kicked by what the density differs from it (Shahbaba et al. 2014, Stat. Comput. 24:339): no less exact than
leapfrog steps, and longer ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.convergence import GOOD_K, pareto_smoothed
from hierlmm.bayes.family_draws import POINTS
from hierlmm.bayes.generalised import (
    JointPosterior,
    Marginal,
    joint_posterior,
    recovered,
)
from hierlmm.bayes.generalised_model import GeneralisedModel, generalised_model
from hierlmm.bayes.nuts import Settings, run
from hierlmm.bayes.posterior import Density
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.sample_collapsed import kept_effects, nutpie_model
from hierlmm.design.design import Design, own_effects
from hierlmm.likelihood.generalised_checks import without_residuals
from hierlmm.notice import notice_if_slow

FEWEST, APART = 50, 0.2
"""Draws of half a chain that tell where it is; variance of these places over that within, beyond which it stands still
(a split R-hat of 1.1)."""
DEPTH, RARELY = 8, 0.01
"""Doublings of a trajectory of the normal density, of which three to five are enough; and the share of draws that may
need them all."""
WORK = 2e9
"""Densities of a row that the weights may cost."""
EVEN, ENOUGH = 0.1, 0.8
"""Largest logarithm of a weight that is as good as none; share of draws below which an approximation is rough."""


def sample_joint(
    design: Design, priors: ResolvedPriors, *, random_effects: str, notes: tuple[str, ...] = (), **settings: Any
) -> PosteriorRecord:
    """Sample parameters and random effects exactly.

    Parameters
    ----------
    design, priors
        The model; `why_not_compiled` must be None for these priors.
    random_effects, notes, **settings
        As in `sample_collapsed`.
    """
    chosen = Settings(**settings)
    started = time.perf_counter()
    with notice_if_slow():
        posterior = joint_posterior(design, priors)
    ready = time.perf_counter()
    tree, route = run_joint(posterior, chosen)
    sampled = time.perf_counter()
    kept = kept_effects(design, chosen.chains * chosen.draws, random_effects)
    z = tree["posterior"]["z"].to_numpy()
    draws, groups = posterior.recover(z, np.random.default_rng(chosen.seed), kept)
    times = _times(started, ready, sampled)
    attrs = {"estimator": "NUTS", "sampler": "joint", "route": route, "random_effects": kept, **chosen.attrs, **times}
    notes = (*notes, *tie_notes(design, draws))
    return posterior_record(design, priors, draws, tree["sample_stats"].to_dataset(), attrs, groups=groups, notes=notes)


def run_joint(posterior: JointPosterior, settings: Settings) -> tuple[Any, str]:
    """Sample the whitened coordinates of parameters and random effects: see `run_whitened`."""
    data, k = posterior.model.data, posterior.model.n_phi
    n = k - len(data.K)

    def place(z: FloatArray) -> FloatArray:
        free = data.centre[:n] + z[..., :n] @ data.root[:n, :n].T
        return np.concatenate([free, z[..., n:k]], axis=-1)  # w, which is β but for its centre and spread

    return run_whitened(posterior, posterior.dimension, place, settings)


def run_whitened(
    posterior: JointPosterior | LaplacePosterior,
    dimension: int,
    place: Callable[[FloatArray], FloatArray],
    settings: Settings,
) -> tuple[Any, str]:
    """Sample whitened coordinates: nutpie's tree, and how the density was called.

    Where the posterior is far from normal, the trajectories of a normal density can need steps so small that chains
    stand still (counts of one subject in the hundreds and of the others below ten). Then leapfrog steps follow.

    Parameters
    ----------
    posterior : JointPosterior or LaplacePosterior
    dimension : int
        Number of coordinates.
    place : callable
        From coordinates (..., n) to φ (..., k), or what stands for it.
    settings : Settings
    """
    model, route = nutpie_model(posterior, np.zeros(dimension))
    tree = run(model, settings, exact_normal_trajectory=True, maxdepth=DEPTH)
    phi = place(tree["posterior"]["z"].to_numpy())
    # SDs and correlations as they are: chains may sit at a signed SD and at its mirror image.
    natural = posterior.model.natural(phi.reshape(-1, phi.shape[-1]))
    values = np.column_stack([own.reshape(phi.shape[0] * phi.shape[1], -1) for own in natural.values()])
    deep = float(tree["sample_stats"]["maxdepth_reached"].mean())
    if deep > RARELY or stands_still(values.reshape(*phi.shape[:2], -1)):
        tree = run(model, settings)
    return tree, route


def stands_still(values: FloatArray) -> bool:
    """Whether the halves of the chains (chain, draw, k) are in different places."""
    half = values.shape[1] // 2
    if half < FEWEST:
        return False
    parts = np.concatenate([values[:, :half], values[:, half : 2 * half]])
    within, between = parts.var(axis=1, ddof=1).mean(axis=0), parts.mean(axis=1).var(axis=0, ddof=1)
    return bool(np.any(between > APART * within + 1e-300))


def tie_notes(design: Design, draws: dict[str, Any]) -> tuple[str, ...]:
    """What is said of Student's t where rows have no residual at all, and the scale goes to zero."""
    if design.family.name != "student_t":
        return ()
    sigma = float(np.median(draws["sigma"]))
    why = without_residuals(design, sigma)
    if why is None:
        return ()
    return (
        f"The scale of Student's t is next to nothing (sigma {sigma:.2g}): {why}, so that the likelihood rises without "
        "end as sigma goes to zero, and the prior alone keeps it up. To do: use measurements that are not rounded, "
        "family='gaussian', or a prior of sigma without mass at zero.",
    )


def _times(started: float, ready: float, sampled: float) -> dict[str, float]:
    seconds = {"preparation": ready - started, "sampling": sampled - ready, "recovery": time.perf_counter() - sampled}
    return {f"{name}_seconds": round(value, 3) for name, value in seconds.items()}


@dataclass(frozen=True, eq=False)
class LaplacePosterior:
    """The density of φ by Laplace's method, in whitened coordinates: a `Posterior`.

    Attributes
    ----------
    model : GeneralisedModel
        Centred and scaled.
    """

    model: GeneralisedModel

    @property
    def design(self) -> Design:
        """What was measured."""
        return self.model.design

    @property
    def names(self) -> tuple[str, ...]:
        """What is sampled, in order."""
        return self.model.names

    def compiled(self) -> None:
        """There is only Python around the compiled sums over subjects."""

    def evaluator(self) -> Density:
        """A log density with gradient, with work space of its own (one for each chain)."""
        own, data = Marginal(self.model), self.model.data

        def density(z: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = own.log_density(data.centre + data.root @ z)
            return value, data.root.T @ gradient

        return density

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log density of φ and its gradient."""
        return Marginal(self.model).log_density(theta)

    def recover(
        self, draws: FloatArray, rng: np.random.Generator, random_effects: str
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """See `Posterior.recover`; draws (chain, draw, k) are of φ."""

        def effects(phi: FloatArray) -> dict[str, FloatArray]:
            return {"b": own_effects(self.design, self._effects(phi, rng))}

        return recovered(self.model, draws, as_rows(draws), effects, random_effects)

    def _effects(self, phi: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Draws of b from its normal approximation at each φ: (S, J, q)."""
        marginal, found = Marginal(self.model), np.empty((len(phi), *self.model.data.c.shape))
        for own, b in zip(phi, found, strict=True):
            at, (*_, Lambda) = marginal.integrated(own)
            root = np.linalg.cholesky(at.covariance)
            b[:] = (at.modes + np.einsum("jab,jb->ja", root, rng.standard_normal(b.shape))) @ Lambda.T
        return np.linalg.solve(self.model.rows.scaling.Bz, found.reshape(-1, found.shape[-1]).T).T.reshape(found.shape)

    def log_weights(self, draws: FloatArray) -> FloatArray:
        """Logarithms of the exact density over Laplace's at some draws of φ, (chain, draw, k), their mean weight one.

        Empty where the random effects are too many for quadrature.
        """
        flat, q = draws.reshape(-1, draws.shape[-1]), self.model.data.c.shape[1]
        if q not in POINTS:
            return np.empty(0)
        cost = len(self.model.rows.y) * POINTS[q] ** q
        few = np.linspace(0, len(flat) - 1, int(np.clip(WORK / cost, 100, min(1000, len(flat))))).astype(int)
        exact, laplace = Marginal(self.model, POINTS[q]), Marginal(self.model)
        found = [np.sum(exact.integrated(own)[0].value - laplace.integrated(own)[0].value) for own in flat[few]]
        return np.array(found) - logsumexp(found) + np.log(len(found))


def pareto_k(log_weights: FloatArray) -> float:
    """Pareto k of weights; 0 where none is off by more than a tenth, whatever their tail; NaN without any."""
    if not len(log_weights):
        return float("nan")
    if np.abs(log_weights).max() < EVEN:
        return 0.0
    return pareto_smoothed(log_weights)[1]


def worth(log_weights: FloatArray) -> float:
    """Share of independent draws that weighted ones are worth: Kish's ``(Σw)² / n Σw²``."""
    w = np.exp(log_weights)
    return float(w.sum() ** 2 / (w @ w) / len(w)) if len(w) else float("nan")


def sample_laplace(
    design: Design, priors: ResolvedPriors, *, random_effects: str, notes: tuple[str, ...] = (), **settings: Any
) -> PosteriorRecord:
    """Sample φ with the random effects integrated out by Laplace's method; see the opening.

    Parameters
    ----------
    design, priors, random_effects, notes, **settings
        As in `sample_joint`.
    """
    chosen = Settings(**settings)
    started = time.perf_counter()
    with notice_if_slow():
        model = generalised_model(design, priors)
        Marginal(model).settle()
    posterior = LaplacePosterior(model)
    ready = time.perf_counter()

    def place(z: FloatArray) -> FloatArray:
        return model.data.centre + z @ model.data.root.T

    tree, route = run_whitened(posterior, model.n_phi, place, chosen)
    sampled = time.perf_counter()
    kept = kept_effects(design, chosen.chains * chosen.draws, random_effects)
    phi = place(tree["posterior"]["z"].to_numpy())
    draws, groups = posterior.recover(phi, np.random.default_rng(chosen.seed), kept)
    weights = posterior.log_weights(phi)
    k = pareto_k(weights)
    times = _times(started, ready, sampled)
    told = {"estimator": "NUTS", "sampler": "laplace", "route": route, "pareto_k": k, "random_effects": kept}
    attrs = {**told, **chosen.attrs, **times}
    statistics = tree["sample_stats"].to_dataset()
    notes = (*notes, *k_notes(k, worth(weights)))
    return posterior_record(design, priors, draws, statistics, attrs, groups=groups, notes=notes)


def k_notes(k: float, share: float) -> tuple[str, ...]:
    """What the weights say of Laplace's method, where it must be known: Pareto k, and what the draws are worth."""
    if k <= GOOD_K and share >= ENOUGH:
        return ()
    if k <= GOOD_K:
        return (
            f"Laplace's method is rough here: weighed by the exact density the draws are worth {100 * share:.0f} % of "
            "their number. Standard deviations of random effects are the first to be off. To do: sampler='auto', which "
            "is exact.",
        )
    if np.isnan(k):
        return (
            "With so many random effects a subject there is no quadrature that says how good Laplace's method is here. "
            "To do: compare with sampler='auto', which is exact.",
        )
    return (
        f"Laplace's method is not good enough here (Pareto k {k:z.2f}, at most {GOOD_K} is): the posterior of these "
        "draws is not that of the model. This happens with few or binary rows a subject and random effects of large "
        "variance. To do: sampler='auto', which is exact.",
    )
