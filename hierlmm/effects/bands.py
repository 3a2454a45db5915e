"""Bands around curves ``L β``: pointwise, and simultaneous over all rows of a piece.

The standardised errors are ``(f̂_i - f_i) / se_i = a_i'z / s`` with rows a_i of unit length, z standard normal in r
dimensions and ``s² ~ χ²_d / d``; write ``z = ρ u`` with u uniform on the sphere. Then

    P(max_i |T_i| > t) = E_u F̄_{r,d}( (t / max_i |a_i'u|)² / r ),

an average over directions with exact tails, and c solves ``P(max |T| > c) = 1 - ci``: the band is ``f̂ ± c se``. For a
posterior c is the quantile over draws of ``max_i |f_i - mean_i| / sd_i`` (sup-t band).

References
----------
Liu, W. (2010). Simultaneous Inference in Regression. Chapman & Hall/CRC.

Montiel Olea, J. L. and Plagborg-Møller, M. (2019). Simultaneous confidence bands: theory, implementation, and an
application to SVARs. J. Appl. Econom. 34, 1-17.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtrc, chdtri, fdtrc, fdtri, ndtri
from scipy.stats import qmc

from hierlmm.effects.judge import PosteriorDraws
from hierlmm.likelihood.wald import Wald
from hierlmm.predict.lines import t_quantile

__all__ = ["DIRECTIONS", "band_quantile", "bands"]

FloatArray = NDArray[np.float64]
DIRECTIONS = 14
"""Logarithm of the number of quasi-random directions behind a simultaneous band: coverage to about 1e-4."""
VALUES = 2_000_000
"""Numbers in one working array."""
BINS = 256
DF_NODES = 5


def bands(
    judge: Wald | PosteriorDraws,
    L: FloatArray,
    offset: FloatArray,
    ci: float,
    pieces: list[NDArray[np.intp]],
    seed: int,
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Columns of the table, and the half-width of the simultaneous band of each piece in standard errors."""
    if isinstance(judge, PosteriorDraws):
        estimate, se, lower, upper, largest = _draw_bands(judge, L, offset, ci, pieces)
        critical = np.array([np.quantile(own, ci) for own in largest])
        half = np.zeros(len(L))
        for rows, c in zip(pieces, critical, strict=True):
            half[rows] = c * se[rows]
    else:
        estimate, se, df = judge.rows(L)
        estimate = estimate + offset
        reach = t_quantile(ci, df) * se
        lower, upper = estimate - reach, estimate + reach
        half, widest = np.zeros(len(L)), []
        for rows in pieces:
            c = band_quantile(L[rows], judge.cov, df[rows], ci, seed)
            half[rows] = c * se[rows]
            widest.append(float(c.max()))
        critical = np.array(widest)
    columns = {"estimate": estimate, "se": se, "lower": lower, "upper": upper}
    if pieces:
        columns |= {"lower_simultaneous": estimate - half, "upper_simultaneous": estimate + half}
    return columns, critical


