"""The criterion as textbooks write it, with V as a dense N × N matrix: oracle and lecture.

REML: -½ [ (N - p) log 2π + log|V| + log|X'V⁻¹X| + r'V⁻¹r ],  r = y - Xβ̂,  β̂ = (X'V⁻¹X)⁻¹ X'V⁻¹y.
"""

import numpy as np


def marginal_covariance(design, D, sigma, residual=None):
    """V (N, N): Z_i D Z_i' + σ² Σ_i within subjects, zero between them; Σ_i is I unless ``residual`` is given."""
    same = design.subject_index[:, None] == design.subject_index[None, :]
    residual = np.eye(design.n_obs) if residual is None else residual
    return np.where(same, design.Z @ D @ design.Z.T + sigma**2 * residual, 0.0)


def dense_fit(design, D, sigma, reml, residual=None):
    """-2 log-likelihood, β̂, its covariance, and the conditional means and covariances of b."""
    V = marginal_covariance(design, D, sigma, residual)
    X, y = design.X, design.y - design.offset
    Vinv = np.linalg.inv(V)
    information = X.T @ Vinv @ X
    beta = np.linalg.solve(information, X.T @ Vinv @ y)
    r = y - X @ beta
    value = design.n_obs * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ Vinv @ r
    if reml:
        value += np.linalg.slogdet(information)[1] - X.shape[1] * np.log(2 * np.pi)
    blup, covariance = [], []
    for j in range(design.n_subjects):
        rows = design.subject_index == j
        gain = D @ design.Z[rows].T @ Vinv[np.ix_(rows, rows)]
        blup.append(gain @ r[rows])
        covariance.append(D - gain @ design.Z[rows] @ D)
    return value, beta, np.linalg.inv(information), np.array(blup), np.array(covariance)
