"""Quantiles behind intervals: of Student's t, of the largest ``|t|`` of several, and of mixtures of normals.

Several linear functions have standardised errors ``T_i = a_i'z / s``, with rows a_i of unit length, z standard normal
in r dimensions and ``s² ~ χ²_d / d``. Write ``z = ρ u``, u uniform on the sphere and ``ρ²/r / s² ~ F(r, d)``
independent of it. Then

    P(max |T_i| > t) = E_u F̄_{r,d}( (t / max_i |a_i'u|)² / r ),

one smooth average over directions, with relative accuracy in the tails and no need for a correlation matrix of full
rank: over a circle for r = 2, over quasi-random directions for r > 2. `largest_t_quantile` and `largest_t_sf` serve
families of contrasts, whose p-values must hold far out; `band_quantile` serves bands, with many rows and degrees of
freedom that differ by row.

References
----------
Genz, A. and Bretz, F. (2009). Computation of Multivariate Normal and t Probabilities. Springer.

Liu, W. (2010). Simultaneous Inference in Regression. Chapman & Hall/CRC.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import chdtrc, chdtri, fdtrc, fdtri, ndtr, ndtri
from scipy.stats import norm, qmc
from scipy.stats import t as student

from hierlmm.arrays import FloatArray

DIRECTIONS = 14
"""Logarithm of the number of directions behind a simultaneous band: coverage to about 1e-4."""
FAMILY = {"circle": 12, "sphere": 17, "seed": 20240229}
"""The same for families of contrasts: p-values to about 1e-4 of their size."""
CLASSES = 2048
"""Of reaches that count as one in a family of contrasts: another 1e-4 where p is 1e-20, and less before."""
VALUES = 2_000_000
"""Numbers in one working array."""
BINS = 256
DF_NODES = 5
FEW = 20_000
KNOTS = 400


class Reach(NamedTuple):
    """Largest ``|a_i'u|`` over directions u: values with their weights, which add up to 1, in r dimensions."""

    values: FloatArray
    weights: FloatArray
    r: int


def t_quantile(ci: float, df: FloatArray) -> FloatArray:
    """Two-sided quantile of Student's t for each number of degrees of freedom (infinite: normal), (n,).

    Many rows are interpolated by a cubic spline in 1/df, in which the quantile is smooth (error below 1e-7).
    """
    probability = 0.5 + ci / 2.0
    inverse = _inverse(df)
    distinct, at = np.unique(inverse, return_inverse=True) if len(df) <= FEW else (inverse[:0], None)
    if at is not None:
        return _exact_quantile(probability, distinct)[at]
    lowest, highest = float(inverse.min()), float(inverse.max())
    if highest - lowest < 1e-12:
        return np.full(len(df), _exact_quantile(probability, np.array([highest]))[0])
    if highest > 1.0:  # fewer than one degree of freedom: too steep to interpolate
        return _exact_quantile(probability, inverse)
    knots = np.linspace(lowest, highest, KNOTS)
    return CubicSpline(knots, _exact_quantile(probability, knots))(inverse)


def _inverse(df: FloatArray) -> FloatArray:
    return np.where(np.isfinite(df), 1.0 / np.where(np.isfinite(df), df, 1.0), 0.0)


def _exact_quantile(probability: float, inverse_df: FloatArray) -> FloatArray:
    finite = inverse_df > 0.0
    out = np.full(len(inverse_df), norm.ppf(probability))
    out[finite] = student.ppf(probability, 1.0 / inverse_df[finite])
    return out


def largest_t_sf(t: FloatArray, df: FloatArray, corr: FloatArray) -> FloatArray:
    """P(max |T_i| > t) for T multivariate t with these correlations (they may be singular); df may be infinite."""
    reach = _reach_of_family(corr)
    pairs = np.broadcast_arrays(t, df)
    return np.array([_tail(float(v), float(d), reach) for v, d in zip(*map(np.ravel, pairs), strict=True)])


def largest_t_quantile(probability: float, df: FloatArray, corr: FloatArray) -> FloatArray:
    """The t with P(max |T_i| <= t) = probability, for each number of degrees of freedom."""
    reach, outside = _reach_of_family(corr), 1.0 - probability
    single = np.asarray(student.ppf(0.5 + probability / 2.0, df))
    bound = np.asarray(student.isf(outside / (2.0 * len(corr)), df))  # Bonferroni's
    if reach.r == 1 or len(corr) == 1:
        return single
    rows = zip(np.asarray(df, dtype=np.float64), single, bound, strict=True)
    return np.array([_solve(reach, float(d), outside, (0.99 * low, 1.01 * high), 1e-10) for d, low, high in rows])


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
    # Tails are smooth in the reach: means of neighbours do what all directions would.
    largest = _largest_reach(A @ Vt[:r].T, _directions(r, DIRECTIONS, seed))
    reach = Reach(np.sort(largest).reshape(BINS, -1).mean(axis=1), np.full(BINS, 1.0 / BINS), r)
    inverse = _inverse(df)
    low, high = float(inverse.min()), float(inverse.max())
    if high - low < 1e-10:
        return np.full(len(L), _band_at(reach, ci, high))
    # Chebyshev nodes: the quantile is smooth in 1/df.
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(DF_NODES) + 0.5) / DF_NODES)
    at_nodes = [_band_at(reach, ci, float(v)) for v in nodes]
    fitted = np.polynomial.Chebyshev.fit(nodes, at_nodes, DF_NODES - 1, domain=[low, high])
    return np.maximum(single, fitted(inverse))


