"""The collapsed log posterior and its gradient, compiled: β and b integrated out, θ on the unconstrained scale.

With ``D = L L'``, ``L = diag(sd) L_R``, Λ = B_z L/σ in working columns, ``Q = (S_w + G)/σ²`` and
``log|V| = N log σ² + Σ log|T|`` from `pattern_sums`, and a normal prior β ~ N(m, P⁻¹),

    H = Q_xx + P,  h = Q_xy + P m,  β̂ = H⁻¹h
    log p(y | θ) = -½ [ N log 2π + log|V| + log|H| - log|P| + Q_yy + m'Pm - h'H⁻¹h ]
    d log p = -½ ⟨Γ, dQ⟩ - ½ d log|V|,   Γ = [[H⁻¹ + β̂β̂', -β̂], [-β̂', 1]]

θ holds the standard deviations, each as its logarithm or, where the data allow a value near zero, as a signed number
u with sd = |u| times a fixed scale; Fisher's z of the canonical partial correlations c_ij of each block; and log σ.
With rows ``u_i L_R[i, :]`` D is smooth through u_i = 0, whereas log sd has a tail without end; a sign flips the
signs of a row of correlations, under which LKJ is symmetric, so that (|u|, corr) has the intended prior.
``L_R[i, j] = c_ij Π_{m<j} √(1 - c_im²)`` (Lewandowski, Kurowicka & Joe 2009, J. Multivar. Anal. 100, section 2); under
LKJ(η) the c_ij are independent with density ∝ (1 - c²)^(α - 1), α = η + (r - 2 - j)/2 in a block of size r.

Priors of standard deviations share one form, ``(a-1) log x - r x - ½ k x² - ½ (ν+1) log(1 + t x²)``: half-normal,
half-Student-t, half-Cauchy, exponential and gamma are choices of (a, r, k, ν+1, t).

Other forms of θ serve the same density. A compound-symmetric D has one s and one correlation, moved as the logit of u
with ``r = low + (1 - low) u``, ``low = -1/(q - 1)``; its factor ``L = s [√(q (1-u)/(q-1)) (I - J/q) + √(q u) J/q]`` is
symmetric, and u ~ Beta(a, b). Where somebody else has the priors, θ holds the entries of any factor F of D = F F' and
log σ, and between them perhaps β, which is then given: no longer integrated out, its Γ is γγ' with γ = (-β, 1).

Everything is packed into one vector of numbers (`Packed`), so that the function can be called through one pointer.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled, compiled_callback, cut
from hierlmm.likelihood.kernel import PatternSums, pattern_sums
from hierlmm.likelihood.triangles import cholesky, invert_triangle

HEADER = 9
"""Numbers before the arrays: total length, dim, q, P, K, N, number of sd parameters, constant of the log density, and
the form of θ."""
PARTIALS, COMMON, FACTOR, FACTOR_AND_BETA = 0.0, 1.0, 2.0, 3.0
"""Form of θ: standard deviations and partial correlations; one of each; entries of a factor of D; these and β."""
N_PRIOR = 6
"""Numbers of a prior: a, r, k, ν + 1, t, and the scale of a signed parameter (0: the parameter is a logarithm)."""


class Packed(NamedTuple):
    """Views into the packed vector; ``others`` is what another way to the sums needs, in the place of R and C."""

    centre: FloatArray
    root: FloatArray
    sd_index: FloatArray
    cpc_index: FloatArray
    alpha: FloatArray
    sd_prior: FloatArray
    sigma_prior: FloatArray
    Bz: FloatArray
    prior_precision: FloatArray
    prior_shift: FloatArray
    S_w: FloatArray
    weight: FloatArray
    R: FloatArray
    C: FloatArray
    others: FloatArray


def unpack(buffer: FloatArray) -> Packed:
    """Find the arrays in the packed vector."""
    m, q, P, K, n_sd = int(buffer[1]), int(buffer[2]), int(buffer[3]), int(buffer[4]), int(buffer[6])
    p = P - 1
    centre, rest = cut(buffer[HEADER:], 1, m)
    root, rest = cut(rest, m, m)
    sd_index, rest = cut(rest, 1, q)
    cpc_index, rest = cut(rest, q, q)
    alpha, rest = cut(rest, q, q)
    sd_prior, rest = cut(rest, n_sd, N_PRIOR)
    sigma_prior, rest = cut(rest, 1, N_PRIOR)
    Bz, rest = cut(rest, q, q)
    precision, rest = cut(rest, p, p)
    shift, rest = cut(rest, 1, p)
    S_w, rest = cut(rest, P, P)
    weight, rest = cut(rest, 1, K)
    R, rest = cut(rest, q * q, K)
    C, rest = cut(rest, q * P, K)
    ahead = (centre[0], root, sd_index[0], cpc_index, alpha, sd_prior, sigma_prior[0], Bz, precision, shift[0])
    return Packed(*ahead, S_w, weight[0], R.reshape((q, q, K)), C.reshape((q, P, K)), rest)


_unpack = compiled(inline="always")(unpack)


@compiled()
def factor_of_theta(
    theta: FloatArray,
    form: float,
    sd_index: FloatArray,
    cpc_index: FloatArray,
    scale: FloatArray,
    sd: FloatArray,
    LR: FloatArray,
    L: FloatArray,
) -> None:
    """Write (signed) standard deviations, a factor of the correlations, and L, a factor of D."""
    q = len(L)
    if form >= 2.0:
        for i in range(q):
            for j in range(q):
                L[i, j] = theta[i * q + j]
        return
    n_sd = len(scale)
    own = q // max(n_sd, 1)  # random effects that share a standard deviation (a marginal model has none)
    for i in range(q):
        k = int(sd_index[i])
        sd[i] = theta[k] * scale[k] if scale[k] > 0.0 else np.exp(theta[k])
        rest, contrasts, mean = 1.0, 0.0, 0.0
        if form == 1.0:
            u, v = 1.0 / (1.0 + np.exp(-theta[n_sd + k])), 1.0 / (1.0 + np.exp(theta[n_sd + k]))
            contrasts, mean = np.sqrt(own / (own - 1.0) * v), np.sqrt(own * u)
        for j in range(q):
            LR[i, j] = (mean - contrasts) / own if form == 1.0 and sd_index[j] == sd_index[i] else 0.0
        for j in range(i):
            index = int(cpc_index[i, j])
            if index >= 0:
                c = np.tanh(theta[index])
                LR[i, j] = c * rest
                # √(1 - tanh² z) = 1 / cosh z keeps its digits when c is near ±1.
                rest *= 1.0 / np.cosh(theta[index])
        LR[i, i] = LR[i, i] + contrasts if form == 1.0 else rest
        for j in range(q):
            L[i, j] = sd[i] * LR[i, j]


# Branches: the forms of θ, and loops over the entries of small matrices.
@compiled()
def pull_back_factor(
    theta: FloatArray,
    form: float,
    sd_index: FloatArray,
    cpc_index: FloatArray,
    alpha: FloatArray,
    scale: FloatArray,
    sd: FloatArray,
    LR: FloatArray,
    L: FloatArray,
    dL: FloatArray,
    gradient: FloatArray,
) -> float:
    """Write the derivative by θ from that by L; add that of the correlations' log prior, which is returned."""
    q, prior = len(L), 0.0
    if form >= 2.0:
        for i in range(q):
            for j in range(q):
                gradient[i * q + j] = dL[i, j]
        return prior
    for i in range(q):
        k = int(sd_index[i])
        for j in range(q):
            gradient[k] += dL[i, j] * (LR[i, j] * scale[k] if scale[k] > 0.0 else L[i, j])
    if form == 1.0:
        n_sd, a, b = len(scale), alpha[0, 0], alpha[0, 1]
        own = q // n_sd
        for k in range(n_sd):
            z = theta[n_sd + k]
            u, v = 1.0 / (1.0 + np.exp(-z)), 1.0 / (1.0 + np.exp(z))
            contrasts, mean = np.sqrt(own / (own - 1.0) * v), np.sqrt(own * u)
            for i in range(k * own, (k + 1) * own):
                for j in range(k * own, (k + 1) * own):
                    by_z = 0.5 * (v * mean + u * contrasts) / own
                    if i == j:
                        by_z -= 0.5 * u * contrasts
                    gradient[n_sd + k] += dL[i, j] * sd[i] * by_z
            gradient[n_sd + k] += a * v - b * u
            size = abs(z)  # log u and log(1 - u) without cancellation
            prior += -a * max(-z, 0.0) - b * max(z, 0.0) - (a + b) * np.log1p(np.exp(-size))
        return prior
    for i in range(q):
        rest = 1.0
        for j in range(i):
            index = int(cpc_index[i, j])
            if index >= 0:
                c = np.tanh(theta[index])
                sech = 1.0 / np.cosh(theta[index])
                s = dL[i, j] * sd[i] * rest * sech * sech
                for k in range(j + 1, i + 1):
                    s -= c * dL[i, k] * L[i, k]
                gradient[index] += s - 2.0 * alpha[i, j] * c
                prior += 2.0 * alpha[i, j] * np.log(sech)
                rest *= sech
    return prior