def _draw_bands(
    judge: PosteriorDraws, L: FloatArray, offset: FloatArray, ci: float, pieces: list[NDArray[np.intp]]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, list[FloatArray]]:
    """Mean, SD and limits of every row, and each draw's largest standardised deviation in every piece."""
    n_draws = len(judge.beta)
    step = max(1, VALUES // n_draws)
    found = np.empty((4, len(L)))
    for start in range(0, len(L), step):
        part = slice(start, start + step)
        draws = judge.of(L[part], offset[part])
        found[0, part], found[1, part] = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        found[2:, part] = np.quantile(draws, [0.5 - ci / 2.0, 0.5 + ci / 2.0], axis=0)
    largest = []
    for rows in pieces:
        top = np.zeros(n_draws)
        for start in range(0, len(rows), step):
            own = rows[start : start + step]
            own = own[found[1, own] > 0.0]
            if len(own):
                distance = np.abs(judge.of(L[own], offset[own]) - found[0, own]) / found[1, own]
                top = np.maximum(top, distance.max(axis=1))
        largest.append(top)
    return found[0], found[1], found[2], found[3], largest


def band_quantile(L: FloatArray, cov: FloatArray, df: FloatArray, ci: float, seed: int = 0) -> FloatArray:
    """Half-widths c, (k,), of a band ``L β̂ ± c se`` that holds for all rows together with probability ``ci``.

    Rows may have different degrees of freedom: c is then the quantile at each row's own, interpolated in 1/df.

    Parameters
    ----------
    L : (k, p)
    cov : (p, p)
        Covariance of β̂.
    df : (k,)
        Degrees of freedom; may be infinite.
    ci : float
    seed : int
        Of the directions.
    """
    values, vectors = np.linalg.eigh(cov)
    A = L @ (vectors * np.sqrt(np.maximum(values, 0.0)))
    size = np.sqrt(np.einsum("ij,ij->i", A, A))
    A = A[size > 0.0] / size[size > 0.0, None]
    single = t_quantile(ci, df)
    if len(A) == 0:
        return single
    _, s, Vt = np.linalg.svd(A, full_matrices=False)
    r = int(np.count_nonzero(s > 1e-8 * s[0]))
    if r == 1:
        return single
    reach = _largest_reach(A @ Vt[:r].T, r, seed)
    inverse = np.where(np.isfinite(df), 1.0 / df, 0.0)
    low, high = float(inverse.min()), float(inverse.max())
    if high - low < 1e-10:
        return np.full(len(L), _reach_quantile(reach, r, ci, high))
    # Chebyshev nodes: the quantile is smooth in 1/df.
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(DF_NODES) + 0.5) / DF_NODES)
    at_nodes = [_reach_quantile(reach, r, ci, float(v)) for v in nodes]
    fitted = np.polynomial.Chebyshev.fit(nodes, at_nodes, DF_NODES - 1, domain=[low, high])
    return np.maximum(single, fitted(inverse))


def _largest_reach(A: FloatArray, r: int, seed: int) -> FloatArray:
    """``max_i |a_i'u|`` over directions u: the means of 256 groups of neighbouring values."""
    directions = _directions(r, seed)
    step = max(1, VALUES // directions.shape[1])
    largest = np.zeros(directions.shape[1])
    for start in range(0, len(A), step):
        largest = np.maximum(largest, np.abs(A[start : start + step] @ directions).max(axis=0))
    # Tails are smooth in the reach: means of neighbours do what all directions would.
    return np.sort(largest).reshape(BINS, -1).mean(axis=1)


@lru_cache(maxsize=8)
def _directions(r: int, seed: int) -> FloatArray:
    """Unit vectors (r, 2^14): half a circle, or quasi-random on the sphere."""
    if r == 2:
        angle = (np.arange(2**DIRECTIONS) + 0.5) * np.pi / 2**DIRECTIONS
        return np.stack([np.cos(angle), np.sin(angle)])
    points = qmc.Sobol(r, scramble=True, rng=seed).random_base2(DIRECTIONS)
    u = ndtri(np.clip(points, 1e-16, 1.0 - 1e-16)).T
    return np.asarray(u / np.sqrt(np.sum(u**2, axis=0)))


def _reach_quantile(reach: FloatArray, r: int, ci: float, inverse_df: float) -> float:
    df = 1.0 / inverse_df if inverse_df > 0.0 else math.inf

    def excess(t: float) -> float:
        squared = (t / reach) ** 2
        tails = chdtrc(r, squared) if math.isinf(df) else fdtrc(r, df, squared / r)
        return float(np.mean(tails)) - (1.0 - ci)

    low = float(t_quantile(ci, np.array([df]))[0])
    # Scheffé's quantile holds for all linear functions: no band is wider.
    high = math.sqrt(chdtri(r, 1.0 - ci) if math.isinf(df) else r * fdtri(r, df, ci))
    return float(brentq(excess, 0.98 * low, 1.001 * high, xtol=1e-8))
