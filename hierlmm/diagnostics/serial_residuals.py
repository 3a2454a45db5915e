"""Pairs of rows within subjects by lag, and residuals as linear functions of the data (for `diagnostics.serial`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.covariance.positions import labelled
from hierlmm.design.questions import rows_by_subject, time_variable
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import is_number, occasions_in_use

SEE = "docs, page 'Residual diagnostics'"
MOST_LAGS, BINS = 20, 12
MOST_PAIRS = 20_000_000
SAME_LAG = 1e-9


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows of one subject.

    ``subjects``: rows of the data by subject, in the order of position; ``first`` and ``second``: places in that
    order; ``bin``: of each pair; ``lag``, ``low``, ``high``, ``count``: of each bin.
    """

    subjects: list[IntArray]
    first: IntArray
    second: IntArray
    bin: IntArray
    lag: FloatArray
    low: FloatArray
    high: FloatArray
    count: FloatArray

    def mean(self, values: FloatArray) -> FloatArray:
        """Mean by bin of one value for each pair."""
        return np.bincount(self.bin, values, minlength=len(self.count)) / self.count


def known_time(fit: Fit) -> str | None:
    """The column that says when rows were measured: that of the residual structure, or the one number of level 1."""
    known = (fit._time, time_variable(fit.design))
    return next((c for c in known if c is not None and c in fit.design.frame.columns), None)


def positions_of(fit: Fit, time: str | None, *, by_order: bool) -> tuple[FloatArray, str, bool]:
    """Position of every row, the name of what it is measured in, and whether lags count rows."""
    design, gee = fit.design, fit.has_working_correlation
    frame, structure = design.frame, design.residual
    own, name = fit._time, known_time(fit) if time is None else time
    if name is None:
        return np.arange(len(frame), dtype=np.float64), "rows", True
    if name not in frame.columns:
        reason = f"the model keeps only the columns it uses ({', '.join(map(str, frame.columns))})"
        raise DataError(f"time={name!r}", reason, "use one of these, or leave time out to count rows", SEE)
    by_occasion = structure is not None and structure.time is not None and labelled(structure, frame[structure.time])
    coded = structure is not None and by_occasion and name == structure.time
    counted = _counted(frame[name], occasions=name == own and (gee or by_occasion), coded=coded)
    if counted is not None:
        return counted, f"{name}, counted", False
    values = frame[name].to_numpy(dtype=np.float64)
    return (values, "rows", True) if by_order and time is None else (values, name, False)


def _counted(column: pd.Series, *, occasions: bool, coded: bool) -> FloatArray | None:
    """Positions of labels that have an order, None for numbers.

    Labels have an order if the user gave them another than the alphabet's, or if the fit took them as its
    ``occasions``; text has that of the codes of a structure that is ``coded`` by occasion.
    """
    factor = isinstance(column.dtype, pd.CategoricalDtype)
    labelled = factor and not pd.api.types.is_numeric_dtype(column.cat.categories)
    if labelled and (occasions or list(column.cat.categories) != sorted(column.cat.categories, key=str)):
        return _codes(column)
    plain = column.astype(column.cat.categories.dtype) if factor and not labelled else column
    if not labelled and is_number(plain):
        return None
    if coded:
        return _codes(column)
    kind = "a factor in the order of the alphabet" if labelled else f"a column of type {plain.dtype}"
    reason = "a lag is a difference of numbers" + (", and this order need not be that of time" if labelled else "")
    remedy = "use a column of numbers; for labelled occasions one that counts them, 1, 2, 3, ..."
    raise DataError(f"time={column.name!r}, {kind}", reason, remedy, SEE)


def _codes(column: pd.Series) -> FloatArray:
    """Places of labels among those in use, as a structure by occasion has them."""
    places = {label: k for k, label in enumerate(occasions_in_use(column)[0])}
    return column.map(places).to_numpy(dtype=np.float64)


