"""The collapsed log posterior with a built-in residual structure, compiled into one function.

What `collapsed_residual` computes through Python: serial correlations ``u Π d`` with ``d = ρ^gap``,
``d = exp(-gap/range)`` or ``d = 1``, dense ones by the Cholesky factors of `dense_kernel`, and variance functions whose
logarithm is linear, ``log g = w'η``. A user's own class takes the Python route; both give the same numbers.

The packed vector of `collapsed_kernel` comes first, its whitened rows a work space that every call copies; then come
the rows and the residual parameters' kinds, bounds and priors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import _density, _int64, _pointer, _uint64, _unpack, _voidptr
from hierlmm.bayes.dense_kernel import GAUSSIAN, TOEPLITZ, UNSTRUCTURED, dense_factors, dense_gradient
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.residual_priors import closed_form, log_prior_of_one
from hierlmm.compiled import compiled, compiled_callback
from hierlmm.covariance.parameters import Parameter
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.likelihood.residual_rows import ResidualRows
from hierlmm.likelihood.rows import (
    SMALLEST_PIVOT,
    dense_pull_back,
    dense_whiten,
    row_adjoints,
    serial_pull_back,
    serial_whiten,
)

NONE, POWER, DECAY, SHARE = 0.0, 1.0, 2.0, 3.0
"""No correlation; d = ρ^gap; d = exp(-gap/range); d = 1 and u = ρ."""
EXTRA = 12
"""Numbers before the structured part: length, N, c, J, kind, has nugget, residual parameters, of the variance; and of a
dense structure: patterns, positions in all, numbers in their factors, positions of the table."""
KINDS = {
    "power": POWER,
    "decay": DECAY,
    "share": SHARE,
    "gaussian": GAUSSIAN,
    "toeplitz": TOEPLITZ,
    "unstructured": UNSTRUCTURED,
}
"""By `ResidualCorrelation.kernel`."""
PER_PARAMETER = 6
"""Numbers of a residual parameter: lower, upper, unit, and (kind, a, b) of its prior on η."""


def pack_structured(
    rows: ResidualRows,
    residual: tuple[tuple[Parameter, Prior], ...],
    buffer: FloatArray,
    mode: FloatArray,
    root: FloatArray,
) -> FloatArray | None:
    """All numbers that the compiled function reads, or None where the structure or a prior has another form."""
    kind = _kind(rows)
    priors = [closed_form(p, prior) for p, prior in residual]
    if kind is None or any(prior is None for prior in priors) or not _linear(rows):
        return None
    k, c, N = rows.n_correlation, *rows.M.shape
    correlation = rows.correlation
    nugget = correlation is not None and correlation.spec.has_nugget
    weights = np.zeros((len(residual) - k, N))
    if rows.variance is not None:
        weights = rows.variance.centred_derivatives(np.zeros(len(residual) - k))
    gaps = np.zeros(N) if correlation is None else correlation.gaps
    parameters = [[*p.moved, *prior] for (p, _), prior in zip(residual, priors, strict=True)]  # type: ignore[misc]
    body = np.concatenate(
        [
            mode,
            root.ravel(),
            np.array(parameters).ravel(),
            rows.start.astype(np.float64),
            gaps,
            weights.ravel(),
            rows.M.ravel(),
            *(dense := _patterns(rows)),
        ]
    )
    extra = [EXTRA + len(body), N, c, len(rows.start) - 1, kind, float(nugget), len(residual), len(weights)]
    patterns, positions, _ = dense
    packed = 0 if correlation is None else correlation.packed_size
    table = int(positions.max(initial=-1.0)) + 1 if kind in (TOEPLITZ, UNSTRUCTURED) else 0
    extra += [len(patterns) // 2, len(positions), packed, table]
    return np.concatenate([buffer, extra, body])


def _patterns(rows: ResidualRows) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of a dense structure: (rows, subjects) of each pattern, all positions, and where each subject's factor lies."""
    if rows.correlation is None or rows.correlation.is_serial:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    groups = rows.correlation.groups
    sizes = [np.column_stack([np.full(len(g.t), g.t.shape[1]), g.count]).ravel() for g in groups]
    positions = [g.t.ravel() for g in groups]
    return np.concatenate(sizes), np.concatenate(positions), rows.correlation.offset.astype(np.float64)


def _kind(rows: ResidualRows) -> float | None:
    if rows.correlation is None:
        return NONE
    spec = rows.correlation.spec
    kind = KINDS.get(spec.kernel)
    # A decay with a prior on a part of (0, 1) is moved as itself, no longer as its range.
    moved = kind is not None and type(spec.parameters(rows.correlation.observed)[0]) is not type(rows.parameters[0])
    return None if moved else kind


