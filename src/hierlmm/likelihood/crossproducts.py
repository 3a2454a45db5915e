"""From a design to the few numbers that the likelihood needs.

The columns are first centred and scaled (raw sums of squares lose digits when |mean| is much larger than sd):
``X = X̃ B_x`` with orthonormal-like X̃, ``Z = Z̃ B_z`` (triangular within a correlated block, diagonal otherwise, so
that the structure of D survives), ``y = ȳ + s ỹ``. Then per subject ``Z̃_i = U_i R_i``, ``C_i = U_i'[X̃_i, ỹ_i]``, and
the pooled remainder S_w. Subjects with equal R_i form a *design pattern*; within a pattern only ``Σ C_i[a]'C_i[b]``
matters, so more than q·P subjects are replaced by the q·P rows of a triangular factor with the same cross-products.
The cost of an evaluation then depends neither on the number of rows nor, on balanced data, on the number of subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray

from hierlmm.design import Design
from hierlmm.errors import DataError
from hierlmm.likelihood.kernel import within_subject_qr

__all__ = ["CrossProducts", "Scaling", "cross_products", "dependent_columns", "subject_rows"]

FloatArray = NDArray[np.float64]

RANK_TOLERANCE = 1e-9
PATTERN_DIGITS = 1e-11


@dataclass(frozen=True)
class Scaling:
    """How the working columns relate to the user's: ``X = X̃ Bx``, ``Z = Z̃ Bz``, ``y = y_centre + y_scale ỹ``.

    ``shift`` (p,) is what ``y_centre`` adds to β: the intercept's unit vector times ``y_centre``, or zero.
    """

    Bx: FloatArray
    Bz: FloatArray
    shift: FloatArray
    y_scale: float

    @property
    def log_det_x(self) -> float:
        """log|det Bx|: what ``½ log|X'V⁻¹X|`` of the working columns lacks."""
        return float(np.sum(np.log(np.abs(np.diag(self.Bx)))))

    def beta(self, working: FloatArray) -> FloatArray:
        """Fixed effects in the user's columns, from those of the working columns: (..., p) -> (..., p)."""
        return sla.solve_triangular(self.Bx, (working * self.y_scale).T).T + self.shift

    def beta_cov(self, working: FloatArray) -> FloatArray:
        """Covariance of β in the user's columns."""
        half = sla.solve_triangular(self.Bx, working * self.y_scale**2)
        return sla.solve_triangular(self.Bx, half.T).T

    def factor(self, Lambda: FloatArray) -> FloatArray:
        """Relative factor of D/σ² in the user's columns: ``Bz⁻¹ Λ`` (q, q)."""
        return sla.solve_triangular(self.Bz, Lambda)


@dataclass(frozen=True)
class CrossProducts:
    """Sufficient statistics of a Gaussian two-level model with independent residuals.

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
    """

    R: FloatArray
    C: FloatArray
    weight: FloatArray
    pattern: NDArray[np.intp]
    S_w: FloatArray
    subject_R: FloatArray
    subject_C: FloatArray
    n_obs: int
    n_fixed: int
    scaling: Scaling

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
    p = len(design.coef)
    order, start = subject_rows(design)
    y = design.y - design.offset
    Bx, centres = _scale_fixed(design)
    y_centre = float(y.mean()) if design.intercept is not None else 0.0
    spread = float(np.sqrt(np.mean((y - y_centre) ** 2)))
    y_scale = spread if spread > 0 else 1.0
    XY = np.empty((design.n_obs, p + 1))
    XY[:, :p] = sla.solve_triangular(Bx, (design.X - centres).T, trans="T", check_finite=False).T[order] if p else 0.0
    Bx = _with_centres(Bx, centres, design.intercept)
    XY[:, p] = ((y - y_centre) / y_scale)[order]
    Bz = _scale_random(design)
    Z = np.ascontiguousarray(sla.solve_triangular(Bz, design.Z.T, trans="T", check_finite=False).T[order])
    R, C, S_w = within_subject_qr(Z, XY, start, RANK_TOLERANCE)
    rows_R, rows_C, weight, pattern = _patterns(R, C)
    shift = np.zeros(p)
    if design.intercept is not None:
        shift[design.intercept] = y_centre
    scaling = Scaling(Bx, Bz, shift, y_scale)
    return CrossProducts(rows_R, rows_C, weight, pattern, S_w, R, C, design.n_obs, p, scaling)