@compiled()
def positive_prior(value: float, prior: FloatArray) -> tuple[float, float]:
    """Log density of log x (Jacobian included), or of ±x over its scale, and its derivative."""
    signed = prior[5] > 0.0
    x = abs(value) * prior[5] if signed else np.exp(value)
    t = prior[4] * x * x
    log_density = -prior[1] * x - 0.5 * prior[2] * x * x - 0.5 * prior[3] * np.log1p(t)
    x_slope = -prior[1] * x - prior[2] * x * x - prior[3] * t / (1.0 + t)
    if not signed:
        return log_density + prior[0] * value, x_slope + prior[0]
    if prior[0] != 1.0:
        log_density += (prior[0] - 1.0) * np.log(x)
        x_slope += prior[0] - 1.0
    return log_density, x_slope / value if value != 0.0 else 0.0


@compiled()
def _factor_and_invert(H: FloatArray, inverse: FloatArray) -> float:
    """Invert a symmetric positive definite matrix, a work space; return its log determinant (NaN if it is not)."""
    if not cholesky(H):
        return np.nan
    p, log_det = len(H), 0.0
    for i in range(p):
        log_det += 2.0 * np.log(H[i, i])
    invert_triangle(H)
    for i in range(p):
        for j in range(i + 1):
            s = 0.0
            for k in range(i, p):
                s += H[k, i] * H[k, j]
            inverse[i, j] = s
            inverse[j, i] = s
    return log_det