def _linear(rows: ResidualRows) -> bool:
    if rows.variance is None:
        return True
    free = all(np.isinf(p.upper) and (p.lower == 0.0 or np.isinf(p.lower)) for p in rows.variance.parameters)
    return free and rows.variance.spec.linear


# Long: whitening, density and their reverse in one compiled pass; split into helpers it took a fifth longer to compile.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def _structured(
    theta: FloatArray,
    gradient: FloatArray,
    base: FloatArray,
    parameters: FloatArray,
    start: NDArray[np.int64],
    gaps: FloatArray,
    weights: FloatArray,
    rows: FloatArray,
    kind: float,
    nugget: bool,
    patterns: FloatArray,
    positions: FloatArray,
    offset: NDArray[np.int64],
    packed_size: int,
    table_size: int,
) -> float:
    """Log density at (θ, η) and its gradient; NaN where R is not positive definite."""
    m, q, P = int(base[1]), int(base[2]), int(base[3])
    c, N = rows.shape
    J, n_par, n_var = len(start) - 1, len(parameters), len(weights)
    k = n_par - n_var
    eta = theta[m:]
    natural, slope = np.empty(k), np.empty(k)
    for j in range(k):
        lower, upper = parameters[j, 0], parameters[j, 1]
        if np.isinf(upper):
            slope[j] = parameters[j, 2] * np.exp(eta[j])
            natural[j] = lower + slope[j]
        else:
            p = 1.0 / (1.0 + np.exp(-eta[j]))
            natural[j] = lower + (upper - lower) * p
            slope[j] = (upper - lower) * p / (1.0 + np.exp(eta[j]))
    prior, log_det = 0.0, 0.0
    by_eta = np.zeros(n_par)
    for j in range(n_par):
        own_prior, by_eta[j] = log_prior_of_one(parameters[j, 3], parameters[j, 4], parameters[j, 5], eta[j])
        prior += own_prior
    M = rows.copy()
    if n_var:
        for t in range(N):
            log_ratio = 0.0
            for j in range(n_var):
                log_ratio += eta[k + j] * weights[j, t]
            if not abs(log_ratio) < 200.0:
                return np.nan
            log_det += 2.0 * log_ratio
            factor = np.exp(-log_ratio)
            for a in range(c):
                M[a, t] *= factor
    scaled = M.copy()
    u = 1.0
    d, S, D, w = np.ones(N), np.empty(N), np.empty(N), np.empty(N)
    F = np.empty((c, N))
    W = np.empty(packed_size)
    table, factor = np.zeros((table_size, table_size)), np.zeros((table_size, table_size))
    slopes = np.zeros((k, table_size))
    if kind >= 4.0:
        found = dense_factors(kind, natural, nugget, patterns, positions, SMALLEST_PIVOT, W, table, factor, slopes)
        if not np.isfinite(found):
            return np.nan
        log_det += found
        dense_whiten(M, start, offset, W)
    elif kind > 0.0:
        if kind == 3.0:
            u = natural[0]
        elif kind == 2.0:
            for t in range(N):
                d[t] = np.exp(-gaps[t] / natural[0])
        else:
            for t in range(N):
                d[t] = natural[0] ** gaps[t]
        if nugget:
            u = 1.0 - natural[1]
        found = serial_whiten(M, start, u, d, S, D, w, F)
        if np.isnan(found) or not D.min() > SMALLEST_PIVOT:
            return np.nan
        log_det += found
    work = M.copy()
    U, rest = work[:q], work[q:]
    R, C, S_w = within_subject_qr(U, rest, start, RANK_TOLERANCE)
    own = base.copy()
    packed = _unpack(own)
    for j in range(J):
        for i in range(q):
            for a in range(q):
                packed.R[i, a, j] = R[j, i, a]
            for a in range(P):
                packed.C[i, a, j] = C[j, i, a]
    for a in range(P):
        for b_ in range(P):
            packed.S_w[a, b_] = S_w[a, b_]
    Gamma, Lambda = np.empty((P, P)), np.empty((q, q))
    value = _density(theta[:m], gradient[:m], own, Gamma, Lambda)
    precision = np.exp(-2.0 * theta[m - 1])
    for a in range(P):
        for b_ in range(P):
            Gamma[a, b_] *= precision
    adjoint = np.empty((c, N))
    row_adjoints(U, rest, start, R, C, Lambda, Gamma, adjoint)
    if kind >= 4.0:
        products = np.zeros(packed_size)
        dense_pull_back(adjoint, M, start, offset, W, products)
        by_natural = np.zeros(k)
        dense_gradient(kind, natural, nugget, patterns, positions, W, products, factor, slopes, by_natural)
        for j in range(k):
            by_eta[j] -= 0.5 * by_natural[j] * slope[j]
    elif kind > 0.0:
        d_adjoint = np.empty(N)
        u_adjoint = serial_pull_back(adjoint, M, start, u, d, S, D, w, F, d_adjoint)
        total = 0.0
        if kind == 3.0:
            total = u_adjoint
        elif kind == 2.0:
            for t in range(N):
                total += d_adjoint[t] * d[t] * gaps[t]
            total /= natural[0] ** 2
        else:
            for t in range(N):
                if gaps[t] == 1.0:
                    total += d_adjoint[t]
                elif gaps[t] > 0.0:
                    total += d_adjoint[t] * gaps[t] * natural[0] ** (gaps[t] - 1.0)
        by_eta[0] -= 0.5 * total * slope[0]
        if nugget:
            by_eta[1] += 0.5 * u_adjoint * slope[1]
    if n_var:
        for t in range(N):
            by_log_ratio = 2.0
            for a in range(c):
                by_log_ratio -= adjoint[a, t] * scaled[a, t]
            for j in range(n_var):
                by_eta[k + j] -= 0.5 * by_log_ratio * weights[j, t]
    for j in range(n_par):
        gradient[m + j] = by_eta[j]
    return value + prior - 0.5 * log_det


