"""Posterior moments of b averaged over the draws of θ (Rao-Blackwell), subject by subject or by design pattern.

With F_i = R_i Λ, M_i M_i' = I + F_i'F_i, V = B_z⁻¹ Λ, γ = (-β̂, 1) and Σ = Cov(β | θ),

    E(b_i | θ) = K_i C_i γ,    Var(b_i | θ) = σ² V M_i⁻ᵀ M_i⁻¹ V' + (K_i C_i,x) Σ (K_i C_i,x)',
    K_i = V (M_i M_i')⁻¹ F_i'

in working columns, and E b = E[E(b | θ)], Var b = E[Var(b | θ)] + Var[E(b | θ)].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.posterior import Collapsed, Natural
from hierlmm.compiled import compiled
from hierlmm.likelihood.kernel import FAST
from hierlmm.likelihood.triangles import cholesky
from hierlmm.threads import in_blocks, in_threads

SHARED = 4
"""Subjects of one design pattern from which on their moments are computed together."""
TILE = 32
"""Subjects that `add_moments` takes at once: what they need stays in the nearest cache over all draws."""
BLOCK = 8 * TILE
"""Subjects of a piece of work."""


@compiled()
def subject_factor(R, Lambda, F, M):  # type: ignore[no-untyped-def]
    """F = R Λ and the lower Cholesky factor M of I + F'F, for one subject."""
    q = R.shape[0]
    for i in range(q):
        for j in range(q):
            s = 0.0
            for k in range(i, q):
                s += R[i, k] * Lambda[k, j]
            F[i, j] = s
    for i in range(q):
        for j in range(i + 1):
            M[i, j] = 1.0 if i == j else 0.0
            for k in range(q):
                M[i, j] += F[k, i] * F[k, j]
    cholesky(M)


@compiled()
def _gain(R, Lambda, V, F, M, A, gain, spread) -> None:  # type: ignore[no-untyped-def]
    """``gain = V (I + F'F)⁻¹ F'`` (q, q) and ``spread`` (q), the diagonal of ``V (I + F'F)⁻¹ V'``."""
    q = R.shape[0]
    subject_factor(R, Lambda, F, M)
    for i in range(q):  # rows of A = V M⁻ᵀ by forward substitution
        spread[i] = 0.0
        for k in range(q):
            t = V[i, k]
            for m in range(k):
                t -= A[i, m] * M[k, m]
            A[i, k] = t / M[k, k]
            spread[i] += A[i, k] * A[i, k]
    for i in range(q):  # A M⁻¹ by back substitution, in F's place afterwards
        for k in range(q - 1, -1, -1):
            t = A[i, k]
            for m in range(k + 1, q):
                t -= A[i, m] * M[m, k]
            A[i, k] = t / M[k, k]
        for m in range(q):
            t = 0.0
            for k in range(q):
                t += A[i, k] * F[m, k]
            gain[i, m] = t


