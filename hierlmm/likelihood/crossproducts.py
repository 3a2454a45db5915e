"""From a design to the few numbers that the likelihood needs.

The columns are first centred, where the constant is in the span of X, and scaled (raw sums of squares lose digits when
|mean| is much larger than sd; see `hierlmm.design.constant`):
``X = X̃ B_x`` with orthonormal-like X̃, ``Z = Z̃ B_z`` (triangular within a correlated block, diagonal otherwise, so
that the structure of D survives), ``y = ȳ + s ỹ``. Then per subject ``Z̃_i = U_i R_i``, ``C_i = U_i'[X̃_i, ỹ_i]``, and
the pooled remainder S_w. Subjects with equal R_i form a *design pattern*; within a pattern only ``Σ C_i[a]'C_i[b]``
matters, so more than q·P subjects are replaced by the q·P rows of a triangular factor with the same cross-products.
The cost of an evaluation then depends neither on the number of rows nor, on balanced data, on the number of subjects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.constant import centre_columns
from hierlmm.design.design import Design
from hierlmm.design.terms import RandomColumns
from hierlmm.errors import DataError
from hierlmm.groups import group_order, group_starts
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr

PATTERN_DIGITS = 1e-11


@dataclass(frozen=True)
class Scaling:
    """How the working columns relate to the user's: ``X = X̃ Bx``, ``Z = Z̃ Bz``, ``y = y_centre + y_scale ỹ``.

    ``shift`` (p,) is what ``y_centre`` adds to β: y_centre e where ``X e = 1``, or zero. ``log_det_x`` is log|det Bx|:
    what ``½ log|X'V⁻¹X|`` of the working columns lacks.
    """

    Bx: FloatArray
    Bz: FloatArray
    shift: FloatArray
    y_scale: float
    log_det_x: float

    def beta(self, working: FloatArray) -> FloatArray:
        """Fixed effects in the user's columns, from those of the working columns: (..., p) -> (..., p)."""
        return np.linalg.solve(self.Bx, (working * self.y_scale).T).T + self.shift  # see `factor`

    def beta_cov(self, working: FloatArray) -> FloatArray:
        """Covariance of β in the user's columns."""
        half = np.linalg.solve(self.Bx, working * self.y_scale**2)
        return np.linalg.solve(self.Bx, half.T).T

    def factor(self, Lambda: FloatArray) -> FloatArray:
        """Relative factor of D/σ² in the user's columns: ``Bz⁻¹ Λ`` (q, q)."""
        # Not solve_triangular: it wakes all threads of the BLAS, which costs milliseconds on a busy machine.
        return np.linalg.solve(self.Bz, Lambda)


@dataclass(frozen=True)
class CrossProducts:
    """Sufficient statistics of a Gaussian two-level model whose residuals are independent, or have been whitened.

    Attributes
    ----------
    R : (q, q, K), C : (q, P, K), weight : (K,)
        Rows of design patterns, as the kernel takes them.
    pattern : (J,)
        Which of the distinct within-subject designs each subject has.
    S_w : (P, P)
        Cross-products of ``[X̃, ỹ]`` outside the span of the subjects' Z.
    subject_R : (J, q, q), subject_C : (J, q, P)
        The same by subject, for the random effects.
    n_obs, n_fixed : int
    scaling : Scaling
    log_det : float
        log|Σ/σ²| of all rows: what whitening by a residual structure took out of log|V|; 0 where there is none.
    """

    R: FloatArray
    C: FloatArray
    weight: FloatArray
    pattern: IntArray
    S_w: FloatArray
    subject_R: FloatArray
    subject_C: FloatArray
    n_obs: int
    n_fixed: int
    scaling: Scaling
    log_det: float = 0.0

    @property
    def n_patterns(self) -> int:
        """Number of distinct within-subject designs."""
        return int(self.pattern.max()) + 1


