"""What a fit recovers of the truth behind one simulated data set (for `diagnostics.calibrate`).

Ranks are taken among at most 99 draws that thinning leaves nearly independent; a Wald interval is read as the normal
distribution that it was made from, on the scale that it was made on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.family_draws import family_subject_loglik
from hierlmm.bayes.generalised import joint_posterior
from hierlmm.bayes.generalised_model import dispersion_of
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.sample_generalised import run_joint
from hierlmm.bayes.tree import dispersion_labels, of_groups
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design
from hierlmm.diagnostics.calibration import LOGLIK
from hierlmm.diagnostics.replicate import likelihood_of, sample_posterior
from hierlmm.fits.components import component_labels, component_values
from hierlmm.fits.covariance_table import covariance_parameters
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik
from hierlmm.likelihood.residual_rows import ResidualRows, residual_names, residual_rows

RANKS = 99
"""Draws that a rank is taken among, nearly independent after thinning: ranks 0 ... 99 fall into bins of equal size."""


class Truth(NamedTuple):
    """The truth behind a data set: ``beta`` (p,), ``D`` (q, q), ``sigma``, ``b`` (J, q), ``eta`` (k,), ``y`` (N,).

    ``eta`` are the residual parameters; of another family its dispersion parameters ψ, and ``sigma`` is 1.
    """

    beta: FloatArray
    D: FloatArray
    sigma: float
    b: FloatArray
    eta: FloatArray
    y: FloatArray


FIELDS = ("truth", "estimate", "sd", "lower", "upper", "pit", "rank", "autocorrelation")


class Recovered(NamedTuple):
    """One data set: ``numbers`` (8, k) has a row for each of `FIELDS`, ``checks`` are numbers about the fit itself."""

    numbers: FloatArray
    checks: dict[str, float]


@dataclass(frozen=True)
class Quantities:
    """Which numbers are followed, in order: β, covariance parameters, b of some subjects, log-likelihood."""

    design: Design
    subjects: IntArray
    loglik: bool

    @property
    def components(self) -> list[str]:
        """Labels of the covariance parameters; one standard deviation where all random effects share it."""
        labels = component_labels(self.design)
        if self._common:
            names = of_groups("all random effects", self.design)
            labels = [*(f"sd({name})" for name in names), *labels[len(self.design.term) :]]
        if not self.design.is_gaussian:
            return [*labels[:-1], *dispersion_labels(self.design)]
        residual = {} if self.rows is None else residual_names(self.rows)
        return [*labels[:-1], *(name for names in residual.values() for name in names), labels[-1]]

    @cached_property
    def rows(self) -> ResidualRows | None:
        """The rows of the design with their residual structure; None without one."""
        return residual_rows(self.design) if self.design.has_residual_structure else None

    @property
    def labels(self) -> list[str]:
        """Names of all quantities."""
        design = self.design
        b = [f"b({t}, {design.subjects[j]})" for j in self.subjects for t in design.own_term]
        return [*design.coef, *self.components, *b, *([LOGLIK] if self.loglik else [])]

    @property
    def twins(self) -> IntArray:
        """Positions of the standard deviations that repeat one before, where random effects share it."""
        positions = np.arange(len(self.design.term))
        return positions[positions % self.design.n_own > 0]

    def among(self, labels: Iterable[str]) -> list[int]:
        """Positions of `components` among the rows of a fit's table, which repeats a standard deviation that is shared.

        Its σ of every group follows from σ and the ratios.
        """
        twins = self.twins if self._common else ()
        return [k for k, label in enumerate(labels) if k not in twins and not label.startswith("sigma[")]

    @property
    def _common(self) -> bool:
        return self.design.covariance == "identity"

    def values(self, beta: FloatArray, D: FloatArray, sigma: FloatArray, eta: FloatArray) -> FloatArray:
        """Stack β (S, p), the components of D (S, q, q), what is reported of η (S, k), and σ (S,)."""
        components = component_values(self.design, D, sigma)
        if self._common:
            components = np.delete(components, self.twins, axis=-1)
        parts = [beta, components]
        if not self.design.is_gaussian:
            level1 = [own[:, None] for own in dispersion_of(self.design.family, eta).values()]
            return np.concatenate([beta, components[..., :-1], *level1], axis=-1)
        if self.rows is not None:
            reported = np.array([list(self.rows.report(e).values()) for e in eta])
            parts = [beta, components[..., :-1], reported, components[..., -1:]]
        return np.concatenate(parts, axis=-1)

    def true(self, truth: Truth) -> FloatArray:
        """The same numbers of the truth."""
        return self.values(truth.beta[None], truth.D[None], np.array([truth.sigma]), truth.eta[None])[0]


def thinned(size: int) -> IntArray:
    """Positions of at most `RANKS` evenly spaced draws among ``size``."""
    step = max(1, size // RANKS)
    return np.arange(step - 1, size, step)[:RANKS]


def recover_by_nuts(
    design: Design, priors: ResolvedPriors, quantities: Quantities, truth: Truth, rng: Rng, options: dict[str, Any]
) -> Recovered:
    """Posterior draws of one data set, beside the truth."""
    from arviz_stats.base import array_stats

    followed, few = quantities.subjects, thinned(options["draws"] * options["chains"])
    draw = drawn if design.is_gaussian else drawn_of_family
    found = draw(design, priors, rng, options, few if len(followed) else None)
    effective = min(float(array_stats.ess(found.theta[:, :, m])) for m in range(found.theta.shape[2]))
    values = quantities.values(found.beta, found.D, found.sigma, found.eta)
    blocks = [_compare(values, values[few], quantities.true(truth))]
    if found.b is not None:
        b = found.b[:, followed].reshape(len(few), -1)
        blocks.append(_compare(b, b, truth.b[followed].ravel()))
    loglik = _loglik(design, found.beta[few], covariance_root(found.D[few]), found.sigma[few], found.eta[few])
    true_root = covariance_root(truth.D[None])
    true_loglik = _loglik(design, truth.beta[None], true_root, np.array([truth.sigma]), truth.eta[None])
    if not np.all(np.isfinite(loglik)):
        raise FloatingPointError("its log-likelihood is not finite at some draws: the data are out of all measure")
    blocks.append(_compare(loglik[:, None], loglik[:, None], true_loglik))
    return Recovered(np.concatenate(blocks, axis=1), {"divergences": float(found.diverging), "ess": effective})


class Drawn(NamedTuple):
    """Posterior draws of one data set.

    The numbers that were sampled, ``theta`` (chains, S, m), of another family without the random effects, and how many
    draws diverged; ``beta`` (S, p), ``D`` (S, q, q), ``sigma`` (S,), ``eta`` (S, k) as in `Truth`; ``b`` (L, J, q) of
    the draws asked for.
    """

    theta: FloatArray
    diverging: int
    beta: FloatArray
    D: FloatArray
    sigma: FloatArray
    eta: FloatArray
    b: FloatArray | None


def drawn(
    design: Design, priors: ResolvedPriors, rng: Rng, options: dict[str, Any], effects_of: IntArray | None
) -> Drawn:
    """Draws of the collapsed posterior."""
    sampled = sample_posterior(design, priors, rng, options, effects_of=effects_of)
    own, found = sampled.found.natural, sampled.found
    return Drawn(sampled.theta, sampled.diverging, own.beta, own.D, own.sigma, found.eta, found.b)


def drawn_of_family(
    design: Design, priors: ResolvedPriors, rng: Rng, options: dict[str, Any], effects_of: IntArray | None
) -> Drawn:
    """Draws of another family's exact posterior."""
    posterior = joint_posterior(design, priors)
    settings = Settings(seed=int(rng.integers(2**32)), cores=1, progressbar=False, **options)
    tree, _ = run_joint(posterior, settings)
    z = tree["posterior"]["z"].to_numpy()
    flat = z.reshape(-1, z.shape[-1])
    phi, _ = posterior.settled(flat, effects=False)
    natural, (*_, psi) = posterior.model.natural(phi), posterior.model.parts(phi)
    beta, ones = natural.get("beta", np.empty((len(flat), 0))), np.ones(len(flat))
    b = None if effects_of is None else posterior.settled(flat[effects_of])[1]
    diverging = int(tree["sample_stats"]["diverging"].sum())
    return Drawn(z[..., : posterior.model.n_phi], diverging, beta, natural["D"], ones, psi, b)


