r"""Log density of the rows of a group given all other rows, with several grouping factors: nothing is fitted again.

Given β and θ the response is normal, and so are the rows of group g given all others,

    log p(y_g | y_-g) = ½ (log|P| − n log 2π − e'P⁻¹e),     P = (V⁻¹)_gg,     e = (V⁻¹r)_g,     r = y − Xβ

(Bürkner, Gabry & Vehtari 2021). With V = σ²(I + ZΛΛ'Z') and the conditional covariance of all random effects
Π = Λ(I + Λ'Z'ZΛ)⁻¹Λ' over σ²,

    σ² P = I − Z_g Π Z_g',     σ² e = r_g − Z_g ΠZ'r,

which ask for the effects that the rows of the group have, and for no matrix of all rows. A group that shares nothing is
the case in which P is V_g⁻¹. Groups of the factor with the most of them share no rows, so that all others are what a
dense matrix is made of: with F the effects of that factor and R those of the others,

    K = Λ_F(I + Λ_F'C_FF Λ_F)⁻¹Λ_F',  G = −K C_FR,  Π_RR = Λ_R(I + Λ_R'(C_RR + C_RF G)Λ_R)⁻¹Λ_R',
    Π = [K 0; 0 0] + [G; I] Π_RR [G; I]',      C = Z'Z.

Hence σ² P = B − hh' with h = Z_g [G; I] Π_RR^½ and B = I − Z_g [K 0; 0 0] Z_g', of a block for each group of F: a
group whose rows lie in hundreds of these costs a matrix of the size of R.

References
----------
Bürkner, P.-C., Gabry, J., Vehtari, A. (2021). Efficient leave-one-out cross-validation for Bayesian non-factorized
normal and Student-t models. Computational Statistics 36, 1243-1261.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.design.formula import MULTILEVEL
from hierlmm.design.questions import rows_of_subject
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.by_subject import covariance_root

MOST_WORK = 2e12
"""Multiplications of all draws: about ten minutes."""
PIECE = 4_000_000
"""Numbers of the matrices (32 MB) that are made at a time."""


@dataclass(frozen=True)
class _Unit:
    """Rows of one unit: Z (n, T), sparse, with the effects of the finest factor first.

    ``leaf`` is the group of each row in that factor, and there are ``J`` groups of ``q`` effects of each factor, which
    ``order`` names.
    """

    rows: IntArray
    Z: Any
    leaf: IntArray
    J: tuple[int, ...]
    q: tuple[int, ...]
    order: list[int]

    @property
    def fine(self) -> int:
        """Effects of the finest factor."""
        return self.J[0] * self.q[0]

    @cached_property
    def products(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Z'Z: blocks of the groups of the finest factor (J, q, q), and what they share with the others, and these."""
        C, F, q = (self.Z.T @ self.Z).tocsr(), self.fine, self.q[0]
        own = np.empty((self.J[0], q, q))
        for a, b in np.ndindex(q, q):
            own[:, a, b] = C[a:F:q, b:F:q].diagonal()
        return own, C[:F, F:].toarray(), C[F:, F:].toarray()

    def conditional(self, c: FloatArray, roots: Sequence[FloatArray]) -> _Conditional:
        """The distribution of all effects given the response, σ = 1, from Z'r (S, T) and Λ of each factor (S, q, q)."""
        (own, across, rest), S, F, q = self.products, len(c), self.fine, self.q[0]
        root, back = roots[0][:, None], roots[0].swapaxes(1, 2)[:, None]
        K = root @ np.linalg.solve(np.eye(q) + back @ own @ root, np.broadcast_to(back, (S, *own.shape)))
        G = -(K @ across.reshape(*own.shape[:2], -1)).reshape(S, F, -1)
        turned = [own.swapaxes(1, 2) for own in roots]
        M = self._times(turned, self._times(turned, rest + across.T @ G).swapaxes(1, 2))
        N = self._times(roots, np.linalg.inv(np.linalg.cholesky(np.eye(len(rest)) + M)).swapaxes(1, 2))
        H = np.concatenate([G @ N, N], axis=1)
        mean = (H @ (H.swapaxes(1, 2) @ c[..., None]))[..., 0]
        mean[:, :F] += (K @ c[:, :F].reshape(S, -1, q, 1)).reshape(S, F)
        return _Conditional(K, H, mean)

    def _times(self, roots: Sequence[FloatArray], values: FloatArray) -> FloatArray:
        """(I ⊗ Λ) of all factors but the finest, times values (S, effects, m)."""
        found, at = np.empty_like(values), 0
        for J, q, root in zip(self.J[1:], self.q[1:], roots[1:], strict=True):
            part = values[:, at : at + J * q].reshape(len(values), J, q, -1)
            found[:, at : at + J * q] = (root[:, None] @ part).reshape(len(values), J * q, -1)
            at += J * q
        return found


