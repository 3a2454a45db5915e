"""The null distribution of the likelihood ratio for one variance, exactly: independent residuals, any sample size.

For ``y = Xβ + Zb + e``, ``b ~ N(0, λσ² I_K)``, and λ = 0 (Crainiceanu & Ruppert 2004), with the eigenvalues μ of Z'P₀Z,
``P₀ = I − X(X'X)⁻¹X'``, the eigenvalues ξ of Z'Z, and independent standard normal w,

    RLRT = sup_λ≥0 [ (n − p) log(W / (W − N(λ))) − Σ log(1 + λμ_s) ],    W = Σ_{s ≤ n−p} w_s²,
    LRT  = sup_λ≥0 [  n      log(W / (W − N(λ))) − Σ log(1 + λξ_s) ],    N(λ) = Σ_s λμ_s/(1 + λμ_s) w_s².

Equal eigenvalues are one χ² variable, so that a balanced study needs two of them a draw. The supremum is sought on a
grid of λ and refined by a parabola.

References
----------
Crainiceanu, C. M., Ruppert, D. (2004). Likelihood ratio tests in linear mixed models with one variance component.
Journal of the Royal Statistical Society B 66, 165-185.

Scheipl, F., Greven, S., Küchenhoff, H. (2008). Size and power of tests for a zero random effect variance or polynomial
regression in additive and linear mixed models. Computational Statistics & Data Analysis 52, 3283-3299.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design

DRAWS = 100_000
GRID = np.concatenate([[0.0], np.logspace(-4.0, 4.0, 90)])
"""λ times the mean eigenvalue."""
ALIKE = 1e-8
"""Eigenvalues that differ by less, relative to the largest, are one."""
MOST_EFFECTS = 3000
"""Random effects beyond which the eigenvalues take too long, and there are enough subjects for a mixture of χ²."""
AT_ONCE = 4_000_000
"""Numbers that are held at a time."""


class Spectrum(NamedTuple):
    """Distinct eigenvalues μ of Z'P₀Z other than zero with their multiplicities, ξ of Z'Z the same way, n and p."""

    mu: FloatArray
    times: FloatArray
    xi: FloatArray
    xi_times: FloatArray
    n: int
    p: int


def spectrum(design: Design) -> Spectrum:
    """Eigenvalues of a design with one variance: its random effects are independent and alike."""
    J, q = design.n_subjects, design.Z.shape[1]
    A = np.zeros((J, q, q))
    np.add.at(A, design.subject_index, design.Z[:, :, None] * design.Z[:, None, :])
    basis = np.linalg.qr(design.X / np.maximum(np.linalg.norm(design.X, axis=0), 1e-300))[0]
    cross = np.zeros((J, q, basis.shape[1]))
    np.add.at(cross, design.subject_index, design.Z[:, :, None] * basis[:, None, :])
    full = -np.einsum("iac,jbc->iajb", cross, cross)
    index = np.arange(J)
    full[index, :, index, :] += A
    mu = np.linalg.eigvalsh(full.reshape(J * q, J * q))
    xi = np.linalg.eigvalsh(A).ravel()
    return Spectrum(*_distinct(mu), *_distinct(xi), design.n_obs, len(design.coef))


def _distinct(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distinct values other than zero, and how often each is there."""
    values = np.sort(values[values > ALIKE * values.max()])
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) > ALIKE * values[-1]]))
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(values, starts) / counts, counts.astype(np.float64)


def null_draws(of: Spectrum, *, reml: bool, draws: int = DRAWS, seed: int | None = None) -> FloatArray:
    """Draws of the statistic under a variance of zero.

    Parameters
    ----------
    of : Spectrum
    reml : bool
        Of the restricted likelihood ratio, or of the full one.
    draws : int
    seed : int, optional

    Returns
    -------
    (draws,)
        Zero where the estimate of the variance is zero.
    """
    rng = np.random.default_rng(seed)
    lam = GRID / np.average(of.mu, weights=of.times)
    share = lam * of.mu[:, None] / (1.0 + lam * of.mu[:, None])
    values, times = (of.mu, of.times) if reml else (of.xi, of.xi_times)
    cost = times @ np.log1p(lam * values[:, None])
    size, rest = of.n - of.p if reml else of.n, of.n - of.p - int(of.times.sum())
    step = max(1, AT_ONCE // max(len(of.mu), len(lam)))
    found = [_suprema(rng, of.times, rest, share, cost, size, min(step, draws - at)) for at in range(0, draws, step)]
    return np.concatenate(found)


def _suprema(
    rng: np.random.Generator, times: FloatArray, rest: int, share: FloatArray, cost: FloatArray, size: int, n: int
) -> FloatArray:
    """Suprema over the grid of λ of n draws."""
    single = np.all(times == 1.0)
    w = rng.standard_normal((n, len(times))) ** 2 if single else rng.chisquare(times, (n, len(times)))
    total = w.sum(axis=1) + (rng.chisquare(rest, n) if rest > 0 else 0.0)
    value = -size * np.log1p(-(w @ share) / total[:, None]) - cost
    at = np.argmax(value, axis=1)
    inner = np.clip(at, 2, value.shape[1] - 2)  # points that are evenly spaced in log λ
    rows = np.arange(n)
    low, mid, high = (value[rows, inner + k] for k in (-1, 0, 1))
    bend = low - 2.0 * mid + high
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = mid - (low - high) ** 2 / (8.0 * bend)
    refined = (inner == at) & (bend < 0.0)
    best = value[rows, at]
    return np.where(refined, np.maximum(best, peak), best)


def exact_p(statistic: float, draws: FloatArray) -> tuple[float, float]:
    """Probability of a statistic as large, ``(1 + #{T* >= T}) / (m + 1)``, and its Monte-Carlo standard error."""
    m = len(draws)
    p = (1.0 + float(np.sum(draws >= statistic - 1e-9))) / (m + 1.0)
    return p, float(np.sqrt(p * (1.0 - p) / m))
