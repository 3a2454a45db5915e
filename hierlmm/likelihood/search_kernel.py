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

VALUES, PARTS, DESCEND = 0, 1, 2
MAX_STEPS = 120
MAX_HALVINGS = 30
SMALL_GRADIENT = 1e-3


@compiled(error_model="numpy")
def _factor(S_w: FloatArray, G: FloatArray) -> tuple[FloatArray, bool]:
    """Lower Cholesky factor of S_w + G, and whether it exists."""
    P = len(S_w)
    L = np.empty((P, P))
    for j in range(P):
        for i in range(P):
            L[i, j] = S_w[i, j] + G[i, j]
    for j in range(P):
        pivot = L[j, j]
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
        if not pivot > 0.0:
            return L, False
        L[j, j] = np.sqrt(pivot)
        for i in range(j + 1, P):
            value = L[i, j]
            for k in range(j):
                value -= L[i, k] * L[j, k]
            L[i, j] = value / L[j, j]
    return L, True


@compiled(error_model="numpy")
def _inverse(L: FloatArray, p: int) -> FloatArray:
    """Inverse of the leading (p, p) triangle of L."""
    V = np.zeros((p, p))
    for j in range(p):
        V[j, j] = 1.0 / L[j, j]
        for i in range(j + 1, p):
            value = 0.0
            for k in range(j, i):
                value -= L[i, k] * V[k, j]
            V[i, j] = value / L[i, i]
    return V


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


@compiled(error_model="numpy")
def _slopes(
    sums: PatternSums, basis: FloatArray, gamma: FloatArray, V: FloatArray, reml: bool, out: FloatArray
) -> None:
    """Gradients of rss, −⟨E_m, u γγ' u'⟩, and of the log-determinants by τ, where B = Σ τ_m E_m: (2m,)."""
    m, q, P = basis.shape[0], basis.shape[1], len(gamma)
    for k in range(2 * m):
        out[k] = 0.0
    for i in range(q):
        for j in range(q):
            share, more = 0.0, sums.EE[i, j]
            for a in range(P):
                for b in range(P):
                    share += sums.U[i, j, a, b] * gamma[a] * gamma[b]
                    if reml and a < P - 1 and b < P - 1:
                        for r in range(max(a, b), P - 1):
                            more -= sums.U[i, j, a, b] * V[r, a] * V[r, b]
            for k in range(m):
                out[k] -= basis[k, i, j] * share
                out[m + k] += basis[k, i, j] * more


# The branches are the loops of two matrix products and a trace.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(error_model="numpy")
def _gradient(
    sums: PatternSums,
    basis: FloatArray,
    Lambda: FloatArray,
    gamma: FloatArray,
    V: FloatArray,
    reml: bool,
    precision: float,
    out: FloatArray,
) -> None:
    """Gradient of f by λ, as in `criterion.Criterion.evaluate_at`."""
    m, q, P = basis.shape[0], basis.shape[1], len(gamma)
    p = P - 1
    Gamma = np.empty((P, P))
    for a in range(P):
        for b in range(P):
            Gamma[a, b] = precision * gamma[a] * gamma[b]
    if reml:
        for a in range(p):
            for b in range(p):
                for k in range(max(a, b), p):
                    Gamma[a, b] += V[k, a] * V[k, b]
    by_B = np.empty((q, q))
    for i in range(q):
        for j in range(q):
            value = sums.EE[i, j]
            for a in range(P):
                for b in range(P):
                    value -= sums.U[i, j, a, b] * Gamma[a, b]
            by_B[i, j] = value
    for k in range(m):
        total = 0.0
        for i in range(q):
            for j in range(q):
                if basis[k, i, j] != 0.0:
                    for r in range(q):
                        total += 2.0 * basis[k, i, j] * by_B[i, r] * Lambda[r, j]
        out[k] = total


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
    M, m, p = len(points), len(basis), len(S_w) - 1
    found, values, calls = points.copy(), np.empty((M, 2)), 0
    lam, step, gradient, trial_gradient = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    at, inverse = np.empty(m), np.empty((m, m))
    for s in range(M):
        value, slope, scaled, halvings, steps = np.inf, 0.0, False, 0, 0
        for i in range(m):
            lam[i] = np.sqrt(points[s, i]) if what == PARTS else points[s, i]
            step[i] = 0.0
            for j in range(m):
                inverse[i, j] = 1.0 if i == j else 0.0
        while True:
            for i in range(m):
                at[i] = lam[i] + step[i]
            Lambda = _assemble(basis, at)
            sums = pattern_sums(R, C, weight, Lambda)
            L, exists = _factor(S_w, sums.G)
            calls += 1
            if what != DESCEND:
                if not exists:
                    values[s, 0] = values[s, 1] = np.inf
                elif what == VALUES:
                    values[s, 0] = _value(L, sums.log_det_T, reml, degrees)
                else:
                    values[s, 0] = L[p, p] ** 2
                    values[s, 1] = _value(L, sums.log_det_T, reml, 0.0)
                    V = _inverse(L, p)
                    _slopes(sums, basis, _gamma(L, V), V, reml, found[s])
                break
            trial = np.inf
            if exists:
                trial = _value(L, sums.log_det_T, reml, degrees)
            if steps > 0 and not (trial <= value + 1e-4 * slope and trial < value):
                halvings += 1
                if halvings == MAX_HALVINGS:
                    break
                for i in range(m):
                    step[i] *= 0.5
                slope *= 0.5
                continue
            if not exists:
                break
            V = _inverse(L, p)
            _gradient(sums, basis, Lambda, _gamma(L, V), V, reml, degrees / (L[p, p] * L[p, p]), trial_gradient)
            if steps > 0:
                scaled = _update(inverse, step, gradient, trial_gradient, scaled)
            gained, value = value - trial, trial
            for i in range(m):
                lam[i] = at[i]
                gradient[i] = trial_gradient[i]
            steps, halvings = steps + 1, 0
            small = _largest(gradient) * max(1.0, _largest(lam)) < SMALL_GRADIENT * max(1.0, 1e-4 * abs(value))
            if small or steps > MAX_STEPS or (scaled and gained < 1e-9 * max(1.0, abs(value))):
                break
            slope = _direction(inverse, gradient, 0.3 * (0.5 + _largest(lam)), scaled, step)
        if what == DESCEND:
            values[s, 0] = value
            for i in range(m):
                found[s, i] = lam[i]
    return found, values, calls
