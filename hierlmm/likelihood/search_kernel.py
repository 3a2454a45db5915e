"""The plain criterion compiled as a whole, for searches that evaluate it hundreds of times in a millisecond.

Same algebra as `criterion.Criterion` (which stays the reference, and polishes what is found here), up to a constant:

    f(λ) = n log rss + Σ log|T_i| + [log|Q_xx|],    Λ = Σ_m λ_m E_m

with E_m the ``basis`` of the structure of D. An evaluation costs `kernel.pattern_sums` and a Cholesky factor of order
P. All is one function with one call of the kernel inside: each further copy of it would cost seconds of compilation.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.compiled import compiled
from hierlmm.likelihood.kernel import PatternSums, pattern_sums
from hierlmm.likelihood.triangles import cholesky, invert_triangle

VALUES, PARTS, DESCEND = 0, 1, 2
MAX_STEPS = 120
MAX_HALVINGS = 30
SMALL_GRADIENT = 1e-3


@compiled(error_model="numpy")
def _gamma(L: FloatArray, V: FloatArray) -> FloatArray:
    """γ = (-β̂, 1) from the factor and the inverse of its leading triangle."""
    p = len(V)
    gamma = np.empty(p + 1)
    gamma[p] = 1.0
    for j in range(p):
        value = 0.0
        for i in range(j, p):
            value += L[p, i] * V[i, j]
        gamma[j] = -value
    return gamma


@compiled(error_model="numpy")
def _assemble(basis: FloatArray, lam: FloatArray) -> FloatArray:
    """Λ = Σ λ_m E_m."""
    m, q = basis.shape[0], basis.shape[1]
    Lambda = np.zeros((q, q))
    for k in range(m):
        for i in range(q):
            for j in range(q):
                Lambda[i, j] += lam[k] * basis[k, i, j]
    return Lambda


@compiled(error_model="numpy")
def _value(L: FloatArray, log_det_T: float, reml: bool, degrees: float) -> float:
    p = len(L) - 1
    value = 2.0 * degrees * np.log(L[p, p]) + log_det_T
    if reml:
        for j in range(p):
            value += 2.0 * np.log(L[j, j])
    return value


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy")
def _slopes(
    sums: PatternSums, gamma: FloatArray, V: FloatArray, reml: bool, by_rss: FloatArray, by_log_det: FloatArray
) -> None:
    """Write the derivatives by B = ΛΛ' of rss, −u γγ' u', and of the log-determinants, E'E − [u Q_xx⁻¹ u']: (q, q)."""
    q, P = len(by_rss), len(gamma)
    inverse = np.zeros((P, P))
    if reml:
        for a in range(P - 1):
            for b in range(P - 1):
                for k in range(max(a, b), P - 1):
                    inverse[a, b] += V[k, a] * V[k, b]
    for i in range(q):
        for j in range(q):
            rss, log_det = 0.0, sums.EE[i, j]
            for a in range(P):
                for b in range(P):
                    rss -= sums.U[i, j, a, b] * gamma[a] * gamma[b]
                    log_det -= sums.U[i, j, a, b] * inverse[a, b]
            by_rss[i, j], by_log_det[i, j] = rss, log_det


@compiled(error_model="numpy")
def _along(basis: FloatArray, matrix: FloatArray, out: FloatArray) -> None:
    """⟨E_m, matrix⟩ for every m."""
    for k in range(len(basis)):
        out[k] = 0.0
        for i in range(len(matrix)):
            for j in range(len(matrix)):
                out[k] += basis[k, i, j] * matrix[i, j]


@compiled(error_model="numpy")
def _largest(vector: FloatArray) -> float:
    size = 0.0
    for value in vector:
        size = max(size, abs(value))
    return size


@compiled(error_model="numpy")
def _direction(inverse: FloatArray, gradient: FloatArray, reach: float, full: bool, step: FloatArray) -> float:
    """Quasi-Newton step of at most ``reach`` (of just that, unless ``full``); returns the slope along it."""
    slope = 0.0
    for i in range(len(step)):
        step[i] = 0.0
        for j in range(len(step)):
            step[i] -= inverse[i, j] * gradient[j]
        slope += step[i] * gradient[i]
    ratio = reach / _largest(step)
    if full:
        ratio = min(ratio, 1.0)
    for i in range(len(step)):
        step[i] *= ratio
    return slope * ratio


@compiled(error_model="numpy")
def _update(inverse: FloatArray, step: FloatArray, old: FloatArray, new: FloatArray, scaled: bool) -> bool:
    """The BFGS update of the inverse Hessian, in place; whether it has been scaled by now."""
    m = len(step)
    change, product = np.empty(m), np.zeros(m)
    curvature, sizes, steps, quadratic = 0.0, 0.0, 0.0, 0.0
    for i in range(m):
        change[i] = new[i] - old[i]
        curvature += step[i] * change[i]
        sizes += change[i] * change[i]
        steps += step[i] * step[i]
    if not curvature > 1e-10 * np.sqrt(sizes * steps):
        return scaled
    for i in range(m):
        for j in range(m):
            if not scaled:
                inverse[i, j] = curvature / sizes if i == j else 0.0
            product[i] += inverse[i, j] * change[j]
        quadratic += product[i] * change[i]
    for i in range(m):
        for j in range(m):
            inverse[i, j] += (
                (1.0 + quadratic / curvature) * step[i] * step[j] - product[i] * step[j] - step[i] * product[j]
            ) / curvature
    return True


# Long: one call of the kernel serves values, parts and descents.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy")
def explore(
    R: FloatArray,
    C: FloatArray,
    weight: FloatArray,
    S_w: FloatArray,
    basis: FloatArray,
    reml: bool,
    degrees: float,
    points: FloatArray,
    what: int,
) -> tuple[FloatArray, FloatArray, int]:
    """Evaluate f at many points, or descend from each.

    Parameters
    ----------
    R, C, weight, S_w
        As in `crossproducts.CrossProducts`.
    basis : (m, q, q)
    reml : bool
    degrees : float
        n: N - p or N.
    points : (M, m)
        λ; for `PARTS` (M, 2m) with τ in front, where B = Σ τ_m E_m and the E_m are projections.
    what : int
        `VALUES`, `PARTS` or `DESCEND`: BFGS with halving of steps (Nocedal & Wright 2006, chapter 6).

    Returns
    -------
    found : (M, m)
        The points; `PARTS`: the gradients by τ of rss and of the log-determinants; `DESCEND`: where descents ended.
    values : (M,) or (M, 2)
        f, infinite where the factor fails, in the first column; `PARTS`: rss, and the log-determinants of f.
    calls : int
        Evaluations.
    """
    M, m, q, p = len(points), len(basis), basis.shape[1], len(S_w) - 1
    found, values, calls = points.copy(), np.empty((M, 2)), 0
    step, gradient, trial_gradient, inverse = np.empty(m), np.empty(m), np.empty(m), np.empty((m, m))
    by_rss, by_log_det, by_Lambda = np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    for s in range(M):
        value, slope, scaled, halvings, steps = np.inf, 0.0, False, 0, 0
        at = np.sqrt(points[s, :m]) if what == PARTS else points[s].copy()
        lam = at
        inverse[:] = 0.0
        for i in range(m):
            inverse[i, i] = 1.0
        while True:
            Lambda = _assemble(basis, at)
            sums = pattern_sums(R, C, weight, Lambda)
            L = S_w + sums.G
            exists = cholesky(L)
            calls += 1
            if what == VALUES:
                values[s, 0] = _value(L, sums.log_det_T, reml, degrees) if exists else np.inf
                break
            trial = _value(L, sums.log_det_T, reml, degrees) if exists else np.inf
            if what == DESCEND and steps > 0 and not (trial <= value + 1e-4 * slope and trial < value):
                halvings += 1
                if halvings == MAX_HALVINGS:
                    break
                step *= 0.5
                slope *= 0.5
                at = lam + step
                continue
            if exists:
                V = L[:p, :p].copy()
                invert_triangle(V)
                _slopes(sums, _gamma(L, V), V, reml, by_rss, by_log_det)
            if what == PARTS:
                values[s, 0] = values[s, 1] = np.inf
                if exists:
                    values[s, 0], values[s, 1] = L[p, p] ** 2, _value(L, sums.log_det_T, reml, 0.0)
                    _along(basis, by_rss, found[s, :m])
                    _along(basis, by_log_det, found[s, m:])
                break
            if not exists:
                break
            precision = degrees / (L[p, p] * L[p, p])
            for i in range(q):
                for j in range(q):
                    by_Lambda[i, j] = 0.0
                    for k in range(q):
                        by_Lambda[i, j] += 2.0 * (by_log_det[i, k] + precision * by_rss[i, k]) * Lambda[k, j]
            _along(basis, by_Lambda, trial_gradient)
            if steps > 0:
                scaled = _update(inverse, step, gradient, trial_gradient, scaled)
            gained, value, lam = value - trial, trial, at
            gradient[:] = trial_gradient
            steps, halvings = steps + 1, 0
            small = _largest(gradient) * max(1.0, _largest(lam)) < SMALL_GRADIENT * max(1.0, 1e-4 * abs(value))
            if small or steps > MAX_STEPS or (scaled and gained < 1e-9 * max(1.0, abs(value))):
                break
            slope = _direction(inverse, gradient, 0.3 * (0.5 + _largest(lam)), scaled, step)
            at = lam + step
        if what == DESCEND:
            values[s, 0], found[s] = value, lam
    return found, values, calls