class _Conditional(NamedTuple):
    """K (S, J, q, q), H = [G; I] times a root of Π_RR (S, T, R), and the mean ΠZ'r (S, T)."""

    K: FloatArray
    H: FloatArray
    mean: FloatArray


def left_out_loglik(
    design: Design, index: IntArray, groups: IntArray, beta: FloatArray, D: FloatArray, sigma: FloatArray
) -> FloatArray:
    """Log density of the rows of some groups given all other rows, at every draw: (S, groups).

    Parameters
    ----------
    design : Design
    index : (N,)
        Group of every row: those of a factor, or rows by themselves.
    groups : (G,)
        Which of them.
    beta : (S, p)
    D : (S, q, q)
        Of all factors, block diagonal.
    sigma : (S,)
    """
    found = np.empty((len(sigma), len(groups)))
    place = {int(g): i for i, g in enumerate(groups)}
    for at in np.unique(design.subject_index[np.isin(index, groups)]):
        unit = _unit(design, int(at))
        own = index[unit.rows]
        members = {place[g]: np.flatnonzero(own == g) for g in np.unique(own).tolist() if g in place}
        n, T = unit.Z.shape
        step = max(1, PIECE // (n + T * (1 + T - unit.fine)))
        for lo in range(0, len(sigma), step):
            s = slice(lo, lo + step)
            r = design.y[unit.rows] - design.offset[unit.rows] - beta[s] @ design.X[unit.rows].T
            roots = [covariance_root(D[(s, *own_part(design, m))]) / sigma[s, None, None] for m in unit.order]
            given = unit.conditional((unit.Z.T @ r.T).T, roots)
            for g, rows in members.items():
                log_det, squares = _given_others(unit, given, rows, r[:, rows])
                normal = len(rows) * np.log(2.0 * np.pi * sigma[s] ** 2)
                found[s, g] = 0.5 * (log_det - normal - squares / sigma[s] ** 2)
    return found


def _given_others(unit: _Unit, given: _Conditional, rows: IntArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """log|σ²P| and e'P⁻¹e/σ² of some rows with residuals r (S, n), each (S,).

    σ²P = B − hh' with h = Z_g H, and B = I − Z_g [K 0; 0 0] Z_g', a block for each group of the finest factor.
    """
    F, q, leaf = unit.fine, unit.q[0], unit.leaf[rows]
    log_det, squares = np.zeros(len(r)), np.zeros(len(r))
    parts: list[FloatArray] = []
    for j in np.unique(leaf):
        Z, x = unit.Z[rows[leaf == j]], r[:, leaf == j]
        has = np.unique(Z.indices)
        Z = Z[:, has].toarray()
        if len(Z) > len(has):  # an orthogonal transformation of the rows, most of which then have no random effects
            Q, Z = np.linalg.qr(Z)
            seen = x @ Q
            squares += np.sum((x - seen @ Q.T) ** 2, axis=1)
            x = seen
        own, at = Z[:, has < F], has[has < F] - j * q
        L = np.linalg.cholesky(np.eye(len(Z)) - own @ given.K[:, j][:, at[:, None], at] @ own.T)
        log_det += _log_det(L)
        e = (x - given.mean[:, has] @ Z.T)[..., None]
        parts.append(np.linalg.solve(L, np.concatenate([e, Z @ given.H[:, has]], axis=2)))
    whole = np.concatenate(parts, axis=1)
    e, h = whole[..., :1], whole[..., 1:]
    turned = h.swapaxes(1, 2)
    if h.shape[1] > h.shape[2]:  # the determinant and the inverse of I − hh' by those of I − h'h
        squares += np.sum(e**2, axis=(1, 2))
        e, h, turned = turned @ e, turned, h
    L = np.linalg.cholesky(np.eye(h.shape[1]) - h @ turned)
    return log_det + _log_det(L), squares + np.sum(np.linalg.solve(L, e) ** 2, axis=(1, 2))


def _log_det(L: FloatArray) -> FloatArray:
    """Of matrices with Cholesky factors L (S, n, n)."""
    return np.asarray(2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1))


def _unit(design: Design, at: int) -> _Unit:
    """Rows of a unit, and the effects that they have."""
    from scipy.sparse import coo_array

    rows, order = rows_of_subject(design, at), _finest_first(design)
    Z, columns, groups, J, q, first = [], [], [], [], [], 0
    for term in (design.random[k] for k in order):
        present, index = np.unique(term.group.index[rows], return_inverse=True)
        J.append(len(present))
        q.append(term.Z.shape[1])
        Z.append(term.Z[rows])
        groups.append(index)
        columns.append(first + index[:, None] * q[-1] + np.arange(q[-1]))
        first += J[-1] * q[-1]
    values, column = np.hstack(Z), np.hstack(columns)
    row = np.broadcast_to(np.arange(len(rows))[:, None], column.shape)
    found = coo_array((values.ravel(), (row.ravel(), column.ravel())), shape=(len(rows), first)).tocsr()
    return _Unit(rows, found, groups[0], tuple(J), tuple(q), order)


def _finest_first(design: Design) -> list[int]:
    return sorted(range(len(design.random)), key=lambda k: -len(design.random[k].group.labels))


def refuse_too_much(design: Design, index: IntArray, unit: str, draws: int) -> None:
    """Refuse to leave out each group in turn where it would take hours.

    Parameters
    ----------
    design : Design
    index : (N,)
        As for `left_out_loglik`.
    unit : str
        What the groups are called.
    draws : int

    Raises
    ------
    NotAvailableError
    """
    order, finest = _finest_first(design), design.random[_finest_first(design)[0]].group
    pair, of_pair = np.unique(index.astype(np.int64) * len(finest.labels) + finest.index, return_inverse=True)
    of_unit = np.zeros(len(pair), dtype=np.intp)
    of_unit[of_pair] = design.subject_index
    fine, *others = (_touched(design, k, design.subject_index, design.n_subjects) for k in order)
    rest, near = np.sum(others, axis=0), np.sum([_touched(design, k, of_pair, len(pair)) for k in order], axis=0)
    size = np.minimum(near, np.bincount(of_pair))
    work = np.sum((fine + rest) * rest**2) + np.sum(size * (near * rest[of_unit] + rest[of_unit] ** 2 + size**2))
    if draws * work > MOST_WORK:
        received = f"leaving out one {unit} at a time, at {draws:,} draws"
        reason = f"up to {int(np.max(rest)):,} random effects that groups share are taken apart at every draw: hours"
        remedy = "use unit='observation', a factor whose groups have fewer rows, or fewer draws"
        if unit == "observation":
            remedy = "use az.loo(fit.log_likelihood()), rows given draws of the random effects, or fewer draws"
        raise NotAvailableError(received, reason, remedy, MULTILEVEL)


def _touched(design: Design, m: int, index: IntArray, n: int) -> FloatArray:
    """Random effects of factor m that the rows of each of n groups have, (n,)."""
    group, q = design.random[m].group, design.random[m].Z.shape[1]
    pairs = np.unique(index.astype(np.int64) * len(group.labels) + group.index) // len(group.labels)
    return np.bincount(pairs, minlength=n).astype(np.float64) * q
