"""Partial correlations, which move freely between -1 and 1, and the correlation matrices that they stand for.

Canonical partial correlations c_ij, j < i, give the Cholesky factor of a correlation matrix row by row (Lewandowski,
Kurowicka & Joe 2009):

    L[i, j] = c_ij Π_{k<j} √(1 - c_ik²),     L[i, i] = Π_{k<i} √(1 - c_ik²)

Partial autocorrelations π_m give autocorrelations by the Durbin-Levinson recursion (Barndorff-Nielsen & Schou 1973):

    ρ_m = π_m (1 - Σ φ_j ρ_j) + Σ φ_j ρ_{m-j},   φ the coefficients of order m - 1

`factor_of_partials` is for arrays of matrices, `factor_row` and `autocorrelations` are for compiled code, too. The one
other form is that of PyTensor, in `hierlmm.bayes.explicit`.

References
----------
Barndorff-Nielsen, O., Schou, G. (1973). On the parametrization of autoregressive models by partial autocorrelations.
J. Multivariate Anal. 3, 408-419.
Lewandowski, D., Kurowicka, D., Joe, H. (2009). J. Multivariate Anal. 100, 1989-2001.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled


def products_before(rest: FloatArray) -> FloatArray:
    """``Π_{k<j} rest[..., i, k]`` for every i and j: (..., m, m) -> (..., m, m)."""
    before = np.ones_like(rest)
    before[..., 1:] = np.cumprod(rest[..., :-1], axis=-1)
    return before


def factor_of_partials(P: FloatArray, rest: FloatArray | None = None) -> FloatArray:
    """Cholesky factors of correlation matrices from canonical partial correlations: (..., m, m).

    Parameters
    ----------
    P : (..., m, m)
        Partial correlations below the diagonal, zero elsewhere.
    rest : (..., m, m), optional
        ``√(1 - P²)``, where it is known without cancellation.
    """
    rest = np.sqrt(1.0 - P**2) if rest is None else rest
    return np.tril((P + np.eye(P.shape[-1])) * products_before(rest))


def partials_of_correlation(R: FloatArray) -> FloatArray:
    """Canonical partial correlations (m, m, below the diagonal) of a positive definite correlation matrix."""
    L = np.linalg.cholesky(R)
    P = np.zeros_like(L)
    for i in range(1, len(L)):
        rest = 1.0
        for j in range(i):
            P[i, j] = L[i, j] / rest
            rest *= np.sqrt(max(1.0 - P[i, j] ** 2, 1e-12))
    return np.clip(P, -0.98, 0.98)


@compiled()
def factor_row(c: FloatArray, rest: FloatArray, row: FloatArray) -> None:
    """Write a row (n + 1,) of a Cholesky factor, from its partial correlations and their ``√(1 - c²)``: (n,)."""
    left = 1.0
    for j in range(len(c)):
        row[j] = c[j] * left
        left *= rest[j]
    row[len(c)] = left


@compiled()
def autocorrelations(partial: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Autocorrelations (k + 1,) of partial autocorrelations (k,), and their derivatives (k, k + 1)."""
    k = len(partial)
    rho, slopes = np.zeros(k + 1), np.zeros((k, k + 1))
    rho[0] = 1.0
    phi, d_phi = np.zeros(k), np.zeros((k, k))
    new, d_new = np.zeros(k), np.zeros((k, k))
    for m in range(1, k + 1):
        p = partial[m - 1]
        rest, ahead = 1.0, 0.0
        for j in range(m - 1):
            rest -= phi[j] * rho[j + 1]
            ahead += phi[j] * rho[m - 1 - j]
        rho[m] = p * rest + ahead
        for a in range(k):
            d_rest, d_ahead = 0.0, 0.0
            for j in range(m - 1):
                d_rest -= d_phi[a, j] * rho[j + 1] + phi[j] * slopes[a, j + 1]
                d_ahead += d_phi[a, j] * rho[m - 1 - j] + phi[j] * slopes[a, m - 1 - j]
            slopes[a, m] = p * d_rest + d_ahead
        slopes[m - 1, m] += rest
        for j in range(m - 1):
            new[j] = phi[j] - p * phi[m - 2 - j]
            for a in range(k):
                d_new[a, j] = d_phi[a, j] - p * d_phi[a, m - 2 - j]
            d_new[m - 1, j] -= phi[m - 2 - j]
        phi[: m - 1] = new[: m - 1]
        d_phi[:, : m - 1] = d_new[:, : m - 1]
        phi[m - 1] = p
        d_phi[m - 1, m - 1] = 1.0
    return rho, slopes