def cross_products(design: Design) -> CrossProducts:
    """Reduce a design to its sufficient statistics.

    Costs O(N (p + q)²) once, in one pass over the rows sorted by subject.

    Raises
    ------
    DataError
        If columns of X are linearly dependent (they are named).
    """
    if design.whole is not None:
        return design.whole.cross_products(design)
    order, start = subject_rows(design)
    Z, XY, scaling = working_columns(design, order)
    R, C, S_w = within_subject_qr(Z, XY, start, RANK_TOLERANCE)
    found = patterns_of(R)
    rows = pattern_rows(R, C, found)
    return CrossProducts(*rows, found.pattern, S_w, R, C, design.n_obs, len(design.coef), scaling)


def working_columns(design: Design, order: IntArray) -> tuple[FloatArray, FloatArray, Scaling]:
    """Centred and scaled columns in the given order of rows: Z̃ (q, N), [X̃, ỹ] (P, N), and how they were made."""
    XY, Zs, scaling = working_rows(design, order)
    return Zs[0] if Zs else np.empty((0, design.n_obs)), XY, scaling


def working_rows(design: Design, order: IntArray) -> tuple[FloatArray, list[FloatArray], Scaling]:
    """[X̃, ỹ] (P, N), Z̃ (q, N) of every random term, and how they were made: block diagonal ``Bz``."""
    p, constant = len(design.coef), design.constant
    y = (design.y - design.offset)[order]
    y_centre = 0.0 if constant is None else float(y.mean())
    y_scale = float(np.sqrt(np.mean((y - y_centre) ** 2))) or 1.0
    XY = np.empty((p + 1, design.n_obs))
    XY[:p] = design.X.T[:, order]
    XY[p] = (y - y_centre) / y_scale
    B, log_det = (np.eye(p), 0.0) if constant is None else centre_columns(XY[:p], constant)
    F = _orthonormalise(XY[:p], design.coef, "fixed effects")
    log_det += float(np.sum(np.log(np.diag(F))))
    shift = np.zeros(p) if constant is None else y_centre * constant
    Zs = [np.ascontiguousarray(term.Z.T[:, order]) for term in design.random]
    Bz = block_diag(*map(_scale_random, Zs, design.terms.random)) if Zs else np.empty((0, 0))
    return XY, Zs, Scaling(F @ B, Bz, shift, y_scale, log_det)


def subject_rows(design: Design) -> tuple[IntArray, NDArray[np.int64]]:
    """Order of the rows by subject, and where each subject starts in it: (N,), (J + 1,)."""
    index = design.subject_index
    return group_order(index), group_starts(index, design.n_subjects)


def _orthonormalise(A: FloatArray, names: tuple[str, ...], what: str) -> FloatArray:
    """Modified Gram-Schmidt, twice, on the rows of A (k, N), in place; returns the triangular factor (k, k).

    Plain loops of numpy: for a handful of columns they cost less than waking the threads of a BLAS library.
    """
    k = len(A)
    factor = np.zeros((k, k))
    for j in range(k):
        size = np.sqrt(_dot(A[j], A[j]))
        for _ in range(2):
            for i in range(j):
                share = _dot(A[i], A[j])
                factor[i, j] += share
                A[j] -= share * A[i]
        norm = np.sqrt(_dot(A[j], A[j]))
        if norm <= RANK_TOLERANCE * size:
            received = f"{what} {', '.join(names)}"
            reason = f"the column {names[j]!r} is constant or a linear combination of the columns before"
            remedy = "take the term out, merge levels that never occur together, or recode"
            raise DataError(received, reason, remedy, "docs, page 'Errors', section 'Rank deficiency'")
        factor[j, j] = norm
        A[j] /= norm
    return factor


def _dot(a: FloatArray, b: FloatArray) -> float:
    return float(np.einsum("i,i->", a, b))