def subject_rows(design: Design) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Order of the rows by subject, and where each subject starts in it: (N,), (J + 1,)."""
    index = design.subject_index
    order = np.arange(len(index)) if np.all(index[1:] >= index[:-1]) else np.argsort(index, kind="stable")
    return order, np.concatenate([[0], np.cumsum(design.rows_per_subject)]).astype(np.int64)


def _scale_fixed(design: Design) -> tuple[FloatArray, FloatArray]:
    """Upper triangular factor of the centred X, and the centres (zero without an intercept)."""
    X, intercept = design.X, design.intercept
    p = X.shape[1]
    if p == 0:
        return np.empty((0, 0)), np.empty(0)
    centres = np.zeros(p)
    if intercept is not None:
        centres = X.mean(axis=0)
        centres[intercept] = 0.0
    centred = X - centres
    norms = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    safe = np.where(norms > 0, norms, 1.0)
    factor = np.linalg.qr(centred / safe, mode="r") * safe
    if len(factor) < p or np.any(np.abs(np.diag(factor)) <= RANK_TOLERANCE * safe):
        dependent = dependent_columns(X, centres)
        names = [design.coef[c] for c in dependent]
        raise DataError(
            f"a fixed-effects design of {p} columns and rank {p - len(dependent)}",
            f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} constant or a linear combination of "
            "the columns before, so the coefficient is not determined",
            "take the term out, merge levels that never occur together, or recode",
            "docs, page 'Errors', section 'Rank deficiency'",
        )
    return factor * np.sign(np.diag(factor))[:, None], centres


def _with_centres(Bx: FloatArray, centres: FloatArray, intercept: int | None) -> FloatArray:
    """Fold the centring into the triangular factor: X = (X̃ Bx) + 1 centres', and 1 = X̃ Bx e_intercept."""
    if intercept is None:
        return Bx
    return Bx @ (np.eye(len(centres)) + np.outer(np.eye(len(centres))[intercept], centres))


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


def _scale_random(design: Design) -> FloatArray:
    """Upper triangular Bz with Z = Z̃ Bz: orthonormal columns within a correlated block, unit scale otherwise."""
    Z, n = design.Z, design.n_obs
    Bz = np.zeros((Z.shape[1],) * 2)
    if design.covariance == "identity":
        np.fill_diagonal(Bz, np.sqrt(np.mean(Z**2)) or 1.0)
        return Bz
    for block in design.blocks:
        columns = Z[:, block]
        factor = np.linalg.qr(columns, mode="r") / np.sqrt(n)
        diagonal = np.abs(np.diag(factor))
        norms = np.sqrt(np.mean(columns**2, axis=0))
        if columns.shape[0] < columns.shape[1] or np.any(diagonal <= RANK_TOLERANCE * np.maximum(norms, 1e-300)):
            names = [design.term[m] for m in block]
            raise DataError(
                f"random effects {', '.join(names)}",
                "their columns are linearly dependent, so their variances cannot be told apart",
                "leave out the redundant random effect",
                "docs, page 'Errors', section 'Rank deficiency'",
            )
        Bz[np.ix_(block, block)] = factor * np.sign(np.diag(factor))[:, None]
    return Bz


def _patterns(R: FloatArray, C: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.intp]]:
    """Group subjects with equal R, and replace the rows of large groups by few with the same cross-products."""
    J, q, P = C.shape
    rows, cols = np.triu_indices(q)
    scale = np.abs(R).max() or 1.0
    keys = np.round(R[:, rows, cols] / (scale * PATTERN_DIGITS)).astype(np.int64)
    order = np.lexsort(keys.T)
    changes = np.any(keys[order][1:] != keys[order][:-1], axis=1)
    bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [J]])
    sizes = np.diff(bounds)
    pattern = np.empty(J, dtype=np.intp)
    pattern[order] = np.repeat(np.arange(len(sizes)), sizes)
    small = np.repeat(sizes <= q * P, sizes)
    pieces_R, pieces_C, weights = [R[order[small]]], [C[order[small]]], [np.ones(int(small.sum()))]
    for k in np.flatnonzero(sizes > q * P):
        members = order[bounds[k] : bounds[k + 1]]
        compressed = _compress(C[members])
        pieces_R.append(np.repeat(R[members[:1]], len(compressed), axis=0))
        pieces_C.append(compressed)
        weights.append(np.concatenate([[float(sizes[k])], np.zeros(len(compressed) - 1)]))
    last = [np.ascontiguousarray(np.moveaxis(np.concatenate(pieces), 0, -1)) for pieces in (pieces_R, pieces_C)]
    return last[0], last[1], np.concatenate(weights), pattern


def _compress(C: FloatArray) -> FloatArray:
    """Fewer rows with the same sums ``Σ_r C[r, i, a] C[r, j, b]``: the triangular factor of the stacked rows."""
    J, q, P = C.shape
    return np.linalg.qr(C.reshape(J, q * P), mode="r").reshape(-1, q, P)