# Long: it only unpacks the packed model, one line for each part, and hands the parts on.
def _callback(dim, x_, gradient_, value_, data_):  # type: ignore[no-untyped-def]
    """C entry point in whitened coordinates ``(θ, η) = mode + root z``; 3 is a recoverable failure."""
    head = numba.carray(data_, (1,), np.float64)
    n_base = int(head[0])
    first = numba.carray(data_, (n_base + EXTRA,), np.float64)
    n = int(dim)
    flat = numba.carray(data_, (n_base + int(first[n_base]),), np.float64)
    base = flat[:n_base]
    N, c, J = int(first[n_base + 1]), int(first[n_base + 2]), int(first[n_base + 3])
    kind, nugget = first[n_base + 4], first[n_base + 5] > 0.0
    n_par, n_var = int(first[n_base + 6]), int(first[n_base + 7])
    at = n_base + EXTRA
    mode = flat[at : at + n]
    at += n
    root = flat[at : at + n * n].reshape((n, n))
    at += n * n
    parameters = flat[at : at + PER_PARAMETER * n_par].reshape((n_par, PER_PARAMETER))
    at += PER_PARAMETER * n_par
    start = np.empty(J + 1, np.int64)
    for j in range(J + 1):
        start[j] = int(flat[at + j])
    at += J + 1
    gaps = flat[at : at + N]
    at += N
    weights = flat[at : at + n_var * N].reshape((n_var, N))
    at += n_var * N
    rows = flat[at : at + c * N].reshape((c, N))
    at += c * N
    n_patterns, n_positions = int(first[n_base + 8]), int(first[n_base + 9])
    packed_size, table_size = int(first[n_base + 10]), int(first[n_base + 11])
    patterns = flat[at : at + 2 * n_patterns].reshape((n_patterns, 2))
    at += 2 * n_patterns
    positions = flat[at : at + n_positions]
    at += n_positions
    offset = np.zeros(J, np.int64)
    if n_patterns > 0:
        for j in range(J):
            offset[j] = int(flat[at + j])
    z, out, value = numba.carray(x_, (n,)), numba.carray(gradient_, (n,)), numba.carray(value_, (1,))
    theta, gradient = np.empty(n), np.empty(n)
    for i in range(n):
        theta[i] = mode[i]
        for j in range(n):
            theta[i] += root[i, j] * z[j]
    value[0] = _structured(
        theta,
        gradient,
        base,
        parameters,
        start,
        gaps,
        weights,
        rows,
        kind,
        nugget,
        patterns,
        positions,
        offset,
        packed_size,
        table_size,
    )
    for j in range(n):
        out[j] = 0.0
        for i in range(n):
            out[j] += root[i, j] * gradient[i]
    if not np.isfinite(value[0]) or not np.all(np.isfinite(out)):
        return 3
    return 0


@cache
def compiled_structured() -> Any:
    """Compile the density to a C function (cached on disk) that needs no Python lock."""
    signature = _int64(_uint64, _pointer, _pointer, _pointer, _voidptr)
    return compiled_callback(signature, _callback)