def _band_at(reach: Reach, ci: float, inverse_df: float) -> float:
    df = 1.0 / inverse_df if inverse_df > 0.0 else math.inf
    low = float(t_quantile(ci, np.array([df]))[0])
    # Scheffé's quantile holds for all linear functions: no band is wider.
    high = math.sqrt(chdtri(reach.r, 1.0 - ci) if math.isinf(df) else reach.r * fdtri(reach.r, df, ci))
    return _solve(reach, df, 1.0 - ci, (0.98 * low, 1.001 * high), 1e-8)


def _solve(reach: Reach, df: float, outside: float, bracket: tuple[float, float], xtol: float) -> float:
    return float(brentq(lambda t: _tail(t, df, reach) - outside, *bracket, xtol=xtol))


def _tail(t: float, df: float, reach: Reach) -> float:
    if t <= 0.0:
        return 1.0
    squared, r = (t / reach.values) ** 2, reach.r
    return float(reach.weights @ (chdtrc(r, squared) if math.isinf(df) else fdtrc(r, df, squared / r)))


def _reach_of_family(corr: FloatArray) -> Reach:
    """Largest ``|a_i'u|`` over directions u, the rows of A with corr = A A', in narrow classes with their means."""
    values, vectors = np.linalg.eigh(corr)
    kept = values > 1e-10 * values[-1]
    A = vectors[:, kept] * np.sqrt(values[kept])
    r = int(kept.sum())
    if r == 1:
        return Reach(np.ones(1), np.ones(1), 1)
    u = _directions(r, FAMILY["circle" if r == 2 else "sphere"], FAMILY["seed"])
    largest = _largest_reach(A, u)
    if r == 2:
        return Reach(largest, np.full(len(largest), 1.0 / len(largest)), r)
    low, high = float(largest.min()), float(largest.max())
    place = np.minimum((largest - low) * (CLASSES / max(high - low, 1e-300)), CLASSES - 1).astype(np.intp)
    size = np.bincount(place, minlength=CLASSES)
    sums, used = np.bincount(place, largest, minlength=CLASSES), size > 0
    return Reach(sums[used] / size[used], size[used] / len(largest), r)


def _largest_reach(A: FloatArray, directions: FloatArray) -> FloatArray:
    step = max(1, VALUES // directions.shape[1])
    largest = np.zeros(directions.shape[1])
    for start in range(0, len(A), step):
        largest = np.maximum(largest, np.abs(A[start : start + step] @ directions).max(axis=0))
    return largest


@lru_cache(maxsize=8)
def _directions(r: int, log2: int, seed: int) -> FloatArray:
    """Unit vectors (r, 2^log2): half a circle, or quasi-random on the sphere and always the same for a seed."""
    if r == 2:
        angle = (np.arange(2**log2) + 0.5) * np.pi / 2**log2
        return np.stack([np.cos(angle), np.sin(angle)])
    points = qmc.Sobol(r, scramble=True, rng=seed).random_base2(log2)
    u = ndtri(np.clip(points, 1e-16, 1.0 - 1e-16)).T
    return np.asarray(u / np.sqrt(np.sum(u**2, axis=0)))


def mixture_quantile(m: FloatArray, s: FloatArray, p: float) -> float:
    """Quantile of the mixture, with equal weights, of N(m, s²); NaN where a component is not known."""
    if not (np.isfinite(m).all() and np.isfinite(s).all()):
        return np.nan
    s = np.maximum(s, 1e-10 * (np.abs(m).max() + s.max() + 1e-300))
    q = float(norm.ppf(p))
    # The quantile lies between the smallest and the largest of the components' own.
    low, high = float((m + q * s).min()), float((m + q * s).max())
    if high - low <= 1e-14 * max(abs(low), abs(high)):
        return low
    return float(brentq(lambda x: norm.cdf((x - m) / s).mean() - p, low, high, xtol=1e-13, rtol=1e-12))


def mixture_quantiles(
    mean: FloatArray, sd: FloatArray, weight: FloatArray, probabilities: tuple[float, ...], tolerance: float = 1e-9
) -> FloatArray:
    """Quantiles of mixtures of normal distributions: columns (S, m) of means and SDs, weights (S,) -> (len, m).

    Newton's method, kept inside a bracket by bisection; the tolerance is relative to the spread of the mixture.
    """
    centre = weight @ mean
    spread = np.sqrt(weight @ (sd**2 + (mean - centre) ** 2))
    out = np.empty((len(probabilities), mean.shape[1]))
    for i, p in enumerate(probabilities):
        # Cantelli: no quantile lies further from the mean than this many standard deviations.
        reach = np.sqrt(max(p / (1 - p), (1 - p) / p)) * spread
        lower, upper = centre - reach, centre + reach
        x = centre + np.sign(p - 0.5) * np.minimum(2.0 * spread, reach)
        for _ in range(100):
            with np.errstate(divide="ignore", invalid="ignore"):
                z = np.where(sd > 0, (x - mean) / sd, np.where(x >= mean, np.inf, -np.inf))
                density = weight @ np.where(sd > 0, np.exp(-0.5 * z**2) / (sd * np.sqrt(2 * np.pi)), 0.0)
                excess = weight @ ndtr(z) - p
                lower, upper = np.where(excess < 0, x, lower), np.where(excess < 0, upper, x)
                step = x - excess / density
            middle = 0.5 * (lower + upper)
            new = np.where((step > lower) & (step < upper), step, middle)
            done = np.all(np.abs(new - x) <= tolerance * spread)
            x = new
            if done:
                break
        out[i] = x
    return out
