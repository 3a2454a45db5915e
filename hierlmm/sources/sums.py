"""Cross-products of rows that stream by, subject after subject: sums that grow, that are added, and that are saved.

Subjects with equal R form a design pattern, of which few rows are kept whatever the number of its subjects, as long as
patterns are few; subjects of their own design are kept one by one. Sums are in the first coordinates
(`hierlmm.sources.coordinates`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.errors import DataError
from hierlmm.likelihood.crossproducts import PATTERN_DIGITS, patterns_of
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr

SHARED = 4
"""Subjects to a pattern, on average, from which patterns are looked for."""
MOST_PATTERNS = 20_000
SKETCH = 65_536
"""Subjects that are remembered: those with the smallest hashes."""
LARGE = "docs, page 'Large data'"


@dataclass
class Sums:
    """Cross-products of the rows seen so far.

    Attributes
    ----------
    q, P : int
    about : (k,)
        What the columns of X, X1, Z and y are centred at for their moments.
    sketch : (k,)
        Hashes of some subjects.
    total, squares : (k,), (k, k)
        Sums of these centred columns, and of their products.
    S : (P, P)
        What the random effects cannot reach.
    n_rows, n_subjects : int
    alone : list of pairs
        R (q, q, k) and C (q, P, k) of subjects by themselves.
    patterns : dict
        Rounded R -> R (q, q), number of subjects, rows (k, q P) with the products of theirs.
    """

    q: int
    P: int
    about: FloatArray
    unit: float = 0.0
    sketch: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    S: FloatArray = field(init=False)
    total: FloatArray = field(init=False)
    squares: FloatArray = field(init=False)
    n_rows: int = 0
    n_subjects: int = 0
    alone: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    patterns: dict[bytes, tuple[FloatArray, int, FloatArray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k = len(self.about)
        self.S, self.total, self.squares = np.zeros((self.P, self.P)), np.zeros(k), np.zeros((k, k))

    def add_subjects(self, labels: Any) -> None:
        """Remember some of these subjects, chosen by their labels, so that other sums are known to have them too."""
        import pandas as pd

        hashes = pd.util.hash_array(np.asarray(labels))
        self.sketch = np.unique(np.concatenate([self.sketch, hashes]))[:SKETCH]

    def refuse_shared(self, other: Sums, what: str) -> None:
        """Refuse sums of subjects that these have, too.

        Raises
        ------
        DataError
        """
        end = min(own[-1] if len(own) == SKETCH else np.iinfo(np.uint64).max for own in (self.sketch, other.sketch))
        shared = np.intersect1d(self.sketch[self.sketch <= end], other.sketch[other.sketch <= end])
        if len(shared):
            looked = min(np.sum(self.sketch <= end), np.sum(other.sketch <= end))
            reason = f"{len(shared)} of {looked} subjects that were compared are in both, and would count twice"
            raise DataError(what, reason, "read the rows of a subject once, all together", LARGE)

    def add_moments(self, columns: FloatArray) -> None:
        """Add rows of the columns as they are, (n, k)."""
        centred = columns - self.about
        self.total += centred.sum(axis=0)
        self.squares += centred.T @ centred

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Means and covariance matrix, with divisor N, of the columns of X, X1, Z and y."""
        mean = self.total / self.n_rows
        return self.about + mean, self.squares / self.n_rows - np.outer(mean, mean)

    def add_rows(self, Z: FloatArray, XY: FloatArray, start: NDArray[np.int64]) -> None:
        """Add whole subjects: working columns Z (q, n), XY (P, n), overwritten, and where subjects start (J + 1,)."""
        self.n_rows += XY.shape[1]
        self.n_subjects += len(start) - 1
        if self.q == 0:
            self.S += XY @ XY.T
            return
        R, C, S = within_subject_qr(Z, XY, start, RANK_TOLERANCE)
        self.S += S
        if not self.unit:
            self.unit = (float(np.abs(R).max()) or 1.0) * PATTERN_DIGITS
        found = patterns_of(R)
        if len(found.sizes) * SHARED > len(R) or len(self.patterns) > MOST_PATTERNS:
            self._keep(R, C)
            return
        for k in range(len(found.sizes)):
            members = found.order[found.bounds[k] : found.bounds[k + 1]]
            self.put_pattern(R[members[0]], len(members), C[members].reshape(len(members), -1))

    def _keep(self, R: FloatArray, C: FloatArray) -> None:
        self.alone.append((np.ascontiguousarray(np.moveaxis(R, 0, -1)), np.ascontiguousarray(np.moveaxis(C, 0, -1))))

    def put_pattern(self, R: FloatArray, size: int, rows: FloatArray) -> None:
        """Add subjects of one pattern: R (q, q), how many, rows (k, q P) with their products."""
        key = np.round(R[np.triu_indices(self.q)] / self.unit).astype(np.int64).tobytes()
        if key in self.patterns:
            R, before, others = self.patterns[key]
            size, rows = size + before, np.concatenate([others, rows])
        self.patterns[key] = R, size, _fewer(rows)

    def add(self, other: Sums, W: FloatArray | None = None, B: FloatArray | None = None) -> None:
        """Add the sums of other subjects, which W and B lead to these coordinates."""
        W, B = np.eye(self.P) if W is None else W, np.eye(self.q) if B is None else B
        self.unit = self.unit or other.unit
        self.sketch = np.unique(np.concatenate([self.sketch, other.sketch]))[:SKETCH]
        self.n_rows += other.n_rows
        self.n_subjects += other.n_subjects
        self.S += W.T @ other.S @ W
        apart = other.about - self.about
        total = other.total + other.n_rows * apart
        crossed = np.outer(apart, other.total)
        self.squares += other.squares + crossed + crossed.T + other.n_rows * np.outer(apart, apart)
        self.total += total
        self.alone += [(moved(R, B), moved(C, W)) for R, C in other.alone]
        for R, size, rows in other.patterns.values():
            self.put_pattern(R @ B, size, (rows.reshape(-1, self.q, self.P) @ W).reshape(len(rows), -1))

    def products(self) -> tuple[FloatArray, FloatArray]:
        """[X₀, y₀]'[X₀, y₀] (P, P) and Z₀'Z₀ (q, q) of all rows."""
        G, squares = self.S.copy(), np.zeros((self.q, self.q))
        for R, C in self.alone:
            G += np.einsum("iak,ibk->ab", C, C, optimize=True)
            squares += np.einsum("iak,ibk->ab", R, R, optimize=True)
        for R, size, rows in self.patterns.values():
            own = rows.reshape(-1, self.q, self.P)
            G += np.einsum("kia,kib->ab", own, own)
            squares += size * R.T @ R
        return G, squares

    def kernel_rows(self, W: FloatArray, B: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """R (q, q, K), C (q, P, K) and weights (K,) in other coordinates; what was kept by subject is given up."""
        n = sum(R.shape[2] for R, _ in self.alone)
        K = n + sum(len(rows) for _, _, rows in self.patterns.values())
        R_all, C_all, weight = np.empty((self.q, self.q, K)), np.empty((self.q, self.P, K)), np.ones(K)
        at = 0
        for R, C in self.alone:
            part = slice(at, at + R.shape[2])
            R_all[:, :, part], C_all[:, :, part] = moved(R, B), moved(C, W)
            at = part.stop
        for R, size, rows in self.patterns.values():
            part = slice(at, at + len(rows))
            R_all[:, :, part] = (R @ B)[:, :, None]
            C_all[:, :, part] = moved(np.moveaxis(rows.reshape(-1, self.q, self.P), 0, -1), W)
            weight[part] = 0.0
            weight[at] = float(size)
            at = part.stop
        return R_all, C_all, weight


def moved(columns: FloatArray, W: FloatArray) -> FloatArray:
    """Columns (q, a, k) times W (a, b): (q, b, k)."""
    out = np.zeros((columns.shape[0], W.shape[1], columns.shape[2]))
    for b in range(W.shape[1]):
        for a in np.flatnonzero(W[:, b]):
            out[:, b] += columns[:, a] * W[a, b]
    return out


def _fewer(rows: FloatArray) -> FloatArray:
    """At most as many rows as columns, with the same products."""
    n, width = rows.shape
    if n <= width:
        return rows
    return np.asarray(np.linalg.qr(rows, mode="r"))