@compiled(inline="always")
def sums_at(packed: Packed, Lambda: FloatArray) -> PatternSums:
    """What the data say at Λ; other designs have another function of this name."""
    return pattern_sums(packed.R, packed.C, packed.weight, Lambda)


# Long: one pass from the packed model to log density and gradient; its steps share work arrays, and a function for each
# would pass a dozen of them and take longer to compile.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(inline="always")
def _density(
    theta: FloatArray, gradient: FloatArray, buffer: FloatArray, Gamma: FloatArray, Lambda: FloatArray
) -> float:
    """Log posterior density of θ; its gradient, Γ (P, P) and Λ (q, q) are written."""
    packed = _unpack(buffer)
    q, P, N, form = int(buffer[2]), int(buffer[3]), buffer[5], buffer[8]
    p = P - 1
    sd, LR, L = np.empty(q), np.empty((q, q)), np.empty((q, q))
    scales = packed.sd_prior[:, 5]
    factor_of_theta(theta, form, packed.sd_index, packed.cpc_index, scales, sd, LR, L)
    sigma = np.exp(theta[-1])
    precision = 1.0 / (sigma * sigma)
    for i in range(q):
        for j in range(q):
            s = 0.0
            for k in range(i, q):
                s += packed.Bz[i, k] * L[k, j]
            Lambda[i, j] = s / sigma
    sums = sums_at(packed, Lambda)
    Q = (packed.S_w + sums.G) * precision
    H_inverse, beta = np.zeros((p, p)), np.zeros(p)
    log_det_H, quadratic = 0.0, Q[p, p]
    gradient[:] = 0.0
    if form == 3.0:
        for a in range(p):
            beta[a] = theta[q * q + a]
        for a in range(p):
            slope = Q[a, p]
            for b in range(p):
                slope -= Q[a, b] * beta[b]
            gradient[q * q + a] = slope
            quadratic -= beta[a] * (Q[a, p] + slope)
    else:
        log_det_H = _factor_and_invert(Q[:p, :p] + packed.prior_precision, H_inverse)
        for a in range(p):
            for b in range(p):
                beta[a] += H_inverse[a, b] * (Q[b, p] + packed.prior_shift[b])
        for a in range(p):
            quadratic -= beta[a] * (Q[a, p] + packed.prior_shift[a])
    value = buffer[7] - N * theta[-1] - 0.5 * (sums.log_det_T + log_det_H + quadratic)

    # Γ, then the derivatives with respect to log σ at fixed Λ, and to Λ.
    for a in range(p):
        for b in range(p):
            Gamma[a, b] = H_inverse[a, b] + beta[a] * beta[b]
        Gamma[a, p] = -beta[a]
        Gamma[p, a] = -beta[a]
    Gamma[p, p] = 1.0
    d_log_sigma = -N
    for a in range(P):
        for b in range(P):
            d_log_sigma += Gamma[a, b] * Q[a, b]
    gB = np.empty((q, q))
    for i in range(q):
        for j in range(i + 1):
            s = 0.0
            for a in range(P):
                for b in range(P):
                    s += sums.U[i, j, a, b] * Gamma[a, b]
            gB[i, j] = sums.EE[i, j] - s * precision
            gB[j, i] = gB[i, j]
    dLambda = np.empty((q, q))
    for i in range(q):
        for j in range(q):
            s = 0.0
            for k in range(q):
                s -= gB[i, k] * Lambda[k, j]
            dLambda[i, j] = s
            d_log_sigma -= s * Lambda[i, j]
    dL = np.empty((q, q))
    for i in range(q):
        for j in range(q):
            s = 0.0
            for k in range(i + 1):
                s += packed.Bz[k, i] * dLambda[k, j]
            dL[i, j] = s / sigma
    value += pull_back_factor(
        theta, form, packed.sd_index, packed.cpc_index, packed.alpha, scales, sd, LR, L, dL, gradient
    )
    for k in range(len(packed.sd_prior)):
        log_prior, slope = positive_prior(theta[k], packed.sd_prior[k])
        value += log_prior
        gradient[k] += slope
    log_prior, slope = positive_prior(theta[-1], packed.sigma_prior)
    gradient[-1] = d_log_sigma + slope
    return value + log_prior


