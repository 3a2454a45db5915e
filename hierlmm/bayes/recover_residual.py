"""β and b after (θ, η) was sampled: as `recover`, with the rows whitened anew for every draw of η.

    β | y, θ, η ~ N(H⁻¹h, H⁻¹),     H = Q_xx + P,  h = Q_xy + P m,     Q from the rows whitened by Σ_i(η)

and b given β as in `recover`. The whitened rows have the SD σ exp(shift(η)); σ is that where the variance ratio is 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import recover
from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.posterior import Collapsed, Natural
from hierlmm.bayes.recover import draw_b_of, in_threads, moments_of
from hierlmm.errors import DataError
from hierlmm.likelihood.kernel import pattern_sums
from hierlmm.likelihood.residual_rows import ResidualRows, Whitened

__all__ = ["recover_residual"]

FloatArray = NDArray[np.float64]
STREAMS = 2
"""Streams of random numbers for b, each of an equal share of the draws, however many threads there are."""


def recover_residual(
    posterior: Collapsed, rows: ResidualRows, theta: FloatArray, rng: np.random.Generator, random_effects: str
) -> tuple[Natural, FloatArray | None, tuple[FloatArray, FloatArray] | None]:
    """Draw β and b given each (θ, η), or average b over the draws.

    Parameters
    ----------
    posterior : Collapsed
    rows : ResidualRows
        Whose residual parameters η are.
    theta : (S, m)
        Draws of (θ, η).
    rng : numpy.random.Generator
    random_effects : {"draws", "summary", "none"}

    Returns
    -------
    Natural, and draws of b (S, J, q) or their mean and SD
    """
    S, m = len(theta), posterior.n_theta
    products, packed = posterior.products, unpack(posterior.buffer)
    p, (J, q, _) = products.n_fixed, products.subject_C.shape
    base, eta = np.ascontiguousarray(theta[:, :m]), theta[:, m:]
    sd, factor, sigma = posterior.natural(base)
    Lambda, V, working_sigma = posterior.relative(sd, factor, sigma)
    working, mean, covariance = np.empty((S, p)), np.empty((S, p)), np.empty((S, p, p))
    noise = rng.standard_normal((S, p))
    streams = rng.spawn(STREAMS)
    b = None
    if random_effects == "draws" and q:
        b = np.empty((S, J, q))
        for stream, part in zip(streams, np.split(b, [S // STREAMS]), strict=True):
            stream.standard_normal(out=part)  # deviates, which the draws replace one by one
    summed = random_effects == "summary" and q > 0
    totals = [(np.zeros((J, q)), np.zeros((J, q))) for _ in range(recover.THREADS)]

    def piece(k: int, lo: int, hi: int) -> None:
        for s in range(lo, hi):
            own = _whitened(rows, eta[s]).products
            Q = own.S_w + pattern_sums(own.R, own.C, own.weight, Lambda[s]).G
            Q = Q / working_sigma[s] ** 2
            covariance[s] = np.linalg.inv(Q[:p, :p] + packed.prior_precision)
            mean[s] = covariance[s] @ (Q[:p, p] + packed.prior_shift)
            working[s] = mean[s] + np.linalg.cholesky(covariance[s]) @ noise[s] if p else mean[s]
            if b is not None:
                draw_b_of(own, Lambda[s], V[s], working[s], working_sigma[s], b[s : s + 1], b[s : s + 1])
            elif summed:
                moments_of(own, Lambda[s], V[s], mean[s], covariance[s], working_sigma[s], *totals[k])

    in_threads(S, piece)
    beta = products.scaling.beta(working) if p else working
    # What was sampled is the SD of the whitened rows; σ is that where the variance ratio is 1.
    shift = np.array([rows.shift(e) for e in eta])
    natural = Natural(beta, sd, factor, sigma * np.exp(-shift), working, mean, covariance)
    if not summed:
        return natural, b, None
    first, second = (np.sum([t[k] for t in totals], axis=0) / S for k in range(2))
    return natural, None, (first, np.sqrt(np.maximum(second - first**2, 0.0)))


def _whitened(rows: ResidualRows, eta: FloatArray) -> Whitened:
    whitened = rows.whiten(eta)
    if whitened is None:
        received = "a draw of the residual parameters at the edge of their range"
        reason = "its residual covariance is not positive definite in floating point"
        remedy = "use a prior that keeps away from the edge: hl.Priors(residual={...})"
        raise DataError(received, reason, remedy, "docs, page 'Residual structures'")
    return whitened