# Long: the algebra of the opening, step by step on one tile whose work arrays the steps share.
# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled(fastmath=FAST, error_model="numpy")
def add_moments(  # type: ignore[no-untyped-def]
    R, C, Lambda, V, gamma, covariance, sigma, lo, hi, mean, second
) -> None:
    """Add, over draws lo:hi, each subject's mean of b and its second moment: (J, q)."""
    J, q = mean.shape
    p = C.shape[2] - 1
    r, c = np.empty((q, q, TILE)), np.empty((q, p + 1, TILE))
    F, M, A = np.empty((q, q, TILE)), np.empty((q, q, TILE)), np.empty((q, q, TILE))
    inverse, left, K = np.empty((q, TILE)), np.empty((q, TILE)), np.empty((p, TILE))
    gain, centre, variance = np.empty((q, TILE)), np.empty(TILE), np.empty(TILE)
    first, squares = np.empty((q, TILE)), np.empty((q, TILE))
    for j in range(0, J, TILE):
        n = min(TILE, J - j)
        for i in range(q):
            for t in range(n):
                first[i, t] = 0.0
                squares[i, t] = 0.0
            for k in range(q):
                for t in range(n):
                    r[i, k, t] = R[j + t, i, k]
            for a in range(p + 1):
                for t in range(n):
                    c[i, a, t] = C[j + t, i, a]
        for s in range(lo, hi):
            for i in range(q):  # F = R Λ, and what C_y - C_x β̂ leaves
                for k in range(q):
                    for t in range(n):
                        F[i, k, t] = r[i, i, t] * Lambda[s, i, k]
                    for m in range(i + 1, q):
                        for t in range(n):
                            F[i, k, t] += r[i, m, t] * Lambda[s, m, k]
                for t in range(n):
                    left[i, t] = c[i, p, t]
                for a in range(p):
                    for t in range(n):
                        left[i, t] += c[i, a, t] * gamma[s, a]
            for i in range(q):  # M M' = I + F'F; pivots inverted
                for k in range(i + 1):
                    unit = 1.0 if i == k else 0.0
                    for t in range(n):
                        M[i, k, t] = unit + F[0, i, t] * F[0, k, t]
                    for m in range(1, q):
                        for t in range(n):
                            M[i, k, t] += F[m, i, t] * F[m, k, t]
                    for m in range(k):
                        for t in range(n):
                            M[i, k, t] -= M[i, m, t] * M[k, m, t]
                    if i == k:
                        for t in range(n):
                            inverse[i, t] = 1.0 / np.sqrt(M[i, i, t])
                    else:
                        for t in range(n):
                            M[i, k, t] *= inverse[k, t]
            variance_of_row = sigma[s] * sigma[s]
            for i in range(q):
                for t in range(n):
                    variance[t] = 0.0
                for k in range(q):  # row i of A = V M⁻ᵀ by forward substitution
                    for t in range(n):
                        A[i, k, t] = V[s, i, k]
                    for m in range(k):
                        for t in range(n):
                            A[i, k, t] -= A[i, m, t] * M[k, m, t]
                    for t in range(n):
                        A[i, k, t] *= inverse[k, t]
                        variance[t] += A[i, k, t] * A[i, k, t] * variance_of_row
                for k in range(q - 1, -1, -1):  # of A M⁻¹ by back substitution
                    for m in range(k + 1, q):
                        for t in range(n):
                            A[i, k, t] -= A[i, m, t] * M[m, k, t]
                    for t in range(n):
                        A[i, k, t] *= inverse[k, t]
                for t in range(n):
                    centre[t] = 0.0
                for m in range(q):
                    for t in range(n):
                        gain[m, t] = A[i, 0, t] * F[m, 0, t]
                    for k in range(1, q):
                        for t in range(n):
                            gain[m, t] += A[i, k, t] * F[m, k, t]
                    for t in range(n):
                        centre[t] += gain[m, t] * left[m, t]
                for a in range(p):
                    for t in range(n):
                        K[a, t] = gain[0, t] * c[0, a, t]
                    for m in range(1, q):
                        for t in range(n):
                            K[a, t] += gain[m, t] * c[m, a, t]
                    for b in range(a + 1):
                        weight = covariance[s, a, a] if a == b else 2.0 * covariance[s, a, b]
                        for t in range(n):
                            variance[t] += weight * K[a, t] * K[b, t]
                for t in range(n):
                    first[i, t] += centre[t]
                    squares[i, t] += centre[t] * centre[t] + variance[t]
        for i in range(q):
            for t in range(n):
                mean[j + t, i] += first[i, t]
                second[j + t, i] += squares[i, t]