def make_pairs(
    fit: Fit, position: FloatArray, *, count_rows: bool, bins: Any, max_lag: float | None, time: str
) -> Pairs:
    """Pair the rows of every subject, and sort the pairs into bins of the lag.

    Parameters
    ----------
    fit : Fit
    position : (N,)
    count_rows : bool
        Whether the lag is a number of rows rather than a difference of positions.
    bins, max_lag
        As for `hierlmm.diagnostics.serial.semivariogram`.
    time : str
        What the lag is measured in, for messages.
    """
    design = fit.design
    subjects = rows_by_subject(design, position)
    order = np.concatenate(subjects)
    sizes = np.array([len(rows) for rows in subjects])
    if int(np.sum(sizes * (sizes - 1) // 2)) > MOST_PAIRS:
        received = f"{int(np.sum(sizes * (sizes - 1) // 2)):,} pairs of rows within subjects"
        reason = f"more than {MOST_PAIRS:,} would have to be looked at, many times over"
        remedy = "fit and check a part of the rows, for example shorter stretches of each subject"
        raise NotAvailableError(received, reason, remedy, SEE)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    first, second = [], []
    for size in np.unique(sizes):
        a, b = np.triu_indices(size, 1)
        at = starts[sizes == size][:, None]
        first.append((at + a).ravel())
        second.append((at + b).ravel())
    one, two = np.concatenate(first), np.concatenate(second)
    placed = np.concatenate([np.arange(len(rows), dtype=np.float64) for rows in subjects]) if count_rows else None
    t = position[order] if placed is None else placed
    lag = t[two] - t[one]
    if len(lag) and not lag.max() > 0.0:
        received = f"time={time!r}, which is the same in all rows of a subject"
        remedy = "use the column that says when the rows were measured, or leave time out"
        raise DataError(received, "every lag would be 0", remedy, SEE)
    if max_lag is not None:
        kept = lag <= max_lag * (1.0 + SAME_LAG)
        one, two, lag = one[kept], two[kept], lag[kept]
    if not len(lag):
        received = "no pair of rows within a subject" + ("" if max_lag is None else f" up to lag {max_lag:g}")
        remedy = "check the subject column" if max_lag is None else "use a larger max_lag"
        raise DataError(received, "a correlation within subjects needs subjects with two rows", remedy, SEE)
    code = _bins(lag, bins, time)
    inside = code >= 0
    one, two, lag, code = one[inside], two[inside], lag[inside], code[inside]
    _, code = np.unique(code, return_inverse=True)
    count = np.bincount(code).astype(np.float64)
    low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(low, code, lag)
    np.maximum.at(high, code, lag)
    return Pairs(subjects, one, two, code, np.bincount(code, lag) / count, low, high, count)


def _bins(lag: FloatArray, bins: Any, time: str) -> IntArray:
    """Bin of every lag, -1 for lags outside all bins."""
    # Times such as 0.1 + 0.2 leave lags that differ by rounding only.
    unit = SAME_LAG * float(lag.max()) or 1.0
    distinct, code = np.unique(np.round(lag / unit), return_inverse=True)
    if bins is None and len(distinct) <= MOST_LAGS:
        return code.astype(np.intp)
    if bins is None or isinstance(bins, (int, np.integer)):
        n = BINS if bins is None else int(bins)
        if n < 1:
            raise SpecificationError(f"bins={bins!r}", "there is at least one bin", "use a number of 1 or more", SEE)
        if n >= len(distinct):
            return code.astype(np.intp)
        inner = np.unique(np.quantile(distinct[code], np.linspace(0.0, 1.0, n + 1)[1:-1]))
        return np.searchsorted(inner, distinct[code], side="left").astype(np.intp)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        reason = "edges of bins are two or more increasing numbers"
        raise SpecificationError(f"bins={bins!r}", reason, "use for example bins=[0, 1, 2]", SEE)
    found = np.searchsorted(edges, lag, side="left") - 1
    found[lag == edges[0]] = 0
    found[(found < 0) | (found >= len(edges) - 1)] = -1
    if np.all(found < 0):
        reason = f"no lag lies between these edges (lags in {time} run from {lag.min():g} to {lag.max():g})"
        raise SpecificationError(f"bins={bins!r}", reason, "use other edges", SEE)
    return found.astype(np.intp)


# --- residuals as linear functions of the data --------------------------------------------------------------------


@dataclass(frozen=True)
class LinearResiduals:
    """``r_i = M_i (y_i - X_i β̂)`` of all subjects, rows in the order of `Pairs`.

    ``root``: Cholesky factors of V_i; ``S``: Cov(r_i); ``rest``: ``Σ X_i'V_i⁻¹X_i`` of subjects that are left out, but
    whose data count in β̂ and so in ``C``.
    """

    X: list[FloatArray]
    M: list[FloatArray]
    root: list[FloatArray]
    half: list[FloatArray]
    C: FloatArray
    S: list[FloatArray]
    rest: FloatArray

    def residuals(self, y: list[FloatArray], of_rest: FloatArray | float = 0.0) -> FloatArray:
        """Residuals of data (n_i, c) by subject: (N, c); ``of_rest`` (p, c) is ``Σ X_i'V_i⁻¹y_i`` of those left out."""
        cross = sum(
            (h.T @ np.linalg.solve(L, v) for h, L, v in zip(self.half, self.root, y, strict=True)),
            np.zeros((len(self.C), y[0].shape[1])),
        )
        return self._given(y, self.C @ (cross + of_rest))

    def drawn_rest(self, size: int, rng: Rng) -> FloatArray:
        """``Σ X_i'V_i⁻¹y_i`` of the subjects left out, of data drawn from N(0, V_i): (p, size)."""
        if not self.rest.any():
            return np.zeros((len(self.rest), size))
        values, vectors = np.linalg.eigh(self.rest)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return root @ rng.standard_normal((len(root), size))

    def simulated(self, size: int, rng: Rng) -> FloatArray:
        """Residuals of data drawn from N(0, V_i): (N, size)."""
        z = [rng.standard_normal((len(L), size)) for L in self.root]
        cross = sum((h.T @ v for h, v in zip(self.half, z, strict=True)), np.zeros((len(self.C), size)))
        cross = cross + self.drawn_rest(size, rng)
        return self._given([L @ v for L, v in zip(self.root, z, strict=True)], self.C @ cross)

    def _given(self, y: list[FloatArray], beta: FloatArray) -> FloatArray:
        return np.concatenate([M @ (v - x @ beta) for M, v, x in zip(self.M, y, self.X, strict=True)])


def linear_residuals(
    fit: Fit, subjects: list[IntArray], level: str, kind: str, rest: FloatArray | None = None
) -> LinearResiduals:
    """Residuals of a kind at a level as linear functions of the data, at the fit's covariance parameters.

    Costs O(n³) for a subject with n rows. ``rest`` is `information` of the subjects that are left out.
    """
    design, D = fit.design, _D(fit)
    covariances = [_covariances(fit, rows, D) for rows in subjects]
    X = [design.X[rows] for rows in subjects]
    try:
        root = [np.linalg.cholesky(V) for V, _ in covariances]
        half = [np.linalg.solve(L, x) for L, x in zip(root, X, strict=True)]
        M = [_map(V, S, L, level, kind) for (V, S), L in zip(covariances, root, strict=True)]
    except np.linalg.LinAlgError as error:
        received = f"residuals of a fit by {fit.estimator} whose V_i is not positive definite in floating point"
        reason = "its covariance parameters are at the edge of their range"
        raise NotAvailableError(received, reason, "use a simpler residual structure", SEE) from error
    rest = np.zeros((design.X.shape[1],) * 2) if rest is None else rest
    C = np.linalg.inv(sum((h.T @ h for h in half), rest))
    S = [m @ (V - x @ C @ x.T) @ m.T for m, (V, _), x in zip(M, covariances, X, strict=True)]
    return LinearResiduals(X, M, root, half, C, S, rest)


def information(fit: Fit, subjects: list[IntArray]) -> FloatArray:
    """``Σ X_i'V_i⁻¹X_i`` of subjects, (p, p)."""
    X, D = fit.design.X, _D(fit)
    each = (X[rows].T @ np.linalg.solve(_covariances(fit, rows, D)[0], X[rows]) for rows in subjects)
    return sum(each, np.zeros((X.shape[1],) * 2))


def _D(fit: Fit) -> FloatArray:
    """D of the fit, worked out once for all subjects; nothing where V_i is a working covariance."""
    return np.empty((0, 0)) if fit.has_working_correlation else fit._D_values


def _covariances(fit: Fit, rows: IntArray, D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """V_i and Σ_i of one subject's rows."""
    if fit.has_working_correlation:
        design = fit.design
        label = design.subjects[int(design.subject_index[rows[0]])]
        V = fit.marginal_covariance(label).to_numpy()
        place = np.searchsorted(np.sort(rows), rows)
        V = V[np.ix_(place, place)]
        return V, V
    Sigma = fit._residual_covariance(rows)
    Z = fit.design.Z[rows]
    return (Z @ D @ Z.T + Sigma if Z.shape[1] else Sigma), Sigma


def _map(V: FloatArray, Sigma: FloatArray, root: FloatArray, level: str, kind: str) -> FloatArray:
    n = len(V)
    if level == "population":
        if kind == "normalized":
            return np.linalg.solve(root, np.eye(n))
        return np.eye(n) if kind == "response" else np.diag(1.0 / np.sqrt(np.diag(V)))
    inner = np.linalg.solve(root, Sigma)
    shrunken = np.linalg.solve(root.T, inner).T  # Σ V⁻¹
    if kind == "normalized":
        return np.linalg.solve(np.linalg.cholesky(Sigma), shrunken)
    return shrunken if kind == "response" else shrunken / np.sqrt(np.diag(Sigma))[:, None]
