"""Whether a covariance matrix comes from a hierarchy, V = Z D Z' + σ²I with D ⪰ 0 and σ² ≥ 0.

Let U (n, r) be an orthonormal basis of the columns of Z, Z = U R, and W one of the rest of the space. Then
``Z D Z' = U B U'`` with B = R D R', and D ⪰ 0 exists for B exactly if B ⪰ 0. Hence V comes from the hierarchy if and
only if, with some σ² ≥ 0,

    W'V W = σ² I,    W'V U = 0,    B = U'V U - σ² I ⪰ 0

- r < n: σ² is the common eigenvalue of V outside the random effects, unique; the least-squares solution is
  ``σ² = tr(W'VW)/(n - r)``, and its distance ``‖V - U B U' - σ²I‖`` (Frobenius) is the part of V outside the span.
- r = n: there is no outside, and every σ² between 0 and the smallest eigenvalue of V will do: D and σ² are not
  identified by V.
- Z of less than full column rank (r < q): D is not unique given B; D = R⁺ B R⁺' is the smallest.

A hierarchy implies its marginal covariance; the reverse holds only where these conditions do (Verbeke & Molenberghs
2000, Linear Mixed Models for Longitudinal Data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import INTERCEPT, join_terms, parse_rhs
from hierlmm.errors import DataError, FormulaError, SpecificationError
from hierlmm.options import checked
from hierlmm.results import Items, Page, Part, Result, Table
from hierlmm.text import sayer

SAY = sayer(__file__)
SEE = "docs, page 'Teaching'"
RANK_TOLERANCE = 1e-10
ROUNDING = 1e-13


@checked
@dataclass(frozen=True, eq=False, repr=False)
class HierarchicalCheck(Result):
    """Answer to `is_hierarchical`; true or false in a condition (``if check:``).

    Attributes
    ----------
    is_hierarchical : bool
        Whether D ⪰ 0 and σ² ≥ 0 reproduce V.
    is_covariance : bool
        Whether V is symmetric without a negative eigenvalue: whether a marginal model can have it.
    reasons : tuple of str
        Which parts fail, in plain words; empty if none does.
    D : DataFrame, term × term
        The symmetric matrix that comes closest to V, with ``sigma2``; no covariance matrix where that is why the answer
        is no.
    sigma2 : float
    sigma2_interval : (float, float)
        All σ² that reproduce V together with some D ⪰ 0: one point where σ² is unique, NaN where the answer is no.
    distance : float
        Frobenius norm of what no symmetric D and no σ² can reproduce.
    outside : DataFrame, (n, n)
        That part of V, entry by entry.
    unique : bool
        Whether V determines D and σ².
    eigenvalues : (r,) array
        Of ``U'VU - σ²I``: the variances that D gives to orthonormal combinations of the measurements.
    V : DataFrame
    Z : DataFrame, n × term
    tolerance : float
        Relative to the mean diagonal entry of V.
    """

    is_hierarchical: bool
    is_covariance: bool
    reasons: tuple[str, ...]
    D: pd.DataFrame
    sigma2: float
    sigma2_interval: tuple[float, float]
    distance: float
    outside: pd.DataFrame
    unique: bool
    eigenvalues: FloatArray
    V: pd.DataFrame
    Z: pd.DataFrame
    tolerance: float

    def __bool__(self) -> bool:
        return self.is_hierarchical

    @property
    def table(self) -> pd.DataFrame:
        """`D`."""
        return self.D

    def _page(self) -> Page:
        terms = ", ".join(map(str, self.Z.columns))
        answer = "yes" if self.is_hierarchical else "NO"
        parts: list[Part] = []
        if self.is_hierarchical:
            parts.append("V = Z D Zᵀ + σ²I with")
        else:
            parts.append(Items("", self.reasons, [f"  - {reason}" for reason in self.reasons]))
            if self.is_covariance:
                parts.append(SAY("hierarchical.possible"))
            parts.append("Closest symmetric D and σ² (no such hierarchy exists):")
        D = pd.DataFrame(_without_rounding(self.D.to_numpy(), self._size), index=self.D.index, columns=self.D.columns)
        D = D.rename_axis(index=None, columns=None)
        printed = ["D =", *D.to_string(float_format=lambda v: f"{v:.5g}").splitlines()]
        low, high = self.sigma2_interval
        free = f" (any value from {low:.4g} to {high:.4g} will do)" if high > low else ""
        parts += [
            Table(D, [f"  {line}" for line in printed], "D", index=True, number=".5g"),
            f"  σ² = {_without_rounding(self.sigma2, self._size):.6g}{free}",
            SAY("hierarchical.distance", distance=_without_rounding(self.distance, self._size)),
        ]
        if not self.unique:
            rank, (n, q) = len(self.eigenvalues), self.Z.shape
            why = [SAY("hierarchical.spanned")] if rank == n else []
            why += [SAY("hierarchical.dependent")] if rank < q else []
            parts.append(SAY("hierarchical.not_unique", why="; ".join(why)))
        what = f"Does this V ({len(self.V)} × {len(self.V)}) come from random effects ({terms}) and σ²I?"
        return Page(f"{what}  {answer}", parts)

    @property
    def _size(self) -> float:
        return float(np.abs(self.V.to_numpy()).max())


@checked
def is_hierarchical(V: Any, Z: Any, *, times: Any = None, tolerance: float = 1e-8) -> HierarchicalCheck:
    """Decide whether a covariance matrix comes from random effects and independent residuals.

    Parameters
    ----------
    V : array or DataFrame, (n, n)
        Covariance of the n measurements of one subject.
    Z : array or DataFrame (n, q), or sequence of str
        Design of the random effects; or names of level-1 terms, ``["Intercept", "time"]``, evaluated at ``times``.
    times : sequence of n numbers, or DataFrame with n rows, optional
        Where the measurements were made: a sequence is the variable ``time``.
    tolerance : float
        What counts as zero, relative to the mean diagonal entry of V. Raise it for a V that was rounded.

    Returns
    -------
    HierarchicalCheck

    Raises
    ------
    DataError
        If the shapes do not fit, or something is not finite.

    Examples
    --------
    Compound symmetry with a negative correlation is a covariance matrix, and no random intercept makes it:

    >>> import numpy as np
    >>> import hierlmm as hl
    >>> V = 0.7 * np.eye(4) + 0.3 * np.ones((4, 4))
    >>> bool(hl.is_hierarchical(V, ["Intercept"]))
    True
    >>> bool(hl.is_hierarchical(1.2 * np.eye(4) - 0.2 * np.ones((4, 4)), ["Intercept"]))
    False
    """
    matrix, labels = _square(V)
    if not (np.isfinite(tolerance) and tolerance > 0):
        received = f"tolerance={tolerance!r}"
        raise SpecificationError(received, "it is a small positive number", "use for example 1e-8", SEE)
    design = _random_design(Z, times, len(matrix))
    design.index = labels
    scale = float(np.mean(np.abs(np.diag(matrix)))) or 1.0
    limit = tolerance * scale
    reasons: list[str] = []
    asymmetry = float(np.max(np.abs(matrix - matrix.T)))
    symmetric = 0.5 * (matrix + matrix.T)
    values, vectors = np.linalg.eigh(symmetric)
    is_covariance = asymmetry <= limit and values[0] >= -limit
    if asymmetry > limit:
        i, j = np.unravel_index(int(np.argmax(np.abs(matrix - matrix.T))), matrix.shape)
        entries = {"i": labels[i], "j": labels[j], "above": matrix[i, j], "below": matrix[j, i]}
        reasons.append(SAY("hierarchical.asymmetric", **entries))
    if values[0] < -limit:
        combination = _combination(vectors[:, 0], labels)
        reasons.append(SAY("hierarchical.indefinite", combination=combination, value=values[0]))
    found = _solve(symmetric, design.to_numpy(), limit)
    D = pd.DataFrame(found.D, index=design.columns, columns=design.columns)
    names = pd.Index(labels)
    skew = 0.5 * (matrix - matrix.T)  # orthogonal to every symmetric matrix
    outside = pd.DataFrame(found.outside + skew, index=names, columns=names)
    if found.distance > limit:
        reasons.append(_outside_words(symmetric, found, labels, design))
    eigenvalues = np.linalg.eigh(found.B)[0]
    if len(eigenvalues) and eigenvalues[0] < -limit:
        reasons.append(_negative_words(found, design))
    if found.sigma2 < -limit:
        reasons.append(SAY("hierarchical.sigma2", sigma2=found.sigma2))
    good = not reasons
    return HierarchicalCheck(
        is_hierarchical=good,
        is_covariance=is_covariance,
        reasons=tuple(reasons),
        D=D,
        sigma2=found.sigma2,
        sigma2_interval=found.interval if good else (np.nan, np.nan),
        distance=float(np.hypot(found.distance, np.linalg.norm(skew))),
        outside=outside,
        unique=found.rank == design.shape[1] and found.rank < len(matrix),
        eigenvalues=eigenvalues,
        V=pd.DataFrame(matrix, index=names, columns=names),
        Z=design,
        tolerance=tolerance,
    )


@dataclass(frozen=True)
class _Solution:
    """Least squares on the span of {Z D Z', I}, in the basis U."""

    B: FloatArray
    D: FloatArray
    sigma2: float
    interval: tuple[float, float]
    outside: FloatArray
    distance: float
    rank: int


def _solve(V: FloatArray, Z: FloatArray, limit: float) -> _Solution:
    n = len(Z)
    # Columns of very different size must not hide one another.
    size = np.sqrt(np.mean(Z**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    left, singular, right = np.linalg.svd(Z / size, full_matrices=True)
    rank = int(np.sum(singular > RANK_TOLERANCE * max(1.0, float(singular[0]))))
    U, W = left[:, :rank], left[:, rank:]
    inside = U.T @ V @ U
    if rank < n:
        sigma2 = float(np.trace(W.T @ V @ W)) / (n - rank)
        interval = (max(sigma2, 0.0), max(sigma2, 0.0))
    else:
        top = float(np.linalg.eigvalsh(V)[0])
        interval = (0.0, max(top, 0.0))
        sigma2 = 0.5 * top if top > limit else min(top, 0.0)
    B = inside - sigma2 * np.eye(rank)
    outside = V - U @ B @ U.T - sigma2 * np.eye(n)
    back = (right[:rank].T / singular[:rank]) / size[:, None]
    D = back @ B @ back.T
    return _Solution(B, 0.5 * (D + D.T), sigma2, interval, outside, float(np.linalg.norm(outside)), rank)


def _outside_words(V: FloatArray, found: _Solution, labels: list[Any], design: pd.DataFrame) -> str:
    i, j = np.unravel_index(int(np.argmax(np.abs(found.outside))), V.shape)
    i, j = min(i, j), max(i, j)
    slots = {"names": ", ".join(map(str, design.columns)), "i": labels[i], "j": labels[j], "value": V[i, j]}
    slots |= {"distance": found.distance, "share": found.distance / float(np.linalg.norm(V))}
    return SAY("hierarchical.outside", closest=V[i, j] - found.outside[i, j], **slots)


def _negative_words(found: _Solution, design: pd.DataFrame) -> str:
    D, names = found.D, [str(c) for c in design.columns]
    if len(names) == 1:
        value, column, icc = float(D[0, 0]), design.to_numpy()[:, 0], ""
        if np.ptp(column) == 0.0 and column[0] != 0.0:
            shared = value * column[0] ** 2
            icc = f"{shared / (shared + found.sigma2):.3g}"
        return SAY("hierarchical.negative", value=value, name=names[0], icc=icc)
    on_diagonal = [f"{D[k, k]:.4g} for {name}" for k, name in enumerate(names) if D[k, k] < 0]
    if on_diagonal:
        return SAY("hierarchical.diagonal", variances=" and of ".join(on_diagonal))
    if len(names) == 2 and D[0, 0] > 0 and D[1, 1] > 0:
        corr = D[0, 1] / np.sqrt(D[0, 0] * D[1, 1])
        return SAY("hierarchical.correlation", corr=corr, a=names[0], b=names[1])
    values, vectors = np.linalg.eigh(D)
    return SAY("hierarchical.combination", value=values[0], combination=_combination(vectors[:, 0], names))


def _combination(vector: FloatArray, names: Sequence[Any]) -> str:
    """``0.71·a − 0.71·b``, the largest weight positive; what is below 1 % is left out, and all but the first six."""
    vector = vector * np.sign(vector[int(np.argmax(np.abs(vector)))])
    words = ""
    kept = [(w, name) for w, name in zip(vector, names, strict=True) if abs(w) >= 0.01]
    for weight, name in kept[:6]:
        sign = (" − " if weight < 0 else " + ") if words else ("−" if weight < 0 else "")
        words += f"{sign}{abs(weight):z.2f}·{name}"
    return words + (" …" if len(kept) > 6 else "")


def _square(V: Any) -> tuple[FloatArray, list[Any]]:
    labels = list(V.index) if isinstance(V, pd.DataFrame) else None
    try:
        matrix = np.asarray(V, dtype=np.float64)
    except (TypeError, ValueError) as error:
        received = "a V that is not made of numbers"
        raise DataError(received, "it is a covariance matrix", "pass n × n numbers", SEE) from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise DataError(f"V of shape {matrix.shape}", "a covariance matrix is square", "pass the (n, n) matrix", SEE)
    if not np.all(np.isfinite(matrix)):
        raise DataError("a V with missing or infinite entries", "they are no covariances", "fill them in", SEE)
    return matrix, list(range(1, len(matrix) + 1)) if labels is None else labels


def _random_design(Z: Any, times: Any, n: int) -> pd.DataFrame:
    """Z as a DataFrame n × term."""
    if isinstance(Z, str):
        Z = [Z]
    if isinstance(Z, (list, tuple)) and Z and all(isinstance(name, str) for name in Z):
        return _evaluate(list(Z), times, n)
    if times is not None:
        received = "times beside a matrix Z"
        raise SpecificationError(received, "the matrix already says where the measurements are", "leave times out", SEE)
    columns = list(Z.columns) if isinstance(Z, pd.DataFrame) else None
    try:
        values = np.asarray(Z, dtype=np.float64)
    except (TypeError, ValueError) as error:
        reason = "it is neither numbers nor names of terms"
        raise DataError(f"Z={Z!r}", reason, "pass an (n, q) matrix, or ['Intercept', 'time']", SEE) from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[0] != n or values.shape[1] == 0 or not np.all(np.isfinite(values)):
        received = f"Z of shape {values.shape} for a V of {n} measurements"
        reason = "Z has one row for each measurement and one finite column for each random effect"
        raise DataError(received, reason, "pass the Z of one subject, e.g. np.column_stack([np.ones(n), times])", SEE)
    if columns is None:
        plain = [INTERCEPT if np.all(column == 1.0) else f"z{k + 1}" for k, column in enumerate(values.T)]
        columns = plain if len(set(plain)) == len(plain) else [f"z{k + 1}" for k in range(values.shape[1])]
    return pd.DataFrame(values, columns=pd.Index(columns, name="term"))


def _evaluate(names: list[str], times: Any, n: int) -> pd.DataFrame:
    """Columns of level-1 terms at the given times."""
    import formulaic

    constant = {"1", INTERCEPT, "(Intercept)", "intercept"}
    if times is None and not set(names) <= constant:
        received, reason = f"Z={names!r} without times", "the terms have values only where measurements are"
        raise SpecificationError(received, reason, "add times=[0, 1, ...], one for each row of V", SEE)
    frame = times.reset_index(drop=True) if isinstance(times, pd.DataFrame) else None
    if frame is None:
        values = np.arange(n, dtype=float) if times is None else np.asarray(times, dtype=np.float64)
        frame = pd.DataFrame({"time": values.ravel()})
    if len(frame) != n:
        raise DataError(f"{len(frame)} times for a V of {n} measurements", "each row of V has one", "pass n times", SEE)
    columns = {}
    for name in names:
        if name in constant:
            columns[INTERCEPT] = np.ones(n)
            continue
        try:
            terms = parse_rhs(f"0 + {name}")
            found = formulaic.model_matrix(f"0 + {join_terms(terms).removeprefix('0 + ')}", frame)
        except (FormulaError, formulaic.errors.FormulaicError) as error:
            reason = f"it cannot be evaluated at the given times (variables: {', '.join(map(str, frame.columns))})"
            remedy = "name terms of these variables, for example 'Intercept', 'time', 'I(time ** 2)'"
            raise SpecificationError(f"the term {name!r}", reason, remedy, SEE) from error
        for column in found.columns:
            columns[str(column)] = np.asarray(found[column], dtype=np.float64)
    return pd.DataFrame(columns).rename_axis(columns="term")


def _without_rounding(values: Any, size: float) -> Any:
    """The values, with 0 for what is rounding error (or a negative zero) beside numbers of this size."""
    return np.where(np.abs(values) <= ROUNDING * size, 0.0, values)
