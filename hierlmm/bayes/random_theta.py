"""The covariance of the random effects as unconstrained numbers with a prior: θ of `collapsed_kernel`, as data.

θ holds the standard deviations (logarithms, or signed numbers in units of a scale) and Fisher's z of the canonical
partial correlations block by block; with one variance and one correlation, the logit of u (see there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaln, gammaln

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import COMMON, N_PRIOR, PARTIALS
from hierlmm.bayes.distributions import LKJ
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import of_groups
from hierlmm.covariance.partial import factor_of_partials
from hierlmm.covariance.random import equal_correlations, lowest_corr, sheared
from hierlmm.design.design import Design


@dataclass(frozen=True, eq=False)
class RandomTheta:
    """What θ is made of.

    Attributes
    ----------
    size : int
        Number of parameters.
    form : float
        `PARTIALS` or `COMMON`.
    sd_index : (q,), cpc_index : (q, q), alpha : (q, q), sd_prior : (n_sd, 6)
        As `collapsed_kernel` reads them.
    constant : float
        Constants of the log prior density.
    uncentering : (q, q)
        θ is of the random effects at average covariates; b is this times those.
    """

    size: int
    form: float
    sd_index: FloatArray
    cpc_index: FloatArray
    alpha: FloatArray
    sd_prior: FloatArray
    constant: float
    uncentering: FloatArray

    @property
    def n_sd(self) -> int:
        """Number of standard deviations."""
        return len(self.sd_prior)

    def natural(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Standard deviations (S, q) and a factor of the correlations (S, q, q) of b, from draws of θ (S, size)."""
        q, which = len(self.sd_index), self.sd_index.astype(int)
        scale = self.sd_prior[which, 5]
        signed, value = scale > 0, theta[:, which]
        sd = np.where(signed, np.abs(value) * scale, np.exp(np.where(signed, 0.0, value)))
        sign = np.where(signed & (value < 0), -1.0, 1.0)
        if self.form == COMMON:
            n = self.n_sd
            parts = tuple(tuple(np.flatnonzero(which == g).tolist()) for g in range(n))
            low = lowest_corr(len(parts[0]))
            r = low + (1.0 - low) / (1.0 + np.exp(-theta[:, n : 2 * n]))
            return sd, equal_correlations(r, parts)
        z = np.zeros((len(theta), q, q))
        rows, cols = np.nonzero(self.cpc_index >= 0)
        z[:, rows, cols] = theta[:, self.cpc_index[rows, cols].astype(int)]
        factor = factor_of_partials(np.tanh(z), 1.0 / np.cosh(z))
        return sheared(self.uncentering, sd, sign[:, :, None] * factor)


def random_theta(design: Design, priors: ResolvedPriors) -> RandomTheta:
    """θ of a design and its priors, with all standard deviations as logarithms."""
    q = len(design.term)
    n_sd = priors.n_groups if priors.common_sd else q
    sd_index = (np.arange(q) // (priors.n_own if priors.common_sd else 1)).astype(np.float64)
    cpc_index, alpha, constant = np.full((q, q), -1.0), np.zeros((q, q)), 0.0
    position = n_sd
    if priors.common_corr:
        alpha[0, :2] = (priors.corr_b or LKJ(1.0)).equal_shapes(priors.n_own)
        constant -= n_sd * float(betaln(alpha[0, 0], alpha[0, 1]))
        position += n_sd
    for block in [] if priors.common_sd else design.blocks:
        for b in range(1, len(block)):
            for a in range(b):
                i, j = block[b], block[a]
                cpc_index[i, j] = position
                eta = (priors.corr_b or LKJ(1.0)).eta
                alpha[i, j] = eta + (len(block) - 2 - a) / 2.0
                # Beta(α, α) on (-1, 1): B(α, α) 2^(2α - 1).
                constant -= 2 * gammaln(alpha[i, j]) - gammaln(2 * alpha[i, j]) + (2 * alpha[i, j] - 1) * np.log(2.0)
                position += 1
    sd_prior = np.zeros((n_sd, N_PRIOR))
    for k in range(n_sd):
        prior = priors.sd_b[k * priors.n_own if priors.common_sd else k]
        sd_prior[k, :-1], offset = prior.closed_form()  # type: ignore[misc]
        constant += offset
    form = COMMON if priors.common_corr else PARTIALS
    return RandomTheta(position, form, sd_index, cpc_index, alpha, sd_prior, float(constant), priors.random_uncentering)


def theta_names(design: Design, signed: Any, theta: RandomTheta) -> tuple[str, ...]:
    """Scale and parameter of each number of θ."""
    term = design.term
    common = of_groups("all random effects", design)
    sds = term if theta.n_sd == len(term) else common
    found = [f"{'signed' if k in signed else 'log'} sd({name})" for k, name in enumerate(sds)]
    if theta.form == COMMON:
        return (*found, *(f"logit corr({name})" for name in common))
    for block in design.blocks if theta.n_sd == len(term) else ():
        found += [f"partial corr({term[a]}, {term[b]})" for i, b in enumerate(block) for a in block[:i]]
    return tuple(found)