def dependent_columns(X: FloatArray, centres: FloatArray) -> list[int]:
    """Columns that are constant or linear combinations of the columns before them, to 1e-9 of their own norm."""
    centred = X - centres
    raw = np.sqrt(np.einsum("ij,ij->j", X, X))
    dependent: list[int] = []
    basis = np.empty((X.shape[0], 0))
    for column in range(X.shape[1]):
        residual = centred[:, column]
        size = np.sqrt(residual @ residual)
        for _ in range(2):
            residual = residual - basis @ (basis.T @ residual)
        norm = np.sqrt(residual @ residual)
        if norm <= RANK_TOLERANCE * size or size <= RANK_TOLERANCE * raw[column]:
            dependent.append(column)
        else:
            basis = np.column_stack([basis, residual / norm])
    return dependent


def _scale_random(Z: FloatArray, own: RandomColumns) -> FloatArray:
    """Scale the columns of Z, held as rows (q, N), in place: orthonormal within a correlated block, else unit scale.

    Returns the upper triangular ``Bz`` with Z = Z̃ Bz; the mean square of every column of Z̃ is 1.
    """
    q, n = Z.shape
    if own.covariance in SPECTRAL:
        scale = float(np.sqrt(np.mean(Z**2))) or 1.0
        Z /= scale
        return scale * np.eye(q)
    Bz = np.zeros((q, q))
    for block in own.blocks:
        columns = Z[list(block)]
        names = tuple(own.names[m] for m in block)
        Bz[np.ix_(block, block)] = _orthonormalise(columns, names, "random effects") / np.sqrt(n)
        Z[list(block)] = columns * np.sqrt(n)
    return Bz


class Patterns(NamedTuple):
    """Subjects by their R: in which order, where each pattern starts in it, how many it has, and whose it is (J,)."""

    order: IntArray
    bounds: IntArray
    sizes: IntArray
    pattern: IntArray


def patterns_of(R: FloatArray) -> Patterns:
    """Subjects with equal R (J, q, q), to `PATTERN_DIGITS`."""
    J, q = R.shape[:2]
    rows, cols = np.triu_indices(q)
    scale = np.abs(R).max() or 1.0
    keys = np.round(R[:, rows, cols] / (scale * PATTERN_DIGITS)).astype(np.int64)
    order = np.lexsort(keys.T)
    changes = np.any(keys[order][1:] != keys[order][:-1], axis=1)
    bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [J]])
    sizes = np.diff(bounds)
    pattern = np.empty(J, dtype=np.intp)
    pattern[order] = np.repeat(np.arange(len(sizes)), sizes)
    return Patterns(order, bounds, sizes, pattern)


def pattern_rows(R: FloatArray, C: FloatArray, found: Patterns) -> tuple[FloatArray, FloatArray, FloatArray]:
    """R, C and weights as the kernel takes them; the rows of large patterns replaced by few with equal products."""
    q, P = C.shape[1:]
    order, bounds, sizes = found.order, found.bounds, found.sizes
    small = np.repeat(sizes <= q * P, sizes)
    pieces_R, pieces_C, weights = [R[order[small]]], [C[order[small]]], [np.ones(int(small.sum()))]
    for k in np.flatnonzero(sizes > q * P):
        members = order[bounds[k] : bounds[k + 1]]
        # The triangular factor of the stacked rows has the same sums Σ_r C[r, i, a] C[r, j, b].
        compressed = np.linalg.qr(C[members].reshape(-1, q * P), mode="r").reshape(-1, q, P)
        pieces_R.append(np.repeat(R[members[:1]], len(compressed), axis=0))
        pieces_C.append(compressed)
        weights.append(np.concatenate([[float(sizes[k])], np.zeros(len(compressed) - 1)]))
    last = [np.ascontiguousarray(np.moveaxis(np.concatenate(pieces), 0, -1)) for pieces in (pieces_R, pieces_C)]
    return last[0], last[1], np.concatenate(weights)
