"""The linear mixed model as textbooks write it, with V as a dense N × N matrix: oracle and lecture.

Everything that the package computes by subject, in factors and without V, stands here once by its definition. Read from
top to bottom it is the theory; the tests hold the kernels against it.

    y = Xβ + Zb + ε,   b_i ~ N(0, D),   ε_i ~ N(0, σ² Σ_i),   all independent between subjects          (1)

    y ~ N(Xβ, V),   V_i = Z_i D Z_i' + σ² Σ_i                                                            (2)
"""

import numpy as np


def marginal_covariance(design, D, sigma, residual=None):
    """(2): V of all rows, zero between subjects; Σ is I unless ``residual`` (N, N) is given."""
    same = design.subject_index[:, None] == design.subject_index[None, :]
    residual = np.eye(design.n_obs) if residual is None else residual
    return np.where(same, design.Z @ D @ design.Z.T + sigma**2 * residual, 0.0)


def residual_blocks(design, structure):
    """Σ of all rows from a fitted structure, which gives Σ_i of the rows of a subject; I where there is none."""
    residual = np.eye(design.n_obs)
    for j in range(design.n_subjects if structure is not None else 0):
        rows = np.flatnonzero(design.subject_index == j)
        residual[np.ix_(rows, rows)] = structure.covariance(design.frame.iloc[rows])
    return residual


def generalised_least_squares(X, y, V):
    """Estimate of β at a given V, its covariance, and V⁻¹.

    β̂ = (X'V⁻¹X)⁻¹ X'V⁻¹y                                                                                (3)
    Cov(β̂) = (X'V⁻¹X)⁻¹                                                                                  (4)
    """
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    return np.linalg.solve(information, X.T @ inverse @ y), np.linalg.inv(information), inverse


def deviance(X, r, V, reml):
    """-2 log-likelihood at V and at the residuals r = y - Xβ of any β.

    ML:    N log 2π + log|V| + r'V⁻¹r                                                                    (5)
    REML:  (N - p) log 2π + log|V| + r'V⁻¹r + log|X'V⁻¹X|                                                (6)
    """
    inverse = np.linalg.inv(V)
    value = len(r) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ inverse @ r
    if reml:
        value += np.linalg.slogdet(X.T @ inverse @ X)[1] - X.shape[1] * np.log(2 * np.pi)
    return value


def projection(X, V):
    """P = V⁻¹ - V⁻¹X (X'V⁻¹X)⁻¹ X'V⁻¹: P y = V⁻¹(y - Xβ̂), and Cov(P y) = P.                            (7)"""
    inverse = np.linalg.inv(V)
    return inverse - inverse @ X @ np.linalg.inv(X.T @ inverse @ X) @ X.T @ inverse


def random_effects(design, D, r, inverse):
    """Best predictions of b by subject and the covariance of b given y, at known β.

    E(b_i | y) = D Z_i' V_i⁻¹ r_i                                                                        (8)
    Var(b_i | y) = D - D Z_i' V_i⁻¹ Z_i D                                                                (9)
    """
    mean, covariance = [], []
    for j in range(design.n_subjects):
        rows = design.subject_index == j
        gain = D @ design.Z[rows].T @ inverse[np.ix_(rows, rows)]
        mean.append(gain @ r[rows])
        covariance.append(D - gain @ design.Z[rows] @ D)
    return np.array(mean), np.array(covariance)


def mixed_model_equations(design, D, R):
    """Henderson's equations for (β̂, b̂), of all subjects together; the inverse of their matrix C is the covariance of
    (β̂ - β, b̂ - b).

    C = [[X'R⁻¹X, X'R⁻¹Z], [Z'R⁻¹X, Z'R⁻¹Z + I ⊗ D⁻¹]],   (β̂, b̂) = C⁻¹ [X'R⁻¹y, Z'R⁻¹y]               (10)
    """
    J, q, p = design.n_subjects, design.Z.shape[1], design.X.shape[1]
    Z = np.zeros((design.n_obs, J * q))
    for i, j in enumerate(design.subject_index):
        Z[i, j * q : (j + 1) * q] = design.Z[i]
    A = np.hstack([design.X, Z])
    weighted = np.linalg.solve(R, A)
    C = weighted.T @ A
    C[p:, p:] += np.kron(np.eye(J), np.linalg.inv(D))
    inverse = np.linalg.inv(C)
    return inverse @ (weighted.T @ (design.y - design.offset)), inverse, A


def dense_fit(design, D, sigma, reml, residual=None):
    """(6) or (5) at β̂, (3), (4), (8) and (9) at one D and σ."""
    V = marginal_covariance(design, D, sigma, residual)
    y = design.y - design.offset
    beta, covariance, inverse = generalised_least_squares(design.X, y, V)
    r = y - design.X @ beta
    return deviance(design.X, r, V, reml), beta, covariance, *random_effects(design, D, r, inverse)
