"""The marginal log-likelihood of one unit with several grouping factors: rows that share no group with any others."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.design.formula import MULTILEVEL
from hierlmm.design.questions import rows_of_subject
from hierlmm.errors import NotAvailableError

MOST_WORK = 2e12
"""Multiplications of all draws of one unit: about ten minutes."""
PIECE = 4_000_000
"""Numbers of the covariance matrices (32 MB) that are made at a time."""


def unit_loglik(design: Design, unit: int, beta: FloatArray, D: FloatArray, sigma: FloatArray) -> FloatArray:
    """Log density of the rows of one unit at every draw, the random effects of all factors integrated out: (S,).

    Parameters
    ----------
    design : Design
    unit : int
        Position among ``design.subjects``.
    beta : (S, p)
    D : (S, q, q)
        Of all factors, block diagonal.
    sigma : (S,)

    Raises
    ------
    NotAvailableError
        If the unit has so many rows that it would take hours.
    """
    rows = rows_of_subject(design, unit)
    n, S = len(rows), len(sigma)
    if S * n**3 / 3 > MOST_WORK:
        received = f"the log-likelihood of {design.subjects[unit]!r}, {n:,} rows, at {S:,} draws"
        reason = "it takes the covariance matrix of all these rows at every draw"
        raise NotAvailableError(received, reason, "use unit='observation', or fewer draws", MULTILEVEL)
    rest = design.y[rows] - design.offset[rows] - beta @ design.X[rows].T
    value, step = np.empty(S), max(1, PIECE // n**2)
    for lo in range(0, S, step):
        own = slice(lo, lo + step)
        V = (sigma[own] ** 2)[:, None, None] * np.eye(n)
        for k, term in enumerate(design.random):
            Z, group = term.Z[rows], term.group.index[rows]
            block = D[(own, *own_part(design, k))]
            V += np.where(group[:, None] == group, Z @ block @ Z.T, 0.0)
        L = np.linalg.cholesky(V)
        z = np.linalg.solve(L, rest[own, :, None])[..., 0]
        log_det = 2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
        value[own] = -0.5 * (n * np.log(2.0 * np.pi) + log_det + np.einsum("si,si->s", z, z))
    return value
