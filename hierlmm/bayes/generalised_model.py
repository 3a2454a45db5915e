"""A generalised model with its priors, packed for compiled code: what its densities read (see `generalised`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import N_PRIOR
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import Normal, StudentT
from hierlmm.bayes.generalised_whitening import rows_and_others
from hierlmm.bayes.joint_kernel import HEADER, Joint, unpack
from hierlmm.bayes.random_theta import random_theta, theta_names
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.likelihood.generalised_criterion import GeneralisedRows


def why_not_compiled(priors: ResolvedPriors) -> str | None:
    """Say why the compiled posterior has not a generalised model's priors, or return None if it has."""
    for prior in priors.beta:
        if not isinstance(prior, (Normal, StudentT)):
            return f"the prior {prior} of a fixed effect is neither normal nor Student's t"
    for prior in (*priors.sd_b, *priors.dispersion):
        if prior.closed_form() is None:
            return f"the prior {prior} is outside the closed-form set"
    return None


@dataclass(frozen=True, eq=False)
class GeneralisedModel:
    """A generalised model with its priors, as both densities read it.

    Attributes
    ----------
    design : Design
    priors : ResolvedPriors
    rows : GeneralisedRows
    buffer : (n,)
        What `joint_kernel` reads.
    derivatives : callable
        The family's compiled function, whose address is in the buffer: it must not go before that.
    """

    design: Design
    priors: ResolvedPriors
    rows: GeneralisedRows
    buffer: FloatArray
    derivatives: Any

    @cached_property
    def data(self) -> Joint:
        """Views into the buffer."""
        return unpack(self.buffer)

    @property
    def size(self) -> int:
        """Number of covariance parameters θ."""
        return int(self.buffer[6])

    @property
    def n_phi(self) -> int:
        """Number of parameters φ."""
        return len(self.data.centre)

    @property
    def n_others(self) -> int:
        """Number of random effects of the grouping factors that are not eliminated."""
        return int(self.buffer[12])

    @property
    def names(self) -> tuple[str, ...]:
        """Scale and parameter of each number of φ."""
        theta = random_theta(self.design, self.priors)
        signed = list(np.flatnonzero(self.data.sd_prior[:, -1]))
        own = [f"working {c}" for c in self.design.coef]
        return (*theta_names(self.design, signed, theta), *(f"log {d}" for d in self.priors.dispersion_names), *own)

    def parts(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """θ, β in working columns and ψ of φ = (θ, ψ, β), (..., k)."""
        ends = self.size, self.size + len(self.data.psi_prior)
        return phi[..., : ends[0]], phi[..., ends[1] :], phi[..., ends[0] : ends[1]]

    def natural(self, phi: FloatArray) -> dict[str, FloatArray]:
        """Draws (S, ...) of β, SDs, correlations, D and dispersion in the user's units, from φ (S, k)."""
        theta, beta, psi = self.parts(phi)
        packed = self.data
        random = random_theta(self.design, self.priors)
        random.sd_prior[:] = packed.sd_prior  # with what is signed
        sd, factor = random.natural(theta)
        corr = factor @ np.swapaxes(factor, 1, 2)
        diagonal = np.arange(corr.shape[1])
        corr[:, diagonal, diagonal] = 1.0
        found = {"sd_b": sd, "corr_b": corr, "D": corr * sd[:, :, None] * sd[:, None, :]}
        if self.design.coef:
            found["beta"] = self.rows.scaling.beta(beta)
        family = self.design.family
        return found | {k.replace(" ", "_"): v for k, v in dispersion_of(family, psi).items()}


def dispersion_of(family: Any, psi: FloatArray) -> dict[str, FloatArray]:
    """Dispersion parameters by name, (S,), from ψ (S, m)."""
    if not psi.shape[1]:
        return {}
    rows = [family.natural(own) for own in psi]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def generalised_model(design: Design, priors: ResolvedPriors) -> GeneralisedModel:
    """Pack a model; φ is neither centred nor scaled yet."""
    rows, own, others, n_others = rows_and_others(design)
    theta, p, m = random_theta(design, priors), len(design.coef), len(priors.dispersion)
    scaling, Z, (N, width), J = rows.scaling, rows.Z[:, own], rows.Z.shape, len(rows.start) - 1
    q = Z.shape[1]
    k, constant = theta.size + p + m, theta.constant + float(np.sum(rows.constant))
    beta_prior, psi_prior = np.zeros((p, 4)), np.zeros((m, N_PRIOR))
    for i, prior in enumerate(priors.beta):
        beta_prior[i] = _form_of(prior)
        constant += float(prior.logpdf(beta_prior[i, 0]))
    beta_prior[:, 0] -= priors.centering @ scaling.shift  # working coefficients are differences from it
    for i, prior in enumerate(priors.dispersion):
        psi_prior[i, :-1], offset = prior.closed_form()  # type: ignore[misc]
        constant += offset
    K = priors.centering @ np.linalg.inv(scaling.Bx) if p else np.zeros((0, 0))
    Bz = scaling.Bz @ priors.random_uncentering
    of_theta = theta.sd_index, theta.cpc_index, theta.alpha, theta.sd_prior
    of_rows = rows.start, rows.y, rows.n, rows.offset, rows.X, Z
    working = *map(np.zeros, ((J, q, q), (J, q, p), (J, q), (p, p), p, N, N)), others
    parts = (np.zeros(HEADER), np.zeros(k), np.eye(k), *of_theta, Bz, K, beta_prior, psi_prior, *of_rows, *working)
    buffer = np.concatenate([np.ravel(part).astype(np.float64) for part in parts])
    derivatives = design.family.derivatives
    sizes = len(buffer), N, J, width, p, m, theta.size, theta.n_sd
    buffer[:HEADER] = [*sizes, theta.form, constant, float(derivatives.address), q, n_others]
    return GeneralisedModel(design, priors, rows, buffer, derivatives)


def _form_of(prior: Prior) -> tuple[float, float, float, float]:
    if isinstance(prior, StudentT):
        return prior.mean, 0.0, prior.nu + 1.0, 1.0 / (prior.nu * prior.scale**2)
    assert isinstance(prior, Normal)
    return prior.mean, prior.sd**-2.0, 0.0, 0.0
