"""Prior densities of the collapsed posterior, written down a second time."""

from __future__ import annotations

import numpy as np


def correlation_block(z, size):
    """Correlation matrix from Fisher's z of ρ_{ij; 0..j-1} by the recursion for partial correlations (any dtype)."""
    partial = {pair: np.tanh(v) for pair, v in zip(((i, j) for i in range(1, size) for j in range(i)), z, strict=True)}
    R = np.eye(size, dtype=np.asarray(z).dtype)
    for (i, j), value in partial.items():
        for k in reversed(range(j)):
            c, d = partial[i, k], partial[j, k]
            value = value * np.sqrt((1 - c**2) * (1 - d**2)) + c * d
        R[i, j] = R[j, i] = value
    return R


def natural(design, theta, y_scale):
    """Standard deviations, correlations, σ, and log|∂R/∂z|, from θ = (log sd, z block by block, log σ/s_y)."""
    q, common = len(design.term), design.covariance in ("identity", "compound_symmetry")
    own = design.n_own
    groups = q // max(own, 1)
    at = groups if common else q
    if design.covariance == "compound_symmetry":  # the logits of the places of r between -1/(own - 1) and 1
        u, width = 1.0 / (1.0 + np.exp(-theta[groups:-1])), own / (own - 1)
        corr = np.kron(np.diag(1.0 - width * (1.0 - u)), np.ones((own, own)))
        np.fill_diagonal(corr, 1.0)
        return np.exp(theta[:groups]).repeat(own), corr, np.exp(theta[-1]) * y_scale, np.log(width * u * (1 - u)).sum()
    sd = np.exp(theta[:groups].repeat(own) if common else theta[:q])
    corr, log_jacobian = np.eye(q), 0.0
    for block in design.blocks:
        size, m = len(block), len(block) * (len(block) - 1) // 2
        if m == 0:
            continue
        z, lower = theta[at : at + m], np.tril_indices(size, -1)
        corr[np.ix_(block, block)] = correlation_block(z, size)
        # Complex-step derivatives are exact to rounding.
        columns = [correlation_block(z + 1e-30j * e, size)[lower].imag / 1e-30 for e in np.eye(m)]
        log_jacobian += np.linalg.slogdet(np.column_stack(columns))[1]
        at += m
    assert at == len(theta) - 1
    return sd, corr, np.exp(theta[-1]) * y_scale, log_jacobian


def as_written(design, priors, D):
    """D of the effects as the formula writes them, from D where the priors are stated: lines at average covariates."""
    if not np.any(priors.random_center):
        return D
    B = np.linalg.lstsq(design.Z, centred_columns(design))[0]
    return B @ D @ B.T


def centred_columns(design):
    """Z with the covariates that correlate with an intercept less their averages over all rows, where it is theirs."""
    Z = design.Z.copy()
    for block in design.blocks:
        for k in [m for m in block if design.level1[design.term_level1[m]] == "Intercept"]:
            for m in [m for m in block if m != k]:
                Z[:, m] -= design.X1[:, design.term_level1[m]].mean() * design.Z[:, k]
    return Z


def prior_of_theta(design, priors, theta, y_scale):
    """Log prior density of θ: every prior on its natural scale, and the Jacobians."""
    sd, corr, sigma, log_jacobian = natural(design, theta, y_scale)
    total = float(priors.sigma.logpdf(sigma)) + np.log(sigma) + log_jacobian
    own = design.n_own
    for prior, value in list(zip(priors.sd_b, sd, strict=True))[:: own if priors.common_sd else None]:
        total += float(prior.logpdf(value)) + np.log(value)
    if priors.common_corr:
        total += sum(float(priors.corr_b.logpdf_equal(corr[k, k + 1], own)) for k in range(0, len(corr), own))
    elif priors.corr_b is not None:
        total += sum(float(priors.corr_b.logpdf(corr[np.ix_(b, b)])) for b in design.blocks if len(b) > 1)
    return total


def prior_of_beta(design, priors):
    """Mean and covariance of β, from independent normal priors at the centred design."""
    p, k = len(design.coef), design.intercept
    X, moved = design.X.copy(), np.any(priors.shift)
    for c in range(p) if moved else ():  # level-1 covariates centred, beside the same level-2 covariate
        a = design.coef_level1[c]
        if design.level1[a] != "Intercept":
            at_zero = [m for m in range(p) if design.level1[design.coef_level1[m]] == "Intercept" and m != k]
            same = [m for m in at_zero if np.array_equal(design.W[:, m], design.W[:, c])]
            if not same and np.all(design.W[:, at_zero].sum(axis=1) == design.W[:, c]):
                same = at_zero  # the indicators of all groups
            X[:, c] -= design.X1[:, a].mean() * design.X[:, same].sum(axis=1)
    if k is not None:
        X -= np.where(np.arange(p) == k, 0.0, X.mean(axis=0))
    T = np.linalg.lstsq(design.X, X)[0]
    mean, sd = np.array([f.mean for f in priors.beta]), np.array([f.sd for f in priors.beta])
    return T @ mean, (T * sd**2) @ T.T