def _compare(values: FloatArray, kept: FloatArray, truth: FloatArray) -> FloatArray:
    """Rows `FIELDS`, (8, k), from all draws (S, k) and the kept ones (L, k): rank and autocorrelation are of these."""
    lower, upper = np.quantile(values, [0.025, 0.975], axis=0)
    pit = (np.sum(values < truth, axis=0) + 0.5) / (len(values) + 1)
    centred = kept - kept.mean(axis=0)
    lagged = np.sum(centred[1:] * centred[:-1], axis=0) / np.maximum(np.sum(centred**2, axis=0), 1e-300)
    rank = np.sum(kept < truth, axis=0).astype(float)
    return np.stack([truth, values.mean(axis=0), values.std(axis=0, ddof=1), lower, upper, pit, rank, lagged])


def _loglik(design: Design, beta: FloatArray, root: FloatArray, sigma: FloatArray, eta: FloatArray) -> FloatArray:
    """Log p(y | β, D, σ, η) of every draw: β (S, p), a root of D (S, q, q), σ (S,), η (S, k) -> (S,)."""
    residuals = None
    if not design.is_gaussian:
        return family_subject_loglik(design, beta, root, eta).sum(axis=1)
    if design.has_residual_structure:
        rows = residual_rows(design)
        residuals = [ResidualEstimate(rows.rows, rows.correlation, rows.variance, own) for own in eta]
    return subject_loglik(design, beta, root, sigma, residuals).sum(axis=1)


