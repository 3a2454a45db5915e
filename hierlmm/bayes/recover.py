"""β and b after θ was sampled: exact draws from their conditional distributions, and Rao-Blackwell summaries.

    β | y, θ ~ N(β̂, H⁻¹),     b_i | y, β, θ ~ N(V M_i⁻ᵀ M_i⁻¹ F_i'(C_i,y - C_i,x β), σ² V M_i⁻ᵀ M_i⁻¹ V')

in working columns, with F_i = R_i Λ, M_i M_i' = I + F_i'F_i and V = B_z⁻¹ Λ. One (β, b) per draw of θ makes the joint
draws exact. Where J times the number of draws is large, the posterior mean and SD of b are averaged over the draws
analytically instead (Rao-Blackwell): E b = E[E(b | θ)], Var b = E[Var(b | θ)] + Var[E(b | θ)].

`recover_residual` does the same where (θ, η) was sampled, with the rows whitened anew for every draw of η:

    β | y, θ, η ~ N(H⁻¹h, H⁻¹),     H = Q_xx + P,  h = Q_xy + P m,     Q from the rows whitened by Σ_i(η)

The whitened rows have the SD σ exp(shift(η)); σ is that where the variance ratio is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.posterior import Collapsed, Natural
from hierlmm.compiled import compiled
from hierlmm.errors import DataError
from hierlmm.likelihood.kernel import pattern_sums
from hierlmm.likelihood.residual_rows import ResidualRows, Whitened
from hierlmm.likelihood.triangles import cholesky
from hierlmm.threads import in_threads

FEW = 400_000
"""Number of values of b up to which numpy draws them."""
SHARED = 4
"""Subjects of one design pattern from which on their moments are computed together."""


def recover_beta(posterior: Collapsed, theta: FloatArray, rng: np.random.Generator) -> Natural:
    """Draw β given each θ.

    Parameters
    ----------
    posterior : Collapsed
    theta : (S, m)
    """
    products, p = posterior.products, posterior.products.n_fixed
    S = len(theta)
    sd, factor, sigma = posterior.natural(theta)
    given = posterior.given_beta(theta)
    if given is not None:
        return Natural(products.scaling.beta(given), sd, factor, sigma, given, given, np.zeros((S, p, p)))
    Q = products.S_w + posterior.squares(posterior.relative(sd, factor, sigma)[0])
    Q *= ((products.scaling.y_scale / sigma) ** 2)[:, None, None]
    packed, scaling = unpack(posterior.buffer), products.scaling
    covariance = np.linalg.inv(Q[:, :p, :p] + packed.prior_precision)
    mean = np.einsum("sab,sb->sa", covariance, Q[:, :p, p] + packed.prior_shift)
    noise = rng.standard_normal((S, p))
    working = mean + np.einsum("sab,sb->sa", np.linalg.cholesky(covariance), noise)
    beta = scaling.beta(working) if p else working
    return Natural(beta, sd, factor, sigma, working, mean, covariance)


@compiled()
def _subject_factor(R, Lambda, F, M):  # type: ignore[no-untyped-def]
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


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def _draw_b(R, C, Lambda, V, beta, sigma, noise, out, lo, hi) -> None:  # type: ignore[no-untyped-def]
    J, q = out.shape[1], out.shape[2]
    p = C.shape[2] - 1
    F, M, x = np.empty((q, q)), np.zeros((q, q)), np.empty(q)
    for s in range(lo, hi):
        for j in range(J):
            _subject_factor(R[j], Lambda[s], F, M)
            for i in range(q):
                x[i] = 0.0
            for k in range(q):  # x = F'(C_y - C_x β)
                r = C[j, k, p]
                for a in range(p):
                    r -= C[j, k, a] * beta[s, a]
                for i in range(q):
                    x[i] += F[k, i] * r
            for i in range(q):  # x = M⁻¹ x + σ ε
                for k in range(i):
                    x[i] -= M[i, k] * x[k]
                x[i] /= M[i, i]
            for i in range(q):
                x[i] += sigma[s] * noise[s - lo, j, i]
            for i in range(q - 1, -1, -1):  # x = M⁻ᵀ x
                for k in range(i + 1, q):
                    x[i] -= M[k, i] * x[k]
                x[i] /= M[i, i]
            for i in range(q):
                total = 0.0
                for k in range(q):
                    total += V[s, i, k] * x[k]
                out[s, j, i] = total


def draw_random_effects(posterior: Collapsed, natural: Natural, rng: np.random.Generator) -> FloatArray:
    """Draw b given each (β, θ): (S, J, q), in the user's units.

    Few draws are made by numpy, many by the compiled loop: the first fit on a machine then waits a second less.
    """
    products = posterior.products
    S, (J, q, _) = len(natural.sigma), products.subject_R.shape
    Lambda, V, sigma = posterior.relative(natural.sd, natural.corr_factor, natural.sigma)
    data = (products.subject_R, products.subject_C, Lambda, V, natural.beta_working, sigma)
    step = max(1, 2_000_000 // max(1, J * q))  # keeps the noise of one piece below 16 MB
    streams = rng.spawn(-(-S // step))
    out = np.empty((S, J, q))

    def pieces(first: int, last: int) -> None:
        for k in range(first, last):
            lo, hi = k * step, min(S, (k + 1) * step)
            noise = streams[k].standard_normal((hi - lo, J, q))
            if S * J * q <= FEW:
                out[:] = _draw_b_numpy(*data, noise)
            else:
                _draw_b(*data, noise, out, lo, hi)

    in_threads(len(streams), pieces)
    return out


def _draw_b_numpy(R, C, Lambda, V, beta, sigma, noise) -> FloatArray:  # type: ignore[no-untyped-def]
    """What `_draw_b` does, for all draws at once."""
    p = C.shape[2] - 1
    F = R @ Lambda[:, None]
    transposed = np.swapaxes(F, -1, -2)
    M = np.linalg.cholesky(np.eye(F.shape[-1]) + transposed @ F)
    residual = C[:, :, p] - np.einsum("jka,sa->sjk", C[:, :, :p], beta)
    x = np.linalg.solve(M, transposed @ residual[..., None]) + sigma[:, None, None, None] * noise[..., None]
    return (V[:, None] @ np.linalg.solve(np.swapaxes(M, -1, -2), x))[..., 0]


@compiled()
def _gain(R, Lambda, V, F, M, A, gain, spread) -> None:  # type: ignore[no-untyped-def]
    """``gain = V (I + F'F)⁻¹ F'`` (q, q) and ``spread`` (q), the diagonal of ``V (I + F'F)⁻¹ V'``."""
    q = R.shape[0]
    _subject_factor(R, Lambda, F, M)
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


@compiled()
def _moments_single(  # type: ignore[no-untyped-def]
    R, C, Lambda, V, gamma, covariance, sigma, lo, hi, mean, second
) -> None:
    """Add, over draws lo:hi, each subject's mean of b and its second moment."""
    J, q = mean.shape
    p = C.shape[2] - 1
    F, M, A, gain, spread = np.empty((q, q)), np.zeros((q, q)), np.empty((q, q)), np.empty((q, q)), np.empty(q)
    K = np.empty(p)
    for j in range(J):
        for s in range(lo, hi):
            _gain(R[j], Lambda[s], V[s], F, M, A, gain, spread)
            for i in range(q):
                centre, variance = 0.0, spread[i] * sigma[s] * sigma[s]
                for a in range(p):
                    K[a] = 0.0
                for m in range(q):
                    for a in range(p):
                        K[a] += gain[i, m] * C[j, m, a]
                    centre += gain[i, m] * C[j, m, p]
                for a in range(p):
                    centre += K[a] * gamma[s, a]
                    t = 0.0
                    for c in range(p):
                        t += covariance[s, a, c] * K[c]
                    variance += K[a] * t
                mean[j, i] += centre
                second[j, i] += centre * centre + variance


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

    R, C = products.subject_R[alone], products.subject_C[alone]
    two = 2 * [(len(alone), q)]
    mean[alone], second[alone] = _averaged(S, two, lambda *own: _moments_single(R, C, *fixed, *own))

    K, width = len(shared), q * P
    example = np.unique(products.pattern, return_index=True)[1][shared]
    R = products.subject_R[example]
    shapes = ((K, q, width), (K, q, width, width), (K, q))
    linear, quadratic, constant = _averaged(S, shapes, lambda *own: _moments_shared(R, *fixed, *own))
    order = np.argsort(products.pattern, kind="stable")
    groups = np.split(order, np.cumsum(size)[:-1])
    for k, pattern in enumerate(shared):
        members = groups[pattern]
        flat = products.subject_C[members].reshape(len(members), width)
        mean[members] = flat @ linear[k].T
        second[members] = np.einsum("ja,iab,jb->ji", flat, quadratic[k], flat, optimize=True) + constant[k]
    return mean, np.sqrt(np.maximum(second - mean**2, 0.0))


def _averaged(S: int, shapes: Sequence[tuple[int, ...]], add: Callable[..., None]) -> list[FloatArray]:
    """Means over S draws of what ``add(lo, hi, *arrays of these shapes)`` adds up over draws lo:hi."""

    def piece(lo: int, hi: int) -> list[FloatArray]:
        sums = [np.zeros(shape) for shape in shapes]
        add(lo, hi, *sums)
        return sums

    return [np.sum(parts, axis=0) / S for parts in zip(*in_threads(S, piece), strict=True)]


STREAMS = 2
"""Streams of random numbers for b, each of an equal share of the draws, however many threads there are."""


def recover_residual(
    posterior: Collapsed, rows: ResidualRows, theta: FloatArray, rng: np.random.Generator, random_effects: str
) -> tuple[Natural, FloatArray | None, tuple[FloatArray, FloatArray] | None]:
    """Draw β and b given each (θ, η), or average b over the draws.

    Parameters
    ----------
    posterior : Collapsed
    rows : ResidualRows
        Whose residual parameters η are.
    theta : (S, m)
        Draws of (θ, η).
    rng : numpy.random.Generator
    random_effects : {"draws", "summary", "none"}

    Returns
    -------
    Natural, and draws of b (S, J, q) or their mean and SD
    """
    S, m = len(theta), posterior.n_theta
    products, packed = posterior.products, unpack(posterior.buffer)
    p, (J, q, _) = products.n_fixed, products.subject_C.shape
    base, eta = np.ascontiguousarray(theta[:, :m]), theta[:, m:]
    sd, factor, sigma = posterior.natural(base)
    Lambda, V, working_sigma = posterior.relative(sd, factor, sigma)
    working, mean, covariance = np.empty((S, p)), np.empty((S, p)), np.zeros((S, p, p))
    given = posterior.given_beta(theta)
    if given is not None:
        working[:] = mean[:] = given
    noise = rng.standard_normal((S, p))
    streams = rng.spawn(STREAMS)
    b = None
    if random_effects == "draws" and q:
        b = np.empty((S, J, q))
        for stream, part in zip(streams, np.split(b, [S // STREAMS]), strict=True):
            stream.standard_normal(out=part)  # deviates, which the draws replace one by one
    summed = random_effects == "summary" and q > 0

    def piece(lo: int, hi: int, *totals: FloatArray) -> None:
        for s in range(lo, hi):
            own, one = _whitened(rows, eta[s]).products, slice(s, s + 1)
            data = (own.subject_R, own.subject_C, Lambda[one], V[one])
            if given is None:
                Q = own.S_w + pattern_sums(own.R, own.C, own.weight, Lambda[s]).G
                Q = Q / working_sigma[s] ** 2
                covariance[s] = np.linalg.inv(Q[:p, :p] + packed.prior_precision)
                mean[s] = covariance[s] @ (Q[:p, p] + packed.prior_shift)
                working[s] = mean[s] + np.linalg.cholesky(covariance[s]) @ noise[s] if p else mean[s]
            if b is not None:
                _draw_b(*data, working[one], working_sigma[one], b[one], b[one], 0, 1)
            elif summed:
                gamma = np.append(-mean[s], 1.0)[None]
                _moments_single(*data, gamma, covariance[one], working_sigma[one], 0, 1, *totals)

    first, second = _averaged(S, 2 * [(J, q)], piece)
    beta = products.scaling.beta(working) if p else working
    # What was sampled is the SD of the whitened rows; σ is that where the variance ratio is 1.
    shift = np.array([rows.shift(e) for e in eta])
    natural = Natural(beta, sd, factor, sigma * np.exp(-shift), working, mean, covariance)
    if not summed:
        return natural, b, None
    return natural, None, (first, np.sqrt(np.maximum(second - first**2, 0.0)))


def _whitened(rows: ResidualRows, eta: FloatArray) -> Whitened:
    whitened = rows.whiten(eta)
    if whitened is None:
        received = "a draw of the residual parameters at the edge of their range"
        reason = "its residual covariance is not positive definite in floating point"
        remedy = "use a prior that keeps away from the edge: hl.Priors(residual={...})"
        raise DataError(received, reason, remedy, "docs, page 'Residual structures'")
    return whitened