@compiled()
def _moments_shared(  # type: ignore[no-untyped-def]
    R, Lambda, V, gamma, covariance, sigma, lo, hi, linear, quadratic, constant
) -> None:
    """Add, over draws lo:hi, each pattern's linear and quadratic forms in C that give the same moments."""
    K, q, width = linear.shape
    P = width // q
    F, M, A, gain, spread = np.empty((q, q)), np.zeros((q, q)), np.empty((q, q)), np.empty((q, q)), np.empty(q)
    for k in range(K):
        for s in range(lo, hi):
            _gain(R[k], Lambda[s], V[s], F, M, A, gain, spread)
            for i in range(q):
                constant[k, i] += spread[i] * sigma[s] * sigma[s]
                for m in range(q):
                    for a in range(P):
                        linear[k, i, m * P + a] += gain[i, m] * gamma[s, a]
                        for n in range(q):
                            g = gain[i, m] * gain[i, n]
                            for c in range(P):
                                t = gamma[s, a] * gamma[s, c]
                                if a < P - 1 and c < P - 1:
                                    t += covariance[s, a, c]
                                quadratic[k, i, m * P + a, n * P + c] += g * t


def summarise_random_effects(posterior: Collapsed, natural: Natural) -> tuple[FloatArray, FloatArray]:
    """Posterior mean and SD of b, averaged over β analytically and over the draws of θ: (J, q), (J, q).

    With γ = (-β, 1), the conditional mean of b_i is linear in C_i γ, so that subjects of one design pattern share the
    averages over the draws: their cost then does not grow with their number.
    """
    products = posterior.products
    J, q, P = products.subject_C.shape
    Lambda, V, sigma = posterior.relative(natural.sd, natural.corr_factor, natural.sigma)
    S = len(sigma)
    gamma = np.column_stack([-natural.mean_working, np.ones(S)])
    fixed = (Lambda, V, gamma, natural.covariance_working, sigma)
    size = np.bincount(products.pattern)
    shared = np.flatnonzero(size >= SHARED)
    alone = np.flatnonzero(size[products.pattern] < SHARED)
    mean, second = np.empty((J, q)), np.empty((J, q))

    mean[alone], second[alone] = _each_subject(products.subject_R[alone], products.subject_C[alone], fixed)

    K, width = len(shared), q * P
    example = np.unique(products.pattern, return_index=True)[1][shared]
    R = products.subject_R[example]
    shapes = ((K, q, width), (K, q, width, width), (K, q))
    linear, quadratic, constant = averaged(S, shapes, lambda *own: _moments_shared(R, *fixed, *own))
    order = np.argsort(products.pattern, kind="stable")
    groups = np.split(order, np.cumsum(size)[:-1])
    for k, pattern in enumerate(shared):
        members = groups[pattern]
        flat = products.subject_C[members].reshape(len(members), width)
        mean[members] = flat @ linear[k].T
        second[members] = np.einsum("ja,iab,jb->ji", flat, quadratic[k], flat, optimize=True) + constant[k]
    return mean, np.sqrt(np.maximum(second - mean**2, 0.0))


def _each_subject(R: FloatArray, C: FloatArray, fixed: tuple[FloatArray, ...]) -> tuple[FloatArray, FloatArray]:
    """Mean and second moment of the b of subjects with R (J, q, q) and C (J, q, P): (J, q), (J, q)."""
    S, found = len(fixed[0]), np.zeros((2, *C.shape[:2]))

    def piece(lo: int, hi: int) -> None:
        add_moments(R[lo:hi], C[lo:hi], *fixed, 0, S, found[0, lo:hi], found[1, lo:hi])

    in_blocks(len(C), BLOCK, piece)
    found /= S
    return found[0], found[1]


def averaged(S: int, shapes: Sequence[tuple[int, ...]], add: Callable[..., None]) -> list[FloatArray]:
    """Means over S draws of what ``add(lo, hi, *arrays of these shapes)`` adds up over draws lo:hi."""

    def piece(lo: int, hi: int) -> list[FloatArray]:
        sums = [np.zeros(shape) for shape in shapes]
        add(lo, hi, *sums)
        return sums

    return [np.sum(parts, axis=0) / S for parts in zip(*in_threads(S, piece), strict=True)]
