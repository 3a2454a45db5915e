"""The collapsed log posterior with a built-in residual structure, compiled into one function.

What `collapsed_residual` computes through Python: serial correlations ``u Π d`` with ``d = ρ^gap``,
``d = exp(-gap/range)`` or ``d = 1``, dense ones by the Cholesky factors of `dense_kernel`, and variance functions whose
logarithm is linear, ``log g = w'η`` and a known part. A user's own class takes the Python route; both give the same
numbers.

The packed vector of `collapsed_kernel` comes first, its whitened rows a work space that every call copies; then come
the rows and the residual parameters' kinds, bounds and priors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import SIGNATURE, _density, _unpack, from_whitened, to_whitened
from hierlmm.bayes.dense_kernel import ANTE, GAUSSIAN, TABLES, TOEPLITZ, UNSTRUCTURED, dense_factors, dense_gradient
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.residual_priors import closed_form, log_prior_of_one
from hierlmm.compiled import compiled, compiled_callback, cut
from hierlmm.covariance.parameters import Parameter
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.likelihood.residual_rows import ResidualRows
from hierlmm.likelihood.rows import (
    dense_pull_back,
    dense_whiten,
    row_adjoints,
    serial_pull_back,
    serial_whiten,
)

NONE, POWER, DECAY, SHARE = 0.0, 1.0, 2.0, 3.0
"""No correlation; d = ρ^gap; d = exp(-gap/range); d = 1 and u = ρ."""
EXTRA = 14
"""Numbers before the structured part: length, N, c, J, kind, has nugget, residual parameters, of the variance; of a
dense structure: patterns, positions in all, numbers in their factors, positions of the table; and log|Σ/σ²| of known
weights, by which the rows are scaled already; and the number of groups with parameters of their own."""
KINDS = {
    "power": POWER,
    "decay": DECAY,
    "share": SHARE,
    "gaussian": GAUSSIAN,
    "toeplitz": TOEPLITZ,
    "unstructured": UNSTRUCTURED,
    "ante": ANTE,
}
"""By `ResidualCorrelation.kernel`."""
PER_PARAMETER = 6
"""Numbers of a residual parameter: lower, upper, unit, and (kind, a, b) of its prior on η."""


def pack_structured(
    rows: ResidualRows,
    residual: tuple[tuple[Parameter, Prior | None], ...],
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
    weights, known = np.zeros((len(residual) - k, N)), np.zeros(N)
    if rows.variance is not None:
        weights = rows.variance.centred_derivatives(np.zeros(len(residual) - k))
        known = rows.variance.centred_log_ratio(np.zeros(len(residual) - k))
    gaps = np.zeros(N) if correlation is None else correlation.gaps
    parameters = [[*p.moved, *prior] for (p, _), prior in zip(residual, priors, strict=True)]  # type: ignore[misc]
    dense = patterns, positions, _ = _patterns(rows)
    first, level = _groups(rows)
    parts = mode, root, np.array(parameters), rows.start, first, level, gaps, weights, rows.M * np.exp(-known), *dense
    body = np.concatenate([np.ravel(part) for part in parts])
    extra = [EXTRA + len(body), N, c, len(rows.start) - 1, kind, float(nugget), len(residual), len(weights)]
    packed = 0 if correlation is None else correlation.packed_size
    table = int(positions.max(initial=-1.0)) + 1 if kind in TABLES else 0
    extra += [len(patterns) // 3, len(positions), packed, table, 2.0 * float(known.sum()), len(first) - 1]
    return np.concatenate([buffer, extra, body])


def _patterns(rows: ResidualRows) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of a dense structure: (rows, subjects, group) of each pattern, all positions, places of the subjects' factors."""
    if rows.correlation is None or rows.correlation.is_serial:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    groups = rows.correlation.groups
    sizes = [
        np.column_stack([np.full(len(g.t), g.t.shape[1]), g.count, np.full(len(g.t), g.level)]).ravel() for g in groups
    ]
    positions = [g.t.ravel() for g in groups]
    return np.concatenate(sizes), np.concatenate(positions), rows.correlation.offset.astype(np.float64)


def _groups(rows: ResidualRows) -> tuple[FloatArray, FloatArray]:
    """Where the parameters of each group begin, and their end; which group each subject belongs to."""
    J = len(rows.start) - 1
    if rows.correlation is None:
        return np.zeros(2), np.zeros(J)
    levels = rows.correlation.levels
    first = np.array([levels[0].own.start, *(level.own.stop for level in levels)], dtype=np.float64)
    return first, np.argmax([level.rows[rows.start[:-1]] for level in levels], axis=0).astype(np.float64)


def _kind(rows: ResidualRows) -> float | None:
    if rows.correlation is None:
        return NONE
    spec = rows.correlation.spec
    kind = KINDS.get(spec.kernel)
    # A decay with a prior on a part of (0, 1) is moved as itself, no longer as its range.
    moved = any(
        type(level.spec.parameters(level.observed)[0]) is not type(rows.parameters[level.own.start])
        for level in rows.correlation.levels
    )
    return None if moved else kind


def _linear(rows: ResidualRows) -> bool:
    if rows.variance is None:
        return True
    free = all(np.isinf(p.upper) and (p.lower == 0.0 or np.isinf(p.lower)) for p in rows.variance.parameters)
    return free and rows.variance.spec._linear


