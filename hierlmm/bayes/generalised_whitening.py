"""How the random effects of several grouping factors are whitened: what `joint_factors` reads, from a Laplace fit.

With working weights ω at the fit and X⁺ = [X, Z_k of all factors but the first], the rows say of (β, b_k), the first
factor integrated out,

    S = X⁺'ΩX⁺ − M'Λ(I + Λ'AΛ)⁻¹Λ'M,      M = Z'ΩX⁺,      A = Z'ΩZ,

of which A_kj are blocks on the diagonal. In the coordinates (β, v), where the effects are ΛL⁻ᵀv, the curvature of the
log posterior is ``Q = T'ST + prior``, and R with ``RR' = Q⁻¹`` makes them uncorrelated there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from hierlmm.arrays import FloatArray
from hierlmm.bayes.joint_factors import PLAN, Others, packed_others, unpack_others
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.likelihood.generalised_criterion import GeneralisedRows, generalised_rows

MOST = 2_000
"""Coefficients, and random effects of all factors but the first, that one dense matrix is made for."""


def elimination(design: Design) -> list[int]:
    """Factors in the order of elimination: that with the most random effects first."""
    return sorted(range(len(design.random)), key=lambda k: -effects_of(design, k))


def effects_of(design: Design, k: int) -> int:
    """Number of random effects of a factor."""
    return design.random[k].Z.shape[1] * len(design.random[k].group.labels)


def why_not_whitened(design: Design) -> str | None:
    """Say why the compiled density is not made for a design with several factors, or return None if it is."""
    dense = len(design.coef) + sum(effects_of(design, k) for k in elimination(design)[1:])
    if dense <= MOST:
        return None
    return f"the compiled density has a matrix of {dense:,} columns, and is made for up to {MOST:,}"


def rows_and_others(design: Design) -> tuple[GeneralisedRows, slice, FloatArray, int]:
    """Rows by the groups that are eliminated first; their columns of Z; room for the other factors; effects of these.

    Subjects are eliminated where there is one factor, and there are no others.
    """
    if not design.has_several_factors:
        return generalised_rows(design), slice(None), np.empty(0), 0
    home, *others = elimination(design)
    rows = generalised_rows(design, design.random[home].group)
    plan, at = np.zeros((len(others), PLAN), dtype=np.int64), np.zeros(3, dtype=np.int64)
    for own, k in zip(plan, others[::-1], strict=True):
        J, q = len(design.random[k].group.labels), design.random[k].Z.shape[1]
        own[:] = q, J, own_part(design, k)[0].start, *at
        at += q, J * q, J * q * q
    group = np.array([design.random[k].group.index[rows.order] for k in others[::-1]])
    Z = np.concatenate([rows.Z[:, own_part(design, k)[0]] for k in others[::-1]], axis=1)
    p, (_, r, n) = len(design.coef), (int(a) for a in at)
    first = own_part(design, home)[0]
    found = Others(plan, group, Z, np.zeros(n), np.zeros(r), np.zeros(p), np.zeros((p + r, p + r)), first.start)
    return rows, first, packed_others(found), r


def whiten_others(
    design: Design, data: Any, Lambda: FloatArray, beta: FloatArray, modes: Mapping[int, FloatArray], slope: FloatArray
) -> None:
    """Write what is fixed before sampling, from a Laplace fit.

    Parameters
    ----------
    design : Design
    data : Joint
        With weights ω, A of the first factor, and the prior precision of β as P.
    Lambda : (q, q)
    beta : (p,)
    modes : mapping of int to (J, q, 1)
        Random effects by factor, in working columns.
    slope : (N,)
        Derivatives l' of the rows.
    """
    from scipy.sparse import block_diag, csr_array, hstack

    home, *rest = elimination(design)
    others, p = rest[::-1], len(beta)
    found = unpack_others(data.others, len(slope), p, sum(effects_of(design, k) for k in others))
    index = np.repeat(np.arange(len(data.start) - 1), np.diff(data.start.astype(np.int64)))
    first = _columns(data.Z, index, len(data.A))
    places = [slice(own[3], own[3] + own[0]) for own in found.plan]
    Zs = [_columns(found.Z[:, at], g, own[1]) for own, at, g in zip(found.plan, places, found.group, strict=True)]
    whole = hstack([csr_array(data.X), *Zs], format="csr")
    weighted = whole * data.weight[:, None]
    M, own = first.T @ weighted, Lambda[own_part(design, home)]
    H = np.eye(len(own)) + own.T @ data.A @ own
    S = (whole.T @ weighted - M.T @ (_blocks(own @ np.linalg.solve(H, own.T)) @ M)).toarray()
    wide, prior = [csr_array(np.eye(p))] if p else [], [csr_array(data.P)] if p else []
    for (q, J, _, _, lo, begin), k, Z in zip(found.plan, others, Zs, strict=True):
        at = p + lo + np.arange(J * q).reshape(J, q)
        A, own = S[at[:, :, None], at[:, None, :]], Lambda[own_part(design, k)]
        inverse = np.linalg.inv(np.linalg.cholesky(np.eye(q) + own.T @ A @ own))
        found.A[begin : begin + J * q * q] = A.ravel()
        found.c[lo : lo + J * q] = np.ravel(A @ modes[k]) + Z.T @ slope
        wide.append(_blocks(own @ np.swapaxes(inverse, 1, 2)))
        prior.append(_blocks(inverse @ np.swapaxes(inverse, 1, 2)))
    T = block_diag(wide, format="csr")
    Q = T.T @ (S @ T.toarray()) + block_diag(prior, format="csr").toarray()
    root = np.linalg.cholesky(Q)
    found.R[:] = solve_triangular(root, np.eye(len(root)), lower=True).T
    found.beta[:] = beta


def _columns(Z: FloatArray, index: Any, J: int) -> Any:
    """Columns of every group, (N, J q), from those of the rows (N, q)."""
    from scipy.sparse import csr_array

    N, q = Z.shape
    at = index[:, None] * q + np.arange(q)
    return csr_array((Z.ravel(), at.ravel(), np.arange(0, N * q + 1, q)), shape=(N, J * q))


def _blocks(values: FloatArray) -> Any:
    """Block-diagonal matrix of (J, q, q)."""
    from scipy.sparse import bsr_array

    J, q, _ = values.shape
    return bsr_array((values, np.arange(J), np.arange(J + 1)), shape=(J * q, J * q)).tocsr()
