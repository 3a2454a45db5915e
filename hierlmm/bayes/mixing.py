"""Effective sample sizes and R-hat of many quantities at once, as ArviZ defines them.

Rank-normalised split R-hat, the larger of the draws' and the folded draws'; bulk and tail effective sample size, with
Geyer's initial positive and monotone sequence of the chains' mean autocovariances (Vehtari et al. 2021, see
`convergence`). ArviZ goes through the quantities one by one, which takes longer than to sample small data.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

from hierlmm.arrays import FloatArray

TAILS = (0.05, 0.95)


def mixing(draws: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Bulk and tail ESS, R-hat (NaN for one chain) and Monte-Carlo standard error of the mean, each (n,).

    Parameters
    ----------
    draws : (n, chain, draw)
        Quantities that vary, four draws or more.
    """
    n, chains, _ = draws.shape
    split = halves(draws)
    normal = normal_scores(split)
    flat = draws.reshape(n, -1)
    below = [halves((draws <= at[:, None, None]).astype(float)) for at in np.quantile(flat, TAILS, axis=1)]
    bulk, lower, upper, mean = (effective_size(own) for own in (normal, *below, split))
    mcse = flat.std(axis=1, ddof=1) / np.sqrt(mean)
    if chains < 2:
        return bulk, np.minimum(lower, upper), np.full(n, np.nan), mcse
    folded = np.abs(split - np.median(split.reshape(n, -1), axis=1)[:, None, None])
    return bulk, np.minimum(lower, upper), np.maximum(r_hat(normal), r_hat(normal_scores(folded))), mcse


def halves(draws: FloatArray) -> FloatArray:
    """Every chain as two: (n, chain, draw) -> (n, 2 chain, draw // 2)."""
    half = draws.shape[2] // 2
    return np.concatenate([draws[..., :half], draws[..., -half:]], axis=1)


def normal_scores(draws: FloatArray) -> FloatArray:
    """Normal quantiles of the ranks over all chains; equal draws share the average rank."""
    n, size = len(draws), draws[0].size
    flat = draws.reshape(n, size)
    order = np.argsort(flat, axis=1)
    ranks = np.empty(flat.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, size + 1.0)[None], axis=1)
    tied = np.any(np.diff(np.take_along_axis(flat, order, axis=1), axis=1) == 0.0, axis=1)
    if tied.any():
        ranks[tied] = rankdata(flat[tied], axis=1)
    return ndtri((ranks - 0.375) / (size + 0.25)).reshape(draws.shape)


def r_hat(draws: FloatArray) -> FloatArray:
    """Potential scale reduction of chains as they are, (n,)."""
    size = draws.shape[2]
    within = draws.var(axis=2, ddof=1).mean(axis=1)
    between = size * draws.mean(axis=2).var(axis=1, ddof=1)
    return np.sqrt((between / within + size - 1) / size)


def effective_size(draws: FloatArray) -> FloatArray:
    """Effective sample size of the mean of chains as they are, (n,)."""
    n, chains, size = draws.shape
    mean = draws.mean(axis=2)
    length = next_fast_len(2 * size, real=True)
    spectrum = rfft(draws - mean[..., None], n=length, axis=2)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=1)
    covariance = irfft(power, n=length, axis=1)[:, :size] / size
    within = covariance[:, 0] * size / (size - 1.0)
    total = covariance[:, 0] + (mean.var(axis=1, ddof=1) if chains > 1 else 0.0)
    whole = chains * size
    found = np.full(n, float(whole))
    for k in np.flatnonzero(np.ptp(draws.reshape(n, -1), axis=1) > 0.0):
        correlation = 1.0 - (within[k] - covariance[k]) / total[k]
        correlation[0] = 1.0
        found[k] = whole / max(_correlated_length(correlation), 1.0 / np.log10(whole))
    return found


def _correlated_length(correlation: FloatArray) -> float:
    """Σ over all lags, of which those beyond the initial positive sequence are noise: (lags,)."""
    size = len(correlation)
    last = max(0, (size - 3) // 2)  # the last pair of lags that may be looked at
    pairs = correlation[: 2 * last + 2 : 2] + correlation[1 : 2 * last + 2 : 2]
    ended = np.flatnonzero(pairs <= 0.0)
    stop = int(ended[0]) if len(ended) else last
    half = correlation[2 * stop]
    half = half if half > 0.0 or pairs[stop] >= 0.0 else 0.0
    return float(-1.0 + 2.0 * np.minimum.accumulate(pairs[:stop]).sum() + half)