# Long: whitening, density and their reverse in one compiled pass; split into helpers it took a fifth longer to compile.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def _structured(
    theta: FloatArray, gradient: FloatArray, base: FloatArray, extra: FloatArray, numbers: FloatArray
) -> float:
    """Log density at (θ, η) and its gradient, from the parts of the packed vector; NaN where R has no factor."""
    N, c, J, n_par, n_var = int(extra[1]), int(extra[2]), int(extra[3]), int(extra[6]), int(extra[7])
    kind, nugget, packed_size, table_size = extra[4], extra[5] > 0.0, int(extra[10]), int(extra[11])
    parameters, rest = cut(numbers, n_par, PER_PARAMETER)
    start_, rest = cut(rest, 1, J + 1)
    first_, rest = cut(rest, 1, int(extra[13]) + 1)
    level_, rest = cut(rest, 1, J)
    gaps_, rest = cut(rest, 1, N)
    weights, rest = cut(rest, n_var, N)
    rows, rest = cut(rest, c, N)
    patterns, rest = cut(rest, int(extra[8]), 3)
    positions_, rest = cut(rest, 1, int(extra[9]))
    start, gaps, positions, offset = start_[0].astype(np.int64), gaps_[0], positions_[0], rest.astype(np.int64)
    first, level = first_[0].astype(np.int64), level_[0].astype(np.int64)
    m, q, P = int(base[1]), int(base[2]), int(base[3])
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
    prior, log_det = 0.0, extra[12]
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
    u, d, tape = np.ones(N), np.ones(N), np.empty((3 + c, N))
    W, way_back = np.empty(packed_size), np.empty((0, 0, 0))
    if kind >= 4.0:
        found, way_back = dense_factors(kind, natural, first, patterns, positions, W, table_size)
        if not np.isfinite(found):
            return np.nan
        log_det += found
        dense_whiten(M, start, offset, W)
    elif kind > 0.0:
        for j in range(J):
            own_first = first[level[j]]
            reach = natural[own_first]
            for t in range(start[j], start[j + 1]):
                if kind == 3.0:
                    u[t] = reach
                elif kind == 2.0:
                    d[t] = np.exp(-gaps[t] / reach)
                else:
                    d[t] = reach ** gaps[t]
                if nugget:
                    u[t] = 1.0 - natural[own_first + 1]
        found = serial_whiten(M, start, u, d, tape)
        if np.isnan(found):
            return np.nan
        log_det += found
    work = M.copy()
    R, C, S_w = within_subject_qr(work[:q], work[q:], start, RANK_TOLERANCE)
    own = base.copy()
    packed = _unpack(own)
    for j in range(J):
        for i in range(q):
            for a in range(q):
                packed.R[i, a, j] = R[j, i, a]
            for a in range(P):
                packed.C[i, a, j] = C[j, i, a]
    packed.S_w[:] = S_w
    Gamma, Lambda = np.empty((P, P)), np.empty((q, q))
    value = _density(theta[:m], gradient[:m], own, Gamma, Lambda)
    Gamma *= np.exp(-2.0 * theta[m - 1])
    adjoint = row_adjoints(work, start, R, C, Lambda, Gamma)
    if kind >= 4.0:
        products = np.zeros(packed_size)
        dense_pull_back(adjoint, M, start, offset, W, products)
        by_natural = dense_gradient(kind, natural, first, patterns, positions, W, products, way_back)
        for j in range(k):
            by_eta[j] -= 0.5 * by_natural[j] * slope[j]
    elif kind > 0.0:
        u_adjoint, d_adjoint = serial_pull_back(adjoint, M, start, u, d, tape)
        for j in range(J):
            own_first = first[level[j]]
            reach, total, by_u = natural[own_first], 0.0, 0.0
            for t in range(start[j], start[j + 1]):
                by_u += u_adjoint[t]
                if kind == 2.0:
                    total += d_adjoint[t] * d[t] * gaps[t] / reach**2
                elif kind == 1.0 and gaps[t] == 1.0:
                    total += d_adjoint[t]
                elif kind == 1.0 and gaps[t] > 0.0:
                    total += d_adjoint[t] * gaps[t] * reach ** (gaps[t] - 1.0)
            by_eta[own_first] -= 0.5 * (by_u if kind == 3.0 else total) * slope[own_first]
            if nugget:
                by_eta[own_first + 1] += 0.5 * by_u * slope[own_first + 1]
    if n_var:
        for t in range(N):
            by_log_ratio = 2.0
            for a in range(c):
                by_log_ratio -= adjoint[a, t] * scaled[a, t]
            for j in range(n_var):
                by_eta[k + j] -= 0.5 * by_log_ratio * weights[j, t]
    gradient[m:] = by_eta
    return value + prior - 0.5 * log_det


def _callback(dim, x_, gradient_, value_, data_):  # type: ignore[no-untyped-def]
    """C entry point in whitened coordinates ``(θ, η) = mode + root z``."""
    n: Any = np.int64(dim)
    head = numba.carray(data_, (1,), np.float64)
    n_base = int(head[0])
    first = numba.carray(data_, (n_base + 1,), np.float64)
    flat = numba.carray(data_, (n_base + int(first[n_base]),), np.float64)
    mode, rest = cut(flat[n_base + EXTRA :], 1, n)
    root, rest = cut(rest, n, n)
    z, out, value = numba.carray(x_, (n,)), numba.carray(gradient_, (n,)), numba.carray(value_, (1,))
    theta, gradient = from_whitened(z, mode[0], root), np.empty(n)
    value[0] = _structured(theta, gradient, flat[:n_base], flat[n_base : n_base + EXTRA], rest)
    return to_whitened(value[0], gradient, root, out)


@cache
def compiled_structured() -> Any:
    """Compile the density to a C function (cached on disk) that needs no Python lock."""
    return compiled_callback(SIGNATURE, _callback)
