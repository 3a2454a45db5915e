"""β and b after (θ, η) was sampled: as `recover`, with the rows whitened anew for every draw of η."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.collapsed_residual import ResidualPosterior
from hierlmm.bayes.recover import THREADS, Natural, draw_b_of, in_threads, moments_of, natural_scale
from hierlmm.errors import DataError
from hierlmm.likelihood.kernel import pattern_sums

__all__ = ["Recovered", "recover_residual"]

FloatArray = NDArray[np.float64]


class Recovered(NamedTuple):
    """Draws on the natural scale, what was made of b, and η (S, k) with what tables show of it (S, r)."""

    natural: Natural
    b: FloatArray | None
    summary: tuple[FloatArray, FloatArray] | None
    eta: FloatArray
    reported: FloatArray


def recover_residual(
    posterior: ResidualPosterior, theta: FloatArray, rng: np.random.Generator, random_effects: str
) -> Recovered:
    """Draw β and b given each (θ, η), or average b over the draws.

    Parameters
    ----------
    posterior : ResidualPosterior
    theta : (S, m)
        Draws of (θ, η).
    rng : numpy.random.Generator
    random_effects : {"draws", "summary", "none"}
    """
    S, m = len(theta), posterior.n_theta
    products, scaling = posterior.products, posterior.products.scaling
    p, (J, q, _) = products.n_fixed, products.subject_C.shape
    base, eta = np.ascontiguousarray(theta[:, :m]), theta[:, m:]
    sd, factor, sigma = natural_scale(posterior, base)
    half = sd[:, :, None] * factor / sigma[:, None, None]
    Lambda, V = np.ascontiguousarray(scaling.Bz @ half), half * scaling.y_scale
    working_sigma = sigma / scaling.y_scale
    packed = unpack(posterior.buffer)
    working, mean = np.empty((S, p)), np.empty((S, p))
    covariance = np.empty((S, p, p))
    noise = rng.standard_normal((S, p))
    b = np.empty((S, J, q)) if random_effects == "draws" and q else None
    totals = [(np.zeros((J, q)), np.zeros((J, q))) for _ in range(THREADS)]
    streams = rng.spawn(THREADS)

    def piece(lo: int, hi: int) -> None:
        which = int(lo > 0)
        for s in range(lo, hi):
            whitened = posterior.rows.whiten(eta[s])
            if whitened is None:
                raise DataError(
                    "a draw of the residual parameters at the edge of their range",
                    "its residual covariance is not positive definite in floating point",
                    "use a prior that keeps away from the edge: hl.Priors(residual={...})",
                    "docs, page 'Residual structures'",
                )
            own = whitened.products
            Q = own.S_w + pattern_sums(own.R, own.C, own.weight, Lambda[s]).G
            Q = Q / working_sigma[s] ** 2
            covariance[s] = np.linalg.inv(Q[:p, :p] + packed.prior_precision)
            mean[s] = covariance[s] @ (Q[:p, p] + packed.prior_shift)
            working[s] = mean[s] + np.linalg.cholesky(covariance[s]) @ noise[s] if p else mean[s]
            if b is not None:
                deviates = streams[which].standard_normal((1, J, q))
                draw_b_of(own, Lambda[s], V[s], working[s], working_sigma[s], deviates, b[s : s + 1])
            elif random_effects == "summary" and q:
                moments_of(own, Lambda[s], V[s], mean[s], covariance[s], working_sigma[s], *totals[which])

    in_threads(S, piece)
    beta = scaling.beta(working) if p else working
    # What was sampled is the SD of the whitened rows; σ is that where the variance ratio is 1.
    shift = np.array([posterior.rows.shift(e) for e in eta])
    natural = Natural(beta, sd, factor, sigma * np.exp(-shift), working, mean, covariance)
    summary = None
    if random_effects == "summary" and q:
        first, second = (np.sum([t[k] for t in totals], axis=0) / S for k in range(2))
        summary = first, np.sqrt(np.maximum(second - first**2, 0.0))
    reported = np.array([list(posterior.rows.report(e).values()) for e in eta]).reshape(S, -1)
    return Recovered(natural, b, summary, posterior.unconstrained(eta), reported)