@compiled(inline="always")
def from_whitened(z: FloatArray, centre: FloatArray, root: FloatArray) -> FloatArray:
    """``θ = centre + root z``."""
    theta = centre.copy()
    for i in range(len(z)):
        for j in range(len(z)):
            theta[i] += root[i, j] * z[j]
    return theta


@compiled(inline="always")
def to_whitened(value: float, d_theta: FloatArray, root: FloatArray, gradient: FloatArray) -> int:
    """Write the gradient by z; nutpie's status, 0 for success and a positive number for a recoverable failure."""
    for j in range(len(gradient)):
        gradient[j] = 0.0
        for i in range(len(gradient)):
            gradient[j] += root[i, j] * d_theta[i]
    return 0 if np.isfinite(value) and np.all(np.isfinite(gradient)) else 3


def _callback(dim, x_, gradient_, value_, data_):  # type: ignore[no-untyped-def]
    """Log density and gradient in whitened coordinates, ``θ = centre + root z``.

    Everything is inlined into this one function, because every compiled function that calls another costs its
    compilation again.
    """
    header = numba.carray(data_, (1,), np.float64)
    buffer = numba.carray(data_, (int(header[0]),), np.float64)
    m, q, P = int(buffer[1]), int(buffer[2]), int(buffer[3])
    z, gradient, value = numba.carray(x_, (m,)), numba.carray(gradient_, (m,)), numba.carray(value_, (1,))
    centre, rest = cut(buffer[HEADER:], 1, m)
    root, d_theta = cut(rest, m, m)[0], np.empty(m)
    theta = from_whitened(z, centre[0], root)
    value[0] = _density(theta, d_theta, buffer, np.empty((P, P)), np.empty((q, q)))
    return to_whitened(value[0], d_theta, root, gradient)


def _expand(dim, expanded, x_, out_, data_):  # type: ignore[no-untyped-def]
    """C entry point that hands z on as it is."""
    x = numba.carray(x_, (int(dim),))
    out = numba.carray(out_, (int(expanded),))
    for i in range(int(dim)):
        out[i] = x[i]
    return 0


@compiled()
def density_with_gamma(
    theta: FloatArray, gradient: FloatArray, buffer: FloatArray, Gamma: FloatArray, Lambda: FloatArray
) -> float:
    """The density as Python calls it where rows are whitened anew at every θ: see `collapsed_residual`."""
    return _density(theta, gradient, buffer, Gamma, Lambda)


@cache
def compiled_density() -> Any:
    """Compile the density to a C function (cached on disk) that needs no Python lock."""
    return compiled_callback(SIGNATURE, _callback)


def evaluate(z: FloatArray, buffer: FloatArray, density: Any = None) -> tuple[float, FloatArray]:
    """Log density and gradient at z in whitened coordinates; releases Python's lock while it works.

    ``density`` is another C function than that of this module.
    """
    gradient, value = np.empty(len(z)), np.empty(1)
    z = np.ascontiguousarray(z, dtype=np.float64)
    to_double = ctypes.POINTER(ctypes.c_double)
    pointers = (array.ctypes.data_as(to_double) for array in (z, gradient, value))
    status = (density or compiled_density()).ctypes(len(z), *pointers, buffer.ctypes.data)
    return (float(value[0]), gradient) if status == 0 else (-np.inf, np.zeros(len(z)))


@cache
def compiled_expand() -> Any:
    """Compile the identity to a C function."""
    return compiled_callback(_int64(_uint64, _uint64, _pointer, _pointer, _voidptr), _expand)


_int64, _uint64, _voidptr = numba.types.int64, numba.types.uint64, numba.types.voidptr
_pointer = numba.types.CPointer(numba.types.double)
SIGNATURE = _int64(_uint64, _pointer, _pointer, _pointer, _voidptr)