def recover_by_likelihood(design: Design, quantities: Quantities, truth: Truth, *, reml: bool) -> Recovered:
    """Estimates and Wald intervals of the fit to one data set, beside the truth."""
    fit = likelihood_of(design, reml=reml)
    components = fit.variance_components(0.95)
    components = components.iloc[quantities.among(components.index)]
    fixed = fit.summary(0.95)
    columns = ["estimate", "se", "lower", "upper"]
    table = np.vstack([fixed[columns].to_numpy(dtype=float), components[columns].to_numpy(dtype=float)])
    true = quantities.true(truth)
    estimate, se, lower, upper = table.T
    z = float(norm.ppf(0.975))
    # Wald intervals are symmetric on the scale they were made on, so their centre and spread follow from their ends.
    low, high, target = (_wald_scale(fit, v, quantities) for v in (lower, upper, true))
    with np.errstate(invalid="ignore", divide="ignore"):
        pit = norm.cdf((target - 0.5 * (low + high)) / ((high - low) / (2.0 * z)))
    nothing = np.full(len(true), np.nan)
    checks = {"not converged": float(not fit.converged), "singular": float(fit.is_singular)}
    return Recovered(np.stack([true, estimate, se, lower, upper, pit, nothing, nothing]), checks)


def _wald_scale(fit: LikelihoodNumbers, values: FloatArray, quantities: Quantities) -> FloatArray:
    """β as it is, every covariance parameter on the scale of its Wald interval."""
    scales = covariance_parameters(fit)
    keep = quantities.among(scales.labels)
    scales = replace(scales, labels=quantities.components, lower=scales.lower[keep], upper=scales.upper[keep])
    n = len(values) - len(scales.labels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate([values[:n], scales.to_unbounded(values[n:])])
